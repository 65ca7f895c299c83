"""Nothing half-written is ever believed, whenever a process is killed."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import store
from lib.training.provenance import provenance


def start(code, *arguments):
    """A Python process of its own that runs `code` and may print."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=store.ROOT, stdin=pipe, stdout=pipe, text=True)


def hidden(folder):
    """What a writer left lying about."""
    return [f.name for f in folder.iterdir() if f.name.endswith(".tmp")]


# --- files ---


def test_a_file_appears_whole(tmp_path):
    """Parents are made; the old content is replaced; nothing else is left."""
    path = tmp_path / "a" / "b.txt"
    for text in ("one", "two"):
        with store.atomic_file(path) as temporary:
            temporary.write_text(text)
            assert not path.exists() or path.read_text() != text
        assert path.read_text() == text
    assert [f.name for f in path.parent.iterdir()] == ["b.txt"]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    """An exception while writing."""
    path = tmp_path / "b.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), store.atomic_file(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and not hidden(tmp_path)


def test_files_have_usual_permissions(tmp_path):
    """A report may be read by others, if the user's umask says so."""
    (tmp_path / "usual").write_text("")
    store.write_json(tmp_path / "ours", {})
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "usual").stat().st_mode


@given(value=st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=5))
@settings(deadline=None)
def test_json_comes_back(tmp_path_factory, value):
    """Any text, the order of keys too."""
    path = tmp_path_factory.mktemp("json") / "x.json"
    store.write_json(path, {"b": value, "a": 1})
    assert store.read_json(path) == {"b": value, "a": 1}
    assert list(store.read_json(path)) == ["b", "a"]


def test_bad_json_is_damage(tmp_path):
    """Half a file names itself; NaN, which is no JSON, is not written."""
    (tmp_path / "x.json").write_text('{"a": ')
    with pytest.raises(store.Damaged, match=r"x\.json: is not readable as JSON"):
        store.read_json(tmp_path / "x.json")
    with pytest.raises(ValueError):
        store.write_json(tmp_path / "y.json", float("nan"))
    assert not (tmp_path / "y.json").exists()


# --- folders ---


def fill(folder, text="x"):
    """Two files, one of them below."""
    (folder / "sub").mkdir()
    (folder / "a.txt").write_text(text)
    (folder / "sub" / "b.txt").write_text(text)


def test_a_folder_appears_whole_with_its_manifest(tmp_path):
    """Every file hashed, metadata beside them, the old content gone."""
    path = tmp_path / "f"
    with store.atomic_folder(path) as new:
        (new / "old.txt").write_text("")
    with store.atomic_folder(path, {"rows": 3}) as new:
        fill(new)
        assert (path / "old.txt").exists()
    digest = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"  # sha256 of "x"
    files = {"a.txt": digest, "sub/b.txt": digest}
    manifest = store.verify(path)
    assert manifest == store.sealed({"files": files, "rows": 3}) and store.is_sealed(manifest)
    assert not (path / "old.txt").exists() and not hidden(tmp_path)


def test_a_failed_folder_leaves_the_old_one(tmp_path):
    """An exception while filling."""
    path = tmp_path / "f"
    with store.atomic_folder(path) as new:
        fill(new, "old")
    with pytest.raises(RuntimeError), store.atomic_folder(path) as new:
        (new / "a.txt").write_text("new")
        raise RuntimeError
    store.verify(path)
    assert (path / "a.txt").read_text() == "old" and not hidden(tmp_path)


def remove_file(folder):
    (folder / "sub" / "b.txt").unlink()


def alter_byte(folder):
    (folder / "sub" / "b.txt").write_text("y")


def cut_short(folder):
    (folder / "sub" / "b.txt").write_text("")


def lose_manifest(folder):
    (folder / "manifest.json").unlink()


def halve_manifest(folder):
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text[: len(text) // 2])


def alter_a_count(folder):
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace('"rows": 3', '"rows": 1003'))


def lose_an_entry(folder):
    manifest = store.read_json(folder / "manifest.json")
    del manifest["files"]["sub/b.txt"]
    store.write_json(folder / "manifest.json", manifest)


def add_a_file(folder):
    (folder / "sub" / "c.txt").write_text("")


def empty_manifest(folder):
    (folder / "manifest.json").write_text("[]")


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (remove_file, "b.txt: is missing"),
        (alter_byte, "b.txt: was altered"),
        (cut_short, "b.txt: was altered"),
        (lose_manifest, "has no manifest.json"),
        (halve_manifest, "manifest.json: is not readable as JSON"),
        (empty_manifest, "manifest.json: was altered"),
        (alter_a_count, "manifest.json: was altered"),
        (lose_an_entry, "manifest.json: was altered"),
    ],
)
def test_damage_is_named(tmp_path, damage, named):
    """In one line."""
    with store.atomic_folder(tmp_path / "f", {"rows": 3}) as new:
        fill(new)
    damage(tmp_path / "f")
    with pytest.raises(store.Damaged, match=named) as caught:
        store.verify(tmp_path / "f")
    assert "\n" not in str(caught.value)


def test_a_foreign_file_is_not_damage(tmp_path):
    """It is not removed, and nothing is made again for it: whose it is, is not known."""
    with store.atomic_folder(tmp_path / "f") as new:
        fill(new)
    add_a_file(tmp_path / "f")
    (tmp_path / "f" / ".DS_Store").write_text("of a file manager")
    with pytest.raises(store.Foreign, match=r"f/sub/c\.txt: is not among .*; remove it$"):
        store.made(lambda: store.verify(tmp_path / "f"), pytest.fail)


def test_an_absent_folder_is_not_damage(tmp_path):
    """Not made yet is another matter than made and broken."""
    with pytest.raises(FileNotFoundError):
        store.verify(tmp_path / "f")


def test_the_manifest_is_not_the_callers(tmp_path):
    """Two writers of one file would hide damage."""
    with pytest.raises(ValueError, match="manifest"), store.atomic_folder(tmp_path / "f") as new:
        (new / "manifest.json").write_text("{}")
    with pytest.raises(ValueError, match="manifest"):
        with store.atomic_folder(tmp_path / "g", {"files": {}}):
            pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["f", "f/g"])
def test_a_file_in_the_way_is_named(tmp_path, name):
    """Where a folder is to be."""
    (tmp_path / "f").write_text("")
    with pytest.raises(NotADirectoryError, match=r"f: is a file where a folder is expected"):
        with store.atomic_folder(tmp_path / name):
            pass
    with pytest.raises(NotADirectoryError, match=r"f: is a file where a folder is expected"):
        store.write_json(tmp_path / "f" / "x.json", {})


def test_a_link_to_nowhere_is_in_the_way(tmp_path):
    """It does not exist for Path.exists, and mkdir fails on it."""
    (tmp_path / "f").symlink_to(tmp_path / "absent")
    with pytest.raises(NotADirectoryError, match=r"f: is a file where a folder is expected"):
        store.make_folder(tmp_path / "f")


WRITER = """
import itertools, sys
from pathlib import Path
from lib import store
for number in itertools.count():
    with store.atomic_folder(Path(sys.argv[1]), {"number": number}) as new:
        for name in "abcdef":
            (new / name).write_text(str(number) * 1000)
    print(number, flush=True)
"""


def test_a_killed_writer_leaves_a_whole_folder_or_none(tmp_path):
    """SIGKILL at random moments: what is there verifies and is of one generation, and the next
    writer clears what the killed one left."""
    path, moments, found = tmp_path / "f", random.Random(0), 0
    for _ in range(8):
        writer = start(WRITER, path)
        writer.stdout.readline()
        time.sleep(moments.uniform(0, 0.03))
        writer.kill()
        writer.wait()
        try:
            number = store.verify(path)["number"]
            assert {f.read_text() for f in path.iterdir() if len(f.name) == 1} == {
                str(number) * 1000
            }
            found += 1
        except FileNotFoundError:
            pass  # killed between the two renames: not made, and not half made
    assert found
    with store.atomic_folder(path) as new:
        fill(new)
    assert not hidden(tmp_path)


SLOW = """
import sys
from pathlib import Path
from lib import store
with store.atomic_folder(Path(sys.argv[1]), {"slow": 1}) as new:
    (new / "a").write_text("slow")
    print("writing", flush=True)
    sys.stdin.read()
"""


def test_a_living_writer_keeps_its_folder(tmp_path):
    """Clearing leftovers must not take what another process is filling."""
    slow = start(SLOW, tmp_path / "f")
    assert slow.stdout.readline() == "writing\n"
    with store.atomic_folder(tmp_path / "f", {"quick": 1}) as new:
        fill(new)
    slow.communicate("")
    found = store.verify(tmp_path / "f")
    assert found["slow"] == 1 and list(found["files"]) == ["a"]


# --- parameters of a folder ---


def test_a_folder_remembers_its_parameters(tmp_path):
    """The same again is fine; the first that differs is named, added and dropped ones too."""
    store.remember(tmp_path / "f", {"alpha": 0.5, "seed": 1})
    store.remember(tmp_path / "f", {"alpha": 0.5, "seed": 1})
    for other, said in (
        ({"alpha": 0.25, "seed": 1}, "alpha 0.5, now 0.25"),
        ({"alpha": 0.5}, "seed 1, now absent"),
        ({"alpha": 0.5, "seed": 1, "new": 0}, "new absent, now 0"),
    ):
        with pytest.raises(ValueError, match=said):
            store.remember(tmp_path / "f", other)
        with pytest.raises(ValueError, match=said):
            store.remember(tmp_path / "f", other, may_change=("beta",))
    store.remember(tmp_path / "f", {"alpha": 0.5, "seed": 2}, may_change=("seed",))
    assert store.read_json(tmp_path / "f" / "params.json") == {"alpha": 0.5, "seed": 1}


# --- locks ---

HOLDER = """
import subprocess, sys, time
from pathlib import Path
from lib import store
with store.locked(Path(sys.argv[1])):
    if sys.argv[2] == "child":
        child = subprocess.Popen(["sleep", "20"])
        print(child.pid, flush=True)
    print("held", flush=True)
    time.sleep(float(sys.argv[3]))
print("let go", flush=True)
"""


def test_a_lock_waits_and_says_so_once(tmp_path):
    """The second holder starts when the first has ended."""
    first = start(HOLDER, tmp_path, "", 0.3)
    assert first.stdout.readline() == "held\n"
    said = []
    with store.locked(tmp_path, say=said.append):
        assert first.stdout.readline() == "let go\n"
    assert len(said) == 1 and f"in use by process {first.pid}" in said[0]
    first.wait()
    with store.locked(tmp_path, say=said.append):
        assert len(said) == 1


def test_a_lock_dies_with_its_process(tmp_path):
    """SIGKILL frees it, also while a program that the holder started lives on."""
    holder = start(HOLDER, tmp_path, "child", 20)
    child = int(holder.stdout.readline())
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(store.Busy, match=f"in use by process {holder.pid}"):
        with store.lock(tmp_path / ".lock"):
            pass
    holder.kill()
    holder.wait()
    os.kill(child, 0)  # alive
    with store.lock(tmp_path / ".lock"):
        pass
    os.kill(child, signal.SIGKILL)


def test_an_error_inside_a_lock_is_not_a_lock_error(tmp_path):
    """What the body raises comes through, and the lock is free again."""
    with pytest.raises(store.Busy, match="mine"), store.locked(tmp_path):
        raise store.Busy("mine")
    with store.lock(tmp_path / ".lock"):
        pass


# --- provenance ---


def test_provenance_says_what_and_where_but_not_who():
    """Plain JSON, with commit and versions; torch is not imported for it."""
    code = (
        "import json, sys\nfrom lib.training.provenance import provenance\n"
        "found = provenance({'alpha': 0.5})\n"
        "print(json.dumps([found, 'torch' in sys.modules]))"
    )
    process = start(code)
    found, torch = json.loads(process.communicate()[0])
    assert found["parameters"] == {"alpha": 0.5} and not torch
    assert found["packages"]["numpy"] and isinstance(found["dirty"], bool)
    assert found["commit"] is None or len(found["commit"]) == 40
    assert not {"host", "user", "node", "login"} & set(found)


def test_provenance_outside_a_repository(monkeypatch, tmp_path):
    """An unpacked archive has no commit, and that is no error."""
    monkeypatch.setattr("lib.training.provenance.ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert provenance({})["commit"] is None


def test_parameters_that_are_no_parameters_are_one_line():
    """A params.json of another JSON type is named, not a traceback."""
    assert store.difference([], {"steps": 1}) == "has a params.json that holds no parameters"
