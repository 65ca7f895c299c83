"""Intervals, paired tests and verdicts for means over training seeds and clusters of questions.

A mean average precision is uncertain for two reasons: another seed would have trained another
encoder, and other paragraphs or facts (the *clusters*) could have been asked about. Three seeds
say little about the first, and questions of one cluster are no independent evidence of the second,
so an error bar over questions is far too narrow, and so is a bootstrap over three seeds that vary.
Here both parts are estimated and added, and degrees of freedom say how far to trust the estimate.

Every table is tidy: one row a cell (seed, cluster) with columns `seed`, `cluster`, `value` (the
cluster's mean in that seed) and optionally `weight` (its number of questions, > 0; else all 1).
Clusters may be the same in every seed (crossed), different in each (nested: folds that rotate with
the seed), or anything between; nothing needs to be told which.

The model is value[s, c] = mean + seed[s] + cluster[c] + rest[s, c], all independent. Let p[s, c]
be cell weights that sum to 1 in each of S seeds, m[s] the seed's mean, r[s, c] = value - m[s], and

    Sigma[s, t] = F[s, t] * sum over c of p[s, c] r[s, c] p[t, c] r[t, c]

the covariance of two seeds' means that comes from their clusters. F undoes the shrinkage of
residuals from an estimated mean (n / (n - 1) for n equal cells). Then

    between      = variance of the m[s] (divisor S - 1)
    sampling     = mean diagonal - mean off-diagonal of Sigma, what clusters add to `between`
    seed_part    = max(0, between - sampling) / S
    cluster_part = mean of all of Sigma, what clusters add to the variance of the estimate
    V            = seed_part + cluster_part
    df           = V^2 / ((between / S)^2 / (S - 1) + cluster_part^2 / cluster_df)

`cluster_part` is the cluster-robust variance of Miller 2024, "Adding error bars to evals"
(arXiv:2411.00640), the components are method-of-moments (Searle, Casella & McCulloch 1992,
"Variance components"), and df is Satterthwaite 1946 for the mean squares that enter V. Those are
taken *before* the seed component is cut off at zero: three seeds that happen to agree are weak
evidence that seeds do not matter, and a df from the cut component covers only 88 %. Nested
clusters give `V = between / S` wherever nothing is cut off: the t interval over seeds.

Measured coverage of nominal 95 % intervals (tests/test_stats.py repeats it: 20,000 tables of skewed
scores, 40 clusters a seed, standard error .002), by the true seed_part over cluster_part:

    clusters   seeds  seed_part: 0     1     4    16
    nested         3             .982  .963  .947  .947
    nested         5             .980  .963  .950  .950
    crossed        3             .955  .944  .929  .930
    crossed        5             .945  .946  .944  .944
    rotated        6             .967  .951  .947  .949     (each fold in two seeds)

The percentile bootstrap over three seeds covers .90, .82 (nested) and .85, .78 (crossed) at 4 and
16; over five, .94, .88 and .89, .87.

Seeds are taken as independent. Rotated folds train on overlapping facts, so their means are
slightly dependent, which no estimator can see (Bengio & Grandvalet 2004, JMLR 5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

MARGIN = 0.01  # mAP; "as good as" allows this much, fixed before any result
BOOTSTRAP_CELLS = 2**21  # resampled cluster counts held at once: 16 MiB


@dataclass(frozen=True)
class Interval:
    """A mean with its t interval; `df` are Satterthwaite degrees of freedom. Of one cluster nothing
    is known but the mean: low, high, standard error and df are NaN."""

    estimate: float
    low: float
    high: float
    standard_error: float
    df: float
    seeds: int
    clusters: int

    @property
    def seeds_varied(self) -> bool:
        """False for one seed: the interval then knows nothing of what training anew changes."""
        return self.seeds > 1

    @property
    def half_width(self) -> float:
        """Distance from the estimate to either end."""
        return self.high - self.estimate


@dataclass(frozen=True)
class Paired:
    """Difference first minus second on the same cells, and its two-sided p value."""

    difference: Interval
    p: float


@dataclass(frozen=True)
class Region:
    """Two means of the same seeds, as a point of a plane with an ellipse around it.

    covariance  float64 [2, 2] of the two estimates
    points      float64 [n, 2], the ellipse as an open polygon; its projections on the axes are
                exactly the two intervals. It is a picture of both, not a joint region: both means
                lie in it less often than each in its own interval.
    """

    x: Interval
    y: Interval
    covariance: np.ndarray
    points: np.ndarray

    @property
    def correlation(self) -> float:
        """Correlation of the two estimates in -1..1; 0 where one of them does not vary."""
        return _correlation(self.covariance)


@dataclass(frozen=True)
class Components:
    """Parts of a mean's variance, as the module's docstring defines them.

    means       float64 [..., S], weighted mean of each seed; leading axes are separate tables
    covariance  float64 [..., S, S], Sigma
    cluster_df  degrees of freedom of `cluster_part`
    """

    means: np.ndarray
    covariance: np.ndarray
    cluster_df: float

    @property
    def seeds(self) -> int:
        """Number of seeds S."""
        return self.means.shape[-1]

    @property
    def estimate(self) -> np.ndarray:
        """Mean over seeds of the seeds' means."""
        return self.means.mean(-1)

    @property
    def between(self) -> np.ndarray:
        """Variance of the seeds' means; 0 for one seed."""
        return self.means.var(-1, ddof=1) if self.seeds > 1 else np.zeros(self.means.shape[:-1])

    @property
    def sampling(self) -> np.ndarray:
        """What clusters are expected to add to `between`."""
        return _sampling(self.covariance)

    @property
    def cluster_part(self) -> np.ndarray:
        """What clusters add to the variance of the estimate.

        Unbiased corrections of separate seed pairs may sum below 0 in tiny tables: cut off."""
        return np.maximum(0.0, self.covariance.mean((-2, -1)))

    @property
    def seed_part(self) -> np.ndarray:
        """What seeds add to the variance of the estimate."""
        return np.maximum(0.0, self.between - self.sampling) / self.seeds

    @property
    def variance(self) -> np.ndarray:
        """Variance V of the estimate."""
        return self.seed_part + self.cluster_part

    @property
    def df(self) -> np.ndarray:
        """Satterthwaite degrees of freedom, at least those of the scarcer of seeds and clusters."""
        spread = (self.between / self.seeds) ** 2 / max(self.seeds - 1, 1)
        spread = spread + self.cluster_part**2 / self.cluster_df
        df = np.full(np.shape(spread), self.cluster_df)
        np.divide(self.variance**2, spread, out=df, where=spread > 0)
        return np.maximum(df, min(self.seeds - 1, self.cluster_df))


def components(value: np.ndarray, weight: np.ndarray) -> Components:
    """Components of `value` [..., S, C] with cell weights [S, C], 0 where a cell is absent.

    Leading axes of `value` are separate tables of one design. Absent cells hold any finite value.
    Every seed has a cell."""
    share = weight / weight.sum(1, keepdims=True)
    means = (share * value).sum(-1)
    pull = share * (value - means[..., None])
    return Components(means, _cluster_covariance(share, pull, share, pull), _cluster_df(share))


def interval(table: pd.DataFrame, level: float = 0.95) -> Interval:
    """Mean over seeds of the seeds' (weighted) means, with its t interval.

    V and df are in the module's docstring. With one seed only clusters vary (`seeds_varied` is
    False). Raises ValueError for a table that is not tidy, or empty."""
    return _interval(_cells(table), level)[0]


def paired(table_a: pd.DataFrame, table_b: pd.DataFrame, level: float = 0.95) -> Paired:
    """Difference a - b over the cells (seed, cluster), which both tables must share.

    What a seed or a cluster does to both arms alike cancels. Raises ValueError naming a cell that
    only one table has, or whose weights differ."""
    a, b = (_cells(t).set_index(["seed", "cluster"]).sort_index() for t in (table_a, table_b))
    for one, other, name in ((a, b, "second"), (b, a, "first")):
        missing = one.index.difference(other.index)
        if len(missing):
            raise ValueError(
                f"paired tables need the same cells: the {name} lacks {_name(missing[0])}"
            )
    unequal = a.index[a["weight"].ne(b["weight"])]
    if len(unequal):
        raise ValueError(f"paired tables need the same weights: {_name(unequal[0])} differs")
    difference, p = _interval(a.assign(value=a["value"] - b["value"]).reset_index(), level)
    return Paired(difference, p)


def bootstrap(
    table: pd.DataFrame, n: int = 2000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval that resamples seeds and clusters (Owen 2007): the check.

    Too narrow with few seeds that vary: three resampled seeds spread by 2/3 of the variance they
    should, and no quantile makes up for it. Too wide where only cells vary, which it counts twice.
    `n` draws, about 16 MiB at a time. The order of rows does not matter. NaN of one cluster. Raises
    ValueError like `interval`."""
    if n < 1:
        raise ValueError(f"a bootstrap needs at least one draw, got n={n}")
    _check_level(level)
    value, weight = _grid(_cells(table))
    clusters = weight.shape[1]
    if clusters < 2:
        return np.nan, np.nan
    generator = np.random.default_rng(seed)
    step = max(1, BOOTSTRAP_CELLS // clusters)
    draws = [
        _resample(value, weight, min(step, n - start), generator) for start in range(0, n, step)
    ]
    low, high = np.nanquantile(np.concatenate(draws), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Adjusted p values, float64 in the given order: the step-down method of Holm 1979.

    The i-th smallest of m is multiplied by m - i + 1, is at least the one before, at most 1. NaN
    (nothing could be tested) counts among the m and stays. Raises ValueError for anything else
    outside 0..1.

    >>> holm([0.04, 0.01, 0.03]).tolist()
    [0.06, 0.03, 0.06]
    """
    p = np.asarray(p_values, float)
    if p.ndim != 1 or not (np.isnan(p) | ((p >= 0) & (p <= 1))).all():
        raise ValueError(f"p values must be a list of numbers in 0..1, got {p_values}")
    order = np.argsort(p)  # NaN last
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted


def verdict(
    interval: Interval, margin: float = MARGIN
) -> Literal["supported", "contradicted", "equivalent", "inconclusive"]:
    """What an interval says of the claim "the difference is > 0".

    The sign comes first: a whole interval above (below) zero supports (contradicts) the claim even
    when it lies inside the margin, since the claim is about the sign; how large the difference is,
    the interval says. An interval that holds zero and lies within +-margin is `equivalent`
    (stricter than two one-sided tests at 5 %, which ask this of the 90 % interval). The margin,
    .01 mAP, was fixed before any result. Raises ValueError for a margin that is not positive.

    >>> verdict(Interval(0.002, -0.004, 0.008, 0.003, 40.0, 5, 200))
    'equivalent'
    """
    if not margin > 0:
        raise ValueError(f"the equivalence margin must be positive, got {margin}")
    if interval.low > 0:
        return "supported"
    if interval.high < 0:
        return "contradicted"
    within = -margin <= interval.low and interval.high <= margin
    return "equivalent" if within else "inconclusive"


def shown(low: float, high: float, form: str = ".3f") -> str:
    """An interval for people to read; a dash where there is none.

    >>> shown(0.1, 0.25), shown(float("nan"), float("nan"))
    ('[0.100, 0.250]', '[—]')
    """
    return "[—]" if np.isnan(low) else f"[{low:{form}}, {high:{form}}]"


def region(table_x: pd.DataFrame, table_y: pd.DataFrame, level: float = 0.95) -> Region:
    """Ellipse of two means over the same seeds, such as mono and cross mAP of one arm.

    The covariance has the parts of V: that of the seed effects plus that of the cluster effects
    (clusters of both tables count, shared ones covary). Seed effects that one table does not show
    cannot covary, and no correlation exceeds 1. With half widths h and correlation r the boundary
    is x + h_x cos(a), y + h_y cos(a - arccos(r)): its extremes are the intervals' ends.
    Raises ValueError when the seeds differ, or like `interval`."""
    cells = _cells(table_x), _cells(table_y)
    seeds, other = (set(c["seed"]) for c in cells)
    if seeds != other:
        raise ValueError(
            f"a region needs the same seeds on both axes: {sorted(seeds ^ other)} only on one"
        )
    x, y = (_interval(c, level)[0] for c in cells)
    covariance = _covariance(*cells)
    turn = np.arccos(_correlation(covariance))
    angle = np.linspace(0, 2 * np.pi, 128, endpoint=False)
    ends = [0.0, np.pi, turn, turn + np.pi]  # so that the polygon, too, touches all four ends
    angle = np.unique(np.concatenate([angle, ends]))
    points = [
        x.estimate + x.half_width * np.cos(angle),
        y.estimate + y.half_width * np.cos(angle - turn),
    ]
    return Region(x, y, covariance, np.stack(points, axis=1))


def pareto(points: np.ndarray) -> np.ndarray:
    """bool [n]: rows of `points` [n, k] that no other row dominates, larger being better.

    A row dominates another that it equals or exceeds everywhere and exceeds somewhere, so equal
    rows keep each other. Raises ValueError for another shape or NaN.

    >>> pareto(np.array([[1, 3], [2, 2], [1, 2]])).tolist()
    [True, True, False]
    """
    points = np.asarray(points, float)
    if points.ndim != 2 or np.isnan(points).any():
        raise ValueError(f"points must be numbers [n, k] without NaN, got shape {points.shape}")
    as_good = (points[:, None] >= points).all(-1)
    better = (points[:, None] > points).any(-1)
    return ~(as_good & better).any(0)


def _cells(table: pd.DataFrame) -> pd.DataFrame:
    """Copy of a tidy table with columns seed, cluster, value, weight; ValueError if it is not."""
    missing = [name for name in ("seed", "cluster", "value") if name not in table]
    if missing:
        raise ValueError(
            f"a table of clusters needs the column {missing[0]!r}, has {list(table.columns)}"
        )
    cells = table[["seed", "cluster", "value"]].assign(weight=table.get("weight", 1.0))
    cells = cells.astype({"value": float, "weight": float})
    if not len(cells):
        raise ValueError("an interval needs at least one cluster, got none")
    valid = np.isfinite(cells["value"]) & np.isfinite(cells["weight"]) & (cells["weight"] > 0)
    valid &= cells[["seed", "cluster"]].notna().all(axis=1)
    for bad, why in (
        (~valid, "needs a finite value and a positive weight"),
        (cells.duplicated(["seed", "cluster"]), "stands in the table twice"),
    ):
        if bad.any():
            first = cells[bad].iloc[0]
            raise ValueError(f"{_name((first['seed'], first['cluster']))} {why}")
    return cells


def _name(cell: tuple) -> str:
    """A (seed, cluster) as messages name it."""
    return f"cell (seed {cell[0]}, cluster {str(cell[1])!r})"


def _grid(cells: pd.DataFrame, clusters: pd.Index | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Values and weights, float64 [S, C], 0 where a cell is absent.

    Rows are sorted seeds, columns the given clusters or the table's own, sorted: sums do not depend
    on the order of the table's rows."""
    seeds = pd.Index(cells["seed"].unique()).sort_values()
    if clusters is None:
        clusters = pd.Index(cells["cluster"].unique()).sort_values()
    at = seeds.get_indexer(cells["seed"]), clusters.get_indexer(cells["cluster"])
    value, weight = np.zeros((2, len(seeds), len(clusters)))
    value[at], weight[at] = cells["value"], cells["weight"]
    return value, weight


def _interval(cells: pd.DataFrame, level: float) -> tuple[Interval, float]:
    """Interval of checked cells, and the two-sided p value of a zero mean."""
    from scipy.stats import t

    _check_level(level)
    value, weight = _grid(cells)
    parts = components(value, weight)
    estimate, error, df = (float(v) for v in (parts.estimate, np.sqrt(parts.variance), parts.df))
    if value.shape[1] < 2:
        error = df = np.nan
    half = float(t.ppf((1 + level) / 2, df)) * error
    interval = Interval(estimate, estimate - half, estimate + half, error, df, *value.shape)
    return interval, p_value(estimate, error, df)


def p_value(estimate: float, standard_error: float, df: float) -> float:
    """Two-sided p of a t test of zero; where nothing varies the estimate is what it is."""
    from scipy.stats import t

    if standard_error == 0:
        return float(estimate == 0)
    return float(2 * t.sf(abs(estimate) / standard_error, df))


def _check_level(level: float) -> None:
    """ValueError for a confidence level outside 0..1."""
    if not 0 < level < 1:
        raise ValueError(f"a confidence level lies between 0 and 1, got {level}")


def _cluster_covariance(share_x, pull_x, share_y, pull_y) -> np.ndarray:
    """Sigma [..., S, S] of seeds' means of x (rows) and y from weighted residuals [..., S, C].

    E[r_x r_y] of a common cluster is its covariance times 1 - p_x - p_y + sum(p_x p_y), each
    residual holding a share of its own mean; F is the inverse of that, averaged with p_x p_y."""
    overlap = share_x @ share_y.T
    left = overlap - share_x**2 @ share_y.T - share_x @ (share_y**2).T + overlap**2
    known = left > 1e-9 * overlap  # a seed's only cluster has no residual: left to `between`
    factor = np.divide(overlap, left, out=np.zeros_like(overlap), where=known)
    return factor * (pull_x @ np.swapaxes(pull_y, -1, -2))


def _cluster_df(share: np.ndarray) -> float:
    """Degrees of freedom of the clusters' part: effective clusters less the means they lost.

    (sum q^2)^2 / sum q^4 effective clusters with q the shares of the estimate (Satterthwaite, all
    clusters alike); S separate means are lost when nested, one when crossed. C - 1 when balanced
    and crossed; at least 1."""
    q = share.mean(0)
    overlap = share @ share.T
    effective = (q @ q) ** 2 / (q**4).sum()
    return float(max(1.0, effective - len(share) * np.trace(overlap) / overlap.sum()))


def _sampling(covariance: np.ndarray) -> np.ndarray:
    """What clusters add to the (co)variance between seeds' means: mean diagonal of Sigma
    [..., S, S] less its mean off-diagonal."""
    seeds = covariance.shape[-1]
    diagonal = np.trace(covariance, axis1=-2, axis2=-1)
    return (seeds * diagonal - covariance.sum((-2, -1))) / (seeds * max(seeds - 1, 1))


def _covariance(cells_x: pd.DataFrame, cells_y: pd.DataFrame) -> np.ndarray:
    """Covariance float64 [2, 2] of the two estimates over the same seeds."""
    clusters = pd.Index(pd.concat([cells_x["cluster"], cells_y["cluster"]]).unique()).sort_values()
    (value_x, weight_x), (value_y, weight_y) = (_grid(c, clusters) for c in (cells_x, cells_y))
    x, y = components(value_x, weight_x), components(value_y, weight_y)
    share_x, share_y = (w / w.sum(1, keepdims=True) for w in (weight_x, weight_y))
    cross = _cluster_covariance(
        share_x,
        share_x * (value_x - x.means[:, None]),
        share_y,
        share_y * (value_y - y.means[:, None]),
    )
    between = (x.means - x.estimate) @ (y.means - y.estimate) / max(x.seeds - 1, 1)
    most = np.sqrt(x.seed_part * y.seed_part)
    both = np.clip((between - _sampling(cross)) / x.seeds, -most, most) + cross.mean()
    most = np.sqrt(x.variance * y.variance)
    both = np.clip(both, -most, most)
    return np.array([[x.variance, both], [both, y.variance]])


def _correlation(covariance: np.ndarray) -> float:
    """Correlation in -1..1 of a 2 x 2 covariance matrix; 0 where a variance is 0."""
    scale = np.sqrt(covariance[0, 0] * covariance[1, 1])
    return float(np.clip(covariance[0, 1] / scale, -1, 1)) if scale > 0 else 0.0


def _resample(value, weight, n: int, generator: np.random.Generator) -> np.ndarray:
    """Means float64 [n] of tables redrawn with replacement: clusters, then seeds.

    A seed none of whose clusters was drawn is left out of that draw; NaN if that is all seeds."""
    seeds, clusters = weight.shape
    counts = generator.multinomial(clusters, np.full(clusters, 1 / clusters), size=n).astype(float)
    totals = counts @ weight.T
    means = np.divide(
        counts @ (weight * value).T, totals, out=np.zeros_like(totals), where=totals > 0
    )
    times = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=n) * (totals > 0)
    used = times.sum(1)
    return np.divide((times * means).sum(1), used, out=np.full(n, np.nan), where=used > 0)
