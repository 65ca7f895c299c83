"""A trunk and its branches: the encoder of each budget is that of a run of so many steps, to the
last bit, however often the run is killed."""

import random
import shutil

import kill_trainer
import pytest
from kill_trainer import BUDGETS, PARAMS
from test_trainer import damage, results, start, stop_after

from lib import store, trainer
from lib.params import BadParameter, Train, checked
from lib.trainer import learning_rate, train
from lib.training import checkpoints, cost
from lib.training.record import TrainResult

SMALLER = BUDGETS.budgets[:-1]


def of_budget(budget):
    """The parameters of a run of that budget alone."""
    return Train(**BUDGETS.model_dump() | {"steps": budget, "budgets": [budget]})


def every(folder):
    """`results` of all budgets."""
    return {b: results(folder / f"budgets/{b}") for b in SMALLER} | {12: results(folder)}


@pytest.fixture(scope="module")
def finished(corpus, tmp_path_factory):
    """The folder of a run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("finished")
    train(corpus, BUDGETS, folder)
    return folder


@pytest.fixture(scope="module")
def alone(corpus, tmp_path_factory):
    """`results` of a run of each budget on its own."""
    place, found = tmp_path_factory.mktemp("alone"), {}
    for budget in BUDGETS.budgets:
        train(corpus, of_budget(budget), place / str(budget))
        found[budget] = results(place / str(budget))
    return found


# --- the same bits -----------------------------------------------------------------------------


def test_each_budget_is_a_run_of_its_own(finished, alone):
    """Encoder, log and exposure, dropout and word vectors without a gradient among them."""
    assert every(finished) == alone
    encoders = {found["model/model.safetensors"] for found in alone.values()}
    assert len(encoders) == len(BUDGETS.budgets)


def test_branches_change_nothing_of_the_trunk(corpus, finished, tmp_path):
    """A run of the last budget alone, and one without any, give the same; so this can be told from
    a run whose rate falls in another way."""
    train(corpus, Train(**BUDGETS.model_dump() | {"budgets": []}), tmp_path / "none")
    assert results(tmp_path / "none") == results(finished)
    train(corpus, PARAMS, tmp_path / "linear")
    assert results(tmp_path / "linear") != results(finished)


# Steps 0 to 2, then 3 in a branch, 3 to 5, 6 and 7 in one, 6 and 7 again, 8 to 10 in one, 8 to 11.
KILLS = [
    ("batch", 2),  # before the first branch
    ("batch", 4),  # in it
    ("batch", 5),  # back on the trunk
    ("batch", 9),
    ("batch", 13),
    ("batch", 17),
    ("save_file", 4),  # after a branch's encoder was written
    ("save_file", 6),
    ("save_file", 9),
    ("encoder", 1),  # a branch's encoder
    ("encoder", 3),
    ("encoder", 4),  # the last one's
    ("fsync", 25),
    ("fsync", 50),
    ("fsync", 75),
    ("rename", 2),
    ("rename", 5),
    ("rename", 9),
    ("rmtree", 1),
    ("rmtree", 5),
    ("rmtree", 9),
]


@pytest.mark.parametrize(("point", "number"), KILLS)
def test_killed_at_a_point_and_resumed(corpus, finished, tmp_path, point, number):
    """SIGKILL before that call, on the trunk, in a branch, or while either is written."""
    process = start(kill_trainer.run, corpus.folder, tmp_path, point, number, 0.0, BUDGETS)
    process.join()
    assert process.exitcode == -9
    train(corpus, BUDGETS, tmp_path)
    assert every(tmp_path) == every(finished)


def test_killed_from_outside_again_and_again(corpus, finished, tmp_path):
    """At moments nobody chose, until a process gets through."""
    moments = random.Random(0)
    for kills in range(100):
        process = start(kill_trainer.run, corpus.folder, tmp_path, "", 0, 0.03, BUDGETS)
        process.join(moments.uniform(0.2, 0.4 + kills / 10))
        process.kill()
        process.join()
        if process.exitcode == 0:
            break
    assert kills > 0
    assert every(tmp_path) == every(finished)


def test_a_branch_goes_on_from_its_own_checkpoint(corpus, finished, tmp_path, capsys):
    """A kill costs no more of a long branch than of the trunk."""
    long = Train(**BUDGETS.model_dump() | {"budgets": [11, 12], "decay": 0.7})
    train(corpus, long, tmp_path / "whole")
    stop_after(corpus, tmp_path / "half", 8, long)
    capsys.readouterr()
    train(corpus, long, tmp_path / "half")
    printed = capsys.readouterr().out.splitlines()
    assert printed[:3] == [
        "going on from step 3",
        "budget 11: leaves the trunk at step 3",
        "going on from step 6",
    ]
    for part in ("", "budgets/11"):
        assert results(tmp_path / "half" / part) == results(tmp_path / "whole" / part)


def test_finished_branches_leave_no_checkpoints(finished):
    """They would be as large as the trunk's, and nobody goes on from them."""
    assert [*finished.glob("budgets/*/checkpoints/*")] == []
    assert [p.name for p in sorted((finished / "checkpoints").iterdir())] == [
        "step-000008",
        "step-000009",
    ]


# --- what is there, and whole ------------------------------------------------------------------


def test_finished_run_is_read_and_not_trained(corpus, finished, monkeypatch):
    """A second call only verifies; the encoder of each budget can be had."""
    monkeypatch.setattr(trainer, "Training", None)
    assert len(train(corpus, BUDGETS, finished).log) == 12
    smaller = TrainResult.read(finished / "budgets/8")
    assert len(smaller.log) == 8
    assert smaller.encoder.encode(["x"], "question").shape == (1, 16)


@pytest.mark.parametrize("file", ["model/model.safetensors", "exposure.json", "model"])
def test_a_damaged_budget_is_made_again(corpus, finished, tmp_path, file):
    """From a checkpoint before its branch, or from the beginning."""
    folder = shutil.copytree(finished, tmp_path / "run")
    place = folder / "budgets/8" / file
    shutil.rmtree(place) if place.is_dir() else damage(place)
    train(corpus, BUDGETS, folder)
    assert every(folder) == every(finished)


def test_damage_where_a_branch_began(corpus, finished, tmp_path, monkeypatch):
    """The trunk goes on from an older checkpoint; where there is none, one line says so, and the
    next start begins again."""
    original = checkpoints.come_back

    def come_back(state, folder, identity, step):
        for name in damaged & {step}:
            damage(folder / f"checkpoints/step-{name:06d}/model.safetensors")
        original(state, folder, identity, step)

    monkeypatch.setattr(checkpoints, "come_back", come_back)
    damaged = {6}
    train(corpus, BUDGETS, tmp_path / "older")
    assert every(tmp_path / "older") == every(finished)
    damaged = {3}
    with pytest.raises(store.Damaged, match="that of step 3 is gone or damaged"):
        train(corpus, BUDGETS, tmp_path / "none")
    train(corpus, BUDGETS, tmp_path / "none")
    assert every(tmp_path / "none") == every(finished)


def test_other_budgets_are_refused(corpus, finished):
    """They are part of what a run is."""
    other = Train(**BUDGETS.model_dump() | {"budgets": [4, 12]})
    with pytest.raises(ValueError, match=r"budgets \[4, 8, 11, 12\], now \[4, 12\] is asked"):
        train(corpus, other, finished)


def test_exposure_and_price_by_budget(finished):
    """That of the first steps; branches cost 1, 2 and 3 steps, and seconds counted once."""
    costs = {b: store.read_json(finished / f"budgets/{b}/cost.json") for b in SMALLER}
    last = store.read_json(finished / "cost.json")
    for budget in SMALLER:
        seen = store.read_json(finished / f"budgets/{budget}/exposure.json")
        assert seen["pairs"] == costs[budget]["pairs"] == 8 * budget
        assert costs[budget]["branch_steps"] == costs[budget]["branch_seconds"] == 0
    assert last["branch_steps"] == 1 + 2 + 3
    assert last["branch_seconds"] == pytest.approx(sum(c["seconds"] for c in costs.values()))
    log = TrainResult.read(finished).log
    assert log["seconds"].sum() < last["seconds"]


def test_a_branch_takes_no_time_of_the_trunk(monkeypatch):
    """Two seconds of five are a branch's."""
    now = [0.0]
    monkeypatch.setattr(cost.time, "perf_counter", lambda: now[0])
    clock = cost.Clock(wall=0.0)
    now[0] = 1.0
    with clock.stopped():
        now[0] = 3.0
    now[0] = 5.0
    assert clock.total().seconds == pytest.approx(3.0)


# --- formulas and refusals ---------------------------------------------------------------------


def test_learning_rate_by_hand():
    """10 steps, 2 rising, the last 4 falling; peak 1; 5 steps share the first 3 rates."""
    base = {"schedule": "wsd", "warmup_steps": 2, "decay": 0.4, "learning_rate": 1.0}
    ten, five = Train(steps=10, **base), Train(steps=5, **base)
    assert [learning_rate(ten, s) for s in range(10)] == pytest.approx(
        [0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25]
    )
    assert [learning_rate(five, s) for s in range(5)] == pytest.approx([0.5, 1, 1, 1, 0.5])
    flat = Train(steps=10, **base | {"decay": 0.0})
    assert [learning_rate(flat, s) for s in range(10)] == [0.5] + [1.0] * 9


REFUSED = [
    (
        {"budgets": [8, 4, 12]},
        "train.budgets: [8, 4, 12] does not increase (expected it, from 1 on)",
    ),
    (
        {"budgets": [4, 4, 12]},
        "train.budgets: [4, 4, 12] does not increase (expected it, from 1 on)",
    ),
    ({"budgets": [4, 16]}, "train.budgets: ends with 16 (expected train.steps, 12)"),
    ({"budgets": [4, 8]}, "train.budgets: ends with 8 (expected train.steps, 12)"),
    ({"schedule": "linear"}, "train.budgets: does not go with schedule 'linear' (expected 'wsd')"),
    ({"validate_every": 2}, "train.budgets: does not go with validate_every (expected 0)"),
    (
        {"warmup_steps": 4},
        "train.warmup_steps: the rate of a budget of 4 falls after 3 steps, before it has risen "
        "(expected 4 or more, by warmup_steps or decay)",
    ),
    ({"budgets": [0, 12]}, "train.budgets: [0, 12] does not increase (expected it, from 1 on)"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_budgets_that_will_not_do(changes, message):
    """One line each."""
    with pytest.raises(BadParameter) as caught:
        checked(Train, BUDGETS.model_dump() | changes)
    assert str(caught.value) == message


def test_the_untrained_encoder_needs_no_budget():
    """Of no steps there is no warm-up either."""
    assert Train(steps=0, schedule="wsd").budgets == []
