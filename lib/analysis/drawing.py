"""One style for all figures; a figure goes with its words, and `show` saves and shows both.

Arms keep their colour and marker in every figure; the palette is safe for colour-blind readers
and no figure tells by colour alone.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import wraps
from io import BytesIO
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from IPython.display import HTML
from matplotlib.text import Text
from matplotlib.transforms import Bbox

STYLE = {
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.labelsize": 11,
    "legend.fontsize": 10,
    "figure.dpi": 110,
    "savefig.bbox": "tight",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
}
FAMILIES = {
    "mono": ("#0173b2", "o"),
    "x-x": ("#56b4e9", "v"),
    "cross": ("#d55e00", "s"),
    "cross-pair": ("#ece133", "P"),
    "cross-fixed": ("#949494", "X"),
    "hybrid": ("#029e73", "D"),
    "hybrid-pair": ("#de8f05", "h"),
    "mix": ("#cc78bc", "^"),
    "en-en": ("#ca9161", "p"),
}
# Markers where a loss leaves out rows: (whether by language, whether beyond a number).
PARTS = {(True, False): ">", (False, True): "<", (True, True): "d"}
REFERENCE = "#555555"
LEADER = {"arrowstyle": "-", "color": REFERENCE, "lw": 0.7, "shrinkA": 0, "shrinkB": 5}
# Points right or left of and above or below what is labelled, the nearest first.
LABEL_OFFSETS = [
    (side * far, up * far)
    for far in (12, 22, 34, 48, 64, 84)
    for up in (0.7, -0.7, 1.5, -1.5)
    for side in (1, -1)
]


def style() -> None:
    """Set the style of figures and tables; call it once a notebook."""
    pd.options.display.max_colwidth = None
    sns.set_theme(context="notebook", style="ticks", palette="colorblind", rc=STYLE)


def look(arm: str) -> dict:
    """Colour and marker of an arm by its family: `hybrid(0.5)` looks like every hybrid. Where its
    loss leaves out rows, as in `mix(0.5), in_language`, the colour is the family's."""
    colour, marker = FAMILIES.get(arm.split("(")[0].split(",")[0], (REFERENCE, "*"))
    part = ", in_language" in arm, arm.endswith(" negatives")
    return {"color": colour, "marker": PARTS.get(part, marker)}


@dataclass(frozen=True)
class Figure:
    """A drawing, its file's name, and what a reader and a screen reader are told of it; no drawing
    where there was nothing to draw."""

    name: str
    caption: str
    alt: str
    drawing: plt.Figure | None


def figure(name: str, caption: str, alt: str) -> Callable:
    """Makes a function that draws its first argument, a table or mapping, give a Figure.

    The keyword `about` of that function puts a sentence before the caption."""

    def words(draw: Callable) -> Callable:
        @wraps(draw)
        def made(table, *others, about: str = "") -> Figure:
            drawing = draw(table, *others) if len(table) else None
            return Figure(name, f"{about} {caption}".strip(), alt, drawing)

        return made

    return words


def show(figure: Figure, folder: Path) -> HTML:
    """Save a figure as folder/<name>.png, and give it as HTML with caption and alt text; nothing
    where it has no drawing."""
    if figure.drawing is None:
        return HTML("")
    buffer = BytesIO()
    figure.drawing.savefig(buffer, format="png", metadata={"Software": None})
    plt.close(figure.drawing)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{figure.name}.png").write_bytes(buffer.getvalue())
    data = base64.b64encode(buffer.getvalue()).decode()
    return HTML(
        f'<figure id="{figure.name}"><img alt="{html.escape(figure.alt)}" '
        f'src="data:image/png;base64,{data}">'
        f"<figcaption>{html.escape(figure.caption)}</figcaption></figure>"
    )


def label_points(ax: plt.Axes, points: dict, bold: Collection[str], grey: Collection[str]) -> None:
    """Write each name near its point, on the nearest side where it stays inside and covers neither
    a point nor an earlier name; a thin line joins the two."""
    ax.figure.canvas.draw()
    inside, renderer = ax.get_window_extent(), ax.figure.canvas.get_renderer()
    taken = [
        Bbox.from_bounds(x - 9, y - 9, 18, 18)
        for x, y in ax.transData.transform([*points.values()])
    ]
    for name, xy in points.items():
        for x, y in LABEL_OFFSETS:
            text = ax.annotate(
                name,
                xy,
                (x, y),
                textcoords="offset points",
                ha="left" if x > 0 else "right",
                va="center",
                zorder=4,
                color=REFERENCE if name in grey else "black",
                fontweight="bold" if name in bold else "normal",
                arrowprops=LEADER,
            )
            text.update_positions(renderer)
            box = Text.get_window_extent(text)  # without the line
            fits = inside.x0 <= box.x0 and box.x1 <= inside.x1 and box.y0 >= inside.y0
            if fits and not any(box.overlaps(other) for other in taken):
                break
            text.remove()
        else:
            ax.annotate(name, xy, LABEL_OFFSETS[0], textcoords="offset points")
        taken.append(box)
