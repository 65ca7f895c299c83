"""Checkpoints that are more than weights: what is not applied is named, before torch is needed."""

import json
import subprocess
import sys

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
    (folder / "model.safetensors").write_bytes(b"")
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
    "pooling", [CLS, {"pooling_mode": "cls", "embedding_dimension": 8}, {"pooling_mode": ["cls"]}]
)
def test_cls_pooling_has_to_be_asked_for(tmp_path, pooling):
    """In old and in new words; asked for, it is what the encoder does."""
    model = put(tmp_path / "m", USUAL, pooling=pooling)
    refused(model, "has pooling 'cls', train.pooling is 'mean' (expected 'cls')")
    pretrained.check(Train(model=model, pooling="cls"))


@pytest.mark.parametrize(
    ("pooling", "said"),
    [
        ({"pooling_mode_max_tokens": True}, "pools by max, which is not applied"),
        (MEAN | {"pooling_mode_cls_token": True}, "pools by cls and mean, which is not applied"),
        ({"pooling_mode": ["mean", "max"]}, "pools by mean and max, which"),
        ({"pooling_mode": "lasttoken"}, "pools by lasttoken, which"),
        ({"pooling_mode_mean_sqrt_len_tokens": True}, "pools by mean_sqrt_len, which"),
    ],
)
def test_other_poolings_are_refused(tmp_path, pooling, said):
    """Whatever is asked for."""
    refused(put(tmp_path / "m", USUAL, pooling=pooling), said)


def test_modules_behind_the_pooling_are_refused(tmp_path):
    """As LaBSE has one; modules of other packages too."""
    refused(put(tmp_path / "m", LABSE), "models.Dense (2_Dense), which is not applied here")
    refused(put(tmp_path / "n", USUAL, package="mine."), "has a module mine.Transformer ()")


def test_prompts_have_to_be_asked_for(tmp_path):
    """By sentence-transformers' names for the two sides, or the one that goes before all texts."""
    prompts = {"query": "query: ", "document": "passage: ", "sts": "compare: "}
    model = put(tmp_path / "m", USUAL, config_sentence_transformers={"prompts": prompts})
    refused(model, "has question_prompt 'query: ', train.question_prompt is ''")
    refused(model, "has passage_prompt 'passage: '", question_prompt="query: ")
    right = {"question_prompt": "query: ", "passage_prompt": "passage: "}
    pretrained.check(Train(model=model, **right))
    unpooled = put(tmp_path / "n", USUAL, pooling={"include_prompt": False})
    refused(unpooled, "leaves prompts out of its pooling", **right)
    about = {"prompts": {"all": "text: "}, "default_prompt_name": "all"}
    other = put(tmp_path / "o", USUAL, config_sentence_transformers=about)
    refused(other, "has question_prompt 'text: '")
    only = put(tmp_path / "q", config_sentence_transformers={"prompts": {"sts": "compare: "}})
    pretrained.check(Train(model=only))


def test_what_else_is_not_applied(tmp_path):
    """Lower case, dot products of vectors of any length; a length is the study's own choice."""
    model = put(tmp_path / "m", USUAL, sentence_bert_config={"max_seq_length": 75})
    pretrained.check(Train(model=model, max_length=256))
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
    refused(model, "has question_prompt 'q: '")
    refused(model, "has pooling 'cls'", question_prompt="q: ")
    pretrained.check(Train(model=model, pooling="cls", question_prompt="q: "))


def test_what_a_checkpoint_states(tmp_path):
    """Pooling, prompts and length by sentence-transformers' files, else the tokenizer's length,
    else the model's positions; a pooling that is not applied is left to be refused."""
    about = {"prompts": {"query": "q: ", "document": "d: "}}
    files = {"sentence_bert_config": {"max_seq_length": 75}}
    model = put(tmp_path / "m", USUAL, pooling=CLS, config_sentence_transformers=about, **files)
    prompts = {"question_prompt": "q: ", "passage_prompt": "d: "}
    found = pretrained.stated(tmp_path / "m")
    assert found == {"pooling": "cls", "max_length": 75, **prompts}
    pretrained.check(Train(model=model, **found))
    none = {"pooling": "mean", "question_prompt": "", "passage_prompt": ""}
    config = {"model_type": "xlm-roberta", "max_position_embeddings": 514}
    put(tmp_path / "n", config=config, tokenizer_config={"model_max_length": 10**30})
    assert pretrained.stated(tmp_path / "n") == none | {"max_length": 512}
    put(tmp_path / "o", config=config, tokenizer_config={"model_max_length": 256})
    assert pretrained.stated(tmp_path / "o") == none | {"max_length": 256}
    put(tmp_path / "p", USUAL, pooling={"pooling_mode": "lasttoken"})
    assert pretrained.stated(tmp_path / "p") == none


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
    folder, asked = put(tmp_path / "m", LABSE), []
    fetched = lambda *a, **b: asked.append((a, b)) or folder  # noqa: E731
    monkeypatch.setattr("huggingface_hub.snapshot_download", fetched)
    with pytest.raises(ValueError, match="Dense"):
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
