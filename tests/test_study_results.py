"""What evaluated runs leave on the disk, and a batch to look at before training."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from test_evaluate import saved
from test_trainer import PARAMS, toy_corpus

from lib import benchmarks, store
from lib.analysis.results import ScoredRun
from lib.params import BenchmarkSpec, Evaluate, Train
from lib.study import evaluate, look, seal
from lib.study.evaluate import Scored
from lib.study.plan import WRITTEN
from lib.study.results import benchmark_specs, comparable, load_budgets, save_scores
from lib.trainer import schedule, train
from lib.training import budgets
from lib.training.models import load_encoder


@pytest.fixture
def runs(tmp_path):
    """A run of each arm and seed, of which some were asked something else."""

    def made(other=(), **seeds):
        found = []
        for arm, own in seeds.items():
            for seed in own:
                key = f"{arm}-{seed}"
                digests = {"a": "other" if key in other else "same", "b": key}
                store.make_folder(tmp_path / key)
                store.write_json(tmp_path / key / "metrics.json", {"digests": digests})
                found.append(ScoredRun(key, arm, Train(seed=seed), tmp_path / key))
        return found

    return made


@pytest.mark.parametrize(
    ("seeds", "kept", "left"),
    [
        ({"mono": [0, 1], "mix": [0, 1]}, ["mono-0", "mono-1", "mix-0", "mix-1"], []),
        ({"mono": [1], "mix": [0]}, ["mono-1"], ["mix-0"]),
        ({"mono": [0, 1, 2], "mix": [0]}, ["mono-0", "mono-1", "mono-2"], ["mix-0"]),
        ({"mono": [0, 1], "mix": [0], "x-x": [0]}, ["mono-0", "mix-0", "x-x-0"], ["mono-1"]),
        ({"mono": [0, 1], "mix": [1, 2]}, ["mono-0", "mono-1"], ["mix-1", "mix-2"]),
    ],
)
def test_what_is_compared_has_the_same_seeds(runs, seeds, kept, left):
    """Of runs made by hand the set of seeds that keeps most runs; the others are named, none is
    lost."""
    chosen, others = comparable(runs(**seeds))
    assert [run.key for run in chosen] == kept
    assert [run.key for run in others] == left


def test_what_is_compared_was_asked_the_same(runs):
    """Arms that were prepared otherwise are left out; an arm that was in part is not halved."""
    other = ["mix-0", "mix-1"]
    chosen, others = comparable(runs(other, mono=[0, 1], mix=[0, 1], cross=[0, 1]))
    assert [run.key for run in others] == other and len(chosen) == 4
    chosen, others = comparable(runs(["mono-1", "mix-1"], mono=[0, 1], mix=[0, 1]))
    assert len(chosen) == 4 and not others


def test_untrained_references_need_not_have_all_seeds(runs):
    """One seed of them, or nothing else, is no reason to leave any out."""
    untrained = [ScoredRun("u-0", "untrained", Train(steps=0), None)]
    trained = runs(mono=[0, 1], mix=[0, 1])
    assert comparable(untrained + trained) == (untrained + trained, [])
    assert comparable(untrained) == (untrained, [])


def test_scores_are_read_as_they_were_saved(tmp_path):
    """One module writes and reads metrics.json; a benchmark that a run lacks is not a study's."""
    scores = pd.DataFrame(
        {
            "setting": ["mono", "mono"],
            "question_language": ["de", "en"],
            "candidate_language": ["de", "en"],
            "group": ["x", "y"],
            **dict.fromkeys(("ap", "ap20", "hit1", "r1", "r10", "r100", "ndcg10"), [0.25, 0.75]),
            **dict.fromkeys(("rank_distance", "rank_distance_ratio"), [np.nan] * 2),
            **dict.fromkeys(("max_at_r", "own_language_advantage"), [np.nan] * 2),
            "rank_distance_chance": [np.nan] * 2,
        }
    )
    sentences = pd.DataFrame({"name": ["x"], "accuracy": [0.5], "f1": [0.5]})
    specs = {
        "a": BenchmarkSpec(format="heldout"),
        "t": BenchmarkSpec(format="tatoeba", folder="x"),
    }
    both = {"a": Scored(scores, pd.DataFrame(), digest="d"), "t": Scored(sentences, pd.DataFrame())}
    means = save_scores(tmp_path / "1", specs, both)
    assert means.loc[("a", "mono"), "ap"] == 0.5
    assert means.loc[("headline", "mono"), "ap"] == pytest.approx(0.5, rel=1e-7)
    save_scores(tmp_path / "2", specs, {"a": both["a"]})
    store.verify(tmp_path / "1" / "scores")
    pd.testing.assert_frame_equal(
        pd.read_parquet(tmp_path / "1" / "scores" / "t.parquet"), sentences
    )
    found = benchmark_specs([SimpleNamespace(folder=tmp_path / x) for x in "12"])
    assert found == {"a": specs["a"]}


def test_every_budget_is_scored_and_read_again(tmp_path):
    """Each encoder on each benchmark, in one sealed folder; the last budget is where a run without
    budgets has it. Without a budget there is nothing to read."""
    corpus, place = saved(tmp_path, {"a": "a", "b": "b"}), tmp_path / "run"
    corpus_of_run = toy_corpus(tmp_path / "data")
    values = {"schedule": "wsd", "steps": 6, "budgets": [2, 4, 6], "warmup_steps": 1}
    params = Train(**PARAMS.model_dump() | values)
    result = train(corpus_of_run, params, place)
    store.write_json(place / "params.json", params.model_dump())
    p = Evaluate()
    smaller = evaluate.evaluate_budgets(p, corpus, place)
    for budget in (2, 4):  # what they share, benchmark and tokens, changes nothing
        own = load_encoder(budgets.place(place, budget) / "model")
        evaluate._kept.clear()
        alone = evaluate.evaluate("heldout", p, own, corpus, place).scores
        pd.testing.assert_frame_equal(smaller[budget]["heldout"].scores, alone, check_exact=True)
    last = {"heldout": evaluate.evaluate("heldout", p, result.encoder, corpus, place)}
    save_scores(place, p.benchmarks, last, smaller)
    assert list(smaller) == [2, 4]
    written = store.read_json(place / "metrics.json")
    assert list(written["budgets"]) == ["2", "4"]
    own = smaller[2]["heldout"].scores
    mean = own.loc[own["setting"] == "mono", "ap"].mean()
    assert written["budgets"]["2"]["heldout"]["mono"]["ap"] == pytest.approx(mean)
    run, plain = (ScoredRun("r", "mono", t, place) for t in (params, Train()))
    found = load_budgets([run, plain], "heldout")
    assert list(found) == [2, 4, 6] and found[2].runs == [run]
    for budget, scored in {2: smaller[2], 4: smaller[4], 6: last}.items():
        table = found[budget].table("mono", "mono")
        of_mono = scored["heldout"].scores.query("setting == 'mono'")
        assert table["value"].mean() == pytest.approx(of_mono["ap"].mean())
    assert load_budgets([plain], "heldout") == {}
    (place / "sums/budget-2/heldout.parquet").write_bytes(b"x")
    with pytest.raises(store.Damaged, match="budget-2/heldout.parquet"):
        load_budgets([run], "heldout")


def test_budgets_are_asked_what_was_read_once(tmp_path, monkeypatch):
    """One reading and one cutting into tokens for the encoders of all budgets; scores are to the
    bit those of each encoder alone, and nothing is kept afterwards, or without budgets."""
    corpus, place = saved(tmp_path, {"a": "a", "b": "b"}), tmp_path / "run"
    corpus_of_run, p = toy_corpus(tmp_path / "data"), Evaluate()
    values = {"schedule": "wsd", "steps": 6, "budgets": [2, 4, 6], "warmup_steps": 1}
    params, load, loads = Train(**PARAMS.model_dump() | values), benchmarks.load_benchmark, []
    encoder = train(corpus_of_run, params, place).encoder
    monkeypatch.setattr(evaluate, "_kept", {})
    monkeypatch.setattr(
        benchmarks, "load_benchmark", lambda name, *rest: loads.append(name) or load(name, *rest)
    )
    alone = {6: evaluate.evaluate("heldout", p, encoder, corpus, place)}
    for budget in (2, 4):
        folder = place / f"budgets/{budget}"
        own = load_encoder(folder / "model")
        alone[budget] = evaluate.evaluate("heldout", p, own, corpus, folder)
    assert loads == ["heldout"] * 3 and not evaluate._kept
    store.write_json(place / "params.json", params.model_dump())
    found = {6: evaluate.evaluate("heldout", p, encoder, corpus, place)}
    found |= {b: s["heldout"] for b, s in evaluate.evaluate_budgets(p, corpus, place).items()}
    assert loads == ["heldout"] * 4 and not evaluate._kept
    for budget, scored in found.items():
        pd.testing.assert_frame_equal(scored.scores, alone[budget].scores, check_exact=True)
        assert scored.digest == alone[budget].digest
    assert not found[2].scores["ap"].equals(found[4].scores["ap"])


def test_what_a_budget_left_is_in_the_sealed_set(tmp_path):
    """All of it but checkpoints; contents of what lies in model/ are its manifest's."""
    names = ["model/manifest.json", "model/x", "cost.json", "log.parquet", "checkpoints/s/m.json"]
    for name in names:
        file = tmp_path / "budgets/4" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("1")
    listed = seal.listed(seal.files(tmp_path, WRITTEN["train"]))
    contents = {
        name.removeprefix("budgets/4/"): bool(digest) for name, (_, digest) in listed.items()
    }
    assert contents == {
        "cost.json": True,
        "log.parquet": True,
        "model/manifest.json": True,
        "model/x": False,
    }


def test_the_loss_that_a_notebook_computes_is_the_trainers(tmp_path):
    """Log-sum-exp of the scores of the first batch's vectors, as 02_train shows it, against the
    first line of the log."""
    corpus = toy_corpus(tmp_path / "data")
    params = PARAMS.model_copy(
        update={"negatives": "in_batch", "explicit": 0, "dropout": 0.0, "steps": 1}
    )
    batch = schedule(corpus.index, params).batch(0)
    questions, passages = look.vectors(corpus, params, batch)
    scores = questions @ passages.T / params.temperature
    share = scores.diagonal() - scores.logsumexp(dim=1)
    log = train(corpus, params, tmp_path / "run").log
    assert -share.mean().item() == pytest.approx(log["loss"][0], abs=1e-4)
    assert look.chance(params) == pytest.approx(np.log(8))
    rows = look.rows(corpus, [batch])
    assert len(rows) == 8 and rows["question language"].isin(corpus.languages).all()
    assert not len(look.rows(corpus, []))


def test_a_corpus_is_made_once_and_again_where_it_was_damaged(tmp_path):
    """store.made: read where it is whole, made where it is not there or damaged, one maker at a
    time."""
    own, said, made = saved(tmp_path, {"a": "one"}), [], []

    def make():
        made.append(1)
        with store.atomic_folder(tmp_path / "x", {"made_from": 1}) as new:
            store.write_json(new / "a.json", 1)

    def read(made_from=1):
        return store.verify(tmp_path / "x", made_from)["made_from"]

    for times in (1, 1):
        assert store.made(read, make, alone=tmp_path, say=said.append) == 1
        assert len(made) == times
    (tmp_path / "x" / "a.json").write_text("2")
    store.made(read, make, alone=tmp_path, say=said.append)
    assert len(made) == 2 and "altered" in said[0] and said[0].endswith("making it again")
    with pytest.raises(store.Damaged, match="made from something else"):
        store.made(lambda: read(2), make, say=said.append)
    assert own.folder.is_dir()
