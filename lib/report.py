"""Render the executed notebooks of a study as HTML that works anywhere, offline and on a phone.

All pages are made in one process: nbconvert's imports cost more than its work. index.html is the
analysis; every corpus and every run has a page a stage.

    python -m lib.report params/quick.yaml
"""

from __future__ import annotations

import re
import sys
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

from lib import params, store

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
        return " \N{MIDDLE DOT} ".join(x for x in (self.study, self.stage, self.key) if x)


def render(study: str) -> Path:
    """Write report/*.html of what a study has executed so far; the path of its index.html.

    Raises FileNotFoundError if there is no such study."""
    if not params.study_dir(study).is_dir():
        raise FileNotFoundError(f"{params.study_dir(study)}: no such study")
    folder = params.report_dir(study)
    store.make_folder(folder)
    pages = {page: nb for page in find_pages(study) if (nb := _read(page))}
    for old in folder.glob("*.html"):
        old.unlink()
    links = _links(pages)
    for page, notebook in pages.items():
        html, _ = _exporter().from_notebook_node(notebook, resources={"page": page, **links})
        with store.atomic_file(folder / page.file) as file:
            file.write_text(html, encoding="utf-8")
    return folder / "index.html"


def find_pages(study: str) -> list[Page]:
    """Every executed notebook, the analysis first, runs in the order of the study's grid."""
    folder, grid = params.study_dir(study), params.grid_keys(study)
    pages = [Page(study, "analyse", "", params.report_dir(study) / "04_analyse.ipynb")]
    for stage, pattern in (
        ("prepare", "corpus/*/01_prepare.ipynb"),
        ("train", "runs/*/02_train.ipynb"),
        ("evaluate", "runs/*/03_evaluate.ipynb"),
    ):
        found = {notebook.parent.name: notebook for notebook in sorted(folder.glob(pattern))}
        order = [key for key in grid if key in found] + [k for k in found if k not in grid]
        pages += [Page(study, stage, key, found[key]) for key in order]
    return pages


def _links(pages: Iterable[Page]) -> dict:
    """What the navigation shows: pages of corpora, and pages by run."""
    runs: dict[str, list[Page]] = {}
    for page in pages:
        if page.stage in ("train", "evaluate"):
            runs.setdefault(page.key, []).append(page)
    return {"corpora": [page for page in pages if page.stage == "prepare"], "runs": runs}


def _read(page: Page) -> nbformat.NotebookNode | None:
    """The executed notebook; None for one that a killed stage left half written."""
    if page.stage == "analyse" and not page.notebook.exists():
        text = f"# Study {page.study}\n\nThe analysis has not run yet; the pages above have."
        return nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text)])
    try:
        return nbformat.read(page.notebook, as_version=4)
    except (ValueError, KeyError, nbformat.reader.NotJSONError):
        print(f"{page.notebook}: is not a whole notebook; left out", flush=True)
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


def main(arguments: list[str]) -> int:
    """Render the study whose file (or name) is given."""
    if len(arguments) != 1:
        print("expected: python -m lib.report params/STUDY.yaml", file=sys.stderr)
        return 2
    try:
        print(f"report: {render(Path(arguments[0]).stem)}")
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
