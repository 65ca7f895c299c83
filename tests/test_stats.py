"""Intervals against hand arithmetic, textbook limits and simulated truth."""

import doctest

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as textbook

from lib.analysis import stats, tails
from lib.analysis.cells import averaged
from lib.store import ROOT

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


def simulate(weight, ratio, generator, tables=TABLES, skewed=True):
    """Values [tables, S, C] of mean 0: equal cluster and cell effects, skewed as scores are.

    The seed effects add `ratio` times the variance that the others give to the grand mean."""
    share = weight / weight.sum(1, keepdims=True)
    seeds, clusters = weight.shape
    part = 0.5 * (share.mean(0) ** 2).sum() + 0.5 * (share**2).sum() / seeds**2

    def effect(*shape):
        drawn = generator.exponential(size=shape) - 1 if skewed else generator.normal(size=shape)
        return drawn * np.sqrt(0.5)

    seed = generator.normal(size=(tables, seeds, 1)) * np.sqrt(ratio * part * seeds)
    return seed + effect(tables, 1, clusters) + effect(tables, seeds, clusters)


def rejected(weight, ratio, level=0.05, skewed=True):
    """Share of simulated tables in which the true mean of 0 is rejected."""
    generator = np.random.default_rng([weight.size, int(4 * ratio)])
    hits = 0
    for _ in range(TABLES // 1000):
        found = stats.components(simulate(weight, ratio, generator, 1000, skewed), weight)
        score = np.abs(found.estimate) / np.sqrt(found.variance)
        hits += (2 * textbook.t.sf(score, found.df) < level).sum()
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


def test_hand_crossed():
    """Two seeds, two clusters, crossed: every part by hand."""
    # seed means 2 and 5; residuals -1, 1 and -2, 2; shares 1/2; F = 2
    # Sigma = 2 * [[1/4 + 1/4, 1/2 + 1/2], [1, 2]] = [[1, 2], [2, 4]]
    # between 9/2, sampling 5/2 - 2 = 1/2, clusters 9/4, V = (9/2 - 1/2) / 2 + 9/4 = 17/4
    # V_s = V_c = 9/4, V_e = 1/4; V_s > V_c / 2: df = S - 1
    got = stats.interval(tidy([[1, 3], [3, 7]]))
    assert got.estimate == 3.5
    assert got.standard_error == pytest.approx(np.sqrt(17 / 4))
    assert got.df == 1
    half = textbook.t.ppf(0.975, 1) * np.sqrt(17 / 4)
    assert (got.low, got.high) == pytest.approx((3.5 - half, 3.5 + half))
    assert (got.seeds, got.clusters) == (2, 2)
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
    got = stats.components(np.array([[0.0, 4.0]]), np.array([[1.0, 3.0]]))
    assert got.estimate == 3.0
    assert got.variance == pytest.approx(5)


def test_hand_seeds_that_agree():
    """Satterthwaite's degrees of freedom where the seeds' means say little: by hand."""
    # seed means 2 and 2.5; residuals -1, 1 and -2, 2 (as above): Sigma = [[1, 2], [2, 4]]
    # between 1/8, V_s = 1/16, V_c = 9/4, sampling 1/2, V_e = 1/4: V = 9/4 = V_c
    # df = (9/4)^2 / ((1/16)^2 / 1 + (9/4)^2 / 1)
    got = stats.interval(tidy([[1, 3], [0.5, 4.5]]))
    assert got.standard_error == pytest.approx(1.5)
    assert got.df == pytest.approx(1.0)  # at least that of the scarcer of seeds and clusters
    value = np.tile([[-1.0, 1.0, -1.0, 1.0]], (3, 1)) + np.array([[0.0], [0.1], [-0.1]])
    # V_s = .01 / 3, V_c = (4/3) / 4 = 1/3, V_e = 0
    seed, cluster = 0.01 / 3, 1 / 3
    total = seed + cluster
    got = stats.interval(tidy(value))
    assert got.standard_error == pytest.approx(np.sqrt(total))
    assert got.df == pytest.approx(total**2 / (seed**2 / 2 + cluster**2 / 3))


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
    by_seed, by_cluster, cells = (p.mean() for p in parts.parts)
    assert by_seed - cells == pytest.approx(2 * part, rel=0.03)
    assert by_cluster == pytest.approx(part, rel=0.03)


@pytest.fixture(scope="module")
def simulated():
    """The table of tails, made once."""
    return tails.table()


def test_tails_hold(simulated):
    """A true hypothesis is rejected at most 1.2 times as often as the level says: everywhere."""
    assert set(simulated["clusters"]) == {"nested", "crossed"}
    assert set(simulated["seeds"]) == {5, 8, 10} and (tails.DRAWS, tails.CLUSTERS) == (40_000, 48)
    assert set(simulated["ratio"]) >= {0, 1, 4, 16} and set(tails.LEVELS) >= {0.05, 0.01, 0.005}
    assert simulated[tails.names()].max(axis=None) <= 1.2
    assert simulated["length"].max() < 1.55  # what caution costs: lengths over known variances
    # nested clusters of seeds that differ much: the t test over seeds, which is exact
    exact = simulated[(simulated["clusters"] == "nested") & (simulated["ratio"] == 16)]
    assert exact[tails.names()].min(axis=None) > 0.9


def test_tails_of_few_seeds_do_not():
    """Why fewer than five seeds decide nothing: the far tail of three rejects thrice as often."""
    few = tails.table((3,))
    assert few[".05"].max() < 1.2 and few[".005"].max() > 2.5
    assert tails.table((4,))[".005"].max() > 1.3 and stats.SEEDS == min(tails.SEEDS)


def test_satterthwaite_alone_does_not_hold(monkeypatch):
    """The rule before this one, in the same simulation: twice the level with five seeds."""

    def before(total, by_seed, by_cluster, seeds, cluster_df):
        return total**2 / (by_seed**2 / (seeds - 1) + by_cluster**2 / cluster_df)

    monkeypatch.setattr(tails, "variance", lambda s, c, e: np.maximum(c, s + c - e))
    monkeypatch.setattr(tails, "degrees_of_freedom", before)
    assert tails.table((5,))[".005"].max() > 1.6


@pytest.mark.parametrize("level", [0.05, 0.01])
@pytest.mark.parametrize("ratio", [0, 1, 4])
@pytest.mark.parametrize("kind", ["nested", "crossed"])
def test_tables_have_the_simulated_tails(kind, ratio, level, monkeypatch):
    """The four numbers that `tails` draws are those of whole tables of normal effects."""
    monkeypatch.setattr(tails, "CLUSTERS", 40)
    cells = 1.0 if kind == "nested" else 1 / 6  # equal cluster and cell effects, five seeds
    rate, _ = tails.rates(kind, 5, ratio, cells)
    expected = rate[tails.LEVELS.index(level)]
    got = rejected(design(kind, 5), ratio, level, skewed=False)
    assert got == pytest.approx(expected, abs=4 * np.sqrt(level * (1 / TABLES + 1 / tails.DRAWS)))


@pytest.mark.parametrize("kind", ["nested", "crossed", "rotated"])
def test_coverage_of_skewed_scores(kind):
    """95 % intervals of exponential scores, folds in two seeds too: .94 or more hold the mean."""
    weight = design(kind, 6 if kind == "rotated" else 5)
    assert max(rejected(weight, ratio) for ratio in (0, 1, 4, 16)) < 0.06


def test_the_documented_table_is_the_simulated_one(simulated):
    """`python -m lib.analysis.tails` prints it."""
    page = (ROOT / "docs" / "statistics.md").read_text(encoding="utf-8")
    assert tails.markdown(simulated) in page


@pytest.mark.parametrize("kind", ["nested", "crossed"])
def test_bootstrap_covers_less_where_seeds_vary(kind):
    """A percentile bootstrap over three seeds that vary covers far less than 95 %."""
    got = bootstrap_coverage(kind, 3, 16)
    assert got < 0.87
    assert 1 - rejected(design(kind, 3), 16) > got + 0.07


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
    table = tidy(np.random.default_rng(0).normal(size=(4, 9)) + np.arange(4)[:, None])
    a, b = stats.interval(table, level=0.5), stats.interval(table)
    assert a.estimate == b.estimate
    assert b.half_width / a.half_width == pytest.approx(
        textbook.t.ppf(0.975, 3) / textbook.t.ppf(0.75, 3)
    )


def test_paired_is_the_paired_t_test():
    """Seeds alone: the paired t test over seeds, in any order of rows."""
    a, b = np.repeat(np.random.default_rng(0).normal(size=(2, 6, 1)), 4, axis=2)
    got = stats.paired(tidy(a), tidy(b).sample(frac=1, random_state=0))
    assert got.p == pytest.approx(textbook.ttest_rel(a[:, 0], b[:, 0]).pvalue)
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


def test_averaged_by_hand():
    """Two settings of other weights and clusters: in each seed the mean of the two means."""
    one = tidy([[1, 3], [2, 2]], weight=[[1, 3], [1, 1]])  # means 5/2 and 2
    two = tidy([[4], [8]], weight=[[7], [5]])  # cluster "0" alone: means 4 and 8
    got = averaged([one, two])
    assert stats.interval(got).estimate == pytest.approx(((5 / 2 + 4) / 2 + (2 + 8) / 2) / 2)
    assert list(got.seeds) == [0, 1] and list(got.clusters) == ["0", "1"]
    assert got.weight[0].tolist() == [1 / 4 + 1, 3 / 4]
    assert got.value[0].tolist() == pytest.approx([(1 / 4 + 4) / (5 / 4), 3])
    assert stats.interval(averaged([one])) == stats.interval(one)
    with pytest.raises(ValueError, match="need the same seeds: not all have 1"):
        averaged([one, two[two["seed"] == 0]])


def gap(estimate, error=0.01, df=4.0):
    """An interval as tests use it."""
    half = textbook.t.ppf(0.975, df) * error
    return stats.Interval(estimate, estimate - half, estimate + half, error, df, 5, 48)


def test_tails_of_a_difference_by_hand():
    """Upper and lower tail of t = (.03 - -.01) / .01 = 4 with 4 degrees of freedom."""
    more, less = stats.tails(gap(0.03), -0.01)
    assert more == pytest.approx(textbook.t.sf(4, 4)) and more + less == pytest.approx(1)
    assert stats.two_sided(gap(0.03), -0.01) == pytest.approx(2 * textbook.t.sf(4, 4))
    assert stats.two_sided(gap(-0.05), -0.01) == pytest.approx(2 * textbook.t.sf(4, 4))
    assert stats.tails(gap(0.03, 0.0)) == (0, 1) and stats.tails(gap(0.0, 0.0)) == (1, 1)


def test_equivalence_by_hand():
    """The worse of two one-sided tests: .01 - .004 from the nearer margin, over .002."""
    assert stats.equivalence(gap(0.004, 0.002)) == pytest.approx(textbook.t.sf(3, 4))
    assert stats.equivalence(gap(-0.004, 0.002)) == pytest.approx(textbook.t.sf(3, 4))
    assert stats.equivalence(gap(0.02, 0.002)) > 0.95


@pytest.mark.parametrize(("level", "sides"), [(0.05, 2), (0.05 / 3, 2), (0.05, 1)])
def test_a_detectable_effect_is_found_in_four_of_five_studies(level, sides):
    """Simulated power at the effect that five seeds are said to detect."""
    generator, error = np.random.default_rng(0), 1 / np.sqrt(5)
    effect = stats.detectable(gap(0.0, error), level, sides)
    values = generator.normal(effect, 1, size=(TABLES, 5))
    score = values.mean(1) / (values.std(1, ddof=1) * error)
    assert (textbook.t.sf(score, 4) < level / sides).mean() == pytest.approx(0.8, abs=0.015)


def test_intervals_of_means_stay_within_their_range():
    """Cut off at 0 and 1, the estimate untouched; a dash stays one."""
    cut = stats.interval(tidy([[0.0, 0.02], [0.1, 0.0]])).within(0, 1)
    whole = stats.interval(tidy([[0.0, 0.02], [0.1, 0.0]]))
    assert whole.low < 0 == cut.low and cut.high == whole.high and cut.estimate == whole.estimate
    assert np.isnan(stats.interval(tidy([[0.5, 0.9]])).within(0, 1).low)


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


GOOD = tidy([[1, 2], [3, 4]])


def test_one_cluster_has_a_mean_and_no_interval():
    """Whatever seeds say: of another question nothing is known. Verdicts stay open."""
    one = GOOD[GOOD["cluster"] == "0"]
    found = stats.interval(one)
    assert (found.estimate, found.seeds, found.clusters) == (2, 2, 1)
    assert np.isnan([found.low, found.high, found.standard_error, found.df]).all()
    gap = stats.paired(one.assign(value=one["value"] + 1), one)
    assert gap.difference.estimate == 1 and np.isnan(gap.p)
    assert np.isnan(stats.bootstrap(one)).all()
    assert np.isnan(stats.detectable(found))
    np.testing.assert_array_equal(stats.holm([0.02, np.nan, 0.01]), [0.04, np.nan, 0.03])


def test_one_seed_has_a_mean_and_no_interval():
    """Whatever clusters say: of an encoder trained anew nothing is known."""
    found = stats.interval(tidy(np.random.default_rng(0).normal(0.5, 0.1, size=(1, 17))))
    assert (found.seeds, found.clusters) == (1, 17) and found.estimate > 0.4
    assert np.isnan([found.low, found.high, found.standard_error, found.df]).all()
    assert np.isnan([stats.two_sided(found), *stats.tails(found), stats.equivalence(found)]).all()


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
