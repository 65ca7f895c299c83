"""Encoders of smaller budgets, for little more than the price of the largest one's.

With `train.budgets` a run is a trunk at constant rate. A smaller budget of B steps has a branch: it
leaves the trunk `decay * B` steps before B, and its rate falls to zero at B (warm-up, stable,
decay: Hu et al., arXiv 2404.06395; Hägele et al., arXiv 2405.18392). Batches of a run are the first
of any longer one, and so are rates until they fall: a branch ends with the bits of a run of B
steps, and its folder budgets/<B>/ holds what such a run's does. The last budget is the run itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from lib import store
from lib.params import Train
from lib.training import checkpoints


class Branch(NamedTuple):
    """A smaller budget: after how many steps it leaves the trunk, and the run that it equals."""

    leaves: int
    params: Train
    folder: Path
    identity: dict


def place(folder: Path, budget: int) -> Path:
    """The folder of a smaller budget, below its run's."""
    return Path(folder) / "budgets" / str(budget)


def branches(params: Train, folder: Path, identity: dict) -> list[Branch]:
    """All budgets but the last, in the order in which they leave the trunk."""
    found = []
    for budget in params.budgets[:-1]:
        own = {"steps": budget, "budgets": [budget]}
        run = params.model_copy(update=own | {"look_every": 0})  # the trunk has looked
        found.append(Branch(params.leaves(budget), run, place(folder, budget), identity | own))
    return found


def missing(params: Train, folder: Path, identity: dict) -> list[Branch]:
    """Those of `branches` whose encoder and record are not there, or not whole.

    Raises ValueError where they were made with another identity."""
    every = branches(params, folder, identity)
    return [b for b in every if not checkpoints.is_finished(b.folder / "model", b.identity)]


def is_finished(params: Train, folder: Path, identity: dict) -> bool:
    """Whether the encoders and records of all budgets are there, whole; raises as `missing`."""
    last = checkpoints.is_finished(folder / "model", identity)
    return not missing(params, folder, identity) and last


def price(params: Train, folder: Path) -> dict[str, float]:
    """What the branches took, steps and seconds, beside the run's own, which have none of it."""
    every = branches(params, folder, {})
    seconds = [store.read_json(b.folder / "cost.json")["seconds"] for b in every]
    steps = sum(b.params.steps - b.leaves for b in every)
    return {"branch_steps": steps, "branch_seconds": sum(seconds)}
