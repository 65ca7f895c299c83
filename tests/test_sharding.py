"""Blocks in parts, one a rank: the numbers and the files of whole ones, in part of the memory."""

from functools import partial

import numpy as np
import pytest
import torch
import transformers
from kill_trainer import PARAMS
from safetensors.torch import load_file
from test_trainer import results, start, stop_after
from test_validation import corpus_with_held_out
from torch import distributed

from lib import store
from lib.benchmarks import heldout
from lib.corpus import ParallelCorpus
from lib.params import BadParameter, Train
from lib.study import grid
from lib.trainer import Training, train
from lib.training import ranks, sharding
from lib.training.models import build_encoder
from lib.training.record import TrainResult

SIZE = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    "max_position_embeddings": 40,
}  # fmt: skip
KINDS = {
    "bert": (transformers.BertConfig, transformers.BertModel, {}),
    "mt5": (transformers.MT5Config, transformers.MT5EncoderModel, {"d_kv": 8, "d_ff": 32}),
    "llama": (transformers.LlamaConfig, transformers.LlamaModel, {"num_key_value_heads": 1}),
}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "dropout_rate": 0.0}
WSD = {"schedule": "wsd", "budgets": [2, 4], "decay": 0.5, "warmup_steps": 1}
CASES = {
    "best of validations": {"validate_every": 2, "maps": "free", "angle": 0.1},
    "chunks and budgets": WSD | {"chunk": 5, "recompute": True},
    "mt5": {"model": "mt5"},
    "llama": {"model": "llama", "chunk": 3, "recompute": True},
    "adapters": {"model": "bert", "lora": 3, "precision": "bf16", "weights": "bf16"},
    "untrained": {"steps": 0},
}
BUDGETS = {"chunks and budgets": ("", "budgets/2")}
STOPPED = {"dropout": 0.2, "chunk": 5, "checkpoint_every": 1}


def params(place, **changes):
    """Four steps of twelve rows, without dropout, which is each rank's own."""
    values = PARAMS.model_dump() | {"layers": 2, "dropout": 0.0, "batch_size": 12, "steps": 4}
    values |= {"negatives": "in_batch", "explicit": 0, "checkpoint_every": 2} | changes
    return Train(**values | {"model": str(place / values["model"]) if values["model"] else ""})


def member(number, place):
    """One of two ranks, which hold parts: all CASES, a run that is stopped and goes on, one that
    goes on in whole blocks, and what each rank holds. Each block computes while no other one is
    whole, also where it does so for the second time."""
    store.make_folder(place)
    meeting = f"file://{place}/meeting"
    distributed.init_process_group("gloo", init_method=meeting, rank=number, world_size=2)
    corpus = ParallelCorpus.load(place / "data")
    dev = heldout.dev(corpus)
    for case, changes in CASES.items():
        own = {"chunk": (5, 2)[number]} if "chunk" in changes else {}  # three chunks, and six
        train(corpus, params(place, shard=True, **changes | own), place / "parts" / case, dev)
    train(corpus, params(place, shard=True, **STOPPED), place / "unstopped")
    stop_after(corpus, place / "stopped", 3, params(place, shard=True, **STOPPED))
    train(corpus, params(place, shard=True, **STOPPED), place / "stopped")
    stop_after(corpus, place / "switched", 3, params(place, shard=True))
    train(corpus, params(place), place / "switched")
    for again in (True, False):
        asked = params(place, shard=True, chunk=5, recompute=again)
        run = Training(corpus, asked, place / "none", {})
        assert together(run) == {1}
    store.write_json(place / f"held-{number}.json", held(run))


def together(run):
    """Take a step; how many blocks are whole when one of them computes."""
    blocks, found = sharding.blocks(run.encoder.model), set()

    def count(*_):
        found.add(sum(not sharding.has_parts(block) for block in blocks))

    for block in blocks:
        block.register_forward_pre_hook(count)
    run.step()
    return found


def held(run):
    """Bytes that a rank has of weights, gradients and moments: of blocks, and of the rest."""
    found = {"block": [0, 0, 0], "rest": [0, 0, 0]}
    for name, p in run.encoder.named_parameters():
        moments = [run.state.optimizer.state[p][m] for m in ("exp_avg", "exp_avg_sq")]
        own = [x.to_local() if hasattr(x, "to_local") else x for x in (p, p.grad, *moments)]
        weight, gradient, *moments = [x.nbytes for x in own]
        place = found["block" if ".layer." in name else "rest"]
        for number, size in enumerate((weight, gradient, sum(moments))):
            place[number] += size
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Corpus, checkpoints and all that two `member`s leave."""
    place = tmp_path_factory.mktemp("sharding")
    corpus = corpus_with_held_out(place / "data")
    words = build_encoder(Train(width=16, layers=1), corpus.tokenizer_file).tokenizer
    for kind, (config, model, more) in KINDS.items():
        torch.manual_seed(1)
        named = {"vocab_size": len(words), "pad_token_id": words.pad_token_id}
        model(config(**SIZE, **named, **NO_DROPOUT, **more)).save_pretrained(place / kind)
        words.save_pretrained(place / kind)
    group = [start(member, number, place) for number in range(2)]
    for process in group:
        process.join(120)
        process.kill()  # where one waits for the other
    assert [process.exitcode for process in group] == [0, 0]
    return place


@pytest.mark.parametrize("case", CASES)
def test_parts_do_what_one_process_does(place, case):
    """Loss, norm of the gradient (twice or half of it, were sums taken for means), validations, the
    saved weights and their configuration, of every budget."""
    corpus = ParallelCorpus.load(place / "data")
    asked = params(place, **CASES[case])
    train(corpus, asked, place / "one" / case, heldout.dev(corpus))
    rounding = 1e-2 if asked.precision == "bf16" else 1e-4
    for part in BUDGETS.get(case, ("",)):
        one, other = (TrainResult.read(place / n / case / part) for n in ("one", "parts"))
        for name in ("loss", "gradient_norm"):
            logs = [run.log[name].astype(float) for run in (one, other)]
            assert np.allclose(*logs, rtol=rounding), name
        assert one.validation.equals(other.validation) and one.exposure == other.exposure
        assert one.cost["parameters"] == other.cost["parameters"]
        assert_close(one.folder, other.folder, "model/model.safetensors", rounding)
        files = [run.folder / "model/config.json" for run in (one, other)]
        assert files[0].read_bytes() == files[1].read_bytes()
    if asked.steps and asked.precision == "fp32":
        for name in ("model", "optimizer"):
            file = f"checkpoints/step-000002/{name}.safetensors"
            assert_close(place / "one" / case, place / "parts" / case, file, rounding)


def assert_close(one, other, file, rounding):
    one, other = load_file(one / file), load_file(other / file)
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.allclose(tensor, other[name], rtol=10 * rounding, atol=rounding), name


def test_a_stopped_run_ends_with_the_same_bits(place):
    """With dropout and chunks."""
    assert results(place / "stopped") == results(place / "unstopped")


def test_a_run_goes_on_in_whole_blocks(place):
    """From a checkpoint of parts, to what one process gives."""
    whole = train(ParallelCorpus.load(place / "data"), params(place), place / "whole")
    switched = TrainResult.read(place / "switched")
    assert np.allclose(whole.log["loss"], switched.log["loss"], rtol=1e-4)
    assert_close(whole.folder, switched.folder, "model/model.safetensors", 1e-4)


def test_each_rank_holds_half(place):
    """Of blocks; the rest is on each. Gradients take what weights take, moments twice that."""
    corpus = ParallelCorpus.load(place / "data")
    run = Training(corpus, params(place), place / "none", {})
    run.step()
    whole = held(run)
    for number in range(2):
        found = store.read_json(place / f"held-{number}.json")
        assert [2 * size for size in found["block"]] == whole["block"]
        assert found["rest"] == whole["rest"]
        weights, gradients, moments = found["block"]
        assert weights == gradients == moments / 2 > 0


def test_ranks_have_equally_many_chunks(monkeypatch):
    """Or one would wait for ever for blocks that the others do not put together."""
    monkeypatch.setattr(sharding, "has_parts", lambda _: True)
    monkeypatch.setattr(ranks, "collected", lambda count: [count, 5])
    chunks = [np.array([3, 1]), np.array([0, 2, 4, 5, 6])]
    found = sharding.even(None, chunks)
    assert [len(part) for part in found] == [1, 1, 2, 1, 2]
    assert [*np.concatenate(found)] == [3, 1, 0, 2, 4, 5, 6]
    assert [len(part) for part in chunks] == [2, 5]


def test_one_rank_is_refused(place, tmp_path):
    """By a study before it starts, and by the trainer, which torchrun may have started."""
    corpus = ParallelCorpus.load(place / "data")
    with pytest.raises(ValueError, match=r"train\.shard: .* one rank \(expected 2 or more\)"):
        train(corpus, params(place, shard=True), tmp_path / "run")
    study = tmp_path / "mine.yaml"
    study.write_text("train: {shard: true}")
    with pytest.raises(BadParameter, match=r"train\.shard: .* ranks 1 \(expected 2 or more\)"):
        grid.load_study(study)
    study.write_text("train: {shard: true, ranks: 2}")
    grid.load_study(study)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("frozen", {"frozen": 1, "model": "some"}),
        ("compile", {"compile": True}),
        ("look_every", {"look_every": 1}),
        ("weights", {"weights": "nf4", "lora": 2, "model": "some"}),
    ],
)
def test_what_does_not_go_with_parts_is_refused(name, values):
    """In one line that names it."""
    asked = partial(Train, **values, ranks=2)
    asked()
    with pytest.raises(ValueError, match=rf"train\.{name}: .* does not go with shard True"):
        asked(shard=True)
