"""Figures of the law: contrasts over alignment, and what was predicted beside what came out."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from lib.analysis import law, stats
from lib.analysis.drawing import PANEL, REFERENCE, figure

SHOWN = ("mono cost", "cross gain", "batch effect", "multi gain")
# Group -> colour, marker and words of what a mark stands for.
GROUPS = {
    "dose": ("#0173b2", "o", "from scratch, aligned by translation ranking"),
    "near": ("#56b4e9", "v", "control: as many steps that align nothing"),
    "cldr": ("#029e73", "P", "the quick study, from scratch"),
    "pretrained": ("#d55e00", "D", "multilingual-e5-small"),
    "rotated": ("#de8f05", "s", "the same, rotated"),
    "free": ("#cc78bc", "^", "the same, rotation trained"),
    "published": (REFERENCE, "x", "arXiv 2408.10536, by language"),
}


def curves(points: pd.DataFrame) -> pd.DataFrame:
    """What the law says of each contrast at alignments from the lowest rung's to 1, at the largest
    budget: contrast, alignment, estimate, low, high (90 %, of a new rung). points: of
    lib.study.rungs.points."""
    rows = []
    for contrast, own in points.groupby("contrast", sort=False):
        terms = law.candidates(own)["law"][0]
        for alignment in np.linspace(own["alignment"].min(), 1, 25):
            said = law.predicted(own, terms, alignment)
            rows.append((contrast, alignment, *said))
    return pd.DataFrame(rows, columns=["contrast", "alignment", "estimate", "low", "high"])


def marks(points: pd.DataFrame, measured: pd.DataFrame) -> pd.DataFrame:
    """Rows to draw: group (of GROUPS), contrast, alignment, value, low, high, whether it is of the
    largest budget (last). measured: group, target, contrast, alignment, value, value_low,
    value_high."""
    own = points.assign(
        group=points["rung"].str.extract("(dose|near|cldr)", expand=False),
        last=points["budget"] == points.groupby("rung")["budget"].transform("max"),
    )
    other = measured.drop(columns=["low", "high"], errors="ignore").assign(last=True)
    other = other.rename(columns={"value_low": "low", "value_high": "high"})
    found = pd.concat([own, other], ignore_index=True)
    found["group"] = found["group"].where(found["group"].isin(list(GROUPS)), "published")
    return found[["group", "contrast", "alignment", "value", "low", "high", "last"]]


def _phase_words(table: pd.DataFrame, lines: pd.DataFrame) -> dict[str, str]:
    """Panel -> where the contrast begins and ends, by the law."""
    said = {}
    for contrast, line in lines.groupby("contrast", sort=False):
        first, last = line.iloc[0], line.iloc[-1]
        count = (table["contrast"] == contrast).sum()
        said[contrast] = (
            f"{contrast} over alignment, {count} marks: the law says {first.estimate:+.3f} at "
            f"{first.alignment:.2f} and {last.estimate:+.3f} at {last.alignment:.2f}."
        )
    return {name: said[name] for name in SHOWN if name in said}


@figure(
    "phases",
    "Contrasts of hybrid(0.5) over how well the encoder's languages are aligned before fine-tuning "
    "(bitext accuracy). Line: the law, fitted to encoders from scratch alone (blue); band: where "
    "nine of ten new encoders should lie. Marks have 95 % intervals; pale ones are of the smaller "
    "budget, grey crosses the paper's languages.",
    _phase_words,
)
def phases(table: pd.DataFrame, lines: pd.DataFrame):
    """A panel a contrast. table: of `marks`; lines: of `curves`."""
    panels = {}
    for contrast in (name for name in SHOWN if name in set(lines["contrast"])):
        fig, ax = plt.subplots(figsize=(PANEL, 3.1), layout="constrained")
        line = lines[lines["contrast"] == contrast]
        ax.fill_between(line["alignment"], line["low"], line["high"], color="#0173b2", alpha=0.12)
        ax.plot(line["alignment"], line["estimate"], color="#0173b2", lw=1.6)
        ax.axhline(0, color="black", lw=0.8)
        for group, (colour, marker, words) in GROUPS.items():
            own = table[(table["contrast"] == contrast) & (table["group"] == group)]
            for last, part in own.groupby("last"):
                look = {"color": colour, "alpha": 1 if last else 0.35, "zorder": 3}
                if group == "published":
                    look |= {"alpha": 0.4, "zorder": 2}
                else:
                    ax.vlines(part["alignment"], part["low"], part["high"], lw=1.2, **look)
                ax.scatter(
                    part["alignment"], part["value"], marker=marker, s=28, linewidth=1,
                    label=words if last else None, **look,
                )  # fmt: skip
        ax.set(xlabel="alignment before fine-tuning", ylabel="difference in mAP", xlim=(None, 1.02))
        ax.set_title(contrast, loc="left")
        fig.legend(loc="outside lower left", fontsize=8, handletextpad=0.3)
        panels[contrast] = fig
    return panels


def _foretold_words(table: pd.DataFrame) -> dict[str, str]:
    """Panel -> how many lie where they were said to."""
    return {
        contrast: f"{contrast}: {int(own['value'].between(own['low'], own['high']).sum())} of "
        f"{len(own)} lie within their 90 % interval."
        for contrast, own in table.groupby("contrast", sort=False)
    }


@figure(
    "foretold",
    "Grey: what was predicted before any of it was evaluated, with its 90 % interval. Marks: what "
    "came out, with 95 % intervals.",
    _foretold_words,
)
def foretold(table: pd.DataFrame):
    """A panel a contrast. table: predictions with what was measured beside them (group, target,
    contrast, estimate, low, high, value, value_low, value_high)."""
    panels = {}
    for contrast, own in table.groupby("contrast", sort=False):
        fig, ax = plt.subplots(figsize=(PANEL, 0.9 + 0.3 * len(own)), layout="constrained")
        for y, row in enumerate(own.itertuples()):
            colour, marker, _ = GROUPS.get(row.group, GROUPS["dose"])
            ax.plot([row.low, row.high], [y, y], color="#c8c8c8", lw=7, solid_capstyle="butt")
            ax.plot([row.estimate] * 2, [y - 0.28, y + 0.28], color=REFERENCE, lw=1.4)
            ax.plot([row.value_low, row.value_high], [y, y], color=colour, lw=1.4)
            ax.plot(row.value, y, marker, color=colour, ms=6)
        ax.axvline(0, color="black", lw=0.8)
        ax.axvspan(-stats.MARGIN, stats.MARGIN, color="#eeeeee", zorder=0)
        ax.set(yticks=range(len(own)), yticklabels=own["target"], ylim=(len(own) - 0.5, -0.5))
        ax.set(xlabel="difference in mAP")
        ax.set_title(contrast, loc="left")
        panels[contrast] = fig
    return panels
