"""Forked kernels: real ones, beside kernels that are programs of their own."""

import os
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import nbformat
import psutil
import pytest
from test_study_run import gone, wait_for

from lib.params import Train
from lib.store import ROOT
from lib.study import cells, plan, stage, warm

# What a run's bits hang on, and what a notebook sees of where it is.
CODE = """
import hashlib, os, sys
import numpy as np, torch, matplotlib
from lib import sampler, trainer
x = torch.randn(300, 300, generator=torch.Generator().manual_seed(0))
y = np.linalg.eigh((x @ x.T).double().numpy())[1]
print(hashlib.sha256(y.tobytes() + torch.nn.functional.gelu(x @ x).numpy().tobytes()).hexdigest())
print(torch.get_num_threads(), os.getcwd(), matplotlib.get_backend())
print(os.environ["OMP_NUM_THREADS"], os.environ["TQDM_DISABLE"], __name__, len(sys.argv))
"""
PARENT = """
import os
print(open(f"/proc/{os.getppid()}/cmdline").read().split("\\0")[1:4])
"""


@pytest.fixture
def execute(tmp_path, monkeypatch):
    """Executes a notebook of these cells as a stage would, and gives its outputs."""
    monkeypatch.setenv("BATCHES_NOTEBOOKS", str(tmp_path))

    def run(*code):
        notebook = nbformat.v4.new_notebook()
        parameters = nbformat.v4.new_code_cell(cells.cell("train"))
        parameters.metadata["tags"] = ["parameters"]
        notebook.cells = [parameters, *map(nbformat.v4.new_code_cell, code)]
        nbformat.write(notebook, plan.notebook_path("train"))
        job = SimpleNamespace(
            stage="train", threads=1, params=Train(), notebook=tmp_path / "executed.ipynb"
        )
        stage._run_notebook(job)
        executed = nbformat.read(job.notebook, as_version=4)
        return ["".join(o["text"] for o in c.outputs) for c in executed.cells[-len(code) :]]

    return run


@pytest.fixture(scope="module")
def forker(tmp_path_factory):
    """Environment of stages that ask for kernels."""
    folder = tmp_path_factory.mktemp("forker")
    with warm.kernels(str(folder), folder / "kernels.log", {}) as asked:
        yield asked


@pytest.fixture
def asked(forker, monkeypatch):
    """Stages of this process ask for kernels."""
    monkeypatch.setenv(warm.ASK, forker[warm.ASK])


def test_a_forked_kernel_is_like_another(execute, request):
    """The same numbers, place and settings; only its parent differs, who has the imports."""
    alone, parent = execute(CODE, PARENT)
    assert "lib.study.warm" not in parent
    request.getfixturevalue("asked")
    for _ in range(2):  # one fork takes nothing away from the next
        same, parent = execute(CODE, PARENT)
        assert same == alone and "lib.study.warm" in parent


def test_without_the_process_a_kernel_starts_by_itself(execute, tmp_path, monkeypatch):
    """It was killed, say: a socket that nobody listens at, or none."""
    monkeypatch.setenv(warm.ASK, str(tmp_path / "nobody"))
    [parent] = execute(PARENT)
    assert "lib.study.warm" not in parent


def test_a_cell_that_fails_says_so(execute, asked):
    with pytest.raises(Exception, match="no such luck") as failure:
        execute("raise ValueError('no such luck')")
    assert failure.value.ename == "ValueError"


def test_a_killed_kernel_is_missed(execute, asked):
    with pytest.raises(Exception, match="Kernel died"):
        execute("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")


DRIVER = """
import os, subprocess, sys
from pathlib import Path
from lib.study import warm
folder = sys.argv[1]
with warm.kernels(folder, Path(folder) / "kernels.log", {}) as asked:
    subprocess.run([sys.executable, "-c", sys.argv[2], folder], env=os.environ | asked)
"""
STAGE = """
import os, sys, time
from lib.study import warm
os.chdir(sys.argv[1])
kernel = warm.Forked(["-f", "connection.json"], ".")
print(os.getpid(), kernel.pid, flush=True)
time.sleep(60)
"""


def test_no_process_outlives_what_it_is_for(tmp_path):
    """SIGKILL of the driver ends what forks; the kernel goes on with its stage, and ends with it.
    Neither needs a short path."""
    folder = tmp_path / ("far" * 40)
    folder.mkdir()
    command = [sys.executable, "-c", DRIVER, str(folder), STAGE]
    driver = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    with driver.stdout as said:
        own, kernel = map(psutil.Process, map(int, said.readline().split()))
    forker = kernel.parent()
    assert forker.parent().pid == own.parent().pid == driver.pid
    driver.kill()
    driver.wait()
    wait_for(lambda: gone([forker]), 10)
    time.sleep(2)
    assert not gone([own]) and not gone([kernel])
    own.kill()
    wait_for(lambda: gone([kernel]), 10)


def test_nothing_is_forked_beside_threads():
    """A fork has none of the threads, but the locks that they held."""
    assert len(os.listdir("/proc/self/task")) > 1 or warm._may_fork()
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    assert not warm._may_fork()
    end.set()
    thread.join()


def test_a_kernel_can_be_ended_as_processes_are(asked, tmp_path):
    """By the names that jupyter_client calls."""
    for end in ("terminate", "kill"):
        kernel = warm.Forked(["-f", str(tmp_path / f"{end}.json")], str(tmp_path))
        getattr(kernel, end)()
        wait_for(lambda kernel=kernel: kernel.poll() == -1)
        assert kernel.wait() == -1
