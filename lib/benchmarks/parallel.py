"""How well an encoder aligns languages: held-out passages, each to be found in another language.

Question and candidates are the same passages, so hit@1 (`hit1`) of the setting cross, by ordered
pair of languages, is bitext accuracy, the measure of Artetxe and Schwenk (2019, arXiv 1812.10464).
Of an encoder before it is fine-tuned this is its *alignment*. mono and multi are no tests here:
there a passage finds itself.

Chance and difficulty depend on how many passages there are, so their number is the same for every
corpus that has enough.
"""

from __future__ import annotations

import pandas as pd

from lib.benchmark import Benchmark
from lib.benchmarks import Format, heldout
from lib.corpus import ParallelCorpus
from lib.sources.text import share

FORMAT = Format(measures=("hit1",), of_corpus=True)

PASSAGES = 200  # at most; in every language that has them


def load_benchmark(corpus: ParallelCorpus, clusters: str = "article") -> Benchmark:
    """Passages of test questions that two languages or more have, PASSAGES of them at most: those
    whose names have the least hashes. Of equal texts of a language one is taken. Groups as in
    `heldout`. Raises ValueError where there are none."""
    kept = heldout.tested(corpus, clusters)[["passage_id", "language", "passage", "group"]]
    kept = kept.drop_duplicates(["passage_id", "language"])
    kept = kept.drop_duplicates(["language", "passage"])
    kept = kept[kept["passage_id"].map(kept["passage_id"].value_counts()) > 1]
    if kept.empty:
        raise ValueError("the corpus has no held-out passages in two languages")
    chosen = sorted(kept["passage_id"].unique(), key=lambda name: share(f"parallel {name}"))
    kept = kept[kept["passage_id"].isin(chosen[:PASSAGES])].sort_values(["language", "passage_id"])
    kept = kept.rename(columns={"passage": "text"}).reset_index(drop=True)
    row = kept["passage_id"].rename_axis("row").reset_index()
    pairs = pd.merge(row, row, on="passage_id", suffixes=("_question", "_candidate"))
    return Benchmark.from_pairs(
        "parallel",
        kept.rename(columns={"passage_id": "question_id"}),
        kept.rename(columns={"passage_id": "candidate_id"}).drop(columns="group"),
        pairs["row_question"],
        pairs["row_candidate"],
    )
