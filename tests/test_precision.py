"""bf16 and torch.compile: how far they may be from plain fp32."""

import pytest
import torch
from kill_trainer import PARAMS
from test_trainer import results, stop_after

from lib import trainer
from lib.trainer import train
from lib.training.determinism import reproducible


def gradients(corpus, folder, **changes):
    """Loss of a batch and the gradient of every parameter."""
    params = PARAMS.model_copy(update={"width": 32, "layers": 2} | changes)
    with reproducible(1):
        run = trainer.Training(corpus, params, folder, {})
        torch.manual_seed(0)
        loss = run.loss(run.schedule.batch(1))
        loss.backward()
    assert loss.dtype == torch.float32
    return loss.item(), {name: p.grad for name, p in run.encoder.named_parameters()}


@pytest.mark.parametrize("chunk", [0, 5])
def test_bf16_is_within_its_rounding(corpus, tmp_path, chunk):
    """bf16 has 8 bits, so a product is off by up to 1/256. Loss within 1e-3 of itself, the whole
    gradient within 1/256 of its norm, each parameter's within 1/16; all of them fp32."""
    loss, exact = gradients(corpus, tmp_path, chunk=chunk)
    other, found = gradients(corpus, tmp_path, chunk=chunk, precision="bf16")
    assert other != loss and other == pytest.approx(loss, rel=1e-3)
    error = {name: float((found[name] - exact[name]).norm()) for name in exact}
    size = {name: float(exact[name].norm()) for name in exact}
    total = sum(x**2 for x in size.values()) ** 0.5
    assert sum(x**2 for x in error.values()) ** 0.5 < total / 256
    for name in exact:
        assert found[name].dtype == torch.float32
        assert error[name] < size[name] / 16 or size[name] < 1e-5 * total, name


def test_bf16_runs_resume_to_the_same_bits(corpus, tmp_path):
    """And their losses stay near those of fp32."""
    half = PARAMS.model_copy(update={"precision": "bf16"})
    result = train(corpus, half, tmp_path / "whole")
    stop_after(corpus, tmp_path / "half", 8, half)
    train(corpus, half, tmp_path / "half")
    assert results(tmp_path / "half") == results(tmp_path / "whole")
    plain = train(corpus, PARAMS, tmp_path / "plain")
    assert (plain.log["loss"] - result.log["loss"]).abs().max() < 0.01
    assert result.cost["matmul_flops_per_second"] > 0


def test_compiled_gradients_are_the_plain_ones(corpus, tmp_path, monkeypatch):
    """As traced; inductor, which takes a minute to compile, is left out."""
    compiled, plain = [], torch.nn.Module.compile

    def traced(module, **options):
        compiled.append(options)
        plain(module, backend="eager", **options)

    monkeypatch.setattr(torch.nn.Module, "compile", traced)
    loss, exact = gradients(corpus, tmp_path, dropout=0.0)
    assert not compiled
    other, found = gradients(corpus, tmp_path, dropout=0.0, compile=True)
    assert compiled == [{"dynamic": True}]
    assert other == pytest.approx(loss, rel=1e-6)
    for name in exact:
        assert torch.allclose(exact[name], found[name], rtol=1e-4, atol=1e-6), name
