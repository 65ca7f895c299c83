"""Downloads from a server of this machine: refused, broken, killed, trusted, offline."""

import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from contextlib import nullcontext, suppress
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from lib import store
from lib.sources import downloads

BODY = bytes(range(256)) * 9000  # 2.3 MB, 36 chunks
HASH = sha256(BODY).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves server.body, of which server.cut bytes come; then it waits for server.go_on."""

    def do_GET(self):
        server = self.server
        server.asked.append(self.headers.get("Range"))
        if self.path == "/missing":
            return self.send_error(404)
        self.send_response(200)
        self.send_header("Content-Length", str(len(server.body)))
        self.end_headers()
        self.wfile.write(server.body[: server.cut])
        server.go_on.wait(60)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server and an empty cache."""
    monkeypatch.setenv("BATCHES_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        found.body, found.cut, found.asked, found.go_on = BODY, None, [], threading.Event()
        found.go_on.set()
        threading.Thread(target=found.serve_forever, args=(0.01,), daemon=True).start()
        found.url = f"http://127.0.0.1:{found.server_port}/a.bin"
        yield found
        found.shutdown()


def refused(call, *parts):
    """`call` raises a ValueError of one line that holds all parts."""
    with pytest.raises(ValueError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, message


def held(path):
    """Names of the files beside `path` and itself, the lock apart."""
    return sorted(p.name for p in path.parent.iterdir() if p.name != ".lock")


def test_the_cache_is_where_it_is_asked_for(monkeypatch):
    """BATCHES_CACHE, or the system's place for caches."""
    monkeypatch.setenv("BATCHES_CACHE", "/some/where")
    assert str(downloads.cache_dir()) == "/some/where"
    monkeypatch.delenv("BATCHES_CACHE")
    assert downloads.cache_dir().name == "batch-composition"


def test_a_file_is_downloaded_once(server, tmp_path):
    """It lies in the cache under its name and is asked for no more."""
    for _ in range(2):
        path = downloads.fetch(server.url, HASH, "set/a.bin")
        assert path == tmp_path / "cache/set/a.bin" and path.read_bytes() == BODY
    assert server.asked == [None]
    assert held(path) == ["a.bin"]


def began(folder) -> int:
    """Bytes of files under way; a file with which pooch tries the folder may go meanwhile."""
    total = 0
    for file in folder.glob("tmp*"):
        with suppress(FileNotFoundError):
            total += file.stat().st_size
    return total


def test_what_a_killed_process_left_is_removed(server, tmp_path):
    """Its part of the file is never taken for the file, whatever the next one brings."""
    server.cut = 500_000
    server.go_on.clear()
    job = multiprocessing.get_context("fork").Process(
        target=downloads.fetch, args=(server.url, HASH, "a.bin")
    )
    job.start()
    limit = time.monotonic() + 20
    while began(tmp_path / "cache") < 400_000:
        assert time.monotonic() < limit
        time.sleep(0.01)
    job.kill()
    job.join()
    server.cut = None
    server.go_on.set()
    assert len(held(tmp_path / "cache/a.bin")) == 1
    path = downloads.fetch(server.url, HASH, "a.bin")
    assert path.read_bytes() == BODY and held(path) == ["a.bin"]
    assert server.asked == [None, None]


@pytest.mark.parametrize("known", [HASH, None])
def test_a_body_that_ends_early_is_refused(server, tmp_path, known):
    """What came is no cached file, and nothing of it is kept."""
    server.cut = 500_000
    refused(lambda: downloads.fetch(server.url, known, "a.bin"), server.url, "broke off", "a.bin")
    assert len(server.asked) == 1
    assert held(tmp_path / "cache/a.bin") == []
    server.cut = None
    assert downloads.fetch(server.url, known, "a.bin").read_bytes() == BODY


def test_a_wrong_hash_is_refused(server, tmp_path):
    """Nothing of it is kept."""
    wrong = "0" * 64
    refused(
        lambda: downloads.fetch(server.url, wrong, "a.bin"), server.url, HASH, f"expected {wrong}"
    )
    assert held(tmp_path / "cache/a.bin") == []


def test_an_altered_cached_file_is_fetched_again(server, tmp_path):
    """The hash is looked at whenever the file is used."""
    path = downloads.fetch(server.url, HASH, "a.bin")
    path.write_bytes(BODY[:-1])
    assert downloads.fetch(server.url, HASH, "a.bin").read_bytes() == BODY
    assert server.asked == [None, None]


def test_without_a_server_the_place_is_named(server, tmp_path):
    """Put there by hand, the file is found."""
    server.shutdown()
    server.server_close()
    place = tmp_path / "cache/set/a.bin"
    refused(
        lambda: downloads.fetch(server.url, HASH, "set/a.bin"),
        f"{server.url}: cannot be downloaded (no connection)",
        f"put the file at {place}",
    )
    place.write_bytes(BODY)
    assert downloads.fetch(server.url, HASH, "set/a.bin") == place


def test_a_missing_file_is_refused(server):
    """With what the server says."""
    url = server.url.replace("a.bin", "missing")
    refused(lambda: downloads.fetch(url, HASH, "a.bin"), url, "HTTP 404 Not Found")


def test_a_full_disk_is_refused(server, tmp_path, monkeypatch):
    """/dev/full takes no byte: one line, and no file in the cache."""
    part = tmp_path / "part"
    part.symlink_to("/dev/full")
    monkeypatch.setattr("pooch.core.temporary_file", lambda path: nullcontext(str(part)))
    refused(lambda: downloads.fetch(server.url, HASH, "a.bin"), "a.bin: cannot", "No space left on")
    assert not (tmp_path / "cache/a.bin").exists()


def test_a_cache_that_cannot_be_made_is_refused(server, tmp_path):
    """A file is in its place."""
    (tmp_path / "cache").write_text("")
    refused(
        lambda: downloads.fetch(server.url, HASH, "a.bin"), "a.bin: cannot be written", "folder"
    )


def test_an_unknown_hash_is_trusted_once(server):
    """Afterwards the file must stay what it was: altered it is fetched again, and what is
    fetched then must be the first file."""
    path = downloads.fetch(server.url, None, "a.bin")
    kept = path.with_name("a.bin.sha256").read_text()
    assert kept == f"{HASH}  a.bin\n"
    path.write_bytes(b"altered")
    assert downloads.fetch(server.url, None, "a.bin").read_bytes() == BODY
    assert server.asked == [None, None]
    path.unlink()
    server.body = b"another"
    refused(lambda: downloads.fetch(server.url, None, "a.bin"), f"expected {HASH}")
    assert path.with_name("a.bin.sha256").read_text() == kept


def test_a_file_put_there_by_hand_is_trusted(server, tmp_path):
    """Where its hash is not known."""
    place = tmp_path / "cache/a.bin"
    store.make_folder(place.parent)
    place.write_bytes(b"mine")
    for _ in range(2):
        assert downloads.fetch(server.url, None, "a.bin").read_bytes() == b"mine"
    assert server.asked == []


def test_two_processes_fetch_a_file_once(server):
    """The second one waits and finds it."""
    with multiprocessing.get_context("fork").Pool(2) as pool:
        jobs = [pool.apply_async(downloads.fetch, (server.url, HASH, "a.bin")) for _ in range(2)]
        assert {job.get(20).read_bytes() == BODY for job in jobs} == {True}
    assert server.asked == [None]


def test_progress_is_plain_lines(server, monkeypatch, capsys):
    """One every few seconds, here one a chunk."""
    monkeypatch.setattr(downloads, "EVERY", 0)
    monkeypatch.setattr(downloads, "CHUNK", 1 << 20)
    downloads.fetch(server.url, HASH, "a.bin")
    assert capsys.readouterr().out.splitlines() == [
        "a.bin: 1.0 of 2.3 MB", "a.bin: 2.1 of 2.3 MB", "a.bin: 2.3 of 2.3 MB"
    ]  # fmt: skip


# --- the hub -----------------------------------------------------------------------------------

SHA = "0123456789" * 4


class Hub(BaseHTTPRequestHandler):
    """The two answers of a hub that a download needs."""

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        self.server.asked.append(f"{self.command} {self.path}")
        if "/api/datasets/some/data/revision/" in self.path:
            body = json.dumps({"id": "some/data", "sha": SHA}).encode()
        elif self.path == f"/datasets/some/data/resolve/{SHA}/b/c.txt":
            body = b"text"
        else:
            return self.send_error(404)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"e"')
        self.send_header("X-Repo-Commit", SHA)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    log_message = Handler.log_message


def ask_hub(folder, endpoint, *arguments):
    """Output of downloads.hub in its own process, which reads the hub's address when it starts."""
    code = "import sys; from lib.sources import downloads; print(downloads.hub(*sys.argv[1:]))"
    known = {"BATCHES_CACHE": str(folder), "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1"}
    known |= {"NO_PROXY": "127.0.0.1"}
    run = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(
        run, cwd=store.ROOT, env=os.environ | known, capture_output=True, text=True, timeout=60
    )
    return SimpleNamespace(out=done.stdout.splitlines(), err=done.stderr.splitlines())


def test_a_branch_of_the_hub_stands_for_its_first_commit(tmp_path):
    """Asked for again, the file is there without any request, and so it is when put by hand."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as found:
        found.asked = []
        threading.Thread(target=found.serve_forever, args=(0.01,), daemon=True).start()
        endpoint = f"http://127.0.0.1:{found.server_port}"
        for _ in range(2):
            done = ask_hub(tmp_path, endpoint, "some/data", "b/c.txt", "refs/convert/parquet")
            folder = tmp_path / "hub/dataset/some/data/refs--convert--parquet"
            assert done.out[-1:] == [str(folder / "b/c.txt")], done.err
        found.shutdown()
    assert (folder / "b/c.txt").read_text() == "text"
    assert (folder / "commit.txt").read_text() == f"{SHA}\n"
    assert len([x for x in found.asked if "/api/datasets" in x]) == 1
    assert len([x for x in found.asked if x.startswith("GET /datasets")]) == 1


def test_an_altered_file_of_the_hub_is_refused(tmp_path, monkeypatch):
    """Its hash is looked at whenever it is used, as of any other file; the line says what to do."""
    monkeypatch.setenv("BATCHES_CACHE", str(tmp_path))
    place = tmp_path / f"hub/dataset/some/data/{SHA}/b.txt"
    store.make_folder(place.parent)
    place.write_bytes(BODY)
    for _ in range(2):
        assert downloads.hub("some/data", "b.txt", SHA) == place
    record = place.with_name("b.txt.sha256")
    assert record.read_text() == f"{HASH}  b.txt\n"
    place.write_bytes(BODY[:-1])
    said = f"{place}: is not the file that was", f"expected {HASH}", "remove it to have it"
    refused(lambda: downloads.hub("some/data", "b.txt", SHA), *said, "or b.txt.sha256")
    record.unlink()
    assert downloads.hub("some/data", "b.txt", SHA) == place


def test_files_of_the_cache_are_read_once(tmp_path, monkeypatch):
    """Until they change: later uses look at size and times, also in another process's place; where
    nothing can be remembered, everything is read again. Both ways of coming into the cache."""
    monkeypatch.setenv("BATCHES_CACHE", str(tmp_path))
    read = []
    monkeypatch.setattr(
        store, "sha256", lambda file, hashed=store.sha256: read.append(file.name) or hashed(file)
    )
    monkeypatch.setattr(time, "time", lambda now=time.time: now() + 10)
    place = tmp_path / f"hub/dataset/some/data/{SHA}/b.txt"
    store.make_folder(place.parent)
    for file in (place, tmp_path / "a.bin"):
        file.write_bytes(BODY)
    for _ in range(3):
        assert downloads.hub("some/data", "b.txt", SHA) == place
        assert downloads.fetch("http://127.0.0.1:9/a.bin", HASH, "a.bin").name == "a.bin"
    assert read == ["b.txt", "a.bin"]
    (tmp_path / "hashes.json").unlink()
    (tmp_path / "hashes.json").mkdir()  # neither to be read nor to be written
    for _ in range(2):
        assert downloads.hub("some/data", "b.txt", SHA) == place
    assert read == ["b.txt", "a.bin", "b.txt", "b.txt"]


def test_without_the_hub_the_place_is_named(tmp_path):
    """In one line; put there by hand the file is found."""
    done = ask_hub(tmp_path, "http://127.0.0.1:9", "some/data", "b.txt", SHA)
    place = tmp_path / f"hub/dataset/some/data/{SHA}/b.txt"
    assert "ValueError: dataset some/data, b.txt at 0123" in done.err[-1]
    assert done.err[-1].endswith(f"put the file at {place}")
    place.write_text("mine")
    done = ask_hub(tmp_path, "http://127.0.0.1:9", "some/data", "b.txt", SHA)
    assert done.out == [str(place)]
