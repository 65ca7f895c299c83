"""SQuAD v1.1's training set, machine-translated for XTREME (arXiv 2003.11080) into the ten other
languages of XQuAD-R: the public stand-in for training data that papers kept to themselves.

Translations keep the ids of the English questions, which is checked and reported. Machine
translation moves answers: one that is not where its file says is searched for in its paragraph, and
a question whose answer is not there exactly once has no answer sentence; it is dropped and counted.

The English file is known by its sha256. For the translations no published hash was at hand when
this was written: they are trusted on first use, and their hash is kept beside them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from lib import store
from lib.corpus import ParallelCorpus
from lib.languages import language_code
from lib.params import Prepare
from lib.sources import Source, downloads, files, squad
from lib.sources.squad import Question

SOURCE = Source(folder=True, alone=True, articles=True)

LANGUAGES = ("ar", "de", "el", "en", "es", "hi", "ru", "th", "tr", "vi", "zh")
NAME = "squad.translate.train.en-{}.json"
URL = "https://storage.googleapis.com/xtreme_translations/SQuAD/translate-train/" + NAME
ENGLISH = "train-v1.1.json"
ENGLISH_URL = f"https://rajpurkar.github.io/SQuAD-explorer/dataset/{ENGLISH}"
ENGLISH_SHA256 = "3527663986b8295af4f7fcdff1ba1ff3f72d07d61a20f487cb238a6ef92fd955"
# A language in a file's name: the one of the bucket, or <language> alone.
FILE = re.compile(
    r"(?:squad\.translate\.train\.en-)?(?P<language>[A-Za-z]{2,3}([-_][A-Za-z0-9]+)*)"
    r"\.(?:jsonl?|parquet)(?:\.gz)?",
    re.IGNORECASE,
)


def build_corpus(p: Prepare) -> ParallelCorpus:
    """The corpus of one fold. p.folder holds the files (`de.jsonl.gz`,
    `de.json`, `de.parquet` or as in the bucket), or they are downloaded.

    meta["overlap"] says for each language how many of its ids are English ones, and of how many.
    Raises ValueError naming file and row; a file that shares no id with English is refused."""
    named = _folder(p.folder, p.languages) if p.folder else _public(p.languages)
    p = p.model_copy(update={"files": named})
    read = squad.read(p, search=True)
    overlap = _overlap(read, named)
    corpus = squad.corpus(p, "xtreme_squad", read)
    corpus.meta["overlap"] = overlap
    return corpus


def look(p: Prepare) -> None:
    """Raises ValueError for a folder that lacks a language, or a language that is not public."""
    if p.folder:
        for file in _folder(p.folder, p.languages).values():
            squad.look_at(file)
    for language in () if p.folder else p.languages:
        if language not in LANGUAGES:
            known = " ".join(LANGUAGES)
            raise ValueError(f"languages: XTREME's SQuAD has no {language} (it has: {known})")


def _folder(folder: str, languages: Iterable[str]) -> dict[str, str]:
    """Code -> file of the languages asked for (none: of all) and of English."""
    path = store.ROOT / folder
    if not path.is_dir():
        raise ValueError(f"{folder}: no such folder")
    paths: dict[str, str] = {}
    for file in sorted(path.iterdir()):
        if name := FILE.fullmatch(file.name):
            code = _code(name["language"], file)
            if code in paths:
                raise ValueError(f"{paths[code]} and {file.name} are both of language {code}")
            paths[code] = str(Path(folder) / file.name)
    if "en" not in paths:
        raise ValueError(f"{folder}: has no file of language en, whose ids the others share")
    try:
        return files.by_language(paths, {*languages, "en"} if languages else ())
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None


def _code(language: str, file: Path) -> str:
    try:
        return language_code(language)
    except ValueError as error:
        raise ValueError(f"{file}: {error} in its name") from None


def _public(languages: Iterable[str]) -> dict[str, str]:
    """Code -> downloaded file of the languages asked for (none: all) and of English."""
    paths = {"en": downloads.fetch(ENGLISH_URL, ENGLISH_SHA256, f"xtreme_squad/{ENGLISH}")}
    for language in languages or LANGUAGES:
        if language != "en":
            name = f"xtreme_squad/{NAME.format(language)}"
            paths[language] = downloads.fetch(URL.format(language), None, name)
    return {language: str(file) for language, file in paths.items()}


def _overlap(read: dict[str, list[Question]], named: dict[str, str]) -> dict[str, list[int]]:
    """language -> [ids that English has, ids]; printed too, a line a language."""
    english, counts = {question.id for question in read["en"]}, {}
    for language, questions in read.items():
        if language == "en":
            continue
        shared = sum(question.id in english for question in questions)
        if questions and not shared:
            raise ValueError(f"{named[language]}: shares no question id with {named['en']}")
        counts[language] = [shared, len(questions)]
        print(f"{language}: {shared} of {len(questions)} question ids are English ones")
    return counts
