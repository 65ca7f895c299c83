"""Memory of fine-tuning decoders: the measurement runs at toy size."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from speed import memory

ROOT = Path(__file__).parents[1]


def test_a_toy_decoder_is_measured(monkeypatch, capsys):
    """Adapters of rank 16 on seven matrices a layer, by hand; every line is JSON."""
    if not find_spec("peft"):
        pytest.skip("not installed: peft; the memory of adapters is not measured")
    monkeypatch.setattr(sys, "argv", ["memory.py", "--device", "cpu", "--quick"])
    memory.main()
    first, *lines = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["matmul"] > 0 and [line["checkpointing"] for line in lines] == [False, True]
    # q and o have 32 + 32 rows and columns, k and v 32 + 16, three matrices 32 + 64; two layers.
    assert {line["trainable"] for line in lines} == {2 * 16 * (2 * 64 + 2 * 48 + 3 * 96)}
    assert all(line["seconds"] > 0 and line["peak_gib"] is None for line in lines)


def test_what_cannot_be_measured_is_said_in_one_line():
    """Without peft, or a full shape without a GPU. From the command line."""
    script = [sys.executable, "-m", "speed.memory", "--device", "cpu"]
    done = subprocess.run(script, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert ("no GPU" if find_spec("peft") else "peft") in done.stderr
