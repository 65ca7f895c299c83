"""Text to unit vectors: new and loaded encoders, pooling, prompts, order, padding, saving."""

import itertools
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from lib import encoder as encoder_module
from lib import store
from lib.encoder import Encoder, Settings
from lib.params import Train
from lib.training import packing, vocabulary
from lib.training.export import save_encoder
from lib.training.models import build_encoder, load_encoder
from lib.training.packing import chunked, embed
from lib.training.tokenizer import train_tokenizer

WORDS = "sol luna mar tierra viento fuego hielo piedra arbol hoja rio lago nube flor ave".split()
TEXTS = [" ".join(random.Random(i).choices(WORDS, k=1 + i % 9)) for i in range(150)]
SMALL = Train(width=16, heads=2, max_length=24, dropout=0.1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a trained tokenizer and random checkpoints of three families."""
    folder = tmp_path_factory.mktemp("checkpoints")
    words = train_tokenizer(TEXTS, 300)
    words.save(str(folder / "tokenizer.json"))
    size = words.get_vocab_size()
    common = {"vocab_size": size, "pad_token_id": 0}
    bert = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    marks = {"pad_token": "[PAD]", "unk_token": "[UNK]"}
    torch.manual_seed(0)
    save(
        folder / "bert",
        words,
        transformers.BertModel(
            transformers.BertConfig(**common, **bert, max_position_embeddings=40)
        ),
        marks | {"cls_token": "[CLS]", "sep_token": "[SEP]"},
    )
    save(
        folder / "xlm-r",
        words,
        transformers.XLMRobertaModel(
            transformers.XLMRobertaConfig(
                **common | {"pad_token_id": 1}, **bert, max_position_embeddings=42
            )
        ),
        {
            "bos_token": "[CLS]",
            "cls_token": "[CLS]",
            "eos_token": "[SEP]",
            "sep_token": "[SEP]",
            "unk_token": "[MASK]",
            "pad_token": "[UNK]",
        },
    )
    from tokenizers import processors

    words.post_processor = processors.TemplateProcessing(
        single="$A [SEP]", special_tokens=[("[SEP]", 3)]
    )
    save(
        folder / "mt5",
        words,
        transformers.MT5ForConditionalGeneration(
            transformers.MT5Config(
                **common,
                d_model=16,
                d_kv=8,
                d_ff=32,
                num_layers=2,
                num_decoder_layers=1,
                num_heads=2,
                decoder_start_token_id=0,
            )
        ),
        marks | {"eos_token": "[SEP]"},
    )
    save(
        folder / "gpt2",
        words,
        transformers.GPT2Model(
            transformers.GPT2Config(vocab_size=size, n_embd=16, n_layer=1, n_head=2, n_positions=40)
        ),
        marks,
    )
    return folder


def save(folder, words, model, marks):
    """An ordinary checkpoint folder."""
    model.save_pretrained(folder)
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, **marks).save_pretrained(folder)


def loaded(folder, name, **changes):
    """The named checkpoint as an encoder; "" is the small one."""
    model = str(folder / name) if name else ""
    values = SMALL.model_dump() | {"model": model} | changes
    return build_encoder(Train(**values), folder / "tokenizer.json")


FAMILIES = ("", "bert", "xlm-r", "mt5")


@pytest.mark.parametrize("name", FAMILIES)
def test_vectors_equal_plain_transformers(folder, name):
    """Each text alone, through the model's own embedding of token numbers and a plain mean, gives
    the vector that batches, chunks, padding and the shared word look-up give."""
    encoder = loaded(folder, name).eval()
    vectors = embed(encoder, encoder.tokenize(TEXTS, "question"))
    model, found = encoder.model, []
    for ids in encoder.tokenize(TEXTS, "question"):
        hidden = model(input_ids=torch.from_numpy(ids.astype(np.int64))[None]).last_hidden_state
        found.append(torch.nn.functional.normalize(hidden[0].mean(0), dim=0))
    assert torch.allclose(vectors, torch.stack(found), atol=2e-6)
    assert torch.allclose(vectors.norm(dim=1), torch.ones(len(TEXTS)), atol=1e-6)
    assert vectors.dtype == torch.float32


@pytest.mark.parametrize("name", ["", "mt5"])
def test_gradient_equals_that_of_texts_alone(folder, name):
    """The sum of single-text gradients, also for the embedding table looked up once a batch."""
    encoder, texts = loaded(folder, name).eval(), TEXTS[:70]
    weight = torch.randn(70, encoder.width, generator=torch.Generator().manual_seed(1))
    tokens = encoder.tokenize(texts, "question")
    (embed(encoder, tokens) * weight).sum().backward()
    batched = {n: p.grad.clone() for n, p in encoder.named_parameters()}
    encoder.zero_grad()
    for ids, own in zip(tokens, weight, strict=True):
        ids = torch.from_numpy(ids.astype(np.int64))[None]
        (encoder(ids, torch.ones_like(ids)) * own).sum().backward()
    for n, p in encoder.named_parameters():
        assert torch.allclose(batched[n], p.grad, atol=1e-4, rtol=1e-4), n


def price(chunks, each):
    """Token places of padded chunks, and a charge for each."""
    return sum(len(chunk) * max(chunk) + each for chunk in chunks)


@pytest.mark.parametrize("charge", [0.01, 0.05, 0.3])
def test_chunks_are_the_cheapest(charge):
    """No cutting of the sorted texts has less padding and charge; every text is in one chunk."""
    for seed in range(20):
        length = np.random.default_rng(seed).integers(1, 30, size=9)
        ordered, each = np.sort(length), charge * length.sum()
        cheapest = min(
            price(np.split(ordered, cuts), each)
            for n in range(9)
            for cuts in itertools.combinations(range(1, 9), n)
        )
        found = chunked(length, each, np.inf)
        assert price([length[chunk] for chunk in found], each) == pytest.approx(cheapest)
        assert sorted(np.concatenate(found)) == list(range(9))


@given(st.lists(st.integers(1, 300), min_size=1, max_size=200), st.sampled_from([0, 0.02, 0.1]))
def test_padding_is_bounded(lengths, bound):
    """Whatever the lengths, and down to none at all; shorter texts come first."""
    length = np.array(lengths)
    chunks = [length[chunk] for chunk in chunked(length, 0.04 * length.sum(), bound)]
    assert price(chunks, 0) <= (1 + bound) * length.sum()
    assert np.array_equal(np.concatenate(chunks), np.sort(length))


@pytest.mark.parametrize("name", ["", "xlm-r"])
def test_lengths_in_multiples_give_the_same_vectors(folder, name, monkeypatch):
    """As a GPU has them; but never more places than the model has positions."""
    encoder = loaded(folder, name).eval()
    tokens = encoder.tokenize([*TEXTS[:30], max(TEXTS, key=len)], "question")
    length = np.array([len(x) for x in tokens])
    expected, before = embed(encoder, tokens), packing.places(encoder, length, 0)
    monkeypatch.setitem(encoder_module.MULTIPLE, "cpu", 8)
    assert torch.allclose(embed(encoder, tokens), expected, atol=1e-6)
    assert packing.places(encoder, length, 0) > before
    monkeypatch.setitem(encoder_module.MULTIPLE, "cpu", 1000)
    assert torch.allclose(embed(encoder, tokens), expected, atol=1e-6)


@pytest.mark.parametrize("name", ["", "bert", "xlm-r"])
def test_masks_made_here_give_the_same_vectors(folder, name, monkeypatch):
    """To the bit, gradients too, whether lengths differ or not."""
    encoder, found = loaded(folder, name).eval(), []
    tokens = encoder.tokenize(TEXTS[:30], "question")
    for types in ((), encoder_module.MASKED):
        monkeypatch.setattr(encoder_module, "MASKED", types)
        encoder.zero_grad()
        vectors = torch.cat([embed(encoder, tokens), embed(encoder, tokens[:1] * 9)])
        vectors.pow(3).sum().backward()
        found.append([vectors, *(p.grad for p in encoder.parameters())])
    assert encoder.model.config.model_type in types
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_few_chunks_where_lengths_are_alike():
    """The bound alone would be kept by a chunk for each length."""
    length = np.repeat([20, 21, 22, 40, 41], 50)
    assert len(chunked(length, 0.04 * length.sum(), 0.1)) == 2
    assert len(chunked(np.full(64, 30), 0.04 * 64 * 30, 0.1)) == 1


def test_weights_follow_from_the_seed_alone(folder):
    """Whatever ran before; and nobody's random numbers change."""
    torch.manual_seed(1)
    first = loaded(folder, "")
    torch.manual_seed(2)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    again, other = loaded(folder, ""), loaded(folder, "", seed=1)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()
    assert np.array_equal(before[2], np.random.get_state()[1])
    table = "model.embeddings.word_embeddings.weight"
    for name, p in first.named_parameters():
        assert torch.equal(p, again.get_parameter(name))
    assert not torch.equal(first.get_parameter(table), other.get_parameter(table))


def test_cls_pooling_is_the_first_token(folder):
    """And differs from the mean."""
    encoder = loaded(folder, "xlm-r", pooling="cls").eval()
    ids = torch.from_numpy(encoder.tokenize(TEXTS[5:6], "question")[0].astype(np.int64))[None]
    hidden = encoder.model(input_ids=ids).last_hidden_state[:, 0]
    expected = torch.nn.functional.normalize(hidden, dim=-1)
    assert torch.allclose(encoder(ids, torch.ones_like(ids)), expected, atol=1e-6)
    mean = loaded(folder, "xlm-r").eval()
    assert not torch.allclose(mean(ids, torch.ones_like(ids)), expected, atol=1e-2)


def test_prompts_and_truncation(folder):
    """A prompt is put before each text of its kind; cut texts keep their end token and count."""
    plain = loaded(folder, "")
    encoder = loaded(folder, "", question_prompt="luna ", passage_prompt="mar ", max_length=6)
    longest = max(TEXTS, key=len)
    for kind, prompt in (("question", "luna "), ("passage", "mar ")):
        own, cut = encoder.tokenize(["sol", longest], kind)
        assert np.array_equal(own, plain.tokenize([prompt + "sol"], kind)[0])
        assert own.dtype == np.int32
        assert len(cut) == 6 and cut[0] == 2 and cut[-1] == 3
    assert encoder.truncated == 2
    assert plain.truncated == 0


def test_encode_keeps_order_and_bits(folder):
    """Same call, same bits, in the order given; close to other batch sizes; dropout is off, and
    the encoder is left in the mode it was in."""
    encoder = loaded(folder, "").train()
    vectors = encoder.encode(TEXTS, "question", batch_size=32)
    assert vectors.dtype == np.float32 and vectors.shape == (150, 16)
    assert np.array_equal(vectors, encoder.encode(TEXTS, "question", batch_size=32))
    assert np.allclose(vectors, encoder.encode(TEXTS, "question", batch_size=7), atol=2e-6)
    backwards = encoder.encode(TEXTS[::-1], "question", batch_size=32)[::-1]
    assert np.allclose(vectors, backwards, atol=2e-6)
    assert encoder.training
    assert encoder.encode([], "passage").shape == (0, 16)
    dropped = embed(encoder, encoder.tokenize(TEXTS, "question")).detach().numpy()
    assert not np.allclose(vectors, dropped, atol=1e-2)


@pytest.mark.parametrize("name", FAMILIES)
def test_saved_and_loaded_gives_the_same_bits(folder, tmp_path, name):
    """With prompts and pooling, from safetensors only."""
    encoder = loaded(folder, name, question_prompt="luna ", passage_prompt="mar ")
    save_encoder(encoder, tmp_path)
    again = load_encoder(tmp_path)
    assert again.settings == encoder.settings
    for kind in ("question", "passage"):
        assert np.array_equal(encoder.encode(TEXTS, kind), again.encode(TEXTS, kind))
    assert (tmp_path / "model.safetensors").is_file()
    assert not list(tmp_path.glob("*.bin"))


@pytest.mark.parametrize("name", ["", "xlm-r"])
def test_saved_folder_is_a_plain_checkpoint(folder, tmp_path, name):
    """AutoModel and AutoTokenizer alone, with padding by the book, give the same vectors."""
    encoder = loaded(folder, name)
    save_encoder(encoder, tmp_path)
    model = transformers.AutoModel.from_pretrained(tmp_path).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    batch = tokenizer(TEXTS[:9], padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None]
    mean = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
    assert np.allclose(mean.numpy(), encoder.encode(TEXTS[:9], "question"), atol=2e-6)


def test_loaded_checkpoint_is_lean_and_float32(folder, tmp_path):
    """The pooler and a decoder are dropped, and halves are widened before training."""
    assert not [n for n, _ in loaded(folder, "bert").named_parameters() if "pooler" in n]
    assert not [n for n, _ in loaded(folder, "mt5").named_parameters() if "decoder" in n]
    half = transformers.AutoModel.from_pretrained(folder / "bert", dtype=torch.bfloat16)
    half.save_pretrained(tmp_path)
    transformers.AutoTokenizer.from_pretrained(folder / "bert").save_pretrained(tmp_path)
    wide = build_encoder(Train(model=str(tmp_path), max_length=24), None)
    assert {p.dtype for p in wide.parameters()} == {torch.float32}


def test_padding_of_a_downloaded_tokenizer_is_undone(folder, tmp_path):
    """Some checkpoints store a fixed padding or truncation in their tokenizer."""
    words = loaded(folder, "").tokenizer.backend_tokenizer
    words.enable_padding(length=30)
    words.enable_truncation(5)
    words.save(str(tmp_path / "tokenizer.json"))
    encoder = build_encoder(SMALL, tmp_path / "tokenizer.json")
    plain = loaded(folder, "")
    for a, b in zip(
        encoder.tokenize(TEXTS, "passage"), plain.tokenize(TEXTS, "passage"), strict=True
    ):
        assert np.array_equal(a, b)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("gpt2", {}, "is of type gpt2, expected an encoder"),
        ("mt5", {"pooling": "cls"}, "begins texts with its CLS token"),
        ("bert", {"max_length": 41}, "expected more than 2 .* and at most 40"),
        ("xlm-r", {"max_length": 41}, "expected more than 2 .* and at most 40"),
        ("missing", {}, "is no folder here, .* owner/name@commit"),
        ("bert/config.json", {}, "is a file \\(expected the folder of a checkpoint"),
        (
            "pickled",
            {},
            "weights as pickle are not read",
        ),
        ("empty", {}, "has no config.json"),
        ("bare", {}, r"has no \*.safetensors"),
    ],
)
def test_unsuitable_checkpoints_are_refused(folder, name, changes, message):
    """In one line each, with nothing downloaded or unpickled."""
    (folder / "empty").mkdir(exist_ok=True)
    (folder / "bare").mkdir(exist_ok=True)
    (folder / "bare/config.json").write_text("{}")
    if name == "pickled" and not (folder / name).exists():
        save(
            folder / name,
            loaded(folder, "").tokenizer.backend_tokenizer,
            transformers.BertModel(loaded(folder, "").model.config),
            {"pad_token": "[PAD]"},
        )
        (folder / name / "model.safetensors").unlink()
        torch.save({}, folder / name / "pytorch_model.bin")
    with pytest.raises(ValueError, match=message) as caught:
        loaded(folder, name, **changes)
    assert "\n" not in str(caught.value)


def test_missing_weights_are_refused_and_loading_is_silent(folder, tmp_path, capfd, caplog):
    """A checkpoint must hold all that is used; random stand-ins for the rest go unmentioned."""
    from safetensors.torch import load_file, save_file

    loaded(folder, "bert"), loaded(folder, "mt5")
    weights = load_file(folder / "bert" / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"], weights["pooler.dense.weight"]
    for file in (folder / "bert").glob("*.json"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="lacks weights, encoder.layer.1.output.dense.weight"):
        build_encoder(Train(model=str(tmp_path)), None)
    assert not any(capfd.readouterr()) and not caplog.records


def test_altered_encoder_is_refused(folder, tmp_path):
    """A folder with a manifest is compared with it."""
    with store.atomic_folder(tmp_path / "model") as new:
        save_encoder(loaded(folder, ""), new)
    load_encoder(tmp_path / "model")
    with (tmp_path / "model" / "encoder.json").open("a") as file:
        file.write(" ")
    with pytest.raises(store.Damaged, match="encoder.json"):
        load_encoder(tmp_path / "model")


def test_unsuitable_tokenizers_and_folders_are_refused(folder, tmp_path):
    """A missing file, one without BERT's tokens, a folder that is no encoder, an unknown kind."""
    from tokenizers import Tokenizer, models

    with pytest.raises(ValueError, match="there is no tokenizer"):
        build_encoder(SMALL, tmp_path / "tokenizer.json")
    Tokenizer(models.BPE()).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match=r"has no token \[PAD\]"):
        build_encoder(SMALL, tmp_path / "tokenizer.json")
    with pytest.raises(ValueError, match="holds no saved encoder"):
        load_encoder(folder / "bert")
    with pytest.raises(ValueError, match="expected 'question' or 'passage'"):
        loaded(folder, "").encode(["sol"], "answer")
    slow = SimpleNamespace()
    with pytest.raises(ValueError, match="expected a fast tokenizer"):
        Encoder(loaded(folder, "").model, slow, Settings())


# --- only the word vectors that texts use --------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_used_words_give_the_same_vectors_and_gradients(folder, name, tmp_path):
    """In place of the whole table, and once it is back, in the files that `save` writes too."""
    encoder = loaded(folder, name, dropout=0.0).eval()
    tokens = encoder.tokenize(TEXTS[:20], "question")
    used = np.unique(np.concatenate(tokens))
    before = encoder.model.get_input_embeddings().weight.detach().clone()
    expected = embed(encoder, tokens)
    expected.pow(3).sum().backward()
    gradient = encoder.model.get_input_embeddings().weight.grad
    names = [name for name, _ in encoder.named_parameters()]
    vocabulary.train_only(encoder, used)
    encoder.zero_grad()
    assert [name for name, _ in encoder.named_parameters()] == names
    vectors = embed(encoder, tokens)
    vectors.pow(3).sum().backward()
    table = encoder.model.get_input_embeddings()
    assert torch.equal(vectors, expected)
    assert table.weight.shape[0] == len(used) < len(before)
    assert torch.equal(table.weight.grad, gradient[used])
    with torch.no_grad():
        table.weight.add_(1)
    vocabulary.restore(encoder, 0.5)
    whole = before * 0.5
    whole[used] = before[used] + 1
    assert torch.equal(encoder.model.get_input_embeddings().weight, whole)
    assert [name for name, _ in encoder.named_parameters()] == names
    save_encoder(encoder, tmp_path)
    again = load_encoder(tmp_path)
    assert torch.equal(again.model.get_input_embeddings().weight, whole)
    assert np.array_equal(again.encode(TEXTS, "question"), encoder.encode(TEXTS, "question"))


def test_unused_word_is_no_other_word(folder):
    """Looking up what was left out fails instead of giving some row."""
    encoder = loaded(folder, "bert")
    vocabulary.train_only(encoder, np.arange(20))
    with pytest.raises(IndexError):
        embed(encoder, [np.array([2, 25, 3])])


def test_word_tables_that_scale_stay_whole(folder):
    """Theirs is another function of the rows."""
    encoder = loaded(folder, "bert")

    class Scaled(torch.nn.Embedding):
        """As Gemma has it."""

    scaled = Scaled(300, 16)
    encoder.model.set_input_embeddings(scaled)
    vocabulary.train_only(encoder, np.arange(20))
    vocabulary.restore(encoder, 0.5)
    assert encoder.model.get_input_embeddings() is scaled and scaled.weight.shape == (300, 16)
