"""What a language is, for questions about scripts, families and resources.

Families are the top-level families of Glottolog 5 (Hammarström et al., https://glottolog.org,
CC BY 4.0); Indo-European, where most of the languages here are, is split at its branches.
"""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from lib.languages import script
from lib.sources import cldr_facts as graph

FAMILIES = {
    "Germanic": "af da de en fo frr fy is lb nb nl nn no pcm sv",
    "Romance": "ast ca es fr gl it lij pt rm ro sc vec",
    "Slavic": "be bg bs cs dsb hr hsb mk pl ru sk sl sr uk",
    "Baltic": "lt lv",
    "Celtic": "br cy ga gd",
    "Indo-Aryan": "as bn ccp gu hi kok ks mr ne or pa sd si ur xnr",
    "Iranian": "fa ku ps",
    "Greek": "el",
    "Armenian": "hy",
    "Albanian": "sq",
    "Afro-Asiatic": "am ar ha he kab so ti",
    "Atlantic-Congo": "ig sw yo zu",
    "Austronesian": "bew fil id jv mi ms to",
    "Austroasiatic": "km vi",
    "Dravidian": "kn ml ta te",
    "Basque": "eu",
    "Cherokee (Iroquoian)": "chr",
    "Japonic": "ja",
    "Kartvelian": "ka",
    "Koreanic": "ko",
    "Mongolic": "mn",
    "Nuclear-Macro-Je": "kgp",
    "Quechuan": "qu",
    "Sino-Tibetan": "brx my yue zh",
    "Tai-Kadai": "lo th",
    "Tupian": "yrl",
    "Turkic": "az cv kk ky tk tr uz",
    "Uralic": "et fi hu",
    "Constructed": "eo ia",
    "Nakh-Daghestanian": "ce",
}
FAMILY = {code: family for family, codes in FAMILIES.items() for code in codes.split()}


def describe(languages: Iterable[str]) -> pd.DataFrame:
    """Rows languages: script (ISO 15924), family, and the share of the names both have that are
    spelled as in English."""
    english = _names("en")
    rows = []
    for language in languages:
        names = _names(language)
        shared = names.keys() & english.keys()
        alike = sum(names[e] == english[e] for e in shared) / max(1, len(shared))
        rows.append((language, script(language), FAMILY.get(language, ""), alike))
    columns = ["language", "script", "family", "names as in English"]
    return pd.DataFrame(rows, columns=columns).set_index("language")


def _names(language: str) -> dict:
    return {
        e: name for f in graph.all_facts() for e in f.entities if (name := graph.name(e, language))
    }
