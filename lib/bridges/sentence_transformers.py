"""Batches of a Schedule in sentence-transformers' trainer, on one process or on many.

That trainer indexes the rows of one data set, while a cross-lingual row needs a question of one row
and a passage of another; and it hands whole batches of its sampler to the ranks in turn, so that a
sampler which decides on one batch at a time gives ranks batches of different kinds at one step.
Both are settled by order: `scheduled` is a data set whose row number `step * B + i` is row i of the
schedule's batch of that step, and HybridBatchSampler reads it from front to back in parts of what
one rank takes. Rank r of N then gets `schedule.batch(step).part(r, N)`, at every step. An epoch is
the schedule. A row is only its number, 8 bytes; its texts are looked up when a batch is asked for.

What it cannot see from there: give the trainer this one data set, not a dict of several, leave
accelerator_config's split_batches off, and validate with an evaluator (an eval_dataset would go
through the same sampler, which refuses it).

What that trainer's own resume_from_checkpoint does with it (sentence-transformers 6.2, transformers
5.23; each of these is a test in tests/test_sentence_transformers.py):

- Batches go on with the next one, in the middle of any epoch, on one process, on two, from two to
  one and from one to two, since the step number alone says where.
- On as many processes as before, weights end the same to the bit, dropout on (CPU, same build).
  On another number they end the same to rounding, but only without dropout.
- A checkpoint that lacks optimizer.pt, scheduler.pt or the file of random numbers is gone on from
  without a word, to other weights. From two processes to one that last file is never found.
- Another schedule is not noticed: its batches are taken from that step on. With ignore_data_skip
  the schedule begins anew.

lib.trainer has no scheduler state or random numbers to lose, and refuses a checkpoint without
optimizer state or of another schedule.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from datasets import Dataset
from torch.utils.data import BatchSampler, SequentialSampler

from lib.training import ranks

if TYPE_CHECKING:
    from lib.corpus import ParallelCorpus
    from lib.sampler import Batch, Schedule


class _Texts:
    """Row numbers to texts: what the data set calls whenever rows of it are read."""

    def __init__(self, corpus: ParallelCorpus, schedule: Schedule):
        self.schedule, self.index = schedule, corpus.index
        self.batch_size = len(schedule.batch(0).pair)
        self.tables = {s: corpus.rows.select_columns(s) for s in ("question", "passage")}

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.schedule) * self.batch_size

    def __call__(self, rows: dict[str, list[int]]) -> dict[str, list[str]]:
        """Columns anchor, positive and, with H explicit negatives, negative_1 to negative_H."""
        step, row = np.divmod(np.asarray(rows["row"], np.int64), self.batch_size)
        steps, which = np.unique(step, return_inverse=True)
        batches = [self.schedule.batch(int(k)) for k in steps]
        columns = [np.stack(x)[which, row] for x in zip(*map(_columns, batches), strict=True)]
        pair, question_language, passage_language, *negatives = columns
        texts = {
            "anchor": self._look_up("question", pair, question_language),
            "positive": self._look_up("passage", pair, passage_language),
        }
        for number, negative in enumerate(negatives, start=1):
            texts[f"negative_{number}"] = self._look_up("passage", negative, passage_language)
        return texts

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
    return Dataset.from_dict({"row": np.arange(len(texts))}).with_transform(texts)


class HybridBatchSampler(BatchSampler):
    """The trainer's `batch_sampler`: give it this class, and `scheduled(...)` as train_dataset.

    Raises ValueError for another data set or order of rows, and where the ranks' batches do not
    make up the schedule's: per_device_train_batch_size times processes has to be its batch_size."""

    def __init__(self, dataset: Dataset, batch_size: int, drop_last: bool = False, **_):
        texts = dataset.format["format_kwargs"].get("transform")
        if not isinstance(texts, _Texts) or not _in_order(dataset, len(texts)):
            raise ValueError("HybridBatchSampler reads no data set but what scheduled() returns")
        if batch_size * ranks.world() != texts.batch_size:
            raise ValueError(
                f"per_device_train_batch_size={batch_size} on {ranks.world()} processes makes "
                f"batches of {batch_size * ranks.world()}, expected the schedule's "
                f"batch_size={texts.batch_size}"
            )
        super().__init__(SequentialSampler(dataset), batch_size, drop_last)


def _in_order(dataset: Dataset, length: int) -> bool:
    """Whether no row was moved or left out."""
    return np.array_equal(dataset.with_format("numpy")[:]["row"], np.arange(length))
