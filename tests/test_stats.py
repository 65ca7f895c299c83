"""Intervals against hand arithmetic, textbook limits and simulated truth."""

import doctest

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as textbook

from lib.analysis import stats

TABLES = 20_000  # simulated for each figure of coverage: standard error .002


def tidy(value, nested=False, weight=None):
    """Table of a [S, C] array; nested: the clusters of each seed are others."""
    value = np.asarray(value, float)
    seeds, clusters = (axis.ravel() for axis in np.indices(value.shape))
    names = [f"{s}/{c}" if nested else f"{c}" for s, c in zip(seeds, clusters, strict=True)]
    table = pd.DataFrame({"seed": seeds, "cluster": names, "value": value.ravel()})
    return table if weight is None else table.assign(weight=np.ravel(weight).astype(float))


def t_interval(sample, level=0.95):
    """One-sample t interval of the textbook."""
    return textbook.t.interval(level, len(sample) - 1, np.mean(sample), textbook.sem(sample))


def design(kind, seeds, clusters=40):
    """Which of C clusters each of S seeds tests: weights [S, C] of 0 and 1."""
    if kind == "crossed":
        return np.ones((seeds, clusters))
    folds = seeds if kind == "nested" else seeds // 2  # rotated: every fold is used twice
    return np.kron(np.tile(np.eye(folds), (seeds // folds, 1)), np.ones((1, clusters)))


def simulate(weight, ratio, generator, tables=TABLES):
    """Values [tables, S, C] of mean 0: equal cluster and cell effects, skewed as scores are.

    The seed effects add `ratio` times the variance that the others give to the grand mean."""
    share = weight / weight.sum(1, keepdims=True)
    seeds, clusters = weight.shape
    part = 0.5 * (share.mean(0) ** 2).sum() + 0.5 * (share**2).sum() / seeds**2

    def effect(*shape):
        return (generator.exponential(size=shape) - 1) * np.sqrt(0.5)

    seed = generator.normal(size=(tables, seeds, 1)) * np.sqrt(ratio * part * seeds)
    return seed + effect(tables, 1, clusters) + effect(tables, seeds, clusters)


def coverage(weight, ratio, degrees=lambda parts: parts.df):
    """Share of simulated 95 % intervals that hold the true mean."""
    generator = np.random.default_rng([weight.size, int(4 * ratio)])
    hits = 0
    for _ in range(TABLES // 1000):
        parts = stats.components(simulate(weight, ratio, generator, 1000), weight)
        half = textbook.t.ppf(0.975, degrees(parts)) * np.sqrt(parts.variance)
        hits += (np.abs(parts.estimate) <= half).sum()
    return hits / TABLES


def bootstrap_coverage(kind, seeds, ratio, tables=200):
    """Share of simulated tables whose percentile bootstrap interval holds the true mean."""
    weight = design(kind, seeds)
    values = simulate(weight, ratio, np.random.default_rng(1), tables)
    hits = 0
    for value in values:
        low, high = stats.bootstrap(tidy(value)[weight.ravel() > 0], n=300)
        hits += low <= 0 <= high
    return hits / tables


def figures():
    """Rows (clusters, seeds, coverages) of the module docstring's table."""
    rows = [line.split() for line in stats.__doc__.splitlines()]
    kinds = ("nested", "crossed", "rotated")
    return [
        (row[0], int(row[1]), [float(v) for v in row[2:6]])
        for row in rows
        if len(row) > 5 and row[0] in kinds and row[1].isdigit()
    ]


def test_hand_crossed():
    """Two seeds, two clusters, crossed: every part by hand."""
    # seed means 2 and 5; residuals -1, 1 and -2, 2; shares 1/2; F = 2
    # Sigma = 2 * [[1/4 + 1/4, 1/2 + 1/2], [1, 2]] = [[1, 2], [2, 4]]
    # between 9/2, sampling 5/2 - 2 = 1/2, clusters 9/4, V = (9/2 - 1/2) / 2 + 9/4 = 17/4
    # df = (17/4)^2 / ((9/4)^2 / 1 + (9/4)^2 / 1)
    got = stats.interval(tidy([[1, 3], [3, 7]]))
    assert got.estimate == 3.5
    assert got.standard_error == pytest.approx(np.sqrt(17 / 4))
    assert got.df == pytest.approx(289 / 162)
    half = textbook.t.ppf(0.975, 289 / 162) * np.sqrt(17 / 4)
    assert (got.low, got.high) == pytest.approx((3.5 - half, 3.5 + half))
    assert (got.seeds, got.clusters, got.seeds_varied) == (2, 2, True)
    assert got.half_width == pytest.approx(half)


def test_hand_nested():
    """Two seeds with clusters of their own: the variance of the two seed means and nothing else."""
    # seed means 2 and 5, Sigma = diag(1, 4), between 9/2, sampling 5/2, clusters 5/4
    # V = (9/2 - 5/2) / 2 + 5/4 = 9/4 = between / S, df at least S - 1
    got = stats.interval(tidy([[1, 3], [3, 7]], nested=True))
    assert got.standard_error == pytest.approx(1.5)
    assert got.df == pytest.approx(1.0)
    assert got.clusters == 4


def test_hand_weighted():
    """One seed, weights 1 and 3: the weighted mean and its unbiased variance."""
    # p = 1/4, 3/4; mean 3; r = -3, 1; sum p^2 = 5/8; sum p^2 r^2 = 9/8
    # F = (5/8) / (1/16 * (1 - 1/2 + 5/8) + 9/16 * (1 - 3/2 + 5/8)) = (5/8) / (9/64) = 40/9; V = 5
    got = stats.interval(tidy([[0, 4]], weight=[1, 3]))
    assert got.estimate == 3.0
    assert got.standard_error == pytest.approx(np.sqrt(5))
    assert not got.seeds_varied


def test_one_seed_is_the_t_interval_of_clusters():
    """One seed, equal weights: the one-sample t interval over clusters."""
    value = np.random.default_rng(0).normal(size=(1, 17))
    got = stats.interval(tidy(value))
    assert (got.low, got.high) == pytest.approx(t_interval(value[0]))
    assert got.df == pytest.approx(16)


@pytest.mark.parametrize("nested", [False, True])
def test_equal_clusters_leave_the_t_interval_of_seeds(nested):
    """Clusters alike within a seed: the one-sample t interval over seed means, df = S - 1."""
    value = np.repeat([[0.2], [0.5], [0.4], [0.9]], 6, axis=1)
    got = stats.interval(tidy(value, nested))
    assert (got.low, got.high) == pytest.approx(t_interval(value[:, 0]))
    assert got.df == pytest.approx(3)


def test_equal_seeds_leave_the_t_interval_of_clusters():
    """The same scores in every seed: seeds add nothing, the t interval over clusters."""
    one = np.random.default_rng(1).normal(size=13)
    got = stats.interval(tidy(np.tile(one, (4, 1))))
    assert (got.low, got.high) == pytest.approx(t_interval(one))
    assert got.df == pytest.approx(12)


def test_equal_seed_means_leave_the_t_interval_of_cluster_means():
    """Crossed, cells that differ but no seed effect: the t interval over clusters' means."""
    value = np.random.default_rng(2).normal(size=(3, 11))
    value -= value.mean(1, keepdims=True)
    got = stats.interval(tidy(value))
    assert (got.low, got.high) == pytest.approx(t_interval(value.mean(0)))


def test_nested_with_visible_seeds_is_the_t_interval_of_seeds():
    """Nested clusters and seeds farther apart than those explain: t over the seed means."""
    value = np.random.default_rng(3).normal(size=(3, 20)) + np.array([[0], [3], [7]])
    got = stats.interval(tidy(value, nested=True))
    assert (got.low, got.high) == pytest.approx(t_interval(value.mean(1)))


def test_nested_seeds_that_agree_are_not_believed():
    """Seed means closer than their clusters allow: the clusters' error, not the smaller one."""
    value = np.random.default_rng(4).normal(size=(3, 20))
    value -= value.mean(1, keepdims=True)
    got = stats.interval(tidy(value, nested=True))
    assert got.standard_error == pytest.approx(np.sqrt(value.var(1, ddof=1).mean() / 60))
    assert got.df == pytest.approx(57)


def test_one_cluster_a_seed():
    """Seeds with one cluster each say what their clusters add only through the seed means."""
    value = np.array([[1.0], [2.0], [6.0]])
    got = stats.interval(tidy(value, nested=True))
    assert (got.low, got.high) == pytest.approx(t_interval(value[:, 0]))


@pytest.mark.parametrize("kind", ["nested", "crossed", "rotated"])
def test_components_are_unbiased(kind):
    """The parts' averages over many tables are the true ones, with unequal weights too."""
    generator = np.random.default_rng(5)
    weight = design(kind, 4, 12)
    weight = weight * generator.integers(1, 6, size=weight.shape[1])
    share = weight / weight.sum(1, keepdims=True)
    part = 0.5 * (share.mean(0) ** 2).sum() + 0.5 * (share**2).sum() / 16
    parts = stats.components(simulate(weight, 2.0, generator, TABLES), weight)
    assert parts.covariance.mean((-2, -1)).mean() == pytest.approx(part, rel=0.03)
    assert (parts.between - parts.sampling).mean() / 4 == pytest.approx(2 * part, rel=0.03)


@pytest.mark.parametrize(("kind", "seeds", "expected"), figures())
def test_coverage(kind, seeds, expected):
    """Simulated coverage is the docstring's, and lies between .92 and .99."""
    got = [coverage(design(kind, seeds), ratio) for ratio in (0, 1, 4, 16)]
    assert got == pytest.approx(expected, abs=0.006)
    assert all(0.92 < share < 0.99 for share in got)


def test_coverage_table_is_complete():
    """The docstring's table covers nested and crossed clusters with three and five seeds."""
    rows = {row[:2] for row in figures()}
    assert rows >= {(kind, seeds) for kind in ("nested", "crossed") for seeds in (3, 5)}


def test_df_of_the_cut_component_cover_less():
    """Why df come from the mean squares: taken after the cut at zero they cover only .88."""

    def cut(parts):
        spread = parts.seed_part**2 / (parts.seeds - 1) + parts.cluster_part**2 / parts.cluster_df
        return parts.variance**2 / spread

    assert coverage(design("nested", 3), 4, cut) == pytest.approx(0.88, abs=0.01)


@pytest.mark.parametrize("kind", ["nested", "crossed"])
def test_bootstrap_covers_less_where_seeds_vary(kind):
    """A percentile bootstrap over three seeds that vary covers far less than 95 %."""
    got = bootstrap_coverage(kind, 3, 16)
    assert got < 0.87
    assert coverage(design(kind, 3), 16) > got + 0.07


def test_bootstrap_covers_where_seeds_do_not_vary():
    """The same bootstrap is a check where only clusters vary."""
    assert 0.90 < bootstrap_coverage("crossed", 3, 0) < 0.99


def test_bootstrap_of_two_clusters():
    """Two clusters, one seed: draws are 0, 1/2, 1 with probability 1/4, 1/2, 1/4."""
    assert stats.bootstrap(tidy([[0, 1]])) == (0.0, 1.0)
    assert stats.bootstrap(tidy([[0, 1]]), level=0.4) == (0.5, 0.5)
    assert stats.bootstrap(tidy([[0, 1]], weight=[1, 3]), level=0.4) == (0.75, 0.75)


def test_bootstrap_leaves_out_seeds_without_drawn_clusters():
    """Nested seeds of one cluster each: a draw averages the seeds that kept theirs."""
    low, high = stats.bootstrap(tidy([[1.0], [2.0], [6.0]], nested=True))
    assert (low, high) == (1.0, 6.0)


def test_bootstrap_is_a_function_of_its_seed(monkeypatch):
    """Same seed, same interval, whatever the order of rows; another seed, another one."""
    table = tidy(np.random.default_rng(0).normal(size=(3, 30)))
    assert stats.bootstrap(table) == stats.bootstrap(table.sample(frac=1, random_state=1))
    assert stats.bootstrap(table) != stats.bootstrap(table, seed=1)
    monkeypatch.setattr(stats, "BOOTSTRAP_CELLS", 30)  # one draw at a time: other numbers, same law
    assert stats.bootstrap(table) == pytest.approx(stats.bootstrap(table, seed=1), abs=0.1)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 999), st.booleans(), st.floats(0.1, 10), st.floats(-5, 5))
def test_interval_is_invariant(seed, nested, scale, shift):
    """Order, names and the scale of weights change nothing; values may be shifted and scaled."""
    generator = np.random.default_rng(seed)
    value = generator.normal(size=(3, 6)) + generator.normal(size=(3, 1))
    weight = generator.integers(1, 5, size=(3, 6))
    table = tidy(value, nested, weight).drop(index=[4, 9])
    names = dict(zip(table["cluster"].unique(), generator.permutation(99), strict=False))
    other = table.sample(frac=1, random_state=seed).assign(
        seed=lambda t: t["seed"].map({0: 7, 1: 5, 2: 6}),
        cluster=lambda t: t["cluster"].map(names).astype(str),
        value=lambda t: t["value"] * scale + shift,
        weight=lambda t: t["weight"] * 3,
    )
    a, b = stats.interval(table), stats.interval(other)
    assert b.estimate == pytest.approx(a.estimate * scale + shift)
    assert b.half_width == pytest.approx(a.half_width * scale)
    assert (b.df, b.seeds, b.clusters) == pytest.approx((a.df, a.seeds, a.clusters))


def test_interval_level():
    """A wider level gives a wider interval around the same estimate, by the t quantiles."""
    table = tidy(np.random.default_rng(0).normal(size=(1, 9)))
    a, b = stats.interval(table, level=0.5), stats.interval(table)
    assert a.estimate == b.estimate
    assert b.half_width / a.half_width == pytest.approx(
        textbook.t.ppf(0.975, 8) / textbook.t.ppf(0.75, 8)
    )


def test_paired_is_the_paired_t_test():
    """One seed: the paired t test over clusters, in any order of rows."""
    a, b = np.random.default_rng(0).normal(size=(2, 1, 15))
    got = stats.paired(tidy(a), tidy(b).sample(frac=1, random_state=0))
    assert got.p == pytest.approx(textbook.ttest_rel(a[0], b[0]).pvalue)
    assert got.difference == stats.interval(tidy(a - b))


def test_paired_cancels_what_arms_share():
    """Seed and cluster effects common to both arms leave the difference alone."""
    generator = np.random.default_rng(0)
    a, b = generator.normal(size=(2, 3, 10))
    common = 9 * generator.normal(size=(3, 1)) + 9 * generator.normal(size=(1, 10))
    one, two = stats.paired(tidy(a), tidy(b)), stats.paired(tidy(a + common), tidy(b + common))
    assert one.p == pytest.approx(two.p)
    assert one.difference.half_width == pytest.approx(two.difference.half_width)


def test_paired_p_agrees_with_the_interval():
    """p is below .05 exactly where the 95 % interval leaves zero out; swapping arms keeps it."""
    generator = np.random.default_rng(0)
    seen = set()
    for shift in np.linspace(0, 2, 30):
        a, b = tidy(generator.normal(size=(3, 8)) + shift), tidy(generator.normal(size=(3, 8)))
        got = stats.paired(a, b)
        outside = got.difference.low > 0 or got.difference.high < 0
        assert (got.p < 0.05) == outside
        assert stats.paired(b, a).p == pytest.approx(got.p)
        seen.add(outside)
    assert seen == {True, False}


def test_paired_with_itself_and_with_a_constant_lead():
    """No difference anywhere: 0 +- 0 and p = 1; the same difference everywhere: p = 0."""
    table = tidy(np.arange(12.0).reshape(3, 4))
    same = stats.paired(table, table)
    assert (same.difference.low, same.difference.high, same.p) == (0, 0, 1)
    assert stats.verdict(same.difference) == "equivalent"
    lead = stats.paired(table.assign(value=table["value"] + 1), table)
    assert (lead.difference.low, lead.difference.high, lead.p) == (1, 1, 0)


def test_paired_refuses_other_cells():
    """A cell that only one table has, or with other weights, is named."""
    table = tidy(np.arange(6.0).reshape(2, 3))
    with pytest.raises(ValueError, match=r"the second lacks cell \(seed 1, cluster '2'\)"):
        stats.paired(table, table.drop(index=5))
    with pytest.raises(ValueError, match=r"the first lacks cell \(seed 0, cluster '0'\)"):
        stats.paired(table.drop(index=0), table)
    with pytest.raises(ValueError, match=r"same weights: cell \(seed 0, cluster '0'\) differs"):
        stats.paired(table.assign(weight=2.0), table)
    other = table.assign(weight=[1, 1, 1, 1, 9, 1]).sample(frac=1, random_state=3)
    with pytest.raises(ValueError, match=r"cell \(seed 1, cluster '1'\) differs"):
        stats.paired(table[::-1], other)


def test_holm_by_hand():
    """.01 * 4, .02 * 3, .03 * 2 raised to the one before, .5 * 1; capped at 1; ties alike."""
    assert stats.holm([0.03, 0.5, 0.01, 0.02]).tolist() == [0.06, 0.5, 0.04, 0.06]
    assert stats.holm([0.9, 0.6]).tolist() == [1.0, 1.0]
    assert stats.holm([0.2, 0.2, 0.2]) == pytest.approx([0.6, 0.6, 0.6])
    assert stats.holm([]).tolist() == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(0.001, 0.5))
def test_holm_rejects_as_the_procedure_does(p, alpha):
    """Adjusted p <= alpha exactly where stepping down rejects, and never below the raw p."""
    adjusted = stats.holm(p)
    rejected = np.zeros(len(p), bool)
    for step, which in enumerate(np.argsort(p, kind="stable")):
        if p[which] * (len(p) - step) > alpha:
            break
        rejected[which] = True
    assert ((adjusted <= alpha) == rejected).all()
    assert (adjusted >= p).all() and (adjusted <= 1).all()


@pytest.mark.parametrize("bad", [[0.1, 1.2], [-0.1], [np.inf], [[0.1]]])
def test_holm_refuses(bad):
    """Numbers that are no probabilities are refused."""
    with pytest.raises(ValueError, match="p values must be"):
        stats.holm(bad)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.001, 0.1, "supported"),
        (0.001, 0.005, "supported"),  # the sign is clear, however small the difference
        (-0.1, -0.001, "contradicted"),
        (-0.005, -0.001, "contradicted"),
        (0.0, 0.005, "equivalent"),
        (-0.01, 0.01, "equivalent"),
        (-0.011, 0.005, "inconclusive"),
        (-0.005, 0.011, "inconclusive"),
        (-0.1, 0.1, "inconclusive"),
    ],
)
def test_verdict(low, high, expected):
    """Sign first, then equivalence within +-.01, else inconclusive."""
    middle = (low + high) / 2
    assert stats.verdict(stats.Interval(middle, low, high, 0.01, 9.0, 3, 30)) == expected


def test_verdict_margin():
    """The margin decides what is equivalent, and must be positive."""
    wide = stats.Interval(0.0, -0.05, 0.05, 0.01, 9.0, 3, 30)
    assert stats.verdict(wide, margin=0.05) == "equivalent"
    for margin in (0, -1, np.nan):
        with pytest.raises(ValueError, match="margin must be positive"):
            stats.verdict(wide, margin)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("tilt", [-1.5, 0.0, 2.0])
def test_region_projects_to_the_intervals(nested, tilt):
    """The ellipse's extremes are the two intervals' ends, and it is centred on the estimates."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(3, 10)) + generator.normal(size=(3, 1))
    y = tilt * x + generator.normal(size=(3, 10))
    got = stats.region(tidy(x, nested), tidy(y, nested))
    assert got.x == stats.interval(tidy(x, nested))
    assert got.y == stats.interval(tidy(y, nested))
    assert got.points.min(0) == pytest.approx([got.x.low, got.y.low], abs=1e-12)
    assert got.points.max(0) == pytest.approx([got.x.high, got.y.high], abs=1e-12)
    assert tilt == 0 or np.sign(got.correlation) == np.sign(tilt)
    scaled = (got.points - [got.x.estimate, got.y.estimate]) / [got.x.half_width, got.y.half_width]
    r = got.correlation
    inside = scaled[:, 0] ** 2 - 2 * r * scaled.prod(1) + scaled[:, 1] ** 2
    assert inside == pytest.approx(np.full(len(scaled), 1 - r**2))


def test_region_of_a_line():
    """y = a + b x: correlation 1 or -1, covariance b times the variance of x."""
    x = np.random.default_rng(0).normal(size=(3, 10)) + np.array([[0], [1], [3]])
    for slope in (0.5, -2.0):
        got = stats.region(tidy(x), tidy(1 + slope * x))
        variance = got.x.standard_error**2
        expected = variance * np.array([[1, slope], [slope, slope**2]])
        assert got.covariance == pytest.approx(expected)
        assert got.correlation == pytest.approx(np.sign(slope))
    assert stats.region(tidy(x), tidy(np.ones((3, 10)))).correlation == 0


def test_region_by_hand():
    """One seed, two clusters: the covariance of two means."""
    # residuals -1, 1 and -3, 3, shares 1/2, F = 2: variances 1 and 9, covariance 3
    got = stats.region(tidy([[1, 3]]), tidy([[4, 10]]))
    assert got.covariance == pytest.approx(np.array([[1, 3], [3, 9]]))


def test_region_of_nested_clusters_by_hand():
    """Three seeds with clusters of their own: that of the seed means over S throughout."""
    # x means 0, 3, 9, y means 0, 6, 3: variances 21 and 9, covariance (12 - 3 + 0) / 2 = 9/2
    # Sigma is the identity for x, y and across: (9/2 - 1) / 3 + 1/3 = 3/2
    x, y = ([[m - 1, m + 1] for m in means] for means in ((0, 3, 9), (0, 6, 3)))
    got = stats.region(tidy(x, nested=True), tidy(y, nested=True))
    assert got.covariance == pytest.approx(np.array([[7, 1.5], [1.5, 3]]))


def test_region_counts_clusters_of_either_table():
    """Tables with no cluster in common: only seeds covary, here not more than they vary."""
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(2, 1, 10))
    other = tidy(y).assign(cluster=lambda t: "other " + t["cluster"])
    assert stats.region(tidy(x), other).correlation == 0
    effect = np.array([[0.0], [50.0], [90.0]])
    x, y = generator.normal(size=(2, 3, 10)) + effect
    other = tidy(y).assign(cluster=lambda t: "other " + t["cluster"])
    assert stats.region(tidy(x), other).correlation > 0.99


def test_region_covariance_is_unbiased():
    """Averaged over tables the covariance is the true one of seed and cluster effects."""
    generator = np.random.default_rng(0)
    found = []
    for _ in range(200):
        seed, cluster = generator.normal(size=(5, 1)) * 2, generator.normal(size=(1, 8))
        x, cell = generator.normal(size=(2, 5, 8)) * 2
        x, y = seed + cluster + x, seed + cluster + x + cell
        found.append(stats.region(tidy(x), tidy(y)).covariance[0, 1])
    error = np.std(found) / np.sqrt(len(found))
    assert np.mean(found) == pytest.approx(4 / 5 + 1 / 8 + 4 / 40, abs=3 * error)


def test_region_without_seed_effect_on_one_axis():
    """Seeds that differ on one axis only: no more covariance than the clusters give."""
    # x: cells alike, means 0, 1, 5: nothing but seeds; y: seed means differ less than cells explain
    x = np.repeat([[0.0], [1.0], [5.0]], 4, axis=1)
    y = np.array([[0, 9, 0, 9], [9, 1, 9, 1], [2, 9, 2, 9.0]])
    assert np.cov(x.mean(1), y.mean(1))[0, 1] > 1
    got = stats.region(tidy(x), tidy(y))
    assert got.covariance[0, 1] == 0 and got.correlation == 0


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**6))
def test_tiny_tables_keep_variances_and_correlations_in_range(seed):
    """Lopsided tables of a few cells: variance >= 0, df >= 1, correlation within -1..1."""
    generator = np.random.default_rng(seed)
    value = generator.normal(size=(2, 3, 4))
    present = generator.random((2, 3, 4)) < 0.6
    present[:, :, 0] |= ~present.any(2)
    weight = 10.0 ** generator.integers(0, 4, size=(2, 3, 4))
    x, y = (tidy(v, weight=w)[p.ravel()] for v, w, p in zip(value, weight, present, strict=True))
    if min(x["cluster"].nunique(), y["cluster"].nunique()) < 2:
        return
    got = stats.region(x, y)
    assert np.linalg.eigvalsh(got.covariance).min() >= -1e-12 * np.trace(got.covariance)
    assert min(got.x.df, got.y.df) >= 1 and np.isfinite(got.points).all()


def test_region_refuses_other_seeds():
    """Points of the plane are runs: both axes need the same seeds."""
    table = tidy(np.arange(6.0).reshape(2, 3))
    with pytest.raises(ValueError, match=r"same seeds on both axes: \[1\]"):
        stats.region(table, table[table["seed"] == 0])


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=12))
def test_pareto_is_brute_force(points):
    """Equal to asking of each point whether any other dominates it."""
    expected = [not any(q != p and q[0] >= p[0] and q[1] >= p[1] for q in points) for p in points]
    assert stats.pareto(np.array(points)).tolist() == expected


def test_pareto_refuses():
    """A flat list or NaN is no set of points."""
    for bad in (np.ones(3), np.array([[1.0, np.nan]])):
        with pytest.raises(ValueError, match="points must be"):
            stats.pareto(bad)


GOOD = tidy([[1, 2], [3, 4]])


def test_one_cluster_has_a_mean_and_no_interval():
    """Whatever seeds say: of another question nothing is known. Verdicts stay open."""
    one = GOOD[GOOD["cluster"] == "0"]
    found = stats.interval(one)
    assert (found.estimate, found.seeds, found.clusters) == (2, 2, 1)
    assert np.isnan([found.low, found.high, found.standard_error, found.df]).all()
    gap = stats.paired(one.assign(value=one["value"] + 1), one)
    assert gap.difference.estimate == 1 and np.isnan(gap.p)
    assert stats.verdict(gap.difference) == "inconclusive"
    assert np.isnan(stats.bootstrap(one)).all()
    assert np.isnan(stats.region(one, one).points).all()
    np.testing.assert_array_equal(stats.holm([0.02, np.nan, 0.01]), [0.04, np.nan, 0.03])


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (GOOD.drop(columns="value"), "needs the column 'value'"),
        (GOOD[:0], "at least one cluster, got none"),
        (
            GOOD.assign(value=[1, 2, np.nan, 4]),
            r"cell \(seed 1, cluster '0'\) needs a finite value",
        ),
        (
            GOOD.assign(weight=[1, 0, 1, 1]),
            r"cell \(seed 0, cluster '1'\) needs .* positive weight",
        ),
        (GOOD.assign(weight=[1, 1, np.inf, 1]), "positive weight"),
        (GOOD.assign(cluster=["a", None, "a", "b"]), "needs a finite value"),
        (pd.concat([GOOD, GOOD[3:]]), r"cell \(seed 1, cluster '1'\) stands in the table twice"),
    ],
)
def test_bad_tables_are_refused(table, message):
    """What is no tidy table is refused in one line that says why."""
    for function in (stats.interval, stats.bootstrap):
        with pytest.raises(ValueError, match=message) as caught:
            function(table)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("level", [0, 1, 95])
def test_bad_levels_are_refused(level):
    """A level is a probability; 95 is not 95 %."""
    for function in (stats.interval, stats.bootstrap):
        with pytest.raises(ValueError, match="confidence level"):
            function(GOOD, level=level)
    with pytest.raises(ValueError, match="at least one draw"):
        stats.bootstrap(GOOD, n=0)


def test_docstring_examples():
    """The examples in the docstrings run, and there are some."""
    result = doctest.testmod(stats)
    assert result.failed == 0 and result.attempted >= 3
