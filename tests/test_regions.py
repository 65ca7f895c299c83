"""Ellipses of the trade-off plane against the intervals on its axes, and its Pareto front."""

import doctest

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_stats import tidy

from lib.analysis import regions, stats


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("tilt", [-1.5, 0.0, 2.0])
def test_region_projects_to_the_intervals(nested, tilt):
    """The ellipse's extremes are the two intervals' ends, and it is centred on the estimates."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(3, 10)) + generator.normal(size=(3, 1))
    y = tilt * x + generator.normal(size=(3, 10))
    got = regions.region(tidy(x, nested), tidy(y, nested))
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
        got = regions.region(tidy(x), tidy(1 + slope * x))
        variance = got.x.standard_error**2
        expected = variance * np.array([[1, slope], [slope, slope**2]])
        assert got.covariance == pytest.approx(expected)
        assert got.correlation == pytest.approx(np.sign(slope))
    assert regions.region(tidy(x), tidy(np.ones((3, 10)))).correlation == 0


def test_region_by_hand():
    """One seed, two clusters: the covariance of two means."""
    # residuals -1, 1 and -3, 3, shares 1/2, F = 2: variances 1 and 9, covariance 3
    got = regions.region(tidy([[1, 3]]), tidy([[4, 10]]))
    assert got.covariance == pytest.approx(np.array([[1, 3], [3, 9]]))


def test_region_of_nested_clusters_by_hand():
    """Three seeds with clusters of their own: that of the seed means over S throughout."""
    # x means 0, 3, 9, y means 0, 6, 3: variances 21 and 9, covariance (12 - 3 + 0) / 2 = 9/2
    # Sigma is the identity for x, y and across: (9/2 - 1) / 3 + 1/3 = 3/2
    x, y = ([[m - 1, m + 1] for m in means] for means in ((0, 3, 9), (0, 6, 3)))
    got = regions.region(tidy(x, nested=True), tidy(y, nested=True))
    assert got.covariance == pytest.approx(np.array([[7, 1.5], [1.5, 3]]))


def test_region_counts_clusters_of_either_table():
    """Tables with no cluster in common: only seeds covary, here not more than they vary."""
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(2, 1, 10))
    other = tidy(y).assign(cluster=lambda t: "other " + t["cluster"])
    assert regions.region(tidy(x), other).correlation == 0
    effect = np.array([[0.0], [50.0], [90.0]])
    x, y = generator.normal(size=(2, 3, 10)) + effect
    other = tidy(y).assign(cluster=lambda t: "other " + t["cluster"])
    assert regions.region(tidy(x), other).correlation > 0.99


def test_region_covariance_is_unbiased():
    """Averaged over tables the covariance is the true one of seed and cluster effects."""
    generator = np.random.default_rng(0)
    found = []
    for _ in range(200):
        seed, cluster = generator.normal(size=(5, 1)) * 2, generator.normal(size=(1, 8))
        x, cell = generator.normal(size=(2, 5, 8)) * 2
        x, y = seed + cluster + x, seed + cluster + x + cell
        found.append(regions.region(tidy(x), tidy(y)).covariance[0, 1])
    error = np.std(found) / np.sqrt(len(found))
    assert np.mean(found) == pytest.approx(4 / 5 + 1 / 8 + 4 / 40, abs=3 * error)


def test_region_without_seed_effect_on_one_axis():
    """Seeds that differ on one axis only: no more covariance than the clusters give."""
    # x: cells alike, means 0, 1, 5: nothing but seeds; y: seed means differ less than cells explain
    x = np.repeat([[0.0], [1.0], [5.0]], 4, axis=1)
    y = np.array([[0, 9, 0, 9], [9, 1, 9, 1], [2, 9, 2, 9.0]])
    assert np.cov(x.mean(1), y.mean(1))[0, 1] > 1
    got = regions.region(tidy(x), tidy(y))
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
    got = regions.region(x, y)
    assert np.linalg.eigvalsh(got.covariance).min() >= -1e-12 * np.trace(got.covariance)
    assert min(got.x.df, got.y.df) >= 1 and np.isfinite(got.points).all()


def test_region_refuses_other_seeds():
    """Points of the plane are runs: both axes need the same seeds."""
    table = tidy(np.arange(6.0).reshape(2, 3))
    with pytest.raises(ValueError, match=r"same seeds on both axes: \[1\]"):
        regions.region(table, table[table["seed"] == 0])


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=12))
def test_pareto_is_brute_force(points):
    """Equal to asking of each point whether any other dominates it."""
    expected = [not any(q != p and q[0] >= p[0] and q[1] >= p[1] for q in points) for p in points]
    assert regions.pareto(np.array(points)).tolist() == expected


def test_pareto_refuses():
    """A flat list or NaN is no set of points."""
    for bad in (np.ones(3), np.array([[1.0, np.nan]])):
        with pytest.raises(ValueError, match="points must be"):
            regions.pareto(bad)


def test_region_of_one_seed_or_cluster_is_no_region():
    """Nothing but the means is known: no ellipse."""
    for table in (tidy([[0.1, 0.2]]), tidy([[0.1], [0.2]])):
        got = regions.region(table, table)
        assert np.isnan(got.points).all() and got.x.estimate > 0


def test_regions_stay_within_their_range():
    """Cut off at 0 and 1 like the intervals on the axes, on which it still projects."""
    table = tidy([[0.0, 0.02], [0.1, 0.0]])
    got = regions.region(table, table).within(0, 1)
    assert got.x.low == 0 and got.points.min(0) == pytest.approx([0, 0])
    assert got.points.max(0) == pytest.approx([got.x.high, got.y.high])


def test_docstring_examples():
    """The examples in the docstrings run, and there are some."""
    result = doctest.testmod(regions)
    assert result.failed == 0 and result.attempted >= 1
