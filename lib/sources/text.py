"""Text hygiene: one spelling for each text, and numbers that follow from a text alone.

Texts from outside come in several Unicode forms and with rows that teach nothing; every source
drops the same rows, for reasons that are counted.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache
from hashlib import sha256

# Controls that are not white space, the byte order mark, and halves of surrogate pairs, which no
# file can hold. Joiners and marks of direction stay: Persian, Hindi and Arabic are spelled with
# them.
CONTROL = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ufeff\ud800-\udfff]")


def number(text: str, below: int) -> int:
    """A number in [0, below) that depends on the text alone."""
    return int.from_bytes(sha256(text.encode()).digest()[:8], "big") % below


def share(text: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    return number(text, 1 << 53) / (1 << 53)


@lru_cache(maxsize=4096)  # neighbouring rows share their paragraph
def clean(text: str) -> str:
    """Text in NFC, without control characters, each run of white space one blank.

    >>> clean(" Cafe\\u0301\\t\\x00noir\\n")
    'Café noir'
    """
    return " ".join(unicodedata.normalize("NFC", CONTROL.sub("", text)).split())


def sift(
    rows: Iterable[dict], english: Mapping[str, str], max_chars: int, same_text: bool = False
) -> tuple[list[dict], Counter]:
    """Rows that can be trained on, with clean texts, and how many were dropped.

    english    pair -> its question in English, to tell what was left untranslated
    max_chars  the most characters of a question or passage
    same_text  whether question and passage may be one text (parallel sentences)
    Returns (rows, {(reason, language): number}); the reasons, the first that fits counting:
    empty, over-long, identical (question and passage), untranslated (question as in English)."""
    kept, dropped = [], Counter()
    for row in rows:
        row = row | {side: clean(row[side]) for side in ("question", "passage")}
        original = None if row["language"] == "en" else english.get(row["pair"])
        reason = _fault(row["question"], row["passage"], original, max_chars, same_text)
        if reason:
            dropped[reason, row["language"]] += 1
        else:
            kept.append(row)
    return kept, dropped


def _fault(question: str, passage: str, original: str | None, most: int, same: bool) -> str | None:
    """Why a row of clean texts is dropped; None: it stays."""
    if not question or not passage:
        return "empty"
    if max(len(question), len(passage)) > most:
        return "over-long"
    if question == passage and not same:
        return "identical"
    if original is not None and question == clean(original):
        return "untranslated"
    return None
