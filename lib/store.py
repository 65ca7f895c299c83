"""The one way anything reaches the disk: whole or not at all, and checked before it is believed.

A run may be killed at any moment. So an artefact is written beside its place, flushed to the disk
and renamed; a folder carries a manifest of hashes, its own among them, and counts only when they
hold: what is listed is what is there.
"""

from __future__ import annotations

import fcntl
import glob
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parent.parent
Made = TypeVar("Made")


class Damaged(ValueError):
    """An artefact is not what its manifest says."""


class Foreign(ValueError):
    """A file lies where only what was written together may lie."""


class Busy(RuntimeError):
    """Another process holds the lock."""


# --- writing -----------------------------------------------------------------------------------


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a path to write; on success it is flushed and takes the place of `path`.

    Readers see the old file or the new one, never a part; after an exception the old one."""
    path = Path(path)
    make_folder(path.parent)
    temporary = _beside(path)
    try:
        yield temporary
        _flush(temporary)
        temporary.replace(path)
        _flush(path.parent)
    except OSError as error:
        raise _named(error, path) from None
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path, meta: dict[str, Any] | None = None) -> Iterator[Path]:
    """Yield an empty folder to fill; on success it takes the place of `path`, old content and all.

    meta: what else its manifest.json shall say, beside the sha256 of every file. What a killed
    writer left beside `path` is removed, what a living one is filling is not."""
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"{path}: is a file where a folder is expected")
    make_folder(path.parent)
    _remove_leftovers(path)
    temporary = _beside(path)
    temporary.mkdir()
    handle = _flock(temporary)  # tells a living writer from a killed one
    try:
        yield temporary
        _seal(temporary, meta or {})
        _replace(temporary, path)
    except OSError as error:
        raise _named(error, path) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        os.close(handle)


def _named(error: OSError, path: Path) -> OSError:
    """The error, saying what was being written: a full disk alone names no file."""
    if error.filename is None and error.errno is not None:
        return OSError(error.errno, error.strerror, str(path))
    return error


def write_json(path: Path, value: Any) -> None:
    """Write a value as readable JSON, atomically; the order of keys is kept."""
    with atomic_file(path) as temporary:
        text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """The value in a JSON file. Raises Damaged where it is no JSON, FileNotFoundError as usual."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise Damaged(f"{path}: is not readable as JSON ({error})") from None


def _seal(folder: Path, meta: dict[str, Any]) -> None:
    """Write the manifest and flush everything below `folder`."""
    if (folder / "manifest.json").exists() or {"files", "sealed"} & meta.keys():
        raise ValueError("manifest.json and its `files` are written by atomic_folder alone")
    hashes = {f.relative_to(folder).as_posix(): sha256(f) for f in files(folder)}
    write_json(folder / "manifest.json", sealed({"files": hashes, **meta}))
    for below in (*files(folder), *(d for d in folder.rglob("*") if d.is_dir()), folder):
        _flush(below)


def _replace(new: Path, path: Path) -> None:
    """Rename a folder into place. A kill between the two renames leaves nothing at `path`, which
    reads as "not made yet"; the leftover is removed by the next writer."""
    if path.exists():
        old = new.with_name(new.name.removesuffix(".tmp") + ".old.tmp")
        path.rename(old)
        new.rename(path)
        shutil.rmtree(old, ignore_errors=True)
    else:
        new.rename(path)
    _flush(path.parent)


def _remove_leftovers(path: Path) -> None:
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp/"):
        try:
            handle = _flock(left)
        except (Busy, FileNotFoundError):
            continue
        shutil.rmtree(left, ignore_errors=True)
        os.close(handle)


def make_folder(folder: Path) -> None:
    """mkdir -p, naming the file that is in the way."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        blocking = next(
            p for p in (folder, *folder.parents) if os.path.lexists(p) and not p.is_dir()
        )
        raise NotADirectoryError(f"{blocking}: is a file where a folder is expected") from None


def _flush(path: Path) -> None:
    """fsync a file or a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _beside(path: Path) -> Path:
    """A new hidden name in the same folder, hence on the same disk."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


def cache_dir() -> Path:
    """What is made or fetched once: BATCHES_CACHE where set, else the system's place for caches."""
    from pooch import os_cache

    return Path(os.environ.get("BATCHES_CACHE") or os_cache("batch-composition")).resolve()


# --- checking ----------------------------------------------------------------------------------


def verify(folder: Path, made_from: dict[str, Any] | None = None) -> dict[str, Any]:
    """The manifest of a folder, every file of which was just compared with its hash.

    made_from: what its entry of that name has to be, where given.
    Raises FileNotFoundError if there is no such folder, Damaged if it is incomplete, altered, or
    made from something else, Foreign if it holds something else too."""
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    if not (folder / "manifest.json").is_file():
        raise Damaged(f"{folder}: has no manifest.json, so it is not known to be complete")
    manifest = read_json(folder / "manifest.json")
    if not is_sealed(manifest) or not isinstance(manifest.get("files"), dict):
        raise Damaged(f"{folder / 'manifest.json'}: was altered after it was written")
    present = {f.relative_to(folder).as_posix() for f in files(folder)} - {"manifest.json"}
    for name in sorted(present - manifest["files"].keys()):
        raise Foreign(f"{folder / name}: is not among what was written there; remove it")
    compare(folder, manifest["files"])
    if made_from is not None and manifest.get("made_from") != made_from:
        raise Damaged(f"{folder}: was made from something else")
    return manifest


def compare(folder: Path, files: dict[str, str]) -> None:
    """Raise Damaged for a file that is not there or has another sha256 than the one stated."""
    for name, expected in files.items():
        if not (folder / name).is_file():
            raise Damaged(f"{folder / name}: is missing")
        if sha256(folder / name) != expected:
            raise Damaged(f"{folder / name}: was altered after it was written")


def made(
    read: Callable[[], Made],
    make: Callable[[], None],
    alone: Path | None = None,
    say: Callable[[str], None] = print,
) -> Made:
    """What `read` gives; where that raises FileNotFoundError or Damaged, `make` makes it first.

    alone: a folder to lock while making, so that of several processes one makes and all read.
    say: is told of damage, and of waiting."""
    try:
        return read()
    except FileNotFoundError:
        pass
    except Damaged as damage:
        say(f"{damage}; making it again")
    with locked(alone, say) if alone else nullcontext():
        try:
            return read()
        except (FileNotFoundError, Damaged):
            make()
        return read()


def sealed(value: dict[str, Any]) -> dict[str, Any]:
    """The mapping with a last entry `sealed`, a hash of all others as JSON."""
    return value | {"sealed": digest(value)}


def is_sealed(value: Any) -> bool:
    """Whether a mapping read back is what `sealed` made of it."""
    rest = dict(value) if isinstance(value, dict) else {}
    return rest.pop("sealed", None) == digest(rest)


def digest(value: Any) -> str:
    """Hex sha256 of a value's JSON."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def sha256(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files(folder: Path) -> list[Path]:
    """Every file below a folder but hidden ones, which file managers and editors leave there."""
    found = (f for f in folder.rglob("*") if f.is_file())
    return sorted(f for f in found if "/." not in f"/{f.relative_to(folder).as_posix()}")


def remember(folder: Path, params: dict[str, Any], may_change: Collection[str] = ()) -> None:
    """Record a folder's parameters in params.json, or compare them with those recorded there.

    Raises ValueError naming the first parameter that differs: a folder is never made of two
    settings. may_change: parameters for which that does not matter."""
    file = Path(folder) / "params.json"
    if not file.exists():
        write_json(file, params)
        return
    clash = difference(read_json(file), params, may_change)
    if clash:
        raise ValueError(f"{folder}: {clash}; remove that folder or choose another run name")


def difference(
    recorded: dict[str, Any], params: dict[str, Any], may_change: Collection[str] = ()
) -> str:
    """The first parameter that differs but must not, in words; "" where none does."""
    if not isinstance(recorded, dict):
        return "has a params.json that holds no parameters"
    missing = object()
    for name in [*recorded, *params]:
        old, new = recorded.get(name, missing), params.get(name, missing)
        if old != new and name not in may_change:
            was, now = ("absent" if x is missing else repr(x) for x in (old, new))
            return f"was made with {name} {was}, now {now} is asked for"
    return ""


# --- locks -------------------------------------------------------------------------------------


@contextmanager
def locked(folder: Path, say: Callable[[str], None] = print) -> Iterator[None]:
    """Hold a folder alone, by flock on folder/.lock; waits for another holder, saying so once.

    The lock ends with its process, however that ends, and programs it starts do not inherit it."""
    make_folder(Path(folder))
    file = Path(folder) / ".lock"
    try:
        handle = _flock(file)
    except Busy as busy:
        say(f"{folder}: {busy}; waiting for it")
        handle = _flock(file, wait=True)
    with _held(handle):
        yield


def lock(file: Path, wait: bool = False) -> AbstractContextManager[int]:
    """Hold a lock file; yields its descriptor. Raises Busy if another process holds it, unless
    asked to wait."""
    return _held(_flock(file, wait))


@contextmanager
def _held(handle: int) -> Iterator[int]:
    """Write process and machine into a lock file, and let go of it at the end."""
    try:
        os.truncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()} on {os.uname().nodename}".encode(), 0)
        yield handle
    finally:
        os.close(handle)


def _flock(path: Path, wait: bool = False) -> int:
    """Descriptor of a locked file (made if missing) or folder; closing it ends the lock.

    Python's descriptors are close-on-exec. Raises Busy, unless asked to wait."""
    kind = os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT
    handle = os.open(path, kind, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        holder = "" if path.is_dir() else os.pread(handle, 99, 0).decode(errors="replace")
        os.close(handle)
        raise Busy(f"in use by process {holder or 'unknown'}") from None
    except BaseException:
        os.close(handle)
        raise
    return handle
