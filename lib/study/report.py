"""Render the executed notebooks of a study as HTML that works anywhere, offline and on a phone.

All pages are made in one process: nbconvert's imports cost more than its work. index.html is the
analysis, and without that there is no report; every corpus and every run has a page a stage. The
analysis is read from its first screen on: sections that show nothing are left out, its code stands
at its end, and below that are the other pages.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

import nbformat
from bs4 import BeautifulSoup, Tag
from markupsafe import Markup, escape
from nbconvert import HTMLExporter
from nbconvert.filters import strip_ansi
from pygments.formatters import HtmlFormatter
from traitlets.config import Config

from lib import store
from lib.analysis.showing import NOTHING
from lib.study import grid, paths

TEMPLATES = Path(__file__).parent / "templates"
SCRIPT = (TEMPLATES / "report" / "sort.js").read_text(encoding="utf-8")
# What a cell shows, best first. No scripts and no widgets: a page is to read.
SHOWN = ["text/html", "text/markdown", "image/svg+xml", "image/png", "image/jpeg", "text/plain"]
BY_KEY = {
    "prepare": ("corpus", "01_prepare.ipynb"),
    "train": ("runs", "02_train.ipynb"),
    "evaluate": ("runs", "03_evaluate.ipynb"),
}  # stage -> where its executed notebooks lie
SEED = re.compile(r"(train\.)?seed=(.*)")
H2 = re.compile(r"<h2\b[^>]*>(.*?)</h2>", re.S)
CELL = "<!-- cell -->"  # marks where one begins, until the contents are in their place
WORDS = re.compile(r"^(?!nan$|None$|<NA>$|[-+]?[\d.]).*[^\W\d_]")


@dataclass(frozen=True)
class Page:
    """One executed notebook and the file it becomes."""

    study: str
    stage: str
    key: str
    notebook: Path

    @property
    def file(self) -> str:
        return "index.html" if self.stage == "analyse" else f"{self.stage}-{self.key}.html"

    @property
    def href(self) -> str:
        """The file as a link: keys hold `=` and `,`."""
        return quote(self.file)

    @property
    def title(self) -> str:
        return " \N{MIDDLE DOT} ".join(part for part in (self.study, self.stage, self.key) if part)


def render(study: str) -> Path:
    """Write the pages of an analysed study and remove those of others; the path of its index.html.

    Raises FileNotFoundError if there is no such study, ValueError if it was not analysed: the
    pages of before then stay."""
    if not paths.study_dir(study).is_dir():
        raise FileNotFoundError(f"{paths.study_dir(study)}: no such study")
    _require_analysis(study)
    folder = paths.report_dir(study)
    notebooks = {page: _read(page.notebook) for page in find_pages(study)}
    pages = {page: notebook for page, notebook in notebooks.items() if notebook}
    for page in notebooks.keys() - pages.keys():
        print(f"{page.notebook}: is not a whole notebook; left out", flush=True)
    for page, notebook in pages.items():
        html = _html(page, notebook, list(pages))
        with store.atomic_file(folder / page.file) as file:
            file.write_text(html, encoding="utf-8")
    files = {folder / page.file for page in pages}
    for file in {f for stage in BY_KEY for f in folder.glob(f"{stage}-*.html")} - files:
        file.unlink()
    return folder / "index.html"


def render_alone(page: Page) -> Path:
    """Write the page of one executed notebook that no study has others beside; its path."""
    file = page.notebook.parent / page.file
    html = _html(page, nbformat.read(page.notebook, as_version=4), [])
    with store.atomic_file(file) as new:
        new.write_text(html, encoding="utf-8")
    return file


def _html(page: Page, notebook: nbformat.NotebookNode, pages: list[Page]) -> str:
    """A page's text. Of the analysis, code and links to the other pages come last."""
    own: dict = {"beside": [other for other in pages if other.key == page.key and page.key]}
    if page.stage == "analyse":
        own = {
            "code": [cell for cell in notebook.cells if cell.cell_type == "code"],
            "corpora": [other for other in pages if other.stage == "prepare"],
            "runs": _by_seed(pages),
        }
        notebook.cells = without_empty(_titled(notebook.cells))
    html, _ = _exporter().from_notebook_node(notebook, resources={"page": page, **own})
    return _with_contents(_with_latex(html, page.notebook.parent))


def _require_analysis(study: str) -> None:
    """Raises ValueError, saying what to run, unless the analysis was executed to its end."""
    file = paths.report_dir(study) / "04_analyse.ipynb"
    frozen, fault = paths.study_dir(study) / "study.json", _fault(file)
    if fault and frozen.exists():
        path = grid.load_frozen(study).file or f"params/{study}.yaml"
        start = f"{'remove it and ' * file.exists()}start `make study STUDY={path}`"
        raise ValueError(f"{file}: {fault}, so there is no report; {start}")
    if fault:
        raise ValueError(
            f"{frozen}: is not there, and runs made by hand have no report; open 04_analyse with "
            f"study = {study!r}, or start `make study STUDY=...`"
        )


def _fault(file: Path) -> str:
    """Why a notebook cannot count as executed, "" if it can."""
    if not file.exists():
        return "is not there"
    notebook = _read(file)
    if notebook is None:
        return "is not a whole notebook"
    ran = notebook.metadata.get("papermill")  # None: somebody else executed it
    if ran is not None and (ran.get("exception") or not ran.get("end_time")):
        return "was not executed to its end"
    return ""


def find_pages(study: str) -> list[Page]:
    """Every executed notebook, the analysis first, then those of the study's grid in its order;
    of a study without a study file all that there are."""
    folder, keys_of = paths.study_dir(study), {}
    if (folder / "study.json").exists():
        frozen = grid.load_frozen(study)
        keys_of = {"corpus": list(frozen.corpora), "runs": list(frozen.runs)}
    pages = [Page(study, "analyse", "", paths.report_dir(study) / "04_analyse.ipynb")]
    for stage, (below, name) in BY_KEY.items():
        keys = keys_of.get(below) or sorted(f.parent.name for f in folder.glob(f"{below}/*/{name}"))
        files = {key: folder / below / key / name for key in keys}
        pages += [Page(study, stage, key, file) for key, file in files.items() if file.exists()]
    return pages


def _by_seed(pages: Iterable[Page]) -> dict[str, dict[str, list[Page]]]:
    """Key without its seed -> seed -> pages of that run: a row an arm, a column a seed, each in the
    order of the grid."""
    runs = [page for page in pages if BY_KEY.get(page.stage, ("",))[0] == "runs"]
    parts = {page: [SEED.match(part) for part in page.key.split(",")] for page in runs}
    seeds = {page: next((m[2] for m in found if m), "") for page, found in parts.items()}
    table: dict[str, dict[str, list[Page]]] = {}
    for page in runs:
        arm = ",".join(part for part in page.key.split(",") if not SEED.match(part))
        row = table.setdefault(arm, {seed: [] for seed in dict.fromkeys(seeds.values())})
        row[seeds[page]].append(page)
    return table


# --- what a page is made of --------------------------------------------------------------------


def _titled(cells: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """The cells without the notebook's title, where the study's question is one."""
    asked = any(cell.id == "question" and _shows(cell) for cell in cells)
    return [cell for cell in cells if not (asked and cell.id == "title")]


def without_empty(cells: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """The cells that say something: no code without output, and no words above nothing.

    Words, with the heading they begin with, stay if code below shows something before the next
    heading of their level, or where there is no code below."""
    kept = []
    for place, cell in enumerate(cells):
        below = []
        for other in cells[place + 1 :] if cell.cell_type == "markdown" else ():
            if other.cell_type == "markdown" and _level(other) <= _level(cell):
                break
            below += [other] * (other.cell_type == "code")
        own = below if cell.cell_type == "markdown" else [cell]
        if not own or any(map(_shows, own)):
            kept.append(cell)
    return kept


def _level(cell: nbformat.NotebookNode) -> int:
    """Of the heading that a cell of words begins with; 7 where it has none."""
    return len(re.match(r"#{0,6}", cell.source)[0]) or 7


def _shows(cell: nbformat.NotebookNode) -> bool:
    """Whether a cell of code has an output that says something."""
    for output in cell.outputs:
        data = output.get("data", {})
        texts = [data[kind] for kind in ("text/html", "text/markdown") if kind in data]
        if not texts or texts[0].strip() not in ("", NOTHING.data):
            return True
    return False


def _with_latex(html: str, folder: Path) -> str:
    """Links to tables, and where a table is there as LaTeX too a link to that."""

    def both(link: re.Match) -> str:
        file = f"tables/{link[1]}.tex"
        found = (folder / file).exists()
        return link[0] + f' <a href="{file}">{link[1]}.tex</a>' * found

    return re.sub(r'<a href="tables/([\w-]+)\.csv">[^<]*</a>', both, html)


def _with_contents(html: str) -> str:
    """A page whose sections have anchors, with a list of them before the first one."""
    titles: dict[str, str] = {}

    def anchored(heading: re.Match) -> str:
        text = re.sub(r"<[^>]+>", "", heading[1]).strip()
        name = re.sub(r"\W+", "-", text.lower()).strip("-")
        titles[name] = text
        return f'<h2 id="{name}">{text}</h2>'

    html = H2.sub(anchored, html)
    links = "".join(f'<li><a href="#{name}">{text}</a></li>' for name, text in titles.items())
    nav = f'<nav class="contents" aria-label="Contents"><ul>{links}</ul></nav>'
    before, heading, after = html.partition("<h2 ")
    before, cell, start = before.rpartition(CELL)
    if len(titles) > 2:
        html = f"{before}{nav}{cell}{start}{heading}{after}"
    return html.replace(CELL, "")


def _read(file: Path) -> nbformat.NotebookNode | None:
    """The executed notebook; None for one that a killed stage left half written."""
    try:
        return nbformat.read(file, as_version=4)
    except (ValueError, KeyError, nbformat.reader.NotJSONError):
        return None


@cache
def _exporter() -> HTMLExporter:
    exporter = HTMLExporter(
        config=Config({"NbConvertBase": {"display_data_priority": SHOWN}}),
        template_name="report",
        extra_template_basedirs=[str(TEMPLATES)],
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        exclude_anchor_links=True,
    )
    exporter.register_filter("ansi2html", lambda text: escape(strip_ansi(text)))
    exporter.register_filter("dressed", dressed)
    exporter.environment.globals |= frame()
    return exporter


def frame() -> dict[str, Markup | str]:
    """What every page has: our style, our script, and its hash for the page's own policy."""
    script_hash = b64encode(sha256(SCRIPT.encode()).digest()).decode()
    return {"style": _style(), "script": Markup(SCRIPT), "script_hash": script_hash}


def dressed(html: str) -> str:
    """HTML whose tables can be read: headers say what they head, columns of words read from their
    own side (Arabic from the right), and a wide table scrolls in a box of its own."""
    if "<table" not in html:
        return html
    soup = BeautifulSoup(html, "html.parser")
    for table in soup.find_all("table"):
        rows = [row.find_all(["th", "td"]) for row in table.find_all("tr")]
        heads = [row for row in rows if all(cell.name == "th" for cell in row)]
        body = [row for row in rows if row not in heads]
        _mark_words(heads, body)
        _name_headers(heads, body)
        box = soup.new_tag("div", attrs={"class": "table", "tabindex": "0", "role": "region"})
        box["aria-label"] = table.caption.get_text() if table.caption else "table"
        table.wrap(box)
    return str(soup)


def _mark_words(heads: list[list[Tag]], body: list[list[Tag]]) -> None:
    """Mark the columns that hold words; pandas aligns every cell as a number. Counted from the
    right, since a header over several rows stands in the first of them alone."""
    for place, column in enumerate(zip(*(row[::-1] for row in body), strict=False), start=1):
        if column[0].name == "td" and any(WORDS.search(cell.get_text()) for cell in column):
            above = [row[-place] for row in heads[-1:] if len(row) >= place]
            for cell in (*column, *above):
                cell["class"] = [*cell.get("class", []), "words"]
            for cell in column:
                cell["dir"] = "auto"


def _name_headers(heads: list[list[Tag]], body: list[list[Tag]]) -> None:
    """What headers are for. A row without any is named by its first cell; an empty one is none."""
    for row in body:
        if not any(cell.name == "th" for cell in row):
            row[0].name = "th"
    for rows, scope, span in ((heads, "col", "colspan"), (body, "row", "rowspan")):
        for cell in (cell for row in rows for cell in row if cell.name == "th"):
            if cell.get_text().strip():
                cell["scope"] = scope + "group" * (int(cell.get(span, 1)) > 1)
            else:
                cell.name = "td"


def _style() -> Markup:
    """Our style sheet and the highlighter's, without the latter's line-number rules."""
    code = HtmlFormatter(style="friendly_grayscale").get_style_defs("div.highlight")
    code = "\n".join(line for line in code.splitlines() if re.match(r"div\.highlight \.", line))
    return Markup((TEMPLATES / "report" / "style.css").read_text(encoding="utf-8") + code)
