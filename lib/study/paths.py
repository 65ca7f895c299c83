"""Where everything lies below outputs/: one place that builds paths."""

from __future__ import annotations

import os
from pathlib import Path

from lib.store import ROOT


def outputs() -> Path:
    """The folder of all results: BATCHES_OUTPUTS where set, seen from the project's folder, else
    its outputs/."""
    return (ROOT / (os.environ.get("BATCHES_OUTPUTS") or "outputs")).resolve()


def study_dir(study: str) -> Path:
    return outputs() / study


def corpus_dir(study: str, key: str) -> Path:
    return study_dir(study) / "corpus" / key


def references_dir(corpus: Path, benchmark: str) -> Path:
    """Where the references of a benchmark lie, below the folder of a corpus."""
    return corpus / "benchmarks" / benchmark


def run_dir(study: str, key: str) -> Path:
    return study_dir(study) / "runs" / key


def labels(key: str) -> dict[str, str]:
    """Axis -> label, of the key of a run that has axes.

    >>> labels("arm=mono,seed=0")
    {'arm': 'mono', 'seed': '0'}
    """
    return dict(part.split("=", 1) for part in key.split(","))


def report_dir(study: str) -> Path:
    return study_dir(study) / "report"


def needs(folder: Path, notebook: str) -> Path:
    """A folder of a corpus or a run, if it is there. Raises FileNotFoundError naming the notebook
    that makes it, and the corpora or runs that have one."""
    if folder.exists():
        return folder
    below = folder.parent.parent
    made = sorted(path.parent.name for path in below.glob(f"*/{folder.name}"))
    parameter = {"corpus": "corpus", "runs": "run"}.get(below.name)
    other = ""
    if made and parameter:
        more = f" and {len(made) - 5} more" * (len(made) > 5)
        other = f", or set {parameter!r} to one that is there: {' '.join(made[:5])}{more}"
    raise FileNotFoundError(f"{folder} is not there; run {notebook} first{other}")
