"""Tidy tables of clusters as grids of seeds and clusters: what lib.analysis.stats computes with.

A table has one row a cell (seed, cluster) with columns `seed`, `cluster`, `value` (the cluster's
mean in that seed) and optionally `weight` (its number of questions, > 0; else all 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isclose

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Cells:
    """A table as a grid: sums over it do not depend on the order of the table's rows.

    seeds     object [S], sorted
    clusters  object [C], sorted
    value     float64 [S, C], 0 where a cell is absent
    weight    float64 [S, C], 0 where a cell is absent
    """

    seeds: np.ndarray
    clusters: np.ndarray
    value: np.ndarray
    weight: np.ndarray

    @property
    def share(self) -> np.ndarray:
        """Weights that sum to 1 in each seed, float64 [S, C]."""
        return self.weight / self.weight.sum(1, keepdims=True)

    @property
    def means(self) -> np.ndarray:
        """Weighted mean of each seed, float64 [S]."""
        return (self.share * self.value).sum(1)

    def times(self, factor: float) -> Cells:
        """The same cells with values that many times as large."""
        return replace(self, value=self.value * factor)

    def on(self, clusters: np.ndarray) -> Cells:
        """The same cells on a grid of these clusters, which are sorted and hold its own."""
        place = np.searchsorted(clusters, self.clusters)
        value, weight = np.zeros((2, len(self.seeds), len(clusters)))
        value[:, place], weight[:, place] = self.value, self.weight
        return Cells(self.seeds, clusters, value, weight)


def cells(table: pd.DataFrame | Cells) -> Cells:
    """The grid of a tidy table; a grid stays as it is. ValueError for a table that is not tidy."""
    if isinstance(table, Cells):
        return table
    missing = [name for name in ("seed", "cluster", "value") if name not in table]
    if missing:
        raise ValueError(
            f"a table of clusters needs the column {missing[0]!r}, has {list(table.columns)}"
        )
    if not len(table):
        raise ValueError("an interval needs at least one cluster, got none")
    found = table["value"].to_numpy(float)
    known = table["weight"].to_numpy(float) if "weight" in table else np.ones(len(table))
    valid = np.isfinite(found) & np.isfinite(known) & (known > 0)
    valid &= (table["seed"].notna() & table["cluster"].notna()).to_numpy()
    _refuse(table, ~valid, "needs a finite value and a positive weight")
    (row, seeds), (column, clusters) = (_places(table[name]) for name in ("seed", "cluster"))
    twice = np.ones(len(table), bool)
    twice[np.unique(row * len(clusters) + column, return_index=True)[1]] = False
    _refuse(table, twice, "stands in the table twice")
    value, weight = np.zeros((2, len(seeds), len(clusters)))
    value[row, column], weight[row, column] = found, known
    return Cells(seeds, clusters, value, weight)


def _places(column: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Place of each row's value among the sorted distinct ones, and these."""
    place, distinct = pd.factorize(column, sort=True)
    return place, np.asarray(distinct, object)


def _refuse(table: pd.DataFrame, bad: np.ndarray, why: str) -> None:
    if bad.any():
        first = table.iloc[int(bad.argmax())]
        raise ValueError(f"{_name(first['seed'], first['cluster'])} {why}")


def _name(seed: object, cluster: object) -> str:
    """A cell as messages name it."""
    return f"cell (seed {seed}, cluster {str(cluster)!r})"


def difference(table_a: pd.DataFrame | Cells, table_b: pd.DataFrame | Cells) -> Cells:
    """The cells of a - b.

    Raises ValueError naming a cell that only one table has, or whose weights differ."""
    a, b = cells(table_a), cells(table_b)
    own, other = _weights(a), _weights(b)
    for one, rest, name in ((own, other, "second"), (other, own, "first")):
        if missing := sorted(one.keys() - rest.keys()):
            raise ValueError(
                f"paired tables need the same cells: the {name} lacks {_name(*missing[0])}"
            )
    if unequal := [cell for cell in own if not isclose(own[cell], other[cell])]:  # to rounding
        raise ValueError(f"paired tables need the same weights: {_name(*unequal[0])} differs")
    return replace(a, value=a.value - b.value)


def _weights(one: Cells) -> dict[tuple, float]:
    """(seed, cluster) -> weight, of the cells that there are, in order."""
    rows, columns = np.nonzero(one.weight)
    names = zip(one.seeds[rows], one.clusters[columns], strict=True)
    return dict(zip(names, one.weight[rows, columns], strict=True))


def union(*tables: Cells) -> np.ndarray:
    """Clusters of all of them, object [C], sorted."""
    return np.asarray(sorted({name for one in tables for name in one.clusters}), object)


def averaged(tables: Sequence[pd.DataFrame | Cells]) -> Cells:
    """Cells whose mean is the mean of the tables' means, in each seed: settings in one figure.

    Each table's weights are made to sum to 1 in each seed; a cluster then has the weight and the
    weighted value that it has in all of them, so that its settings vary together. Raises ValueError
    naming a seed that only some tables have."""
    own = [cells(table) for table in tables]
    seeds = [{*one.seeds} for one in own]
    if odd := set.union(*seeds) - set.intersection(*seeds):
        raise ValueError(f"averaged tables need the same seeds: not all have {min(odd)}")
    clusters = union(*own)
    own = [one.on(clusters) for one in own]
    weight = sum(one.share for one in own)
    total = sum(one.share * one.value for one in own)
    value = np.divide(total, weight, out=np.zeros_like(total), where=weight > 0)
    return Cells(own[0].seeds, clusters, value, weight)


def combined(tables: Sequence[pd.DataFrame | Cells], factors: Sequence[float]) -> Cells:
    """Cells whose mean is the sum of the tables' means times the factors, in each seed, such as a
    slope. Cells are shared as in `averaged`."""
    pairs = zip(tables, factors, strict=True)
    return averaged([cells(table).times(len(tables) * factor) for table, factor in pairs])
