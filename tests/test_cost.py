"""Accounting, by hand."""

import numpy as np
import pytest
import torch

from lib.training import cost


def test_table_by_hand():
    """Three steps of .1, .2 and .3 s with 64 pairs and 1,000 tokens in 1,250 places each."""
    seconds = np.array([0.1, 0.3, 0.2])
    spent = cost.Cost(seconds=1.0)
    found = cost.table(
        spent, seconds, pairs=192, tokens=3000, slots=3750, done=12 * 10**9, rate=1e11
    )
    assert found["steps"] == 3
    assert found["pairs_per_second"] == pytest.approx(320)
    assert found["tokens_per_second"] == pytest.approx(5000)
    assert found["step_p50"] == pytest.approx(0.2)
    assert found["step_p90"] == pytest.approx(0.28)  # a fifth of the way from .3 to .2
    assert found["padded_share"] == pytest.approx(0.2)
    assert found["utilisation"] == pytest.approx(0.2)  # 2e10 a second of 1e11
    assert found["seconds"] == 1.0


def test_a_run_of_no_steps_has_no_rates():
    """Zeros, which JSON can hold."""
    found = cost.table(cost.Cost(), np.empty(0), 0, 0, 0, 0, 1e11)
    rates = ("pairs_per_second", "tokens_per_second", "step_p50", "padded_share", "utilisation")
    assert [found[name] for name in rates] == [0] * 5


def test_operations_by_hand():
    """A layer from 3 to 5 has 15 + 5 parameters, the table does not count."""
    model = torch.nn.Sequential(torch.nn.Embedding(100, 3), torch.nn.Linear(3, 5))
    assert cost.flops(model) == (6 * 20, 2 * 20)


def test_matmul_rate_is_that_of_a_product(monkeypatch):
    """2 n^3 operations, in the time of the fastest: between two clock readings each."""
    monkeypatch.setitem(cost.MATMUL, "cpu", 10)
    ticks = iter([0, 9, 10, 10.5, 20, 20.25, 30, 31, 40, 41, 50, 51])
    monkeypatch.setattr(cost.time, "perf_counter", lambda: next(ticks))
    assert cost.matmul_rate(torch.device("cpu"), torch.float32) == 2 * 10**3 / 0.25


def test_a_moment_of_the_cpu_is_the_clocks(monkeypatch):
    """Between two marks lie seconds."""
    ticks = iter([5.0, 7.5])
    monkeypatch.setattr(cost.time, "perf_counter", lambda: next(ticks))
    marks = [cost.mark(torch.device("cpu")) for _ in range(2)]
    assert cost.seconds_between(*marks) == 2.5
