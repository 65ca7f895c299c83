"""Validation while training: on questions nobody else asks, without a trace in what is trained."""

import math
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from test_ranks import killed
from test_trainer import LANGUAGES, PARAMS, results, stop_after, toy_rows

from lib import benchmarks, params, store, trainer
from lib.benchmarks import heldout
from lib.corpus import ParallelCorpus
from lib.params import BenchmarkSpec, Prepare, Train
from lib.sources.assemble import corpus_of_rows
from lib.study import grid, prepare
from lib.trainer import train
from lib.training import validation
from lib.training.tokenizer import train_tokenizer

CHANGES = {"validate_every": 2, "schedule": "constant", "warmup": 0.0}
EVERY = PARAMS.model_copy(update=CHANGES | {"negatives": "in_batch", "explicit": 0})
HELD_OUT = BenchmarkSpec(format="heldout")


def corpus_with_held_out(folder):
    """The toy corpus: the last ten of its pairs are held out, about half of them for validation;
    they have words that training has not."""
    rows = [row | {"question": row["question"] + " QZ"} for row in toy_rows()[-30:]]
    known = [{k: v for k, v in r.items() if k != "negatives"} for r in toy_rows()[:-30]]
    pool = [{k: row[k] for k in ("passage_id", "language", "passage")} for row in toy_rows()]
    made = corpus_of_rows(known, {"source": "toy", "dev": 0.5}, rows, pool)
    with store.atomic_folder(folder, made.meta) as new:
        made.save(new)
        train_tokenizer([r["question"] for r in toy_rows()] + ["QZ"], 400).save(
            str(new / "tokenizer.json")
        )
    return ParallelCorpus.load(folder)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return corpus_with_held_out(tmp_path_factory.mktemp("corpus") / "data")


def test_no_group_is_asked_in_both(corpus):
    """What is set aside, and what is evaluated, are all that is held out."""
    dev, test = heldout.dev(corpus), benchmarks.load_benchmark("heldout", HELD_OUT, corpus)
    groups = [set(part.questions["group"]) for part in (dev, test)]
    assert groups[0] and groups[1] and not groups[0] & groups[1]
    assert groups[0] | groups[1] == {f"p{i}" for i in range(30, 40)}
    assert len(dev.questions) + len(test.questions) == 30
    assert set(dev.questions["language"]) == set(LANGUAGES)
    assert len(dev.candidates) == len(test.candidates) == 120


def test_the_pool_is_bounded(corpus, monkeypatch):
    """The relevant passages come first."""
    monkeypatch.setattr(heldout, "DEV_POOL", 12)
    small, whole = heldout.dev(corpus).candidates, set(heldout.dev(corpus).questions["question_id"])
    assert dict(small["language"].value_counts()) == dict.fromkeys(LANGUAGES, 12)
    assert whole <= set(small["candidate_id"])


def test_nothing_is_set_aside_unasked(tmp_path, monkeypatch):
    """prepare.dev is 0; training that is to validate says what is missing before it starts."""
    monkeypatch.setenv("BATCHES_OUTPUTS", str(tmp_path))
    made = prepare.prepare(Prepare(run="base", languages=["de", "en"], bridges=1))
    assert len(heldout.load_benchmark(made).questions) == len(made.test)
    with pytest.raises(ValueError, match="set prepare.dev"):
        train(made, Train(validate_every=5), tmp_path / "run")
    aside = prepare.prepare(Prepare(run="aside", languages=["de", "en"], bridges=1, dev=0.3))
    groups = set(made.test["group"][:])
    assert heldout.dev(aside).questions["group"].nunique() == math.ceil(0.3 * len(groups))
    assert len(heldout.load_benchmark(aside).questions) == len(made.test) - len(
        heldout.dev(aside).questions
    )
    assert aside.content_hash == made.content_hash


def test_figures_are_those_of_an_evaluation(corpus, tmp_path):
    """Of the final encoder, by the way of 03_evaluate; the mean is that of the settings."""
    result = train(corpus, EVERY, tmp_path, heldout.dev(corpus))
    best = result.validation.loc[result.validation["map"].idxmax()]
    found = validation.validate(result.encoder, heldout.dev(corpus))
    assert found == pytest.approx(best.drop("step").to_dict(), abs=1e-6)
    assert found["map"] == pytest.approx((found["mono"] + found["cross"] + found["multi"]) / 3)
    assert list(result.validation["step"]) == [2, 4, 6, 8, 10, 12]
    assert 0 < result.cost["validation_seconds"] < result.cost["seconds"]


def test_it_leaves_no_trace_in_training(corpus, tmp_path):
    """Same losses and norms as without it, in dropout too; only the encoder kept may differ."""
    plain = train(
        corpus,
        EVERY.model_copy(update={"validate_every": 0}),
        tmp_path / "plain",
        heldout.dev(corpus),
    )
    result = train(corpus, EVERY, tmp_path / "validated", heldout.dev(corpus))
    assert not len(plain.validation)
    columns = [c for c in plain.log if c != "seconds"]
    pd.testing.assert_frame_equal(plain.log[columns], result.log[columns])
    assert plain.exposure == result.exposure


def scripted(monkeypatch, *values):
    """Let validations find these values, one after the other."""
    left = iter(values)
    monkeypatch.setattr(trainer, "validate", lambda *_: {"map": next(left)})


def weights(folder):
    """The tensors of a finished run's encoder."""
    return dict(trainer.TrainResult.read(folder).encoder.named_parameters())


def test_the_best_encoder_is_kept(corpus, tmp_path, monkeypatch):
    """That of the first best step, as from a run of so many steps: the same bits, but for words of
    validation alone, which shrink step by step in one and at the end in the other."""
    scripted(monkeypatch, 0.1, 0.4, 0.3, 0.4, 0.2, 0.1)
    train(corpus, EVERY, tmp_path / "all", heldout.dev(corpus))
    short = EVERY.model_copy(update={"validate_every": 0, "steps": 4})
    train(corpus, short, tmp_path / "short")
    all_, wanted = weights(tmp_path / "all"), weights(tmp_path / "short")
    table = "model.embeddings.word_embeddings.weight"
    assert all(torch.equal(all_[name], wanted[name]) for name in wanted if name != table)
    assert torch.allclose(all_[table], wanted[table], rtol=1e-6, atol=0)


def test_patience_ends_a_run(corpus, tmp_path, monkeypatch, capsys):
    """After two validations that are no better; log, exposure and cost are of the steps done."""
    scripted(monkeypatch, 0.1, 0.3, 0.3, 0.2, 0.9, 0.9)
    result = train(corpus, EVERY.model_copy(update={"patience": 2}), tmp_path, heldout.dev(corpus))
    assert len(result.log) == 8 == result.cost["steps"]
    assert result.exposure["pairs"] == result.cost["pairs"] == 8 * 8
    assert list(result.validation["map"]) == [0.1, 0.3, 0.3, 0.2]
    assert re.search(
        r"step 8/12 .*\nstopped after step 8: .* since step 4\n", capsys.readouterr().out
    )


@pytest.mark.parametrize("after", [3, 7, 11])
def test_resumes_to_the_same_bits(corpus, tmp_path, monkeypatch, after):
    """Validations, the best weights and what was stopped for, from any step."""
    values = [0.1, 0.5, 0.2, 0.1, 0.2, 0.3]
    scripted(monkeypatch, *values)
    train(corpus, EVERY, tmp_path / "whole", heldout.dev(corpus))
    scripted(monkeypatch, *values)
    stop_after(corpus, tmp_path / "half", after, EVERY, heldout.dev(corpus))
    scripted(monkeypatch, *values[after // 3 * 3 // 2 :])
    train(corpus, EVERY, tmp_path / "half", heldout.dev(corpus))
    assert results(tmp_path / "half") == results(tmp_path / "whole")
    found = [(tmp_path / name / "validation.json").read_bytes() for name in ("half", "whole")]
    assert found[0] == found[1]


def test_other_questions_are_another_run(corpus, tmp_path):
    """Their scores would choose another encoder, and maybe one by what is evaluated."""
    train(corpus, EVERY, tmp_path, heldout.dev(corpus))
    other = replace(corpus, meta=corpus.meta | {"dev": 0.2})
    with pytest.raises(ValueError, match="was made with validation content"):
        train(other, EVERY, tmp_path, heldout.dev(other))
    plain = EVERY.model_copy(update={"validate_every": 0})
    train(corpus, plain, tmp_path / "plain")
    train(other, plain, tmp_path / "plain")


def test_ranks_validate_and_stop_together(corpus, tmp_path, fast):
    """As one does, up to rounding; killed when there is a best encoder, they go on to the same
    bits."""
    changes = {"dropout": 0.0, "patience": 1, "learning_rate": 0.1}
    asked = EVERY.model_copy(update=changes)
    one = train(corpus, asked, tmp_path / "1", heldout.dev(corpus))
    assert 2 < len(one.log) < 12
    asked = asked.model_copy(update={"ranks": 2})
    two = train(corpus, asked, tmp_path / "2", heldout.dev(corpus))
    assert np.allclose(one.validation, two.validation, atol=1e-3)
    assert len(one.log) == len(two.log)
    killed(corpus, asked, tmp_path / "half", dev=heldout.dev(corpus))
    train(corpus, asked, tmp_path / "half", heldout.dev(corpus))
    assert results(tmp_path / "half") == results(tmp_path / "2")


def test_patience_needs_validations(tmp_path):
    """Said before anything runs."""
    with pytest.raises(ValueError, match="patience: 3 does not go with validate_every 0"):
        Train(patience=3)
    assert Train(patience=3, validate_every=10).patience == 3
    study = tmp_path / "tiny.yaml"
    study.write_text("train: {validate_every: 10}")
    with pytest.raises(params.BadParameter, match="10 does not go with prepare.dev 0"):
        grid.load_study(study)
    study.write_text("train: {validate_every: 10}\nprepare: {dev: 0.1}")
    assert grid.load_study(study)


def test_a_fold_that_holds_nothing_out_is_refused(outputs, tmp_path):
    """Six rows in one of many folds: said before anything is written, and in one line."""
    table = tmp_path / "pairs.csv"
    rows = [f"p{i},{x},what {i} {x},that {i} {x}" for i in range(3) for x in ("de", "en")]
    table.write_text("\n".join(["pair,language,question,passage", *rows]))
    asked = Prepare(run="base", source="pairs", files={"mine": str(table)}, folds=500)
    with pytest.raises(ValueError, match=r"^fold: 0 of 500 holds out no group \(expected fewer"):
        prepare.prepare(asked)
    assert not (outputs / "lab" / "corpus" / "base" / "data").exists()
