"""Parallel sentences: line-parallel text files, one a language, plain or .gz (NTREX, Tatoeba).

Line n of every file is pair n. A row is one pair in one language, so within a language question
and passage are the same sentence: such pairs teach, and test, only across languages. In a
monolingual batch they are solved by spelling alone, and monolingual figures on them mean nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from lib.corpus import ParallelCorpus
from lib.params import Prepare
from lib.sources import Source, files

SOURCE = Source(files=True)


def build_corpus(p: Prepare) -> ParallelCorpus:
    """The corpus of one fold. Lines that are the same in English (without
    it: in the first file) share a group, so that they never meet as each other's negative.

    Raises ValueError naming both counts where two files differ in length."""
    languages = files.by_language(p.files, p.languages)
    texts, first = aligned(p.files, languages)
    rows = [
        row for language, lines in texts.items() for row in _rows(language, lines, texts[first])
    ]
    return files.corpus(p, "bitext", languages, rows, Counter(), same_text=True)


def aligned(named: Mapping[str, str], languages: Iterable[str]) -> tuple[dict[str, list[str]], str]:
    """(language -> lines, the language by which lines are the same): of the languages asked for
    and of English, or the first one in its place.

    Raises ValueError naming both counts where two files differ in length."""
    every = files.by_language(named, ())
    first = "en" if "en" in every else min(every, default="")
    texts = {x: _lines(every[x]) for x in sorted({first, *languages} & every.keys())}
    for language, lines in texts.items():
        if len(lines) != len(texts[first]):
            raise ValueError(
                f"{every[language]} has {len(lines)} lines and {every[first]} {len(texts[first])} "
                "(expected as many: they are line-parallel)"
            )
    return texts, first


def look(p: Prepare) -> None:
    """Raises ValueError for a file that is a table or empty, or does not go with the languages."""
    for file in files.by_language(p.files, p.languages).values():
        if files.kind(file) in files.KINDS:
            raise ValueError(f"{file}: is a table by its name (expected lines of text)")
        if not any(files.lines(file)):
            raise ValueError(f"{file}: is empty")


def most_groups(p: Prepare) -> int | None:
    """The number of lines of a file: all have as many."""
    return files.rows_at_most(next(iter(p.files.values())))


def _lines(file: str) -> list[str]:
    return [text for _, text in files.lines(file)]


def _rows(language: str, lines: list[str], first: list[str]):
    groups: dict[str, str] = {}
    for number, (text, original) in enumerate(zip(lines, first, strict=True), 1):
        pair = f"{number:08d}"
        yield {
            "pair": pair,
            "language": language,
            "question": text,
            "passage": text,
            "passage_id": pair,
            "group": groups.setdefault(original, pair) if original.strip() else pair,
            "source": "bitext",
        }
