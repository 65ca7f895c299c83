"""Questions in many languages over one collection of passages, as MKQA over English Wikipedia.

The setting of a search engine whose index is in English: only questions change their language.
Translations of a question share its id, and judgements name ids, so a passage is relevant for the
question in every language. `mono` then means questions in the collection's language, `cross` those
in the others, and `multi` ranks the same pool.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd

from lib import store
from lib.benchmark import Benchmark
from lib.benchmarks import Format
from lib.benchmarks.beir import existing, joined, judgements, rows, table, texts, titled
from lib.languages import language_code
from lib.params import BenchmarkSpec
from lib.sources import files
from lib.sources.files import Record, Tally

FORMAT = Format(folder=True, one_pool=True)

QUESTION_FILE = re.compile(r"(mkqa|questions(\.(?P<language>[\w-]+))?)\.jsonl(\.gz)?")
COLUMNS = ("question_id", "passage_id", "grade")


def load_benchmark(name: str, spec: BenchmarkSpec) -> Benchmark:
    """The benchmark of a folder (spec.folder, relative to the project's root), files plain or .gz:

    questions.jsonl             id, language, question; or one
    questions.<language>.jsonl  a language: id, question; or MKQA's own file
    mkqa.jsonl                  (see `from_mkqa`)
    passages.jsonl              id, text; optional: title, language (en)
    qrels.tsv                   question_id, passage_id, grade; relevant above 0

    spec.languages: of the questions kept, [] is all. Raises ValueError naming file and row."""
    paths = _question_files(spec.folder)
    passages, qrels = existing(spec.folder, "passages.jsonl"), existing(spec.folder, "qrels.tsv")
    if Path(paths[0]).name.startswith("mkqa"):
        return from_mkqa(name, paths[0], passages, qrels, spec.languages)
    questions = (question for file in paths for question in _questions(file))
    return _build(name, questions, passages, qrels, spec.languages)


def look(spec: BenchmarkSpec) -> None:
    """Raises ValueError for what `load_benchmark` would not find."""
    _question_files(spec.folder)
    for name in ("passages.jsonl", "qrels.tsv"):
        existing(spec.folder, name)


def from_mkqa(
    name: str, mkqa: str, passages: str, qrels: str, languages: Iterable[str] = ()
) -> Benchmark:
    """The benchmark of MKQA's published file (a line a question: example_id, queries {language:
    text}) over a collection of one's own: MKQA has answers, which are not read, but no passages.

    passages, qrels  as in `load_benchmark`; qrels name example_ids
    Raises ValueError naming file and row."""
    return _build(name, _mkqa_questions(mkqa), passages, qrels, languages)


def _build(name: str, records: Iterable[tuple], passages: str, qrels: str, languages) -> Benchmark:
    """records: (record, column of the text, id, language) of every question, also of languages not
    wanted, since judgements may name them."""
    tally = Tally()
    candidates, (questions, empty) = _passages(passages, tally), _by_key(records, tally)
    ids = {*questions["question_id"]}, {*candidates["candidate_id"]}
    judged = judgements(qrels, COLUMNS, *ids, tally)
    tally.tell(name)
    present = {*questions["language"]}
    wanted = {*map(language_code, languages)} or present
    for language in sorted(wanted - present):
        have = " ".join(sorted(present))
        raise ValueError(f"{name}: has no questions of language {language} (there are: {have})")
    kept = questions[questions["language"].isin(wanted)].reset_index(drop=True)
    answered = {*judged.loc[judged["grade"] > 0, "question_id"]}
    for (question, language), (record, column) in empty.items():
        if question in answered and language in wanted:
            raise record.fault(f"{column} is empty (expected text: a passage is relevant)")
    return joined(name, kept, candidates, judged, qrels, tally)


def _question_files(folder: str) -> list[str]:
    """The files that hold the questions of a folder, in one of the three forms."""
    if not folder:
        raise ValueError("folder: is empty; collections are not downloaded (expected a folder)")
    root = store.ROOT / folder
    if not root.is_dir():
        raise ValueError(f"{folder}: no such folder")
    matches = [m for x in sorted(root.iterdir()) if (m := QUESTION_FILE.fullmatch(x.name))]
    forms = {bool(match["language"]) or match[0] for match in matches}
    if len(forms) != 1:
        names = " ".join(match[0] for match in matches) or "none"
        raise ValueError(
            f"{folder}: holds {names} (expected questions.jsonl, questions.<language>.jsonl or "
            "mkqa.jsonl, one of the three)"
        )
    return [str(Path(folder) / match[0]) for match in matches]


def _questions(file: str) -> Iterator[tuple[Record, str, str, str]]:
    language = QUESTION_FILE.fullmatch(Path(file).name)["language"]
    for record in rows(file):
        spoken = _language(record, language or record.text("language"))
        yield record, "question", record.key("id"), spoken


def _mkqa_questions(file: str) -> Iterator[tuple[Record, str, str, str]]:
    for record in rows(file):
        queries = files.record(file, record.row, record["queries"])
        for language in queries.values:
            spoken = _language(record, language)
            yield queries, language, record.key("example_id"), spoken


def _passages(file: str, tally: Tally) -> pd.DataFrame:
    languages: dict[str, str] = {}

    def text(record: Record) -> str:
        name = record.text("language") if "language" in record.values else ""
        key, spoken = record.key("id"), _language(record, name or "en")
        if languages.setdefault(key, spoken) != spoken:
            raise record.fault(f"id {key!r} was in {languages[key]} in an earlier row already")
        return titled(record)

    entries = texts(file, "id", text, tally, "passages")
    return table("candidate_id", entries, list(languages.values()))


def _language(record: Record, name: str) -> str:
    try:
        return language_code(name)
    except ValueError as error:
        raise record.fault(str(error)) from None


def _by_key(
    records: Iterable[tuple[Record, str, str, str]], tally: Tally
) -> tuple[pd.DataFrame, dict[tuple[str, str], tuple[Record, str]]]:
    """Columns question_id, language, text, group of questions (record, column, id, language), and
    where those without text stand: (id, language) -> (record, column).

    Raises ValueError for an id that a language has twice."""
    texts, empty = {}, {}
    for record, column, key, language in records:
        if (key, language) in texts:
            raise record.fault(f"id {key!r} in {language} was in an earlier row already")
        texts[key, language] = record.text(column)
        if not texts[key, language]:
            empty[key, language] = record, column
            tally.add("questions without text", record.place)
    questions = pd.DataFrame(texts.keys(), columns=["question_id", "language"])
    return questions.assign(text=texts.values(), group=questions["question_id"]), empty
