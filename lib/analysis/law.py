"""The law: is what mixing costs and gains known from how well languages are aligned beforehand?

Of a rung (an encoder before it is fine-tuned) two things are known: its alignment A, the bitext
accuracy of `lib.benchmarks.parallel`, 0 to 1; and M, how much monolingual skill the budget leaves
open, the mono arm's mono mAP at its largest budget less that at this one. The law says of a
contrast, such as mono cost or cross gain,

    contrast = (size + missing * M) * (1 - A) ** power

so it shrinks as alignment rises (power 0: alignment does not matter), and is 0 where languages are
aligned already. Which of the terms stay is decided by leaving out one rung after the other, before
anything is predicted. Intervals are those of a new rung: rungs are drawn with replacement, the law
is fitted to them, and an error that it made on a rung it had not seen is added.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

TERMS = {
    "constant": (False, False),
    "missing skill": (False, True),
    "alignment": (True, False),
    "alignment and missing skill": (True, True),
}  # whether alignment, and missing skill, decide
POWERS = np.linspace(0, 8, 161)
DRAWS = 2_000
LEVEL = 0.90


@dataclass(frozen=True)
class Law:
    """See above; all of one contrast, or float [D] of D laws."""

    size: float | np.ndarray
    missing: float | np.ndarray
    power: float | np.ndarray

    def at(self, alignment: np.ndarray, missing: np.ndarray | float = 0.0) -> np.ndarray:
        """The contrast at alignments of 0 to 1."""
        room = (1 - np.asarray(alignment, float)) ** self.power
        return (self.size + self.missing * np.asarray(missing)) * room


def fit(points: pd.DataFrame, terms: str) -> Law:
    """The law of least squared error. points: columns alignment, missing, value; a row a rung and
    budget.

    Raises ValueError for fewer points than the law has parameters."""
    needed = 1 + sum(TERMS[terms])
    if len(points) < needed:
        raise ValueError(f"{len(points)} rungs do not decide a law of {needed} parameters")
    size, missing, power = _fits(points, terms, np.ones((1, len(points))))
    return Law(float(size[0]), float(missing[0]), float(power[0]))


def _fits(points: pd.DataFrame, terms: str, times: np.ndarray) -> tuple[np.ndarray, ...]:
    """(size, missing, power), float [D] each, of D fits. times: float [D, rows], how often each row
    counts. For each power the other two are the solution of their normal equations, so none of the
    POWERS is missed."""
    aligned, skilled = TERMS[terms]
    powers = POWERS if aligned else POWERS[:1]
    columns = ("alignment", "missing", "value")
    alignment, missing, value = (points[name].to_numpy(float) for name in columns)
    room = (1 - alignment) ** powers[:, None]  # [powers, rows]
    open_room = room * missing * skilled
    aa, ab, bb, av, bv, vv = (
        times @ (one * other).T
        for one, other in (
            (room, room), (room, open_room), (open_room, open_room),
            (room, value), (open_room, value), (value[None], value[None]),
        )
    )  # fmt: skip
    free = aa * bb - ab**2
    both = free > 1e-12 * aa * bb  # else missing skill is the same everywhere, and one is enough
    more = np.where(both, (aa * bv - ab * av) / np.where(both, free, 1), 0.0)
    size = (av - more * ab) / aa
    error = vv - size * av - more * bv
    best = np.argmin(np.round(error, 12), axis=1)
    rows = np.arange(len(times))
    return size[rows, best], more[rows, best], powers[best]


def left_out(points: pd.DataFrame, terms: str) -> np.ndarray:
    """float [rows]: value less what the law says that was fitted to all other rungs (column rung),
    all budgets of a rung left out together."""
    errors = np.empty(len(points))
    for rung in points["rung"].unique():
        own = (points["rung"] == rung).to_numpy()
        law, rows = fit(points[~own], terms), points[own]
        errors[own] = rows["value"] - law.at(rows["alignment"], rows["missing"])
    return errors


def candidates(points: pd.DataFrame) -> pd.DataFrame:
    """Each law with its error (root of the mean square, mAP) on rungs it had not seen, the best
    first; of equals the one with fewer terms."""
    rows = [
        {
            "law": terms,
            "error": float(np.sqrt((left_out(points, terms) ** 2).mean())),
            **vars(fit(points, terms)),
        }
        for terms in TERMS
    ]
    return pd.DataFrame(rows).sort_values("error", kind="stable", ignore_index=True)


def predicted(
    points: pd.DataFrame, terms: str, alignment: float, missing: float = 0.0, seed: int = 0
) -> tuple[float, float, float]:
    """(estimate, low, high) of the contrast on a new rung; LEVEL of such should lie between."""
    generator = np.random.default_rng(seed)
    rungs, errors = points["rung"].unique(), left_out(points, terms)
    drawn = generator.multinomial(len(rungs), np.full(len(rungs), 1 / len(rungs)), DRAWS)
    times = drawn[:, pd.Index(rungs).get_indexer(points["rung"])].astype(float)
    size, more, power = _fits(points, terms, times)
    draws = Law(size, more, power).at(alignment, missing) + generator.choice(errors, DRAWS)
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(fit(points, terms).at(alignment, missing)), float(low), float(high)
