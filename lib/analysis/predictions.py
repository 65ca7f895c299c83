"""What the law says of encoders that it was not fitted to, and how that turned out.

Predictions are rows (COLUMNS): a target, its alignment measured before any fine-tuning, and of each
contrast the law's estimate with an interval that a new rung should lie in nine times of ten. Two
others are asked the same: `constant`, the mean of all rungs (alignment does not matter), and
`dose only`, the rung that was not aligned (of a target nobody knows another dose).
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files
from typing import NamedTuple

import numpy as np
import pandas as pd

from lib.analysis import law

UNALIGNED = "dose0"  # the rung of the null `dose only`
COLUMNS = ["group", "target", "contrast", "alignment", "estimate", "low", "high"]
COLUMNS += ["constant", "dose only", "known"]
NULLS = ("constant", "dose only")
# Bitext accuracy on Tatoeba, mean of XTREME's 36 languages, before fine-tuning: XLM-R large by
# arXiv 2003.11080, Table 2; LaBSE by arXiv 2007.01852, Table 4. Sentences, pools and languages
# differ from those of the rungs, and which XLM-R the paper fine-tuned it does not say.
OUTSIDE = {"xlm-r": 0.573, "labse": 0.950}
PUBLISHED = {
    "mono": ("mono cost", "mono cost of cross"),
    "cross": ("cross gain", "cross gain of cross"),
    "multi": ("multi gain", "multi gain of cross"),
}  # setting -> contrast of hybrid, and of cross, against mono


class Target(NamedTuple):
    """An encoder to be fine-tuned. known: whether its results were known when it was predicted."""

    group: str
    name: str
    alignment: float
    known: bool


def laws(points: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Contrast -> `law.candidates` of its rows, the chosen law first. points: of
    lib.study.rungs.points."""
    return {name: law.candidates(own) for name, own in points.groupby("contrast", sort=False)}


def predict(points: pd.DataFrame, targets: Iterable[Target]) -> pd.DataFrame:
    """One row (COLUMNS) a target and contrast, for the largest budget."""
    targets, rows = list(targets), []
    for contrast, own in points.groupby("contrast", sort=False):
        terms = law.candidates(own)["law"][0]
        constant = law.fit(own, "constant").size
        last = own[(own["rung"] == UNALIGNED) & (own["budget"] == own["budget"].max())]
        for target in targets:
            estimate, low, high = law.predicted(own, terms, target.alignment)
            said = (target.group, target.name, contrast, target.alignment, estimate, low, high)
            rows.append((*said, constant, last["value"].mean(), target.known))
    return pd.DataFrame(rows, columns=COLUMNS)


def score(predicted: pd.DataFrame, measured: pd.DataFrame) -> pd.DataFrame:
    """One row a group and contrast, of the predictions that were measured (columns target,
    contrast, value): how many, how many lie in their interval, and the root of the mean squared
    error of the law and of each null."""
    both = predicted.merge(measured[["target", "contrast", "value"]], on=["target", "contrast"])
    rows = []
    for (group, contrast), own in both.groupby(["group", "contrast"], sort=False):
        inside = own["value"].between(own["low"], own["high"])
        errors = {
            name: float(np.sqrt(((own["value"] - own[name]) ** 2).mean()))
            for name in ("estimate", *NULLS)
        }
        counts = {"targets": len(own), "inside": int(inside.sum())}
        rows.append({"group": group, "contrast": contrast} | counts | errors)
    return pd.DataFrame(rows)


def published() -> pd.DataFrame:
    """What arXiv 2408.10536 measured: group, target (encoder, test, language), alignment, contrast,
    value. MIRACL's values are of nDCG@10, the others of mAP."""
    with (files("lib.analysis") / "published_by_language.csv").open() as file:
        table = pd.read_csv(file, comment="#", keep_default_na=False)
    rows = []
    for row in table.to_dict("records"):
        group = f"{row['encoder']}, {row['test']}"
        about = {"group": group, "target": f"{group}, {row['language']}"}
        about["alignment"] = OUTSIDE[row["encoder"]]
        for contrast, arm in zip(PUBLISHED[row["setting"]], ("hybrid", "cross"), strict=True):
            rows.append(about | {"contrast": contrast, "value": row[arm]})
    return pd.DataFrame(rows)


def targets_published() -> list[Target]:
    """The targets of `published`, each once; known beforehand, so out of sample and not blind."""
    table = published().drop_duplicates("target")
    return [Target(r.group, r.target, r.alignment, True) for r in table.itertuples()]
