"""How language-agnostic encoders are, before and after training: measures of every arm.

Those of a whole encoder (lib.benchmarks.agnostic) have an interval over seeds alone, those of
questions (lib.analysis.bias) one over seeds and clusters, as all else. Encoders that were not
trained stand first.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from lib.analysis import stats
from lib.analysis.bias import AGNOSTIC, BITEXT
from lib.analysis.results import Results

VECTORS = {
    "probe": "language-ID probe",
    "chance": "chance",
    "between": "between languages",
    "excess": "over expected",
}  # measure of vectors -> what tables call it
QUESTIONS = BITEXT | AGNOSTIC  # of questions
BOUNDS = {"excess": (-1.0, 1.0), "own_top10": (0.0, np.inf)}  # the others': 0..1


def arms(results: Results) -> list[str]:
    """Encoders that were not trained, then the trained arms."""
    untrained = [run.arm for run in results.runs if not run.train.steps]
    return list(dict.fromkeys([*untrained, *results.arms]))


def table(results: Results, measured: pd.DataFrame, bitext: bool = False) -> pd.DataFrame:
    """arm, measure, estimate, low, high, seeds, clusters: a row for whatever an arm has; empty of
    runs that were evaluated before any of it was measured.

    measured: of lib.study.results.load_agnostic. bitext: whether questions are the passages they
    ask for, so that hit@1 in cross is bitext accuracy, and each finds itself first"""
    if not len(measured):
        return pd.DataFrame()
    measured = _with_excess(measured)
    unasked = "own_first" if bitext else "bitext"
    wanted = [name for name in VECTORS | QUESTIONS if name != unasked]
    rows = [_row(results, measured, arm, name) for arm in arms(results) for name in wanted]
    return pd.DataFrame([row for row in rows if row])


def _row(results: Results, measured: pd.DataFrame, arm: str, name: str) -> dict:
    """A row of `table`; empty where there is nothing to tell."""
    if name in VECTORS:
        values = measured.loc[measured["arm"] == arm, name].dropna()
        interval = stats.over_seeds(values) if len(values) else None
    else:
        cells = results.table(arm, *(("cross", "hit1") if name == "bitext" else ("multi", name)))
        interval = stats.interval(cells) if len(cells) else None
    if interval is None:
        return {}
    interval = interval.within(*BOUNDS.get(name, (0.0, 1.0)))
    return {
        "arm": arm,
        "measure": name,
        "estimate": interval.estimate,
        "low": interval.low,
        "high": interval.high,
        "seeds": interval.seeds,
        "clusters": 0 if name in VECTORS else interval.clusters,
    }


def _with_excess(measured: pd.DataFrame) -> pd.DataFrame:
    return measured.assign(excess=measured["between"] - measured["expected"])


def as_they_are(measured: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """arm, and the columns VECTORS, passages and languages, a row for each encoder that nobody
    trained again; empty where nothing was measured. There are no intervals: a row is one value of
    a whole encoder, which neither clusters nor seeds repeat.

    measured: name -> of lib.benchmarks.agnostic.measures"""
    found = [_with_excess(one).assign(arm=name) for name, one in measured.items() if len(one)]
    columns = ["arm", *VECTORS, "passages", "languages"]
    return pd.concat(found, ignore_index=True)[columns] if found else pd.DataFrame()


def against_first(table: pd.DataFrame) -> pd.DataFrame:
    """`as_they_are` for people to read: each value, and in brackets its difference from the first
    encoder's."""
    rows = {row["arm"]: row for row in table.to_dict("records")}
    return pd.DataFrame.from_dict(
        {arm: _against(row, next(iter(rows.values()))) for arm, row in rows.items()}, "index"
    )


def _against(row: dict, first: dict) -> dict[str, str | float]:
    """The cells of a row by the names of its measures; NaN where there is no value."""
    cells = {}
    for name, label in VECTORS.items():
        gap = f" ({row[name] - first[name]:+.3f})" * (row is not first and name != "chance")
        cells[label] = np.nan if np.isnan(row[name]) else f"{row[name]:.3f}{gap}"
    return cells


def shown(tables: dict[str, pd.DataFrame], names: dict[str, str]) -> dict[str, pd.DataFrame]:
    """Tables by benchmark for people to read: rows arms, columns the measures of `names`, which is
    VECTORS or QUESTIONS."""
    return {benchmark: _wide(one, names) for benchmark, one in tables.items() if len(one)}


def _wide(table: pd.DataFrame, names: dict[str, str]) -> pd.DataFrame:
    rows = table[table["measure"].isin(names)]
    text = [
        f"{r.estimate:.3f}" + f" {stats.shown(r.low, r.high)}" * (r.measure != "chance")
        for r in rows.itertuples()
    ]
    cells = rows.assign(text=text).pivot(index="arm", columns="measure", values="text")
    columns = [name for name in names if name in cells]
    cells = cells.reindex(index=dict.fromkeys(rows["arm"]), columns=columns)
    return cells.rename(columns=names).rename_axis(index=None, columns=None)


def joined(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Tables by benchmark as one, whose column `benchmark` says which; empty where all are."""
    named = [one.assign(benchmark=name) for name, one in tables.items() if len(one)]
    return pd.concat(named, ignore_index=True) if named else pd.DataFrame()
