"""Which arm to take for what: the best one of each need, and those that are as good as it.

An arm is named beside the best one unless it was shown to be worse by more than the margin. The
best of many is partly the luckiest, so all of its leads are held to simultaneous intervals, of
level 1 - .05 / (arms - 1) each (Bonferroni): multiple comparisons with the best (Hsu 1984). The
truly best arm is then left out in at most one of twenty studies. Where all arms stay, none is
shown to be better than another by more than the margin.
"""

from __future__ import annotations

import pandas as pd

from lib.analysis import contrasts, stats
from lib.analysis.cells import averaged
from lib.analysis.results import Results
from lib.analysis.words import counted

# What people need -> the settings whose mean decides.
NEEDS = {
    "questions and passages in the same language": ("mono",),
    "passages in another language": ("cross",),
    "one pool of all languages": ("multi",),
    "same and other language, evenly": ("mono", "cross"),
}
UNDECIDED = "undecided"
COLUMNS = ["need", "setting", "arm", "mAP", "low", "high", "versus", "difference", "gap_low"]
COLUMNS += ["gap_high", "as_good", "seeds", "advice"]


def advise(results: Results) -> pd.DataFrame:
    """One row a need whose settings the benchmark has: the best arm and its mAP [low, high]; the
    next arm, and by how much it is worse [gap_low, gap_high], simultaneously with all others;
    which arms are as good (joined by semicolons), and what to take.

    Empty of a single arm: there is nothing to choose."""
    rows = []
    for need, settings in NEEDS.items():
        if set(settings) <= set(results.settings) and len(results.arms) > 1:
            rows.append({"need": need, "setting": "+".join(settings)} | _best(results, settings))
    return pd.DataFrame(rows, columns=COLUMNS)


def _best(results: Results, settings: tuple[str, ...]) -> dict:
    """The row of one need, without its name."""
    tables = {
        arm: averaged([results.table(arm, setting) for setting in settings]) for arm in results.arms
    }
    means = {arm: stats.interval(table).within(0, 1) for arm, table in tables.items()}
    best, second = sorted(means, key=lambda arm: -means[arm].estimate)[:2]
    level = 1 - stats.LEVEL / (len(tables) - 1)
    gaps = {
        arm: stats.paired(tables[best], table, level).difference
        for arm, table in tables.items()
        if arm != best
    }
    as_good = [arm for arm, gap in gaps.items() if not gap.low > stats.MARGIN]
    best_mean, gap = means[best], gaps[second]
    return {
        "arm": best,
        "mAP": best_mean.estimate,
        "low": best_mean.low,
        "high": best_mean.high,
        "versus": second,
        "difference": gap.estimate,
        "gap_low": gap.low,
        "gap_high": gap.high,
        "as_good": "; ".join(as_good),
        "seeds": gap.seeds,
        "advice": _words(best, as_good, gap, len(gaps)),
    }


def _words(best: str, as_good: list[str], gap: stats.Interval, others: int) -> str:
    """What to take, by the rule at the top of this module."""
    if gap.seeds < stats.SEEDS:
        return f"{UNDECIDED}: {counted(gap.seeds, 'seed')}, a choice needs {stats.SEEDS}"
    if gap.clusters < 2:
        return f"{UNDECIDED}: one cluster of questions"
    if not as_good:
        return f"take {best}"
    if len(as_good) == others:
        return f"no arm is shown to be better by more than {_margin()}"
    near = " / ".join(as_good)
    return f"take {best}; not shown to be worse by more than {_margin()}: {near}"


def _margin() -> str:
    return f"{stats.MARGIN:g}".lstrip("0")


def shown(table: pd.DataFrame, results: Results) -> pd.DataFrame:
    """`advise`, for people to read; alpha as in hybrid(alpha), whose ends are cross and mono."""
    alphas = alpha_of(results)
    return pd.DataFrame(
        {
            "need": table["need"],
            "advice": table["advice"],
            "best arm": table["arm"],
            "alpha": [alphas.get(arm, "\N{EM DASH}") for arm in table["arm"]],
            "mAP [95 %]": [f"{r.mAP:.3f} {stats.shown(r.low, r.high)}" for r in table.itertuples()],
            "next": table["versus"],
            "lead over the next": [
                stats.signed(r.difference, r.gap_low, r.gap_high) for r in table.itertuples()
            ],
        }
    )


def alpha_of(results: Results) -> dict[str, str]:
    """Trained arm -> its alpha, of those on a line over alpha; mono is hybrid(1), x-x mix(1)."""
    lines = contrasts.paths(results).values()
    return {arm: f"{alpha:g}" for line in lines for alpha, arm in line.items()}
