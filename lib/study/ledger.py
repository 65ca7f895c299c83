"""A study's ledger: what of it outlives its machine, kilobytes a run, kept with its report.

The ledger has the study's own folders without models, scores, texts and notebooks: parameters,
hashes of inputs, cost, what was seen, and the sums that all of the analysis reads. From it alone
the report is made again, and another machine takes finished runs from it and does the rest.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from lib import store
from lib.params import DRIVEN, BadParameter
from lib.study import grid, inputs, paths, seal
from lib.study.plan import NOTEBOOKS, Job, plan, shown

KEPT = {
    "corpus": ("params.json", "inputs.json", "data/manifest.json"),
    "runs": (
        "params.json", "inputs.json", "exposure.json", "cost.json", "provenance.json",
        "model/manifest.json", "metrics.json", "sums/**/*", "gradients/*.json",
    ),
}  # fmt: skip
REFERENCES = ("sums.parquet", "cells.parquet", "leaks.parquet")
OF_STUDY = ("study.json", "tuning.csv")
TAKEN = "ledger.json"  # in a study's folder: where runs of it were taken from
STAGES = {"corpus": ("prepare",), "runs": ("train", "evaluate")}


def write(study: str) -> Path:
    """Write what is finished of a study below outputs/reference/<study>/ledger, and its path.

    Raises BadParameter where no run is."""
    place, folders = paths.outputs() / "reference" / study / "ledger", _by_study(study)
    finished = [key for kind, key in folders if kind == "runs" and _is_whole(folders[kind, key])]
    if not finished:
        raise BadParameter(f"study {study}: no run is finished, so there is no ledger to write")
    corpora = {folders["runs", key][0].params.corpus for key in finished}
    for kind, keys in (("corpus", sorted(corpora)), ("runs", finished)):
        for key in keys:
            _keep(kind, folders[kind, key], place / kind / key)
    for name in OF_STUDY:
        if (file := paths.study_dir(study) / name).exists():
            shutil.copyfile(file, place / name)
    return place


def _by_folder(jobs: Iterable[Job]) -> dict[tuple[str, str], list[Job]]:
    """(corpus or runs, key) -> the jobs of that folder, in order."""
    found: dict[tuple[str, str], list[Job]] = {}
    for job in jobs:
        for kind, stages in STAGES.items():
            if job.stage in stages:
                found.setdefault((kind, job.key), []).append(job)
    return found


def _by_study(study: str) -> dict[tuple[str, str], list[Job]]:
    return _by_folder(plan(grid.load_frozen(study)))


def _is_whole(jobs: list[Job]) -> bool:
    return all(job.recorded() and not job.faults() for job in jobs)


def _keep(kind: str, jobs: list[Job], target: Path) -> None:
    """One folder of a study as the ledger has it, with the stamps of its stages."""
    source = jobs[0].folder
    stamps = {j.stage: {k: j.recorded()[k] for k in ("stamp", "seconds")} for j in jobs}
    if target.is_dir() and store.verify(target).get("stamps") == stamps:
        return
    if kind == "runs":
        store.verify(source / "sums")  # what else lies there would be kept with it
    with store.atomic_folder(target, {"stamps": stamps}) as new:
        _copy(seal.files(source, KEPT[kind]), new)
        for folder in sorted(f.parent for f in source.glob("benchmarks/*/manifest.json")):
            manifest = store.verify(folder)
            about = {name: manifest[name] for name in ("made_from", "unused")}
            with store.atomic_folder(new / "benchmarks" / folder.name, about) as own:
                _copy({name: folder / name for name in REFERENCES}, own)


def _copy(files: dict[str, Path], target: Path) -> None:
    for name, path in files.items():
        store.make_folder((target / name).parent)
        shutil.copyfile(path, target / name)


# --- read --------------------------------------------------------------------------------------


def restore(place: str) -> str:
    """Lay out the study of a ledger below outputs/, as far as a report needs it; its name.

    place: the folder that has ledger/. What was made here is left alone. Raises BadParameter where
    it has none, or not all of its study, or where outputs/ has a study of that name already;
    store.Damaged for a ledger that is not as it was written. Nothing is left of a study then."""
    source = _ledger(place)
    study = _name(source)
    folder = paths.study_dir(study)
    new = not any((folder / name).exists() for name in ("study.json", *KEPT, TAKEN))
    if not new and not (folder / TAKEN).exists():
        raise BadParameter(f"{shown(folder)}: is there already (expected no such folder)")
    require_named(study, place)
    try:
        store.make_folder(paths.report_dir(study))
        _copy({name: source / name for name in OF_STUDY if (source / name).exists()}, folder)
        wanted = _by_study(study)
        _require_whole(source, wanted, place)
        store.write_json(folder / TAKEN, {"from": place})
        for (kind, key), jobs in wanted.items():
            if not _made_here(jobs):
                _take(source / kind / key, jobs)
    except BaseException:
        if new:
            shutil.rmtree(folder)
        raise
    return study


def _name(source: Path) -> str:
    """The study of a ledger, whatever its folder is called."""
    try:
        return grid.study_name(store.read_json(source / "study.json")["analyse"]["study"])
    except (KeyError, TypeError):
        raise store.Damaged(f"{source / 'study.json'}: names no study") from None


def _require_whole(source: Path, wanted: Iterable[tuple[str, str]], place: str) -> None:
    """Raises BadParameter where a ledger lacks a run or corpus, store.Damaged where one is not as
    it was written."""
    for kind, key in wanted:
        if not (source / kind / key).is_dir():
            raise BadParameter(f"{place}: lacks {kind}/{key} (expected all; `run --from` makes it)")
        _stamps(source / kind / key)


def _stamps(folder: Path) -> dict[str, dict]:
    """Those of a ledger's folder, which is verified."""
    manifest = store.verify(folder)
    if "stamps" not in manifest:
        raise store.Damaged(f"{folder / 'manifest.json'}: is not of a ledger")
    return manifest["stamps"]


def _made_here(jobs: list[Job]) -> bool:
    """Whether a stage of a folder ran here: a ledger has no notebooks."""
    return any(jobs[0].folder.glob("*.ipynb"))


def at_hand(study: str) -> bool:
    """Whether a study's scores are below outputs/, out of the ledger kept with the project where it
    did not run here."""
    folder, place = paths.study_dir(study), paths.outputs() / "reference" / study
    if folder.is_dir() and not (folder / TAKEN).exists():
        return True
    if (place / "ledger").is_dir():
        restore(str(place))
        return True
    return False


def require_named(study: str, place: str) -> None:
    """Raises BadParameter where a study has runs of a ledger that is not named: without a ledger
    every run is made here."""
    file = paths.study_dir(study) / TAKEN
    known = store.read_json(file).get("from", "") if file.exists() else place
    if (store.ROOT / known).resolve() != (store.ROOT / place).resolve():
        raise BadParameter(
            f"{shown(file.parent)}: has runs taken from {known} (expected FROM={known}, or "
            "`make clean` to make all of them here)"
        )


def missing(place: str, jobs: Iterable[Job]) -> list[str]:
    """Keys of the runs that a ledger lacks. Raises BadParameter for one that was made otherwise."""
    jobs, lacking = [*jobs], []
    kept = _kept(_ledger(place), jobs)
    for (kind, key), own in _by_folder(jobs).items():
        if kind == "runs" and (kind, key) not in kept:
            lacking.append(key)
        elif kind == "runs":
            stamps = _stamps(kept[kind, key])
            for job in own:
                if stamps[job.stage]["stamp"] != job.stamp:
                    raise BadParameter(f"{place}: run {key} {_difference(kept[kind, key], job)}")
    return lacking


def _kept(source: Path, jobs: Iterable[Job]) -> dict[tuple[str, str], Path]:
    """(corpus or runs, key) -> what a ledger has for it: the folder that has the stamps of its
    jobs, whatever its key is there, or else the one of its key."""
    stamped = {}
    for kind, stages in STAGES.items():
        for manifest in sorted((source / kind).glob("*/manifest.json")):
            if stamps := store.read_json(manifest).get("stamps"):  # verified where it is taken
                stamped[kind, *(stamps[stage]["stamp"] for stage in stages)] = manifest.parent
    found = {
        (kind, key): stamped.get((kind, *(job.stamp for job in own)), source / kind / key)
        for (kind, key), own in _by_folder(jobs).items()
    }
    return {which: folder for which, folder in found.items() if folder.is_dir()}


def _difference(own: Path, job: Job) -> str:
    """What makes a run of the ledger another one than is asked for."""
    asked = job.ancestors[-1].params if job.stage == "evaluate" else job.params
    named = {where.split(".")[1].split("[")[0] for where in inputs.named(asked)}
    clash = store.difference(
        store.read_json(own / "params.json"),
        asked.known(),
        {*DRIVEN, *asked.may_change, *named},
    )
    what = "benchmarks" if job.stage == "evaluate" else "inputs"
    return clash or f"was made with other {what}, or another {NOTEBOOKS[job.stage]}"


def adopt(place: str, jobs: list[Job]) -> int:
    """Take from a ledger the runs, and the corpora that are not there; how many runs.

    What a study has itself is left alone. Corpora without their texts serve the analysis alone."""
    kept = _kept(_ledger(place), jobs)
    wanted = {
        which: own
        for which, own in _by_folder(jobs).items()
        if which in kept and not own[-1].ok.exists()
    }
    taken = sum(kind == "runs" for kind, _ in wanted)
    if taken:
        store.write_json(jobs[0].study_folder / TAKEN, {"from": place})
        for which, own in wanted.items():
            _take(kept[which], own)
    return taken


def _ledger(place: str) -> Path:
    source = store.ROOT / place / "ledger"
    if not (source / "study.json").is_file():
        raise BadParameter(f"{place}: has no ledger (expected a folder with ledger/study.json)")
    return source


def _take(source: Path, jobs: list[Job]) -> None:
    """Copy one folder of a ledger to where its jobs have it, with stamps that hold."""
    if not source.is_dir():
        return
    stamps, folder = _stamps(source), jobs[0].folder
    files = {path.relative_to(source).as_posix(): path for path in store.files(source)}
    files.pop("manifest.json", None)
    _copy(files, folder)
    store.write_json(folder / "params.json", jobs[0].params.known())
    for job in jobs:
        job.record(job.stamp, stamps[job.stage]["seconds"])
