"""Fixtures that more than one test file uses."""

import os
from pathlib import Path

import pytest


@pytest.fixture
def outputs(tmp_path, monkeypatch):
    """An empty folder of outputs, instead of the project's own."""
    folder = tmp_path / "outputs"
    monkeypatch.setenv("BATCHES_OUTPUTS", str(folder))
    return folder


@pytest.fixture
def fast(monkeypatch):
    """Ranks that fork from a server with the imports done; as for the others, they are the same."""
    from test_trainer import preloaded

    from lib import store
    from lib.training import ranks

    preloaded()
    folders = os.pathsep.join([str(store.ROOT), str(Path(__file__).parent)])
    monkeypatch.setenv("PYTHONPATH", folders)
    original = ranks.mp.start_processes

    def forked(*args, start_method, **kwargs):
        return original(*args, start_method="forkserver", **kwargs)

    monkeypatch.setattr(ranks.mp, "start_processes", forked)
