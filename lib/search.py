"""Exact search: where every relevant candidate ranks, whatever scores the candidates.

A scorer is an iterator of *tiles*, (number of the first question, whole-number scores [q, C]), for
consecutive questions from 0. Whole numbers, so that equal scores are equal and not almost so. One
tile at a time is held in memory. `relevant_ranks` turns tiles into the mid-ranks of `lib.metrics`;
an encoder, BM25, chance and an oracle differ only in their tiles.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from lib.benchmark import Benchmark
from lib.metrics import Ranks, mid_places

ROWS = 256  # questions a tile, at most
CELLS = 2**24  # scores a tile, at most
COLUMNS = 1024  # candidates a matrix product; bounds the float64 copies, not the result
GRID = 2.0**24  # steps of a unit vector's entries
SCALE = 1_000_000  # steps of a score
TOP = 10

Tile = tuple[int, np.ndarray]


def tile_rows(candidates: int) -> int:
    """Questions a tile, so that what a tile takes does not grow with the number of candidates."""
    return max(1, min(ROWS, CELLS // max(candidates, 1)))


def tiles(
    question_vectors: np.ndarray, candidate_vectors: np.ndarray, rows: int | None = None
) -> Iterator[Tile]:
    """Tiles of int32 scores rint(1e6 * cosine) of float vectors [Q, d] and [C, d].

    BLAS gives the same two vectors other last bits at another place of a matrix or with another
    number of threads. So unit vectors are rounded to multiples of 2^-24: in float64 their products
    (multiples of 2^-48) and every partial sum of them (below 2, by Cauchy-Schwarz) are exact,
    whatever the order of summation, and `rows`, the order of texts and the threads cannot change a
    score. The rounding moves a cosine by some 2e-8, less than float32 products would; the price is
    twice float32's work. Raises ValueError for vectors that differ in width, are not finite, or
    have length zero."""
    widths = [np.shape(vectors)[1:] for vectors in (question_vectors, candidate_vectors)]
    if len(widths[0]) != 1 or widths[0] != widths[1]:
        raise ValueError(
            f"vectors must be two tables [n, d] of equal d; got question vectors "
            f"{np.shape(question_vectors)}, candidates {np.shape(candidate_vectors)}"
        )
    candidates = _unit(candidate_vectors, "candidate", 0)
    rows = rows or tile_rows(len(candidates))
    for first in range(0, len(question_vectors), rows):
        block = _unit(question_vectors[first : first + rows], "question", first).astype(np.float64)
        scores = np.empty((len(block), len(candidates)), np.int32)
        for left in range(0, len(candidates), COLUMNS):
            product = block @ candidates[left : left + COLUMNS].T  # in float64, as the block
            product *= SCALE
            scores[:, left : left + COLUMNS] = np.rint(product, out=product)
        yield first, scores


def _unit(vectors, side: str, first: int) -> np.ndarray:
    """float32 rows of length 1 in multiples of 2^-24, which float32 holds exactly up to 1.

    Raises ValueError naming the first row that has no direction."""
    vectors = np.asarray(vectors, np.float64)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    if (bad := ~(np.isfinite(length) & (length > 0)).ravel()).any():
        raise ValueError(f"{side} vector {first + bad.argmax()} is zero or not finite")
    return (np.rint(vectors * (GRID / length)) / GRID).astype(np.float32)


def relevant_ranks(tiles: Iterable[Tile], benchmark: Benchmark) -> Ranks:
    """Exact mid-ranks of every relevant pair (1 + higher + half of the other equal scores).

    Sorts each tile language by language and finds each relevant score in every language's list by
    bisection: the cost hardly grows with the number of relevant candidates. Tiles are not changed.
    Raises ValueError if they do not hold exactly the benchmark's questions and candidates in order,
    or hold anything but whole numbers."""
    columns = language_columns(benchmark)
    wanted, languages = len(benchmark.questions), len(benchmark.languages)
    bounds = np.searchsorted(benchmark.question, np.arange(wanted + 1))
    own, pool, tied = np.empty((3, len(benchmark.question)))
    top10 = np.empty((wanted, languages), np.float32)
    done = 0
    for first, scores in tiles:
        _check_tile(first, scores, done, benchmark)
        done += len(scores)
        here = slice(bounds[first], bounds[done])
        row, candidate = benchmark.question[here] - first, benchmark.candidate[here]
        blocks = [_sorted(scores[:, chosen]) for chosen in columns]
        above, equal = _compared(blocks, row, scores[row, candidate])
        place = above + equal / 2 + 0.5  # itself is among the equal ones: half of it counts
        own[here] = place[benchmark.candidate_language[candidate], np.arange(len(row))]
        pool[here], tied[here] = above.sum(0) + equal.sum(0) / 2 + 0.5, equal.sum(0)
        top10[first:done] = _top_shares(blocks)
    if done != wanted:
        raise ValueError(f"scores end after question {done} of {wanted}")
    return Ranks(own, pool, pool - mid_places(benchmark.question, pool) + 1, tied, top10)


def language_columns(benchmark: Benchmark) -> list[np.ndarray | slice]:
    """For each language the columns of its candidates; a slice where they stand together."""
    columns = [
        np.flatnonzero(benchmark.candidate_language == language)
        for language in range(len(benchmark.languages))
    ]
    return [
        slice(rows[0], rows[-1] + 1) if len(rows) and rows[-1] - rows[0] == len(rows) - 1 else rows
        for rows in columns
    ]


def _sorted(scores: np.ndarray) -> np.ndarray:
    """A copy with each row ascending and contiguous (a row picked by index is neither)."""
    block = np.array(scores, order="C")
    block.sort(axis=1)
    return block


def _check_tile(first: int, scores: np.ndarray, expected: int, benchmark: Benchmark) -> None:
    """Raise ValueError unless the tile is the next one and fits the benchmark."""
    left, width = len(benchmark.questions) - expected, len(benchmark.candidates)
    if first != expected or len(scores) > left or scores.shape[1:] != (width,):
        raise ValueError(
            f"a tile holds scores {list(scores.shape)} from question {first} on; "
            f"expected [at most {left}, {width}] from question {expected} on"
        )
    if scores.dtype.kind not in "iu":
        raise ValueError(
            f"scores must be whole numbers so that ties are exact, not "
            f"{scores.dtype}: scale and round them first"
        )


def _compared(blocks: list[np.ndarray], row: np.ndarray, score: np.ndarray):
    """Two int64 [L, n]: members of row `row` of each block above the score, and equal to it."""
    below = np.stack([_count(block, row, score, np.less) for block in blocks])
    upto = np.stack([_count(block, row, score, np.less_equal) for block in blocks])
    return np.array([block.shape[1] for block in blocks])[:, None] - upto, upto - below


def _count(block: np.ndarray, row: np.ndarray, score: np.ndarray, compare: np.ufunc) -> np.ndarray:
    """int64 [n]: members m of row `row` of the ascending block with compare(m, score).

    Bisection for all n at once, by steps of halving powers of two."""
    width, flat = block.shape[1], block.ravel()
    count = np.zeros(len(row), np.int64)
    last = row.astype(np.int64) * width - 1  # flat position before the row's first member
    for power in reversed(range(width.bit_length())):
        reach = np.minimum(count + (1 << power), width)
        count = np.where(compare(flat[last + reach], score), reach, count)
    return count


def _top_shares(blocks: list[np.ndarray]) -> np.ndarray:
    """float64 [q, L]: each language's share of the first TOP members of all blocks together."""
    best = np.concatenate([block[:, -TOP:] for block in blocks], axis=1)
    size = min(TOP, best.shape[1])
    worst = np.partition(best, -size, axis=1)[:, -size]
    above, equal = _compared(blocks, np.arange(len(worst)), worst)
    room = size - above.sum(0)
    return ((above + equal * (room / equal.sum(0))) / size).T
