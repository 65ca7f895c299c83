"""Can the question choose? The same questions asked with one prompt, and with the other.

An encoder may be trained with one prompt before questions that are answered in their own language
and another before the others (lib.training.prompts). At test, benchmarks that differ in nothing but
their prompt ask it all questions with either. The *right* prompt is that of the own language where
one's own language is wanted, and the other where another language is; *swapped* is the other one of
the two, *none* the encoder's own. A difference of right and swapped is of one encoder and the same
texts: nothing but the words before the question can make it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pandas as pd

from lib.analysis import stats
from lib.analysis.results import Results, quoted
from lib.params import BenchmarkSpec

# Measure -> (setting, metric, whether the prompt of the own language is the right one).
MEASURES = {
    "own-language advantage": ("multi", "own_language_advantage", True),
    "mono mAP": ("mono", "ap", True),
    "cross mAP": ("cross", "ap", False),
}
VERSUS = ("swapped", "none")


def choices(
    loaded: Mapping[str, Results], specs: Mapping[str, BenchmarkSpec], about: str
) -> pd.DataFrame:
    """Right minus swapped and right minus none, of every arm, on the benchmark `about` and those
    that differ from it in their prompt alone; paired by seed and question. Empty where none do.

    Rows: measure, prompts (the pair of them), versus, arm, own (whether it was trained with this
    pair), difference, low, high, seeds, clusters, detectable, p, p_holm (adjusted over all of a
    measure and versus), verdict (higher, lower, undecided, or a dash)."""
    asked = _asked(loaded, specs, about)
    rows = [row for pair in _pairs(loaded[about], asked) for row in _rows(asked, pair)]
    parts = pd.DataFrame(rows)
    if parts.empty:
        return parts
    parts["p_holm"] = parts.groupby(["measure", "versus"])["p"].transform(_holm)
    parts["verdict"] = [_verdict(row) for row in parts.itertuples()]
    order = parts["measure"].map({name: place for place, name in enumerate(MEASURES)})
    return parts.iloc[order.argsort(kind="stable")].reset_index(drop=True)


def _asked(
    loaded: Mapping[str, Results], specs: Mapping[str, BenchmarkSpec], about: str
) -> dict[str, Results]:
    """Prompt -> results, of the benchmarks that are `about` but for their prompt."""
    bare = {name: specs[name].model_copy(update={"prompt": ""}) for name in loaded}
    return {specs[n].prompt: loaded[n] for n, spec in bare.items() if spec == bare[about]}


def _pairs(found: Results, asked: Mapping[str, Results]) -> Iterator[tuple[str, str]]:
    """The pairs of prompts that an arm was trained with, where both were asked."""
    trained = dict.fromkeys((r.train.mono_prompt, r.train.cross_prompt) for r in found.runs)
    for pair in trained:
        if pair[0] != pair[1] and all(prompt in asked for prompt in pair):
            yield pair


def _rows(asked: Mapping[str, Results], pair: tuple[str, str]) -> Iterator[dict]:
    """Of one pair of prompts: every measure, versus and arm."""
    some = asked[pair[0]]
    trains = {run.arm: run.train for run in some.runs}
    named = " / ".join(quoted(prompt, some.runs[0].train) for prompt in pair)
    for measure, (setting, metric, own) in MEASURES.items():
        right, swapped = pair if own else pair[::-1]
        having = metric == "ap" or metric in some.biases
        for versus, other in zip(VERSUS, (swapped, ""), strict=True):
            usable = setting in some.settings and having and other in asked and other != right
            for arm in some.arms if usable else ():
                tables = (asked[one].table(arm, setting, metric) for one in (right, other))
                about = {"measure": measure, "prompts": named, "versus": versus, "arm": arm}
                own_pair = trains[arm].mono_prompt, trains[arm].cross_prompt
                yield about | {"own": own_pair == pair} | _compared(stats.paired(*tables))


def _compared(gap: stats.Paired) -> dict:
    found = gap.difference
    return {
        "difference": found.estimate,
        "low": found.low,
        "high": found.high,
        "seeds": found.seeds,
        "clusters": found.clusters,
        "detectable": stats.detectable(found),
        "p": gap.p,
    }


def _holm(p: pd.Series) -> list[float]:
    return stats.holm(p.tolist()).tolist()


def _verdict(row) -> str:
    if row.seeds < stats.SEEDS or pd.isna(row.p):
        return stats.NO_VERDICT
    if row.p_holm < stats.LEVEL:
        return "higher" if row.difference > 0 else "lower"
    return "undecided"


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """`choices`, for people to read: a row an arm and pair of prompts, a column a difference, with
    a star where the adjusted test tells it from zero."""
    if table.empty:
        return table
    stars = table["verdict"].isin(["higher", "lower"]).map({True: " *", False: ""})
    text = [stats.signed(r.difference, r.low, r.high) for r in table.itertuples()]
    named = table.assign(
        text=text + stars,
        trained=table["own"].map({True: "with these", False: "without"}),
        column=table["measure"] + ", right \N{MINUS SIGN} " + table["versus"],
    )
    keys = ["arm", "prompts", "trained"]
    wide = named.pivot(index=keys, columns="column", values="text")
    rows = pd.MultiIndex.from_frame(named[keys].drop_duplicates())
    wide = wide.reindex(index=rows, columns=list(dict.fromkeys(named["column"])))
    return wide.rename_axis(columns=None).reset_index().rename(columns={"prompts": "asked with"})


def answer(table: pd.DataFrame) -> str:
    """What the prompts that an arm was trained with do, right minus swapped; "" without any."""
    said = []
    rows = table[table["own"] & (table["versus"] == "swapped")] if len(table) else table
    for arm, block in rows.groupby("arm", sort=False) if len(rows) else ():
        parts = [
            f"{row.measure} {stats.signed(row.difference, row.low, row.high)} ({_said(row)})"
            for row in block.itertuples()
        ]
        said.append(f"{arm}: {', '.join(parts)}")
    return "; ".join(said) + "." if said else ""


def _said(row) -> str:
    """A verdict; of an undecided one what could have been detected."""
    if row.verdict == "undecided":
        return f"undecided, detectable {row.detectable:.3f}"
    few = f"{row.seeds} seed{'s' * (row.seeds > 1)}: no verdict"
    return few if row.verdict == stats.NO_VERDICT else row.verdict
