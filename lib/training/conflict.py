"""Do monolingual and cross-lingual batches pull an encoder in different directions?

At every `train.look_every` steps, before the update, the gradients of two monolingual and two
cross-lingual batches are taken at the weights of that moment, and their cosines are written to
gradients/step-*.json in the run's folder. The batches are drawn by the arms `mono` and `cross` from
a seed of their own, so they are the same for every run of a seed, and training does not see them: a
run has the same bits with and without. Two batches of one kind say how much of a cosine below 1 is
mere chance (compare Yu et al., arXiv 2001.06782, on conflicting gradients of tasks).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import pandas as pd
import torch

from lib import store
from lib.encoder import Encoder
from lib.params import Train
from lib.sampler import Batch, PairIndex, Schedule
from lib.training import ranks
from lib.training.determinism import seed_dropout

FOLDER = "gradients"
KINDS = ("mono", "mono", "cross", "cross")
NAMES = {("mono", "mono"): "mono", ("cross", "cross"): "cross", ("mono", "cross"): "mono_cross"}
ASIDE = 2**63  # added to the seed: those of runs are below


def look(
    folder: Path,
    at: int,
    p: Train,
    index: PairIndex,
    encoder: Encoder,
    loss_of: Callable[[Batch], torch.Tensor],
) -> None:
    """Write the cosines at the weights as they are, below the run's folder; gradients are none
    before and after.

    Raises ValueError where the corpus has no cross-lingual batches."""
    losses, gradients = [], []
    for number, kind in enumerate(KINDS):
        batch = batches(index, p, kind, at).batch(2 * at + number % 2)
        seed_dropout(encoder.device.type, p.seed, at, ranks.rank())
        loss = loss_of(batch)
        loss.backward()
        ranks.add_up(encoder.parameters())
        losses.append(float(loss.detach()))
        gradients.append(_flat(encoder))
        encoder.zero_grad()
    if not ranks.rank():
        found = {"step": at} | cosines(gradients)
        found |= {"mono_loss": sum(losses[:2]) / 2, "cross_loss": sum(losses[2:]) / 2}
        store.make_folder(folder / FOLDER)
        store.write_json(folder / FOLDER / f"step-{at:06d}.json", found)


def batches(index: PairIndex, p: Train, kind: str, at: int) -> Schedule:
    """Those of a kind, up to the two of step `at`; of a later step the first are the same."""
    return Schedule(
        index, kind, batch_size=p.batch_size, steps=2 * at + 2, seed=p.seed + ASIDE,
        explicit=p.explicit, language_power=p.language_power,
    )  # fmt: skip


def _flat(encoder: torch.nn.Module) -> torch.Tensor:
    """The gradients of all weights that have one, float32 [n]."""
    own = [p.grad for p in encoder.parameters() if p.grad is not None]
    return torch.cat([gradient.flatten().float() for gradient in own])


def cosines(gradients: list[torch.Tensor]) -> dict[str, float]:
    """mono, cross, mono_cross: mean cosine over pairs of gradients of these KINDS, [n] each."""
    found: dict[str, list[float]] = {}
    for (one, left), (other, right) in combinations(zip(KINDS, gradients, strict=True), 2):
        cosine = torch.nn.functional.cosine_similarity(left.double(), right.double(), dim=0)
        found.setdefault(NAMES[one, other], []).append(float(cosine))
    return {name: sum(own) / len(own) for name, own in found.items()}


def read(folder: Path) -> pd.DataFrame:
    """One row a look of a run: step, mono_cross, mono, cross, mono_loss, cross_loss; empty where
    there are none."""
    files = sorted((folder / FOLDER).glob("step-*.json"))
    return pd.DataFrame([store.read_json(file) for file in files])
