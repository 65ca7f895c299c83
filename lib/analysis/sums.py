"""Scores of one encoder summed to what the statistics need, question by question no more.

Sums by setting, stratum and cluster of questions are kilobytes, which can be kept with a report and
read in no time; every figure of a report is a ratio of two of them. A language pair weighs the same
however many questions it has, but for thin ones: see `summed`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from lib.analysis.bias import AGNOSTIC, BITEXT, FIELD
from lib.metrics import BIAS, CELL, QUALITY, SETTINGS

# What a headline figure is a mean of, where a benchmark has the stratum.
HEADLINE = {"hops": "2-hop", "wording": "held-out", "names": "different"}
STRATA = ("hops", "wording", "cell", "names", "trained", "script")
ALL_MEASURES = tuple(dict.fromkeys((*QUALITY, *BIAS, *FIELD, *AGNOSTIC, *BITEXT)))
THIN = 20  # questions that a pair of languages needs to weigh as much as any other
QUESTION = ["question_id", "question_language"]


def summed(scores: pd.DataFrame) -> pd.DataFrame:
    """Sums over the questions of each cluster: columns setting, strata, group, metric, total,
    weight, questions; `total / weight`, each summed over rows, is a mean.

    scores: as lib.study.evaluate.annotate gives them. In each setting and stratum a pair of
    languages (in mono and multi: a language) has the weight 1, divided among its questions; one
    with fewer than THIN has a THIN-th for each, so that thin pairs are pooled. Where pairs have
    strata by how names differ, a question counts in mono and multi as in cross: in each of these
    strata by its share of the languages. So mono and cross are of the same questions. In a mean
    over several strata each counts alike, however many questions it has; cells that were held out
    of training (`cell`) are no stratum in that sense.
    Measures other than mAP are summed for headline strata alone."""
    scores = scores[scores["setting"].isin(SETTINGS)]
    scores = _shared_among_names(scores) if "names" in scores else scores.assign(share=1.0)
    strata = [name for name in STRATA if name in scores]
    parts = []
    for metric in scores.columns.intersection(ALL_MEASURES, sort=False):
        rows = (scores if metric == "ap" else headline(scores)).dropna(subset=[metric])
        if len(rows):
            parts.append(_by_cluster(rows, strata, metric))
    return pd.concat(parts, ignore_index=True)


def _by_cluster(rows: pd.DataFrame, strata: list[str], metric: str) -> pd.DataFrame:
    keys = ["setting", *strata]
    pair = [name for name in keys if name != "cell"]  # which no headline selects by
    size = rows.groupby([*pair, *CELL], observed=True, dropna=False)["share"].transform("sum")
    weight = rows["share"] / np.maximum(size, THIN)
    parts = {"total": rows[metric] * weight, "weight": weight, "questions": rows["share"]}
    sums = rows[[*keys, "group"]].assign(metric=metric, **parts)
    keys = [*keys, "group", "metric"]
    return sums.groupby(keys, observed=True, dropna=False, as_index=False)[list(parts)].sum()


def _shared_among_names(scores: pd.DataFrame) -> pd.DataFrame:
    """The rows with their share: 1 in cross; in mono and multi one row for each value of `names`,
    whose share is that of the question's pairs of languages."""
    cross = scores[scores["setting"] == "cross"]
    pairs = cross.groupby([*QUESTION, "names"], observed=True).size().rename("share")
    shares = pairs / pairs.groupby(QUESTION, observed=True).transform("sum")
    others = scores[scores["setting"] != "cross"].drop(columns="names")
    others = others.merge(shares.reset_index(), on=QUESTION)
    return pd.concat([cross.assign(share=1.0), others], ignore_index=True)


def language_cells(scores: pd.DataFrame) -> pd.DataFrame:
    """Mean AP and number of the headline's questions by setting and (question language, candidate
    language): columns setting, these, ap, n. Names are not selected, so that every cell has the
    same questions."""
    rows = headline(scores, but="names")
    cells = rows.groupby(["setting", *CELL], observed=True)["ap"]
    return cells.agg(ap="mean", n="size").reset_index()


def means(sums: pd.DataFrame, keys: list[str]) -> pd.Series:
    """Means by `keys` of sums."""
    parts = sums.groupby(keys, observed=True)[["total", "weight"]].sum()
    return parts["total"] / parts["weight"]


def headline(table: pd.DataFrame, but: str = "") -> pd.DataFrame:
    """Rows of the headline stratum, which a table has if any row is in it. but: a stratum that is
    not selected by."""
    for column, value in HEADLINE.items():
        if column in table and column != but and (table[column] == value).any():
            table = table[table[column] == value]
    return table


def stratum(table: pd.DataFrame) -> str:
    """What `headline` selects of a table, in words."""
    two_hop, held_out, names = (
        column in table and bool((table[column] == value).any())
        for column, value in HEADLINE.items()
    )
    words = "Two-hop questions" if two_hop else "All test questions"
    words += " in a held-out wording" if held_out else ""
    return words + "; of pairs of languages that spell all names differently" * names + "."
