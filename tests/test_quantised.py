"""Frozen matrices in one byte a number or half of one: what they are, and training beside them."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_adapters import asked, checkpoint  # noqa: F401
from test_trainer import results, stop_after

from lib import store
from lib.params import BadParameter, Train, checked
from lib.trainer import Training, train
from lib.training import adapters, cost, quantised
from lib.training.export import save_encoder
from lib.training.models import build_encoder, load_encoder

# The sixteen quantiles of NF4: arXiv 2305.14314, appendix E.
NF4 = torch.tensor([
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1.0,
])  # fmt: skip
both = pytest.mark.parametrize("weights", quantised.KINDS)


def layer(rows=48, columns=64):
    torch.manual_seed(0)
    return torch.nn.Linear(columns, rows)


def test_int8_by_hand():
    """Each number is its row's largest over 127 times a whole number, the nearest: of its rounding
    to fp16, which is at most .03 of a step away."""
    plain = layer().weight.detach()
    found = quantised.Quantised(layer(), "int8").weight.detach()
    step = plain.abs().amax(1, keepdim=True) / 127
    whole = found / step
    torch.testing.assert_close(whole, whole.round(), atol=0.1, rtol=0)
    assert ((found - plain).abs() <= 0.6 * step).all() and found.dtype == torch.float32
    assert whole.round().abs().max() == 127 and (found != plain).any()


def test_nf4_by_hand():
    """Each number is the nearest of sixteen quantiles times the largest of its 64."""
    plain = layer()
    found = quantised.Quantised(plain, "nf4").weight
    blocks = plain.weight.detach().reshape(-1, 64)
    largest = blocks.abs().amax(1, keepdim=True)
    nearest = NF4[((blocks / largest)[..., None] - NF4).abs().argmin(-1)] * largest
    torch.testing.assert_close(found, nearest.reshape(found.shape), atol=1e-6, rtol=0)


@both
def test_product_and_gradient_are_those_of_the_restored_matrix(weights):
    """In fp32, and in bf16 where all products are."""
    kept, x = quantised.Quantised(layer(), weights), torch.randn(5, 64, requires_grad=True)
    for half in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            (own,) = torch.autograd.grad(kept(x).float().square().sum(), x)
            plain = torch.nn.functional.linear(x, kept.weight, kept.bias)
            (expected,) = torch.autograd.grad(plain.float().square().sum(), x)
        assert torch.equal(kept(x), torch.nn.functional.linear(x, kept.weight, kept.bias))
        torch.testing.assert_close(own, expected, rtol=0.02 if half else 1e-5, atol=1e-2)


@both
def test_training_beside_them(corpus, checkpoint, tmp_path, weights):  # noqa: F811
    """The loss falls; stopped and resumed, states made again, it ends in the same bits; saved are
    the matrices that were trained beside, with what was learned, as an ordinary checkpoint."""
    p = asked(checkpoint(), weights=weights)
    done = train(corpus, p, tmp_path / "whole")
    assert done.log["loss"].iloc[-5:].mean() < done.log["loss"].iloc[:5].mean() - 0.05
    stop_after(corpus, tmp_path / "parts", 14, p)
    train(corpus, p.model_copy(update={"recompute": True}), tmp_path / "parts")
    assert results(tmp_path / "parts") == results(tmp_path / "whole")
    kept = load_file(next((tmp_path / "whole/checkpoints").glob("*/model.safetensors")))
    assert kept and all(".lora_" in name for name in kept)
    whole = [*build_encoder(p, corpus.tokenizer_file).parameters(), *kept.values()]
    assert done.cost["parameters"] == sum(x.numel() for x in whole)

    work = Training(corpus, p, tmp_path / "other", {"device": "cpu"})
    for _, x in work.state.trained():
        x.data = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)) / 10
    with store.atomic_folder(tmp_path / "saved") as new:
        save_encoder(work.encoder.eval(), new)
    again, texts = load_encoder(tmp_path / "saved"), ["aaaa bbbb", "x", "one two three"]
    own = work.encoder.encode(texts, "question")
    np.testing.assert_allclose(again.encode(texts, "question"), own, atol=1e-5)
    plain = build_encoder(p, corpus.tokenizer_file).model.state_dict()
    assert again.model.state_dict().keys() == plain.keys()


@both
def test_steps_are_those_beside_the_restored_matrices(corpus, checkpoint, tmp_path, weights):  # noqa: F811
    """To the bit; and what they cost is counted as that of ordinary matrices."""
    folder = checkpoint()
    own, plain = (
        Training(corpus, asked(folder, weights=kind), tmp_path, {"device": "cpu"})
        for kind in (weights, "fp32")
    )
    modules = (adapters.beside(x.encoder.model).values() for x in (own, plain))
    for packed, ordinary in zip(*modules, strict=True):
        ordinary.base_layer.weight.data = packed.base_layer.weight
    for number in range(4):
        own.state.step = plain.state.step = number
        assert torch.equal(own.step().loss, plain.step().loss)
    for (_, x), (_, y) in zip(own.state.trained(), plain.state.trained(), strict=True):
        assert torch.equal(x, y)
    assert cost.flops(own.encoder) == cost.flops(plain.encoder)


@both
def test_bytes_that_are_held(corpus, checkpoint, tmp_path, weights):  # noqa: F811
    """One a number and four a row; half of one and four for each 64."""
    p = asked(checkpoint(), weights=weights)
    encoder = Training(corpus, p, tmp_path, {"device": "cpu"}).encoder
    for module in adapters.beside(encoder.model).values():
        base, numbers = module.base_layer, module.out_features * module.in_features
        held = sum(x.nbytes for x in base.parameters() if x is not base.bias)
        rows = {"int8": numbers + 4 * module.out_features, "nf4": numbers // 2 + numbers // 16}
        assert held == rows[weights] and not any(x.requires_grad for x in base.parameters())


@both
def test_what_cannot_be_had_is_said_in_one_line(corpus, checkpoint, monkeypatch, weights):  # noqa: F811
    with pytest.raises(BadParameter, match=f"train.weights: {weights} does not go with lora 0"):
        checked(Train, {"weights": weights, "model": "a"})
    with pytest.raises(ValueError, match=f"train.weights: {weights} cannot be had on nowhere"):
        quantised.check(weights, "nowhere")
    monkeypatch.setattr(quantised, "PACKAGE", "not_a_package")
    with pytest.raises(ValueError, match=f"^train.weights: {weights} needs the package .*pip inst"):
        build_encoder(asked(checkpoint(), weights=weights), corpus.tokenizer_file)
