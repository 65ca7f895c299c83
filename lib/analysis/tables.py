"""Tables of the report: arms with intervals, paired differences, bias, strata, exposure, words.

Every function takes the `Results` of a study and returns a tidy DataFrame, which the notebook
shows, plots and saves; the findings are sentences filled with numbers from these tables.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from lib.analysis import claims, contrasts, published, regions, stats
from lib.analysis.bias import AGNOSTIC, BITEXT, FIELD
from lib.analysis.cells import cells
from lib.analysis.results import Results, Select
from lib.analysis.sums import headline, language_cells, means
from lib.metrics import BIAS, CELL, LABELS, QUALITY, REFERENCES
from lib.params import BenchmarkSpec

STRATA = (
    ("mono", ["hops", "wording"]),
    ("mono", ["trained"]),
    ("cross", ["hops", "wording"]),
    ("cross", ["names"]),
    ("cross", ["trained"]),
    ("cross", ["script"]),
)
BESIDE = ("hit1", "r10", "r100", "ndcg10")  # measures beside mAP
NAMES = LABELS | FIELD | AGNOSTIC | BITEXT  # what tables call each measure
DIGITS = {"rank_distance": 1, "max_at_r": 1}  # places that are shown, of other measures three

TRAINED = (
    ("mono", "both"),
    ("mono", "neither"),
    ("cross", "both"),
    ("cross", "one"),
    ("cross", "neither"),
)


def _row(
    results: Results, arm: str, setting: str, metric: str, select: Select = headline, **extra
) -> dict:
    interval = stats.interval(results.table(arm, setting, metric, select))
    if metric in QUALITY:
        interval = interval.within(0, 1)
    asked = results.asked(arm, setting, metric, select)
    return {
        "arm": arm,
        "setting": setting,
        "metric": metric,
        "estimate": interval.estimate,
        "low": interval.low,
        "high": interval.high,
        "seeds": interval.seeds,
        "clusters": interval.clusters,
        "questions": asked,
        **extra,
    }


def quality(results: Results, metrics: tuple[str, ...] = QUALITY) -> pd.DataFrame:
    """Every arm and reference in every setting and metric, headline stratum, with intervals.

    questions: how many a seed were asked, which of references may be a sample."""
    return pd.DataFrame(
        [
            _row(results, arm, setting, metric)
            for arm in (*results.arms, *results.references)
            for setting in results.settings
            for metric in metrics
        ]
    )


def elsewhere(others: dict[str, Results]) -> pd.DataFrame:
    """As `quality`, of further benchmarks; column `benchmark`."""
    parts = [quality(results).assign(benchmark=name) for name, results in others.items()]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def with_published(
    table: pd.DataFrame, results: Results, spec: BenchmarkSpec, measures: tuple[str, ...] = ("ap",)
) -> pd.DataFrame:
    """The benchmark's usual measures by setting for people to read, and where that is mAP the
    figures that others published on it below them."""
    parts = {m: wide(table[table["metric"] == m], "setting") for m in measures}
    if measures != ("ap",):
        return pd.concat({NAMES[m]: part for m, part in parts.items()}, axis=1)
    return pd.concat([parts["ap"], published.rows(spec, results.questions)]).fillna("")


def sentence_search(scores: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Accuracy and F1 by arm and direction, mean over languages, for people to read: columns
    `<benchmark>, <direction>, accuracy` and `..., F1`. Intervals resample languages.

    scores: by benchmark, as lib.study.results.load_accuracy gives them."""
    columns: dict[str, dict[str, str]] = {}
    for name, table in scores.items():
        for (arm, direction), block in table.groupby(["arm", "direction"], sort=False):
            for metric, label in (("accuracy", "accuracy"), ("f1", "F1")):
                column = columns.setdefault(f"{name}, {direction}, {label}", {})
                column[arm] = _mean_over_languages(block.assign(value=block[metric]))
    return pd.DataFrame(columns)


def _mean_over_languages(table: pd.DataFrame) -> str:
    """The mean, with its interval where there are several languages."""
    if table["cluster"].nunique() == 1:
        return f"{table['value'].mean():.3f}"
    interval = stats.interval(table[["seed", "cluster", "value", "weight"]]).within(0, 1)
    return f"{interval.estimate:.3f} {stats.shown(interval.low, interval.high)}"


def by_training(results: Results) -> pd.DataFrame:
    """mAP by whether the encoder was trained on the languages of question and pool, for people to
    read: columns `mono, both trained`, ...; empty where it was trained on all."""
    rows, sums = [], results.sums
    for setting, value in TRAINED if "trained" in sums else ():
        if not ((sums["setting"] == setting) & (sums["trained"] == value)).any():
            continue

        def select(table: pd.DataFrame, value: str = value) -> pd.DataFrame:
            return table[table["trained"] == value]

        for arm in (*results.arms, *results.references):
            row = _row(results, arm, setting, "ap", select)
            rows.append(row | {"part": f"{setting}, {value} trained"})
    return wide(pd.DataFrame(rows), "part") if rows else pd.DataFrame()


def bias(results: Results) -> pd.DataFrame:
    """Language bias of every arm and reference over the whole pool, with intervals; empty where
    no question has parallel passages in several languages."""
    return pd.DataFrame(
        [
            _row(results, arm, "multi", metric, measure=metric)
            for arm in (*results.arms, *results.references)
            for metric in results.biases
        ]
    )


def biases(table: pd.DataFrame) -> pd.DataFrame:
    """`bias`, for people to read: rows arms, columns measures."""
    return wide(table, "metric") if len(table) else table


def wide(table: pd.DataFrame, columns: str, intervals: bool = True) -> pd.DataFrame:
    """Rows arms, columns the values of `columns` (setting or metric), for people to read: cells
    `estimate [low, high]`, or the estimate alone."""
    text = [
        f"{r.estimate:.{d}f}" + f" {stats.shown(r.low, r.high, f'.{d}f')}" * intervals
        for r in table.itertuples()
        for d in [DIGITS.get(r.metric, 3)]
    ]
    named = table.assign(text=text, metric=table["metric"].map(NAMES))
    cells = named.pivot(index="arm", columns=columns, values="text")
    cells = cells.reindex(index=dict.fromkeys(named["arm"]), columns=dict.fromkeys(named[columns]))
    return cells.rename_axis(index=None, columns=None)


def points(results: Results) -> pd.DataFrame:
    """One row a run of a trained arm: arm, seed, and mAP in mono, cross and multi."""
    parts = []
    for arm in results.arms:
        seeds = {}
        for setting in results.settings:
            own = cells(results.table(arm, setting))
            seeds[setting] = pd.Series(own.means, own.seeds)
        parts.append(pd.DataFrame(seeds).rename_axis("seed").reset_index().assign(arm=arm))
    return pd.concat(parts, ignore_index=True)[["arm", "seed", *results.settings]]


@dataclass(frozen=True)
class Plane:
    """The trade-off plane: what lib.analysis.plots.tradeoff draws, in its order; no points where a
    benchmark lacks mono or cross."""

    points: pd.DataFrame
    regions: dict
    paths: dict[str, list[str]]
    references: dict[str, tuple[float, float]]
    front: list[str]

    def __iter__(self) -> Iterator:
        return (getattr(self, field.name) for field in fields(self))


def plane(results: Results, quality: pd.DataFrame) -> Plane:
    """Runs, means with ellipses, paths over alpha, references and Pareto front of a study."""
    if not {"mono", "cross"} <= set(results.settings):
        return Plane(pd.DataFrame(), {}, {}, {}, [])
    ellipses = {
        arm: regions.region(*(results.table(arm, s) for s in ("mono", "cross"))).within(0, 1)
        for arm in results.compositions
    }
    means = {arm: ((r.x.estimate, r.y.estimate), r.points) for arm, r in ellipses.items()}
    paths = {name: [*arms.values()] for name, arms in contrasts.paths(results).items()}
    return Plane(
        points(results),
        means,
        paths,
        marks(quality, [REFERENCES["bm25_chars"], "untrained"]),
        front({arm: mean for arm, (mean, _) in means.items()}),
    )


def front(means: dict) -> list[str]:
    """Arms whose (mono, cross) mean no other arm beats in both. means: arm -> (mono, cross)."""
    return [
        arm for arm, best in zip(means, regions.pareto(list(means.values())), strict=True) if best
    ]


def marks(table: pd.DataFrame, arms: list[str]) -> dict[str, tuple[float, float]]:
    """arm -> its (mono, cross) mAP, of those that `table` (of `quality`) has."""
    rows = table[(table["metric"] == "ap") & table["arm"].isin(arms)]
    ap = rows.pivot(index="arm", columns="setting", values="estimate")
    return {arm: tuple(ap.loc[arm, ["mono", "cross"]]) for arm in arms if arm in ap.index}


def against(table: pd.DataFrame) -> pd.DataFrame:
    """`lib.analysis.contrasts.rivals`, for people to read: a row an arm and rival, a column a
    setting, with a star where the adjusted test tells the two apart and = where they are
    equivalent."""
    if not len(table):
        return table
    text = [starred(row) for row in table.itertuples()]
    named = table.assign(text=text, difference=minus(table))
    cells = named.pivot(index="difference", columns="setting", values="text")
    rows, columns = (dict.fromkeys(named[c]) for c in ("difference", "setting"))
    return cells.reindex(index=rows, columns=columns).rename_axis(index=None, columns=None)


def minus(table: pd.DataFrame) -> pd.Series:
    """`arm − versus` of each row; a name with a comma stands in parentheses behind the sign."""
    versus = table["versus"].replace("(.*, .*)", r"(\1)", regex=True)
    return table["arm"] + " \N{MINUS SIGN} " + versus


def strata(results: Results) -> pd.DataFrame:
    """mAP of each arm by hops and wording, by names (cross, headline questions), and by whether
    the languages of question and passages were trained on."""
    rows = []
    for setting, keys in STRATA:
        block = results.sums[
            (results.sums["setting"] == setting) & (results.sums["metric"] == "ap")
        ]
        block = block[block["arm"].isin(results.arms)]
        if not set(keys) <= set(block):
            continue
        if keys == ["names"]:
            block = headline(block, but="names")
        for (arm, *values), value in means(block, ["arm", *keys]).items():
            label = f"{values[0]} {keys[0]}" if len(keys) == 1 else ", ".join(values)
            rows.append({"arm": arm, "setting": setting, "stratum": label, "estimate": value})
    order = {arm: place for place, arm in enumerate(results.arms)}
    return pd.DataFrame(rows, columns=["arm", "setting", "stratum", "estimate"]).sort_values(
        "arm", key=lambda arms: arms.map(order), kind="stable", ignore_index=True
    )


def by_stratum(table: pd.DataFrame) -> pd.DataFrame:
    """`strata`, for people to read: rows arms, columns settings and their strata."""
    cells = table.pivot(index="arm", columns=["setting", "stratum"], values="estimate")
    columns = dict.fromkeys(zip(table["setting"], table["stratum"], strict=True))
    cells = cells.reindex(index=dict.fromkeys(table["arm"]), columns=list(columns))
    cells = cells.map("{:.3f}".format).rename_axis(index=None, columns=[None, None])
    return cells.rename(columns=lambda name: name.replace("-", "\N{NON-BREAKING HYPHEN}"))


def bootstrap(results: Results, draws: int) -> pd.DataFrame:
    """The headline intervals beside percentile bootstrap intervals over seeds and clusters: arm x
    setting, cells `[t interval] [bootstrap]`."""
    rows = {}
    for arm in results.arms:
        rows[arm] = {}
        for setting in results.settings:
            table = results.table(arm, setting)
            t, resampled = stats.interval(table).within(0, 1), stats.bootstrap(table, draws)
            check = resampled if t.low == t.low else (t.low, t.high)  # one seed: neither
            rows[arm][setting] = f"{stats.shown(t.low, t.high)} {stats.shown(*check)}"
    return pd.DataFrame(rows).T


def compared(table: pd.DataFrame) -> pd.DataFrame:
    """Primary contrasts, or the comparisons behind the claims, for people to read: a column a row
    has words for, and in `note` why an interval without zero decides nothing."""
    if not len(table):
        return table
    rows = list(table.itertuples())
    shown = {
        "claim": table["claim"].str.split(":").str[0],
        "verdict": table["verdict"],
        "difference": minus(table),
        "of": table["setting"].str.replace("+", ", ") + " " + table["metric"].map(NAMES),
        "value [95 %]": [gap_shown(row) for row in rows],
        "beyond": table["null"].map(number_shown),
        "detectable": table["detectable"].map(number_shown),
    }
    p = {PS[name]: table[name].map(p_shown) for name in PS if name in table}
    return _filled(pd.DataFrame(shown | p | {"note": [_note(row) for row in rows]}))


def _filled(shown: pd.DataFrame) -> pd.DataFrame:
    """Without the columns that say the same of no difference in every row: no bound but zero, no
    notes."""
    nothing = {"beyond": ["0", "\N{EM DASH}"], "note": [""]}
    empty = [name for name, values in nothing.items() if shown[name].isin(values).all()]
    return shown.drop(columns=empty)


def _note(row: NamedTuple) -> str:
    """Why a comparison is not tested or not decided, where that is not plain from its interval."""
    why = getattr(row, "why", "")
    if why or not (row.low > 0 or row.high < 0):
        return why
    if row.verdict == stats.NO_VERDICT:
        return f"{row.seeds:.0f} seeds decide nothing: a test needs {stats.SEEDS}"
    if row.verdict != "inconclusive":
        return ""
    if hasattr(row, "p_holm"):
        return f"p {p_shown(row.p)} alone; adjusted over the three {p_shown(row.p_holm)}"
    if row.null and row.low <= row.null <= row.high:
        return f"without 0, but not beyond {number_shown(row.null)}, the margin"
    if row.null:
        side, p = "beyond" if row.low > row.null else "below", p_shown(row.p_against)
        return f"{side} {number_shown(row.null)}, the margin; adjusted within the claim, p {p}"
    return f"the other way than claimed; adjusted within the claim, p {p_shown(row.p_against)}"


PS = {"p": "p", "p_holm": "p (Holm)", "p_against": "p against"}


def tested(verdicts: pd.DataFrame) -> pd.DataFrame:
    """The claims that were tested, of `lib.analysis.claims.verdicts`, for people to read."""
    rows = verdicts[verdicts["verdict"] != claims.NOT_TESTED]
    return rows.drop(columns="family").reset_index(drop=True)


def starred(row: NamedTuple) -> str:
    """`gap_shown`, with a star where the verdict is a side and = where it is equivalent."""
    marks = {"higher": " *", "lower": " *", "equivalent": " ="}
    return gap_shown(row) + marks.get(row.verdict, "")


def gap_shown(row: NamedTuple) -> str:
    """A difference with its interval, in the digits of its measure; a dash where there is none."""
    if pd.isna(row.difference):
        return "\N{EM DASH}"
    form = f"+.{DIGITS.get(getattr(row, 'metric', ''), 3)}f"
    return stats.signed(row.difference, row.low, row.high, form)


def number_shown(value: float) -> str:
    """Three places, of large values one; no zeros behind 0."""
    if pd.isna(value):
        return "\N{EM DASH}"
    return f"{value:.{3 if abs(value) < 1 else 1}f}" if value else "0"


def p_shown(p: float) -> str:
    """Three places; `< .001` of what is smaller, a dash where there is none."""
    if pd.isna(p):
        return "\N{EM DASH}"
    return "< .001" if p < 0.0005 else f"{p:.3f}"


def seen(table: pd.DataFrame) -> pd.DataFrame:
    """`exposure`, for people to read."""
    if table.empty:
        return table
    named = table.rename_axis(None).rename(
        columns={
            "pairs": "rows",
            "question_texts": "distinct questions",
            "passage_texts": "distinct passages",
            "positives": "distinct positives",
            "substituted": "rows that gave way",
            "monolingual": "share monolingual",
            "negatives": "negatives a question",
            "extra_texts": "translations embedded",
            "extra_tokens": "their tokens",
            "teacher_texts": "texts of the teacher",
            "teacher_tokens": "its tokens",
        }
    )
    named["GFLOP"] = named.pop("flops") / 1e9
    share = named.pop("share monolingual").map("{:.2f}".format)
    negatives = named.pop("negatives a question").map("{:.1f}".format)
    named = named.map("{:,.0f}".format)
    return named.assign(**{"share monolingual": share, "negatives a question": negatives})


def without_intervals(quality: pd.DataFrame) -> pd.DataFrame:
    """Measures beside mAP by setting, for people to read."""
    rows = quality[quality["metric"].isin(BESIDE)]
    parts = {s: wide(block, "metric", False) for s, block in rows.groupby("setting", sort=False)}
    return pd.concat(parts, axis=1)


def save(tables: dict[str, pd.DataFrame], folder: Path, latex: dict[str, str]) -> list[str]:
    """Write each table that has rows as folder/<name>.csv, and texts as <name>.tex; the names of
    the tables. Other tables of before go."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in [*folder.glob("*.csv"), *folder.glob("*.tex")]:
        file.unlink()
    kept = {name: table for name, table in tables.items() if len(table)}
    for name, table in kept.items():
        table.to_csv(folder / f"{name}.csv", index=False, float_format="%.6f")
    for name, text in latex.items():
        (folder / f"{name}.tex").write_text(text, encoding="utf-8")
    return list(kept)


# --- one run -----------------------------------------------------------------------------------


def summary(means: pd.DataFrame) -> pd.DataFrame:
    """Quality by benchmark and setting. means: lib.study.results.save_scores."""
    return means[list(QUALITY)].rename(columns=LABELS).round(3)


def bias_summary(means: pd.DataFrame) -> pd.DataFrame:
    """Language bias in the headline stratum; a row of NaN where nothing is parallel."""
    row = means.loc["headline"].reindex(["multi"])
    return row[list(BIAS)].rename(columns=LABELS).round(3)


def language_share(share: pd.DataFrame) -> pd.DataFrame:
    """Languages of the top 10 against the pool, over all questions."""
    overall = share[share["question_language"] == "*"].set_index("candidate_language")
    return overall[["share", "pool", "lift"]].round(3)


def language_maps(scores: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """mAP by question language and language of the passages: within one pool, and out of all."""
    cells = language_cells(scores)
    target = cells["setting"] == "one_target"
    parts = {
        "mAP, one language's pool": cells[cells["setting"].isin(["mono", "cross"])],
        "mAP, all languages' pool, one target": cells[target],
    }
    return {
        title: block.pivot(index=CELL[0], columns=CELL[1], values="ap")
        for title, block in parts.items()
    }
