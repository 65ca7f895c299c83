"""What figures show, in a sentence each, for readers who do not see them.

Every function takes what the figure of its name draws, and says what was found in it rather than
what kind of figure it is: a sentence, or one a panel.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd

from lib.analysis import stats
from lib.metrics import REFERENCES


def p_value(p: float) -> str:
    """`p < .001` or `p = .012`."""
    return "p < .001" if p < 0.0005 else f"p = {p:.3f}".replace("0.", ".", 1)


def _apart(row: NamedTuple) -> str:
    """`0.115 lower than mono [-0.133, -0.097]`. row: difference, low, high, versus."""
    way = "lower" if row.difference < 0 else "higher"
    interval = stats.shown(row.low, row.high, "+.3f")
    return f"{abs(row.difference):.3f} {way} than {row.versus} {interval}"


def _sentence(parts: Iterable[str]) -> str:
    return "; ".join(parts) + "."


# --- the report --------------------------------------------------------------------------------


def tradeoff(
    points: pd.DataFrame, regions: dict, paths: dict, references: dict, front: list[str]
) -> str:
    """Where each arm stands, and which are on the front."""
    means = {arm: mean for arm, (mean, _) in regions.items()} | references
    each = (f"{name} mono {x:.3f}, cross {y:.3f}" for name, (x, y) in means.items())
    best = ", ".join(front)
    return f"No arm beats {best} in both mono and cross mAP. {_sentence(each)}"


def primary(table: pd.DataFrame) -> str:
    """Each contrast with its interval and verdict."""
    return _sentence(
        f"{row.claim.partition(':')[0]}: {row.verdict}, {row.why}"
        if pd.isna(row.difference)
        else f"{row.claim.partition(':')[0]}: {row.arm} is {_apart(row)} in "
        f"{where(row.setting)}, {verdict(row)}"
        for row in table.itertuples()
    )


def where(setting: str) -> str:
    """`mono mAP`; of settings joined by + that it is their mean."""
    several = setting.count("+") + 1
    return f"mean mAP of {several} settings" if several > 1 else f"{setting} mAP"


def verdict(row: NamedTuple) -> str:
    """A row's verdict; where there is none, why."""
    if row.verdict != stats.NO_VERDICT:
        return row.verdict
    return f"no verdict ({row.seeds:.0f} seed{'s' * (row.seeds > 1)})"


def rivals(table: pd.DataFrame) -> dict[str, str]:
    """How many arms are told apart from a rival in each setting, and which differs most."""
    return {
        f"minus {rival}": _sentence(
            _of_rival(setting, part) for setting, part in block.groupby("setting", sort=False)
        )
        for rival, block in table.groupby("rival", sort=False)
    }


def _of_rival(setting: str, part: pd.DataFrame) -> str:
    above, below = (part["low"] > 0).sum(), (part["high"] < 0).sum()
    most = next(part.loc[[part["difference"].idxmax()]].itertuples())
    counts = f"intervals of {above} of {len(part)} arms lie above zero, of {below} below"
    return f"In {setting} {counts}; {most.arm} is best, {_apart(most)}"


def prompts(table: pd.DataFrame) -> dict[str, str]:
    """The difference of each arm, by pair of prompts."""
    return {
        measure: _sentence(
            f"{row.arm}, asked with {row.prompts}, "
            f"{stats.signed(row.difference, row.low, row.high)}, {verdict(row)}"
            for row in part.itertuples()
        )
        for measure, part in table[table["versus"] == "swapped"].groupby("measure", sort=False)
    }


def scripts(table: pd.DataFrame) -> dict[str, str]:
    """The difference in each kind of pair."""
    return {
        f"minus {versus}": _sentence(
            f"{row.arm} is {_apart(row)} in {row.pair}" for row in part.itertuples()
        )
        for versus, part in table.groupby("versus", sort=False)
    }


def mechanism(table: pd.DataFrame) -> str:
    """What each step brings, setting by setting."""
    return _sentence(
        f"{row.words}: {row.arm} is {_apart(row)} in {row.setting}" for row in table.itertuples()
    )


def against(table: pd.DataFrame) -> str:
    """Each difference of an arm, setting by setting."""
    return _sentence(f"{row.arm} is {_apart(row)} in {row.setting}" for row in table.itertuples())


def temperatures(table: pd.DataFrame) -> str:
    """Each contrast at each temperature."""
    rows = table.itertuples()
    return _sentence(
        f"{row.contrast} at {row.at}: {row.arm} is {_apart(row)} in {where(row.setting)}"
        for row in rows
    )


def maps(frames: dict[str, pd.DataFrame]) -> dict[str, str]:
    """Mean and range within a language and across languages."""
    return {
        title: _sentence([f"{title}: {_of_map(frame, '+.3f')}"]) for title, frame in frames.items()
    }


def _of_map(frame: pd.DataFrame, form: str) -> str:
    """Of a square table: its diagonal, and the rest."""
    within = frame.stack()[lambda s: s.index.get_level_values(0) == s.index.get_level_values(1)]
    across = frame.stack()[lambda s: s.index.get_level_values(0) != s.index.get_level_values(1)]
    parts = {"within a language": within.dropna(), "across languages": across.dropna()}
    return ", ".join(_range(where, cells, form) for where, cells in parts.items() if len(cells))


def _range(where: str, cells: pd.Series, form: str) -> str:
    low, high = cells.idxmin(), cells.idxmax()
    name = ["-".join(dict.fromkeys(pair)) for pair in (low, high)]
    return (
        f"{where} {cells.mean():{form}} on average, from {cells[low]:{form}} ({name[0]}) to "
        f"{cells[high]:{form}} ({name[1]})"
    )


def alphas(table: pd.DataFrame) -> dict[str, str]:
    """Both ends and the best alpha of each strategy, by setting."""
    return {
        setting: _sentence(
            f"{setting} mAP of {name} {_of_path(line.sort_values('alpha'))}"
            for name, line in block.groupby("strategy", sort=False)
        )
        for setting, block in table.groupby("setting", sort=False)
    }


def _of_path(line: pd.DataFrame) -> str:
    first, last = line.iloc[0], line.iloc[-1]
    best = line.loc[line["estimate"].idxmax()]
    return (
        f"goes from {first['estimate']:.3f} at alpha {first['alpha']:g} to {last['estimate']:.3f} "
        f"at {last['alpha']:g}, highest at {best['alpha']:g} ({best['estimate']:.3f})"
    )


def budgets(table: pd.DataFrame) -> dict[str, str]:
    """Which arm leads at the smallest and at the largest budget, by setting."""
    found = {}
    for setting, block in table.groupby("setting", sort=False):
        ends = [block[block["budget"] == block["budget"].agg(end)] for end in ("min", "max")]
        found[setting] = _sentence(_of_budget(setting, end) for end in ends)
    return found


def _of_budget(setting: str, block: pd.DataFrame) -> str:
    order = block.sort_values("mAP", ascending=False, kind="stable")
    best, worst = order.iloc[0], order.iloc[-1]
    return (
        f"after {best['budget']} steps {best['arm']} is highest in {setting} ({best['mAP']:.3f}), "
        f"{worst['arm']} lowest ({worst['mAP']:.3f})"
    )


def bias(table: pd.DataFrame) -> dict[str, str]:
    """Least and most biased arm, by measure."""
    table = table[~table["arm"].isin([REFERENCES["oracle"], REFERENCES["bm25_words"]])]
    return {
        measure: _sentence([_extremes(block, "measure")])
        for measure, block in table.groupby("measure", sort=False)
    }


def strata(table: pd.DataFrame) -> dict[str, str]:
    """The best arm in each stratum, by setting."""
    return {
        setting: f"{setting}: "
        + _sentence(_extremes(part, "stratum") for _, part in block.groupby("stratum", sort=False))
        for setting, block in table.groupby("setting", sort=False)
    }


def _extremes(block: pd.DataFrame, what: str) -> str:
    """`1-hop: mono highest (0.930), cross lowest (0.710)`."""
    high, low = (block.loc[block["estimate"].agg(end)] for end in ("idxmax", "idxmin"))
    name = block[what].iloc[0].replace("_", " ")
    return (
        f"{name}: {high['arm']} highest ({high['estimate']:.3f}), "
        f"{low['arm']} lowest ({low['estimate']:.3f})"
    )


# --- one run, and the corpus -------------------------------------------------------------------


def languages(cells: dict[str, pd.DataFrame]) -> dict[str, str]:
    """Mean and range within a language and across."""
    return {
        title: _sentence([f"{title}: {_of_map(frame, '.3f')}"]) for title, frame in cells.items()
    }


def batches(first: list, names: tuple[str, ...]) -> dict[str, str]:
    """How many pairs of languages each batch has, and how many rows keep to one."""
    return {f"batch {batch.step} ({batch.kind})": _of_batch(batch) for batch in first}


def _of_batch(batch) -> str:
    question, passage = batch.question_language, batch.passage_language
    pairs = len(set(zip(question.tolist(), passage.tolist(), strict=True)))
    return (
        f"{len(question)} rows of {pairs} pair{'s' * (pairs > 1)} of languages, "
        f"{(question == passage).mean():.0%} of them in one language."
    )


def curve(log: pd.DataFrame) -> str:
    """First and last loss."""
    first, last = log["loss"].head(20).mean(), log["loss"].tail(20).mean()
    return f"The loss goes from {first:.2f} to {last:.2f} nats in {len(log)} steps."


def validation(table: pd.DataFrame) -> str:
    """The best step."""
    best, last = table.loc[table["map"].idxmax()], table.iloc[-1]
    return (
        f"Mean mAP is highest at step {best['step']:.0f} ({best['map']:.3f}); at the last, "
        f"{last['step']:.0f}, it is {last['map']:.3f}."
    )


def lengths(table: pd.DataFrame) -> str:
    """Shortest and longest language of each side."""
    medians = table.groupby(["side", "language"], observed=True)["tokens"].median()
    return _sentence(
        f"the median {side} has {block.min():.0f} tokens in {block.idxmin()[1]} and "
        f"{block.max():.0f} in {block.idxmax()[1]}"
        for side, block in medians.groupby(level=0, observed=True)
    )


def difficulty(table: pd.DataFrame) -> str:
    """The best ranker of each stratum."""
    rows = table.rename(columns={"ranker": "arm", "mAP": "estimate"})
    return _sentence(_extremes(part, "stratum") for _, part in rows.groupby("stratum", sort=False))


def names(share: pd.DataFrame) -> str:
    """Mean and range over pairs of languages."""
    cells = share.stack().dropna()
    cells = cells[[first != second for first, second in cells.index]]
    return _sentence([_range("share of questions whose names all differ", cells, ".2f")])


def knobs(table: pd.DataFrame) -> str:
    """How far BM25 goes with each parameter."""
    return _sentence(
        f"mAP of BM25 lies between {rows['BM25'].min():.2f} and {rows['BM25'].max():.2f} over "
        f"{np.size(rows['value'])} values of {knob}"
        for knob, rows in table.groupby("knob", sort=False)
    )


# --- along an axis -----------------------------------------------------------------------------


def trend(table: pd.DataFrame, axis: str) -> dict[str, str]:
    """Where each contrast begins and ends."""
    return {
        contrast: f"{contrast}: {first.value:+.3f} at {first.x:g} ({axis}), {last.value:+.3f} at "
        f"{last.x:g}."
        for contrast, line in table.groupby("contrast", sort=False)
        for first, last in [(line.iloc[0], line.iloc[-1])]
    }


def series(table: pd.DataFrame, axis: str) -> dict[str, str]:
    """Where each arm begins and ends."""
    return {
        setting: _sentence(
            f"{arm} {line['mAP'].iloc[0]:.3f} to {line['mAP'].iloc[-1]:.3f}"
            for arm, line in block.groupby("arm", sort=False)
        )
        for setting, block in table.groupby("setting", sort=False)
    }


def donors(table: pd.DataFrame, axis: str) -> dict[str, str]:
    """The gain of each arm at every share, by study."""
    return {
        study: _sentence(
            f"{arm}, gain over alone: "
            + ", ".join(
                f"{stats.signed(r.estimate, r.low, r.high)} at {r.x:g}" for r in line.itertuples()
            )
            + f" ({axis})"
            for arm, line in block.groupby("arm", sort=False)
        )
        for study, block in table.groupby("study", sort=False)
    }


# --- all studies ---------------------------------------------------------------------------------


def studies(table: pd.DataFrame) -> dict[str, str]:
    """The difference of each study, by contrast."""
    return {
        contrast: _sentence(
            f"{row.study}, {row.start}: {stats.signed(row.difference, row.low, row.high)}"
            for row in part.itertuples()
        )
        for contrast, part in table.groupby("contrast", sort=False)
    }


def axes(table: pd.DataFrame) -> dict[str, str]:
    """Where each contrast of a study begins and ends."""
    return {
        study: " ".join(trend(part, part["axis"].iloc[0]).values())
        for study, part in table.groupby("study", sort=False)
    }
