"""What the batch schedule costs: index memory, construction and time per batch.

    python -m speed.sampler

Corpora are fully parallel (one pattern) or miss translations at random (1,000 patterns), with
five pairs a group. Batches are timed one by one at random steps, as a resumed run would ask.
The last line is one line of JSON with every row of the table.
"""

from __future__ import annotations

import json
from time import perf_counter

import numpy as np

from lib.sampler import PairIndex, Schedule

STEPS, TIMED = 1000, 40


def corpus(languages: int, pairs: int, patterns: int) -> PairIndex:
    """Index of `pairs` pairs in groups of five; the first pattern has every language."""
    rng = np.random.default_rng(0)
    exists = rng.random((patterns, languages)) < 0.8
    exists[0] = True
    pattern = rng.integers(0, patterns, pairs).astype(np.int32)
    names = tuple(f"l{i:03}" for i in range(languages))
    return PairIndex(names, pattern, exists, np.arange(pairs, dtype=np.int32) // 5)


def nbytes(*owners) -> int:
    """Bytes of all arrays that the objects hold."""
    return sum(
        value.nbytes
        for owner in owners
        for value in vars(owner).values()
        if isinstance(value, np.ndarray)
    )


def measure(index: PairIndex, strategy: str, batch_size: int) -> tuple[float, float, Schedule]:
    """Seconds to construct 1,000 steps, median microseconds of a batch, and the schedule."""
    start = perf_counter()
    schedule = Schedule(index, strategy, batch_size=batch_size, steps=STEPS, language_power=1)
    built, times = perf_counter() - start, []
    for step in np.random.default_rng(0).integers(0, STEPS, TIMED):
        start = perf_counter()
        schedule.batch(int(step))
        times.append(perf_counter() - start)
    return built, 1e6 * float(np.median(times)), schedule


def row(languages: int, pairs: int, patterns: int) -> dict:
    """One row of the table."""
    index = corpus(languages, pairs, patterns)
    found = {"languages": languages, "pairs": pairs, "patterns": patterns}
    for batch_size in (128, 1024):
        for strategy in ("mono", "hybrid", "cross"):
            built, micros, schedule = measure(index, strategy, batch_size)
            found[f"{strategy}_{batch_size}_us"] = round(micros)
    memory = nbytes(index, schedule.streams)
    return found | {
        "construct_s": round(built, 2),
        "bytes_a_pair": round(memory / pairs, 2),
        "bytes_a_text": round(memory / pairs / languages, 3),
    }


def main() -> None:
    """Print the table as it grows, then the JSON."""
    rows = []
    for patterns in (1, 1000):
        for languages in (2, 11, 134):
            for pairs in (10**5, 10**6, 10**7, 10**8):
                if patterns > 2 ** (languages - 1):
                    continue
                rows.append(row(languages, pairs, patterns))
                if len(rows) == 1:
                    print(" ".join(f"{name:>12}" for name in rows[0]))
                print(" ".join(f"{value:>12}" for value in rows[-1].values()), flush=True)
    print(json.dumps({"speed": "sampler", "numpy": np.__version__, "steps": STEPS, "rows": rows}))


if __name__ == "__main__":
    main()
