"""The first sentence about a study: its report opens with it, the page of all studies repeats it.

What a study was made to answer follows from what it varies: prompts, what is done to vectors after
training, temperatures, an axis of numbers, or how batches are composed.
"""

from __future__ import annotations

import pandas as pd

from lib.analysis import prompts, temperatures, trends
from lib.analysis.claims import HYBRID
from lib.analysis.words import effect

MEANS = "mono, centred"


def first_sentence(
    choices: pd.DataFrame,
    changed: pd.DataFrame,
    tempered: pd.DataFrame,
    others: pd.DataFrame,
    along: pd.DataFrame,
    slopes: pd.DataFrame,
    axis: str,
) -> str:
    """Of a study with prompts, with maps after training, with one temperature for both arms, with
    other ways to align languages or along an axis: what it found, in a sentence or two with
    intervals, `**` around what counts; "" of any other, which its primary contrasts answer.

    choices: of lib.analysis.prompts; changed, others: `posthoc`, `others` of
    lib.analysis.contrasts; tempered: of lib.analysis.temperatures; along, slopes: `values`,
    `slopes` of lib.analysis.trends."""
    return (
        prompts.answer(choices)
        or without_training(changed)
        or temperatures.answer(tempered)
        or beside_others(others)
        or trends.answer(along, slopes, axis)
    )


def without_training(changed: pd.DataFrame) -> str:
    """What mono gains when each language's mean is taken away, and what hybrid(0.5) is ahead of it
    then; "" where that was not measured."""
    if changed.empty:
        return ""
    gains = changed[(changed["arm"] == MEANS) & (changed["versus"] == "mono")]
    leads = changed[(changed["arm"] == HYBRID) & (changed["versus"] == MEANS)]
    said = []
    if len(gains):
        said.append(
            f"With each language's mean taken away, without training, mono {_effects(gains)}."
        )
    if len(leads):
        said.append(f"Against it, {HYBRID} as it is {_effects(leads)}.")
    return " ".join(said)


def beside_others(others: pd.DataFrame) -> str:
    """In one pool: what each way to align languages gains over the same batches without, hybrid's
    schedule among them, and hybrid(0.5) against each; "" where that was not measured."""
    pool = others[others["setting"] == "multi"] if len(others) else others
    if pool.empty:
        return ""
    leads = pool["versus"].str.contains(", ")  # a name of batches and what is otherwise than they
    parts = [
        f"Over {_quoted(versus)}, {in_pool(own, 'arm')}."
        for versus, own in pool[~leads].groupby("versus", sort=False)
    ]
    if leads.any():
        parts.append(f"Of {HYBRID}: against {in_pool(pool[leads], 'versus', ' it')}.")
    return " ".join(parts)


def in_pool(rows: pd.DataFrame, named: str, it: str = "") -> str:
    """What each difference is in one pool of all languages, behind a name."""
    return "; ".join(
        f"{_quoted(r[named])}{it} {effect(r, 'in one pool')}" for r in rows.to_dict("records")
    )


def _quoted(name: str) -> str:
    """A name that has a comma in quotation marks, within a sentence."""
    return f'"{name}"' if ", " in name else name


def _effects(rows: pd.DataFrame) -> str:
    """What each setting's difference is, by its adjusted verdict, as the rest of a sentence."""
    return ", ".join(effect(row, f"in {row['setting']}") for row in rows.to_dict("records"))
