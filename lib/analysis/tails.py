"""How often the tests of `lib.analysis.stats` reject a hypothesis that is true, by simulation.

A verdict at level .05 / 3 rests on the far tail of a t distribution whose degrees of freedom are
themselves estimated. Whether it holds has to be tried out: three seeds that happen to agree made an
earlier test reject four times as often as its level says.

In a balanced design the estimate and its three variances (V_s, V_c, V_e) are all that a test sees,
and under normal effects they are independent: the estimate is normal, each variance a chi-square
over its degrees of freedom. So the simulation draws these four numbers instead of whole tables, and
40,000 studies take milliseconds. The formulas of V and df are those that the tests use. That real
tables give such numbers, skewed scores too, is tested beside it (`tests/test_stats.py`).
"""

from __future__ import annotations

from itertools import product
from typing import Literal

import numpy as np
import pandas as pd

from lib.analysis.stats import degrees_of_freedom, variance

Design = Literal["nested", "crossed"]
LEVELS = (0.1, 0.05, 0.01, 0.005)  # two-sided; .1 is one side at .05
RATIOS = (0, 0.25, 0.5, 1, 2, 4, 16)  # seeds' part of the variance over the clusters'
SEEDS = (5, 8, 10)
CLUSTERS = 48  # a seed; XQuAD-R has 48 articles
DESIGNS = (("nested", 1.0), ("crossed", 0.0), ("crossed", 0.5), ("crossed", 1.0))  # with `cells`
DRAWS = 40_000


def rates(
    design: Design, seeds: int, ratio: float, cells: float, draws: int = DRAWS
) -> tuple[np.ndarray, float]:
    """Rejection rates of a true mean of 0 at LEVELS, and the mean length of 95 % intervals over
    that of known variances.

    design  the clusters are the same in every seed (crossed), or others (nested)
    ratio   variance that seeds add to the mean, over that of clusters and cells
    cells   share of the latter that belongs to cells; nested clusters are cells"""
    from scipy.stats import norm, t

    generator = np.random.default_rng([seeds, int(100 * ratio), int(100 * cells), CLUSTERS])
    free = seeds * (CLUSTERS - 1) if design == "nested" else CLUSTERS - 1

    def drawn(expected: float, df: int) -> np.ndarray:
        return expected * generator.chisquare(df, draws) / df

    by_seed, by_cluster = drawn(ratio + cells, seeds - 1), drawn(1.0, free)
    rest = by_cluster if design == "nested" else drawn(cells, (seeds - 1) * (CLUSTERS - 1))
    total = variance(by_seed, by_cluster, rest)
    df = degrees_of_freedom(total, by_seed, by_cluster, seeds, free)
    estimate = generator.normal(size=draws) * np.sqrt(ratio + 1)
    p = 2 * t.sf(np.abs(estimate) / np.sqrt(total), df)
    length = (t.ppf(0.975, df) * np.sqrt(total)).mean() / (norm.ppf(0.975) * np.sqrt(ratio + 1))
    return np.array([(p < level).mean() for level in LEVELS]), float(length)


def table(seeds: tuple[int, ...] = SEEDS, draws: int = DRAWS) -> pd.DataFrame:
    """One row a design, number of seeds, share of cells and ratio: rejection rate over nominal in
    columns `.1`, `.05`, `.01`, `.005` (1 is right, below 1 cautious), and `length`."""
    rows = []
    for (design, cells), number, ratio in product(DESIGNS, seeds, RATIOS):
        rate, length = rates(design, number, ratio, cells, draws)
        row = {"clusters": design, "seeds": number, "cells": cells, "ratio": ratio}
        over = dict(zip(names(), rate / np.array(LEVELS), strict=True))
        rows.append(row | over | {"length": length})
    return pd.DataFrame(rows)


def names() -> list[str]:
    """The levels as columns of tables."""
    return [f"{level:g}".lstrip("0") for level in LEVELS]


def shown(simulated: pd.DataFrame) -> pd.DataFrame:
    """`table`, for people to read: lowest to highest over shares of cells and ratios."""

    def spread(values: pd.Series) -> str:
        return f"{values.min():.2f} to {values.max():.2f}"

    columns = [*names(), "length"]
    return simulated.groupby(["clusters", "seeds"], sort=False)[columns].agg(spread).reset_index()


def markdown(simulated: pd.DataFrame) -> str:
    """`shown` as docs/statistics.md has it."""
    small = shown(simulated)
    rows = [list(small), ["---"] * len(small.columns), *small.to_numpy().tolist()]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows)


if __name__ == "__main__":
    print(markdown(table()))
