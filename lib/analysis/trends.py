"""Contrasts along an axis of numbers: more data, more languages, larger encoders.

A series is x -> budget -> results, one study of arms at each x. What a contrast gains with every
doubling of x is its slope on log2 x, by least squares; since the same seeds and questions are asked
at every x, the slope of each seed and cluster is known, and its interval is that of a mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise

import numpy as np
import pandas as pd

from lib.analysis import contrasts, stats, tables, words
from lib.analysis.cells import Cells, combined, difference
from lib.analysis.claims import CONTRASTS, HYBRID, MIX, gap, lacking
from lib.analysis.results import Results

Series = Mapping[float, Mapping[int, Results]]
# What hybrid(0.5) of T steps has beyond the specialist of T / 2: lib.analysis.budgets.
SYNERGY = {"S_mono": "mono", "S_cross": "cross"}
# Beside an arm that is trained on one language alone: what other languages' pairs bring to it.
BESIDE_ALONE = {"hybrid beside alone": HYBRID, "mono beside alone": "mono"}
SHOWN = ("mono cost", "cross gain", "batch effect", "multi gain", *SYNERGY)
ORDER = (*BESIDE_ALONE, *SHOWN)
# The primary contrasts, whose changes answer a study: whom hybrid(0.5) is compared with, and where.
ANSWERS = {
    "mono cost": ("mono", "within a language"),
    "cross gain": ("mono", "across languages"),
    "batch effect": (MIX, "over all settings"),
}
# The same of a study with an arm of one language alone: who stands against whom.
ALONE = {
    "hybrid beside alone": f"{HYBRID} against training on that language alone",
    "mono cost": f"{HYBRID} against mono over all languages",
    "mono beside alone": "mono over all languages against that language alone",
}


def gaps(by_budget: Mapping[int, Results]) -> dict[str, Cells]:
    """Name of each contrast that a study has the arms and budgets for -> its differences, at the
    largest budget."""
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
            found[name] = difference(own, only)
    half = by_budget.get(last // 2) if last and last % 2 == 0 else None  # 0: no budgets
    for name, setting in SYNERGY.items() if half else ():
        if HYBRID in whole.arms and setting in half.arms and setting in whole.settings:
            own, alone = whole.table(HYBRID, setting), half.table(setting, setting)
            found[name] = difference(own, alone)
    return found


def values(series: Series) -> pd.DataFrame:
    """One row a contrast and x: contrast, x, value, low, high (95 %), seeds, detectable, p, p_holm
    (adjusted over all rows), verdict (as of lib.analysis.contrasts.rivals)."""
    about, gap_of_each = [], []
    for x, by_budget in sorted(series.items()):
        for name, table in gaps(by_budget).items():
            own = stats.interval(table)
            about.append({"contrast": name, "x": x})
            gap_of_each.append(stats.Paired(own, stats.two_sided(own)))
    found = contrasts.compared(gap_of_each)
    rows = [one | own for one, own in zip(about, found, strict=True)]
    return _ordered(pd.DataFrame(rows).rename(columns={"difference": "value"}))


def slopes(series: Series) -> pd.DataFrame:
    """One row a contrast: its change with each doubling of x, with 95 % interval, p (of no change),
    what four of five such studies would detect, and p_turn (of never turning: of no rise from one x
    to the next, or no fall); p_holm and p_turn are adjusted over the contrasts (Holm).

    Of contrasts that every x has; empty for fewer than two x, or one seed."""
    points = sorted(series)
    every = {x: gaps(series[x]) for x in points}
    names = [n for n in ORDER if all(n in own for own in every.values())]
    rows = []
    for name in names if len(points) > 1 else ():
        own = [every[x][name] for x in points]
        slope = stats.interval(combined(own, _factors(np.log2(points))))
        rows.append(
            {"contrast": name, "slope": slope.estimate, "low": slope.low, "high": slope.high,
             "detectable": stats.detectable(slope), "p": stats.two_sided(slope),
             "seeds": slope.seeds, "p_turn": _turning(own)}
        )  # fmt: skip
    table = pd.DataFrame(rows)
    if not rows:
        return table
    return table.assign(p_turn=stats.holm(table["p_turn"]), p_holm=stats.holm(table["p"]))


def _turning(own: list[Cells]) -> float:
    """p value of not turning: both the surest step up and the surest down, of steps from one x to
    the next (Holm over these), would have to be significant by error."""
    steps = [stats.interval(combined(pair, [-1, 1])) for pair in pairwise(own)]
    adjusted = list(zip(steps, stats.holm([stats.two_sided(step) for step in steps]), strict=True))
    up = min((p for step, p in adjusted if step.estimate > 0), default=1.0)
    down = min((p for step, p in adjusted if step.estimate < 0), default=1.0)
    return float(max(up, down))


def _factors(x: np.ndarray) -> np.ndarray:
    """Of the slope by least squares: sum(factors * y)."""
    away = x - x.mean()
    return away / (away**2).sum()


def gains(tables_of: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """What other languages' pairs bring to one alone, study by study: study, arm, x, estimate, low,
    high. Empty of fewer than two studies. tables_of: words for a study -> `values`."""
    parts = [table.assign(study=study) for study, table in tables_of.items() if len(table)]
    if not parts:
        return pd.DataFrame()
    whole = pd.concat(parts, ignore_index=True).rename(columns={"value": "estimate"})
    whole = whole.assign(arm=whole["contrast"].map(BESIDE_ALONE)).dropna(subset="arm")
    table = whole[["study", "arm", "x", "estimate", "low", "high"]]
    return table if table["study"].nunique() > 1 else pd.DataFrame()


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
    """What the axis does, in a sentence or two, `**` around what counts: how the primary contrasts
    change with it, or what other languages bring to one that few pairs are in; "" without a slope.

    found, slope: of `values` and `slopes`."""
    if slope.empty:
        return ""
    if set(BESIDE_ALONE) & set(slope["contrast"]):
        return _beside_alone(found, slope, axis)
    rows = _of(slope, ANSWERS)
    parts, last = [], ""
    for name, row in rows.items():
        rival, where = ANSWERS[name]
        whose = f"against {rival} {'it' if parts else HYBRID} " * (rival != last)
        parts.append(whose + _change(row, found, where))
        last = rival
    ends = f"{found['x'].min():g} to {found['x'].max():g}"
    lead = _undecided(rows.values())
    return words.following(
        lead, f"On average over doublings of {axis} ({ends}), {'; '.join(parts)}."
    )


def _of(slope: pd.DataFrame, names: Iterable[str]) -> dict[str, dict]:
    """Contrast -> its row of `slopes`, in the order of the names, of those that are there."""
    rows = {row["contrast"]: row for row in slope.to_dict("records")}
    return {name: rows[name] for name in names if name in rows}


def _undecided(rows: Iterable[dict]) -> str:
    """Why no change has a verdict, to come first; "" where one has."""
    told = [row | {"verdict": _told(row)} for row in rows]
    return words.nothing_decided(told) if told else ""


def _change(row: dict, found: pd.DataFrame, where: str) -> str:
    """What a doubling does to one contrast, as the rest of a sentence: a verb, a size, its ends; of
    one that turns, which no slope describes, all its values."""
    own = found[found["contrast"] == row["contrast"]].sort_values("x")
    shown = [f"{stats.signed(r.value, r.low, r.high)} at {r.x:g}" for r in own.itertuples()]
    if _turns(row):
        return f"**changes both ways {where}** ({row['contrast']} {', '.join(shown)})"
    ends = f"{row['contrast']} {shown[0]}, {shown[-1]}"
    change = stats.signed(row["slope"], row["low"], row["high"])
    told = _told(row)
    if told == stats.NO_VERDICT:
        return f"changes by {change} mAP {where} ({ends})"
    if told == "undecided":
        open_ = f"{change} mAP a doubling; {row['detectable']:.3f} could have been detected"
        return f"**does not change for certain {where}** ({open_}; {ends})"
    size = words.size(row | {"difference": row["slope"]})
    return f"**{_verb(row, own)} {where}, by {size} mAP** ({ends})"


def _verb(row: dict, own: pd.DataFrame) -> str:
    """What a significant change makes of gain or loss, by the intervals of both ends: one that
    holds zero is neither."""
    ends = own.iloc[[0, -1]]
    gains, loses = (ends["low"] > 0).any(), (ends["high"] < 0).any()
    up = row["slope"] > 0
    if gains and loses:
        return "turns from loss to gain" if up else "turns from gain to loss"
    if gains or loses:
        return f"{'gains' if gains else 'loses'} {'more' if up == gains else 'less'}"
    return "rises" if up else "falls"


def _beside_alone(found: pd.DataFrame, slope: pd.DataFrame, axis: str) -> str:
    """What other languages' pairs bring to one language, label by label of the axis, and with each
    doubling."""
    rows = found[found["contrast"].isin(list(ALONE))]
    parts, changes = [], []
    for name, row in _of(slope, ALONE).items():
        own = rows[rows["contrast"] == name]
        parts.append(f"{ALONE[name]}: {', '.join(_at(r, axis) for r in own.itertuples())}")
        told = "" if _told(row) == stats.NO_VERDICT else f" ({_verdict(row)})"
        changes.append(f"{stats.signed(row['slope'], row['low'], row['high'])}{told}")
    said = (
        f"In mAP within the language of few pairs, {'; '.join(parts)}. On average "
        f"a doubling of {axis} changes these by {', '.join(changes)}."
    )
    return words.following(words.nothing_decided(rows.to_dict("records")), said)


def _at(row, axis: str) -> str:
    """One difference of `values`, with its interval and verdict."""
    shown, where = stats.signed(row.value, row.low, row.high), f"at {axis} {row.x:g}"
    if row.verdict in words.DECIDED:
        verb = "gains" if row.value > 0 else "loses"
        size = words.size({"difference": row.value, "low": row.low, "high": row.high})
        return f"**{verb} {size} {where}**"
    if row.verdict == "equivalent":
        return f"**within {stats.MARGIN:g} {where}** ({shown})"
    if row.verdict == "undecided":
        return f"undecided {where} ({shown}, detectable {row.detectable:.3f})"
    return f"{shown} {where}"


def _told(row: dict) -> str:
    """Whether the change is significant, by p adjusted over all contrasts."""
    return contrasts.told(row["slope"], row["seeds"], row["p_holm"])


def _turns(row: dict) -> bool:
    """Whether it is told to rise between some x and to fall between others."""
    return row["seeds"] >= stats.SEEDS and row["p_turn"] < stats.LEVEL


def _verdict(row: dict) -> str:
    """The same of a slope, in words; of an undecided one what could have been detected."""
    if _turns(row):
        return "both ways: no line"
    told = _told(row)
    if told == "undecided":
        return f"undecided, detectable {row['detectable']:.3f}"
    return {"higher": "rises", "lower": "falls"}.get(told, told)


def shown(found: pd.DataFrame, slope: pd.DataFrame) -> pd.DataFrame:
    """`values` and `slopes`, for people to read: a row a contrast, a column an x, and what a
    doubling changes, with a star where that is significant."""
    if found.empty:
        return found
    cells = found.assign(shown=[stats.signed(r.value, r.low, r.high) for r in found.itertuples()])
    order = cells["contrast"].unique()
    wide = cells.pivot(index="contrast", columns="x", values="shown").loc[order]
    wide.columns = [f"{x:g}" for x in wide.columns]
    if len(slope):
        changes = {row["contrast"]: _doubling(row) for row in slope.to_dict("records")}
        wide["a doubling"] = wide.index.map(changes)
    return wide.reset_index().fillna("")


def _doubling(row: dict) -> str:
    """What a doubling changes, for a table."""
    if _turns(row):
        return "both ways"
    change = stats.signed(row["slope"], row["low"], row["high"])
    return change + " *" * (_told(row) in ("higher", "lower"))
