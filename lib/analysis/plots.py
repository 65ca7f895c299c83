"""One function a figure, with the words that belong to it."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from lib.analysis.drawing import FAMILIES, REFERENCE, figure, label_points, look
from lib.analysis.stats import MARGIN
from lib.metrics import LABELS, REFERENCES
from lib.sampler import Batch

# --- the report --------------------------------------------------------------------------------


@figure(
    "tradeoff",
    "Small marks are runs, large marks the mean over seeds; the ellipse's projections on the axes "
    "are the two 95 % intervals. Bold arms lie on the Pareto front. Lines join arms in order of "
    "alpha.",
    "Scatter plot of monolingual against cross-lingual mAP, one mark a run, with a mean and an "
    "ellipse for each arm",
)
def tradeoff(points: pd.DataFrame, regions: dict, paths: dict, references: dict, front: list[str]):
    """The trade-off plane.

    points      DataFrame arm, seed, mono, cross: one small mark a run
    regions     arm -> (mean (x, y), ellipse [n, 2])
    paths       name -> arms in order of alpha: joined by a line through their means
    references  name -> (mono, cross)
    front       arms on the Pareto front: their names are bold
    """
    fig, ax = plt.subplots(figsize=(7.2, 5.6))
    for name, arms in paths.items():
        xy = np.array([regions[arm][0] for arm in arms])
        line = {"ls": "-" if name == "hybrid" else "--", "color": look(name)["color"]}
        ax.plot(*xy.T, lw=1.6, zorder=1, label=f"{name}: alpha from 0 to 1", **line)
    for arm, (mean, ellipse) in regions.items():
        _draw_arm(ax, points[points["arm"] == arm], mean, ellipse, look(arm))
    for x, y in references.values():
        ax.scatter(x, y, s=60, color=REFERENCE, marker="x", zorder=3)
    ax.set(
        xlabel="monolingual mAP  (same-language pool)",
        ylabel="cross-lingual mAP  (other-language pool)",
    )
    ax.margins(0.08)
    means = {arm: mean for arm, (mean, _) in regions.items()}
    label_points(ax, means | references, bold=front, grey=references)
    if paths:
        ax.legend(loc="best")
    return fig


def _draw_arm(ax, runs: pd.DataFrame, mean: tuple, ellipse: np.ndarray, mark: dict) -> None:
    """The runs of an arm, their mean and its ellipse."""
    ax.fill(*ellipse.T, color=mark["color"], alpha=0.10, lw=0, zorder=0)
    ax.plot(*ellipse.T, color=mark["color"], lw=0.8, alpha=0.5, zorder=1)
    ax.scatter(runs["mono"], runs["cross"], s=22, alpha=0.6, zorder=2, **mark)
    ax.scatter(*mean, s=120, edgecolor="white", linewidth=1.2, zorder=3, **mark)


@figure(
    "primary",
    "The primary contrasts with 95 % intervals, of each alone. Band: the margin of .01 mAP.",
    "Forest plot of the primary contrasts with a band around zero",
)
def forest(table: pd.DataFrame):
    """table: DataFrame claim, difference, low, high; a row without a difference keeps its place."""
    fig, ax = plt.subplots(figsize=(7.2, 0.9 + 0.5 * len(table)))
    ax.axvspan(-MARGIN, MARGIN, color="#dddddd", zorder=0)
    ax.axvline(0, color="black", lw=0.8)
    for y, row in enumerate(table.itertuples()):
        ax.plot([row.low, row.high], [y, y], color=REFERENCE, lw=2)
        ax.plot(row.difference, y, "o", ms=8, color=REFERENCE)
    names = table["claim"].str.split(":").str[0]
    ax.set(xlabel="difference in mAP", yticks=range(len(table)), yticklabels=names)
    ax.set_ylim(len(table) - 0.5, -0.5)
    fig.tight_layout()
    return fig


@figure(
    "differences",
    "Difference in mAP to the best other arm of each setting, with 95 % intervals.",
    "Forest plot of paired differences by setting",
)
def differences(table: pd.DataFrame):
    """Forest plot. table: DataFrame arm, versus, setting, difference, low, high."""
    settings = list(dict.fromkeys(table["setting"]))
    rows = table["arm"].nunique()
    fig, axes = plt.subplots(
        1, len(settings), sharey=True, squeeze=False, figsize=(9, 1.3 + 0.42 * rows)
    )
    for ax, setting in zip(axes[0], settings, strict=True):
        block = table[table["setting"] == setting].reset_index(drop=True)
        for y, row in block.iterrows():
            mark = look(row["arm"])
            ax.plot([row["low"], row["high"]], [y, y], color=mark["color"], lw=2)
            ax.plot(row["difference"], y, ms=8, color=mark["color"], marker=mark["marker"])
            ax.annotate(
                f"vs {row['versus']}",
                (row["difference"], y),
                (0, 8),
                ha="center",
                textcoords="offset points",
                fontsize=8,
                color="#444444",
            )
        ax.axvline(0, color="black", lw=0.8)
        ax.set(
            title=setting, xlabel="difference in mAP", yticks=block.index, yticklabels=block["arm"]
        )
        ax.margins(x=0.12, y=0.14)
    axes[0, 0].invert_yaxis()
    fig.tight_layout()
    return fig


def _heatmaps(cells: dict, columns: int = 2, fmt: str = "{:.2f}", shared: bool = True):
    """Language x language heat maps, on one shared colour scale or one each.

    cells: title -> square DataFrame with question languages as rows and candidate languages as
    columns; NaN stays empty.

    Up to twelve languages, values are written into the cells by `fmt`."""
    rows = -(-len(cells) // columns)
    fig, axes = plt.subplots(rows, columns, squeeze=False, figsize=(4.9 * columns, 4.3 * rows))
    top = max(float(np.nanmax(frame.to_numpy())) for frame in cells.values())
    for ax, (title, frame) in zip(axes.flat, cells.items(), strict=False):
        written = {"annot": frame.map(fmt.format), "fmt": "", "annot_kws": {"size": 6.5}}
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
        ax.tick_params(labelsize=9, rotation=0)
    for ax in axes.flat[len(cells) :]:
        ax.set_axis_off()
    fig.tight_layout()
    return fig


@figure(
    "languages",
    "mAP by language of the question and of the passages searched; the diagonal is monolingual.",
    "One heat map an arm of mAP over question and passage languages",
)
def languages_by_arm(cells: dict[str, pd.DataFrame]):
    """cells: arm -> question language x passage language."""
    return _heatmaps(cells)


@figure(
    "languages",
    "Left: the pool of one language; the diagonal is monolingual. Right: the whole pool, with the "
    "relevant passage of one language only; a bright diagonal means that the encoder prefers the "
    "question's own language.",
    "Two heat maps of mAP over question languages and passage languages",
)
def languages(cells: dict[str, pd.DataFrame]):
    """cells: title -> question language x passage language."""
    return _heatmaps(cells)


@figure(
    "bias",
    "Language bias with 95 % intervals. Dotted: chance (left), no preference (right).",
    "Two panels of intervals by arm: normalised rank distance, own-language advantage",
)
def bias(table: pd.DataFrame):
    """table: DataFrame arm, measure, estimate, low, high."""
    hidden = [REFERENCES["oracle"], REFERENCES["bm25_words"]]
    return _intervals(
        table[~table["arm"].isin(hidden)],
        {
            "rank_distance_ratio": LABELS["rank_distance_ratio"],
            "own_language_advantage": f"{LABELS['own_language_advantage']} (log rank)",
        },
        {"rank_distance_ratio": 1.0, "own_language_advantage": 0.0},
    )


def _intervals(table: pd.DataFrame, xlabels: dict[str, str], zero: dict[str, float]):
    """One panel a measure, one row an arm. table: DataFrame arm, measure, estimate, low, high.

    zero: measure -> where a vertical line marks no bias or chance."""
    measures, arms = list(xlabels), list(dict.fromkeys(table["arm"]))
    fig, axes = plt.subplots(
        1, len(measures), sharey=True, squeeze=False, figsize=(9.4, 1.2 + 0.34 * len(arms))
    )
    for ax, measure in zip(axes[0], measures, strict=True):
        for y, arm in enumerate(arms):
            mark = look(arm)
            for row in table[(table["arm"] == arm) & (table["measure"] == measure)].itertuples():
                ax.plot([row.low, row.high], [y, y], color=mark["color"], lw=2)
                ax.plot(row.estimate, y, ms=8, color=mark["color"], marker=mark["marker"])
        if measure in zero:
            ax.axvline(zero[measure], color="black", lw=0.8, ls=":")
        ax.set(xlabel=xlabels[measure], yticks=range(len(arms)), yticklabels=arms)
    axes[0, 0].invert_yaxis()
    fig.tight_layout()
    return fig


@figure(
    "strata",
    "mAP by stratum; for names, two-hop questions in a held-out wording.",
    "Dot plots of mAP of each arm in each stratum, mono and cross",
)
def strata(table: pd.DataFrame):
    """mAP by stratum, one panel a setting. table: DataFrame arm, setting, stratum, estimate."""
    settings = list(dict.fromkeys(table["setting"]))
    fig, axes = plt.subplots(
        1,
        len(settings),
        squeeze=False,
        sharex=True,
        figsize=(9.4, 4.4),
        width_ratios=[1] * len(settings),
    )
    for ax, setting in zip(axes[0], settings, strict=True):
        block = table[table["setting"] == setting]
        order = {name: y for y, name in enumerate(dict.fromkeys(block["stratum"]))}
        for arm, points in block.groupby("arm", sort=False):
            ax.plot(
                points["estimate"],
                points["stratum"].map(order),
                ls="",
                ms=8,
                alpha=0.85,
                label=arm,
                **look(arm),
            )
        ax.set(title=setting, xlabel="mAP", yticks=list(order.values()), yticklabels=order)
        ax.invert_yaxis()
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="lower center", ncols=5, bbox_to_anchor=(0.5, -0.12))
    fig.tight_layout()
    return fig


@figure(
    "budgets",
    "mAP by number of steps, with 95 % intervals as bands. Each point is an encoder whose rate has "
    "fallen to zero: that of a run of so many steps.",
    "Lines of mAP over steps, one an arm, in each setting",
)
def budgets(table: pd.DataFrame):
    """One panel a setting, steps in doublings. table: arm, budget, setting, mAP, low, high."""
    settings = list(dict.fromkeys(table["setting"]))
    fig, axes = plt.subplots(1, len(settings), squeeze=False, figsize=(9.4, 3.8))
    dashes, styles = {}, ["-", "--", ":", "-."]
    for ax, setting in zip(axes[0], settings, strict=True):
        for arm, line in table[table["setting"] == setting].groupby("arm", sort=False):
            mark = look(arm)
            alike = dashes.setdefault(mark["color"], {})
            style = styles[alike.setdefault(arm, len(alike)) % len(styles)]
            ax.fill_between(
                line["budget"], line["low"], line["high"], color=mark["color"], alpha=0.12, lw=0
            )
            ax.plot(line["budget"], line["mAP"], ls=style, lw=1.6, label=arm, **mark)
        ticks = sorted(set(table["budget"]))
        ax.set_xscale("log", base=2)
        ax.set(title=setting, xlabel="steps", xticks=ticks, xticklabels=ticks)
    axes[0, 0].set_ylabel("mAP")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="lower center", ncols=5, bbox_to_anchor=(0.5, -0.08))
    fig.tight_layout()
    return fig


# --- training ----------------------------------------------------------------------------------


@figure(
    "batches",
    "Rows of the first batches by language of question and passage.",
    "Heat maps of how many rows each language pair has in the first batches",
)
def batches(first: list[Batch], names: tuple[str, ...]):
    """first: batches; names: of the languages they count."""
    maps = {}
    for batch in first:
        count = np.zeros((len(names), len(names)), int)
        np.add.at(count, (batch.question_language, batch.passage_language), 1)
        table = pd.DataFrame(count, names, names)
        maps[f"batch {batch.step} ({batch.kind})"] = table.where(table > 0)
    return _heatmaps(maps, fmt="{:.0f}", shared=False)


@figure(
    "curve",
    "Training loss by step. Kinds of batches are not comparable with each other: negatives of one "
    "language are harder than those of many.",
    "Scatter of the loss of each batch over steps with a running mean",
)
def curve(log: pd.DataFrame):
    """Training loss by step with its running mean. log: DataFrame step, loss, kind."""
    fig, ax = plt.subplots(figsize=(7.2, 3.6))
    for kind, block in log.groupby("kind", sort=True):
        ax.plot(
            block["step"],
            block["loss"],
            ".",
            ms=4,
            alpha=0.45,
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
    "Lines of the mAP in each setting over steps",
)
def validation(table: pd.DataFrame):
    """mAP by step, the first best step circled. table: DataFrame step, a column a setting, map."""
    fig, ax = plt.subplots(figsize=(7.2, 3.6))
    settings = [column for column in table if column not in ("step", "map")]
    for name, marker in zip(settings, "os^", strict=False):
        ax.plot(table["step"], table[name], marker=marker, ms=4, lw=1.2, label=name)
    best = table.loc[table["map"].idxmax()]
    ax.plot(table["step"], table["map"], marker=".", lw=2.2, color="black", label="their mean")
    ax.scatter(best["step"], best["map"], s=140, facecolor="none", edgecolor="black", zorder=3)
    ax.set(xlabel="step", ylabel="mAP, validation", ylim=(0, None))
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return fig


# --- the corpus --------------------------------------------------------------------------------


@figure(
    "lengths",
    "Tokens a text, by language: the box spans the middle half of the texts.",
    "Box plots of token counts of questions and passages in each language",
)
def lengths(table: pd.DataFrame):
    """Token lengths by language. table: DataFrame language, side, tokens."""
    fig, ax = plt.subplots(figsize=(7.2, 3.8))
    sns.boxplot(
        table,
        x="language",
        y="tokens",
        hue="side",
        ax=ax,
        fliersize=1,
        linewidth=0.8,
        palette=[FAMILIES["mono"][0], FAMILIES["cross"][0]],
    )
    ax.set(xlabel="language", ylabel="tokens a text")
    ax.legend(title=None)
    return fig


@figure(
    "difficulty",
    "mAP of rankers that use no training, by setting and stratum.",
    "Grouped bars of mAP of random ranking and BM25 in each stratum",
)
def difficulty(table: pd.DataFrame):
    """Bars with their values written on them, in the order of the table: stratum, ranker, mAP."""
    groups, hues = table["stratum"].nunique(), table["ranker"].nunique()
    fig, ax = plt.subplots(figsize=(7.6, 0.8 + 0.22 * groups * hues))
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
    "Heat map over language pairs of the share of questions with different names",
)
def names(share: pd.DataFrame):
    """share: question language x passage language."""
    return _heatmaps({"share of questions": share}, columns=1)


@figure(
    "knobs",
    "From above: mAP of BM25 over character n-grams in the same-language pool, share of training "
    "rows left, mean characters of a passage. Each column changes one parameter of this notebook.",
    "Line plots of BM25 mAP, training rows and passage length against four parameters",
)
def knobs(table: pd.DataFrame):
    """One column a knob, one row a measure. table: DataFrame knob, value, BM25, rows, length."""
    names = list(dict.fromkeys(table["knob"]))
    measures = {"BM25": "BM25 mAP", "rows": "training rows", "length": "characters"}
    fig, axes = plt.subplots(len(measures), len(names), sharey="row", figsize=(9.4, 5.6))
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
