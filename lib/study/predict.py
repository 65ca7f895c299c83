"""Predictions before results: written once from rungs, and older than what they are about.

`python -m lib.study predict` fits the law to the study `rungs`, takes the alignments that
`rotations-start` measured before any fine-tuning, and writes params/predictions.yaml. That file is
committed before the studies in ABOUT run; their report looks whether it was.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from lib import store
from lib.analysis import predictions
from lib.analysis.predictions import Target
from lib.params import BadParameter
from lib.store import ROOT
from lib.study import ledger, results, rungs

FILE = ROOT / "params" / "predictions.yaml"
FITTED, ALIGNED = "rungs", "rotations-start"
WHOLE = {"cldr": ("rungs-cldr", "quick")}  # rung -> the study of its alignment, and itself
ABOUT = {"pretrained": "pretrained", "rotated": "rotations", "free": "rotations"}
DIGITS = 4
TOP = """\
# What the law says of encoders before they were fine-tuned (docs/law.md), made by
#   python -m lib.study predict
# and committed before the first of them was. Not to be edited: the report of what came out is
# refused where a run is older than this file.
"""


def fitted() -> pd.DataFrame:
    """What the law is fitted to: lib.study.rungs.points of the rungs, and of studies that are one.
    Raises BadParameter where one is neither here nor in a ledger."""
    for study in (FITTED, *(name for both in WHOLE.values() for name in both)):
        if not ledger.at_hand(study):
            what = f"expected outputs/{study}, or outputs/reference/{study}/ledger"
            raise BadParameter(f"study {study}: is not there ({what})")
    every = [rungs.alone(rung, *both) for rung, both in WHOLE.items()]
    return pd.concat([rungs.points(FITTED), *every], ignore_index=True)


def targets(points: pd.DataFrame) -> list[Target]:
    """The pretrained encoder as it is and rotated, with a rotation that stays or is trained; the
    study xquad, whose encoders begin as the unaligned rung; the paper's."""
    found = []
    for rung, alignment in alignments(ALIGNED).items():
        kinds = ["pretrained"] if rung == "turn0" else ["rotated", "free"]
        for kind in kinds:
            name = rung if kind != "free" else rung.replace("turn", "free")
            found.append(Target(kind, name, alignment, False))
    unaligned = points.loc[points["rung"] == predictions.UNALIGNED, "alignment"].iloc[0]
    found.append(Target("from scratch", "xquad", float(unaligned), True))
    return found + predictions.targets_published()


def alignments(study: str) -> dict[str, float]:
    """Rung -> alignment of its untrained encoders."""
    ledger.at_hand(study)
    runs = results.scored_runs(study)
    return {
        rung: rungs.alignment(results.load_results(study, own, "parallel"), "untrained").estimate
        for rung, own in results.by_label(study, runs, rungs.AXIS).items()
    }


def write(file: Path = FILE) -> pd.DataFrame:
    """Fit, predict and write the file; the predictions. Raises BadParameter where there is one:
    predictions are made once."""
    if file.exists():
        raise BadParameter(f"{file}: is there already (expected no predictions yet)")
    points = fitted()
    made = predictions.predict(points, targets(points))
    chosen = {name: table.iloc[0] for name, table in predictions.laws(points).items()}
    laws = {
        name: _flow({"law": row["law"], **{k: _short(row[k]) for k in NUMBERS}})
        for name, row in chosen.items()
    }
    about = {"fitted to": FITTED, "points": store.digest(points.round(6).to_dict("list"))}
    rows = [_flow({k: _short(v) for k, v in row.items()}) for row in made.to_dict("records")]
    yaml = YAML()
    yaml.width = 200
    with store.atomic_file(file) as new, open(new, "w", encoding="utf-8") as out:
        out.write(TOP)
        yaml.dump(about | {"laws": laws, "predictions": rows}, out)
    return made


NUMBERS = ("size", "missing", "power", "error")


def _short(value):
    return round(float(value), DIGITS) if isinstance(value, float) else value


def _flow(values: dict) -> CommentedMap:
    """A mapping on one line."""
    found = CommentedMap(values)
    found.fa.set_flow_style()
    return found


def read(file: Path = FILE) -> pd.DataFrame:
    """The predictions (columns of lib.analysis.predictions). Raises BadParameter without any."""
    if not file.exists():
        raise BadParameter(f"{file}: there are no predictions (expected those that came first)")
    content = YAML(typ="safe", pure=True).load(file)
    return pd.DataFrame(content["predictions"], columns=predictions.COLUMNS)


def require_older(commits: Iterable[str], file: Path = FILE) -> str:
    """The commit that the predictions have been in since, which each of these commits comes after.

    Raises BadParameter where one does not, or the file is not as it was committed: what is known
    already is not predicted."""
    name = str(file.relative_to(ROOT))
    changed = _git("status", "--porcelain", "--", name)
    made = _git("log", "-1", "--format=%H", "--", name).strip()
    if changed or not made:
        raise BadParameter(f"{name}: is not committed as it is (expected it, before any result)")
    for commit in sorted(set(commits)):
        whole = commit.partition(" ")[0]
        if _code("merge-base", "--is-ancestor", made, whole):
            raise BadParameter(
                f"{name}: is of commit {made[:12]}, and a run of commit {commit} does not come "
                "after it (expected predictions before results)"
            )
    return made


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BadParameter(f"git {words[0]}: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout


def _code(*words: str) -> int:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, check=False).returncode
