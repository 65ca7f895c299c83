"""Several studies beside each other: the figures of the page about all of them."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd

from lib.analysis import alts
from lib.analysis.drawing import PANEL, figure, look
from lib.analysis.forests import around_zero, block
from lib.analysis.plots import band, doublings

# Whom hybrid(0.5) is compared with, in whose colour a contrast is drawn.
AGAINST = {"mono cost": "mono", "cross gain": "cross", "batch effect": "mix"}


@figure(
    "studies",
    "hybrid(0.5) less mono within a language (mono cost), across languages (cross gain) and in one "
    "pool of all (multi gain), less mix(0.5) over all settings (batch effect): a row a study and "
    "the encoder it starts from, each panel on a scale of its own. Lines: 95 % interval of each "
    "alone, unadjusted. Filled marks: significant, by a p value adjusted over the primary three "
    "of a study, of multi over its rivals (Holm); hollow: not, or of fewer than five seeds. Grey: "
    "within .01 mAP.",
    alts.studies,
)
def studies(table: pd.DataFrame):
    """A panel a contrast. table: of lib.analysis.overview.side_by_side."""
    panels = {}
    for contrast, part in table.groupby("contrast", sort=False):
        size = (1.4 * PANEL, 0.8 + 0.42 * len(part))  # two beside each other, of four
        fig, ax = plt.subplots(figsize=size, layout="constrained")
        block(ax, part, part["study"] + "\n" + part["start"], around_zero(part))
        ax.tick_params(axis="y", labelsize=8.5)
        ax.locator_params(axis="x", nbins=5)
        ax.set(xlabel="difference in mAP")
        ax.set_title(contrast.lower(), loc="left")
        panels[contrast] = fig
    return panels


@figure(
    "axes",
    "The same contrasts in studies along an axis, in doublings, with 95 % intervals of each alone "
    "as bands; each panel on a scale of its own. Above zero hybrid(0.5) is ahead.",
    alts.axes,
)
def axes(table: pd.DataFrame):
    """A panel a study. table: of lib.analysis.overview.along."""
    panels = {}
    for study, part in table.groupby("study", sort=False):
        fig, ax = plt.subplots(figsize=(PANEL, 3.1), layout="constrained")
        ax.axhline(0, color="black", lw=0.8)
        for contrast, line in part.groupby("contrast", sort=False):
            line = line.rename(columns={"value": "estimate", "contrast": "arm"})
            band(ax, line["x"], line, "-", look(AGAINST[contrast]))
        doublings(ax, part["x"], part["axis"].iloc[0])
        ax.set(ylabel="difference in mAP")
        ax.set_title(study, loc="left")
        fig.legend(loc="outside lower left", ncols=2, handlelength=2)
        panels[study] = fig
    return panels


@figure(
    "donors",
    "mAP within a language of few training pairs, less that of training on it alone, over the "
    "share of its pairs that is kept, in doublings; bands: 95 % intervals of each alone. Above "
    "zero the other languages' pairs help. Languages differ in more than their relatives.",
    alts.donors,
)
def donors(table: pd.DataFrame, axis: str):
    """A panel a study, all of one scale. table: of lib.analysis.trends.gains."""
    low, high = min(0, table["low"].min()), max(0, table["high"].max())
    room, panels = 0.05 * (high - low), {}
    for study, part in table.groupby("study", sort=False):
        fig, ax = plt.subplots(figsize=(PANEL, 2.9), layout="constrained")
        ax.axhline(0, color="black", lw=0.8)
        for arm, line in part.groupby("arm", sort=False):
            band(ax, line["x"], line, "--" if arm == "mono" else "-", look(arm))
        doublings(ax, part["x"], axis)
        ax.set(ylabel="gain in mAP over alone", ylim=(low - room, high + room))
        ax.set_title(study, loc="left")
        fig.legend(loc="outside lower left", ncols=2, handlelength=2.4)
        panels[study] = fig
    return panels
