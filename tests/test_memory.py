"""What fine-tuning takes of memory: counted before it, measured in it."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers

from lib.encoder import Encoder, Settings
from lib.losses import info_nce
from lib.params import Train
from lib.study.__main__ import main
from lib.training import adapters, models
from lib.training.memory import needs
from lib.training.optimizer import adamw
from lib.training.packing import embed

WORDS, TOKENS, GIB = 2000, 64, 2**30
SIZE = {
    "vocab_size": WORDS, "hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 8,
    "intermediate_size": 1024, "max_position_embeddings": 66,
}  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A folder with four million random weights."""
    folder = tmp_path_factory.mktemp("model")
    transformers.BertModel(transformers.BertConfig(**SIZE), False).save_pretrained(folder)
    (folder / "tokenizer.json").write_text("{}")  # a plan asks for none of its words
    return str(folder)


class Bare(Encoder):
    """An encoder of token numbers, without a tokenizer."""

    def __init__(self, model):
        torch.nn.Module.__init__(self)
        self.model, self.settings, self._longest = model, Settings(), TOKENS
        self.dense, self.lower = torch.nn.Sequential(), None


def measured(p):
    """The most bytes that tensors take in a step: weights and AdamW's state, which are there, and
    the highest sum of what torch allocates and frees."""
    model = models._bare(transformers.AutoModel.from_pretrained(p.model)).train()
    encoder = Bare(adapters.put_in(model, p))
    if p.recompute:
        models.recompute(encoder.model)
    optimizer, generator = adamw(encoder, p), np.random.default_rng(0)

    def step():
        texts = generator.integers(0, WORDS, (2 * p.batch_size, TOKENS)).astype(np.int32)
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=p.precision == "bf16"):
            vectors = embed(encoder, list(texts), p.chunk)
        info_nce(*vectors.split(p.batch_size), 0.1).backward()
        optimizer.step()

    step()
    held = sum(x.nbytes * (4 if x.requires_grad else 1) for x in encoder.parameters())
    with torch.profiler.profile(profile_memory=True) as profile:
        step()
    every = profile.profiler.kineto_results.events()
    events = sorted((e.start_ns(), e.nbytes()) for e in every if e.name() == "[memory]")
    return held + np.cumsum([size for _, size in events]).max()


@pytest.mark.parametrize(
    "more",
    [
        {"batch_size": 16},
        {"batch_size": 32, "chunk": 16},
        {"batch_size": 32, "lora": 8},
        {"batch_size": 32, "recompute": True},
        {"batch_size": 8, "lora": 8, "precision": "bf16"},
        {"batch_size": 8, "lora": 8, "precision": "bf16", "weights": "bf16"},
        {"batch_size": 8, "lora": 8, "precision": "bf16", "weights": "nf4"},
    ],
    ids=lambda more: " ".join(more),
)
def test_the_plan_is_what_a_step_takes(checkpoint, more):
    """Within 15 %; the largest chunk is the last that fits."""
    p = Train(model=checkpoint, max_length=TOKENS, **more)
    found = needs(p, 0)
    assert found.peak(p.chunk) == pytest.approx(measured(p), rel=0.15)
    chunk = found.chunk(found.peak(7))
    assert chunk == 7 and found.peak(chunk + 1) > found.peak(7)
    assert found.chunk(found.fixed) == 0 and found.chunk(2**60) == 2 * p.batch_size


def test_numbers_of_weights_by_hand(checkpoint):
    """Of a BERT: words, positions, types, a norm; twelve and a bit width squared a layer."""
    width, inner, layers = 256, 1024, 4
    tables = (WORDS + 66 + 2) * width + 2 * width
    layer = 4 * (width**2 + width) + 2 * width * inner + inner + width + 4 * width
    every = needs(Train(model=checkpoint, max_length=TOKENS), 0)
    assert every.parameters == every.trainable == tables + layers * layer
    frozen = needs(Train(model=checkpoint, max_length=TOKENS, frozen=3), 0)
    assert (frozen.parameters, frozen.trainable) == (tables + layers * layer, layer)
    assert frozen.below == 4 * (tables + 3 * layer) and frozen.text < every.text / 3
    first = needs(Train(model=checkpoint, max_length=TOKENS, layers_kept=1), 0)
    assert first.parameters == tables + layer
    beside = needs(Train(model=checkpoint, max_length=TOKENS, lora=8), 0)
    matrices = layers * 8 * (4 * 2 * width + 2 * (width + inner))
    assert (beside.trainable, beside.parameters) == (matrices, tables + layers * layer + matrices)
    half = {"lora": 8, "precision": "bf16", "weights": "bf16"}
    halved = needs(Train(model=checkpoint, max_length=TOKENS, **half), 0)
    squares = layers * (4 * width**2 + 2 * width * inner)
    assert beside.weights - halved.weights == 2 * squares
    assert halved.gradients == beside.gradients and halved.moments == beside.moments
    rows = layers * (5 * width + inner)  # of int8 each has a scale, of nf4 each 64 numbers
    kept = {"int8": squares + 4 * rows, "nf4": squares // 2 + squares // 16}
    for weights, made in (("int8", 8), ("nf4", 4)):  # bytes a number of the one that is restored
        found = needs(Train(model=checkpoint, max_length=TOKENS, lora=8, weights=weights), 0)
        held = kept[weights] + made * width * inner
        assert beside.weights - found.weights == 4 * squares - held
        assert found.parameters == beside.parameters


def test_a_rank_of_four_by_hand(checkpoint):
    """A quarter of the texts; with parts of layers also of these, and room to put them together."""
    one = needs(Train(model=checkpoint, max_length=TOKENS), 0)
    whole = needs(Train(model=checkpoint, max_length=TOKENS, ranks=4), 0)
    assert replace(whole, texts=one.texts) == one and whole.texts == one.texts // 4
    found = needs(Train(model=checkpoint, max_length=TOKENS, ranks=4, shard=True), 0)
    width, inner, layers = 256, 1024, 4
    layer = 4 * (width**2 + width) + 2 * width * inner + inner + width + 4 * width
    held = 4 * (one.parameters - 3 * layers * layer // 4)
    assert (found.weights, found.gradients, found.moments) == (held, held, 2 * held)
    assert found.together == 5 * 4 * layer
    parts = found.weights + found.gradients + found.moments + found.together + found.batch
    assert found.peak(1) == parts + found.text
    adapters_alone = Train(model=checkpoint, max_length=TOKENS, ranks=4, shard=True, lora=8)
    matrices = 8 * (4 * 2 * width + 2 * (width + inner))
    assert needs(adapters_alone, 0).gradients == 4 * layers * matrices / 4


@pytest.mark.parametrize(
    ("kind", "billions"),
    [
        ({"num_key_value_heads": 8, "hidden_size": 4096, "intermediate_size": 14336}, 7.1),
        ({"num_hidden_layers": 40, "num_attention_heads": 40, "hidden_size": 5120,
          "intermediate_size": 13824}, 12.9),
    ],
    ids=("7b", "13b"),
)  # fmt: skip
def test_billions_of_weights_are_planned_without_any(monkeypatch, kind, billions):
    """Shapes of Mistral 7B and Llama 2 13B, from their configuration alone, with adapters."""
    config = transformers.LlamaConfig(**kind)
    monkeypatch.setattr(models, "settings", lambda p: Settings(max_length=128))
    monkeypatch.setattr(models, "configuration", lambda p, _: (config, transformers.LlamaModel))
    p = Train(model="models/some", lora=16, batch_size=128, recompute=True)
    found = needs(p, 0)
    assert found.parameters / 1e9 == pytest.approx(billions, abs=0.15)
    assert found.gradients < 0.02 * found.weights and found.weights == 4 * found.parameters
    assert 8 * GIB < found.weights < found.peak(8) < found.peak(0)


def test_the_command(checkpoint, tmp_path, capsys):
    """Some lines per kind of run, and what fits."""
    file = tmp_path / "mine.yaml"
    file.write_text(
        f"train: {{model: {checkpoint}, batch_size: 16, max_length: 64}}\n"
        "vary: {size: {whole: {}, adapters: {train.lora: 4}, third: {train.objective: lakda}}, "
        "train.seed: [0, 1]}\n"
    )
    assert main(["plan", str(file), "--memory", "0.2"]) == 0
    said = capsys.readouterr().out
    assert said.count("parameters") == 3 and "size=whole" in said and "size=adapters" in said
    peaks = [float(x) for x in re.findall(r"peak ([0-9.]+) ", said)]
    assert peaks[2] > 1.3 * peaks[0]  # a third text a row
    assert "seed" not in said and "chunk" in said
    file.write_text(f"train: {{model: {checkpoint}, max_length: 64, ranks: 2, shard: true}}\n")
    assert main(["plan", str(file), "--memory", "4"]) == 0
    said = capsys.readouterr().out
    assert "on each of 2 ranks" in said and "put together" in said and "texts of a rank" in said
    for memory in ("nan", "inf", "-5", "0"):
        with pytest.raises(SystemExit):
            main(["plan", str(file), "--memory", memory])
        assert "no amount of memory" in capsys.readouterr().err
    file.write_text("train: {model: models/nothing}")
    assert main(["plan", str(file)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
