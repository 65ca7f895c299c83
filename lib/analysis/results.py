"""The scores of a study's runs and references, summed so that statistics and plots can use them.

Per-question scores are summed within clusters and strata run by run, so that memory stays small
whatever the study's size; every figure of a report is a mean of these sums.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lib.metrics import BIAS, CELL, QUALITY, SETTINGS, macro_mean
from lib.params import Train
from lib.sampler import ARMS, arm_name

Select = Callable[[pd.DataFrame], pd.DataFrame]
# What a headline figure is a mean of, where a benchmark has the stratum.
HEADLINE = {"hops": "2-hop", "wording": "held-out"}
STRATA = ("hops", "wording", "cell", "names", "trained")
HIT = "hit1"  # whether the first candidate is relevant; R@1 of k relevant ones is at most 1 / k
WITH_ALPHA = [name for name, shares in ARMS.items() if "alpha" in shares]
# What a strategy is called at alpha 0 and at alpha 1.
ENDS = {"hybrid": ("cross", "mono"), "hybrid-pair": ("cross-pair", "mono"), "mix": ("cross", "x-x")}


@dataclass(frozen=True)
class ScoredRun:
    """One trained and evaluated encoder."""

    key: str
    arm: str
    train: Train
    folder: Path

    @property
    def seed(self) -> int:
        return self.train.seed

    @property
    def strategy(self) -> str:
        """As in `train`; where the softmax leaves out rows of a batch, another one that says so."""
        return self.train.strategy + _left_out(self.train)


def arm_labels(trains: dict[str, Train]) -> dict[str, str]:
    """Run key -> name of its arm: short where that is clear, else the key without the seed."""
    short = {key: _label(train) for key, train in trains.items()}
    meanings: dict[str, set] = {}
    for key, label in short.items():
        meanings.setdefault(label, set()).add(_without_seed(key))
    return {
        key: label if len(meanings[label]) == 1 else _without_seed(key)
        for key, label in short.items()
    }


def _label(train: Train) -> str:
    return arm_name(train.strategy, train.alpha) + _left_out(train) if train.steps else "untrained"


def _left_out(train: Train) -> str:
    """What makes the softmax over a part of the batch, to follow a name: `, in_language`."""
    most = f", {train.most_negatives} negatives" if train.most_negatives else ""
    return (", in_language" if train.negatives == "in_language" else "") + most


def _without_seed(key: str) -> str:
    return ",".join(part for part in key.split(",") if not re.match(r"(train\.)?seed=", part))


# --- sums over questions -----------------------------------------------------------------------


def cluster_sums(scores: pd.DataFrame) -> pd.DataFrame:
    """Sums and counts of every metric by setting, languages, stratum and cluster (`group`)."""
    scores = scores[scores["setting"].isin(SETTINGS)]
    scores = scores.assign(hit1=(scores["r1"] > 0).astype(float)) if "r1" in scores else scores
    metrics = [m for m in (*QUALITY, HIT, *BIAS) if m in scores]
    keys = ["setting", *CELL, *(s for s in STRATA if s in scores), "group"]
    sums = scores.groupby(keys, observed=True, dropna=False)[metrics].agg(["sum", "count"])
    sums.columns = [m if kind == "sum" else f"n_{m}" for m, kind in sums.columns]
    return sums.reset_index()


def language_cells(scores: pd.DataFrame) -> pd.DataFrame:
    """Mean AP by setting and (question language, candidate language), of the headline's
    questions; names are not selected, so that every cell has the same questions."""
    rows = headline(scores, names=False)
    return rows.groupby(["setting", *CELL], observed=True)["ap"].mean().reset_index()


def mean_of_sums(sums: pd.DataFrame, keys: list[str], metric: str = "ap") -> pd.Series:
    """Mean of a metric by `keys`: over questions first, then over pairs of languages. sums: a table
    of `cluster_sums`."""
    cells = sums.groupby([*keys, *CELL], observed=True)[[metric, f"n_{metric}"]].sum()
    means = (cells[metric] / cells[f"n_{metric}"]).dropna()
    return macro_mean(means, keys)


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
    runs: list[ScoredRun]
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

    def table(
        self, arm: str, setting: str, metric: str = "ap", select: Select = headline
    ) -> pd.DataFrame:
        """Per-cluster means of an arm: columns seed, cluster, value, weight, as `stats` asks.

        Weights are such that the weighted mean of a seed is the mean over pairs of languages, as
        in `macro_mean`; with as many questions in every pair they count questions."""
        rows = self.sums[(self.sums["arm"] == arm) & (self.sums["setting"] == setting)]
        rows = select(rows)
        total, count = rows[metric].to_numpy(float), rows[f"n_{metric}"]
        in_cell = count.groupby([rows["seed"], *(rows[c] for c in CELL)], observed=True)
        questions = in_cell.transform("sum").to_numpy(float)
        mean_size = in_cell.sum().groupby("seed").mean().reindex(rows["seed"]).to_numpy(float)
        share = np.divide(mean_size, questions, out=np.zeros_like(total), where=questions > 0)
        sums = pd.DataFrame(
            {
                "seed": rows["seed"].to_numpy(),
                "cluster": rows["group"].astype(str).to_numpy(),
                "value": total * share,
                "weight": count.to_numpy() * share,
            }
        )
        means = sums.groupby(["seed", "cluster"], as_index=False).sum()
        means = means[means["weight"] > 0].reset_index(drop=True)
        return means.assign(value=means["value"] / means["weight"])

    def asked(self, arm: str, setting: str, metric: str = "ap", select: Select = headline) -> int:
        """Questions of an arm in a setting, a seed: reference rankers may answer a sample alone.
        One that is asked in several languages' pools counts in each."""
        rows = select(self.sums[(self.sums["arm"] == arm) & (self.sums["setting"] == setting)])
        return round(rows[f"n_{metric}"].sum() / max(rows["seed"].nunique(), 1))

    def family(self, name: str) -> list[str]:
        """Arms of a strategy that takes alpha, in order of it; the ends may have names of their own
        (ENDS)."""
        arms, ends = {}, ENDS.get(name, ())
        for run in (r for r in self.runs if r.train.steps):
            strategy, alpha = run.strategy, run.train.alpha
            if strategy in ENDS and alpha in (0, 1):
                strategy = ENDS[strategy][int(alpha)]
            if strategy in ends:
                alpha = ends.index(strategy)
            if strategy in (name, *ends):
                arms[alpha] = run.arm
        return [arms[alpha] for alpha in sorted(arms)]
