"""Encoders side by side on one benchmark, as they are: nobody trained them again.

A published encoder has no seeds. What is uncertain of its mean is which questions were asked, so an
interval is over clusters of questions alone (`stats.interval`, fixed), and a difference of two
encoders is taken question by question, where what makes a question hard for both cancels. Every
encoder is compared with the first. Holm's method adjusts over all differences in mAP, another time
over all in measures of language bias, over all in those of language-agnosticism, and over all
pairs of languages. What is one value of a whole encoder (lib.benchmarks.agnostic.measures) has no
interval: nothing repeats it.

Left out is what training again would change: a verdict is about these two files of weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd

from lib.analysis import agnostic, regions, stats
from lib.analysis.alts import p_value
from lib.analysis.bias import BITEXT, BOUNDS, FIELD
from lib.analysis.results import Results
from lib.analysis.sums import THIN, headline, language_cells, summed
from lib.analysis.tables import DIGITS, NAMES
from lib.languages import script
from lib.metrics import CELL, QUALITY

CLUSTERS = 5  # fewer decide nothing: so few means need not be anywhere near a normal distribution
IN = dict.fromkeys((*QUALITY, *agnostic.QUESTIONS), (0.0, 1.0))  # ends of a measure, if it has any
IN |= BOUNDS | agnostic.BOUNDS
MINUS = "\N{MINUS SIGN}"
PAIR = ["setting", *CELL]


@dataclass(frozen=True)
class Comparison:
    """The encoders of `scores` (name -> table of lib.study.evaluate.annotate), the first of which
    the others are compared with.

    benchmark  its name
    measured   name -> table of lib.benchmarks.agnostic.measures"""

    benchmark: str
    scores: dict[str, pd.DataFrame]
    measured: dict[str, pd.DataFrame] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The encoders, in the order given."""
        return list(self.scores)

    @cached_property
    def results(self) -> Results:
        """Their sums, as tables and plots of a study take them; each is an arm of one seed."""
        sums, cells = (
            pd.concat([made(t).assign(arm=x, seed=0) for x, t in self.scores.items()])
            for made in (summed, language_cells)
        )
        return Results(self.benchmark, [], sums, cells)

    def means(self, setting: str, metric: str) -> list[dict]:
        """A row an encoder: arm, setting, metric, estimate, low, high, clusters, questions."""
        rows = []
        for name in self.names:
            found = stats.interval(self.results.table(name, setting, metric), fixed=True)
            found = found.within(*IN[metric]) if metric in IN else found
            rows.append(
                {
                    "arm": name,
                    "setting": setting,
                    "metric": metric,
                    "estimate": found.estimate,
                    "low": found.low,
                    "high": found.high,
                    "clusters": found.clusters,
                    "questions": self.results.asked(name, setting, metric),
                }
            )
        return rows

    def quality(self) -> pd.DataFrame:
        """Every encoder in every setting and measure of quality, with intervals."""
        rows = (self.means(s, metric) for metric in QUALITY for s in self.results.settings)
        return pd.DataFrame(sum(rows, []))

    def bias(self) -> pd.DataFrame:
        """Language bias over the whole pool; empty where no question has parallel passages."""
        return self._all([("multi", metric) for metric in self.results.biases])

    def agnostic(self) -> pd.DataFrame:
        """As `bias`, of how alike languages are to an encoder, question by question."""
        return self._all(self._agnostic)

    @property
    def _agnostic(self) -> list[tuple[str, str]]:
        """(setting, measure) of agnostic.QUESTIONS that `bias` lacks and all encoders have."""
        found = self.results.in_all(x for x in agnostic.QUESTIONS if x not in FIELD)
        return [("cross" if x in BITEXT else "multi", x) for x in found]

    def _all(self, measures: Sequence[tuple[str, str]]) -> pd.DataFrame:
        """`means` of each (setting, measure), with the column `measure`; empty of none."""
        found = pd.DataFrame(sum((self.means(*x) for x in measures), []))
        return found.assign(measure=found["metric"]) if len(found) else found

    def differences(self) -> pd.DataFrame:
        """Every other encoder minus the first in mAP of each setting. Columns: arm, versus,
        setting, metric, and those of `tested`."""
        return self._against_first([(setting, "ap") for setting in self.results.settings])

    def bias_differences(self) -> pd.DataFrame:
        """As `differences`, in each measure of language bias."""
        return self._against_first([("multi", metric) for metric in self.results.biases])

    def agnostic_differences(self) -> pd.DataFrame:
        """As `differences`, in each measure of `agnostic`."""
        return self._against_first(self._agnostic)

    def vectors(self) -> pd.DataFrame:
        """What vectors say of language, one value an encoder (agnostic.as_they_are)."""
        return agnostic.as_they_are(self.measured)

    def _against_first(self, measures: Sequence[tuple[str, str]]) -> pd.DataFrame:
        first, *others = self.names
        keys = [(name, setting, metric) for setting, metric in measures for name in others]
        gaps = [
            stats.paired(*(self.results.table(x, s, m) for x in (name, first)), fixed=True)
            for name, s, m in keys
        ]
        rows = pd.DataFrame(keys, columns=["arm", "setting", "metric"])
        rows.insert(1, "versus", first)
        return pd.concat([rows, tested(gaps)], axis=1)

    def by_pair(self) -> pd.DataFrame:
        """As `differences`, by language of the question and of the passages (mono is one language):
        arm, versus, setting, question_language, candidate_language, questions, and those of
        `tested`; of pairs with THIN questions or more in two clusters or more."""
        first, *others = self.names
        keys, gaps, own = [], [], {x: _cells(t) for x, t in self.scores.items()}
        for name in others:
            for pair, part in own[name].items():
                gaps.append(stats.paired(part, own[first][pair], fixed=True))
                keys.append((name, first, *pair, int(part["weight"].sum())))
        rows = pd.DataFrame(keys, columns=["arm", "versus", *PAIR, "questions"])
        return pd.concat([rows, tested(gaps)], axis=1)

    def plane(self) -> dict[str, regions.Region]:
        """Encoder -> its mono and cross mAP with an ellipse; empty where one of the two is none."""
        if not {"mono", "cross"} <= {*self.results.settings}:
            return {}
        return {
            name: regions.region(
                *(self.results.table(name, s) for s in ("mono", "cross")), fixed=True
            ).within(0, 1)
            for name in self.names
        }


def _cells(scores: pd.DataFrame) -> dict[tuple, pd.DataFrame]:
    """(setting, question language, passage language) -> tidy table of AP by cluster."""
    rows = headline(scores, but="names")
    rows = rows[rows["setting"].isin(["mono", "cross"])]
    keys = [*PAIR, "group"]
    parts = rows.groupby(keys, observed=True)["ap"].agg(value="mean", weight="size").reset_index()
    parts = parts.rename(columns={"group": "cluster"}).assign(seed=0)
    return {
        pair: part
        for pair, part in parts.groupby(PAIR, observed=True)
        if part["weight"].sum() >= THIN and len(part) > 1
    }


def tested(gaps: Sequence[stats.Paired]) -> pd.DataFrame:
    """One family of differences, a row each: difference, low, high (95 %, of each alone), clusters,
    df, detectable, p, p_holm, verdict.

    verdict     higher or lower where the p value adjusted over the family (Holm 1979) is under
                5 %, else `not separable`; a dash with fewer than CLUSTERS clusters
    detectable  the true difference that a test at 5 % divided by the family's size, which is what
                Holm asks of the smallest p value, tells from zero in 80 % of such benchmarks"""
    adjusted, rows = stats.holm([gap.p for gap in gaps]), []
    for gap, p_holm in zip(gaps, adjusted, strict=True):
        found = gap.difference
        verdict = "not separable"
        if found.clusters < CLUSTERS or np.isnan(gap.p):
            verdict = stats.NO_VERDICT
        elif p_holm < stats.LEVEL:
            verdict = "higher" if found.estimate > 0 else "lower"
        rows.append(
            {
                "difference": found.estimate,
                "low": found.low,
                "high": found.high,
                "clusters": found.clusters,
                "df": found.df,
                "detectable": stats.detectable(found, stats.LEVEL / len(gaps)),
                "p": gap.p,
                "p_holm": float(p_holm),
                "verdict": verdict,
            }
        )
    return pd.DataFrame(rows)


def maps(pairs: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """`B − A` -> difference in mAP by language of the question (rows) and of the passages, ordered
    by script and then by language. pairs: of Comparison.by_pair; none of a single language."""
    found = {}
    several = len(pairs) and pairs[CELL[0]].nunique() > 1
    for (name, first), part in pairs.groupby(["arm", "versus"], sort=False) if several else ():
        part = part.astype(dict.fromkeys(CELL, str))
        gap = part.pivot(index=CELL[0], columns=CELL[1], values="difference")
        order = sorted(gap.index.union(gap.columns), key=lambda code: (script(code), code))
        found[f"{name} {MINUS} {first}"] = gap.reindex(index=order, columns=order)
    return found


def sentences(table: pd.DataFrame) -> list[str]:
    """What each row of `Comparison.differences`, or of those in bias and agnosticism, says, in
    plain words. Of quality more is better; of the others that is for the reader to say."""
    return [_sentence(row) for row in table.to_dict("records")]


def _sentence(row: dict) -> str:
    arm, versus, ranked = row["arm"], row["versus"], row["metric"] in QUALITY
    where = f"{row['setting']} " * ranked + NAMES[row["metric"]]
    form = f".{DIGITS.get(row['metric'], 3)}f"
    gap, low, high = row["difference"], row["low"], row["high"]
    if gap == low == high == 0:
        return f"{arm} and {versus} have the same {where}, question by question."
    if row["verdict"] in ("higher", "lower"):
        ahead, behind = (arm, versus) if gap > 0 else (versus, arm)
        ends = (low, high) if gap > 0 else (-high, -low)
        says = "is ahead of" if ranked else "is above"
        return (
            f"{ahead} {says} {behind} in {where} by {abs(gap):{form}} {stats.shown(*ends, form)}, "
            f"{p_value(row['p_holm'])} (Holm)."
        )
    what = f"{arm} {MINUS} {versus} is {stats.signed(gap, low, high, f'+{form}')}"
    if row["verdict"] == stats.NO_VERDICT:
        words = f"{row['clusters']} clusters of questions are too few to tell"
        return f"{arm} and {versus} in {where}: {words} (expected {CLUSTERS} or more); {what}."
    near = ranked and max(-low, high) < stats.MARGIN
    within = f", less than {stats.MARGIN} either way" * near
    return (
        f"{arm} and {versus} are not separable on this benchmark in {where}: {what}{within}. "
        f"A true difference of {row['detectable']:{form}} would be found four times in five."
    )
