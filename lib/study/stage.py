"""Run one stage of a study: a notebook through papermill, or all executed notebooks into pages."""

from __future__ import annotations

import json
import os
import re
import sys
import time
import traceback
from pathlib import Path

from lib import params, store
from lib.store import ROOT
from lib.study import grid, inputs, paths, warm
from lib.study.plan import Job, notebook_path, plan, shown

ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class StageFailed(RuntimeError):
    """A stage did not finish; the message is its cause, in one line."""


def run_stage(study: str, stage: str, key: str) -> None:
    """Run one stage of a frozen study, unless it is found done; its stamp is written last.

    Raises StageFailed."""
    jobs = {(job.stage, job.key): job for job in plan(grid.load_frozen(study))}
    if (stage, key) not in jobs:
        raise params.BadParameter(f"study {study} has no stage {stage} {key}")
    job = jobs[stage, key]
    tell = Events(paths.study_dir(study)).teller(job)
    with store.locked(job.folder, say=lambda line: tell("waiting", cause=line)):
        stamp = job.stamp_on([need.recorded().get("stamp", "") for need in job.needs])
        if job.is_done(stamp):  # an earlier start, killed meanwhile, has finished it
            tell("finished", seconds=job.recorded()["seconds"], found=True)
            return
        job.ok.unlink(missing_ok=True)
        tell("started")
        begin = time.monotonic()
        try:
            _require_whole(job)
            _require_same_inputs(job)
            _work(job, study)
            _require_same_inputs(job)
            seconds = round(time.monotonic() - begin, 1)
            job.record(stamp, seconds)
        except Exception as error:
            traceback.print_exc()
            failure = StageFailed(_cause(error, job))
            tell("failed", cause=str(failure))
            raise failure from None
        tell("finished", seconds=seconds)


def _require_whole(job: Job) -> None:
    """Raises Damaged for what the stage builds on and is not as it was left, ValueError for a stage
    that has no stamp to say so."""
    for need in job.ancestors:
        if not need.recorded():
            raise ValueError(f"{need.name} is not done; start the study again")
        for file, fault in need.faults().items():
            raise store.Damaged(f"{shown(file)}: {fault}")


def _require_same_inputs(job: Job) -> None:
    """Raises ValueError for an input that is not what it was when the study was started."""
    found = inputs.contents(job.params) if job.params else {}
    for path, digest in found.items():
        if digest != job.contents[path]:
            raise ValueError(f"{path}: was changed after the study was started; start it again")


def _work(job: Job, study: str) -> None:
    """What the stage is for: execute its notebook, or render all that were executed."""
    # nbformat imports jsonschema, which imports rfc3987_syntax where that is installed and so
    # compiles a grammar for 2 s in every stage, only to check a string format that notebooks do
    # not have. None makes that import fail, which jsonschema takes for "not installed".
    sys.modules.setdefault("rfc3987_syntax", None)
    if job.stage == "report":
        from lib.study import report

        report.render(study)
    else:
        _run_notebook(job)


def _run_notebook(job: Job) -> None:
    """Execute a notebook through papermill; what its cells print goes to our stdout."""
    os.environ |= warm.inherited(job.threads)
    import papermill

    forked = job.threads == 1 and warm.ASK in os.environ
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
        extra_arguments=list(warm.ARGUMENTS),
        **({"kernel_manager_class": warm.kernel_manager()} if forked else {}),
    )


def _cause(error: Exception, job: Job) -> str:
    """Why a stage failed, in one line, and where to read more."""
    name, text = type(error).__name__, str(error)
    where = job.log if job.stage == "report" else job.notebook
    if name == "PapermillExecutionError":
        name, text = error.ename, error.evalue
    elif name == "DeadKernelError" or "Kernel died" in text:
        name, text, where = "the kernel died", "killed, or out of memory", job.log
    first = next(iter(spoken_lines(text)), "no message")
    again = "; the same command makes it again" * (name == store.Damaged.__name__)
    return f"{name}: {first}; see {shown(where)}{again}"


def spoken_lines(text: str) -> list[str]:
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
        """What complete lines say since the last call. Two nodes that append at once may leave a
        line that says nothing; the stamps say the rest."""
        if not self.file.exists():
            return []
        with open(self.file, "rb") as file:
            file.seek(self.position)
            text = file.read()
        text = text[: text.rfind(b"\n") + 1]
        self.position += len(text)
        return [event for line in text.splitlines() if (event := _event(line))]


def _event(line: bytes) -> dict:
    """What a stage told; empty where two wrote over each other."""
    try:
        event = json.loads(line)
        return event if {"event", "name"} <= event.keys() else {}
    except (ValueError, AttributeError):
        return {}
