"""Fixtures that more than one test file uses."""

import os
import shutil
import sys
import tempfile
from multiprocessing.util import Finalize
from pathlib import Path

import pytest

LONGEST = (
    "study explore compare trainer study_run reference families slurm ranks sentence_transformers "
    "mteb real_data_end_to_end stats tune batch_sampler speed_training"
).split()


def pytest_collection_modifyitems(items):
    """Files that take longest come first: `make test` gives a file to one worker, so that what its
    tests share is made once, and neither is left with a long one at the end."""
    place = {f"test_{name}": number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))


def pytest_configure(config):
    """Temporary files of the tests, and of all programs they start, lie in one folder that goes
    with them, after multiprocessing has removed its own from it (priority -100); xdist's workers
    have it from whoever starts them."""
    if not hasattr(config, "workerinput"):
        folder = os.environ["TMPDIR"] = tempfile.tempdir = tempfile.mkdtemp(prefix="tests-")
        Finalize(None, shutil.rmtree, [folder], {"ignore_errors": True}, exitpriority=-200)


@pytest.fixture(scope="session", autouse=True)
def small_products():
    """Each run of the trainer times a matrix product, of no use here: a small one."""
    if cost := sys.modules.get("lib.training.cost"):
        cost.MATMUL["cpu"] = 64


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


@pytest.fixture
def in_process(outputs, tmp_path):
    """See `stages_in_process` of test_study_run.py."""
    from test_study_run import stages_in_process

    with stages_in_process(tmp_path):
        yield
