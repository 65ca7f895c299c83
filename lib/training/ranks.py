"""Several processes, or ranks, that share each batch: started, joined and kept in step here.

Each rank embeds its part of a batch; vectors are gathered, every rank computes the whole loss from
them, and the gradients of the parts are added up. So N ranks do what one does, to float rounding.
Without a group of processes everything here is the work of one rank, and costs nothing.
"""

from __future__ import annotations

import os
import pickle
import signal
import tempfile
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch import multiprocessing as mp

from lib import store


def rank() -> int:
    """Number of this process, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world() -> int:
    """How many processes there are."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def collected(value: Any) -> list[Any]:
    """What each rank gives, by rank, on all of them; nobody goes on before all have come here."""
    if world() == 1:
        return [value]
    values = [None] * world()
    distributed.all_gather_object(values, value)
    return values


def gathered(part: torch.Tensor) -> torch.Tensor:
    """[world, n, d]: the tensors [n, d] of all ranks, which have one shape.

    The gradient of `part` is what this rank finds for it and no sum over ranks: for losses that
    every rank computes whole."""
    return part[None] if world() == 1 else _Gathered.apply(part)


def is_parted(tensor: torch.Tensor) -> bool:
    """Whether this rank has but a part of it (lib.training.sharding): a DTensor, whose import takes
    its time."""
    return hasattr(tensor, "full_tensor")


def add_up(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Replace gradients by their sums over all ranks: the same bits on each. Those of parts are
    sums already."""
    if world() > 1:
        found = [p.grad for p in parameters if p.grad is not None]
        gradients = [g for g in found if not is_parted(g)]
        for work in [distributed.all_reduce(g, async_op=True) for g in gradients]:
            work.wait()


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx, part: torch.Tensor) -> torch.Tensor:
        whole = part.new_empty((world(), *part.shape))
        distributed.all_gather(list(whole), part.contiguous())
        return whole

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
        return gradient[rank()]


def join(device: str) -> None:
    """Enter the group that torchrun or accelerate started this process for, where one did."""
    if distributed.is_torchelastic_launched() and not distributed.is_initialized():
        _enter(device, int(os.environ["LOCAL_RANK"]), "env://")


def _enter(device: str, number: int, meeting: str, **place: int) -> None:
    """Join a group, with the GPU of that number. Ranks wait for one that validates, however long;
    for one that has died they do not, since its connections are closed."""
    if device == "cuda":
        torch.cuda.set_device(number)
    kind = "nccl" if device == "cuda" else "gloo"
    distributed.init_process_group(kind, meeting, timeout=timedelta(days=1), **place)


def start(count: int, device: str, work: Callable, *args) -> None:
    """Do work(*args) in `count` new processes of this machine, with a GPU each where the device is
    cuda, until all have ended. Raises what one of them raised, ValueError for too few GPUs.

    They end with this process, however it ends."""
    if device == "cuda" and torch.cuda.device_count() < count:
        raise ValueError(f"ranks is {count}, but there are {torch.cuda.device_count()} GPUs here")
    with tempfile.TemporaryDirectory() as place:
        member = (count, device, place, work, args)
        group = mp.start_processes(_member, member, count, join=False, start_method="spawn")
        try:
            while not group.join():
                pass
        except (mp.ProcessRaisedException, mp.ProcessExitedException) as failure:
            raise _cause(group.processes, Path(place)) or failure from None
        finally:
            for process in group.processes:
                process.kill()


def _member(number: int, count: int, device: str, place: str, work: Callable, args: tuple) -> None:
    """One process: joins the group and works. torch sends SIGINT where the parent ends, which must
    not be ignored, as it is below a shell's `&`, nor wait for a peer."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if not mp.parent_process().is_alive():  # it ended before torch could ask for that signal
        return
    try:
        _enter(device, number, f"file://{place}/meeting", rank=number, world_size=count)
        work(*args)
        distributed.destroy_process_group()
    except Exception as error:
        with store.atomic_file(Path(place) / f"error-{number}") as file:
            file.write_bytes(pickle.dumps(error))  # whole: the group may be ended meanwhile
        raise


def _cause(processes: list, place: Path) -> Exception | None:
    """What ended a group, if it is known: a kill from outside, or the error that one rank raised
    first. RuntimeError is what torch raises on ranks whose peer has gone, so others come first."""
    for number, process in enumerate(processes):
        if process.exitcode == -signal.SIGKILL:
            return RuntimeError(
                f"rank {number} of {len(processes)} was killed, as happens where memory runs out: "
                "lower chunk, batch_size or ranks"
            )
    errors = [pickle.loads(file.read_bytes()) for file in sorted(place.glob("error-*"))]
    others = [error for error in errors if not isinstance(error, RuntimeError)]
    return next(iter(others or errors), None)
