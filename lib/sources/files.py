"""Training pairs from a user's files: reading records, holding out a test split.

Files from outside are the one place where anything can be wrong, so every fault is a ValueError
of one line that names the file and the row. Paths are relative to the project's root, and are
shown as they were given. Tables are read row by row; only a JSON document is read whole.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from lib import store
from lib.corpus import ParallelCorpus
from lib.languages import language_code
from lib.params import Prepare
from lib.sources import check_keep
from lib.sources.assemble import corpus_of_rows, united, whole_articles
from lib.sources.text import clean, number, share, sift

SMALL = 1 << 26  # bytes that are read at once
LICENCE = "as stated by the files' owner"
KINDS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
READ_ERRORS = (
    OSError, EOFError, zlib.error, UnicodeDecodeError, OverflowError, pa.ArrowException,
)  # fmt: skip
# A text that JSON lines hold is not too long for CSV. The module has one limit for a whole process;
# so it is raised once and for all, and nobody finds it changed on the way.
csv.field_size_limit(2**31 - 1)


@dataclass(frozen=True)
class Record:
    """One row of a file and where it stands: a line of text files (in CSV the record's last one),
    a running number from 1 elsewhere."""

    file: str
    row: int
    values: dict[str, Any]

    @property
    def place(self) -> str:
        """Where it stands, as messages say it."""
        return f"{self.file}: row {self.row}"

    def fault(self, words: str) -> ValueError:
        """The error to raise about this record."""
        return ValueError(f"{self.place}: {words}")

    def __getitem__(self, column: str) -> Any:
        if column not in self.values:
            columns = ", ".join(map(str, self.values)) or "none"
            raise self.fault(f"has no column {column!r} (its columns: {columns})")
        return self.values[column]

    def text(self, column: str) -> str:
        """A text, cleaned (lib.sources.text.clean): the one way by which those of files come in,
        to train on and to be tested on alike. One that is null is empty."""
        return clean(self.raw(column))

    def raw(self, column: str) -> str:
        """The same as the file has it, for texts into which offsets point."""
        value = self[column]
        if value is not None and not isinstance(value, str):
            raise self.fault(f"{column} is {_short(value)} (expected text)")
        return value or ""

    def key(self, column: str) -> str:
        """A name: a text that is not empty, or a whole number. Cleaned as texts are, so that files
        which spell it in several Unicode forms mean one thing."""
        return self.as_key(self[column], column)

    def as_key(self, value: Any, column: str) -> str:
        """The same for a value found inside a column."""
        known = isinstance(value, str | int) and not isinstance(value, bool)
        if not known or not (name := clean(str(value))):
            raise self.fault(f"{column} is {_short(value)} (expected a name or a whole number)")
        return name

    def parts(self, column: str) -> list[Record]:
        """The objects of a list, as records of the same row."""
        value = self[column]
        if not isinstance(value, list):
            raise self.fault(f"{column} is {_short(value)} (expected a list)")
        return [record(self.file, self.row, item) for item in value]


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=True, default=str)
    return text if len(text) <= 40 else text[:37] + "..."


def record(file: str, row: int, value: Any) -> Record:
    """A Record of a decoded value. Raises ValueError for what is not an object."""
    if not isinstance(value, dict):
        raise ValueError(f"{file}: row {row}: is {_short(value)} (expected an object)")
    return Record(file, row, value)


@dataclass(frozen=True)
class Tally:
    """What of published files is of no use: in words, how often, and where first."""

    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, words: str, place: str) -> None:
        """One more. place: as messages say it."""
        self.counts[words] += 1
        self.first.setdefault(words, place)

    def tell(self, name: str, say: Callable[[str], None] = print) -> None:
        """Say a line for each kind, about what is called `name`."""
        for words, times in self.counts.items():
            say(f"{name}: {times:,} {words} (first: {self.first[words]})")


# --- reading -----------------------------------------------------------------------------------


def kind(file: str) -> str:
    """The suffix that says what a file holds, `.gz` apart: `en.jsonl.gz` -> `.jsonl`."""
    return Path(file.lower().removesuffix(".gz")).suffix


def first(file: str) -> Record:
    """The first row, which shows kind and columns. Raises ValueError where there is none."""
    for found in records(file):
        return found
    raise ValueError(f"{file}: has no rows")


def rows_at_most(file: str) -> int | None:
    """How many rows a file of lines has, or more; None where no number is known at once."""
    path = store.ROOT / file
    if kind(file) in (".json", ".parquet") or file.lower().endswith(".gz"):
        return None
    return path.read_bytes().count(b"\n") + 1 if path.stat().st_size <= SMALL else None


def records(file: str) -> Iterator[Record]:
    """The rows of a .jsonl, .json (a list of objects), .csv, .tsv or .parquet file, plain or .gz.

    CSV is read by RFC 4180 (fields may be quoted), TSV without quoting (IANA's
    text/tab-separated-values); a TSV that is quoted all the same is refused, since nothing says how
    its texts are meant. Raises ValueError naming file and row."""
    check_kind(file)
    readers = dict(zip(KINDS, (_json_lines, _json_list, _csv, _csv, _parquet), strict=True))
    return readers[kind(file)](file)


def check_kind(file: str) -> None:
    """Raises ValueError for a table whose name does not say what it is."""
    if kind(file) not in KINDS:
        raise ValueError(
            f"{file}: is of an unknown kind (expected {' '.join(KINDS)}, plain or .gz)"
        )


def _open(file: str) -> BinaryIO:
    path = store.ROOT / file
    return gzip.open(path) if file.lower().endswith(".gz") else open(path, "rb")


def _fault(file: str, row: int, error: Exception) -> ValueError:
    """An error of reading in one line; `row` is the one that was being read."""
    match error:
        case FileNotFoundError():
            return ValueError(f"{file}: no such file")
        case IsADirectoryError():
            return ValueError(f"{file}: is a folder (expected a file)")
        case UnicodeDecodeError() if row == 1 and error.object[:2] in UTF_16:
            words = "is UTF-16 (expected UTF-8)"
        case UnicodeDecodeError():
            words = f"is not UTF-8 (byte 0x{error.object[error.start]:02x})"
        case OverflowError():
            words = f"has a value that Python cannot hold ({error}; unused columns may be left out)"
        case EOFError() | zlib.error() | gzip.BadGzipFile():
            words = "the gzip data are damaged or end early"
        case pa.ArrowException():
            words = f"is not readable as parquet ({str(error).splitlines()[0]})"
        case _:
            words = getattr(error, "strerror", None) or str(error).splitlines()[0]
            return ValueError(f"{file}: cannot be read ({words})")
    return ValueError(f"{file}: row {row}: {words}")


def lines(file: str) -> Iterator[tuple[int, str]]:
    """(number from 1, text) of every line, without its end; plain or .gz."""
    row = 1
    try:
        with _open(file) as stream:
            for raw in stream:
                text = raw.decode().rstrip("\r\n")
                if row == 1 and text.count("\0") > len(text) / 4:  # UTF-16 without its mark
                    raise ValueError(f"{file}: row 1: has zero bytes (expected UTF-8)")
                yield row, text.removeprefix("\ufeff") if row == 1 else text
                row += 1
    except READ_ERRORS as error:
        raise _fault(file, row, error) from None


def _decoded(file: str, row: int, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        row += getattr(error, "lineno", 1) - 1
        raise ValueError(
            f"{file}: row {row}: is broken JSON ({getattr(error, 'msg', error)})"
        ) from None


def document(file: str) -> Any:
    """The value of a JSON file, plain or .gz; rows in its errors are lines."""
    return _decoded(file, 1, "\n".join(text for _, text in lines(file)))


def _json_list(file: str) -> Iterator[Record]:
    value = document(file)
    if not isinstance(value, list):
        raise ValueError(f"{file}: is not a list of objects (JSON lines are named .jsonl)")
    return (record(file, row, item) for row, item in enumerate(value, 1))


def _json_lines(file: str) -> Iterator[Record]:
    for row, text in lines(file):
        if text.strip():
            yield record(file, row, _decoded(file, row, text))


def _csv(file: str) -> Iterator[Record]:
    tsv = kind(file) == ".tsv"
    tabs = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if tsv else {}
    reader = csv.reader((text + "\n" for _, text in lines(file)), strict=True, **tabs)
    try:
        columns = next(filter(None, reader), [])
        if tsv:
            _check_unquoted(file, 1, columns)
        _require_distinct(file, columns)
        for fields in filter(None, reader):
            if tsv:
                _check_unquoted(file, reader.line_num, fields)
            if len(fields) != len(columns):
                words = f"has {len(fields)} fields (expected {len(columns)}, as in the header)"
                raise ValueError(f"{file}: row {reader.line_num}: {words}")
            yield Record(file, reader.line_num, dict(zip(columns, fields, strict=True)))
    except csv.Error as error:
        raise ValueError(f"{file}: row {reader.line_num}: is broken CSV ({error})") from None


def _require_distinct(file: str, columns: Sequence[str]) -> None:
    """Raises ValueError for two columns of one name."""
    for name, times in Counter(columns).items():
        if times > 1:
            raise ValueError(f"{file}: row 1: names the column {name!r} twice")


def _is_quoted(field: str) -> bool:
    """Whether a field is quoted as in CSV: it begins with a quote, and those in it are doubled, as
    hardly a plain text has them. A closing quote may stand in a later line."""
    inside = field[1:].replace('""', "")
    return field[:1] == '"' and '""' in field[1:] and '"' not in inside[:-1]


def _check_unquoted(file: str, row: int, fields: list[str]) -> None:
    """Raises ValueError for a quoted field in a TSV. Names in the header have no quotes at all."""
    for value in fields:
        if _is_quoted(value) or (row == 1 and value[:1] == '"'):
            raise ValueError(
                f"{file}: row {row}: quotes a field as in CSV, {_short(field)} (expected a TSV "
                "without quoting; or the same table as .csv, .jsonl or .parquet)"
            )


def _parquet(file: str) -> Iterator[Record]:
    row = 1
    try:
        with _open(file) as stream:
            whole = pq.ParquetFile(stream)
            _require_distinct(file, whole.schema_arrow.names)
            for batch in whole.iter_batches(1000):
                for values in batch.to_pylist():
                    yield Record(file, row, values)
                    row += 1
    except READ_ERRORS as error:
        raise _fault(file, row, error) from None


def by_language(files: Mapping[str, str], languages: Iterable[str]) -> dict[str, str]:
    """Code -> file of the `languages` (none named: of all), sorted; the labels of `files` are
    language names. Raises ValueError for two files of one language, or a language without one."""
    paths: dict[str, str] = {}
    for label, file in files.items():
        code = language_code(label)
        if code in paths:
            raise ValueError(f"files: {paths[code]} and {file} are both of language {code}")
        paths[code] = file
    wanted = sorted(map(language_code, languages)) or sorted(paths)
    missing = [code for code in wanted if code not in paths]
    if missing:
        have = " ".join(sorted(paths)) or "none"
        raise ValueError(f"files: no file of language {missing[0]} (there are: {have})")
    return {code: paths[code] for code in wanted}


# --- from rows to a corpus ---------------------------------------------------------------------


def held_out(
    rows: list[dict], fold: int, folds: int, split: str = "group"
) -> tuple[list, list, list]:
    """(training rows, test rows, pool) of a fold: a group (split "article": an article) is tested,
    in all its languages, where the hash of its name falls into the fold.

    The pool is every passage of both sides once: of two texts for one (passage_id, language) the
    first in sorted order."""
    train, test, pool = [], [], {}
    by_article = split == "article"
    unit = whole_articles((row["group"], row["article"]) for row in rows) if by_article else {}
    for row in rows:
        name = unit.get(row["group"], row["group"])
        (test if number(name, folds) == fold else train).append(row)
        key = row["passage_id"], row["language"]
        pool[key] = min(pool.get(key, row["passage"]), row["passage"])
    columns = ("passage_id", "language", "passage")
    return train, test, [dict(zip(columns, (*k, v), strict=True)) for k, v in pool.items()]


def corpus(
    p: Prepare,
    source: str,
    languages: Mapping[str, str],
    rows: list[dict],
    dropped: Counter,
    same_text: bool = False,
) -> ParallelCorpus:
    """The corpus of one fold out of a source's rows.

    languages  code -> its file ("" where files hold several languages), for messages
    rows       may hold other languages too; English ones show what was left untranslated
    dropped    {(reason, language): number} of rows that the source itself has dropped
    Raises ValueError if a language has no pairs, or (unless p.parallel is false) none that another
    one has; or if p.split is "article" and a row has none."""
    if p.parallel and len(languages) < 2:
        named = ", ".join(p.files.values()) or "files"
        only = f"language {', '.join(languages)} alone" if languages else "no language"
        needed = f"a parallel corpus needs at least two{_way_out(same_text)}"
        raise ValueError(f"{named}: has {only} ({needed})")
    check_keep(p, languages)
    english = {row["pair"]: row["question"] for row in rows if row["language"] == "en"}
    wanted = [row for row in rows if row["language"] in languages]
    kept, faults = sift(wanted, english, p.max_chars, same_text)
    dropped = Counter({k: n for k, n in dropped.items() if k[1] in languages}) + faults
    _check_parallel(kept, languages, dropped, p.parallel, _way_out(same_text))
    kept, joined = _joined(_in_articles(kept, languages, p.split))
    train, test, pool = held_out(kept, p.fold, p.folds, p.split)
    train = [row for row in train if _is_kept(row, p.keep)]
    for language in sorted(languages.keys() - {row["language"] for row in train}):
        raise ValueError(f"{_place(language, languages)}: no pair is left to train on")
    meta = {"source": source, **_version(p.files), "licence": LICENCE, "dropped": _table(dropped)}
    meta |= {"joined": joined, "parallel": p.parallel, "split": p.split}
    return corpus_of_rows(_with_known_negatives(train), meta, test, pool)


def _in_articles(rows: list[dict], languages: Mapping[str, str], split: str) -> list[dict]:
    """The rows with their column `article` where every row has it, else without."""
    lacking = next((row for row in rows if "article" not in row), None)
    if lacking is None:
        return rows
    if split == "article":
        raise ValueError(
            f"{_place(lacking['language'], languages)}: pair {lacking['pair']!r} is in no article "
            "(prepare.split: article expects a title of each, as SQuAD has; else group)"
        )
    return [{name: x for name, x in row.items() if name != "article"} for row in rows]


def _is_kept(row: dict, keep: Mapping[str, float]) -> bool:
    """Whether a training row is in the share that is kept of its language."""
    return share(f"keep {row['pair']} {row['language']}") < keep.get(row["language"], 1.0)


def _with_known_negatives(rows: list[dict]) -> list[dict]:
    """Rows whose explicit negatives, if any, are passages of these rows."""
    if not rows or "negatives" not in rows[0]:
        return rows
    known = {row["passage_id"] for row in rows}
    return [row | {"negatives": [x for x in row["negatives"] if x in known]} for row in rows]


def _joined(rows: list[dict]) -> tuple[list[dict], int]:
    """The rows, groups that hold the same passage text in a language being one, directly or through
    others; and how many groups lost their name. Which of two such passages is meant, no encoder can
    tell: in one batch each would be a false negative, and in two folds be trained and tested on."""
    first: dict[tuple[str, str], str] = {}
    name = united(
        (first.setdefault((row["language"], row["passage"]), row["group"]), row["group"])
        for row in rows
    )
    rows = [row | {"group": name[row["group"]]} for row in rows]
    lost = sum(group != kept for group, kept in name.items())
    if lost:
        largest = Counter(row["group"] for row in rows).most_common(1)[0][1] / len(rows)
        print(
            f"{lost} groups hold a passage of another group: they are one group with it "
            f"(the largest holds {largest:.1%} of the rows)"
        )
    return rows, lost


def _check_parallel(
    rows: list[dict], languages: Mapping[str, str], dropped: Counter, needed: bool, way_out: str
) -> None:
    """Every language has pairs, and pairs that some other language has; where that is not needed,
    a language without is named."""
    pairs: dict[str, set] = {language: set() for language in languages}
    for row in rows:
        pairs[row["language"]].add(row["pair"])
    for language in (x for x, pair_ids in pairs.items() if not pair_ids):
        lost = [f"{n} {reason}" for (reason, x), n in sorted(dropped.items()) if x == language]
        place = _place(language, languages)
        raise ValueError(f"{place}: has no pairs (dropped: {', '.join(lost) or 'none'})")
    times = Counter(pair for pair_ids in pairs.values() for pair in pair_ids)
    for language, pair_ids in pairs.items():
        if all(times[pair] == 1 for pair in pair_ids):
            others = ", ".join(_place(x, languages) for x in languages if x != language)
            alone = f"{_place(language, languages)}: shares no pair with {others or 'another one'}"
            if needed:
                raise ValueError(f"{alone} (expected translations{way_out})")
            print(f"{alone}: it is trained on by itself")


def _way_out(same_text: bool) -> str:
    """What goes without translations; parallel sentences do not."""
    return "" if same_text else "; prepare.parallel: false trains on pairs without"


def _place(language: str, languages: Mapping[str, str]) -> str:
    """A language, with its file where it has one."""
    return f"language {language}" + (f" ({file})" if (file := languages[language]) else "")


def _version(files: Mapping[str, str]) -> dict:
    """Name and sha256 of each input, by label, and one short name for all of them together."""
    inputs = {
        label: {"name": Path(file).name, "sha256": store.sha256(store.ROOT / file)}
        for label, file in sorted(files.items())
    }
    return {"version": f"{len(inputs)} files, {store.digest(inputs)[:12]}", "inputs": inputs}


def _table(dropped: Counter) -> dict[str, dict[str, int]]:
    """reason -> language -> number, sorted."""
    table: dict[str, dict[str, int]] = {}
    for (reason, language), times in sorted(dropped.items()):
        table.setdefault(reason, {})[language] = times
    return table
