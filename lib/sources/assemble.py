"""Rows to a corpus, checked on the way: in memory, or one by one where memory cannot hold them."""

from __future__ import annotations

import shutil
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from itertools import chain, islice
from pathlib import Path

import numpy as np
import pyarrow as pa
from datasets import Dataset

from lib.corpus import TABLES, ParallelCorpus, codes

BATCH = 10_000  # rows written at once; each batch of a mapped file costs 64 KiB when it is opened

Table = Callable[[str, Iterator[dict]], Dataset]  # (name, rows) -> the table of that name


def corpus_of_rows(
    rows: Iterable[dict],
    meta: dict,
    test: Iterable[dict] = (),
    pool: Iterable[dict] = (),
    folder: Path | None = None,
) -> ParallelCorpus:
    """Corpus of dicts in any order. Raises ValueError where rows contradict the contract."""
    rows = sorted(rows, key=lambda row: (row["pair"], row["language"]))
    test = sorted(test, key=lambda row: (row["language"], row["pair"]))
    pool = sorted(pool, key=lambda row: (row["language"], row["passage_id"]))

    def table(_: str, part: Iterator[dict]) -> Dataset:
        return Dataset.from_list([*part])

    return ParallelCorpus(*_tables(rows, meta, test, pool, table), folder=folder)


def corpus_of_sorted(
    rows: Iterable[dict],
    meta: dict,
    place: Path,
    test: Iterable[dict] = (),
    pool: Iterable[dict] = (),
) -> ParallelCorpus:
    """The same of dicts in order: rows by (pair, language), test by (language, pair), pool by
    (language, passage_id); rows out of order are a ValueError.

    Tables are written below `place` as rows come; that folder is removed with the corpus."""

    def table(name: str, part: Iterator[dict]) -> Dataset:
        return _write(part, place / f"{name}.arrow")

    corpus = ParallelCorpus(*_tables(rows, meta, test, pool, table), place=place)
    weakref.finalize(corpus, shutil.rmtree, place, ignore_errors=True)
    return corpus


def united(links: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Name -> the least of the names that are linked with it, directly or through others.

    >>> united([("b", "c"), ("d", "d"), ("c", "a")])
    {'b': 'a', 'c': 'a', 'd': 'd', 'a': 'a'}
    """
    above: dict[str, str] = {}

    def least(name: str) -> str:
        while above.setdefault(name, name) != name:
            above[name] = name = above[above[name]]
        return name

    for pair in links:
        first, second = sorted(map(least, pair))
        above[second] = first
    return {name: least(name) for name in list(above)}


def whole_articles(links: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Group -> its article, of (group, article) in any order; articles that share a group,
    directly or through others, are one, under the least of their names.

    >>> whole_articles([("g1", "rhine"), ("g2", "elbe"), ("g2", "rhine"), ("g3", "oder")])
    {'g1': 'elbe', 'g2': 'elbe', 'g3': 'oder'}
    """
    first: dict[str, str] = {}
    name = united((first.setdefault(group, article), article) for group, article in links)
    return {group: name[article] for group, article in first.items()}


def _tables(rows, meta: dict, test, pool, table: Table) -> tuple[Dataset, Dataset, Dataset, dict]:
    """rows, test, pool and meta of a corpus. Rows without a question are counted apart, as
    "negatives"."""
    digest, counts = sha256(), {name: Counter() for name in (*TABLES, "negatives")}
    parts = {
        "rows": _in_order(rows, digest, counts),
        "test": _counted(test, counts["test"]),
        "pool": _counted(pool, counts["pool"]),
    }
    tables = [table(name, part) for name, part in parts.items()]
    _check_groups(tables[0])
    counts = {name: dict(sorted(numbers.items())) for name, numbers in counts.items()}
    return *tables, meta | {"counts": counts, "content_hash": digest.hexdigest()}


def _check_groups(rows: Dataset) -> None:
    """Raises ValueError for a passage in two groups; reads the columns that say so alone."""
    if not len(rows):
        raise ValueError("the corpus has no training rows")
    columns = rows.with_format("arrow")
    passage, names = codes(columns["passage_id"][:])
    group, _ = codes(columns["group"][:])
    seen = np.zeros(len(names), np.int32)
    seen[passage] = group
    for other in passage[seen[passage] != group][:1]:
        raise ValueError(f"passage {names[other]}: lies in two groups, expected one")


def _in_order(rows: Iterable[dict], digest, counts: dict[str, Counter]) -> Iterator[dict]:
    """The rows as they come, hashed, counted, and checked but for groups: one row a (pair,
    language), one passage a pair, in order."""
    pair = language = passage = ""
    for row in rows:
        if row["pair"] == pair and row["passage_id"] != passage:
            raise ValueError(f"pair {pair}: two passage_ids, expected the same in each language")
        if (row["pair"], row["language"]) == (pair, language):
            raise ValueError(f"pair {pair}: two rows in {language}, expected one")
        if (row["pair"], row["language"]) < (pair, language):
            raise ValueError(f"pair {row['pair']}: its row in {row['language']} is out of order")
        pair, language, passage = row["pair"], row["language"], row["passage_id"]
        counts["rows" if row["question"] else "negatives"][language] += 1
        digest.update("\x1f".join(map(str, row.values())).encode() + b"\x1e")
        yield row


def _counted(rows: Iterable[dict], counts: Counter) -> Iterator[dict]:
    for row in rows:
        counts[row["language"]] += 1
        yield row


def _write(rows: Iterator[dict], file: Path) -> Dataset:
    """Rows of texts and lists of texts as a mapped Arrow stream, the format `datasets` saves."""
    first = next(rows, None)
    if first is None:
        return Dataset.from_list([])
    kinds = {list: pa.list_(pa.string()), str: pa.string()}
    schema = pa.schema([(name, kinds[type(value)]) for name, value in first.items()])
    rows = chain([first], rows)
    with pa.OSFile(str(file), "wb") as out, pa.ipc.new_stream(out, schema) as writer:
        while batch := list(islice(rows, BATCH)):
            writer.write_batch(pa.RecordBatch.from_pylist(batch, schema))
    return Dataset.from_file(str(file))
