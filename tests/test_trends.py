"""Contrasts along an axis: slopes by hand and against least squares, and what is refused."""

from functools import cache

import numpy as np
import pandas as pd
import pytest
from test_results import scores

from lib.analysis import alts, plots, stats, trends
from lib.analysis.results import Results, ScoredRun
from lib.analysis.sums import language_cells, summed
from lib.params import Analyse, BadParameter, Train
from lib.study import grid

ARMS = {
    "mono": {"strategy": "mono"},
    "cross": {"strategy": "cross"},
    "hybrid(0.5)": {"strategy": "hybrid", "alpha": 0.5},
    "mix(0.5)": {"strategy": "mix", "alpha": 0.5},
}


@cache
def made_up(gain, seed):
    """(sums, cells) of mAP that is better by a gain; the same are asked for again and again."""
    table = scores(gain, seed).loc[:, :"ap"]
    return summed(table), language_cells(table)


def results(gains, seeds=5, noise=0.0, number=0):
    """Made-up scores of ARMS, each better by its gain, and by noise of its own a seed."""
    runs, sums, cells = [], [], []
    for arm, what in ARMS.items():
        for seed in range(seeds):
            own = noise * np.random.default_rng([seed, number, len(arm)]).normal()
            runs.append(ScoredRun(f"{arm}-{seed}", arm, Train(**what, seed=seed), None))
            found = made_up(gains.get(arm, 0.0) + own, seed)
            sums.append(found[0].assign(arm=arm, seed=seed))
            cells.append(found[1].assign(arm=arm, seed=seed))
    return Results("made-up", runs, pd.concat(sums), pd.concat(cells))


def series(gain, points=(1, 2, 8), noise=0.0):
    """x -> budgets 10 and 20, where hybrid(.5) is ahead of all by gain(x)."""
    return {
        float(x): {
            10: results({}, noise=noise, number=2 * n),
            20: results({"hybrid(0.5)": gain(x)}, noise=noise, number=2 * n + 1),
        }
        for n, x in enumerate(points)
    }


def test_a_gain_by_doublings_is_its_slope():
    """.01 more with every doubling, whatever the places of x; mono at half of the steps is the
    same here, so synergy has the slope too."""
    found = series(lambda x: 0.01 * np.log2(x))
    table = trends.slopes(found).set_index("contrast")
    for name in ("mono cost", "cross gain", "batch effect", "S_mono", "S_cross"):
        assert table.loc[name, "slope"] == pytest.approx(0.01)
    own = trends.values(found)
    gains = own[own["contrast"] == "cross gain"].set_index("x")["value"]
    assert gains.to_dict() == pytest.approx({1.0: 0.0, 2.0: 0.01, 8.0: 0.03})
    assert own["contrast"].drop_duplicates().tolist() == list(trends.SHOWN)


def test_the_slope_is_that_of_each_seed():
    """Against numpy's least squares of each seed's gap, and the t interval of their mean where
    clusters do not matter: seeds alone vary."""
    found = series(lambda x: 0.02 * np.log2(x), noise=0.01)
    row = trends.slopes(found).set_index("contrast").loc["cross gain"]
    each = []
    for seed in range(5):
        gaps = []
        for x in sorted(found):
            table = trends.gaps(found[x])["cross gain"]
            own = table[table["seed"] == seed]
            gaps.append(np.average(own["value"], weights=own["weight"]))
        each.append(np.polyfit(np.log2(sorted(found)), gaps, 1)[0])
    assert row["slope"] == pytest.approx(np.mean(each))
    assert row["low"] <= row["slope"] <= row["high"] and row["seeds"] == 5


def test_combined_is_a_sum_of_means():
    """Twice the first less the second, in every seed, whatever their weights."""
    tables = [
        pd.DataFrame({"seed": [0, 0, 1, 1], "cluster": ["a", "b"] * 2, "value": v, "weight": w})
        for v, w in (([1.0, 2, 3, 4], [1.0, 1, 1, 1]), ([1.0, 0, 2, 2], [1.0, 3, 2, 2]))
    ]
    made = stats.combined(tables, [2, -1])
    means = made.groupby("seed").apply(lambda t: np.average(t["value"], weights=t["weight"]))
    assert means.tolist() == pytest.approx([2 * 1.5 - 0.25, 2 * 3.5 - 2])


def beside_alone(gain):
    """One x of four arms, of which what was mono is of a language alone, ahead by gain."""
    found = results({"mono": gain, "hybrid(0.5)": 0.05})
    runs = []
    for run in found.runs:
        only = run.train.model_copy(update={"strategy": "mono", "only": "da"})
        renamed = ScoredRun(run.key, "da alone", only, None)
        mono = ScoredRun(run.key, "mono", run.train.model_copy(update={"strategy": "mono"}), None)
        runs.append({"mono": renamed, "cross": mono}.get(run.arm, run))
    names = {"mono": "da alone", "cross": "mono"}
    tables = (t.assign(arm=t["arm"].replace(names)) for t in (found.sums, found.cells))
    return Results("made-up", runs, *tables)


def test_what_other_languages_bring_beside_one_alone():
    """mono and hybrid(.5) minus the arm of one language, within a language: -.02 and +.03 where
    that is .02 ahead of mono, nothing and .05 where it is not."""
    found = {1.0: {0: beside_alone(0.02)}, 4.0: {0: beside_alone(0.0)}}
    table = trends.values(found).set_index(["contrast", "x"])["value"]
    assert table["mono beside alone"].to_dict() == pytest.approx({1.0: -0.02, 4.0: 0.0})
    assert table["hybrid beside alone"].to_dict() == pytest.approx({1.0: 0.03, 4.0: 0.05})
    slope = trends.slopes(found).set_index("contrast")["slope"]
    assert slope["hybrid beside alone"] == pytest.approx(0.01)


def test_without_an_axis_there_is_nothing():
    assert trends.values({}).empty and trends.slopes({}).empty and trends.arms({}).empty
    one = {1.0: {20: results({"hybrid(0.5)": 0.1})}}
    assert trends.slopes(one).empty and len(trends.values(one)) == 4
    assert trends.answer(trends.values({}), trends.slopes({}), "size") == ""


def test_figures_and_words_say_where_it_begins_and_ends():
    found = series(lambda x: 0.01 * np.log2(x))
    own, slope = trends.values(found), trends.slopes(found)
    text = trends.answer(own, slope, "size")
    assert "cross gain goes from +.000" in text.replace("+0.000", "+.000") and "a doubling" in text
    assert set(plots.trend(own, "size").panels) == set(trends.SHOWN)
    assert "+0.030 at 8" in alts.trend(own, "size")["cross gain"]
    by_arm = trends.arms(found)
    assert set(plots.series(by_arm, "size").panels) == {"mono", "cross", "multi"}
    shown = trends.shown(own, slope)
    assert list(shown.columns)[:4] == ["contrast", "1", "2", "8"] and len(shown) == len(
        trends.SHOWN
    )


@pytest.mark.parametrize(
    ("analyse", "words"),
    [
        ("{axis: none}", "analyse.axis: 'none' is not varied .expected size, seed"),
        ("{axis: size}", "analyse.points: 'small' has no number over 0"),
        ("{axis: size, points: {small: 0.5}}", "analyse.points: 'large' has no number over 0"),
        ("{points: {small: 1}}", "analyse.points: does not go with axis ''"),
    ],
)
def test_an_axis_needs_numbers(tmp_path, analyse, words):
    file = tmp_path / "trend.yaml"
    file.write_text(
        f"analyse: {analyse}\n"
        "vary:\n"
        "  size: {small: {train.steps: 2}, large: {train.steps: 4}}\n"
        "  seed: {0: {train.seed: 0}}\n"
    )
    with pytest.raises(BadParameter, match=words):
        grid.load_study(file)


def test_labels_are_numbers_or_have_them():
    assert Analyse(axis="size").number_of("0.25") == 0.25
    assert Analyse(axis="size", points={"small": 0.5}).number_of("small") == 0.5
