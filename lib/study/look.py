"""A batch to look at before training: its texts, its vectors, its scores."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import torch

from lib.benchmark import Benchmark
from lib.benchmarks import heldout
from lib.corpus import ParallelCorpus
from lib.params import Train
from lib.sampler import Batch
from lib.training import prompts
from lib.training.models import build_encoder


def dev(corpus: ParallelCorpus, p: Train) -> Benchmark | None:
    """What training validates on, where it does."""
    return heldout.dev(corpus) if p.validate_every else None


def texts(corpus: ParallelCorpus, batch: Batch) -> pd.DataFrame:
    """Columns question language, question, passage language, passage; a row a row of the batch."""
    names, columns = np.array(corpus.languages), {}
    for side in ("question", "passage"):
        language = getattr(batch, f"{side}_language")
        rows = corpus.index.rows(batch.pair, language)
        columns[f"{side} language"] = names[language]
        columns[side] = corpus.rows[rows.tolist()][side]
    return pd.DataFrame(columns)


def rows(corpus: ParallelCorpus, batches: list[Batch]) -> pd.DataFrame:
    """`texts` of some batches below each other; empty for none."""
    return pd.concat([texts(corpus, batch) for batch in batches]) if batches else pd.DataFrame()


def vectors(corpus: ParallelCorpus, p: Train, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit vectors float32 [B, d] of a batch's questions and passages, before any training."""
    encoder, rows = build_encoder(p, corpus.tokenizer_file), texts(corpus, batch)
    sides = [encoder.encode(rows[side].tolist(), side) for side in ("question", "passage")]
    own = batch.question_language == batch.passage_language
    for kind, prompt in (own, p.mono_prompt), (~own, p.cross_prompt):
        with prompts.asking(encoder, prompt):
            asked = rows.loc[kind, "question"].tolist() if prompt else []
            sides[0][kind] = encoder.encode(asked, "question") if asked else sides[0][kind]
    return tuple(torch.from_numpy(side) for side in sides)


def chance(p: Train) -> float:
    """InfoNCE with in-batch negatives of an encoder that scores all passages alike: log B."""
    return math.log(p.batch_size)


def score_table(corpus: ParallelCorpus, batch: Batch, cosines: torch.Tensor, rows: int = 8):
    """The cosines of the first rows, named by language, for people to read."""
    names = np.array(corpus.languages)
    questions = [f"q{i} {x}" for i, x in enumerate(names[batch.question_language[:rows]])]
    passages = [f"p{i} {x}" for i, x in enumerate(names[batch.passage_language[:rows]])]
    table = pd.DataFrame(cosines[:rows, :rows].numpy(), questions, passages)
    return table.style.format("{:.2f}").background_gradient("cividis", axis=None)
