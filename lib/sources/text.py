"""Text hygiene: one spelling for each text, its words, and numbers that follow from it alone.

Texts from outside come in several Unicode forms and with rows that teach nothing; every source
drops the same rows, for reasons that are counted. What a word is, and when two spellings are one,
is said here for all that counts or compares words.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from hashlib import sha256

import regex

# Controls that are not white space, the byte order mark, and halves of surrogate pairs, which no
# file can hold. Joiners and marks of direction stay: Persian, Hindi and Arabic are spelled with
# them.
CONTROL = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ufeff\ud800-\udfff]")

# Soft hyphens, joiners, marks of direction, variation selectors: none of them makes another word. A
# zero-width space does: Khmer and Thai are divided by it.
_IGNORED = regex.compile(r"(?V1)[\p{Default_Ignorable_Code_Point}--\u200b]")
_DOTS = re.compile("(?<=i)\u0307+")
# What Unicode breaks by a dictionary (line breaking class SA: Thai, Lao, Khmer, Burmese, ...).
_DENSE = r"\p{LB=SA}"
_EAST_ASIAN = r"\p{scx=Han}\p{scx=Hiragana}\p{scx=Katakana}\p{scx=Bopomofo}\p{scx=Yi}"
_LETTER, _UNSPACED = r"[\p{L}\p{M}\p{N}]", f"[{_DENSE}{_EAST_ASIAN}]"
_RUN = regex.compile(
    rf"(?V1)((?:[{_LETTER}&&{_UNSPACED}]\p{{M}}*+)++)|(?:[{_LETTER}--{_UNSPACED}]\p{{M}}*+)++"
)
_CHARACTER = regex.compile(r"(?s).\p{M}*+")
_DENSE_WORD = regex.compile(_DENSE)


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


def heading(title: str) -> str:
    """A title in the one spelling by which articles are known, whatever file names them.

    >>> heading("Sky_(United_Kingdom)")
    'sky (united kingdom)'
    """
    return fold(clean(title.replace("_", " ")))


# --- words -------------------------------------------------------------------------------------


def fold(text: str) -> str:
    """What two spellings of one text have in common: Unicode's NFKC_Casefold (UAX 31), and dots on
    an i are left out, since they are its own.

    So case, width, ligatures and order of marks play no part, nor do joiners and soft hyphens. The
    Turkish capital with a dot is an i; the small letter without one stays another letter, and its
    capital, which is that of English i too, is taken for that. Folding twice changes nothing.

    >>> fold("ﬁn STRASSE Straße \u0130zmir co\u00adop")
    'fin strasse strasse izmir coop'
    """
    if text.isascii():
        return text.lower()
    text = unicodedata.normalize("NFD", _IGNORED.sub("", text)).casefold()
    text = unicodedata.normalize("NFKC", text).casefold()
    return unicodedata.normalize("NFKC", _DOTS.sub("", text))


def runs(text: str) -> Iterator[tuple[str, bool]]:
    """(run, whether its script writes no spaces between words) of the folded text: what stands
    together of letters, marks and digits, cut where such a script begins or ends.

    >>> list(runs("Wo liegt 北京?"))
    [('wo', False), ('liegt', False), ('北京', True)]
    """
    return ((run[0], run[1] is not None) for run in _RUN.finditer(fold(text)))


def words(text: str) -> list[str]:
    """The words of the folded text: runs of letters, marks and digits.

    Where a script writes no spaces between words, which only a dictionary could find, each
    character with its marks is a word: Han, kana, Bopomofo and Yi (by Script_Extensions), and Thai,
    Lao, Khmer, Burmese and their kin (line breaking class SA). Apostrophes divide words, on both
    sides of a comparison alike; those that are letters (Hawaiian, Breton c\u02bch) do not.

    >>> words("The CAT’s 2 m, 東京! की का के")
    ['the', 'cat', 's', '2', 'm', '東', '京', 'की', 'का', 'के']
    """
    return [
        word for run, unspaced in runs(text) for word in (characters(run) if unspaced else [run])
    ]


def characters(run: str) -> list[str]:
    """The characters of a run, each with its marks.

    >>> characters("ที่นี่")
    ['ที่', 'นี่']
    """
    return _CHARACTER.findall(run)


def is_dense(word: str) -> bool:
    """Whether a word is a character of Thai, Lao, Khmer, Burmese or their kin, of which it takes
    several to make what is a word elsewhere."""
    return not word.isascii() and bool(_DENSE_WORD.match(word))


# --- rows --------------------------------------------------------------------------------------


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
