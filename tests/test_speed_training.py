"""The comparison of trainers runs, and what it compares does the same work."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_trainers_agree():
    """At toy size all three give the same losses, and the last line is JSON."""
    missing = [name for name in ("sentence_transformers", "accelerate") if not find_spec(name)]
    if missing:
        pytest.skip(
            f"not installed: {', '.join(missing)}; training is not compared with its trainer"
        )
    done = subprocess.run(
        [sys.executable, "speed/training.py", "--quick", "--threads", "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"TOKENIZERS_PARALLELISM": "false"},
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout.splitlines()[-1])["rows"]
    assert [row["trainer"] for row in rows] == ["ours", "peer", "plain"]
    assert all(row["loss_difference"] < 1e-5 for row in rows)
    figures = ("step_ms", "ratio", "tokens_s", "start_s", "peak_mib")
    assert all(row[figure] > 0 for row in rows for figure in figures)
    assert 1 < rows[0]["last_loss"] < 4  # ln 8 = 2.1 where nothing is told apart
