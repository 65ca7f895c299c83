"""The contrasts where both arms have one temperature, of a study that has hybrid(0.5) at several.

A search gives each arm a temperature of its own, and retrieval within a language and across
languages want different ones: so what is called an effect of batches may be one of temperatures.
"""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from lib.analysis import claims, contrasts, stats, tables
from lib.analysis.claims import CONTRASTS, HYBRID
from lib.analysis.results import Results
from lib.analysis.words import effect

SHOWN = ("mono cost", "cross gain", "multi gain", "batch effect")
WHERE = {
    "mono cost": "within a language",
    "cross gain": "across languages",
    "multi gain": "in one pool of all",
    "batch effect": "over the settings' mean",
}


def contrasted(results: Results) -> pd.DataFrame:
    """Each contrast with each arm at its own temperature, the first that the study has it at, and
    then with one temperature for both, where both have one.

    Rows: contrast, at (`0.06 and 0.12`: of arm and rival; `0.06 for both`), arm, versus, setting,
    and what lib.analysis.contrasts.rivals says of a difference, adjusted over all rows; empty where
    hybrid(0.5) has one temperature."""
    at = _by_temperature(results)
    rows, gaps = [], []
    for name in SHOWN if len(at.get(HYBRID, ())) > 1 else ():
        claim = CONTRASTS[name]
        ((setting, rival),) = claim.pairs
        for words, arm, versus in _pairs(at[HYBRID], at.get(rival, {})):
            same = replace(claim, arm=arm, rivals={setting: (versus,)})
            if not claims.lacking(results, same):
                own = stats.interval(claims.gap(results, same))
                gaps.append(stats.Paired(own, stats.two_sided(own)))
                row = {"contrast": name, "at": words, "arm": arm, "versus": versus}
                rows.append(row | {"setting": setting})
    found = contrasts.compared(gaps)
    return pd.DataFrame([row | gap for row, gap in zip(rows, found, strict=True)])


def _by_temperature(results: Results) -> dict[str, dict[float, str]]:
    """Name without a temperature -> temperature -> arm, in the order of the study."""
    found: dict[str, dict[float, str]] = {}
    for run in (run for run in results.runs if run.arm in results.arms):
        found.setdefault(run.plain, {})[run.train.temperature] = run.arm
    return found


def _pairs(own: dict[float, str], other: dict[float, str]) -> list[tuple[str, str, str]]:
    """(words, arm, versus): as chosen, where that is two temperatures, then by falling ones; none
    of arms that have no temperature in common."""
    same = sorted(own.keys() & other.keys(), reverse=True)
    chosen = [(next(iter(own)), next(iter(other)))] if same else []
    both = [(f"{a:g} and {b:g}", own[a], other[b]) for a, b in chosen if a != b]
    return both + [(f"{t:g} for both", own[t], other[t]) for t in same]


def answer(table: pd.DataFrame) -> str:
    """What each contrast is at each arm's own temperature and at one for both, a sentence each; ""
    where that was not measured. table: of `contrasted`."""
    said = []
    for name, rows in table.groupby("contrast", sort=False) if len(table) else ():
        parts = [effect(row, f"at temperature {row['at']}") for row in rows.to_dict("records")]
        rival = CONTRASTS[name].pairs[0][1]
        where = WHERE[name][0].upper() + WHERE[name][1:]
        said.append(f"{where}, {HYBRID} against {rival} {'; '.join(parts)}.")
    return " ".join(said)


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """`contrasted`, for people to read: a row a contrast and temperatures, with a star where it is
    significant and = where it is equivalent."""
    rows = list(table.itertuples())
    columns = {
        "contrast": table["contrast"] if rows else [],
        "temperature": table["at"] if rows else [],
        "difference in mAP": [tables.starred(row) for row in rows],
    }
    return pd.DataFrame(columns).set_index("contrast").rename_axis(index=None)
