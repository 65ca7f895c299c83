"""Batches of a Schedule in sentence-transformers' trainer, on one process or on many.

That trainer indexes the rows of one data set, while a cross-lingual row needs a question of one row
and a passage of another; and it hands whole batches of its sampler to the ranks in turn, so that a
sampler which decides on one batch at a time gives ranks batches of different kinds at one step.
Both are settled by order: `scheduled` is a data set whose row number `step * B + i` is row i of the
schedule's batch of that step, and HybridBatchSampler reads it from front to back in parts of what
one rank takes. Rank r of N then gets `schedule.batch(step).part(r, N)`, at every step. An epoch is
the schedule. A row is only its number, 8 bytes; its texts are looked up when a batch is asked for.

The trainer sends an eval_dataset through the same sampler, which reads whatever is not scheduled
in its own order. What the sampler cannot see: give the trainer this one data set to train on, not
a dict of several, and leave accelerator_config's split_batches off. Nothing here changes from epoch
to epoch, so it does not matter that accelerate hides set_epoch from samplers on several processes.

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

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from datasets import Dataset
from torch import distributed
from torch.utils.data import BatchSampler, SequentialSampler

from ..sampler import Batch, Schedule
from .pairs import Pairs

if TYPE_CHECKING:
    from ..corpus import ParallelCorpus


class _Texts:
    """Row numbers to texts: what the data set calls whenever rows of it are read."""

    def __init__(self, pairs: Pairs, schedule: Schedule):
        self.schedule, self.pairs = schedule, pairs
        self.batch_size = len(schedule.batch(0).pair)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.schedule) * self.batch_size

    def __call__(self, rows: dict[str, list[int]]) -> dict[str, list[str]]:
        """The columns of questions, those of passages and, with H explicit negatives of the
        schedule, negative_1 to negative_H."""
        step, row = np.divmod(np.asarray(rows["row"], np.int64), self.batch_size)
        steps, which = np.unique(step, return_inverse=True)
        batches = [self.schedule.batch(int(k)) for k in steps]
        columns = [np.stack(x)[which, row] for x in zip(*map(_columns, batches), strict=True)]
        pair, question_language, passage_language, *negatives = columns
        texts = self._look_up(self.pairs.questions, pair, question_language)
        texts |= self._look_up(self.pairs.passages, pair, passage_language)
        for number, negative in enumerate(negatives, start=1):
            [found] = self._look_up(self.pairs.passages, negative, passage_language).values()
            texts[f"negative_{number}"] = found
        return texts

    def _look_up(
        self, table: Dataset, pair: np.ndarray, language: np.ndarray
    ) -> dict[str, list[str]]:
        return table[self.pairs.index.rows(pair, language).tolist()]


def _columns(batch: Batch) -> list[np.ndarray]:
    return [batch.pair, batch.question_language, batch.passage_language, *batch.negatives.T]


def scheduled(pairs: Pairs | ParallelCorpus, schedule: Schedule) -> Dataset:
    """All rows of all batches of `schedule`, in order, as a train_dataset: questions, then passages
    in columns of their names (anchor and positive for a corpus), then explicit negatives.

    Prompts are the trainer's own matter: its `prompts` takes these column names. Raises ValueError
    for a schedule that was not made from `pairs.index`, IndexError for one without steps."""
    if schedule.index is not pairs.index:
        raise ValueError("the schedule is of another corpus, expected one of corpus.index")
    texts = _Texts(pairs if isinstance(pairs, Pairs) else _of_corpus(pairs), schedule)
    return Dataset.from_dict({"row": np.arange(len(texts))}).with_transform(texts)


def _of_corpus(corpus: ParallelCorpus) -> Pairs:
    """A corpus has its rows in the order of the index."""
    sides = [("question", "anchor"), ("passage", "positive")]
    tables = [corpus.rows.select_columns(a).rename_column(a, b) for a, b in sides]
    return Pairs(corpus.index, *tables)


class HybridBatchSampler(BatchSampler):
    """The trainer's `batch_sampler`: give it this class, and `scheduled(...)` as train_dataset.

    A data set that is not scheduled is read in its own order, as an eval_dataset should be, with a
    warning, since the trainer does not say which of the two it is. Raises ValueError for scheduled
    rows that were moved or left out, and where the ranks' batches do not make up the schedule's:
    per_device_train_batch_size times processes has to be its batch_size."""

    def __init__(self, dataset: Dataset, batch_size: int, drop_last: bool = False, **_: Any):
        texts = dataset.format["format_kwargs"].get("transform")
        if isinstance(texts, _Texts):
            _require_whole(dataset, texts, batch_size)
        else:
            warnings.warn(
                "HybridBatchSampler reads a data set that scheduled() has not made in its own "
                "order: fit for evaluation, not for training",
                stacklevel=2,
            )
        super().__init__(SequentialSampler(dataset), batch_size, drop_last)


def _require_whole(dataset: Dataset, texts: _Texts, batch_size: int) -> None:
    """Raises ValueError unless ranks that read `dataset` in batches follow the schedule."""
    if not np.array_equal(dataset.with_format("numpy")[:]["row"], np.arange(len(texts))):
        raise ValueError("rows of what scheduled() returned were moved or left out")
    world = distributed.get_world_size() if distributed.is_initialized() else 1
    if batch_size * world != texts.batch_size:
        raise ValueError(
            f"per_device_train_batch_size={batch_size} on {world} processes makes "
            f"batches of {batch_size * world}, expected the schedule's "
            f"batch_size={texts.batch_size}"
        )
