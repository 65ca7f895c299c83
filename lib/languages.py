"""One spelling for each language.

CLDR says `zh`, XQuAD-R `zh`, NTREX `zho-CN`, Tatoeba `cmn`, FLORES and mteb `zho_Hans`. Tables that
join such sources need one code, and a mistyped language must fail before anything runs.
"""

from __future__ import annotations

import re
from functools import lru_cache

from babel.core import Locale, get_global

SUBTAGS = re.compile(
    r"(?P<language>[A-Za-z]{2,3})([-_](?P<script>[A-Za-z]{4}))?([-_](?P<territory>[A-Za-z]{2}|\d{3}))?"
)

# Members that FLORES-200 names where others name the whole, and that CLDR does not say are it.
MEMBERS = {"pbt": "ps", "quy": "qu", "fuv": "ff"}
# Scripts that are part of one: what FLORES and mteb call Korean's or Japanese's.
PARTS = {"Hang": "Kore", "Hira": "Jpan", "Kana": "Jpan"}


@lru_cache(maxsize=1024)
def language_code(name: str) -> str:
    """The project's code of a language: the shortest BCP 47 spelling, by CLDR's own tables.

    Takes BCP 47 (`pt-BR`, `zh_Hans`; also codes of old, `iw`) and ISO 639-3 with or without script
    or territory (`eng`, `srp-Latn`, `zho-TW`, FLORES' `kor_Hang`). What the language implies is
    left out, the script being preferred to the territory: `zho-CN` is `zh`, `zho-TW` is `zh-Hant`,
    `por-BR` is `pt`, `fra-CA` is `fr-CA`.

    Raises ValueError for anything that CLDR does not know."""
    tag = SUBTAGS.fullmatch(name)
    if not tag:
        raise ValueError(_unknown(name))
    language = tag["language"].lower()
    script = tag["script"].title() if tag["script"] else None
    territory = tag["territory"].upper() if tag["territory"] else None
    # An alias may imply more than a language: `prs` is `fa_AF`.
    language = MEMBERS.get(language, language)
    alias = get_global("language_aliases").get(language, language).split("_")
    for part in alias[1:]:
        if len(part) == 4:
            script = script or part
        else:
            territory = territory or part
    language = alias[0]
    if PARTS.get(script) == _full(language, None, None)[1]:
        script = None
    if not _is_known(language, script, territory):
        raise ValueError(_unknown(name))
    return _shortest(language, script, territory)


@lru_cache(maxsize=1024)
def script(language: str) -> str:
    """ISO 15924 code of the script a language is usually written in, by CLDR's likely subtags.

    >>> script("ar"), script("zh-Hant"), script("de")
    ('Arab', 'Hant', 'Latn')
    """
    likely = get_global("likely_subtags").get(language.replace("-", "_"), "")
    return next((part for part in likely.split("_") if len(part) == 4), "Latn")


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
            tag = likely["_".join(given)]
            break
    else:
        tag = likely.get(language, language)
    parts = [*tag.split("_"), None, None]
    return language, script or parts[1], territory or parts[2]


def _shortest(language: str, script: str | None, territory: str | None) -> str:
    """The shortest code that means the same (CLDR's "remove likely subtags", script favoured)."""
    full = _full(language, script, territory)
    for parts in ((None, None), (full[1], None), (None, full[2])):
        if _full(language, *parts) == full:
            return "-".join(part for part in (language, *parts) if part)
    return "-".join(part for part in full if part)
