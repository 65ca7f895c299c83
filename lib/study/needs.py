"""What the runs of a study take of memory, in words (lib.training.memory)."""

from __future__ import annotations

from lib.params import BadParameter, Train
from lib.study.grid import Study
from lib.training.memory import Needs, needs

GIB = 2**30
# Parameters that decide what a step takes.
DECIDES = (
    "model", "layers_kept", "frozen", "lora", "recompute", "width", "layers", "heads", "max_length",
    "batch_size", "explicit", "objective", "chunk", "precision", "weights", "dropout", "ranks",
    "shard",
)  # fmt: skip


def told(study: Study, memory: float) -> str:
    """Lines about each kind of training run of a study, named by its first run. memory: GiB.

    Raises BadParameter in one line where an encoder's configuration cannot be read."""
    kinds: dict[tuple, str] = {}
    for key, run in study.runs.items():
        if run.train.steps:
            kinds.setdefault(tuple(getattr(run.train, name) for name in DECIDES), key)
    if not kinds:
        raise BadParameter(f"study {study.name}: trains nothing (expected a run with steps)")
    different = f"{len(kinds)} kind{'s' * (len(kinds) > 1)} of runs"
    lines = [f"study {study.name}: {different}, in memory of {memory:.1f} GiB"]
    for key in kinds.values():
        p = study.runs[key].train
        try:
            found = needs(p, study.corpora[p.corpus].vocabulary)
        except ValueError as error:
            raise BadParameter(f"{key}: {error}") from None
        lines += [f"{_without_seed(key)}:", *_lines(p, found, memory)]
    return "\n".join(lines)


def here() -> float:
    """GiB of the GPU of this machine, or else of its memory."""
    import psutil
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_properties(0).total_memory / GIB
    return psutil.virtual_memory().total / GIB


def _without_seed(key: str) -> str:
    return ",".join(part for part in key.split(",") if not part.startswith("seed=")) or "all runs"


def _lines(p: Train, found: Needs, memory: float) -> list[str]:
    chunk = found.chunk(int(memory * GIB))
    fits = f"at most {chunk} texts at a time fit" if chunk else "not even one text fits"
    if chunk == found.texts:
        fits = f"all {chunk} texts of a {'rank' if p.ranks > 1 else 'batch'} fit at once (chunk 0)"
    parts = {"weights": found.weights, "gradients": found.gradients, "AdamW": found.moments}
    parts |= {"vectors and scores": found.batch, f"a text of {found.tokens} tokens": found.text}
    parts |= {"blocks put together": found.together} if found.together else {}
    parts |= {"frozen layers, on the CPU": found.below} if found.below else {}
    each = f"; on each of {p.ranks} ranks:" if p.ranks > 1 else ""
    return [
        f"  {found.parameters:,} parameters, {found.trainable:,} of them trained{each}",
        "  " + ", ".join(f"{name} {_size(size)}" for name, size in parts.items()),
        f"  peak {_size(found.peak(p.chunk))} at chunk {p.chunk}; {fits}",
    ]


def _size(count: int) -> str:
    """Bytes, with three digits or so."""
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / 2**20:.1f} MiB"
