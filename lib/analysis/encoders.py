"""Figures of encoders side by side: the trade-off plane, and differences from the first of them."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from lib.analysis.drawing import FAMILIES, WIDE, figure, label_points
from lib.analysis.regions import Region
from lib.analysis.stats import LEVEL, MARGIN, NO_VERDICT, shown

LOOKS = [FAMILIES[arm] for arm in ("mono", "cross", "hybrid", "mix", "hybrid-pair", "x-x")]


def look(place: int) -> dict:
    """Colour and marker of the encoder that stands there in the command."""
    colour, marker = LOOKS[place % len(LOOKS)]
    return {"color": colour, "marker": marker}


def _alt_plane(plane: dict[str, Region]) -> str:
    parts = (f"{x}: mono {r.x.estimate:.3f}, cross {r.y.estimate:.3f}" for x, r in plane.items())
    return "; ".join(parts) + "."


def _alt_differences(table: pd.DataFrame) -> str:
    parts = (
        f"{r.setting}, {r.arm}: {r.difference:+.3f} {shown(r.low, r.high, '+.3f')}, {r.verdict}"
        for r in table.itertuples()
    )
    return "; ".join(parts) + "."


@figure(
    "plane",
    "Each encoder's mAP within a language and across languages. An ellipse's projections on the "
    "axes are the two 95 % intervals over clusters of questions. Encoders are compared on the same "
    "questions, so ellipses that overlap may belong to encoders that are told apart: see the "
    "differences.",
    _alt_plane,
)
def plane(plane: dict[str, Region]):
    """plane: of lib.analysis.comparison.Comparison.plane."""
    fig, ax = plt.subplots(figsize=(WIDE, 4.6))
    points = {}
    for place, (name, region) in enumerate(plane.items()):
        mark = look(place)
        ax.fill(*region.points.T, color=mark["color"], alpha=0.12, lw=0)
        ax.plot(
            *np.vstack([region.points, region.points[:1]]).T, color=mark["color"], lw=0.8, alpha=0.6
        )
        points[name] = (region.x.estimate, region.y.estimate)
        ax.scatter(*points[name], s=80, edgecolor="white", linewidth=1, zorder=3, **mark)
    ax.margins(0.12)
    ax.set(xlabel="mono mAP (pool of the question's language)")
    ax.set(ylabel="cross mAP (pool of another language)")
    label_points(ax, points, [], [])
    return fig


@figure(
    "differences",
    "Each encoder minus the first, question by question. Lines: 95 % interval of each alone, over "
    "clusters of questions. Filled marks: significant, by a p value adjusted for all shown "
    "(Holm). Grey: less than .01 mAP either way.",
    _alt_differences,
)
def differences(table: pd.DataFrame):
    """table: of lib.analysis.comparison.Comparison.differences."""
    names = [*dict.fromkeys(table["arm"])]
    fig, ax = plt.subplots(figsize=(WIDE, 0.9 + 0.3 * len(table)), layout="constrained")
    ax.axvspan(-MARGIN, MARGIN, color="#dddddd", lw=0, zorder=0)
    ax.axvline(0, color="black", lw=0.8, zorder=1)
    for y, row in enumerate(table.itertuples()):
        mark = look(1 + names.index(row.arm))
        inside = mark["color"] if row.p_holm < LEVEL and row.verdict != NO_VERDICT else "white"
        ax.plot([row.low, row.high], [y, y], color=mark["color"], lw=1.8)
        ax.plot(row.difference, y, ms=7, mew=1.4, ls="", mfc=inside, **mark)
    labels = [f"{row.setting}: {row.arm}" for row in table.itertuples()]
    ax.set(yticks=range(len(table)), yticklabels=labels, ylim=(len(table) - 0.4, -0.6))
    ax.set_xlabel(f"difference in mAP from {table['versus'].iloc[0]}")
    ax.grid(visible=False, axis="y")
    return fig
