"""How language-agnostic encoders are, before and after training: measures of every arm.

Those of a whole encoder (lib.benchmarks.agnostic) have an interval over seeds alone, those of
questions (lib.analysis.bias) one over seeds and clusters, as all else. Encoders that were not
trained stand first.
"""

from __future__ import annotations

import pandas as pd

from lib.analysis import stats
from lib.analysis.bias import AGNOSTIC
from lib.analysis.results import Results

# measure -> (what tables call it, setting and metric of the sums that it is of; None: of vectors)
MEASURES = {
    "probe": ("language-ID probe", None),
    "chance": ("chance", None),
    "between": ("between languages", None),
    "excess": ("over expected", None),
    "bitext": ("bitext accuracy", ("cross", "hit1")),
    **{name: (label, ("multi", name)) for name, label in AGNOSTIC.items()},
}
FREE = ("excess", "own_top10")  # all others lie within 0..1


def arms(results: Results) -> list[str]:
    """Encoders that were not trained, then the trained arms."""
    untrained = [run.arm for run in results.runs if not run.train.steps]
    return list(dict.fromkeys([*untrained, *results.arms]))


def table(results: Results, measured: pd.DataFrame, bitext: bool = False) -> pd.DataFrame:
    """arm, measure, estimate, low, high, seeds, clusters: a row for whatever an arm has; empty of
    runs that were evaluated before any of it was measured.

    measured: of lib.study.results.load_agnostic. bitext: whether hit@1 in cross is that, as of
    parallel passages"""
    if not len(measured):
        return pd.DataFrame()
    measured = measured.assign(excess=measured["between"] - measured["expected"])
    wanted = [name for name in MEASURES if bitext or name != "bitext"]
    rows = [_row(results, measured, arm, name) for arm in arms(results) for name in wanted]
    return pd.DataFrame([row for row in rows if row])


def _row(results: Results, measured: pd.DataFrame, arm: str, name: str) -> dict:
    """A row of `table`; empty where there is nothing to tell."""
    if of := MEASURES[name][1]:
        cells = results.table(arm, *of)
        interval = stats.interval(cells) if len(cells) else None
    else:
        values = measured.loc[measured["arm"] == arm, name].dropna()
        interval = stats.over_seeds(values) if len(values) else None
    if interval is None:
        return {}
    interval = interval if name in FREE else interval.within(0, 1)
    return {
        "arm": arm,
        "measure": name,
        "estimate": interval.estimate,
        "low": interval.low,
        "high": interval.high,
        "seeds": interval.seeds,
        "clusters": interval.clusters if of else 0,
    }


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """`table`, for people to read: rows arms, columns measures."""
    if not len(table):
        return table
    text = [
        f"{r.estimate:.3f}" + f" {stats.shown(r.low, r.high)}" * (r.measure != "chance")
        for r in table.itertuples()
    ]
    cells = table.assign(text=text).pivot(index="arm", columns="measure", values="text")
    columns = [name for name in MEASURES if name in cells]
    cells = cells.reindex(index=dict.fromkeys(table["arm"]), columns=columns)
    names = {name: label for name, (label, _) in MEASURES.items()}
    return cells.rename(columns=names).rename_axis(index=None, columns=None)


def joined(parts: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Tables by benchmark as one, whose column `benchmark` says which; empty where all are."""
    named = [part.assign(benchmark=name) for name, part in parts.items() if len(part)]
    return pd.concat(named, ignore_index=True) if named else pd.DataFrame()
