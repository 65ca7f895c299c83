"""Tatoeba, the test of parallel sentences: is a sentence's nearest neighbour its translation?

112 languages against English, in LASER's layout (Artetxe and Schwenk 2019, arXiv 1812.10464): the
files tatoeba.<xxx>-eng.<xxx> and tatoeba.<xxx>-eng.eng, line by line parallel, up to 1,000 lines.
Each pair has English sentences of its own, so there is no pool of all languages: a language is
searched within its pair, and figures of two languages are not strictly comparable.

What is published, by direction: LASER gives both; mteb's Tatoeba task searches the English side
(to_en) and its main score is F1; XTREME's script searches the other language's side for each
English sentence (from_en) and counts accuracy, in 36 languages. All of them judge by line number:
the same words on another line are wrong. (No file of the published set has a line twice.)
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lib import store
from lib.benchmarks import Format, Task
from lib.languages import language_code
from lib.params import BenchmarkSpec
from lib.search import tiles
from lib.sources import files
from lib.sources.files import Tally
from lib.sources.text import clean

FORMAT = Format(measures=("accuracy", "f1"), folder=True, in_memory=False, own_names=True)

FILE = re.compile(r"tatoeba\.(?P<name>[a-z]{3})-eng\.(?P=name)")


@dataclass(frozen=True)
class Score:
    """Of one direction. accuracy: share of sentences whose translation is nearest; f1: see
    `_direction`."""

    accuracy: float
    f1: float


def pairs(spec: BenchmarkSpec) -> Iterator[tuple[str, list[str], list[str]]]:
    """(Tatoeba's name of the language, its sentences, the English ones) of every pair asked for.

    spec.folder     relative to the project's root
    spec.languages  Tatoeba's names (`ber`) or any usual codes (`zh`: `cmn`; `dtp`: `dtp` and
                    `kzj`, which have one code); [] is all
    Pairs of which a side is empty are left out, and said. Raises ValueError naming the file, also
    for sides of different length."""
    tally = Tally()
    for name in _wanted(spec.folder, spec.languages):
        stem = f"{spec.folder.rstrip('/')}/tatoeba.{name}-eng"
        sources, targets = _lines(f"{stem}.{name}"), _lines(f"{stem}.eng")
        if len(sources) != len(targets):
            raise ValueError(
                f"{stem}.{name} has {len(sources)} lines and {stem}.eng {len(targets)} "
                "(expected as many: they are line-parallel)"
            )
        pairs = list(zip(sources, targets, strict=True))
        for row, sides in enumerate(pairs, 1):
            if not all(sides):
                tally.add("pairs with an empty side left out", f"{stem}.{name}: row {row}")
        kept = [sides for sides in pairs if all(sides)]
        if not kept:
            raise ValueError(f"{stem}.{name}: has no sentences")
        yield name, *map(list, zip(*kept, strict=True))
    tally.tell("tatoeba")


def look(spec: BenchmarkSpec) -> None:
    """Raises ValueError for what `pairs` would not find."""
    for name in _wanted(spec.folder, spec.languages):
        for side in (name, "eng"):
            if not (store.ROOT / spec.folder / f"tatoeba.{name}-eng.{side}").is_file():
                raise ValueError(f"{spec.folder}/tatoeba.{name}-eng.{side}: no such file")


def code(name: str) -> str:
    """The project's code of a Tatoeba language; "" for one that CLDR does not know (`ber`).

    Two languages may have one code: `dtp` and `kzj` are both `dtp`."""
    try:
        return language_code(name)
    except ValueError:
        return ""


def score(source_vectors: np.ndarray, target_vectors: np.ndarray) -> tuple[Score, Score]:
    """(source to target, target to source) of float vectors [n, d] each, row i parallel to row i.

    Scores are the project's own (lib.search.tiles), ties its rule of mid-ranks: a sentence is
    right only if its translation alone is nearest (rank 1), so that neither order nor chance can
    help an encoder that gives many sentences one vector. mteb and XTREME take the first of equals;
    without ties all agree. Holds [n, n] int32. Raises ValueError where the two differ in length."""
    if len(source_vectors) != len(target_vectors) or not len(source_vectors):
        raise ValueError(
            f"{len(source_vectors)} source and {len(target_vectors)} target vectors "
            "(expected as many, at least one)"
        )
    scores = np.concatenate([block for _, block in tiles(source_vectors, target_vectors)])
    return _direction(scores), _direction(scores.T)


def _direction(scores: np.ndarray) -> Score:
    """Accuracy and F1 of whole-number scores [n, n], row i's right column being i.

    F1 as in mteb: scikit-learn's f1_score(average="weighted") with every line a class. A class has
    one example, so its F1 is 2 / (1 + c) if found, c being how often its column is the answer to
    any row, and 0 if not; their mean is punished for columns that are near to everything."""
    best = scores.max(axis=1, keepdims=True)
    sole = (scores == best).sum(axis=1) == 1
    answer = scores.argmax(axis=1)
    correct = sole & (answer == np.arange(len(scores)))
    times = np.bincount(answer[sole], minlength=len(scores))
    return Score(float(correct.mean()), float((2 * correct / (1 + times)).mean()))


def evaluate(task: Task) -> pd.DataFrame:
    """One row a language and direction: name, language, direction (to_en: English is searched;
    from_en: the other way), sentences, accuracy, f1.

    Both sides are encoded as "question": the task is symmetric, and encoders with prompts (E5)
    prescribe the question's for both sides then."""
    rows = []
    for name, *sides in pairs(task.spec):
        scores = score(*(task.encode(side, "question") for side in sides))
        for direction, one in zip(("to_en", "from_en"), scores, strict=True):
            rows.append((name, code(name), direction, len(sides[0]), one.accuracy, one.f1))
    columns = ["name", "language", "direction", "sentences", "accuracy", "f1"]
    return pd.DataFrame(rows, columns=columns)


def _wanted(folder: str, languages: list[str]) -> list[str]:
    """Tatoeba's names of the languages asked for, sorted."""
    if not folder:
        raise ValueError("folder: is empty; Tatoeba is not downloaded (expected its folder)")
    if not (store.ROOT / folder).is_dir():
        raise ValueError(f"{folder}: no such folder")
    matches = (FILE.fullmatch(file.name) for file in (store.ROOT / folder).iterdir())
    names = sorted(match["name"] for match in matches if match)
    if not names:
        raise ValueError(f"{folder}: holds no files tatoeba.<xxx>-eng.<xxx>")
    return sorted({name for label in languages for name in _named(folder, label, names)}) or names


def _named(folder: str, label: str, names: list[str]) -> list[str]:
    """The names that a name or code stands for; `dtp` is one of its own and the code of `kzj`."""
    wanted = label if label in names else code(label)
    if same := [name for name in names if wanted and wanted in (name, code(name))]:
        return same
    raise ValueError(f"{folder}: has no pair of language {label!r} (there are: {' '.join(names)})")


def _lines(file: str) -> list[str]:
    return [clean(text) for _, text in files.lines(file)]
