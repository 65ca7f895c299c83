"""Language bias as other papers measure it, for encoders that are compared as they are (FIELD) and
for those of studies (AGNOSTIC).

Beside rank distance and own-language advantage of lib.metrics, whose mid-ranks and `Segments` are
used here too. All are of the pool of all languages, one value a question, NaN where a question
cannot say anything. docs/benchmarks.md has a row for each: formula, source, chance value, and when
it says nothing.

Left out: Lang-nDCG (arXiv 2605.07249), whose formula was not to be had; see `own_first` for LPR.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pandas as pd
from scipy.special import chdtrc

from lib.benchmark import Benchmark
from lib.metrics import Ranks, Segments, mid_places
from lib.search import Tile, language_columns, tiles

FIELD = {
    "own_first": "own language first",
    "tlr20": "TLR@20",
    "mrc10": "MRC@10",
    "peer": "PEER",
}  # column -> what tables call it
AGNOSTIC = {
    "strong": "strong alignment",
    "strong_each": "strong alignment, each passage",
    "own_first": FIELD["own_first"],
    "own_top10": "own language in top 10 / pool",
}  # column -> what tables call it; of studies too
BITEXT = {"bitext": "bitext accuracy"}  # the same, of lib.benchmarks.agnostic.bitext
BOUNDS = dict.fromkeys(FIELD, (0.0, 1.0)) | {"mrc10": (-1.0, 1.0)}
TLR_CUT = 20  # SHIFT's default
MRC_CUT = 10  # MIMO's default


def own_first(rank: np.ndarray, same: np.ndarray, segments: Segments) -> np.ndarray:
    """float64 [S]: whether the best ranked relevant candidate is in the question's language.

    `same` (bool [N]) marks those. Of relevant candidates tied at that rank each counts alike: the
    expectation over random orders, so equal scores for all give the chance value, the share of
    `same`. NaN without relevant candidates of both kinds. It asks what the Language Preference Rate
    of MLAIRE (arXiv 2605.07249) asks in words; that paper's formula was not to be had, so this has
    another name and is not to be set beside its figures."""
    best = rank == segments.spread(np.minimum.reduceat(rank, segments.starts))
    first, share = segments.sum(best & same) / segments.sum(best), segments.mean(same)
    return np.where((share > 0) & (share < 1), first, np.nan)


def target_recall(
    rank: np.ndarray, same: np.ndarray, segments: Segments, cut: float = TLR_CUT
) -> np.ndarray:
    """float64 [S]: TLR@cut, the share of the relevant candidates in other languages than the
    question's with rank <= cut; NaN without any.

    Target-Languages Recall, arXiv 2606.18801, section 4.3 (yjoonjang/SHIFT,
    src/shift/metrics.py)."""
    with np.errstate(invalid="ignore"):
        return segments.sum((rank <= cut) & ~same) / segments.sum(~same)


def peer(rank: np.ndarray, language: np.ndarray, segments: Segments) -> np.ndarray:
    """float64 [S]: PEER, the p value of "relevant candidates of all languages rank alike".

    H = (R - 1) sum_l R_l (m_l - m)^2 / sum_i (r_i - m)^2 over a question's R relevant candidates,
    R_l of them in language l with mean rank m_l; p from chi squared of (languages - 1) degrees of
    freedom; 1 where all ranks are equal. Yang et al., SIGIR 2024 (arXiv 2405.00978), as
    hltcoe/peer_measure computes it (`kruskal` in peer_measure/__init__.py) with all relevant
    candidates as one level of weight 1 and every candidate retrieved. It takes r in the whole list
    where Kruskal and Wallis rank the R candidates alone.

    NaN with one language (there: 1). NaN with one candidate a language as well: then H is R - 1
    whatever the ranks. language: int [N], of each candidate."""
    run = segments.spread(np.arange(len(segments.starts)))
    order = np.lexsort((language, run))
    cells = Segments.of(run[order], language[order])
    owner, mean = run[order][cells.starts], segments.mean(rank)
    between = cells.sizes * (cells.mean(rank[order]) - mean[owner]) ** 2
    groups = np.bincount(owner, minlength=len(mean))
    total = segments.sum((rank - segments.spread(mean)) ** 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        statistic = (segments.sizes - 1) * np.bincount(owner, between, len(mean)) / total
    p = np.where(total > 0, chdtrc(groups - 1, statistic), 1.0)
    return np.where((groups > 1) & (segments.sizes > groups), p, np.nan)


# ---- MRC: needs the candidates at the top and not the relevant ones alone ----


def noting_tops(scored: Iterable[Tile], tops: list[np.ndarray], cut: int = MRC_CUT) -> Iterator:
    """The tiles as they are; adds to `tops` the first `cut` candidates of each question, ascending
    by number, as they pass. Those tied over the end of the list are left out, whatever their order:
    so a list may be shorter, and it is empty where all scores are equal."""
    for first, scores in scored:
        bar = np.full(len(scores), np.iinfo(scores.dtype).min)
        if (width := scores.shape[1]) > cut:
            bar = np.partition(scores, width - cut - 1, axis=1)[:, width - cut - 1]
        row, column = np.nonzero(scores > bar[:, None])
        tops += np.split(column, np.searchsorted(row, np.arange(1, len(scores))))
        yield first, scores


def rank_correlation(scores: np.ndarray, top: np.ndarray) -> np.ndarray:
    """float64 [n]: mean over the other rows b of Spearman's correlation of rows a and b over the
    columns that are in `top` (bool [n, m]) of either. A pair without one (fewer than two columns,
    all tied) counts 0, so that every encoder has a value for the same questions. scores: whole
    numbers [n, m], n > 1."""
    one, other = np.triu_indices(len(scores), 1)
    pair, column = np.nonzero(top[one] | top[other])
    parts, places = Segments.of(pair), []
    for side in (one, other):
        place = mid_places(pair, scores[side[pair], column])
        places.append(place - parts.spread(parts.mean(place)))
    x, y = places
    table, found = np.zeros((len(scores), len(scores))), pair[parts.starts]
    size = np.sqrt(parts.sum(x * x) * parts.sum(y * y))
    table[one[found], other[found]] = parts.sum(x * y) / np.where(size > 0, size, 1)
    return (table + table.T).sum(axis=1) / (len(scores) - 1)


def mean_rank_correlation(
    benchmark: Benchmark, tops: Sequence[np.ndarray], vectors: Sequence[np.ndarray]
) -> np.ndarray:
    """float64 [Q]: of each question, how alike its translations order the candidates at the top
    (MRC@k: `rank_correlation` over the translations, which share question_id).

    Mean rank correlation of Yang et al., MRL 2024, as yjoonjang/MIMO computes it
    (src/mimo/evaluation/metrics.py, `compute_mrc`), there times 100 and without pairs that have no
    correlation. NaN of a question without translations.
    tops: of `noting_tops`. vectors: of questions and of candidates, as lib.search.tiles takes."""
    values = np.full(len(benchmark.questions), np.nan)
    for rows in benchmark.questions.groupby("question_id").indices.values():
        union = np.unique(np.concatenate([tops[row] for row in rows]))
        if len(rows) < 2:
            continue
        blocks = [block for _, block in tiles(vectors[0][rows], vectors[1][union])]
        top = np.stack([np.isin(union, tops[row]) for row in rows])
        values[rows] = rank_correlation(np.concatenate(blocks), top)
    return values


# ---- strong alignment ----


def noting_alignment(
    tiles: Iterable[Tile], benchmark: Benchmark, noted: list[np.ndarray]
) -> Iterator[Tile]:
    """The tiles as they come; `noted` gains of each `outscored` of its questions."""
    columns = language_columns(benchmark)
    for first, scores in tiles:
        noted.append(outscored(first, scores, benchmark, columns))
        yield first, scores


def outscored(
    first: int, scores: np.ndarray, benchmark: Benchmark, columns: Sequence[np.ndarray | slice]
) -> np.ndarray:
    """float64 [q]: of each question of a tile, the share of its relevant candidates in other
    languages that score higher than every irrelevant one in its own (equal is not higher).

    NaN without either kind. columns: of lib.search.language_columns."""
    ends = np.searchsorted(benchmark.question, [first, first + len(scores)])
    row, candidate = benchmark.question[slice(*ends)] - first, benchmark.candidate[slice(*ends)]
    language = benchmark.question_language[first : first + len(scores)]
    own = benchmark.candidate_language[candidate] == language[row]
    if own.all():  # large pools in one language are not copied for nothing
        return np.full(len(scores), np.nan)
    best = best_irrelevant(scores, language, columns, row[own], candidate[own])
    row, candidate = row[~own], candidate[~own]
    won = np.bincount(row, scores[row, candidate] > best[row], len(scores))
    with np.errstate(invalid="ignore"):
        each = won / np.bincount(row, minlength=len(scores))
    return np.where(np.isfinite(best), each, np.nan)


def best_irrelevant(
    scores: np.ndarray,
    language: np.ndarray,
    columns: Sequence[np.ndarray | slice],
    row: np.ndarray,
    candidate: np.ndarray,
) -> np.ndarray:
    """float64 [q]: the highest of each row of scores among the candidates of its language but the
    (row, candidate) given; -inf of none. language: int [q]."""
    relevant = np.zeros(scores.shape, bool)
    relevant[row, candidate] = True
    best, lowest = np.full(len(scores), -np.inf), np.iinfo(scores.dtype).min
    for x in np.unique(language):
        asked = np.flatnonzero(language == x)
        block = scores[:, columns[x]][asked]
        free = ~relevant[:, columns[x]][asked]
        top = np.where(free, block, lowest).max(1, initial=lowest)
        best[asked] = np.where(free.any(1), top, -np.inf)
    return best


# ---- from ranks to tables ----


def with_field(
    scores: pd.DataFrame,
    benchmark: Benchmark,
    ranks: Ranks,
    tops: Sequence[np.ndarray],
    vectors: Sequence[np.ndarray],
) -> pd.DataFrame:
    """Scores of lib.metrics.question_scores with the columns FIELD, NaN outside multi."""
    language, same, segments = _relevant(benchmark)
    columns = {
        "own_first": _whole(benchmark, own_first(ranks.pool, same, segments)),
        "tlr20": _whole(benchmark, target_recall(ranks.pool, same, segments)),
        "mrc10": mean_rank_correlation(benchmark, tops, vectors),
        "peer": _whole(benchmark, peer(ranks.pool, language, segments)),
    }
    return _in_multi(scores, columns)


def with_alignment(
    scores: pd.DataFrame, benchmark: Benchmark, ranks: Ranks, noted: Sequence[np.ndarray]
) -> pd.DataFrame:
    """Scores of lib.metrics.question_scores with the columns AGNOSTIC, NaN outside multi.

    strong       1 where every relevant candidate in another language outscores every irrelevant
                 one in the question's own, else 0: strong alignment of arXiv 2004.05484
    strong_each  the share of those candidates that do
    own_first    as in `own_first`
    own_top10    share of the question's language in its first 10, over its share of the pool
    noted        of `noting_alignment`, over all tiles"""
    _, same, segments = _relevant(benchmark)
    language, each = benchmark.question_language, np.concatenate(noted)
    pool = np.bincount(benchmark.candidate_language, minlength=len(benchmark.languages))
    with np.errstate(invalid="ignore"):
        share = pool[language] / pool.sum()
        top = ranks.top10[np.arange(len(language)), language] / share
    columns = {
        "strong": np.where(np.isnan(each), np.nan, each == 1),
        "strong_each": each,
        "own_first": _whole(benchmark, own_first(ranks.pool, same, segments)),
        "own_top10": np.where((share > 0) & (share < 1), top, np.nan),
    }
    return _in_multi(scores, columns)


def _relevant(benchmark: Benchmark) -> tuple[np.ndarray, np.ndarray, Segments]:
    """Of each relevant pair: the candidate's language, and whether it is the question's; the runs
    of pairs of one question."""
    language = benchmark.candidate_language[benchmark.candidate]
    same = language == benchmark.question_language[benchmark.question]
    return language, same, Segments.of(benchmark.question)


def _whole(benchmark: Benchmark, values: np.ndarray) -> np.ndarray:
    """float64 [Q]: values of those questions that have a relevant candidate; NaN of the others."""
    whole = np.full(len(benchmark.questions), np.nan)
    whole[np.unique(benchmark.question)] = values
    return whole


def _in_multi(scores: pd.DataFrame, columns: dict[str, np.ndarray]) -> pd.DataFrame:
    """The scores with further columns, float64 [Q] each, in the rows of multi; else NaN."""
    multi, question = scores["setting"] == "multi", scores["question"]
    found = {name: np.where(multi, values[question], np.nan) for name, values in columns.items()}
    return scores.assign(**found)
