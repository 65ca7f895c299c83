"""The claims under study, each a row: which arms, where, on which measure, and what kind of test.

Three *primary contrasts* were fixed before the runs that test them; Holm's method guards them
together. All other claims are *exploratory*. Such a claim is supported if every one of its
comparisons is, which needs no adjustment (an intersection-union test, Berger 1982: all of them
would have to err), and contradicted if any one is, for which Holm adjusts within the claim. No
verdict is typed by hand.

The sources of the claims: arXiv 2408.10536 (abstract, sections 4 and 5). What a study lacks arms or
data for is listed as not tested, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from lib.analysis import stats
from lib.analysis.cells import Cells, averaged, difference
from lib.analysis.results import Results, Select
from lib.analysis.sums import headline
from lib.metrics import SETTINGS

HYBRID, MIX = "hybrid(0.5)", "mix(0.5)"
AVERAGE = "+".join(SETTINGS)  # the mean of three settings
NOT_TESTED = "not tested"


def untrained(table: pd.DataFrame) -> pd.DataFrame:
    """Rows whose question and pool are in languages that were not trained on."""
    return table[table["trained"] == "neither"] if "trained" in table else table.iloc[:0]


@dataclass(frozen=True)
class Claim:
    """Of every rival in every setting: is `side` x (arm - rival) above `null`?

    rivals  setting -> arms; settings joined by + are averaged
    side    -1: smaller is better
    sides   2: the difference is either way; 1: of non-inferiority, that it is not below `null`
    where   which questions"""

    words: str
    rivals: dict[str, tuple[str, ...]]
    metric: str = "ap"
    null: float = 0.0
    side: int = 1
    sides: int = 2
    arm: str = HYBRID
    where: Select = headline

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """(setting, rival) of each comparison."""
        return [(setting, rival) for setting, arms in self.rivals.items() for rival in arms]


PRIMARY = (
    Claim("Mono cost: hybrid(0.5) loses monolingual mAP to mono", {"mono": ("mono",)}, side=-1),
    Claim("Cross gain: hybrid(0.5) gains cross-lingual mAP over mono", {"cross": ("mono",)}),
    Claim("Batch effect: whole batches beat mixed rows over all settings", {AVERAGE: (MIX,)}),
)
# By name, for series of studies; the same in the pool of all languages, and of alpha 0.
CONTRASTS = dict(zip(("mono cost", "cross gain", "batch effect"), PRIMARY, strict=True))
CONTRASTS["multi gain"] = Claim("Hybrid(0.5) gains over mono", {"multi": ("mono",)})
for _name in ("mono cost", "cross gain", "multi gain"):
    CONTRASTS[f"{_name} of cross"] = replace(CONTRASTS[_name], arm="cross")
AS_GOOD = {"null": -stats.MARGIN, "sides": 1}
ZERO_SHOT = (
    "Hybrid keeps zero-shot quality: as good as mono and cross in languages never trained on"
)
CLAIMS = (
    Claim(
        "Hybrid optimises mono, cross and multi simultaneously: as good as the specialist of each",
        {"mono": ("mono",), "cross": ("cross",), "multi": ("mono", "cross")},
        **AS_GOOD,
    ),
    Claim("Hybrid is best in multilingual retrieval", {"multi": ("mono", "cross", MIX)}),
    Claim(
        "Hybrid batches beat mixed batches (mix) at the same alpha", dict.fromkeys(SETTINGS, (MIX,))
    ),
    Claim(
        "Hybrid lowers language bias (rank distance) against mono",
        {"multi": ("mono",)},
        "rank_distance",
        side=-1,
    ),
    Claim(
        "Hybrid lowers language bias (rank distance) against cross and mix",
        {"multi": ("cross", MIX)},
        "rank_distance",
        side=-1,
    ),
    Claim(
        "Hybrid is more language-agnostic (own-language advantage) than mono",
        {"multi": ("mono",)},
        "own_language_advantage",
        side=-1,
    ),
    Claim(
        "Hybrid is more language-agnostic (own-language advantage) than cross and mix",
        {"multi": ("cross", MIX)},
        "own_language_advantage",
        side=-1,
    ),
    Claim(ZERO_SHOT, {"mono": ("mono",), "cross": ("cross",)}, where=untrained, **AS_GOOD),
)
PRIMARY_COLUMNS = [
    *("family", "claim", "arm", "versus", "setting", "metric", "null", "difference", "low", "high"),
    *("seeds", "clusters", "detectable", "p", "p_holm", "verdict", "why"),
]
ELSEWHERE = {
    "Better than both baselines from XLM-R and from LaBSE": "needs the public checkpoints",
    "Best nDCG@10 on MIRACL (the paper's own table says otherwise)": "needs MIRACL",
}
DISJOINT = "Evaluation data is disjoint from training data"


# --- comparisons -------------------------------------------------------------------------------


def compare(results: Results, claim: Claim, level: float = stats.LEVEL) -> list[dict]:
    """One row a comparison of a claim: the paired difference, p values for the claim and against
    it, and what a test at `level` could have detected beyond `null`."""
    rows = []
    for setting, rival in claim.pairs:
        gap = stats.paired(
            *(_values(results, arm, setting, claim) for arm in (claim.arm, rival))
        ).difference
        null = claim.side * claim.null + 0.0  # no minus zero
        more, less = stats.tails(gap, null)[:: claim.side]
        rows.append(
            {
                "claim": claim.words,
                "arm": claim.arm,
                "versus": rival,
                "setting": setting,
                "metric": claim.metric,
                "null": null,
                "sides": claim.sides,
                "difference": gap.estimate,
                "low": gap.low,
                "high": gap.high,
                "seeds": gap.seeds,
                "clusters": gap.clusters,
                "detectable": stats.detectable(gap, level, claim.sides),
                "p": float(np.minimum(1, claim.sides * more)),
                "p_against": float(np.minimum(1, claim.sides * less)),
                "p_equivalent": _equivalence(gap, claim),
            }
        )
    return rows


def gap(results: Results, claim: Claim) -> Cells:
    """The paired difference of a claim of one comparison."""
    ((setting, rival),) = claim.pairs
    values = (_values(results, arm, setting, claim) for arm in (claim.arm, rival))
    return difference(*values)


def _values(results: Results, arm: str, setting: str, claim: Claim) -> Cells:
    """Values of an arm, over one setting or the mean of several."""
    return averaged(
        [results.table(arm, one, claim.metric, claim.where) for one in setting.split("+")]
    )


def _equivalence(gap: stats.Interval, claim: Claim) -> float:
    """p value of "not within the margin", which is one of mAP; as good as asks for less."""
    return stats.equivalence(gap) if claim.metric == "ap" and claim.sides == 2 else 1.0


def lacking(results: Results, claim: Claim) -> str:
    """Why a study cannot test a claim; empty where it can."""
    arms = [a for a in (claim.arm, *(r for _, r in claim.pairs)) if a not in results.arms]
    if arms:
        return f"no arm {', '.join(dict.fromkeys(arms))}"
    settings = dict.fromkeys(one for setting in claim.rivals for one in setting.split("+"))
    if missing := [one for one in settings if one not in results.settings]:
        return f"the benchmark has no setting {', '.join(missing)}"
    if claim.metric not in ("ap", *results.biases):
        return "the benchmark has no parallel passages"
    asked = set(claim.where(results.sums)["setting"])
    if claim.where is untrained and not asked & set(settings):
        return "every language here is trained on"
    empty = [one for one in settings if one not in asked]
    return f"no such questions in {', '.join(empty)}" if empty else ""


def _undecidable(row: dict) -> bool:
    """Whether there are too few seeds or clusters for a verdict."""
    return row["seeds"] < stats.SEEDS or pd.isna(row["p"])


def _verdict(row: dict, p: float, p_against: float, p_equivalent: float) -> str:
    """What a comparison says, of p values adjusted as its family asks."""
    if _undecidable(row):
        return stats.NO_VERDICT
    for value, verdict in (
        (p, "supported"),
        (p_against, "contradicted"),
        (p_equivalent, "equivalent"),
    ):
        if value < stats.LEVEL:
            return verdict
    return "inconclusive"


def primary(results: Results) -> pd.DataFrame:
    """The three primary contrasts, one row each: p is two-sided, p_holm adjusted over the three.

    An effect is detectable at .05 / 3, the level of Holm's first step. Equivalence is tested at
    that level too: of "no difference" and "beyond the margin" only one can be true, so three
    contrasts are at most three true hypotheses. Those that a study lacks arms for keep their place
    in the family of three."""
    count = len(PRIMARY)
    rows = []
    for claim in PRIMARY:
        if why := lacking(results, claim):
            setting, rival = claim.pairs[0]
            row = {"claim": claim.words, "arm": claim.arm, "versus": rival, "setting": setting}
            rows.append(row | {"metric": claim.metric, "why": why})
        else:
            rows += [r | {"why": ""} for r in compare(results, claim, stats.LEVEL / count)]
    table = pd.DataFrame(rows).reindex(columns=[*PRIMARY_COLUMNS, "p_against", "p_equivalent"])
    either = table[["p", "p_against"]].min(axis=1)
    table["p_holm"] = stats.holm(either)
    table["verdict"] = [_primary_verdict(row, count) for row in table.to_dict("records")]
    return table.assign(p=either, family="primary")[PRIMARY_COLUMNS]


def _primary_verdict(row: dict, count: int) -> str:
    if row["why"]:
        return NOT_TESTED
    ahead = row["p"] < row["p_against"]
    p, p_against = (row["p_holm"], 1.0) if ahead else (1.0, row["p_holm"])
    return _verdict(row, p, p_against, count * row["p_equivalent"])


def decide(results: Results, others: Iterable[Results] = ()) -> tuple[pd.DataFrame, dict[str, str]]:
    """One row a comparison of the exploratory claims, and claim -> why it cannot be tested.

    p is for the claim and unadjusted, p_against adjusted by Holm within the claim. others: results
    on further benchmarks, of which the first with languages that were not trained on decides about
    zero-shot quality."""
    every, blocks, untested = [results, *others], [], {}
    for claim in CLAIMS:
        sources = every if claim.where is untrained else [results]
        source = next((one for one in sources if not lacking(one, claim)), None)
        if source is None:
            untested[claim.words] = lacking(results, claim)
            continue
        rows = compare(source, claim)
        against = stats.holm([row["p_against"] for row in rows])
        for row, adjusted in zip(rows, against, strict=True):
            row["verdict"] = _verdict(row, row["p"], adjusted, row.pop("p_equivalent"))
            blocks.append({"family": "exploratory"} | row | {"p_against": adjusted})
    return pd.DataFrame(blocks), untested


# --- claims ------------------------------------------------------------------------------------


def verdicts(table: pd.DataFrame, untested: dict[str, str], audit: pd.DataFrame) -> pd.DataFrame:
    """One row an exploratory claim; then what the leak audit counted; then claims that this study
    cannot test, with the reason. table, untested: of `decide`."""
    rows = [
        ("exploratory", claim, *_of_claim(block.to_dict("records")))
        for claim, block in (table.groupby("claim", sort=False) if len(table) else ())
    ]
    if len(audit):
        rows.append(("audit", DISJOINT, "counted", counted(audit)))
    rows += [("exploratory", c, NOT_TESTED, why) for c, why in (untested | ELSEWHERE).items()]
    return pd.DataFrame(rows, columns=["family", "claim", "verdict", "why"])


def _of_claim(rows: list[dict]) -> tuple[str, str]:
    """Verdict and reason of a claim from its comparisons."""
    found = [row["verdict"] for row in rows]
    if stats.NO_VERDICT in found:
        return stats.NO_VERDICT, _too_few(rows)
    counts = ", ".join(f"{found.count(v)} {v}" for v in dict.fromkeys(found))
    why = f"{len(rows)} comparison{'s' * (len(rows) > 1)}: {counts}"
    if "contradicted" in found:
        return "contradicted", why
    if "inconclusive" in found:
        return "inconclusive", f"{why}; {_could_be_detected(rows)}"
    return "equivalent" if "equivalent" in found else "supported", why


def _too_few(rows: list[dict]) -> str:
    """Why there is no verdict, and what could have been detected."""
    seeds = min(row["seeds"] for row in rows)
    if seeds < stats.SEEDS:
        why = f"{seeds} seed{'s' * (seeds > 1)}, a test needs {stats.SEEDS}"
    else:
        why = "one cluster of questions"
    return why if pd.isna(rows[0]["detectable"]) else f"{why}; {_could_be_detected(rows)}"


def _could_be_detected(rows: list[dict]) -> str:
    """The effects that comparisons without an outcome could have detected."""
    open_ones = [r for r in rows if r["verdict"] in ("inconclusive", stats.NO_VERDICT)]
    effects = ", ".join(f"{r['detectable']:.3g} ({r['versus']}, {r['setting']})" for r in open_ones)
    return f"detectable: {effects}"


def counted(audit: pd.DataFrame) -> str:
    """What the leak audit counted of this study's own data. It is no verdict on the paper's."""
    rows = audit[audit["part"].isin(["questions", "relevant candidates"])]
    columns = ["texts", "exact", "normalised", "ngram"]
    counts = rows.groupby("benchmark", sort=False)[columns].sum()
    each = [
        f"{r.Index}: {r.exact:,} verbatim, {r.normalised:,} with the same words, {r.ngram:,} with "
        f"a run of 13 words, of {r.texts:,}"
        for r in counts.itertuples()
    ]
    return f"of this study's questions and relevant passages, in training texts: {'; '.join(each)}"
