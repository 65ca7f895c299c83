"""Rungs: encoders that differ before they are fine-tuned, each with every arm, out of one study.

What lib.analysis.law is fitted to: of each rung how well it is aligned (`untrained` on the
benchmark `parallel`), and at each budget the primary contrasts and the skill that is still missing.
"""

from __future__ import annotations

import pandas as pd

from lib.analysis import claims, stats
from lib.analysis.results import Results
from lib.params import BadParameter
from lib.study import results
from lib.training import conflict

AXIS = "rung"
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
    for rung, own in results.by_label(study, runs, axis).items():
        if "untrained" not in {run.arm for run in own}:
            raise BadParameter(f"study {study}: rung {rung} has no untrained runs (expected some)")
        aligned = alignment(results.load_results(study, own, parallel), "untrained")
        by_budget = results.load_budgets(own, next(iter(specs)))
        rows += _of_rung(rung, aligned.estimate, by_budget)
    return pd.DataFrame(rows, columns=COLUMNS)


def alone(rung: str, aligned: str, study: str) -> pd.DataFrame:
    """The rows of `points` of a whole study that is one rung, at its largest budget; its untrained
    encoders were asked `parallel` in the study `aligned`."""
    runs = results.scored_runs(aligned)
    known = alignment(results.load_results(aligned, runs, "parallel"), "untrained").estimate
    runs = results.scored_runs(study)
    found = results.load_results(study, runs)
    budget = max(run.train.steps for run in runs)
    about = {"rung": rung, "budget": budget, "alignment": known, "missing": 0.0}
    return pd.DataFrame([about | row for row in contrasts(found)], columns=COLUMNS)


def alignment(found: Results, arm: str, fixed: bool = False) -> stats.Interval:
    """Bitext accuracy of an arm's encoders, over ordered pairs of languages, with its interval;
    fixed: of these encoders alone."""
    return stats.interval(found.table(arm, "cross", "hit1", lambda table: table), fixed=fixed)


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
    for name, claim in claims.CONTRASTS.items():
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
        for rung, own in results.by_label(study, results.scored_runs(study), axis).items()
        for run in own
    ]
    table = pd.concat(parts, ignore_index=True)
    means = table.groupby(["rung", "step"], sort=False).mean().reset_index()
    ceiling = (means["mono"].clip(lower=0) * means["cross"].clip(lower=0)) ** 0.5
    return means.assign(agreement=means["mono_cross"] / ceiling)
