"""Rungs: encoders that differ before they are fine-tuned, each with every arm, out of one study.

What lib.analysis.law is fitted to: of each rung how well it is aligned (`untrained` on the
benchmark `parallel`), and at each budget the primary contrasts and the skill that is still missing.
"""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from lib.analysis import claims, stats
from lib.analysis.results import Results, ScoredRun, arm_labels
from lib.params import BadParameter
from lib.study import results
from lib.training import conflict

AXIS = "rung"
CONTRASTS = dict(zip(("mono cost", "cross gain", "batch effect"), claims.PRIMARY, strict=True))
# The same in the pool of all languages, and of alpha 0, to tell which alpha is best.
CONTRASTS["multi gain"] = claims.Claim("Hybrid(0.5) gains over mono", {"multi": ("mono",)})
for _name in ("mono cost", "cross gain", "multi gain"):
    CONTRASTS[f"{_name} of cross"] = replace(CONTRASTS[_name], arm="cross")
COLUMNS = ["rung", "budget", "contrast", "alignment", "missing", "value", "low", "high", "seeds"]


def points(study: str, axis: str = AXIS) -> pd.DataFrame:
    """One row a rung, budget and contrast (COLUMNS; mAP, 95 % intervals) of the report's benchmark;
    contrasts of arms that the study lacks are left out.

    Raises BadParameter for a study without that axis, without `untrained` runs, or that was not
    evaluated on a benchmark of format parallel."""
    runs = results.scored_runs(study)
    specs = results.benchmark_specs(runs)
    parallel = next((n for n, spec in specs.items() if spec.format == "parallel"), "")
    if not parallel:
        raise BadParameter(f"study {study}: no alignment (expected a benchmark of format parallel)")
    rows = []
    for rung, own in by_label(study, runs, axis).items():
        if "untrained" not in {run.arm for run in own}:
            raise BadParameter(f"study {study}: rung {rung} has no untrained runs (expected some)")
        aligned = alignment(results.load_results(study, own, parallel), "untrained")
        by_budget = results.load_budgets(own, next(iter(specs)))
        rows += _of_rung(rung, aligned.estimate, by_budget)
    return pd.DataFrame(rows, columns=COLUMNS)


def alignment(found: Results, arm: str, fixed: bool = False) -> stats.Interval:
    """Bitext accuracy of an arm's encoders, over ordered pairs of languages, with its interval;
    fixed: of these encoders alone."""
    return stats.interval(found.table(arm, "cross", "hit1", lambda table: table), fixed=fixed)


def by_label(study: str, runs: list[ScoredRun], axis: str) -> dict[str, list[ScoredRun]]:
    """Label -> the runs of the axis that have it, named as the arms of a study of its own."""
    parts: dict[str, dict[str, ScoredRun]] = {}
    for run in runs:
        labels = dict(part.split("=", 1) for part in run.key.split(","))
        if axis not in labels:
            raise BadParameter(f"study {study}: has no axis {axis!r} (expected one)")
        rest = ",".join(f"{name}={x}" for name, x in labels.items() if name != axis)
        parts.setdefault(labels[axis], {})[rest] = run
    found = {}
    for label, own in parts.items():
        names = arm_labels({rest: run.train for rest, run in own.items()})
        found[label] = [replace(run, arm=names[rest]) for rest, run in own.items()]
    return found


def _of_rung(rung: str, aligned: float, by_budget: dict[int, Results]) -> list[dict]:
    """The rows of a rung."""
    skill = {b: _mono(one) for b, one in by_budget.items()}
    rows = []
    for budget, one in by_budget.items():
        known = {"rung": rung, "budget": budget, "alignment": aligned}
        known["missing"] = skill[max(skill)] - skill[budget]
        rows += [known | row for row in contrasts(one)]
    return rows


def contrasts(found: Results) -> list[dict]:
    """Contrast, value, low, high and seeds of each that a study has the arms for."""
    rows = []
    for name, claim in CONTRASTS.items():
        if not claims.lacking(found, claim):
            (row,) = claims.compare(found, claim)
            kept = {key: row[key] for key in ("low", "high", "seeds")}
            rows.append({"contrast": name, "value": row["difference"]} | kept)
    return rows


def _mono(found: Results) -> float:
    """mono mAP of the mono arm."""
    return stats.interval(found.table("mono", "mono")).estimate


def gradients(study: str, axis: str = AXIS) -> pd.DataFrame:
    """One row a rung and look at gradients (lib.training.conflict), means over seeds: rung, step,
    mono_cross, mono, cross, and agreement, mono_cross over the geometric mean of the other two: 1
    where kinds of batches differ no more than batches of one kind do."""
    parts = [
        conflict.read(run.folder).assign(rung=rung)
        for rung, own in by_label(study, results.scored_runs(study), axis).items()
        for run in own
    ]
    table = pd.concat(parts, ignore_index=True)
    means = table.groupby(["rung", "step"], sort=False).mean().reset_index()
    ceiling = (means["mono"].clip(lower=0) * means["cross"].clip(lower=0)) ** 0.5
    return means.assign(agreement=means["mono_cross"] / ceiling)
