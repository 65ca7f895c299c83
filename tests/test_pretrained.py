"""Checkpoints that are more than weights: what is not applied is named, before torch is needed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lib import store
from lib.params import Train
from lib.training import models, pretrained

OLD = "sentence_transformers.models."
NEW = "sentence_transformers.sentence_transformer.modules."
LABSE = ["Transformer", "Pooling", "Dense", "Normalize"]
USUAL = ["Transformer", "Pooling", "Normalize"]


def put(folder, kinds=(), package=OLD, pooling=None, **files):
    """A folder that looks like a checkpoint; files: the content of its JSON files."""
    folder.mkdir(exist_ok=True)
    for name in ("model.safetensors", "tokenizer.json"):
        (folder / name).write_bytes(b"")
    files = {"config": {"model_type": "bert"}} | files
    paths = ["", *(f"{number}_{kind}" for number, kind in enumerate(kinds))][1:]
    if kinds:
        files["modules"] = [
            {"idx": n, "name": str(n), "path": "" if n == 0 else path, "type": package + kind}
            for n, (kind, path) in enumerate(zip(kinds, paths, strict=True))
        ]
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    for path in paths[1:]:
        (folder / path).mkdir()
    if "Pooling" in kinds:
        (folder / "1_Pooling/config.json").write_text(json.dumps(pooling or {}))
    return str(folder)


def refused(model, *parts, **asked):
    """One line, with all parts; `asked` are parameters beside the model."""
    with pytest.raises(ValueError) as caught:
        pretrained.check(Train(model=model, **asked))
    message = str(caught.value)
    assert "\n" not in message
    for part in (repr(model), *parts):
        assert part in message, message


def applied(model, **asked):
    """Settings by name."""
    found = pretrained.own(Path(model), model)
    return pretrained.applied(found, Train(model=model, **asked))


MEAN = {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
CLS = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}


@pytest.mark.parametrize("pooling", [None, MEAN, {"pooling_mode": "mean", "include_prompt": True}])
@pytest.mark.parametrize("package", [OLD, NEW])
def test_what_the_encoder_does_is_accepted(tmp_path, package, pooling):
    """A mean, normalised or not, no prompts, a limit that is kept; and no modules at all."""
    reads = {"max_seq_length": 128, "do_lower_case": False}
    about = {"prompts": {"query": "", "document": ""}, "similarity_fn_name": None}
    files = {"sentence_bert_config": reads, "config_sentence_transformers": about}
    pretrained.check(Train(model=put(tmp_path / "a", USUAL, package, pooling, **files)))
    pretrained.check(Train(model=put(tmp_path / "b", USUAL[:2], package, pooling)))
    pretrained.check(Train(model=put(tmp_path / "c")))


@pytest.mark.parametrize(
    ("pooling", "name"),
    [
        (CLS, "cls"),
        ({"pooling_mode": "cls", "embedding_dimension": 8}, "cls"),
        ({"pooling_mode": ["cls"]}, "cls"),
        ({"pooling_mode_lasttoken": True}, "lasttoken"),
        ({"pooling_mode": "weightedmean"}, "weightedmean"),
        ({"pooling_mode_weightedmean_tokens": True}, "weightedmean"),
    ],
)
def test_pooling_is_the_checkpoints_own(tmp_path, pooling, name):
    """In old and in new words, unless another is asked for."""
    model = put(tmp_path / "m", USUAL, pooling=pooling)
    assert applied(model)["pooling"] == applied(model, pooling=name)["pooling"] == name
    refused(
        model, f"has pooling {name!r}, train.pooling is 'mean' (expected {name!r}", pooling="mean"
    )


@pytest.mark.parametrize(
    ("pooling", "said"),
    [
        ({"pooling_mode_max_tokens": True}, "pools by max, which is not applied"),
        (MEAN | {"pooling_mode_cls_token": True}, "pools by cls and mean, which is not applied"),
        ({"pooling_mode": ["mean", "max"]}, "pools by mean and max, which"),
        ({"pooling_mode_mean_sqrt_len_tokens": True}, "pools by mean_sqrt_len, which"),
    ],
)
def test_other_poolings_are_refused(tmp_path, pooling, said):
    """Whatever is asked for."""
    refused(put(tmp_path / "m", USUAL, pooling=pooling), said)


TANH = {
    "in_features": 8,
    "out_features": 8,
    "activation_function": "torch.nn.modules.activation.Tanh",
}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"activation_function": "mine.Tanh"}, "an activation mine.Tanh in its 2_Dense, which"),
        ({"activation_function": "torch.nn.modules.rnn.LSTM"}, "LSTM in its 2_Dense, which"),
        ({"use_residual": True}, "adds what goes into its 2_Dense to what comes out, which"),
        ({"module_input_name": "token_embeddings"}, "its 2_Dense at token_embeddings, not at"),
    ],
)
def test_heads_that_are_not_applied_are_refused(tmp_path, change, said):
    """A matrix, a bias and a known activation are; weights in pickle are not read."""
    model = put(tmp_path / "m", LABSE)
    config, weights = (tmp_path / "m/2_Dense" / n for n in ("config.json", "model.safetensors"))
    config.write_text(json.dumps(TANH))
    refused(model, "its 2_Dense has no model.safetensors (weights as pickle are not read)")
    weights.write_bytes(b"")
    assert pretrained.own(tmp_path / "m", model).dense == (tmp_path / "m/2_Dense",)
    config.write_text(json.dumps(TANH | change))
    refused(model, said)


def test_other_modules_are_refused(tmp_path):
    """Of other packages, and in another order."""
    refused(put(tmp_path / "n", USUAL, package="mine."), "has a module mine.Transformer ()")
    refused(put(tmp_path / "o", ["Transformer", "LSTM"]), "models.LSTM (1_LSTM), which is not")
    order = ["Transformer", "Pooling", "Normalize", "Normalize"]
    refused(put(tmp_path / "q", order), "in the order Transformer, Pooling, Normalize, Normalize")


def test_prompts_are_the_checkpoints_own(tmp_path):
    """By sentence-transformers' names for the two sides, or the one that goes before all texts."""
    prompts = {"query": "query: ", "document": "passage: ", "sts": "compare: "}
    model = put(tmp_path / "m", USUAL, config_sentence_transformers={"prompts": prompts})
    right = {"question_prompt": "query: ", "passage_prompt": "passage: "}
    assert applied(model).items() >= right.items()
    assert applied(model, **right) == applied(model)
    refused(model, "has passage_prompt 'passage: '", passage_prompt="text: ")
    assert applied(model, passage_prompt="none").items() >= (right | {"passage_prompt": ""}).items()
    prompted = {"pooling": {"include_prompt": False}}
    unpooled = put(
        tmp_path / "n", USUAL, config_sentence_transformers={"prompts": prompts}, **prompted
    )
    refused(unpooled, "leaves prompts out of its pooling")
    about = {"prompts": {"all": "text: "}, "default_prompt_name": "all"}
    other = put(tmp_path / "o", USUAL, config_sentence_transformers=about)
    assert (
        applied(other).items() >= {"question_prompt": "text: ", "passage_prompt": "text: "}.items()
    )
    only = put(tmp_path / "q", config_sentence_transformers={"prompts": {"sts": "compare: "}})
    assert applied(only, question_prompt="ask: ")["question_prompt"] == "ask: "


def test_the_length_is_the_checkpoints_own_or_the_studys_choice(tmp_path):
    """Where neither says it, 128."""
    reads = put(tmp_path / "m", USUAL, sentence_bert_config={"max_seq_length": 75})
    newer = put(tmp_path / "n", USUAL, tokenizer_config={"model_max_length": 33})
    endless = put(tmp_path / "o", USUAL, tokenizer_config={"model_max_length": 10**30})
    assert [applied(m)["max_length"] for m in (reads, newer, endless)] == [75, 33, 128]
    assert applied(reads, max_length=256)["max_length"] == 256


def test_what_else_is_not_applied(tmp_path):
    """Lower case, dot products of vectors of any length, vectors cut short."""
    cut = put(tmp_path / "m", USUAL, config_sentence_transformers={"truncate_dim": 4})
    refused(cut, "cuts vectors to 4 numbers, which")
    other = {"config_sentence_transformers": {"model_type": "CrossEncoder"}}
    refused(put(tmp_path / "s", USUAL[:1], **other), "is a CrossEncoder, which is not applied")
    lower = put(tmp_path / "n", USUAL, sentence_bert_config={"do_lower_case": True})
    refused(lower, "puts texts in lower case, which is not applied")
    (tmp_path / "n/tokenizer_config.json").write_text('{"do_lower_case": true}')
    pretrained.check(Train(model=lower))
    dot = {"config_sentence_transformers": {"similarity_fn_name": "dot"}}
    refused(put(tmp_path / "o", USUAL[:2], **dot), "compares vectors by dot and not by cosine")
    pretrained.check(Train(model=put(tmp_path / "q", USUAL, **dot)))


def test_an_encoder_of_this_project_is_trained_on_as_it_is(tmp_path):
    """Its encoder.json says how its texts were read."""
    own = {"pooling": "cls", "question_prompt": "q: ", "passage_prompt": "", "max_length": 64}
    model = put(tmp_path / "m", encoder=own)
    assert applied(model) == own
    refused(model, "has question_prompt 'q: '", question_prompt="x: ")
    refused(model, "has pooling 'cls'", pooling="mean")


def test_what_length_a_checkpoint_is_made_for(tmp_path):
    """By sentence-transformers' files, else the tokenizer's length, else the model's positions."""
    config = {"model_type": "xlm-roberta", "max_position_embeddings": 514}
    for name, expected, files in (
        ("m", 75, {"sentence_bert_config": {"max_seq_length": 75}}),
        ("n", 512, {"tokenizer_config": {"model_max_length": 10**30}}),
        ("o", 256, {"tokenizer_config": {"model_max_length": 256}}),
    ):
        put(tmp_path / name, config=config, **files)
        assert pretrained.longest(tmp_path / name) == expected
    put(tmp_path / "p")
    assert pretrained.longest(tmp_path / "p") == 0


STRANGE = {
    "modules": [{"idx": 0}],
    "config_sentence_transformers": [1],
    "sentence_bert_config": ["x"],
    "encoder": {"max_length": 3},
}


@pytest.mark.parametrize("name", STRANGE)
def test_settings_of_another_kind_are_refused(tmp_path, name):
    """In one line, whatever they are."""
    model = put(tmp_path / "m", USUAL)
    (tmp_path / "m" / f"{name}.json").write_text(json.dumps(STRANGE[name]))
    refused(model, "its settings are damaged")


def test_damaged_settings_are_refused(tmp_path):
    """By name."""
    model = put(tmp_path / "m", USUAL)
    (tmp_path / "m/modules.json").write_text("[")
    with pytest.raises(ValueError, match="modules.json: is not readable as JSON"):
        pretrained.check(Train(model=model))


def test_a_checkpoint_of_the_hub_is_looked_at_before_it_is_loaded(tmp_path, monkeypatch):
    """Of the hub's files those that say it are fetched first."""
    folder, asked = put(tmp_path / "m", ["Transformer", "CNN"]), []
    fetched = lambda *a, **b: asked.append((a, b)) or folder  # noqa: E731
    monkeypatch.setattr("huggingface_hub.snapshot_download", fetched)
    with pytest.raises(ValueError, match="CNN"):
        models.build_encoder(Train(model=f"some/labse@{'ab' * 20}"), None)
    [(names, about)] = asked
    assert names == ("some/labse",) and about["revision"] == "ab" * 20
    assert about["allow_patterns"] == pretrained.FILES


def test_no_torch_is_needed():
    """A study is checked in a second."""
    code = "import sys, lib.training.pretrained; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=store.ROOT, capture_output=True, text=True
    )
    assert done.stdout == "False\n", done.stderr
