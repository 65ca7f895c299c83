"""mMARCO: MS MARCO's training questions and passages, translated into 13 languages by machine.

Raw TSV files of the hub repository `unicamp-dl/mmarco` (Bonifacio et al., arXiv 2108.13897; it
calls Dutch "dt", its files `dutch`, the project `nl`), parallel by the ids of MS MARCO: questions,
one collection of 8.8 million passages (2.7 to 7.7 GB) a language, and 39.8 million triples
(question, relevant passage, irrelevant passage).

Full size is larger than memory, so each file is streamed once, the triples and the texts that they
need go to a DuckDB file, and DuckDB joins and sorts them within MEMORY, on the disk. It does not
read the files itself: its reader ends rows at a lone carriage return too and skips empty lines.

A pair is a question with its first relevant passage. Questions that share a relevant passage,
directly or through others, are one group, so that no question ever meets another passage of its
own as a negative. Explicit negatives are mostly nobody's positive: they become rows without a
question (see lib.corpus.ParallelCorpus).
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from heapq import merge
from itertools import islice
from operator import itemgetter
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from lib import store
from lib.corpus import ParallelCorpus
from lib.params import Prepare
from lib.sources import Source, check_keep, files
from lib.sources.assemble import corpus_of_sorted
from lib.sources.text import clean, number, share, sift

SOURCE = Source(folder=True, scratch=True)

REPOSITORY, REVISION = "unicamp-dl/mmarco", "6d039c4638c0ba3e46a9cb7b498b145e7edc6230"
LICENCE = "mMARCO: Apache-2.0; MS MARCO: research only, not commercial"
NAMES = {
    "ar": "arabic", "de": "german", "en": "english", "es": "spanish", "fr": "french",
    "hi": "hindi", "id": "indonesian", "it": "italian", "ja": "japanese", "nl": "dutch",
    "pt": "portuguese", "ru": "russian", "vi": "vietnamese", "zh": "chinese",
}  # fmt: skip
TRIPLES = "data/triples.train.ids.small.tsv"
QUESTIONS = "data/google/queries/train/{}_queries.train.tsv"
COLLECTION = "data/google/collections/{}_collection.tsv"
BLOCK = 5000  # rows that pass between DuckDB and Python at once
MEMORY = "192MB"  # of DuckDB: room for one language of full size
PART = 1_250_000  # triples, about, whose negatives are found at once: so many fit in MEMORY

TABLES = """
CREATE TABLE triples (question INTEGER, relevant INTEGER, irrelevant INTEGER);
CREATE TABLE question_texts (
    language VARCHAR, id INTEGER, text VARCHAR, chars INTEGER, mark BIGINT);
CREATE TABLE passage_texts (
    language VARCHAR, id INTEGER, text VARCHAR, chars INTEGER, mark BIGINT);
CREATE TABLE negatives (id INTEGER, passage INTEGER, rank INTEGER);
CREATE TABLE clean (id INTEGER, language VARCHAR, chosen BOOLEAN);
CREATE TABLE sifted (
    id INTEGER, language VARCHAR, tested BOOLEAN, chosen BOOLEAN, enough BOOLEAN);
"""
# A triple's rowid is its place in the file, from 0.
RELEVANT = """
CREATE TABLE relevant AS
SELECT question, relevant AS passage, min(rowid) AS place FROM triples GROUP BY ALL
"""
GROUPS = """
CREATE TABLE groups AS
SELECT passage, name, number(name::VARCHAR, $folds) = $fold AS tested FROM group_names
"""
CHOSEN = """
CREATE TABLE questions AS
WITH first AS (
    SELECT question AS id, arg_min(passage, place) AS passage FROM relevant GROUP BY question
    ORDER BY share('question ' || id), id LIMIT $limit)
SELECT id, passage, name, tested FROM first JOIN groups USING (passage)
"""
# No trained question gets a passage that a held-out one is tested on.
NEGATIVES = """
INSERT INTO negatives
WITH usable AS (
    SELECT id, irrelevant AS passage, min(triples.rowid) AS place
    FROM triples JOIN questions ON id = question LEFT JOIN groups ON groups.passage = irrelevant
    WHERE question % $parts = $part AND coalesce(groups.name, irrelevant) <> questions.name
        AND (questions.tested OR NOT coalesce(groups.tested, false))
    GROUP BY ALL)
SELECT id, passage, row_number() OVER (PARTITION BY id ORDER BY place) AS rank
FROM usable QUALIFY rank <= $most
"""
PASSAGES = """
CREATE TABLE passages AS
SELECT id, coalesce(name, id) AS name
FROM (SELECT passage AS id FROM questions UNION SELECT passage FROM negatives)
LEFT JOIN groups ON passage = id
"""
# Texts that are passages of two groups: which of them is meant, no encoder can tell.
TWINS = """
CREATE OR REPLACE TABLE twins AS
SELECT mark FROM passage_texts JOIN passages USING (id) WHERE language = $code
GROUP BY mark HAVING min(name) <> max(name)
"""
PAIRS = """
SELECT questions.id AS pair, language, question_texts.text AS question,
    passage_texts.text AS passage, english.text AS english,
    passage_texts.mark IN (FROM twins) AS twin
FROM questions JOIN question_texts USING (id) JOIN passage_texts USING (language)
LEFT JOIN question_texts AS english ON english.id = questions.id AND english.language = 'en'
WHERE passage_texts.id = questions.passage AND language = $code
"""
# A trained question needs all its negatives, to be shown. None says what its answer says.
SIFTED = """
INSERT INTO sifted
WITH good AS (
    SELECT questions.id, count(*) AS times
    FROM negatives JOIN questions USING (id)
    JOIN passage_texts AS negative ON negative.id = negatives.passage
    WHERE negative.language = $code AND negative.chars BETWEEN 1 AND $chars
    GROUP BY ALL)
SELECT id, language, tested, tested OR chosen, tested OR coalesce(times, 0) = $most
FROM clean JOIN questions USING (id) LEFT JOIN good USING (id) WHERE language = $code
"""
FEW = "SELECT language, count(*) FROM sifted WHERE NOT enough GROUP BY language"
SHARED = """
WITH trained AS (SELECT id, language FROM sifted WHERE enough AND chosen AND NOT tested)
SELECT language, max(times) FROM trained
JOIN (SELECT id, count(*) AS times FROM trained GROUP BY id) USING (id) GROUP BY language
"""
VIEWS = """
CREATE VIEW kept AS SELECT id, language, tested FROM sifted WHERE enough AND chosen;
CREATE VIEW pairs AS
SELECT kept.tested, kept.id::VARCHAR AS pair, language, question_texts.text AS question,
    passage_texts.text AS passage, passage_texts.id::VARCHAR AS passage_id,
    name::VARCHAR AS "group", 'mmarco' AS source
FROM kept JOIN questions USING (id) JOIN question_texts USING (id, language)
JOIN passage_texts USING (language)
WHERE passage_texts.id = questions.passage;
CREATE VIEW alone AS
SELECT 'passage ' || id || ' ' || language AS pair, language, '' AS question, text AS passage,
    id::VARCHAR AS passage_id, name::VARCHAR AS "group", 'mmarco' AS source
FROM (
    SELECT DISTINCT passage AS id, language
    FROM kept JOIN negatives USING (id) WHERE NOT tested
) JOIN passage_texts USING (id, language) JOIN passages USING (id);
"""
PAIRS_OF = """
SELECT * EXCLUDE (tested) FROM pairs WHERE language = $code AND tested = $tested ORDER BY pair
"""
ALONE = "SELECT * FROM alone WHERE language = $code ORDER BY pair"
# What held-out questions are answered by, and of the other passages the same in every language.
POOL = """
WITH answers AS (
    SELECT DISTINCT passage AS id FROM questions SEMI JOIN kept USING (id) WHERE tested),
others AS (
    SELECT id FROM passages ANTI JOIN answers USING (id)
    WHERE EXISTS (FROM answers) ORDER BY share('pool ' || id), id LIMIT $most)
SELECT id::VARCHAR AS passage_id, language, text AS passage
FROM passage_texts SEMI JOIN (FROM answers UNION ALL FROM others) USING (id)
WHERE language = $code AND chars BETWEEN 1 AND $chars
ORDER BY passage_id
"""


def build_corpus(p: Prepare, scratch: Path) -> ParallelCorpus:
    """The corpus of one fold. p: folder ("": from the hub), languages, limit,
    hard_negatives (H: every training row has so many in its language), pool (distractors a
    language; 0: all passages), max_chars, keep, fold, folds. scratch: for DuckDB's file, and for
    the corpus' tables until it is saved.

    Raises ValueError naming file and row, OSError where DuckDB's memory or the disk is full."""
    paths = Paths.find(p)
    place = scratch / "tables"
    place.mkdir()
    try:
        with tempfile.TemporaryDirectory(dir=scratch) as temporary, database(temporary) as db:
            choose(db, paths.triples, p)
            absent = _read(db, paths)
            corpus = _corpus(db, p, paths, place)
            corpus.meta["unused"] = dict(absent.counts)
            return corpus
    except duckdb.Error as error:
        raise OSError(f"mmarco: {str(error).splitlines()[0]}") from None


def _corpus(db, p, paths: Paths, place: Path) -> ParallelCorpus:
    dropped = _sift(db, p, paths.collections)
    _require_parallel(db, paths.collections, dropped)
    inputs = {"triples": paths.triples}
    inputs |= {f"questions {code}": file for code, file in paths.questions.items()}
    inputs |= {f"collection {code}": file for code, file in paths.collections.items()}
    version = files._version(inputs)
    if not p.folder:
        version["version"] = f"{REPOSITORY} at {REVISION[:12]}"
    meta = {"source": "mmarco", **version, "licence": LICENCE}
    meta["dropped"] = files._table(dropped)
    train, test = _train(db, paths.collections), _each(db, paths.collections, PAIRS_OF, tested=True)
    if p.hard_negatives:
        train, test = _with_negatives(db, train), _with_negatives(db, test)
    pool = _each(db, paths.collections, POOL, most=p.pool or None, chars=p.max_chars)
    return corpus_of_sorted(train, meta, place, test, pool)


@dataclass(frozen=True)
class Paths:
    """Where the files are. collections: of the languages asked for, by code, sorted; questions:
    of these, and the English ones to tell what was left untranslated, where there are any."""

    triples: str
    questions: dict[str, str]
    collections: dict[str, str]

    @classmethod
    def find(cls, p: Prepare) -> Paths:
        """Raises ValueError for a language that mMARCO lacks, or a file that is not there."""
        _check_languages(p.languages)
        place = _local(p.folder) if p.folder else _hub
        codes = sorted(p.languages) or [x for x in NAMES if not p.folder or _has_any(p.folder, x)]
        if len(codes) < 2:
            where = f" ({p.folder} has: {' '.join(codes) or 'none'})" if p.folder else ""
            raise ValueError(f"languages: a parallel corpus needs at least two{where}")
        check_keep(p, codes)
        english = not p.folder or _is_file(p.folder, QUESTIONS.format("english"))
        question_codes = sorted({*codes, "en"} if english else codes)
        return cls(
            place(TRIPLES),
            {code: place(QUESTIONS.format(NAMES[code])) for code in question_codes},
            {code: place(COLLECTION.format(NAMES[code])) for code in codes},
        )


def look(p: Prepare) -> None:
    """Raises ValueError for a language that mMARCO lacks, or a folder that lacks a file."""
    _check_languages(p.languages)
    if p.folder:
        Paths.find(p)


def _check_languages(codes: Iterable[str]) -> None:
    for code in codes:
        if code not in NAMES:
            raise ValueError(f"languages: mMARCO has no {code} (it has: {' '.join(NAMES)})")


def _is_file(folder: str, name: str) -> bool:
    return (store.ROOT / folder / name).is_file()


def _has_any(folder: str, code: str) -> bool:
    return any(_is_file(folder, form.format(NAMES[code])) for form in (QUESTIONS, COLLECTION))


def _local(folder: str):
    """A function from a file's name in the repository to its path in a folder laid out alike."""

    def place(name: str) -> str:
        if not _is_file(folder, name):
            raise ValueError(f"{folder}/{name}: no such file")
        return f"{folder}/{name}"

    return place


def _hub(name: str) -> str:
    from lib.sources import downloads

    return str(downloads.hub(REPOSITORY, name, REVISION, kind="dataset"))


# --- triples -----------------------------------------------------------------------------------


def triples(file: str) -> Iterator[pa.RecordBatch]:
    """int32 columns question, relevant and irrelevant (passage), part by part.

    Raises ValueError naming file and row for anything but three ids in a row."""
    from pyarrow import csv

    ids = ["question", "relevant", "irrelevant"]
    try:
        parts = csv.open_csv(
            store.ROOT / file,
            csv.ReadOptions(use_threads=False, block_size=1 << 24, column_names=ids),
            csv.ParseOptions(delimiter="\t", quote_char=False, ignore_empty_lines=False),
            csv.ConvertOptions(column_types=dict.fromkeys(ids, pa.int32()), null_values=[]),
        )
        for part in parts:
            if any((column.to_numpy() < 0).any() for column in part.columns):
                raise pa.ArrowInvalid("an id below 0")
            yield part
    except pa.ArrowException as error:
        raise _bad_triple(file, error) from None


def _bad_triple(file: str, error: Exception) -> ValueError:
    """The fast reader's error, with the row that it does not tell."""
    row = 0
    for row, text in files.lines(file):
        fields = text.split("\t")
        if len(fields) != 3 or not all(map(_is_id, fields)):
            return ValueError(f"{file}: row {row}: is {text[:40]!r} (expected three ids by tabs)")
    said = str(error).splitlines()[0] if row else "it has no rows"
    return ValueError(f"{file}: cannot be read ({said})")


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdecimal() and int(text) < 2**31


def database(folder: str) -> duckdb.DuckDBPyConnection:
    """An empty database whose file and spilled pages lie in a folder."""
    limits = {"threads": 1, "memory_limit": MEMORY, "temp_directory": f"{folder}/spill"}
    db = duckdb.connect(f"{folder}/mmarco.duckdb", config=limits)
    db.create_function("share", share, ["VARCHAR"], "DOUBLE")
    db.create_function("number", number, ["VARCHAR", "BIGINT"], "BIGINT")
    db.execute(TABLES)
    return db


def choose(db: duckdb.DuckDBPyConnection, file: str, p: Prepare) -> None:
    """Fill the tables groups, questions (those kept), negatives and passages (those needed).

    Raises ValueError naming file and row."""
    _enter(db, "triples", triples(file))
    db.execute(RELEVANT)
    group_names = _groups(**db.execute("SELECT question, passage FROM relevant").fetchnumpy())
    db.register("group_names", group_names)
    db.execute(GROUPS, {"fold": p.fold, "folds": p.folds})
    db.execute(CHOSEN, {"limit": p.limit or None})
    parts = 1 + db.execute("SELECT count(*) FROM triples").fetchone()[0] // PART
    for part in range(parts):
        db.execute(NEGATIVES, {"most": p.hard_negatives, "part": part, "parts": parts})
    db.execute(PASSAGES)


def _groups(question: np.ndarray, passage: np.ndarray) -> pa.Table:
    """Each relevant passage and the name of its group: the smallest passage of the connected
    component of questions and their relevant passages. All questions of the triples count, so that
    neither groups nor folds depend on how many are kept."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    questions, row = np.unique(question, return_inverse=True)
    passages, column = np.unique(passage, return_inverse=True)
    size = len(questions) + len(passages)
    edges = coo_array((np.ones(len(row), bool), (row, column + len(questions))), (size, size))
    label = connected_components(edges, directed=False)[1][len(questions) :]
    _, first, group = np.unique(label, return_index=True, return_inverse=True)
    return pa.table({"passage": passages, "name": passages[first[group]]})


# --- texts -------------------------------------------------------------------------------------


def _read(db, paths: Paths) -> files.Tally:
    """Fill the tables of texts with those that are needed, language by language; says, and gives
    back, how many a file lacks.

    Raises ValueError naming file and row, or the triple with the first id where a file lacks all
    that are asked for."""
    absent = files.Tally()
    for kind, table, named, columns in (
        ("question", "question_texts", paths.questions, "(question)"),
        ("passage", "passage_texts", paths.collections, "(relevant, irrelevant)"),
    ):
        ids = db.execute(f"SELECT id FROM {kind}s ORDER BY id").fetchnumpy()["id"].tolist()
        for code, file in named.items():
            seen = dict.fromkeys(ids, False)
            _enter(db, table, _parts(_texts(code, file, seen)))
            lost = [x for x in ids if not seen[x]]
            for one in lost[:1]:
                first = f"SELECT min(rowid) + 1 FROM triples WHERE {one} IN {columns}"
                place = f"{paths.triples}: row {db.execute(first).fetchall()[0][0]}"
                if len(lost) == len(ids):
                    raise ValueError(f"{place}: {file} has no {kind} {one}, nor any other")
                for _ in lost:
                    absent.add(f"{kind}s of the triples that the file of {code} lacks", place)
    absent.tell("mmarco")
    return absent


def _texts(code: str, file: str, seen: dict[int, bool]) -> Iterator[tuple]:
    """(language, id, clean text, its length, its hash) of the ids in `seen`, which become True.

    Raises ValueError naming the row of a broken line, or of a wanted id that comes again."""
    for row, line in files.lines(file):
        name, tab, text = line.partition("\t")
        if not tab or "\t" in text or not _is_id(name):
            words = f"is {line[:40]!r} (expected an id and a text by a tab)"
            raise ValueError(f"{file}: row {row}: {words}")
        if (known := int(name)) not in seen:
            continue
        if seen[known]:
            raise ValueError(f"{file}: row {row}: id {name} is there twice")
        seen[known], text = True, clean(text)
        yield code, known, text, len(text), hash(text)


def _parts(rows: Iterator[tuple]) -> Iterator[pa.Table]:
    """The same rows, block by block."""
    while block := list(islice(rows, BLOCK)):
        columns = [pa.array(column) for column in zip(*block, strict=True)]
        yield pa.table(columns, [f"column {at}" for at in range(len(columns))])


def _enter(db, table: str, parts: Iterable[pa.Table | pa.RecordBatch]) -> None:
    """Append rows, in order, to a table."""
    for part in parts:
        db.register("part", part)
        db.execute(f"INSERT INTO {table} SELECT * FROM part")
        db.unregister("part")


# --- rows --------------------------------------------------------------------------------------


def _sift(db, p, codes: Iterable[str]) -> Counter:
    """Make the table sifted and the views; returns {(reason, language): number dropped}.

    Text hygiene as for every source; then rows whose passage is one of another group too, for
    "passage of two groups"; then training rows with fewer than H negatives in their language, for
    "few negatives"."""
    dropped = Counter()
    for code in codes:
        db.execute(TWINS, {"code": code})
        _enter(db.cursor(), "clean", _parts(_clean(db, p, code, dropped)))
        db.execute(SIFTED, {"code": code, "chars": p.max_chars, "most": p.hard_negatives})
    db.execute(VIEWS)
    few = db.execute(FEW).fetchall()
    return dropped + Counter({("few negatives", code): times for code, times in few})


def _clean(db, p, code: str, dropped: Counter) -> Iterator[tuple]:
    """(question, code, whether `keep` lets it stay) of what passes hygiene; counts the rest."""
    rows = _rows(db, PAIRS, {"code": code})
    while block := list(islice(rows, BLOCK)):
        english = {row["pair"]: row["english"] for row in block}
        good, faults = sift(block, english, p.max_chars)
        dropped.update(faults)
        for row in good:
            if row["twin"]:
                dropped["passage of two groups", code] += 1
                continue
            pair = row["pair"]
            yield pair, code, share(f"keep {pair} {code}") < p.keep.get(code, 1.0)


def _require_parallel(db, places: dict[str, str], dropped: Counter) -> None:
    """Raises ValueError for a language without training pairs, or with none that another language
    has."""
    most = dict(db.execute(SHARED).fetchall())
    for code, file in places.items():
        if code not in most:
            lost = [f"{n} {why}" for (why, x), n in sorted(dropped.items()) if x == code]
            words = f"has no pairs to train on (dropped: {', '.join(lost) or 'none'})"
            raise ValueError(f"language {code} ({file}): {words}")
        if most[code] == 1:
            raise ValueError(f"language {code} ({file}): shares no pair with another language")


def _rows(db, query: str, values: dict | None = None) -> Iterator[dict]:
    """The rows of a query as they come."""
    cursor = db.execute(query, values or {})
    names = [name for name, *_ in cursor.description]
    while block := cursor.fetchmany(BLOCK):
        yield from (dict(zip(names, row, strict=True)) for row in block)


def _each(db, codes: Iterable[str], query: str, **values) -> Iterator[dict]:
    """The rows of a query in each language, one language after the other."""
    for code in codes:
        yield from _rows(db, query, {"code": code} | values)


def _train(db, codes: Iterable[str]) -> Iterator[dict]:
    """Training rows by (pair, language), then the passages that are only negatives. Sorted by
    language, then merged: DuckDB cannot join and sort all of them within MEMORY."""
    parts = []
    for code in codes:
        db.execute(f'CREATE TABLE "train {code}" AS {PAIRS_OF}', {"code": code, "tested": False})
        db.execute(f'INSERT INTO "train {code}" {ALONE}', {"code": code})
        parts.append(_rows(db.cursor(), f'SELECT * FROM "train {code}"'))
    return merge(*parts, key=itemgetter("pair", "language"))


def _with_negatives(db, rows: Iterator[dict]) -> Iterator[dict]:
    """The same rows with the column negatives. Lists within DuckDB could not leave its memory."""
    negatives = db.execute("SELECT id, passage FROM negatives ORDER BY id, rank").fetchnumpy()
    for row in rows:
        pair = np.int32(row["pair"] if row["question"] else -1)  # of one kind: no copy to search
        first, last = (negatives["id"].searchsorted(pair, side) for side in ("left", "right"))
        yield row | {"negatives": [str(x) for x in negatives["passage"][first:last].tolist()]}
