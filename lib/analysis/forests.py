"""Forest plots: differences with their intervals, beside the margin of mAP that was fixed.

All intervals are of a difference alone, unadjusted for being one of many. A filled mark is one
that a test adjusted for that tells from zero; the primary contrasts say their adjusted p too.
"""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd

from lib.analysis import alts, stats, tables
from lib.analysis.drawing import PANEL, REFERENCE, WIDE, draw_intervals, figure
from lib.analysis.stats import LEVEL, MARGIN

MINUS = "\N{MINUS SIGN}"
BAND = {"color": "#dddddd", "lw": 0, "zorder": 0}


@figure(
    "primary",
    "Lines: 95 % interval of each contrast alone, unadjusted. Filled marks: significant, by a p "
    "value adjusted for all three (Holm); never with fewer than five seeds. Grey: within the "
    "margin of .01 mAP.",
    alts.primary,
)
def primary(table: pd.DataFrame):
    """table: of lib.analysis.claims.primary; a row without a difference keeps its place."""
    fig, ax = plt.subplots(figsize=(WIDE, 0.5 + 0.72 * len(table)))
    for y, row in enumerate(table.itertuples()):
        name = row.claim.partition(":")[0]
        _words(ax, y - 0.42, f"$\\bf{{{name.replace(' ', '~')}}}$", "black")
        pair = f"{row.arm} {MINUS} {row.versus}, {alts.where(row.setting)}"
        _words(ax, y - 0.42, pair, "black", "right")
        _words(ax, y - 0.13, alts.verdict(row), REFERENCE)
        _words(ax, y - 0.13, _numbers(row), "black", "right")
        ax.fill_betweenx([y + 0.02, y + 0.38], -MARGIN, MARGIN, **BAND)
        ax.plot([0, 0], [y + 0.02, y + 0.38], color="black", lw=0.8, zorder=1)
        full = REFERENCE if row.p_holm < LEVEL and row.seeds >= stats.SEEDS else "white"
        ax.plot([row.low, row.high], [y + 0.2] * 2, color=REFERENCE, lw=2)
        ax.plot(row.difference, y + 0.2, "D", ms=8, mfc=full, mew=1.6, color=REFERENCE)
    ax.set(xlabel="difference in mAP", yticks=[], ylim=(len(table) - 0.45, -0.65))
    ax.set_xlim(*around_zero(table))
    ax.locator_params(axis="x", nbins=6)  # three decimals with a sign need room
    ax.spines["left"].set_visible(False)
    ax.grid(visible=False)
    return fig


def _words(ax: plt.Axes, y: float, text: str, colour: str, side: str = "left") -> None:
    """Text between the marks, from the left edge or up to the right one."""
    place = {"transform": ax.get_yaxis_transform(), "ha": side, "va": "center"}
    ax.text(float(side == "right"), y, text, fontsize=9, color=colour, **place)


def _numbers(row) -> str:
    """Difference, interval and adjusted p value; why there are none."""
    if pd.isna(row.difference):
        return row.why
    p = "" if pd.isna(row.p_holm) else f"   {alts.p_value(row.p_holm)} (Holm)"
    return f"{stats.signed(row.difference, row.low, row.high)}{p}".replace("-", MINUS)


def around_zero(table: pd.DataFrame) -> tuple[float, float]:
    """Limits that hold all intervals and both sides of the margin."""
    ends = table[["low", "high", "difference"]].astype(float).stack().dropna()
    low, high = min([*ends, -2 * MARGIN]), max([*ends, 2 * MARGIN])
    room = 0.04 * (high - low)
    return low - room, high + room


@figure(
    "rivals",
    "Each arm minus the rival named above (mix: at the same alpha, mix(0.5) where an arm has "
    "none), paired by seed and question. Lines: 95 % interval of each alone, unadjusted. Filled "
    "marks: significant, by a p value adjusted over all of a setting (Holm). Grey: within .01 "
    "mAP.",
    alts.rivals,
)
def rivals(table: pd.DataFrame):
    """A panel a rival, a block a setting. table: of lib.analysis.contrasts.rivals."""
    limits = around_zero(table)
    panels = {}
    for rival, block in table.groupby("rival", sort=False):
        panels[f"minus {rival}"] = _blocks(block, "arm", f"arm {MINUS} {rival}", limits, PANEL)
    return panels


@figure(
    "mechanism",
    "What changes from one arm to the next on the way from mixed rows to hybrid batches, all else "
    "alike; each arm at its own tuned settings. Lines: 95 % interval of each alone, unadjusted. "
    "Filled marks: significant, by a p value adjusted over all of a setting (Holm). Grey: within "
    ".01 mAP.",
    alts.mechanism,
)
def mechanism(table: pd.DataFrame):
    """A block a setting. table: of lib.analysis.contrasts.mechanism."""
    return _blocks(table, "words", "what it brings", around_zero(table), WIDE)


@figure(
    "posthoc",
    "Each language's mean (centred), or its main direction (projected), taken away from the "
    "vectors of a trained encoder, without training. Lines: 95 % interval of each alone, "
    "unadjusted. Filled marks: significant, by a p value adjusted over all of a setting (Holm). "
    "Grey: within .01 mAP.",
    alts.against,
)
def posthoc(table: pd.DataFrame):
    """A block a setting. table: of lib.analysis.contrasts.posthoc."""
    return _pairs(table)


@figure(
    "others",
    "What a loss with an objective, code-switched pairs, or another temperature gain over the "
    "same batches without; what hybrid(0.5) gains over those by its schedule alone; and "
    "hybrid(0.5) minus each of these ways. Lines: 95 % interval of each alone, unadjusted. "
    "Filled marks: significant, by a p value adjusted over all of a setting (Holm). Grey: within "
    ".01 mAP.",
    alts.against,
)
def others(table: pd.DataFrame):
    """A block a setting. table: of lib.analysis.contrasts.others."""
    return _pairs(table)


@figure(
    "temperatures",
    "Each contrast with each arm at the temperature that its search chose (two, the first that of "
    "hybrid(0.5)), and with one for both. Lines: 95 % interval of each alone, unadjusted. Filled "
    "marks: significant, by a p value adjusted over all shown (Holm). Grey: within .01 mAP.",
    alts.temperatures,
)
def temperatures(table: pd.DataFrame):
    """A block a contrast. table: of lib.analysis.temperatures.contrasted."""
    fig = _blocks(table.assign(setting=table["contrast"]), "at", "", around_zero(table), WIDE)
    for ax, (_, rows) in zip(fig.axes, table.groupby("contrast", sort=False), strict=True):
        row = rows.iloc[0]
        versus = row["versus"].partition(",")[0]
        pair = f"{row['contrast']}: {row['arm'].partition(',')[0]} {MINUS} {versus}"
        ax.set_title(f"{pair}, {alts.where(row['setting'])}", loc="left")
    return fig


def _pairs(table: pd.DataFrame) -> plt.Figure:
    """A block a setting, whose rows are named by both arms."""
    named = table.assign(pair=tables.minus(table))
    return _blocks(named, "pair", "difference", around_zero(table), WIDE)


def _blocks(table: pd.DataFrame, names: str, title: str, limits: tuple, width: float) -> plt.Figure:
    """Differences, a block a setting, one below the other."""
    parts = dict(list(table.groupby("setting", sort=False)))
    rows = [len(part) for part in parts.values()]
    fig, axes = plt.subplots(
        len(parts),
        squeeze=False,
        sharex=True,
        layout="constrained",
        figsize=(width, 0.6 + 0.35 * len(parts) + 0.21 * sum(rows)),
        height_ratios=rows,
    )
    for ax, (setting, part) in zip(axes.flat, parts.items(), strict=True):
        block(ax, part, part[names], limits)
        ax.set_title(f"{title}, {setting} mAP", loc="left")
    axes[-1, 0].set_xlabel("difference in mAP")
    axes[-1, 0].locator_params(axis="x", nbins=5)
    return fig


def block(ax: plt.Axes, part: pd.DataFrame, names: pd.Series, limits: tuple) -> None:
    """Rows of differences around zero and the margin, which is one of mAP."""
    if "measure" not in part or part["measure"].str.contains("mAP").all():
        ax.axvspan(-MARGIN, MARGIN, **BAND)
    ax.axvline(0, color="black", lw=0.8, zorder=1)
    filled = part["verdict"].isin(["higher", "lower"])
    draw_intervals(ax, part.rename(columns={"difference": "estimate"}), filled)
    ax.set(yticks=range(len(part)), yticklabels=names, xlim=limits)
    ax.grid(visible=False, axis="y")


@figure(
    "scripts",
    "By how question and passages are written; one language is the setting mono, two languages are "
    "cross. Lines: 95 % interval of each alone, unadjusted. Filled marks: significant, by a p "
    "value adjusted over all shown (Holm). Grey: within .01 mAP.",
    alts.scripts,
)
def scripts(table: pd.DataFrame):
    """A panel a difference. table: of lib.analysis.contrasts.by_script."""
    limits, panels = around_zero(table), {}
    for versus, part in table.groupby("versus", sort=False):
        fig, ax = plt.subplots(figsize=(1.4 * PANEL, 0.75 + 0.3 * len(part)), layout="constrained")
        block(ax, part, part["pair"], limits)
        ax.set_title(f"{part['arm'].iloc[0]} {MINUS} {versus}", loc="left")
        ax.set_xlabel("difference in mAP")
        panels[f"minus {versus}"] = fig
    return panels


@figure(
    "prompts",
    "Each encoder asked with the right prompt minus the same asked with the swapped one, paired by "
    "seed and question: above zero the question chooses. Lines: 95 % interval of each alone, "
    "unadjusted. Filled marks: significant, by a p value adjusted over the panel (Holm). mAP, "
    "grey: within .01.",
    alts.prompts,
)
def prompts(table: pd.DataFrame):
    """A panel a measure, a block a pair of prompts. table: of lib.analysis.prompts.choices."""
    panels = {}
    for measure, rows in table[table["versus"] == "swapped"].groupby("measure", sort=False):
        limits = around_zero(rows)
        fig = _blocks(rows.assign(setting=rows["prompts"]), "arm", "", limits, PANEL)
        fig.set_figheight(1.6 * fig.get_figheight())  # names and titles of two lines
        for ax, pair in zip(fig.axes, dict.fromkeys(rows["prompts"]), strict=True):
            ax.set_title(f"asked with {pair}".replace(" / ", " /\n"), loc="left", fontsize=9)
            names = [name.get_text().replace(", ", ",\n") for name in ax.get_yticklabels()]
            ax.set_yticks(ax.get_yticks(), names, fontsize=8)
        unit = "" if "mAP" in measure else " (log rank)"
        fig.axes[-1].set_xlabel(f"{measure}{unit}: right {MINUS} swapped")
        panels[measure] = fig
    return panels
