"""Encoders on benchmarks: per-question scores, and what is made once for a corpus and a benchmark.

Every benchmark ends in the same table of scores, a row a question and setting, so that intervals,
comparisons and figures are written once. Reference rankers and the leak audit depend on the corpus
and the benchmark alone; the first run that needs them makes them, the others read them.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pandas as pd

from lib import leaks, metrics, params, retrieval, store
from lib.benchmarks import Benchmark, heldout, miracl, tatoeba
from lib.corpus import ParallelCorpus
from lib.params import BenchmarkSpec, Evaluate
from lib.text import number


@dataclass(frozen=True)
class Evaluated:
    """One encoder on one benchmark.

    scores    per question and setting (of tatoeba: per language and direction)
    share     languages of the top 10 against the pool; empty where there is no pool of several
    left_out  questions that a setting left out, for want of a relevant candidate, in all settings
    digest    of the benchmark's content, where it was in memory
    """

    scores: pd.DataFrame
    share: pd.DataFrame
    left_out: int = 0
    digest: str = ""


def load(name: str, spec: BenchmarkSpec, corpus: ParallelCorpus) -> Benchmark:
    """The benchmark that `spec` describes, in the languages it asks for.

    Raises ValueError where it has none of them."""
    if spec.format == "heldout":
        found = heldout.load(corpus)
    else:
        found = import_module(f"lib.benchmarks.{spec.format}").load(name, spec)
    for language in spec.languages:
        if language not in found.languages:
            raise ValueError(
                f"benchmark {name!r}: has no {language} (it has {', '.join(found.languages)})"
            )
    wanted = [x for x in found.languages if not spec.languages or x in spec.languages]
    if spec.trained:
        wanted = [x for x in wanted if x in corpus.languages]
    if not wanted:
        raise ValueError(
            f"benchmark {name!r}: none of its languages is left "
            f"(it has {', '.join(found.languages)}; trained: {', '.join(corpus.languages)})"
        )
    # The passages of a collection are in one language, whoever asks.
    return found.restricted(wanted, found.languages if spec.format == "collection" else None)


def run(name: str, p: Evaluate, encoder, corpus: ParallelCorpus, folder: Path) -> Evaluated:
    """Scores of `encoder` on the benchmark called `name`. folder: of the run, for large indexes."""
    spec = p.benchmarks[name]

    def encode(texts, kind):
        return encoder.encode(list(texts), kind, p.encode_batch)

    if spec.format == "tatoeba":
        return Evaluated(tatoeba.evaluate(spec, encode), pd.DataFrame())
    if spec.format == "miracl":
        scores = miracl.evaluate(
            name,
            spec,
            encode,
            folder / "index" / name,
            store.sha256(folder / "model/manifest.json"),
        )
        return Evaluated(scores, pd.DataFrame())
    benchmark = load(name, spec, corpus)
    questions = encode(benchmark.questions["text"], "question")
    passages = encode(benchmark.candidates["text"], "passage")
    ranks = retrieval.relevant_ranks(retrieval.tiles(questions, passages), benchmark)
    beside(name, benchmark, corpus)
    return Evaluated(
        annotate(metrics.question_scores(benchmark, ranks), benchmark, corpus),
        metrics.language_share(ranks, benchmark),
        int(metrics.left_out(benchmark)["left_out"].sum()),
        benchmark.digest,
    )


# --- strata ------------------------------------------------------------------------------------


def annotate(scores: pd.DataFrame, benchmark: Benchmark, corpus: ParallelCorpus) -> pd.DataFrame:
    """Per-question scores with question_id, group and strata, ready to be saved and summed."""
    kept = ["question_id", "group", *(s for s in heldout.STRATA if s in benchmark.questions)]
    own = benchmark.questions[kept].astype("category").iloc[scores["question"].to_numpy()]
    found = pd.concat(
        [scores.drop(columns="question").reset_index(drop=True), own.reset_index(drop=True)], axis=1
    )
    if set(benchmark.languages) - set(corpus.languages):
        found["trained"] = _trained(found, benchmark, corpus)
    names = corpus.folder / "names.parquet"
    if benchmark.name != "heldout" or not names.exists():
        return found
    names = pd.read_parquet(names)
    keys = heldout.NAME_COLUMNS[:3]
    alike = names.set_index(keys)["names"].astype(str)
    wanted = pd.MultiIndex.from_frame(found[keys].astype(str))
    return found.assign(names=alike.reindex(wanted).astype("category").to_numpy())


def _trained(scores: pd.DataFrame, benchmark: Benchmark, corpus: ParallelCorpus) -> pd.Categorical:
    """both, one or neither: whether the encoder was trained on the languages of the question and
    of the pool (the pool of all languages, if on all of them)."""
    known = {x: x in corpus.languages for x in benchmark.languages}
    known["*"] = all(known.values())
    sides = sum(
        scores[side].astype(str).map(known).astype(int)
        for side in ("question_language", "candidate_language")
    )
    return pd.Categorical.from_codes(sides, ["neither", "one", "both"])


# --- made once for a corpus and a benchmark ----------------------------------------------------


def beside(name: str, benchmark: Benchmark, corpus: ParallelCorpus) -> Path:
    """The folder of `references.parquet` (per-question scores of every reference ranker, column
    `ranker`) and `leaks.parquet` (lib.leaks.audit of the training texts) of a benchmark, which are
    made if they are not there, damaged, or made from something else."""
    folder = params.beside_dir(corpus.folder.parent, name)
    made_from = {"benchmark": benchmark.digest, "corpus": corpus.content_hash}
    with store.locked(folder.parent, say=lambda _: print("waiting for another run's references")):
        if not _is_made(folder, made_from):
            with store.atomic_folder(folder, {"made_from": made_from}) as new:
                references = _references(benchmark, corpus)
                references.to_parquet(new / "references.parquet", index=False)
                leaked = leaks.audit(corpus.every_text(), benchmark)
                leaked.to_parquet(new / "leaks.parquet", index=False)
    return folder


def _is_made(folder: Path, made_from: dict) -> bool:
    try:
        return store.verify(folder).get("made_from") == made_from
    except (FileNotFoundError, store.Damaged):
        return False


def _references(benchmark: Benchmark, corpus: ParallelCorpus) -> pd.DataFrame:
    found, seed = [], number(corpus.content_hash, 1 << 32)
    for name in retrieval.REFERENCES:
        ranks = retrieval.reference_ranks(benchmark, name, seed)
        scores = annotate(metrics.question_scores(benchmark, ranks), benchmark, corpus)
        found.append(scores.assign(ranker=name))
    return pd.concat(found, ignore_index=True).astype({"ranker": "category"})
