"""A study may be killed anywhere and started again: real processes, real kills, toy notebooks.

The stand-ins below take the stages' own parameters and compute a number that this file can compute
too, so that "the same result" is exact. Their training writes its state at each step, as the real
one writes checkpoints, and records where each start took up the work.
"""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest import mock

import nbformat
import psutil
import pytest

from lib import store
from lib.params import BadParameter
from lib.store import ROOT
from lib.study import cells, grid, paths, plan, run, stage, warm
from lib.study import progress as telling
from lib.study.__main__ import main

CODE = {
    "prepare": """
from lib import params, store
from lib.study import paths
p = params.Prepare.from_cell(globals())
folder = paths.corpus_dir(p.study, p.run)
store.remember(folder, p.known())
with store.atomic_folder(folder / "data") as new:
    store.write_json(new / "corpus.json", 10 + p.fold)
""",
    "train": """
import os, signal, time
from dataclasses import replace
from pathlib import Path
from lib import params, store
from lib.study import paths
p = params.Train.from_cell(globals())
folder = paths.run_dir(p.study, p.run)
store.remember(folder, p.known())
if p.seed == 7 and Path("broken").exists():
    raise ValueError("no such luck\\nsecond line")
if p.seed == 8 and Path("broken").exists():
    os.kill(os.getpid(), signal.SIGKILL)
data = paths.needs(paths.corpus_dir(p.study, p.corpus) / "data", "01_prepare")
store.verify(data)
corpus = store.read_json(data / "corpus.json")
state = folder / "state.json"
step, value = store.read_json(state) if state.exists() else (0, p.seed)
with open(folder / "starts.txt", "a") as starts:
    print(step, file=starts)
while step < p.steps:
    step, value = step + 1, (value * 31 + corpus) % 1_000_003
    store.write_json(state, [step, value])
    time.sleep(0.1)
    while Path("hold").exists():
        time.sleep(0.1)
with store.atomic_folder(folder / "model") as new:
    store.write_json(new / "value.json", value)
print("trained to", step)
""".replace('Path("', 'Path(os.environ["BATCHES_OUTPUTS"], "'),
    "evaluate": """
from lib import params, store
from lib.study import paths
p = params.Evaluate.from_cell(globals())
folder = paths.run_dir(p.study, p.run)
value = store.read_json(folder / "model" / "value.json")
with store.atomic_folder(folder / "sums") as new:
    store.write_json(new / "value.json", value)
store.write_json(folder / "metrics.json", value)
""",
    "analyse": """
from lib import params, store
from lib.study import grid, paths
p = params.Analyse.from_cell(globals())
found = {k: store.read_json(paths.run_dir(p.study, k) / "metrics.json")
         for k in grid.keys(p.study)}
store.write_json(paths.report_dir(p.study) / "tables" / "table.json", found)
""",
}
LITTER = """
import os, tempfile
from pathlib import Path
left = tempfile.mkdtemp()
Path(os.environ["BATCHES_OUTPUTS"], "tiny/left.txt").write_text(f"{left} {os.environ['HOME']}")
"""
LINE = re.compile(
    r"\[ ?\d+/\d+\] \w+( [\w=,]+)? +\d+ s( \(an earlier start\))?   elapsed \d+:\d\d"
    r"(, about \d+:\d\d left)?"
)


def expected(seed, steps, corpus=10):
    """What the stand-in training comes to."""
    value = seed
    for _ in range(steps):
        value = (value * 31 + corpus) % 1_000_003
    return value


def write_notebooks(folder, code=CODE, cell=cells.cell):
    """The four notebooks of a study, in their own folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for step, name in plan.NOTEBOOKS.items():
        notebook = nbformat.v4.new_notebook()
        parameters = nbformat.v4.new_code_cell(cell(step), metadata={"tags": ["parameters"]})
        notebook.cells = [nbformat.v4.new_markdown_cell(f"# A toy to {step}"), parameters,
                          nbformat.v4.new_code_cell(code[step])]  # fmt: skip
        nbformat.write(notebook, folder / f"{name}.ipynb")


class Place:
    """A folder with toy notebooks, studies and outputs of its own."""

    def __init__(self, folder):
        self.folder, self.outputs = folder, folder / "outputs"
        self.outputs.mkdir(parents=True)
        write_notebooks(folder / "notebooks")
        self.environment = os.environ | {
            "BATCHES_OUTPUTS": str(self.outputs),
            "BATCHES_NOTEBOOKS": str(folder / "notebooks"),
        }

    def study(self, text, name="tiny"):
        """The path of a study file."""
        (self.folder / f"{name}.yaml").write_text(text)
        return str(self.folder / f"{name}.yaml")

    def start(self, *arguments):
        """The driver, as its own process group, as `make` in a terminal would start it."""
        return subprocess.Popen(
            [sys.executable, "-m", "lib.study", *arguments],
            cwd=ROOT, env=self.environment, start_new_session=True, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def run(self, *arguments):
        """(exit status, lines) of a start left alone."""
        process = self.start(*arguments)
        text = process.communicate(timeout=120)[0]
        return process.returncode, text.splitlines()


@contextmanager
def stages_in_process(folder):
    """Have studies that `main` runs take their stages one by one in this process, where Snakemake
    would start one for each and all imports with it. Notebooks go through papermill as ever, and
    their kernels are forked from one process, which has its socket in `folder` and today's place of
    outputs. What a stage raises is raised."""

    def schedule(folder, progress, where, lock, places):
        with mock.patch.dict(os.environ, places):
            for job in progress.jobs.values():
                stage.run_stage(folder.name, job.stage, job.key)
        return 0

    with warm.kernels(str(folder), folder / "kernels.log", {}) as asked:
        with mock.patch.dict(os.environ, asked), pytest.MonkeyPatch.context() as patch:
            patch.setattr(run, "_schedule", schedule)
            patch.setattr(run, "WORTH", math.inf)
            yield


def wait_for(condition, seconds=60):
    """Poll until the condition holds; its value."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
    return found


# --- what is done, and what has to run (no process needed) ---

GRID = "train: {steps: 2}\nvary: {seed: {0: {train.seed: 0}, 1: {train.seed: 1}}}\n"


def planned(path):
    return {job.name: job for job in plan.plan(grid.load_study(path))}


def make_products(job):
    """Something of each name that a job leaves for others."""
    for name in plan.PRODUCTS[job.stage]:
        file = job.folder / name.replace("*", "x")
        store.make_folder(file.parent)
        file.write_text(f"of {job.name}")


def pretend_done(jobs):
    """Stamps and products as if every job had run."""
    for job in jobs.values():
        make_products(job)
        job.record(job.stamp, 1.0)


def stamps(place, study="tiny"):
    """The stamp files of a study, below its folder."""
    folder = place.outputs / study
    return {str(f.relative_to(folder)) for f in folder.rglob("*.ok")}


def test_plan_is_the_grid(place):
    """One job a stage and run, after those it needs; one analysis, one report."""
    jobs = planned(place.study(GRID))
    assert list(jobs) == ["prepare base", "train seed=0", "train seed=1", "evaluate seed=0",
                          "evaluate seed=1", "analyse", "report"]  # fmt: skip
    assert [need.name for need in jobs["analyse"].needs] == ["evaluate seed=0", "evaluate seed=1"]
    assert [need.name for need in jobs["train seed=1"].needs] == ["prepare base"]
    assert len({job.stamp for job in jobs.values()}) == 7
    for job in jobs.values():
        assert not job.done


CHANGES = {
    "nothing": (GRID, {}, set()),
    "another run": (GRID + "  # more\n", {}, set()),
    "analysis": (GRID + "analyse: {bootstrap: 5}", {}, {"analyse", "report"}),
    "evaluation": (GRID + "evaluate: {encode_batch: 5}", {},
                   {"evaluate seed=0", "evaluate seed=1", "analyse", "report"}),
    "training": (GRID.replace("steps: 2", "steps: 3"), {},
                 {"train seed=0", "train seed=1", "evaluate seed=0", "evaluate seed=1", "analyse",
                  "report"}),
    "a notebook": (GRID, {"analyse": "x = 1"}, {"analyse", "report"}),
    "a seed": (GRID.replace("}}}", "}, 2: {train.seed: 2}}}"), {},
               {"train seed=2", "evaluate seed=2", "analyse", "report"}),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_reaches_what_depends_on_it(place, change):
    """And nothing else runs again."""
    pretend_done(planned(place.study(GRID)))
    text, code, stale = CHANGES[change]
    write_notebooks(place.folder / "notebooks", CODE | code)
    assert {name for name, job in planned(place.study(text)).items() if not job.done} == stale


def test_prose_and_outputs_do_not_count(place):
    """A notebook's markdown may be rewritten without running a study again."""
    jobs = planned(place.study(GRID))
    path = plan.notebook_path("train")
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_markdown_cell("More prose."))
    nbformat.write(notebook, path)
    assert {n: j.stamp for n, j in planned(place.study(GRID)).items()} == {
        n: j.stamp for n, j in jobs.items()
    }


def remove(path):
    shutil.rmtree(path) if path.is_dir() else path.unlink()


DOWNSTREAM = {
    "corpus/base/data/manifest.json": {"prepare", "train", "evaluate", "analyse", "report"},
    "runs/base/model": {"train", "evaluate", "analyse", "report"},
    "runs/base/model/manifest.json": {"train", "evaluate", "analyse", "report"},
    "runs/base/sums": {"evaluate", "analyse", "report"},
    "runs/base/metrics.json": {"evaluate", "analyse", "report"},
    "report/tables": {"analyse", "report"},
    "report/04_analyse.ipynb": {"analyse", "report"},
    "report/index.html": {"report"},
}


@pytest.mark.parametrize("removed", DOWNSTREAM)
def test_what_was_taken_away_is_made_again(place, monkeypatch, capsys, removed):
    """With all that builds on it: Snakemake sees stamps only, so theirs are gone before it starts.
    A stage that is asked for then does not find itself done."""
    path = place.study("train: {steps: 2}")
    pretend_done(planned(path))
    before = stamps(place)
    remove(place.outputs / "tiny" / removed)
    monkeypatch.setattr(run, "_schedule", lambda *_: 0)
    main(["run", path])
    gone = {Path(file).stem for file in before - stamps(place)}
    assert gone == DOWNSTREAM[removed] and len(before) == 5
    *said, opening = capsys.readouterr().out.splitlines()[:2]
    assert f"{5 - len(gone)} of 5 stages are done, {len(gone)} to run" in opening
    assert said and said[0].endswith(": is missing; making it again")


def test_a_stage_that_makes_nothing_has_failed(place, monkeypatch, capsys):
    """A notebook of one's own that forgets what the next stage reads gets no stamp."""
    grid.freeze(grid.load_study(place.study(GRID)))
    job = planned(place.study(GRID))["evaluate seed=0"]
    pretend_done({need.name: need for need in job.ancestors})
    monkeypatch.setattr(stage, "_run_notebook", lambda job: store.make_folder(job.folder))
    assert main(["stage", "evaluate", "tiny", "seed=0"]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"FileNotFoundError: {job.folder}/sums/manifest.json was not made; see ")
    assert not job.ok.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"stamp": "x"}', '{"stamp": "x", "seconds": 1}'])
def test_a_broken_stamp_is_no_stamp(place, text):
    """Half a file, or another's."""
    job = planned(place.study(GRID))["prepare base"]
    store.write_json(job.ok, {})
    job.ok.write_text(text)
    assert not job.done


def test_a_folder_of_other_parameters_is_refused(place):
    """Before anything starts, naming folder and parameter; only what resumes is bound so."""
    job = planned(place.study(GRID))["train seed=1"]
    store.remember(job.folder, job.params.known())
    path = place.study(GRID.replace("steps: 2", "steps: 3") + "analyse: {bootstrap: 5}")
    with pytest.raises(BadParameter) as caught:
        run.run_study(path, 1)
    assert re.fullmatch(
        rf"{path}: \S+/tiny/runs/seed=1 was made with steps 2, now 3 is asked for "
        rf"\(expected the same; `make clean STUDY={path}` starts afresh\)",
        str(caught.value),
    )
    assert not (place.outputs / "tiny" / "logs").exists()


def test_a_run_goes_on_with_its_work_divided_otherwise(place):
    """On other ranks, in other chunks; another batch size is another run."""
    job = planned(place.study(GRID))["train seed=1"]
    store.remember(job.folder, job.params.known())

    def asked(**changes):
        params = job.params.model_copy(update=changes)
        run._refuse_other_parameters([replace(job, params=params)], "a.yaml")

    asked(ranks=2, chunk=16, log_every=1, checkpoint_every=7)
    assert replace(job, params=job.params.model_copy(update={"chunk": 9})).stamp == job.stamp
    assert replace(job, params=job.params.model_copy(update={"clip": 9.0})).stamp != job.stamp
    with pytest.raises(BadParameter, match="batch_size 128, now 64"):
        asked(ranks=2, batch_size=64)


def untagged(stage):
    return cells.cell(stage)


BAD_NOTEBOOKS = {
    "absent": (lambda path: path.unlink(), r"cannot be read \(No such file"),
    "no notebook": (lambda path: path.write_text("[]"), "is not a notebook"),
    "half a notebook": (lambda path: path.write_text(path.read_text()[:99]), "is not a notebook"),
    "no tag": (
        lambda path: path.write_text(path.read_text().replace('"parameters"', '"parametres"')),
        "has 0 cells tagged `parameters` .expected one.",
    ),
    "a parameter less": (
        lambda path: path.write_text(path.read_text().replace("clip: float", "clap: float")),
        "its parameter cell lacks clip",
    ),
    "a parameter only declared": (
        lambda path: path.write_text(
            re.sub("clip: float = [0-9.]+", "clip: float", path.read_text())
        ),
        "its parameter cell lacks clip",
    ),
}


@pytest.mark.parametrize("fault", BAD_NOTEBOOKS)
def test_a_notebook_that_would_not_take_its_parameters(place, capsys, fault):
    """papermill would only warn and run with the notebook's own values. Exit 2, one line."""
    spoil, said = BAD_NOTEBOOKS[fault]
    spoil(plan.notebook_path("train"))
    assert main(["run", place.study(GRID)]) == 2
    message = capsys.readouterr().err
    assert re.fullmatch(rf"\S+02_train\.ipynb: {said}.*\n", message)
    assert not (place.outputs / "tiny").exists()


def test_bad_input_is_one_line(place, capsys):
    """A bad study, a file in the way, a stage that is none."""
    assert main(["run", place.study("train: {alpha: 2}")]) == 2
    assert capsys.readouterr().err.endswith("alpha: 2 is out of range (expected 0 to 1)\n")
    (place.outputs / "tiny").write_text("in the way")
    assert main(["run", place.study(GRID)]) == 1
    assert capsys.readouterr().err.endswith("tiny: is a file where a folder is expected\n")
    assert main(["stage", "train", "absent", "base"]) == 2
    assert "no such study" in capsys.readouterr().err
    (place.outputs / "tiny").unlink()
    grid.freeze(grid.load_study(place.study(GRID)))
    assert main(["stage", "train", "tiny", "seed=9"]) == 2
    assert capsys.readouterr().err == "study tiny has no stage train seed=9\n"


@pytest.mark.parametrize("name", ["logs", "corpus", "runs", "report", "runs/seed=0"])
def test_a_file_where_a_folder_is_to_be(place, capsys, name):
    """Named before anything starts."""
    file = place.outputs / "tiny" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("in the way")
    assert main(["run", place.study(GRID)]) == 1
    assert capsys.readouterr().err == f"{file}: is a file where a folder is expected\n"
    assert not (place.outputs / "tiny" / "logs" / "snakemake.log").exists()


def test_two_studies_of_one_name(place, monkeypatch, capsys):
    """The second file may say the same, but not something else while the first is there."""
    monkeypatch.setattr(run, "_schedule", lambda *_: 1)  # 1: it came so far, and was accepted
    path, other = place.study(GRID), place.folder / "other" / "tiny.yaml"
    store.make_folder(other.parent)
    other.write_text(GRID)
    assert main(["run", path]) == 1
    assert main(["run", place.study(GRID + "analyse: {bootstrap: 5}")]) == 1
    before = (place.outputs / "tiny" / "study.json").read_text()
    capsys.readouterr()
    assert main(["run", str(other)]) == 2
    assert capsys.readouterr().err == (
        f"{other}: {place.outputs}/tiny belongs to another study, {os.path.relpath(path, ROOT)} "
        "(expected another name of this file)\n"
    )
    assert (place.outputs / "tiny" / "study.json").read_text() == before
    assert main(["run", place.study(GRID)]) == 1
    assert main(["run", str(other)]) == 1  # the same: from now on it is this file's
    os.remove(other)
    assert main(["run", place.study(GRID + "analyse: {bootstrap: 9}")]) == 1


def test_a_done_study_starts_nothing(place, capsys):
    """It says so and names the report."""
    path = place.study(GRID)
    pretend_done(planned(path))
    assert main(["run", path]) == 0
    first, last = capsys.readouterr().out.splitlines()
    assert first == "tiny: 1 corpus, 2 runs; 7 of 7 stages are done, nothing to run"
    assert re.fullmatch(r"report: \S+/tiny/report/index\.html   \(0:00\)", last)


def test_clean_removes_one_study(place, capsys):
    """And is quiet where there is nothing; a study file with mistakes can be cleaned."""
    for name in ("tiny", "other"):
        (place.outputs / name / "runs").mkdir(parents=True)
    assert main(["clean", place.study("train: {alpha: 2}")]) == 0
    assert [f.name for f in place.outputs.iterdir()] == ["other"]
    assert main(["clean", str(place.folder / "tiny.yaml")]) == 0
    assert main(["clean", "params/reference.yaml"]) == 2
    assert "nothing to remove" in capsys.readouterr().out


# --- progress ---


def test_the_estimate_is_the_mean_of_what_was_seen(place, monkeypatch):
    """Hand arithmetic: two at a time, the analysis and the report alone."""
    now = [1000.0]
    monkeypatch.setattr(telling.time, "monotonic", lambda: now[0])
    jobs = planned(place.study(GRID))
    progress = telling.Progress(jobs, slots=2)
    assert progress.left() is None  # nothing seen yet
    said = [progress.tell({"event": "finished", "name": "prepare base", "seconds": 10.0})]
    progress.tell({"event": "started", "name": "train seed=0"})
    now[0] += 40
    said.append(progress.tell({"event": "finished", "name": "train seed=0", "seconds": 40.0}))
    assert said == ["[1/7] prepare base       10 s   elapsed 0:00",
                    "[2/7] train seed=0       40 s   elapsed 0:40"]  # fmt: skip
    progress.tell({"event": "started", "name": "evaluate seed=0"})
    now[0] += 6
    line = progress.tell({"event": "finished", "name": "evaluate seed=0", "seconds": 6.0})
    # train seed=1: 40, evaluate seed=1: 6, two at a time; analyse 20 and report 10, alone
    assert line == "[3/7] evaluate seed=0     6 s   elapsed 0:46, about 0:53 left"
    progress.tell({"event": "started", "name": "train seed=1"})
    now[0] += 30
    assert progress.left() == (40 - 30 + 6) / 2 + 30


def test_a_stage_counts_once(place):
    """An orphan and the start that waited for it both tell that it is finished."""
    progress = telling.Progress(planned(place.study(GRID)), slots=1)
    event = {"event": "finished", "name": "prepare base", "seconds": 1.0}
    assert progress.tell(event) and not progress.tell(event)
    assert not progress.tell({"event": "finished", "name": "prepare other", "seconds": 1.0})


def test_clock():
    """Minutes, or hours."""
    assert [telling.clock(s) for s in (0, 9.6, 190, 3790)] == ["0:00", "0:10", "3:10", "1:03:10"]


# --- what went wrong, and the way out ---


def test_damage_behind_a_stamp(place, capsys):
    """A flipped byte in a corpus whose stamp holds: contents of such a folder are checked when they
    are read, and then the stage that made it counts as not done. In a real kernel."""
    path = place.study("train: {steps: 1}")
    grid.freeze(grid.load_study(path))
    jobs = planned(path)
    data = jobs["prepare base"].folder / "data"
    with store.atomic_folder(data) as new:
        store.write_json(new / "corpus.json", 10)
    jobs["prepare base"].record(jobs["prepare base"].stamp, 1.0)
    (data / "corpus.json").write_text("11\n")
    assert jobs["prepare base"].done
    assert main(["run", path, "--cores", "1"]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"  train base: Damaged: {data}/corpus.json: was altered after it was written; "
        f"see {jobs['train base'].notebook}; the same command makes it again"
    )
    assert not jobs["prepare base"].done


ALTERED = {
    "cut short": (lambda file: file.write_text(""), "was altered after it was written"),
    "a digit": (lambda file: file.write_text("of trail base"), "was altered after it was written"),
    "gone": (lambda file: file.unlink(), "is missing"),
}


@pytest.mark.parametrize("how", ALTERED)
def test_a_set_that_is_not_whole(place, monkeypatch, capsys, how):
    """At the next start it is named and made again; a stage that would read it refuses."""
    path = place.study("train: {steps: 1}")
    grid.freeze(grid.load_study(path))
    jobs = planned(path)
    file = jobs["train base"].folder / "model" / "manifest.json"
    pretend_done({name: jobs[name] for name in ("prepare base", "train base")})
    (jobs["train base"].folder / "figures/train").mkdir(parents=True)
    (jobs["train base"].folder / "figures/train/mine.png").write_text("a user's own")
    assert jobs["train base"].done
    change, words = ALTERED[how]
    change(file)
    assert main(["stage", "evaluate", "tiny", "base"]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"Damaged: {file}: {words}; see ")
    assert not jobs["train base"].done


def test_what_is_altered_is_removed_at_the_start(place, monkeypatch, capsys):
    """So that the stage makes it again, parameters included; an edited stamp is no stamp."""
    path = place.study("train: {steps: 1}")
    jobs = planned(path)
    for job in jobs.values():
        make_products(job)
    params = jobs["train base"].folder / "params.json"
    store.write_json(params, jobs["train base"].params.known())
    pretend_done(jobs)
    params.write_text("{")
    ok = jobs["prepare base"].ok
    monkeypatch.setattr(run, "_schedule", lambda *_: 0)
    assert main(["run", path]) == 1
    said = capsys.readouterr().out
    assert f"{params}: was altered after it was written; making it again\n" in said
    assert not params.exists() and ok.exists()
    ok.write_text(ok.read_text().replace('"seconds": 1.0', '"seconds": 2.0'))
    assert not jobs["prepare base"].done


def test_damaged_parameters_say_the_way_out(place, capsys):
    """They are read before anything starts."""
    path = place.study(GRID)
    folder = planned(path)["train seed=1"].folder
    folder.mkdir(parents=True)
    (folder / "params.json").write_text("{")
    assert main(["run", path]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"{folder}/params.json: is not readable as JSON (")
    assert said.endswith(f"; remove {folder} to have it made again\n")


def schedule_with(place, monkeypatch, snakefile):
    """Exit status of a study whose graph is another one."""
    (place.folder / "Snakefile").write_text(snakefile)
    monkeypatch.setattr(run, "ROOT", place.folder)
    monkeypatch.setattr(plan, "ROOT", place.folder)
    return main(["run", place.study("train: {steps: 1}")])


def test_an_error_of_the_scheduler_is_its_own(place, monkeypatch, capsys):
    """No stage has started, so none is blamed; a log of before says nothing about now."""
    old = place.outputs / "tiny" / "logs" / "prepare-base.log"
    old.parent.mkdir(parents=True)
    old.write_text("ValueError: long ago")
    os.utime(old, (1, 1))
    assert schedule_with(place, monkeypatch, "import os\nX = absent\n") == 1
    _, counts, cause = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"0 failed, 5 not run, 0 done \(0:\d\d\):", counts)
    assert cause == (
        f'  the scheduler: NameError in file "{place.folder}/Snakefile", line 2: '
        "name 'absent' is not defined; see outputs/tiny/logs/snakemake.log"
    )


SUICIDE = """
import os, signal
with open("logs/events.jsonl", "a") as events:
    print('{"event": "started", "name": "prepare base"}', file=events)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_scheduler_is_not_a_killed_stage(place, monkeypatch, capsys):
    """The stage that it had started may well go on."""
    assert schedule_with(place, monkeypatch, SUICIDE) == 1
    _, counts, cause = capsys.readouterr().out.splitlines()
    assert counts.startswith("0 failed, 5 not run, 0 done")
    assert cause == (
        "  the scheduler: was killed by signal 9; what it had started goes on, and the same "
        "command takes it up"
    )


def test_a_full_disk_is_named_beside_what_failed(place, monkeypatch, capsys):
    """Logs lie on it too, so causes may be lost."""
    scarce = shutil.disk_usage(place.folder)._replace(free=3 * 2**20)
    monkeypatch.setattr(telling.shutil, "disk_usage", lambda folder: scarce)
    assert schedule_with(place, monkeypatch, SUICIDE) == 1
    assert capsys.readouterr().out.endswith("  the disk of outputs/tiny has 3 MiB left\n")


LOGS = {
    "": "stopped without a word",
    "\n\n": "stopped without a word",
    "one\n\x1b[31mtwo\x1b[0m\n\n": "two",
    "only:\n": "only:",
    "Building\nMissingInput in rule all:\nfiles:\n    x\n": "MissingInput in rule all: files: x",
    "Traceback (most recent call last):\n  File\n\nOSError: [Errno 20] Not: 'y'\n  File z\n":
        "OSError: [Errno 20] Not: 'y'",
    "DAG\nInputFunctionException in rule x, line 3:\nError:\n  KeyError: 'a'\nWildcards:\n":
        "InputFunctionException in rule x, line 3: Error: KeyError: 'a'",
    'SyntaxError in file "S", line 3:\nColon expected after output.:\nNone\n':
        'SyntaxError in file "S", line 3: Colon expected after output.: None',
}  # fmt: skip


@pytest.mark.parametrize("text", LOGS)
def test_last_words_of_a_log(tmp_path, text):
    """The last error with the lines that belong to it, or else the last line."""
    log = tmp_path / "x.log"
    log.write_text(text)
    assert telling.last_words(log) == f"{LOGS[text]}; see {log}"


# --- whole studies in processes of their own ---


def test_failures_are_told_and_only_they_run_again(place):
    """One cell raises, one kernel is killed, the third run goes on; both are mended and run. Then
    the analysis is rewritten, and only it and the report run."""
    path = place.study(
        "train: {steps: 3}\n"
        "vary: {seed: {1: {train.seed: 1}, 7: {train.seed: 7}, 8: {train.seed: 8}}}"
    )
    (place.outputs / "broken").touch()
    code, lines = place.run("run", path, "--cores", "2")
    assert code == 1
    assert lines[0] == "tiny: 1 corpus, 3 runs; 0 of 9 stages are done, 9 to run, 2 at a time"
    runs = place.outputs / "tiny" / "runs"
    raised = f"train seed=7: ValueError: no such luck; see {runs}/seed=7/02_train.ipynb"
    killed = (
        "train seed=8: the kernel died: killed, or out of memory; "
        f"see {place.outputs}/tiny/logs/train-seed=8.log"
    )
    logs = f"{place.outputs}/tiny/logs/train-seed="
    told = {f"FAILED train seed={seed}; see {logs}{seed}.log" for seed in (7, 8)}
    assert told <= {x.strip() for x in lines}
    assert sum("no such luck" in line for line in lines) == 1
    assert re.fullmatch(r"2 failed, 4 not run, 3 done \(\d:\d\d\):", lines[-3])
    assert lines[-2:] == [f"  {raised}", f"  {killed}"]
    assert len(lines) == 9 and sum(bool(LINE.fullmatch(line)) for line in lines) == 3
    assert stamps(place) == {
        "corpus/base/prepare.ok",
        "runs/seed=1/train.ok",
        "runs/seed=1/evaluate.ok",
    }
    executed = nbformat.read(runs / "seed=7" / "02_train.ipynb", as_version=4)
    assert any(o["output_type"] == "error" for c in executed.cells for o in c.get("outputs", []))

    before = (runs / "seed=1" / "02_train.ipynb").stat().st_mtime_ns
    (place.outputs / "broken").unlink()
    code, lines = place.run("run", path, "--cores", "2")
    assert code == 0, lines
    assert lines[0].endswith("3 of 9 stages are done, 6 to run, 2 at a time")
    assert all(LINE.fullmatch(line) for line in lines[1:-1]) and len(lines) == 8
    assert lines[-1].startswith(f"report: {place.outputs}/tiny/report/index.html")
    assert (runs / "seed=1" / "02_train.ipynb").stat().st_mtime_ns == before
    table = store.read_json(place.outputs / "tiny" / "report" / "tables" / "table.json")
    assert table == {f"seed={s}": expected(s, 3) for s in (1, 7, 8)}
    assert "trained to 3" in (place.outputs / "tiny" / "logs" / "train-seed=7.log").read_text()
    pages = {f.name for f in (place.outputs / "tiny" / "report").glob("*.html")}
    assert {"index.html", "prepare-base.html", "train-seed=7.html"} <= pages

    changed = CODE | {"analyse": CODE["analyse"].replace("found)", "sorted(found))")}
    write_notebooks(place.folder / "notebooks", changed)
    code, lines = place.run("run", path)
    assert code == 0 and "7 of 9 stages are done, 2 to run" in lines[0] and len(lines) == 4
    table = store.read_json(place.outputs / "tiny" / "report" / "tables" / "table.json")
    assert table == ["seed=1", "seed=7", "seed=8"]

    shutil.rmtree(runs / "seed=7")  # a run that was thrown away is made again, and its report
    code, lines = place.run("run", path)
    assert code == 0 and "5 of 9 stages are done, 4 to run" in lines[0], lines
    assert (runs / "seed=7" / "evaluate.ok").exists()


def family(process, cmdline):
    """Descendants of a process whose command line holds a text."""
    try:
        children = psutil.Process(process.pid).children(recursive=True)
        return [p for p in children if cmdline in " ".join(p.cmdline())]
    except psutil.NoSuchProcess:
        return []


def gone(processes):
    return not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes)


def test_killed_anywhere_it_goes_on_to_the_same_result(place):
    """Ctrl-C, then SIGKILL of all but the kernel, then SIGKILL of the driver alone while the
    stage goes on: each start takes up the work, and the result is the uninterrupted one."""
    path, steps = place.study("train: {steps: 60}"), 60
    folder = place.outputs / "tiny" / "runs" / "base"

    def step():
        return store.read_json(folder / "state.json")[0] if (folder / "state.json").exists() else 0

    def started(past):
        """A start whose training has got beyond a step, and its processes."""
        process = place.start("run", path)
        wait_for(lambda: step() > past)
        own, kernel = family(process, "lib.study stage"), family(process, "ipykernel")
        assert len(own) == len(kernel) == 1
        return process, own, kernel, family(process, "snakemake")

    process, stage, kernel, scheduler = started(3)
    os.kill(process.pid, signal.SIGINT)
    text = process.communicate(timeout=30)[0]
    assert process.returncode == 130
    assert text.endswith("stopped; the same command goes on from here\n")
    assert gone(stage + kernel + scheduler)
    interrupted = step()

    process, stage, kernel, scheduler = started(interrupted + 3)
    for victim in [psutil.Process(process.pid), *scheduler, *stage]:
        victim.kill()
    process.wait()
    wait_for(lambda: gone(kernel), 10)  # a kernel whose parent is gone ends by itself
    assert not (folder / "train.ok").exists()
    killed = step()

    process, stage, kernel, scheduler = started(killed + 3)
    (place.outputs / "hold").touch()  # or the orphan might be done before anybody waits for it
    code, lines = place.run("run", path)
    assert code == 1
    holder = f"{process.pid} on {os.uname().nodename}"
    assert lines == [f"tiny: in use by process {holder}; nothing was started"]
    code, lines = place.run("clean", path)
    assert code == 1 and folder.exists() and "in use" in lines[0]
    process.kill()
    process.wait()
    wait_for(lambda: gone(scheduler), 5)
    assert not gone(stage) and not gone(kernel)  # the stage is an orphan now, and goes on
    process, log = place.start("run", path), place.outputs / "tiny" / "logs" / "events.jsonl"
    wait_for(lambda: '"waiting"' in log.read_text())
    (place.outputs / "hold").unlink()
    lines = process.communicate(timeout=120)[0].splitlines()
    assert process.returncode == 0, lines
    assert lines[0].endswith("1 of 5 stages are done, 4 to run, 2 at a time") or lines[0].endswith(
        "1 of 5 stages are done, 4 to run, 1 at a time"
    )
    assert sum("train base waits" in line for line in lines) == 1
    starts = [int(x) for x in (folder / "starts.txt").read_text().split()]
    assert len(starts) == 3 and starts[0] == 0 < starts[1] < starts[2] < steps
    table = store.read_json(place.outputs / "tiny" / "report" / "tables" / "table.json")
    assert table == {"base": expected(0, steps)}


def test_a_stage_found_done_is_not_run_again(place):
    """What an orphan finished while nobody watched: neither its notebook nor its stamp changes."""
    grid.freeze(grid.load_study(place.study(GRID)))
    jobs = planned(place.study(GRID))
    pretend_done({"prepare base": jobs["prepare base"], "train seed=0": jobs["train seed=0"]})
    before = jobs["train seed=0"].ok.stat().st_mtime_ns
    stage.run_stage("tiny", "train", "seed=0")
    assert jobs["train seed=0"].ok.stat().st_mtime_ns == before
    assert not jobs["train seed=0"].notebook.exists()
    events = (place.outputs / "tiny" / "logs" / "events.jsonl").read_text().splitlines()
    assert json.loads(events[-1]) == {
        "event": "finished", "name": "train seed=0", "seconds": 1.0, "found": True
    }  # fmt: skip


def test_a_stage_builds_on_what_is_there(place, monkeypatch):
    """If its corpus was made with other code than is asked now, a run's stamp says so, and the
    run counts as not done."""
    grid.freeze(grid.load_study(place.study(GRID)))
    jobs = planned(place.study(GRID))
    make_products(jobs["prepare base"])
    jobs["prepare base"].record("another", 1.0)
    monkeypatch.setattr(stage, "_run_notebook", make_products)
    stage.run_stage("tiny", "train", "seed=0")
    assert jobs["train seed=0"].recorded()["stamp"] == jobs["train seed=0"].stamp_on(["another"])
    assert not jobs["train seed=0"].done


def test_a_failed_stage_keeps_no_stamp(place, monkeypatch, capsys):
    """An older stamp would vouch for what the failed attempt left. The log has the traceback."""
    grid.freeze(grid.load_study(place.study(GRID)))
    job = planned(place.study(GRID))["train seed=0"]
    assert main(["stage", "train", "tiny", "seed=0"]) == 1
    assert "ValueError: prepare base is not done; start the study again" in capsys.readouterr().err
    pretend_done({need.name: need for need in job.ancestors})
    store.write_json(job.ok, {"stamp": "old", "seconds": 1.0})

    def fail(job):
        raise OSError("No space left\non device")

    monkeypatch.setattr(stage, "_run_notebook", fail)
    assert main(["stage", "train", "tiny", "seed=0"]) == 1
    assert not job.ok.exists()
    said = capsys.readouterr().err
    assert said.startswith("Traceback")
    assert said.endswith(f"\nOSError: No space left; see {job.notebook}\n")


def test_ranks_take_cores(place):
    """Two ranks of two threads keep four cores busy, so six cores hold one such run at a time."""
    study = grid.load_study(place.study("train: {ranks: 2, threads: 2, batch_size: 4}"))
    jobs = {job.stage: job for job in plan.plan(study)}
    assert (jobs["train"].cores, jobs["train"].threads, jobs["evaluate"].cores) == (4, 2, 1)
    assert run._slots(list(jobs.values()), 6) == 1


@pytest.mark.parametrize("name", ["a'b", 'a"b', "$(touch {})", "$(shell touch {})", "`touch {}`"])
def test_make_takes_names_as_they_are(place, name):
    """Neither a shell nor make reads what a user gives."""
    trap = place.folder / "trap"
    command = ["make", "-s", "study", f"RUN={sys.executable}", "SET_UP="]
    study = f"STUDY=params/{name.format(trap)}.yaml"
    done = subprocess.run([*command, study], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and not trap.exists()
    assert done.stderr.splitlines()[0] == f"{study[6:]}: cannot be read (No such file or directory)"


@pytest.mark.parametrize("cores", ["0", "-1", "two", "1.5", "\u00b2"])
def test_cores_are_a_whole_number(place, capsys, cores):
    """And not quietly another one."""
    with pytest.raises(SystemExit):
        main(["run", place.study(GRID), f"--cores={cores}"])
    assert f"{cores!r} cores (expected a whole number from 1)" in capsys.readouterr().err


def test_a_gpu_that_is_not_there_is_missed_at_once(place, capsys, monkeypatch):
    """On this machine; what a cluster has is not known here."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    path = place.study("evaluate: {device: cuda}")
    assert main(["run", path]) == 2
    said = f"{path}: evaluate.device is 'cuda', but torch finds no GPU here, expected"
    assert capsys.readouterr().err.startswith(said)
    assert not (place.outputs / "tiny").exists()


def test_braces_in_a_folder(place, capsys, monkeypatch):
    """Snakemake and papermill would take them for something to fill in."""
    monkeypatch.setenv("BATCHES_OUTPUTS", str(place.folder / "a{b}"))
    assert main(["run", place.study(GRID)]) == 2
    folder = place.folder / "a{b}/tiny"
    assert capsys.readouterr().err == (
        f"{folder}: has a brace in its name (expected another folder)\n"
    )
    assert not folder.exists()


def test_outputs_are_seen_from_the_project(monkeypatch):
    """Wherever a stage is started."""
    monkeypatch.setenv("BATCHES_OUTPUTS", "some/where")
    assert paths.outputs() == ROOT / "some/where"


def test_clean_removes_folders_of_studies_alone(place, capsys):
    """Not what a link leads to; a mistyped name is an error."""
    path = place.study(GRID)
    (place.folder / "elsewhere").mkdir()
    (place.outputs / "tiny").symlink_to(place.folder / "elsewhere")
    assert main(["clean", path]) == 2 and (place.folder / "elsewhere").exists()
    assert "tiny: is a link (expected a folder" in capsys.readouterr().err
    assert main(["clean", str(place.folder / "tyni.yaml")]) == 2
    assert "tyni.yaml: no such study" in capsys.readouterr().err


def test_nothing_is_left_in_temporary_folders(place, monkeypatch):
    """What a stage and the programs below it leave there goes with the study; where home cannot be
    written, they have another."""
    write_notebooks(place.folder / "notebooks", CODE | {"train": LITTER + CODE["train"]})
    common = place.folder / "tmp"
    common.mkdir()
    monkeypatch.setenv("TMPDIR", str(common))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("HOME", os.devnull)
    assert main(["run", place.study("train: {steps: 1}"), "--cores", "1"]) == 0
    left, home = (place.outputs / "tiny/left.txt").read_text().split()
    assert left.startswith(f"{common}/batches-") and home.startswith(f"{common}/batches-")
    assert list(common.iterdir()) == []


def test_several_changes_in_one_text(place, capsys):
    """As `make study SET="..."` gives them; a value may hold blanks."""
    path = place.study("train: {steps: 9}")
    changes = "train.steps=2  train.question_prompt=to ask train.seed=7"
    assert main(["check", path, "--set", changes, "--set", "train.strategy=mono"]) == 0
    assert "mono, 2 steps, seed 7, corpus base" in capsys.readouterr().out
