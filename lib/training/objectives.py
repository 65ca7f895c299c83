"""What may be added to a batch's InfoNCE where texts are parallel: rivals of batch composition.

The loss is InfoNCE + train.objective_weight x the objective, each a mean over the batch's rows. A
paper's (1 - a) InfoNCE + a X has the weight a / (1 - a), up to the learning rate. What is here
follows the ideas of its sources, not their whole recipes; each says what is left out.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from lib.encoder import Encoder, on_device
from lib.losses import info_nce
from lib.params import Train
from lib.sampler import Batch, PairIndex, Schedule, uniform
from lib.training import prompts
from lib.training.tokens import SIDES, Tokens

# The side of a row that is embedded in one more language; distil needs none in a step.
TRANSLATED = {"lakda": "question", "xlco": "passage"}
TRANSLATION = 2**20  # hashed after the seed: what a draw is for, beyond all of lib.sampler's
ENGLISH = "en"

# --- the objectives ----------------------------------------------------------------------------


def lakda(
    question: torch.Tensor, translation: torch.Tensor, passage: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Mean over rows of KL(P(translation) || P(question)): a question and its translation are to
    rank the batch's passages alike. P is the softmax of dot product / temperature over all B.

    question, translation, passage  [B, d] unit vectors, all of which have a gradient

    LaKDA (Yang, Jiang and Baldwin, MRL 2024, 2024.mrl-1.23). Kept: the direction of the divergence,
    the batch's passages as candidates, gradients on both sides. Otherwise: one further language a
    row is drawn, not all pairs of languages; and scores are divided by the temperature of InfoNCE,
    since cosines as they are give a nearly flat softmax, whose divergence hardly trains."""
    asked, translated = (
        F.log_softmax(side @ passage.T / temperature, dim=1) for side in (question, translation)
    )
    return F.kl_div(asked, translated, reduction="batchmean", log_target=True)


def xlco(passage: torch.Tensor, translation: torch.Tensor, temperature: float) -> torch.Tensor:
    """InfoNCE of passages and their translations, in both directions: of all translations in the
    batch a passage is to be nearest to its own, and the other way round.

    passage, translation  [B, d] unit vectors, all of which have a gradient

    XLCO, the cross-lingual contrast of InfoXLM (Chi et al., arXiv 2007.07834). Otherwise: negatives
    are the batch's, not a queue of a momentum encoder's. What MIMO calls XLCO contrasts questions
    with passages of another language: that is the arm `cross`."""
    return info_nce(passage, translation, temperature, symmetric=True)


def distil(question: torch.Tensor, passage: torch.Tensor, english: torch.Tensor) -> torch.Tensor:
    """Mean over rows and both texts of 1 - cosine to what the encoder, before its first step, made
    of the same text in English; of unit vectors that is half the squared distance.

    question, passage  [B, d] unit vectors
    english            [B, 2, d] unit vectors of the question and of the passage, without gradient

    The distillation of MIMO's second stage (Jang, Hong and Lim, arXiv 2605.31171), which has weight
    4 against its InfoNCE. Otherwise: the teacher is the initial encoder, not Qwen3-Embedding-8B, so
    there is no projection; and no first stage of distillation alone."""
    return (torch.stack([question, passage], dim=1) - english).square().sum(-1).mean() / 2


def added(
    p: Train,
    batch: Batch,
    question: torch.Tensor,
    passage: torch.Tensor,
    translation: torch.Tensor,
    english: np.ndarray | None,
) -> torch.Tensor:
    """What p.objective adds to a batch's loss, times its weight.

    question, passage  [B, d]; translation [B, d], the last of `rows`; english: see `teacher`"""
    if p.objective == "lakda":
        value = lakda(question, translation, passage, p.temperature)
    elif p.objective == "xlco":
        value = xlco(passage, translation, p.temperature)
    else:
        value = distil(question, passage, on_device(question.device, english[batch.pair]))
    return p.objective_weight * value


# --- the texts they need -----------------------------------------------------------------------


def rows(index: PairIndex, batch: Batch, p: Train) -> list[tuple[str, tuple]]:
    """(side, (rows int64, language numbers)) of all texts that a step embeds: those of its batch
    and, last, the translations [B] that p.objective needs."""
    found = [*prompts.rows(index, batch, p).items()]
    if side := TRANSLATED.get(p.objective):
        language = translated_into(index, batch, side, p.seed)
        found.append((side, (index.rows(batch.pair, language), language)))
    return found


def translated_into(index: PairIndex, batch: Batch, side: str, seed: int) -> np.ndarray:
    """int64 [B]: a language number for each row, drawn evenly from those in which its pair exists
    beside that of its question or passage (`side`).

    A function of (seed, step, pair) alone; no pair is twice in a batch. So it is the same on every
    rank, after a stop, and in every arm that shows the pair at that step."""
    own = getattr(batch, f"{side}_language")
    others = index.patterns[index.pattern[batch.pair]]
    others[np.arange(len(own)), own] = False
    place = np.floor(uniform(seed, TRANSLATION, batch.step, batch.pair) * others.sum(1))
    return (others.cumsum(1) <= place[:, None]).sum(1)


def teacher(encoder: Encoder, texts: Tokens, index: PairIndex, p: Train) -> np.ndarray | None:
    """float32 [P, 2, d]: what `encoder` makes of each pair's question and passage in English, zeros
    of pairs that no batch has; none but for distil.

    Found once, before the first step: for all pairs, so that bits do not depend on the steps asked
    for."""
    if p.objective != "distil":
        return None
    pairs, english = _english_rows(index)
    vectors = np.zeros((len(index), len(SIDES), encoder.width), np.float32)
    for place, side in enumerate(SIDES):
        vectors[pairs, place] = encoder.vectors(texts.take(side, english))
    return vectors


def check(index: PairIndex, p: Train) -> None:
    """Raises ValueError in one line for pairs without the translations that p.objective needs."""
    if p.objective and index.alone:
        raise ValueError(
            f"train.objective: {p.objective!r} needs translations, and these pairs are for arms "
            "without (no pair=, or prepare.parallel: false; expected '')"
        )
    if p.objective == "distil" and (lacks := _drawn(index) & ~_in_english(index)).any():
        raise ValueError(
            f"train.objective: 'distil' needs every pair in English, which {lacks.sum()} of "
            f"{_drawn(index).sum()} lack (expected 'lakda', 'xlco' or '')"
        )


def _drawn(index: PairIndex) -> np.ndarray:
    """bool [P]: pairs that batches may have."""
    return (index.patterns.sum(1) > 1)[index.pattern]


def _in_english(index: PairIndex) -> np.ndarray:
    """bool [P]: pairs that exist in English."""
    return index.patterns[:, np.array(index.languages) == ENGLISH].any(1)[index.pattern]


def _english_rows(index: PairIndex) -> tuple[np.ndarray, np.ndarray]:
    """Pairs int64 that batches may have, and the rows int64 of their English."""
    pairs = np.flatnonzero(_drawn(index))
    return pairs, index.rows(pairs, np.array(index.languages.index(ENGLISH)))


# --- what they cost ----------------------------------------------------------------------------


def counted(schedule: Schedule, texts: Tokens, p: Train) -> dict[str, int]:
    """Texts that p.objective takes beside those of the batches, and their tokens: `extra_` ones are
    in every step, with gradients, and among the run's `tokens`; `teacher_` ones are embedded once,
    before the first step, and are not. Empty without an objective."""
    if side := TRANSLATED.get(p.objective):
        lengths, batches = texts.lengths(side), list(schedule)
        tokens = sum(lengths[rows(schedule.index, b, p)[-1][1][0]].sum() for b in batches)
        return {"extra_texts": sum(len(b.pair) for b in batches), "extra_tokens": int(tokens)}
    if p.objective:
        english = _english_rows(schedule.index)[1]
        tokens = sum(texts.lengths(side)[english].sum() for side in SIDES)
        return {"teacher_texts": len(SIDES) * len(english), "teacher_tokens": int(tokens)}
    return {}
