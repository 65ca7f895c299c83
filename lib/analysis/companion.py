"""The interactive companion of a report: one page with its data, script and style inside.

A reader picks settings, stratum, budget and arms, and reads each mark by pointer, touch or
keyboard. It loads nothing, so it works from a mail or a memory stick; a policy in the page forbids
the rest. Plain SVG and 150 lines of script are smaller than any plotting library, and are read by
screen readers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from IPython.display import HTML

from lib.analysis import stats
from lib.analysis.drawing import look
from lib.analysis.results import Results, Select
from lib.analysis.sums import STRATA, headline

TEMPLATE = Path(__file__).with_name("companion.html")
FILE = "explore.html"
HEADLINE = "headline"
EVERY = 0  # the budget of rows that hold for any: references are not trained
COLUMNS = ["arm", "stratum", "budget", "setting", "estimate", "low", "high"]


def points(results: Results, budgets: Mapping[int, Results]) -> pd.DataFrame:
    """mAP with 95 % intervals by arm, stratum, budget and setting: what `companion` shows.

    budgets: of lib.study.results.load_budgets; without any the runs' own number of steps is the
    one budget. References have the budget EVERY."""
    trained = budgets or {max(run.train.steps for run in results.runs): results}
    parts = [_points(one, one.arms).assign(budget=budget) for budget, one in trained.items()]
    parts.append(_points(results, results.references).assign(budget=EVERY))
    table = pd.concat(parts, ignore_index=True)
    return table.assign(reference=table["arm"].isin(results.references))


def _points(results: Results, arms: list[str]) -> pd.DataFrame:
    """Rows of each stratum that an arm has in a setting."""
    rows, strata = [], selections(results.sums)
    for arm in arms:
        for setting in results.settings:
            for name, select in strata.items():
                table = results.table(arm, setting, select=select)
                if len(table):
                    mean = stats.interval(table).within(0, 1)
                    rows.append([arm, name, setting, mean.estimate, mean.low, mean.high])
    return pd.DataFrame(rows, columns=[name for name in COLUMNS if name != "budget"])


def selections(sums: pd.DataFrame) -> dict[str, Select]:
    """Name -> selection: the headline's questions, all, and each value of each stratum alone."""
    found: dict[str, Select] = {HEADLINE: headline, "all questions": lambda table: table}
    for column in (name for name in STRATA if name in sums):
        several = sums[column].dropna().unique()
        for value in several if len(several) > 1 else ():
            found[f"{column}: {value}"] = lambda t, c=column, v=value: t[t[c] == v]
    return found


def companion(table: pd.DataFrame, paths: Mapping[str, Mapping[float, str]], title: str) -> str:
    """The page. The same input, the same text.

    table: of `points`. paths: of lib.analysis.contrasts.paths. Raises ValueError naming a column
    that `table` lacks."""
    missing = [name for name in [*COLUMNS, "reference"] if name not in table]
    if missing:
        raise ValueError(f"points need the column {missing[0]!r}, have {list(table.columns)}")
    order = {name: list(dict.fromkeys(table[name])) for name in ("arm", "stratum", "setting")}
    budgets = sorted(set(table["budget"]) - {EVERY})
    places = {name: {value: at for at, value in enumerate(order[name])} for name in order}
    reference = table.groupby("arm")["reference"].first()
    data = {
        "title": title,
        "settings": order["setting"],
        "strata": order["stratum"],
        "budgets": [int(budget) for budget in budgets],
        "arms": [
            {"name": arm, "reference": bool(reference[arm]), **look(arm)} for arm in order["arm"]
        ],
        "paths": {
            name: [[float(alpha), places["arm"][arm]] for alpha, arm in line.items()]
            for name, line in paths.items()
        },
        "looks": {name: look(name)["color"] for name in paths},
        "rows": [
            [*(places[name][getattr(r, name)] for name in places), int(r.budget), *_rounded(r)]
            for r in table.itertuples()
        ],
    }
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return TEMPLATE.read_text(encoding="utf-8").replace("/*DATA*/null", text)


def show(page: str, folder: Path) -> HTML:
    """Write a page of `companion` as folder/explore.html; a link to it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_text(page, encoding="utf-8")
    return HTML(
        f'<p><a href="{FILE}">Explore the figures: settings, questions, steps, arms</a></p>'
    )


def _rounded(row) -> list[float | None]:
    """Estimate, low, high to four places; None where there is no interval."""
    values = (row.estimate, row.low, row.high)
    return [None if pd.isna(value) else round(float(value), 4) for value in values]
