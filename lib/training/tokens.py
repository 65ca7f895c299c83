"""Token numbers of a corpus's texts, found once and mapped by every run that asks for the same.

They lie beside the corpus, in `tokens/<key>/tokens.arrow`, where the key stands for the texts, the
tokenizer, its length limit and the prompts. Questions with a prompt of another kind
(lib.training.prompts) have a folder of their own, without passages.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from lib import store

if TYPE_CHECKING:
    from lib.corpus import ParallelCorpus
    from lib.encoder import Encoder
    from lib.sampler import Batch, PairIndex

SIDES = ("question", "passage")
BATCH = 10_000  # rows of a record batch, but for the last


def batch_rows(index: PairIndex, batch: Batch) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """side -> (rows int64, language numbers) of a batch's texts: its questions; its passages, and
    after them its explicit negatives in the language of the passage."""
    hard = batch.negatives.shape[1]
    language = np.concatenate([batch.passage_language, np.repeat(batch.passage_language, hard)])
    pair = np.concatenate([batch.pair, batch.negatives.ravel()])
    return {
        "question": (index.rows(batch.pair, batch.question_language), batch.question_language),
        "passage": (index.rows(pair, language), language),
    }


class Tokens:
    """Questions and passages of every row of a corpus, as an encoder reads them; or one of the two.

    used       int64: the distinct tokens of all texts, sorted
    texts      how many there are
    truncated  how many of them were cut to max_length
    """

    def __init__(self, folder: Path):
        """Raises store.Damaged where the folder does not verify."""
        manifest = store.verify(folder)
        self.truncated, self.texts = manifest["truncated"], manifest["texts"]
        self.used = np.load(folder / "used.npy")
        batches = pa.ipc.open_file(pa.memory_map(str(folder / "tokens.arrow")))
        self._rows = batches.get_batch(0).num_rows
        self._parts = {side: [] for side in batches.schema.names}
        for number in range(batches.num_record_batches):
            for side in self._parts:
                lists = batches.get_batch(number).column(side)
                self._parts[side].append((lists.values.to_numpy(), lists.offsets.to_numpy()))

    @property
    def truncated_share(self) -> float:
        """Share of the texts that were cut."""
        return self.truncated / self.texts

    def ahead(self, side: str) -> np.ndarray:
        """int64: rows of which everything may be computed before the first step."""
        return np.arange(len(self.lengths(side)))

    def lengths(self, side: str) -> np.ndarray:
        """int64 [rows]: how many tokens the "question" or "passage" of each row has."""
        return np.concatenate([np.diff(offsets) for _, offsets in self._parts[side]])

    def take(self, side: str, rows: np.ndarray) -> list[np.ndarray]:
        """Token numbers int32 of the "question" or "passage" of these rows."""
        numbers, parts = [], self._parts[side]
        for part, row in zip(*(x.tolist() for x in np.divmod(rows, self._rows)), strict=True):
            values, offsets = parts[part]
            numbers.append(values[offsets[row] : offsets[row + 1]])
        return numbers


def tokenized(corpus: ParallelCorpus, encoder: Encoder, sides: tuple[str, ...] = SIDES) -> Tokens:
    """Those of a saved corpus, which are made if they are not there, or damaged."""
    folder = corpus.folder.parent / "tokens" / _key(corpus, encoder, sides)
    return store.made(
        partial(Tokens, folder),
        partial(_make, corpus, encoder, folder, sides),
        alone=folder.parent,
        say=lambda _: None,
    )


def _key(corpus: ParallelCorpus, encoder: Encoder, sides: tuple[str, ...] = SIDES) -> str:
    """16 hex digits that stand for all that the tokens depend on."""
    parts = {
        "texts": corpus.content_hash,
        "tokenizer": encoder.tokenizer.backend_tokenizer.to_str(),  # its length limit is part of it
        "prompts": [encoder.settings.prompt(side) for side in sides],
    }
    return store.digest(parts)[:16]


def _make(corpus: ParallelCorpus, encoder: Encoder, folder: Path, sides: tuple[str, ...]) -> None:
    counts, used = {"texts": len(sides) * len(corpus.rows)}, np.empty(0, np.int64)
    schema = pa.schema([(side, pa.large_list(pa.int32())) for side in sides])
    with store.atomic_folder(folder, counts) as new:
        file = str(new / "tokens.arrow")
        with pa.OSFile(file, "wb") as out, pa.ipc.new_file(out, schema) as writer:
            before = encoder.truncated
            for texts in corpus.rows.select_columns(list(sides)).iter(BATCH):
                columns = [_column(encoder.tokenize(texts[side], side)) for side in sides]
                writer.write_batch(pa.record_batch(columns, schema=schema))
                used = np.union1d(used, np.concatenate([c.values.to_numpy() for c in columns]))
        counts["truncated"] = encoder.truncated - before
        np.save(new / "used.npy", used)


def _column(token_lists: list[np.ndarray]) -> pa.LargeListArray:
    ends = np.cumsum([0, *map(len, token_lists)], dtype=np.int64)
    return pa.LargeListArray.from_arrays(ends, np.concatenate(token_lists))
