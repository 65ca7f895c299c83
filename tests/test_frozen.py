"""Frozen lower layers: as without the cache to fp16's rounding, computed once, and never stale."""

import shutil
import threading
import time

import numpy as np
import pytest
import torch
import transformers
from test_trainer import results, stop_after

from lib import store
from lib.losses import info_nce
from lib.params import BadParameter, Train, checked
from lib.trainer import Training, adamw, learning_rate, schedule, train
from lib.training import frozen, packing
from lib.training.export import save_encoder
from lib.training.frozen import Lower
from lib.training.identity import identity_of
from lib.training.models import build_encoder, load_encoder
from lib.training.tokens import batch_rows, tokenized

LAYERS, FROZEN = 3, 2
TEXTS = ["aaaa bbbb", "one two three four five", "x", ""]
KINDS = {
    "bert": (transformers.BertConfig, {"hidden_dropout_prob": 0.0}),
    "xlm-roberta": (transformers.XLMRobertaConfig, {"hidden_dropout_prob": 0.0}),
    "modernbert": (transformers.ModernBertConfig, {"global_attn_every_n_layers": 2}),
    "mt5": (transformers.MT5Config, {"d_kv": 8, "d_ff": 32}),
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache."""
    monkeypatch.setenv("BATCHES_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "states"


@pytest.fixture(scope="module")
def checkpoint(corpus, tmp_path_factory):
    """kind -> folder of a tiny random checkpoint over the toy corpus's tokenizer."""

    def made(kind="bert", dropout=0.0):
        folder = tmp_path_factory.mktemp(kind)
        scratch = build_encoder(Train(width=16, layers=1), corpus.tokenizer_file)
        scratch.tokenizer.save_pretrained(folder)
        of_kind, more = KINDS[kind]
        torch.manual_seed(1)
        config = of_kind(
            vocab_size=len(scratch.tokenizer),
            pad_token_id=scratch.tokenizer.pad_token_id,
            hidden_size=16,
            num_hidden_layers=LAYERS,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=40,
            **more,
        )
        if "hidden_dropout_prob" in more:
            config.hidden_dropout_prob = config.attention_probs_dropout_prob = dropout
            config.initializer_range = 0.5  # or a layer would hardly change anything
        transformers.AutoModel.from_config(config).save_pretrained(folder)
        return str(folder)

    return made


def asked(model, **more):
    return Train(
        **{"model": model, "frozen": FROZEN, "max_length": 16, "steps": 10, "batch_size": 8}
        | {"learning_rate": 1e-3, "temperature": 0.1, "checkpoint_every": 3, "log_every": 1}
        | more
    )


@pytest.fixture
def computed(monkeypatch):
    """How many texts were computed, call by call."""
    found, original = [], Lower._computed

    def counting(lower, texts):
        found.append(len(texts))
        return original(lower, texts)

    monkeypatch.setattr(Lower, "_computed", counting)
    return found


def texts_of(corpus):
    return sorted({*corpus.rows["question"][:], *corpus.rows["passage"][:]})


# --- the same result ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bert", "xlm-roberta"])
def test_vectors_are_those_of_the_whole_encoder(corpus, checkpoint, kind, monkeypatch):
    """To the rounding of fp16 (2 ** -11 of a state); in fp32 to its own; one layer fewer or more
    is another encoder."""
    p, texts = asked(checkpoint(kind)), texts_of(corpus) + TEXTS
    whole = build_encoder(p, corpus.tokenizer_file)
    expected = whole.encode(texts, "question")

    def away(kept):
        monkeypatch.setattr(frozen, "KEPT", kept)
        encoder = build_encoder(p, corpus.tokenizer_file)
        frozen.freeze(encoder, FROZEN)
        return np.abs(encoder.encode(texts, "question") - expected).max()

    assert away(np.float32) < 2e-6 < away(np.float16) < 2e-3
    fewer = build_encoder(asked(p.model, layers_kept=LAYERS - 1, frozen=0), corpus.tokenizer_file)
    assert np.abs(fewer.encode(texts, "question") - expected).max() > 0.05


def by_hand(corpus, p):
    """The run that `p` describes, with the whole encoder in every step, and no cache."""
    encoder = build_encoder(p, corpus.tokenizer_file).train()
    texts, batches = tokenized(corpus, encoder), schedule(corpus.index, p)
    model = encoder.model
    for part in (model.embeddings, model.encoder.layer[:FROZEN]):
        part.requires_grad_(False)
    optimizer = adamw(encoder, p)
    for step in range(p.steps):
        batch, lists = batches.batch(step), []
        for side, (rows, _) in batch_rows(corpus.index, batch).items():
            lists += texts.take(side, rows)
        optimizer.param_groups[0]["lr"] = learning_rate(p, step)
        optimizer.param_groups[1]["lr"] = learning_rate(p, step)
        optimizer.zero_grad()
        question, passage = packing.embed(encoder, lists).chunk(2)
        info_nce(question, passage, p.temperature).backward()
        torch.nn.utils.clip_grad_norm_(encoder.parameters(), p.clip)
        optimizer.step()
    return encoder


@pytest.mark.parametrize("chunk", [0, 3])
def test_training_is_that_of_the_whole_encoder(corpus, checkpoint, tmp_path, chunk):
    """Vectors move in ten steps by much more than by what rounding changes; the layers below have
    the checkpoint's bits, and the saved encoder is whole."""
    p = asked(checkpoint(), chunk=chunk)
    start, expected = build_encoder(p, corpus.tokenizer_file), by_hand(corpus, p)
    train(corpus, p, tmp_path / "run")
    found = load_encoder(tmp_path / "run" / "model")
    assert found.lower is not None
    vectors, wanted, first = (
        x.encode(texts_of(corpus), "passage") for x in (found, expected, start)
    )
    assert np.abs(vectors - wanted).max() < 4e-3 < 0.05 < np.abs(vectors - first).max()
    with frozen.whole(found):
        weights = found.state_dict()
    untouched = start.state_dict()
    assert weights.keys() == untouched.keys()
    for name, weight in weights.items():
        below = "embeddings." in name or any(f"layer.{n}." in name for n in range(FROZEN))
        assert torch.equal(weight, untouched[name]) == below, name


def test_nothing_below_is_trained_or_dropped_out(corpus, checkpoint, tmp_path):
    """Nothing of it is in optimizer or checkpoints; two steps with dropout see the same states,
    and give the layers above other vectors."""
    p = asked(checkpoint(dropout=0.3))
    run = Training(corpus, p, tmp_path, identity_of(corpus, p, None))
    names = {name for name, _ in run.encoder.named_parameters()}
    held = sum(len(group["params"]) for group in run.state.optimizer.param_groups)
    assert names and held == len(names)
    assert all(name.startswith("model.encoder.layer.0.") for name in names)
    tokens = run.texts.take("question", np.arange(4))
    one, other = (run.encoder.looked_up(tokens)[0] for _ in range(2))
    assert torch.equal(one, other) and not one.requires_grad
    assert not torch.equal(*(packing.embed(run.encoder, tokens) for _ in range(2)))


def test_operations_are_those_of_what_is_trained(corpus, checkpoint, tmp_path):
    """6 x the matrices, vectors and norms of the one layer above the cut, by hand; the cost of the
    run says the same, and the number of its weights is of the whole encoder."""
    run = train(corpus, asked(checkpoint(), steps=2), tmp_path)
    layer = 4 * (16 * 16 + 16) + 16 * 32 + 32 + 32 * 16 + 16 + 2 * 2 * 16
    assert run.exposure["flops"] == 6 * layer * run.exposure["tokens"] == run.cost["flops"]
    assert run.cost["parameters"] > 3 * layer


# --- once a text -------------------------------------------------------------------------------


def test_runs_and_evaluation_share_the_states(corpus, checkpoint, tmp_path, computed):
    """A run of another arm computes none, nor does encoding texts of the corpus; new texts are
    computed once for all."""
    p = asked(checkpoint())
    train(corpus, p, tmp_path / "one")
    encoder = build_encoder(p, corpus.tokenizer_file)
    distinct = {
        tuple(x) for s in ("question", "passage") for x in encoder.tokenize(corpus.rows[s][:], s)
    }
    assert sum(computed) == len(distinct)
    computed.clear()
    train(corpus, asked(p.model, strategy="mono", seed=3), tmp_path / "two")
    one, two = (load_encoder(tmp_path / name / "model") for name in ("one", "two"))
    one.encode(texts_of(corpus), "passage")
    assert sum(computed) == 0
    first = one.encode(["pppp oooo", *TEXTS, *TEXTS], "question")
    assert sum(computed) == 1 + len(TEXTS)
    two.encode(TEXTS, "question")
    again = load_encoder(tmp_path / "one" / "model").encode(
        ["pppp oooo", *TEXTS, *TEXTS], "question"
    )
    assert sum(computed) == 1 + len(TEXTS)
    assert np.array_equal(first, again)


def test_processes_that_fill_the_cache_at_once_share_the_work(
    corpus, checkpoint, monkeypatch, computed
):
    """What another one is at is left for later, and then taken from it."""
    monkeypatch.setattr(frozen, "TEXTS", 8)
    one, other = (build_encoder(asked(checkpoint()), corpus.tokenizer_file) for _ in range(2))
    texts = tokenized(corpus, one)
    for encoder in (one, other):
        frozen.freeze(encoder, FROZEN)
    first = texts.take("question", np.arange(8))
    rest = texts.take("question", np.arange(8, len(texts.lengths("question"))))
    rest += texts.take("passage", np.arange(len(texts.lengths("passage"))))
    name = frozen._name(map(frozen._key, first))
    one.lower.folder.mkdir(parents=True)
    filling = threading.Thread(target=frozen.fill, args=(one, texts))
    with store.lock(one.lower.folder / f"{name}.lock"):
        filling.start()
        while one.lower._missing(rest):
            time.sleep(0.01)
        filling.join(0.5)
        assert filling.is_alive() and len(one.lower._missing(first)) == 8
        other.lower._have(first)
        done = sum(computed)
    filling.join()
    assert not one.lower._missing(first) and sum(computed) == done
    assert not [*one.lower.folder.glob("*.lock")]


@pytest.mark.parametrize("forget", [False, True])
def test_a_killed_run_ends_with_the_same_bits(corpus, checkpoint, tmp_path, cache, forget):
    """With the states that are there, and with new ones."""
    p = asked(checkpoint(dropout=0.2))
    train(corpus, p, tmp_path / "whole")
    stop_after(corpus, tmp_path / "killed", 8, p)
    if forget:
        shutil.rmtree(cache)
    train(corpus, p, tmp_path / "killed")
    assert results(tmp_path / "killed") == results(tmp_path / "whole")


def test_states_do_not_depend_on_what_is_computed_with_them(corpus, checkpoint):
    """Nor on whether they are kept: one text alone, and among all, has the same bits."""
    p, texts = asked(checkpoint()), texts_of(corpus)

    def states(chosen):
        encoder = build_encoder(p, corpus.tokenizer_file)
        frozen.freeze(encoder, FROZEN)
        tokens = encoder.tokenize(chosen, "question")
        return encoder.lower._computed(encoder.lower._missing(tokens))

    together = states(texts)
    for text in texts[:20]:
        for key, alone in states([text]).items():
            assert alone.dtype == np.float16 and np.array_equal(alone, together[key])


def test_a_full_cache_changes_no_bit(corpus, checkpoint, tmp_path, cache, monkeypatch, capsys):
    p = asked(checkpoint(dropout=0.2))
    train(corpus, p, tmp_path / "kept")
    shutil.rmtree(cache)
    monkeypatch.setattr(frozen, "MOST", -1)
    train(corpus, p, tmp_path / "not")
    assert "further states are not kept" in capsys.readouterr().out
    assert not [*cache.glob("*/*/states.npy")]
    assert results(tmp_path / "kept") == results(tmp_path / "not")


# --- stale, damaged, impossible ----------------------------------------------------------------


def test_damage_is_told_and_mended(corpus, checkpoint, cache, capsys, computed):
    p = asked(checkpoint())

    def vectors():
        encoder = build_encoder(p, corpus.tokenizer_file)
        frozen.freeze(encoder, FROZEN)
        return encoder.encode(TEXTS, "question")

    before = vectors()
    [file] = cache.glob("*/*/states.npy")
    content = bytearray(file.read_bytes())
    content[-1] ^= 64
    file.write_bytes(content)
    computed.clear()
    assert np.array_equal(vectors(), before) and computed == [len(TEXTS), 0]
    out = capsys.readouterr().out
    assert "states.npy: was altered" in out and out.count("\n") == 1
    (file.parent / "more.npy").write_bytes(b"")
    with pytest.raises(ValueError, match="more.npy: is not among what was written there"):
        vectors()


def test_other_weights_layers_or_prompts_have_other_states(corpus, checkpoint, cache, computed):
    """So nothing can be stale: what decides a state is its name."""
    p = asked(checkpoint())

    def encode(p, layers=FROZEN, change=0.0):
        encoder = build_encoder(p, corpus.tokenizer_file)
        with torch.no_grad():
            encoder.model.encoder.layer[0].output.dense.weight[0, 0] += change
            encoder.model.encoder.layer[-1].output.dense.weight[0, 0] += 1  # above: no matter
        frozen.freeze(encoder, layers)
        computed.clear()
        encoder.encode(TEXTS, "question")
        return sum(computed)

    assert [encode(p), encode(p)] == [len(TEXTS), 0]
    assert encode(p, change=1e-3) == encode(p, layers=1) == len(TEXTS)
    assert encode(asked(p.model, question_prompt="aaaa ")) == len(TEXTS)
    assert len([*cache.iterdir()]) == 3


def test_states_beyond_fp16_are_refused(corpus, checkpoint):
    encoder = build_encoder(asked(checkpoint()), corpus.tokenizer_file)
    with torch.no_grad():
        encoder.model.encoder.layer[FROZEN - 1].output.LayerNorm.weight.fill_(1e6)
    frozen.freeze(encoder, FROZEN)
    with pytest.raises(ValueError, match="states after layer 2 do not fit into fp16"):
        encoder.encode(TEXTS, "question")


@pytest.mark.parametrize(
    ("kind", "more", "said"),
    [
        ("bert", {"frozen": 3}, "train.frozen: 3 leaves nothing .* 3 layers .*expected 2 or less"),
        ("bert", {"layers_kept": 2}, "train.frozen: 2 leaves nothing .* 2 layers"),
        ("bert", {"layers_kept": 4}, "train.layers_kept: 4 is more than the 3 layers"),
        ("mt5", {}, "train.frozen: model .* is of type mt5 .expected bert, roberta"),
        ("modernbert", {}, "train.frozen: model .* is of type modernbert"),
    ],
)
def test_what_cannot_be_frozen_or_kept_is_refused(corpus, checkpoint, kind, more, said):
    p = asked(checkpoint(kind), **more)
    with pytest.raises(ValueError, match=said) as error:
        build_encoder(p, corpus.tokenizer_file)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["frozen", "layers_kept"])
def test_an_encoder_from_scratch_has_nothing_to_freeze(name):
    with pytest.raises(BadParameter, match=f"train.{name}: 2 does not go with model ''"):
        checked(Train, {name: 2})


def test_runs_from_before_are_the_same_runs(corpus):
    """The two parameters are part of a run's identity only where they change something."""
    assert not {"frozen", "layers_kept"} & identity_of(corpus, Train(), None).keys()
    found = identity_of(corpus, asked("a/model", layers_kept=3), None)
    assert (found["frozen"], found["layers_kept"]) == (FROZEN, 3)
    assert "seed" in found and not {"study", "run", "corpus", "chunk"} & found.keys()


# --- the first layers --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_layers_of_a_checkpoint(corpus, checkpoint, tmp_path, kind):
    """As cut by hand, and as what it is saved as."""
    model = checkpoint(kind)
    cut, full = (
        build_encoder(asked(model, frozen=0, layers_kept=n), corpus.tokenizer_file) for n in (2, 0)
    )
    holder = {"mt5": "encoder", "modernbert": ""}.get(kind, "encoder")
    where = getattr(full.model, holder) if holder else full.model
    name = next(n for n in ("layer", "block", "layers") if hasattr(where, n))
    assert len(getattr(where, name)) == LAYERS
    assert not np.allclose(cut.encode(TEXTS, "question"), full.encode(TEXTS, "question"), atol=1e-5)
    setattr(where, name, getattr(where, name)[:2])
    full.model.config.num_hidden_layers = 2
    assert np.array_equal(cut.encode(TEXTS, "question"), full.encode(TEXTS, "question"))
    with store.atomic_folder(tmp_path / "saved") as new:
        save_encoder(cut, new)
    again = load_encoder(tmp_path / "saved")
    assert np.array_equal(cut.encode(TEXTS, "question"), again.encode(TEXTS, "question"))
