"""Language bias as other papers measure it: by hand, slow references, properties, chance."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2, spearmanr
from test_metrics import benchmark_of, parallel, random_case

from lib.analysis import bias
from lib.analysis.sums import summed
from lib.benchmark import Benchmark
from lib.metrics import Segments, question_scores
from lib.search import relevant_ranks, tiles

SEEDS = st.integers(0, 2**32 - 1)


def one(*values):
    """A single question's values, and its segment."""
    return np.array(values), Segments(np.array([0]), len(values))


def field(benchmark, vectors):
    """Per-question scores with the measures of this module, of vectors of both sides."""
    tops = []
    ranks = relevant_ranks(bias.noting_tops(tiles(*vectors), tops), benchmark)
    return bias.with_field(question_scores(benchmark, ranks), benchmark, ranks, tops, vectors)


# --- by hand -----------------------------------------------------------------------------------


def test_own_first_by_hand():
    """The best rank decides; a tie of three, one of them the question's, is a third; without
    either kind there is nothing to say."""
    same = np.array([True, False, False])
    for ranks, wanted in (
        ((1, 2, 3), 1.0),
        ((2, 1, 3), 0.0),
        ((2, 2, 2), 1 / 3),
        ((1.5, 1.5, 9), 0.5),
    ):
        rank, segments = one(*ranks)
        assert bias.own_first(rank, same, segments) == pytest.approx(wanted)
    for same in ([True] * 3, [False] * 3):
        assert np.isnan(bias.own_first(*one(1, 2, 3)[:1], np.array(same), segments)).all()


def test_target_recall_by_hand():
    """Of three passages in other languages, ranks 2, 20 and 21, two are among the first 20."""
    rank, segments = one(1.0, 2.0, 20.0, 21.0)
    same = np.array([True, False, False, False])
    assert bias.target_recall(rank, same, segments) == pytest.approx(2 / 3)
    assert np.isnan(bias.target_recall(rank, np.ones(4, bool), segments)).all()


def test_peer_by_hand():
    """Two languages, ranks 1, 2 against 3, 6: mean 3, sums of squares between 9 and in all 14;
    H = 3 * 9 / 14 with one degree of freedom, whose p value is erfc(sqrt(H / 2))."""
    rank, segments = one(1.0, 3.0, 2.0, 6.0)
    language = np.array([4, 7, 4, 7])
    [p] = bias.peer(rank, language, segments)
    assert p == pytest.approx(math.erfc(math.sqrt(27 / 28)))
    [even] = bias.peer(one(1.0, 4.0, 2.0, 3.0)[0], np.array([1, 1, 2, 2]), segments)
    assert even == 1.0  # mean rank 2.5 in both
    assert bias.peer(np.full(4, 5.0), language, segments) == 1.0  # one tie of all


@given(SEEDS, st.integers(2, 8))
@settings(max_examples=20, deadline=None)
def test_peer_says_nothing_of_one_passage_a_language(seed, languages):
    """H is R - 1 then, whatever the ranks, as the formula alone shows; nor of one language."""
    rank = np.random.default_rng(seed).permutation(99)[:languages] + 1.0
    _, segments = one(*rank)
    assert np.isnan(bias.peer(rank, np.arange(languages), segments)).all()
    assert np.isnan(bias.peer(rank, np.zeros(languages), segments)).all()
    assert slow_peer(rank, np.arange(languages)) == pytest.approx(
        chi2.sf(languages - 1, languages - 1)
    )


def test_rank_correlation_by_hand():
    """Three questions, columns 0 to 3, tops {0, 1}, {0, 1}, {2, 3}. First and second: over 0 and 1,
    in the same order, 1. First and third: over all four, 4 3 2 1 against 1 2 3 4, -1. Second and
    third: 4 3 1 2 against 1 2 3 4, d = 3, 1, 2, 2: 1 - 6 * 18 / 60 = -.8."""
    scores = np.array([[40, 30, 20, 10], [40, 30, 10, 20], [1, 2, 3, 4]])
    top = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1]], bool)
    found = bias.rank_correlation(scores, top)
    assert found == pytest.approx([(1 - 1) / 2, (1 - 0.8) / 2, (-1 - 0.8) / 2])
    alone = bias.rank_correlation(scores[:2], np.array([[1, 0, 0, 0]] * 2, bool))
    assert (alone == 0).all()  # one column has no order


def test_tops_by_hand():
    """The best two; of a tie over the end of the list none; everything of a shorter pool."""

    def tops(rows, cut):
        found = []
        list(bias.noting_tops([(0, np.array(rows, np.int32))], found, cut))
        return [list(x) for x in found]

    assert tops([[5, 9, 7, 1], [5, 9, 5, 1], [3, 3, 3, 3], [9, 5, 9, 1]], 2) == [
        [1, 2],
        [1],
        [],
        [0, 2],
    ]
    assert tops([[5, 9]], 2) == [[0, 1]]


# --- slow references ---------------------------------------------------------------------------


def slow_peer(rank, language):
    """As the paper's package computes it, with loops: one level, all candidates retrieved."""
    groups = [[r for r, k in zip(rank, language, strict=True) if k == x] for x in {*language}]
    mean = sum(rank) / len(rank)
    between = sum(len(g) * (sum(g) / len(g) - mean) ** 2 for g in groups)
    total = sum((r - mean) ** 2 for r in rank)
    return float(chi2.sf((len(rank) - 1) * between / total, len(groups) - 1))


def pairs_of(benchmark, ranks):
    """For each question: ranks of its relevant candidates, and (name, is it the question's)."""
    for q in sorted({*benchmark.question.tolist()}):
        here = benchmark.question == q
        names = benchmark.candidates["language"].to_numpy()[benchmark.candidate[here]]
        yield q, ranks.pool[here], names, names == benchmark.questions["language"].iloc[q]


@given(SEEDS, st.sampled_from([None, 3]))
@settings(max_examples=30, deadline=None)
def test_against_slow_references(seed, levels):
    """Question by question, with ties and without."""
    benchmark, scores = random_case(seed, levels=levels, share=0.3)
    ranks = relevant_ranks([(0, scores)], benchmark)
    tops, vectors = [np.empty(0, int)] * len(scores), (np.eye(1), np.eye(1))
    table = bias.with_field(question_scores(benchmark, ranks), benchmark, ranks, tops, vectors)
    multi = table[table["setting"] == "multi"].set_index("question")
    assert table.loc[table["setting"] != "multi", list(bias.FIELD)].isna().all(axis=None)
    for q, rank, names, same in pairs_of(benchmark, ranks):
        row, both = multi.loc[q], 0 < same.sum() < len(same)
        best = same[rank == rank.min()]
        assert row["own_first"] == pytest.approx(best.mean() if both else np.nan, nan_ok=True)
        far = rank[~same]
        recall = (far <= 20).mean() if len(far) else np.nan
        assert row["tlr20"] == pytest.approx(recall, nan_ok=True)
        if 1 < len({*names}) < len(names) and len({*rank}) > 1:
            assert row["peer"] == pytest.approx(slow_peer(rank, names))
        elif len({*names}) in (1, len(names)):
            assert np.isnan(row["peer"])


def translated(questions, candidates, seed, width=6):
    """Questions in three languages that share ids, candidates of three languages, and vectors."""
    rng = np.random.default_rng(seed)
    asked, found = list("abc") * questions, rng.choice(list("abc"), candidates)
    plain = benchmark_of(asked, found, np.ones((len(asked), candidates), int))
    ids = np.repeat(np.arange(questions), 3).astype(str)
    table = plain.questions.assign(question_id=ids)
    benchmark = Benchmark.from_pairs("t", table, plain.candidates, plain.question, plain.candidate)
    return benchmark, (rng.normal(size=(len(asked), width)), rng.normal(size=(candidates, width)))


@given(SEEDS)
@settings(max_examples=15, deadline=None)
def test_mrc_against_spearman(seed):
    """Pair by pair with scipy, on tie-free cosines."""
    benchmark, vectors = translated(4, 30, seed)
    unit = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in vectors]
    cosine = np.rint(unit[0] @ unit[1].T * 1e6)
    table = field(benchmark, vectors)
    found = table[table["setting"] == "multi"].set_index("question")["mrc10"]
    for group in np.arange(12).reshape(4, 3).tolist():
        for q in group:
            values = []
            for other in set(group) - {q}:
                union = sorted({*np.argsort(-cosine[q])[:10]} | {*np.argsort(-cosine[other])[:10]})
                values.append(spearmanr(cosine[q, union], cosine[other, union])[0])
            assert found[q] == pytest.approx(np.mean(values))


def test_peer_of_its_own_package():
    """The arithmetic of peer_measure 0.0.1 of PyPI, where it is installed. Its front end does not
    start with ir_measures 0.4.3, so its `kruskal` is called."""
    package = pytest.importorskip("peer_measure", reason="peer_measure is not installed")
    benchmark, scores = random_case(5, share=0.3)
    ranks = relevant_ranks([(0, scores)], benchmark)
    language = benchmark.candidate_language[benchmark.candidate]
    ours = bias.peer(ranks.pool, language, Segments.of(benchmark.question))
    compared = 0
    for p, (_, rank, names, _) in zip(ours, pairs_of(benchmark, ranks), strict=True):
        if not np.isnan(p):
            theirs = package.kruskal(*([*rank[names == x]] for x in sorted({*names})))[1]
            assert p == pytest.approx(theirs)
            compared += 1
    assert compared > 4


# --- properties and chance ---------------------------------------------------------------------


@given(SEEDS)
@settings(max_examples=15, deadline=None)
def test_the_order_of_candidates_plays_no_part(seed):
    """Candidates in another order: the same figures, with ties as well."""
    benchmark, vectors = translated(3, 25, seed)
    vectors = np.rint(vectors[0]), np.rint(vectors[1]) + [1, 0, 0, 0, 0, 0]
    vectors = tuple(np.where(v.any(1)[:, None], v, 1.0) for v in vectors)
    order = np.random.default_rng(seed).permutation(25)
    pairs = benchmark.question, np.argsort(order)[benchmark.candidate]
    shuffled = benchmark.candidates.iloc[order].reset_index(drop=True)
    other = Benchmark.from_pairs("t", benchmark.questions, shuffled, *pairs)
    before, after = field(benchmark, vectors), field(other, (vectors[0], vectors[1][order]))
    names = list(bias.FIELD)
    pd.testing.assert_frame_equal(before[names], after[names])


def test_equal_scores_for_all():
    """What a collapsed encoder gets: chance of the own language, no correlation, no difference
    between languages; and it takes no more memory than another."""
    benchmark, _ = translated(3, 45, 0)
    table = field(benchmark, (np.ones((9, 2)), np.ones((45, 2))))
    multi = table[table["setting"] == "multi"]
    share = benchmark.candidates["language"].value_counts(normalize=True)
    own = multi["question_language"].astype(str).map(share)
    assert multi["own_first"].to_numpy() == pytest.approx(own.to_numpy())
    assert (multi["peer"] == 1).all() and (multi["tlr20"] == 0).all()
    assert (multi["mrc10"] == 0).all()


def test_chance():
    """Random ranks: the own language is first in one of three, TLR@20 is 20 of 300, MRC of lists
    that are unrelated 0. PEER is .45: of six passages chi squared is an approximation, else it
    would be .5."""
    rng = np.random.default_rng(0)
    rank = np.argsort(rng.random((4000, 300)), axis=1)[:, :6].ravel() + 1.0
    segments = Segments(np.arange(0, 24_000, 6), 24_000)
    language = np.tile([0, 0, 1, 1, 2, 2], 4000)
    assert bias.own_first(rank, language == 0, segments).mean() == pytest.approx(1 / 3, abs=0.03)
    assert bias.target_recall(rank, language == 0, segments).mean() == pytest.approx(
        1 / 15, abs=0.01
    )
    assert bias.peer(rank, language, segments).mean() == pytest.approx(0.45, abs=0.02)
    scores = rng.permuted(np.tile(np.arange(10), (300, 1)), axis=1)
    found = bias.rank_correlation(scores, np.ones_like(scores, bool))
    assert found.mean() == pytest.approx(0, abs=0.02)


def test_studies_keep_what_they_kept():
    """Without these columns, sums have none of the measures; with them, those that say something:
    on parallel passages, one a language, PEER does not."""
    benchmark = parallel(2, 3)
    rng = np.random.default_rng(0)
    table = field(benchmark, (rng.normal(size=(6, 4)), rng.normal(size=(9, 4))))
    table = table.assign(group="g", question_id=0)
    kept = {*summed(table.drop(columns=list(bias.FIELD)))["metric"]}
    assert {*summed(table)["metric"]} - kept == {"own_first", "tlr20"}  # ids are not shared: no MRC
    assert not kept & {*bias.FIELD}
