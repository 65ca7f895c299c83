"""Tables of clusters as grids, against pandas on the tables themselves."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.analysis.cells import averaged, cells, combined, difference

KEYS = ["seed", "cluster"]


@st.composite
def tables(draw, seeds=(3, 1, 2)):
    """A tidy table in any order of rows, with some clusters lacking in some seeds."""
    rows = []
    for seed in seeds:
        own = draw(st.sets(st.sampled_from("abcdef"), min_size=1))
        for cluster in own:
            value, weight = draw(st.integers(-9, 9)), draw(st.integers(1, 5))
            rows.append({"seed": seed, "cluster": cluster, "value": value, "weight": weight})
    return pd.DataFrame(draw(st.permutations(rows)))


def plain_means(table):
    """Weighted mean of each seed, seeds sorted."""
    return [np.average(t["value"], weights=t["weight"]) for _, t in table.groupby("seed")]


@given(tables())
def test_a_grid_holds_each_row_once(table):
    """At its seed and cluster, both sorted; nothing elsewhere."""
    grid = cells(table)
    assert list(grid.seeds) == [1, 2, 3] and list(grid.clusters) == sorted(set(table["cluster"]))
    for row in table.itertuples():
        at = list(grid.seeds).index(row.seed), list(grid.clusters).index(row.cluster)
        assert (grid.value[at], grid.weight[at]) == (row.value, row.weight)
    assert grid.weight.sum() == table["weight"].sum() and (grid.value[grid.weight == 0] == 0).all()
    assert grid.means == pytest.approx(plain_means(table)) and cells(grid) is grid


@given(tables(), st.integers(-9, 9))
def test_differences_are_cell_by_cell(table, lead):
    """Whatever the order of rows; weights may differ by rounding and no more."""
    other = table.assign(value=table["value"] - lead, weight=table["weight"] * (1 + 1e-13))
    found = difference(table, other.sample(frac=1, random_state=0))
    assert (found.value[found.weight > 0] == lead).all()
    with pytest.raises(ValueError, match="need the same weights"):
        difference(table, other.assign(weight=other["weight"] * (1 + 1e-6)))


@given(tables(), tables())
def test_averages_are_of_means(one, two):
    """In each seed, whatever clusters either has; combined ones are sums of them."""
    means = np.array([plain_means(one), plain_means(two)])
    assert averaged([one, two]).means == pytest.approx(means.mean(0))
    assert combined([one, two], [2, -1]).means == pytest.approx(2 * means[0] - means[1])
    found = averaged([one, two])
    both = pd.concat([one, two])
    assert {*found.clusters} == {*both["cluster"]}
    there = {(s, c) for s, c in zip(*np.nonzero(found.weight), strict=True)}
    assert len(there) == len(both.drop_duplicates(KEYS))
