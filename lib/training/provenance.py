"""What an artefact was made with, so that it can be made again."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from lib.store import ROOT

PACKAGES = (
    "torch", "transformers", "tokenizers", "datasets", "pyarrow", "numpy", "pandas", "scipy",
    "babel", "bm25s", "safetensors", "papermill", "snakemake",
)  # fmt: skip


def provenance(params: dict[str, Any]) -> dict[str, Any]:
    """What an artefact was made with: parameters, commit, versions, hardware, threads.

    What torch knows is asked only where torch is loaded already. No user or host names."""
    return {
        "parameters": params,
        "commit": _git("rev-parse", "HEAD"),
        "dirty": bool(_git("status", "--porcelain", "--", "lib", "notebooks", "params")),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        **_torch_facts(),
    }


def _git(*command: str) -> str | None:
    """Output of a git command in the project's folder; None outside a repository."""
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *command], capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(x.split(":", 1)[1].strip() for x in lines if x.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def _torch_facts() -> dict[str, Any]:
    torch = sys.modules.get("torch")
    if torch is None:
        return {}
    cuda = torch.cuda.is_available()
    return {
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        if cuda
        else [],
    }
