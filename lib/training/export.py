"""Encoders on disk, in the layout of sentence-transformers: `SentenceTransformer(folder)` gives the
same vectors, `AutoModel` and `AutoTokenizer` read the model alone, and encoder.json has the rest of
what this study loads it by. Names and keys are the older ones, which all versions read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from lib import store
from lib.checkpoint import silent
from lib.encoder import Encoder, Settings
from lib.training import adapters, maps, pretrained

KEYS = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
    "weightedmean": "pooling_mode_weightedmean_tokens",
}  # of its Pooling


WEIGHTS = "model.safetensors"


def save_encoder(encoder: Encoder, folder: Path) -> None:
    """Write weights (safetensors, the whole vocabulary), tokenizer and settings into `folder`."""
    folder = Path(folder)
    encoder.tokenizer.padding_side = "right"  # as lib.encoder pads; positions count from the left
    with silent():
        encoder.model.save_pretrained(folder, state_dict=adapters.merged(encoder.model))
    encoder.tokenizer.save_pretrained(folder)
    store.write_json(folder / "encoder.json", asdict(encoder.settings))
    _save_settings(encoder.settings, folder)
    _save_modules(encoder, folder)
    maps.save(encoder, folder)


def _save_settings(settings: Settings, folder: Path) -> None:
    length = {"max_seq_length": settings.max_length, "do_lower_case": False}
    store.write_json(folder / "sentence_bert_config.json", length)
    passage = settings.passage_prompt
    prompts = {"query": settings.question_prompt, "document": passage, "passage": passage}
    about = {"prompts": prompts, "default_prompt_name": None, "similarity_fn_name": "cosine"}
    store.write_json(folder / "config_sentence_transformers.json", about)


def _save_modules(encoder: Encoder, folder: Path) -> None:
    """modules.json, and the folders of all modules but the first, which is the model."""
    pairs = list(zip(encoder.dense[::2], encoder.dense[1::2], strict=True))
    kinds = ["Transformer", "Pooling", *["Dense"] * len(pairs), "Normalize"]
    # What no other program has: it stops there, and gives no vectors of another encoder.
    kinds += ["LanguageMaps"] if encoder.maps is not None else []
    paths = ["", *(f"{number}_{kind}" for number, kind in enumerate(kinds) if number)]
    modules = [
        {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for n, (path, kind) in enumerate(zip(paths, kinds, strict=True))
    ]
    store.write_json(folder / "modules.json", modules)
    for path in paths[1:]:
        store.make_folder(folder / path)
    pooling = {key: encoder.settings.pooling == name for name, key in KEYS.items()}
    width = {"word_embedding_dimension": encoder.model.config.hidden_size}
    store.write_json(folder / paths[1] / "config.json", width | pooling)
    for path, (linear, activation) in zip(paths[2:], pairs, strict=False):
        store.write_json(folder / path / "config.json", _dense(linear, activation))
        weights = {f"linear.{n}": p.detach() for n, p in linear.named_parameters()}
        save_file(weights, folder / path / WEIGHTS)


def heads(folders: Sequence[Path]) -> torch.nn.Sequential:
    """Linear, activation, Linear, … of the folders of Dense modules, one after the other."""
    return torch.nn.Sequential(*(layer for folder in folders for layer in _head(folder)))


def _head(folder: Path) -> tuple[torch.nn.Linear, torch.nn.Module]:
    config, weights = store.read_json(folder / "config.json"), load_file(folder / WEIGHTS)
    linear = torch.nn.utils.skip_init(
        torch.nn.Linear, config["in_features"], config["out_features"], config.get("bias", True)
    )
    try:
        linear.load_state_dict({n.removeprefix("linear."): w for n, w in weights.items()})
    except RuntimeError as error:
        raise ValueError(f"{folder}: its weights do not fit ({error})".replace("\n", "")) from None
    return linear, getattr(torch.nn, pretrained.activation(config))()


def _dense(linear: torch.nn.Linear, activation: torch.nn.Module) -> dict:
    kind = type(activation)
    return {
        "in_features": linear.in_features,
        "out_features": linear.out_features,
        "bias": linear.bias is not None,
        "activation_function": f"{kind.__module__}.{kind.__qualname__}",
    }
