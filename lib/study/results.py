"""What evaluated runs leave on the disk, written and read in one place.

scores/<benchmark>.parquet has a row a question and setting, scores/budget-<B>/<benchmark>.parquet
the same of a smaller budget's encoder. sums/ has what lib.analysis.sums makes of each, and is all
that the analysis reads; metrics.json has the means. References and leak audits lie with the corpus,
since every run of it shares them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

import pandas as pd
import pyarrow.parquet as pq

from lib import metrics, store
from lib.analysis import sums
from lib.analysis.results import Results, ScoredRun, arm_labels
from lib.benchmarks import format_of, load_benchmark
from lib.corpus import ParallelCorpus
from lib.metrics import REFERENCES
from lib.params import Analyse, BadParameter, BenchmarkSpec, Train
from lib.study import grid, paths
from lib.study.evaluate import Scored, with_references

READ = ("exposure.json", "provenance.json")  # of a run's record, by the analysis
BUDGET = "budget-"  # begins the folders of smaller budgets

# --- written by 03_evaluate --------------------------------------------------------------------


def save_scores(
    folder: Path,
    specs: Mapping[str, BenchmarkSpec],
    scored: Mapping[str, Scored],
    smaller: Mapping[int, Mapping[str, Scored]] = MappingProxyType({}),
) -> pd.DataFrame:
    """Write a run's scores and their means; these, by benchmark and setting, "headline" last.

    specs, scored: by name of the benchmark, the report's own first. smaller: `scored` by
    budget. metrics.json is written last: with it the run counts as evaluated."""
    every = {"": scored} | {f"{BUDGET}{budget}": own for budget, own in smaller.items()}
    for name, save in (("scores", _save_scores), ("sums", _save_sums)):
        with store.atomic_folder(folder / name) as new:
            for place, results in every.items():
                store.make_folder(new / place)
                save(new / place, results)
    means = _means(scored)
    written = {
        "benchmarks": {name: specs[name].model_dump() for name in scored},
        "digests": {name: result.digest for name, result in scored.items()},
        "summary": {name: _plain(table) for name, table in means.items()},
    }
    by_budget = {
        str(budget): {name: _plain(table) for name, table in _means(own).items()}
        for budget, own in smaller.items()
    }
    store.write_json(folder / "metrics.json", written | {"budgets": by_budget})
    first = _sums(folder / "sums" / f"{next(iter(scored))}.parquet")
    own = sums.means(sums.headline(first), ["setting", "metric"]).unstack()
    return pd.concat(means | {"headline": own})


def _save_scores(folder: Path, scored: Mapping[str, Scored]) -> None:
    """One file a benchmark."""
    for name, result in scored.items():
        result.scores.to_parquet(folder / f"{name}.parquet", index=False)


def _save_sums(folder: Path, scored: Mapping[str, Scored]) -> None:
    """<benchmark>.parquet and <benchmark>.cells.parquet, and what else was measured of the vectors
    as <benchmark>.agnostic.parquet; of sentence search, whose scores are means of languages
    already, these.

    They are kept with reports for good, so totals have seven digits, and smaller budgets mAP."""
    for name, result in scored.items():
        table = result.scores
        if "setting" in table:
            cells = sums.language_cells(table)
            cells.to_parquet(folder / f"{name}.cells.parquet", index=False)
            table = sums.summed(table).astype({"total": "float32"})
            table = table[table["metric"] == "ap"] if folder.name.startswith(BUDGET) else table
        if len(result.agnostic):
            result.agnostic.to_parquet(folder / f"{name}.agnostic.parquet", index=False)
        table.to_parquet(folder / f"{name}.parquet", index=False)


def _sums(file: Path) -> pd.DataFrame:
    """What `_save_sums` has written, to compute with; not to be changed, since it is read once."""
    return _sums_of(file, file.stat().st_mtime_ns)


@lru_cache(maxsize=1024)
def _sums_of(file: Path, _written: int) -> pd.DataFrame:
    with pq.ParquetFile(file) as read:  # pandas' own reader takes twice as long, of 1,600 files
        table = read.read(use_threads=False).to_pandas(use_threads=False)
    for name in table.select_dtypes("float32"):
        table[name] = table[name].astype("float64")
    return table


def _means(scored: Mapping[str, Scored]) -> dict[str, pd.DataFrame]:
    """metrics.summary by benchmark, sentence search apart."""
    tables = {name: result.scores for name, result in scored.items()}
    return {name: metrics.summary(table) for name, table in tables.items() if "setting" in table}


def _plain(table: pd.DataFrame) -> dict:
    """A table as nested dicts for JSON, row by row; NaN becomes None."""
    return {
        str(key): {k: None if pd.isna(v) else v for k, v in row.items()}
        for key, row in table.to_dict("index").items()
    }


# --- read by 04_analyse ------------------------------------------------------------------------


def scored_runs(study: str, only: str = "") -> list[ScoredRun]:
    """Evaluated runs of a study, in the order of its grid.

    Raises ValueError naming what is missing: no run at all, or a grid that is not complete."""
    wanted = [only] if only else _grid(study)
    missing = [k for k in wanted if not (paths.run_dir(study, k) / "metrics.json").exists()]
    if missing or not wanted:
        raise ValueError(
            f"study {study}: no evaluated run{f' {missing[0]}' if missing else ''}"
            f"{f' and {len(missing) - 1} more' if len(missing) > 1 else ''}; "
            "run 02_train and 03_evaluate first"
        )
    folders = {key: paths.run_dir(study, key) for key in wanted}
    trains = {key: Train(**store.read_json(f / "params.json")) for key, f in folders.items()}
    for folder in folders.values():
        _check_record(folder)
    corpora = {t.corpus: paths.corpus_dir(study, t.corpus) / "params.json" for t in trains.values()}
    shares = {name: store.read_json(file).get("switch", 0) for name, file in corpora.items()}
    switched = {key for key, train in trains.items() if shares[train.corpus]}
    labels = arm_labels(trains, switched)
    return [ScoredRun(k, labels[k], trains[k], folders[k], k in switched) for k in wanted]


def _check_record(folder: Path) -> None:
    """Raises store.Damaged where what the analysis reads of a run's record is not as its training
    left it: the manifest of the encoder says."""
    manifest = store.read_json(folder / "model/manifest.json")
    if not store.is_sealed(manifest):
        raise store.Damaged(f"{folder / 'model/manifest.json'}: was altered after it was written")
    store.compare(folder, {name: manifest["record"][name] for name in READ})


def by_label(study: str, runs: list[ScoredRun], axis: str) -> dict[str, list[ScoredRun]]:
    """Label -> the runs of the axis that have it, named as the arms of a study of its own. Raises
    BadParameter for a study without that axis."""
    parts: dict[str, dict[str, ScoredRun]] = {}
    for run in runs:
        labels = paths.labels(run.key)
        if axis not in labels:
            raise BadParameter(f"study {study}: has no axis {axis!r} (expected one)")
        rest = ",".join(f"{name}={x}" for name, x in labels.items() if name != axis)
        parts.setdefault(labels[axis], {})[rest] = run
    found = {}
    for label, own in parts.items():
        trains = {rest: run.train for rest, run in own.items()}
        names = arm_labels(trains, {rest for rest, run in own.items() if run.switched})
        found[label] = [replace(run, arm=names[rest]) for rest, run in own.items()]
    return found


def reported(p: Analyse) -> list[ScoredRun]:
    """The runs that a report is about: those of the axis's last label, where it has one."""
    runs = scored_runs(p.study, p.run)
    return [*by_label(p.study, runs, p.axis).values()][-1] if p.axis else runs


def load_series(p: Analyse, benchmark: str) -> dict[float, dict[int, Results]]:
    """Number of each label of the axis -> budget (0 where there are none) -> results of the runs
    that can be compared. Empty without an axis."""
    found = {}
    runs = scored_runs(p.study, p.run) if p.axis else []
    for label, own in by_label(p.study, runs, p.axis).items():
        kept, _ = comparable(own)
        by_budget = load_budgets(kept, benchmark)
        found[p.number_of(label)] = by_budget or {0: load_results(p.study, kept, benchmark)}
    return found


def comparable(runs: list[ScoredRun]) -> tuple[list[ScoredRun], list[ScoredRun]]:
    """(runs whose arms all have the same seeds and questions, the others), in the given order.

    Arms are compared seed by seed and question by question, and runs made by hand, or arms that
    were prepared otherwise, need not have the same ones. Of the sets that arms have, the one is
    taken that keeps most runs. Untrained encoders stay: they are references, which nothing is
    paired with."""
    seeds: dict[str, set[tuple[int, str]]] = {}
    for run in runs:
        if run.train.steps:
            seeds.setdefault(run.arm, set()).add((run.seed, _asked(run)))
    if not seeds:
        return runs, []
    kept = Counter({frozenset(arm_seeds): 0 for arm_seeds in seeds.values()})
    for common in kept:
        kept[common] = len(common) * sum(common <= arm_seeds for arm_seeds in seeds.values())
    [(common, _)] = kept.most_common(1)
    chosen = [
        run
        for run in runs
        if not run.train.steps or ((run.seed, _asked(run)) in common and common <= seeds[run.arm])
    ]
    return chosen, [run for run in runs if run not in chosen]


def _asked(run: ScoredRun) -> str:
    """What stands for the content of the report's own benchmark, as the run was asked it."""
    digests = store.read_json(run.folder / "metrics.json")["digests"]
    return next(iter(digests.values()))


def _grid(study: str) -> list[str]:
    """Keys of all runs of a study; of those that were evaluated where no study file made them."""
    return grid.keys(study) or sorted(
        f.parent.name for f in paths.study_dir(study).glob("runs/*/metrics.json")
    )


def benchmark_specs(runs: list[ScoredRun]) -> dict[str, BenchmarkSpec]:
    """The benchmarks that all of these runs were evaluated on, the report's own first."""
    specs = [store.read_json(run.folder / "metrics.json")["benchmarks"] for run in runs]
    return {
        name: BenchmarkSpec(**spec)
        for name, spec in specs[0].items()
        if all(other.get(name) == spec for other in specs)
    }


def load_results(study: str, runs: list[ScoredRun], benchmark: str = "") -> Results:
    """The scores of runs on a benchmark, the report's own where none is named, and the references
    of the corpora they used.

    Raises ValueError when a run was not evaluated on it, or its files were altered."""
    specs, parts, seen, digests = benchmark_specs(runs), [], set(), {}
    benchmark = benchmark or next(iter(specs))
    if benchmark not in specs:
        raise ValueError(
            f"benchmark {benchmark!r}: was not evaluated in every run of study {study} "
            f"(expected one of {', '.join(specs)})"
        )
    in_memory = format_of(specs[benchmark]).in_memory
    for run in runs:
        corpus = (run.train.corpus, run.seed)
        if corpus not in seen and in_memory:
            seen.add(corpus)
            place = _references(study, run.train.corpus, benchmark, specs[benchmark])
            made_from = store.read_json(place / "manifest.json")["made_from"]
            digests[run.train.corpus] = made_from["benchmark"]
            parts += _of_references(place, run.seed)
        if in_memory:
            _check_content(run, benchmark, digests[run.train.corpus])
        parts.append(_of_run(run, benchmark))
    return Results(benchmark, runs, *map(_joined, zip(*parts, strict=True)))


def _of_run(run: ScoredRun, benchmark: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The sums and cells of a run on a benchmark, below "budget-<B>/" for a smaller budget."""
    store.verify(run.folder / "sums")
    return tuple(_read(run, f"{benchmark}{end}.parquet") for end in ("", ".cells"))


def _of_references(place: Path, seed: int) -> list[tuple[pd.DataFrame, pd.DataFrame]]:
    """The sums and cells of every reference ranker."""
    tables = [pd.read_parquet(place / f"{name}.parquet") for name in ("sums", "cells")]
    found = []
    for ranker, arm in REFERENCES.items():
        own = (table[table["ranker"] == ranker].drop(columns="ranker") for table in tables)
        found.append(tuple(table.assign(arm=arm, seed=seed) for table in own))
    return found


def _joined(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """One table; what names few things again and again as categories."""
    whole = pd.concat(tables, ignore_index=True)
    return whole.astype(dict.fromkeys(whole.select_dtypes(["object", "string"]), "category"))


def load_budgets(runs: list[ScoredRun], benchmark: str) -> dict[int, Results]:
    """The scores on a benchmark by budget, in increasing order, of the runs that have it and
    without references; empty where no run has budgets."""
    every = sorted({budget for run in runs for budget in run.train.budgets})
    return {budget: _of_budget(runs, benchmark, budget) for budget in every}


def _of_budget(runs: list[ScoredRun], benchmark: str, budget: int) -> Results:
    """The results of one budget."""
    having = [run for run in runs if budget in run.train.budgets]
    place = {run.key: "" if budget == run.train.steps else f"{BUDGET}{budget}/" for run in having}
    parts = [_of_run(run, place[run.key] + benchmark) for run in having]
    return Results(benchmark, having, *map(_joined, zip(*parts, strict=True)))


def load_accuracy(runs: list[ScoredRun], benchmark: str) -> pd.DataFrame:
    """Scores of every run on sentence search: arm, seed, direction, cluster (a language),
    accuracy, f1, weight (1: every language weighs the same)."""
    for run in runs:
        store.verify(run.folder / "sums")
    parts = [_read(run, f"{benchmark}.parquet") for run in runs]
    table = pd.concat(parts, ignore_index=True).assign(weight=1.0)
    return table.rename(columns={"name": "cluster"})


def load_agnostic(runs: list[ScoredRun], benchmark: str) -> pd.DataFrame:
    """arm, seed, and the columns of lib.benchmarks.agnostic.measures, of the runs that have them:
    none that was evaluated before they were measured."""
    file = f"{benchmark}.agnostic.parquet"
    having = [run for run in runs if (run.folder / "sums" / file).exists()]
    for run in having:
        store.verify(run.folder / "sums")
    parts = [_read(run, file) for run in having]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def load_leaks(study: str, runs: list[ScoredRun]) -> pd.DataFrame:
    """The leak audits of the runs' benchmarks with their corpora, one below the other, in column
    `benchmark` whose. Benchmarks that are not held in memory are not audited."""
    corpora, parts = {run.train.corpus: None for run in runs}, []
    for name, spec in benchmark_specs(runs).items():
        for key in corpora if format_of(spec).in_memory else ():
            table = pd.read_parquet(_references(study, key, name, spec) / "leaks.parquet")
            parts.append(table.assign(benchmark=name))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def load_exposure(runs: list[ScoredRun]) -> pd.DataFrame:
    """What each arm saw, mean over seeds: pairs, distinct texts and positives, tokens, FLOPs;
    where an arm has an objective, the texts for it. Empty where none is trained."""
    rows = []
    for run in runs:
        if run.train.steps:
            seen = store.read_json(run.folder / "exposure.json")
            rows.append({"arm": run.arm} | {k: v for k, v in seen.items() if k != "languages"})
    table = pd.DataFrame(rows).fillna(0)  # of texts for an objective, where an arm has none
    return table.groupby("arm", sort=False).mean(numeric_only=True) if rows else table


def corpus_of(study: str, run: Path) -> Path:
    """The folder of the corpus that a run was trained on."""
    return paths.corpus_dir(study, store.read_json(run / "params.json")["corpus"])


def load_corpus_facts(study: str, key: str) -> tuple[str, dict[str, int]]:
    """(source, training rows by language) of a corpus."""
    folder = paths.corpus_dir(study, key)
    counts = store.read_json(folder / "data/manifest.json")["counts"]
    return store.read_json(folder / "params.json")["source"], counts["rows"]


def commits(runs: list[ScoredRun]) -> list[str]:
    """Commits that the runs were made with; more than one is a reason to warn."""
    records = [store.read_json(run.folder / "provenance.json") for run in runs]
    named = ((p["commit"] or "no commit", bool(p["dirty"])) for p in records)
    return sorted({commit[:12] + " with changes" * dirty for commit, dirty in named})


def _check_content(run: ScoredRun, benchmark: str, digest: str) -> None:
    """Raise ValueError where a run was scored on other files than the reference rankers, whose
    benchmark has this digest."""
    scored = store.read_json(run.folder / "metrics.json")["digests"].get(benchmark)
    if scored != digest:
        raise ValueError(
            f"benchmark {benchmark!r}: run {run.key} was scored on other files than the reference "
            f"rankers of its corpus; remove {run.folder / 'scores'} to have it scored again"
        )


def _references(study: str, corpus: str, name: str, spec: BenchmarkSpec) -> Path:
    """The folder of `with_references` of a benchmark; made again if it is gone or damaged."""
    folder = paths.corpus_dir(study, corpus)
    place = paths.references_dir(folder, name)
    try:
        store.verify(place)
    except (FileNotFoundError, store.Damaged):
        data = ParallelCorpus.load(folder / "data")
        with_references(name, load_benchmark(name, spec, data), data)
    return place


def _read(run: ScoredRun, file: str) -> pd.DataFrame:
    """A table out of the run's sums, with its arm and seed."""
    return _sums(run.folder / "sums" / file).assign(arm=run.arm, seed=run.seed)
