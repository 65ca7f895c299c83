"""Public files, downloaded once, and compared with their hash whenever they are used.

What a study reads must be the bytes that its report names. So a file counts only when its sha256 is
the known one, also when it comes from the cache. Every error says where to put the file by hand.
"""

from __future__ import annotations

from pathlib import Path

import pooch
import requests
from tqdm import tqdm

from lib import store
from lib.sources import hashes
from lib.store import cache_dir

CHUNK = 1 << 16  # bytes between two looks at the clock
EVERY = 5  # seconds between two lines of progress
BY_HAND = "without a network, put the file at"


class Lines(tqdm):
    """A progress bar that prints lines: bars leave hundreds of them in executed notebooks."""

    def __init__(self, *args, **others):
        super().__init__(*args, **others | {"mininterval": EVERY, "miniters": 1})

    def display(self, *args, **others):
        if self.total and 0 < self.n <= self.total:  # pooch counts its last chunk as a whole one
            print(f"{self.desc}: {self.n / 1e6:.1f} of {self.total / 1e6:.1f} MB", flush=True)

    def close(self):
        self.disable = True  # prints nothing more


def fetch(url: str, sha256: str | None, name: str) -> Path:
    """The file at `url`, kept as cache_dir()/name; downloaded if it is not there or is another.

    sha256  in hex; None: trusted on first use, kept in <name>.sha256, required ever after
    Raises ValueError in one line, naming URL and place; no part and no other file is ever used."""
    path = cache_dir() / name
    known = sha256 or _recorded(_record(path))
    if known and path.is_file() and _sha256(path) == known:
        return path  # without the lock, which a cache of somebody else's does not give
    try:
        with store.locked(path.parent):
            _retrieve(url, sha256, path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{url}: {_fault(error)}; {BY_HAND} {path}") from None
    return path


def _retrieve(url: str, sha256: str | None, path: Path) -> None:
    record = _record(path)
    if not sha256:
        sha256 = _recorded(record)
    for left in path.parent.glob("tmp????????"):  # by a process that was killed in pooch
        left.unlink()
    pooch.get_logger().setLevel("WARNING")  # its lines would show users' folders in notebooks
    get = pooch.HTTPDownloader(Lines(desc=path.name, total=1), CHUNK)
    pooch.retrieve(url, sha256, path.name, path.parent, downloader=get)
    path.chmod(0o644)  # a cache may be shared; pooch's temporary files are private
    if not sha256:
        _keep(record, _sha256(path))


def _fault(error: Exception) -> str:
    match error:
        case requests.HTTPError():
            reason = f"HTTP {error.response.status_code} {error.response.reason}"
        case requests.exceptions.ChunkedEncodingError():
            reason = "the connection broke off"
        case requests.ConnectionError():
            reason = "no connection"
        case _:
            reason = " ".join(str(error).split())
    came = not isinstance(error, ValueError | requests.RequestException)
    return f"cannot be {'written' if came else 'downloaded'} ({reason})"


def hub(repo: str, path: str, revision: str, kind: str = "dataset") -> Path:
    """A file of a hub "dataset" or "model": cache_dir()/hub/<kind>/<repo>/<revision>/<path>.

    revision  a commit; or a branch: the commit it had when first used, kept there in commit.txt
    The file is trusted on first use, and its hash kept in <path>.sha256; afterwards another one is
    a ValueError, as is a failed download, in one line that says what to do."""
    folder = cache_dir() / "hub" / kind / repo / revision.replace("/", "--")
    try:
        if not (folder / path).is_file():
            with store.locked(folder):
                _from_hub(repo, path, revision, kind, folder)
    except Exception as error:  # of any of the libraries below it, which change with its versions
        reason = " ".join([f"{type(error).__name__}:", *str(error).strip().splitlines()[:1]])
        what = f"{kind} {repo}, {path} at {revision}: cannot be downloaded from the hub"
        raise ValueError(f"{what} ({reason}); {BY_HAND} {folder / path}") from None
    _check_first_used(folder / path)
    return folder / path


def _check_first_used(path: Path) -> None:
    """Keep a file's hash, or compare it with the one kept. Raises ValueError for another file."""
    record, found = _record(path), _sha256(path)
    known = _recorded(record)
    if not known:
        _keep(record, found)
    elif known != found:
        raise ValueError(
            f"{path}: is not the file that was used first (its sha256 is {found}, expected "
            f"{known}): remove it to have it downloaded again, or {record.name} to use it all the "
            "same"
        )


def _sha256(path: Path) -> str:
    with hashes.remembered(cache_dir() / "hashes.json") as sha256:
        return sha256(path)


def _record(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _recorded(record: Path) -> str | None:
    """The hash that is kept; None where there is none."""
    return (record.is_file() and record.read_text(encoding="utf-8").partition(" ")[0]) or None


def _keep(record: Path, sha256: str) -> None:
    with store.atomic_file(record) as temporary:
        temporary.write_text(f"{sha256}  {record.stem}\n", encoding="utf-8")


def _from_hub(repo: str, path: str, revision: str, kind: str, folder: Path) -> None:
    from huggingface_hub import HfApi

    record = folder / "commit.txt"
    if not record.is_file():  # this question, unlike a download, fails at once without a network
        commit = HfApi().repo_info(repo, repo_type=kind, revision=revision, timeout=30).sha
        with store.atomic_file(record) as temporary:
            temporary.write_text(f"{commit}\n", encoding="utf-8")
    at = {"repo_type": kind, "revision": record.read_text(encoding="utf-8").strip()}
    HfApi().hf_hub_download(repo, path, **at, local_dir=folder, tqdm_class=Lines)
