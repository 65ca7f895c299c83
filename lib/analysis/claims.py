"""The claims under study, each made of comparisons that the scores decide.

A comparison asks whether arm A beats arm B by more than `null` on one metric. Its p value enters
one Holm family with all the others; no verdict is typed by hand. Sources: arXiv 2408.10536
(abstract, sections 4 and 5); what this study cannot test is listed as such, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from lib.analysis import stats
from lib.analysis.results import Results, headline
from lib.metrics import SETTINGS

ALPHA = 0.05
ZERO_SHOT = (
    "Hybrid keeps zero-shot quality: as good as mono and cross in languages never trained on"
)
DISJOINT = "Evaluation data is disjoint from training data"
UNTESTABLE = {
    "Better than both baselines from XLM-R and from LaBSE": "needs the public checkpoints",
    ZERO_SHOT: "every language here is trained on",
    "Best nDCG@10 on MIRACL (the paper's own table says otherwise)": "needs MIRACL",
}


@dataclass(frozen=True)
class Comparison:
    """Is `sign` x (A - B) above `null` in this metric? sign -1: smaller is better."""

    claim: str
    arm: str
    versus: str
    setting: str
    metric: str = "ap"
    null: float = 0.0
    sign: int = 1


@dataclass(frozen=True)
class Claim:
    """What is claimed of hybrid batches: against whom in which setting, on which measure.

    rivals  setting -> arms; OTHERS stands for all other arms, MIX for mix at hybrid's alpha"""

    words: str
    rivals: dict[str, tuple[str, ...]]
    metric: str = "ap"
    null: float = 0.0
    sign: int = 1


OTHERS, MIX = "(all others)", "(mix at its alpha)"
CLAIMS = (
    Claim(
        "Hybrid optimises mono, cross and multi simultaneously: as good as the specialist of each",
        {"mono": ("mono",), "cross": ("cross",), "multi": ("mono", "cross")},
        null=-stats.MARGIN,
    ),
    Claim("Hybrid is best in multilingual retrieval", {"multi": (OTHERS,)}),
    Claim(
        "Hybrid batches beat mixed batches (mix) at the same alpha",
        dict.fromkeys(SETTINGS, (MIX,)),
    ),
    Claim(
        "Hybrid lowers language bias (rank distance) against mono",
        {"multi": ("mono",)},
        "rank_distance",
        sign=-1,
    ),
    Claim(
        "Hybrid is more language-agnostic (own-language advantage) than mono",
        {"multi": ("mono",)},
        "own_language_advantage",
        sign=-1,
    ),
)


def comparisons(results: Results) -> list[Comparison]:
    """Every comparison that the study's arms allow, for the hybrid arm nearest to alpha = 0.5; none
    of a benchmark in one language, of which nothing is claimed."""
    hybrid = _at(results, "hybrid", 0.5)
    if hybrid is None or "cross" not in results.settings:
        return []
    groups = {
        OTHERS: [arm for arm in results.arms if arm != hybrid],
        MIX: _mix_at(results, _alpha(results, hybrid)),
    }
    return [
        Comparison(claim.words, hybrid, arm, setting, claim.metric, claim.null, claim.sign)
        for claim in CLAIMS
        for setting, rivals in claim.rivals.items()
        for rival in rivals
        for arm in groups.get(rival, [rival])
        if arm in results.arms and claim.metric in ("ap", *results.biases)
    ]


def _alpha(results: Results, arm: str) -> float:
    return next(r.train.alpha for r in results.runs if r.arm == arm)


def _mix_at(results: Results, alpha: float) -> list[str]:
    """The mix arm of just this alpha, if there is one."""
    runs = [r for r in results.runs if r.train.strategy == "mix" and r.train.steps]
    return list(dict.fromkeys(r.arm for r in runs if r.train.alpha == alpha))


def _at(results: Results, strategy: str, alpha: float) -> str | None:
    """The arm of a strategy whose alpha is nearest."""
    runs = [r for r in results.runs if r.train.strategy == strategy and r.train.steps]
    return min(runs, key=lambda r: abs(r.train.alpha - alpha)).arm if runs else None


def zero_shot(results: Results) -> list[Comparison]:
    """Comparisons in languages that no arm was trained on, where the benchmark has such."""
    hybrid = _at(results, "hybrid", 0.5)
    settings = set(untrained(results.sums)["setting"])
    return [
        Comparison(ZERO_SHOT, hybrid, rival, setting, null=-stats.MARGIN)
        for setting, rival in (("mono", "mono"), ("cross", "cross"))
        if hybrid and rival in results.arms and setting in settings
    ]


def untrained(table: pd.DataFrame) -> pd.DataFrame:
    """Rows whose question and pool are in languages that were not trained on."""
    return table[table["trained"] == "neither"] if "trained" in table else table.iloc[:0]


def decide(results: Results, others: Iterable[Results] = ()) -> pd.DataFrame:
    """One row a comparison: difference A - B with its 95 % interval, Holm-adjusted p, verdict.

    others: results on further benchmarks, of which the first with languages that were not trained
    on decides about zero-shot quality."""
    hypotheses = [(results, headline, c) for c in comparisons(results)]
    further = [(r, untrained, c) for r in (results, *others) for c in zero_shot(r)]
    hypotheses += [one for one in further if one[0] is further[0][0]]
    rows, p_values = [], []
    for source, select, c in hypotheses:
        tables = [source.table(arm, c.setting, c.metric, select) for arm in (c.arm, c.versus)]
        gap = stats.paired(*tables).difference
        excess = c.sign * gap.estimate - c.null
        p_values.append(stats.p_value(excess, gap.standard_error, gap.df))
        rows.append(
            {
                "claim": c.claim,
                "arm": c.arm,
                "versus": c.versus,
                "setting": c.setting,
                "metric": c.metric,
                "null": c.null,
                "difference": gap.estimate,
                "low": gap.low,
                "high": gap.high,
                "excess": excess,
            }
        )
    table = pd.DataFrame(rows)
    if len(table):
        table["p_holm"] = stats.holm(p_values)
        table["verdict"] = [
            _verdict(*row) for row in zip(table["excess"], table["p_holm"], strict=True)
        ]
    return table


def _verdict(excess: float, p: float) -> str:
    if not p < ALPHA:  # NaN: one cluster, of which nothing can be tested
        return "inconclusive"
    return "supported" if excess > 0 else "contradicted"


def verdicts(table: pd.DataFrame, audit: pd.DataFrame) -> pd.DataFrame:
    """One row a claim: supported if every comparison is, contradicted if any one is; then whether
    the leak audit found anything, then claims that this study cannot test, with the reason."""
    rows = []
    for claim, block in table.groupby("claim", sort=False) if len(table) else ():
        outcomes = set(block["verdict"])
        verdict = (
            "contradicted"
            if "contradicted" in outcomes
            else "supported"
            if outcomes == {"supported"}
            else "inconclusive"
        )
        counts = ", ".join(f"{n} {v}" for v, n in block["verdict"].value_counts().items())
        rows.append((claim, verdict, f"{len(block)} comparison{'s' * (len(block) > 1)}: {counts}"))
    if len(audit):
        rows.append((DISJOINT, *_disjoint(audit)))
    claimed = {claim for claim, *_ in rows}
    rows += [(c, "not testable here", why) for c, why in UNTESTABLE.items() if c not in claimed]
    return pd.DataFrame(rows, columns=["claim", "verdict", "why"])


def _disjoint(audit: pd.DataFrame) -> tuple[str, str]:
    """Verdict and reason: no question and no passage that answers one may be a training text."""
    rows = audit[audit["part"].isin(["questions", "relevant candidates"])]
    counts = rows.groupby("benchmark", sort=False)[["texts", "normalised", "overlapping"]].sum()
    reasons = [
        f"{r.Index}: {r.normalised} of {r.texts:,} ({r.overlapping - r.normalised} more share a "
        "run of 13 words)"
        for r in counts.itertuples()
    ]
    return (
        "contradicted" if counts["normalised"].any() else "supported",
        "questions and relevant passages that are training texts, but for case and punctuation: "
        + "; ".join(reasons),
    )
