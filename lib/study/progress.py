"""What a running study says: a line a finished stage, an honest estimate, and causes of failure."""

from __future__ import annotations

import re
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

from lib.study.grid import Study
from lib.study.plan import Job, shown
from lib.study.stage import spoken_lines

SCARCE = 64 * 2**20  # bytes free, below which a failed study says so


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
        self.look()

    def look(self) -> None:
        """Believe the stamps: where two nodes of a cluster append to one file at once, what a stage
        tells may be lost."""
        for job in self.jobs.values():
            if job.name not in self.done and job.done:
                self._finish(job, job.recorded()["seconds"])

    def _finish(self, job: Job, seconds: float) -> None:
        self.done.add(job.name)
        self.seconds.setdefault(job.stage, []).append(seconds)

    def opening(self, study: Study) -> str:
        left = len(self.jobs) - len(self.done)
        what = f"{len(self.done)} of {len(self.jobs)} stages are done"
        todo = f"{left} to run, {self.slots} at a time" if left else "nothing to run"
        return f"{study.name}: {study.size}; {what}, {todo}"

    def tell(self, event: dict) -> str:
        """Take in what a stage tells; the line to show, "" for none. Causes of failure come at the
        end, where they are looked for."""
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
                return f"{'FAILED':>{self._width}} {job.name}; see {shown(job.log)}"
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
            elif said := word_of_cluster(job):
                found[job.name] = said
            elif job.name in self.running:
                found[job.name] = f"its process was killed; see {shown(job.log)}"
            elif job.log.exists() and job.log.stat().st_mtime >= self.since:
                found[job.name] = last_words(job.log)
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


def closing(progress: Progress, code: int, folder: Path) -> int:
    """Say where the report is, or the runs of a search, or what went wrong; the exit status."""
    elapsed = clock(time.monotonic() - progress.begin)
    if len(progress.done) == len(progress.jobs) and code == 0:
        what = "report/index.html" if "report" in progress.jobs else "runs"
        print(f"{what.partition('/')[0]}: {shown(folder / what)}   ({elapsed})", flush=True)
        return 0
    causes = progress.failed if code < 0 else progress.causes()
    waiting = len(progress.jobs) - len(progress.done) - len(causes)
    print(f"{len(causes)} failed, {waiting} not run, {len(progress.done)} done ({elapsed}):")
    if code < 0 or not causes:
        causes = causes | {"the scheduler": _scheduler_cause(code, folder / "logs/snakemake.log")}
    for name, cause in causes.items():
        print(f"  {name}: {cause}", flush=True)
    if (free := shutil.disk_usage(folder).free) < SCARCE:  # causes may have gone with the logs
        print(f"  the disk of {shown(folder)} has {free / 2**20:.0f} MiB left", flush=True)
    return 1


def _scheduler_cause(code: int, log: Path) -> str:
    """Why Snakemake itself ended before the study did."""
    if code < 0:
        return (
            f"was killed by signal {-code}; what it had started goes on, and the same command "
            "takes it up"
        )
    return last_words(log)


def word_of_cluster(job: Job) -> str:
    """Why it refused or ended a job, as Snakemake passes it on; "" where there is no such word."""
    log = job.study_folder / "logs" / "snakemake.log"
    text = log.read_text(errors="replace") if log.exists() else ""
    for block in text.split("\nError in rule ")[1:]:
        message = re.match(r"\w+:\n    message: (?!None)(.+?) ?(Detailed|For further|\n)", block)
        if message and f"output: {job.ok.relative_to(job.study_folder)}\n" in block:
            return f"{message[1].rstrip('.')}; see {shown(log)}"
    return ""


def last_words(log: Path) -> str:
    """The last error in a log, or else its last line, and where the log is."""
    lines = spoken_lines(log.read_text(errors="replace")) if log.exists() else []
    errors = [i for i, line in enumerate(lines) if re.match(r"\w*(Error|Exception)\b", line)]
    first = last = errors[-1] if errors else len(lines) - 1
    while first > 0 and lines[first - 1].endswith(":"):  # "... in file x, line 3:"
        first -= 1
    while 0 <= last < len(lines) - 1 and lines[last].endswith(":"):
        last += 1
    return f"{' '.join(lines[first : last + 1]) or 'stopped without a word'}; see {shown(log)}"
