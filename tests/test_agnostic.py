"""Language-agnosticism: by hand, slow references, planted structure, order, and what is kept."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_metrics import benchmark_of, random_case

from lib import store
from lib.analysis import agnostic as report
from lib.analysis import bias, stats
from lib.analysis.results import Results, ScoredRun
from lib.analysis.sums import summed
from lib.benchmark import Benchmark
from lib.benchmarks import agnostic
from lib.metrics import question_scores
from lib.params import BenchmarkSpec, Train
from lib.search import language_columns, relevant_ranks, tiles
from lib.study.evaluate import Scored, annotate
from lib.study.results import load_agnostic, save_scores

SEEDS = st.integers(0, 2**32 - 1)


def parallel(meanings: int, languages="abcd", per_group: int = 2) -> Benchmark:
    """Questions and passages of some meanings in every language, `per_group` of them a group."""
    rows = [(f"m{m}", language, m) for language in languages for m in range(meanings)]
    names, codes, place = zip(*rows, strict=True)
    texts = {"language": codes, "text": "x"}
    pairs = [(q, c) for q, m in enumerate(place) for c, n in enumerate(place) if m == n]
    groups = [f"g{m // per_group}" for m in place]
    return Benchmark.from_pairs(
        "made",
        pd.DataFrame({"question_id": names, **texts, "group": groups}),
        pd.DataFrame({"candidate_id": names, **texts}),
        *zip(*pairs, strict=True),
    )


def planted(benchmark: Benchmark, offset: float, seed=0, width=24) -> np.ndarray:
    """Vectors that say what is meant, with noise, and `offset` times their language's direction."""
    rng = np.random.default_rng(seed)
    meaning = pd.factorize(benchmark.candidates["candidate_id"])[0]
    told = rng.normal(size=(meaning.max() + 1, width))[meaning]
    noise = rng.normal(size=told.shape)
    directions = np.linalg.qr(rng.normal(size=(width, width)))[0]
    return told + noise + offset * directions[benchmark.candidate_language] * np.sqrt(width)


# --- between languages -------------------------------------------------------------------------


def test_between_by_hand():
    """Points 0 and 2 in one language, 4 and 6 in the other: means 1 and 5 around 3, so 4 * 2^2 of
    9 + 1 + 1 + 9."""
    vectors, language = np.array([[0.0], [2], [4], [6]]), np.array([0, 0, 1, 1])
    assert agnostic.between_share(vectors, language) == pytest.approx(16 / 20)
    assert agnostic.between_share(np.array([[1.0], [3], [1], [3]]), language) == 0  # translations
    assert np.isnan(agnostic.between_share(np.ones((4, 1)), language))


def test_between_has_the_stated_expectation():
    """Over all ways to deal out the labels of 2 and 3 passages: (L - 1) / (n - 1) = 1 / 4."""
    from itertools import combinations

    vectors = np.random.default_rng(1).normal(size=(5, 3))
    found = [
        agnostic.between_share(vectors, np.isin(np.arange(5), chosen).astype(int))
        for chosen in combinations(range(5), 2)
    ]
    assert np.mean(found) == pytest.approx(1 / 4)


# --- the probe ---------------------------------------------------------------------------------


def test_discriminant_by_hand():
    """Languages at -1 and 1, each spread by 1: S = 1, weights -1 and 1, offsets -1/2, whatever the
    shrinkage, which is towards the mean of one variance."""
    vectors, language = np.array([[-2.0], [0], [0], [2]]), np.array([3, 3, 8, 8])
    known, weights, offsets = agnostic.discriminant(vectors, language)
    assert known.tolist() == [3, 8]
    assert weights == pytest.approx(np.array([[-1.0, 1.0]]))
    assert offsets == pytest.approx([-0.5, -0.5])


def test_discriminant_is_that_of_scikit_learn():
    """The same predictions as its shrunk linear discriminant with equal priors."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    rng = np.random.default_rng(2)
    language = rng.integers(0, 4, 90)
    vectors = rng.normal(size=(90, 5)) @ rng.normal(size=(5, 5)) + rng.normal(size=(4, 5))[language]
    known, weights, offsets = agnostic.discriminant(vectors, language)
    told = known[np.argmax(vectors @ weights + offsets, axis=1)]
    around = vectors - np.stack([vectors[language == x].mean(0) for x in range(4)])[language]
    spread = around.T @ around / len(vectors)
    shrunk = 0.99 * spread + 0.01 * np.trace(spread) / 5 * np.eye(5)

    class Shrunk:
        def fit(self, block):
            self.covariance_ = shrunk
            return self

    peer = LinearDiscriminantAnalysis("lsqr", covariance_estimator=Shrunk(), priors=[0.25] * 4)
    assert (told == peer.fit(vectors, language).predict(vectors)).all()
    assert 0.3 < (told == language).mean() < 1  # neither trivial nor perfect


def test_planted_languages_are_told_and_none_are_not():
    """Large offsets: accuracy 1 and nearly all variance; none: chance and what is expected."""
    benchmark = parallel(100)
    [far] = agnostic.measures(benchmark, planted(benchmark, 9)).to_dict("records")
    assert far["probe"] == 1 and far["between"] > 0.9
    [none] = agnostic.measures(benchmark, planted(benchmark, 0)).to_dict("records")
    assert none["chance"] == 0.25 and none["probe"] == pytest.approx(0.25, abs=0.07)
    assert none["between"] < 3 * none["expected"] == pytest.approx(9 / 399)
    assert (none["passages"], none["languages"]) == (400, 4)


def test_a_passage_is_not_told_by_its_translations():
    """Each group has a direction of its own in which languages differ: seen in training it tells
    the language, so only whole groups in a fold give chance."""
    rng = np.random.default_rng(3)
    group, language = np.repeat(np.arange(60), 2), np.tile([0, 1], 60)
    vectors = np.eye(60)[group] * np.where(language, 1, -1)[:, None]
    vectors = np.repeat(vectors, 2, axis=0) + rng.normal(0, 0.01, (240, 60))
    language, names = np.repeat(language, 2), np.repeat(group, 2).astype(str)
    assert agnostic.probe_accuracy(vectors, language, names) == pytest.approx(0.5, abs=0.15)
    leaking = np.tile(["even", "odd"], 120)
    assert agnostic.probe_accuracy(vectors, language, leaking) == 1


def test_accuracy_is_a_mean_over_languages():
    """All vectors alike are all told to be of one language: 1 / L, however frequent that is."""
    language, group = np.array([0] * 8 + [1] * 2 + [2] * 2), np.array(list("abcdefghabab"))
    assert agnostic.probe_accuracy(np.ones((12, 3)), language, group) == pytest.approx(1 / 3)
    assert np.isnan(agnostic.probe_accuracy(np.ones((12, 3)), language, np.array(["a"] * 12)))


@given(SEEDS)
@settings(max_examples=10, deadline=None)
def test_neither_order_nor_rotation_matters(seed):
    """Of candidates, with their questions and vectors; nor the length of a vector."""
    rng = np.random.default_rng(seed)
    benchmark = parallel(12)
    vectors = planted(benchmark, 0.3, seed)
    order = rng.permutation(len(vectors))
    shuffled = Benchmark.from_pairs(
        "made",
        benchmark.questions,
        benchmark.candidates.iloc[order].reset_index(drop=True),
        benchmark.question,
        np.argsort(order)[benchmark.candidate],
    )
    turn = np.linalg.qr(rng.normal(size=(24, 24)))[0]
    length = rng.uniform(0.5, 2, (len(vectors), 1))
    first = agnostic.measures(benchmark, vectors)
    again = agnostic.measures(shuffled, (vectors @ turn * length)[order])
    pd.testing.assert_frame_equal(first, again, rtol=1e-9)


def test_the_sample_is_whole_questions_and_groups():
    """200 questions at most, in all languages; questions that share a passage are of one group;
    what answers nothing is not in it."""
    benchmark = parallel(230)
    rows, group = agnostic.sample(benchmark)
    assert len(rows) == 800 and (benchmark.candidates.iloc[rows]["language"] == "a").sum() == 200
    ids = benchmark.candidates["candidate_id"].to_numpy()[rows]
    for number in {int(x[1:]) // 2 for x in ids}:  # two questions a group
        of_group = np.isin(ids, [f"m{2 * number}", f"m{2 * number + 1}"])
        assert len(set(group[of_group])) == 1
    shared = benchmark_of("aabb", "aabbb", np.eye(4, 5)[[0, 0, 2, 3]])
    shared.questions["group"] = list("xyyz")  # the first two share a passage, so x is y
    rows, group = agnostic.sample(shared)
    assert rows.tolist() == [0, 2, 3] and group[0] == group[1] != group[2]


def test_one_language_has_nothing_to_tell():
    benchmark = parallel(5, "a")
    assert agnostic.measures(benchmark, np.eye(5)).empty


# --- bitext ------------------------------------------------------------------------------------


def test_bitext_by_hand():
    """Questions m0 and m1 in two languages as angles: a 0 and 90, b 40 and 10. From a, m0 finds
    b's m1 (10 is nearer than 40), and m1 finds b's m0; from b, m0 (40) finds a's m0, m1 too."""
    benchmark = parallel(2, "ab", per_group=1)
    angles = np.radians([0, 90, 40, 10])
    vectors = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    found = agnostic.bitext(benchmark, vectors)
    assert found.values.tolist() == [[0, "a", "b", 0], [1, "a", "b", 0], [2, "b", "a", 1],
                                     [3, "b", "a", 0]]  # fmt: skip


def test_bitext_of_planted_vectors():
    """Translations alike: all are found, of 200 questions at most; all vectors one: none is, since
    a tie is no find; questions that nobody translated are not asked."""
    benchmark = parallel(210, "ab")
    meaning = pd.factorize(benchmark.questions["question_id"])[0]
    alike = agnostic.bitext(benchmark, np.eye(210, dtype=np.float32)[meaning])
    assert len(alike) == 400 and set(alike["bitext"]) == {1}
    same = np.eye(1, 210, dtype=np.float32).repeat(420, 0)
    assert set(agnostic.bitext(benchmark, same)["bitext"]) == {0}
    assert agnostic.bitext(parallel(5, "a"), np.eye(5, dtype=np.float32)).empty


# --- strong alignment --------------------------------------------------------------------------


def slow_outscored(benchmark: Benchmark, scores: np.ndarray, q: int) -> float:
    """With loops over candidates."""
    languages = benchmark.candidates["language"].tolist()
    asked = benchmark.questions["language"].iloc[q]
    relevant = {c for p, c in zip(benchmark.question, benchmark.candidate, strict=True) if p == q}
    wrong = [scores[q, c] for c, x in enumerate(languages) if x == asked and c not in relevant]
    others = [scores[q, c] for c in relevant if languages[c] != asked]
    if not wrong or not others:
        return np.nan
    return np.mean([score > max(wrong) for score in others])


def test_strong_alignment_by_hand():
    """One question in a, right answers in a, b and c (5, 7, 6), a wrong one in a and in b (6, 9):
    7 beats the 6, the other 6 only ties; at 5 both beat it, whatever the others in b."""
    benchmark = benchmark_of("a", "aabbc", [[1, 0, 1, 0, 1]])
    columns = language_columns(benchmark)
    for wrong, each in ((6, 0.5), (5, 1.0), (7, 0.0)):
        scores = np.array([[5, wrong, 7, 9, 6]], np.int32)
        assert bias.outscored(0, scores, benchmark, columns) == [each]


@given(SEEDS, st.sampled_from([None, 3]))
@settings(max_examples=25, deadline=None)
def test_alignment_against_slow_reference(seed, levels):
    """In tiles of three questions, with ties and without; tiles pass as they are."""
    benchmark, scores = random_case(seed, levels=levels, share=0.2)
    noted: list[np.ndarray] = []
    cut = [(first, scores[first : first + 3].copy()) for first in range(0, len(scores), 3)]
    passed = list(bias.noting_alignment(cut, benchmark, noted))
    np.testing.assert_array_equal(np.concatenate([tile for _, tile in passed]), scores)
    slow = [slow_outscored(benchmark, scores, q) for q in range(len(scores))]
    np.testing.assert_allclose(np.concatenate(noted), slow)


def scored(benchmark: Benchmark, vectors: np.ndarray) -> pd.DataFrame:
    """Per-question scores of an encoder that asks what it searches."""
    noted: list[np.ndarray] = []
    found = bias.noting_alignment(tiles(vectors, vectors), benchmark, noted)
    ranks = relevant_ranks(found, benchmark)
    scores = question_scores(benchmark, ranks)
    return bias.with_alignment(scores, benchmark, ranks, noted)


def test_alignment_of_planted_vectors():
    """Translations alike: strongly aligned, and no language first but by the tie; languages apart:
    never, and the question's own language fills its first ten, four times its share."""
    benchmark = parallel(30)
    meaning = pd.factorize(benchmark.candidates["candidate_id"])[0]
    alike = scored(benchmark, np.eye(30)[meaning]).query("setting == 'multi'")
    assert set(alike["strong"]) == set(alike["strong_each"]) == {1.0}
    assert set(alike["own_first"]) == {0.25} and alike["own_top10"].mean() == pytest.approx(1)
    apart = scored(benchmark, planted(benchmark, 9)).query("setting == 'multi'")
    assert set(apart["strong"]) == set(apart["strong_each"]) == {0.0}
    assert set(apart["own_first"]) == {1.0} and set(apart["own_top10"]) == {4.0}
    others = scored(benchmark, planted(benchmark, 9)).query("setting != 'multi'")
    assert others[[*bias.AGNOSTIC]].isna().all(axis=None)


def test_one_language_is_neither_first_nor_aligned():
    scores = scored(parallel(5, "a"), np.eye(5))
    assert scores[[*bias.AGNOSTIC]].isna().all(axis=None)


# --- kept, read and shown ----------------------------------------------------------------------


def evaluated(folder: Path, benchmark: Benchmark, vectors: np.ndarray) -> None:
    scores = annotate(scored(benchmark, vectors), benchmark, None)
    found = Scored(scores, pd.DataFrame(), agnostic=agnostic.measures(benchmark, vectors))
    save_scores(folder, {"made": BenchmarkSpec(format="parallel")}, {"made": found})


def results_of(runs: list[ScoredRun]) -> Results:
    tables = [pd.read_parquet(r.folder / "sums/made.parquet") for r in runs]
    parts = [t.assign(arm=r.arm, seed=r.seed) for t, r in zip(tables, runs, strict=True)]
    return Results("made", runs, pd.concat(parts), pd.DataFrame())


def a_run(folder: Path, arm: str, seed: int) -> ScoredRun:
    train = Train(steps=0 if arm == "untrained" else 5, seed=seed)
    return ScoredRun(f"{arm},{seed}", arm, train, folder / f"{arm}{seed}")


def test_what_is_kept_is_what_is_shown(tmp_path):
    """Three seeds of two encoders, the untrained first: estimates are means of what was measured,
    intervals of probe and share over seeds alone, those of questions over clusters too."""
    benchmark = parallel(20)
    runs = [a_run(tmp_path, arm, seed) for arm in ("mono", "untrained") for seed in range(3)]
    vectors = {r.key: planted(benchmark, 0.4 + (r.arm == "untrained"), r.seed) for r in runs}
    for run in runs:
        evaluated(run.folder, benchmark, vectors[run.key])
    measured = load_agnostic(runs, "made")
    assert len(measured) == 6
    table = report.table(results_of(runs), measured, bitext=True)
    assert list(dict.fromkeys(table["arm"])) == ["untrained", "mono"]
    cells = table.set_index(["arm", "measure"])
    own = [agnostic.measures(benchmark, vectors[r.key]).iloc[0] for r in runs[:3]]
    probe, row = [x["probe"] for x in own], cells.loc[("mono", "probe")]
    assert row["estimate"] == pytest.approx(np.mean(probe)) and row["clusters"] == 0
    half = 4.302653 * np.std(probe, ddof=1) / np.sqrt(3)
    assert row["high"] == pytest.approx(min(1, np.mean(probe) + half))
    excess = np.mean([x["between"] - x["expected"] for x in own])
    assert cells.loc[("mono", "excess"), "estimate"] == pytest.approx(excess)
    each = scored(benchmark, vectors["mono,0"]).query("setting == 'multi'")["strong_each"]
    assert summed_mean(results_of(runs[:1]), "strong_each") == pytest.approx(each.mean(), abs=1e-6)
    assert cells.loc[("mono", "strong"), "clusters"] == 10
    shown = report.shown({"made": table}, report.VECTORS)["made"]
    assert list(shown.index) == ["untrained", "mono"] and shown.loc["mono", "chance"] == "0.250"
    assert list(shown.columns) == list(report.VECTORS.values())
    asked = report.shown({"made": table}, report.QUESTIONS)["made"]
    assert list(asked.columns)[:2] == ["bitext accuracy", "strong alignment"]
    assert "own language first" not in asked  # a passage that finds itself says nothing of it


def summed_mean(results: Results, metric: str) -> float:
    table = results.table("mono", "multi", metric)
    return float(np.average(table["value"], weights=table["weight"]))


def test_runs_of_before_have_no_such_table(tmp_path):
    """Nothing is measured of them, and nothing is shown; where some runs have it, of those."""
    benchmark, runs = parallel(20), [a_run(tmp_path, "mono", seed) for seed in range(2)]
    evaluated(runs[0].folder, benchmark, planted(benchmark, 1))
    old = scored(benchmark, planted(benchmark, 1)).drop(columns=[*bias.AGNOSTIC])
    own = Scored(annotate(old, benchmark, None), pd.DataFrame())
    save_scores(runs[1].folder, {"made": BenchmarkSpec(format="parallel")}, {"made": own})
    assert load_agnostic(runs[1:], "made").empty
    assert report.table(results_of(runs[1:]), load_agnostic(runs[1:], "made")).empty
    nothing = {"made": pd.DataFrame()}
    assert report.shown(nothing, report.VECTORS) == {} and report.joined(nothing).empty
    table = report.table(results_of(runs), load_agnostic(runs, "made"))
    assert set(table["seeds"]) == {1} and "bitext" not in set(table["measure"])


def test_altered_measures_are_refused(tmp_path):
    run = a_run(tmp_path, "mono", 0)
    evaluated(run.folder, parallel(20), planted(parallel(20), 1))
    (run.folder / "sums/made.agnostic.parquet").write_bytes(b"x")
    with pytest.raises(store.Damaged, match="made.agnostic.parquet"):
        load_agnostic([run], "made")


def test_bias_of_a_study_is_what_rankers_have_too(tmp_path):
    """Own language first is kept for encoders; a reference without it leaves the bias table be."""
    benchmark, run = parallel(20), a_run(tmp_path, "mono", 0)
    evaluated(run.folder, benchmark, planted(benchmark, 1))
    alone = results_of([run])
    assert "own_first" in alone.biases
    reference = scored(benchmark, planted(benchmark, 0)).drop(columns=[*bias.AGNOSTIC])
    sums = summed(annotate(reference, benchmark, None)).assign(arm="random", seed=0)
    both = Results("made", [run], pd.concat([alone.sums, sums]), pd.DataFrame())
    assert "own_first" not in both.biases and "rank_distance" in both.biases


def test_interval_over_seeds_is_a_t_interval():
    """By hand: 1, 2, 3 have mean 2 and standard error 1 / sqrt(3), t(.975, 2) is 4.302653."""
    found = stats.over_seeds([1, 2, 3])
    assert (found.low, found.high) == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5))
    assert np.isnan(stats.over_seeds([1.0]).low) and stats.over_seeds([1.0]).estimate == 1
    with pytest.raises(ValueError, match="at least one seed"):
        stats.over_seeds([])
