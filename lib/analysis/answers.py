"""The first sentence about a study: its report opens with it, the page of all studies repeats it.

What a study was made to answer follows from what it varies: prompts, an axis of numbers, or how
batches are composed.
"""

from __future__ import annotations

import pandas as pd

from lib.analysis import prompts, trends


def first_sentence(
    choices: pd.DataFrame, along: pd.DataFrame, slopes: pd.DataFrame, axis: str
) -> str:
    """Of a study with prompts or along an axis: what it found, in a sentence or two with intervals,
    `**` around what counts; "" of any other, which its primary contrasts answer.

    choices: of lib.analysis.prompts; along, slopes: `values`, `slopes` of lib.analysis.trends."""
    return prompts.answer(choices) or trends.answer(along, slopes, axis)
