"""A user's own pairs: the way in for any data that is not in a format of its own.

One or more .jsonl, .csv, .tsv or .parquet files (plain or .gz) with a row for each pair in each
language and the columns

    pair        the same in every language; needed for translations alone (p.parallel)
    language    any usual code; where it is absent, the file's label is its language
    question, passage
    passage_id  optional: the same for translations of one passage; else the pair
    group       optional: what must be neither split nor mixed in a batch; else the passage_id
    negatives   optional: passage_ids that do not answer the question, a list or its JSON

A file's own names of these columns are p.columns.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from lib.corpus import ParallelCorpus
from lib.languages import language_code
from lib.params import Prepare
from lib.sources import Source, files
from lib.sources.files import Record, Tally

COLUMNS = ("pair", "language", "question", "passage", "passage_id", "group", "negatives")
SOURCE = Source(files=True, columns=COLUMNS, alone=True)


def build_corpus(p: Prepare) -> ParallelCorpus:
    """The corpus of one fold. The labels of p.files become `source`.

    Raises ValueError naming file and row."""
    languages = sorted(map(language_code, p.languages))
    rows = read(p, numbered=not p.parallel)
    codes = languages or sorted({row["language"] for row in rows})
    return files.corpus(p, "pairs", dict.fromkeys(codes, ""), rows, Counter())


def look(p: Prepare) -> None:
    """Raises ValueError for a file of another kind, without rows, or without a needed column."""
    look_at(p, numbered=not p.parallel)


def most_groups(p: Prepare) -> int | None:
    """The number of rows of all files."""
    rows = [files.rows_at_most(file) for file in p.files.values()]
    return None if None in rows else sum(rows)


def look_at(p: Prepare, numbered: bool) -> None:
    """The same. numbered: as for `read`."""
    for label, file in p.files.items():
        _check_columns(files.first(file), label, p.columns, numbered)


def read(p: Prepare, numbered: bool) -> list[dict]:
    """The rows of p.files. numbered: whether rows of a file without a column `pair` are a pair
    each, named by label and row. Raises ValueError naming file and row."""
    rows, places = [], Places()
    look_at(p, numbered)
    for label, file in p.files.items():
        for record in _records(file, p.columns):
            row = _row(record, label, numbered)
            places.add(row, record)
            rows.append(row)
    _share_negatives(rows, places)
    return rows


def _records(file: str, columns: dict[str, str]) -> Iterator[Record]:
    """The rows with our names of columns."""
    for record in files.records(file):
        own = {ours: record[theirs] for ours, theirs in columns.items()}
        yield replace(record, values=record.values | own)


def _check_columns(first: Record, label: str, columns: dict[str, str], numbered: bool) -> None:
    """Raises ValueError unless a file's first row has what is needed, saying what it has."""
    needed = {"question", "passage", *columns}
    needed |= (set() if numbered else {"pair"}) | (set() if _is_language(label) else {"language"})
    names = [columns.get(x, x) for x in COLUMNS if x in needed]
    lacking = [x for x in names if x not in first.values]
    if not lacking:
        return
    have = ", ".join(map(str, first.values)) or "none"
    hints = ["name its columns in prepare.columns, as {question: QUERY}"]
    if "pair" in lacking:
        hints.append("without translations: prepare.parallel: false")
    if "language" in lacking:
        hints.append(f"of one language: label it so, as files: {{en: ...}}, not {label}")
    raise ValueError(
        f"{first.file}: has no column {', '.join(map(repr, lacking))} (its columns: {have}; "
        f"{'; '.join(hints)})"
    )


def _is_language(label: str) -> bool:
    try:
        return bool(language_code(label))
    except ValueError:
        return False


def _row(record: Record, label: str, numbered: bool) -> dict:
    numbered = numbered and "pair" not in record.values
    pair = f"{label} {record.row}" if numbered else record.key("pair")
    passage = _key_or(record, "passage_id", pair)
    row = {
        "pair": pair,
        "language": _language(record, label),
        "question": record.text("question"),
        "passage": record.text("passage"),
        "passage_id": passage,
        "group": _key_or(record, "group", passage),
        "source": label,
    }
    return row | ({"negatives": _negatives(record)} if "negatives" in record.values else {})


def _key_or(record: Record, column: str, default: str) -> str:
    """A name, or `default` where it is absent, null or (as in CSV) empty."""
    return default if record.values.get(column) in (None, "") else record.key(column)


def _language(record: Record, label: str) -> str:
    name = record.text("language") if "language" in record.values else label
    try:
        return language_code(name)
    except ValueError as error:
        raise record.fault(str(error)) from None


def _negatives(record: Record) -> list[str]:
    value = record["negatives"]
    if isinstance(value, str) and value:
        try:
            value = json.loads(value)
        except ValueError:
            raise record.fault('negatives are not a JSON list (as ["p1","p2"])') from None
    if value in (None, ""):
        return []
    if not isinstance(value, list):
        raise record.fault("negatives are not a list of passage_ids")
    return [record.as_key(x, "negatives") for x in value]


class Places:
    """Where each pair and passage was first seen; refuses rows that contradict it."""

    def __init__(self):
        self.rows: dict[tuple[str, str], Record] = {}
        self.passage: dict[str, str] = {}
        self.group: dict[str, str] = {}
        self.first: dict[tuple[str, str], tuple[str, Record]] = {}

    def add(self, row: dict, record: Record) -> None:
        key = row["pair"], row["language"]
        if key in self.rows:
            first = self.rows[key]
            raise record.fault(
                f"pair {key[0]!r} in {key[1]} is already in row {first.row} of {first.file}"
            )
        self.rows[key] = record
        name = row["passage_id"], row["language"]
        text, first = self.first.setdefault(name, (row["passage"], record))
        if text != row["passage"]:
            raise record.fault(
                f"passage {name[0]!r} in {name[1]} has another text than in row {first.row} of "
                f"{first.file}"
            )
        for known, name, value in (
            (self.passage, row["pair"], row["passage_id"]),
            (self.group, row["passage_id"], row["group"]),
        ):
            if known.setdefault(name, value) != value:
                kind = "pair" if known is self.passage else "passage"
                raise record.fault(f"{kind} {name!r} lies in {value!r}, before in {known[name]!r}")


def _share_negatives(rows: list[dict], places: Places) -> None:
    """Give every row of a pair the negatives named in any of its languages, if there are any.

    Those that say in some language what the pair's own passage says are left out, with a line that
    counts them. Raises ValueError for a negative that is no pair's passage, or the pair's own."""
    if not any("negatives" in row for row in rows):
        return
    named: dict[str, dict[str, None]] = {}
    texts, tally = _passage_texts(rows), Tally()
    for row in rows:
        negatives = named.setdefault(row["pair"], {})
        for passage in row.get("negatives", ()):
            record = places.rows[row["pair"], row["language"]]
            if passage not in places.group:
                raise record.fault(f"negative {passage!r} is no row's passage_id")
            if passage == row["passage_id"]:
                raise record.fault(f"negative {passage!r} is the pair's own passage")
            if texts[passage].isdisjoint(texts[row["passage_id"]]):
                negatives[passage] = None
            else:
                tally.add("negatives say what the pair's own passage says, left out", record.place)
    tally.tell("pairs")
    for row in rows:
        row["negatives"] = list(named[row["pair"]])


def _passage_texts(rows: list[dict]) -> dict[str, set[tuple[str, str]]]:
    """passage_id -> its (language, text)."""
    found: dict[str, set[tuple[str, str]]] = {}
    for row in rows:
        found.setdefault(row["passage_id"], set()).add((row["language"], row["passage"]))
    return found
