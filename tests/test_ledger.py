"""Ledgers that are not as they were written, or not called as they were, or meet what is here."""

import shutil

import pytest

from lib import store
from lib.params import BadParameter
from lib.store import ROOT
from lib.study import grid, ledger, paths, plan
from lib.study.__main__ import main

STUDY = "pretrained-full"
KEY = "arm=mono,seed=0"


@pytest.fixture
def kept(tmp_path, outputs):
    """A copy of a small committed ledger, in a folder of another name."""
    place = tmp_path / "copy of (1)"
    shutil.copytree(ROOT / "outputs/reference" / STUDY / "ledger", place / "ledger")
    return place


def test_a_ledger_is_of_its_study_whatever_its_folder_is_called(kept, outputs):
    """And lays out all of it; again over itself, from the same place said otherwise."""
    assert ledger.restore(str(kept)) == STUDY
    assert [f.name for f in outputs.iterdir()] == [STUDY]
    jobs = [job for job in plan.plan(grid.load_frozen(STUDY)) if job.stage == "evaluate"]
    assert len(jobs) >= 8 and all(job.done for job in jobs)
    assert ledger.restore(f"{kept}/../{kept.name}") == STUDY


def test_what_was_made_here_is_left_alone(kept):
    """A run whose notebook is there keeps its files and stamps; another is written again."""
    ledger.restore(str(kept))
    own, other = paths.run_dir(STUDY, KEY), paths.run_dir(STUDY, "arm=mono,seed=1")
    (own / "02_train.ipynb").write_text("{}")
    for folder in (own, other):
        (folder / "metrics.json").write_text("mine")
    ledger.restore(str(kept))
    assert (own / "metrics.json").read_text() == "mine"
    assert (other / "metrics.json").read_text() != "mine"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: (run / "metrics.json").write_text("{}"), "metrics.json"),
        (lambda run: shutil.rmtree(run), f"lacks runs/{KEY} "),
        (lambda run: (run / "manifest.json").write_text("{}"), "manifest.json"),
        (lambda run: (run / "notes.txt").write_text("x"), "notes.txt: is not among"),
        (lambda run: (run.parents[1] / "study.json").write_text("{}"), "study.json"),
    ],
)
def test_a_spoilt_ledger_is_one_line_and_leaves_nothing(kept, outputs, capsys, spoil, message):
    """So that the same command works once it is mended."""
    spoil(kept / "ledger/runs" / KEY)
    assert main(["report", "--from", str(kept)]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
    assert not (outputs / STUDY).exists()


def test_taking_nothing_is_no_ties(kept, outputs):
    """A study that found no run of its own in a ledger may go on without it."""
    for folder in (kept / "ledger").glob("*/*/"):
        shutil.rmtree(folder)
    jobs = plan.plan(grid.load_study(ROOT / "params/quick.yaml"))
    assert ledger.adopt(str(kept), jobs) == 0
    assert not (outputs / "quick").exists()


def test_a_stray_file_is_not_kept(kept):
    """It would make the ledger unusable for whoever has it."""
    ledger.restore(str(kept))
    (paths.run_dir(STUDY, KEY) / "sums/Thumbs.db").write_text("x")
    with pytest.raises(store.Foreign, match="Thumbs.db"):
        ledger.write(STUDY)


def test_a_card_of_a_run_without_its_encoder_says_so(kept):
    """Ledgers have none."""
    from lib.study import card

    ledger.restore(str(kept))
    with pytest.raises(BadParameter, match="taken from a ledger, without its encoder"):
        card._run(STUDY, KEY)
