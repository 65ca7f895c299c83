"""Damage any file of a finished study at random, start it again, and compare: the same tables, or a
named refusal, but never a wrong figure.

    python tests/damage_study.py --rounds 30 [--seed 0]

The study is the toy study of tests/test_study.py, real notebooks and all. In a round one to three
files have a bit flipped, are cut short, are deleted, or get the content of another one; then
`make study` is started until it ends well, three times at most. Each start has to end with status
0 and the tables of before, or with another status and a line that names a damaged file; of what no
table is made of (pages, figures, notebooks), presence is compared.
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from test_study import finish, flip, start

UNREAD = ("logs", ".snakemake", "inputs.json", ".lock")


def damage(file: Path, files: list[Path], own: random.Random) -> str:
    """Do one thing to a file; what, in words."""
    how = own.choice(["flip", "cut", "delete", "swap"]) if file.stat().st_size else "delete"
    match how:
        case "flip":
            flip(file, own.random())
        case "cut":
            file.write_bytes(file.read_bytes()[: own.randrange(file.stat().st_size)])
        case "delete":
            file.unlink()
        case "swap":
            file.write_bytes(own.choice(files).read_bytes())
    return f"{how} {file.name}"


def tables(folder: Path) -> dict[str, bytes]:
    return {f.name: f.read_bytes() for f in sorted(folder.glob("report/tables/*.csv"))}


def names(folder: Path) -> set[str]:
    """The study's files that stay the same from start to start."""
    found = {f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file()}
    return {name for name in found if not any(word in name for word in UNREAD)}


def round_of(folder: Path, own: random.Random) -> list[str]:
    """Damage, start again, compare; what was seen, a line each. Raises AssertionError."""
    study, seen = folder / "outputs/toy", []
    before, there = tables(study), names(study)
    files = sorted(f for f in study.rglob("*") if f.is_file())
    chosen = own.sample(files, own.randint(1, 3))
    seen += [f"  {damage(f, files, own)} ({f.relative_to(study).parent})" for f in chosen]
    for _ in range(3):
        process = start(folder)
        said = process.communicate(timeout=600)[0]
        assert tables(study) == before or process.returncode, said
        if not process.returncode:
            lost = there - names(study)
            assert not lost, f"not made again: {lost}\n{said}"
            return [*seen, "  same tables"]
        last = said.splitlines()[-1]
        assert "Traceback" not in said and any(f.name in said for f in chosen), said
        seen.append(f"  refused: {last.strip()[:160]}")
    raise AssertionError("\n".join(["no start ended well", *seen]))


def main(rounds: int, seed: int) -> int:
    own = random.Random(seed)
    with TemporaryDirectory() as place:
        finish(start(Path(place)))
        for number in range(rounds):
            print(f"round {number + 1}", *round_of(Path(place), own), sep="\n", flush=True)
    print(f"{rounds} rounds, none ended in another figure")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    sys.exit(main(options.rounds, options.seed))
