"""The speed comparisons run, and the evaluators that they compare agree."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PEERS = ("pytrec_eval", "ranx", "sentence_transformers")


def test_metrics_agree_with_other_evaluators():
    """At a tiny size every evaluator gives the same values, and the last line is JSON."""
    if missing := [name for name in PEERS if not find_spec(name)]:
        pytest.skip(f"not installed: {', '.join(missing)}; metrics are not compared with them")
    script = [sys.executable, "speed/metrics.py", "--questions", "20", "--threads", "1"]
    done = subprocess.run(script, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["questions"], len(found["full"])) == (220, 1)
    names = {row["evaluator"] for row in found["rows"]}
    assert names == {"ours", "ranx_arrays", *PEERS}
    assert all(row["difference"] < 1e-6 for row in found["rows"])
    assert all(row["seconds"] > 0 and row["ratio"] > 0 for row in found["rows"])
    assert 0.1 < found["rows"][0]["map_multi"] < 0.99  # a perfect ranking would show no difference
