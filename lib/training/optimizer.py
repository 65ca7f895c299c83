"""AdamW and its learning rate."""

from __future__ import annotations

import math

import torch

from lib.params import Train
from lib.training.ranks import is_parted


def learning_rate(params: Train, step: int) -> float:
    """Rate of step 0, 1, …: rises linearly over the first round(warmup * steps) steps to its peak,
    then falls to zero just after the last step (linear, cosine) or stays (constant).

    wsd: rises over warmup_steps, stays, and falls linearly in the last round(decay * steps) steps
    (Hu et al., arXiv 2404.06395): rates of two lengths agree until that of the shorter falls."""
    wsd = params.schedule == "wsd"
    rising = params.warmup_steps if wsd else round(params.warmup * params.steps)
    if step < rising:
        return params.learning_rate * (step + 1) / rising
    falls = params.leaves(params.steps) if wsd else rising
    if params.schedule == "constant" or step < falls:
        return params.learning_rate
    done = (step - falls) / (params.steps - falls)
    left = (1 + math.cos(math.pi * done)) / 2 if params.schedule == "cosine" else 1 - done
    return params.learning_rate * left


def adamw(encoder: torch.nn.Module, params: Train) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only: biases and layer norms are vectors.

    The fused kernel is deterministic, and on a CPU three times as fast as the others."""
    weights = [p for p in encoder.parameters() if p.requires_grad]
    parted = {False: [], True: []}  # one kernel takes no two kinds
    for p in weights:
        parted[is_parted(p)].append(p)
    groups = [
        {"params": [p for p in own if (p.ndim > 1) == matrix], "weight_decay": decay}
        for own in parted.values()
        for matrix, decay in ((True, params.weight_decay), (False, 0.0))
    ]
    return torch.optim.AdamW(groups, lr=params.learning_rate, fused=True)


def shrunk(params: Train, steps: int) -> float:
    """What the weight decay of so many steps multiplies a weight by that never has a gradient."""
    rates = (learning_rate(params, step) for step in range(steps))
    return math.prod(1 - rate * params.weight_decay for rate in rates)
