"""Benchmarks: one module a format. A module that states a FORMAT is one; nothing else names it.

Such a module has either `load_benchmark(name, spec)`, which gives a lib.benchmark.Benchmark in
memory, or, where that is not possible, `evaluate(task)`, which gives a table of scores.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from lib import store
from lib.languages import language_code
from lib.sources import stating

if TYPE_CHECKING:  # pandas, below these, is half a second that each stage would begin with
    import pandas as pd

    from lib.benchmark import Benchmark
    from lib.corpus import ParallelCorpus
    from lib.params import BenchmarkSpec

Item = TypeVar("Item")
TOLD = 30.0  # seconds between two lines of progress


@dataclass(frozen=True)
class Format:
    """What a benchmark of this format needs, and what it measures.

    measures   its usual ones, best known first: columns of its scores
    folder     whether spec.folder is needed
    splits     those that there are; () where the files decide
    in_memory  whether it has `load_benchmark`; then it has reference rankers and a leak audit, a
               report can be about it, and `trained` can restrict it
    own_names  whether its languages have names of its own, besides the usual codes
    one_pool   whether every language asks the same passages, whatever their language
    of_corpus  whether it is part of the corpus: load_benchmark takes that and spec.clusters
    articles   whether its questions may have a column `article`; then `unseen` can restrict it
    """

    measures: tuple[str, ...] = ("ap",)
    folder: bool = False
    splits: tuple[str, ...] = ()
    in_memory: bool = True
    own_names: bool = False
    one_pool: bool = False
    of_corpus: bool = False
    articles: bool = False

    @property
    def ranked(self) -> bool:
        """Whether its scores are those of lib.metrics, a row a question and setting."""
        from lib.metrics import QUALITY

        return self.measures[0] in QUALITY


@dataclass(frozen=True)
class Task:
    """An encoder to be scored on a benchmark that is not held in memory.

    encode   (texts, "question" or "passage") -> float [n, d]
    encoder  what tells this encoder from any other
    index    folder for vectors that are to be kept
    sha256   of a file's bytes, where these are read often from what is remembered
    """

    name: str
    spec: BenchmarkSpec
    encode: Callable[[list[str], str], np.ndarray]
    encoder: str
    index: Path
    sha256: Callable[[Path], str] = store.sha256


@cache
def names() -> list[str]:
    """Every format, sorted."""
    return stating(Path(__file__).parent, "FORMAT")


def module(format: str) -> ModuleType:
    """The module of a format. Raises ValueError where there is none."""
    if format not in names():
        raise ValueError(f"{format!r} is unknown (expected one of {', '.join(names())})")
    return import_module(f"lib.benchmarks.{format}")


def format_of(spec: BenchmarkSpec) -> Format:
    """What the spec's format states of itself."""
    return module(spec.format).FORMAT


def check(spec: BenchmarkSpec) -> None:
    """Raises ValueError in one line where a spec does not suit its format."""
    kind = format_of(spec)
    if kind.folder and not spec.folder:
        raise ValueError(f"folder is empty (expected the folder of {spec.format}'s files)")
    if kind.splits and spec.split not in ("", *kind.splits):
        expected = " or ".join(kind.splits)
        raise ValueError(f"split {spec.split!r} is unknown (expected {expected})")
    if spec.trained and not kind.in_memory:
        raise ValueError(f"trained: does not go with {spec.format} (name its languages)")
    if spec.unseen and not kind.articles:
        raise ValueError(f"unseen: does not go with {spec.format} (its questions name no articles)")
    _languages(spec)


def _languages(spec: BenchmarkSpec) -> list[str]:
    """Codes of the languages asked for, as the format takes them."""
    own_names = format_of(spec).own_names
    return spec.languages if own_names else [language_code(name) for name in spec.languages]


def look(spec: BenchmarkSpec) -> None:
    """Raises ValueError for a folder that lacks files of the format, the split or a language."""
    made = module(spec.format)
    if spec.folder and hasattr(made, "look"):
        made.look(spec.model_copy(update={"languages": _languages(spec)}))


def load_benchmark(name: str, spec: BenchmarkSpec, corpus: ParallelCorpus) -> Benchmark:
    """The benchmark that `spec` describes, in the languages it asks for.

    Raises ValueError where it has none of them."""
    check(spec)
    spec = spec.model_copy(update={"languages": _languages(spec)})
    given = (corpus, spec.clusters) if format_of(spec).of_corpus else (name, spec)
    benchmark: Benchmark = module(spec.format).load_benchmark(*given)
    for language in spec.languages:
        if language not in benchmark.languages:
            raise ValueError(
                f"benchmark {name!r}: has no {language} (it has {', '.join(benchmark.languages)})"
            )
    wanted = [x for x in benchmark.languages if not spec.languages or x in spec.languages]
    if spec.trained:
        others = [x for x in wanted if x not in corpus.languages]
        wanted = [x for x in wanted if x in corpus.languages]
        if others and wanted:
            print(f"{name}: left out, since not trained on: {' '.join(others)}", flush=True)
    if not wanted:
        raise ValueError(
            f"benchmark {name!r}: none of its languages is left "
            f"(it has {', '.join(benchmark.languages)}; trained: {', '.join(corpus.languages)})"
        )
    pool = benchmark.languages if format_of(spec).one_pool else None
    benchmark = restricted(benchmark, wanted, pool)
    return unseen(benchmark, corpus) if spec.unseen else benchmark


def unseen(benchmark: Benchmark, corpus: ParallelCorpus) -> Benchmark:
    """The benchmark with only the questions whose article has no training row, in any language,
    and all candidates. Raises ValueError where there are none, or one side names no articles."""
    where = f"benchmark {benchmark.name!r}: unseen"
    if "article" not in corpus.rows.column_names:
        words = "expected a source that does, as squad, of files with titles"
        raise ValueError(f"{where}: the corpus names no articles ({words})")
    article = benchmark.questions.get("article")
    if article is None or (article == "").any():
        raise ValueError(f"{where}: a question's article has no title (expected English titles)")
    seen = article.isin(corpus.column("article").unique().to_pylist())
    left, every = article[~seen].nunique(), article.nunique()
    if not left:
        words = "expected prepare.split: article, or other training pairs"
        raise ValueError(
            f"{where}: no question is left, all {every} articles are trained on ({words})"
        )
    print(f"{benchmark.name}: {left} of {every} articles are not trained on", flush=True)
    return part(benchmark, ~seen.to_numpy(), np.ones(len(benchmark.candidates), bool))[0]


def restricted(
    benchmark: Benchmark, languages: Collection[str], pool: Collection[str] | None = None
) -> Benchmark:
    """A benchmark with the questions of some languages, and the candidates of `pool`
    (where it is not given, of the same languages)."""
    pool = languages if pool is None else pool
    if set(languages) & set(pool) >= set(benchmark.languages):
        return benchmark
    asked = benchmark.questions["language"].isin(languages).to_numpy()
    return part(benchmark, asked, benchmark.candidates["language"].isin(pool).to_numpy())[0]


def part(
    benchmark: Benchmark, asked: np.ndarray, found: np.ndarray
) -> tuple[Benchmark, np.ndarray]:
    """The benchmark of some questions and candidates (bool masks), and which of its relevant pairs
    are left (bool [N])."""
    pairs = asked[benchmark.question] & found[benchmark.candidate]
    question, candidate = (np.cumsum(mask) - 1 for mask in (asked, found))
    smaller = benchmark.from_pairs(
        benchmark.name,
        benchmark.questions[asked].reset_index(drop=True),
        benchmark.candidates[found].reset_index(drop=True),
        question[benchmark.question[pairs]],
        candidate[benchmark.candidate[pairs]],
        benchmark.grade[pairs],
        benchmark.unused,
    )
    return smaller, pairs


def evaluate(task: Task) -> pd.DataFrame:
    """Scores of a format that is not in memory."""
    check(task.spec)
    spec = task.spec.model_copy(update={"languages": _languages(task.spec)})
    return module(spec.format).evaluate(replace(task, spec=spec))


def told(items: Iterable[tuple[int, Item]], line: str) -> Iterator[tuple[int, Item]]:
    """Numbered items as they come; every half minute the number of one is printed.

    line: with {} where the number stands"""
    last = time.monotonic()
    for item in items:
        if time.monotonic() - last >= TOLD:
            last = time.monotonic()
            print(line.format(f"{item[0]:,}"), flush=True)
        yield item
