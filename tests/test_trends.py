"""Contrasts along an axis: slopes by hand and against least squares, and what is refused."""

from functools import cache

import numpy as np
import pandas as pd
import pytest
from test_results import scores

from lib.analysis import alts, glance, plots, stats, trends
from lib.analysis.cells import combined
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
    own = [trends.gaps(found[x])["cross gain"] for x in sorted(found)]
    gaps = [np.average(one.value, axis=1, weights=one.weight) for one in own]
    each = np.polyfit(np.log2(sorted(found)), gaps, 1)[0]  # of every seed
    assert row["slope"] == pytest.approx(np.mean(each))
    assert row["low"] <= row["slope"] <= row["high"] and row["seeds"] == 5


def test_combined_is_a_sum_of_means():
    """Twice the first less the second, in every seed, whatever their weights."""
    tables = [
        pd.DataFrame({"seed": [0, 0, 1, 1], "cluster": ["a", "b"] * 2, "value": v, "weight": w})
        for v, w in (([1.0, 2, 3, 4], [1.0, 1, 1, 1]), ([1.0, 0, 2, 2], [1.0, 3, 2, 2]))
    ]
    made = combined(tables, [2, -1])
    assert made.means.tolist() == pytest.approx([2 * 1.5 - 0.25, 2 * 3.5 - 2])


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


def ends(first, last, contrast="cross gain"):
    """Values at 1 and 8, with intervals .01 wide on each side."""
    rows = [(contrast, x, y, y - 0.01, y + 0.01) for x, y in ((1.0, first), (8.0, last))]
    return pd.DataFrame(rows, columns=["contrast", "x", "value", "low", "high"])


def sloping(slope, p=0.001, seeds=8, contrast="cross gain", turn=1.0):
    row = {"contrast": contrast, "slope": slope, "low": slope - 0.01, "high": slope + 0.01}
    row |= {"detectable": 0.004, "seeds": seeds, "p": p, "p_holm": p, "p_turn": turn}
    return pd.DataFrame([row])


@pytest.mark.parametrize(
    ("first", "last", "slope", "said"),
    [
        (0.05, 0.10, 0.02, "gains more across languages, by 0.020 [0.010, 0.030] mAP"),
        (0.00, 0.10, 0.02, "gains more across languages"),
        (0.10, 0.05, -0.02, "gains less across languages, by 0.020 [0.010, 0.030] mAP"),
        (-0.05, -0.10, -0.02, "loses more across languages, by 0.020 [0.010, 0.030] mAP"),
        (-0.10, 0.00, 0.02, "loses less across languages"),
        (0.05, -0.05, -0.03, "turns from gain to loss across languages"),
        (-0.05, 0.05, 0.03, "turns from loss to gain across languages"),
        (-0.005, 0.005, 0.02, "rises across languages"),
        (0.005, -0.005, -0.02, "falls across languages"),
    ],
)
def test_a_change_is_said_as_gain_or_loss(first, last, slope, said):
    """By both ends' intervals: .00 within .01 is neither."""
    text = trends.answer(ends(first, last), sloping(slope), "size")
    assert text.startswith(
        "On average over doublings of size (1 to 8), against mono hybrid(0.5) **"
    )
    assert f"**{said}" in text
    assert f"(cross gain {first:+.3f} [" in text and f"{last:+.3f} [" in text


def test_what_is_not_decided_is_said():
    """Of too few seeds first; else with what could have been detected."""
    text = trends.answer(ends(0.05, 0.06), sloping(0.003, p=0.3), "size")
    assert (
        "**does not change for certain across languages** (+0.003 [-0.007, +0.013] mAP a " in text
    )
    assert "0.004 could have been detected" in text
    few = trends.answer(ends(0.05, 0.06), sloping(0.003, seeds=2), "size")
    assert few.startswith(
        "**Undecided: 2 seeds decide nothing; five are needed.** So far: on average"
    )
    assert "changes by +0.003 [-0.007, +0.013] mAP across languages" in few


@pytest.mark.parametrize(
    ("gains", "turns"),
    [
        ({1: 0.0, 2: 0.09, 8: 0.03}, True),
        ({1: 0.09, 2: 0.0, 8: 0.05}, True),
        ({1: 0.0, 2: 0.09, 8: 0.1}, False),  # bent, and never falling
        ({1: 0.0, 2: 0.09, 8: 0.087}, False),  # falling, but within the noise
    ],
)
def test_a_turn_needs_a_rise_and_a_fall(gains, turns):
    """Both significant, of seeds that differ by noise of .005; else there is a slope to give."""
    found = series(gains.get, noise=0.005)
    row = trends.slopes(found).set_index("contrast").loc["batch effect"]
    assert (row["p_turn"] < 0.05) == turns
    text = trends.answer(trends.values(found), trends.slopes(found), "size")
    assert ("**changes both ways over all settings** (batch effect " in text) == turns
    last = trends.shown(trends.values(found), trends.slopes(found))["a doubling"]
    assert ("both ways" in {*last}) == turns and last.str.endswith(" *").any() != turns


def test_the_chance_of_a_turn_by_hand(monkeypatch):
    """Of steps up .001 and .03, down .004: Holm makes them .003, .03 and .008; .008 decides."""
    chances = iter([0.001, 0.03, 0.004])
    monkeypatch.setattr(stats, "two_sided", lambda step: next(chances))
    own = [
        pd.DataFrame({"seed": [0, 1], "cluster": ["a", "a"], "value": [y, y + 0.1], "weight": 1.0})
        for y in (0.0, 0.5, 0.6, 0.2)
    ]
    assert trends._turning(own) == pytest.approx(0.008)
    monkeypatch.setattr(stats, "two_sided", lambda step: 1e-9)
    assert trends._turning(own[:3]) == 1.0


def test_a_line_that_turns_is_said_with_all_its_values():
    own = pd.concat([ends(0.05, 0.02), ends(0.05, -0.1).iloc[1:].assign(x=4.0)])
    text = trends.answer(own, sloping(-0.01, turn=0.01), "size")
    assert (
        "**changes both ways across languages** (cross gain +0.050 [+0.040, +0.060] at 1, -0.100"
        in text
    )
    few = trends.answer(own, sloping(-0.01, turn=0.01, seeds=2), "size")
    assert "both ways" not in few


def test_whom_a_change_is_against_is_said_once():
    names = ("mono cost", "cross gain", "batch effect", "multi gain")
    own = pd.concat([ends(0.05, 0.10, name) for name in names])
    slope = pd.concat([sloping(0.02, contrast=name) for name in names])
    text = trends.answer(own, slope, "size")
    assert text.count("against mono ") == 1 and text.count("hybrid(0.5)") == 1
    assert "; against mix(0.5) it **gains more over all settings" in text


def scarce(verdicts=("higher", "equivalent", "undecided"), seeds=8, last=0.02):
    """Tables of a language alone at shares 1 and 4: hybrid beside alone, mono cost and mono beside
    alone are .05 at 1; .02, 0 and .005 at 4, with these verdicts."""
    rows, slopes = [], []
    for name, verdict, end in zip(trends.ALONE, verdicts, (last, 0.0, 0.005), strict=True):
        for x, y, told in ((1.0, 0.05, "higher"), (4.0, end, verdict)):
            row = {"contrast": name, "x": x, "value": y, "low": y - 0.01, "high": y + 0.01}
            told = told if seeds >= stats.SEEDS else stats.NO_VERDICT
            rows.append(row | {"seeds": seeds, "detectable": 0.02, "verdict": told})
        slopes.append(sloping(-0.02, seeds=seeds, contrast=name))
    return pd.DataFrame(rows), pd.concat(slopes)


def test_a_language_of_few_pairs_is_answered_share_by_share():
    """Against that language alone and against mono, each share with its verdict; then doublings."""
    assert trends.answer(*scarce(), "share") == (
        "In mAP within the language of few pairs, hybrid(0.5) against training on that language "
        "alone: **gains 0.050 [0.040, 0.060] at share 1**, **gains 0.020 [0.010, 0.030] at share "
        "4**; hybrid(0.5) against mono over all languages: **gains 0.050 [0.040, 0.060] at share "
        "1**, **within 0.01 at share 4** (+0.000 [-0.010, +0.010]); mono over all languages "
        "against that language alone: **gains 0.050 [0.040, 0.060] at share 1**, undecided at "
        "share 4 (+0.005 [-0.005, +0.015], detectable 0.020). On average a doubling of share "
        "changes these by -0.020 [-0.030, -0.010] (falls), -0.020 [-0.030, -0.010] (falls), -0.020 "
        "[-0.030, -0.010] (falls)."
    )
    assert "**loses 0.020" in trends.answer(*scarce(last=-0.02), "share")
    few = trends.answer(*scarce(seeds=2), "share")
    assert few.startswith("**Undecided: 2 seeds decide nothing; five are needed.** So far: in mAP ")
    assert "language alone: +0.050 [+0.040, +0.060] at share 1" in few and "(falls)" not in few


def test_without_budgets_there_is_no_synergy():
    """No half of what has no budgets: S_mono would be the mono cost under another name."""
    found = trends.gaps({0: results({"hybrid(0.5)": 0.1})})
    assert "mono cost" in found and not set(found) & set(trends.SYNERGY)


def test_values_are_one_family(monkeypatch):
    """All contrasts at every x: what is told from zero alone need not be among many."""
    shape = pd.MultiIndex.from_product([range(8), list("abcdef")], names=["seed", "cluster"])
    noise = np.random.default_rng(0).normal(size=len(shape))

    def made(mean):
        table = shape.to_frame(index=False).assign(value=noise - noise.mean() + mean, weight=1.0)
        return {"mono cost": table, "cross gain": table.assign(value=table["value"] + 2)}

    monkeypatch.setattr(trends, "gaps", made)
    alone = trends.values({1.0: 0.5})
    table = trends.values(dict.fromkeys((1.0, 2.0, 4.0, 8.0), 0.5))
    assert len(table) == 8
    assert table["p_holm"].tolist() == stats.holm(table["p"].tolist()).tolist()
    assert table["p_holm"].max() > alone["p_holm"].max() > 0
    assert (table["verdict"] == "higher").tolist() == (table["p_holm"] < 0.05).tolist()


def test_gains_by_relatives_are_of_two_studies_or_more():
    """Hybrid and mono beside alone, of each; with a figure a study, of one scale."""
    own, _ = scarce()
    table = trends.gains({"zh": own, "da": own, "pt": pd.DataFrame()})
    found = table.set_index(["study", "arm", "x"])["estimate"]
    assert found.to_dict() == {
        (study, arm, x): y
        for study in ("zh", "da")
        for arm, last in (("hybrid(0.5)", 0.02), ("mono", 0.005))
        for x, y in ((1.0, 0.05), (4.0, last))
    }
    assert trends.gains({"zh": own}).empty and trends.gains({}).empty
    figure = glance.donors(table, "share")
    assert set(figure.panels) == {"zh", "da"}
    limits = {drawn.axes[0].get_ylim() for drawn in figure.panels.values()}
    assert len(limits) == 1 and [*limits][0] == pytest.approx((-0.00825, 0.06325))
    assert "hybrid(0.5), gain over alone: +0.050 [+0.040, +0.060] at 1" in figure.alts["zh"]
    assert not glance.donors(trends.gains({}), "share").panels


def test_without_an_axis_there_is_nothing():
    assert trends.values({}).empty and trends.slopes({}).empty and trends.arms({}).empty
    one = {1.0: {20: results({"hybrid(0.5)": 0.1})}}
    assert trends.slopes(one).empty and len(trends.values(one)) == 4
    assert trends.answer(trends.values({}), trends.slopes({}), "size") == ""


def test_figures_and_words_say_where_it_begins_and_ends():
    found = series(lambda x: 0.01 * np.log2(x))
    own, slope = trends.values(found), trends.slopes(found)
    text = trends.answer(own, slope, "size")
    assert text.startswith("On average over doublings of size (1 to 8), against mono hybrid(0.5) ")
    assert "cross gain +0.000 [" in text and "multi gain" not in text and "S_mono" not in text
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
        (
            "{axis: size, points: {small: 1, large: 2, great: 3}}",
            "analyse.points: 'great' is no label of size .expected small, large",
        ),
        ("{axis: size, points: {small: 2, large: 2}}", "'large' comes after 'small' .expected num"),
        ("{axis: size, points: {small: 2, large: 1}}", "'large' comes after 'small' .expected num"),
        ("{axis: strategy}", "analyse.points: 'mono' has no number over 0"),
    ],
)
def test_an_axis_needs_numbers(tmp_path, analyse, words):
    file = tmp_path / "trend.yaml"
    file.write_text(
        f"analyse: {analyse}\n"
        "vary:\n"
        "  size: {small: {train.steps: 2}, large: {train.steps: 4}}\n"
        "  seed: {0: {train.seed: 0}}\n"
        "  train.strategy: [mono, cross]\n"
    )
    with pytest.raises(BadParameter, match=words):
        grid.load_study(file)


def test_labels_are_numbers_or_have_them():
    assert Analyse(axis="size").number_of("0.25") == 0.25
    assert Analyse(axis="size", points={"small": 0.5}).number_of("small") == 0.5
