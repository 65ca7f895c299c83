"""Parallel documents: NTREX-128's news in 129 languages (Federmann, Kocmi and Xin 2022), or others
in its layout.

A folder has newstest2019-src.eng.txt and newstest2019-ref.<xxx>.txt, plain or .gz, line n of each
being the same sentence, and DOCUMENT_IDS.tsv, whose line n names its document.

passage "sentence"  question and passage are one sentence, so in batches that cross languages an
                    encoder learns translation ranking; in monolingual ones it has nothing to learn
passage "next"      the passage is the sentence after the question's, which no lexical overlap finds

Sentences of "next" go in twos, the third with the fourth of a document and not with the second, so
that no text is on both sides: else it would be a false negative of itself. An article of the corpus
is a document.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from lib import store
from lib.corpus import ParallelCorpus
from lib.languages import language_code
from lib.params import Prepare
from lib.sources import Source, bitext, files

SOURCE = Source(folder=True, articles=True)

FILE = re.compile(r"newstest2019-(?:src|ref)\.(?P<language>[A-Za-z-]+)\.txt(?:\.gz)?")
DOCUMENTS = "DOCUMENT_IDS.tsv"


def build_corpus(p: Prepare) -> ParallelCorpus:
    """The corpus of one fold. Lines that are the same in English share a group, so that they never
    meet as each other's negative.

    Raises ValueError naming both counts where two files differ in length."""
    named = _named(p.folder)
    languages = files.by_language(named, p.languages)
    texts, first = bitext.aligned(named, languages)
    document = _documents(p.folder, len(texts[first]))
    asked, found = _twos(document) if p.passage == "next" else [range(len(document))] * 2
    rows = [
        row
        for language, lines in texts.items()
        for row in _rows(language, lines, texts[first], document, zip(asked, found, strict=True))
    ]
    p = p.model_copy(update={"files": languages | {DOCUMENTS: f"{p.folder}/{DOCUMENTS}"}})
    return files.corpus(p, "ntrex", languages, rows, Counter(), p.passage == "sentence")


def available(p: Prepare) -> list[str]:
    """All languages of the folder."""
    return sorted(_named(p.folder))


def look(p: Prepare) -> None:
    """Raises ValueError for a folder without files, documents or a language, and for paragraphs."""
    if p.passage == "paragraph":
        raise ValueError("passage: 'paragraph' does not go with ntrex (expected sentence or next)")
    files.by_language(_named(p.folder), p.languages)
    if not (store.ROOT / p.folder / DOCUMENTS).is_file():
        raise ValueError(f"{p.folder}/{DOCUMENTS}: no such file (expected a document a line)")


def _named(folder: str) -> dict[str, str]:
    """Code -> file of every language in the folder; second translations (ref-2) are left aside. Of
    several files of a language the last by name: English as it was written, and not a reference in
    it, Portuguese of Portugal, and not of Brazil."""
    if not folder:
        raise ValueError("folder: is empty; NTREX is not downloaded (expected its folder)")
    path, named = store.ROOT / folder, {}
    for file in sorted(path.iterdir()) if path.is_dir() else ():
        if name := FILE.fullmatch(file.name):
            try:
                named[language_code(name["language"])] = str(Path(folder) / file.name)
            except ValueError as error:
                raise ValueError(f"{folder}/{file.name}: {error} in its name") from None
    if not named:
        raise ValueError(f"{folder}: has no files newstest2019-ref.<xxx>.txt")
    return named


def _documents(folder: str, sentences: int) -> list[str]:
    """The document of each sentence."""
    file = f"{folder}/{DOCUMENTS}"
    names = [text.strip() for _, text in files.lines(file)]
    if len(names) != sentences:
        raise ValueError(f"{file} has {len(names)} lines (expected {sentences}, one a sentence)")
    return names


def _twos(document: Sequence[str]) -> tuple[list[int], list[int]]:
    """(first, second) line numbers of the twos; of a document with an odd number the last is left.

    >>> _twos(["a", "a", "a", "b", "b"])
    ([0, 3], [1, 4])"""
    firsts, free = [], 0
    for line in range(1, len(document)):
        if document[line] == document[line - 1] and line - 1 >= free:
            firsts.append(line - 1)
            free = line + 1
    return firsts, [line + 1 for line in firsts]


def _rows(
    language: str,
    lines: Sequence[str],
    english: Sequence[str],
    document: Sequence[str],
    twos: Iterator[tuple[int, int]],
) -> Iterator[dict]:
    groups: dict[str, str] = {}
    for asked, found in twos:
        pair, original = f"{asked + 1:08d}", english[asked]
        yield {
            "pair": pair,
            "language": language,
            "question": lines[asked],
            "passage": lines[found],
            "passage_id": f"{found + 1:08d}",
            "group": groups.setdefault(original, pair) if original.strip() else pair,
            "article": document[asked],
            "source": "ntrex",
        }
