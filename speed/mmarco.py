"""What preparing mMARCO costs: peak memory and seconds on generated files of its layout.

    python -m speed.mmarco [--passages 2000000] [--questions 120000] [--languages 3] [--folder DIR]

Builds, saves, reads back and indexes a corpus in a process of its own, whose peak resident memory
counts the mapped pages of the corpus as well; then the same with a tenth of the questions. DuckDB
fills its memory up to a fixed limit, so no line through both peaks tells that of full size.
The last line is one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from types import SimpleNamespace

import numpy as np

from lib.sources import mmarco

WORDS = 50  # of a passage: about 350 characters, as those of MS MARCO have


def generate(folder: Path, passages: int, questions: int, languages: list[str]) -> None:
    """Files of random words; a question has one passage and three triples."""
    rng = np.random.default_rng(0)
    words = [f"w{i:05}" for i in range(10_000)]
    for code in languages:
        draw, texts = rng.integers(0, len(words), 100_000 + WORDS), []
        for at in range(100_000):
            texts.append(" ".join(words[x] for x in draw[at : at + WORDS]))
        for form, count, size in (
            (mmarco.COLLECTION, passages, None),
            (mmarco.QUESTIONS, questions, 45),
        ):
            file = folder / form.format(mmarco.NAMES[code])
            file.parent.mkdir(parents=True, exist_ok=True)
            with open(file, "w", encoding="utf-8") as out:
                for x in range(count):
                    out.write(f"{x}\t{code} {x} {texts[x * 7919 % 100_000][:size]}\n")
    relevant = rng.permutation(passages)[:questions]
    with open(folder / mmarco.TRIPLES, "w", encoding="utf-8") as out:
        for _ in range(3):
            irrelevant = rng.integers(0, passages, questions)
            for row, (yes, no) in enumerate(
                zip(relevant.tolist(), irrelevant.tolist(), strict=True)
            ):
                out.write(f"{row}\t{yes}\t{no}\n")


def measure(folder: str, languages: list[str], limit: int) -> dict:
    """What one corpus costs; runs alone in its process."""
    from lib import store
    from lib.corpus import ParallelCorpus

    start = perf_counter()
    p = SimpleNamespace(
        study="speed", run="mmarco", folder=folder, languages=languages, limit=limit,
        hard_negatives=1, pool=1000, max_chars=2000, keep={}, fold=0, folds=1000,
    )  # fmt: skip
    outputs = Path(os.environ["BATCHES_OUTPUTS"])
    corpus = mmarco.build_corpus(p, Path(tempfile.mkdtemp(dir=outputs)))
    built, place = perf_counter() - start, outputs / "data"
    build_peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    with store.atomic_folder(place, corpus.meta) as new:
        corpus.save(new)
    corpus = ParallelCorpus.load(place)
    index = corpus.index
    return {
        "build_s": round(built, 1),
        "all_s": round(perf_counter() - start, 1),
        "build_peak_mib": round(build_peak),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "rows": len(corpus.rows),
        "pairs": len(index),
        "corpus_mib": round(sum(f.stat().st_size for f in place.rglob("*.arrow")) / 2**20),
    }


def measured(folder: Path, languages: list[str], limit: int) -> dict:
    """`measure` in a new process."""
    with tempfile.TemporaryDirectory(dir=folder) as outputs:
        work = json.dumps([str(folder), languages, limit])
        command = [sys.executable, "-m", "speed.mmarco", "--work", work]
        environment = os.environ | {"BATCHES_OUTPUTS": outputs}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Print the runs, then the JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--passages", type=int, default=2_000_000)
    parser.add_argument("--questions", type=int, default=120_000)
    parser.add_argument("--languages", type=int, default=3)
    parser.add_argument("--folder", help="where files are generated; default: a temporary folder")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.work:
        print(json.dumps(measure(*json.loads(asked.work))))
        return
    folder = Path(asked.folder or tempfile.mkdtemp(prefix="mmarco-"))
    try:
        report(folder, asked)
    finally:
        if not asked.folder:
            shutil.rmtree(folder, ignore_errors=True)


def report(folder: Path, asked: argparse.Namespace) -> None:
    """Both runs, a tenth of the questions first."""
    languages = list(mmarco.NAMES)[: asked.languages]
    start = perf_counter()
    generate(folder, asked.passages, asked.questions, languages)
    size = sum(f.stat().st_size for f in folder.rglob("*.tsv")) / 2**20
    print(f"{size:,.0f} MiB of files written in {perf_counter() - start:.0f} s", flush=True)
    small = measured(folder, languages, asked.questions // 10)
    print(f"{asked.questions // 10:,} questions: {small}", flush=True)
    whole = measured(folder, languages, 0)
    print(f"{asked.questions:,} questions: {whole}", flush=True)
    asked_for = {x: getattr(asked, x) for x in ("passages", "questions", "languages")}
    found = {"files_mib": round(size), "tenth": small, **whole}
    print(json.dumps({"speed": "mmarco", **asked_for, **found}))


if __name__ == "__main__":
    main()
