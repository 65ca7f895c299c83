"""Retrieval quality and language bias from the ranks of the relevant candidates.

Everything is computed from one primitive, the *mid-rank*:

    rank = 1 + (candidates scored higher) + 0.5 * (other candidates scored the same)

A tied candidate counts half. This is the one rule for ties: it does not depend on the order of the
candidates, and an encoder that gives every candidate the same score stands in the middle of the
list, not at its top. Metrics take mid-ranks where textbooks take ranks; without ties the two agree
(and so do trec_eval's figures). Only the two measures that look at the outermost rank need more:
see `extremes`.

Questions have different numbers of relevant candidates, so functions here take flat arrays cut into
`Segments` (one a question, or one a question and language) and loop over nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from lib.benchmark import Benchmark

SETTINGS = ("mono", "cross", "multi")  # what reports are about
ALL_SETTINGS = (*SETTINGS, "one_target")
QUALITY = ("ap", "ap20", "hit1", "r1", "r10", "r100", "ndcg10")
BIAS = ("rank_distance", "rank_distance_ratio", "max_at_r", "own_language_advantage")
METRICS = (*QUALITY, *BIAS, "rank_distance_chance")
LABELS = {
    "ap": "mAP",
    "ap20": "mAP@20",
    "hit1": "hit@1",
    "r1": "R@1",
    "r10": "R@10",
    "r100": "R@100",
    "ndcg10": "nDCG@10",
    "rank_distance": "rank distance",
    "rank_distance_ratio": "rank distance / chance",
    "max_at_r": "Max@R",
    "own_language_advantage": "own-language advantage",
}
REFERENCES = {
    "random": "random",
    "oracle": "own-language oracle",
    "bm25_words": "BM25 words",
    "bm25_chars": "BM25 char n-grams",
}  # rankers that no training makes; what reports call them
CELL = ["question_language", "candidate_language"]
KEYS = ["setting", *CELL]


@dataclass(frozen=True, eq=False)
class Ranks:
    """Mid-ranks of a benchmark's N relevant pairs, and who fills the top of each question's list.

    own    float64 [N], among the candidates of the candidate's own language
    pool   float64 [N], among all candidates
    alone  float64 [N], among all candidates but the question's other relevant ones
    tied   float64 [N], how many of all candidates have its score, itself included
    top10  float32 [Q, L], share of each language in the question's first 10 (or all, if fewer)
           candidates; those tied at the last place share what room is left equally
    """

    own: np.ndarray
    pool: np.ndarray
    alone: np.ndarray
    tied: np.ndarray
    top10: np.ndarray


@dataclass(frozen=True, eq=False)
class Segments:
    """Cuts a flat array of `length` values into S consecutive, non-empty runs.

    starts  int64 [S], where each run begins
    """

    starts: np.ndarray
    length: int

    @classmethod
    def of(cls, *keys: np.ndarray) -> Segments:
        """Runs of equal keys; several keys are taken together. Equal keys must stand together."""
        new = np.ones(len(keys[0]), bool)
        new[1:] = np.any([key[1:] != key[:-1] for key in keys], axis=0)
        return cls(np.flatnonzero(new), len(new))

    @property
    def sizes(self) -> np.ndarray:
        """int64 [S]: values in each run."""
        return np.diff(self.starts, append=self.length)

    @property
    def place(self) -> np.ndarray:
        """int64 [N]: place of each value in its run, from 1."""
        return np.arange(1, self.length + 1) - self.spread(self.starts)

    def spread(self, values: np.ndarray) -> np.ndarray:
        """[N]: the run's value at each of its members."""
        return np.repeat(values, self.sizes)

    def sum(self, values: np.ndarray) -> np.ndarray:
        """float64 [S]: sum of each run."""
        return np.add.reduceat(values.astype(np.float64), self.starts)

    def mean(self, values: np.ndarray) -> np.ndarray:
        """float64 [S]: mean of each run."""
        return self.sum(values) / self.sizes


def mid_places(group: np.ndarray, value: np.ndarray) -> np.ndarray:
    """float64 [N]: place of each value among those of its group, ascending from 1.

    Equal values share the mean of their places (Kendall 1945, mid-ranks)."""
    order = np.lexsort((value, group))
    ties = Segments.of(group[order], value[order])
    places = np.empty(len(order))
    places[order] = ties.spread(ties.mean(Segments.of(group[order]).place))
    return places


# ---- quality: ranks ascend within each segment ----


def average_precision(rank: np.ndarray, segments: Segments, cut: float = np.inf) -> np.ndarray:
    """float64 [S]: AP = (1/R) sum_k [r_k <= cut] k / r_k, r_k the k-th smallest of the R ranks.

    Divides by the number of relevant candidates R, also with a cut, as trec_eval's `map` and
    `map_cut` do (Buckley and Voorhees 2000); sentence-transformers and XTREME divide by
    min(cut, R), which differs only where R > cut. With R = 1 it is the reciprocal rank."""
    return segments.mean(np.where(rank <= cut, segments.place / rank, 0.0))


def recall(rank: np.ndarray, segments: Segments, cut: float) -> np.ndarray:
    """float64 [S]: share of the R relevant candidates with rank <= cut (trec_eval `recall`).

    With R > 1, recall at 1 is at most 1/R: hit@1, whether it is over 0, is not capped."""
    return segments.mean(rank <= cut)


def ndcg(rank: np.ndarray, grade: np.ndarray, segments: Segments, cut: float) -> np.ndarray:
    """float64 [S]: DCG / ideal DCG, DCG = sum [r <= cut] grade / log2(1 + r).

    Linear gain (Jarvelin and Kekalainen 2002) and this discount as in trec_eval's `ndcg_cut`, not
    2^grade - 1. The ideal list has all relevant candidates by grade, and is cut alike."""
    run = segments.spread(np.arange(len(segments.starts)))
    best, place = grade[np.lexsort((-grade, run))], segments.place
    gained = np.where(rank <= cut, grade / np.log2(1 + rank), 0.0)
    ideal = np.where(place <= cut, best / np.log2(1 + place), 0.0)
    return segments.sum(gained) / segments.sum(ideal)


# ---- language bias: ranks of parallel candidates in the whole multilingual pool ----


def rank_distance(rank: np.ndarray, tied: np.ndarray, segments: Segments) -> np.ndarray:
    """float64 [S]: largest minus smallest rank of a question's R relevant candidates.

    Language bias of arXiv 2408.10536; without ties R - 1 is the least. NaN where R < 2: nothing to
    compare. Unsigned and growing with the pool, so read it with its chance value and beside
    `own_language_advantage`. Ties as in `extremes`: equal scores for all give the chance value."""
    smallest, largest = extremes(rank, tied, segments)
    return np.where(segments.sizes > 1, largest - smallest, np.nan)


def max_at_r(rank: np.ndarray, tied: np.ndarray, segments: Segments) -> np.ndarray:
    """float64 [S]: Max@R of arXiv 2604.05684: how deep one must read to find every relevant one."""
    return extremes(rank, tied, segments)[1]


def extremes(rank: np.ndarray, tied: np.ndarray, segments: Segments) -> tuple:
    """Expected smallest and largest rank of each segment, two float64 [S], ties in random order.

    t relevant candidates among m of equal score share a mid-rank, but in any order the outer two of
    them lie apart, by (m + 1)(t - 1)/(t + 1) in expectation: half of it goes to either side. Left
    out, a scorer that cannot tell candidates apart would look free of bias.
    `tied` [N] is m of each candidate."""
    ends = []
    for reduce, side in (np.minimum, -0.5), (np.maximum, 0.5):
        end = reduce.reduceat(rank, segments.starts)
        there = rank == segments.spread(end)
        count = segments.sum(there)
        ends.append(end + side * chance_rank_distance(count, segments.sum(tied * there) / count))
    return tuple(ends)


def chance_rank_distance(relevant: ArrayLike, pool: ArrayLike) -> np.ndarray:
    """Expected rank distance of a random order, (N + 1)(R - 1)/(R + 1); broadcasts.

    R of N places drawn at random cut the N + 1 gaps into R + 1 parts of equal expectation (order
    statistics of the discrete uniform distribution): maximum and minimum are R - 1 parts apart."""
    relevant, pool = np.asarray(relevant, np.float64), np.asarray(pool, np.float64)
    return (pool + 1) * (relevant - 1) / (relevant + 1)


def own_language_advantage(rank: np.ndarray, same: np.ndarray, segments: Segments) -> np.ndarray:
    """float64 [S]: mean ln rank of other-language relevant candidates minus same-language ones.

    `same` (bool) marks candidates in the question's language. Above 0 that language is preferred,
    0 on average where language plays no part; exp() of it is a ratio of ranks. NaN for a question
    without relevant candidates of both kinds."""
    log, other_count = np.log(rank), segments.sum(~same)
    same_count = segments.sum(same)
    with np.errstate(invalid="ignore"):
        return segments.sum(log * ~same) / other_count - segments.sum(log * same) / same_count


# ---- from ranks to tables ----


def question_scores(benchmark: Benchmark, ranks: Ranks) -> pd.DataFrame:
    """One row a question and setting (and candidate language), with every metric as float64.

    Columns: setting, question (int32 row of `benchmark.questions`), question_language,
    candidate_language ("*" in multi), and METRICS (bias is NaN outside multi). Settings:

    mono        the pool of the question's language
    cross       the pool of each other language
    multi       the pool of all languages, every relevant candidate counts
    one_target  the pool of all languages, only the relevant candidates of one language count; the
                question's other relevant candidates are taken out of the list

    A question with no relevant candidate in a setting has no row there. Raises
    ValueError if the ranks belong to another benchmark."""
    for name in ("own", "pool", "alone", "tied"):
        if len(getattr(ranks, name)) != len(benchmark.question):
            raise ValueError(
                f"ranks.{name} has {len(getattr(ranks, name))} values, but benchmark "
                f"{benchmark.name!r} has {len(benchmark.question)} relevant pairs"
            )
    language = benchmark.candidate_language[benchmark.candidate]
    pair = benchmark.question.astype(np.int64) * len(benchmark.languages) + language
    target = ranks.alone + mid_places(pair, ranks.pool) - 1
    parts = [
        _by_language(benchmark, pair, ranks.own, ("mono", "cross")),
        _multi(benchmark, ranks.pool, ranks.tied),
        _by_language(benchmark, pair, target, ("one_target", "one_target")),
    ]
    scores = pd.concat(parts, ignore_index=True)
    return scores.sort_values("setting", kind="stable", ignore_index=True)


def _by_language(benchmark: Benchmark, pair, rank, settings: tuple[str, str]) -> pd.DataFrame:
    """Rows of single-language relevance: one setting where languages agree, another elsewhere."""
    quality, key = _quality(pair, rank, benchmark.grade)
    question, language = np.divmod(key, len(benchmark.languages))
    setting = np.where(benchmark.question_language[question] == language, *settings)
    return _table(benchmark, setting, question, language).assign(**quality, **_no_bias())


def _multi(benchmark: Benchmark, rank: np.ndarray, tied: np.ndarray) -> pd.DataFrame:
    """Rows of the whole pool: quality and language bias."""
    quality, question = _quality(benchmark.question, rank, benchmark.grade)
    segments = Segments.of(benchmark.question)
    language = benchmark.candidate_language[benchmark.candidate]
    same = language == benchmark.question_language[benchmark.question]
    distance = rank_distance(rank, tied, segments)
    chance = chance_rank_distance(segments.sizes, len(benchmark.candidates))
    ends = [end.reduceat(language, segments.starts) for end in (np.minimum, np.maximum)]
    parallel = np.where(ends[0] < ends[1], 1.0, np.nan)  # bias is between languages
    bias = (
        distance * parallel,
        distance / np.maximum(chance, 1) * parallel,
        max_at_r(rank, tied, segments) * parallel,
        own_language_advantage(rank, same, segments),
        chance * parallel,
    )
    everywhere = np.full(len(question), len(benchmark.languages))
    return _table(benchmark, np.full(len(question), "multi"), question, everywhere).assign(
        **quality, **dict(zip(METRICS[len(QUALITY) :], bias, strict=True))
    )


def _quality(key: np.ndarray, rank: np.ndarray, grade: np.ndarray) -> tuple[dict, np.ndarray]:
    """QUALITY columns, one value a distinct key, and those keys, ascending."""
    order = np.lexsort((rank, key))
    rank, grade, segments = rank[order], grade[order], Segments.of(key[order])
    columns = (
        average_precision(rank, segments),
        average_precision(rank, segments, 20),
        np.ceil(recall(rank, segments, 1)),
        recall(rank, segments, 1),
        recall(rank, segments, 10),
        recall(rank, segments, 100),
        ndcg(rank, grade, segments, 10),
    )
    return dict(zip(QUALITY, columns, strict=True)), key[order][segments.starts]


def _no_bias() -> dict[str, float]:
    """Columns of the settings where bias is not defined."""
    return dict.fromkeys(METRICS[len(QUALITY) :], np.nan)


def _table(benchmark: Benchmark, setting, question, language) -> pd.DataFrame:
    """The key columns; `language` counts the candidates' languages, L standing for "*"."""
    names, question_language = [*benchmark.languages, "*"], benchmark.question_language[question]
    return pd.DataFrame(
        {
            "setting": pd.Categorical(setting, ALL_SETTINGS),
            "question": question.astype(np.int32),
            "question_language": pd.Categorical.from_codes(question_language, names),
            "candidate_language": pd.Categorical.from_codes(language, names),
        }
    )


def pair_means(scores: pd.DataFrame) -> pd.DataFrame:
    """Mean of every metric over the questions of each (setting, question, candidate language).

    Indexed by these three; `questions` counts them. NaN values are skipped."""
    groups = scores.groupby(KEYS, observed=True)
    return groups[list(METRICS)].mean().assign(questions=groups.size())


def summary(scores: pd.DataFrame) -> pd.DataFrame:
    """Macro mean of every metric by setting: over questions first, then over language pairs.

    Every language (mono, multi) or ordered pair of languages (cross, one_target) weighs the same,
    however many questions it has. `pairs` and `questions` count what went in."""
    means = pair_means(scores)
    groups = means.groupby("setting", observed=True)
    return (
        groups[list(METRICS)]
        .mean()
        .assign(pairs=groups.size(), questions=groups["questions"].sum())
    )
