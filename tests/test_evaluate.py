"""Encoders on benchmarks: languages chosen, strata, and what is made once."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from lib import benchmarks, store
from lib.benchmark import Benchmark
from lib.benchmarks import heldout
from lib.corpus import ParallelCorpus
from lib.params import BenchmarkSpec, Evaluate
from lib.study import evaluate
from tests.test_heldout import corpus, row


def saved(folder, passages, **strata) -> ParallelCorpus:
    """A corpus on disk, as 01_prepare leaves it."""
    own = corpus(passages, **strata)
    with store.atomic_folder(folder / "data", own.meta) as new:
        own.save(new)
        if len(names := heldout.name_strata(own)):
            names.to_parquet(new / "names.parquet", index=False)
    return ParallelCorpus.load(folder / "data")


def made(languages=("de", "en", "th")) -> Benchmark:
    """One question and its passage in each language, all parallel."""
    questions = pd.DataFrame(
        {"question_id": "q", "language": languages, "text": "which word", "group": "g"}
    )
    candidates = pd.DataFrame({"candidate_id": "c", "language": languages, "text": "this word"})
    size = len(languages)
    place = np.arange(size)
    return Benchmark.from_pairs(
        "made", questions, candidates, np.repeat(place, size), np.tile(place, size)
    )


def test_restricted_keeps_pairs_within_the_languages():
    """Of three languages two are kept: 2 questions, 2 candidates, 4 pairs; all three: the same."""
    own = benchmarks.restricted(made(), ["th", "de"])
    assert own.languages == ("de", "th")
    assert (len(own.questions), len(own.candidates), len(own.question)) == (2, 2, 4)
    assert own.question.tolist() == [0, 0, 1, 1] and own.candidate.tolist() == [0, 1, 0, 1]
    whole = made()
    assert benchmarks.restricted(whole, ["de", "en", "th", "zh"]) is whole


def test_languages_left_out_are_said(tmp_path, capsys):
    """`trained` restricts a benchmark to the corpus' languages, and says which it leaves out."""
    own, place = saved(tmp_path, {"a": "one"}), tmp_path / "set"
    for language in ("de", "en", "th"):
        (place / language / "qrels").mkdir(parents=True)
        for name in ("corpus", "queries"):
            (place / language / f"{name}.jsonl").write_text('{"_id": "1", "text": "word"}')
        (place / language / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\n1\t1\t1\n")
    spec = BenchmarkSpec(format="beir", folder=str(place), trained=True)
    found = benchmarks.load_benchmark("set", spec, own)
    assert found.languages == ("de", "en")
    assert "set: left out, since not trained on: th" in capsys.readouterr().out


def test_trained_languages_and_others(tmp_path):
    """de and en are trained on, th is not: pairs are labelled by how many sides were."""
    own = saved(tmp_path, {"a": "one"})
    scores = pd.DataFrame(
        {
            "question": [0, 0, 2, 2, 1],
            "question_language": ["de", "de", "th", "th", "en"],
            "candidate_language": ["en", "th", "th", "*", "*"],
        }
    )
    found = evaluate.annotate(scores, made(), own)
    assert found["trained"].tolist() == ["both", "one", "neither", "neither", "one"]
    assert found["script"].tolist() == ["same", "other", "same", "all", "all"]
    known = evaluate.annotate(scores.iloc[:1], made(("de", "en")), own)
    assert "trained" not in known and "script" not in known


def test_only_trained_languages_are_loaded(tmp_path):
    """`trained` drops what the corpus does not train on; nothing left is an error."""
    own = saved(tmp_path, {"a": "one"})
    spec = BenchmarkSpec(format="heldout", trained=True, languages=["de"])
    assert benchmarks.load_benchmark("heldout", spec, own).languages == ("de",)
    with pytest.raises(ValueError, match="has no th"):
        benchmarks.load_benchmark("heldout", BenchmarkSpec(format="heldout", languages=["th"]), own)


def test_a_benchmark_without_a_trained_language_is_refused(tmp_path, monkeypatch):
    """Nothing is left of it."""
    monkeypatch.setattr(
        "lib.benchmarks.lareqa.load_benchmark", lambda name, spec: made(("th", "zh"))
    )
    spec = BenchmarkSpec(format="lareqa", trained=True)
    with pytest.raises(ValueError, match="none of its languages is left"):
        benchmarks.load_benchmark("x", spec, saved(tmp_path, {"a": "one"}))


def test_names_are_labelled_where_a_corpus_lists_them(tmp_path):
    """Without names scores keep their columns; with them each cross-lingual row is labelled."""
    scores = pd.DataFrame(
        {"question": [0], "question_language": ["de"], "candidate_language": ["en"]}
    )
    for strata, labelled in (({}, False), ({"names": ["Wien"]}, True)):
        own = saved(tmp_path / str(labelled), {"a": "one"}, **strata)
        found = evaluate.annotate(scores, heldout.load_benchmark(own), own)
        assert ("names" in found) == labelled
    assert found["names"].tolist() == ["identical"]


def test_references_are_made_once_and_again_for_another_benchmark(tmp_path):
    """The second call reads the files of the first; another spec, or damage, makes them again."""
    own = saved(tmp_path, {"a": "one two", "b": "three four"})
    folder = evaluate.with_references("heldout", heldout.load_benchmark(own), own)
    assert store.verify(folder)["unused"] == {}
    first = (folder / "references.parquet").stat().st_mtime_ns
    evaluate.with_references("heldout", heldout.load_benchmark(own), own)
    assert (folder / "references.parquet").stat().st_mtime_ns == first
    spec = BenchmarkSpec(format="heldout", languages=["de"])
    evaluate.with_references("heldout", benchmarks.load_benchmark("heldout", spec, own), own)
    table = pd.read_parquet(folder / "references.parquet")
    assert set(table["question_language"]) == {"de"}
    assert set(table["ranker"]) == {"random", "oracle", "bm25_words", "bm25_chars"}
    (folder / "leaks.parquet").write_bytes(b"x")
    evaluate.with_references("heldout", benchmarks.load_benchmark("heldout", spec, own), own)
    leaked = pd.read_parquet(folder / "leaks.parquet").set_index("part")
    assert leaked.loc["questions", "exact"] == 0 and leaked.loc["candidates", "exact"] == 1


class Oracle:
    """Its vectors say which pair a text is of; `asked` counts what it tokenized."""

    maps = None

    def __init__(self, rules="rules", prompt=""):
        self.tokenizer = SimpleNamespace(backend_tokenizer=SimpleNamespace(to_str=lambda: rules))
        self.settings, self.asked = SimpleNamespace(prompt=lambda kind: prompt), []

    def tokenize(self, texts, kind):
        self.asked.append(kind)
        return [text.split() for text in texts]

    def vectors(self, tokens, batch_size):
        return np.array([[t[-2] == x for x in ("a", "b", "trained")] for t in tokens]) + 0.0


def test_a_perfect_encoder_finds_everything(tmp_path):
    """Vectors that name the pair, whatever the language, give an AP of 1 in every setting."""
    oracle, own = Oracle(), saved(tmp_path, {"a": "a", "b": "b"})
    found = evaluate.evaluate("heldout", Evaluate(), oracle, own, tmp_path)
    assert found.left_out == 0 and set(found.scores["ap"]) == {1.0}
    assert set(found.scores["setting"]) == {"mono", "cross", "multi", "one_target"}
    assert row("a", "de", "x")["pair"] in set(found.scores["question_id"])
