"""The training loop: same parameters, same bits, also when killed at any moment and run again.

A step is a pure function of weights, optimizer state and step number: the batch comes from the
stateless schedule, the learning rate from a formula and dropout's random numbers from
(seed, step). So a checkpoint holds tensors and a few numbers, and nothing has to be replayed.
"""

from __future__ import annotations

import io
import math
import os
import re
import shutil
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from lib import cost, ranks, store
from lib.benchmarks import heldout
from lib.cost import Cost
from lib.encoder import Encoder, build, on_device, pick_device
from lib.losses import info_nce
from lib.sampler import Batch, Schedule, exposure
from lib.tokens import SIDES, tokenized
from lib.validation import validate

if TYPE_CHECKING:
    from lib.corpus import PairIndex, ParallelCorpus
    from lib.params import Train

MOMENTS = ("exp_avg", "exp_avg_sq")
# Steps whose losses are read together: each time waits for a GPU.
UNREAD = {"cpu": 1, "cuda": 50}


class Diverged(ArithmeticError):
    """The loss or its gradient is not a finite number."""


class LogRow(NamedTuple):
    """One step, as train_log.parquet has it, but for `seconds`: times are kept apart.

    gradient_norm  before clipping
    batch          CRC-32 of the batch's pairs, languages and negatives, to compare two runs by
    """

    step: int
    kind: str
    loss: float
    learning_rate: float
    gradient_norm: float
    batch: int
    seconds: float


class Launched(NamedTuple):
    """A step whose loss nobody has looked at, which would wait for a GPU."""

    step: int
    kind: str
    batch: int
    rate: float
    loss: torch.Tensor
    norm: torch.Tensor
    begin: float | torch.cuda.Event
    end: float | torch.cuda.Event


@dataclass(frozen=True)
class TrainResult:
    """A finished run, read from its folder.

    log         one row a step: LogRow's columns, `seconds` among them
    validation  step, mAP by setting and `map`, their mean; empty without validate_every
    cost        seconds, cpu_seconds, pairs_per_second, tokens, padded_share, flops, …
    exposure    what all steps showed the encoder; "languages" holds one dict a language
    """

    folder: Path
    log: pd.DataFrame
    validation: pd.DataFrame
    cost: dict
    exposure: dict

    @classmethod
    def read(cls, folder: Path) -> TrainResult:
        log = pd.read_parquet(folder / "train_log.parquet")
        seconds = pd.read_parquet(folder / "train_time.parquet")["seconds"]
        return cls(
            folder,
            log.assign(seconds=seconds),
            pd.DataFrame(store.read_json(folder / "validation.json")),
            store.read_json(folder / "cost.json"),
            store.read_json(folder / "exposure.json"),
        )

    @cached_property
    def encoder(self) -> Encoder:
        """The trained encoder. Raises store.Damaged where its files were altered."""
        return Encoder.load(self.folder / "model")


def train(corpus: ParallelCorpus, params: Train, folder: Path) -> TrainResult:
    """Train as `params` says into `folder`, going on from the newest valid checkpoint there.

    params.ranks processes are started for it. Where torchrun or accelerate launched this process,
    or it is in a torch.distributed group, all of its group call this and none are started.

    folder/model/ marks a finished run, which is only read. Raises ValueError in one line for
    parameters or corpus that differ from those of what is there, for a checkpoint without
    optimizer state, and for what schedule or encoder refuse; Diverged where training fails,
    MemoryError where memory does not suffice, OSError where a checkpoint cannot be written."""
    folder, identity = Path(folder), _identity(corpus, params)
    ranks.join(identity["device"])
    if not _is_finished(folder / "model", identity):
        if params.ranks > ranks.world() == 1:
            ranks.start(params.ranks, identity["device"], _train, corpus, params, folder, identity)
        else:
            _train(corpus, params, folder, identity)
    return TrainResult.read(folder)


def _train(corpus: ParallelCorpus, params: Train, folder: Path, identity: dict) -> None:
    """The work of one rank, of which the first does the talking."""
    with redirect_stdout(io.StringIO()) if ranks.rank() else nullcontext():
        with _reproducible(params.threads, identity["device"]):
            _Run(corpus, params, folder, identity).finish()


def schedule(index: PairIndex, params: Train) -> Schedule:
    """The batches of the run that `params` describes."""
    return Schedule(
        index,
        params.strategy,
        alpha=params.alpha,
        batch_size=params.batch_size,
        steps=params.steps,
        seed=params.seed,
        explicit=params.explicit,
        language_power=params.language_power,
    )


def learning_rate(params: Train, step: int) -> float:
    """Rate of step 0, 1, …: rises linearly over the first round(warmup * steps) steps to its peak,
    then falls to zero just after the last step (linear, cosine) or stays (constant)."""
    rising = round(params.warmup * params.steps)
    if step < rising:
        return params.learning_rate * (step + 1) / rising
    if params.schedule == "constant":
        return params.learning_rate
    done = (step - rising) / (params.steps - rising)
    left = 1 - done if params.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
    return params.learning_rate * left


def adamw(encoder: torch.nn.Module, params: Train) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only: biases and layer norms are vectors.

    The fused kernel is deterministic, and on a CPU three times as fast as the others."""
    weights = [p for p in encoder.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in weights if p.ndim > 1], "weight_decay": params.weight_decay},
        {"params": [p for p in weights if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=params.learning_rate, fused=True)


def _shrunk(params: Train, steps: int) -> float:
    """What the weight decay of so many steps multiplies a weight by that never has a gradient."""
    rates = (learning_rate(params, step) for step in range(steps))
    return math.prod(1 - rate * params.weight_decay for rate in rates)


class _Run:
    """State of a run in progress: `at` is the next step; all else is as before that step.

    Every rank has its own, with the same weights; only the first one writes.

    launched     steps done since the log was last written up
    validations  what `validate` found, with the step
    best         the weights of the best validation, on the first rank
    """

    def __init__(self, corpus, params: Train, folder: Path, identity: dict):
        self.params, self.folder, self.identity = params, folder, identity
        self.index = corpus.index
        self.schedule = schedule(corpus.index, params)
        self.dev = heldout.dev(corpus) if params.validate_every else None
        self.encoder = build(params, corpus.tokenizer_file)
        self.texts = tokenized(corpus, self.encoder)
        self.encoder.train_only(self._used_words())
        self.device = torch.device(pick_device(params.device))
        self.encoder.to(self.device).train()
        if params.compile:
            self.encoder.model.compile(dynamic=True)
        self.optimizer = adamw(self.encoder, params)
        self.at, self.log, self.launched = 0, [], []
        self.validations, self.best = [], {}
        self.tokens = np.zeros((len(SIDES), len(self.index.languages)), np.int64)
        self.tokens_before = np.zeros_like(self.tokens)
        self.before, self.clock = Cost(), (time.perf_counter(), time.process_time())
        self.validating = 0.0
        self._resume()

    def finish(self) -> None:
        """Train to the end and write the results, the encoder last."""
        pace, p = _Pace(self.at, self.params), self.params
        while self.at < p.steps and not self._stopped():
            self.launched.append(self._step())
            self.at += 1
            unread = UNREAD[self.device.type]
            if self._at_every(p.checkpoint_every, p.log_every, p.validate_every, unread):
                self._write_log()
            if self.dev and self._at_every(p.validate_every):
                self._validate()
            if self._at_every(p.checkpoint_every) and self.at < p.steps:
                self._save()
            pace.tell(self.at, self.log)
        if self.at < p.steps:
            best = self._best()["step"]
            print(f"stopped after step {self.at}: no better validation since step {best}")
        self._write_results()

    def _at_every(self, *steps: int) -> bool:
        """Whether so many steps are done, or a multiple, or all."""
        return self.at == self.params.steps or any(n and self.at % n == 0 for n in steps)

    def _step(self) -> Launched:
        """One update; batch -> vectors -> loss -> gradient -> clipping -> AdamW."""
        begin, batch = cost.mark(self.device), self.schedule.batch(self.at)
        torch.manual_seed(_dropout_seed(self.params.seed, self.at, ranks.rank()))
        rate = learning_rate(self.params, self.at)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad()
        with self._memory():
            loss = self._loss(batch)
            loss.backward()
        ranks.add_up(self.encoder.parameters())
        norm = torch.nn.utils.clip_grad_norm_(self.encoder.parameters(), self.params.clip)
        self.optimizer.step()
        end, number = cost.mark(self.device), _crc32(batch)
        return Launched(self.at, batch.kind, number, rate, loss.detach(), norm, begin, end)

    def _write_log(self) -> None:
        """Take the launched steps into the log. Raises Diverged at the first that went wrong."""
        values = [torch.stack([step.loss, step.norm]) for step in self.launched]
        for step, (loss, norm) in zip(self.launched, torch.stack(values).tolist(), strict=True):
            self._require_finite(step.step, loss, norm)
            seconds = cost.seconds_between(step.begin, step.end)
            self.log.append(
                LogRow(step.step, step.kind, loss, step.rate, norm, step.batch, seconds)
            )
        self.launched.clear()

    # --- validation ----------------------------------------------------------------------------

    def _validate(self) -> None:
        """Evaluate on the questions set aside; the best weights so far are kept."""
        start = time.perf_counter()
        found = None if ranks.rank() else validate(self.encoder, self.dev)
        self.validations.append({"step": self.at} | ranks.collected(found)[0])
        if self._best() is self.validations[-1] and not ranks.rank():
            self.best = {
                name: p.detach().to("cpu", copy=True) for name, p in self.encoder.named_parameters()
            }
        self.validating += time.perf_counter() - start

    def _best(self) -> dict:
        """The first of the best validations."""
        return max(self.validations, key=lambda found: found["map"])

    def _stopped(self) -> bool:
        """Whether `patience` validations in a row were no better than the best before them."""
        patience = self.params.patience
        return 0 < patience < len(self.validations) and (
            self._best() not in self.validations[-patience:]
        )

    # --- a batch -------------------------------------------------------------------------------

    def _loss(self, batch: Batch) -> torch.Tensor:
        """That of the whole batch; see lib.losses for the layout."""
        vectors = ranks.gathered(self._vectors(batch.part(ranks.rank(), ranks.world())))
        hard = batch.negatives.shape[1]
        size = vectors.shape[1] // (2 + hard)
        question, passage, negative = (
            part.flatten(0, 1) for part in vectors.split([size, size, size * hard], dim=1)
        )
        return info_nce(
            question,
            passage,
            self.params.temperature,
            mode=self.params.negatives,
            symmetric=self.params.symmetric,
            **(self._hard(batch, negative) if hard else {}),
        )

    def _vectors(self, batch: Batch) -> torch.Tensor:
        """[B * (2 + H), d]: questions, passages and negatives of a batch, embedded together."""
        hard = batch.negatives.shape[1]
        language = np.concatenate([batch.passage_language, np.repeat(batch.passage_language, hard)])
        pair = np.concatenate([batch.pair, batch.negatives.ravel()])
        questions = self._tokens("question", batch.pair, batch.question_language)
        passages = self._tokens("passage", pair, language)
        self._count(0, batch.question_language, questions)
        self._count(1, language, passages)
        half = self.params.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            return self.encoder.embed(questions + passages, self.params.chunk)

    def _used_words(self) -> np.ndarray:
        """Tokens, int64, of all texts that are trained on or validated with."""
        found = [self.texts.used]
        if self.dev:
            found += self.encoder.tokenize(list(self.dev.questions["text"]), "question")
            found += self.encoder.tokenize(list(self.dev.candidates["text"]), "passage")
        return np.unique(np.concatenate(found))

    def _tokens(self, side: str, pair: np.ndarray, language: np.ndarray) -> list[np.ndarray]:
        return self.texts.take(side, self.index.rows(pair, language))

    def _hard(self, batch: Batch, negative: torch.Tensor) -> dict:
        """Arguments of the loss that explicit negatives add."""
        group = self.index.group
        return {
            "negatives": negative.unflatten(0, batch.negatives.shape),
            "question_group": on_device(self.device, group[batch.pair]),
            "negative_group": on_device(self.device, group[batch.negatives]),
        }

    def _count(self, side: int, language: np.ndarray, token_lists: list[np.ndarray]) -> None:
        np.add.at(self.tokens[side], language, [len(tokens) for tokens in token_lists])

    @contextmanager
    def _memory(self) -> Iterator[None]:
        """Raises MemoryError that says what to lower, where memory runs out inside."""
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            known = isinstance(error, MemoryError | torch.OutOfMemoryError)
            if not known and "can't allocate memory" not in str(error):  # torch's words for a CPU
                raise
            p = self.params
            raise MemoryError(
                f"step {self.at}: out of memory with batch_size={p.batch_size}, chunk={p.chunk}, "
                f"max_length={p.max_length}; set chunk (texts in memory at a time; 0: all), "
                "or lower it, then batch_size or max_length"
            ) from error

    def _require_finite(self, step: int, loss: float, norm: float) -> None:
        """Raises Diverged; weights of later steps are nowhere written."""
        if not (math.isfinite(loss) and math.isfinite(norm)):
            pairs = ", ".join(map(str, self.schedule.batch(step).pair.tolist()))
            raise Diverged(
                f"step {step}, seed {self.params.seed}: loss {loss}, gradient norm "
                f"{norm}; lower learning_rate or raise temperature (pairs {pairs})"
            )

    # --- checkpoints ---------------------------------------------------------------------------

    def _save(self) -> None:
        """Write a checkpoint, and only then drop older ones."""
        tokens, spent = self._totals()
        if ranks.rank():
            return
        place = self.folder / "checkpoints" / f"step-{self.at:06d}"
        state = {
            "step": self.at,
            "tokens": tokens.tolist(),
            "cost": asdict(spent),
            "validations": self.validations,
        }
        try:
            with store.atomic_folder(place, {"identity": self.identity}) as new:
                self._fill(new, state)
        except (OSError, SafetensorError) as error:
            raise OSError(f"{place}: not written ({error}); older ones are as they were") from error
        self._prune()

    def _fill(self, new: Path, state: dict) -> None:
        """Write the files of a checkpoint."""
        save_file(dict(self.encoder.named_parameters()), new / "model.safetensors")
        save_file(self._moments(), new / "optimizer.safetensors")
        if self.best:
            save_file(self.best, new / "best.safetensors")
        pd.DataFrame(self.log, columns=LogRow._fields).to_parquet(new / "log.parquet")
        store.write_json(new / "state.json", state)

    def _prune(self) -> None:
        """Keep the newest checkpoints; those of later steps were found damaged."""
        found = _checkpoints(self.folder)
        kept = [step for step in found if step <= self.at][: self.params.keep_checkpoints]
        for place in (*(found[step] for step in found.keys() - kept), *_leftovers(self.folder)):
            shutil.rmtree(place)

    def _moments(self) -> dict[str, torch.Tensor]:
        """AdamW's tensors by parameter and name."""
        return {
            f"{name}.{moment}": self.optimizer.state[p].get(moment, torch.zeros_like(p))
            for name, p in self.encoder.named_parameters()
            for moment in MOMENTS
        }

    def _resume(self) -> None:
        """Take over the newest valid checkpoint, if there is one; the first rank says which."""
        found = ranks.collected(None if ranks.rank() else _newest(self.folder))[0]
        if found is None:
            return
        place, manifest = found
        _require_same(place, manifest, self.identity)
        if not (place / "optimizer.safetensors").is_file():
            raise ValueError(
                f"{place}: has no optimizer state, so training cannot go on from it; "
                "remove that folder"
            )
        state = store.read_json(place / "state.json")
        self._load_tensors(place, state["step"])
        log = pd.read_parquet(place / "log.parquet")
        self.log = [LogRow(*row) for row in log.itertuples(index=False)]
        self.at, self.before = state["step"], Cost(**state["cost"])
        self.tokens_before = np.array(state["tokens"], np.int64)
        self.validations = state["validations"]
        if self.validations and not ranks.rank():
            self.best = load_file(place / "best.safetensors")
        print(f"going on from step {self.at}", flush=True)

    @torch.no_grad()
    def _load_tensors(self, place: Path, step: int) -> None:
        """Copies, so that tensors lie in memory (hence add up) as they would without a stop."""
        weights = load_file(place / "model.safetensors")
        moments = load_file(place / "optimizer.safetensors")
        for name, p in self.encoder.named_parameters():
            p.copy_(weights[name])
            state = {m: torch.empty_like(p).copy_(moments[f"{name}.{m}"]) for m in MOMENTS}
            self.optimizer.state[p] = state | {"step": torch.tensor(float(step), device=p.device)}

    # --- results -------------------------------------------------------------------------------

    def _write_results(self) -> None:
        """All files of a finished run; nobody goes on before they are there."""
        tokens, spent = self._totals()
        if not ranks.rank():
            self._prune()
            self._write(tokens, spent)
        ranks.collected(None)

    @torch.no_grad()
    def _write(self, tokens: np.ndarray, spent: Cost) -> None:
        log = pd.DataFrame(self.log, columns=LogRow._fields)
        with store.atomic_file(self.folder / "train_log.parquet") as file:
            log.drop(columns="seconds").to_parquet(file)
        with store.atomic_file(self.folder / "train_time.parquet") as file:
            log[["step", "seconds"]].to_parquet(file)
        store.write_json(self.folder / "validation.json", self.validations)
        for name, p in self.encoder.named_parameters() if self.best else ():
            p.copy_(self.best[name])
        self.encoder.restore(_shrunk(self.params, self._best()["step"] if self.best else self.at))
        store.write_json(self.folder / "exposure.json", self._exposure(tokens))
        store.write_json(self.folder / "cost.json", self._cost(log, tokens, spent))
        with store.atomic_folder(self.folder / "model", {"identity": self.identity}) as new:
            self.encoder.eval().save(new)

    def _exposure(self, tokens: np.ndarray) -> dict:
        """lib.sampler.exposure with tokens, by language and in all; counts are of uses."""
        done = self.params.model_copy(update={"steps": self.at})
        table = exposure(schedule(self.index, done))
        for side, by_language in zip(SIDES, tokens, strict=True):
            table[f"{side}_tokens"] = by_language
        sums = table[["question_texts", "passage_texts", "positives", "substituted"]].sum()
        uses = int(table["question_uses"].sum())
        monolingual = (table["monolingual"] * table["question_uses"]).sum()
        return {
            "pairs": uses,
            **{name: int(value) for name, value in sums.items()},
            "monolingual": monolingual / max(1, uses),
            "tokens": int(tokens.sum()),
            "flops": cost.flops(self.encoder, int(tokens.sum())),
            "languages": table.to_dict("records"),
        }

    def _totals(self) -> tuple[np.ndarray, Cost]:
        """Tokens up to now, int64 [sides, languages], and cost: that of all ranks together, but
        seconds are the clock's and the peaks of memory those of the largest rank."""
        wall, cpu = self.clock
        mine = (self.tokens, time.process_time() - cpu, self.encoder.slots, *cost.peaks())
        tokens, cpu, slots, memory, gpu = zip(*ranks.collected(mine), strict=True)
        before = self.before
        return self.tokens_before + sum(tokens), Cost(
            before.seconds + time.perf_counter() - wall,
            before.cpu_seconds + sum(cpu),
            before.validation_seconds + self.validating,
            before.slots + sum(slots),
            max(before.peak_memory_bytes, *memory),
            max(before.peak_gpu_memory_bytes, *gpu),
            before.starts + 1,
        )

    def _cost(self, log: pd.DataFrame, by_language: np.ndarray, spent: Cost) -> dict:
        """cost.json; truncated_share is of all texts of the corpus."""
        kind = torch.bfloat16 if self.params.precision == "bf16" else torch.float32
        tokens, pairs = int(by_language.sum()), len(log) * self.params.batch_size
        done = cost.flops(self.encoder, tokens)
        rate = ranks.world() * cost.matmul_rate(self.device, kind)
        table = cost.table(spent, log["seconds"].to_numpy(), pairs, tokens, done, rate)
        return table | {
            "truncated_share": self.texts.truncated_share,
            "parameters": sum(p.numel() for p in self.encoder.parameters()),
        }


class _Pace:
    """Plain progress lines; notebooks keep every one, so there are few."""

    def __init__(self, first: int, params: Train):
        self.first, self.steps, self.every = first, params.steps, params.log_every
        self.start = time.perf_counter()

    def tell(self, done: int, log: list[LogRow]) -> None:
        """One line every log_every steps and at the end: mean loss since the last, rate, time."""
        if done % self.every and done < self.steps:
            return
        loss = np.mean([row.loss for row in log[-self.every :]])
        rate = (done - self.first) / (time.perf_counter() - self.start)
        left = round((self.steps - done) / rate)
        print(
            f"step {done}/{self.steps}  loss {loss:.3f}  {rate:.1f} steps/s  "
            f"about {left // 60}:{left % 60:02d} left",
            flush=True,
        )


# --- what makes runs comparable ----------------------------------------------------------------


def _identity(corpus: ParallelCorpus, params: Train) -> dict:
    """All that decides the numbers of a run, torch build and hardware apart."""
    values = params.model_dump(exclude={"study", "run", "corpus", *params.may_change})
    tokenizer = "" if params.model else store.sha256(corpus.tokenizer_file)
    return values | {
        "validation content": heldout.dev(corpus).digest if params.validate_every else "",
        "device": pick_device(params.device),
        "corpus content": corpus.content_hash,
        "tokenizer": tokenizer,
    }


def _require_same(place: Path, manifest: dict, identity: dict) -> None:
    """Raises ValueError if what lies in `place` was made with another identity."""
    clash = store.difference(manifest.get("identity", {}), identity)
    if clash:
        raise ValueError(f"{place}: {clash}; remove the run's folder or choose another run name")


def _is_finished(model: Path, identity: dict) -> bool:
    """Whether the run has its encoder, whole; a damaged one is named and made again."""
    try:
        manifest = store.verify(model)
    except FileNotFoundError:
        return False
    except store.Damaged as damage:
        print(f"{damage}: training it again", flush=True)
        return False
    _require_same(model, manifest, identity)
    return True


def _checkpoints(folder: Path) -> dict[int, Path]:
    """Folders of checkpoints by step, newest first."""
    found = {
        int(m[1]): p
        for p in (folder / "checkpoints").glob("step-*")
        if (m := re.fullmatch(r"step-(\d+)", p.name))
    }
    return dict(sorted(found.items(), reverse=True))


def _leftovers(folder: Path) -> list[Path]:
    """What a killed writer left of checkpoints."""
    return sorted((folder / "checkpoints").glob(".step-*.tmp"))


def _newest(folder: Path) -> tuple[Path, dict] | None:
    """The newest checkpoint that verifies and its manifest; damaged and half-written ones are
    named and skipped."""
    for left in _leftovers(folder):
        print(f"{left}: a checkpoint was left half-written here; skipped", flush=True)
    for place in _checkpoints(folder).values():
        try:
            return place, store.verify(place)
        except store.Damaged as damage:
            print(f"{damage}: skipping that checkpoint", flush=True)
    return None


@contextmanager
def _reproducible(threads: int, device: str = "cpu") -> Iterator[None]:
    """Fixed thread number, deterministic kernels and random numbers of our own, then as before.

    Filling of uninitialised memory is left off: it guards against faulty kernels and costs time."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what deterministic cuBLAS needs
    guard = torch.utils.deterministic
    before = (
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        guard.fill_uninitialized_memory,
    )
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    guard.fill_uninitialized_memory = False
    try:
        with torch.random.fork_rng([torch.cuda.current_device()] if device == "cuda" else []):
            yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])
        guard.fill_uninitialized_memory = before[2]


def _dropout_seed(seed: int, step: int, rank: int) -> int:
    """A seed of 63 bits for each (seed, step, rank)."""
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0] >> 1)


def _crc32(batch: Batch) -> int:
    parts = (batch.pair, batch.question_language, batch.passage_language, batch.negatives)
    return zlib.crc32(b"".join(np.ascontiguousarray(part).tobytes() for part in parts))
