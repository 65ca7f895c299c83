"""Facts of the Unicode CLDR, as Babel ships them: named entities and the relations between them.

Babel holds human translations of the names of territories, languages, currencies, scripts, time
zones and their cities in over a hundred languages, and tables that relate them. That makes real
parallel text with known facts behind it, installed with the project (Unicode License v3).
An entity is (kind, code); names are only what a language really has, never a code.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from hashlib import sha256

from babel import Locale
from babel.core import get_global
from babel.localedata import locale_identifiers

from lib.languages import script
from lib.sources.text import fold

Entity = tuple[str, str]
OFFICIAL = ("official", "de_facto_official")
MAX_ANSWERS = 6  # a passage lists all answers; longer lists are no sentence any more
SAME_NAMES = 0.5  # two languages that share more names than this are one language here


@dataclass(frozen=True)
class Fact:
    """`subject` stands in `relation` to all of `answers`, which one passage lists."""

    relation: str
    subject: Entity
    answers: tuple[Entity, ...]

    @property
    def id(self) -> str:
        return f"{self.relation}:{self.subject[1]}"

    @property
    def entities(self) -> tuple[Entity, ...]:
        return (self.subject, *self.answers)


@dataclass(frozen=True)
class Chain:
    """How a question reaches its fact: directly (`bridge` None), or from the subject of a bridge
    fact, which names the territory that the question leaves out (two hops)."""

    fact: Fact
    bridge: Fact | None = None

    @property
    def subject(self) -> Entity:
        """The only entity that the question names."""
        return self.bridge.subject if self.bridge else self.fact.subject

    @property
    def relation(self) -> str:
        """Name of the wording: `currency`, or `city_currency` where a city stands for it."""
        return f"{self.subject[0]}_{self.fact.relation}" if self.bridge else self.fact.relation

    @property
    def id(self) -> str:
        return f"{self.fact.id}<{self.bridge.id}" if self.bridge else self.fact.id

    @property
    def hops(self) -> int:
        return 2 if self.bridge else 1

    @property
    def entities(self) -> tuple[Entity, ...]:
        return (self.subject, *self.fact.entities) if self.bridge else self.fact.entities


def shuffled(items: Iterable, key: Callable = lambda item: item.id) -> list:
    """Items in an order that looks random and never changes: by the hash of their key."""
    return sorted(items, key=lambda item: sha256(key(item).encode()).digest())


# --- names -------------------------------------------------------------------------------------


@cache
def _locale(language: str) -> Locale:
    return Locale.parse(language.replace("-", "_"))


@cache
def is_latin(language: str) -> bool:
    """Whether a language is usually written in the Latin script (CLDR's likely subtags)."""
    return script(language) == "Latn"


def _city(language: str, zone: str) -> str | None:
    """A city's explicit name. CLDR lets a zone's last field stand for a city that a language
    spells alike, so that default counts, but in languages of the Latin script only."""
    explicit = _locale(language).time_zones.get(zone, {}).get("city")
    if explicit is None and is_latin(language) and "/" in zone:
        return zone.rsplit("/", 1)[-1].replace("_", " ")
    return explicit


def _zone(language: str, zone: str) -> str | None:
    long = _locale(language).meta_zones.get(zone, {}).get("long", {})
    return long.get("generic") or long.get("standard")


@cache
def name(entity: Entity, language: str) -> str | None:
    """The name that a language has for an entity; None where it has none that can be used.

    Names with digits are years or codes in disguise ("Afghan Afghani (1927–2002)")."""
    kind, code = entity
    if kind == "city":
        text = _city(language, code)
    elif kind == "zone":
        text = _zone(language, code)
    else:
        table = {
            "territory": "territories",
            "language": "languages",
            "currency": "currencies",
            "script": "scripts",
        }[kind]
        text = getattr(_locale(language), table).get(code)
    if not isinstance(text, str) or text == code or any(c.isdigit() for c in text):
        return None
    return text


# --- relations ---------------------------------------------------------------------------------


def _territory_facts():
    for territory, currencies in get_global("territory_currencies").items():
        tender = [(code, end) for code, _, end, legal in currencies if legal]
        live = [code for code, end in tender if end is None]
        former = [code for code, _ in tender if code not in live]
        yield "currency", ("territory", territory), [("currency", c) for c in live]
        yield "former", ("territory", territory), [("currency", c) for c in former]
    for territory, languages in get_global("territory_languages").items():
        official = [c for c, info in languages.items() if info["official_status"] in OFFICIAL]
        yield "official", ("territory", territory), [("language", c) for c in official]


def _language_facts():
    """Where a language is spoken, only of languages official nowhere: that a language is official
    somewhere entails that it is spoken there, so those questions would have two answers."""
    spoken, official = {}, set()
    for territory, languages in get_global("territory_languages").items():
        for code, info in languages.items():
            spoken.setdefault(code, []).append(territory)
            if info["official_status"] in OFFICIAL:
                official.add(code)
    for code, territories in spoken.items():
        if code not in official:
            yield "spoken", ("language", code), [("territory", t) for t in territories]
        if not is_latin(code):
            yield "script", ("language", code), [("script", script(code))]


def _city_facts():
    zones = get_global("meta_zones")
    for city, territory in get_global("zone_territories").items():
        if name(("city", city), "en") == name(("territory", territory), "en"):
            continue  # Mayotte, Singapore: an island or a state, where "the city of" reads oddly
        yield "city", ("city", city), [("territory", territory)]
        if city in zones:
            yield "zone", ("city", city), [("zone", zones[city])]


@cache
def all_facts() -> tuple[Fact, ...]:
    facts = [
        Fact(relation, subject, tuple(dict.fromkeys(answers)))
        for source in (_territory_facts, _language_facts, _city_facts)
        for relation, subject, answers in source()
    ]
    return tuple(
        sorted((f for f in facts if 1 <= len(f.answers) <= MAX_ANSWERS), key=lambda fact: fact.id)
    )


def is_named(item: Fact | Chain, language: str) -> bool:
    """Whether a language has a name for everything in a fact or chain."""
    return all(name(entity, language) for entity in item.entities)


def _ambiguous(entities, languages) -> set[Entity]:
    """Entities that share their name with an earlier one of their kind in any language."""
    seen, duplicates = set(), set()
    for entity in sorted(entities):
        names = {
            (entity[0], lang, fold(text)) for lang in languages if (text := name(entity, lang))
        }
        if names & seen:
            duplicates.add(entity)
        seen |= names
    return duplicates


def facts(languages: tuple[str, ...], in_languages: int) -> list[Fact]:
    """All facts named without ambiguity in at least `in_languages` languages, sorted by id."""
    named = [f for f in all_facts() if sum(is_named(f, x) for x in languages) >= in_languages]
    ambiguous = _ambiguous({e for f in named for e in f.entities}, languages)
    return [f for f in named if not ambiguous & set(f.entities)]


def is_bridge(fact: Fact) -> bool:
    """Whether a fact can stand between a question and its answer: it names one territory."""
    return fact.relation in ("city", "spoken") and len(fact.answers) == 1


def _reveals(chain: Chain, languages) -> bool:
    """Whether the question's name holds, or is held in, a name of its passage in any language
    (Mexico City would answer a question about Mexico by spelling alone)."""
    for language in languages:
        subject = fold(name(chain.subject, language) or "\0")
        others = [fold(name(e, language) or "\1") for e in chain.fact.entities]
        if any(subject in other or other in subject for other in others):
            return True
    return False


def chains(all_facts: list[Fact], languages: tuple[str, ...], bridges: int) -> list[Chain]:
    """Every question that can be asked: each fact directly, and each fact about a territory
    through at most `bridges` cities or languages that name this territory."""
    through: dict[Entity, list[Fact]] = {}
    for fact in shuffled(filter(is_bridge, all_facts)):
        through.setdefault(fact.answers[0], []).append(fact)
    questions = [Chain(fact) for fact in all_facts]
    for fact in all_facts:
        if fact.subject[0] == "territory":
            two_hop = [Chain(fact, bridge) for bridge in through.get(fact.subject, [])]
            questions += [c for c in two_hop if not _reveals(c, languages)][:bridges]
    return questions


# --- languages ---------------------------------------------------------------------------------


def distinct_languages(coverage: float) -> tuple[list[str], dict[str, str]]:
    """Languages that name at least `coverage` of what English names, and why others were dropped.

    Aliases are dropped, and of two languages with over half of their names identical the one
    that names less (`nn`/`nb`, `fil`/`en`)."""
    entities = sorted({e for f in all_facts() if is_named(f, "en") for e in f.entities})
    aliases, names = get_global("language_aliases"), {}
    for code in sorted(x for x in locale_identifiers() if "_" not in x and x not in aliases):
        texts = {e: text for e in entities if (text := name(e, code))}
        if len(texts) >= coverage * len(entities):
            names[code] = texts
    kept, dropped = [], {}
    for code in sorted(names, key=lambda c: (-len(names[c]), c != "en", c)):
        twin = next((k for k in kept if _same(names[code], names[k]) > SAME_NAMES), None)
        if twin:
            dropped[code] = f"over half of its names are those of {twin}"
        else:
            kept.append(code)
    return sorted(kept), dropped


def _same(a: dict, b: dict) -> float:
    """Share of names that two languages spell alike, cities apart (their default is a spelling)."""
    shared = [e for e in a.keys() & b.keys() if e[0] != "city"]
    return sum(a[e] == b[e] for e in shared) / max(1, len(shared))


def folds_of(all_facts: list[Fact], folds: int) -> dict[str, int]:
    """Fold of each fact that may be tested (bridges never are): facts about one subject fall into
    different folds, so that a test fact's subject is known from training."""
    relations = {"currency": 0, "official": 1, "former": 2, "zone": 0, "spoken": 0, "script": 1}
    subjects = shuffled({f.subject for f in all_facts}, key=":".join)
    place = {subject: i for i, subject in enumerate(subjects)}
    return {
        f.id: (place[f.subject] + relations[f.relation]) % folds
        for f in all_facts
        if not is_bridge(f) and f.relation in relations
    }


def test_facts(all_facts: list[Fact], fold: int, folds: int) -> set[str]:
    """Ids of the facts tested in a fold: those of it whose entities all occur in facts outside."""
    fold_of = folds_of(all_facts, folds)
    outside = Counter(e for f in all_facts if fold_of.get(f.id) != fold for e in set(f.entities))
    return {
        f.id for f in all_facts if fold_of.get(f.id) == fold and all(outside[e] for e in f.entities)
    }
