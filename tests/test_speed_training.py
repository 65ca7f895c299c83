"""The comparison of trainers runs, and what it compares does the same work."""

import json
import os
import subprocess
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from unittest import mock

import pytest

from lib.params import Prepare
from speed import training

ROOT = Path(__file__).parents[1]
TOY = ["--model", "toy", "--batch", "8", "--rounds", "2", "--threads", "1"]
needs_peer = pytest.mark.skipif(
    not (find_spec("sentence_transformers") and find_spec("accelerate")),
    reason="not installed: sentence-transformers; training is not compared with its trainer",
)


@pytest.fixture
def compare(monkeypatch, capfd):
    """A function of options: the lines that speed/training.py prints, run in this process."""

    def lines(*options):
        monkeypatch.setattr(sys, "argv", ["training.py", *options])
        with mock.patch.dict(os.environ, {"TOKENIZERS_PARALLELISM": "false"}):
            training.main()
        return [json.loads(line) for line in capfd.readouterr().out.splitlines()]

    return lines


def squad_files(folder: Path) -> str:
    """Forty questions, one a paragraph of two sentences, in two languages."""
    for language, asked, told in (("en", "where is", "is in"), ("de", "wo liegt", "liegt in")):
        rows = [
            {
                "id": f"q{i}",
                "question": f"{asked} thing {i}?",
                "context": f"Thing {i} {told} place {i * i}. Other {i * 7} {told} room {i}.",
                "answers": {
                    "text": [f"place {i * i}"],
                    "answer_start": [len(f"Thing {i} {told} ")],
                },
            }
            for i in range(40)
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{language}.jsonl").write_text(text)
    return str(folder)


@needs_peer
def test_trainers_agree(compare, tmp_path):
    """At toy size both give the same loss at each step, on files and batch sizes that were asked
    for, and every line is JSON."""
    texts = ("--folder", squad_files(tmp_path), "--passage", "paragraph")
    ours, peer = compare(*TOY, "--steps", "2", *texts)
    assert [ours["variant"], peer["variant"]] == ["ours", "peer"]
    assert ours["ratio"] == ours["ratio_low"] == ours["ratio_high"] == 1
    assert 0 < peer["ratio_low"] <= peer["ratio"] <= peer["ratio_high"]
    assert ours["loss_difference"] == 0 < peer["loss_difference"] < 1e-5  # of other paddings
    figures = ("step_ms", "tokens_s", "utilisation", "peak_mib")
    assert all(row[figure] > 0 for row in (ours, peer) for figure in figures)
    assert ours["rounds"] == 2 and ours["weights"] == "random"
    assert 0.1 < ours["last_loss"] < 6  # random vectors lie close together: ln 8 = 2.1


@needs_peer
def test_profiles_name_operations(compare, monkeypatch):
    """On the embedded corpus; the largest shares come first."""
    monkeypatch.setattr(training, "Prepare", partial(Prepare, languages=["de", "en"], bridges=1))
    lines = compare(*TOY, "--steps", "1", "--profile")
    assert len(lines) == 2
    for line in lines:
        shares = [one["percent"] for one in line["profile"]]
        assert 100 >= sum(shares) > 50 and shares == sorted(shares, reverse=True)


def test_paragraphs_need_files():
    """The embedded corpus has none; one line, before anything is loaded. From the command line."""
    script = [sys.executable, "-m", "speed.training", "--passage", "paragraph"]
    done = subprocess.run(script, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "expected --folder" in done.stderr.splitlines()[-1]
