"""Contrasts along an axis of numbers: more data, more languages, larger encoders.

A series is x -> budget -> results, one study of arms at each x. What a contrast gains with every
doubling of x is its slope on log2 x, by least squares; since the same seeds and questions are asked
at every x, the slope of each seed and cluster is known, and its interval is that of a mean.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from lib.analysis import stats, tables
from lib.analysis.claims import CONTRASTS, HYBRID, gap, lacking
from lib.analysis.results import Results

Series = Mapping[float, Mapping[int, Results]]
# What hybrid(0.5) of T steps has beyond the specialist of T / 2: lib.analysis.budgets.
SYNERGY = {"S_mono": "mono", "S_cross": "cross"}
# Beside an arm that is trained on one language alone: what other languages' pairs bring to it.
BESIDE_ALONE = {"mono beside alone": "mono", "hybrid beside alone": HYBRID}
SHOWN = ("mono cost", "cross gain", "batch effect", "multi gain", *SYNERGY)
ORDER = (*SHOWN, *BESIDE_ALONE)


def gaps(by_budget: Mapping[int, Results]) -> dict[str, pd.DataFrame]:
    """Name of each contrast that a study has the arms and budgets for -> its differences by seed
    and cluster, at the largest budget."""
    last = max(by_budget)
    whole = by_budget[last]
    found = {
        name: gap(whole, claim)
        for name, claim in CONTRASTS.items()
        if name in SHOWN and not lacking(whole, claim)
    }
    alone = [run.arm for run in whole.runs if run.train.only and run.train.steps]
    for name, arm in BESIDE_ALONE.items() if alone else ():
        if arm in whole.arms and "mono" in whole.settings:
            own, only = whole.table(arm, "mono"), whole.table(alone[0], "mono")
            found[name] = stats.difference(own, only)
    half = by_budget.get(last // 2) if last % 2 == 0 else None
    for name, setting in SYNERGY.items() if half else ():
        if HYBRID in whole.arms and setting in half.arms and setting in whole.settings:
            own, alone = whole.table(HYBRID, setting), half.table(setting, setting)
            found[name] = stats.difference(own, alone)
    return found


def values(series: Series) -> pd.DataFrame:
    """One row a contrast and x: contrast, x, value, low, high, seeds (95 % intervals)."""
    rows = []
    for x, by_budget in sorted(series.items()):
        for name, table in gaps(by_budget).items():
            own = stats.interval(table)
            about = {"contrast": name, "x": x, "value": own.estimate}
            rows.append(about | {"low": own.low, "high": own.high, "seeds": own.seeds})
    return _ordered(pd.DataFrame(rows))


def slopes(series: Series) -> pd.DataFrame:
    """One row a contrast: its change with each doubling of x, with 95 % interval, p (of no change),
    adjusted over the contrasts (Holm), and what four of five such studies would detect.

    Of contrasts that every x has; empty for fewer than two x, or one seed."""
    points = sorted(series)
    every = {x: gaps(series[x]) for x in points}
    names = [n for n in ORDER if all(n in own for own in every.values())]
    rows = []
    for name in names if len(points) > 1 else ():
        slope = stats.interval(
            stats.combined([every[x][name] for x in points], _factors(np.log2(points)))
        )
        rows.append(
            {"contrast": name, "slope": slope.estimate, "low": slope.low, "high": slope.high,
             "detectable": stats.detectable(slope), "p": stats.two_sided(slope),
             "seeds": slope.seeds}
        )  # fmt: skip
    table = pd.DataFrame(rows)
    return table.assign(p_holm=stats.holm(table["p"].tolist())) if rows else table


def _factors(x: np.ndarray) -> np.ndarray:
    """Of the slope by least squares: sum(factors * y)."""
    away = x - x.mean()
    return away / (away**2).sum()


def arms(series: Series) -> pd.DataFrame:
    """mAP of each arm at each x and its largest budget: arm, x, setting, mAP, low, high."""
    parts = []
    for x, by_budget in sorted(series.items()):
        found = by_budget[max(by_budget)]
        own = tables.quality(found, ("ap",))
        own = own[own["arm"].isin(found.arms)]
        parts.append(own.rename(columns={"estimate": "mAP"}).assign(x=x))
    if not parts:
        return pd.DataFrame()
    return pd.concat(parts, ignore_index=True)[["arm", "x", "setting", "mAP", "low", "high"]]


def _ordered(table: pd.DataFrame) -> pd.DataFrame:
    """Rows by contrast, in the ORDER of these."""
    if table.empty:
        return table
    order = table["contrast"].map({name: place for place, name in enumerate(ORDER)})
    return table.iloc[np.argsort(order.to_numpy(), kind="stable")].reset_index(drop=True)


# --- in words ----------------------------------------------------------------------------------


def answer(found: pd.DataFrame, slope: pd.DataFrame, axis: str) -> str:
    """How the primary contrasts change along the axis, in one sentence each; "" without a slope."""
    said = []
    for row in slope.itertuples() if len(slope) else ():
        own = found[found["contrast"] == row.contrast].sort_values("x")
        first, last = own.iloc[0], own.iloc[-1]
        ends = (
            f"from {stats.signed(first.value, first.low, first.high)} at {axis} {first.x:g} to "
            f"{stats.signed(last.value, last.low, last.high)} at {last.x:g}"
        )
        change = f"{stats.signed(row.slope, row.low, row.high)} a doubling"
        said.append(f"{row.contrast} goes {ends} ({change}, {_verdict(row)})")
    return "; ".join(said) + "." if said else ""


def _verdict(row) -> str:
    """Whether the change is told from none, by p adjusted over all contrasts."""
    if row.seeds < stats.SEEDS or pd.isna(row.p_holm):
        return stats.NO_VERDICT
    if row.p_holm < stats.LEVEL:
        return "rises" if row.slope > 0 else "falls"
    return f"undecided, detectable {row.detectable:.3f}"


def shown(found: pd.DataFrame, slope: pd.DataFrame) -> pd.DataFrame:
    """`values` and `slopes`, for people to read: a row a contrast, a column an x."""
    if found.empty:
        return found
    cells = found.assign(shown=[stats.signed(r.value, r.low, r.high) for r in found.itertuples()])
    order = cells["contrast"].unique()
    wide = cells.pivot(index="contrast", columns="x", values="shown").loc[order]
    wide.columns = [f"{x:g}" for x in wide.columns]
    if len(slope):
        each = slope.set_index("contrast")
        wide["a doubling"] = [
            stats.signed(*each.loc[name, ["slope", "low", "high"]]) if name in each.index else ""
            for name in wide.index
        ]
        wide["verdict"] = [
            _verdict(each.loc[name]) if name in each.index else "" for name in wide.index
        ]
    return wide.reset_index().fillna("")
