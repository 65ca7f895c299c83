"""Render the executed notebooks of a study as HTML that works anywhere, offline and on a phone.

All pages are made in one process: nbconvert's imports cost more than its work. index.html is the
analysis, and without that there is no report; every corpus and every run has a page a stage.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import quote

import nbformat
from bs4 import BeautifulSoup
from markupsafe import Markup, escape
from nbconvert import HTMLExporter
from nbconvert.filters import strip_ansi
from pygments.formatters import HtmlFormatter
from traitlets.config import Config

from lib import store
from lib.study import grid, paths

TEMPLATES = Path(__file__).parent / "templates"
# What a cell shows, best first. No scripts and no widgets: a page is to read.
SHOWN = ["text/html", "text/markdown", "image/svg+xml", "image/png", "image/jpeg", "text/plain"]
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
    """Write report/*.html of an analysed study and remove all others; the path of its index.html.

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
    links = _links(pages)
    for page, notebook in pages.items():
        html, _ = _exporter().from_notebook_node(notebook, resources={"page": page, **links})
        with store.atomic_file(folder / page.file) as file:
            file.write_text(html, encoding="utf-8")
    for file in set(folder.glob("*.html")) - {folder / page.file for page in pages}:
        file.unlink()
    return folder / "index.html"


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
    for stage, below, name in (
        ("prepare", "corpus", "01_prepare.ipynb"),
        ("train", "runs", "02_train.ipynb"),
        ("evaluate", "runs", "03_evaluate.ipynb"),
    ):
        keys = keys_of.get(below) or sorted(f.parent.name for f in folder.glob(f"{below}/*/{name}"))
        files = {key: folder / below / key / name for key in keys}
        pages += [Page(study, stage, key, file) for key, file in files.items() if file.exists()]
    return pages


def _links(pages: Iterable[Page]) -> dict:
    """What the navigation shows: pages of corpora, and pages by run."""
    runs: dict[str, list[Page]] = {}
    for page in pages:
        if page.stage in ("train", "evaluate"):
            runs.setdefault(page.key, []).append(page)
    return {"corpora": [page for page in pages if page.stage == "prepare"], "runs": runs}


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
    exporter.register_filter("align_text", align_text)
    exporter.environment.globals["style"] = _style()
    return exporter


def align_text(html: str) -> str:
    """Mark the columns of tables that hold words, so that they read from their own side: Arabic
    from the right. pandas aligns every cell as a number."""
    if "<table" not in html:
        return html
    soup = BeautifulSoup(html, "html.parser")
    for table in soup.find_all("table"):
        rows = [row.find_all("td") for row in table.find_all("tr")]
        for column in zip(*(row for row in rows if row), strict=False):
            if any(WORDS.search(cell.get_text()) for cell in column):
                for cell in column:
                    cell.attrs |= {"class": [*cell.get("class", []), "words"], "dir": "auto"}
    return str(soup)


def _style() -> Markup:
    """Our style sheet and the highlighter's, without the latter's line-number rules."""
    code = HtmlFormatter(style="friendly_grayscale").get_style_defs("div.highlight")
    code = "\n".join(line for line in code.splitlines() if re.match(r"div\.highlight \.", line))
    return Markup((TEMPLATES / "report" / "style.css").read_text(encoding="utf-8") + code)
