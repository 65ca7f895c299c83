"""What 05_explore calls: results out of committed ledgers, and a board to choose what is shown.

Ledgers are read where they lie, so nothing is laid out below outputs/ but the figures.
"""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import replace
from functools import cache, lru_cache
from pathlib import Path

import ipywidgets as widgets
import pandas as pd
from IPython.display import HTML

from lib.analysis import drawing, exploring, showing, tables
from lib.analysis.exploring import View
from lib.analysis.results import Results
from lib.benchmarks import format_of
from lib.params import BadParameter
from lib.study import grid, paths, results

WIDE = widgets.Layout(width="min(100% - 4px, 24rem)")
STACK = widgets.Layout(display="flex", flex_flow="row wrap", align_items="flex-start")


def kept() -> dict[str, list[str]]:
    """Study -> benchmarks that can be shown, of every study that is kept with its report and a
    ledger of all its runs. Raises BadParameter where there is none."""
    found = {}
    for place in sorted(paths.outputs().glob("reference/*/ledger")):
        study = grid.load_frozen(_ledger(place.parent.name))
        whole = all((place / "runs" / key / "metrics.json").exists() for key in study.runs)
        first = next(iter(study.runs.values())).evaluate
        names = [name for name, spec in first.benchmarks.items() if format_of(spec).ranked]
        if whole and names and (place.parent / "index.html").exists():
            found[place.parent.name] = names
    if not found:
        raise BadParameter(f"{paths.outputs() / 'reference'}: holds no report with its ledger")
    return found


def _ledger(study: str) -> str:
    """What a ledger is called as a study: its folder seen from outputs/."""
    return f"reference/{study}/ledger"


@cache
def load(study: str, benchmark: str = "") -> Results:
    """What a report is about, out of a kept ledger: runs of the axis's last label, where there is
    one. benchmark empty: the study's first. Raises BadParameter for what is not kept."""
    every = kept()
    if study not in every:
        raise BadParameter(f"study: {study!r} is not kept (expected {', '.join(every)})")
    name = benchmark or every[study][0]
    if name not in every[study]:
        expected = ", ".join(every[study])
        raise BadParameter(f"benchmark: {name!r} is not of {study} (expected {expected})")
    asked = grid.load_frozen(_ledger(study)).analyse.model_copy(update={"study": _ledger(study)})
    runs, _ = results.comparable(results.reported(asked))
    return results.load_results(asked.study, runs, name)


def figures() -> Path:
    """Where figures of an exploration are saved."""
    return paths.report_dir("lab") / "explore"


@lru_cache(maxsize=4)
def _selected(view: View) -> tuple[Results, pd.DataFrame]:
    """What most pictures are of, which several in a row are."""
    own = exploring.selected(load(view.study, view.benchmark), view)
    return own, exploring.levels(own)


def picture(name: str, view: View) -> HTML:
    """One of PICTURES; a sentence where the view has nothing to draw. Raises BadParameter for a
    choice that the study does not have."""
    found = load(view.study, view.benchmark)
    exploring.check(view, found)
    if name == "pairs":
        return HTML(drawing.show(exploring.pairs(found, view), figures()).data or NONE)
    own, quality = _selected(replace(view, **SHARED))
    if name == "levels":
        wide = tables.wide(quality, "setting") if len(quality) else quality
        caption = f"{view.study}: mAP, {view.stratum}, with 95 % intervals."
        return HTML(showing.show(wide, caption).data if len(wide) else NONE)
    return HTML(drawing.show(getattr(exploring, name)(own, quality, view), figures()).data or NONE)


SHARED = {"setting": "", "languages": (), "arm": "", "versus": ""}  # do not select
NONE = "<p>Nothing of this in what was chosen.</p>"
# Picture -> which choices it depends on.
PICTURES = {
    "tradeoff": ("stratum", "arms"),
    "alphas": ("setting", "stratum", "arms"),
    "levels": ("stratum", "arms"),
    "pairs": ("languages", "arm", "versus"),
}


# --- the board ---------------------------------------------------------------------------------


def board(view: View) -> widgets.VBox:
    """Controls and pictures; every choice draws anew what depends on it."""
    options = {f"{study}: {name}": (study, name) for study, own in kept().items() for name in own}
    now = view.study, view.benchmark or kept()[view.study][0]
    data = widgets.Dropdown(options=options, value=now, description="data", layout=WIDE)
    place = widgets.VBox([_panel(view)])

    def other(change: dict) -> None:
        study, benchmark = change["new"]
        place.children = (_panel(replace(view, study=study, benchmark=benchmark)),)

    data.observe(other, "value")
    return widgets.VBox([data, place])


def _panel(view: View) -> widgets.VBox:
    """Controls and pictures of one study and benchmark, beginning with what it has of the view."""
    found = load(view.study, view.benchmark)
    view = exploring.nearest(view, found)
    controls = {
        name: _control(name, values, getattr(view, name))
        for name, values in exploring.offered(found).items()
    }
    shown = {name: widgets.HTML(picture(name, view).data) for name in PICTURES}

    def redraw(change: dict) -> None:
        chosen = replace(view, **{name: control.value for name, control in controls.items()})
        changed = next(n for n, control in controls.items() if control is change["owner"])
        for name in (name for name, needs in PICTURES.items() if changed in needs):
            shown[name].value = _or_why(name, chosen)

    for control in controls.values():
        control.observe(redraw, "value")
    boxes = widgets.Box([*controls.values()], layout=STACK)
    return widgets.VBox([boxes, *shown.values()])


def _control(name: str, values: list[str], chosen: str | tuple[str, ...]) -> widgets.Widget:
    """A list to choose several of, or one."""
    kind: Callable = widgets.SelectMultiple if isinstance(chosen, tuple) else widgets.Dropdown
    more = {"rows": min(len(values), 6)} if isinstance(chosen, tuple) else {}
    options = [(one or "nothing", one) for one in values]
    return kind(options=options, value=chosen, description=name, layout=WIDE, **more)


def _or_why(name: str, view: View) -> str:
    """The picture, or why it cannot be drawn."""
    try:
        return picture(name, view).data
    except BadParameter as error:
        return f"<p>{html.escape(str(error))}</p>"
