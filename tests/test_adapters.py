"""LoRA: at first it changes nothing, then only what stands beside the matrices."""

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file
from test_trainer import results, stop_after

from lib import store
from lib.params import BadParameter, Train, checked
from lib.trainer import Training, train
from lib.training import adapters
from lib.training.models import build_encoder, load_encoder

KINDS = {
    "bert": (transformers.BertConfig, transformers.BertModel, {}),
    "mt5": (transformers.MT5Config, transformers.MT5EncoderModel, {"d_kv": 8, "d_ff": 32}),
}
RANK, LAYERS, MATRICES = 4, 2, {"bert": 6, "mt5": 7}


@pytest.fixture(scope="module")
def checkpoint(corpus, tmp_path_factory):
    """kind -> folder of a tiny random checkpoint over the toy corpus's tokenizer."""

    def made(kind="bert"):
        folder = tmp_path_factory.mktemp(kind)
        words = build_encoder(Train(width=16, layers=1), corpus.tokenizer_file).tokenizer
        words.save_pretrained(folder)
        config, model, more = KINDS[kind]
        torch.manual_seed(1)
        size = {
            "vocab_size": len(words), "hidden_size": 16, "num_hidden_layers": LAYERS,
            "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 40,
            "pad_token_id": words.pad_token_id,
        }  # fmt: skip
        model(config(**size, **more)).save_pretrained(folder)
        return str(folder)

    return made


def asked(model, **more):
    return Train(
        **{"model": model, "lora": RANK, "max_length": 16, "steps": 20, "batch_size": 8}
        | {"learning_rate": 1e-2, "temperature": 0.1, "checkpoint_every": 6, "log_every": 1}
        | more
    )


@pytest.mark.parametrize("kind", KINDS)
def test_only_adapters_learn_and_what_is_saved_has_it(corpus, checkpoint, tmp_path, kind):
    """At first vectors are the checkpoint's; then the loss falls, checkpoints hold adapters alone,
    and the saved matrices are the old ones and scale x B x A, by hand."""
    p = asked(checkpoint(kind))
    texts = sorted({*corpus.rows["question"][:]})
    before = build_encoder(p, corpus.tokenizer_file)
    work = Training(corpus, p, tmp_path / "other", {"device": "cpu"})
    assert len(adapters.targets(before.model)) == LAYERS * MATRICES[kind]
    assert np.array_equal(work.encoder.encode(texts, "question"), before.encode(texts, "question"))
    done = train(corpus, p, tmp_path / "run")
    assert done.log["loss"].iloc[-5:].mean() < done.log["loss"].iloc[:5].mean() - 0.05
    kept = load_file(next((tmp_path / "run/checkpoints").glob("*/model.safetensors")))
    assert kept and all(".lora_" in name for name in kept)
    assert sum(x.numel() for x in kept.values()) < 0.5 * sum(
        x.numel() for x in before.model.parameters()
    )
    changed = {
        name
        for (name, old), new in zip(
            before.model.state_dict().items(), done.encoder.model.state_dict().values(), strict=True
        )
        if not torch.equal(old, new)
    }
    assert changed == {f"{name}.weight" for name in adapters.targets(before.model)}


def test_the_saved_matrix_by_hand(corpus, checkpoint, tmp_path):
    """W + 2 B A, of every matrix, and vectors are those of the encoder with adapters beside it."""
    work = Training(corpus, asked(checkpoint()), tmp_path, {"device": "cpu"})
    generator = torch.Generator().manual_seed(0)
    for name, p in work.state.trained():
        assert ".lora_" in name
        p.data = torch.randn(p.shape, generator=generator) / 10
    weights, before = adapters.merged(work.encoder.model), work.encoder.model.state_dict()
    for name in adapters.targets(build_encoder(asked(checkpoint()), corpus.tokenizer_file).model):
        a, b = (before[f"{name}.lora_{side}.default.weight"] for side in "AB")
        expected = before[f"{name}.base_layer.weight"] + 2 * b @ a
        torch.testing.assert_close(weights[f"{name}.weight"], expected)
    with store.atomic_folder(tmp_path / "saved") as new:
        from lib.training.export import save_encoder

        save_encoder(work.encoder, new)
    again, texts = load_encoder(tmp_path / "saved"), ["aaaa bbbb", "x", "one two three"]
    own = work.encoder.encode(texts, "question")
    np.testing.assert_allclose(again.encode(texts, "question"), own, atol=1e-5)


def test_stopped_and_resumed_it_ends_in_the_same_bits(corpus, checkpoint, tmp_path):
    """With dropout, and where states are made again after the stop."""
    p = asked(checkpoint())
    train(corpus, p, tmp_path / "whole")
    stop_after(corpus, tmp_path / "parts", 14, p)
    train(corpus, p.model_copy(update={"recompute": True}), tmp_path / "parts")
    assert results(tmp_path / "parts") == results(tmp_path / "whole")
    assert p.model_copy(update={"recompute": True}).of_the_work() == p.of_the_work()


def test_recomputed_states_give_the_same_run(corpus, checkpoint, tmp_path):
    """All weights trained, with dropout."""
    p = asked(checkpoint(), lora=0, steps=4)
    train(corpus, p, tmp_path / "kept")
    train(corpus, p.model_copy(update={"recompute": True}), tmp_path / "again")
    assert results(tmp_path / "again") == results(tmp_path / "kept")


def test_matrices_in_bf16_are_trained_beside_to_the_same_bits(corpus, checkpoint, tmp_path):
    """Products in bf16 round them anyway: losses and adapters are those of fp32 matrices. Adapters,
    biases, norms and words stay fp32; what is saved is the rounded matrix and what was learned."""
    p = asked(checkpoint(), steps=7, precision="bf16")
    half = p.model_copy(update={"weights": "bf16"})
    whole, done = train(corpus, p, tmp_path / "whole"), train(corpus, half, tmp_path / "half")
    assert whole.log["loss"].tolist() == done.log["loss"].tolist()
    kept = [next((tmp_path / x).glob("checkpoints/*/model.safetensors")) for x in ("whole", "half")]
    ours, theirs = map(load_file, kept)
    assert all(torch.equal(ours[n], theirs[n]) and ours[n].dtype == torch.float32 for n in ours)
    start = build_encoder(p, corpus.tokenizer_file).model
    rounded = {f"{n}.weight" for n in adapters.targets(start)}
    states = (x.encoder.model.state_dict() for x in (whole, done))
    for (name, before), full, found in zip(
        start.state_dict().items(), *(s.values() for s in states), strict=True
    ):
        assert found.dtype == torch.float32
        lost = before.to(torch.bfloat16).float() - before if name in rounded else 0
        torch.testing.assert_close(found, full + lost, atol=1e-7, rtol=0)
        assert name not in rounded or not torch.equal(found, full)


def test_matrices_in_bf16_are_half_of_their_bytes(corpus, checkpoint, tmp_path):
    """And validation, whose products are fp32, is that of the rounded matrices."""
    p = asked(checkpoint(), precision="bf16", weights="bf16")
    encoder = Training(corpus, p, tmp_path, {"device": "cpu"}).encoder
    plain = Training(corpus, asked(checkpoint()), tmp_path, {"device": "cpu"}).encoder
    found = adapters.beside(encoder.model)
    matrices = {id(x.base_layer.weight) for x in found.values()}
    for x in encoder.model.parameters():
        assert x.dtype == (torch.bfloat16 if id(x) in matrices else torch.float32)
    for module in adapters.beside(plain.model).values():
        module.base_layer.weight.data = module.base_layer.weight.bfloat16().float()
    texts = ["aaaa bbbb", "x", "one two three"]
    assert np.array_equal(encoder.encode(texts, "question"), plain.encode(texts, "question"))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {"weights": "bf16", "model": "a", "precision": "bf16"},
            "train.weights: bf16 does not go with lora 0 (expected fp32)",
        ),
        (
            {"weights": "bf16", "model": "a", "lora": 4},
            "train.weights: bf16 does not go with precision 'fp32' (expected fp32)",
        ),
        ({"lora": 4}, "train.lora: 4 does not go with model '' (expected 0)"),
        ({"lora": 4, "model": "a", "frozen": 2}, "train.lora: 4 does not go with frozen 2"),
    ],
)
def test_what_does_not_go_together(values, words):
    with pytest.raises(BadParameter) as error:
        checked(Train, values)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_without_the_package(corpus, checkpoint, monkeypatch):
    """One line that says what to install."""
    monkeypatch.setattr(adapters, "PACKAGE", "not_a_package")
    with pytest.raises(ValueError, match="^train.lora: 4 needs the package peft .*pip install"):
        build_encoder(asked(checkpoint()), corpus.tokenizer_file)
