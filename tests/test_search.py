"""Benchmarks, exact search, and the reference rankers."""

import json
import math
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import search
from lib.benchmark import Benchmark
from lib.benchmarks import references
from lib.benchmarks.references import reference_ranks
from lib.metrics import Ranks
from lib.search import relevant_ranks, tile_rows, tiles

XQUAD = Path(__file__).parents[1] / "../shared/data/xquad-r"
FIELDS = ("own", "pool", "alone", "tied", "top10")


def toy(seed=0, questions=9, candidates=30, languages="abc", share=0.15) -> Benchmark:
    """A benchmark with languages and relevance at random; at least one pair is relevant."""
    rng = np.random.default_rng(seed)
    asked, found = rng.choice(list(languages), questions), rng.choice(list(languages), candidates)
    relevant = rng.random((questions, candidates)) < share
    relevant[0, 0] = True
    return Benchmark.from_pairs(
        "toy",
        _table("question_id", asked).assign(group="g"),
        _table("candidate_id", found),
        *np.nonzero(relevant),
    )


def _table(key: str, languages, texts=None) -> pd.DataFrame:
    """Rows with running ids."""
    count = len(languages)
    return pd.DataFrame(
        {
            key: [f"{key[0]}{i}" for i in range(count)],
            "language": languages,
            "text": [f"text {i}" for i in range(count)] if texts is None else texts,
        }
    )


def whole(scores) -> list:
    """A score matrix as one tile."""
    return [(0, np.asarray(scores))]


def matrix(parts) -> np.ndarray:
    """All tiles put together."""
    return np.concatenate([scores for _, scores in parts])


def vectors(rng, count, width=24) -> np.ndarray:
    """Random float32 rows of no particular length."""
    return rng.standard_normal((count, width)).astype(np.float32)


def same(left: Ranks, right: Ranks) -> None:
    """Assert that two results are equal bit for bit."""
    for field in FIELDS:
        np.testing.assert_array_equal(getattr(left, field), getattr(right, field), field)


def mid_rank(scores, chosen: int, pool) -> float:
    """Reference: sort the pool's scores, best first, and average the places of the chosen score."""
    ordered = sorted((scores[i] for i in pool), reverse=True)
    places = [place for place, score in enumerate(ordered, 1) if score == scores[chosen]]
    return sum(places) / len(places)


def slow_top10(scores, languages, names) -> list[float]:
    """Reference: walk down the score levels, sharing the last level's places equally."""
    size = room = min(10, len(scores))
    share = dict.fromkeys(names, 0.0)
    for level in sorted(set(scores), reverse=True):
        members = [i for i, score in enumerate(scores) if score == level]
        for i in members:
            share[languages[i]] += min(1, room / len(members)) / size
        room = max(0, room - len(members))
    return [share[name] for name in names]


# ---- Benchmark ----


def test_from_pairs_sorts():
    """Pairs may come in any order; languages are those of both sides."""
    questions = _table("question_id", ["b", "a"]).assign(group="g")
    benchmark = Benchmark.from_pairs(
        "x", questions, _table("candidate_id", ["c", "b"]), [1, 0, 1], [1, 1, 0], [3, 2, 1]
    )
    assert benchmark.question.tolist() == [0, 1, 1]
    assert benchmark.candidate.tolist() == [1, 0, 1]
    assert benchmark.grade.tolist() == [2, 1, 3] and benchmark.grade.dtype == np.float32
    assert benchmark.languages == ("a", "b", "c")
    assert benchmark.question_language.tolist() == [1, 0]
    assert benchmark.candidate_language.tolist() == [2, 1]


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda b: {"questions": b.questions.drop(columns="group")}, "lacks column 'group'"),
        (lambda b: {"candidates": b.candidates[:0]}, "candidates is empty"),
        (lambda b: {"candidates": b.candidates.assign(text=None)}, "row 0 has no text"),
        (
            lambda b: {"candidates": b.candidates.assign(candidate_id="x", language="a")},
            "candidate_id 'x' twice in 'a'",
        ),
        (lambda b: {"question": b.question.astype(np.int64)}, "question is int64"),
        (lambda b: {"grade": b.grade[:-1]}, "grade is float32"),
        (lambda b: {"grade": b.grade * 0}, "above 0"),
        (lambda b: {"candidate": b.candidate + np.int32(1000)}, "does not exist among 30"),
        (lambda b: {"candidate": b.candidate - np.int32(99)}, "does not exist among 30"),
        (lambda b: {"question": b.question[::-1].copy()}, "out of order"),
        (lambda b: {"question": b.question * 0, "candidate": b.candidate * 0}, "given twice"),
        (
            lambda b: (
                dict.fromkeys(("question", "candidate"), b.question[:0]) | {"grade": b.grade[:0]}
            ),
            "no question has a relevant candidate",
        ),
    ],
)
def test_bad_benchmark_is_refused(change, message):
    """Each fault is named in one line together with the benchmark."""
    benchmark = toy()
    with pytest.raises(ValueError, match=message) as caught:
        replace(benchmark, **change(benchmark))
    assert "'toy'" in str(caught.value) and "\n" not in str(caught.value)


def test_translations_may_share_an_id():
    """The same id in two languages is one question asked twice, not a duplicate."""
    questions = _table("question_id", ["a", "b"]).assign(group="g", question_id="q")
    benchmark = Benchmark.from_pairs("x", questions, _table("candidate_id", ["a"]), [0, 1], [0, 0])
    assert benchmark.questions["question_id"].tolist() == ["q", "q"]


# ---- ranks ----


def test_ranks_by_hand():
    """Two relevant candidates, ties inside and outside their language."""
    benchmark = Benchmark.from_pairs(
        "x",
        _table("question_id", ["a"]).assign(group="g"),
        _table("candidate_id", list("aabbb")),
        [0, 0],
        [0, 2],
    )
    ranks = relevant_ranks(whole([[5, 7, 5, 9, 5]]), benchmark)
    assert ranks.own.tolist() == [2, 2.5]  # a: 7 5*; b: 9 (5* 5)
    assert ranks.pool.tolist() == [4, 4]  # 9 7 (5* 5* 5)
    assert ranks.alone.tolist() == [3.5, 3.5]  # 9 7 (5* 5)
    assert ranks.tied.tolist() == [3, 3]
    assert ranks.top10.tolist() == [[np.float32(0.4), np.float32(0.6)]]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    questions=st.integers(1, 6),
    candidates=st.integers(1, 40),
    levels=st.sampled_from([1, 2, 5, 1000]),
    share=st.sampled_from([0.0, 0.1, 0.6]),
)
def test_ranks_equal_slow_reference(seed, questions, candidates, levels, share):
    """Any shape, few or many ties, languages without candidates: equal to explicit sorting."""
    benchmark = toy(seed, questions, candidates, share=share)
    scores = np.random.default_rng(seed).integers(-levels, levels, (questions, candidates))
    ranks = relevant_ranks(whole(scores), benchmark)
    language = benchmark.candidates["language"].tolist()
    everyone = range(candidates)
    for n, (q, c) in enumerate(zip(benchmark.question, benchmark.candidate, strict=True)):
        others = set(benchmark.candidate[benchmark.question == q]) - {c}
        pools = {
            "own": [i for i in everyone if language[i] == language[c]],
            "pool": everyone,
            "alone": [i for i in everyone if i not in others],
        }
        for field, pool in pools.items():
            assert getattr(ranks, field)[n] == mid_rank(scores[q], c, pool)
        assert ranks.tied[n] == (scores[q] == scores[q, c]).sum()
    for q in range(questions):
        expected = slow_top10(scores[q].tolist(), language, benchmark.languages)
        np.testing.assert_allclose(ranks.top10[q], expected, atol=1e-6)


@pytest.mark.parametrize("height", [1, 4, 5])
def test_tile_height_does_not_matter(height):
    """Scores cut into tiles of any height give the same bits, and are left as they were."""
    benchmark, rng = toy(), np.random.default_rng(0)
    scores = rng.integers(0, 50, (9, 30))
    before = scores.copy()
    cut = [(i, scores[i : i + height]) for i in range(0, 9, height)]
    same(relevant_ranks(cut, benchmark), relevant_ranks(whole(scores), benchmark))
    np.testing.assert_array_equal(scores, before)


def test_order_of_candidates_and_questions_does_not_matter():
    """From vectors: reordered texts give the same ranks of the same pairs, bit for bit."""
    rng, benchmark = np.random.default_rng(1), toy(1, 300, 1500, share=0.01)
    asked, found = vectors(rng, 300), vectors(rng, 1500)
    found[rng.integers(0, 1500, 300)] = found[0]  # ties
    q, c = rng.permutation(300), rng.permutation(1500)
    mixed = Benchmark.from_pairs(
        "mixed",
        benchmark.questions.iloc[q],
        benchmark.candidates.iloc[c],
        np.argsort(q)[benchmark.question],
        np.argsort(c)[benchmark.candidate],
    )
    ranks, other = (
        relevant_ranks(tiles(asked, found), benchmark),
        relevant_ranks(tiles(asked[q], found[c]), mixed),
    )
    order = np.lexsort((c[mixed.candidate], q[mixed.question]))
    same(
        ranks,
        replace(
            other,
            **{name: getattr(other, name)[order] for name in FIELDS[:-1]},
            top10=other.top10[np.argsort(q)],
        ),
    )


@pytest.mark.parametrize(
    "parts, message",
    [
        ([(0, np.zeros((9, 30)))], "not float64"),
        ([(0, np.zeros((9, 31), int))], r"\[9, 31\] from question 0"),
        ([(0, np.zeros((4, 30), int))], "end after question 4 of 9"),
        ([(0, np.zeros((4, 30), int)), (5, np.zeros((4, 30), int))], "expected .* from question 4"),
        ([(0, np.zeros((10, 30), int))], r"at most 9, 30\]"),
    ],
)
def test_bad_tiles_are_refused(parts, message):
    """Scores of another benchmark, with a gap, cut short, or not whole numbers."""
    with pytest.raises(ValueError, match=message):
        relevant_ranks(parts, toy())


def test_memory_is_bounded_by_a_tile():
    """Searching 8,000 x 2,000 texts never holds a quarter of the score matrix."""
    rng, benchmark = np.random.default_rng(0), toy(0, 8000, 2000, share=0.001)
    asked, found = vectors(rng, 8000, 8), vectors(rng, 2000, 8)
    tracemalloc.start()
    relevant_ranks(tiles(asked, found), benchmark)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8000 * 2000 * 4 / 4


# ---- scores of vectors ----


def test_scores_are_cosines():
    """rint(1e6 cosine) to one unit, of vectors of any length."""
    rng = np.random.default_rng(2)
    asked, found = vectors(rng, 40, 128), vectors(rng, 1100, 128)
    exact = asked.astype(float) @ found.astype(float).T
    exact /= np.outer(np.linalg.norm(asked, axis=1), np.linalg.norm(found, axis=1))
    scores = matrix(tiles(asked * 3, found))
    assert scores.dtype == np.int32
    assert np.abs(scores - 1e6 * exact).max() <= 1
    assert (np.diag(matrix(tiles(asked, asked))) == 1_000_000).all()


def test_scores_do_not_depend_on_their_surroundings():
    """A score keeps its bits with other rows a tile, other texts, and at any other place."""
    rng = np.random.default_rng(3)
    asked, found = vectors(rng, 300, 100), vectors(rng, 1200, 100)
    scores = matrix(tiles(asked, found))
    for rows in (1, 7, 100):
        np.testing.assert_array_equal(matrix(tiles(asked[:120], found, rows)), scores[:120])
    np.testing.assert_array_equal(matrix(tiles(asked[5:], found[77:])), scores[5:, 77:])
    np.testing.assert_array_equal(matrix(tiles(asked[::-1], found[::-1])), scores[::-1, ::-1])


def test_products_of_unit_vectors_are_exact():
    """float64 products of rounded unit vectors equal whole-number arithmetic to the last bit."""
    rng = np.random.default_rng(5)
    asked, found = (search._unit(vectors(rng, 20, 300), "", 0) for _ in range(2))
    whole_numbers = [(part * 2.0**24).astype(np.int64) for part in (asked, found)]
    expected = whole_numbers[0] @ whole_numbers[1].T
    np.testing.assert_array_equal(asked.astype(float) @ found.astype(float).T * 2.0**48, expected)


def test_equal_vectors_tie():
    """Copies of a candidate have exactly its score, wherever they stand."""
    rng = np.random.default_rng(4)
    found = np.repeat(vectors(rng, 1, 96), 1500, 0)
    assert (np.ptp(matrix(tiles(vectors(rng, 50, 96), found)), axis=1) == 0).all()


@pytest.mark.parametrize(
    "asked, found, message",
    [
        (np.ones((2, 3)), np.ones((2, 4)), r"equal d; got question vectors \(2, 3\)"),
        (np.ones(3), np.ones(3), "two tables"),
        (
            np.ones((300, 2)) * (np.arange(300) != 299)[:, None],
            np.ones((1, 2)),
            "question vector 299",
        ),
        (
            np.ones((1, 2)),
            np.array([[1, 1], [np.nan, 1]]),
            "candidate vector 1 is zero or not finite",
        ),
    ],
)
def test_bad_vectors_are_refused(asked, found, message):
    """Widths that differ, and vectors without a direction, which are named."""
    with pytest.raises(ValueError, match=message):
        matrix(tiles(asked, found))


# ---- reference rankers ----


def test_tokenizers():
    """Words and character n-grams as the study defines them."""
    assert references.word_terms("It's 5 €, ÄRGER_1!") == ["it", "s", "5", "ärger", "1"]
    assert references.word_terms("東京都x ที่นี่, 北") == ["東京", "京都", "x", "ที่นี่", "北"]
    assert references.char_ngrams("Ab, c") == ["_ab", "ab_", "_c_"]
    assert references.char_ngrams("東京x กข") == ["_東", "東京", "京_", "_x_", "_ก", "กข", "ข_"]
    assert references.char_ngrams("?!") == []


def test_marks_make_words_and_grams():
    """Without its vowel signs every Hindi word of one consonant is the same one."""
    assert len({*references.char_ngrams("की का के")}) == 6
    togo, tonga = references.word_terms("टोगो"), references.word_terms("टोंगा")
    assert togo != tonga and len(togo) == len(tonga) == 1


TEXTS = ["the cat sat", "the dog sat on the mat", "a bird", "?!", "the cat", "mat mat mat dog"]


def test_bm25_equals_bm25s():
    """Scores of a sparse product equal bm25s' own, also for repeated and unknown words."""
    import bm25s

    index = bm25s.BM25()
    index.index([references.word_terms(text) for text in TEXTS], show_progress=False)
    asked = ["the cat", "dog dog mat unknown", "a bird sat on the dog"] * 100
    scores = matrix(references.bm25_tiles(asked, TEXTS, references.word_terms)) / 1e6
    expected = np.stack([index.get_scores(references.word_terms(text)) for text in asked])
    np.testing.assert_allclose(scores, expected, atol=2e-6)
    assert (expected > 0).any(1).all()


def test_bm25_by_hand():
    """One term: idf ln(1 + (N - n + .5)/(n + .5)) times tf / (tf + k1 (1 - b + b length/mean))."""
    ((_, scores),) = references.bm25_tiles(["mat"], TEXTS, references.word_terms)
    idf = math.log(1 + (6 - 2 + 0.5) / (2 + 0.5))
    mean = (3 + 6 + 2 + 0 + 2 + 4) / 6
    once, thrice = (
        idf * tf / (tf + 1.5 * (0.25 + 0.75 * length / mean)) for tf, length in ((1, 6), (3, 4))
    )
    np.testing.assert_allclose(scores[0] / 1e6, [0, once, 0, 0, 0, thrice], atol=1e-6)


def test_bm25_of_nothing_ties_everything():
    """A question without known words, or texts without any, score 0 for all."""
    assert not matrix(references.bm25_tiles(["?", "unknown"], TEXTS, references.word_terms)).any()
    assert not matrix(references.bm25_tiles(["cat"], ["!", "?"], references.word_terms)).any()


def test_bm25_own_ranks_come_from_one_index_a_language():
    """`own` equals searching each language's candidates alone; the rest one pooled index."""
    rng, letters = np.random.default_rng(0), list("abcdefghijklmnop")
    languages = rng.choice(list("xyz"), 60)
    texts = [" ".join(rng.choice(letters[: 6 + 5 * "xyz".index(name)], 8)) for name in languages]
    questions = _table("question_id", languages[:20], texts[:20]).assign(group="g")
    candidates = _table("candidate_id", languages, texts)
    benchmark = Benchmark.from_pairs(
        "x", questions, candidates, *np.nonzero(rng.random((20, 60)) < 0.2)
    )
    ranks = reference_ranks(benchmark, "bm25_words")
    pooled = matrix(references.bm25_tiles(texts[:20], texts, references.word_terms))
    same(replace(relevant_ranks(whole(pooled), benchmark), own=ranks.own), ranks)
    for name in "xyz":
        chosen = np.flatnonzero(languages == name)
        scores = np.zeros((20, 60), int)
        scores[:, chosen] = matrix(
            references.bm25_tiles(texts[:20], [texts[i] for i in chosen], references.word_terms)
        )
        here = languages[benchmark.candidate] == name
        alone = relevant_ranks(whole(scores), benchmark)
        np.testing.assert_array_equal(ranks.own[here], alone.own[here])
    assert (ranks.own != relevant_ranks(whole(pooled), benchmark).own).any()


def test_random_is_seeded_and_uniform():
    """Same seed, same ranks; another seed, others; ranks in the middle on average."""
    benchmark = toy(5, 600, 90, share=0.05)
    ranks = reference_ranks(benchmark, "random", 7)
    same(ranks, reference_ranks(benchmark, "random", 7))
    assert (ranks.pool != reference_ranks(benchmark, "random", 8).pool).any()
    error = math.sqrt((90**2 - 1) / 12 / len(ranks.pool))
    assert abs(ranks.pool.mean() - 45.5) < 4 * error


def test_oracle_is_perfect_in_its_own_language_only():
    """Own-language relevant candidates fill the first places; the others stand at random."""
    benchmark = toy(6, 600, 90, share=0.05)
    ranks = reference_ranks(benchmark, "oracle", 0)
    own = (
        benchmark.question_language[benchmark.question]
        == benchmark.candidate_language[benchmark.candidate]
    )
    size = np.bincount(benchmark.question[own], minlength=600)[benchmark.question]
    assert own.any() and (ranks.own[own] <= size[own]).all() and (ranks.alone[own] == 1).all()
    pool = np.bincount(benchmark.candidate_language)[
        benchmark.candidate_language[benchmark.candidate[~own]]
    ]
    error = math.sqrt(((pool**2 - 1) / 12).mean() / (~own).sum())
    assert abs((ranks.own[~own] - (pool + 1) / 2).mean()) < 4 * error


def test_large_benchmarks_are_sampled(capsys):
    """Within the bound nothing changes; above it each language keeps as many questions, those of
    one group together and all of a small language, and their ranks are those of the whole."""
    size = {"x": 40, "y": 40, "z": 3}
    languages = np.repeat(list(size), list(size.values()))
    groups = np.concatenate([np.arange(n) for n in size.values()]).astype(str)
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(list("abcdefgh"), 4)) for _ in languages]
    questions = _table("question_id", languages, texts).assign(group=groups)
    candidates = _table("candidate_id", languages, texts)
    pairs = np.nonzero(groups[:, None] == groups)
    benchmark = Benchmark.from_pairs("large", questions, candidates, *pairs)
    assert references.sampled(benchmark, 83 * 83) is benchmark and not capsys.readouterr().out
    sample = references.sampled(benchmark, 83 * 30)
    assert sample.questions["language"].value_counts().to_dict() == {"x": 10, "y": 10, "z": 3}
    assert len(sample.candidates) == 83
    chosen = sample.questions.groupby("language")["group"].agg(set)
    assert chosen["x"] == chosen["y"]
    assert "answer 23 of 83 questions (a fixed sample)" in capsys.readouterr().out
    whole, some = (reference_ranks(b, "bm25_words") for b in (benchmark, sample))
    keys = ["question_id", "language"]
    rows = pd.MultiIndex.from_frame(questions[keys]).get_indexer_for(
        pd.MultiIndex.from_frame(sample.questions[keys])
    )
    kept = np.isin(benchmark.question, rows)
    for name in ("own", "pool", "alone", "tied"):
        np.testing.assert_array_equal(getattr(whole, name)[kept], getattr(some, name))


def test_tiles_are_no_larger_for_more_candidates():
    """256 questions of few candidates, fewer of many, one at least."""
    assert [tile_rows(n) for n in (0, 1000, 2**16, 2**20, 2**40)] == [256, 256, 256, 16, 1]


def test_unknown_reference_is_refused():
    """The message lists what there is."""
    with pytest.raises(ValueError, match="'bm52'; expected random, oracle, bm25_words, bm25_chars"):
        reference_ranks(toy(), "bm52")


def _xquad_language(path: Path) -> Benchmark:
    """One language of XQuAD-R: candidates are sentences, relevant the one with the answer."""
    questions, texts, relevant = [], [], []
    paragraphs = [
        p for article in json.loads(path.read_text("utf-8"))["data"] for p in article["paragraphs"]
    ]
    for paragraph in paragraphs:
        for item in paragraph["qas"]:
            start = item["answers"][0]["answer_start"]
            sentence = sum(first <= start for first, _ in paragraph["sentence_breaks"]) - 1
            questions.append(item["question"])
            relevant.append(len(texts) + sentence)
        texts += [paragraph["context"][a:b] for a, b in paragraph["sentence_breaks"]]
    asked = _table("question_id", [path.stem] * len(questions), questions).assign(group="g")
    found = _table("candidate_id", [path.stem] * len(texts), texts)
    return Benchmark.from_pairs(path.stem, asked, found, range(len(questions)), relevant)


def _bm25_map(benchmark: Benchmark, tokenizer) -> float:
    """mAP of BM25 on a benchmark of one language and one relevant candidate a question."""
    scores = references.bm25_tiles(
        benchmark.questions["text"].tolist(), benchmark.candidates["text"].tolist(), tokenizer
    )
    return (1 / relevant_ranks(scores, benchmark).own).mean()


def test_bm25_on_xquad_r():
    """Monolingual mAP of BM25 over sentences: .728 by words and .783 by character n-grams."""
    if not XQUAD.is_dir():
        pytest.skip(f"no XQuAD-R at {XQUAD}: BM25's figures on real text are not checked")
    benchmarks = [_xquad_language(path) for path in sorted(XQUAD.glob("*.json"))]
    assert len(benchmarks) == 11 and all(len(b.questions) == 1190 for b in benchmarks)
    assert sum(len(b.candidates) for b in benchmarks) == 13_014
    for tokenizer, expected, english in (
        (references.word_terms, 0.728, 0.791),
        (references.char_ngrams, 0.783, 0.817),
    ):
        by_language = {b.name: _bm25_map(b, tokenizer) for b in benchmarks}
        assert np.mean(list(by_language.values())) == pytest.approx(expected, abs=0.001)
        assert by_language["en"] == pytest.approx(english, abs=0.001)
