"""The files and folders that a study names: what is in them is part of its identity.

Hashes are remembered in outputs/<study>/inputs.json, so that a start costs a look at each file.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from lib import benchmarks, sources, store
from lib.params import BadParameter, Evaluate, Prepare, Stage, Train
from lib.sources import hashes
from lib.store import ROOT
from lib.study import paths
from lib.training import packaged, pretrained

if TYPE_CHECKING:
    from lib.study.grid import Study

FILE = "inputs.json"
FILES = ("prepare.files", "prepare.lexicon")  # what names files, not folders
ABOUT = re.compile(
    r"\.|(readme|licen[cs]e|notice)(\.\w+)?$|.*\.md$", re.IGNORECASE
)  # read by people


def named(p: Stage) -> dict[str, str]:
    """Where parameters name a file or folder of this machine -> its path, as it is written there.

    Of checkpoints only what is a path, or a folder here: the others are names on a hub."""
    match p:
        case Prepare():
            found = {f"prepare.files[{label}]": file for label, file in p.files.items()}
            found |= {f"prepare.lexicon[{code}]": file for code, file in p.lexicon.items()}
            found |= {"prepare.folder": p.folder, "prepare.translator": _local(p.translator)}
        case Train():
            found = {"train.model": _local(p.model)}
        case Evaluate():
            specs = p.benchmarks.items()
            found = {f"evaluate.benchmarks[{name}].folder": spec.folder for name, spec in specs}
        case _:
            found = {}
    return {where: path for where, path in found.items() if path}


def _local(checkpoint: str) -> str:
    """The checkpoint's name where it is not a hub's or a package's."""
    if checkpoint == packaged.NAME:
        return ""
    is_path = checkpoint.startswith(("/", "./", "../"))
    return checkpoint if is_path or (checkpoint and (ROOT / checkpoint).exists()) else ""


def stages(study: Study) -> list[Stage]:
    """The parameters of all stages of a study; of those that name the same inputs one."""
    every: list[Stage] = [*study.corpora.values()]
    every += [p for run in study.runs.values() for p in (run.train, run.evaluate)]
    return list({json.dumps(named(p)): p for p in every}.values())


# --- what can be known before the first stage --------------------------------------------------


def check_paths(study: Study) -> None:
    """Raise BadParameter for a file or folder that a study names and that is not there: said before
    hours of training and not after. Names of checkpoints on a hub are not looked up."""
    for p in stages(study):
        for where, path in named(p).items():
            kind = "file" if where.startswith(FILES) else "folder"
            if not (ROOT / path).exists():
                raise BadParameter(f"{where}: {path}: no such file or folder")
            if (ROOT / path).is_dir() != (kind == "folder"):
                raise BadParameter(f"{where}: {path}: is not a {kind} (expected one)")


def check_beginnings(study: Study) -> None:
    """Raise BadParameter for files and checkpoints that cannot be used, as far as their beginnings
    and their configuration show it, and for batches that no corpus of them can fill."""
    most = _most_groups(study)
    for p in stages(study):
        for name, spec in p.benchmarks.items() if isinstance(p, Evaluate) else ():
            try:
                benchmarks.look(spec)
            except ValueError as error:
                raise BadParameter(f"evaluate.benchmarks[{name}]: {error}") from None
    for run in study.runs.values():
        try:
            pretrained.check(run.train)
        except ValueError as error:
            raise BadParameter(f"train.model: {error}") from None
        _check_batch(run.train, most[run.train.corpus])


def _most_groups(study: Study) -> dict[str, int | None]:
    """Key of each corpus -> sources.most_groups; folds of one corpus are looked at once."""
    seen: dict[str, int | None] = {}
    found = {}
    for key, p in study.corpora.items():
        but_fold = p.model_dump_json(exclude={"run", "fold"})
        try:
            if but_fold not in seen:
                sources.look(p)
                seen[but_fold] = sources.most_groups(p)
        except ValueError as error:
            raise BadParameter(f"prepare: {error}") from None
        found[key] = seen[but_fold]
    return found


def _check_batch(p: Train, most: int | None) -> None:
    if p.steps and most is not None and p.batch_size > most:
        raise BadParameter(
            f"train.batch_size: {p.batch_size} is more than there can be groups to train on "
            f"({most}), of which a batch has one each (expected fewer)"
        )


# --- what is in them ---------------------------------------------------------------------------


def contents(p: Stage) -> dict[str, str]:
    """Path -> hash of what is in it, of all that the parameters name and that is there."""
    paths_named = sorted({path for path in named(p).values() if (ROOT / path).exists()})
    with hashes.remembered(remembered(p.study)) as sha256:
        return {path: _digest(ROOT / path, sha256) for path in paths_named}


def remembered(study: str) -> Path:
    """The file in which a study's hashes are remembered (lib.sources.hashes)."""
    return paths.study_dir(study) / FILE


def _digest(path: Path, sha256: Callable[[Path], str]) -> str:
    """sha256 of a file; of a folder, that of its files' names and hashes."""
    if path.is_file():
        return sha256(path)
    return store.digest({f.relative_to(path).as_posix(): sha256(f) for f in _below(path)})


def _below(folder: Path) -> list[Path]:
    """Files in a folder and in those that links lead to, but hidden ones and texts about it."""
    found, seen = [], set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        folders[:] = [] if real in seen else [x for x in folders if not x.startswith(".")]
        found += [] if real in seen else [Path(place, x) for x in names if not ABOUT.match(x)]
        seen.add(real)
    return sorted(found)


def remember(folder: Path, p: Stage) -> None:
    """store.remember the parameters, and what is in the files that they name.

    Raises ValueError naming the first parameter, or file, that is another now."""
    store.remember(folder, p.known(), p.may_change)
    found = contents(p)
    if clash := changed(folder, found):
        raise ValueError(f"{folder}: {clash}; remove that folder or choose another run name")
    if found:
        store.write_json(folder / FILE, found)


def forget_unmade(folder: Path) -> None:
    """Forget what a corpus was asked for while nothing of it is made: a file that was refused may
    be mended, and what is asked may change."""
    if folder.is_dir() and not (folder / "data" / "manifest.json").exists():
        for name in ("params.json", FILE):
            (folder / name).unlink(missing_ok=True)


def changed(folder: Path, found: dict[str, str]) -> str:
    """The first input that is not as it was when the folder was begun, in words; "" if none is."""
    if not (folder / FILE).exists():
        return ""
    recorded = store.read_json(folder / FILE)
    for path, digest in found.items():
        if recorded.get(path, digest) != digest:
            return f"was made from {path} as it was before it changed"
    return ""
