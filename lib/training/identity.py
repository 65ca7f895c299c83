"""What makes two runs the same run: all that decides their numbers."""

from __future__ import annotations

from lib import store
from lib.benchmark import Benchmark
from lib.corpus import ParallelCorpus
from lib.encoder import pick_device
from lib.params import Train
from lib.training import objectives, pretrained


def identity_of(corpus: ParallelCorpus, params: Train, dev: Benchmark | None) -> dict:
    """All that decides the numbers of a run, torch build and hardware apart.

    Raises ValueError where validation is asked for and there is nothing to validate on, or an
    objective and there are no translations for it."""
    if params.objective:
        objectives.check(corpus.index, params)
    if params.validate_every and dev is None:
        raise ValueError(
            f"validate_every is {params.validate_every}, but no questions are set aside for "
            "validation: set prepare.dev, or validate_every to 0"
        )
    tokenizer = "" if params.model else store.sha256(corpus.tokenizer_file)
    found = params.of_the_work() | {
        "validation content": "" if dev is None else dev.digest,
        "device": pick_device(params.device),
        "corpus content": corpus.content_hash,
        "tokenizer": tokenizer,
    }
    if params.remote_code:
        found["code"] = pretrained.code_of(pretrained.here(params.model, code=True))
    return found
