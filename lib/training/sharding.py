"""Blocks of an encoder in parts, one a rank: for models too big for one device.

With `train.shard` a rank has but a part of each block: weights, gradients, moments of AdamW (FSDP:
Zhao et al., arXiv 2304.11277; `fully_shard` of torch, as of accelerate). A block is put together
where it computes, and its gradients are added up over ranks as they are parted. What stands outside
of blocks (word vectors, last norm, heads, maps) each rank has whole. Numbers are those of ranks
that hold all of it, to float rounding, and so are files: a run may go on with it or without.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import distributed

from lib.params import Train
from lib.training import ranks
from lib.training.ranks import is_parted

TINY = 1e-6  # that torch adds to a norm before it divides by it


def put_in(model: torch.nn.Module, p: Train, device: torch.device) -> None:
    """Part the model's blocks, if p.shard says so; the parts are on this device.

    Raises ValueError in one line for one rank, or a model without blocks."""
    if not p.shard:
        return
    if ranks.world() == 1:
        raise ValueError("train.shard: True does not go with one rank (expected 2 or more)")
    if not (parted := blocks(model)):
        raise ValueError(f"train.shard: model {p.model!r} has no blocks (expected False)")
    from torch.distributed.fsdp import fully_shard

    mesh = distributed.init_device_mesh(device.type, (ranks.world(),))
    for block in parted:
        own = fully_shard(block, mesh=mesh)
        own.set_gradient_divide_factor(1.0)  # the sum over ranks, not the mean
        own.set_force_sum_reduction_for_comms(True)  # or a factor that gloo does not know
        _part_again(block)
    others = {x for x in model.parameters() if not is_parted(x)}
    fully_shard(model, mesh=mesh, ignored_params=others)  # has the next block fetched ahead


def _part_again(block: torch.nn.Module) -> None:
    """Have it parted after each forward. torch leaves that out within a backward, where chunks are
    made again (lib.training.packing), so that in the end all blocks were whole. One that is whole
    before is made again by itself (train.recompute), and its gradient is next."""
    parted: list[bool] = []

    def before(block: torch.nn.Module, _: tuple) -> None:
        parted.append(has_parts(block))

    def after(block: torch.nn.Module, *_: object) -> None:
        if parted.pop():
            block.reshard()

    block.register_forward_pre_hook(before, prepend=True)  # torch's own puts it together
    block.register_forward_hook(after)


def blocks(model: torch.nn.Module) -> list[torch.nn.Module]:
    """The outermost numbered modules: its layers, in order."""
    found: dict[str, torch.nn.Module] = {}
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in found)
        if name.rpartition(".")[2].isdigit() and not inside:
            found[name] = module
    return [*found.values()]


def has_parts(module: torch.nn.Module) -> bool:
    """Whether this rank has but a part of some of its weights."""
    return any(map(is_parted, module.parameters()))


# --- a step ------------------------------------------------------------------------------------


def even(encoder: torch.nn.Module, chunks: list[np.ndarray]) -> list[np.ndarray]:
    """Numbers of texts by chunk, with as many chunks on each rank where blocks are parted: all
    ranks have to put a block together equally often. They have equally many texts."""
    if not has_parts(encoder):
        return chunks
    chunks = [*chunks]
    for _ in range(max(ranks.collected(len(chunks))) - len(chunks)):
        largest = max(range(len(chunks)), key=lambda number: len(chunks[number]))
        chunks[largest : largest + 1] = np.array_split(chunks[largest], 2)
    return chunks


def clip(parameters: Iterable[torch.nn.Parameter], most: float) -> torch.Tensor:
    """Scale gradients so that their norm over all weights is `most` or less; the norm before."""
    weights = [p for p in parameters if p.grad is not None]
    parted = [p.grad.to_local() for p in weights if is_parted(p)]
    if not parted:
        return torch.nn.utils.clip_grad_norm_(weights, most)
    rest = [p.grad for p in weights if not is_parted(p)]
    square = torch.nn.utils.get_total_norm(parted).square()
    distributed.all_reduce(square)
    norm = (square + torch.nn.utils.get_total_norm(rest).square()).sqrt()
    torch._foreach_mul_(parted + rest, (most / (norm + TINY)).clamp(max=1.0))
    return norm


# --- whole tensors -----------------------------------------------------------------------------


@torch.no_grad()
def whole(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same, with those that are parted put together in the CPU's memory of the first rank; on
    others they are empty. All ranks call this."""
    found = {}
    for name, tensor in tensors.items():
        if is_parted(tensor):
            tensor = tensor.full_tensor()
            tensor = tensor.new_empty(0) if ranks.rank() else tensor.cpu()
        found[name] = tensor
    return found


def part(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Of a whole tensor, what a rank has of `like`."""
    if not is_parted(like):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    tensor = tensor.to(like.device)
    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)


@contextmanager
def gathered(encoder: torch.nn.Module) -> Iterator[None]:
    """Inside, the encoder is whole on the first rank, to be saved; the others wait for the end."""
    parted = {name: p for name, p in encoder.named_parameters() if is_parted(p)}
    for name, tensor in whole(parted).items():
        _put(encoder, name, torch.nn.Parameter(tensor, parted[name].requires_grad))
    yield
    for name, p in parted.items():
        _put(encoder, name, p)
    ranks.collected(None)


def _put(encoder: torch.nn.Module, name: str, p: torch.nn.Parameter) -> None:
    place, _, own = name.rpartition(".")
    setattr(encoder.get_submodule(place), own, p)
