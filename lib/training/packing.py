"""Token lists to vectors with a gradient: little padding, and as much memory as one chunk needs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint

from lib.encoder import Encoder, on_device
from lib.training import sharding

# On a CPU: what a further forward costs, as a share of the batch's tokens, weighed against padding,
# and how many padding tokens there may be for a real one.
CHARGE, PADDING = 0.04, 0.1
# A GPU waits for its launches: those of a layer, forward and backward, take as long as the tokens
# of LAUNCHED / width ** 2 (H200, bf16; LOG.md), so that padding is the cheaper thing.
LAUNCHED = 6.5e9


def embed(encoder: Encoder, token_lists: Sequence[np.ndarray], chunk: int = 0) -> torch.Tensor:
    """Unit vectors [n, d] with gradient, in the order given.

    chunk  0, or how many texts are in memory at a time: activations are dropped, and computed
           again when the gradient of the vectors is known, with the same dropout. So a loss over
           any number of texts has its exact gradient (GradCache: Gao et al., arXiv 2101.06983) in
           the memory of one chunk, at the price of another forward.

    The word vectors of the whole batch are looked up once: else every chunk would add a dense
    gradient of the size of the vocabulary."""
    length = np.array([len(tokens) for tokens in token_lists])
    rows, places = encoder.looked_up(token_lists)
    chunks = sharding.even(encoder, _chunks(encoder, length, chunk))
    forward = partial(_twice, encoder) if chunk else encoder
    vectors = [forward(*encoder.padded([places[i] for i in part]), rows) for part in chunks]
    back = on_device(encoder.device, np.argsort(np.concatenate(chunks)))
    return torch.cat(vectors).index_select(0, back)


def places(encoder: Encoder, length: np.ndarray, chunk: int) -> int:
    """Token places that `embed` computes for texts of these lengths int [n]."""
    rounded = encoder.rounded(length)
    return int(sum(len(part) * rounded[part].max() for part in _chunks(encoder, length, chunk)))


def _chunks(encoder: Encoder, length: np.ndarray, size: int) -> list[np.ndarray]:
    """Numbers of texts to pad alike, at most `size` together (0: any number)."""
    rounded = encoder.rounded(length)
    if encoder.device.type == "cuda":
        wholes = chunked(rounded, LAUNCHED / encoder.width**2, np.inf)
    else:
        wholes = chunked(rounded, CHARGE * rounded.sum(), PADDING)
    return [part for whole in wholes for part in _cut(whole, size)]


def chunked(length: np.ndarray, charge: float, padding: float) -> list[np.ndarray]:
    """Texts, by their length in tokens int [n], as chunks to pad alike: numbers of texts, shorter
    ones first.

    charge   what a further chunk costs, in tokens; halved until the next holds
    padding  most padding tokens for a real one"""
    order = np.argsort(length, kind="stable")
    distinct, count = np.unique(length, return_counts=True)
    until = np.concatenate([[0], np.cumsum(count)])
    cuts, padded = _cheapest(distinct, until, charge)
    while padded > (1 + padding) * length.sum():
        charge /= 2
        cuts, padded = _cheapest(distinct, until, charge)
    return np.split(order, cuts)


def _cheapest(distinct: np.ndarray, until: np.ndarray, charge: float) -> tuple[list[int], int]:
    """Where to cut texts sorted by length, so that padded tokens plus `charge` a chunk are least,
    and how many padded tokens that gives: dynamic programming over the distinct lengths."""
    least, begin = np.zeros(len(until)), np.zeros(len(until), int)
    for end, longest in enumerate(distinct, start=1):
        cost = least[:end] + (until[end] - until[:end]) * longest
        begin[end] = cost.argmin()
        least[end] = cost.min() + charge
    cuts, end = [], begin[-1]
    while end:
        cuts, end = [until[end], *cuts], begin[end]
    return cuts, round(least[-1] - charge * (len(cuts) + 1))


def _cut(texts: np.ndarray, size: int) -> list[np.ndarray]:
    """Pieces of at most `size` texts; 0: all in one."""
    return np.split(texts, range(size, len(texts), size)) if size else [texts]


def _twice(encoder: Encoder, ids: torch.Tensor, mask: torch.Tensor, rows: torch.Tensor):
    """Its vectors, forgetting how they came about until their gradient is there.

    Reentrant, for the other kind keeps the graph's empty shell: .7 MB a chunk of 12 layers. But
    that takes parameters into account only where an input wants a gradient, so `rows` has to."""
    return checkpoint(encoder, ids, mask, rows.requires_grad_(), use_reentrant=True)
