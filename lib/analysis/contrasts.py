"""The tables behind figures of differences: fixed rivals, alphas, pairs of languages, scripts.

Every function takes the `Results` of a study and returns tidy rows of paired differences or means,
with 95 % intervals of each alone; the adjusted p values beside them know how many there are.
"""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from lib.analysis import stats
from lib.analysis.claims import HYBRID, MIX
from lib.analysis.results import AFTER, WITH_ALPHA, Results, Select, mapped_after
from lib.analysis.sums import THIN, headline
from lib.languages import script
from lib.metrics import CELL

WITHOUT = "its batches alone"
RIVALS = ("mono", "cross", "mix", WITHOUT)
ALPHAS = 5  # fewest values of alpha, ends included, that are joined by a line


def rivals(results: Results) -> pd.DataFrame:
    """Each arm minus mono, minus cross, and minus mix at the same alpha (mix(0.5) where there is
    none), of arms that are there, in every setting, paired by seed and question; one with an
    objective also minus its batches without, where that is none of these.

    Rows: arm, rival, versus, setting, difference, low, high, seeds, detectable, p, p_holm, verdict.
    Intervals and p are of each comparison alone, p_holm is adjusted over all of a setting; the
    verdict follows from it, and `equivalent` from Bonferroni's over as many."""
    pairs = [(r, a, v) for r in RIVALS for a, v in _against(results, r).items()]
    return _family(results, [{"arm": a, "rival": r, "versus": v} for r, a, v in pairs])


def _against(results: Results, rival: str) -> dict[str, str]:
    """Arm -> whom it is compared with; not with itself, and with no arm that is not there."""
    found, runs = {}, [r for r in results.runs if r.arm in results.compositions]
    plain = _plain(results)
    for run in runs:
        same = f"mix({run.train.alpha:g})" if run.train.strategy in WITH_ALPHA else MIX
        same = same if same in results.arms and same != run.arm else MIX
        versus = same if rival == "mix" else rival
        if rival == WITHOUT and run.train.objective:
            own = plain.get((run.train.strategy, run.train.alpha))
            versus = None if own in ("mono", "cross", same) else own  # not twice in a family
        if versus in results.arms and versus != run.arm:
            found[run.arm] = versus
    return found


def _plain(results: Results) -> dict[tuple[str, float], str]:
    """(strategy, alpha) -> arm, of arms whose batches are trained on as they are."""
    runs = (r for r in results.runs if r.arm in results.compositions)
    return {(r.strategy, r.train.alpha): r.arm for r in runs if r.strategy == r.train.strategy}


def others(results: Results) -> pd.DataFrame:
    """Other ways to align languages beside batches: what a loss with an objective, code-switched
    pairs, or another temperature gain over the same batches without; what hybrid(0.5) gains over
    those without an objective, by its schedule alone; and hybrid(0.5) minus each of these ways, of
    arms that are there.

    Rows: arm, versus, setting, and what `rivals` says of a difference, adjusted over all of a
    setting."""
    plain, gains, leads = _plain(results), [], []
    for run in (run for run in results.runs if run.train.steps):
        if run.train.objective or run.switched or run.arm != run.plain:
            own = plain.get((run.train.strategy, run.train.alpha), "")
            gains += [(run.arm, own), *[(HYBRID, own)] * bool(run.train.objective)]
            leads += [(HYBRID, run.arm)] * (run.plain != HYBRID)
    return _of_pairs(results, gains + leads)


# From mix(0.5) to hybrid(0.5), one difference at a time: words, arm, versus; arms as strategy,
# negatives, and whether their number is limited. docs/glossary.md has what each cell sees.
MECHANISM = (
    (
        "only negatives in the language of the right passage",
        ("mix", "in_language", False),
        ("mix", "in_batch", False),
    ),
    (
        "of equally few negatives: in that language, or in any",
        ("mix", "in_language", False),
        ("mix", "in_batch", True),
    ),
    (
        "batches of one pair of languages, as few negatives",
        ("hybrid-pair", "in_batch", True),
        ("mix", "in_language", False),
    ),
    (
        "all negatives of such batches, or few",
        ("hybrid-pair", "in_batch", False),
        ("hybrid-pair", "in_batch", True),
    ),
    (
        "cross-lingual batches of all pairs of languages, or of one",
        ("hybrid", "in_batch", False),
        ("hybrid-pair", "in_batch", False),
    ),
)


def mechanism(results: Results) -> pd.DataFrame:
    """The cells between mix(0.5) and hybrid(0.5), of arms that are there: words, arm, versus,
    setting, and what `rivals` says of a difference, adjusted over all of a setting."""
    cells = _cells(results)
    pairs = [(w, cells[a], cells[v]) for w, a, v in MECHANISM if a in cells and v in cells]
    return _family(results, [{"words": w, "arm": a, "versus": v} for w, a, v in pairs])


def _cells(results: Results) -> dict[tuple[str, str, bool], str]:
    """(strategy, negatives, whether limited) -> arm, of arms with half of each kind of pair and
    nothing added to the loss."""
    halves = (r for r in results.runs if r.train.alpha == 0.5 and not r.train.objective)
    trains = {r.arm: r.train for r in halves}
    return {
        (t.strategy, t.negatives, t.most_negatives > 0): arm
        for arm, t in trains.items()
        if arm in results.arms
    }


def posthoc(results: Results) -> pd.DataFrame:
    """What vectors gain when each language's mean, or its main directions, are taken away after
    training (AFTER): each such encoder minus itself as it is; hybrid(0.5) so changed minus mono so
    changed; and hybrid(0.5) as it is minus mono so changed.

    Rows: arm, versus, setting, and what `rivals` says of a difference, adjusted over all of a
    setting."""
    pairs = [
        (run.arm, run.arm.rpartition(", ")[0]) for run in results.runs if mapped_after(run.train)
    ]
    for name in AFTER:
        pairs += [(f"{HYBRID}, {name}", f"mono, {name}"), (HYBRID, f"mono, {name}")]
    return _of_pairs(results, pairs)


def _of_pairs(results: Results, pairs: Iterable[tuple[str, str]]) -> pd.DataFrame:
    """`_family` of (arm, versus), each once, of arms that are there and not the same."""
    every = {run.arm for run in results.runs}
    there = dict.fromkeys(p for p in pairs if set(p) <= every and p[0] != p[1])
    return _family(results, [{"arm": arm, "versus": versus} for arm, versus in there])


def _family(results: Results, rows: list[dict[str, str]]) -> pd.DataFrame:
    """Rows of arm and versus, in every setting, with what is known of the difference; adjusted over
    all of a setting."""
    found, arms = [], {row[end] for row in rows for end in ("arm", "versus")}
    for setting in results.settings:
        tables = {arm: results.table(arm, setting) for arm in arms}
        gaps = compared([stats.paired(tables[r["arm"]], tables[r["versus"]]) for r in rows])
        found += [r | {"setting": setting} | gap for r, gap in zip(rows, gaps, strict=True)]
    return pd.DataFrame(found)


def compared(gaps: list[stats.Paired], bounded: bool = True) -> list[dict]:
    """Differences of one family with their p values, alone and adjusted over it, and verdicts.

    bounded: they are of mAP, which lies in 0..1, and for which the margin was fixed."""
    adjusted, rows = stats.holm([gap.p for gap in gaps]), []
    for gap, p_holm in zip(gaps, adjusted, strict=True):
        found = gap.difference.within(-1, 1) if bounded else gap.difference
        verdict = told(found.estimate, found.seeds, p_holm)
        near = bounded and len(gaps) * stats.equivalence(found) < stats.LEVEL
        verdict = "equivalent" if verdict == "undecided" and near else verdict
        rows.append(
            {
                "difference": found.estimate,
                "low": found.low,
                "high": found.high,
                "seeds": found.seeds,
                "detectable": stats.detectable(found),
                "p": gap.p,
                "p_holm": float(p_holm),
                "verdict": verdict,
            }
        )
    return rows


def told(difference: float, seeds: int, p_holm: float) -> str:
    """Whether a difference is significant by an adjusted p value: higher, lower, undecided, or a
    dash where there are too few seeds or clusters for a verdict."""
    if seeds < stats.SEEDS or pd.isna(p_holm):
        return stats.NO_VERDICT
    if p_holm < stats.LEVEL:
        return "higher" if difference > 0 else "lower"
    return "undecided"


def alphas(results: Results, quality: pd.DataFrame, fewest: int = ALPHAS) -> pd.DataFrame:
    """mAP over alpha of each strategy that has `fewest` alphas or more, its ends included
    (hybrid(0) is cross, hybrid(1) mono): strategy, alpha, arm, setting, estimate, low, high.

    quality: of `tables.quality`."""
    ap = quality[quality["metric"] == "ap"].set_index(["arm", "setting"])
    rows = []
    for strategy, arms in paths(results).items():
        for setting in results.settings if len(arms) >= fewest else ():
            for alpha, arm in arms.items():
                own = ap.loc[(arm, setting), ["estimate", "low", "high"]].to_dict()
                row = {"strategy": strategy, "alpha": alpha, "arm": arm, "setting": setting}
                rows.append(row | own)
    return pd.DataFrame(rows)


def paths(results: Results) -> dict[str, dict[float, str]]:
    """Strategy -> alpha -> arm, in order of alpha; of strategies with two alphas or more, one of
    them under the strategy's own name: ends have names of their own."""
    found = {name: results.alphas(name) for name in WITH_ALPHA}
    return {
        name: arms
        for name, arms in found.items()
        if len(arms) > 1 and any(arm.startswith(f"{name}(") for arm in arms.values())
    }


# --- by language -------------------------------------------------------------------------------


def _shown_pairs(results: Results) -> list[tuple[str, str]]:
    """hybrid(0.5) minus mono, and minus mix(0.5), of arms that are there."""
    pairs = [(HYBRID, "mono"), (HYBRID, MIX)]
    return [pair for pair in pairs if set(pair) <= set(results.arms)]


def by_language(
    results: Results, pairs: Iterable[tuple[str, str]] | None = None
) -> dict[str, pd.DataFrame]:
    """`hybrid(0.5) − mono`, ... (or other pairs of arms) -> difference in mAP by language of the
    question (rows) and of the passages (columns), mean over seeds, ordered by script and then by
    language; the diagonal is monolingual. NaN where fewer than THIN questions were asked."""
    found, means = {}, language_means(results)
    several = results.cells["question_language"].nunique() > 1
    for arm, versus in (_shown_pairs(results) if pairs is None else pairs) if several else ():
        if {arm, versus} <= means.keys():  # else no pair of languages has questions enough
            found[f"{arm} \N{MINUS SIGN} {versus}"] = means[arm] - means[versus]
    return found


def language_means(results: Results) -> dict[str, pd.DataFrame]:
    """Arm -> mAP by language of the question (rows) and of the passages, as in `by_language`."""
    cells = results.cells[results.cells["setting"].isin(["mono", "cross"])]
    means = cells.groupby(["arm", *CELL], observed=True).mean(numeric_only=True)
    means = means.loc[means["n"] >= THIN, "ap"]
    found = {}
    for arm in means.index.get_level_values("arm").unique():
        own = means[arm].unstack()
        order = sorted(own.index.union(own.columns), key=lambda code: (script(code), code))
        found[arm] = own.reindex(index=order, columns=order)
    return found


def by_script(results: Results) -> pd.DataFrame:
    """hybrid(0.5) minus mono and minus mix(0.5) by how question and passages are written: in one
    language (the setting mono), in two languages of one script, of two scripts (cross). Rows: arm,
    versus, pair, and what `rivals` says of a difference, adjusted over all rows."""
    rows, gaps = [], []
    for arm, versus in _shown_pairs(results):
        for words, (setting, select) in SCRIPTS.items():
            tables = [results.table(one, setting, select=select) for one in (arm, versus)]
            if all(map(len, tables)):
                gaps.append(stats.paired(*tables))
                rows.append({"arm": arm, "versus": versus, "pair": words})
    return pd.DataFrame([row | gap for row, gap in zip(rows, compared(gaps), strict=True)])


def _script_pairs(which: str) -> Select:
    """Selects headline rows whose two languages have the same script, or another one. A benchmark
    in one script has no such stratum."""

    def select(table: pd.DataFrame) -> pd.DataFrame:
        table = headline(table)
        if "script" not in table:
            return table if which == "same" else table.iloc[:0]
        return table[table["script"] == which]

    return select


SCRIPTS = {
    "one language": ("mono", headline),
    "two languages, one script": ("cross", _script_pairs("same")),
    "two scripts": ("cross", _script_pairs("other")),
}
