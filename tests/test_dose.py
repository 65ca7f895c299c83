"""Curves over budgets and the dose, by hand."""

import pandas as pd
import pytest
from test_results import made_up

from lib.analysis import budgets, drawing, plots
from lib.analysis.results import Results, ScoredRun
from lib.params import Train

WSD = {"schedule": "wsd", "budgets": [150, 300, 600], "warmup_steps": 10}
ARMS = {
    "mono": {"strategy": "mono"},
    "cross": {"strategy": "cross"},
    "hybrid(0.25)": {"strategy": "hybrid", "alpha": 0.25},
    "hybrid(0.3)": {"strategy": "hybrid", "alpha": 0.3},
}
# mAP above that of made-up scores, by arm and budget.
GAINS = {
    "mono": {150: 0.01, 300: 0.02, 600: 0.03},
    "cross": {150: 0.10, 300: 0.12, 600: 0.14},
    "hybrid(0.25)": {150: 0.0, 300: 0.05, 600: 0.09},
    "hybrid(0.3)": {150: 0.0, 300: 0.0, 600: 0.0},
}


def by_budget(arms=ARMS, seeds=2, **other):
    """Results at each budget; other: arm -> parameters of it alone."""
    found = {}
    for budget in WSD["budgets"]:
        runs, sums, cells = [], [], []
        for arm, what in arms.items():
            for seed in range(seeds):
                train = Train(**WSD | what | other.get(arm, {}), seed=seed, corpus=f"seed={seed}")
                runs.append(ScoredRun(f"arm={arm},seed={seed}", arm, train, None))
                own = made_up(GAINS[arm][budget], seed)
                sums.append(own[0].assign(arm=arm, seed=seed))
                cells.append(own[1].assign(arm=arm, seed=seed))
        found[budget] = Results("made-up", runs, pd.concat(sums), pd.concat(cells))
    return found


def test_the_dose_by_hand():
    """hybrid(.25) at 600 against mono at 150; at no budget is there a cross of 450 steps, nor of
    hybrid(.3) any share."""
    [row] = budgets.dose(by_budget()).to_dict("records")
    assert (row["measure"], row["arm"], row["budget"]) == ("S_mono", "hybrid(0.25)", 600)
    assert (row["versus"], row["versus_budget"], row["seeds"]) == ("mono", 150, 2)
    assert row["difference"] == pytest.approx(0.09 - 0.01)
    assert row["low"] <= row["difference"] <= row["high"]


def test_both_doses_of_a_half():
    """hybrid(.5) at 300 and 600 against half of the steps, in each setting."""
    half = {n: ARMS[n] for n in ("mono", "cross")} | {"hybrid(0.25)": {"alpha": 0.5}}
    found = budgets.dose(by_budget(half)).set_index(["measure", "budget"])["difference"]
    assert found.to_dict() == pytest.approx(
        {
            ("S_mono", 300): 0.05 - 0.01,
            ("S_cross", 300): 0.05 - 0.10,
            ("S_mono", 600): 0.09 - 0.02,
            ("S_cross", 600): 0.09 - 0.12,
        }
    )


def test_only_arms_that_differ_in_their_batches_alone_are_compared():
    """A mono arm of another width, or of another corpus, is no arm of the same dose. What a search
    gives each arm may differ."""
    assert not len(budgets.dose(by_budget(mono={"width": 32})))
    assert len(budgets.dose(by_budget(mono={"temperature": 0.5, "learning_rate": 1e-3}))) == 1
    other = by_budget()
    for results in other.values():
        results.runs[:] = [
            ScoredRun(r.key, r.arm, r.train.model_copy(update={"corpus": r.arm}), None)
            for r in results.runs
        ]
    assert not len(budgets.dose(other))
    same = by_budget({"hybrid(0.25)": ARMS["hybrid(0.25)"], "mono": {"alpha": 1.0}})
    assert len(budgets.dose(same)) == 1  # hybrid(1) is mono


def test_curves_and_their_figure():
    """A row an arm, budget and setting; a panel a setting with a line and a band an arm."""
    table = budgets.curves(by_budget())
    assert len(table) == 4 * 3 * 3
    assert list(table) == ["arm", "budget", "setting", "mAP", "low", "high", "seeds"]
    mono = table[(table["arm"] == "mono") & (table["setting"] == "mono")]
    assert mono["budget"].tolist() == [150, 300, 600]
    assert mono["mAP"].diff()[1:].tolist() == pytest.approx([0.01, 0.01])
    assert ((mono["low"] < mono["mAP"]) & (mono["mAP"] < mono["high"])).all()
    figure = plots.budgets(table)
    axes = {setting: drawing.axes[0] for setting, drawing in figure.panels.items()}
    assert list(axes) == ["mono", "cross", "multi"] == list(figure.alts)
    assert all(len(ax.lines) == len(ax.collections) == 4 for ax in axes.values())
    lines = {line.get_label(): line.get_linestyle() for line in axes["mono"].lines}
    assert lines["hybrid(0.25)"] != lines["hybrid(0.3)"]  # of one colour
    assert axes["mono"].lines[0].get_xdata().tolist() == [150, 300, 600]
    assert {text.get_text() for text in axes["mono"].texts} == set(ARMS)
    cross = table[table["setting"] == "cross"].set_index(["budget", "arm"])["mAP"]
    assert figure.alts["cross"].endswith(
        f"; after 600 steps cross is highest in cross ({cross[600, 'cross']:.3f}), hybrid(0.3) "
        f"lowest ({cross[600, 'hybrid(0.3)']:.3f})."
    )


def test_studies_without_budgets_show_nothing(tmp_path):
    """No table, no figure."""
    assert not len(budgets.curves({})) and not len(budgets.shown(budgets.dose({})))
    assert drawing.show(plots.budgets(budgets.curves({})), tmp_path).data == ""


def test_the_dose_for_people_to_read():
    """What is subtracted from what, and its interval."""
    [row] = budgets.shown(budgets.dose(by_budget())).to_dict("records")
    assert row["difference"] == "hybrid(0.25) at 600 − mono at 150"
    assert row["value [95 %]"].startswith("+0.080 [")
