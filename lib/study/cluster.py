"""A cluster as a Snakemake profile names it: its executor takes the stages to other machines."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lib.params import BadParameter
from lib.study.plan import Job

FILE = "config.yaml"  # of a profile


@dataclass(frozen=True)
class Cluster:
    """A profile that can be used: where it lies, and how many stages it has under way at once."""

    profile: Path
    jobs: int

    @property
    def options(self) -> list[str]:
        """What Snakemake is told; a profile of the user's own (SNAKEMAKE_PROFILE) ranks below."""
        return ["--workflow-profile", str(self.profile)]

    def slots(self, jobs: list[Job]) -> int:
        """Stages that run side by side: no more than the study has runs."""
        return max(1, min(self.jobs, sum(job.stage == "train" for job in jobs)))


def read(profile: str) -> Cluster:
    """The cluster of a profile's folder. Raises BadParameter where Snakemake could not use it."""
    folder = Path(profile)
    if not (folder / FILE).is_file():
        raise BadParameter(f"{profile}: has no {FILE} (expected the folder of a Snakemake profile)")
    found = _settings(folder / FILE)
    executor, jobs = str(found.get("executor") or "local"), found.get("jobs")
    if executor == "local":
        raise BadParameter(f"{profile}: names no cluster (expected an executor, as slurm)")
    package = f"snakemake-executor-plugin-{executor}"
    if find_spec(package.replace("-", "_")) is None:
        raise BadParameter(f"{profile}: executor {executor} needs the Python package {package}")
    if not isinstance(jobs, int) or jobs < 1:
        raise BadParameter(f"{profile}: jobs is {jobs!r} (expected how many stages at a time)")
    return Cluster(folder.resolve(), jobs)


def _settings(file: Path) -> dict[str, Any]:
    """What a profile's file says. Raises BadParameter."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        found = YAML(typ="safe", pure=True).load(file.read_text(encoding="utf-8"))
    except (YAMLError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise BadParameter(f"{file}: is not YAML of the form `setting: value`")
    return found
