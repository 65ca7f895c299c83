"""Public files, downloaded once and checked whenever they are used.

What a study reads must be the bytes that its report names. So a file counts only when its sha256 is
the known one, also when it comes from the cache; it is written beside its place and renamed when
whole. pooch starts a broken download afresh, which no one wants at gigabytes, so only the place of
the cache is taken from it. Without a network every error says where to put the file by hand.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path

from lib import store

CHUNK = 1 << 16  # bytes; of the last one nothing is kept when a connection breaks
TIMEOUT = 60  # seconds without an answer, or without further bytes
EVERY = 5  # seconds between two lines of progress
COMMIT = re.compile(r"[0-9a-f]{40}")
BY_HAND = "without a network, put the file at"


def cache_dir() -> Path:
    """The folder of downloads: BATCHES_CACHE where set, else the system's place for caches."""
    if named := os.environ.get("BATCHES_CACHE"):
        return Path(named).resolve()
    import pooch

    return Path(pooch.os_cache("batch-composition"))


# --- files by URL ------------------------------------------------------------------------------


def fetch(url: str, sha256: str | None, name: str) -> Path:
    """The file at `url`, kept as cache_dir()/name; downloaded if it is not there or is another.

    sha256  of its bytes, in hex. None: not known beforehand, so the file is trusted on first use;
            its hash is kept beside it (<name>.sha256) and must be met ever after
    A broken download goes on where it stopped, if the server allows it and the hash is known.
    Raises ValueError in one line where the file cannot be had, naming its URL and its place; what
    is not whole or has another hash is never used."""
    path = cache_dir() / name
    if _is_whole(path, sha256 or _recorded(path)):
        return path
    try:
        with store.locked(path.parent):
            expected = sha256 or _recorded(path)
            trusted = path.is_file() and not expected
            if not trusted and not _is_whole(path, expected):
                _get(url, path, expected)
            if not expected:
                _record(path)
    except OSError as error:  # those of requests are among them
        raise ValueError(_failure(url, path, error)) from None
    return path


def _is_whole(path: Path, expected: str | None) -> bool:
    return bool(expected) and path.is_file() and store.sha256(path) == expected


def _recorded(path: Path) -> str | None:
    """The hash kept beside a file that was trusted on first use."""
    try:
        return _beside(path, ".sha256").read_text(encoding="utf-8").split()[0]
    except (FileNotFoundError, IndexError):
        return None


def _record(path: Path) -> None:
    with store.atomic_file(_beside(path, ".sha256")) as temporary:
        temporary.write_text(f"{store.sha256(path)}  {path.name}\n", encoding="utf-8")


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _get(url: str, path: Path, expected: str | None) -> None:
    """Download to `path`. Raises ValueError if the hash differs, OSError if there is no file."""
    part = _beside(path, ".part")
    if not expected:
        part.unlink(missing_ok=True)
    continued = part.exists()
    found = _download(url, part, expected)
    if continued and found != expected:  # its beginning was of another file
        part.unlink()
        found = _download(url, part, expected)
    if expected and found != expected:
        part.unlink()
        raise ValueError(f"{url}: its sha256 is {found} (expected {expected}); nothing was kept")
    with store.atomic_file(path) as temporary:
        part.replace(temporary)


def _download(url: str, part: Path, expected: str | None) -> str:
    """Fill `part` and return its sha256. After a broken connection it goes on for as long as each
    attempt brings something, unless a mixture of two files would go unnoticed."""
    import requests

    while True:
        before = _size(part) if expected else 0
        try:
            _stream(url, part, before)
            return store.sha256(part)
        except requests.RequestException:
            if not expected or _size(part) <= before:
                raise


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _stream(url: str, part: Path, have: int) -> None:
    """One request: write the file, or what follows its first `have` bytes, to `part`.

    Raises requests.RequestException, also for a body that is shorter than announced."""
    import requests

    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        if have and answer.status_code == 416:
            return  # nothing follows
        answer.raise_for_status()
        begin = have if answer.status_code == 206 else 0
        length = answer.headers.get("Content-Length")
        total = begin + int(length) if length else None
        with open(part, "ab" if begin else "wb") as out:
            say, done = _progress(part.name.removesuffix(".part"), total), begin
            for chunk in answer.iter_content(CHUNK):
                out.write(chunk)
                done += len(chunk)
                say(done)


def _progress(name: str, total: int | None) -> Callable[[int], None]:
    """A function that prints how many bytes are done, a line every few seconds."""
    last = time.monotonic()
    whole = f" of {total / 1e6:.1f}" if total else ""

    def say(done: int) -> None:
        nonlocal last
        if time.monotonic() - last >= EVERY:
            last = time.monotonic()
            print(f"{name}: {done / 1e6:.1f}{whole} MB", flush=True)

    return say


def _failure(url: str, path: Path, error: OSError) -> str:
    """Why a file could not be had, in one line."""
    import requests

    match error:
        case requests.HTTPError():
            reason = f"HTTP {error.response.status_code} {error.response.reason}"
        case requests.Timeout():
            reason = f"no answer in {TIMEOUT} seconds"
        case requests.exceptions.ChunkedEncodingError():
            reason = "the connection broke off"
        case requests.ConnectionError():
            reason = "no connection"
        case requests.RequestException():
            reason = type(error).__name__
        case _:
            return f"{path}: cannot be written ({error.strerror or error}); it is to hold {url}"
    return f"{url}: cannot be downloaded ({reason}); {BY_HAND} {path}"


# --- files of the model and data hub -----------------------------------------------------------


def hub(repo: str, path: str, revision: str, kind: str = "dataset") -> Path:
    """A file of a hub repository, kept in cache_dir()/hub/<kind>/<repo>/<revision>/<path>.

    revision  a full commit hash; or a branch (refs/convert/parquet), which stands for the commit
              that it had when it was first used: commit.txt in that folder
    kind      "dataset" or "model"
    Raises ValueError in one line, naming where to put the file by hand."""
    folder = cache_dir() / "hub" / kind / repo / revision.replace("/", "--")
    if (folder / path).is_file():
        return folder / path
    from huggingface_hub import hf_hub_download

    try:
        with store.locked(folder):
            commit = _commit(repo, revision, kind, folder)
            hf_hub_download(
                repo,
                path,
                repo_type=kind,
                revision=commit,
                local_dir=folder,
                tqdm_class=_plain_lines(),
            )
    except Exception as error:  # of any of the libraries below it, which change with its versions
        lines = str(error).strip().splitlines() or [""]
        raise ValueError(
            f"{kind} {repo}, {path} at {revision}: cannot be downloaded from the hub "
            f"({type(error).__name__}: {lines[0]}); {BY_HAND} {folder / path}"
        ) from None
    return folder / path


def _plain_lines() -> type:
    """A progress bar that prints lines: bars leave hundreds of them in executed notebooks."""
    from tqdm import tqdm

    class Lines(tqdm):
        def __init__(self, *args, **others):
            super().__init__(*args, **others | {"mininterval": EVERY})

        def display(self, *args, **others):
            whole = f" of {self.total / 1e6:.1f}" if self.total else ""
            print(f"{self.desc}: {self.n / 1e6:.1f}{whole} MB", flush=True)

    return Lines


def _commit(repo: str, revision: str, kind: str, folder: Path) -> str:
    """The commit of a revision. Asks the hub at first use, which also fails at once offline."""
    record = folder / "commit.txt"
    if record.is_file():
        return record.read_text(encoding="utf-8").strip()
    from huggingface_hub import HfApi

    found = HfApi().repo_info(repo, repo_type=kind, revision=revision, timeout=TIMEOUT).sha
    if COMMIT.fullmatch(revision) and found != revision:
        raise ValueError(f"the hub says that this is commit {found}")
    with store.atomic_file(record) as temporary:
        temporary.write_text(f"{found}\n", encoding="utf-8")
    return found
