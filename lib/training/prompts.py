"""Questions that say what is wanted: one prompt where the answer is in their own language, another
where it is not.

With `train.mono_prompt` and `train.cross_prompt` a question has the one or the other by the row it
is in: all of a batch alike in hybrid arms, row by row in mix. Where one is empty, its questions
have the encoder's own prompt. An encoder that learns what they say can be told at test which
passages to prefer: `prompt` of a benchmark stands before its questions.

A question is known by its row in the corpus, and its prompt by how far beyond: of N rows, N + r is
row r with mono_prompt and 2N + r with cross_prompt. Each prompt's questions lie in a folder of
their own beside the corpus, where every run with this prompt finds them; passages are there once.
Where lower layers are frozen, states are computed beforehand of those questions alone that the run
will ask: with several prompts, those of all would be many times as much.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from lib.training.tokens import Tokens, batch_rows, tokenized

if TYPE_CHECKING:
    from lib.corpus import ParallelCorpus
    from lib.encoder import Encoder
    from lib.params import Train
    from lib.sampler import Batch, PairIndex, Schedule

Rows = dict[str, tuple[np.ndarray, np.ndarray]]


@contextmanager
def asking(encoder: Encoder, prompt: str) -> Iterator[None]:
    """Inside, questions have this prompt; an empty one changes nothing."""
    if not prompt:
        yield
        return
    own = encoder.settings
    encoder.settings = replace(own, question_prompt=prompt)
    try:
        yield
    finally:
        encoder.settings = own


def rows(index: PairIndex, batch: Batch, p: Train) -> Rows:
    """As `batch_rows`, with each question's row as far beyond the corpus as its prompt says."""
    found = batch_rows(index, batch)
    if p.mono_prompt or p.cross_prompt:
        row, language = found["question"]
        every = index.first_row[-1] + index.patterns[index.pattern[-1]].sum()
        kind = np.where(batch.question_language == batch.passage_language, 1, 2)
        found["question"] = row + kind * every, language
    return found


def texts(
    corpus: ParallelCorpus, encoder: Encoder, p: Train, schedule: Schedule
) -> Tokens | Prompted:
    """Token numbers of all texts that the run may show, made where they are not there."""
    own = tokenized(corpus, encoder)
    if not (p.mono_prompt or p.cross_prompt):
        return own
    kinds = [own]
    for prompt in (p.mono_prompt, p.cross_prompt):
        with asking(encoder, prompt):
            kinds.append(tokenized(corpus, encoder, ("question",)) if prompt else own)
    return Prompted(kinds, schedule, p)


class Prompted:
    """What Tokens has, of questions with three prompts: the encoder's own, mono and cross."""

    def __init__(self, kinds: list[Tokens], schedule: Schedule, p: Train):
        self._kinds, self._schedule, self._params = kinds, schedule, p
        self._rows = len(kinds[0].lengths("question"))
        self.used = np.unique(np.concatenate([texts.used for texts in kinds]))

    @property
    def truncated_share(self) -> float:
        """Share of the texts that were cut, each prompt's counted."""
        kinds = {id(texts): texts for texts in self._kinds}.values()
        return sum(texts.truncated for texts in kinds) / sum(texts.texts for texts in kinds)

    @cached_property
    def _asked(self) -> np.ndarray:
        """The distinct rows of all questions of the schedule."""
        index = self._schedule.index
        every = [rows(index, batch, self._params)["question"][0] for batch in self._schedule]
        return np.unique(np.concatenate(every))

    def ahead(self, side: str) -> np.ndarray:
        """int64: rows of which everything may be computed before the first step: every passage, and
        the questions that will be asked."""
        return self._asked if side == "question" else self._kinds[0].ahead(side)

    def lengths(self, side: str) -> np.ndarray:
        """int64 [3 x rows, of passages rows]: how many tokens each text has."""
        kinds = self._kinds if side == "question" else self._kinds[:1]
        return np.concatenate([texts.lengths(side) for texts in kinds])

    def take(self, side: str, rows: np.ndarray) -> list[np.ndarray]:
        """Token numbers int32 of these rows."""
        if side != "question":
            return self._kinds[0].take(side, rows)
        kind, row = np.divmod(rows, self._rows)
        found = [iter(texts.take(side, row[kind == n])) for n, texts in enumerate(self._kinds)]
        return [next(found[n]) for n in kind.tolist()]
