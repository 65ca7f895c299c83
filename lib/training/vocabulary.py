"""Only the word vectors that texts use, while training: in large vocabularies a small part."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from lib.benchmark import Benchmark
from lib.encoder import Encoder
from lib.training.tokens import Tokens


def used(encoder: Encoder, texts: Tokens, dev: Benchmark | None) -> np.ndarray:
    """Tokens, int64, of all texts that are trained on or validated with."""
    tokens = [texts.used]
    if dev is not None:
        tokens += encoder.tokenize(list(dev.questions["text"]), "question")
        tokens += encoder.tokenize(list(dev.candidates["text"]), "passage")
    return np.unique(np.concatenate(tokens))


def train_only(encoder: Encoder, used: np.ndarray) -> None:
    """Keep only the word vectors of these tokens, distinct int64, until `restore`; texts may hold
    no others. Tables that do more than look up stay whole, and so do frozen ones."""
    if encoder.lower is not None or not encoder.words.weight.requires_grad:
        return
    table = encoder.words
    if type(table) is torch.nn.Embedding and not (table.max_norm or table.scale_grad_by_freq):
        encoder.model.set_input_embeddings(UsedRows(table, used))


def restore(encoder: Encoder, factor: float) -> None:
    """Undo `train_only`: trained word vectors beside the others, which are scaled."""
    if isinstance(table := encoder.words, UsedRows):
        encoder.model.set_input_embeddings(table.whole(factor))


@contextmanager
def restored(encoder: Encoder, factor: float) -> Iterator[None]:
    """Inside, the table is whole, as `restore` makes it; then training may go on."""
    used = encoder.words
    restore(encoder, factor)
    try:
        yield
    finally:
        encoder.model.set_input_embeddings(used)


class UsedRows(torch.nn.Embedding):
    """Stands for a word table while training, with only those of its rows that texts use.

    All other rows would have no gradient, so that AdamW did nothing but shrink them, all by one
    factor; `whole` makes good for that. In a vocabulary of 250,000 they are most of a model."""

    def __init__(self, table: torch.nn.Embedding, used: np.ndarray):
        """used: distinct tokens int64."""
        rows = torch.from_numpy(used)
        place = torch.full((table.num_embeddings,), -1)  # no row: looking it up is an error
        place[rows] = torch.arange(len(used))
        padding = -1 if table.padding_idx is None else int(place[table.padding_idx])
        weight = table.weight.detach()[rows]
        super().__init__(*weight.shape, _weight=weight, padding_idx=None)
        self.padding_idx = None if padding < 0 else padding
        self.register_buffer("place", place, persistent=False)
        self._table = [table]  # in a list, or it would be a part of the model

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Word vectors of token numbers of the whole table."""
        return super().forward(self.place[ids])

    @torch.no_grad()
    def whole(self, factor: float) -> torch.nn.Embedding:
        """A table with the rows as they are now, all others as they were before times `factor`."""
        [table] = self._table
        weight, used = table.weight.to(self.weight), self.place >= 0
        weight = weight * factor
        weight[used] = self.weight[self.place[used]]
        kept = {"padding_idx": table.padding_idx, "sparse": table.sparse}
        return torch.nn.Embedding(*weight.shape, _weight=weight, **kept)
