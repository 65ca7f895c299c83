"""What a stage wrote, as one sealed set: which files, how large, and what is in them.

The set is listed in the stage's stamp, which is sealed itself. At every start, and before a stage
reads what others wrote, the files there are compared with it: names and sizes of all, contents of
all but those in a folder with a manifest of its own, which is verified whenever it is opened.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from lib import store

# Folders with a manifest.json, which has the contents of all that is in them but its own.
INSIDE = re.compile(r"(budgets/\d+/)?(data|model|scores|sums)/(?!manifest\.json$)")
Listed = dict[str, tuple[int, str]]  # name -> size in bytes, sha256 ("" where a manifest has it)


def files(folder: Path, patterns: Iterable[str]) -> dict[str, Path]:
    """Name -> path of the files below `folder` that match a pattern, hidden ones apart, sorted."""
    found = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    names = {path.relative_to(folder): path for path in found}
    hidden = {name for name in names if any(part.startswith(".") for part in name.parts)}
    return {name.as_posix(): names[name] for name in sorted(names.keys() - hidden)}


def listed(found: dict[str, Path]) -> Listed:
    """The entry of each of these files."""
    return {name: (path.stat().st_size, _content(name, path)) for name, path in found.items()}


def _content(name: str, path: Path) -> str:
    return "" if INSIDE.match(name) else store.sha256(path)


def faults(folder: Path, found: dict[str, Path], expected: Listed) -> dict[Path, str]:
    """What is wrong with each of the listed files that are not as listed; empty for a whole set.

    Other files may lie beside them, but in a folder with a manifest, which will not have it."""
    wrong = {}
    for name, (size, digest) in expected.items():
        path = folder / name
        if name not in found:
            wrong[path] = "is missing"
        elif path.stat().st_size != size or (digest and store.sha256(path) != digest):
            wrong[path] = "was altered after it was written"
    return wrong
