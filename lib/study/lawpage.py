"""The page of the law, `python -m lib.study law`: outputs/law/report/index.html.

Studies that it is about are read where they ran, else out of the ledgers kept with the project, so
the page is made in a fresh clone without training anything. What has not run is left out, but for
the rungs that the law is fitted to.
"""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from lib import store
from lib.analysis import claims, stats
from lib.analysis.cells import Cells, difference
from lib.analysis.results import ScoredRun
from lib.store import ROOT
from lib.study import ledger, paths, predict, report, results, rungs, warm

NAME, NOTEBOOK = "law", "06_law.ipynb"
LOOKED = "rungs-gradients"
PLAIN = {"pretrained": "turn0", "xquad": "xquad"}  # study without rungs -> its target
UNSEEN = "pretrained-unseen"  # as `pretrained`, asked in languages without training pairs
GROWING = ("mono cost", "cross gain")


def outcomes(said: pd.DataFrame) -> pd.DataFrame:
    """Predictions with what came out beside them: the columns of lib.analysis.predictions, and
    value, value_low, value_high, of targets that were measured (of the paper without interval).

    Raises BadParameter where a run is older than the predictions about it."""
    parts = [_published()]
    for study in dict.fromkeys((*predict.ABOUT.values(), "xquad")):
        if ledger.at_hand(study):
            parts.append(measured(study, blind=study in predict.ABOUT.values()))
    found = pd.concat(parts, ignore_index=True)
    return said.merge(found, on=["target", "contrast"])


def _published() -> pd.DataFrame:
    table = predict.predictions.published()[["target", "contrast", "value"]]
    return table.assign(value_low=float("nan"), value_high=float("nan"))


def measured(study: str, blind: bool) -> pd.DataFrame:
    """target, contrast, value, value_low, value_high of a study, at its largest budget.

    blind: whether predictions have to be older than its runs."""
    runs = results.scored_runs(study)
    if blind:
        predict.require_older(results.commits(runs))
    plain = PLAIN.get(study)
    parts = {plain: runs} if plain else results.by_label(study, runs, rungs.AXIS)
    rows = []
    for target, own in parts.items():
        found = results.load_results(study, own)
        rows += [{"target": target} | row for row in rungs.contrasts(found)]
    named = {"low": "value_low", "high": "value_high"}
    return pd.DataFrame(rows).drop(columns="seeds").rename(columns=named)


def growth() -> pd.DataFrame:
    """One row a rotation and contrast of GROWING: target, contrast, and by how much the contrast is
    larger than without rotation (growth, low, high: mAP, 95 %; by seeds and clusters, which both
    have in common). Empty where either has not run."""
    rows = []
    if all(map(ledger.at_hand, ("pretrained", "rotations"))):
        plain = _gaps("pretrained", results.scored_runs("pretrained"))
        runs = results.scored_runs("rotations")
        for rung, own in results.by_label("rotations", runs, rungs.AXIS).items():
            for name, turned in _gaps("rotations", own).items():
                found = stats.interval(difference(turned, plain[name]))
                rows.append((rung, name, found.estimate, found.low, found.high))
    return pd.DataFrame(rows, columns=["target", "contrast", "growth", "low", "high"])


def elsewhere() -> pd.DataFrame:
    """Contrasts of GROWING of the pretrained encoder, by where it was asked: contrast, languages
    (trained; without pairs; difference, by seeds and clusters, which both have in common), value,
    low, high (mAP, 95 %). Empty where either has not run."""
    rows = []
    if all(map(ledger.at_hand, ("pretrained", UNSEEN))):
        trained, without = (_gaps(s, results.scored_runs(s)) for s in ("pretrained", UNSEEN))
        for name in GROWING:
            more = difference(without[name], trained[name])
            asked = {"trained": trained[name], "without pairs": without[name], "difference": more}
            for languages, table in asked.items():
                found = stats.interval(table)
                rows.append((name, languages, found.estimate, found.low, found.high))
    return pd.DataFrame(rows, columns=["contrast", "languages", "value", "low", "high"])


def _gaps(study: str, runs: list[ScoredRun]) -> dict[str, Cells]:
    """Each contrast of GROWING by seed and cluster, at the largest budget."""
    found = results.load_results(study, runs)
    return {name: claims.gap(found, claims.CONTRASTS[name]) for name in GROWING}


def make() -> Path:
    """Execute the notebook and render it; the path of the page."""
    os.environ |= warm.inherited(1)
    import papermill

    folder = paths.report_dir(NAME)
    store.make_folder(folder)
    target = folder / NOTEBOOK
    papermill.execute_notebook(
        str(ROOT / "notebooks" / NOTEBOOK), str(target), kernel_name="python3", cwd=str(ROOT),
        progress_bar=False, extra_arguments=list(warm.ARGUMENTS),
    )  # fmt: skip
    return report.render_alone(report.Page(NAME, "analyse", "", target))


def gradients() -> pd.DataFrame:
    """lib.study.rungs.gradients of the study that looked at them; empty where it did not run."""
    return rungs.gradients(LOOKED) if ledger.at_hand(LOOKED) else pd.DataFrame()
