"""The scores of a study's runs and references, as tables that statistics and plots can use.

Per-question scores are summed within clusters and strata run by run, so that memory stays small
whatever the study's size; every figure of a report is a mean of these sums.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lib import params, store
from lib.params import BenchmarkSpec, Train

QUALITY = ("ap", "ap20", "r1", "r10", "r100", "ndcg10")
BIAS = ("rank_distance", "rank_distance_ratio", "max_at_r", "own_language_advantage")
SETTINGS = ("mono", "cross", "multi")
# What a headline figure is a mean of, where a benchmark has the stratum (design: rule 9).
HEADLINE = {"hops": "2-hop", "wording": "held-out"}
REFERENCES = {
    "random": "random",
    "oracle": "own-language oracle",
    "bm25_words": "BM25 words",
    "bm25_chars": "BM25 char n-grams",
}
STRATA = ("hops", "wording", "cell", "names", "trained")
CELL = ["question_language", "candidate_language"]
IDENTITIES = {"mono": ("hybrid", 1.0), "cross": ("hybrid", 0.0), "x-x": ("mix", 1.0)}


@dataclass(frozen=True)
class Run:
    """One trained and evaluated encoder."""

    key: str
    arm: str
    train: Train
    folder: Path

    @property
    def seed(self) -> int:
        return self.train.seed


def _label(train: Train) -> str:
    if train.steps == 0:
        return "untrained"
    alpha = f"({train.alpha:g})" if train.strategy in ("hybrid", "mix") else ""
    return train.strategy + alpha


def _without_seed(key: str) -> str:
    return ",".join(part for part in key.split(",") if not re.match(r"(train\.)?seed=", part))


def _labels(trains: dict[str, Train]) -> dict[str, str]:
    """Run key -> name of its arm: short where that is clear, else the key without the seed."""
    short = {key: _label(train) for key, train in trains.items()}
    meanings: dict[str, set] = {}
    for key, label in short.items():
        meanings.setdefault(label, set()).add(_without_seed(key))
    return {
        key: label if len(meanings[label]) == 1 else _without_seed(key)
        for key, label in short.items()
    }


def runs(study: str, only: str = "") -> list[Run]:
    """Evaluated runs of a study, in the order of its grid.

    Raises ValueError naming what is missing: no run at all, or a grid that is not complete."""
    wanted = [only] if only else _grid(study)
    missing = [k for k in wanted if not (params.run_dir(study, k) / "metrics.json").exists()]
    if missing or not wanted:
        raise ValueError(
            f"study {study}: no evaluated run{f' {missing[0]}' if missing else ''}"
            f"{f' and {len(missing) - 1} more' if len(missing) > 1 else ''}; "
            "run 02_train and 03_evaluate first"
        )
    folders = {key: params.run_dir(study, key) for key in wanted}
    trains = {key: Train(**store.read_json(f / "params.json")) for key, f in folders.items()}
    labels = _labels(trains)
    return [Run(key, labels[key], trains[key], folders[key]) for key in wanted]


def _grid(study: str) -> list[str]:
    """Keys of all runs of a study; of those that were evaluated where no study file made them."""
    return params.grid_keys(study) or sorted(
        f.parent.name for f in params.study_dir(study).glob("runs/*/metrics.json")
    )


# --- sums over questions -----------------------------------------------------------------------


def cluster_sums(scores: pd.DataFrame) -> pd.DataFrame:
    """Sums and counts of every metric by setting, languages, stratum and cluster (`group`)."""
    scores = scores[scores["setting"] != "one_target"]
    metrics = [m for m in (*QUALITY, *BIAS) if m in scores]
    keys = ["setting", *CELL, *(s for s in STRATA if s in scores), "group"]
    found = scores.groupby(keys, observed=True, dropna=False)[metrics].agg(["sum", "count"])
    found.columns = [m if kind == "sum" else f"n_{m}" for m, kind in found.columns]
    return found.reset_index()


def language_cells(scores: pd.DataFrame) -> pd.DataFrame:
    """Mean AP by setting and (question language, candidate language), of the headline's
    questions; names are not selected, so that every cell has the same questions."""
    own = headline(scores, names=False)
    return own.groupby(["setting", *CELL], observed=True)["ap"].mean().reset_index()


def macro_mean(sums: pd.DataFrame, keys: list[str], metric: str = "ap") -> pd.Series:
    """Mean of a metric by `keys`: over questions first, then over pairs of languages, each of
    which weighs the same however many questions it has. sums: a table of `cluster_sums`."""
    cells = sums.groupby([*keys, *CELL], observed=True)[[metric, f"n_{metric}"]].sum()
    means = (cells[metric] / cells[f"n_{metric}"]).dropna()
    return means.groupby(keys, observed=True).mean()


def headline(table: pd.DataFrame, names: bool = True) -> pd.DataFrame:
    """Rows of the headline stratum. Only cross-lingual rows are chosen by how names differ."""
    for column, value in HEADLINE.items():
        if column in table and (table[column] == value).any():
            table = table[table[column] == value]
    if names and "names" in table:
        other = (table["setting"] != "cross") | (table["names"] == "different")
        table = table[other]
    return table


def stratum(table: pd.DataFrame) -> str:
    """What `headline` selects of a table, in words."""
    two_hop, held_out = (
        column in table and (table[column] == value).any() for column, value in HEADLINE.items()
    )
    words = "Two-hop questions" if two_hop else "All test questions"
    words += " in a held-out wording" if held_out else ""
    names = "; across languages only those whose names are all spelled differently"
    return words + (names if "names" in table else "") + "."


@dataclass(frozen=True)
class Results:
    """All figures of a study on one benchmark.

    name   of the benchmark
    runs   the trained runs (untrained ones among them)
    sums   arm, seed, setting, languages, strata, group, metric sums and counts; references are
           arms too
    cells  arm, seed, setting, question_language, candidate_language, ap
    """

    name: str
    runs: list[Run]
    sums: pd.DataFrame
    cells: pd.DataFrame

    @property
    def arms(self) -> list[str]:
        """Trained arms, in the order of the grid."""
        return list(dict.fromkeys(r.arm for r in self.runs if r.train.steps))

    @property
    def settings(self) -> list[str]:
        """Those of SETTINGS that the benchmark has: one in a single language has mono alone."""
        if self.sums["question_language"].nunique() == 1 and not self._has("cross"):
            return ["mono"]
        return [setting for setting in SETTINGS if self._has(setting)]

    @property
    def questions(self) -> int:
        """Questions of all languages that have a relevant passage in their own."""
        first = self.sums[(self.sums["arm"] == self.sums["arm"].iloc[0])]
        first = first[(first["setting"] == "mono") & (first["seed"] == first["seed"].iloc[0])]
        return int(first["n_ap"].sum())

    def _has(self, setting: str) -> bool:
        return (self.sums["setting"] == setting).any()

    @property
    def biases(self) -> list[str]:
        """Those of BIAS that the benchmark has: they need parallel passages."""
        return [metric for metric in BIAS if self.sums[f"n_{metric}"].any()]

    @property
    def references(self) -> list[str]:
        """Rows that are not trained here: random, oracle, BM25, the untrained encoder."""
        return [arm for arm in dict.fromkeys(self.sums["arm"]) if arm not in self.arms]

    def table(self, arm: str, setting: str, metric: str = "ap", select=headline) -> pd.DataFrame:
        """Per-cluster means of an arm: columns seed, cluster, value, weight, as lib.stats asks.

        Weights are such that the weighted mean of a seed is the mean over pairs of languages, as
        in `macro_mean`; with as many questions in every pair they count questions."""
        own = self.sums[(self.sums["arm"] == arm) & (self.sums["setting"] == setting)]
        own = select(own)
        total, count = own[metric].to_numpy(float), own[f"n_{metric}"]
        in_cell = count.groupby([own["seed"], *(own[c] for c in CELL)], observed=True)
        questions = in_cell.transform("sum").to_numpy(float)
        mean_size = in_cell.sum().groupby("seed").mean().reindex(own["seed"]).to_numpy(float)
        share = np.divide(mean_size, questions, out=np.zeros_like(total), where=questions > 0)
        sums = pd.DataFrame(
            {
                "seed": own["seed"].to_numpy(),
                "cluster": own["group"].astype(str).to_numpy(),
                "value": total * share,
                "weight": count.to_numpy() * share,
            }
        )
        found = sums.groupby(["seed", "cluster"], as_index=False).sum()
        found = found[found["weight"] > 0].reset_index(drop=True)
        return found.assign(value=found["value"] / found["weight"])

    def family(self, name: str) -> list[str]:
        """Arms of `hybrid` or `mix` in order of alpha; the ends are cross, and mono or x-x."""
        found = {}
        for run in self.runs:
            strategy, alpha = IDENTITIES.get(
                run.train.strategy, (run.train.strategy, run.train.alpha)
            )
            if run.train.steps and (strategy == name or (strategy, alpha) == ("hybrid", 0.0)):
                found[alpha] = run.arm
        return [found[alpha] for alpha in sorted(found)]


def load(study: str, benchmark: str, only: str = "") -> Results:
    """Read every run's scores of a benchmark, and the references of the corpora they used.

    Raises ValueError when a run of the grid has not been evaluated, or its files were altered."""
    found, sums, cells, seen = runs(study, only), [], [], set()
    specs = benchmarks(study, only)
    if benchmark not in specs:
        raise ValueError(
            f"benchmark {benchmark!r}: was not evaluated in every run of study {study} "
            f"(expected one of {', '.join(specs)})"
        )
    with_references = specs[benchmark].format != "miracl"  # too large for them
    for run in found:
        corpus = (run.train.corpus, run.seed)
        beside = params.beside_dir(params.corpus_dir(study, run.train.corpus), benchmark)
        if corpus not in seen and with_references:
            seen.add(corpus)
            references = _verified(beside, "references.parquet")
            for name, own in references.groupby("ranker", observed=True):
                _add(sums, cells, own, REFERENCES[name], run.seed)
        if with_references:
            _check_content(run, benchmark, beside)
        scores = _verified(run.folder / "scores", f"{benchmark}.parquet")
        _add(sums, cells, scores, run.arm, run.seed)
    return Results(
        benchmark,
        found,
        pd.concat(sums, ignore_index=True),
        pd.concat(cells, ignore_index=True),
    )


def accuracy(study: str, benchmark: str, only: str = "") -> pd.DataFrame:
    """Scores of every run on Tatoeba: arm, seed, direction, cluster (a language), accuracy, f1,
    weight (1: every language weighs the same)."""
    parts = [
        _verified(run.folder / "scores", f"{benchmark}.parquet").assign(arm=run.arm, seed=run.seed)
        for run in runs(study, only)
    ]
    table = pd.concat(parts, ignore_index=True).assign(weight=1.0)
    return table.rename(columns={"name": "cluster"})


def benchmarks(study: str, only: str = "") -> dict[str, BenchmarkSpec]:
    """The benchmarks that every run of a study was evaluated on, the report's own first."""
    found = [
        store.read_json(run.folder / "metrics.json")["benchmarks"] for run in runs(study, only)
    ]
    return {
        name: BenchmarkSpec(**spec)
        for name, spec in found[0].items()
        if all(other.get(name) == spec for other in found)
    }


def leaks(study: str, only: str = "") -> pd.DataFrame:
    """The leak audits of a study's benchmarks with its corpora, one below the other, in column
    `benchmark` whose. MIRACL and Tatoeba are not audited."""
    corpora, parts = {run.train.corpus: None for run in runs(study, only)}, []
    for name in benchmarks(study, only):
        for key in corpora:
            folder = params.beside_dir(params.corpus_dir(study, key), name)
            if folder.exists():
                parts.append(_verified(folder, "leaks.parquet").assign(benchmark=name))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _check_content(run: Run, benchmark: str, beside: Path) -> None:
    """Raise ValueError where a run was scored on other files than the reference rankers."""
    scored = store.read_json(run.folder / "metrics.json")["digests"].get(benchmark)
    if scored != store.verify(beside)["made_from"]["benchmark"]:
        raise ValueError(
            f"benchmark {benchmark!r}: run {run.key} was scored on other files than those that "
            f"{beside} was made from; remove {run.folder / 'scores'} to have it scored again"
        )


def _verified(folder: Path, file: str) -> pd.DataFrame:
    """A table out of a folder whose manifest verifies."""
    store.verify(folder)
    return pd.read_parquet(folder / file)


def _add(sums: list, cells: list, scores: pd.DataFrame, arm: str, seed: int) -> None:
    for table, target in ((cluster_sums(scores), sums), (language_cells(scores), cells)):
        target.append(table.assign(arm=arm, seed=seed))


def plain(table: pd.DataFrame) -> dict:
    """A table as nested dicts for JSON, row by row; NaN becomes None."""
    return {
        str(key): {k: None if pd.isna(v) else v for k, v in row.items()}
        for key, row in table.to_dict("index").items()
    }
