"""What a run says while it goes, and what it says where memory runs out or numbers do."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from lib.params import Train
from lib.sampler import Schedule
from lib.training.checkpoints import LogRow

QUIET = 30  # seconds


class Diverged(ArithmeticError):
    """The loss or its gradient is not a finite number."""


class Pace:
    """Plain progress lines; notebooks keep every one, so there are few."""

    def __init__(self, first: int, params: Train):
        self.first, self.steps, self.every = first, params.steps, params.log_every
        self.start = self.said = time.perf_counter()

    def tell(self, done: int, log: list[LogRow]) -> None:
        """One line every log_every steps, at the end, and where none was said for QUIET seconds:
        mean loss of the last log_every steps, rate, time."""
        now = time.perf_counter()
        due = done % self.every == 0 or done == self.steps or now - self.said > QUIET
        if not due or not log:
            return
        self.said = now
        loss = np.mean([row.loss for row in log[-self.every :]])
        rate = (done - self.first) / (now - self.start)
        left = round((self.steps - done) / rate)
        print(
            f"step {done}/{self.steps}  loss {loss:.3f}  {rate:.1f} steps/s  "
            f"about {left // 60}:{left % 60:02d} left",
            flush=True,
        )


@contextmanager
def memory(step: int, p: Train) -> Iterator[None]:
    """Raises MemoryError that says what to lower, where memory runs out inside."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        known = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not known and "can't allocate memory" not in str(error):  # torch's words for a CPU
            raise
        raise MemoryError(
            f"step {step}: out of memory with batch_size={p.batch_size}, "
            f"chunk={p.chunk}, max_length={p.max_length}; set chunk (texts in memory at a "
            "time; 0: all), or lower it, then batch_size or max_length"
        ) from error


def require_finite(step: int, loss: float, norm: float, schedule: Schedule, seed: int) -> None:
    """Raises Diverged; weights of later steps are nowhere written."""
    if not (math.isfinite(loss) and math.isfinite(norm)):
        pairs = ", ".join(map(str, schedule.batch(step).pair.tolist()))
        raise Diverged(
            f"step {step}, seed {seed}: loss {loss}, gradient norm "
            f"{norm}; lower learning_rate or raise temperature (pairs {pairs})"
        )
