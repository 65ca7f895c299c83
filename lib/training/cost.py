"""What training takes, and what share of the machine's arithmetic it is."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

import numpy as np
import torch

from lib.training import quantised, ranks
from lib.training.maps import LanguageMaps

MATMUL = {"cpu": 1024, "cuda": 8192}  # side of the square matrices that are multiplied
TIMES = 5


@dataclass
class Cost:
    """What a run took, summed over its resumptions; work that a kill lost is not in it."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    validation_seconds: float = 0.0
    peak_memory_bytes: int = 0
    peak_gpu_memory_bytes: int = 0
    starts: int = 0


@dataclass
class Clock:
    """What this start has taken so far, on top of what was spent `before` it."""

    before: Cost = field(default_factory=Cost)
    validation_seconds: float = 0.0
    wall: float = field(default_factory=time.perf_counter)
    cpu: float = field(default_factory=time.process_time)

    def total(self) -> Cost:
        """That of all ranks together, each of which calls this; but seconds are the clock's, and
        peaks of memory those of the largest rank."""
        usage = (time.process_time() - self.cpu, *peaks())
        cpu, memory, gpu = zip(*ranks.collected(usage), strict=True)
        before = self.before
        return Cost(
            before.seconds + time.perf_counter() - self.wall,
            before.cpu_seconds + sum(cpu),
            before.validation_seconds + self.validation_seconds,
            max(before.peak_memory_bytes, *memory),
            max(before.peak_gpu_memory_bytes, *gpu),
            before.starts + 1,
        )

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """What is done inside is not counted: a branch has a clock of its own."""
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.wall += time.perf_counter() - wall
        self.cpu += time.process_time() - cpu


def peaks() -> tuple[int, int]:
    """Bytes that this process had at most in memory and on its GPU."""
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return memory, torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0


def mark(device: torch.device) -> float | torch.cuda.Event:
    """This moment: of a GPU, when it comes here in its work, which nobody waits for."""
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def seconds_between(first: float | torch.cuda.Event, second: float | torch.cuda.Event) -> float:
    """Seconds between two marks, of which a GPU has passed the second."""
    return second - first if isinstance(first, float) else first.elapsed_time(second) / 1000


def flops(encoder: torch.nn.Module) -> tuple[int, int]:
    """What a real token takes, trained on and embedded alone: 6 x and 2 x the parameters outside
    embedding tables (Kaplan et al., arXiv 2001.08361), of weights beside adapters 4 x, since they
    have no gradients of their own.

    Left out are attention scores, padding, what is computed twice, maps of languages, of which a
    text needs one and once, and lower layers that are cut off (lib.training.frozen)."""
    aside = {
        id(weight)
        for module in encoder.modules()
        if isinstance(module, torch.nn.Embedding | LanguageMaps)
        for weight in module.parameters()
    }
    weights = [p for p in encoder.parameters() if id(p) not in aside]
    more = quantised.uncounted(encoder)
    trained = sum((6 if p.requires_grad else 4) * p.numel() for p in weights) + 4 * more
    return trained, 2 * (sum(p.numel() for p in weights) + more)


def matmul_rate(device: torch.device, kind: torch.dtype) -> float:
    """Floating-point operations a second of a large matrix product here and now: the best of
    TIMES, with the threads that are set."""
    size = MATMUL[device.type]
    a, b = torch.rand(2, size, size, device=device).to(kind)
    seconds = []
    for _ in range(1 + TIMES):  # the first one warms up
        if device.type == "cuda":
            torch.cuda.synchronize()
        first = time.perf_counter()
        (a @ b)[0, 0].item()  # waits for a GPU
        seconds.append(time.perf_counter() - first)
    return 2 * size**3 / min(seconds[1:])


def table(
    cost: Cost,
    step_seconds: np.ndarray,
    pairs: int,
    tokens: int,
    slots: int,
    done: int,
    rate: float,
) -> dict[str, float]:
    """What cost.json says: `cost` itself; per step and a second of steps, without what happens
    between them; and the share of the arithmetic that a matrix product at the same precision does.

    step_seconds  float [steps]
    slots         token places computed, padding included
    done          floating-point operations of all steps
    rate          what all ranks could do in a second, from `matmul_rate`"""
    seconds = step_seconds.sum()
    a_second = {"pairs": pairs, "tokens": tokens}
    middle = np.percentile(step_seconds, (50, 90, 99)) if len(step_seconds) else np.zeros(3)
    return (
        asdict(cost)
        | {"slots": slots, "steps": len(step_seconds), **a_second, "flops": done}
        | {f"{name}_per_second": x / seconds if x else 0.0 for name, x in a_second.items()}
        | dict(zip(("step_p50", "step_p90", "step_p99"), middle.tolist(), strict=True))
        | {
            "padded_share": 1 - tokens / slots if tokens else 0.0,
            "matmul_flops_per_second": rate,
            "utilisation": done / seconds / rate if done else 0.0,
        }
    )
