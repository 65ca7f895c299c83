"""Differences of two arms by language of the question and of the passages."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.patches import Rectangle

from lib.analysis import alts
from lib.analysis.drawing import figure
from lib.languages import script

COLOURS = "RdBu"  # red below zero, blue above; told apart by colour-blind readers
NUMBERED = 12  # most languages whose cells have room for numbers
SIDE = 4.5  # inches


@figure(
    "languages",
    "Difference in mAP in hundredths; blue: the first arm is better, red: the second. Languages "
    "are in the order of their scripts (right), between which there are gaps; the framed diagonal "
    "is one language. One scale for all maps. Hatched: no question, or fewer than 20.",
    alts.maps,
)
def differences(maps: dict[str, pd.DataFrame]):
    """A panel a map. maps: of lib.analysis.contrasts.by_language."""
    most = max(np.nanmax(np.abs(frame.to_numpy(float))) for frame in maps.values())
    limit = 5 * np.ceil(100 * most / 5 + 1e-9)
    return {title: _map(title, 100 * frame, limit) for title, frame in maps.items()}


def _map(title: str, frame: pd.DataFrame, limit: float):
    """One map with its own colour bar, from -limit to limit."""
    count = len(frame)
    fig, ax = plt.subplots(figsize=(SIDE, SIDE + 0.6), layout="constrained")
    ax.set_facecolor("#f2f2f2")
    ax.patch.set(hatch="////", edgecolor="#bbbbbb")
    mesh = ax.pcolormesh(frame.to_numpy(float), cmap=COLOURS, vmin=-limit, vmax=limit)
    if count <= NUMBERED:
        _numbers(ax, frame.to_numpy(float), limit)
    for place in range(count):
        ax.add_patch(Rectangle((place, place), 1, 1, fill=False, lw=1.4, ec="black", zorder=4))
    _scripts(ax, list(frame.index))
    size = 9 if count <= 16 else max(3, 150 / count)
    ticks = np.arange(count) + 0.5
    ax.set_xticks(ticks, frame.columns, fontsize=size, rotation=0 if count <= 16 else 90)
    ax.set_yticks(ticks, frame.index, fontsize=size)
    ax.tick_params(length=0)
    ax.set(xlabel="language of the passages", ylabel="language of the question")
    ax.set(xlim=(0, count), ylim=(count, 0), aspect="equal")
    ax.set_title(title, loc="left")
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    bar = fig.colorbar(mesh, ax=ax, orientation="horizontal", aspect=40, pad=0.02)
    bar.set_label("difference in mAP, hundredths")
    bar.outline.set_visible(False)
    return fig


def _numbers(ax: plt.Axes, values: np.ndarray, limit: float) -> None:
    """The differences in their cells, whole numbers, in white on dark colours."""
    for (y, x), value in np.ndenumerate(values):
        if not np.isnan(value):
            sign = "\N{MINUS SIGN}" if round(value) < 0 else ""
            ink = "white" if abs(value) > 0.6 * limit else "black"
            text = f"{sign}{abs(round(value))}"
            ax.text(x + 0.5, y + 0.5, text, ha="center", va="center", fontsize=10, color=ink)


def _scripts(ax: plt.Axes, languages: list[str]) -> None:
    """Gaps between the scripts, and their names at the right of the first row of each."""
    count, start = len(languages), 0
    for place in range(1, count + 1):
        if place < count and script(languages[place]) == script(languages[start]):
            continue
        ax.text(
            count + 0.15, (start + place) / 2, script(languages[start]), fontsize=8, va="center"
        )
        if place < count:
            ax.axhline(place, color="white", lw=3, zorder=3)
            ax.axvline(place, color="white", lw=3, zorder=3)
        start = place
