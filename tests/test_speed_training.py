"""The comparison of trainers runs, and what it compares does the same work."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOY = ["--model", "toy", "--batch", "8", "--rounds", "2", "--threads", "1"]
needs_peer = pytest.mark.skipif(
    not (find_spec("sentence_transformers") and find_spec("accelerate")),
    reason="not installed: sentence-transformers; training is not compared with its trainer",
)


def compare(*options):
    """The finished process of speed/training.py."""
    return subprocess.run(
        [sys.executable, "-m", "speed.training", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"TOKENIZERS_PARALLELISM": "false"},
    )


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
def test_trainers_agree(tmp_path):
    """At toy size both give the same loss at each step, on files and batch sizes that were asked
    for, and every line is JSON."""
    texts = ("--folder", squad_files(tmp_path), "--passage", "paragraph")
    done = compare(*TOY, "--steps", "2", *texts)
    assert done.returncode == 0, done.stderr
    ours, peer = map(json.loads, done.stdout.splitlines())
    assert [ours["variant"], peer["variant"]] == ["ours", "peer"]
    assert ours["ratio"] == ours["ratio_low"] == ours["ratio_high"] == 1
    assert 0 < peer["ratio_low"] <= peer["ratio"] <= peer["ratio_high"]
    assert ours["loss_difference"] == 0 < peer["loss_difference"] < 1e-5  # of other paddings
    figures = ("step_ms", "tokens_s", "utilisation", "peak_mib")
    assert all(row[figure] > 0 for row in (ours, peer) for figure in figures)
    assert ours["rounds"] == 2 and ours["weights"] == "random"
    assert 0.1 < ours["last_loss"] < 6  # random vectors lie close together: ln 8 = 2.1


@needs_peer
def test_profiles_name_operations():
    """On the embedded corpus; the largest shares come first."""
    done = compare(*TOY, "--steps", "1", "--profile")
    assert done.returncode == 0, done.stderr
    for line in map(json.loads, done.stdout.splitlines()):
        shares = [one["percent"] for one in line["profile"]]
        assert 100 >= sum(shares) > 50 and shares == sorted(shares, reverse=True)


def test_paragraphs_need_files():
    """The embedded corpus has none; one line, before anything is loaded."""
    done = compare("--passage", "paragraph")
    assert done.returncode == 2 and "expected --folder" in done.stderr.splitlines()[-1]
