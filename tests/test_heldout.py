"""A corpus' held-out split as a benchmark."""

import numpy as np
import pytest

from lib import metrics, search
from lib.benchmarks import heldout, parallel
from lib.sources.assemble import corpus_of_rows

LANGUAGES = ("de", "en")


def row(pair, language, passage):
    return {
        "pair": pair,
        "language": language,
        "question": f"q {pair} {language}",
        "passage": f"{passage} {language}",
        "passage_id": f"P{pair}",
        "group": f"G{pair}",
        "source": "test",
    }


def corpus(passages, **strata):
    """Train pair t, and one test pair for each passage text, all in the pool."""
    train = [row("t", language, "trained") for language in LANGUAGES]
    test = [row(p, x, text) | strata for p, text in passages.items() for x in LANGUAGES]
    pool = [{k: r[k] for k in ("passage_id", "language", "passage")} for r in train + test]
    return corpus_of_rows(train, {}, test, pool)


def test_each_question_has_its_passage_in_every_language():
    """Two pairs, two languages: four questions, six candidates, eight relevant pairs."""
    benchmark = heldout.load_benchmark(corpus({"a": "one", "b": "two"}))
    assert (len(benchmark.questions), len(benchmark.candidates)) == (4, 6)
    found = zip(
        benchmark.questions["question_id"].to_numpy()[benchmark.question],
        benchmark.candidates["text"].to_numpy()[benchmark.candidate],
        strict=True,
    )
    assert sorted(set(found)) == [
        ("a", "one de"),
        ("a", "one en"),
        ("b", "two de"),
        ("b", "two en"),
    ]


def test_equal_passages_are_one_candidate():
    """Two passages with one text are one candidate, and it answers both questions."""
    benchmark = heldout.load_benchmark(corpus({"a": "same", "b": "same"}))
    assert len(benchmark.candidates) == 4 and len(benchmark.question) == 8
    texts = benchmark.candidates["text"].to_numpy()[benchmark.candidate]
    assert set(texts) == {"same de", "same en"}


def test_a_corpus_without_a_split_is_refused():
    """There is nothing to evaluate on, and the message says so."""
    with pytest.raises(ValueError, match="no held-out questions"):
        heldout.load_benchmark(corpus_of_rows([row("t", "en", "x")], {}))


# --- parallel passages -------------------------------------------------------------------------


def bitext_accuracy(vectors, benchmark):
    """Share of passages whose nearest one in another language is their own, by the definition:
    mean over ordered pairs of languages."""
    table, found = benchmark.questions, []
    for a in benchmark.languages:
        for b in benchmark.languages:
            rows, others = (np.flatnonzero(table["language"] == x) for x in (a, b))
            both = set(table["question_id"][rows]) & set(table["question_id"][others])
            if a != b and both:
                right = [
                    table["question_id"][others[np.argmax(vectors[others] @ vectors[row])]]
                    == table["question_id"][row]
                    for row in rows
                    if table["question_id"][row] in both
                ]
                found.append(np.mean(right))
    return np.mean(found)


def test_hit_at_1_across_languages_is_bitext_accuracy():
    """Of random vectors, against the definition; within a language a passage finds itself."""
    benchmark = parallel.load_benchmark(corpus({str(n): f"text {n}" for n in range(30)}))
    assert list(benchmark.questions["text"]) == list(benchmark.candidates["text"])
    assert len(benchmark.questions) == 60 and len(benchmark.question) == 120
    rng = np.random.default_rng(0)
    shared = dict(zip(map(str, range(30)), rng.normal(size=(30, 8)), strict=True))
    vectors = np.stack([shared[name[1:]] for name in benchmark.questions["question_id"]])
    vectors = vectors + 0.5 * rng.normal(size=vectors.shape)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ranks = search.relevant_ranks(search.tiles(vectors, vectors), benchmark)
    scores = metrics.question_scores(benchmark, ranks)
    hits = scores[scores["setting"] == "cross"].groupby(metrics.CELL, observed=True)["hit1"].mean()
    assert 0.2 < hits.mean() < 0.9
    assert hits.mean() == pytest.approx(bitext_accuracy(vectors, benchmark))
    assert (scores[scores["setting"] == "mono"]["hit1"] == 1).all()


def test_as_many_passages_of_every_corpus(monkeypatch):
    """At most PASSAGES, the same ones whatever else there is; those of one language are left."""
    texts = {str(n): f"text {n}" for n in range(30)}
    monkeypatch.setattr(parallel, "PASSAGES", 10)
    chosen = set(parallel.load_benchmark(corpus(texts)).questions["question_id"])
    assert len(chosen) == 10
    fewer = {name: text for name, text in texts.items() if f"P{name}" in chosen or name > "5"}
    assert set(parallel.load_benchmark(corpus(fewer)).questions["question_id"]) >= chosen
    alone = corpus_of_rows([row("t", "de", "x")], {}, [row("a", "de", "one")], [])
    with pytest.raises(ValueError, match="no held-out passages in two languages"):
        parallel.load_benchmark(alone)
