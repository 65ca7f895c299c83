"""Names of checkpoints: a folder here, or a commit of a model on the Hugging Face hub; and what is
said while one is loaded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

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


@contextmanager
def silent() -> Iterator[None]:
    """No progress bars and load reports of `transformers`: notebooks would keep them."""
    from transformers.utils import logging

    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


@contextmanager
def loading(name: str) -> Iterator[None]:
    """Says in one line what fails."""
    try:
        with silent():
            yield
    except (OSError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise ValueError(f"model {name!r} cannot be loaded: {first}") from error
