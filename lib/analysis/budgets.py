"""Curves over budgets, and the dose: does a batch of one kind help the other kind's skill?

hybrid(a) of T steps has as many monolingual batches as mono of aT steps, and as many cross-lingual
ones as cross of (1 - a)T. Its gain over those is what the other batches brought beyond taking
their place:

    S_mono  = mono mAP of hybrid(a) at T, minus that of mono at aT
    S_cross = cross mAP of hybrid(a) at T, minus that of cross at (1 - a)T

Above 0 the two kinds of batches help each other.
"""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from lib.analysis import stats, tables
from lib.analysis.results import Results, ScoredRun
from lib.params import Train

ALONE = {"mono": 1.0, "cross": 0.0}  # alpha of the arm that trains for one setting alone
# What may differ between runs that are compared: a search gives each arm its own of the last two.
BATCHES = {"strategy", "alpha", "steps", "budgets"}
OWN = {"study", "run", *BATCHES, *Train.may_change, "learning_rate", "temperature"}


def curves(budgets: dict[int, Results]) -> pd.DataFrame:
    """mAP of the headline stratum by arm, budget and setting, with 95 % intervals."""
    if not budgets:
        return pd.DataFrame()
    every = [tables.quality(one, ("ap",)).assign(budget=b) for b, one in budgets.items()]
    table = pd.concat(every, ignore_index=True).rename(columns={"estimate": "mAP"})
    order = {arm: place for place, arm in enumerate(table["arm"].unique())}
    table = table.sort_values("arm", key=lambda arm: arm.map(order), kind="stable")
    return table[["arm", "budget", "setting", "mAP", "low", "high", "seeds"]].reset_index(drop=True)


def dose(budgets: dict[int, Results]) -> pd.DataFrame:
    """S_mono and S_cross of every hybrid arm at every budget whose share of steps is a budget of
    the other arm too; paired by seed and question, with 95 % intervals."""
    rows = []
    for arm, alpha, budget, setting, other, share in _pairs(budgets):
        gain = stats.paired(
            budgets[budget].table(arm, setting), budgets[share].table(other, setting)
        )
        rows.append(
            {
                "measure": f"S_{setting}",
                "arm": arm,
                "alpha": alpha,
                "budget": budget,
                "versus": other,
                "versus_budget": share,
                "difference": gain.difference.estimate,
                "low": gain.difference.low,
                "high": gain.difference.high,
                "p": gain.p,
                "seeds": gain.difference.seeds,
            }
        )
    return pd.DataFrame(rows)


def _pairs(budgets: dict[int, Results]) -> Iterator[tuple[str, float, int, str, str, int]]:
    """(hybrid arm, alpha, its budget, setting, the arm of that kind alone, its budget)."""
    for budget, results in budgets.items():
        hybrids = {run.arm: run for run in results.runs if run.train.strategy == "hybrid"}
        for arm, run in hybrids.items():
            alpha = run.train.alpha
            for setting, part in (("mono", alpha), ("cross", 1 - alpha)):
                share = round(part * budget)
                same_dose = 0 < alpha < 1 and abs(share - part * budget) < 1e-6
                if same_dose and share in budgets and setting in results.settings:
                    for other in _alone(budgets[share].runs, setting, run):
                        yield arm, alpha, budget, setting, other, share


def _alone(runs: list[ScoredRun], setting: str, hybrid: ScoredRun) -> list[str]:
    """Arms that train for one setting alone, and are as `hybrid` in all but the batches: corpus,
    seed and every other parameter."""
    rest, found = hybrid.train.model_dump(exclude=OWN), []
    for run in runs:
        strategy, alpha = run.train.strategy, run.train.alpha
        alone = strategy == setting or (strategy, alpha) == ("hybrid", ALONE[setting])
        if alone and run.train.model_dump(exclude=OWN) == rest:
            found.append(run.arm)
    return found


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """`dose`, for people to read."""
    if not len(table):
        return table
    gain = [stats.signed(r.difference, r.low, r.high) for r in table.itertuples()]
    at = " at " + table[["budget", "versus_budget"]].astype(str)
    return pd.DataFrame(
        {
            "measure": table["measure"],
            "difference": table["arm"]
            + at["budget"]
            + " − "
            + table["versus"]
            + at["versus_budget"],
            "value [95 %]": gain,
            "p": table["p"].map(tables.p_shown),
            "seeds": table["seeds"],
        }
    )
