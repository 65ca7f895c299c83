"""Train in a process of its own that can be killed; used by test_trainer.py and test_ranks.py.

python tests/kill_trainer.py CORPUS OUT     trains to the end, in an interpreter of its own
python tests/kill_trainer.py --kills 60     kills runs of one and of two ranks, without and with
                                            branches, at random moments, and compares what they
                                            give in the end, bit by bit
"""

import json
import math
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from itertools import product
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from transformers.models.bert import BertModel  # noqa: F401  loaded once, before processes fork

from lib import trainer
from lib.corpus import ParallelCorpus
from lib.params import Train
from lib.sampler import Schedule
from lib.training import checkpoints, cost, export

cost.MATMUL["cpu"] = 64  # each run times a product of this side, of no use here

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
# Branches leave after steps 3, 6 and 8, and the last budget's rate falls from step 9 on.
BUDGETS = Train(
    **PARAMS.model_dump()
    | {"schedule": "wsd", "budgets": [4, 8, 11, 12], "decay": 0.25, "warmup_steps": 2}
)
POINTS = {
    "batch": (Schedule, "batch"),
    "save_file": (checkpoints, "save_file"),
    "encoder": (export, "save_encoder"),
    "rename": (Path, "rename"),
    "fsync": (os, "fsync"),
    "rmtree": (shutil, "rmtree"),
}


def run(corpus, out, point="", number=0, slow=0.0, params=PARAMS):
    """Train; at the number-th call of a point (see POINTS) this very process is killed."""
    if point:
        _die_at(*POINTS[point], number)
    if slow:
        _slow_down(slow)
    trainer.train(ParallelCorpus.load(Path(corpus)), params, Path(out))


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
    original = Schedule.batch
    Schedule.batch = lambda self, step: (time.sleep(seconds), original(self, step))[1]


# --- many kills --------------------------------------------------------------------------------


def member(number, count, meeting, corpus, out, slow, params):
    """`run` as one of `count` ranks; the result of one rank is the run without any."""
    if count > 1:
        from torch import distributed

        distributed.init_process_group(
            "gloo", init_method=f"file://{meeting}", rank=number, world_size=count
        )
    run(corpus, out, slow=slow, params=params)


def _wait(process, seconds, within_a_write):
    """Until it has ended or the time is over; or, if so asked, a checkpoint is being written."""
    end = time.monotonic() + seconds
    while process.is_alive() and time.monotonic() < end and not within_a_write():
        time.sleep(0.0005)


def _until_killed(count, params, corpus, out, seconds, moments):
    """Train with `count` ranks; after `seconds`, or in every second case once a checkpoint is being
    written, kill all of them, or one and wait for the others. Whether a rank was killed."""
    from test_trainer import start

    with tempfile.TemporaryDirectory() as place:
        group = [
            start(member, number, count, f"{place}/meeting", corpus, out, 0.03, params)
            for number in range(count)
        ]
        aimed = seconds < math.inf and moments.random() < 0.5
        _wait(group[0], seconds, lambda: aimed and _writes(out))
        victims = group if moments.random() < 0.5 else [moments.choice(group)]
        for process in victims:
            process.kill()
        for process in group:
            process.join(5)
            process.kill()  # a rank whose peer never came would wait for minutes
            process.join()
    return any(process.exitcode == -signal.SIGKILL for process in group)


def _parts(params):
    """Where the encoder of each budget lies, below a run's folder."""
    return ["", *(f"budgets/{budget}" for budget in params.budgets[:-1])]


def _writes(out):
    """Whether a checkpoint is half-written there."""
    return any(out.glob("**/checkpoints/.step-*.tmp"))


def kill_many(kills):
    """A quarter of the kills for each number of ranks, with branches and without. Prints one line
    of JSON; the exit status is 1 where a run that was killed gave other bits than one that was
    not."""
    from test_trainer import results, toy_corpus

    moments, found = random.Random(0), {"kills": 0, "within_a_write": 0, "runs": 0, "differ": 0}
    with tempfile.TemporaryDirectory() as place:
        corpus = toy_corpus(Path(place) / "data").folder
        for case, (count, params) in enumerate(product((1, 2), (PARAMS, BUDGETS))):
            whole, out = Path(place) / f"whole-{case}", Path(place) / "out"
            _until_killed(count, params, corpus, whole, math.inf, random.Random(1))
            wanted = found["kills"] + kills // 4
            while found["kills"] < wanted or out.exists():
                seconds = moments.uniform(0.05, 1.8) if found["kills"] < wanted else math.inf
                if _until_killed(count, params, corpus, out, seconds, moments):
                    found["kills"] += 1
                    found["within_a_write"] += _writes(out)
                else:
                    found["runs"] += 1
                    found["differ"] += any(
                        results(out / part) != results(whole / part) for part in _parts(params)
                    )
                    shutil.rmtree(out)
    print(json.dumps(found))
    return found["differ"] > 0


if __name__ == "__main__":
    if sys.argv[1] == "--kills":
        sys.exit(kill_many(int(sys.argv[2])))
    run(sys.argv[1], sys.argv[2])
