"""The table of arms and settings for a paper, in LaTeX, with marks of significance."""

from __future__ import annotations

import pandas as pd

from lib.analysis.stats import SEEDS

SPECIAL = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
SPECIAL |= {character: "\\" + character for character in "&%$#_{}"}
MARKS = {"mono": r"\dagger", "mix": r"\ddagger"}
CAPTION = (
    r"mAP by setting, mean over {seeds} seeds; in brackets the 95\,\% interval from the variance "
    r"of seeds and of clusters of questions. $\dagger$: differs from mono, $\ddagger$: from mix at "
    r"the same $\alpha$ (mix(0.5) where an arm has none), in a two-sided $t$ test paired by seed "
    r"and cluster, $p < .05$ by Holm's method over all comparisons of a setting; none with fewer "
    r"than {least} seeds."
)


def escape(text: str) -> str:
    r"""Text that LaTeX sets as it is.

    >>> print(escape("50 % of a_b\\c"))
    50 \% of a\_b\textbackslash{}c
    """
    return "".join(SPECIAL.get(character, character) for character in text)


def table(quality: pd.DataFrame, differences: pd.DataFrame, label: str = "tab:arms") -> str:
    """A `table` environment of package booktabs: rows arms, columns settings, mAP with its
    interval, marked where a paired test against mono or mix tells an arm from it.

    quality: of lib.analysis.tables.quality; differences: of lib.analysis.contrasts.rivals.
    Raises ValueError where `quality` has no mAP."""
    ap = quality[quality["metric"] == "ap"]
    if not len(ap):
        raise ValueError(
            "quality: has no row of metric 'ap' (expected lib.analysis.tables.quality)"
        )
    settings = list(dict.fromkeys(ap["setting"]))
    marks = _marks(differences)
    cells = {(r.arm, r.setting): _cell(r) for r in ap.itertuples()}
    rows = [
        [
            escape(arm),
            *(_marked(cells.get((arm, s), "--"), marks.get((arm, s), "")) for s in settings),
        ]
        for arm in dict.fromkeys(ap["arm"])
    ]
    caption = CAPTION.format(seeds=ap["seeds"].max(), least=SEEDS)
    body = "\n".join(" & ".join(row) + r" \\" for row in rows)
    return (
        "\\begin{table}\n\\centering\n"
        f"\\caption{{{caption}}}\n\\label{{{label}}}\n"
        f"\\begin{{tabular}}{{l{'l' * len(settings)}}}\n\\toprule\n"
        f"arm & {' & '.join(map(escape, settings))} \\\\\n\\midrule\n{body}\n"
        "\\bottomrule\n\\end{tabular}\n\\end{table}\n"
    )


def _cell(row) -> str:
    """`.526 {\\footnotesize[.505, .547]}`; no brackets where there is no interval."""
    estimate, low, high = (f"{v:.3f}".removeprefix("0") for v in (row.estimate, row.low, row.high))
    return estimate if pd.isna(row.low) else f"{estimate} {{\\footnotesize[{low}, {high}]}}"


def _marks(differences: pd.DataFrame) -> dict[tuple[str, str], str]:
    """(arm, setting) -> its marks, in the order of MARKS."""
    found: dict[tuple[str, str], str] = {}
    for rival, mark in MARKS.items() if len(differences) else ():
        told_apart = differences["verdict"].isin(["higher", "lower"])
        for row in differences[told_apart & (differences["rival"] == rival)].itertuples():
            found[row.arm, row.setting] = found.get((row.arm, row.setting), "") + mark
    return found


def _marked(cell: str, marks: str) -> str:
    """The marks stand after the mean, raised."""
    estimate, _, interval = cell.partition(" ")
    return f"{estimate}$^{{{marks}}}$ {interval}".rstrip() if marks else cell
