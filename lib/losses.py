"""Contrastive losses: what a batch of unit vectors is asked to do.

Layout of every score matrix here: a row is a question, a column a candidate passage. With in-batch
negatives column j is passage j, so the positive of row i lies on the diagonal; explicit negatives
follow as columns B + j * H + h. The sampler lets no pair, passage or group occur twice in a batch,
so nothing is masked but explicit negatives that share the question's group.
"""

from __future__ import annotations

from typing import get_args

import torch
import torch.nn.functional as F

from lib.params import Negatives

MODES = get_args(Negatives)


def info_nce(
    question: torch.Tensor,
    passage: torch.Tensor,
    temperature: float,
    *,
    mode: str = "in_batch",
    symmetric: bool = False,
    negatives: torch.Tensor | None = None,
    question_group: torch.Tensor | None = None,
    negative_group: torch.Tensor | None = None,
) -> torch.Tensor:
    """Mean over rows i of -log(exp s(q_i, p_i) / sum over candidates c of exp s(q_i, c)), where
    s is the dot product over temperature (van den Oord et al., arXiv 1807.03748).

    question, passage  [B, d] unit vectors; passage i is relevant for question i
    negatives          [B, H, d] unit vectors for the modes explicit and both, else None
    mode               the candidates of a row:
                       in_batch  all B passages
                       explicit  its own passage and all B * H negatives, but no other row's
                                 passage: Eq. 1 of arXiv 2408.10536 as printed
                       both      all B passages and all B * H negatives
    symmetric          mean of this loss and that of passages looking for their questions, whose
                       candidates are the B questions; not with explicit, which has no such columns
    question_group     int [B], negative_group int [B, H]: a negative of the question's own group
                       is no candidate of that question

    Raises ValueError for arguments that contradict one another."""
    _check(question, passage, temperature, mode, symmetric, negatives)
    rows = torch.arange(len(question), device=question.device)
    scores = question @ passage.T / temperature
    parts = [scores] if mode != "explicit" else [scores.diagonal()[:, None]]
    if mode != "in_batch":
        hard = question @ negatives.flatten(0, 1).T / temperature
        if question_group is not None:
            same = question_group[:, None] == negative_group.flatten()[None]
            hard = hard.masked_fill(same, -torch.inf)
        parts.append(hard)
    target = rows if mode != "explicit" else torch.zeros_like(rows)
    loss = F.cross_entropy(torch.cat(parts, dim=1), target)
    return (loss + F.cross_entropy(scores.T, rows)) / 2 if symmetric else loss


def _check(question, passage, temperature, mode, symmetric, negatives) -> None:
    if mode not in MODES:
        raise ValueError(f"unknown negatives {mode!r}, expected one of {', '.join(MODES)}")
    if question.shape != passage.shape:
        raise ValueError(
            f"questions {tuple(question.shape)} and passages {tuple(passage.shape)} "
            "differ in shape, expected one passage a question"
        )
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}, expected more than 0")
    if (negatives is None) != (mode == "in_batch"):
        wrong = "lacks" if negatives is None else "takes no"
        raise ValueError(f"the loss with negatives={mode!r} {wrong} explicit negatives")
    if symmetric and mode == "explicit":
        raise ValueError(
            "symmetric needs in-batch negatives, expected negatives='in_batch' or 'both'"
        )
