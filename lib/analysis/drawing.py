"""One style for all figures; a figure goes with its words, and `show` saves and shows both.

Arms keep their colour and marker in every figure; the palette is safe for colour-blind readers
and no figure tells by colour alone. Panels are drawings of their own, which a page sets side by
side or, on a phone, below each other; nothing in them is smaller than a phone can show.
"""

from __future__ import annotations

import base64
import html
import re
import textwrap
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from io import BytesIO
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import HTML
from matplotlib.figure import Figure as Drawing
from matplotlib.patheffects import withStroke
from matplotlib.text import Text

from lib.analysis import labels

STYLE = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.labelsize": 10,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "savefig.bbox": "tight",
    "svg.fonttype": "path",  # the same on every machine, whatever fonts it has
    "svg.hashsalt": "figures",  # the same ids in the same figure
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
    "cross-pair": ("#a89a00", "P"),
    "cross-fixed": ("#949494", "X"),
    "hybrid": ("#029e73", "D"),
    "hybrid-pair": ("#de8f05", "h"),
    "mix": ("#cc78bc", "^"),
    "en-en": ("#ca9161", "p"),
}
# Markers where a loss leaves out rows: (whether by language, whether beyond a number).
PARTS = {(True, False): ">", (False, True): "<", (True, True): "d"}
ADDED = {"lakda": "8", "xlco": "H", "distil": "*"}  # where a loss has an objective as well
REFERENCE = "#555555"
LEADER = {"arrowstyle": "-", "color": REFERENCE, "lw": 0.7, "shrinkA": 0, "shrinkB": 5}
WIDE, PANEL = 5.2, 3.1  # inches: of a figure that stands alone, and of one of several
ZOOM = 1.25  # of a figure that stands alone, on a wide screen
ROW = "display:flex;flex-wrap:wrap;align-items:flex-start;gap:.5rem"
IN_ROW = "flex:1 1 {:.0f}px;min-width:0;max-width:min(100%,{:.0f}px)"
LEAST = 0.94  # of its width, before the next panel begins a row
NEAR = 18  # pixels: a name no farther from its mark needs no line to it


def style() -> None:
    """Set the style of figures and tables; call it once a notebook."""
    pd.options.display.max_colwidth = None
    sns.set_theme(context="notebook", style="ticks", palette="colorblind", rc=STYLE)


def look(arm: str) -> dict:
    """Colour and marker of an arm by its family: `hybrid(0.5)` looks like every hybrid. Where its
    loss leaves out rows, as in `mix(0.5), in_language`, has more, or another temperature, the
    colour is the family's."""
    colour, marker = FAMILIES.get(arm.split("(")[0].split(",")[0], (REFERENCE, "*"))
    part = ", in_language" in arm, " negatives" in arm
    marker = "d" if ", temperature " in arm else PARTS.get(part, marker)
    return {"color": colour, "marker": ADDED.get(arm.rpartition(", ")[2], marker)}


@dataclass(frozen=True)
class Figure:
    """Drawings by panel, their file's name, and what a reader and, panel by panel, a screen reader
    are told of them; no panels where there was nothing to draw."""

    name: str
    caption: str
    panels: dict[str, Drawing]
    alts: dict[str, str]


def figure(name: str, caption: str, alt: Callable) -> Callable:
    """Makes a function that draws its first argument, a table or mapping, give a Figure.

    It returns a drawing, or panel -> drawing (none: there is nothing to draw). alt: takes the same
    arguments, and returns what the drawing shows in a sentence, or panel -> sentence.
    The keyword `about` of that function puts a sentence before the caption."""

    def words(draw: Callable) -> Callable:
        @wraps(draw)
        def made(table, *others, about: str = "") -> Figure:
            panels = _by_panel(draw(table, *others)) if len(table) else {}
            alts = _by_panel(alt(table, *others)) if panels else {}
            return Figure(name, f"{about} {caption}".strip(), panels, alts)

        return made

    return words


def _by_panel(made: object) -> dict:
    return made if isinstance(made, dict) else {"": made}


def show(figure: Figure, folder: Path) -> HTML:
    """Save each panel as folder/<name>[-<panel>].svg and .png, and give them as HTML with caption
    and alt texts; nothing where it has no panels."""
    if not figure.panels:
        return HTML("")
    folder.mkdir(parents=True, exist_ok=True)
    files = {panel: folder / _file(figure.name, panel) for panel in figure.panels}
    return _html(figure, {n: _saved(drawing, files[n]) for n, drawing in figure.panels.items()})


def inline(figure: Figure) -> HTML:
    """The same HTML, and nothing saved."""
    vectors = {panel: _vector(drawing) for panel, drawing in figure.panels.items()}
    for drawing in figure.panels.values():
        plt.close(drawing)
    return _html(figure, vectors) if vectors else HTML("")


def _html(figure: Figure, vectors: Mapping[str, str]) -> HTML:
    """A figure on a page. vectors: its panels' SVG."""
    zoom = ZOOM if len(vectors) == 1 else 1
    images = [_image(svg, figure.alts[panel], zoom) for panel, svg in vectors.items()]
    return HTML(
        f'<figure id="{figure.name}"><div style="{ROW}">{"".join(images)}</div>'
        f"<figcaption>{html.escape(figure.caption)}</figcaption></figure>"
    )


def _file(name: str, panel: str) -> str:
    """`paths-mono`: letters, digits and dashes alone."""
    return re.sub(r"[^a-z0-9.]+", "-", f"{name} {panel}".lower()).strip("-")


def _saved(drawing: Drawing, file: Path) -> str:
    """Write a drawing as SVG and PNG; its SVG."""
    text = _vector(drawing)
    drawing.savefig(f"{file}.png", format="png", metadata={"Software": None})
    plt.close(drawing)
    Path(f"{file}.svg").write_text(text, encoding="utf-8")
    return text


def _vector(drawing: Drawing) -> str:
    """A drawing as SVG. The same drawing gives the same bytes."""
    vector = BytesIO()
    drawing.savefig(vector, format="svg", metadata={"Date": None, "Creator": None})
    return _compact(vector.getvalue().decode())


def _compact(svg: str) -> str:
    """The same picture in fewer bytes: hundredths of a point, no indents."""

    def rounded(attribute: re.Match) -> str:
        return re.sub(r"\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", attribute[0])

    return re.sub(r"\n\s+", "\n", re.sub(r' (d|x|y)="[^"]*"', rounded, svg))


def _image(svg: str, alt: str, zoom: float) -> str:
    """An image that holds its file, as wide as it was drawn times `zoom`."""
    points = float(re.search(r'<svg[^>]* width="([0-9.]+)pt"', svg)[1])
    width = zoom * points * 4 / 3
    data = base64.b64encode(svg.encode()).decode()
    return (
        f'<img alt="{html.escape(alt)}" style="{IN_ROW.format(LEAST * width, width)}" '
        f'src="data:image/svg+xml;base64,{data}">'
    )


# --- what figures are made of ------------------------------------------------------------------


def draw_intervals(ax: plt.Axes, table: pd.DataFrame, filled: Sequence[bool]) -> None:
    """Rows of `table` (arm, estimate, low, high; NaN where there is no interval) from above: an
    interval with a mark in the arm's looks, hollow where not `filled`."""
    for y, (row, full) in enumerate(zip(table.itertuples(), filled, strict=True)):
        mark = look(row.arm)
        inside = mark["color"] if full else "white"
        ax.plot([row.low, row.high], [y, y], color=mark["color"], lw=1.8, zorder=2)
        ax.plot(row.estimate, y, ms=7, mew=1.4, zorder=3, ls="", mfc=inside, **mark)
    ax.set_ylim(len(table) - 0.4, -0.6)


def label_ends(ax: plt.Axes, ends: Mapping[str, tuple[float, float]]) -> None:
    """Write each line's name right of the axes at the height of its end (x, y), moved apart where
    they are close; a thin line leads from the end to the name. Call it when limits are set."""
    size, (low, high) = 8.5, ax.get_ylim()
    tall = 72 * ax.figure.get_figheight() * ax.get_position().height
    heights = labels.spread(
        [y for _, y in ends.values()], 1.3 * size * (high - low) / tall, low, high
    )
    beside = ax.get_yaxis_transform()  # x in widths of the axes, y as the data
    for (name, xy), height in zip(ends.items(), heights, strict=True):
        line = LEADER | {"color": look(name)["color"], "shrinkB": 3, "relpos": (0, 0.5)}
        ax.annotate(
            name,
            xy,
            (1.07, height),
            textcoords=beside,
            va="center",
            fontsize=size,
            annotation_clip=False,
            arrowprops=line,
        )


def label_points(
    ax: plt.Axes,
    points: Mapping[str, tuple[float, float]],
    bold: Collection[str],
    grey: Collection[str],
    lines: Sequence[np.ndarray] = (),
) -> None:
    """Write each name near its point, inside, where it covers no point, name or line [n, 2] if
    there is such a place; a thin line leads to a name that is far. Call it when limits are set."""
    fig, scale = ax.figure, ax.figure.dpi / 72
    fig.canvas.draw()
    to_pixels = ax.transData.transform
    texts = [
        ax.annotate(
            "\n".join(textwrap.fill(part, 20) for part in name.split("\n")),
            xy,
            (0, 0),
            textcoords="offset points",
            zorder=4,
            fontsize=9,
            linespacing=1.05,
            color=REFERENCE if name in grey else "black",
            fontweight="bold" if name in bold else "normal",
            arrowprops=dict(LEADER),
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )
        for name, xy in points.items()
    ]
    sizes = np.array([Text.get_window_extent(text).size for text in texts])  # without the line
    crossed = np.concatenate([np.empty((0, 2)), *(labels.along(to_pixels(x)) for x in lines)])
    inside = ax.get_window_extent().extents
    offsets = labels.place(to_pixels([*points.values()]), sizes, inside, crossed, 6 * scale)
    for text, (x, y) in zip(texts, offsets, strict=True):
        side = (np.sign(x) + 1) / 2  # of the name's edge that faces the mark, from its left
        text.set(
            position=(x / scale, y / scale), ha=["right", "center", "left"][int(np.sign(x)) + 1]
        )
        text.set_va("center" if x else ["top", "bottom"][int(y > 0)])
        text.arrow_patch.set_visible(np.hypot(x, y) > NEAR)
        text.arrowprops["relpos"] = (1 - side, 0.5 if x else float(y < 0))
