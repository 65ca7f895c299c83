"""Run a study so that it may be killed anywhere and started again.

Snakemake decides what runs when, on this machine or on a cluster; lib.study.plan says what is done.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from lib import params, store
from lib.store import ROOT
from lib.study import choose, cluster, grid, inputs, ledger, paths, warm
from lib.study.cluster import Cluster
from lib.study.grid import Study
from lib.study.plan import PLACES, Job, plan, shown
from lib.study.progress import Progress, closing
from lib.study.stage import Events

POLL = 0.2  # seconds between two looks at what the stages tell
WORTH = 6  # stages left, from which on it pays to import for all their kernels at once
PATIENCE = 30  # seconds that Snakemake has to cancel a cluster's jobs


def run_study(
    path: str, cores: int, changes: Iterable[str] = (), profile: str = "", place: str = ""
) -> int:
    """Run what a study still needs; 0 once its report is there, 1 where a stage failed.

    changes: as in grid.load_study. profile: of a cluster, in place of this machine's cores. place:
    a folder whose ledger has finished runs. Raises BadParameter, BadNotebook, store.Busy or
    OSError, each with one clear line."""
    study = grid.startable(path, changes)
    ledger.require_named(study.name, place)
    if place:
        jobs = plan(grid.with_contents(study))
        lacking = ledger.missing(place, jobs)
        if lacking and (code := start(study, path, cores, profile, ("prepare",))):
            return code
        store.make_folder(paths.study_dir(study.name))
        with _alone(study.name):
            _refuse_other_file(study, path)
            _refuse_other_parameters(jobs, path)
            print(f"{ledger.adopt(place, jobs)} runs are taken from {place}", flush=True)
    return start(study, path, cores, profile)


def start(
    study: Study, path: str, cores: int, profile: str = "", stages: Collection[str] = (*PLACES,)
) -> int:
    """As run_study, of a study that is startable; of its stages only some, up to the last."""
    away = cluster.read(profile) if profile else None
    folder = paths.study_dir(study.name)
    _require_usable(folder)
    if not away:
        _require_gpu(plan(study), path)
    store.make_folder(folder)
    with _alone(study.name) as lock:
        study = grid.with_contents(study)
        jobs = [job for job in plan(study) if job.stage in stages]
        _refuse_other_file(study, path)
        choose.carry(study)
        _remove_altered(jobs)
        _refuse_other_parameters(jobs, path)
        for job in jobs:
            store.make_folder(job.folder)
        grid.freeze(study)
        _remove_stale_stamps(jobs)
        slots = away.slots(jobs) if away else _slots(jobs, cores)
        progress = Progress({job.name: job for job in jobs}, slots)
        print(progress.opening(study), flush=True)
        code = 0
        if left := len(jobs) - len(progress.done):
            warm_up = left >= WORTH and not away
            with _places(away) as places, _kernels(warm_up, folder, places) as asked:
                code = _schedule(folder, progress, away or cores, lock, places | asked)
            progress.look()
            _forget_damaged(progress)
    return closing(progress, code, folder)


def _require_usable(folder: Path) -> None:
    """Raises BadParameter for a place that Snakemake or papermill cannot work in."""
    for path in (ROOT, folder):
        if {"{", "}"} & {*str(path)}:
            raise params.BadParameter(f"{path}: has a brace in its name (expected another folder)")


def _require_gpu(jobs: list[Job], path: str) -> None:
    """Raises BadParameter where a stage asks for a GPU, and this machine has none."""
    job = next((job for job in jobs if getattr(job.params, "device", "") == "cuda"), None)
    if job:
        from lib.encoder import pick_device

        try:
            pick_device("cuda")
        except ValueError as error:
            raise params.BadParameter(f"{path}: {job.stage}.{error}") from None


def _remove_altered(jobs: list[Job]) -> None:
    """Remove files that are not as a finished stage left them, saying so: they are made again."""
    for job in jobs:
        if job.recorded().get("stamp") != job.stamp:
            continue
        for file, fault in job.faults().items():
            print(f"{shown(file)}: {fault}; making it again", flush=True)
            file.unlink(missing_ok=True)


def _forget_damaged(progress: Progress) -> None:
    """Remove the stamps of stages in whose files another one has found damage, so that the next
    start runs them again: contents of large folders are compared only when they are read."""
    for name, cause in progress.failed.items():
        for need in progress.jobs[name].ancestors if cause.startswith("Damaged: ") else ():
            if need.faults() or _is_damaged(need):
                need.ok.unlink(missing_ok=True)


def _is_damaged(job: Job) -> bool:
    """Whether a folder of the stage does not verify."""
    try:
        for manifest in job.folder.glob("*/manifest.json"):
            store.verify(manifest.parent)
    except store.Damaged:
        return True
    return False


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
        with store.lock(paths.study_dir(study) / ".lock") as lock:
            yield lock
    except store.Busy as busy:
        raise store.Busy(f"{study}: {busy}; nothing was started") from None


def _slots(jobs: list[Job], cores: int) -> int:
    return max(1, cores // max(job.cores for job in jobs))


def _refuse_other_file(study: Study, path: str) -> None:
    """Two study files of one name share a folder of outputs. Raises BadParameter if what is there
    was asked for by another file, which still is there and asks for something else."""
    try:
        frozen = grid.load_frozen(study.name)
    except params.BadParameter:
        return  # nothing is there yet, or nothing to believe
    other = replace(frozen, file=study.file, contents=study.contents)
    same = frozen.file == study.file or other == study
    if not same and (ROOT / frozen.file).is_file():
        raise params.BadParameter(
            f"{path}: {shown(paths.study_dir(study.name))} belongs to another study, "
            f"{frozen.file} (expected another name of this file)"
        )


def _refuse_other_parameters(jobs: list[Job], path: str) -> None:
    """What is half made must not be finished with other parameters. Raises BadParameter."""
    for job in jobs:
        file = job.folder / "params.json"
        if job.stage == "prepare":
            inputs.forget_unmade(job.folder)
        if job.stage in params.VARIED and file.exists():
            try:
                asked, may_change = job.params.known(), job.params.may_change
                clash = store.difference(store.read_json(file), asked, may_change)
                clash = clash or inputs.changed(job.folder, job.contents)
            except store.Damaged as damage:
                again = f"remove {shown(job.folder)} to have it made again"
                raise store.Damaged(f"{damage}; {again}") from None
            if clash:
                raise params.BadParameter(
                    f"{path}: {shown(job.folder)} {clash} (expected the same; "
                    f"`make clean STUDY={path}` starts afresh)"
                )


@contextmanager
def _places(away: Cluster | None) -> Iterator[dict[str, str]]:
    """Environment of all that is started: a folder for temporary files, removed at the end with
    what other programs forget there, and a home for their caches where the user's is read-only."""
    home = os.path.expanduser("~")
    usable = os.path.isdir(home) and os.access(home, os.W_OK)
    with TemporaryDirectory(prefix="batches-", ignore_cleanup_errors=True) as folder:
        here = {} if away else {"TMPDIR": folder}  # other machines do not have it
        yield here if usable else here | {"HOME": folder}


def _kernels(
    warm_up: bool, folder: Path, places: dict[str, str]
) -> AbstractContextManager[dict[str, str]]:
    """As warm.kernels; none where a process may not be forked by one that has imported much."""
    if not warm_up or sys.platform != "linux":
        return nullcontext({})
    return warm.kernels(places["TMPDIR"], folder / "logs" / "kernels.log", places)


def _schedule(
    folder: Path, progress: Progress, where: Cluster | int, lock: int, places: dict[str, str]
) -> int:
    """Run Snakemake to its end, on a cluster or so many cores of this machine, showing what the
    stages tell; its exit status. places: environment variables, as of `_places`."""
    events = Events(folder)
    away = isinstance(where, Cluster)
    command = [
        sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"),
        "--until", [*progress.jobs.values()][-1].stage,
        "--directory", str(folder), *(where.options if away else ["--cores", str(where)]),
        "--scheduler", "greedy", "--keep-going", "--nocolor",
        # Our own locks and stamps, not Snakemake's memory, say what runs and what is done.
        "--nolock", "--ignore-incomplete", "--drop-metadata", "--rerun-triggers", "params",
    ]  # fmt: skip
    with open(folder / "logs" / "snakemake.log", "wb") as log:
        scheduler = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | {"BATCHES_STUDY": folder.name} | places,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(lock,),  # while it lives, no other start can be, were we killed
            start_new_session=True,  # Ctrl-C is ours to pass on
            preexec_fn=_before_scheduler,
        )
    with _ending(scheduler, away):
        while True:
            code = scheduler.poll()
            for event in events.new():
                if line := progress.tell(event):
                    print(line, flush=True)
            if code is not None:
                return code
            time.sleep(POLL)


def _before_scheduler() -> None:
    """Ask Linux to kill this process when its parent dies, however it dies. The stages it has
    started live on, finish and are found done. And hear SIGINT, which a shell's `&` silences."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


@contextmanager
def _ending(scheduler: subprocess.Popen, away: bool) -> Iterator[None]:
    """End the scheduler and everything below it, and its jobs elsewhere, when told to stop."""

    def stop(number, _frame):
        raise KeyboardInterrupt(number)

    heard = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # else nohup would be in vain
        heard.append(signal.SIGHUP)
    before = {s: signal.signal(s, stop) for s in heard}
    try:
        yield
    finally:
        if away and scheduler.poll() is None:
            _cancel_jobs(scheduler)
        if scheduler.poll() is None:
            _kill_family(scheduler.pid)
            scheduler.wait()
        for number, handler in before.items():
            signal.signal(number, handler)


def _cancel_jobs(scheduler: subprocess.Popen) -> None:
    """Have Snakemake cancel a cluster's jobs, which it does at once, but for SIGINT alone. It ends
    only at its next look at the queue; we wait neither for ever nor when told again to stop."""
    print(f"cancelling the cluster's jobs, which takes up to {PATIENCE} s", flush=True)
    scheduler.send_signal(signal.SIGINT)
    try:
        scheduler.wait(PATIENCE)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        pass


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


def clean(path: str) -> None:
    """Remove outputs/<study> and nothing else. Raises Busy while the study runs."""
    name = "lab" if Path(path).stem == "lab" else grid.study_name(path)
    folder = paths.study_dir(name)
    if folder.is_symlink():
        raise params.BadParameter(
            f"{shown(folder)}: is a link (expected a folder; to remove the link is up to you)"
        )
    if not folder.is_dir():
        if name != "lab" and not Path(path).is_file():
            raise params.BadParameter(f"{path}: no such study, and no {shown(folder)}")
        print(f"{shown(folder)}: nothing to remove")
        return
    with _alone(name):
        shutil.rmtree(folder)
    print(f"{shown(folder)}: removed")
