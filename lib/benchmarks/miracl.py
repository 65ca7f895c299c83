"""MIRACL (Zhang et al. 2023, arXiv 2210.09984): Wikipedia passages in 18 languages, each searched
with questions of its own language.

Its collections have up to 32.9 million passages, so this format has no Benchmark that holds them
all: passages are encoded to disk file by file and searched from there (lib.benchmarks.shards). It
is read as the hub's data sets miracl/miracl (topics, qrels) and miracl/miracl-corpus hold it.
Everything is read through and checked before the first passage is encoded.
"""

from __future__ import annotations

import glob
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

from lib import metrics, store
from lib.benchmark import CANDIDATE_COLUMNS, QUESTION_COLUMNS, Benchmark
from lib.benchmarks import Format, Task, shards
from lib.benchmarks.shards import Shard
from lib.languages import language_code
from lib.params import BenchmarkSpec
from lib.search import Ranks
from lib.sources import files
from lib.sources.files import Record, Tally
from lib.sources.text import clean

FORMAT = Format(measures=("ndcg10", "r100"), folder=True, in_memory=False)

LAYOUT = (
    "miracl-v1.0-<lang>/topics/topics.miracl-v1.0-<lang>-{split}.tsv and "
    "miracl-v1.0-<lang>/qrels/qrels.miracl-v1.0-<lang>-{split}.tsv of the hub's data set "
    "miracl/miracl, miracl-corpus-v1.0-<lang>/docs-*.jsonl.gz of miracl/miracl-corpus"
)


@dataclass(frozen=True)
class Files:
    """The files of one language."""

    topics: str
    qrels: str
    docs: list[str]


@dataclass(frozen=True, eq=False)
class Language:
    """One language, checked.

    questions  the columns of Benchmark.questions
    relevant   question (row of `questions`), candidate_id, row (of the collection), grade; a row a
               relevant pair, sorted by question and row
    """

    language: str
    questions: pd.DataFrame
    relevant: pd.DataFrame
    shards: list[Shard]


def evaluate(
    task: Task,
    passages_at_a_time: int = 10_000,
    memory_mib: float = 256,
    say: Callable[[str], None] = print,
) -> pd.DataFrame:
    """Scores a question, in the setting mono: the columns of metrics.question_scores, with
    question_id and group in place of question. Every question is a group of its own.

    task.spec    folder (holds the files of LAYOUT, at any depth), split ("": dev), languages ([]:
                 all of the folder)
    task.encode  encodes a passage as its title, a blank, and its text
    task.index   takes the vectors, 2 d bytes a passage; given again, encoding goes on where it
                 ended, and vectors of another encoder are made again
    passages_at_a_time, memory_mib  bound the memory of encoding, and of search and checks
    Passages judged irrelevant count as all others do. Questions without a relevant passage have no
    row and are reported by `say`. Raises ValueError in one line that names file and row."""
    parts = [
        _language(language, paths, task, memory_mib, say)
        for language, paths in _layout(task.spec, say).items()
    ]
    ranks = []
    for part in parts:
        total = len(part.questions)
        if rest := total - part.relevant["question"].nunique():
            name = f"{task.name} {part.language}"
            say(f"{name}: {rest} of {total} questions have no relevant passage")
        passages = partial(task.encode, kind="passage")
        shards.encode(part.shards, _passages, passages, task.encoder, passages_at_a_time, say)
        questions = task.encode(part.questions["text"].tolist(), "question")
        ranks.append(_ranks(part, questions, memory_mib))
    return _scores(_benchmark(task.name, parts), np.concatenate(ranks))


def _ranks(part: Language, questions: np.ndarray, memory_mib: float) -> np.ndarray:
    """float64 [N]: mid-rank of each relevant pair in its language's collection."""
    pairs = part.relevant["question"].to_numpy(), part.relevant["row"].to_numpy()
    return shards.relevant_ranks(questions, part.shards, *pairs, memory_mib)


def _benchmark(name: str, parts: list[Language]) -> Benchmark:
    """Questions, and as candidates the relevant passages alone, without their texts."""
    questions, candidates, question, candidate, grade = [], [], [], [], []
    for part in parts:
        known = part.relevant.drop_duplicates("row").sort_values("row")
        question.append(part.relevant["question"].to_numpy() + sum(map(len, questions)))
        place = np.searchsorted(known["row"], part.relevant["row"])
        candidate.append(place + sum(map(len, candidates)))
        grade.append(part.relevant["grade"])
        questions.append(part.questions)
        candidates.append(known.assign(language=part.language, text="")[list(CANDIDATE_COLUMNS)])
    return Benchmark(
        name,
        pd.concat(questions, ignore_index=True),
        pd.concat(candidates, ignore_index=True),
        np.concatenate(question).astype(np.int32),
        np.concatenate(candidate).astype(np.int32),
        np.concatenate(grade).astype(np.float32),
    )


def _scores(benchmark: Benchmark, rank: np.ndarray) -> pd.DataFrame:
    """Rows of mono; ranks in other pools are not known, so the other settings are left out."""
    unused = np.empty((len(benchmark.questions), 0), np.float32)
    ranks = Ranks(own=rank, pool=rank, alone=rank, tied=np.ones(len(rank)), top10=unused)
    scores = metrics.question_scores(benchmark, ranks)
    scores = scores[scores["setting"] == "mono"].reset_index(drop=True)
    questions = benchmark.questions[["question_id", "group"]].astype("category")
    questions = questions.iloc[scores.pop("question").to_numpy()].reset_index(drop=True)
    return pd.concat([scores, questions], axis=1)


# --- which files -------------------------------------------------------------------------------


def look(spec: BenchmarkSpec) -> None:
    """Raises ValueError for what `evaluate` would not find."""
    _layout(spec, say=lambda _: None)


def _layout(spec, say: Callable[[str], None] = print) -> dict[str, Files]:
    """Code -> files of the languages asked for (none: all that have topics), sorted."""
    split = spec.split or "dev"
    layout = LAYOUT.format(split=split)
    if not spec.folder:
        raise ValueError(f"miracl: folder is empty; put into one folder, and name it: {layout}")
    if not (store.ROOT / spec.folder).is_dir():
        raise ValueError(f"{spec.folder}: no such folder (expected one that holds {layout})")
    paths = _paths(spec.folder, split)
    if not paths["topics"]:
        raise ValueError(f"{spec.folder}: holds no topics of split {split} (expected {layout})")
    others = () if spec.languages else paths["docs"].keys() - paths["topics"].keys()
    for code in sorted(others):
        say(f"{spec.folder}: {code} has documents but no topics of split {split}; left out")
    try:
        wanted = files.by_language({code: code for code in paths["topics"]}, spec.languages)
        return {
            code: Files(
                _single(paths["topics"][code], f"topics.miracl-v1.0-{code}-{split}.tsv"),
                _single(paths["qrels"][code], f"qrels.miracl-v1.0-{code}-{split}.tsv"),
                _docs(paths["docs"][code], code),
            )
            for code in wanted
        }
    except ValueError as error:
        raise ValueError(f"{spec.folder}: {error}") from None


def _paths(folder: str, split: str) -> Mapping[str, Mapping[str, list[str]]]:
    """topics, qrels, docs -> language -> files at any depth, as messages show them."""
    table = rf"{{}}\.miracl-v1\.0-([a-z]+)-{re.escape(split)}\.tsv"
    patterns = {
        "topics": table.format("topics"),
        "qrels": table.format("qrels"),
        "docs": r"miracl-corpus-v1\.0-([a-z]+)/docs-\d+\.jsonl(?:\.gz)?",
    }
    root, paths = store.ROOT / folder, {kind: defaultdict(list) for kind in patterns}
    for path in sorted(glob.iglob("**/*.*", root_dir=root, recursive=True)):
        for kind, pattern in patterns.items():
            if match := re.search(rf"/{pattern}$", (root / path).as_posix()):
                paths[kind][language_code(match[1])].append(str(Path(folder) / path))
    return paths


def _single(paths: list[str], name: str) -> str:
    if not paths:
        raise ValueError(f"holds no {name}")
    if len(paths) > 1:
        raise ValueError(f"{paths[0]} and {paths[1]} are both {name}")
    return paths[0]


def _docs(paths: list[str], code: str) -> list[str]:
    """The files of a collection by number; they must count 0, 1, ... without a gap."""
    number = {path: int(re.search(r"docs-(\d+)\.jsonl", path)[1]) for path in paths}
    for place in range(max(len(paths), 1)):
        matches = [path for path in paths if number[path] == place]
        _single(matches, f"miracl-corpus-v1.0-{code}/docs-{place}.jsonl.gz")
    return sorted(paths, key=number.get)


# --- what is in them ---------------------------------------------------------------------------


def _language(
    language: str, paths: Files, task: Task, memory_mib: float, say: Callable[[str], None]
) -> Language:
    """A language read and checked; ids of its collection are written below
    task.index."""
    topics, tally = _topics(paths.topics), Tally()
    number = {question: place for place, question in enumerate(topics)}
    judged = list(_judgements(paths.qrels, number, tally))
    collection = shards.index(paths.docs, _passages, Path(task.index) / language, task.sha256)
    _check_unique(collection, memory_mib)
    rows = shards.find(collection, {passage for _, _, passage, _ in judged})
    relevant = []
    for row, question, passage, grade in judged:
        if passage not in rows:
            tally.add("judgements of passages that no file holds", f"{paths.qrels}: row {row}")
        elif grade > 0:
            relevant.append((number[question], passage, rows[passage], float(grade)))
    tally.tell(language, say)
    if not relevant:
        raise ValueError(f"{paths.qrels}: no question has a relevant passage")
    relevant = pd.DataFrame(relevant, columns=["question", "candidate_id", "row", "grade"])
    relevant = relevant.sort_values(["question", "row"], ignore_index=True)
    questions = [(q, language, text, f"{language}:{q}") for q, text in topics.items()]
    questions = pd.DataFrame(questions, columns=QUESTION_COLUMNS)
    for place in relevant["question"][(questions["text"] == "")[relevant["question"]].to_numpy()]:
        raise ValueError(f"{paths.topics}: row {place + 1}: is empty (a passage is relevant)")
    return Language(language, questions, relevant, collection)


def _topics(file: str) -> dict[str, str]:
    """Question id -> text (cleaned, to tell which are empty), in the file's order, a line each."""
    topics: dict[str, str] = {}
    for row, line in files.lines(file):
        fields = [clean(field) for field in line.split("\t")]
        if len(fields) != 2 or not fields[0]:
            raise ValueError(f"{file}: row {row}: is not an id, a tab and a question")
        if fields[0] in topics:
            raise ValueError(f"{file}: row {row}: question {fields[0]!r} is given twice")
        topics[fields[0]] = fields[1]
    return topics


def _judgements(
    file: str, topics: Mapping[str, int], tally: Tally
) -> Iterator[tuple[int, str, str, int]]:
    """(row, question, passage, grade) of each pair of a TREC file; a grade above 0 is relevant.
    Those of questions that the topics lack are counted."""
    seen: dict[tuple[str, str], int] = {}
    for row, line in files.lines(file):
        fields = clean(line).split()
        if len(fields) != 4 or not re.fullmatch(r"-?\d+", fields[3]):
            raise ValueError(f"{file}: row {row}: is not question, Q0, passage and a whole number")
        question, _, passage, grade = fields[0], fields[1], fields[2], int(fields[3])
        if question not in topics:
            tally.add("judgements of questions that are not there", f"{file}: row {row}")
        elif (question, passage) not in seen:
            yield row, question, passage, grade
        if seen.setdefault((question, passage), grade) != grade:
            raise ValueError(
                f"{file}: row {row}: judges {passage!r} for {question!r} otherwise "
                "than an earlier row"
            )


def _passages(file: str) -> Iterator[tuple[str, str]]:
    """(id, title and text) of the passages of a file."""
    for record in files.records(file):
        yield _id(record), f"{record.text('title')} {record.text('text')}".strip()


def _id(record: Record) -> str:
    name = record.key("docid")
    if name.split() != [name]:  # qrels could not name it
        raise record.fault(f"docid {name!r} holds white space")
    return name


def _check_unique(collection: list[Shard], memory_mib: float) -> None:
    name = shards.repeated(collection, memory_mib)
    if name is not None:
        records = (record for shard in collection for record in files.records(shard.file))
        first, again = islice((record for record in records if _id(record) == name), 2)
        raise again.fault(f"docid {name!r} is already in {first.file}, row {first.row}")
