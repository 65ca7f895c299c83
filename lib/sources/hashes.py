"""Hashes of files that are asked for again and again, remembered with size and times of the file,
as git does: asking again costs a look at each file, and a reading of those alone that may have
changed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lib import store

LARGE = 1 << 30  # bytes that take seconds to read, which is said
SETTLED = 1.0  # seconds after which a file that changes again has another time


@contextmanager
def remembered(file: Path) -> Iterator[Callable[[Path], str]]:
    """A function of a path that gives the hex sha256 of its bytes and remembers it in `file`, as
    JSON. Where that cannot be read or written, every file is read again, and nothing else is lost.
    """
    known = _known(file)
    before = dict(known)
    yield lambda path: _sha256(path, known)
    if known != before:
        with suppress(OSError):  # a cache of somebody else's
            store.write_json(file, known)


def _known(file: Path) -> dict[str, list]:
    try:
        known = store.read_json(file)
    except (OSError, store.Damaged):
        return {}
    return known if isinstance(known, dict) else {}


def _sha256(path: Path, known: dict[str, list]) -> str:
    name, facts = str(path), os.stat(path)
    marks = [facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino]
    *seen, digest = known.get(name, [""])
    if seen == marks:
        return digest
    if facts.st_size > LARGE:
        print(f"{path}: reading it once, to know it again ...", flush=True)
    digest = store.sha256(path)
    known.pop(name, None)
    if time.time() - facts.st_ctime > SETTLED:
        known[name] = [*marks, digest]
    return digest
