"""What a finished run leaves beside its encoder: log, validations, exposure, cost, provenance."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from lib import store
from lib.encoder import Encoder
from lib.params import Train
from lib.sampler import Schedule
from lib.training import budgets, cost, objectives, quantised, ranks
from lib.training.checkpoints import State
from lib.training.cost import Cost
from lib.training.exposure import exposure, places_and_tokens
from lib.training.models import load_encoder
from lib.training.provenance import provenance
from lib.training.tokens import SIDES, Tokens

FILES = (
    "train_log.parquet", "train_time.parquet", "validation.json", "exposure.json", "cost.json",
    "provenance.json",
)  # fmt: skip


@dataclass(frozen=True)
class TrainResult:
    """A finished run, read from its folder.

    log         one row a step: LogRow's columns, `seconds` among them
    validation  step, mAP by setting and `map`, their mean; empty without validate_every
    cost        seconds, cpu_seconds, pairs_per_second, tokens, padded_share, flops, …
    exposure    what all steps showed the encoder; "languages" holds one dict a language
    """

    folder: Path
    log: pd.DataFrame
    validation: pd.DataFrame
    cost: dict
    exposure: dict

    @classmethod
    def read(cls, folder: Path) -> TrainResult:
        """The result in a run's folder."""
        log = pd.read_parquet(folder / "train_log.parquet")
        seconds = pd.read_parquet(folder / "train_time.parquet")["seconds"]
        return cls(
            folder,
            log.assign(seconds=seconds),
            pd.DataFrame(store.read_json(folder / "validation.json")),
            store.read_json(folder / "cost.json"),
            store.read_json(folder / "exposure.json"),
        )

    @cached_property
    def encoder(self) -> Encoder:
        """The trained encoder. Raises store.Damaged where its files were altered."""
        return load_encoder(self.folder / "model")


def write(
    folder: Path,
    state: State,
    spent: Cost,
    done: Schedule,
    texts: Tokens,
    params: Train,
    flops: tuple[int, int],
) -> None:
    """Write FILES: all of a run but its encoder. done: the schedule of the steps that were taken.
    flops: of a token, by lib.training.cost.flops, of the encoder as it was trained.

    Exposure and cost follow from the schedule and the texts, so that steps need not count."""
    log = state.log_table()
    with store.atomic_file(folder / "train_log.parquet") as file:
        log.drop(columns="seconds").to_parquet(file)
    with store.atomic_file(folder / "train_time.parquet") as file:
        log[["step", "seconds"]].to_parquet(file)
    store.write_json(folder / "validation.json", state.validations)
    slots, tokens = places_and_tokens(done, texts, state.encoder, params)
    seen = _exposure(done, texts, tokens, params, flops)
    store.write_json(folder / "exposure.json", seen)
    taken = flops[0] * seen["tokens"]  # of the steps alone, as the seconds are
    table = _cost(spent, log["seconds"].to_numpy(), seen["tokens"], slots, taken, state, params)
    whole = {"truncated_share": texts.truncated_share, "flops": seen["flops"]}
    store.write_json(folder / "cost.json", table | whole | budgets.price(params, folder))
    store.write_json(folder / "provenance.json", provenance(params.model_dump()))


def _cost(
    spent: Cost, seconds: np.ndarray, tokens: int, slots: int, done: int, state: State, p: Train
) -> dict:
    """lib.training.cost.table of a run's steps, and how many weights its encoder has."""
    encoder = state.encoder
    kind = torch.bfloat16 if p.precision == "bf16" else torch.float32
    rate = ranks.world() * cost.matmul_rate(encoder.device, kind)
    pairs = len(seconds) * p.batch_size
    weights = quantised.uncounted(encoder) + sum(x.numel() for x in encoder.parameters())
    table = cost.table(spent, seconds, pairs, tokens, slots, done, rate)
    return table | {"parameters": weights}


def hashes(folder: Path) -> dict[str, str]:
    """sha256 of each of FILES, for the manifest of the encoder that is written after them."""
    return {name: store.sha256(folder / name) for name in FILES}


def _exposure(
    done: Schedule, texts: Tokens, tokens: np.ndarray, params: Train, flops: tuple[int, int]
) -> dict:
    """lib.training.exposure with tokens [sides, L], by language and in all; counts are of uses.

    Without an objective, nothing is said of its texts."""
    extra = objectives.counted(done, texts, params)
    table = exposure(done, params.negatives, params.most_negatives)
    for side, by_language in zip(SIDES, tokens, strict=True):
        table[f"{side}_tokens"] = by_language
    sums = table[["question_texts", "passage_texts", "positives", "substituted"]].sum()
    uses = int(table["question_uses"].sum())
    means = table[["monolingual", "negatives"]].mul(table["question_uses"], axis=0).sum()
    return {
        "pairs": uses,
        **{name: int(value) for name, value in sums.items()},
        **(means / max(1, uses)).to_dict(),
        "tokens": int(tokens.sum()),
        **extra,
        "flops": flops[0] * int(tokens.sum()) + flops[1] * extra.get("teacher_tokens", 0),
        "languages": table.to_dict("records"),
    }
