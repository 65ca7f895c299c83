"""Reports are read anywhere: one page a notebook, nothing loaded, nothing broken by a cell."""

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from hypothesis import given
from hypothesis import strategies as st
from nbconvert.filters import markdown2html

from lib import params
from lib.analysis import showing, words
from lib.analysis.showing import NOTHING
from lib.study import grid, paths, report
from lib.study.__main__ import main

pytestmark = pytest.mark.filterwarnings("ignore:Your element with mimetype")  # a script
PIXEL = base64.b64encode(
    bytes.fromhex(
        "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
        "1f15c4890000000d49444154789c6360000002000001e221bc330000000049454e44ae426082"
    )
).decode()
KEYS = ["arm=mono,seed=0", "arm=cross,seed=0"]


def output(kind, data, **metadata):
    return nbformat.v4.new_output("display_data", {kind: data}, metadata=metadata)


def executed(title, *outputs):
    """A notebook as papermill leaves it."""
    cells = [
        nbformat.v4.new_markdown_cell(f"# {title}\n\nSee [a paper](https://example.org/paper)."),
        nbformat.v4.new_code_cell('p = "<b>x</b>"', outputs=list(outputs), execution_count=1),
        nbformat.v4.new_code_cell("alpha = 1", metadata={"tags": ["injected-parameters"]}),
    ]
    return nbformat.v4.new_notebook(cells=cells)


def write(path, notebook):
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)


@pytest.fixture
def study(outputs):
    """Executed notebooks of two runs, with all that a cell may show."""
    write(
        paths.corpus_dir("tiny", "seed=0") / "01_prepare.ipynb",
        executed(
            "Corpus",
            output(
                "text/html",
                "<table class='dataframe'><tr><td>\u0645\u0631\u062d\u0628\u0627</td></tr></table>",
            ),
        ),
    )
    for key in KEYS:
        write(
            paths.run_dir("tiny", key) / "02_train.ipynb",
            executed(
                "Training",
                nbformat.v4.new_output(
                    "stream", name="stdout", text="step 1 \x1b[31m<loss>\x1b[0m\n"
                ),
                output("application/javascript", "alert(1)"),
                nbformat.v4.new_output(
                    "error", ename="E", evalue="v", traceback=["\x1b[0;31mE\x1b[0m: <v>"]
                ),
            ),
        )
        write(
            paths.run_dir("tiny", key) / "03_evaluate.ipynb",
            executed(
                "Scores", output("image/png", PIXEL, **{"image/png": {"alt": "mAP by language"}})
            ),
        )
    found = executed("Findings", output("text/markdown", "Found."))
    write(paths.report_dir("tiny") / "04_analyse.ipynb", found)
    return "tiny"  # fmt: skip


class Tags(HTMLParser):
    """Every start tag of a page, with its attributes."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def of(self, name):
        return [attributes for tag, attributes in self.found if tag == name]


def pages(study):
    folder = paths.report_dir(study)
    return {f.name: f.read_text(encoding="utf-8") for f in folder.glob("*.html")}


def test_a_page_a_notebook(study):
    """index.html is the analysis; the others are named by stage and key."""
    assert report.render(study) == paths.report_dir(study) / "index.html"
    named = {f"{stage}-{key}.html" for stage in ("train", "evaluate") for key in KEYS}
    assert set(pages(study)) == {"index.html", "prepare-seed=0.html"} | named
    assert "<h1>Findings</h1>" in pages(study)["index.html"]


def links(text):
    """Where a page leads inside the report."""
    found = [a["href"] for a in Tags(text).of("a")]
    assert not any(c in href for href in found for c in "=,")
    return {unquote(href) for href in found if not href.startswith("https://")}


def test_every_page_is_reached_and_leads_back(study):
    """The analysis links all, a page of a run its others; through file names with `=` and `,`."""
    report.render(study)
    found = pages(study)
    assert links(found["index.html"]) == {*found} - {"index.html"}
    for key in KEYS:
        own = {f"{stage}-{key}.html" for stage in ("train", "evaluate")}
        for name in own:
            back = {"index.html", "index.html#runs"}
            assert links(found[name]) == {*back, *(own - {name})}
            page = BeautifulSoup(found[name], "html.parser")
            marked = page.find(attrs={"aria-current": "page"}).get_text()
            assert name.startswith(marked)


def test_links_to_runs_are_a_table_of_arms_and_seeds():
    """A row an arm, a column a seed, however the axes are called and ordered."""
    keys = ["arm=a,seed=0", "arm=a,seed=1", "seed=0,arm=b", "train.seed=7,arm=b"]
    own = [report.Page("s", "train", key, Path("x")) for key in keys]
    table = report._by_seed([report.Page("s", "analyse", "", Path("x")), *own])
    assert {arm: list(row) for arm, row in table.items()} == dict.fromkeys(
        ("arm=a", "arm=b"), ["0", "1", "7"]
    )
    assert table["arm=b"] == {"0": [own[2]], "1": [], "7": [own[3]]}


def test_runs_are_in_the_order_of_the_grid(study):
    """As the study declares them, not by name."""
    report.render(study)
    assert report.find_pages(study)[2].key == "arm=cross,seed=0"
    runs = {k: grid.RunParams(params.Train(), params.Evaluate()) for k in KEYS}
    grid.freeze(grid.Study("tiny", {}, runs, params.Analyse()))
    assert [p.key for p in report.find_pages(study) if p.stage == "train"] == KEYS


def test_nothing_is_loaded_from_elsewhere(study):
    """One script, the report's own, which the policy names by its hash and which forbids the rest;
    images are inside the page. Links may lead away."""
    report.render(study)
    for text in pages(study).values():
        tags = Tags(text)
        assert not any(tags.of(x) for x in ("link", "iframe", "object", "embed", "base"))
        [script] = re.findall(r"<script>(.*?)</script>", text, re.S)
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert all(img["src"].startswith("data:") for img in tags.of("img"))
        assert not re.search(r"url\(|@import|src=.?http", text)
        policies = [m["content"] for m in tags.of("meta") if "http-equiv" in m]
        assert policies == [
            "default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'; "
            f"script-src 'sha256-{digest}'"
        ]


def test_text_is_escaped_and_plain(study):
    """Colours of the terminal are dropped, angle brackets are not tags."""
    report.render(study)
    text = pages(study)["train-arm=mono,seed=0.html"]
    assert "step 1 &lt;loss&gt;" in text and "E: &lt;v&gt;" in text
    assert "\x1b" not in text and "[31m" not in text and "ansi" not in text
    assert "alert(1)" not in text and "&lt;b&gt;x&lt;/b&gt;" in text


def test_code_is_folded_and_pictures_are_described(study):
    """Each code cell is reachable; each picture has the words that its cell gave it."""
    report.render(study)
    tags = Tags(pages(study)["evaluate-arm=mono,seed=0.html"])
    assert len([d for d in tags.of("details") if d.get("class") == "code"]) == 2
    assert not any("open" in d for d in tags.of("details"))
    assert [img["alt"] for img in tags.of("img")] == ["mAP by language"]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in tags.of("meta")


def test_words_in_tables_read_from_their_own_side():
    """Columns with words are marked, columns of numbers, intervals and gaps are not."""
    rows = [
        ("0.5", "\u0645\u0631\u062d\u0628\u0627", "-1e-05"),
        ("nan", "1 hello", "0.5 [0.4, 0.6]"),
    ]
    body = "".join(f"<tr><th>a</th>{''.join(f'<td>{c}</td>' for c in row)}</tr>" for row in rows)
    html = report.dressed(f"<table><tr>{'<th>x</th>' * 4}</tr>{body}</table>")
    cells = Tags(html).of("td")
    assert [cell.get("class") for cell in cells] == [None, "words", None] * 2
    assert [cell.get("dir") for cell in cells] == [None, "auto", None] * 2
    heads = [head.get("class") for head in Tags(html).of("th")]
    assert heads == [None, None, "words", None, None, None]  # four columns, two rows
    assert report.dressed("<p>a < b") == "<p>a < b"


def test_headers_say_what_they_head():
    """Of columns, groups of columns and rows; an empty one heads nothing; a row without any is
    named by its first cell. The table scrolls in a box with the caption's name."""
    html = report.dressed(
        "<table><caption>Means</caption><thead><tr><th></th><th colspan=2>mono</th></tr>"
        "<tr><th></th><th>R@1</th><th>R@10</th></tr></thead>"
        "<tr><td>a</td><td>1</td><td>2</td></tr></table>"
    )
    page = BeautifulSoup(html, "html.parser")
    heads = [(cell.get_text(), cell["scope"]) for cell in page.find_all("th")]
    assert heads == [("mono", "colgroup"), ("R@1", "col"), ("R@10", "col"), ("a", "row")]
    [box] = page.find_all("div", class_="table")
    assert box["aria-label"] == "Means" and box["tabindex"] == "0" and box.table


def words_and(code, *texts):
    """Cells: words, then one of code for each text, which is what it shows."""
    cells = [nbformat.v4.new_markdown_cell(words) for words in code]
    return cells + [
        nbformat.v4.new_code_cell("x", outputs=[output("text/html", text)]) for text in texts
    ]


def test_sections_that_show_nothing_are_left_out():
    """A heading goes with all that is below it; words without code stay; one part of a section may
    be empty."""
    nothing = NOTHING.data
    cells = [
        *words_and(["# Title"], "answer"),
        *words_and(["## Empty", "about it"], "", nothing),
        *words_and(["### Below it"], nothing),
        *words_and(["## Half"], "", "a table"),
        *words_and(["### Nothing here"], nothing),
        *words_and(["## Words alone"]),
    ]
    kept = report.without_empty(cells)
    said = [cell.source for cell in kept if cell.cell_type == "markdown"]
    assert said == ["# Title", "## Half", "## Words alone"]
    shown = [cell.outputs[0].data["text/html"] for cell in kept if cell.cell_type == "code"]
    assert shown == ["answer", "a table"]


def test_a_report_begins_with_its_contents(study):
    """After the answer and before the first section; all are anchors. Not on pages of runs."""
    notebook = executed("Findings", output("text/markdown", "The answer."))
    for title in ("What & how", "Code of ours"):
        notebook.cells += words_and([f"## {title}"], "<p>shown</p>")
    write(paths.report_dir(study) / "04_analyse.ipynb", notebook)
    report.render(study)
    text = pages(study)["index.html"]
    page = BeautifulSoup(text, "html.parser")
    [contents] = page.find_all("nav", class_="contents")
    named = {a["href"]: a.get_text() for a in contents.find_all("a")}
    assert named == {
        "#what-amp-how": "What & how", "#code-of-ours": "Code of ours", "#code": "Code",
        "#runs": "Runs",
    }  # fmt: skip
    assert [f"#{h['id']}" for h in page.find_all("h2")] == list(named)
    order = [text.index(x) for x in ("The answer.", 'class="contents"', 'id="what-amp-how"')]
    assert order == sorted(order)
    assert "contents" not in pages(study)[f"train-{KEYS[0]}.html"].split("</style>")[1]


def test_tables_link_their_files(study):
    """As CSV, and as LaTeX where that is there."""
    shown = showing.show(pd.DataFrame({"a": [1]}), "A", "quality")
    more = showing.show(pd.DataFrame({"a": [1]}), "B", "bias")
    cells = [output("text/html", part.data) for part in (shown, more)]
    folder = paths.report_dir(study)
    write(folder / "04_analyse.ipynb", executed("Findings", *cells))
    (folder / "tables").mkdir()
    (folder / "tables/quality.tex").write_text("")
    report.render(study)
    files = {x for x in links(pages(study)["index.html"]) if x.startswith("tables/")}
    assert files == {"tables/quality.csv", "tables/quality.tex", "tables/bias.csv"}


def test_pages_are_small(study):
    """Style, frame and highlighting, without the notebook's own content."""
    report.render(study)
    assert max(len(text) for text in pages(study).values()) < 20_000


def test_whatever_exists_is_rendered(study, capsys):
    """A run without evaluation, a half-written notebook, pages of before."""
    (paths.run_dir(study, KEYS[0]) / "03_evaluate.ipynb").unlink()
    (paths.run_dir(study, KEYS[1]) / "02_train.ipynb").write_text('{"cells": [')
    (paths.report_dir(study) / "train-old.html").write_text("")
    report.render(study)
    assert set(pages(study)) == {"index.html", "prepare-seed=0.html", f"train-{KEYS[0]}.html",
                                 f"evaluate-{KEYS[1]}.html"}  # fmt: skip
    assert "is not a whole notebook" in capsys.readouterr().out


def freeze(study, keys):
    """The study's file asked for these runs."""
    runs = {key: grid.RunParams(params.Train(), params.Evaluate()) for key in keys}
    corpora = {"seed=0": params.Prepare()}
    grid.freeze(grid.Study(study, corpora, runs, params.Analyse(), "params/tiny.yaml"))


def test_pages_of_an_arm_that_was_removed_go(study):
    """Its results may stay, but the report of the grid does not show them."""
    freeze(study, KEYS)
    report.render(study)
    assert f"train-{KEYS[1]}.html" in pages(study)
    write(paths.corpus_dir(study, "old") / "01_prepare.ipynb", executed("Corpus"))
    freeze(study, KEYS[:1])
    report.render(study)
    assert set(pages(study)) == {"index.html", "prepare-seed=0.html", f"train-{KEYS[0]}.html",
                                 f"evaluate-{KEYS[0]}.html"}  # fmt: skip
    assert "cross" not in pages(study)["index.html"]


def left_by_papermill(end_time, exception):
    """A notebook that papermill wrote, or was writing when it was killed."""
    notebook = executed("Findings")
    notebook.metadata["papermill"] = {"end_time": end_time, "exception": exception}
    return nbformat.writes(notebook)


UNFINISHED = {
    "is not there": None,
    "is not a whole notebook": '{"cells": [',
    "was not executed to its end": left_by_papermill(None, None),
    "was not executed to its end (it raised)": left_by_papermill("2026-01-01T00:00:00", True),
}


@pytest.mark.parametrize("fault", UNFINISHED)
def test_no_report_without_its_analysis(study, capsys, fault):
    """One line says what to run, and the pages of before stay."""
    freeze(study, KEYS)
    report.render(study)
    before = pages(study)
    file = paths.report_dir(study) / "04_analyse.ipynb"
    file.unlink() if UNFINISHED[fault] is None else file.write_text(UNFINISHED[fault])
    assert main(["report", "params/tiny.yaml"]) == 1
    said = capsys.readouterr()
    start = "start" if UNFINISHED[fault] is None else "remove it and start"
    assert said.err == (
        f"{file}: {fault.partition(' (')[0]}, so there is no report; "
        f"{start} `make study STUDY=params/tiny.yaml`\n"
    )
    assert said.out == "" and pages(study) == before


def test_what_papermill_finished_is_rendered(study):
    """Its own word for it, as in the notebooks of a study."""
    file = paths.report_dir(study) / "04_analyse.ipynb"
    file.write_text(left_by_papermill("2026-01-01T00:00:00", None))
    assert report.render(study).exists()


def test_runs_made_by_hand_have_no_report(outputs, capsys):
    """An empty page would look like one."""
    write(paths.run_dir("lab", "base") / "02_train.ipynb", executed("Training"))
    assert main(["report", "lab"]) == 1
    assert capsys.readouterr().err == (
        f"{outputs}/lab/study.json: is not there, and runs made by hand have no report; open "
        "04_analyse with study = 'lab', or start `make study STUDY=...`\n"
    )
    assert not (outputs / "lab" / "report").exists()


def test_the_command(study, capsys, outputs):
    """By file or by name; a study that is not there is one line."""
    assert main(["report", "params/tiny.yaml"]) == 0
    assert capsys.readouterr().out == f"report: {paths.report_dir(study) / 'index.html'}\n"
    assert main(["report", "absent"]) == 1
    assert capsys.readouterr().err.endswith("absent: no such study\n")
    assert not (outputs / "absent").exists()
    assert main(["report"]) == 2
    assert capsys.readouterr().err == "report: expected a study file, or --from and a folder\n"


@given(
    st.text(st.characters(exclude_categories=["Cs", "Cc"])) | st.just("<script>alert(1)</script>")
)
def test_a_note_is_shown_as_it_is_written(note):
    """No HTML, no markup, no formulas out of what a user says of the data."""
    page = BeautifulSoup(markdown2html("**Note.** " + words._plain(note)), "html.parser")
    assert {tag.name for tag in page.find_all()} <= {"p", "strong"}
    assert page.get_text().split() == ["Note.", *note.split()]
