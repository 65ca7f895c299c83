"""Gradients of two kinds of batches: cosines by hand, and a run that does not notice."""

import numpy as np
import pytest
import torch
from test_trainer import results, stop_after

from lib import store
from lib.params import Train
from lib.trainer import Training, train
from lib.training import conflict
from lib.training.identity import identity_of


def asked(**more):
    return Train(
        **{"width": 16, "steps": 10, "batch_size": 8, "max_length": 16, "seed": 3}
        | {"checkpoint_every": 3, "log_every": 1, "look_every": 4}
        | more
    )


def test_cosines_by_hand():
    """mono batches along x and at 45 degrees, cross ones along y and against x."""
    vectors = ([1.0, 0.0], [1.0, 1.0], [0.0, 2.0], [-3.0, 0.0])
    found = conflict.cosines([torch.tensor(v) for v in vectors])
    half = 0.5**0.5
    assert found["mono"] == pytest.approx(half)
    assert found["cross"] == pytest.approx(0)
    assert found["mono_cross"] == pytest.approx((0 - 1 + half - half) / 4)


def test_a_run_has_the_same_bits_and_leaves_its_looks(corpus, tmp_path):
    """At steps 0, 4 and 8; killed and gone on the same files; without looking the same encoder."""
    seen = train(corpus, asked(), tmp_path / "seen")
    train(corpus, asked(look_every=0), tmp_path / "plain")
    assert results(tmp_path / "seen") == results(tmp_path / "plain")
    stop_after(corpus, tmp_path / "cut", 5, asked())
    train(corpus, asked(), tmp_path / "cut")
    assert results(tmp_path / "cut") == results(tmp_path / "seen")
    table = conflict.read(tmp_path / "seen")
    assert table["step"].tolist() == [0, 4, 8]
    assert table.equals(conflict.read(tmp_path / "cut"))
    assert conflict.read(tmp_path / "plain").empty
    assert table[["mono", "cross", "mono_cross"]].abs().le(1).all(axis=None)
    assert len(seen.log) == 10


def test_the_same_batches_for_every_arm_of_a_seed(corpus, tmp_path):
    """Before the first step all arms see the same gradients; afterwards not."""
    tables = {}
    for strategy in ("mono", "cross"):
        train(corpus, asked(strategy=strategy), tmp_path / strategy)
        tables[strategy] = conflict.read(tmp_path / strategy)
    first = [table.iloc[0] for table in tables.values()]
    assert first[0].equals(first[1])
    assert not tables["mono"].iloc[1].equals(tables["cross"].iloc[1])
    train(corpus, asked(seed=4), tmp_path / "other")
    assert not conflict.read(tmp_path / "other").iloc[0].equals(first[0])


def test_a_gradient_is_that_of_the_loss(corpus, tmp_path):
    """The cosine of the two mono batches, from the sampler's batches and plain autograd."""
    run = Training(corpus, asked(), tmp_path, identity_of(corpus, asked(), None))
    conflict.look(tmp_path, 0, run.params, run.index, run.encoder, run.loss)
    assert all(p.grad is None for p in run.encoder.parameters())
    batches = conflict.batches(run.index, run.params, "mono", 0)
    flat = []
    for number in (0, 1):
        assert batches.batch(number).kind == "mono"
        gradients = torch.autograd.grad(
            run.loss(batches.batch(number)), list(run.encoder.parameters()), allow_unused=True
        )
        flat.append(np.concatenate([g.flatten().numpy() for g in gradients if g is not None]))
    cosine = flat[0] @ flat[1] / np.linalg.norm(flat[0]) / np.linalg.norm(flat[1])
    found = store.read_json(tmp_path / "gradients" / "step-000000.json")
    assert found["mono"] == pytest.approx(cosine, abs=1e-5)


def test_branches_do_not_look_again(corpus, tmp_path):
    """Budgets share the trunk's looks."""
    p = asked(schedule="wsd", budgets=[5, 10], warmup_steps=1)
    train(corpus, p, tmp_path)
    assert conflict.read(tmp_path)["step"].tolist() == [0, 4, 8]
    assert not (tmp_path / "budgets/5/gradients").exists()
