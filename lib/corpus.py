"""Parallel question-passage pairs: the rows on disk and the index that the sampler draws from.

A row is one pair in one language. Rows are kept sorted by (pair, language), so that a row number
follows from (pair, language) by arithmetic and the sampler needs no text at all.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, disable_caching, disable_progress_bars, load_from_disk

from lib import store
from lib.sampler import PairIndex

TABLES = ("rows", "test", "pool")
disable_progress_bars()
disable_caching()  # what is derived from a corpus would be saved in its folder


@dataclass(frozen=True)
class ParallelCorpus:
    """Training pairs in several languages, and where a source has them a test split and a pool.

    rows  Dataset: pair, language, question, passage, passage_id, group, source [article, negatives]
    test  Dataset of the same columns plus strata (hops, wording, …); empty if there is no split
    pool  Dataset: passage_id, language, passage: what is searched; empty if there is no split
    meta  source, version, licence, counts: the manifest's own words

    A row whose question is empty is a passage that is there only as an explicit negative. Its pair
    exists in that one language, and pairs of one language are in no stream of the sampler, so it
    is never asked and never anybody's positive. A corpus for arms that need no translations
    (meta["parallel"] is False) has no such rows, and its pairs of one language are drawn.
    """

    rows: Dataset
    test: Dataset
    pool: Dataset
    meta: dict
    folder: Path | None = None
    place: Path | None = None

    def column(self, name: str) -> pa.ChunkedArray:
        """A column of the rows as it lies on the disk: a Python text costs 60 bytes and more."""
        return self.rows.with_format("arrow")[name][:]

    @property
    def languages(self) -> tuple[str, ...]:
        return self.index.languages

    @property
    def tokenizer_file(self) -> Path:
        return self.folder / "tokenizer.json"

    @property
    def content_hash(self) -> str:
        """sha256 of the training rows: what a checkpoint was trained on."""
        return self.meta["content_hash"]

    def every_text(self) -> Iterator[str]:
        """Each training text as it comes, repeats included, in bounded memory."""
        for batch in self.batches():
            for side in ("question", "passage"):
                yield from filter(None, batch.column(side).to_pylist())

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows, read from their files: pages of a mapped file would stay in our memory."""
        if not self.rows.cache_files:
            yield from self.rows.data.to_batches()
        for part in self.rows.cache_files:
            with pa.OSFile(part["filename"]) as file, pa.ipc.open_stream(file) as batches:
                yield from batches

    @cached_property
    def index(self) -> PairIndex:
        """The training pairs x languages, numbered in the order of the rows."""
        language, names = codes(self.column("language"))
        pair = self.column("pair")
        first = np.ones(len(pair), bool)
        first[1:] = pc.not_equal(pair[1:], pair[:-1]).to_numpy()
        present = np.zeros((first.sum(), len(names)), bool)
        present[np.cumsum(first) - 1, language] = True
        group, _ = codes(self.column("group").filter(pa.array(first)))
        negatives = self._negatives(first) if "negatives" in self.rows.column_names else None
        index = PairIndex.from_present(names.to_pylist(), present, group, negatives)
        return replace(index, alone=not self.meta.get("parallel", True))

    def _negatives(self, first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """CSR of explicit negatives, each named by the pairs that are its passage and nothing else;
        where there are none, by the first pair that has it. first: bool [rows], starts of pairs.

        Raises KeyError for a negative that is no row's passage_id."""
        first = pa.array(first)
        named = self.column("negatives").filter(first).cast(pa.list_(pa.string()))
        length = pc.binary_length(self.column("question")).filter(first)
        code, passages = codes(self.column("passage_id").filter(first))
        flat = pc.list_flatten(named)
        wanted = pc.index_in(flat, value_set=passages)
        for unknown in flat.filter(pc.is_null(wanted))[:1]:
            raise KeyError(f"negative {unknown} is no row's passage_id")
        start, pairs = _standing_for(code, len(passages), alone=length.to_numpy() == 0)
        wanted = wanted.to_numpy().astype(np.int64)
        count = (start[1:] - start[:-1])[wanted]
        until = np.concatenate([[0], np.cumsum(count)])
        places = np.arange(until[-1]) + np.repeat(start[wanted] - until[:-1], count)
        ends = np.cumsum(pc.list_value_length(named).to_numpy())
        return until[np.concatenate([[0], ends])].astype(np.int64), pairs[places].astype(np.int32)

    def save(self, folder: Path) -> None:
        """Write the three tables below `folder`; `meta` belongs into its manifest."""
        for name in TABLES:
            if not len(table := getattr(self, name)):  # datasets cannot read an empty one back
                continue
            if self.place is None:
                table.save_to_disk(folder / name)
            else:  # already a file of the same format: copying would read it all into memory
                table.select(range(1)).save_to_disk(folder / name)
                [part] = (folder / name).glob("*.arrow")
                _same_file(self.place / f"{name}.arrow", part)

    @classmethod
    def load(cls, folder: Path) -> ParallelCorpus:
        """Read a saved corpus whose manifest verifies (else lib.store.Damaged is raised)."""
        meta = store.verify(folder)
        tables = [
            load_from_disk(str(folder / name))
            if (folder / name).is_dir()
            else Dataset.from_list([])
            for name in TABLES
        ]
        return cls(*tables, meta, folder)


def _same_file(file: Path, place: Path) -> None:
    """Put a file in another's place: a second name of it, or a copy on another disk."""
    place.unlink()
    try:
        os.link(file, place)
    except OSError:
        shutil.copyfile(file, place)


def codes(column: pa.ChunkedArray) -> tuple[np.ndarray, pa.Array]:
    """Numbers int32 of a column's texts in the sorted order of the distinct ones, and these."""
    distinct = pc.unique(column)
    distinct = distinct.take(pc.sort_indices(distinct))
    return pc.index_in(column, value_set=distinct).to_numpy().copy(), distinct


def _standing_for(code: np.ndarray, passages: int, alone: np.ndarray):
    """CSR (starts int64 [passages + 1], pairs) of the pairs that name each passage.

    code: the passage of each pair, int [P], all of range(passages) in it; alone: bool [P], pairs
    that are a passage and nothing else."""
    chosen, has = alone.copy(), np.zeros(passages, bool)
    has[code[alone]] = True
    chosen[np.unique(code, return_index=True)[1][~has]] = True
    pairs = np.flatnonzero(chosen)
    pairs = pairs[np.argsort(code[pairs], kind="stable")]
    sizes = np.bincount(code[pairs], minlength=passages)
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64), pairs
