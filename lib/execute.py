"""Run a study, or one stage of it, so that it may be killed anywhere and started again.

Snakemake decides what runs when; papermill runs a notebook; this module decides what is *done*: a
stage is done when its stamp file, written last, holds the hash of its parameters, of the notebook's
code and of the stamps it builds on, and when what it made for others is still there.

    python -m lib.execute study params/quick.yaml [--cores N] [--set stage.parameter=value]
    python -m lib.execute clean params/quick.yaml
    python -m lib.execute stage STAGE STUDY [KEY]     (what the Snakefile calls)
"""

from __future__ import annotations

import argparse
import ast
import ctypes
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from lib import params, store
from lib.params import ROOT, Study

NOTEBOOKS = {
    "prepare": "01_prepare",
    "train": "02_train",
    "evaluate": "03_evaluate",
    "analyse": "04_analyse",
}
# What a stage leaves for others, below its folder. Looked for at each start, but not hashed: the
# stage that reads it verifies it.
PRODUCTS = {
    "prepare": ("data/manifest.json",),
    "train": ("model/manifest.json",),
    "evaluate": ("scores/manifest.json", "metrics.json"),
    "analyse": ("tables", "04_analyse.ipynb"),
    "report": ("index.html",),
}
ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
POLL = 0.2  # seconds between two looks at what the stages tell


class BadNotebook(ValueError):
    """A notebook cannot be run as a stage; the message is one line."""


class StageFailed(RuntimeError):
    """A stage did not finish; the message is its cause, in one line."""


# --- what there is to do -----------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """One stage of one run: what it is asked to do, and where."""

    stage: str
    key: str  # "" for the stages that a study has once
    folder: Path
    params: params.Stage | None
    needs: tuple[Job, ...]
    code: tuple[str, ...]  # of the notebook's code cells

    @property
    def name(self) -> str:
        return f"{self.stage} {self.key}".rstrip()

    @property
    def ok(self) -> Path:
        """The stamp file."""
        return self.folder / f"{self.stage}.ok"

    @property
    def notebook(self) -> Path:
        """The executed notebook."""
        return self.folder / f"{NOTEBOOKS[self.stage]}.ipynb"

    @property
    def study_folder(self) -> Path:
        return self.folder.parents[bool(self.key)]

    @property
    def log(self) -> Path:
        """What the stage printed."""
        file = f"{self.stage}-{self.key}" if self.key else self.stage
        return self.study_folder / "logs" / f"{file}.log"

    @property
    def threads(self) -> int:
        """Of one process."""
        return getattr(self.params, "threads", 1)

    @property
    def cores(self) -> int:
        """How many it keeps busy: every rank has its own threads."""
        return self.threads * getattr(self.params, "ranks", 1)

    @cached_property
    def stamp(self) -> str:
        """The stamp if all it needs is done as asked now."""
        return self.stamp_on([need.stamp for need in self.needs])

    def stamp_on(self, upstream: list[str]) -> str:
        """sha256 of parameters, upstream stamps and code."""
        asked = self.params.model_dump(exclude={*self.params.may_change}) if self.params else {}
        text = json.dumps([self.stage, asked, upstream, self.code], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def recorded(self) -> dict:
        """What the stamp file says: stamp and seconds; empty where there is none to believe."""
        try:
            found = store.read_json(self.ok)
            return {"stamp": str(found["stamp"]), "seconds": float(found["seconds"])}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    @property
    def missing(self) -> list[Path]:
        """What the stage makes for others and is not there."""
        files = (self.folder / name for name in PRODUCTS[self.stage])
        return [file for file in files if not file.exists()]

    @property
    def done(self) -> bool:
        return self.is_done(self.stamp)

    def is_done(self, stamp: str) -> bool:
        """Whether the stage has ended with this stamp, and nobody took away what it made."""
        return self.recorded().get("stamp") == stamp and not self.missing


def plan(study: Study) -> list[Job]:
    """Every job of a study, each after those it needs. Raises BadNotebook."""
    code = {stage: read_notebook(stage) for stage in NOTEBOOKS}
    corpora = {
        key: Job("prepare", key, params.corpus_dir(study.name, key), p, (), code["prepare"])
        for key, p in study.corpora.items()
    }
    trains, evaluates = [], []
    for key, run in study.runs.items():
        folder, corpus = params.run_dir(study.name, key), corpora[run.train.corpus]
        trains.append(Job("train", key, folder, run.train, (corpus,), code["train"]))
        evaluates.append(
            Job("evaluate", key, folder, run.evaluate, (trains[-1],), code["evaluate"])
        )
    report = params.report_dir(study.name)
    analyse = Job("analyse", "", report, study.analyse, tuple(evaluates), code["analyse"])
    return [*corpora.values(), *trains, *evaluates, analyse,
            Job("report", "", report, None, (analyse,), ())]  # fmt: skip


def notebook_path(stage: str) -> Path:
    """The notebook of a stage; BATCHES_NOTEBOOKS names another folder than notebooks/."""
    folder = Path(os.environ.get("BATCHES_NOTEBOOKS") or ROOT / "notebooks")
    return folder / f"{NOTEBOOKS[stage]}.ipynb"


def read_notebook(stage: str) -> tuple[str, ...]:
    """Sources of a notebook's code cells, if it takes every parameter of the stage.

    papermill itself only warns of an unknown parameter, and without a tagged cell the notebook's
    own values win. Raises BadNotebook."""
    path = notebook_path(stage)
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code = [cell for cell in cells if cell["cell_type"] == "code"]
        tagged = [c for c in code if "parameters" in c["metadata"].get("tags", [])]
        sources = tuple("".join(cell["source"]) for cell in code)
    except OSError as error:
        raise BadNotebook(f"{shown(path)}: cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BadNotebook(f"{shown(path)}: is not a notebook") from None
    if len(tagged) != 1:
        raise BadNotebook(
            f"{shown(path)}: has {len(tagged)} cells tagged `parameters` (expected one)"
        )
    missing = set(params.STAGES[stage].model_fields) - _assigned("".join(tagged[0]["source"]))
    if missing:
        raise BadNotebook(f"{shown(path)}: its parameter cell lacks {min(missing)}")
    return sources


def _assigned(source: str) -> set[str]:
    """Names that a cell assigns at its top level."""
    try:
        body = ast.parse(source).body
    except SyntaxError:
        return set()
    targets = [t for s in body if isinstance(s, ast.Assign) for t in s.targets]
    targets += [s.target for s in body if isinstance(s, ast.AnnAssign) and s.value]
    return {t.id for t in targets if isinstance(t, ast.Name)}


def shown(path: Path) -> str:
    """A path as a person would type it from the project's folder."""
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


# --- one stage ---------------------------------------------------------------------------------


def run_stage(study: str, stage: str, key: str) -> None:
    """Run one stage of a frozen study, unless it is found done; its stamp is written last.

    Raises StageFailed."""
    jobs = {(job.stage, job.key): job for job in plan(params.load_frozen(study))}
    if (stage, key) not in jobs:
        raise params.BadParameter(f"study {study} has no stage {stage} {key}")
    job = jobs[stage, key]
    tell = Events(params.study_dir(study)).teller(job)
    with store.locked(job.folder, say=lambda line: tell("waiting", cause=line)):
        stamp = job.stamp_on([need.recorded().get("stamp", "") for need in job.needs])
        if job.is_done(stamp):  # an earlier start, killed meanwhile, has finished it
            tell("finished", seconds=job.recorded()["seconds"], found=True)
            return
        job.ok.unlink(missing_ok=True)
        tell("started")
        begin = time.monotonic()
        try:
            _work(job, study)
        except Exception as error:
            traceback.print_exc()
            failure = StageFailed(_cause(error, job))
            tell("failed", cause=str(failure))
            raise failure from None
        seconds = round(time.monotonic() - begin, 1)
        store.write_json(job.ok, {"stamp": stamp, "seconds": seconds})
        tell("finished", seconds=seconds)


def _work(job: Job, study: str) -> None:
    """What the stage is for: execute its notebook, or render all that were executed."""
    # nbformat imports jsonschema, which imports rfc3987_syntax where that is installed and so
    # compiles a grammar for 2 s in every stage, only to check a string format that notebooks do
    # not have. None makes that import fail, which jsonschema takes for "not installed".
    sys.modules.setdefault("rfc3987_syntax", None)
    if job.stage == "report":
        from lib import report

        report.render(study)
    else:
        _run_notebook(job)
    for file in job.missing:
        raise FileNotFoundError(f"{shown(file)} was not made")


def _run_notebook(job: Job) -> None:
    """Execute a notebook through papermill; what its cells print goes to our stdout."""
    _set_environment(job.threads)
    import papermill

    papermill.execute_notebook(
        str(notebook_path(job.stage)),
        str(job.notebook),
        parameters=job.params.model_dump(),
        kernel_name="python3",
        language="python",
        cwd=str(ROOT),
        progress_bar=False,
        stdout_file=sys.stdout,
        stderr_file=sys.stdout,
    )


def _set_environment(threads: int) -> None:
    """What the kernel inherits: its libraries' number of threads, and no progress bars, which in a
    notebook that nobody watches leave hundreds of lines. The kernel is this environment's own."""
    for name in ("OMP", "MKL", "OPENBLAS", "RAYON"):
        os.environ[f"{name}_NUM_THREADS"] = str(threads)
    os.environ |= {
        "JUPYTER_PREFER_ENV_PATH": "1",
        "TQDM_DISABLE": "1",
        "PYTHONWARNINGS": "ignore:IProgress not found",  # tqdm's, with a path of this machine
    }


def _cause(error: Exception, job: Job) -> str:
    """Why a stage failed, in one line, and where to read more."""
    name, text = type(error).__name__, str(error)
    where = job.log if job.stage == "report" else job.notebook
    if name == "PapermillExecutionError":
        name, text = error.ename, error.evalue
    elif name == "DeadKernelError" or "Kernel died" in text:
        name, text, where = "the kernel died", "killed, or out of memory", job.log
    first = next(iter(_lines(text)), "no message")
    hint = way_out(first, job.study_folder) if name == store.Damaged.__name__ else ""
    return f"{name}: {first}; see {shown(where)}{hint}"


def way_out(damage: str, study_folder: Path) -> str:
    """What to do about an artefact of a study that is not what its manifest says: remove the least
    that a stage makes again by itself. damage: the message of a store.Damaged."""
    found = re.search(rf"{re.escape(str(study_folder))}/((?:corpus|runs)/[^/:]+)/([^/:]+)", damage)
    if not found:
        return f"; `make clean STUDY={study_folder.name}.yaml` starts afresh"
    folder, name = study_folder / found[1], found[2]
    made = {Path(product).parts[0] for products in PRODUCTS.values() for product in products}
    return f"; remove {shown(folder / name if name in made else folder)} to have it made again"


def _lines(text: str) -> list[str]:
    """The lines that say something, stripped and without colours."""
    return [line.strip() for line in ANSI.sub("", text).splitlines() if line.strip()]


class Events:
    """What stages tell whoever runs the study: JSON lines, appended to logs/events.jsonl."""

    def __init__(self, folder: Path):
        self.file = folder / "logs" / "events.jsonl"
        store.make_folder(self.file.parent)
        self.position = self.file.stat().st_size if self.file.exists() else 0

    def teller(self, job: Job):
        """A function that appends one line about a job. A short append is never torn."""

        def tell(event: str, **facts) -> None:
            line = json.dumps({"event": event, "name": job.name, **facts}) + "\n"
            with open(self.file, "ab", buffering=0) as file:
                file.write(line.encode())

        return tell

    def new(self) -> list[dict]:
        """Complete lines since the last call."""
        if not self.file.exists():
            return []
        with open(self.file, "rb") as file:
            file.seek(self.position)
            text = file.read()
        text = text[: text.rfind(b"\n") + 1]
        self.position += len(text)
        return [json.loads(line) for line in text.splitlines()]


# --- a whole study -----------------------------------------------------------------------------


@dataclass
class Progress:
    """Counts finished stages and says so, one line each, with an honest estimate of the rest."""

    jobs: dict[str, Job]
    slots: int
    done: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    running: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    begin: float = field(default_factory=lambda: time.monotonic())
    since: float = field(default_factory=time.time)  # what is older, an earlier start has left

    def __post_init__(self):
        for job in self.jobs.values():
            if job.done:
                self._finish(job, job.recorded()["seconds"])

    def _finish(self, job: Job, seconds: float) -> None:
        self.done.add(job.name)
        self.seconds.setdefault(job.stage, []).append(seconds)

    def opening(self, study: Study) -> str:
        left = len(self.jobs) - len(self.done)
        what = f"{len(self.done)} of {len(self.jobs)} stages are done"
        todo = f"{left} to run, {self.slots} at a time" if left else "nothing to run"
        corpora, runs = len(study.corpora), len(study.runs)
        grid = f"{corpora} corp{'us' if corpora == 1 else 'ora'}, {runs} run{'s' * (runs != 1)}"
        return f"{study.name}: {grid}; {what}, {todo}"

    def tell(self, event: dict) -> str:
        """Take in what a stage tells; the line to show, "" for none."""
        job = self.jobs.get(event["name"])
        if job is None or job.name in self.done:
            return ""
        self.running.pop(job.name, None)
        self.failed.pop(job.name, None)
        match event["event"]:
            case "started":
                self.running[job.name] = time.monotonic()
            case "waiting":
                return f"{' ' * self._width} {job.name} waits: an earlier start still works on it"
            case "failed":
                self.failed[job.name] = event["cause"]
                return f"{'FAILED':>{self._width}} {job.name}: {event['cause']}"
            case "finished":
                self._finish(job, event["seconds"])
                return self._finished_line(job, event)
        return ""

    def causes(self) -> dict[str, str]:
        """Why each stage failed that was started: as it said, or else its process was killed, or
        ended before it could say anything."""
        found = {}
        for job in self.jobs.values():
            if job.name in self.done:
                continue
            if job.name in self.failed:
                found[job.name] = self.failed[job.name]
            elif job.name in self.running:
                found[job.name] = f"its process was killed; see {shown(job.log)}"
            elif job.log.exists() and job.log.stat().st_mtime >= self.since:
                found[job.name] = _last_words(job.log)
        return found

    @property
    def _width(self) -> int:
        return 2 * len(str(len(self.jobs))) + 3

    def _finished_line(self, job: Job, event: dict) -> str:
        count = f"[{len(self.done):>{len(str(len(self.jobs)))}}/{len(self.jobs)}]"
        took = f"{event['seconds']:5.0f} s" + (" (an earlier start)" if event.get("found") else "")
        elapsed, left = time.monotonic() - self.begin, self.left()
        about = (
            f", about {clock(left)} left"
            if left is not None and self.done != set(self.jobs)
            else ""
        )
        longest = max(len(name) for name in self.jobs)
        return f"{count} {job.name:<{longest}} {took}   elapsed {clock(elapsed)}{about}"

    def left(self) -> float | None:
        """Seconds to the end, if stages take as long as the mean of their kind so far; None where
        a kind that matters has not been seen."""
        seen = {stage: sum(s) / len(s) for stage, s in self.seconds.items()}
        guess = {"analyse": 20.0, "report": 10.0} | seen
        work = 0.0
        for job in self.jobs.values():
            if job.name in self.done:
                continue
            if job.stage not in guess:
                return None
            spent = time.monotonic() - self.running.get(job.name, time.monotonic())
            alone = job.stage in ("analyse", "report")
            work += max(guess[job.stage] - spent, 0) / (1 if alone else self.slots)
        return work


def clock(seconds: float) -> str:
    """`3:10`, or `1:03:10`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def run_study(path: str, cores: int, changes: Iterable[str] = ()) -> int:
    """Run what a study still needs; 0 once its report is there, 1 where a stage failed.

    changes: as in lib.params.load_study. Raises BadParameter, BadNotebook, store.Busy or OSError,
    each with one clear line."""
    study = params.load_study(path, changes)
    params.check_paths(study)
    jobs = plan(study)
    folder = params.study_dir(study.name)
    store.make_folder(folder)
    with _alone(study.name) as lock:
        _refuse_other_file(study, path)
        _refuse_other_parameters(jobs, path)
        for job in jobs:
            store.make_folder(job.folder)
        params.freeze(study)
        _remove_stale_stamps(jobs)
        progress = Progress({job.name: job for job in jobs}, _slots(jobs, cores))
        print(progress.opening(study), flush=True)
        code = _schedule(folder, progress, cores, lock) if len(progress.done) < len(jobs) else 0
    return _closing(progress, code, folder)


def _remove_stale_stamps(jobs: list[Job]) -> None:
    """Remove the stamp of each job that is not done, and of all that build on it: Snakemake does
    not make what is missing below a stamp that is there. `jobs` come after those they need."""
    stale: set[str] = set()
    for job in jobs:
        if not job.done or any(need.name in stale for need in job.needs):
            stale.add(job.name)
            job.ok.unlink(missing_ok=True)


@contextmanager
def _alone(study: str) -> Iterator[int]:
    """The study's lock. Raises Busy if another start holds it."""
    try:
        with store.lock(params.study_dir(study) / ".lock") as lock:
            yield lock
    except store.Busy as busy:
        raise store.Busy(f"{study}: {busy}; nothing was started") from None


def _slots(jobs: list[Job], cores: int) -> int:
    return max(1, cores // max(job.cores for job in jobs))


def _refuse_other_file(study: Study, path: str) -> None:
    """Two study files of one name share a folder of outputs. Raises BadParameter if what is there
    was asked for by another file, which still is there and asks for something else."""
    try:
        frozen = params.load_frozen(study.name)
    except params.BadParameter:
        return  # nothing is there yet, or nothing to believe
    same = frozen.file == study.file or replace(frozen, file=study.file) == study
    if not same and (ROOT / frozen.file).is_file():
        raise params.BadParameter(
            f"{path}: {shown(params.study_dir(study.name))} belongs to another study, "
            f"{frozen.file} (expected another name of this file)"
        )


def _refuse_other_parameters(jobs: list[Job], path: str) -> None:
    """What is half made must not be finished with other parameters. Raises BadParameter."""
    for job in jobs:
        file = job.folder / "params.json"
        if job.stage in params.VARIED and file.exists():
            try:
                asked, may_change = job.params.model_dump(), job.params.may_change
                clash = store.difference(store.read_json(file), asked, may_change)
            except store.Damaged as damage:
                raise store.Damaged(f"{damage}{way_out(str(damage), job.study_folder)}") from None
            if clash:
                raise params.BadParameter(
                    f"{path}: {shown(job.folder)} {clash} (expected the same; "
                    f"`make clean STUDY={path}` starts afresh)"
                )


def _schedule(folder: Path, progress: Progress, cores: int, lock: int) -> int:
    """Run Snakemake to its end, showing what the stages tell; its exit status."""
    events = Events(folder)
    command = [
        sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"),
        "--directory", str(folder), "--cores", str(cores), "--scheduler", "greedy",
        "--keep-going", "--nocolor",
        # Our own locks and stamps, not Snakemake's memory, say what runs and what is done.
        "--nolock", "--ignore-incomplete", "--drop-metadata", "--rerun-triggers", "params",
    ]  # fmt: skip
    with open(folder / "logs" / "snakemake.log", "wb") as log:
        scheduler = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | {"BATCHES_STUDY": folder.name},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(lock,),  # while it lives, no other start can be, were we killed
            start_new_session=True,  # Ctrl-C is ours to pass on
            preexec_fn=_die_with_parent,
        )
    with _ending(scheduler):
        while True:
            code = scheduler.poll()
            for event in events.new():
                if line := progress.tell(event):
                    print(line, flush=True)
            if code is not None:
                return code
            time.sleep(POLL)


def _die_with_parent() -> None:
    """Ask Linux to kill this process when its parent dies, however it dies. The stages it has
    started live on, finish and are found done."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


@contextmanager
def _ending(scheduler: subprocess.Popen) -> Iterator[None]:
    """End the scheduler and everything below it when we are told to stop."""

    def stop(number, _frame):
        raise KeyboardInterrupt(number)

    before = {s: signal.signal(s, stop) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        if scheduler.poll() is None:
            _kill_family(scheduler.pid)
            scheduler.wait()
        for number, handler in before.items():
            signal.signal(number, handler)


def _kill_family(pid: int) -> None:
    """Kill a process and all its descendants, kernels too: every stage can be killed anywhere."""
    import psutil

    try:
        parent = psutil.Process(pid)
        family = [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for process in family:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            pass
    psutil.wait_procs(family[1:], timeout=5)


def _closing(progress: Progress, code: int, folder: Path) -> int:
    """Say where the report is, or what went wrong; the exit status."""
    elapsed = clock(time.monotonic() - progress.begin)
    if len(progress.done) == len(progress.jobs) and code == 0:
        print(f"report: {shown(folder / 'report' / 'index.html')}   ({elapsed})", flush=True)
        return 0
    causes = progress.failed if code < 0 else progress.causes()
    waiting = len(progress.jobs) - len(progress.done) - len(causes)
    print(f"{len(causes)} failed, {waiting} not run, {len(progress.done)} done ({elapsed}):")
    if code < 0 or not causes:
        causes = causes | {"the scheduler": _scheduler_cause(code, folder / "logs/snakemake.log")}
    for name, cause in causes.items():
        print(f"  {name}: {cause}", flush=True)
    return 1


def _scheduler_cause(code: int, log: Path) -> str:
    """Why Snakemake itself ended before the study did."""
    if code < 0:
        return (
            f"was killed by signal {-code}; what it had started goes on, and the same command "
            "takes it up"
        )
    return _last_words(log)


def _last_words(log: Path) -> str:
    """The last error in a log, or else its last line, and where the log is."""
    lines = _lines(log.read_text(errors="replace")) if log.exists() else []
    errors = [i for i, line in enumerate(lines) if re.match(r"\w*(Error|Exception)\b", line)]
    first = last = errors[-1] if errors else len(lines) - 1
    while first > 0 and lines[first - 1].endswith(":"):  # "... in file x, line 3:"
        first -= 1
    while 0 <= last < len(lines) - 1 and lines[last].endswith(":"):
        last += 1
    return f"{' '.join(lines[first : last + 1]) or 'stopped without a word'}; see {shown(log)}"


def clean(path: str) -> None:
    """Remove outputs/<study> and nothing else. Raises Busy while the study runs."""
    name = "lab" if Path(path).stem == "lab" else params.study_name(path)
    folder = params.study_dir(name)
    if not folder.is_dir():
        print(f"{shown(folder)}: nothing to remove")
        return
    with _alone(name):
        shutil.rmtree(folder)
    print(f"{shown(folder)}: removed")


# --- the command -------------------------------------------------------------------------------


def main(arguments: list[str]) -> int:
    """The command line at the top of this module: 1 where a stage failed, 2 for bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m lib.execute",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    study = commands.add_parser("study")
    study.add_argument("path")
    study.add_argument("--cores", type=int, default=_cores(), help="CPU cores (all)")
    study.add_argument(
        "--set",
        action="append",
        default=[],
        dest="changes",
        metavar="STAGE.PARAMETER=VALUE",
        help="in place of what the study file says",
    )
    commands.add_parser("clean").add_argument("path")
    stage = commands.add_parser("stage")
    stage.add_argument("stage")
    stage.add_argument("study")
    stage.add_argument("key", nargs="?", default="")
    asked = parser.parse_args(arguments)
    try:
        return _obey(asked)
    except (params.BadParameter, BadNotebook, store.Damaged) as error:
        print(error, file=sys.stderr)
        return 2
    except (StageFailed, store.Busy) as error:
        print(error, file=sys.stderr)
    except OSError as error:
        named = f"{error.filename}: {error.strerror}" if error.filename else error
        print(named, file=sys.stderr)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    return 1


def _cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _obey(asked: argparse.Namespace) -> int:
    if asked.command == "study":
        return run_study(asked.path, max(1, asked.cores), asked.changes)
    if asked.command == "clean":
        clean(asked.path)
    else:
        run_stage(asked.study, asked.stage, asked.key)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
