"""The reader's notebook: what is chosen is what is drawn, and it runs on what is committed."""

import ast
import json
import re
from dataclasses import fields, replace

import matplotlib.pyplot as plt
import nbformat
import pandas as pd
import pytest
from test_figures import cells, of_gains
from test_results import study

from lib.analysis import exploring
from lib.analysis.exploring import View
from lib.analysis.sums import headline
from lib.params import BadParameter
from lib.store import ROOT
from lib.study import explore, paths

NOTEBOOK = ROOT / "notebooks" / "05_explore.ipynb"
ALL = View(study="x", arm="hybrid(0.5)", versus="mono")


@pytest.fixture(autouse=True)
def closed(tmp_path, monkeypatch):
    """Figures go elsewhere and do not stay in memory."""
    monkeypatch.setattr(explore, "figures", lambda: tmp_path / "figures")
    yield
    plt.close("all")


def cell(name):
    [found] = [c for c in nbformat.read(NOTEBOOK, as_version=4).cells if c.id == name]
    return found.source


def test_the_cell_is_the_view():
    """Names, order and defaults; typed literals with what they are."""
    body = ast.parse(cell("parameters")).body
    values = {node.target.id: ast.literal_eval(node.value) for node in body}
    assert list(values) == [field.name for field in fields(View)]
    assert View.from_cell(values | {"other": 1}) == View()
    for node in body:
        assert type(ast.literal_eval(node.value)).__name__ == node.annotation.id
    assert all("  # " in line for line in cell("parameters").splitlines())


def test_chosen_arms_alone_are_drawn():
    """With the references beside them; none chosen are all."""
    found = of_gains()
    own = exploring.selected(found, replace(ALL, arms=("mono", "cross")))
    assert own.arms == ["mono", "cross"] and own.references == found.references
    assert exploring.selected(found, ALL).arms == found.arms
    figure = exploring.tradeoff(own, exploring.levels(own), ALL)
    assert "hybrid" not in figure.alts[""] and "cross mono 0." in figure.alts[""]
    assert figure.caption.startswith("x: headline. ")


def test_a_stratum_is_that_alone():
    """All questions are not the headline's, though a table that has one selects it."""
    found = of_gains()
    rows = headline(found.sums).assign(hops="2-hop")
    easy = rows.assign(hops="1-hop", total=rows["weight"])
    both = replace(found, sums=pd.concat([rows, easy], ignore_index=True))
    means = {}
    for stratum in ("headline", "hops: 1-hop", "all questions"):
        table = exploring.levels(exploring.selected(both, replace(ALL, stratum=stratum)))
        means[stratum] = table.set_index(["arm", "setting"])["estimate"]["mono", "mono"]
    assert means["hops: 1-hop"] == pytest.approx(1)
    assert means["headline"] < 1
    assert means["all questions"] == pytest.approx((1 + means["headline"]) / 2)


def test_alphas_need_three():
    """Of the chosen arms and in the chosen setting."""
    own = of_gains()
    quality = exploring.levels(own)
    assert list(exploring.alphas(own, quality, replace(ALL, setting="multi")).panels) == ["multi"]
    two = exploring.selected(own, replace(ALL, arms=("cross", "mono")))
    assert exploring.alphas(two, exploring.levels(two), ALL).panels == {}


def test_maps_are_of_chosen_languages():
    """A difference or an arm's own mAP, of pairs of languages inside the choice."""
    own = cells(
        {"hybrid(0.5)": (0.5, 0.4, 0.3, 0.2, 0.1, 0.6), "mono": (0.6, 0.1, 0.1, 0.1, 0.1, 0.5)}
    )
    some = replace(ALL, languages=("ar", "de"))
    [(title, alt)] = exploring.pairs(own, some).alts.items()
    assert title == "hybrid(0.5) − mono" and "en" not in alt
    assert "across languages +0.000 on average" in alt
    [(title, alt)] = exploring.pairs(own, replace(some, versus="")).alts.items()
    assert title == "hybrid(0.5), mAP" and "en" not in alt.split(":")[1]


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"arms": ("mono", "nix")}, r"^arms: 'nix' is not in x \(expected .*mono.*\)$"),
        ({"stratum": "hops: 9"}, r"^stratum: 'hops: 9' is not in x \(expected headline, all qu"),
        ({"setting": "both"}, r"^setting: 'both' is not in x \(expected mono, cross, multi\)$"),
        ({"versus": "hybrid(0.5)"}, r"^versus: 'hybrid\(0.5\)' is the arm itself"),
    ],
)
def test_what_is_not_there_is_one_line(choice, message):
    with pytest.raises(BadParameter, match=message):
        exploring.check(replace(ALL, **choice), of_gains())


def test_the_nearest_view_can_be_shown():
    """On another study: its first arm, no language that it lacks, and nothing less itself."""
    found = study({"mono": 0.0, "cross": 0.1})
    view = exploring.nearest(replace(ALL, arms=("x-x", "mono"), languages=("xx",)), found)
    assert view.arms == ("mono",) and view.languages == ()
    assert (view.arm, view.versus) == ("mono", "")
    exploring.check(view, found)


def test_a_study_that_is_not_kept_is_one_line():
    pages = (ROOT / "outputs/reference").glob("*/index.html")
    names = sorted(page.parent.name for page in pages if (page.parent / "ledger").is_dir())
    said = f"study: 'nix' is not kept (expected {', '.join(names)})"
    with pytest.raises(BadParameter, match=f"^{re.escape(said)}$"):
        explore.load("nix")
    with pytest.raises(BadParameter, match=r"^benchmark: 'nix' is not of quick \(expected heldout"):
        explore.load("quick", "nix")


def test_the_board_draws_what_is_chosen():
    """What depends on a choice changes, the rest stays; another study has controls of its own; a
    choice that says nothing is a sentence."""
    board = explore.board(View(study="xquad-articles"))
    data, place = board.children
    boxes, *shown = place.children[0].children
    controls = {control.description: control for control in boxes.children}
    before = [picture.value for picture in shown]
    assert all("<img" in value or "<table" in value for value in before)
    controls["arms"].value = ("mono", "cross")
    after = [picture.value for picture in shown]
    assert [a != b for a, b in zip(before, after, strict=True)] == [True, True, True, False]
    assert explore.NONE == after[1]
    controls["versus"].value = "hybrid(0.5)"
    assert shown[3].value.startswith("<p>versus: &#x27;hybrid(0.5)&#x27; is the arm itself")
    data.value = ("xquad-articles", "xquad-r")
    [other] = place.children
    assert other.children[0].children[3].options[0] == ("ar", "ar")


def test_the_notebook_runs_on_what_is_committed(outputs, tmp_path):
    """Figures are drawn once without a live board, which stands below them."""
    import papermill

    target = tmp_path / "explore.ipynb"
    (outputs / "reference").mkdir(parents=True)
    (outputs / "reference" / "xquad-articles").symlink_to(
        ROOT / "outputs/reference/xquad-articles", target_is_directory=True
    )
    papermill.execute_notebook(
        str(NOTEBOOK), str(target), {"study": "xquad-articles"}, kernel_name="python3",
        cwd=str(ROOT), progress_bar=False,
    )  # fmt: skip
    made = {c["id"]: c.get("outputs", []) for c in json.loads(target.read_text())["cells"]}
    for name in ("plane", "alphas", "levels", "pairs"):
        [output] = made[name]
        text = "".join(output["data"]["text/html"])
        assert ("<table" if name == "levels" else "<img") in text
    [board] = made["board"]
    assert "application/vnd.jupyter.widget-view+json" in board["data"]
    assert sorted(f.name for f in (paths.report_dir("lab") / "explore").glob("*.svg")) == [
        "alphas-cross.svg", "languages-hybrid-0.5-mono.svg", "tradeoff.svg"
    ]  # fmt: skip
