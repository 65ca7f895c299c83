"""LAReQA (arXiv 2004.05484): which sentence, in any language, holds the answer to a question?

XQuAD-R is parallel in all of its 11 languages; an MLQA-R question exists in two to four of 7, so a
question's relevant candidates are the sentences of the languages that have its id, and no others.
A file a language: SQuAD JSON whose paragraphs also hold `sentence_breaks`, a list of [begin, end].
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pandas as pd

from lib import store
from lib.benchmark import CANDIDATE_COLUMNS, QUESTION_COLUMNS, Benchmark
from lib.benchmarks import Format
from lib.params import BenchmarkSpec
from lib.sources import downloads, files
from lib.sources.assemble import united
from lib.sources.files import Record
from lib.sources.text import clean, heading

URL = "https://raw.githubusercontent.com/google-research-datasets/lareqa"
# Commit and sha256 of each file. MLQA-R (CC BY-NC 4.0) was taken out of later commits.
COMMITS = {"xquad-r": "9bc8c7f", "mlqa-r": "354d67d1cd066854cdfbf5ad0e6105528976141d"}
SHA256 = {
    "xquad-r": {
        "ar": "c52922d3b8ac1ae03ed5ac38647ad59870dca3dda2beefe18ecdc30729acb69d",
        "de": "16fb0f4bf4916154b585a20c24c66074591c9718a1affe764ff4697572328949",
        "el": "163fd43ee785a30eb534ae2061e9eaa766a7ee4e8ffce5e4b422480c150f64b6",
        "en": "7b0954f39297c27a31fef610f0883337dd2907fa8699151dc922afdd0fa12ffe",
        "es": "f8e836b2d91009c4363e04315f7ede363eedbbb49c67dda60de6c4aa782f58de",
        "hi": "ea45ba8ae4513d1533b222bebdc02a90bc319c055d3aeea68584a053d2e92872",
        "ru": "7f4dff853538b9a5fcc28c070b8bb983a5c5d190ac747b8e005a1ada9cab18f1",
        "th": "c3a041864c3a9fb0b4dd91cfdf99cf36b411b3e704c58a303c97bc6dc786cfe4",
        "tr": "f3e8c13002bbce154a4578f535f7533cb70f3da08840e6b62735935baec7bd94",
        "vi": "e35926bf5cc6fc6ecbdfca49467aabeb454f08d152d7818143a906bd31dde995",
        "zh": "80c2cde7b9c2fb134c303cbb52f2ba396ead9eb0014aec43993543d2ba9e93ed",
    },
    "mlqa-r": {
        "ar": "2132fbc03208535c0fe01f2e2c5121d06f9c2aa799af93b0a719dbc105bdf137",
        "de": "ce9454dc5aa6f2d85c23cd6e49cb367fbb7c4c6e62d7f71e355c6b5dae4d0886",
        "en": "fedd9a5cc0848dda80caf84aa36f482adaae230526a3f6e9e86926a93ef3b1e4",
        "es": "70ecba276b8c96a692b120693a595d076ce94ad21d4b28311538a9fcbfe0f9d7",
        "hi": "4dd0fb3c06f737a5481d705bc1dcac7876712a5815c9265908fbb3a0696cb654",
        "vi": "9d3baff6ba03e6793b25594217265ea59a136b9733833dca8a9582a84a78ff85",
        "zh": "57f01d2fff50cf3392805635b01445339f225ad5bf28ba8443b12f8dbd1e69dc",
    },
}
FORMAT = Format(splits=tuple(SHA256), articles=True)


@dataclass(frozen=True)
class Paragraph:
    """A paragraph in one language.

    article    its number in the file
    title      the article's, as headings are spelled; empty where there is none
    sentences  of its text, in order
    questions  id, text and the number of the sentence that holds the answer (None: it has none, or
               one behind the last)"""

    article: int
    title: str
    context: str
    sentences: list[str]
    questions: list[tuple[str, str, int | None]]


def load_benchmark(name: str, spec: BenchmarkSpec) -> Benchmark:
    """The benchmark of a folder of `<language>.json`, or of spec.split ("xquad-r" where empty) from
    the public repository. spec: folder, split, languages, candidate, clusters.

    Every sentence is a candidate of its own, also where two are the same text; with candidate
    "sentence+paragraph" its text goes on with the whole paragraph, as in XTREME. A question's group
    is its article (or paragraph: spec.clusters) in all languages. Where English is read, whose
    titles are those that training pairs have too, questions have a column `article`. Raises
    ValueError in one line for damaged files, a language without questions, or one that shares no
    question with another."""
    named = _folder(spec.folder, spec.languages) if spec.folder else _public(spec)
    read = {language: list(_paragraphs(file)) for language, file in named.items()}
    _check_parallel(read, named)
    questions, answers = _questions(read, spec.clusters), _answers(read)
    relevant = questions["question_id"].rename_axis("question").reset_index()
    relevant = relevant.merge(answers, on="question_id")
    return Benchmark.from_pairs(
        name,
        questions,
        _candidates(read, spec.candidate),
        relevant["question"],
        relevant["candidate"],
        unused=_unanswered(name, read),
    )


def _unanswered(name: str, read: Mapping[str, list[Paragraph]]) -> dict[str, int]:
    """How many questions no sentence of their own paragraph answers; printed too."""
    answers = [s for paragraphs in read.values() for p in paragraphs for *_, s in p.questions]
    if not (lost := answers.count(None)):
        return {}
    words = "questions whose answer no sentence holds"
    print(f"{name}: {lost:,} {words}", flush=True)
    return {words: lost}


def _folder(folder: str, languages: list[str]) -> dict[str, str]:
    """Code -> file of the languages asked for (none: all of the folder)."""
    path = store.ROOT / folder
    if not path.is_dir():
        raise ValueError(f"{folder}: no such folder (expected one that holds <language>.json)")
    paths = {file.stem: str(Path(folder) / file.name) for file in sorted(path.glob("*.json"))}
    if not paths:
        raise ValueError(f"{folder}: holds no <language>.json")
    try:
        return files.by_language(paths, languages)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None


def look(spec: BenchmarkSpec) -> None:
    """Raises ValueError for what `load_benchmark` would not find in a folder."""
    _folder(spec.folder, spec.languages)


def _public(spec) -> dict[str, str]:
    """Code -> downloaded file of the languages asked for (none: all of the set)."""
    split = spec.split or "xquad-r"
    if split not in SHA256:
        raise ValueError(f"lareqa: split {split!r} is unknown (expected {' or '.join(SHA256)})")
    wanted = files.by_language({language: language for language in SHA256[split]}, spec.languages)
    return {
        language: str(
            downloads.fetch(
                f"{URL}/{COMMITS[split]}/{split}/{language}.json",
                SHA256[split][language],
                f"lareqa/{split}/{language}.json",
            )
        )
        for language in wanted
    }


# --- reading one file --------------------------------------------------------------------------


def _paragraphs(file: str) -> Iterator[Paragraph]:
    """The paragraphs of a file; rows in its errors are running numbers of paragraphs."""
    document, row = files.record(file, 1, files.document(file)), 0
    seen: dict[str, int] = {}
    for number, article in enumerate(document.parts("data")):
        title = heading(str(article.values.get("title") or ""))
        for entry in article.parts("paragraphs"):
            row += 1
            record = Record(file, row, entry.values)
            paragraph = _paragraph(record, number, title)
            for question, *_ in paragraph.questions:
                if question in seen:
                    raise record.fault(f"id {question!r} is already in row {seen[question]}")
                seen[question] = row
            yield paragraph


def _paragraph(record: Record, article: int, title: str) -> Paragraph:
    context, breaks = record.raw("context"), _breaks(record)
    return Paragraph(
        article,
        title,
        clean(context),
        [clean(context[begin:end]) for begin, end in breaks],
        [(q.key("id"), _asked(q), _sentence(q, context, breaks)) for q in record.parts("qas")],
    )


def _asked(question: Record) -> str:
    if not question.text("question"):
        raise question.fault(f"question {question.key('id')!r} is empty (expected text)")
    return question.text("question")


def _breaks(record: Record) -> list[tuple[int, int]]:
    """[begin, end) of each sentence: in order, apart, and inside the text."""
    breaks, before, size = record["sentence_breaks"], 0, len(record.raw("context"))
    if not isinstance(breaks, list) or not breaks:
        raise record.fault("sentence_breaks are not a list of [begin, end]")
    for span in breaks:
        whole = isinstance(span, list) and [type(x) for x in span] == [int, int]
        if not whole or not before <= span[0] < span[1] <= size:
            raise record.fault(
                f"sentence break {span} does not follow {before} inside its text "
                f"({size} characters)"
            )
        before = span[1]
    return [(begin, end) for begin, end in breaks]


def _sentence(question: Record, context: str, breaks: list[tuple[int, int]]) -> int | None:
    """Number of the sentence in which the first answer starts, or which follows where it starts
    with the blank before a sentence; None where there is no answer."""
    answers = question.parts("answers")
    if not answers:
        return None
    start = answers[0]["answer_start"]
    if type(start) is not int or not 0 <= start < len(context):
        raise question.fault(
            f"question {question.key('id')!r}: answer_start {start!r} lies outside its text "
            f"({len(context)} characters)"
        )
    return next((i for i, (_, end) in enumerate(breaks) if start < end), None)


# --- tables ------------------------------------------------------------------------------------


def _check_parallel(read: Mapping[str, list[Paragraph]], named: Mapping[str, str]) -> None:
    ids = {
        language: {q for p in paragraphs for q, *_ in p.questions}
        for language, paragraphs in read.items()
    }
    for language, question_ids in ids.items():
        if not question_ids:
            raise ValueError(f"{named[language]}: has no questions")
        others = set().union(*(other for x, other in ids.items() if x != language))
        if len(ids) > 1 and question_ids.isdisjoint(others):
            raise ValueError(
                f"{named[language]}: shares no question id with the other languages' files"
            )


def _questions(read: Mapping[str, list[Paragraph]], clusters: str) -> pd.DataFrame:
    group = _groups(read, clusters)
    rows = [
        (question, language, text, group[question])
        for language, paragraphs in read.items()
        for paragraph in paragraphs
        for question, text, _ in paragraph.questions
    ]
    table = pd.DataFrame(rows, columns=QUESTION_COLUMNS)
    title = {q: p.title for p in read.get("en", ()) for q, *_ in p.questions}
    return table.assign(article=table["question_id"].map(title).fillna("")) if title else table


def _candidates(read: Mapping[str, list[Paragraph]], form: str) -> pd.DataFrame:
    """A row for each sentence; its id is paragraph/sentence, both counted from 0."""
    whole = form == "sentence+paragraph"
    rows = [
        (f"{p}/{s}", language, f"{text} {paragraph.context}" if whole else text)
        for language, paragraphs in read.items()
        for p, paragraph in enumerate(paragraphs)
        for s, text in enumerate(paragraph.sentences)
    ]
    return pd.DataFrame(rows, columns=CANDIDATE_COLUMNS)


def _answers(read: Mapping[str, list[Paragraph]]) -> pd.DataFrame:
    """question_id and row number of a candidate that answers it."""
    rows, first = [], 0
    for paragraphs in read.values():
        for paragraph in paragraphs:
            rows += [(q, first + s) for q, _, s in paragraph.questions if s is not None]
            first += len(paragraph.sentences)
    return pd.DataFrame(rows, columns=["question_id", "candidate"])


def _groups(read: Mapping[str, list[Paragraph]], clusters: str) -> dict[str, str]:
    """Question id -> name of its article or paragraph: the least id of all questions that one links
    to it in some language (a text that occurs twice is one paragraph)."""
    linked = []
    for paragraphs in read.values():
        first: dict[str | int, str] = {}
        for paragraph in paragraphs:
            links = [paragraph.context] + [paragraph.article] * (clusters == "article")
            for question, link in product([q for q, *_ in paragraph.questions], links):
                linked.append((first.setdefault(link, question), question))
    return united(linked)
