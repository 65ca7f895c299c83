"""What a run shows its encoder: uses, distinct texts, repeats and tokens by language."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lib.encoder import Encoder
from lib.params import Train
from lib.sampler import Batch, Schedule
from lib.training import objectives, packing, ranks
from lib.training.tokens import SIDES, Tokens


def exposure(schedule: Schedule, mode: str = "in_batch", most: int = 0) -> pd.DataFrame:
    """One row a language, for a loss of this `mode` and `most` (see lib.losses):

    question_uses, passage_uses    rows that ask, or answer, in the language
    question_texts, passage_texts  distinct texts, (pair, language), among them
    …_mean_repeats, …_max_repeats  uses of one such text
    positives                      distinct (question, passage) texts, by question language
    monolingual                    share of the questions answered in their own language
    negatives                      mean number of passages that a question is to be far from
    substituted                    questions that gave way to another of the same group
    """
    rows, sides = _rows(schedule, mode, most), []
    for side in ("question", "passage"):
        uses = rows.groupby([f"{side}_language", "pair"]).size().groupby(level=0)
        sides.append(
            uses.agg(uses="sum", texts="count", mean_repeats="mean", max_repeats="max").add_prefix(
                f"{side}_"
            )
        )
    parts = rows.groupby("question_language")
    positives = rows.drop_duplicates(["pair", "question_language", "passage_language"])
    positives = positives.groupby("question_language").size().rename("positives")
    means = parts[["monolingual", "negatives"]].mean()
    table = pd.concat([*sides, positives, means, parts.substituted.sum()], axis=1)
    table = table.reindex(range(len(schedule.index.languages)), fill_value=0).fillna(0)
    table.insert(0, "language", schedule.index.languages)
    return table


def _rows(schedule: Schedule, mode: str, most: int) -> pd.DataFrame:
    """All rows of all batches: pair, languages, what became of the row, number of negatives."""
    names = ("pair", "question_language", "passage_language", "substituted")
    columns, batches = {}, list(schedule)
    for name in names:
        parts = (getattr(batch, name) for batch in batches)
        columns[name] = np.concatenate([np.empty(0, np.int16), *parts])
    counts = (negatives_of(batch, schedule.index.group, mode, most) for batch in batches)
    columns["negatives"] = np.concatenate([np.empty(0, np.int16), *counts])
    rows = pd.DataFrame(columns)
    return rows.assign(monolingual=rows.question_language == rows.passage_language)


def negatives_of(batch: Batch, group: np.ndarray, mode: str, most: int) -> np.ndarray:
    """int64 [B]: how many negatives each question of a batch has."""
    passages = np.full(len(batch.pair), 0 if mode == "explicit" else len(batch.pair) - 1)
    if mode == "in_language":
        _, of, count = np.unique(batch.passage_language, return_inverse=True, return_counts=True)
        passages = count[of] - 1
    hard, own = np.sort(group[batch.negatives], axis=None), group[batch.pair]
    of_own = np.searchsorted(hard, own, "right") - np.searchsorted(hard, own, "left")
    return np.minimum(passages, most or len(passages)) + len(hard) - of_own


def places_and_tokens(
    schedule: Schedule, texts: Tokens, encoder: Encoder, params: Train
) -> tuple[int, np.ndarray]:
    """(token places that all ranks computed, padding included; tokens int64 [sides, L] among them),
    with the translations that params.objective has embedded."""
    lengths = {side: texts.lengths(side) for side in SIDES}
    tokens, places = np.zeros((len(SIDES), len(schedule.index.languages)), np.int64), 0
    for batch in schedule:
        for rank in range(ranks.world()):
            part = batch.part(rank, ranks.world())
            counts = []
            for side, (rows, language) in objectives.rows(schedule.index, part, params):
                counts.append(lengths[side][rows])
                np.add.at(tokens[SIDES.index(side)], language, counts[-1])
            places += packing.places(encoder, np.concatenate(counts), params.chunk)
    return places, tokens
