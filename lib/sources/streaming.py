"""A corpus whose rows come one by one, in order: for sources that memory cannot hold."""

from __future__ import annotations

import shutil
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator
from hashlib import sha256
from itertools import chain, islice
from pathlib import Path

import numpy as np
import pyarrow as pa
from datasets import Dataset

from lib.corpus import TABLES, ParallelCorpus, codes, content

BATCH = 10_000  # rows written at once; each batch of a mapped file costs 64 KiB when it is opened


def corpus_of_sorted(
    rows: Iterable[dict],
    meta: dict,
    place: Path,
    test: Iterable[dict] = (),
    pool: Iterable[dict] = (),
) -> ParallelCorpus:
    """ParallelCorpus.from_rows of rows that come in order, for more of them than memory holds.

    rows come by (pair, language), test by (language, pair), pool by (language, passage_id).
    Tables are written below `place` as rows come; that folder is removed with the corpus.
    Counted apart as "negatives" are rows without a question. Raises ValueError as from_rows,
    and for rows out of order."""
    digest, counts = sha256(), {name: Counter() for name in (*TABLES, "negatives")}
    parts = _in_order(rows, digest, counts), _counted(test, counts["test"])
    parts = *parts, _counted(pool, counts["pool"])
    tables = [
        _write(part, place / f"{name}.arrow") for name, part in zip(TABLES, parts, strict=True)
    ]
    counts = {name: dict(sorted(numbers.items())) for name, numbers in counts.items()}
    meta = meta | {"counts": counts, "content_hash": digest.hexdigest()}
    corpus = ParallelCorpus(*tables, meta, place=place)
    _check_groups(corpus)
    weakref.finalize(corpus, shutil.rmtree, place, ignore_errors=True)
    return corpus


def _check_groups(corpus: ParallelCorpus) -> None:
    """Raises ValueError for a passage in two groups; reads the columns that say so alone."""
    if not len(corpus.rows):
        raise ValueError("the corpus has no training rows")
    passage, names = codes(corpus.column("passage_id"))
    group, _ = codes(corpus.column("group"))
    seen = np.zeros(len(names), np.int32)
    seen[passage] = group
    for other in passage[seen[passage] != group][:1]:
        raise ValueError(f"passage {names[other]}: lies in two groups, expected one")


def _in_order(rows: Iterable[dict], digest, counts: dict[str, Counter]) -> Iterator[dict]:
    """The rows as they come, hashed, counted, and checked but for groups."""
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
        digest.update(content(row))
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
