"""Intervals, paired tests and verdicts for means over training seeds and clusters of questions.

A mean average precision is uncertain for two reasons: another seed would have trained another
encoder, and other paragraphs or facts (the *clusters*) could have been asked about. Three seeds
say little about the first, and questions of one cluster are no independent evidence of the second,
so an error bar over questions is far too narrow, and so is a bootstrap over three seeds that vary.
Here both parts are estimated and added, and degrees of freedom say how far to trust the estimate.

Every table is one of cells (seed, cluster) with their values and weights, tidy or as a grid
(lib.analysis.cells). Clusters may be the same in every seed (crossed), different in each (nested:
folds that rotate with the seed), or anything between; nothing needs to be told which.

The model is value[s, c] = mean + seed[s] + cluster[c] + rest[s, c], all independent. Let p[s, c]
be cell weights that sum to 1 in each of S seeds, m[s] the seed's mean, r[s, c] = value - m[s], and

    Sigma[s, t] = F[s, t] * sum over c of p[s, c] r[s, c] p[t, c] r[t, c]

the covariance of two seeds' means that comes from their clusters. F undoes the shrinkage of
residuals from an estimated mean (n / (n - 1) for n equal cells). Then

    between  = variance of the m[s] (divisor S - 1)
    sampling = mean diagonal - mean off-diagonal of Sigma, what clusters add to `between`
    V_s      = between / S       variance of the estimate as the seeds' means show it
    V_c      = mean of all of Sigma      as the clusters show it, seeds being as they are
    V_e      = sampling / S      what both contain: cells
    V        = max(V_s, V_c, V_s + V_c - V_e)
    df       = S - 1 where V_s > V_c / 2, else V^2 / (V_s^2 / (S - 1) + V_c^2 / cluster_df)

V_s + V_c - V_e is the method-of-moments estimate (Searle, Casella & McCulloch 1992, "Variance
components"), V_c the cluster-robust variance of Miller 2024, "Adding error bars to evals"
(arXiv:2411.00640), the second df Satterthwaite's of 1946. That estimate alone is not enough for
few seeds: where they happen to agree it is too small, and df jump to those of the clusters, so
that a test at .005 rejects up to four times as often as it says. Hence the larger of all three,
and only S - 1 degrees of freedom as soon as seeds may matter. Where they clearly do and clusters
are nested, this is the t test over seeds. `lib.analysis.tails` simulates how often such tests
reject true hypotheses: from 5 seeds on at most 1.2 times as often as they say, for 3 not.

Of one seed or one cluster nothing is known but the mean: there is no interval, and no p value.
Where encoders are *fixed*, because nothing but these very ones is spoken of, V is V_c with the
degrees of freedom of the clusters: of one seed the t interval over clusters, for equal ones that of
their means.

Seeds are taken as independent. Rotated folds train on overlapping facts, so their means are
slightly dependent, which no estimator can see (Bengio & Grandvalet 2004, JMLR 5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from lib.analysis.cells import Cells, cells, difference

MARGIN = 0.01  # mAP; "as good as" allows this much, fixed with the primary contrasts
LEVEL = 0.05  # of a test that stands alone
POWER = 0.8  # at which a detectable effect is found
SEEDS = 5  # fewer decide nothing: the tails of their tests are not what they say
NO_VERDICT = "—"  # one seed, one cluster, or too few seeds
BOOTSTRAP_CELLS = 2**21  # resampled cluster counts held at once: 16 MiB


@dataclass(frozen=True)
class Interval:
    """A mean with its t interval. Of one seed or one cluster nothing is known but the mean: low,
    high, standard error and df are NaN."""

    estimate: float
    low: float
    high: float
    standard_error: float
    df: float
    seeds: int
    clusters: int

    @property
    def half_width(self) -> float:
        """Half its length: before `within`, the distance from the estimate to either end."""
        return (self.high - self.low) / 2

    def within(self, lowest: float, highest: float) -> Interval:
        """The interval of a mean that cannot lie outside lowest..highest, cut off there.

        Cutting drops values that are impossible and no possible one, so the interval holds the true
        mean exactly as often as before. An interval on the logit scale would need a simulation of
        its own, and has no answer at 0 and 1, which oracles and easy languages reach."""
        return replace(self, low=max(self.low, lowest), high=min(self.high, highest))


@dataclass(frozen=True)
class Paired:
    """Difference first minus second on the same cells, and its two-sided p value."""

    difference: Interval
    p: float


@dataclass(frozen=True)
class Components:
    """Parts of a mean's variance, as the module's docstring defines them.

    means       float64 [..., S], weighted mean of each seed; leading axes are separate tables
    covariance  float64 [..., S, S], Sigma
    cluster_df  degrees of freedom of V_c
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
        return sampling_part(self.covariance)

    @property
    def parts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """V_s, V_c and V_e. Unbiased corrections of separate seed pairs may sum below 0 in tiny
        tables: V_c is cut off there."""
        by_cluster = np.maximum(0.0, self.covariance.mean((-2, -1)))
        return self.between / self.seeds, by_cluster, self.sampling / self.seeds

    @property
    def variance(self) -> np.ndarray:
        """Variance V of the estimate."""
        return variance(*self.parts)

    @property
    def df(self) -> np.ndarray:
        """Degrees of freedom of V."""
        by_seed, by_cluster, _ = self.parts
        return degrees_of_freedom(self.variance, by_seed, by_cluster, self.seeds, self.cluster_df)


def variance(by_seed: np.ndarray, by_cluster: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """V of the module's docstring, of V_s, V_c and V_e: never below what either one shows."""
    return np.maximum(np.maximum(by_seed, by_cluster), by_seed + by_cluster - cells)


def degrees_of_freedom(
    total: np.ndarray, by_seed: np.ndarray, by_cluster: np.ndarray, seeds: int, cluster_df: float
) -> np.ndarray:
    """Degrees of freedom of V = total; never below those of the scarcer of seeds and clusters."""
    lowest = max(seeds - 1, 1)
    spread = by_seed**2 / lowest + by_cluster**2 / cluster_df
    df = np.full(np.shape(spread), float(cluster_df))
    np.divide(total**2, spread, out=df, where=spread > 0)
    return np.where(by_seed > by_cluster / 2, lowest, np.maximum(df, min(lowest, cluster_df)))


def components(value: np.ndarray, weight: np.ndarray) -> Components:
    """Components of `value` [..., S, C] with cell weights [S, C], 0 where a cell is absent.

    Leading axes of `value` are separate tables of one design. Absent cells hold any finite value.
    Every seed has a cell."""
    share = weight / weight.sum(1, keepdims=True)
    means = (share * value).sum(-1)
    pull = share * (value - means[..., None])
    return Components(means, cluster_covariance(share, pull, share, pull), _cluster_df(share))


def interval(table: pd.DataFrame | Cells, level: float = 0.95, fixed: bool = False) -> Interval:
    """Mean over seeds of the seeds' (weighted) means, with its t interval.

    V and df are in the module's docstring. fixed: of these encoders alone, as they are; what
    training again would change is left out. Raises ValueError for a table that is not tidy, or
    empty."""
    _check_level(level)
    own = cells(table)
    found = components(own.value, own.weight)
    total, freedom = (found.parts[1], found.cluster_df) if fixed else (found.variance, found.df)
    estimate, error, df = (float(v) for v in (found.estimate, np.sqrt(total), freedom))
    if len(own.clusters) < 2 or (len(own.seeds) < 2 and not fixed):
        error = df = np.nan
    half = _quantile((1 + level) / 2, df) * error
    return Interval(estimate, estimate - half, estimate + half, error, df, *own.value.shape)


def over_seeds(values: Sequence[float], level: float = 0.95) -> Interval:
    """Mean of one value a seed, with the t interval over seeds alone: for what has no clusters,
    as a measure of a whole encoder. Raises ValueError for none."""
    _check_level(level)
    value = np.asarray(values, float)
    if not len(value):
        raise ValueError("an interval needs at least one seed, got none")
    df = len(value) - 1
    error = float(value.std(ddof=1) / np.sqrt(len(value))) if df else np.nan
    mean, half = float(value.mean()), _quantile((1 + level) / 2, df or np.nan) * error
    return Interval(mean, mean - half, mean + half, error, df or np.nan, len(value), 1)


def paired(
    table_a: pd.DataFrame | Cells,
    table_b: pd.DataFrame | Cells,
    level: float = 0.95,
    fixed: bool = False,
) -> Paired:
    """Difference a - b over the cells (seed, cluster), which both tables must share.

    What a seed or a cluster does to both arms alike cancels. fixed: as of `interval`. Raises as
    `difference`."""
    gap = interval(difference(table_a, table_b), level, fixed)
    return Paired(gap, two_sided(gap))


def tails(gap: Interval, null: float = 0.0) -> tuple[float, float]:
    """One-sided p values of "the mean is at most `null`" and "at least `null`": small values speak
    for more, and for less. Where nothing varies the mean is what it is. NaN without an interval."""
    from scipy.stats import t

    excess = gap.estimate - null
    if gap.standard_error == 0:
        return float(excess <= 0), float(excess >= 0)
    score = excess / gap.standard_error
    return float(t.sf(score, gap.df)), float(t.cdf(score, gap.df))


def two_sided(gap: Interval, null: float = 0.0) -> float:
    """Two-sided p value of "the mean is `null`"."""
    return min(1.0, 2 * min(tails(gap, null))) if gap.df == gap.df else np.nan


def equivalence(gap: Interval, margin: float = MARGIN) -> float:
    """p value of "the mean is at least `margin` away from 0": small values say that it is nearer.

    The larger p of two one-sided tests (Schuirmann 1987)."""
    return max(tails(gap, -margin)[0], tails(gap, margin)[1])


def detectable(gap: Interval, level: float = LEVEL, sides: int = 2) -> float:
    """Minimum detectable effect: how far beyond the null hypothesis a true mean has to lie for a
    test at `level` to reject in 80 % of studies like this one.

    The shift of a noncentral t that puts all but 20 % above the critical value, times the standard
    error (Bloom 1995, "Minimum detectable effects"). NaN without an interval."""
    from scipy.special import nctdtrinc

    shift = nctdtrinc(gap.df, 1 - POWER, _quantile(1 - level / sides, gap.df))
    return float(shift) * gap.standard_error


def bootstrap(
    table: pd.DataFrame | Cells, n: int = 2000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval that resamples seeds and clusters (Owen 2007): the check.

    Too narrow with few seeds that vary: three resampled seeds spread by 2/3 of the variance they
    should, and no quantile makes up for it. Too wide where only cells vary, which it counts twice.
    `n` draws, about 16 MiB at a time. The order of rows does not matter. NaN of one cluster. Raises
    ValueError like `interval`."""
    if n < 1:
        raise ValueError(f"a bootstrap needs at least one draw, got n={n}")
    _check_level(level)
    own = cells(table)
    clusters = len(own.clusters)
    if clusters < 2:
        return np.nan, np.nan
    generator = np.random.default_rng(seed)
    step = max(1, BOOTSTRAP_CELLS // clusters)
    draws = [
        _resample(own.value, own.weight, min(step, n - start), generator)
        for start in range(0, n, step)
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


def shown(low: float, high: float, form: str = ".3f") -> str:
    """An interval for people to read; a dash where there is none.

    >>> shown(0.1, 0.25), shown(float("nan"), float("nan"))
    ('[0.100, 0.250]', '[—]')
    """
    return "[—]" if np.isnan(low) else f"[{low:{form}}, {high:{form}}]"


def signed(difference: float, low: float, high: float, form: str = "+.3f") -> str:
    """A difference and its interval for people to read.

    >>> signed(0.25, -0.1, 0.6)
    '+0.250 [-0.100, +0.600]'
    """
    return f"{difference:{form}} {shown(low, high, form)}"


def _quantile(p: float, df: float) -> float:
    """Quantile of Student's t."""
    from scipy.stats import t

    return float(t.ppf(p, df))


def _check_level(level: float) -> None:
    """ValueError for a confidence level outside 0..1."""
    if not 0 < level < 1:
        raise ValueError(f"a confidence level lies between 0 and 1, got {level}")


def cluster_covariance(
    share_x: np.ndarray, pull_x: np.ndarray, share_y: np.ndarray, pull_y: np.ndarray
) -> np.ndarray:
    """Sigma [..., S, S] of seeds' means of x (rows) and y from weighted residuals [..., S, C].

    E[r_x r_y] of a common cluster is its covariance times 1 - p_x - p_y + sum(p_x p_y), each
    residual holding a share of its own mean; F is the inverse of that, averaged with p_x p_y."""
    overlap = share_x @ share_y.T
    left = overlap - share_x**2 @ share_y.T - share_x @ (share_y**2).T + overlap**2
    known = left > 1e-9 * overlap  # a seed's only cluster has no residual: left to `between`
    factor = np.divide(overlap, left, out=np.zeros_like(overlap), where=known)
    return factor * (pull_x @ np.swapaxes(pull_y, -1, -2))


def _cluster_df(share: np.ndarray) -> float:
    """Degrees of freedom of V_c: effective clusters less the means they lost.

    (sum q^2)^2 / sum q^4 effective clusters with q the shares of the estimate (Satterthwaite, all
    clusters alike); S separate means are lost when nested, one when crossed. C - 1 when balanced
    and crossed; at least 1."""
    q = share.mean(0)
    overlap = share @ share.T
    effective = (q @ q) ** 2 / (q**4).sum()
    return float(max(1.0, effective - len(share) * np.trace(overlap) / overlap.sum()))


def sampling_part(covariance: np.ndarray) -> np.ndarray:
    """What clusters add to the (co)variance between seeds' means: mean diagonal of Sigma
    [..., S, S] less its mean off-diagonal."""
    seeds = covariance.shape[-1]
    diagonal = np.trace(covariance, axis1=-2, axis2=-1)
    return (seeds * diagonal - covariance.sum((-2, -1))) / (seeds * max(seeds - 1, 1))


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
