"""What a reader chooses to see of a study's results, and the figures of it: the report's own, of
chosen arms, questions and languages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import pandas as pd

from lib.analysis import contrasts, heatmaps, plots, tables
from lib.analysis.companion import HEADLINE, selections
from lib.analysis.drawing import Figure
from lib.analysis.results import Results
from lib.analysis.sums import STRATA
from lib.params import BadParameter

FEWEST = 3  # values of alpha that are joined by a line: two ends and one between


@dataclass(frozen=True)
class View:
    """What is shown; the parameters of 05_explore, with their defaults.

    arms, languages  those that are shown; empty: all. stratum, arms: of all but the maps
    arm, versus      of the map: whose mAP, less whose; versus empty: its mAP itself"""

    study: str = "xquad"
    benchmark: str = ""
    setting: str = "cross"
    stratum: str = HEADLINE
    arms: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    arm: str = "hybrid(0.5)"
    versus: str = "mono"

    @classmethod
    def from_cell(cls, cell: Mapping[str, Any]) -> View:
        """The view of a notebook's parameter cell, whose lists become tuples."""
        values = {field.name: cell[field.name] for field in fields(cls)}
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def offered(results: Results) -> dict[str, list[str]]:
    """Of what can be chosen: setting, stratum, arms, languages, arm, versus -> its values."""
    arms, cells = results.arms, results.cells
    codes = {*cells["question_language"]} | {*cells["candidate_language"]}
    return {
        "setting": results.settings,
        "stratum": list(selections(results.sums)),
        "arms": arms,
        "languages": sorted(codes - {"*"}),
        "arm": arms,
        "versus": ["", *arms],
    }


def check(view: View, results: Results) -> None:
    """Raises BadParameter in one line for a choice that the results do not have."""
    for name, known in offered(results).items():
        chosen = getattr(view, name)
        for one in chosen if isinstance(chosen, tuple) else (chosen,):
            if one not in known:
                expected = ", ".join(x for x in known if x)
                raise BadParameter(f"{name}: {one!r} is not in {view.study} (expected {expected})")
    if view.arm == view.versus:
        raise BadParameter(f"versus: {view.versus!r} is the arm itself (expected another, or none)")


def nearest(view: View, results: Results) -> View:
    """The view with what these results lack left out, or their first in its place."""
    known, kept = offered(results), {}
    for name, values in known.items():
        chosen = getattr(view, name)
        if isinstance(chosen, tuple):
            kept[name] = tuple(one for one in chosen if one in values)
        else:
            kept[name] = chosen if chosen in values else values[0]
    if kept["arm"] == kept["versus"]:
        kept["versus"] = ""
    return replace(view, **kept)


def selected(results: Results, view: View) -> Results:
    """Results of the view's arms and stratum alone, the references beside them."""
    shown = {arm for arm in results.arms if arm in view.arms or not view.arms}
    shown |= {*results.references}
    sums = selections(results.sums)[view.stratum](results.sums)
    # Without its strata a table has no headline, which would be selected once more.
    sums = sums.drop(columns=[name for name in STRATA if name in sums])
    runs = [run for run in results.runs if run.arm in shown]
    return Results(results.name, runs, sums[sums["arm"].isin(shown)], results.cells)


def levels(own: Results) -> pd.DataFrame:
    """mAP of every arm in every setting, with intervals: lib.analysis.tables.quality."""
    return tables.quality(own, ("ap",))


def tradeoff(own: Results, quality: pd.DataFrame, view: View) -> Figure:
    """The trade-off plane; without panels where the stratum lacks mono or cross.

    own, quality: of `selected` and `levels`."""
    return plots.tradeoff(*tables.plane(own, quality), about=_about(view))


def alphas(own: Results, quality: pd.DataFrame, view: View) -> Figure:
    """mAP over alpha in the view's setting, where its arms have alphas enough."""
    table = contrasts.alphas(own, quality, FEWEST)
    block = table[table["setting"] == view.setting] if len(table) else table
    return plots.alphas(block, about=_about(view))


def pairs(results: Results, view: View) -> Figure:
    """The map of the view's languages: an arm less another one, or its own mAP."""
    cells = results.cells
    if view.languages:
        inside = cells[["question_language", "candidate_language"]].isin(view.languages)
        cells = cells[inside.all(axis=1)]
    own = replace(results, cells=cells)
    if view.versus:
        return heatmaps.differences(contrasts.by_language(own, [(view.arm, view.versus)]))
    means = contrasts.language_means(own)
    return plots.languages({f"{view.arm}, mAP": means[view.arm]} if view.arm in means else {})


def _about(view: View) -> str:
    """Which questions, to stand before a caption."""
    return f"{view.study}: {view.stratum}."
