"""Train in a process of its own that can be killed; used by test_trainer.py.

python tests/kill_trainer.py CORPUS OUT     trains to the end, in an interpreter of its own
"""

import os
import shutil
import signal
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from transformers.models.bert import BertModel  # noqa: F401  loaded once, before processes fork

from lib import trainer
from lib.corpus import ParallelCorpus
from lib.params import Train
from lib.sampler import Schedule

# Every source of randomness is in use: dropout, mixed batches, explicit negatives.
PARAMS = Train(
    strategy="hybrid",
    negatives="both",
    explicit=2,
    width=16,
    heads=2,
    dropout=0.2,
    max_length=16,
    steps=12,
    batch_size=8,
    checkpoint_every=3,
    keep_checkpoints=2,
    log_every=1,
    learning_rate=1e-2,
    temperature=0.05,
)
POINTS = {
    "batch": (Schedule, "batch"),
    "save_file": (trainer, "save_file"),
    "rename": (Path, "rename"),
    "fsync": (os, "fsync"),
    "rmtree": (shutil, "rmtree"),
}


def run(corpus, out, point="", number=0, slow=0.0):
    """Train; at the number-th call of a point (see POINTS) this very process is killed."""
    if point:
        _die_at(*POINTS[point], number)
    if slow:
        _slow_down(slow)
    trainer.train(ParallelCorpus.load(Path(corpus)), PARAMS, Path(out))


def _die_at(owner, name, number):
    """SIGKILL in place of the number-th call: no handler, no clean-up, as in a power cut."""
    original, calls = getattr(owner, name), []

    def dying(*args, **kwargs):
        calls.append(1)
        if len(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    setattr(owner, name, dying)


def _slow_down(seconds):
    """Stretch each step, so that a kill from outside meets any part of it."""
    import time

    original = Schedule.batch
    Schedule.batch = lambda self, step: (time.sleep(seconds), original(self, step))[1]


if __name__ == "__main__":
    run(sys.argv[1], sys.argv[2])
