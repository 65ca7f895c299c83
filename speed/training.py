"""What a training step costs, beside sentence-transformers' trainer and a plain loop.

    python -m speed.training [--quick] [--threads 2] [--only sentences-64 ...] [--profile]
    python -m speed.training --device cuda [--seconds 360]   batches of 256 and 1,024 pairs, in bf16

All three start from the same weights and see the same batches of one schedule, without dropout,
with the same precision (fp32 on a CPU), fused AdamW, clipping, maximum length and number of
threads; so their losses agree, and the largest difference over the run is printed. Texts and
weights are made up: words of four languages by Zipf's law, texts about as long as XQuAD's, a
Unigram tokenizer of the size of XLM-R's vocabulary, encoders of MiniLM's and XLM-R-base's shape
with random weights.

ours       lib.trainer.train, nothing saved on the way
peer       SentenceTransformerTrainer with HybridBatchSampler and MultipleNegativesRankingLoss; no
           logging, saving or progress bar (without sentence-transformers it is left out, aloud)
plain      two padded forwards of a `transformers` model in a loop

In a round all take their turn, in changing order, each training the whole run from the start; the
first WARM steps of a turn are not counted. On a CPU each turn is a process of its own, so that
never two are in memory; with a GPU each trainer has one process for all of its turns, which gives
the GPU's memory back after each, and the plain loop is left out, to save time.
Step: from the end of one update to the end of the next, read off torch's optimizer in all three
alike (where there is a GPU all wait for it then), so that batch, tokens and whatever a trainer does
between steps are in it. start_s: to the end of the first update, imports and loading included where
the process is new. ratio: of the median step to ours in the same round, median over rounds, with
the lowest and highest round. tokens_s: real tokens (no padding) a second. peak: memory of the
process (Linux), and what torch allocated at most on the GPU. Who runs out of memory is out of the
regime, aloud; in regimes named chunk-N at most N texts are in memory, in the other trainer by
CachedMultipleNegativesRankingLoss. utilisation: floating-point operations of the encoder's layers
(lib.training.cost) in a median step, against a large matrix product in the same process. With
--profile each also says where its time goes, in a turn of its own. The last line is one line of
JSON.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import NamedTuple

import numpy as np
import pandas as pd

from lib import store
from lib.corpus import ParallelCorpus
from lib.params import Train
from lib.sampler import Schedule
from lib.sources.assemble import corpus_of_rows
from lib.training import cost

WARM = {"cpu": 1, "cuda": 4}
LANGUAGES, TEMPERATURE, RATE = ("de", "en", "th", "zh"), 0.05, 2e-5
BLOCK = 100_000
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")


@dataclass(frozen=True)
class Shape:
    """Size of an encoder; its inner layers are four times its width."""

    layers: int
    width: int
    heads: int
    vocabulary: int


@dataclass(frozen=True)
class Texts:
    """Median words (a token each) of questions and passages, lognormal; pairs; and where texts are
    cut, in tokens."""

    question: int
    passage: int
    pairs: int
    max_length: int


SHAPES = {
    "toy": Shape(2, 32, 2, 2_000),
    "small": Shape(6, 384, 12, 250_002),
    "small12": Shape(12, 384, 12, 250_002),
    "base": Shape(12, 768, 12, 250_002),
}
TEXTS = {
    "short": Texts(6, 10, 100, 32),
    "sentences": Texts(15, 35, 3_000, 128),
    "paragraphs": Texts(15, 170, 3_000, 256),
}


@dataclass(frozen=True)
class Regime:
    """One line of the comparison; a turn has WARM steps more than `steps`. chunk: texts in memory
    at a time, 0: all."""

    texts: str
    batch: int
    shape: str = "small"
    steps: int = 6
    rounds: int = 2
    chunk: int = 0

    @property
    def name(self) -> str:
        shape = "" if self.shape == "small" else f"-{self.shape}"
        return f"{self.texts}-{self.batch}{shape}" + (f"-chunk-{self.chunk}" if self.chunk else "")


QUICK = [Regime("short", 8, "toy", 4, 1)]
FULL = [
    Regime("sentences", 64, rounds=3),
    Regime("paragraphs", 64, steps=3, rounds=3),
    Regime("sentences", 32),
    Regime("sentences", 256, steps=3),
    Regime("paragraphs", 32, steps=3),
    Regime("paragraphs", 256, steps=1),
    Regime("sentences", 32, "base", 2),
    Regime("paragraphs", 32, "base", 1),
]
GPU = [
    Regime("sentences", 256, "base", 20, 5),
    Regime("sentences", 1024, "base", 10, 5),
    Regime("paragraphs", 256, "base", 10, 5),
    Regime("paragraphs", 1024, "base", 6, 5, chunk=256),
    Regime("sentences", 256, "small12", 20, 5),
    Regime("paragraphs", 1024, "base", 6, 5),
]


# ---- the input ----


def words_of(size: int) -> list[str]:
    """Made-up words, distinct, common ones first; fewer are the first of more."""
    rng = np.random.default_rng(0)
    syllables = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]
    found: dict[str, None] = {}
    while len(found) < size:
        length = 1 + rng.integers(0, 4, BLOCK)
        parts = rng.integers(0, len(syllables), (BLOCK, 4))
        found.update(
            ("".join(syllables[i] for i in row[:n]), None)
            for row, n in zip(parts, length, strict=True)
        )
    return list(found)[:size]


def save_model(shape: Shape, folder: Path) -> None:
    """A checkpoint of random weights with a Unigram tokenizer that knows every word."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaModel
    from transformers.utils import logging

    letters = ["\u2581", *"abcdefghijklmnopqrstuvwxyz"]
    words = words_of(shape.vocabulary - len(SPECIAL) - len(letters))
    pieces = [(token, 0.0) for token in SPECIAL] + [(letter, -20.0) for letter in letters]
    pieces += [(f"\u2581{word}", -np.log(i + 2.0)) for i, word in enumerate(words)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=SPECIAL.index("<unk>")))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    names = ("bos_token", "pad_token", "eos_token", "unk_token", "mask_token")
    special = dict(zip(names, SPECIAL, strict=True)) | {"cls_token": "<s>", "sep_token": "</s>"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=512, **special)
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = XLMRobertaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=4 * shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        max_position_embeddings=514,
        type_vocab_size=1,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    logging.disable_progress_bar()
    XLMRobertaModel(config, add_pooling_layer=False).save_pretrained(folder)


def save_corpus(texts: Texts, vocabulary: int, folder: Path) -> None:
    """Pairs in every language; languages share no words but by chance."""
    rng, words = np.random.default_rng(1), np.array(words_of(vocabulary - 100))
    rows = []
    for language in LANGUAGES:
        own = rng.permutation(len(words))[: len(words) // 5]
        chance = 1 / (np.arange(len(own)) + 2.0)
        until = np.cumsum(chance / chance.sum())
        for pair in range(texts.pairs):
            sides = {}
            for side in ("question", "passage"):
                length = max(2, round(getattr(texts, side) * rng.lognormal(0, 0.4)))
                drawn = np.searchsorted(until, rng.random(length)).clip(max=len(own) - 1)
                sides[side] = " ".join(words[own[drawn]])
            key = f"{pair:06}"
            same = {"pair": key, "passage_id": key, "group": key, "source": "made up"}
            rows.append(same | sides | {"language": language})
    corpus = corpus_of_rows(rows, {})
    with store.atomic_folder(folder, corpus.meta) as new:
        corpus.save(new)


class Job(NamedTuple):
    """What a process is asked to do: train `steps` steps of `batch` rows in `out`."""

    model: Path
    corpus: Path
    out: Path
    batch: int
    steps: int
    max_length: int
    threads: int
    device: str
    chunk: int

    @property
    def precision(self) -> str:
        return "bf16" if self.device == "cuda" else "fp32"

    @property
    def params(self) -> Train:
        return Train(
            model=str(self.model),
            batch_size=self.batch,
            steps=self.steps,
            max_length=self.max_length,
            threads=self.threads,
            temperature=TEMPERATURE,
            learning_rate=RATE,
            schedule="constant",
            warmup=0,
            checkpoint_every=10**9,
            log_every=10**9,
            device=self.device,
            precision=self.precision,
            chunk=self.chunk,
        )

    def matmul_rate(self) -> float:
        """Of this process, at this precision."""
        import torch

        kind = torch.bfloat16 if self.precision == "bf16" else torch.float32
        return cost.matmul_rate(torch.device(self.device), kind)

    def schedule(self, corpus: ParallelCorpus) -> Schedule:
        return Schedule(
            corpus.index, "hybrid", alpha=0.5, batch_size=self.batch, steps=self.steps, seed=0
        )

    def tokens(self) -> list[int]:
        """Real tokens of each batch, special ones included."""
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(self.model)
        corpus = ParallelCorpus.load(self.corpus)
        return [
            sum(map(len, tokenizer(side, truncation=True, max_length=self.max_length).input_ids))
            for pair in texts_of(corpus, self.schedule(corpus))
            for side in [pair[0] + pair[1]]
        ]


def texts_of(corpus: ParallelCorpus, schedule: Schedule):
    """(questions, passages) of each batch, lists of texts."""
    sides = {side: corpus.rows[side][:] for side in ("question", "passage")}
    for batch in schedule:
        asked = corpus.index.rows(batch.pair, batch.question_language)
        answered = corpus.index.rows(batch.pair, batch.passage_language)
        yield [sides["question"][i] for i in asked], [sides["passage"][i] for i in answered]


# ---- those who train: each gives the loss of every step ----


def ours(job: Job) -> list[float]:
    """This project's trainer."""
    from lib.trainer import train

    return train(ParallelCorpus.load(job.corpus), job.params, job.out).log["loss"].tolist()


def plain(job: Job) -> list[float]:
    """What one would write down first."""
    import torch
    import torch.nn.functional as F
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(job.model)
    model = AutoModel.from_pretrained(job.model, add_pooling_layer=False).to(job.device).train()
    optimizer = torch.optim.AdamW(decayed(model), lr=RATE, fused=True)

    def vectors(texts: list[str]) -> torch.Tensor:
        cut = {"truncation": True, "max_length": job.max_length}
        found = tokenizer(texts, padding=True, return_tensors="pt", **cut).to(job.device)
        with torch.autocast(job.device, torch.bfloat16, enabled=job.precision == "bf16"):
            hidden = model(**found).last_hidden_state.float()
        mask = found["attention_mask"][:, :, None].float()
        return F.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)

    corpus, losses = ParallelCorpus.load(job.corpus), []
    for asked, answered in texts_of(corpus, job.schedule(corpus)):
        optimizer.zero_grad()
        scores = vectors(asked) @ vectors(answered).T / TEMPERATURE
        loss = F.cross_entropy(scores, torch.arange(len(scores), device=job.device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), job.params.clip)
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses).tolist()


def decayed(model) -> list[dict]:
    """Parameter groups: weight decay on matrices only."""
    weights = list(model.parameters())
    return [
        {"params": [p for p in weights if p.ndim > 1], "weight_decay": 0.01},
        {"params": [p for p in weights if p.ndim <= 1], "weight_decay": 0.0},
    ]


def peer(job: Job) -> list[float]:
    """SentenceTransformerTrainer."""
    import sentence_transformers as st
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer import losses
    from sentence_transformers.sentence_transformer.modules import Pooling

    from lib.bridges.sentence_transformers import HybridBatchSampler, scheduled

    values, cached = [], {"mini_batch_size": job.chunk} if job.chunk else {}
    kind = f"{'Cached' if cached else ''}MultipleNegativesRankingLoss"

    class Loss(getattr(losses, kind)):
        def forward(self, *given):
            value = super().forward(*given)
            values.append(value.detach())
            return value

    body = Transformer(str(job.model), max_seq_length=job.max_length)
    pooling = Pooling(body.get_embedding_dimension())
    model = st.SentenceTransformer(modules=[body, pooling], device=job.device)
    args = st.SentenceTransformerTrainingArguments(
        str(job.out),
        num_train_epochs=1,
        per_device_train_batch_size=job.batch,
        batch_sampler=HybridBatchSampler,
        learning_rate=RATE,
        lr_scheduler_type="constant",
        weight_decay=0.01,
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
    loss = Loss(model, scale=1 / TEMPERATURE, **cached)
    st.SentenceTransformerTrainer(model, args, rows, loss=loss).train()
    return [float(value) for value in values]


Trainer = Callable[[Job], list[float]]
TRAINERS = {f.__name__: f for f in (ours, peer, plain)}


# ---- processes ----


class Turn(NamedTuple):
    """One run: seconds of the counted steps, losses of all, seconds to the first update, MiB of the
    process so far and of the GPU, and what a matrix product reaches right after it, in operations a
    second."""

    seconds: np.ndarray
    losses: list[float]
    start: float
    peak: float
    gpu: float
    rate: float


def worker(pipe, name: str, threads: int) -> None:
    """Train as often as asked and send what was found; what trainers print is of no interest."""
    import torch
    from torch.optim.optimizer import register_optimizer_step_post_hook
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    torch.set_num_threads(threads)
    ends = []

    def updated(*_):
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        ends.append(perf_counter())

    register_optimizer_step_post_hook(updated)
    sys.stdout = open(os.devnull, "w")
    while asked := _next(pipe):
        job, profile = asked
        ends[:] = [perf_counter()]
        pipe.send((profiled if profile else timed)(TRAINERS[name], job, ends))
        gc.collect()
        torch.cuda.empty_cache()


def _next(pipe) -> tuple | None:
    """What is asked for; None where nobody asks any more."""
    try:
        return pipe.recv()
    except EOFError:
        return None


def timed(trainer: Trainer, job: Job, ends: list[float]) -> Turn:
    """`ends` holds the start; the trainer's updates add when they end."""
    import torch

    if job.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    losses = trainer(job)
    peak = int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024
    gpu = torch.cuda.max_memory_allocated() / 2**20 if job.device == "cuda" else 0.0
    seconds = np.diff(ends)
    if len(seconds) != job.steps:
        raise RuntimeError(f"{len(seconds)} updates were seen, expected {job.steps}")
    counted, first = seconds[WARM[job.device] :], float(seconds[0])
    return Turn(counted, losses, first, peak, gpu, job.matmul_rate())


def profiled(trainer: Trainer, job: Job, _) -> list[dict]:
    """The ten operations that take most time of their own, in percent of all: of a GPU's kernels,
    where there is one."""
    import torch

    with torch.profiler.profile() as profile:
        trainer(job)
    spent = {e.key: e.self_cpu_time_total for e in profile.key_averages()}
    if job.device == "cuda":
        kernels = [e for e in profile.key_averages() if str(e.device_type).endswith("CUDA")]
        spent = {e.key: e.self_device_time_total for e in kernels}
    total = sum(spent.values())
    return [
        {"operation": key[:100], "percent": round(100 * spent[key] / total, 1)}
        for key in sorted(spent, key=spent.get, reverse=True)[:10]
    ]


class Team:
    """A process for each trainer, which ends after a turn, or stays for the next."""

    def __init__(self, threads: int, stay: bool):
        self.threads, self.stay, self.members = threads, stay, {}

    def turn(self, name: str, job: Job, profile: bool = False) -> Turn | list[dict]:
        """What a trainer finds. Raises MemoryError where its process ends: memory was short."""
        pipe, process = self.members.pop(name, None) or self._start(name)
        try:
            pipe.send((job, profile))
            found = pipe.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise MemoryError(f"{name}: its process ended before it was done") from None
        finally:
            shutil.rmtree(job.out, ignore_errors=True)
        if self.stay:
            self.members[name] = pipe, process
        else:
            pipe.send(None)
            process.join()
        return found

    def _start(self, name: str):
        limits = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
        os.environ.update(dict.fromkeys(limits, str(self.threads)))
        context = get_context("spawn")
        here, there = context.Pipe()
        process = context.Process(target=worker, args=(there, name, self.threads), daemon=True)
        process.start()
        there.close()  # a worker that dies then ends recv() instead of leaving it to wait
        return here, process


def compare(
    regime: Regime, job: Job, names: list[str], team: Team, until: float, profile: bool
) -> list[dict]:
    """Rows of a regime; profiles are made in turns of their own, since they slow steps down. No
    round but the first begins after `until`."""
    turns, failed = {name: [] for name in names}, {}
    for number in range(regime.rounds):
        if number and perf_counter() > until:
            break
        for name in names[number % len(names) :] + names[: number % len(names)]:
            try:
                turns[name] += [] if name in failed else [team.turn(name, job)]
            except MemoryError as error:
                failed[name] = {"regime": regime.name, "trainer": name, "failed": str(error)}
    well = [name for name in names if name not in failed]
    profiles = {name: team.turn(name, job, True) for name in well} if profile else {}
    tokens = float(np.mean(job.tokens()[WARM[job.device] :]))
    return [
        failed.get(name)
        or row(regime, name, turns[name], turns["ours"], tokens) | {"profile": profiles.get(name)}
        for name in names
    ]


def row(regime: Regime, name: str, turns: list[Turn], ours: list[Turn], tokens: float) -> dict:
    """Figures of one trainer, ratios being to ours of the same round; tokens: of a mean step."""
    shape = SHAPES[regime.shape]
    weights = shape.layers * (12 * shape.width**2 + 13 * shape.width)  # a layer's matrices, biases
    steps = np.concatenate([turn.seconds for turn in turns])
    both = list(zip(turns, ours, strict=False))  # none where ours has failed
    ratios = [np.median(turn.seconds) / np.median(our.seconds) for turn, our in both]
    return {
        "regime": regime.name,
        "trainer": name,
        "step_ms": round(1000 * float(np.median(steps)), 1),
        "ratio": round(float(np.median(ratios)), 3) if both else None,
        "ratio_low": round(float(min(ratios)), 3) if both else None,
        "ratio_high": round(float(max(ratios)), 3) if both else None,
        "rounds": len(turns),
        "tokens_s": round(tokens / float(np.mean(steps))),
        "start_s": round(float(np.median([turn.start for turn in turns])), 2),
        "peak_mib": round(max(turn.peak for turn in turns)),
        "gpu_mib": round(max(turn.gpu for turn in turns)),
        "utilisation": round(
            6 * weights * tokens / float(np.median(steps)) / max(turn.rate for turn in turns), 3
        ),
        "loss_difference": max(
            (float(np.abs(np.subtract(turn.losses, our.losses)).max()) for turn, our in both),
            default=None,
        ),
        "last_loss": round(turns[0].losses[-1], 4),
    }


# ---- the report ----


def prepared(regime: Regime, folder: Path, threads: int, device: str) -> Job:
    """The regime's job; model and corpus are made where an earlier regime has not."""
    shape, texts = SHAPES[regime.shape], TEXTS[regime.texts]
    model, corpus = folder / regime.shape, folder / f"{regime.texts}-{shape.vocabulary}"
    if not model.exists():
        save_model(shape, model)
    if not corpus.exists():
        save_corpus(texts, shape.vocabulary, corpus)
    steps = regime.steps + WARM[device]
    out, length = folder / "out", texts.max_length
    return Job(model, corpus, out, regime.batch, steps, length, threads, device, regime.chunk)


def options() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one toy regime")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--only", nargs="+", choices=[r.name for r in FULL + GPU], help="regimes")
    parser.add_argument("--seconds", type=float, default=math.inf, help="then no more rounds begin")
    parser.add_argument("--profile", action="store_true", help="say where the time goes")
    return parser.parse_args()


def card(device: str) -> str:
    """A GPU's name, or cpu."""
    import torch

    return torch.cuda.get_device_name() if device == "cuda" else device


def show(found: list[dict]) -> None:
    """Rows of a regime as tables, profiles apart."""
    table = pd.DataFrame(found).drop(columns="profile", errors="ignore")
    print(table.to_string(index=False), flush=True)
    for one in found:
        if one.get("profile"):
            print(pd.DataFrame(one["profile"]).to_string(index=False), flush=True)


def main() -> None:
    """Print rows as they come, then the JSON."""
    given, rows, begin = options(), [], perf_counter()
    os.environ["TQDM_DISABLE"] = "1"
    missing = [name for name in ("sentence_transformers", "accelerate") if not find_spec(name)]
    if missing:
        print(f"not installed: {', '.join(missing)}; compared with a plain loop alone")
    cuda = given.device == "cuda"
    left_out = ["peer"] if missing else ["plain"] if cuda else []
    names = [name for name in TRAINERS if name not in left_out]
    team, until = Team(given.threads, stay=cuda), begin + given.seconds
    with TemporaryDirectory() as place:
        for regime in QUICK if given.quick else GPU if cuda else FULL:
            late = perf_counter() > until
            if late or given.only and regime.name not in given.only:
                print(f"{regime.name}: no time was left") if late else None
                continue
            job = prepared(regime, Path(place), given.threads, given.device)
            rows += (found := compare(regime, job, names, team, until, given.profile))
            show(found)
    packages = ("torch", "transformers") + (() if missing else ("sentence-transformers",))
    versions = {name: version(name) for name in packages}
    shown = {"speed": "training", "device": card(given.device), "threads": given.threads}
    shown |= {"versions": versions}
    print(json.dumps(shown | {"rows": rows}))


if __name__ == "__main__":
    main()
