"""The summed scores of a study's runs and references, as statistics, tables and plots use them."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from lib.analysis.bias import FIELD
from lib.analysis.sums import headline
from lib.metrics import BIAS, SETTINGS
from lib.params import Train
from lib.sampler import ARMS, arm_name

Select = Callable[[pd.DataFrame], pd.DataFrame]
WITH_ALPHA = [name for name, shares in ARMS.items() if "alpha" in shares]
AFTER = ("centred", "projected")  # maps that change a trained encoder's vectors, untrained
SWITCHED = ", switched"
TEMPERED = re.compile(r", temperature [\d.e-]+$")
# What a strategy is called at alpha 0 and at alpha 1.
ENDS = {"hybrid": ("cross", "mono"), "hybrid-pair": ("cross-pair", "mono"), "mix": ("cross", "x-x")}


@dataclass(frozen=True)
class ScoredRun:
    """One trained and evaluated encoder. switched: its English pairs were code-switched."""

    key: str
    arm: str
    train: Train
    folder: Path
    switched: bool = False

    @property
    def seed(self) -> int:
        return self.train.seed

    @property
    def plain(self) -> str:
        """The arm's name without a temperature of its own (`arm_labels`)."""
        return TEMPERED.sub("", self.arm)

    @property
    def strategy(self) -> str:
        """As in `train`; where more than the batches is otherwise, another one that says so."""
        alone, tempered = " alone" * bool(self.train.only), self.arm.removeprefix(self.plain)
        apart = alone + SWITCHED * self.switched + tempered
        return self.train.strategy + apart + _besides(self.train)


def arm_labels(trains: dict[str, Train], switched: Container[str] = ()) -> dict[str, str]:
    """Run key -> name of its arm: short where that is clear, else the key without the seed. Of arms
    that differ in temperature alone the first has the short name, and others say theirs.
    switched: keys of runs whose English pairs were code-switched."""
    short = {key: _label(train, SWITCHED * (key in switched)) for key, train in trains.items()}
    short |= {
        key: f"{short.get(_began(train), 'untrained')}, {train.maps}"
        for key, train in trains.items()
        if mapped_after(train)
    }
    first: dict[str, float] = {}
    for key, train in trains.items():
        same = (short[key], train.model_copy(update={"temperature": 1.0, "seed": 0, "run": ""}))
        if train.steps and train.temperature != first.setdefault(repr(same), train.temperature):
            short[key] += f", temperature {train.temperature:g}"
    meanings: dict[str, set] = {}
    for key, label in short.items():
        meanings.setdefault(label, set()).add(_without_seed(key))
    return {
        key: label if len(meanings[label]) == 1 else _without_seed(key)
        for key, label in short.items()
    }


def mapped_after(train: Train) -> bool:
    """Whether a run is an encoder as it was, behind a map that nobody trained."""
    return train.maps in AFTER and not train.steps


def _began(train: Train) -> str:
    """Key of the run whose encoder a run starts from; "" where it names none."""
    run = re.search(r"/runs/([^/]+)/", train.model)
    return run[1] if run else ""


def _label(train: Train, pairs: str = "") -> str:
    if not train.steps:
        return "untrained"
    name = f"{train.only} alone" if train.only else arm_name(train.strategy, train.alpha)
    return name + pairs + _besides(train)


def _besides(train: Train) -> str:
    """What is otherwise than InfoNCE over the batch's texts as they are, to follow a name:
    `, lakda`."""
    first = train.mono_prompt or train.cross_prompt
    asked = f", {quoted(first, train)}" if first else ""
    return _left_out(train) + (f", {train.objective}" if train.objective else "") + asked


def quoted(prompt: str, train: Train) -> str:
    """What a prompt says beyond the encoder's own, as names have it: `"same language"`."""
    return f'"{prompt.removeprefix(train.question_prompt).strip(" :") or "none"}"'


def _left_out(train: Train) -> str:
    """What makes the softmax over a part of the batch: `, in_language`."""
    most = f", {train.most_negatives} negatives" if train.most_negatives else ""
    return (", in_language" if train.negatives == "in_language" else "") + most


def _without_seed(key: str) -> str:
    return ",".join(part for part in key.split(",") if not re.match(r"(train\.)?seed=", part))


@dataclass(frozen=True)
class Results:
    """All figures of a study on one benchmark.

    name   of the benchmark
    runs   the trained runs (untrained ones among them)
    sums   arm, seed, and the columns of `sums.summed`; references are arms too
    cells  arm, seed, and the columns of `sums.language_cells`
    """

    name: str
    runs: list[ScoredRun]
    sums: pd.DataFrame
    cells: pd.DataFrame

    @property
    def arms(self) -> list[str]:
        """Trained arms, in the order of the grid; encoders as they are where none is trained."""
        trained = [r for r in self.runs if r.train.steps]
        return list(dict.fromkeys(r.arm for r in trained or self.runs))

    @property
    def compositions(self) -> list[str]:
        """Of `arms` those that can be used, each for itself: none whose loss leaves out rows, which
        says why others work, unless all do."""
        whole = {r.arm for r in self.runs if not _left_out(r.train)}
        return [arm for arm in self.arms if arm in whole] or self.arms

    @property
    def settings(self) -> list[str]:
        """Those of SETTINGS that the benchmark has: one in a single language has mono alone."""
        found = [setting for setting in SETTINGS if (self.sums["setting"] == setting).any()]
        single = "cross" not in found and self.cells["question_language"].nunique() == 1
        return ["mono"] if single else found

    @property
    def questions(self) -> int:
        """Questions of all languages that have a relevant passage in their own."""
        first = self.runs[0]
        return self.asked(first.arm, "mono", select=lambda table: table)

    @property
    def biases(self) -> list[str]:
        """Those of BIAS and FIELD that all arms and references have: they need parallel passages,
        and FIELD is of encoders alone."""
        return self.in_all((*BIAS, *FIELD))

    def in_all(self, metrics: Iterable[str]) -> list[str]:
        """Those that every arm and reference has."""
        having = self.sums.groupby("metric", observed=True)["arm"].nunique()
        every = self.sums["arm"].nunique()
        return [metric for metric in metrics if having.get(metric, 0) == every]

    @property
    def references(self) -> list[str]:
        """Rows that are not trained here: random, oracle, BM25, the untrained encoder."""
        return [arm for arm in dict.fromkeys(self.sums["arm"]) if arm not in self.arms]

    def table(
        self, arm: str, setting: str, metric: str = "ap", select: Select = headline
    ) -> pd.DataFrame:
        """Per-cluster means of an arm: columns seed, cluster, value, weight, as `stats` asks, arm
        and questions; empty where it has none.

        The weighted mean of a seed is the mean over pairs of languages, as in `sums.summed`."""
        key = (setting, metric, select)
        if key not in self._tables:  # of all arms at once: a report asks for a thousand tables
            rows = self._blocks.get(key[:2], self.sums.head(0))
            self._tables[key] = _by_arm(select(rows))
        return self._tables[key].get(arm, NOTHING)

    def asked(self, arm: str, setting: str, metric: str = "ap", select: Select = headline) -> int:
        """Questions of an arm in a setting, a seed: reference rankers may answer a sample alone.
        One that is asked in several languages' pools counts in each."""
        rows = self.table(arm, setting, metric, select)
        return round(rows["questions"].sum() / max(rows["seed"].nunique(), 1))

    @cached_property
    def _tables(self) -> dict[tuple[str, str, Select], dict[str, pd.DataFrame]]:
        return {}

    @cached_property
    def _blocks(self) -> dict[tuple[str, str], pd.DataFrame]:
        """The sums by setting and metric."""
        return dict(list(self.sums.groupby(["setting", "metric"], observed=True, sort=False)))

    def alphas(self, name: str) -> dict[float, str]:
        """alpha -> arm of a strategy that takes alpha, in order of it; the ends may have names of
        their own (ENDS)."""
        arms, ends = {}, ENDS.get(name, ())
        for run in (r for r in self.runs if r.train.steps):
            strategy, alpha = run.strategy, run.train.alpha
            if strategy in ENDS and alpha in (0, 1):
                strategy = ENDS[strategy][int(alpha)]
            if strategy in ends:
                alpha = float(ends.index(strategy))
            if strategy in (name, *ends):
                arms[alpha] = run.arm
        return dict(sorted(arms.items()))


NOTHING = pd.DataFrame(columns=["seed", "cluster", "value", "weight", "questions"])


def _by_arm(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Arm -> its table of clusters."""
    parts = ["total", "weight", "questions"]
    sums = rows.groupby(["arm", "seed", "group"], observed=True)[parts].sum().reset_index()
    table = sums[["arm", "seed"]].assign(
        cluster=sums["group"].astype(str),
        value=sums["total"] / sums["weight"],
        weight=sums["weight"],
        questions=sums["questions"],
    )
    return dict(list(table.groupby("arm", observed=True)))
