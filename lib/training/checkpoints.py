"""Checkpoints: the whole state of a run, written whole or not at all, and found again."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from lib import store
from lib.encoder import Encoder
from lib.training import ranks, sharding
from lib.training.cost import Clock, Cost, seconds_between
from lib.training.validation import best_of

MOMENTS = ("exp_avg", "exp_avg_sq")
Tensors = dict[str, torch.Tensor]  # by name


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

    def row(self, loss: float, norm: float) -> LogRow:
        """That of the log, once loss and norm are known."""
        seconds = seconds_between(self.begin, self.end)
        return LogRow(self.step, self.kind, loss, self.rate, norm, self.batch, seconds)


@dataclass
class State:
    """All that steps change, and nothing else: what a checkpoint holds.

    step         the next one; all else is as before it
    validations  what `validate` gave, with the step
    best         weights of the best validation, on the first rank
    """

    encoder: Encoder
    optimizer: torch.optim.AdamW
    step: int = 0
    log: list[LogRow] = field(default_factory=list)
    validations: list[dict] = field(default_factory=list)
    best: dict[str, torch.Tensor] = field(default_factory=dict)
    clock: Clock = field(default_factory=Clock)

    def branch(self) -> State:
        """What a branch begins with: the same tensors, a log and a clock of its own."""
        return replace(self, log=[*self.log], clock=Clock())

    def trained(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """The weights that steps change, by name."""
        return ((n, p) for n, p in self.encoder.named_parameters() if p.requires_grad)

    def weights(self) -> Tensors:
        """Those that steps change, whole (lib.training.sharding)."""
        return sharding.whole(dict(self.trained()))

    def moments(self) -> Tensors:
        """AdamW's tensors by parameter and name, whole."""
        found = {
            f"{name}.{moment}": self.optimizer.state[p].get(moment, torch.zeros_like(p))
            for name, p in self.trained()
            for moment in MOMENTS
        }
        return sharding.whole(found)

    def judge(self, scores: dict[str, float]) -> None:
        """Take down a validation; the first rank keeps the weights of the best so far."""
        self.validations.append({"step": self.step} | scores)
        if best_of(self.validations) is self.validations[-1]:
            weights = self.weights()
            if not ranks.rank():
                self.best = {n: p.detach().to("cpu", copy=True) for n, p in weights.items()}

    @torch.no_grad()
    def back_to_best(self) -> int:
        """Have the weights of the best validation, where there is one; the step that they are of.
        For the first rank."""
        if not self.best:
            return self.step
        for name, p in self.trained():
            p.copy_(self.best[name])
        return best_of(self.validations)["step"]

    def log_table(self) -> pd.DataFrame:
        """One row a step, columns as LogRow."""
        return pd.DataFrame(self.log, columns=LogRow._fields)


# --- writing -----------------------------------------------------------------------------------


def save(state: State, folder: Path, identity: dict, keep: int) -> None:
    """Write a checkpoint below folder/checkpoints, and only then drop all but the `keep` latest.

    Every rank calls it, the first one writes. Raises OSError naming the checkpoint."""
    spent, tensors = state.clock.total(), (state.weights(), state.moments())
    if ranks.rank():
        return
    place = folder / "checkpoints" / f"step-{state.step:06d}"
    try:
        with store.atomic_folder(place, {"identity": identity}) as new:
            _fill(new, state, spent, *tensors)
    except (OSError, SafetensorError) as error:
        raise OSError(f"{place}: not written ({error}); older ones are as they were") from error
    prune(folder, state.step, keep)


def _fill(new: Path, state: State, spent: Cost, weights: Tensors, moments: Tensors) -> None:
    """Write the files of a checkpoint."""
    save_file(weights, new / "model.safetensors")
    save_file(moments, new / "optimizer.safetensors")
    if state.best:
        save_file(state.best, new / "best.safetensors")
    state.log_table().to_parquet(new / "log.parquet")
    numbers = {"step": state.step, "cost": asdict(spent), "validations": state.validations}
    store.write_json(new / "state.json", numbers)


def prune(folder: Path, step: int, keep: int) -> None:
    """Keep the `keep` latest checkpoints; those after `step` were found damaged, or too late."""
    folders = _by_step(folder)
    kept = [at for at in folders if at <= step][:keep]
    for place in (*(folders[at] for at in folders.keys() - kept), *_leftovers(folder)):
        shutil.rmtree(place)


# --- reading -----------------------------------------------------------------------------------


def resume(state: State, folder: Path, identity: dict, latest: float = math.inf) -> None:
    """Take over the newest valid checkpoint of at most `latest` steps, if there is one.

    Raises ValueError for one of another identity, or without optimizer state."""
    if (place := _take(state, folder, identity, latest)) is not None:
        state.clock.before = Cost(**store.read_json(place / "state.json")["cost"])
        print(f"going on from step {state.step}", flush=True)


def come_back(state: State, folder: Path, identity: dict, step: int) -> None:
    """Take over the checkpoint of `step`, with which a branch began; time went on meanwhile.

    Where it was damaged, an older one. Raises store.Damaged if there is none."""
    if _take(state, folder, identity, step) is None:
        raise store.Damaged(f"{folder / 'checkpoints'}: that of step {step} is gone or damaged")


def _take(state: State, folder: Path, identity: dict, latest: float) -> Path | None:
    """Make the state that of a checkpoint; the first rank says which."""
    newest = ranks.collected(None if ranks.rank() else _newest(folder, latest))[0]
    if newest is None:
        return None
    place, manifest = newest
    _require_same(place, manifest, identity)
    if not (place / "optimizer.safetensors").is_file():
        raise ValueError(
            f"{place}: has no optimizer state, so training cannot go on from it; remove that folder"
        )
    numbers = store.read_json(place / "state.json")
    state.step, state.validations = numbers["step"], numbers["validations"]
    _load_tensors(state, place)
    log = pd.read_parquet(place / "log.parquet")
    state.log = [LogRow(*row) for row in log.itertuples(index=False)]
    if state.validations and not ranks.rank():
        state.best = load_file(place / "best.safetensors")
    return place


@torch.no_grad()
def _load_tensors(state: State, place: Path) -> None:
    """Copies, so that tensors lie in memory (hence add up) as they would without a stop."""
    weights = load_file(place / "model.safetensors")
    moments = load_file(place / "optimizer.safetensors")
    for name, p in state.trained():
        p.copy_(sharding.part(weights[name], p))
        whole = {m: moments[f"{name}.{m}"] for m in MOMENTS}
        own = {m: torch.empty_like(p).copy_(sharding.part(x, p)) for m, x in whole.items()}
        step = torch.tensor(float(state.step), device=p.device)
        state.optimizer.state[p] = own | {"step": step}


def is_finished(model: Path, identity: dict) -> bool:
    """Whether a run has its encoder and its record, whole; what is damaged is named, to be made
    again. Raises ValueError if it was made with another identity."""
    try:
        manifest = store.verify(model)
        store.compare(model.parent, manifest["record"])
    except FileNotFoundError:
        return False
    except store.Damaged as damage:
        print(f"{damage}: training it again", flush=True)
        return False
    _require_same(model, manifest, identity)
    return True


def _require_same(place: Path, manifest: dict, identity: dict) -> None:
    """Raises ValueError if what lies in `place` was made with another identity."""
    clash = store.difference(manifest.get("identity", {}), identity)
    if clash:
        raise ValueError(f"{place}: {clash}; remove the run's folder or choose another run name")


def _newest(folder: Path, latest: float) -> tuple[Path, dict] | None:
    """The newest checkpoint of at most `latest` steps that verifies, and its manifest; damaged and
    half-written ones are named and skipped."""
    for left in _leftovers(folder):
        print(f"{left}: a checkpoint was left half-written here; skipped", flush=True)
    for step, place in _by_step(folder).items():
        if step > latest:
            continue
        try:
            return place, store.verify(place)
        except store.Damaged as damage:
            print(f"{damage}: skipping that checkpoint", flush=True)
    return None


def _by_step(folder: Path) -> dict[int, Path]:
    """Folders of checkpoints by step, newest first."""
    folders = {
        int(m[1]): p
        for p in (folder / "checkpoints").glob("step-*")
        if (m := re.fullmatch(r"step-(\d+)", p.name))
    }
    return dict(sorted(folders.items(), reverse=True))


def _leftovers(folder: Path) -> list[Path]:
    """What a killed writer left of checkpoints."""
    return sorted((folder / "checkpoints").glob(".step-*.tmp"))
