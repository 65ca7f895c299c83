"""Can the question choose? The same questions asked with one prompt, and with the other.

An encoder may be trained with one prompt before questions that are answered in their own language
and another before the others (lib.training.prompts). At test, benchmarks that differ in nothing but
their prompt ask it all questions with either. The *right* prompt is that of the own language where
one's own language is wanted, and the other where another language is; *swapped* is the other one of
the two, *none* the encoder's own. A difference of right and swapped is of one encoder and the same
texts: nothing but the words before the question can make it. The first pair of prompts of a study
is what it is about; any other is its *control*, of words that say nothing of languages.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pandas as pd

from lib.analysis import contrasts, stats, words
from lib.analysis.cells import combined
from lib.analysis.results import Results, ScoredRun, quoted
from lib.params import BenchmarkSpec

# Measure -> (setting, metric, whether the prompt of the own language is the right one).
MEASURES = {
    "own-language advantage": ("multi", "own_language_advantage", True),
    "mono mAP": ("mono", "ap", True),
    "cross mAP": ("cross", "ap", False),
}
VERSUS = ("swapped", "none")
CONTROL = "swapped, less the control's"


def choices(
    loaded: Mapping[str, Results], specs: Mapping[str, BenchmarkSpec], about: str
) -> pd.DataFrame:
    """Right minus swapped and right minus none, of every arm, on the benchmark `about` and those
    that differ from it in their prompt alone; and how far the first pair's right minus swapped is
    beyond that of the same arm with a control's (CONTROL). Paired by seed and question. Empty where
    none do.

    Rows: measure, prompts (the pair of them), versus, arm, own (whether it was trained with this
    pair), and what lib.analysis.contrasts.rivals says of a difference, adjusted over all of a
    measure and versus; only mAP can be equivalent."""
    asked = _asked(loaded, specs, about)
    pairs = [*_pairs(loaded[about], asked)]
    found = [row for pair in pairs for row in _rows(asked, pair)]
    found += _beyond_control(asked, pairs) if len(pairs) > 1 else []
    rows = []
    for measure, (_, metric, _) in MEASURES.items():
        for versus in (*VERSUS, CONTROL):
            own = [row for row in found if (row["measure"], row["versus"]) == (measure, versus)]
            gaps = contrasts.compared([row.pop("gap") for row in own], metric == "ap")
            rows += [row | gap for row, gap in zip(own, gaps, strict=True)]
    table = pd.DataFrame(rows)
    if table.empty:
        return table
    order = {named: place for place, named in enumerate(dict.fromkeys(table["prompts"]))}
    places = table["measure"].map({name: place for place, name in enumerate(MEASURES)})
    places = len(order) * places + table["prompts"].map(order)
    return table.iloc[places.argsort(kind="stable")].reset_index(drop=True)


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
    """Of one pair of prompts: every measure, versus and arm, with the difference as `gap`."""
    some = asked[pair[0]]
    trained = _trained(some.runs)
    for measure in _measures(some):
        setting, metric, own = MEASURES[measure]
        right, swapped = pair if own else pair[::-1]
        for versus, other in zip(VERSUS, (swapped, ""), strict=True):
            usable = other in asked and other != right
            for arm in some.arms if usable else ():
                tables = (asked[one].table(arm, setting, metric) for one in (right, other))
                about = {"measure": measure, "prompts": _named(pair, some.runs), "versus": versus}
                about |= {"arm": arm, "own": trained[arm] == pair}
                yield about | {"gap": stats.paired(*tables)}


def _beyond_control(asked: Mapping[str, Results], pairs: list[tuple[str, str]]) -> Iterator[dict]:
    """Arms trained with the first pair, less those that differ in having the second: right minus
    swapped of either, each asked with its own."""
    some = asked[pairs[0][0]]
    trained, batches = _trained(some.runs), {run.arm: _batches(run) for run in some.runs}
    for measure in _measures(some):
        setting, metric, own = MEASURES[measure]
        for arm in (one for one in some.arms if trained[one] == pairs[0]):
            alike = (one for one in some.arms if batches[one] == batches[arm])
            other = next((one for one in alike if trained[one] == pairs[1]), None)
            if other is None:
                continue
            parts = [
                asked[prompt].table(one, setting, metric)
                for one, pair in ((arm, pairs[0]), (other, pairs[1]))
                for prompt in (pair if own else pair[::-1])
            ]
            gap = stats.interval(combined(parts, [1, -1, -1, 1]))
            about = {"measure": measure, "prompts": _named(pairs[0], some.runs), "versus": CONTROL}
            about |= {"arm": arm, "own": True}
            yield about | {"gap": stats.Paired(gap, stats.two_sided(gap))}


def _measures(found: Results) -> Iterator[str]:
    """Those of MEASURES that a benchmark has."""
    for measure, (setting, metric, _) in MEASURES.items():
        if setting in found.settings and metric in ("ap", *found.biases):
            yield measure


def _trained(runs: list[ScoredRun]) -> dict[str, tuple[str, str]]:
    """Arm -> the pair of prompts that it was trained with."""
    return {run.arm: (run.train.mono_prompt, run.train.cross_prompt) for run in runs}


def _batches(run: ScoredRun) -> tuple[str, float]:
    return run.train.strategy, run.train.alpha


def _named(pair: tuple[str, str], runs: list[ScoredRun]) -> str:
    return " / ".join(quoted(prompt, runs[0].train) for prompt in pair)


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """`choices`, for people to read: a row a difference, pair of prompts and arm, a column a
    measure, with a star where the adjusted test tells the difference from zero."""
    if table.empty:
        return table
    stars = table["verdict"].isin(["higher", "lower"]).map({True: " *", False: ""})
    text = [stats.signed(r.difference, r.low, r.high) for r in table.itertuples()]
    keys = ["difference", "asked with", "arm"]
    named = table.rename(columns={"prompts": "asked with"}).assign(
        text=text + stars, difference="right \N{MINUS SIGN} " + table["versus"]
    )
    wide = named.pivot(index=keys, columns="measure", values="text").fillna("")
    rows = [named.loc[named["versus"] == versus, keys] for versus in (*VERSUS, CONTROL)]
    rows = pd.MultiIndex.from_frame(pd.concat(rows).drop_duplicates())
    wide = wide.reindex(index=rows, columns=list(dict.fromkeys(named["measure"])))
    return wide.rename_axis(columns=None).reset_index()


# What is said first, by whether the right prompt moves the own-language advantage, and beyond the
# control's.
CHOOSES = {
    "higher": "Yes, the question can choose",
    "lower": "No: what is asked for comes less, not more",
    "undecided": "That the question can choose is not shown",
}
BEYOND = {
    "higher": ", and more than with prompts that mean nothing",
    "lower": ", but less than with prompts that mean nothing",
    "equivalent": ", as it can with prompts that mean nothing",
    "undecided": "; that it can do so better than with prompts that mean nothing is not shown",
}


def answer(table: pd.DataFrame) -> str:
    """Whether the question can choose, `**` around what counts: right minus swapped of arms that
    were trained with these prompts, beside the control; "" without prompts. table: of `choices`."""
    if table.empty or not (table["own"] & (table["versus"] == "swapped")).any():
        return ""
    rows = table[table["own"]]
    own = rows[rows["versus"] == "swapped"]
    about = own["prompts"].iloc[0]
    mine, control = own[own["prompts"] == about], own[own["prompts"] != about]
    beyond = rows[rows["versus"] == CONTROL]
    said = f"Right prompt less swapped, {about}: {_by_arm(mine)}."
    if len(control):
        named = " and ".join(dict.fromkeys(control["prompts"]))
        said += f" Control, {named}: {_by_arm(control)}."
    if len(beyond):
        said += f" Beyond the control: {_by_arm(beyond)}."
    return words.following(_lead(mine, beyond), said)


def _lead(mine: pd.DataFrame, beyond: pd.DataFrame) -> str:
    """Yes, no, or not shown, of the first arm and measure; or why nothing is decided."""
    first = mine.iloc[0]
    if first["verdict"] not in CHOOSES:
        return words.nothing_decided([first.to_dict()])
    other = beyond[(beyond["arm"] == first["arm"]) & (beyond["measure"] == first["measure"])]
    told = first["verdict"] == "higher" and len(other)
    return f"**{CHOOSES[first['verdict']]}{BEYOND[other['verdict'].iloc[0]] if told else ''}.** "


def _by_arm(rows: pd.DataFrame) -> str:
    """Every arm with its differences."""
    return "; ".join(
        f"{arm}: {', '.join(map(_said, block.itertuples()))}"
        for arm, block in rows.groupby("arm", sort=False)
    )


def _said(row) -> str:
    """A difference with its interval and verdict; of an undecided one what could have been
    detected."""
    text = f"{row.measure} {stats.signed(row.difference, row.low, row.high)}"
    if row.verdict == "undecided":
        return f"{text} (undecided, detectable {row.detectable:.3f})"
    if row.verdict == stats.NO_VERDICT:
        return text
    told = f"within {stats.MARGIN:g}" if row.verdict == "equivalent" else row.verdict
    return f"{text} ({told})"
