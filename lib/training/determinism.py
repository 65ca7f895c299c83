"""What makes two runs the same to the bit: threads, kernels, random numbers."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from lib.sampler import Batch


@contextmanager
def reproducible(threads: int, device: str = "cpu") -> Iterator[None]:
    """Fixed thread number, deterministic kernels and random numbers of our own, then as before.

    Filling of uninitialised memory is left off: it guards against faulty kernels and costs time."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what deterministic cuBLAS needs
    guard = torch.utils.deterministic
    before = (
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        guard.fill_uninitialized_memory,
    )
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    guard.fill_uninitialized_memory = False
    try:
        with torch.random.fork_rng([torch.cuda.current_device()] if device == "cuda" else []):
            yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])
        guard.fill_uninitialized_memory = before[2]


def seed_dropout(device: str, seed: int, step: int, rank: int) -> None:
    """Seed what dropout draws from on a device: torch.manual_seed goes by all devices that there
    might be, which takes milliseconds."""
    number = dropout_seed(seed, step, rank)
    generator = torch.cuda if device == "cuda" else torch.default_generator
    generator.manual_seed(number)


def dropout_seed(seed: int, step: int, rank: int) -> int:
    """A seed of 63 bits for each (seed, step, rank)."""
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0] >> 1)


def checksum(batch: Batch) -> int:
    """CRC-32 of a batch's pairs, languages and negatives."""
    parts = (batch.pair, batch.question_language, batch.passage_language, batch.negatives)
    return zlib.crc32(b"".join(np.ascontiguousarray(part).tobytes() for part in parts))
