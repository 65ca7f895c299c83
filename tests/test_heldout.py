"""A corpus' held-out split as a benchmark."""

import pytest

from lib.benchmarks import heldout
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
