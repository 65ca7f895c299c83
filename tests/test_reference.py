"""The committed studies: verdicts follow from their tables, and tables from their ledger."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import mean
from unittest import mock
from urllib.parse import unquote

import matplotlib.pyplot as plt
import nbformat
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from matplotlib import rc_context
from matplotlib.figure import Figure

from lib.analysis import drawing
from lib.analysis.claims import CLAIMS, ZERO_SHOT
from lib.store import ROOT
from lib.study import grid, lawpage, ledger, paths, predict
from lib.study.plan import Job, notebook_path, plan

REFERENCES = ROOT / "outputs" / "reference"
STUDIES = [
    f.parent.name for f in sorted(REFERENCES.glob("*/index.html")) if (f.parent / "ledger").is_dir()
]
studies = pytest.mark.parametrize("study", STUDIES)
SEEDS = 5
WHOLE = ("rq4_da", "rq5_prompts")  # along an axis, about prompts; a plain one is in test_study


def table(study: str, name: str) -> list[dict[str, str]]:
    """Rows of a committed table; none of one that was empty, and so was not saved."""
    file = REFERENCES / study / "tables" / f"{name}.csv"
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True) if file.exists() else []
    return list(csv.DictReader(lines))


def mean_difference(study: str, row: dict[str, str]) -> float:
    """By hand: the mean over seeds of one arm's mAP less the other's, over the row's settings."""
    runs = table(study, "runs")
    means = [
        mean(float(r[s]) for r in runs if r["arm"] == arm for s in row["setting"].split("+"))
        for arm in (row["arm"], row["versus"])
    ]
    return means[0] - means[1]


@studies
def test_differences_follow_from_the_runs(study):
    """Primary contrasts and all comparisons of mAP in the headline stratum."""
    rows = [r for r in table(study, "primary") if r["difference"]]
    rows += [
        r for r in table(study, "comparisons") if r["metric"] == "ap" and r["claim"] != ZERO_SHOT
    ]
    assert len(rows) >= 3 - len(untested(study))
    for row in rows:
        assert float(row["difference"]) == pytest.approx(mean_difference(study, row), abs=2e-6)


def untested(study: str) -> list[dict[str, str]]:
    """Primary contrasts that a study cannot test, and says why: two of one within languages, all
    of one about prompts, which has no arm to compare with."""
    rows = [row for row in table(study, "primary") if row["verdict"] == "not tested"]
    prompts = bool(table(study, "choices"))
    assert len(table(study, "primary")) == 3 and len(rows) in ((3,) if prompts else (0, 2))
    why = "no arm" if prompts else "the benchmark has no setting cross"
    assert all(row["why"].startswith(why) for row in rows)
    return rows


def by_hand(rows: list[dict[str, str]]) -> str:
    """The verdict of a claim from p values alone: every comparison has to be for it, one against
    it is enough."""
    if min(int(row["seeds"]) for row in rows) < SEEDS:
        return "—"
    if any(float(row["p_against"]) < 0.05 for row in rows):
        return "contradicted"
    if all(float(row["p"]) < 0.05 for row in rows):
        return "supported"
    return "equivalent or inconclusive"


@studies
def test_verdicts_follow_from_the_comparisons(study):
    """Each claim is one row; those that were compared have the verdict of their p values."""
    found = {row["claim"]: row["verdict"] for row in table(study, "claims")}
    compared: dict[str, list] = {}
    for row in table(study, "comparisons"):
        compared.setdefault(row["claim"], []).append(row)
    for claim in CLAIMS:
        expected = by_hand(compared[claim.words]) if claim.words in compared else "not tested"
        assert found[claim.words] in expected, claim.words


@studies
def test_primary_contrasts_have_verdicts(study):
    """With five seeds or more: Holm over three by hand, and a detectable effect; none with fewer,
    which only a study has that says so in its first sentence."""
    rows = [row for row in table(study, "primary") if row not in untested(study)]
    assert rows or table(study, "choices")
    if any(float(row["seeds"]) < SEEDS for row in rows):
        assert {row["verdict"] for row in rows} == {"—"}
        page = (REFERENCES / study / "index.html").read_text(encoding="utf-8")
        assert "seeds decide nothing; five are needed." in page
        return
    order = sorted(rows, key=lambda row: float(row["p"]))
    highest = 0.0
    for step, row in enumerate(order):
        highest = max(highest, min(1.0, float(row["p"]) * (3 - step)))
        assert float(row["p_holm"]) == pytest.approx(highest, abs=2e-6)
        assert float(row["detectable"]) > 0
        decided = row["verdict"] in ("supported", "contradicted")
        assert decided == (highest < 0.05)


@studies
def test_the_ledger_is_kilobytes_a_run(study):
    """And says where runs came from, and from which commit."""
    folder = REFERENCES / study / "ledger"
    runs = sorted((folder / "runs").iterdir())
    assert set(json.loads((folder / "study.json").read_text())["runs"]) == {r.name for r in runs}
    for run in runs:
        size = sum(f.stat().st_size for f in run.rglob("*") if f.is_file())
        assert size < 300_000, run
        assert json.loads((run / "provenance.json").read_text())["commit"]


def reported(study: str, outputs: Path) -> Path:
    """The folder of a report that is made of a ledger and nothing else, of WHOLE from the command
    line.

    Of the others the notebook's cells are executed here, and figures drawn but not saved: kernels,
    pictures and pages are most of a report's time."""
    with mock.patch.dict(os.environ, {"BATCHES_OUTPUTS": str(outputs)}):
        if study in WHOLE:
            command = [sys.executable, "-m", "lib.study", "report"]
            command += ["--from", f"outputs/reference/{study}"]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)
            assert done.returncode == 0, done.stdout + done.stderr
        else:
            ledger.restore(str(REFERENCES / study))
            with mock.patch.object(drawing, "_saved", unsaved), rc_context():
                execute(plan(grid.load_frozen(study)))
        return paths.report_dir(study)


def unsaved(figure: Figure, file: Path) -> str:
    """In place of an SVG."""
    plt.close(figure)
    return '<svg width="1pt">'


def execute(jobs: list[Job]) -> None:
    """The code of the notebook that analyses, with the study's parameters."""
    [job] = [job for job in jobs if job.stage == "analyse"]
    names = {}
    for cell in nbformat.read(notebook_path("analyse"), 4).cells:
        if cell.cell_type == "code":
            exec(cell.source, names)
        if "parameters" in cell.metadata.get("tags", []):
            names |= job.params.model_dump()


@studies
def test_the_ledger_gives_the_committed_tables(study, tmp_path):
    """All of them, on a clone that has nothing else; another CPU may round another way."""
    made = reported(study, tmp_path) / "tables"
    kept = REFERENCES / study / "tables"
    assert {f.name for f in made.iterdir()} == {f.name for f in kept.iterdir()}
    for file in kept.glob("*.csv"):
        both = (
            pd.read_csv(folder / file.name) for folder in (made, kept) if file.stat().st_size > 1
        )
        if both := list(both):
            pd.testing.assert_frame_equal(*both, atol=2e-6, rtol=0, obj=file.name)


def test_the_law_follows_from_the_ledgers():
    """What the page is about: the rungs' contrasts, and results beside what was said of them."""
    made = {"points": predict.fitted(), "outcomes": lawpage.outcomes(predict.read())}
    made |= {"growth": lawpage.growth(), "elsewhere": lawpage.elsewhere()}
    for name, found in made.items():
        file = REFERENCES / "law" / "tables" / f"{name}.csv"
        assert file.exists() == (len(found) > 0), name
        if len(found):
            kept = pd.read_csv(file)
            pd.testing.assert_frame_equal(
                found, kept, atol=2e-6, rtol=0, check_dtype=False, obj=name
            )


def test_pages_link_nothing_that_is_missing():
    """Of what is committed beside them."""
    for page in REFERENCES.glob("*/index.html"):
        soup = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
        for link in soup.find_all("a", href=True):
            href = link["href"].partition("#")[0]
            if href and "://" not in href:
                assert (page.parent / Path(unquote(href))).exists(), (page, href)
