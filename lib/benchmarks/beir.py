"""BEIR-format sets: corpus.jsonl, queries.jsonl and qrels/<split>.tsv in one folder, plain or .gz.

Most public retrieval sets are published in, or converted to, this format. Its multilingual kin are
one such folder a language. Whether these are translations of one set or sets of their own is not
written anywhere, and only translations have relevant documents in other languages; so the files
decide: where every language has the same question ids, document ids and judgements, a document is
relevant in all languages, and otherwise only for the questions of its own folder.

Published BEIR figures leave a document out of the list of a question with the same id (ArguAna and
Quora ask with documents of their own corpus). The pool here is the same for every question, so on
those two sets figures differ; how many questions are concerned is printed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from lib import store
from lib.benchmark import Benchmark
from lib.benchmarks import Format
from lib.params import BenchmarkSpec
from lib.sources import files
from lib.sources.files import Record, Tally

FORMAT = Format(measures=("ndcg10", "r100"), folder=True)

SPLIT = "test"
COLUMNS = ("query-id", "corpus-id", "score")


def load_benchmark(name: str, spec: BenchmarkSpec) -> Benchmark:
    """The benchmark of one folder, or of its subfolders named by language codes.

    spec.folder     relative to the project's root
    spec.languages  one code: of the folder, or its subfolder (default en); several, or a folder
                    without a corpus of its own: subfolders (none named: all)
    spec.split      "" is test
    Questions without a relevant document are left out, their number printed. Grades above 0 are
    gains. Published files are imperfect: what of them is of no use is counted, printed and kept as
    `unused`. Raises ValueError naming file and row."""
    folders, split = _folders(spec.folder, spec.languages), spec.split or SPLIT
    tally = Tally()
    parts = {x: read(folder, x, split, tally) for x, folder in folders.items()}
    tally.tell(name)
    questions, candidates, judged = (
        pd.concat(tables, ignore_index=True) for tables in zip(*parts.values(), strict=True)
    )
    where = f"{spec.folder}: split {split}"
    if len(parts) > 1:
        parallel = _is_parallel(list(parts.values()))
        if parallel:
            judged = judged.drop(columns="language").drop_duplicates()
        else:
            questions["group"] = questions["language"] + ":" + questions["group"]
        reach = "in every language" if parallel else "in its own language only"
        print(f"{name}: {len(parts)} languages, a document is relevant {reach}")
    benchmark = joined(name, questions, candidates, judged, where, tally)
    _tell_identical(benchmark)
    return benchmark


def look(spec: BenchmarkSpec) -> None:
    """Raises ValueError for what `load_benchmark` would not find."""
    for folder in _folders(spec.folder, spec.languages, say=lambda _: None).values():
        for name in ("corpus.jsonl", "queries.jsonl", f"qrels/{spec.split or SPLIT}.tsv"):
            existing(folder, name)


def read(
    folder: str, language: str, split: str, tally: Tally
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Questions, candidates (as in Benchmark) and judgements (as in `joined`) of one folder."""
    documents = texts(existing(folder, "corpus.jsonl"), "_id", titled, tally, "documents")
    asked = existing(folder, "queries.jsonl")
    queries = texts(asked, "_id", lambda record: record.text("text"), tally, "questions")
    judged = judgements(existing(folder, f"qrels/{split}.tsv"), COLUMNS, queries, documents, tally)
    _check_asked(asked, queries, judged)
    questions = table("question_id", queries, language)
    return (
        questions.assign(group=questions["question_id"]),
        table("candidate_id", documents, language),
        judged.assign(language=language),
    )


def _check_asked(file: str, queries: dict[str, str], judged: pd.DataFrame) -> None:
    """Raises ValueError naming the row of a question without text that has a relevant document."""
    answered = judged.loc[judged["grade"] > 0, "question_id"]
    if unasked := {key for key in answered if not queries[key]}:
        record = next(x for x in rows(file) if x.key("_id") in unasked)
        raise record.fault("text is empty (expected text: a document is relevant)")


def _folders(
    folder: str, languages: list[str], say: Callable[[str], None] = print
) -> dict[str, str]:
    """Language code -> folder that holds its set."""
    if not folder:
        raise ValueError("folder: is empty; BEIR sets are not downloaded (expected their folder)")
    root = store.ROOT / folder
    if not root.is_dir():
        raise ValueError(f"{folder}: no such folder")
    if len(languages) < 2 and _has_corpus(root):
        return files.by_language({(languages or ["en"])[0]: folder}, ())
    folders = {x.name: str(Path(folder) / x.name) for x in sorted(root.iterdir()) if x.is_dir()}
    for name in [name for name in folders if not _has_corpus(root / name)]:
        say(f"{folders.pop(name)}: holds no corpus.jsonl and is left out")
    if not folders:
        raise ValueError(
            f"{folder}: holds neither corpus.jsonl nor folders named by language that do"
        )
    try:
        return files.by_language(folders, languages)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None


def _has_corpus(folder: Path) -> bool:
    return any((folder / f"corpus.jsonl{packed}").exists() for packed in ("", ".gz"))


def _is_parallel(parts: list[tuple]) -> bool:
    """Whether all languages have the same question ids, document ids and judgements."""

    def names(questions, candidates, judged):
        flat = judged[["question_id", "candidate_id", "grade"]].itertuples(index=False, name=None)
        return set(questions["question_id"]), set(candidates["candidate_id"]), set(flat)

    first = names(*parts[0])
    return all(names(*part) == first for part in parts[1:])


def _tell_identical(benchmark: Benchmark) -> None:
    questions, pool = (
        pd.MultiIndex.from_frame(table[[column, "language"]])
        for table, column in (
            (benchmark.questions, "question_id"),
            (benchmark.candidates, "candidate_id"),
        )
    )
    if same := questions.isin(pool).sum():
        print(
            f"{benchmark.name}: {same:,} questions have the id of a document, which published "
            "BEIR figures leave out of their lists and these do not"
        )


# --- judged texts, also in other formats -------------------------------------------------------


def existing(folder: str, name: str) -> str:
    """The file `name` of a folder, or the same with .gz. Raises ValueError if there is neither."""
    for file in (str(Path(folder) / name), str(Path(folder) / f"{name}.gz")):
        if (store.ROOT / file).is_file():
            return file
    raise ValueError(f"{Path(folder) / name}: no such file (nor with .gz)")


def rows(file: str) -> Iterator[Record]:
    """The records of a file, at least one. Raises ValueError naming file and row."""
    record = None
    for record in files.records(file):
        yield record
    if record is None:
        raise ValueError(f"{file}: has no rows")


def texts(
    file: str, column: str, text: Callable[[Record], str], tally: Tally, what: str
) -> dict[str, str]:
    """id -> text of every row, in the file's order; `column` holds the id.

    tally  hears of rows given twice, and of `what` (documents, questions) without text
    Raises ValueError naming file and row, also for one id with two texts."""
    entries: dict[str, str] = {}
    for record in rows(file):
        key, value = record.key(column), text(record)
        if key in entries:
            tally.add(f"{what} given twice", record.place)
        elif not value:
            tally.add(f"{what} without text", record.place)
        if entries.setdefault(key, value) != value:
            raise record.fault(f"{column} {key!r} was in an earlier row already, with another text")
    return entries


def titled(record: Record) -> str:
    """Title (where there is one), a blank, and text: BEIR's own form of a document.

    Either may be empty, and both: published pools hold such documents, and ranks count them."""
    title = record.text("title") if "title" in record.values else ""
    return f"{title} {record.text('text')}".strip()


def table(column: str, texts: dict[str, str], language: str | list[str]) -> pd.DataFrame:
    """The columns `column` (the ids), language (one for all, or one each) and text."""
    return pd.DataFrame({column: texts.keys(), "language": language, "text": texts.values()})


def judgements(
    file: str,
    columns: tuple[str, str, str],
    questions: Container[str],
    candidates: Container[str],
    tally: Tally,
) -> pd.DataFrame:
    """Columns question_id, candidate_id, grade (float64) of a table of judgements.

    columns                the file's own names of the three
    questions, candidates  the known ids; tally hears of judgements that name others
    Raises ValueError naming file and row for two grades of one pair."""
    grades: dict[tuple[str, str], float] = {}
    for record in rows(file):
        pair = record.key(columns[0]), record.key(columns[1])
        grade = _grade(record, columns[2])
        if pair[0] not in questions or pair[1] not in candidates:
            lacking = "questions" if pair[0] not in questions else "documents"
            tally.add(f"judgements of {lacking} that are not there", record.place)
            continue
        if grades.setdefault(pair, grade) != grade:
            raise record.fault(
                f"{columns[2]} {grade:g} of {pair[0]!r} and {pair[1]!r} was {grades[pair]:g} in an "
                "earlier row"
            )
    flat = [(*pair, grade) for pair, grade in grades.items()]
    return pd.DataFrame(flat, columns=["question_id", "candidate_id", "grade"])


def _grade(record: Record, column: str) -> float:
    value = record[column]
    try:
        grade = float(value)
    except (TypeError, ValueError):
        grade = math.nan
    if not math.isfinite(grade):
        raise record.fault(f"{column} is {value!r} (expected a number)")
    return grade


def joined(
    name: str,
    questions: pd.DataFrame,
    candidates: pd.DataFrame,
    judged: pd.DataFrame,
    where: str,
    tally: Tally,
) -> Benchmark:
    """The Benchmark of judged questions and candidates.

    questions   as in Benchmark; those without a relevant candidate are left out and counted
    candidates  as in Benchmark
    judged      question_id, candidate_id, grade: relevant, where above 0, in every language that
                has the two; with a further column `language`: in that language only
    where       what messages call the judgements
    tally       what of the files was of no use
    Raises ValueError for a language none of whose questions has a relevant candidate."""
    keys = [column for column in ("language",) if column in judged]
    relevant = judged[judged["grade"] > 0]
    for side, texts_of in ("question", questions), ("candidate", candidates):
        columns = [f"{side}_id", *keys]
        relevant = relevant.merge(texts_of[columns].rename_axis(side).reset_index(), on=columns)
    answered = questions.index.isin(relevant["question"])
    for language in sorted({*questions["language"]} - {*questions["language"][answered]}):
        raise ValueError(f"{where}: no question of language {language} has a relevant document")
    if not answered.all():
        _tell_left_out(f"{name}: {{}} ({where})", questions, judged, answered, keys)
    place = pd.Series(range(answered.sum()), questions.index[answered])
    return Benchmark.from_pairs(
        name,
        questions[answered].reset_index(drop=True),
        candidates,
        place[relevant["question"]],
        relevant["candidate"],
        relevant["grade"],
        tally.counts,
    )


def _tell_left_out(
    line: str, questions: pd.DataFrame, judged: pd.DataFrame, answered: np.ndarray, keys: list[str]
) -> None:
    """Print how many questions have no relevant document, and why."""
    columns = ["question_id", *keys]
    known = pd.MultiIndex.from_frame(questions[columns]).isin(
        pd.MultiIndex.from_frame(judged[columns])
    )
    print(
        line.format(
            f"{answered.sum():,} questions; left out: {(~known).sum():,} not judged, "
            f"{(known & ~answered).sum():,} judged without a relevant document"
        )
    )
