"""One function a figure, with the words that belong to it; forests and maps of differences have
modules of their own."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from lib.analysis import alts
from lib.analysis.drawing import (
    FAMILIES,
    PANEL,
    REFERENCE,
    WIDE,
    draw_intervals,
    figure,
    label_ends,
    label_points,
    look,
)
from lib.metrics import LABELS, REFERENCES
from lib.sampler import Batch

FAR = 0.6  # a reference so much of the arms' window beyond it is shown by an arrow
DASHES = ["-", "--", ":", "-."]

# --- the report --------------------------------------------------------------------------------


@figure(
    "tradeoff",
    "Large marks: means over seeds; small ones: runs. An ellipse's projections on the axes are the "
    "two 95 % intervals. Bold: on the Pareto front, no arm is better in both. Lines follow alpha, "
    "the share of monolingual batches or rows.",
    alts.tradeoff,
)
def tradeoff(points: pd.DataFrame, regions: dict, paths: dict, references: dict, front: list[str]):
    """The trade-off plane.

    points      DataFrame arm, seed, mono, cross: one small mark a run
    regions     arm -> (mean (x, y), ellipse [n, 2])
    paths       name -> arms in order of alpha: joined by a line through their means
    references  name -> (mono, cross); an arrow points to one that is far from all arms
    front       arms on the Pareto front: their names are bold
    """
    fig, ax = plt.subplots(figsize=(WIDE, 4.9))
    means = {arm: mean for arm, (mean, _) in regions.items()}
    lines = {name: np.array([means[arm] for arm in arms]) for name, arms in paths.items()}
    for name, xy in lines.items():
        line = {"ls": "-" if name == "hybrid" else "--", "color": look(name)["color"]}
        ax.plot(*xy.T, lw=1.6, zorder=1, label=f"{name}, by alpha", **line)
    for arm, (mean, ellipse) in regions.items():
        _draw_arm(ax, points[points["arm"] == arm], mean, ellipse, look(arm))
    low, high = _window(regions, references)
    ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    ax.set_title(
        "right: better within a language; up: better across languages",
        loc="left",
        fontsize=9,
        color=REFERENCE,
    )
    ax.set(xlabel="mono mAP (pool of the question's language)")
    ax.set(ylabel="cross mAP (pool of another language)")
    named = means | _draw_references(ax, references, low, high)
    label_points(ax, named, front, named.keys() - means.keys(), list(lines.values()))
    if paths:
        place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.13), "ncols": 2}
        ax.legend(**place, handlelength=2.6)
    return fig


def _window(regions: dict, references: dict) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the axes, (x, y) each: around all arms, and the references that are not far. An axis
    begins at zero where that does not double it."""
    every = np.concatenate([[*ellipse, mean] for mean, ellipse in regions.values()])
    low, high = np.nanmin(every, axis=0), np.nanmax(every, axis=0)
    low = np.where(low <= high - low, 0, low)
    room = FAR * (high - low)
    others = np.array([*references.values()]).reshape(-1, 2)
    near = others[((low - room <= others) & (others <= high + room)).all(axis=1)]
    low, high = np.min([low, *near], axis=0), np.max([high, *near], axis=0)
    room = np.array([0.08, 0.15]) * (high - low)  # for names
    return np.where(low > 0, np.maximum(low - room, 0), 0), high + room


def _draw_references(ax, references: dict, low: np.ndarray, high: np.ndarray) -> dict[str, tuple]:
    """Crosses, or arrows at the border with what they point to; name -> place."""
    named, border = {}, 0.015 * (high - low)
    for name, xy in references.items():
        if ((low <= xy) & (xy <= high)).all():
            ax.scatter(*xy, s=50, color=REFERENCE, marker="x", zorder=3)
            named[name] = tuple(xy)
            continue
        end = np.clip(xy, low + border, high - border)
        start = end + 4 * border * (np.sign(end - xy) * (end != xy))
        arrow = {"arrowstyle": "-|>", "color": REFERENCE, "lw": 1.4, "shrinkA": 0, "shrinkB": 0}
        ax.annotate("", end, start, arrowprops=arrow)
        named[f"{name}\n({xy[0]:.2f}, {xy[1]:.2f})"] = tuple(start)
    return named


def _draw_arm(ax, runs: pd.DataFrame, mean: tuple, ellipse: np.ndarray, mark: dict) -> None:
    """The runs of an arm, their mean and its ellipse."""
    ax.fill(*ellipse.T, color=mark["color"], alpha=0.10, lw=0, zorder=0)
    ax.plot(*ellipse.T, color=mark["color"], lw=0.7, alpha=0.45, zorder=1)
    ax.scatter(runs["mono"], runs["cross"], s=9, alpha=0.45, linewidth=0, zorder=2, **mark)
    ax.scatter(*mean, s=80, edgecolor="white", linewidth=1, zorder=3, **mark)


@figure(
    "alphas",
    "mAP over alpha, the share of monolingual batches (hybrid) or rows (mix), with 95 % intervals "
    "as bands.",
    alts.alphas,
)
def alphas(table: pd.DataFrame):
    """A panel a setting. table: of lib.analysis.contrasts.alphas."""
    panels = {}
    for setting, block in table.groupby("setting", sort=False):
        fig, ax = plt.subplots(figsize=(PANEL, 2.9), layout="constrained")
        for name, line in block.groupby("strategy", sort=False):
            band(ax, line["alpha"], line, "-" if name == "hybrid" else "--", look(name))
        ax.set(xlabel="alpha", ylabel="mAP", xticks=sorted(set(block["alpha"])))
        ax.set_title(setting, loc="left")
        fig.legend(loc="outside lower left", ncols=3, handlelength=2.4, columnspacing=1)
        panels[setting] = fig
    return panels


def band(ax: plt.Axes, x: pd.Series, line: pd.DataFrame, dash: str, mark: dict) -> None:
    """A line with marks over x and the band of its intervals. line: estimate, low, high."""
    name = line["strategy" if "strategy" in line else "arm"].iloc[0]
    ax.fill_between(x, line["low"], line["high"], color=mark["color"], alpha=0.12, lw=0)
    ax.plot(x, line["estimate"], ls=dash, lw=1.6, ms=5, label=name, **mark)


@figure(
    "budgets",
    "mAP by number of steps, in doublings, with 95 % intervals as bands. Each point is an encoder "
    "whose rate has fallen to zero: that of a run of so many steps.",
    alts.budgets,
)
def budgets(table: pd.DataFrame):
    """A panel a setting, arms named at the ends of their lines.
    table: arm, budget, setting, mAP, low, high."""
    panels = {}
    for setting, block in table.groupby("setting", sort=False):
        fig, ax = plt.subplots(figsize=(PANEL, 3.2))
        fig.subplots_adjust(left=0.16, right=0.64, top=0.9, bottom=0.16)
        ends, dashes = {}, {}
        for arm, line in block.rename(columns={"mAP": "estimate"}).groupby("arm", sort=False):
            mark = look(arm)
            alike = dashes.setdefault(mark["color"], [])
            band(ax, line["budget"], line, DASHES[len(alike) % len(DASHES)], mark)
            alike.append(arm)
            ends[arm] = tuple(line.sort_values("budget")[["budget", "estimate"]].iloc[-1])
        ticks = sorted(set(block["budget"]))
        ax.set_xscale("log", base=2)
        ax.minorticks_off()
        ax.set(xlabel="steps", ylabel="mAP", xticks=ticks, xticklabels=ticks)
        ax.set_title(setting, loc="left")
        label_ends(ax, ends)
        panels[setting] = fig
    return panels


@figure(
    "bias",
    "Language bias with 95 % intervals. Dotted: chance (rank distance), no preference (advantage).",
    alts.bias,
)
def bias(table: pd.DataFrame):
    """A panel a measure. table: DataFrame arm, measure, estimate, low, high."""
    table = table[~table["arm"].isin([REFERENCES["oracle"], REFERENCES["bm25_words"]])]
    panels = {}
    for measure, (unit, neutral) in BIASES.items():
        rows = table[table["measure"] == measure]
        fig, ax = plt.subplots(figsize=(1.4 * PANEL, 0.7 + 0.24 * len(rows)), layout="constrained")
        ax.axvline(neutral, color="black", lw=0.9, ls=":", zorder=1)
        draw_intervals(ax, rows, [True] * len(rows))
        ax.set(xlabel=LABELS[measure] + unit, yticks=range(len(rows)), yticklabels=rows["arm"])
        panels[measure] = fig
    return panels


# Measure -> (its unit, what means no bias).
BIASES = {"rank_distance_ratio": ("", 1.0), "own_language_advantage": (" (log rank)", 0.0)}


@figure(
    "strata",
    "mAP by stratum.",
    alts.strata,
)
def strata(table: pd.DataFrame):
    """A panel a setting. table: DataFrame arm, setting, stratum, estimate."""
    panels = {}
    for setting, block in table.groupby("setting", sort=False):
        order = {name: y for y, name in enumerate(dict.fromkeys(block["stratum"]))}
        arms = block["arm"].nunique()
        size = (1.4 * PANEL, 0.9 + 0.42 * len(order) + 0.22 * -(-arms // 3))
        fig, ax = plt.subplots(figsize=size, layout="constrained")
        for arm, points in block.groupby("arm", sort=False):
            places = points["stratum"].map(order)
            ax.plot(points["estimate"], places, ls="", ms=7, alpha=0.85, label=arm, **look(arm))
        ax.set(xlabel="mAP", yticks=list(order.values()), yticklabels=order)
        ax.set_title(setting, loc="left")
        ax.set_xlim(left=0)
        ax.set_ylim(len(order) - 0.5, -0.5)
        fig.legend(loc="outside lower left", ncols=3, handletextpad=0.2, columnspacing=1)
        panels[setting] = fig
    return panels


# --- training and evaluation of one run --------------------------------------------------------


def _heatmaps(cells: dict, fmt: str = "{:.2f}", shared: bool = True, side: float = 4.4):
    """A language x language heat map a panel, on one shared colour scale or one each.

    cells: title -> square DataFrame with question languages as rows and candidate languages as
    columns; NaN stays empty.

    Up to twelve languages, values are written into the cells by `fmt`."""
    top = max(float(np.nanmax(frame.to_numpy())) for frame in cells.values())
    panels = {}
    for title, frame in cells.items():
        fig, ax = plt.subplots(figsize=(side, side), layout="constrained")
        written = {"annot": frame.map(fmt.format), "fmt": "", "annot_kws": {"size": 8}}
        sns.heatmap(
            frame,
            ax=ax,
            vmin=0,
            vmax=top if shared else None,
            cmap="cividis",
            square=True,
            cbar=False,
            **(written if len(frame) <= 12 else {}),
        )
        ax.set(title=title, xlabel="language of the passages", ylabel="language of the question")
        ax.tick_params(labelsize=9 if len(frame) <= 16 else max(3, 150 / len(frame)), rotation=0)
        panels[title] = fig
    return panels


@figure(
    "languages",
    "One language's pool: the diagonal is monolingual. All languages' pool, with the relevant "
    "passage of one language only: a bright diagonal means that the encoder prefers the "
    "question's own language.",
    alts.languages,
)
def languages(cells: dict[str, pd.DataFrame]):
    """cells: title -> question language x passage language."""
    return _heatmaps(cells)


@figure(
    "batches",
    "Rows of the first batches by language of question and passage.",
    alts.batches,
)
def batches(first: list[Batch], names: tuple[str, ...]):
    """first: batches; names: of the languages they count."""
    maps = {}
    for batch in first:
        count = np.zeros((len(names), len(names)), int)
        np.add.at(count, (batch.question_language, batch.passage_language), 1)
        table = pd.DataFrame(count, names, names)
        maps[f"batch {batch.step} ({batch.kind})"] = table.where(table > 0)
    return _heatmaps(maps, fmt="{:.0f}", shared=False, side=PANEL)


@figure(
    "curve",
    "Training loss by step. Kinds of batches are not comparable with each other: negatives of one "
    "language are harder than those of many.",
    alts.curve,
)
def curve(log: pd.DataFrame):
    """Training loss by step with its running mean. log: DataFrame step, loss, kind."""
    fig, ax = plt.subplots(figsize=(WIDE, 3.2))
    for kind, block in log.groupby("kind", sort=True):
        ax.plot(
            block["step"],
            block["loss"],
            ".",
            ms=4,
            alpha=0.45,
            rasterized=True,
            label=f"{kind} batches",
            color=FAMILIES["mono" if kind == "mono" else "cross"][0],
        )
    smooth = log["loss"].rolling(20, min_periods=1).mean()
    ax.plot(log["step"], smooth, color="black", lw=1.5, label="mean of 20 steps")
    ax.set(xlabel="step", ylabel="InfoNCE loss (nats)", ylim=(0, None))
    ax.legend()
    return fig


@figure(
    "validation",
    "mAP on the questions set aside for validation; the encoder that is kept is that of the "
    "circled step.",
    alts.validation,
)
def validation(table: pd.DataFrame):
    """mAP by step, the first best step circled. table: DataFrame step, a column a setting, map."""
    fig, ax = plt.subplots(figsize=(WIDE, 3.2))
    settings = [column for column in table if column not in ("step", "map")]
    for name, marker in zip(settings, "os^", strict=False):
        ax.plot(table["step"], table[name], marker=marker, ms=4, lw=1.2, label=name)
    best = table.loc[table["map"].idxmax()]
    ax.plot(table["step"], table["map"], marker=".", lw=2.2, color="black", label="their mean")
    ax.scatter(best["step"], best["map"], s=140, facecolor="none", edgecolor="black", zorder=3)
    ax.set(xlabel="step", ylabel="mAP, validation", ylim=(0, None))
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=4)
    return fig


# --- the corpus --------------------------------------------------------------------------------


@figure(
    "lengths",
    "Tokens a text, by language: the box spans the middle half of the texts.",
    alts.lengths,
)
def lengths(table: pd.DataFrame):
    """Token lengths by language. table: DataFrame language, side, tokens."""
    fig, ax = plt.subplots(figsize=(1.2 * WIDE, 3.4))
    sns.boxplot(
        table,
        x="language",
        y="tokens",
        hue="side",
        ax=ax,
        fliersize=1,
        flierprops={"rasterized": True},
        linewidth=0.8,
        palette=[FAMILIES["mono"][0], FAMILIES["cross"][0]],
    )
    ax.set(xlabel="language", ylabel="tokens a text")
    ax.legend(title=None)
    return fig


@figure(
    "difficulty",
    "mAP of rankers that use no training, by setting and stratum.",
    alts.difficulty,
)
def difficulty(table: pd.DataFrame):
    """Bars with their values written on them, in the order of the table: stratum, ranker, mAP."""
    groups, hues = table["stratum"].nunique(), table["ranker"].nunique()
    fig, ax = plt.subplots(figsize=(1.2 * WIDE, 0.8 + 0.22 * groups * hues))
    sns.barplot(
        table, x="mAP", y="stratum", hue="ranker", ax=ax, errorbar=None, palette="colorblind"
    )
    for container in ax.containers:
        ax.bar_label(container, fmt="%.2f", fontsize=8, padding=2)
    ax.set(ylabel=None, xlim=(0, 1))
    ax.legend(title=None, loc="lower right")
    return fig


@figure(
    "names",
    "Share of test questions whose names all differ between the two languages.",
    alts.names,
)
def names(share: pd.DataFrame):
    """share: question language x passage language."""
    return _heatmaps({"": share})


@figure(
    "knobs",
    "From above: mAP of BM25 over character n-grams in the same-language pool, share of training "
    "rows left, mean characters of a passage. Each column changes one parameter of this notebook.",
    alts.knobs,
)
def knobs(table: pd.DataFrame):
    """One column a knob, one row a measure. table: DataFrame knob, value, BM25, rows, length."""
    names = list(dict.fromkeys(table["knob"]))
    measures = {"BM25": "BM25 mAP", "rows": "training rows", "length": "characters"}
    fig, axes = plt.subplots(len(measures), len(names), sharey="row", figsize=(1.5 * WIDE, 5.2))
    for line, (measure, label) in zip(axes, measures.items(), strict=True):
        for ax, knob in zip(line, names, strict=True):
            rows = table[table["knob"] == knob]
            values = rows["value"].map("{:g}".format)
            ax.plot(values, rows[measure], "o-", color=FAMILIES["mono"][0])
        line[0].set(ylabel=label, ylim=(0, 1.1 * table[measure].max()))
    for ax, knob in zip(axes[-1], names, strict=True):
        ax.set_xlabel(knob)
    fig.tight_layout()
    return fig


# --- along an axis -----------------------------------------------------------------------------


@figure(
    "trend",
    "Contrasts in mAP over the axis, in doublings, with 95 % intervals from seeds and questions. "
    "Above zero hybrid(0.5) is ahead, or the arm named first; of S_mono and S_cross see the dose.",
    alts.trend,
)
def trend(table: pd.DataFrame, axis: str):
    """A panel a contrast. table: of lib.analysis.trends.values."""
    panels = {}
    for contrast, line in table.groupby("contrast", sort=False):
        fig, ax = plt.subplots(figsize=(PANEL, 2.6), layout="constrained")
        ax.axhline(0, color="black", lw=0.8)
        ax.fill_between(line["x"], line["low"], line["high"], color=REFERENCE, alpha=0.15, lw=0)
        ax.plot(line["x"], line["value"], "o-", color=REFERENCE, lw=1.6, ms=5)
        doublings(ax, line["x"], axis)
        ax.set(ylabel="difference in mAP")
        ax.set_title(contrast, loc="left")
        panels[contrast] = fig
    return panels


@figure(
    "series",
    "mAP of each arm over the axis, in doublings, with 95 % intervals as bands.",
    alts.series,
)
def series(table: pd.DataFrame, axis: str):
    """A panel a setting, arms named at the ends of their lines. table: of
    lib.analysis.trends.arms."""
    panels = {}
    for setting, block in table.groupby("setting", sort=False):
        fig, ax = plt.subplots(figsize=(PANEL, 3.2))
        fig.subplots_adjust(left=0.16, right=0.64, top=0.9, bottom=0.16)
        ends = {}
        for arm, line in block.rename(columns={"mAP": "estimate"}).groupby("arm", sort=False):
            band(ax, line["x"], line, "-", look(arm))
            ends[arm] = tuple(line[["x", "estimate"]].iloc[-1])
        doublings(ax, block["x"], axis)
        ax.set(ylabel="mAP")
        ax.set_title(setting, loc="left")
        label_ends(ax, ends)
        panels[setting] = fig
    return panels


def doublings(ax: plt.Axes, x: pd.Series, axis: str) -> None:
    """An axis of numbers whose doublings are equally far apart."""
    ticks = sorted(set(x))
    ax.set_xscale("log", base=2)
    ax.minorticks_off()
    ax.set(xlabel=axis, xticks=ticks, xticklabels=[f"{tick:g}" for tick in ticks])
