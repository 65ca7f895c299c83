"""Poolings by hand, encoders as folders of sentence-transformers there and back, cards."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import (
    Dense,
    Normalize,
    Pooling,
    Transformer,
)
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from lib import store
from lib.encoder import WEIGHTS, Encoder
from lib.params import BadParameter, Train
from lib.study import card
from lib.training.export import save_encoder
from lib.training.models import build_encoder, load_encoder

NAMES = "sol luna mar tierra viento query passage :".split()
TEXTS = ["sol", "luna mar tierra", "viento sol sol luna mar tierra sol mar luna viento sol", ""]
PROMPTS = {"query": "query : ", "document": "passage : "}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A tiny random BERT with a tokenizer that pads on the left."""
    folder = tmp_path_factory.mktemp("bert")
    marks = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    vocabulary = {word: n for n, word in enumerate([*marks.values(), *NAMES])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    own = transformers.PreTrainedTokenizerFast(tokenizer_object=words, padding_side="left", **marks)
    own.save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=20,
        initializer_range=0.7,  # or contexts would hardly matter
    )
    transformers.BertModel(config).save_pretrained(folder)
    return folder


def labse(plain, folder, pooling="cls"):
    """As LaBSE is published, by sentence-transformers itself, with two heads and prompts."""
    torch.manual_seed(1)
    bert = Transformer(str(plain), max_seq_length=9)
    bert.tokenizer.padding_side = "right"
    heads = [
        Dense(8, 6, activation_function=torch.nn.Tanh()),
        Dense(6, 5, bias=False, activation_function=torch.nn.Identity()),
    ]
    chain = [bert, Pooling(8, pooling), *heads, Normalize()]
    theirs = SentenceTransformer(modules=chain, prompts=PROMPTS, device="cpu")
    theirs.save(str(folder))
    return theirs


def close(encoder, theirs):
    """Whether the two give the same vectors of questions and passages."""
    for kind, name in (("question", "query"), ("passage", "document")):
        expected = theirs.encode(TEXTS, prompt_name=name)
        np.testing.assert_allclose(encoder.encode(TEXTS, kind), expected, atol=1e-5)
    assert not np.allclose(encoder.encode(TEXTS, "question"), expected, atol=1e-3)


# Of the states (1, 10), (2, 20), (4, 40): first, last, 7 / 3, (1 + 2 * 2 + 3 * 4) / 6.
BY_HAND = {"cls": 1.0, "lasttoken": 4.0, "mean": 7 / 3, "weightedmean": 17 / 6}


@pytest.mark.parametrize("pooling", BY_HAND)
@pytest.mark.parametrize("side", ["left", "right"])
def test_pooling_by_hand(pooling, side):
    """Whichever side the padding is on, and whatever stands there; as sentence-transformers."""
    real, padding = torch.tensor([[1.0, 10], [2, 20], [4, 40]]), torch.full((2, 2), 99.0)
    mask = [1.0] * 3, [0.0] * 2
    parts = (real, padding) if side == "right" else (padding, real)
    hidden = torch.cat(parts)[None]
    mask = torch.tensor([sum(mask if side == "right" else mask[::-1], [])])
    weight = WEIGHTS[pooling](mask)
    found = (weight / weight.sum())[:, None] @ hidden
    value = BY_HAND[pooling]
    torch.testing.assert_close(found[0, 0], torch.tensor([value, 10 * value]))
    theirs = Pooling(2, pooling)({"token_embeddings": hidden, "attention_mask": mask.long()})
    torch.testing.assert_close(theirs["sentence_embedding"], found[:, 0])


@pytest.mark.parametrize("pooling", BY_HAND)
def test_their_folder_gives_their_vectors_here(plain, tmp_path, pooling):
    """Pooling, both heads, prompts and length are read and applied, with nothing asked for."""
    theirs = labse(plain, tmp_path, pooling)
    encoder = build_encoder(Train(model=str(tmp_path)), None).eval()
    assert encoder.settings.pooling == pooling and encoder.settings.max_length == 9
    assert encoder.width == 5 and len(encoder.dense) == 4
    close(encoder, theirs)
    with pytest.raises(ValueError, match="has pooling .*, train.pooling is"):
        other = next(name for name in BY_HAND if name != pooling)
        build_encoder(Train(model=str(tmp_path), pooling=other), None)


@pytest.mark.parametrize("pooling", BY_HAND)
def test_our_folder_gives_our_vectors_there(plain, tmp_path, pooling):
    """Without heads, of a tokenizer that padded on the left; AutoModel reads the model; and it is
    trained on with all that it is."""
    asked = {"question_prompt": PROMPTS["query"], "passage_prompt": PROMPTS["document"]}
    params = Train(model=str(plain), pooling=pooling, max_length=10, **asked)
    encoder = build_encoder(params, None).eval()
    save_encoder(encoder, tmp_path)
    close(encoder, theirs := SentenceTransformer(str(tmp_path), device="cpu"))
    assert theirs.max_seq_length == 10 and theirs.prompts["passage"] == PROMPTS["document"]
    assert np.allclose(theirs.encode_document(TEXTS), encoder.encode(TEXTS, "passage"), atol=1e-5)
    again = build_encoder(Train(model=str(tmp_path)), None)
    assert again.settings == encoder.settings
    words = transformers.AutoModel.from_pretrained(tmp_path).get_input_embeddings().weight
    assert torch.equal(words, encoder.words.weight)


def test_heads_travel_with_the_encoder(plain, tmp_path):
    """Trained, saved, loaded here to the bit, and there; heads are part of the revision."""
    from lib.bridges.mteb import revision

    labse(plain, tmp_path / "labse")
    encoder = build_encoder(Train(model=str(tmp_path / "labse")), None).eval()
    before, first = encoder.dense[0].weight.clone(), revision(encoder)
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.05)
    encoder(*encoder.padded(encoder.tokenize(TEXTS, "question"))).sum().backward()
    optimizer.step()
    assert not torch.allclose(encoder.dense[0].weight, before, atol=1e-4)
    assert revision(encoder) != first
    save_encoder(encoder, tmp_path / "saved")
    again = load_encoder(tmp_path / "saved")
    assert np.array_equal(again.encode(TEXTS, "question"), encoder.encode(TEXTS, "question"))
    assert [*dict(again.named_parameters())] == [*dict(encoder.named_parameters())]
    close(again, SentenceTransformer(str(tmp_path / "saved"), device="cpu"))
    headless = Encoder(again.model, again.tokenizer, again.settings)
    assert revision(headless) != revision(again)


def test_weights_of_a_head_have_to_fit(plain, tmp_path):
    """In one line."""
    labse(plain, tmp_path)
    file = tmp_path / "2_Dense/config.json"
    file.write_text(json.dumps(store.read_json(file) | {"out_features": 7}))
    with pytest.raises(ValueError, match="2_Dense: its weights do not fit") as caught:
        build_encoder(Train(model=str(tmp_path)), None)
    assert "\n" not in str(caught.value)


# --- cards -------------------------------------------------------------------------------------


@pytest.fixture
def run(plain, tmp_path, monkeypatch):
    """A study with one run that looks trained."""
    monkeypatch.setattr(card.paths, "outputs", lambda: tmp_path)
    folder, encoder = (
        tmp_path / "tiny/runs/seed=0",
        build_encoder(Train(model=str(plain), max_length=9), None),
    )
    with store.atomic_folder(folder / "model", {"identity": {"model": "/a/place"}}) as new:
        save_encoder(encoder, new)
    asked = Train(model="some/bert@" + "ab" * 20, corpus="base", alpha=0.25, steps=7, seed=3)
    store.write_json(folder / "params.json", asked.model_dump() | {"study": "tiny"})
    store.write_json(folder / "provenance.json", {"commit": "c0ffee", "dirty": True})
    data = tmp_path / "tiny/corpus/base/data"
    store.make_folder(data)
    facts = {
        "source": "cldr",
        "version": "1.2",
        "licence": "Unicode",
        "counts": {"rows": {"de": 2, "el": 2}},
    }
    store.write_json(data / "manifest.json", facts)
    return folder


def test_a_card_says_what_the_run_was(run):
    """And that it was not evaluated, until it is."""
    text = card.card("tiny", "seed=0")
    parts = ("- de\n- el\n", "cldr, 1.2", "Unicode", "hybrid, alpha 0.25", "| steps | 7,", "| 3 |")
    place = 'SentenceTransformer("' + str(run / "model") + '")'
    parts += (place, "no prompts", "else as in cross; mono: question and passage in one language")
    for part in (*parts, "c0ffee with changes", "Not evaluated.", "2408.10536", "to 9 tokens"):
        assert part in text, part
    rows = [("mono", g, t) for g, t in zip("ab", (0.5, 0.7), strict=True)]
    table = pd.DataFrame(rows, columns=["setting", "group", "total"]).assign(
        metric="ap", weight=1.0
    )
    with store.atomic_folder(run / "sums") as new:
        table.to_parquet(new / "own.parquet")
    store.write_json(run / "metrics.json", {"benchmarks": {"own": {}}})
    # half = 12.706 * sqrt(2 * 2 * .05 ** 2) = 1.27, so cut off at 0 and 1
    assert "| own | mono | 0.600 | 0.000 to 1.000 |" in card.card("tiny", "seed=0")
    with store.atomic_folder(run / "sums") as new:
        table[:1].to_parquet(new / "own.parquet")
    assert "| own | mono | 0.500 | unknown: one cluster |" in card.card("tiny", "seed=0")
    # a third cluster at the mean: t of 2 degrees, 4.303 * sqrt(2 / 6 * .01 ** 2)
    more = pd.concat([table.assign(total=[0.59, 0.61]), table[:1].assign(group="c", total=0.6)])
    with store.atomic_folder(run / "sums") as new:
        more.to_parquet(new / "own.parquet")
    assert "| own | mono | 0.600 | 0.575 to 0.625 |" in card.card("tiny", "seed=0")
    text = card.card("tiny", "seed=0")
    assert "own: All test questions." in text and "in multi,\nthose of all languages" in text
    with pytest.raises(BadParameter, match="no trained run 'seed=1'"):
        card.card("tiny", "seed=1")


def test_a_push_is_one_private_commit(run, monkeypatch):
    """Of all files but the manifest, which names paths, and of the card; bad names go nowhere."""
    calls = []

    class Hub:
        def create_repo(self, name, **how):
            calls.append((name, how))

        def create_commit(self, name, operations, commit_message):
            calls.append((name, {o.path_in_repo: o.path_or_fileobj for o in operations}))
            return SimpleNamespace(commit_url="address")

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    assert card.push("tiny", "seed=0", "me/it") == "address"
    assert calls[0] == ("me/it", {"private": True, "exist_ok": True})
    name, sent = calls[1]
    assert name == "me/it" and "manifest.json" not in sent
    assert {"modules.json", "1_Pooling/config.json", "model.safetensors", "encoder.json"} < {*sent}
    assert 'SentenceTransformer("me/it")' in sent["README.md"].decode()
    with pytest.raises(BadParameter, match="'it' is no name on the hub"):
        card.push("tiny", "seed=0", "it")
    assert len(calls) == 2
