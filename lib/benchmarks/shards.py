"""Exact dense search over collections that do not fit into memory.

MIRACL's English collection has 32.9 million passages: 25 GB of half-precision vectors of width 384.
So a collection is a sequence of input files (shards). Each is indexed (its ids, so that faulty data
are found before anything is encoded) and encoded into folders of its own, which count only when
they verify and were made from the same input: a kill loses one shard at most. The search reads the
vectors in pieces and keeps no candidates: metrics need only the ranks of the relevant ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from zlib import crc32

import numpy as np

from lib import store
from lib.search import ROWS, tiles

ID_BYTES = 128  # an id of some 20 characters in a Python set, with its share of the table

Read = Callable[[str], Iterator[tuple[str, str]]]


@dataclass(frozen=True)
class Shard:
    """An input file of a collection and what is made from it.

    file    the input, as messages show it; sha256 is that of its bytes
    folder  below it `ids` (ids.txt, a line a passage) and `vectors` (vectors.npy, float16 [n, d])
    first   row of its first passage in the collection
    size    its number n of passages
    """

    file: str
    sha256: str
    folder: Path
    first: int
    size: int

    def ids(self) -> Iterator[str]:
        """The id of each passage, in order."""
        with open(self.folder / "ids" / "ids.txt", encoding="utf-8", newline="\n") as lines:
            for line in lines:
                yield line[:-1]

    def vectors(self, first: int, last: int) -> np.ndarray:
        """float16 [last - first, d], mapped into memory for as long as the result is held."""
        return np.load(self.folder / "vectors" / "vectors.npy", mmap_mode="r")[first:last]


# --- making ------------------------------------------------------------------------------------


def index(
    files: Iterable[str],
    read: Read,
    folder: Path,
    sha256: Callable[[Path], str] = store.sha256,
) -> list[Shard]:
    """The shards of a collection, every input read to its end once and its ids written below
    `folder`; inputs that did not change are not read again. The files have different names.

    read    file -> (id, text) of its passages; ids have no white space
    sha256  of a file's bytes
    Raises ValueError for a file without passages, and what `read` raises."""
    shards: list[Shard] = []
    for file in files:
        digest, place = sha256(store.ROOT / file), Path(folder) / Path(file).name
        _made(place / "ids", {"input": digest}, partial(_write_ids, file=file, read=read))
        first = shards[-1].first + shards[-1].size if shards else 0
        size = store.read_json(place / "ids" / "size.json")
        shards.append(Shard(file, digest, place, first, size))
    return shards


def _write_ids(folder: Path, file: str, read: Read) -> None:
    size = 0
    with open(folder / "ids.txt", "w", encoding="utf-8", newline="\n") as out:
        for size, (name, _) in enumerate(read(file), 1):  # noqa: B007 the last one is kept
            out.write(name + "\n")
    if not size:
        raise ValueError(f"{file}: holds no passage")
    store.write_json(folder / "size.json", size)


def _made(folder: Path, made_from: dict, fill: Callable[[Path], None]) -> None:
    """Have `fill` make a folder unless it is whole and was made from just that."""

    def make() -> None:
        with store.atomic_folder(folder, {"made_from": made_from}) as new:
            fill(new)

    store.made(partial(store.verify, folder, made_from), make, say=lambda _: None)


def encode(
    shards: Sequence[Shard],
    read: Read,
    encode: Callable[[list[str]], np.ndarray],
    encoder: str,
    at_a_time: int,
    say: Callable[[str], None] = print,
) -> None:
    """Write the vectors of every shard that lacks them, or has them from another input or encoder.

    encode     texts -> float [n, d] of finite values; they are stored rounded to half precision,
               and that rounded vector, brought to length 1, is what is searched
    encoder    what tells this encoder from any other, e.g. the hash of its weights and settings
    at_a_time  most passages held in memory at once
    Raises ValueError naming the passage whose vector has no direction in half precision."""
    for shard in shards:

        def fill(new: Path, shard: Shard = shard) -> None:
            _write_vectors(new / "vectors.npy", shard, read, encode, at_a_time)
            say(f"{shard.file}: {shard.size:,} passages encoded")

        _made(shard.folder / "vectors", {"input": shard.sha256, "encoder": encoder}, fill)


def _write_vectors(path: Path, shard: Shard, read: Read, encode, at_a_time: int) -> None:
    """Append piece by piece: a mapped file's pages would stay in memory until it is closed."""
    passages, done, width = read(shard.file), 0, None
    with open(path, "wb") as out:
        while part := list(islice(passages, at_a_time)):
            vectors = _half(encode([text for _, text in part]), part, shard.file, width)
            if width is None:
                width = vectors.shape[1]
                header = {"descr": "<f2", "fortran_order": False, "shape": (shard.size, width)}
                np.lib.format.write_array_header_1_0(out, header)
            out.write(vectors.data)
            done += len(part)
    if done != shard.size:
        raise ValueError(f"{shard.file}: changed while it was read; start again")


def _half(vectors, part: list[tuple[str, str]], file: str, width: int | None) -> np.ndarray:
    """float16 [n, d] of the vectors of a part; ValueError where that cannot be searched."""
    vectors = np.asarray(vectors)
    if vectors.ndim != 2 or vectors.shape != (len(part), width or vectors.shape[1]):
        raise ValueError(
            f"{file}: the encoder gave vectors {list(vectors.shape)} for {len(part)} passages; "
            f"expected [{len(part)}, {width or 'd'}]"
        )
    with np.errstate(over="ignore"):
        half = np.ascontiguousarray(vectors, "<f2")
    if (bad := ~(np.isfinite(half).all(1) & half.any(1))).any():
        name = part[bad.argmax()][0]
        raise ValueError(f"{file}: passage {name!r}: its vector is zero or not finite as float16")
    return half


# --- ids ---------------------------------------------------------------------------------------


def repeated(shards: Sequence[Shard], memory_mib: float) -> str | None:
    """An id that the collection gives twice, if there is one.

    Compared exactly, in as many parts (by checksum) as keep one part's ids within memory_mib."""
    total = sum(shard.size for shard in shards)
    parts = math.ceil(total * ID_BYTES / _bytes(memory_mib))
    for part in range(parts):
        seen: set[str] = set()
        for shard in shards:
            for name in shard.ids():
                if parts == 1 or crc32(name.encode()) % parts == part:
                    if name in seen:
                        return name
                    seen.add(name)
    return None


def find(shards: Sequence[Shard], names: Collection[str]) -> dict[str, int]:
    """Row in the collection of each of the ids that occurs there."""
    wanted = frozenset(names)
    return {
        name: row
        for shard in shards
        for row, name in enumerate(shard.ids(), shard.first)
        if name in wanted
    }


def _bytes(memory_mib: float) -> float:
    if not memory_mib > 0:
        raise ValueError(f"memory_mib is {memory_mib} (expected more than 0)")
    return memory_mib * 2**20


# --- search ------------------------------------------------------------------------------------


def relevant_ranks(
    questions: np.ndarray,
    shards: Sequence[Shard],
    question: np.ndarray,
    passage: np.ndarray,
    memory_mib: float,
) -> np.ndarray:
    """float64 [N]: mid-rank of each relevant passage among all, as in lib.metrics.

    questions   float [Q, d]
    question    int [N], rows of `questions`, ascending
    passage     int [N], rows of the collection
    memory_mib  bounds what the search holds beside the questions and the relevant vectors, down to
                one passage at a time; less is slower, the ranks are the same
    Scores are those of lib.search.tiles, which do not depend on what stands around a vector:
    any cut of the collection gives the same whole numbers. Raises ValueError as `tiles` does."""
    limit = np.searchsorted(question, np.arange(len(questions) + 1))
    score = _relevant_scores(questions, _rows(shards, passage), question, limit)
    step = max(1, int(_bytes(memory_mib) // _candidate_bytes(questions.shape[1])))
    higher, same = np.zeros((2, len(question)), np.int64)
    for shard in shards:
        for first in range(0, shard.size, step):
            piece = shard.vectors(first, min(first + step, shard.size))
            for top, scores in tiles(questions, piece):
                for pair in range(limit[top], limit[top + len(scores)]):
                    row = scores[question[pair] - top]
                    higher[pair] += np.count_nonzero(row > score[pair])
                    same[pair] += np.count_nonzero(row == score[pair])
    return higher + same / 2 + 0.5  # itself is among the same: half of it counts


def _candidate_bytes(width: int) -> int:
    """What `tiles` holds for a candidate at most: its vector in float64 four times over while it is
    brought to length 1; then its scores, and while their product is formed those in float64."""
    return 32 * width + 12 * ROWS


def _rows(shards: Sequence[Shard], rows: np.ndarray) -> np.ndarray:
    """float16 [n, d]: vectors of some rows of the collection, mapped one by one."""
    number = np.searchsorted([shard.first for shard in shards], rows, side="right") - 1
    places = [(shards[n], row - shards[n].first) for n, row in zip(number, rows, strict=True)]
    return np.concatenate([np.array(shard.vectors(row, row + 1)) for shard, row in places])


def _relevant_scores(questions, vectors, question, limit) -> np.ndarray:
    """int32 [N]: score of each relevant pair; vectors [N, d] are those of its passages.

    limit  int [Q + 1]: the pairs of question q are limit[q] to limit[q + 1]"""
    values = np.empty(len(question), np.int32)
    for first in range(0, len(questions), ROWS):
        block = questions[first : first + ROWS]
        begin, end = limit[first], limit[first + len(block)]
        for _, scores in tiles(block, vectors[begin:end], ROWS):
            values[begin:end] = scores[question[begin:end] - first, np.arange(end - begin)]
    return values
