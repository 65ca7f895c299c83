"""Quality and bias metrics: by hand, against slow references, trec_eval, and chance."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import metrics
from lib.benchmark import Benchmark
from lib.benchmarks import coverage
from lib.benchmarks.references import reference_ranks
from lib.metrics import Ranks, Segments, question_scores
from lib.search import relevant_ranks

ONE = Segments(np.array([0]), 3)


def benchmark_of(asked, found, relevant, name="toy") -> Benchmark:
    """From the languages of questions and candidates, and a table [Q, C] of grades (0: not)."""
    relevant = np.asarray(relevant)
    questions = pd.DataFrame(
        {
            "question_id": [f"q{i}" for i in range(len(asked))],
            "language": list(asked),
            "text": "?",
            "group": "g",
        }
    )
    candidates = pd.DataFrame(
        {"candidate_id": [f"c{i}" for i in range(len(found))], "language": list(found), "text": "."}
    )
    pairs = np.nonzero(relevant)
    return Benchmark.from_pairs(name, questions, candidates, *pairs, relevant[pairs])


def parallel(questions: int, copies: int, languages="abc") -> Benchmark:
    """Question i of each language is answered by candidate i of each; the rest are distractors."""
    asked = np.repeat(list(languages), questions)
    found = np.repeat(list(languages), copies)
    same = np.arange(questions)[:, None] == np.arange(copies)
    return benchmark_of(asked, found, np.tile(same, (len(languages), len(languages))))


def random_case(seed, questions=8, candidates=40, levels=None, grades=1, share=0.1):
    """Random languages, relevance and scores, tie-free without `levels`: (benchmark, scores)."""
    rng = np.random.default_rng(seed)
    relevant = (rng.random((questions, candidates)) < share) * rng.integers(
        1, grades + 1, (questions, candidates)
    )
    relevant[0, 0] = 1
    asked, found = rng.choice(list("abc"), questions), rng.choice(list("abc"), candidates)
    benchmark = benchmark_of(asked, found, relevant)
    if levels:
        return benchmark, rng.integers(0, levels, (questions, candidates))
    return benchmark, rng.permuted(np.tile(np.arange(candidates), (questions, 1)), axis=1)


def scores_of(benchmark, scores) -> pd.DataFrame:
    """Score matrix to per-question metrics."""
    return question_scores(benchmark, relevant_ranks([(0, np.asarray(scores))], benchmark))


def cases(benchmark):
    """Every (setting, question, candidate language, pool, relevant) with something relevant.

    A slow and literal reading of the settings' definitions."""
    language = benchmark.candidates["language"].tolist()
    for q, asked in enumerate(benchmark.questions["language"]):
        relevant = benchmark.candidate[benchmark.question == q].tolist()
        everyone = list(range(len(language)))
        if relevant:
            yield "multi", q, "*", everyone, relevant
        for name in sorted(set(language)):
            here = [c for c in relevant if language[c] == name]
            if here:
                pool = [c for c in everyone if language[c] == name]
                yield "mono" if asked == name else "cross", q, name, pool, here
                pool = [c for c in everyone if c in here or c not in relevant]
                yield "one_target", q, name, pool, here


def slow_ranks(scores, pool, relevant) -> list[tuple[float, int]]:
    """(mid-rank, candidate) of the relevant ones, best first, by sorting the pool."""
    ordered = sorted((scores[c] for c in pool), reverse=True)
    places = {
        score: [p for p, other in enumerate(ordered, 1) if other == score] for score in set(ordered)
    }
    return sorted((sum(places[scores[c]]) / len(places[scores[c]]), c) for c in relevant)


def slow_quality(ranked, grades) -> dict[str, float]:
    """QUALITY of one list by textbook loops."""
    count = len(ranked)
    precision = [(rank, k / rank) for k, (rank, _) in enumerate(ranked, 1)]
    best = sorted((grades[c] for _, c in ranked), reverse=True)
    ideal = sum(g / math.log2(1 + p) for p, g in enumerate(best[:10], 1))
    gained = sum(grades[c] / math.log2(1 + rank) for rank, c in ranked if rank <= 10)
    return {
        "ap": sum(p for _, p in precision) / count,
        "ap20": sum(p for rank, p in precision if rank <= 20) / count,
        **{f"r{k}": sum(rank <= k for rank, _ in ranked) / count for k in (1, 10, 100)},
        "ndcg10": gained / ideal,
    }


def slow_bias(ranked, own, languages) -> dict[str, float]:
    """BIAS of one tie-free list; languages of the candidates."""
    several = len({languages[c] for _, c in ranked}) > 1
    ranks = [rank for rank, _ in ranked]
    ours = [math.log(rank) for rank, c in ranked if own[c]]
    theirs = [math.log(rank) for rank, c in ranked if not own[c]]
    both = ours and theirs
    return {
        "rank_distance": max(ranks) - min(ranks) if several else math.nan,
        "max_at_r": max(ranks) if several else math.nan,
        "own_language_advantage": np.mean(theirs) - np.mean(ours) if both else math.nan,
    }


# ---- hand arithmetic ----


def test_average_precision_by_hand():
    """(1/1 + 2/4 + 3/25) / 3, and without the last term at 20; segments of different sizes."""
    segments = Segments.of(np.array([0, 0, 0, 7]))
    rank = np.array([1.0, 4, 25, 2])
    assert metrics.average_precision(rank, segments) == pytest.approx([(1 + 0.5 + 0.12) / 3, 0.5])
    assert metrics.average_precision(rank, segments, 20) == pytest.approx([1.5 / 3, 0.5])


def test_average_precision_at_a_cut_divides_by_all_relevant():
    """25 relevant candidates in the first 25 places: AP@20 is 20/25, not 1."""
    rank, segments = np.arange(1.0, 26), Segments(np.array([0]), 25)
    assert metrics.average_precision(rank, segments, 20) == pytest.approx([0.8])


def test_ties_by_hand():
    """Two relevant and one other in a tie at the top: mid-ranks 2, 2, so AP = (1/2 + 2/2)/2."""
    scores = scores_of(benchmark_of("a", "aaaa", [[1, 1, 0, 0]]), [[5, 5, 5, 1]])
    mono = scores[scores["setting"] == "mono"].iloc[0]
    assert (mono["ap"], mono["r1"], mono["r10"]) == (0.75, 0, 1)
    assert mono["ndcg10"] == pytest.approx(2 / math.log2(3) / (1 + 1 / math.log2(3)))


def test_recall_by_hand():
    """A rank at the cut counts, one beyond it does not."""
    rank = np.array([1.0, 10, 10.5])
    assert metrics.recall(rank, ONE, 1) == pytest.approx([1 / 3])
    assert metrics.recall(rank, ONE, 10) == pytest.approx([2 / 3])


def test_ndcg_by_hand():
    """Grades 1, 3, 2 at ranks 1, 2, 11: gain is linear, the ideal order is 3, 2, 1."""
    found = 1 / math.log2(2) + 3 / math.log2(3)
    ideal = 3 / math.log2(2) + 2 / math.log2(3) + 1 / math.log2(4)
    grade = np.array([1.0, 3, 2])
    assert metrics.ndcg(np.array([1.0, 2, 11]), grade, ONE, 10) == pytest.approx([found / ideal])


def test_ndcg_of_more_relevant_than_places():
    """Twelve relevant candidates in the first twelve places are ideal at 10."""
    segments = Segments(np.array([0]), 12)
    assert metrics.ndcg(np.arange(1.0, 13), np.ones(12), segments, 10) == pytest.approx([1])


def test_bias_by_hand():
    """Own parallel at 2, others at 4 and 8: distance 6, Max@R 8, advantage ln(4 8)/2 - ln 2."""
    order = [0, 2, 0, 4, 0, 0, 0, 8, 0]  # place -> mark
    scores = [[9 - order.index(2), 9 - order.index(4), 9 - order.index(8), 9, 7, 5, 4, 3, 0]]
    table = scores_of(benchmark_of("a", "abcaabbcc", [[1, 1, 1] + [0] * 6]), scores)
    row = table[table["setting"] == "multi"].iloc[0]
    assert row["rank_distance"] == 6 and row["max_at_r"] == 8
    assert row["own_language_advantage"] == pytest.approx(math.log(32) / 2 - math.log(2))
    assert row["rank_distance_chance"] == 10 * 2 / 4
    assert row["rank_distance_ratio"] == pytest.approx(6 / 5)


def test_bias_needs_something_to_compare():
    """Relevant candidates in one language say nothing of bias, however many they are; those in two
    languages of which none is the question's have a distance, but no advantage."""
    relevant = [[0, 1, 0, 0], [0, 1, 1, 0], [0, 1, 0, 1]]
    table = scores_of(benchmark_of("aaa", "abbc", relevant), [[1, 2, 3, 4]] * 3)
    multi = table[table["setting"] == "multi"]
    for metric in ("rank_distance", "rank_distance_ratio", "max_at_r"):
        assert multi[metric].isna().tolist() == [True, True, False]
    assert multi["rank_distance"].iloc[2] == 2 and multi["max_at_r"].iloc[2] == 3
    assert multi["own_language_advantage"].isna().all()


def test_mid_places_by_hand():
    """Places restart in each group, and equal values share their mean."""
    places = metrics.mid_places(np.array([1, 0, 1, 1, 0]), np.array([5.0, 9, 5, 2, 7]))
    assert places.tolist() == [2.5, 2, 2.5, 1, 1]


def test_no_segments():
    """Nothing to average gives nothing, not an error."""
    nothing = np.zeros(0)
    segments = Segments.of(nothing)
    assert metrics.average_precision(nothing, segments).shape == (0,)
    assert metrics.ndcg(nothing, nothing, segments, 10).shape == (0,)


# ---- slow references ----


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    levels=st.sampled_from([None, 1, 3, 12]),
    grades=st.sampled_from([1, 3]),
    share=st.sampled_from([0.02, 0.1, 0.5]),
)
def test_equal_to_slow_reference(seed, levels, grades, share):
    """Every row and column equals textbook loops: ties, grades, questions without parallels."""
    benchmark, scores = random_case(seed, levels=levels, grades=grades, share=share)
    table = scores_of(benchmark, scores)
    rows = {
        (r["setting"], r["question"], r["candidate_language"]): r for r in table.to_dict("records")
    }
    grade = np.zeros(scores.shape)
    grade[benchmark.question, benchmark.candidate] = benchmark.grade
    for setting, q, name, pool, relevant in cases(benchmark):
        row, ranked = rows.pop((setting, q, name)), slow_ranks(scores[q], pool, relevant)
        assert row["question_language"] == benchmark.questions["language"][q]
        expected = slow_quality(ranked, grade[q])
        if setting == "multi" and levels is None:
            languages = benchmark.candidates["language"]
            own = (languages == row["question_language"]).tolist()
            expected |= slow_bias(ranked, own, languages.tolist())
        for metric, value in expected.items():
            assert row[metric] == pytest.approx(value, abs=1e-12, nan_ok=True), (setting, metric)
    assert not rows


@pytest.mark.parametrize("grades", [1, 3])
def test_equal_to_trec_eval(grades):
    """pytrec_eval to 1e-9 on tie-free scores, in every setting; its map_cut divides by R too."""
    import pytrec_eval

    benchmark, scores = random_case(11, 20, 400, grades=grades, share=0.08)
    table = scores_of(benchmark, scores)
    grade = np.zeros(scores.shape, int)
    grade[benchmark.question, benchmark.candidate] = benchmark.grade
    runs, judged = {}, {}
    for setting, q, name, pool, relevant in cases(benchmark):
        key = f"{setting} {q} {name}"
        runs[key] = {str(c): float(scores[q, c]) for c in pool}
        judged[key] = {str(c): int(grade[q, c]) for c in relevant}
    measures = {
        "ap": "map",
        "ap20": "map_cut_20",
        "hit1": "success_1",
        "r1": "recall_1",
        "r10": "recall_10",
        "r100": "recall_100",
        "ndcg10": "ndcg_cut_10",
    }
    evaluator = pytrec_eval.RelevanceEvaluator(
        judged, {"map", "map_cut.20", "success.1", "recall.1,10,100", "ndcg_cut.10"}
    )
    expected = evaluator.evaluate(runs)
    assert len(expected) == len(table) > 100
    assert max(len(relevant) for relevant in judged.values()) > 20  # where cuts differ
    for row in table.to_dict("records"):
        theirs = expected[f"{row['setting']} {row['question']} {row['candidate_language']}"]
        for ours, measure in measures.items():
            assert row[ours] == pytest.approx(theirs[measure], abs=1e-9)


def test_order_does_not_matter():
    """Questions and candidates in another order give the same figures, with and without ties."""
    for levels in (None, 5):
        benchmark, scores = random_case(3, levels=levels, share=0.3)
        rng = np.random.default_rng(0)
        q, c = rng.permutation(scores.shape[0]), rng.permutation(scores.shape[1])
        mixed = Benchmark.from_pairs(
            "x",
            benchmark.questions.iloc[q],
            benchmark.candidates.iloc[c],
            np.argsort(q)[benchmark.question],
            np.argsort(c)[benchmark.candidate],
        )
        table = scores_of(mixed, scores[q][:, c])
        table["question"] = q[table["question"]].astype(np.int32)
        table = table.sort_values(["setting", "question", "candidate_language"], ignore_index=True)
        expected = scores_of(benchmark, scores).sort_values(
            ["setting", "question", "candidate_language"], ignore_index=True
        )
        pd.testing.assert_frame_equal(table, expected, rtol=1e-14)


# ---- ties and chance ----


def test_extremes_equal_the_mean_over_all_orders():
    """Relevant 0, 1, 2 (+ three others) in every order within ties: mean smallest and largest."""
    for scores in ([5, 5, 5, 5, 5, 5], [5, 5, 1, 5, 1, 0], [5, 1, 1, 5, 1, 1], [3, 2, 1, 3, 2, 1]):
        ends = []
        for shuffle in itertools.permutations(range(6)):
            order = sorted(range(6), key=lambda c: (-scores[c], shuffle[c]))
            places = [order.index(c) + 1 for c in range(3)]
            ends.append((min(places), max(places)))
        table = scores_of(benchmark_of("a", "abcabc", [[1, 1, 1, 0, 0, 0]]), [scores])
        row = table[table["setting"] == "multi"].iloc[0]
        smallest, largest = np.mean(ends, axis=0)
        assert row["max_at_r"] == pytest.approx(largest)
        assert row["rank_distance"] == pytest.approx(largest - smallest)


def chance_ap(relevant, pool) -> np.ndarray:
    """Expected AP of a random order of N candidates of which R are relevant; broadcasts.

        E[AP] = (H_N + (N - H_N)(R - 1)/(N - 1)) / N,   H_N = 1 + 1/2 + ... + 1/N

    Place i holds a relevant candidate with probability R/N, and then each of the i - 1 places
    before it does with (R - 1)/(N - 1): E[AP] = (1/R) sum_i (R/N) (1 + (i - 1)(R - 1)/(N - 1)) / i.
    Exact, see Bestgen (2015), "Exact expected average precision of the random baseline for system
    evaluation"; the usual R/N is only its limit. Raises ValueError unless 1 <= R <= N."""
    relevant, pool = np.asarray(relevant, np.int64), np.asarray(pool, np.int64)
    if (relevant < 1).any() or (relevant > pool).any():
        raise ValueError("chance_ap needs at least 1 relevant candidate and no more than the pool")
    harmonic = np.cumsum(1 / np.arange(1, pool.max(initial=1) + 1))[pool - 1]
    return (harmonic + (pool - harmonic) * (relevant - 1) / np.maximum(pool - 1, 1)) / pool


def test_collapse_is_not_perfect():
    """One score for all candidates: no better than chance anywhere, and bias as by chance."""
    benchmark = parallel(20, 40)
    table = scores_of(benchmark, np.zeros((60, 120), int))
    means = metrics.summary(table)
    assert means.loc[["mono", "cross"], "ap"].tolist() == pytest.approx([2 / 41] * 2)
    assert means.loc["multi", "ap"] == pytest.approx(4 / 121)
    assert means.loc["one_target", "ap"] == pytest.approx(2 / 119)
    assert (means[["r1", "r10", "ndcg10"]] == 0).all(axis=None)
    assert means.loc["mono", "ap"] < chance_ap(1, 40)
    assert means.loc["multi", "ap"] < chance_ap(3, 120)
    assert means.loc["multi", "rank_distance_ratio"] == pytest.approx(1)
    assert means.loc["multi", "own_language_advantage"] == 0


def test_chance_ap_is_exact():
    """The closed form equals the mean over every possible set of places."""
    for pool, relevant in (1, 1), (6, 1), (6, 2), (7, 4), (5, 5):
        segments = Segments(np.array([0]), relevant)
        values = [
            metrics.average_precision(np.array(places, float), segments)[0]
            for places in itertools.combinations(range(1, pool + 1), relevant)
        ]
        assert chance_ap(relevant, pool) == pytest.approx(np.mean(values), abs=1e-14)
    assert chance_ap([1, 2], [4, 4]).shape == (2,)


@pytest.mark.parametrize("relevant, pool", [(0, 5), (6, 5)])
def test_chance_ap_refuses_the_impossible(relevant, pool):
    """No relevant candidate, or more of them than candidates."""
    with pytest.raises(ValueError, match="chance_ap"):
        chance_ap(relevant, pool)


def test_chance_rank_distance_is_exact():
    """The closed form equals the mean over every possible set of places."""
    for pool, relevant in (5, 2), (7, 3), (6, 6):
        sets = itertools.combinations(range(1, pool + 1), relevant)
        expected = np.mean([places[-1] - places[0] for places in sets])
        assert metrics.chance_rank_distance(relevant, pool) == pytest.approx(expected)
    assert metrics.chance_rank_distance(11, 13_014) == pytest.approx(10_845.83, abs=0.01)


def test_random_scores_give_chance_values():
    """The random ranker's means agree with the closed forms within four standard errors."""
    benchmark = parallel(500, 500)
    table = question_scores(benchmark, reference_ranks(benchmark, "random", 0))
    expected = {
        ("mono", "ap"): chance_ap(1, 500),
        ("cross", "ap"): chance_ap(1, 500),
        ("multi", "ap"): chance_ap(3, 1500),
        ("mono", "r10"): 10 / 500,
        ("one_target", "ap"): chance_ap(1, 1498),
        ("multi", "r100"): 100 / 1500,
        ("multi", "rank_distance"): metrics.chance_rank_distance(3, 1500),
        ("multi", "rank_distance_ratio"): 1,
        ("multi", "max_at_r"): 1501 * 3 / 4,
        ("multi", "own_language_advantage"): 0,
    }
    for (setting, metric), value in expected.items():
        values = table.loc[table["setting"] == setting, metric]
        assert abs(values.mean() - value) < 4 * values.sem(), (setting, metric)


# ---- tables ----


def test_columns_and_types():
    """Keys are categories and int32, metrics float64; bias belongs to multi only."""
    table = scores_of(*random_case(0))
    assert table.columns.tolist() == [
        "setting",
        "question",
        "question_language",
        "candidate_language",
        *metrics.METRICS,
    ]
    assert (table[list(metrics.METRICS)].dtypes == np.float64).all()
    assert table["question"].dtype == np.int32
    assert all(isinstance(table[key].dtype, pd.CategoricalDtype) for key in metrics.KEYS)
    multi = table["setting"] == "multi"
    assert table.loc[~multi, list(metrics.BIAS)].isna().all(axis=None)
    assert (table["candidate_language"] == "*").tolist() == multi.tolist()
    assert table[list(metrics.QUALITY)].notna().all(axis=None)


def test_ranks_of_another_benchmark_are_refused():
    """Lengths that do not fit are named."""
    benchmark, scores = random_case(0)
    ranks = relevant_ranks([(0, scores)], benchmark)
    short = Ranks(ranks.own[1:], ranks.pool, ranks.alone, ranks.tied, ranks.top10)
    with pytest.raises(ValueError, match=r"ranks\.own has .* values, but benchmark 'toy' has"):
        question_scores(benchmark, short)


def test_missing_parallels_are_left_out_and_counted():
    """MLQA-R's shape: each question has parallels in some languages only."""
    relevant = [[1, 0, 0, 1, 0], [0, 0, 1, 0, 0], [0, 0, 0, 0, 0]]
    benchmark = benchmark_of("aab", "aabbc", relevant)
    table = scores_of(benchmark, [[5, 4, 3, 2, 1]] * 3)
    rows = table[["setting", "question", "candidate_language"]].astype(object).to_numpy().tolist()
    assert rows == [
        ["mono", 0, "a"],
        ["cross", 0, "b"],
        ["cross", 1, "b"],
        ["multi", 0, "*"],
        ["multi", 1, "*"],
        ["one_target", 0, "a"],
        ["one_target", 0, "b"],
        ["one_target", 1, "b"],
    ]
    counts = coverage.left_out(benchmark)
    counts = counts.set_index(metrics.KEYS)[["questions", "left_out"]].T.to_dict("list")
    assert counts["mono", "a", "a"] == [2, 1] and counts["mono", "b", "b"] == [1, 1]
    assert counts["cross", "a", "b"] == [2, 0] and counts["cross", "a", "c"] == [2, 2]
    assert counts["multi", "a", "*"] == [2, 0] and counts["multi", "b", "*"] == [1, 1]
    assert counts["one_target", "a", "a"] == [2, 1] and len(counts) == 2 + 4 + 2 + 6


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), share=st.sampled_from([0.01, 0.05, 0.3]))
def test_every_question_is_scored_or_left_out(seed, share):
    """In each setting and pair of languages rows and left-out questions add up to all."""
    benchmark, scores = random_case(seed, share=share)
    found = scores_of(benchmark, scores).groupby(metrics.KEYS, observed=True).size()
    for row in coverage.left_out(benchmark).itertuples():
        key = row.setting, row.question_language, row.candidate_language
        assert found.get(key, 0) + row.left_out == row.questions


def test_language_with_questions_only():
    """A language without candidates has cross and multi settings, and no mono one."""
    benchmark = benchmark_of("ax", "aab", [[1, 0, 0], [1, 0, 1]])
    table = scores_of(benchmark, [[3, 2, 1]] * 2)
    assert table[table["setting"] == "mono"]["question"].tolist() == [0]
    assert "x" not in coverage.left_out(benchmark)["candidate_language"].tolist()
    ranks = relevant_ranks([(0, np.zeros((2, 3), int))], benchmark)
    shares = coverage.language_share(ranks, benchmark)
    assert shares["candidate_language"].tolist() == ["a", "b"] * 3
    assert shares["lift"].tolist() == pytest.approx([1] * 6)


def test_one_language_has_no_cross():
    """A monolingual benchmark simply lacks the rows of other settings."""
    table = scores_of(benchmark_of("aa", "aaa", np.eye(2, 3)), [[3, 2, 1]] * 2)
    assert set(table["setting"]) == {"mono", "multi", "one_target"}
    assert metrics.summary(table).loc["mono", "ap"] == (1 + 1 / 2) / 2


def test_summary_weighs_languages_alike():
    """Three questions of a with AP 1 and one of b with AP 1/3: the macro mean is 2/3."""
    relevant = [[1, 0, 0, 0, 0]] * 3 + [[0, 0, 0, 0, 1]]
    table = scores_of(benchmark_of("aaab", "aabbb", relevant), [[5, 4, 3, 2, 1]] * 4)
    means = metrics.summary(table)
    assert means.loc["mono", "ap"] == pytest.approx(2 / 3)
    assert means.loc["mono", ["pairs", "questions"]].tolist() == [2, 4]
    assert metrics.pair_means(table).loc[("mono", "b", "b"), "ap"] == pytest.approx(1 / 3)


def test_language_share_of_the_top():
    """A ranker that puts language a first: its share, its lift, and sums of 1."""
    benchmark = parallel(4, 20, "ab")
    scores = np.tile(np.repeat([2, 1], 20), (8, 1))
    table = coverage.language_share(relevant_ranks([(0, scores)], benchmark), benchmark)
    assert table["question_language"].tolist() == ["*", "*", "a", "a", "b", "b"]
    assert table["share"].tolist() == [1, 0] * 3
    assert table["pool"].tolist() == [0.5] * 6 and table["lift"].tolist() == [2, 0] * 3


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), levels=st.sampled_from([None, 1, 3]))
def test_language_shares_sum_to_one(seed, levels):
    """For every question and, averaged, for every question language."""
    benchmark, scores = random_case(seed, levels=levels)
    ranks = relevant_ranks([(0, scores)], benchmark)
    np.testing.assert_allclose(ranks.top10.sum(1), 1, atol=1e-6)
    shares = coverage.language_share(ranks, benchmark).groupby("question_language")["share"].sum()
    np.testing.assert_allclose(shares, 1, atol=1e-6)
