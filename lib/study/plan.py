"""What a study has to do: every stage of every run as a job, and when a job is done.

A stage is done when its stamp file, written last, holds the hash of its parameters, of the
notebook's code and of the stamps it builds on, and when all that it wrote is there as written.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from lib import params, store
from lib.store import ROOT
from lib.study import inputs, paths, seal
from lib.study.grid import Study

NOTEBOOKS = {
    "prepare": "01_prepare",
    "train": "02_train",
    "evaluate": "03_evaluate",
    "analyse": "04_analyse",
}
PLACES = {
    "prepare": "corpus/{key}",
    "train": "runs/{key}",
    "evaluate": "runs/{key}",
    "analyse": "report",
    "report": "report",
}  # below the study's folder
# What a stage has to leave for others, below its folder.
PRODUCTS = {
    "prepare": ("data/manifest.json",),
    "train": ("model/manifest.json",),
    "evaluate": ("sums/manifest.json", "metrics.json"),
    "analyse": ("04_analyse.ipynb", "tables/*"),
    "report": ("index.html",),
}
# All that it writes there, but checkpoints, which may go.
WRITTEN = {
    "prepare": ("params.json", "inputs.json", "01_prepare.ipynb", "data/**/*", "figures/*"),
    "train": (
        "params.json", "inputs.json", "02_train.ipynb", "model/**/*", "train_log.parquet",
        "train_time.parquet", "validation.json", "exposure.json", "cost.json", "provenance.json",
        "figures/train/*", "budgets/*/*.json", "budgets/*/*.parquet", "budgets/*/model/**/*",
        "gradients/*.json",
    ),
    "evaluate": (
        "03_evaluate.ipynb", "scores/**/*", "sums/**/*", "metrics.json", "mteb/**/*",
        "figures/evaluate/*",
    ),
    "analyse": ("04_analyse.ipynb", "tables/*", "figures/*"),
    "report": ("*.html",),
}  # fmt: skip


class BadNotebook(ValueError):
    """A notebook cannot be run as a stage; the message is one line."""


@dataclass(frozen=True)
class Job:
    """One stage of one run: what it is asked to do, and where."""

    stage: str
    key: str  # "" for the stages that a study has once
    folder: Path
    params: params.Stage | None
    needs: tuple[Job, ...]
    code: tuple[str, ...]  # of the notebook's code cells
    contents: dict[str, str] = field(default_factory=dict)  # path -> hash, of what it names

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

    @property
    def gpus(self) -> int:
        """How many to ask a cluster for: one a rank, where `device: cuda` says it needs them."""
        asked = getattr(self.params, "device", "") == "cuda"
        return getattr(self.params, "ranks", 1) if asked else 0

    @cached_property
    def stamp(self) -> str:
        """The stamp if all it needs is done as asked now."""
        return self.stamp_on([need.stamp for need in self.needs])

    def stamp_on(self, upstream: list[str]) -> str:
        """sha256 of parameters, what is in the files they name, upstream stamps and code. Where the
        files and the study lie is left out: the same work has the same stamp everywhere."""
        asked = self.params.of_the_work() if self.params else {}
        parts = [self.stage, _by_content(asked, self.contents), upstream, self.code]
        text = json.dumps(parts, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def recorded(self) -> dict:
        """What the stamp file says: stamp, seconds, and the files of `seal.listed`; empty where
        there is none to believe."""
        try:
            found = store.read_json(self.ok)
        except (OSError, ValueError):
            return {}
        return found if store.is_sealed(found) else {}

    def record(self, stamp: str, seconds: float) -> None:
        """Write the stamp file: the stage is done. Raises FileNotFoundError for what is missing."""
        for pattern in PRODUCTS[self.stage]:
            if not seal.files(self.folder, [pattern]):
                raise FileNotFoundError(f"{shown(self.folder / pattern)} was not made")
        files = seal.listed(self._files())
        store.write_json(
            self.ok, store.sealed({"stamp": stamp, "seconds": seconds, "files": files})
        )

    def _files(self) -> dict[str, Path]:
        """The stage's files that are there, by name."""
        return seal.files(self.folder, WRITTEN[self.stage])

    def faults(self) -> dict[Path, str]:
        """What is wrong with each file that is not as the stage left it."""
        return seal.faults(self.folder, self._files(), self.recorded().get("files", {}))

    @property
    def done(self) -> bool:
        return self.is_done(self.stamp)

    def is_done(self, stamp: str) -> bool:
        """Whether the stage has ended with this stamp, and all that it wrote is as it left it."""
        return self.recorded().get("stamp") == stamp and not self.faults()

    @cached_property
    def ancestors(self) -> list[Job]:
        """All that it builds on, directly or not, each after those it needs."""
        found = {job.name: job for need in self.needs for job in (*need.ancestors, need)}
        return list(found.values())


def _by_content(asked: Any, contents: dict[str, str]) -> Any:
    """Parameters with the hash of each file and folder in place of its path."""
    if isinstance(asked, dict):
        return {name: _by_content(value, contents) for name, value in asked.items()}
    return contents.get(asked, asked) if isinstance(asked, str) else asked


def plan(study: Study) -> list[Job]:
    """Every job of a study, each after those it needs. Raises BadNotebook."""
    code = {stage: read_notebook(stage) for stage in NOTEBOOKS}

    def job(key: str, folder: Path, p: params.Stage, *needs: Job) -> Job:
        found = {path: study.contents.get(path, "") for path in inputs.named(p).values()}
        return Job(p.name(), key, folder, p, needs, code[p.name()], found)

    corpora = {
        key: job(key, paths.corpus_dir(study.name, key), p) for key, p in study.corpora.items()
    }
    trains, evaluates = [], []
    for key, run in study.runs.items():
        folder = paths.run_dir(study.name, key)
        trains.append(job(key, folder, run.train, corpora[run.train.corpus]))
        evaluates.append(job(key, folder, run.evaluate, trains[-1]))
    report = paths.report_dir(study.name)
    analyse = job("", report, study.analyse, *evaluates)
    return [*corpora.values(), *trains, *evaluates, analyse,
            Job("report", "", report, None, (analyse,), ())]  # fmt: skip


def notebook_path(stage: str) -> Path:
    """The notebook of a stage; BATCHES_NOTEBOOKS names another folder than notebooks/."""
    folder = Path(os.environ.get("BATCHES_NOTEBOOKS") or ROOT / "notebooks")
    return folder / f"{NOTEBOOKS[stage]}.ipynb"


def read_notebook(stage: str) -> tuple[str, ...]:
    """Sources of a notebook's code cells, if it takes every parameter of the stage. The cell that
    takes them is left out: a stage is given all of them.

    papermill itself only warns of an unknown parameter, and without a tagged cell the notebook's
    own values win. Raises BadNotebook."""
    path = notebook_path(stage)
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code = [cell for cell in cells if cell["cell_type"] == "code"]
        tagged = [c for c in code if "parameters" in c["metadata"].get("tags", [])]
        sources = tuple("".join(cell["source"]) for cell in code if cell not in tagged)
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
