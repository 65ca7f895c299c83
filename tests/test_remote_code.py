"""Checkpoints with code of their own: refused, and run where the study says so."""

import json
import sys

import numpy as np
import pytest
import torch
import transformers
from transformers import dynamic_module_utils

from lib import store
from lib.params import BadParameter, Train, checked
from lib.study import compare
from lib.trainer import train
from lib.training import pretrained
from lib.training.models import build_encoder, load_encoder

CODE = """
from transformers import BertConfig, BertModel

class MineConfig(BertConfig):
    model_type = "mine"

class Mine(BertModel):
    config_class = MineConfig

    def forward(self, *args, **kwargs):
        found = super().forward(*args, **kwargs)
        found["last_hidden_state"] = found.last_hidden_state.roll(1, -1)
        return found
"""
OWN = {"AutoConfig": "modeling_mine.MineConfig", "AutoModel": "modeling_mine.Mine"}
TEXTS = ["aaaa bbbb", "x", "one two three"]


@pytest.fixture(autouse=True)
def modules(tmp_path, monkeypatch):
    """Where transformers keeps code that it runs, of the test alone."""
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])


@pytest.fixture
def model(corpus, tmp_path):
    """A BERT whose own code turns its states by one place."""
    folder = tmp_path / "mine"
    words = build_encoder(Train(width=16, layers=1), corpus.tokenizer_file).tokenizer
    words.save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=40, pad_token_id=words.pad_token_id,
    )  # fmt: skip
    torch.manual_seed(1)
    transformers.BertModel(config).save_pretrained(folder)
    set_(folder / "config.json", model_type="mine", architectures=["Mine"], auto_map=OWN)
    (folder / "modeling_mine.py").write_text(CODE)
    return folder


def set_(file, **values):
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def asked(model, **more):
    values = {"model": str(model), "remote_code": True, "max_length": 16, "steps": 3}
    return Train(**values | {"batch_size": 8, "temperature": 0.1, "log_every": 1} | more)


def refused(call, *parts):
    with pytest.raises(ValueError) as caught:
        call()
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value), caught.value


def test_it_is_refused_in_a_line_that_names_the_parameter(model):
    """Before the first stage, and before anything of it is loaded."""
    p = asked(model, remote_code=False)
    for call in (lambda: pretrained.check(p), lambda: build_encoder(p, None)):
        refused(call, "brings code of its own (auto_map in config.json)", "train.remote_code: true")
    assert "modeling_mine" not in " ".join(sys.modules)


def test_what_is_never_run(model, tmp_path):
    """Code of another checkpoint, a tokenizer's; and without a checkpoint there is none."""
    set_(model / "config.json", auto_map=OWN | {"AutoModel": "other/name--modeling_mine.Mine"})
    refused(lambda: pretrained.check(asked(model)), "code of another checkpoint")
    set_(model / "config.json", auto_map=OWN)
    set_(model / "tokenizer_config.json", auto_map={"AutoTokenizer": ["words.Words", None]})
    refused(lambda: build_encoder(asked(model), None), "auto_map in tokenizer_config.json")
    with pytest.raises(BadParameter, match="^train.remote_code: True does not go with model ''"):
        checked(Train, {"remote_code": True})


def test_it_is_run_recorded_and_saved(corpus, model, tmp_path):
    """Vectors are turned by one place, also those of the saved run, which has the code beside it
    and its hash in its identity; other code is another run."""
    encoder = build_encoder(asked(model), None)
    set_(model / "config.json", model_type="bert", auto_map={})
    plain = build_encoder(asked(model, remote_code=False), None)
    set_(model / "config.json", model_type="mine", auto_map=OWN)
    vectors = encoder.encode(TEXTS, "question")
    np.testing.assert_allclose(vectors, np.roll(plain.encode(TEXTS, "question"), 1, 1), atol=1e-6)
    done = train(corpus, asked(model), tmp_path / "run")
    assert not np.allclose(done.encoder.encode(TEXTS, "question"), vectors, atol=1e-4)
    assert type(done.encoder.model).__name__ == "Mine"
    manifest = store.read_json(tmp_path / "run/model/manifest.json")
    assert "modeling_mine.py" in manifest["files"]
    hashed = store.digest({"modeling_mine.py": store.sha256(model / "modeling_mine.py")})
    assert manifest["identity"]["code"] == hashed and manifest["identity"]["remote_code"]
    (model / "modeling_mine.py").write_text(CODE.replace("roll(1", "roll(2"))
    refused(lambda: train(corpus, asked(model), tmp_path / "run"), "code")


def test_a_folder_from_elsewhere_does_not_decide_it(corpus, model, tmp_path):
    """A run that says of itself that its code may be run is compared by nobody, and altered code is
    not what was saved."""
    train(corpus, asked(model, steps=1), tmp_path / "run")
    saved = tmp_path / "run/model"
    refused(lambda: load_encoder(saved, code=False), "brings code of its own")
    refused(lambda: compare.Named("run", saved).load(), "brings code of its own")
    with open(saved / "modeling_mine.py", "a") as file:
        file.write("# altered")
    with pytest.raises(store.Damaged, match="modeling_mine.py"):
        load_encoder(saved)
