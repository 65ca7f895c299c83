"""Objectives beside InfoNCE: by hand, in every kind of run, counted, named, and refused."""

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from kill_trainer import PARAMS
from test_frozen import cache, checkpoint  # noqa: F401  fixtures
from test_large_batches import differ, gradients
from test_ranks import alike
from test_results import study
from test_trainer import LANGUAGES, results, stop_after, toy_corpus, toy_rows

from lib import store
from lib.analysis import drawing, tables
from lib.analysis.contrasts import WITHOUT, mechanism, rivals
from lib.analysis.results import arm_labels
from lib.params import BadParameter, Train, checked
from lib.sampler import PairIndex, Schedule
from lib.study import grid
from lib.trainer import Training, train
from lib.training import objectives
from lib.training.identity import identity_of
from lib.training.memory import needs
from lib.training.objectives import distil, lakda, translated_into, xlco

NAMES = ("lakda", "xlco", "distil")


def params(objective="", **changes):
    """A small run with mixed batches; no dropout, so that a loss can be made again by hand."""
    own = {"negatives": "in_batch", "explicit": 0, "strategy": "mix", "dropout": 0.0}
    return Train(**PARAMS.model_dump() | own | {"objective": objective} | changes)


def unit(*shape, seed=0):
    torch.manual_seed(seed)
    return F.normalize(torch.randn(*shape, dtype=torch.float64), dim=-1)


# --- by hand -----------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_lakda_of_two_rows(temperature):
    """Translations that rank two passages the other way round: each row's softmax is (a, 1 - a)
    and (1 - a, a) with ln(a / (1 - a)) = 1 / t, so KL = (2a - 1) / t = tanh(1 / 2t) / t."""
    one = torch.eye(2, dtype=torch.float64)
    expected = math.tanh(1 / (2 * temperature)) / temperature
    assert lakda(one, one.flip(0), one, temperature).item() == pytest.approx(expected)


def test_lakda_has_the_direction_of_its_source():
    """KL(translation || question): a translation without preference costs, with a = e / (e + 1),
    ln(1/2) - ln(a (1 - a)) / 2; the other direction would cost a ln 2a + (1 - a) ln 2(1 - a)."""
    question, passage = torch.eye(3)[:2], torch.eye(3)[:2]
    flat, a = torch.eye(3)[[2, 2]], math.e / (math.e + 1)
    found = lakda(question, flat, passage, 1.0).item()
    assert found == pytest.approx(math.log(0.5) - math.log(a * (1 - a)) / 2)
    other = a * math.log(2 * a) + (1 - a) * math.log(2 * (1 - a))
    assert lakda(flat, question, passage, 1.0).item() == pytest.approx(other)
    assert abs(found - other) > 0.005


def test_lakda_of_one_row_after_another():
    question, translation, passage = (unit(5, 4, seed=n) for n in range(3))

    def shares(row):
        weight = [math.exp(float(row @ p) / 0.2) for p in passage]
        return [w / sum(weight) for w in weight]

    each = [
        sum(a * math.log(a / b) for a, b in zip(shares(t), shares(q), strict=True))
        for q, t in zip(question, translation, strict=True)
    ]
    assert lakda(question, translation, passage, 0.2).item() == pytest.approx(sum(each) / 5)


def test_xlco_of_one_row_after_another():
    """The log of the own share among all translations, and the other way round; by hand where all
    are orthogonal: ln(1 + exp(-1 / t))."""
    passage, translation = unit(5, 4), unit(5, 4, seed=1)

    def one_way(left, right):
        scores = [[math.exp(float(x @ y) / 0.2) for y in right] for x in left]
        return sum(-math.log(row[i] / sum(row)) for i, row in enumerate(scores)) / 5

    expected = (one_way(passage, translation) + one_way(translation, passage)) / 2
    assert xlco(passage, translation, 0.2).item() == pytest.approx(expected)
    one = torch.eye(2, dtype=torch.float64)
    assert xlco(one, one, 0.5).item() == pytest.approx(math.log(1 + math.exp(-2)))


def test_distil_is_one_minus_cosine():
    """By hand at 60 degrees and at none: the mean of 1/2 and 0; and torch's own cosine."""
    one = torch.tensor([[1.0, 0.0]])
    slanted = torch.tensor([[0.5, math.sqrt(0.75)]])
    english = torch.stack([one, one], dim=1)
    assert distil(slanted, one, english).item() == pytest.approx(0.25)
    question, passage, english = unit(5, 4), unit(5, 4, seed=1), unit(5, 2, 4, seed=2)
    cosines = [
        F.cosine_similarity(question, english[:, 0]).mean(),
        F.cosine_similarity(passage, english[:, 1]).mean(),
    ]
    assert distil(question, passage, english).item() == pytest.approx(1 - sum(cosines).item() / 2)


def test_what_is_alike_costs_nothing():
    """And anything else does; all vectors but the teacher's have a gradient there."""
    question, passage, other = (unit(6, 4, seed=n).requires_grad_() for n in range(3))
    english = torch.stack([question, passage], dim=1).detach()
    assert lakda(question, question, passage, 0.1).item() == 0
    assert distil(question, passage, english).item() == 0
    for loss, inputs in (
        (lakda(question, other, passage, 0.1), (question, other, passage)),
        (xlco(passage, other, 0.1), (passage, other)),
        (distil(other, passage * 1, english), (other,)),
    ):
        assert loss.item() > 0
        assert all(g.abs().max() > 0 for g in torch.autograd.grad(loss, inputs))


# --- into which language -----------------------------------------------------------------------


def test_translations_exist_are_others_and_drawn_evenly():
    """Pairs in two to four of four languages; of those in all four each other gets a third, within
    four standard deviations. Where there are two languages, it is the other one."""
    present = np.array([p for p in product([0, 1], repeat=4) if sum(p) > 1] * 20)
    index = PairIndex.from_present("abcd", present, range(len(present)))
    counts, seen = np.zeros((4, 4)), []
    for batch in Schedule(index, "mix", batch_size=60, steps=150, seed=3):
        for side in ("question", "passage"):
            own, found = getattr(batch, f"{side}_language"), translated_into(index, batch, side, 3)
            exists = index.patterns[index.pattern[batch.pair]]
            assert (found != own).all() and exists[np.arange(60), found].all()
            whole = exists.all(1)
            np.add.at(counts, (own[whole], found[whole]), 1)
        seen.append(found[:5].tolist())
    uses = counts.sum(1, keepdims=True)
    wanted = uses / 3 * (1 - np.eye(4))
    assert uses.min() > 400
    assert (np.abs(counts - wanted) <= 4 * np.sqrt(uses * 2 / 9)).all()
    assert len({*map(tuple, seen)}) > 50


def test_translations_follow_from_seed_step_and_pair(corpus):
    """Whatever part of the batch is looked at, and in whatever order; another seed, other ones."""
    schedule = Schedule(corpus.index, "mono", batch_size=8, steps=3, seed=5)
    batch = schedule.batch(2)
    whole = translated_into(corpus.index, batch, "question", 5)
    parts = [translated_into(corpus.index, batch.part(n, 4), "question", 5) for n in range(4)]
    assert np.concatenate(parts).tolist() == whole.tolist()
    others = [translated_into(corpus.index, batch, "question", seed) for seed in range(20)]
    assert len({*map(tuple, others)}) > 10
    later = [translated_into(corpus.index, replace(batch, step=n), "question", 5) for n in range(9)]
    assert len({*map(tuple, later)}) > 5


# --- in a batch --------------------------------------------------------------------------------


def loss_by_hand(corpus, run, batch, p):
    """What the objective adds, from the texts themselves."""
    text = {
        (r["pair"], r["language"], side): r[side]
        for r in toy_rows()
        for side in ("question", "passage")
    }

    def vectors(side, languages):
        named = [LANGUAGES[n] for n in languages]
        texts = [text[f"p{i:02d}", x, side] for i, x in zip(batch.pair, named, strict=True)]
        return torch.from_numpy(run.encoder.encode(texts, side))

    question = vectors("question", batch.question_language)
    passage = vectors("passage", batch.passage_language)
    if p.objective == "distil":
        english = [vectors(s, np.full(len(batch.pair), 1)) for s in ("question", "passage")]
        return distil(question, passage, torch.stack(english, dim=1))
    side = {"lakda": "question", "xlco": "passage"}[p.objective]
    other = vectors(side, translated_into(corpus.index, batch, side, p.seed))
    if p.objective == "lakda":
        return lakda(question, other, passage, p.temperature)
    return xlco(passage, other, p.temperature)


@pytest.mark.parametrize("negatives", ["in_batch", "both"])
@pytest.mark.parametrize("name", NAMES)
def test_loss_of_a_batch_from_its_texts(corpus, tmp_path, name, negatives):
    """InfoNCE as it is without, plus the weight times the objective of the right texts."""
    hard = {"negatives": negatives, "explicit": 2 * (negatives == "both")}
    p = params(name, objective_weight=0.7, **hard)
    run, plain = (Training(corpus, x, tmp_path, {}) for x in (p, params(**hard)))
    batch = run.schedule.batch(1)
    expected = loss_by_hand(corpus, run, batch, p).item()
    assert expected > 1e-3
    found = run.loss(batch).item() - plain.loss(batch).item()
    assert found == pytest.approx(0.7 * expected, abs=2e-5)


@pytest.mark.parametrize("name", NAMES)
def test_chunks_have_the_gradients_of_all_at_once(corpus, tmp_path, name):
    """Loss and every gradient, in float64."""
    found = []
    for chunk in (0, 3):
        run = Training(corpus, params(name, chunk=chunk), tmp_path, {})
        run.encoder.double()
        found.append(gradients(run.encoder, run.loss(run.schedule.batch(1))))
    assert differ(*found) < 1e-10


def test_no_objective_is_no_part_of_a_run(corpus, tmp_path):
    """Runs from before are the same runs: nothing in their identity, record, loss or batches."""
    p = params()
    assert not {"objective", "objective_weight"} & identity_of(corpus, p, None).keys()
    asked = identity_of(corpus, params("xlco", objective_weight=2.0), None)
    assert (asked["objective"], asked["objective_weight"]) == ("xlco", 2.0)
    run = train(corpus, params(steps=2), tmp_path)
    assert not [name for name in run.exposure if name.startswith(("extra", "teacher"))]
    assert Training(corpus, p, tmp_path / "none", {}).teacher is None


# --- in a run ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_stopped_run_ends_with_the_same_bits(corpus, tmp_path, name):
    """With dropout and explicit negatives; of distil above all: the teacher is the encoder before
    its first step, also where a checkpoint's weights are taken over."""
    p = Train(**PARAMS.model_dump() | {"objective": name})
    train(corpus, p, tmp_path / "whole")
    stop_after(corpus, tmp_path / "stopped", 8, p)
    train(corpus, p, tmp_path / "stopped")
    assert results(tmp_path / "stopped") == results(tmp_path / "whole")


@pytest.mark.parametrize("name", ["lakda", "distil"])
def test_a_branch_is_the_run_of_its_budget(corpus, tmp_path, name):
    """To the bit, so that the teacher does not depend on the steps asked for."""
    wsd = {"schedule": "wsd", "decay": 0.5, "warmup_steps": 2}
    train(corpus, params(name, **wsd, budgets=[8, 12]), tmp_path / "trunk")
    train(corpus, params(name, **wsd, budgets=[8], steps=8), tmp_path / "alone")
    assert results(tmp_path / "trunk/budgets/8") == results(tmp_path / "alone")


@pytest.mark.parametrize("name", NAMES)
def test_frozen_layers_and_half_precision(corpus, checkpoint, tmp_path, name):  # noqa: F811
    """First losses are those of the whole encoder in float32, to fp16's and bf16's rounding; no
    text is computed that the cache lacks."""
    own = {"model": checkpoint(), "max_length": 16, "learning_rate": 1e-3, "steps": 3}
    losses = [
        train(corpus, params(name, **own | more), tmp_path / str(n)).log["loss"][0]
        for n, more in enumerate([{}, {"frozen": 2, "chunk": 5}, {"precision": "bf16"}])
    ]
    assert losses[1] == pytest.approx(losses[0], rel=0.01)
    assert losses[2] == pytest.approx(losses[0], rel=0.05)
    run = Training(corpus, params(name, **own | {"frozen": 2}), tmp_path / "none", {})
    assert run.encoder.lower.computed == 0


def test_two_ranks_do_what_one_does(corpus, tmp_path, fast):
    """Losses, norms, and what is counted; gradients are in test_ranks.py."""
    one, two = (train(corpus, params("lakda", ranks=n), tmp_path / str(n)) for n in (1, 2))
    assert alike(two, one) and one.exposure["extra_texts"] == 12 * 8


def test_passages_come_nearer_to_their_translations(corpus, tmp_path):
    """After 60 monolingual steps; with xlco more passages find their own translation than without,
    and with distil the vectors are nearer to those of the initial encoder's English."""
    own = {"strategy": "mono", "steps": 60, "batch_size": 16, "checkpoint_every": 60}
    found, start = {}, Training(corpus, params("distil"), tmp_path / "none", {}).teacher
    for name in ("", "xlco", "distil"):
        run = train(corpus, params(name, **own, log_every=60), tmp_path / f"run{name}")
        rows = [[r["passage"] for r in toy_rows() if r["language"] == x] for x in LANGUAGES]
        german, english, thai = (run.encoder.encode(texts, "passage") for texts in rows)
        nearest = (german @ thai.T).argmax(1) == np.arange(len(german))
        found[name] = nearest.mean(), (english * start[:, 1]).sum(1).mean()
    assert found["xlco"][0] > found[""][0] + 0.2
    assert found["distil"][1] > found[""][1] + 0.2


# --- counted -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_what_it_takes_is_counted(corpus, tmp_path, name):
    """Tokens and FLOPs beyond those of the same run without, by hand: 6 x weights outside tables a
    token of a step, 2 x a token of the teacher; exposure.json and cost.json agree."""
    plain = train(corpus, params(steps=4), tmp_path / "plain")
    run = train(corpus, params(name, steps=4), tmp_path / "run")
    seen, texts = run.exposure, Training(corpus, params(), tmp_path / "none", {}).texts
    more = seen["flops"] - plain.exposure["flops"]
    tables = sum(
        m.weight.numel() for m in run.encoder.modules() if isinstance(m, torch.nn.Embedding)
    )
    weights = sum(p.numel() for p in run.encoder.parameters()) - tables
    assert run.cost["flops"] == seen["flops"]
    if name == "distil":
        english = [i for i, x in enumerate(corpus.rows["language"]) if x == "en"]
        tokens = sum(texts.lengths(side)[english].sum() for side in ("question", "passage"))
        assert (seen["teacher_texts"], seen["teacher_tokens"]) == (2 * len(english), tokens)
        assert seen["tokens"] == plain.exposure["tokens"] and more == 2 * weights * tokens
        return
    side, tokens = {"lakda": "question", "xlco": "passage"}[name], 0
    for batch in Schedule(corpus.index, "mix", batch_size=8, steps=4):
        into = translated_into(corpus.index, batch, side, 0)
        tokens += texts.lengths(side)[corpus.index.rows(batch.pair, into)].sum()
    assert (seen["extra_texts"], seen["extra_tokens"]) == (4 * 8, tokens)
    assert seen["tokens"] - plain.exposure["tokens"] == tokens and more == 6 * weights * tokens
    assert run.cost["tokens"] == seen["tokens"]
    by_language = sum(
        row[f"{s}_tokens"] for row in seen["languages"] for s in ("question", "passage")
    )
    assert by_language == seen["tokens"]


def test_memory_is_that_of_all_texts():
    """A batch of 8 has 16 texts, with translations of one side 24."""
    texts = [needs(params(name), 400).texts for name in ("", *NAMES)]
    assert texts == [16, 24, 24, 16]


# --- named -------------------------------------------------------------------------------------


def test_arms_are_named_after_it():
    """By parameters, in a look of their own; by the axis where two weights would share a name."""
    trains = {
        f"arm={n or 'none'},seed=0": Train(strategy="mono", objective=n) for n in ("", *NAMES)
    }
    labels = arm_labels(trains)
    assert [*labels.values()] == ["mono", "mono, lakda", "mono, xlco", "mono, distil"]
    looks = [drawing.look(arm) for arm in labels.values()]
    assert len({look["marker"] for look in looks}) == 4
    assert len({look["color"] for look in looks}) == 1
    trains["arm=heavy,seed=0"] = Train(strategy="mono", objective="lakda", objective_weight=3.0)
    assert arm_labels(trains)["arm=lakda,seed=0"] == "arm=lakda"
    assert arm_labels(trains)["arm=heavy,seed=0"] == "arm=heavy"
    assert arm_labels(trains)["arm=xlco,seed=0"] == "mono, xlco"


def test_contrasts_know_it():
    """It stands beside the arms of a study, and against its own batches without, by hand .1 more,
    each pair once; it is no point of a line over alpha and no mechanism cell."""
    gains = {"mono": 0.0, "mono, xlco": 0.0, "hybrid(0.5)": 0.0, "hybrid(0.5), lakda": 0.1}
    found = study(gains | {"hybrid-pair(0.5)": 0.0})
    found = replace(found, runs=[with_objective(run) for run in found.runs])
    assert found.compositions == found.arms == [*gains, "hybrid-pair(0.5)"]
    assert found.alphas("hybrid") == {0.5: "hybrid(0.5)", 1.0: "mono"}
    assert {r.strategy for r in found.runs if "lakda" in r.arm} == {"hybrid, lakda"}
    table = rivals(found)
    own = table[table["rival"] == WITHOUT]
    assert {*own["arm"]} == {"hybrid(0.5), lakda"} and {*own["versus"]} == {"hybrid(0.5)"}
    assert own["difference"].to_numpy() == pytest.approx(0.1, abs=0.02) and len(own) == 3
    assert len(tables.against(table)) == 4 + 1  # four minus mono
    assert {*mechanism(found)["arm"]} == {"hybrid(0.5)"}


def with_objective(run):
    """A run named after an objective, with it."""
    name = run.arm.rpartition(", ")[2]
    change = {"objective": name if name in NAMES else ""}
    return replace(run, train=run.train.model_copy(update=change))


# --- refused -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"objective": "lakda", "objective_weight": 0.0}, "objective_weight: 0.0 is out of range"),
        (
            {"objective": "lakda", "objective_weight": -1.0},
            "objective_weight: -1.0 is out of range",
        ),
        ({"objective_weight": 2.0}, "objective_weight: 2.0 does not go with objective ''"),
        ({"objective": "mimo"}, "objective: 'mimo' is unknown .*lakda, xlco, distil"),
    ],
)
def test_parameters_that_are_refused(values, said):
    with pytest.raises(BadParameter, match=f"train.{said}") as error:
        checked(Train, values)
    assert "\n" not in str(error.value)


def test_pairs_without_translations_are_refused(corpus, tmp_path):
    """By the trainer in one line, before anything is made; by a study before anything runs."""
    alone = replace(corpus, meta=corpus.meta | {"parallel": False})
    with pytest.raises(ValueError, match="train.objective: 'xlco' needs translations") as error:
        train(alone, params("xlco", strategy="mono"), tmp_path / "run")
    assert "\n" not in str(error.value) and not (tmp_path / "run").exists()
    file = tmp_path / "lone.yaml"
    file.write_text(
        "prepare: {source: pairs, files: {en: x.jsonl}, parallel: false}\n"
        "train: {strategy: mono, objective: lakda}\n"
    )
    with pytest.raises(BadParameter, match="objective: lakda needs translations, .*parallel fal"):
        grid.load_study(file)


def test_distil_needs_english_of_every_pair(tmp_path):
    """Of none, or not of three; pairs in one language alone are in no batch and do not count."""
    rows = toy_rows()
    none = [r for r in rows if r["language"] != "en"]
    some = [r for r in none if r["pair"] not in ("p07", "p08")]
    some += [r for r in rows if r["language"] == "en" and r["pair"] not in ("p03", "p04", "p05")]
    some = [{k: v for k, v in r.items() if k != "negatives"} for r in some]
    for name, kept, count in (("none", none, "40 of 40"), ("some", some, "3 of 38")):
        small = toy_corpus(tmp_path / name / "data", kept)
        with pytest.raises(ValueError, match=f"distil.* every pair in English, which {count} lack"):
            train(small, params("distil"), tmp_path / name / "run")
        if name == "some":
            continue
        train(small, params("lakda", steps=1), tmp_path / name / "other")
    rows = [r for r in some if r["pair"] not in ("p03", "p04", "p05")]
    small = toy_corpus(tmp_path / "whole" / "data", rows)
    run = train(small, params("distil", steps=1), tmp_path / "whole" / "run")
    assert run.exposure["teacher_texts"] == 2 * 35
    assert objectives.ENGLISH in small.languages and store.verify(tmp_path / "whole/run/model")
