"""Encoders on benchmarks: per-question scores, and what is made once for a corpus and a benchmark.

Every benchmark ends in the same table of scores, a row a question and setting, so that intervals,
comparisons and figures are written once. Reference rankers and the leak audit depend on the corpus
and the benchmark alone; the first run that needs them makes them, the others read them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd

from lib import benchmarks, metrics, search, store
from lib.analysis import bias, sums
from lib.benchmark import Benchmark
from lib.benchmarks import agnostic, coverage, heldout, leaks, references
from lib.corpus import ParallelCorpus
from lib.encoder import Encoder, pick_device
from lib.languages import script
from lib.metrics import REFERENCES
from lib.params import Evaluate
from lib.sources import hashes
from lib.sources.text import number
from lib.study import inputs, paths
from lib.training import budgets, maps, prompts
from lib.training.models import load_encoder


@dataclass(frozen=True)
class Scored:
    """One encoder on one benchmark.

    scores    per question and setting (of sentence search: per language and direction)
    share     languages of the top 10 against the pool; empty where there is no pool of several
    left_out  questions that a setting left out, for want of a relevant candidate, in all settings
    digest    of the benchmark's content, where it was in memory
    agnostic  of lib.benchmarks.agnostic.measures; empty where there is nothing to measure
    """

    scores: pd.DataFrame
    share: pd.DataFrame
    left_out: int = 0
    digest: str = ""
    agnostic: pd.DataFrame = field(default_factory=pd.DataFrame)


@dataclass(frozen=True)
class Asked:
    """A benchmark in memory, and the token numbers of its texts, as Encoder.tokenize gives them."""

    benchmark: Benchmark
    questions: list[np.ndarray]
    passages: list[np.ndarray]


# What the encoders of one run's budgets are asked one after the other, by all that it depends on.
_kept: dict[str, Asked] = {}
# Vectors of the passages of each encoder, by benchmark: some differ in their prompt alone.
_found: WeakKeyDictionary[Encoder, dict[str, np.ndarray]] = WeakKeyDictionary()


def evaluate(
    name: str,
    p: Evaluate,
    encoder: Encoder,
    corpus: ParallelCorpus,
    folder: Path,
    keep: bool | None = None,
) -> Scored:
    """Scores of `encoder` on the benchmark called `name`.

    folder  of the run, for large indexes
    keep    whether another encoder of the run is to be asked the same (of one that has smaller
            budgets, by default)"""
    start = time.perf_counter()
    print(f"{name}: encoding and searching ...", flush=True)
    with prompts.asking(encoder, p.benchmarks[name].prompt):
        scored = _score(name, p, encoder, corpus, folder, bool(_smaller(folder) or keep))
    seconds = time.perf_counter() - start
    print(
        f"{name}: {len(scored.scores):,} rows of scores, {scored.left_out:,} left out for want of "
        f"a relevant passage; {seconds:.0f} s",
        flush=True,
    )
    return scored


def _score(
    name: str, p: Evaluate, encoder: Encoder, corpus: ParallelCorpus, folder: Path, keep: bool
) -> Scored:
    spec = p.benchmarks[name]
    if not benchmarks.format_of(spec).in_memory:
        whose = store.digest(store.read_json(folder / "model/manifest.json")["files"])
        encode = partial(encoder.encode, batch_size=p.encode_batch)
        with hashes.remembered(inputs.remembered(p.study)) as sha256:
            task = benchmarks.Task(name, spec, encode, whose, folder / "index" / name, sha256)
            return Scored(benchmarks.evaluate(task), pd.DataFrame())
    asked = _asked(name, p, encoder, corpus, keep)
    benchmark = asked.benchmark
    questions = encoder.vectors(asked.questions, p.encode_batch)
    questions = maps.of_texts(encoder, questions, benchmark.questions["language"])
    vectors = questions, _passages(name, p, encoder, asked)
    noted: list[np.ndarray] = []
    tiles = bias.noting_alignment(search.tiles(*vectors), benchmark, noted)
    ranks = search.relevant_ranks(tiles, benchmark)
    scores = metrics.question_scores(benchmark, ranks)
    scores = bias.with_alignment(scores, benchmark, ranks, noted)
    with_references(name, benchmark, corpus)
    return Scored(
        annotate(scores, benchmark, corpus),
        coverage.language_share(ranks, benchmark),
        int(coverage.left_out(benchmark)["left_out"].sum()),
        benchmark.digest,
        agnostic.measures(benchmark, vectors[1]),
    )


def _passages(name: str, p: Evaluate, encoder: Encoder, asked: Asked) -> np.ndarray:
    """Vectors of a benchmark's passages, found once where others of the run have the same."""
    bare = {n: str(s.model_copy(update={"prompt": ""})) for n, s in p.benchmarks.items()}
    shared = [*bare.values()].count(bare[name]) > 1
    if shared and bare[name] in (found := _found.setdefault(encoder, {})):
        return found[bare[name]]
    vectors = encoder.vectors(asked.passages, p.encode_batch)
    vectors = maps.of_texts(encoder, vectors, asked.benchmark.candidates["language"])
    if shared:
        found[bare[name]] = vectors
    return vectors


def _asked(name: str, p: Evaluate, encoder: Encoder, corpus: ParallelCorpus, keep: bool) -> Asked:
    """A benchmark as the run's encoders are asked it: they share tokenizer, prompts and length."""
    spec = p.benchmarks[name]
    about = [p.study, p.run, name, spec.model_dump(), inputs.contents(p), corpus.content_hash]
    key = store.digest(about)
    if key in _kept:
        return _kept[key]
    benchmark = benchmarks.load_benchmark(name, spec, corpus)
    sides = {"question": benchmark.questions, "passage": benchmark.candidates}
    asked = Asked(benchmark, *(encoder.tokenize(list(t["text"]), k) for k, t in sides.items()))
    if keep:
        _kept[key] = asked
    return asked


def _smaller(folder: Path) -> list[int]:
    """The budgets of a run but the last; none of a folder that is not a run's."""
    file = folder / "params.json"
    return store.read_json(file).get("budgets", [])[:-1] if file.is_file() else []


def evaluate_budgets(
    p: Evaluate, corpus: ParallelCorpus, folder: Path
) -> dict[int, dict[str, Scored]]:
    """Scores of the encoders of a run's smaller budgets, by budget and name of the benchmark."""
    found = {}
    for budget in _smaller(folder):
        place = budgets.place(folder, budget)
        encoder = load_encoder(place / "model").to(pick_device(p.device))
        print(f"the encoder of budget {budget}:", flush=True)
        found[budget] = {
            name: evaluate(name, p, encoder, corpus, place, keep=True) for name in p.benchmarks
        }
    _kept.clear()
    return found


def mteb_scores(encoder: Encoder, tasks: list[str], folder: Path) -> pd.DataFrame:
    """Scores on tasks of the mteb package; those that cannot be had are named and left out."""
    if not tasks:
        return pd.DataFrame()
    from lib.bridges import mteb

    try:
        return mteb.run(encoder, tasks, folder)
    except mteb.Incomplete as problem:
        print(problem)
        return problem.scores


# --- strata ------------------------------------------------------------------------------------


def annotate(
    scores: pd.DataFrame, benchmark: Benchmark, corpus: ParallelCorpus | None
) -> pd.DataFrame:
    """Per-question scores with question_id, group and strata, ready to be saved and summed.

    corpus: None leaves out the strata that ask what was trained on."""
    kept = ["question_id", "group", *(s for s in heldout.STRATA if s in benchmark.questions)]
    questions = benchmark.questions[kept].astype("category").iloc[scores["question"].to_numpy()]
    table = pd.concat(
        [scores.drop(columns="question").reset_index(drop=True), questions.reset_index(drop=True)],
        axis=1,
    )
    if corpus and set(benchmark.languages) - set(corpus.languages):
        table["trained"] = _trained(table, benchmark, corpus)
    if len({script(language) for language in benchmark.languages}) > 1:
        table["script"] = _scripts(table, benchmark)
    names = corpus.folder / "names.parquet" if corpus else None
    if benchmark.name != "heldout" or not names or not names.exists():
        return table
    names = pd.read_parquet(names)
    keys = heldout.NAME_COLUMNS[:3]
    alike = names.set_index(keys)["names"].astype(str)
    wanted = pd.MultiIndex.from_frame(table[keys].astype(str))
    return table.assign(names=alike.reindex(wanted).astype("category").to_numpy())


def _trained(scores: pd.DataFrame, benchmark: Benchmark, corpus: ParallelCorpus) -> pd.Categorical:
    """both, one or neither: whether the encoder was trained on the languages of the question and
    of the pool (the pool of all languages, if on all of them)."""
    known = {language: language in corpus.languages for language in benchmark.languages}
    known["*"] = all(known.values())
    sides = sum(scores[side].astype(str).map(known).astype(int) for side in metrics.CELL)
    return pd.Categorical.from_codes(sides, ["neither", "one", "both"])


def _scripts(scores: pd.DataFrame, benchmark: Benchmark) -> pd.Categorical:
    """same or other: whether the languages of question and pool share a script; all: the pool of
    all languages."""
    scripts = {language: script(language) for language in benchmark.languages} | {"*": "*"}
    question, pool = (scores[side].astype(str).map(scripts) for side in metrics.CELL)
    codes = np.where(pool == "*", 2, pool != question)
    return pd.Categorical.from_codes(codes, ["same", "other", "all"])


# --- made once for a corpus and a benchmark ----------------------------------------------------


def with_references(name: str, benchmark: Benchmark, corpus: ParallelCorpus) -> Path:
    """The folder of `references.parquet` (per-question scores of every reference ranker, column
    `ranker`; of large benchmarks of a sample of questions), what lib.analysis.sums makes of them,
    and `leaks.parquet` (lib.benchmarks.leaks.audit of the training texts), which are made if they
    are not there, damaged, or made from something else. Its manifest holds what of the benchmark's
    files was `unused`."""
    folder = paths.references_dir(corpus.folder.parent, name)
    made_from = {"benchmark": benchmark.digest, "corpus": corpus.content_hash}

    def make() -> None:
        about = {"made_from": made_from, "unused": benchmark.unused}
        with store.atomic_folder(folder, about) as new:
            scores = _reference_scores(benchmark, corpus)
            _save_by_ranker(scores, new / "references.parquet")
            for file, made_of in (("sums", sums.summed), ("cells", sums.language_cells)):
                tables = {ranker: made_of(table) for ranker, table in scores.items()}
                _save_by_ranker(tables, new / f"{file}.parquet")
            leaked = leaks.audit(corpus.every_text(), benchmark)
            leaked.to_parquet(new / "leaks.parquet", index=False)

    store.made(partial(store.verify, folder, made_from), make, alone=folder.parent)
    return folder


def _reference_scores(benchmark: Benchmark, corpus: ParallelCorpus) -> dict[str, pd.DataFrame]:
    """Per-question scores by ranker."""
    seed, benchmark = number(corpus.content_hash, 1 << 32), references.sampled(benchmark)
    ranks = {name: references.reference_ranks(benchmark, name, seed) for name in REFERENCES}
    return {
        name: annotate(metrics.question_scores(benchmark, found), benchmark, corpus)
        for name, found in ranks.items()
    }


def _save_by_ranker(tables: dict[str, pd.DataFrame], file: Path) -> None:
    parts = [table.assign(ranker=ranker) for ranker, table in tables.items()]
    whole = pd.concat(parts, ignore_index=True).astype({"ranker": "category"})
    whole.to_parquet(file, index=False)
