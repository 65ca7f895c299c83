"""Fixtures that more than one test file uses."""

import pytest


@pytest.fixture
def outputs(tmp_path, monkeypatch):
    """An empty folder of outputs, instead of the project's own."""
    folder = tmp_path / "outputs"
    monkeypatch.setenv("BATCHES_OUTPUTS", str(folder))
    return folder
