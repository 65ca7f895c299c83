"""Batches of a Schedule in sentence-transformers' trainer, on one process or on many.

That trainer indexes the rows of one data set, while a cross-lingual row needs a question of one row
and a passage of another; and it hands whole batches of its sampler to the ranks in turn, so that a
sampler which decides on one batch at a time gives ranks batches of different kinds at one step.
Both are settled by order: `scheduled` is a data set whose row number `step * B + i` is row i of the
schedule's batch of that step, and HybridBatchSampler reads it from front to back in parts of what
one rank takes. Rank r of N then gets `schedule.batch(step).part(r, N)`, at every step.

A row is only its number, 8 bytes; its texts are looked up when a batch is asked for, so nothing is
drawn, copied or written beforehand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch.distributed
from datasets import Dataset
from torch.utils.data import BatchSampler, SequentialSampler

if TYPE_CHECKING:
    from lib.corpus import ParallelCorpus
    from lib.sampler import Batch, Schedule


class _Texts:
    """Row numbers to texts: what the data set calls whenever rows of it are read."""

    def __init__(self, corpus: ParallelCorpus, schedule: Schedule):
        self.schedule, self.index = schedule, corpus.index
        self.batch_size = len(schedule.batch(0).pair)
        self.tables = {s: corpus.rows.select_columns(s) for s in ("question", "passage")}

    def __call__(self, rows: dict[str, list[int]]) -> dict[str, list[str]]:
        """Columns anchor, positive and, with H explicit negatives, negative_1 to negative_H."""
        step, row = np.divmod(np.asarray(rows["row"], np.int64), self.batch_size)
        steps, which = np.unique(step, return_inverse=True)
        batches = [self.schedule.batch(int(k)) for k in steps]
        columns = [np.stack(x)[which, row] for x in zip(*map(_columns, batches), strict=True)]
        pair, asked, answered, *negatives = columns
        found = {
            "anchor": self._look_up("question", pair, asked),
            "positive": self._look_up("passage", pair, answered),
        }
        for number, negative in enumerate(negatives, start=1):
            found[f"negative_{number}"] = self._look_up("passage", negative, answered)
        return found

    def _look_up(self, side: str, pair: np.ndarray, language: np.ndarray) -> list[str]:
        return list(self.tables[side][self.index.rows(pair, language).tolist()][side])


def _columns(batch: Batch) -> list[np.ndarray]:
    return [batch.pair, batch.question_language, batch.passage_language, *batch.negatives.T]


def scheduled(corpus: ParallelCorpus, schedule: Schedule) -> Dataset:
    """All rows of all batches of `schedule`, in order, as a train_dataset of anchors, positives and
    explicit negatives.

    Prompts are the trainer's own matter: its `prompts` takes these column names. Raises ValueError
    for a schedule that was not made from `corpus.index`, IndexError for one without steps."""
    if schedule.index is not corpus.index:
        raise ValueError("the schedule is of another corpus, expected one of corpus.index")
    texts = _Texts(corpus, schedule)
    rows = Dataset.from_dict({"row": np.arange(len(schedule) * texts.batch_size)})
    return rows.with_transform(texts)


class HybridBatchSampler(BatchSampler):
    """The trainer's `batch_sampler`: give it this class, and `scheduled(...)` as train_dataset.

    Raises ValueError for another data set, and where the ranks' batches do not make up the
    schedule's: per_device_train_batch_size times processes has to be its batch_size."""

    def __init__(self, dataset: Dataset, batch_size: int, drop_last: bool = False, **_):
        texts = dataset.format["format_kwargs"].get("transform")
        if not isinstance(texts, _Texts):
            raise ValueError("HybridBatchSampler reads no data set but what scheduled() returns")
        world = 1
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            world = torch.distributed.get_world_size()
        if batch_size * world != texts.batch_size:
            raise ValueError(
                f"per_device_train_batch_size={batch_size} on {world} processes makes batches of "
                f"{batch_size * world}, expected the schedule's batch_size={texts.batch_size}"
            )
        super().__init__(SequentialSampler(dataset), batch_size, drop_last)
