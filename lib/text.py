"""Language codes and text hygiene: one spelling for each language and for each text.

CLDR says `zh`, XQuAD-R `zh`, NTREX `zho-CN`, Tatoeba `cmn`, mteb `zho_Hans`. Tables that join such
sources need one code, and a mistyped language must fail before anything runs. Texts from outside
come in several Unicode forms and with rows that teach nothing; every source drops the same rows,
for reasons that are counted.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache
from hashlib import sha256

from babel.core import Locale, get_global

SUBTAGS = re.compile(
    r"(?P<language>[A-Za-z]{2,3})([-_](?P<script>[A-Za-z]{4}))?([-_](?P<territory>[A-Za-z]{2}|\d{3}))?"
)
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


# --- languages ---------------------------------------------------------------------------------


@lru_cache(maxsize=1024)
def language_code(name: str) -> str:
    """The project's code of a language: the shortest BCP 47 spelling, by CLDR's own tables.

    Takes BCP 47 (`pt-BR`, `zh_Hans`) and ISO 639-3 with or without script or territory (`eng`,
    `srp-Latn`, `zho-TW`). What the language implies is left out, the script being preferred to the
    territory: `zho-CN` is `zh`, `zho-TW` is `zh-Hant`, `por-BR` is `pt`, `fra-CA` is `fr-CA`.

    Raises ValueError for anything that CLDR does not know."""
    tag = SUBTAGS.fullmatch(name)
    if not tag:
        raise ValueError(_unknown(name))
    language = tag["language"].lower()
    script = tag["script"].title() if tag["script"] else None
    territory = tag["territory"].upper() if tag["territory"] else None
    # An alias may imply more than a language: `prs` is `fa_AF`.
    alias = get_global("language_aliases").get(language, language).split("_")
    for part in alias[1:]:
        if len(part) == 4:
            script = script or part
        else:
            territory = territory or part
    language = alias[0]
    if not _is_known(language, script, territory):
        raise ValueError(_unknown(name))
    return _shortest(language, script, territory)


def _unknown(name: str) -> str:
    return f"unknown language {name!r} (expected a code such as en, zh-Hant, fr-CA or deu)"


def _is_known(language: str, script: str | None, territory: str | None) -> bool:
    english = Locale("en")
    return (
        (language in english.languages or language in get_global("likely_subtags"))
        and (script is None or script in english.scripts)
        and (territory is None or territory in english.territories)
    )


def _full(language: str, script: str | None, territory: str | None) -> tuple[str, ...]:
    """(language, script, territory) with what CLDR's likely subtags add to what is given."""
    likely = get_global("likely_subtags")
    for given in ((language, script, territory), (language, script), (language, territory)):
        if all(given) and "_".join(given) in likely:
            found = likely["_".join(given)]
            break
    else:
        found = likely.get(language, language)
    parts = [*found.split("_"), None, None]
    return language, script or parts[1], territory or parts[2]


def _shortest(language: str, script: str | None, territory: str | None) -> str:
    """The shortest code that means the same (CLDR's "remove likely subtags", script favoured)."""
    full = _full(language, script, territory)
    for parts in ((None, None), (full[1], None), (None, full[2])):
        if _full(language, *parts) == full:
            return "-".join(part for part in (language, *parts) if part)
    return "-".join(part for part in full if part)


# --- hygiene -----------------------------------------------------------------------------------


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
