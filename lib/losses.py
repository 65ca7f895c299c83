"""Contrastive losses: what a batch of unit vectors is asked to do.

Layout of every score matrix here: a row is a question, a column a candidate passage. With in-batch
negatives column j is passage j, so the positive of row i lies on the diagonal; explicit negatives
follow as columns B + j * H + h. The sampler lets no pair, passage or group occur twice in a batch,
so nothing is masked but explicit negatives of the question's group, and what `columns` leaves out.
"""

from __future__ import annotations

from typing import get_args

import torch
import torch.nn.functional as F

from lib.params import Negatives

MODES = get_args(Negatives)
HARD = ("explicit", "both")  # modes with explicit negatives


def info_nce(
    question: torch.Tensor,
    passage: torch.Tensor,
    temperature: float,
    *,
    mode: str = "in_batch",
    most: int = 0,
    symmetric: bool = False,
    language: torch.Tensor | None = None,
    negatives: torch.Tensor | None = None,
    question_group: torch.Tensor | None = None,
    negative_group: torch.Tensor | None = None,
) -> torch.Tensor:
    """Mean over rows i of -log(exp s(q_i, p_i) / sum over candidates c of exp s(q_i, c)), where
    s is the dot product over temperature (van den Oord et al., arXiv 1807.03748).

    question, passage  [B, d] unit vectors; passage i, in language[i], is relevant for question i
    negatives          [B, H, d] unit vectors for the modes explicit and both, else None
    mode               the candidates of a row: all B passages (in_batch); of these, those in the
                       language of its own (in_language); its own and all B * H negatives
                       (explicit: Eq. 1 of arXiv 2408.10536 as printed); all of them (both)
    most               other rows' passages among them, at most (see `columns`); 0: no limit
    symmetric          mean of this loss and that of passages looking for their questions, whose
                       candidates are the B questions; where those of a row are all B passages too
    question_group     int [B], negative_group int [B, H]: a negative of the question's own group
                       is no candidate of that question

    Raises ValueError for arguments that contradict one another."""
    _check(question, passage, temperature, mode, most, symmetric, language, negatives)
    rows = torch.arange(len(question), device=question.device)
    scores = question @ passage.T / temperature
    parts = [scores] if mode != "explicit" else [scores.diagonal()[:, None]]
    if most or mode == "in_language":
        kept = columns(language if mode == "in_language" else torch.zeros_like(rows), most)
        parts = [scores.masked_fill(~kept, -torch.inf)]
    if mode in HARD:
        hard = question @ negatives.flatten(0, 1).T / temperature
        parts.append(_but_own_group(hard, question_group, negative_group))
    loss = F.cross_entropy(torch.cat(parts, dim=1), rows * (mode != "explicit"))
    return (loss + F.cross_entropy(scores.T, rows)) / 2 if symmetric else loss


def _but_own_group(scores, question_group, negative_group) -> torch.Tensor:
    if question_group is None:
        return scores
    return scores.masked_fill(question_group[:, None] == negative_group.flatten(), -torch.inf)


def columns(language: torch.Tensor, most: int = 0) -> torch.Tensor:
    """bool [B, B]: the columns of each row's softmax, its own and those of its language; if `most`,
    of these the first `most` that follow it, from the last row on to row 0.

    Rows of a batch come in random order, so the rows that follow are drawn already: alike on every
    rank and after a stop. And evenly: with or without `most`, a passage is a negative of as many
    questions as its own question has negatives."""
    rows = torch.arange(len(language), device=language.device)
    ahead = (rows[:, None] + rows) % len(rows)  # [i, d]: the row d places after i
    kept = language[ahead] == language[:, None]
    if most:
        kept &= kept.cumsum(1) <= most + 1
    return kept.gather(1, (rows - rows[:, None]) % len(rows))


def _check(question, passage, temperature, mode, most, symmetric, language, negatives) -> None:
    if mode not in MODES:
        raise ValueError(f"unknown negatives {mode!r}, expected one of {', '.join(MODES)}")
    hard = mode in HARD
    shapes = f"questions {tuple(question.shape)} and passages {tuple(passage.shape)}"
    lacks = f"with negatives={mode!r} {'lacks' if hard else 'takes no'}"
    for wrong, message in (
        (question.shape != passage.shape, f"{shapes} differ in shape, expected one each"),
        (not temperature > 0, f"temperature is {temperature}, expected more than 0"),
        (hard == (negatives is None), f"the loss {lacks} explicit negatives"),
        (mode == "in_language" and language is None, "in_language lacks the passages' language"),
        (most and hard, f"most={most} is of in-batch negatives, expected 0 with {mode!r}"),
        (symmetric and (most or mode not in ("in_batch", "both")),
         "symmetric needs in-batch negatives, expected negatives='in_batch' or 'both', most=0"),
    ):  # fmt: skip
        if wrong:
            raise ValueError(message)
