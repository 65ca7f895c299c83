"""One page over all committed studies, `python -m lib.study index`: outputs/reference/index.html.

It is made of what is committed alone, outputs/reference/*/ and the study files, so in a fresh clone
too, in seconds. A study is on it once its folder is there; which question it answers follows from
its name (QUESTIONS).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import matplotlib.pyplot as plt
import pandas as pd
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup, escape

from lib import store
from lib.analysis import drawing, glance, overview, phases, trends, words
from lib.analysis.overview import Kept, Trained
from lib.store import ROOT
from lib.study import grid, paths, report


class Question(NamedTuple):
    """A question of the project, and what is never claimed about it, whatever comes out.

    begins  studies whose names begin so answer it
    full    the study file that runs what cannot be run here"""

    title: str
    words: str
    begins: tuple[str, ...]
    full: str
    limits: str


QUESTIONS = (
    Question(
        "Data size",
        "How does the size of the training data move the trade-off between monolingual and "
        "cross-lingual retrieval?",
        ("rq1",),
        "params/full/rq1_size.yaml",
        "BEIR and MTEB; training sets larger than those named here",
    ),
    Question(
        "Languages",
        "How do hybrid batches compare with other multilingual training when the number of "
        "languages grows beyond a hundred?",
        ("rq2",),
        "params/full/rq2_languages.yaml",
        "questions and answers in a hundred languages; mT5 and XLM-R",
    ),
    Question(
        "Model size",
        "How do hybrid batches behave across sizes of the encoder?",
        ("rq3",),
        "params/full/rq3_size.yaml",
        "encoders of 7 and 13 billion parameters, of which there are a study file and a plan of "
        "their memory alone",
    ),
    Question(
        "Low resource",
        "Do hybrid batches keep or improve monolingual retrieval in languages with little data, "
        "against training on monolingual data alone?",
        ("rq4",),
        "params/full/rq4_low_resource.yaml",
        "questions and answers in languages that truly have little data; BEIR and its kin",
    ),
    Question(
        "Instructions",
        "With instructions, can a question choose between its own language and any, and does "
        "hybrid training help?",
        ("rq5",),
        "params/full/rq5_instruct.yaml",
        "that instructions are followed; MS MARCO; NQCross, which is not public",
    ),
    Question(
        "When does mixing help?",
        "Is it known from an encoder's cross-lingual alignment, before it is fine-tuned, what "
        "mixing costs and gains? The law: the better parallel passages of two languages find each "
        "other beforehand (bitext accuracy, 0 to 1), the smaller both.",
        ("law", "rungs", "rotations", "pretrained-unseen"),
        "params/rotations.yaml",
        "ways to change alignment other than translation ranking and rotation; tasks other than "
        "parallel pools of one domain",
    ),
    Question(  # last: what answers none of the others is about this
        "Which mix",
        "What mix of monolingual and cross-lingual batches is best, for what, and at what cost?",
        ("",),
        "params/full/paper.yaml",
        "the paper's own figures: its training data is not public; what large encoders reach",
    ),
)
# Studies that the first table puts beside each other: real text, and two ends of alignment.
HEADS = {
    "xquad": "a small encoder from scratch",
    "pretrained": "multilingual-e5-small, pretrained",
}
# Studies of one language of few pairs, with its relatives among the others.
RELATIVES = {
    "rq4_zh": "Chinese (no relative)",
    "rq4_da": "Danish (Swedish)",
    "rq4_pt": "Portuguese (Spanish, Italian)",
}
# What a study is, for whom its name says nothing.
TITLES = {
    "quick": "a small encoder from scratch, embedded corpus",
    "xquad": "a small encoder from scratch, XQuAD-R",
    "xquad-articles": "the same, with no article of the test among the training data",
    "xquad-temperature": "XQuAD-R, contrasts at one temperature for both arms",
    "pretrained": "multilingual-e5-small, XQuAD-R",
    "pretrained-arms": "more alphas, negatives of one language, English pairs and switched ones",
    "pretrained-full": "all layers trained",
    "pretrained-temperature": "monolingual batches at other temperatures",
    "pretrained-posthoc": "each language's mean taken away after training",
    "pretrained-rivals": "losses over parallel texts",
    "pretrained-unseen": "asked in languages that no arm was trained on",
    "rq1_size": "shares of the data, the same number of updates",
    "rq1_epochs": "shares of the data, the same number of passes",
    "rq2_cards": "4 to 110 languages, embedded corpus",
    "rq3_layers": "2 to 12 layers of multilingual-e5-small",
    "rq3_width": "from scratch, .13 to 10 million weights",
    "rq4_zh": "few pairs in Chinese",
    "rq4_da": "few pairs in Danish, beside Swedish",
    "rq4_pt": "few pairs in Portuguese, beside Spanish and Italian",
    "rq5_prompts": "prefixes before questions, multilingual-e5-small",
    "law": "contrasts over alignment, fitted and predicted",
}
PAGE = "index.html"


def make() -> Path:
    """Write the page; its path. Raises FileNotFoundError where nothing is committed."""
    folder = paths.outputs() / "reference"
    file = folder / PAGE
    text = page(folder)
    with store.atomic_file(file) as new:
        new.write_text(text, encoding="utf-8")
    return file


def page(folder: Path) -> str:
    """The page about all studies below a folder."""
    studies = load(folder)
    if not studies:
        raise FileNotFoundError(f"{folder}: no study is kept there")
    environment = Environment(
        loader=FileSystemLoader(report.TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["dressed"] = lambda text: Markup(report.dressed(str(text)))
    template = environment.get_template("reference.html.j2")
    with plt.rc_context(), pd.option_context("display.max_colwidth", None):
        drawing.style()
        return template.render(**report.frame(), **_content(studies, folder)) + "\n"


def load(folder: Path) -> list[Kept]:
    """What is kept of every study below a folder, in the order of the questions."""
    found = [_kept(place) for place in sorted(folder.iterdir()) if place.is_dir()]
    return sorted((kept for kept in found if kept), key=lambda kept: _place(kept.name))


def _kept(place: Path) -> Kept | None:
    """A study: tables of its report, and of its ledger what its runs were made of; None where a
    folder holds neither."""
    tables = {file.stem: pd.read_csv(file) for file in sorted(place.glob("tables/*.csv"))}
    ledger = place / "ledger"
    if not (ledger / "study.json").is_file():
        return Kept(place.name, tables) if tables else None
    study = grid.load_frozen(str(ledger.relative_to(paths.outputs())))
    first = next(iter(study.runs.values())).evaluate
    manifests = [ledger / "corpus" / key / "data/manifest.json" for key in study.corpora]
    made = Trained(
        list(study.corpora.values()),
        [store.read_json(file)["counts"]["rows"] for file in manifests if file.is_file()],
        [run.train for run in study.runs.values()],
        len([*ledger.glob("runs/*/metrics.json")]),
        study.analyse.benchmark or next(iter(first.benchmarks)),
    )
    return Kept(place.name, tables, study.analyse, made)


def _place(name: str) -> int:
    """Of the question that a study answers in QUESTIONS."""
    return next(at for at, one in enumerate(QUESTIONS) if name.startswith(one.begins))


# --- what the page says ------------------------------------------------------------------------


def _content(studies: list[Kept], folder: Path) -> dict[str, Any]:
    """What the template shows."""
    links = {kept.name: _link(kept, folder) for kept in studies}
    own = overview.distinct(studies)

    def linked(table: pd.DataFrame) -> dict[str, Any]:
        """Columns and rows, with every study's name a link to its report."""
        plain = _plain(table)  # links in a frame of strings would become strings
        rows = [[links.get(cell, cell) for cell in row] for row in plain["rows"]]
        return plain | {"rows": rows}

    return {
        "in_short": _plain(overview.in_short(own, HEADS)),
        "law": _law(studies),
        "questions": [_question(one, studies, links) for one in (QUESTIONS[-1], *QUESTIONS[:-1])],
        "glance": _drawn(glance.studies(overview.side_by_side(own))),
        "axes": _drawn(glance.axes(_titled(overview.along(own)))),
        "relatives": _relatives(studies),
        "contrasts": linked(overview.contrasts(own)),
        "advice": linked(overview.advice(own)),
        "ranker": linked(overview.ranker(own)),
        "verdicts": _leading(overview.verdicts(own), links),
        "comparisons": linked(overview.comparisons(own)),
        "untested": overview.untested(own),
        "studies": [_study(kept, links[kept.name]) for kept in studies],
    }


def _plain(table: pd.DataFrame) -> dict[str, Any]:
    """Columns and rows."""
    return {"columns": [*table.columns], "rows": table.to_numpy().tolist()}


def _law(studies: list[Kept]) -> Markup:
    """What mixing costs and gains over alignment; nothing without the law's tables."""
    needed = {"points", "curves", "outcomes"}
    for kept in (one for one in studies if needed <= {*one.tables}):
        lines = kept.table("curves")
        lines = lines[lines["contrast"].isin(["mono cost", "cross gain"])]
        return _drawn(
            phases.phases(phases.marks(kept.table("points"), kept.table("outcomes")), lines)
        )
    return Markup("")


def _relatives(studies: list[Kept]) -> Markup:
    """What other languages bring to one of few pairs, by its relatives; nothing of one study."""
    kept = {one.name: one for one in studies if one.name in RELATIVES}
    own = {told: kept[name].table("trend") for name, told in RELATIVES.items() if name in kept}
    table = trends.gains(own)
    axis = words.axis_label(next(iter(kept.values())).analyse) if kept else ""
    return _drawn(glance.donors(table, axis))


def _titled(along: pd.DataFrame) -> pd.DataFrame:
    """Studies by what they are asked, and their names."""
    titles = {n: f"{QUESTIONS[_place(n)].title}: {n}" for n in {*along.get("study", ())}}
    return along.replace({"study": titles})


def _drawn(figure: drawing.Figure) -> Markup:
    """A figure inside the page; nothing of one without panels."""
    return Markup(drawing.inline(figure).data)


def _leading(verdicts: pd.DataFrame, links: dict) -> dict[str, Any]:
    """Verdicts, with names of studies as links to where their reports give them."""
    place = Markup('<a href="{0}/index.html#do-the-claims-hold">{1}</a>')

    def leads(name: str) -> Markup | str:
        return place.format(quote(name), name) if isinstance(links[name], Markup) else name

    plain = _plain(verdicts)
    for row in plain["rows"]:
        row[1:] = [Markup(", ").join(map(leads, names)) or "\N{EM DASH}" for names in row[1:]]
    return plain


def _link(kept: Kept, folder: Path) -> Markup | str:
    """A study's name, as a link where its report is kept too."""
    if not (folder / kept.name / "index.html").is_file():
        return kept.name
    return Markup('<a href="{}/index.html">{}</a>').format(quote(kept.name), kept.name)


def _question(one: Question, studies: list[Kept], links: dict) -> dict[str, Any]:
    """A question with its answers, what they rest on, and what has not run."""
    own = [kept for kept in studies if QUESTIONS[_place(kept.name)] is one]
    answers = [
        {
            "link": links[kept.name],
            "title": TITLES.get(kept.name, ""),
            "said": _strong(overview.answer(kept, studies)),
            "rests": overview.rests_on(kept),
            "seeds": overview.seeds(kept),
        }
        for kept in own
        if kept.reported
    ]
    asked = {(asked, here) for kept in own for asked, here in kept.analyse.asked.items()}
    return {
        "title": one.title,
        "words": one.words,
        "together": overview.together(own),
        "answers": answers,
        "unreported": [
            f"{kept.name} ({overview.unreported(kept)})" for kept in own if not kept.reported
        ],
        "waiting": _waiting(one, {kept.name for kept in own}),
        "limits": one.limits,
        "asked": sorted(asked),
        "full": _file(one.full),
    }


def _waiting(one: Question, kept: set[str]) -> list[Markup]:
    """Study files about a question of which nothing is kept."""
    names = {file.stem: file for file in sorted((ROOT / "params").glob("*.yaml"))}
    names.pop("predictions", None)
    return [
        _file(f"params/{file.name}")
        for name, file in names.items()
        if name not in kept and QUESTIONS[_place(name)] is one
    ]


def _file(path: str) -> Markup | str:
    """A file of the project, as a link from the page."""
    return Markup('<a href="../../{0}">{0}</a>').format(path) if path else ""


def _strong(text: str) -> Markup:
    """A sentence's `**words**` as HTML; all else as it is."""
    return Markup(re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", str(escape(text))))


def _study(kept: Kept, link: Markup | str) -> dict[str, Any]:
    """A row about a study: its report, runs and note."""
    runs = kept.made.runs
    of = "" if kept.made.finished == len(runs) else f" of {len(runs):,}"
    return {
        "link": link,
        "title": TITLES.get(kept.name, ""),
        "rests": overview.rests_on(kept),
        "runs": f"{kept.made.finished:,}{of}" if runs else "\N{EM DASH}",
        "seeds": overview.seeds(kept),
        "note": kept.analyse.note,
    }
