"""What full multilingual evaluation costs, beside other evaluators on the same scores.

    python -m speed.metrics [--questions 1190] [--folder FOLDER] [--threads 1 2]

The benchmark has the size of XQuAD-R: 1,190 questions and 13,014 candidates in 11 languages, one
relevant candidate per question and language (FOLDER: XQuAD-R itself). Vectors are made up.

Part 1 is this project alone, on everything, from vectors to tables. Part 2 is all evaluators in
turn on some of the questions (all candidates, mono + cross + multi, six measures), from one matrix
of scores without ties to the mean of each measure for each setting and pair of languages. All do
the same work, except that only this project also computes bias and one-target multi. The others
cost the same for each question, so part 2 also says what they would take for all of them (scaled,
not measured). Imports, compilation and lists of relevant ids are not timed; dictionaries of scores
are, since that is how pytrec_eval and ranx take them. ranx also reads sorted arrays: so both.

Each evaluator runs in a process of its own, which tells its peak memory (Linux). The last line is
one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pandas as pd

from lib import metrics, search
from lib.benchmark import Benchmark
from lib.benchmarks import coverage

# Candidates of XQuAD-R in each language (sentences).
SIZES = {
    **{"ar": 1222, "de": 1276, "el": 1234, "en": 1180, "es": 1215, "hi": 1244},
    **{"ru": 1219, "th": 852, "tr": 1167, "vi": 1209, "zh": 1196},
}
ALL, SAMPLE, ROUNDS, WIDTH = 1190, 15, 3, 768
VERSIONS = {
    "pytrec_eval": "pytrec_eval-terrier",
    "ranx": "ranx",
    "sentence_transformers": "sentence-transformers",
}
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


# ---- the input ----


def made_up(questions: int) -> Benchmark:
    """A benchmark with XQuAD-R's proportions; `questions` in each language, 1,190 as there."""
    rng = np.random.default_rng(0)
    sizes = {name: max(2, size * questions // ALL) for name, size in SIZES.items()}
    asked = _table("question_id", dict.fromkeys(sizes, questions)).assign(group="g")
    firsts = np.cumsum([0, *sizes.values()])[:-1]
    answers = rng.integers(0, list(sizes.values()), (questions, len(sizes))) + firsts
    rows = np.repeat(np.arange(len(asked)), len(sizes))
    candidates = _table("candidate_id", sizes)
    return Benchmark.from_pairs(
        "made up", asked, candidates, rows, np.tile(answers, (len(sizes), 1)).ravel()
    )


def _table(key: str, sizes: dict[str, int]) -> pd.DataFrame:
    """So many rows a language, numbered in each, with empty texts."""
    numbers = [str(i) for size in sizes.values() for i in range(size)]
    languages = np.repeat(list(sizes), list(sizes.values()))
    return pd.DataFrame({key: numbers, "language": languages, "text": ""})


def vectors(benchmark: Benchmark) -> tuple[np.ndarray, np.ndarray]:
    """float32 vectors of questions and candidates, near each other where relevant, and nearer
    within a language."""
    rng = np.random.default_rng(1)
    shift = 0.2 * rng.standard_normal((len(benchmark.languages), WIDTH), np.float32)
    number, ids = pd.factorize(benchmark.questions["question_id"])
    topics = 0.4 * rng.standard_normal((len(ids), WIDTH), np.float32)
    sides = []
    for language in benchmark.question_language, benchmark.candidate_language:
        noise = rng.standard_normal((len(language), WIDTH), np.float32)
        sides.append(noise + shift[language])
    sides[0] += topics[number]
    pairs = np.unique(np.stack([benchmark.candidate, number[benchmark.question]]), axis=1)
    np.add.at(sides[1], pairs[0], topics[pairs[1]])
    return tuple(sides)


def part_of(benchmark: Benchmark, count: int) -> tuple[Benchmark, np.ndarray]:
    """The first `count` question ids in all languages, and those questions' rows."""
    ids = pd.unique(benchmark.questions["question_id"])[:count]
    rows = np.flatnonzero(benchmark.questions["question_id"].isin(ids))
    kept = np.isin(benchmark.question, rows)
    questions = benchmark.questions.iloc[rows].reset_index(drop=True)
    question = np.searchsorted(rows, benchmark.question[kept])
    return Benchmark.from_pairs(
        benchmark.name, questions, benchmark.candidates, question, benchmark.candidate[kept]
    ), rows


def without_ties(scores: np.ndarray) -> np.ndarray:
    """int32 of the same order, 0 for the lowest of each row; of equal scores the first is lower.

    Below 2^24, so that float32, which trec_eval keeps scores in, makes no new ties."""
    order = np.argsort(scores, axis=1, kind="stable")
    places = np.empty(scores.shape, np.int32)
    np.put_along_axis(places, order, np.arange(scores.shape[1], dtype=np.int32)[None], axis=1)
    return places


class Pool(NamedTuple):
    """One setting and pair of languages ("*": all candidates)."""

    key: tuple[str, str, str]
    rows: np.ndarray
    columns: np.ndarray


@dataclass(frozen=True)
class Case:
    """What every evaluator gets: a benchmark and scores [Q, C] without ties."""

    benchmark: Benchmark
    scores: np.ndarray

    @cached_property
    def pools(self) -> list[Pool]:
        """All settings: mono, cross and multi."""
        found, names = [], self.benchmark.languages
        every = np.arange(len(self.benchmark.candidates))
        for a, asked in enumerate(names):
            rows = np.flatnonzero(self.benchmark.question_language == a)
            for b, searched in enumerate(names):
                columns = every[self.benchmark.candidate_language == b]
                found.append(Pool(("mono" if a == b else "cross", asked, searched), rows, columns))
            found.append(Pool(("multi", asked, "*"), rows, every))
        return found

    def relevant(self, pool: Pool) -> list[np.ndarray]:
        """For each question of a pool its relevant candidates there."""
        bounds = np.searchsorted(self.benchmark.question, np.arange(len(self.scores) + 1))
        inside = np.isin(self.benchmark.candidate, pool.columns)
        return [
            self.benchmark.candidate[i:j][inside[i:j]]
            for i, j in zip(bounds[pool.rows], bounds[pool.rows + 1], strict=True)
        ]


# ---- the evaluators: each is set up with a case, and what it returns is timed ----

Means = dict[tuple[str, str, str], list[float]]


def ours(case: Case, threads: int) -> Callable[[], Means]:
    """This project, with bias, one-target multi and language shares, which the others lack."""

    def run() -> Means:
        ranks = search.relevant_ranks([(0, case.scores)], case.benchmark)
        return tables(case.benchmark, ranks)

    return run


def tables(benchmark: Benchmark, ranks: search.Ranks) -> Means:
    """All that a report shows of a benchmark; returns the means of the measures."""
    scores = metrics.question_scores(benchmark, ranks)
    metrics.summary(scores)
    coverage.language_share(ranks, benchmark)
    means = metrics.pair_means(scores)[[m for m in metrics.QUALITY if m != "hit1"]]
    return dict(zip(means.index, means.to_numpy().tolist(), strict=True))


def pytrec_eval(case: Case, threads: int) -> Callable[[], Means]:
    """trec_eval's C code on dictionaries of scores, a pool at a time."""
    import pytrec_eval

    names = np.array([str(i) for i in range(case.scores.shape[1])], object)
    scores, measures = case.scores.astype(float), {"map", "map_cut.20", "recall.1,10,100"}
    order = ["map", "map_cut_20", "recall_1", "recall_10", "recall_100", "ndcg_cut_10"]
    judged = [
        {
            str(row): dict.fromkeys(names[found], 1)
            for row, found in zip(pool.rows, case.relevant(pool), strict=True)
        }
        for pool in case.pools
    ]

    def run() -> Means:
        means = {}
        for pool, relevant in zip(case.pools, judged, strict=True):
            ids = names[pool.columns].tolist()
            lists = {
                str(row): dict(zip(ids, scores[row, pool.columns].tolist(), strict=True))
                for row in pool.rows
            }
            evaluator = pytrec_eval.RelevanceEvaluator(relevant, measures | {"ndcg_cut.10"})
            found = evaluator.evaluate(lists).values()
            means[pool.key] = [float(np.mean([x[name] for x in found])) for name in order]
        return means

    return run


RANX = ["map", "map@20", "recall@1", "recall@10", "recall@100", "ndcg@10"]


def ranx(case: Case, threads: int) -> Callable[[], Means]:
    """ranx on dictionaries of scores (its documented way), a pool at a time."""
    from ranx import evaluate

    names = np.array([str(i) for i in range(case.scores.shape[1])], object)
    scores = case.scores.astype(float)
    judged = [
        {
            str(row): dict.fromkeys(names[found].tolist(), 1)
            for row, found in zip(pool.rows, case.relevant(pool), strict=True)
        }
        for pool in case.pools
    ]

    def run() -> Means:
        means = {}
        for pool, relevant in zip(case.pools, judged, strict=True):
            ids = names[pool.columns].tolist()
            lists = {
                str(row): dict(zip(ids, scores[row, pool.columns].tolist(), strict=True))
                for row in pool.rows
            }
            found = evaluate(relevant, lists, RANX, threads=threads)
            means[pool.key] = [float(found[name]) for name in RANX]
        return means

    return run


def ranx_arrays(case: Case, threads: int) -> Callable[[], Means]:
    """ranx on arrays [questions, candidates, (id, score)], sorted by NumPy: its fastest way."""
    from ranx import evaluate

    scores = case.scores.astype(float)
    judged = [
        np.array([[(i, 1.0) for i in found] for found in case.relevant(pool)])
        for pool in case.pools
    ]

    def run() -> Means:
        means = {}
        for pool, relevant in zip(case.pools, judged, strict=True):
            part = scores[np.ix_(pool.rows, pool.columns)]
            order = np.argsort(-part, axis=1)
            lists = np.stack([pool.columns[order], np.take_along_axis(part, order, 1)], axis=2)
            found = evaluate(relevant, lists, RANX, threads=threads)
            means[pool.key] = [float(found[name]) for name in RANX]
        return means

    return run


def sentence_transformers(case: Case, threads: int) -> Callable[[], Means]:
    """InformationRetrievalEvaluator, a pool at a time: its vectors are numbers of rows and columns,
    and its score function looks the given scores up."""
    import torch
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

    torch.set_num_threads(threads)
    scores, width = torch.from_numpy(case.scores.astype(np.float32)), case.scores.shape[1]
    model = SimpleNamespace(encode_query=lambda rows, **_: torch.tensor([int(x) for x in rows]))
    evaluators = [
        InformationRetrievalEvaluator(
            {str(row): str(row) for row in pool.rows},
            {str(i): "" for i in pool.columns},
            {
                str(row): {str(i) for i in found}
                for row, found in zip(pool.rows, case.relevant(pool), strict=True)
            },
            mrr_at_k=[1],
            accuracy_at_k=[1],
            ndcg_at_k=[10],
            precision_recall_at_k=[1, 10, 100],
            map_at_k=[20, width],
            score_functions={"given": lambda rows, columns: scores[rows][:, columns]},
        )
        for pool in case.pools
    ]
    columns = [torch.from_numpy(pool.columns) for pool in case.pools]

    def run() -> Means:
        means = {}
        for pool, evaluator, own in zip(case.pools, evaluators, columns, strict=True):
            found = evaluator.compute_all_metrics(model, corpus_embeddings=own)["given"]
            recalls = [found["recall@k"][k] for k in (1, 10, 100)]
            maps = [found["map@k"][k] for k in (width, 20)]
            means[pool.key] = [float(x) for x in (*maps, *recalls, found["ndcg@k"][10])]
        return means

    return run


EVALUATORS = {f.__name__: f for f in (ours, pytrec_eval, ranx, ranx_arrays, sentence_transformers)}


# ---- processes ----


def memory(field: str) -> float:
    """MiB of this process: VmRSS now, VmHWM at its peak (Linux)."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024


def worker(pipe, name: str, threads: int, case: Case) -> None:
    """Set an evaluator up, warm it up on one question id, then run it whenever asked."""
    few, rows = part_of(case.benchmark, 1)
    EVALUATORS[name](Case(few, case.scores[rows]), threads)()
    run, before = EVALUATORS[name](case, threads), memory("VmRSS")
    pipe.send("ready")
    while pipe.recv():
        start = perf_counter()
        means = run()
        pipe.send((perf_counter() - start, memory("VmHWM"), memory("VmHWM") - before, means))


def whole(pipe, threads: int, benchmark: Benchmark) -> None:
    """This project on everything, from vectors to tables, and how much of it is scoring."""
    pair, scoring = vectors(benchmark), 0.0
    before, start = memory("VmRSS"), perf_counter()

    def clocked() -> Iterator[search.Tile]:
        nonlocal scoring
        tiles = search.tiles(*pair)
        while True:
            begun = perf_counter()
            tile = next(tiles, None)
            scoring += perf_counter() - begun
            if tile is None:
                return
            yield tile

    tables(benchmark, search.relevant_ranks(clocked(), benchmark))
    total = perf_counter() - start
    pipe.send(
        {
            "threads": threads,
            "seconds": round(total, 2),
            "of_it_scoring": round(scoring, 2),
            "peak_mib": round(memory("VmHWM")),
            "grown_mib": round(memory("VmHWM") - before),
        }
    )


def start(target: Callable, threads: int, *rest):
    """A fresh process with so many threads, and the pipe to it."""
    os.environ.update(dict.fromkeys(THREADS, str(threads)))
    context = get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=target, args=(there, *rest), daemon=True)
    process.start()
    there.close()  # a worker that dies then ends recv() instead of leaving it to wait
    return here, process


def side_by_side(case: Case, names: list[str], threads: int) -> list[dict]:
    """One row an evaluator: the median of rounds in which all take their turn."""
    open_ = {name: start(worker, threads, name, threads, case) for name in names}
    for pipe, _ in open_.values():
        pipe.recv()
    answers = {name: [] for name in names}
    for _ in range(ROUNDS):
        for name, (pipe, _) in open_.items():
            pipe.send(True)
            answers[name].append(pipe.recv())
    for pipe, process in open_.values():
        pipe.send(False)
        process.join()
    return [row(name, threads, answers) for name in names]


def row(name: str, threads: int, answers: dict[str, list]) -> dict:
    """Figures of an evaluator, ratios being to ours of the same round."""
    reference = answers["ours"][0][3]
    _, peak, grown, means = answers[name][-1]
    ratios = [own[0] / our[0] for own, our in zip(answers[name], answers["ours"], strict=True)]
    return {
        "evaluator": name,
        "threads": threads,
        "seconds": round(float(np.median([x[0] for x in answers[name]])), 3),
        "ratio": round(float(np.median(ratios)), 1),
        "peak_mib": round(peak),
        "grown_mib": round(grown),
        "map_multi": round(float(np.mean([v[0] for k, v in means.items() if k[0] == "multi"])), 4),
        "difference": max(
            float(np.abs(np.subtract(own, reference[key])).max()) for key, own in means.items()
        ),
    }


# ---- the report ----


def benchmark_of(questions: int, folder: str) -> Benchmark:
    """XQuAD-R in a folder, or one made up."""
    if not folder:
        return made_up(questions)
    from lib.benchmarks import lareqa

    spec = SimpleNamespace(
        folder=str(Path(folder).resolve()), split="", languages=[], candidate="sentence"
    )
    return part_of(lareqa.load("xquad-r", spec), questions)[0]


def sample_of(benchmark: Benchmark) -> Case:
    """The case of part 2: some questions, all candidates."""
    few, rows = part_of(benchmark, SAMPLE)
    asked, searched = vectors(benchmark)
    scores = [tile for _, tile in search.tiles(asked[rows], searched)]
    return Case(few, without_ties(np.concatenate(scores)))


def main() -> None:
    """Print both parts as tables, then the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--questions", type=int, default=ALL, help="in each language")
    parser.add_argument("--folder", default="", help="of XQuAD-R's files")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    arguments = parser.parse_args()
    benchmark = benchmark_of(arguments.questions, arguments.folder)
    full = {}
    for threads in arguments.threads:
        pipe, process = start(whole, threads, threads, benchmark)
        full[threads] = pipe.recv()
        process.join()
    case = sample_of(benchmark)
    factor = len(benchmark.questions) / len(case.benchmark.questions)
    names = [name for name in EVALUATORS if name == "ours" or find_spec(name.split("_arr")[0])]
    rows = []
    for threads in full:  # pytrec_eval has no threads
        used = [name for name in names if threads == 1 or name != "pytrec_eval"]
        rows += side_by_side(case, used, threads)
    for found in rows:
        found["scaled_seconds"] = round(found["seconds"] * factor, 1)
    size = f"{len(benchmark.questions):,} questions x {len(benchmark.candidates):,} candidates"
    print(f"\n1. {size}, from vectors of width {WIDTH} to tables (measured, ours alone)\n")
    print(pd.DataFrame(list(full.values())).to_string(index=False))
    print(f"\n2. {len(case.benchmark.questions)} of the questions, from the same scores")
    print("   ratio: of seconds to ours. scaled_seconds: seconds times all / these questions\n")
    print(pd.DataFrame(rows).to_string(index=False))
    versions = {x: version(VERSIONS[x]) for x in names if x in VERSIONS}
    shown = {"speed": "metrics", "questions": len(benchmark.questions)}
    shown |= {"candidates": len(benchmark.candidates), "sample": len(case.benchmark.questions)}
    print(json.dumps(shown | {"versions": versions, "full": list(full.values()), "rows": rows}))


if __name__ == "__main__":
    main()
