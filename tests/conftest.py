"""Fixtures that more than one test file uses."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest


def pytest_configure(config):
    """Temporary files of the tests, and of all programs they start, lie in one folder that goes
    with them; xdist's workers have it from whoever starts them."""
    if not hasattr(config, "workerinput"):
        os.environ["TMPDIR"] = tempfile.tempdir = tempfile.mkdtemp(prefix="tests-")
        config.add_cleanup(lambda: shutil.rmtree(tempfile.tempdir, ignore_errors=True))


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


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """The toy corpus of test_trainer.py."""
    from test_trainer import toy_corpus

    return toy_corpus(tmp_path_factory.mktemp("corpus") / "data")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A Place of test_study_run.py that this process sees too."""
    from test_study_run import Place

    made = Place(tmp_path)
    for name in ("BATCHES_OUTPUTS", "BATCHES_NOTEBOOKS"):
        monkeypatch.setenv(name, made.environment[name])
    return made
