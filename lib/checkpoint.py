"""Names of checkpoints: a folder here, or a commit of a model on the Hugging Face hub."""

from __future__ import annotations

import re

from lib.store import ROOT

# Files that a tokenizer is read from: without any, `transformers` makes some without words.
TOKENIZERS = ("tokenizer.json", "*.model", "*.spm", "vocab.txt", "vocab.json", "tekken.json")
COMMIT = re.compile(r"[0-9a-f]{40}")


def checkpoint_source(name: str) -> dict[str, str]:
    """Arguments of from_pretrained for a folder (relative to the project) or owner/name@commit.

    A branch or a tag is no name: what it stands for changes. Raises ValueError in one line, also
    for a folder without model or tokenizer; needs no torch: it is asked before anything runs."""
    folder, where = ROOT / name, f"model {name!r}"
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ValueError(f"{where} has no config.json (expected a checkpoint of transformers)")
        if not any(folder.glob("*.safetensors")):
            what = "no *.safetensors (weights as pickle are not read)"
            raise ValueError(f"{where} has {what}, expected what save_pretrained writes")
        if not any(file for kind in TOKENIZERS for file in folder.glob(kind)):
            what = "tokenizer.json, or the vocabulary that one is made from"
            raise ValueError(f"{where} has no tokenizer (expected {what})")
        return {"pretrained_model_name_or_path": str(folder)}
    if folder.is_file():
        raise ValueError(f"{where} is a file (expected the folder of a checkpoint)")
    hub, _, revision = name.partition("@")
    if not COMMIT.fullmatch(revision):
        raise ValueError(
            f"{where} is no folder here, expected one, or a model of the Hugging Face hub with the "
            "commit to use, 40 hex digits: owner/name@commit"
        )
    return {"pretrained_model_name_or_path": hub, "revision": revision}
