"""The embedded corpus: questions and passages about CLDR facts, in 11 to over 100 languages.

A question's chain of facts ends in one fact; the passage that tells this fact is the relevant one
and no other passage entails the answer. Questions whose fact is held out are the test questions.
`sentences` are full sentences in eleven languages (written for this study, `cldr_sentences.yaml`);
`cards` are bare names joined by each language's own list pattern, for every language.
Data: Unicode CLDR through Babel, Unicode License v3.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files

import babel
from babel.lists import format_list

from lib.corpus import ParallelCorpus
from lib.params import Prepare
from lib.sources import Source, check_keep
from lib.sources import cldr_facts as graph
from lib.sources.assemble import corpus_of_rows
from lib.sources.cldr_facts import Chain, Entity, Fact
from lib.sources.text import number, share

SOURCE = Source()

LICENCE = "Unicode License v3 (names and relations), Apache-2.0 (sentences)"
PASSAGE_WORDINGS = 2
# A known answer of the asked kind says in `cards` what is asked: "Oslo, Yen" asks for a currency.
# One a wording, and so particular that few questions have it as their answer.
EXAMPLES = {
    "currency": [("currency", "JPY"), ("currency", "KRW"), ("currency", "CNY")],
    "former": [("currency", "ITL"), ("currency", "DEM"), ("currency", "GRD")],
    "official": [("language", "ja"), ("language", "ko"), ("language", "zh")],
    "script": [("script", "Jpan"), ("script", "Kore"), ("script", "Hans")],
    "city": [("territory", "JP"), ("territory", "KR"), ("territory", "CN")],
    "spoken": [("territory", "JP"), ("territory", "KR"), ("territory", "CN")],
    "zone": [("zone", "Japan"), ("zone", "Korea"), ("zone", "China")],
}


@cache
def sentences() -> dict:
    """language -> relation -> {question: [...], passage: [...]} of the sentence file."""
    from ruamel.yaml import YAML

    text = files("lib.sources").joinpath("cldr_sentences.yaml").read_text(encoding="utf-8")
    return YAML(typ="safe", pure=True).load(text)


@cache
def _join(entities: tuple, language: str) -> str:
    names = [graph.name(entity, language) for entity in entities]
    return format_list(names, locale=language.replace("-", "_"))


class Sentences:
    """Full sentences in the languages of the sentence file.

    trained  how many question wordings are trained on; the one after them is held out"""

    trained = 4

    def question(self, chain: Chain, wording: int, language: str) -> str:
        pattern = sentences()[language][chain.relation]["question"][wording]
        return pattern.format(subject=graph.name(chain.subject, language))

    def statement(self, fact: Fact, wording: int, language: str) -> str:
        pattern = sentences()[language][fact.relation]["passage"][wording]
        return pattern.format(
            subject=graph.name(fact.subject, language), answers=_join(fact.answers, language)
        )


class Cards:
    """Bare names, joined by the language's own list pattern; wordings are examples."""

    trained = 2

    def question(self, chain: Chain, wording: int, language: str) -> str | None:
        example = EXAMPLES[chain.fact.relation][wording]
        if example in chain.entities or not graph.name(example, language):
            return None
        return _join((chain.subject, example), language)

    def statement(self, fact: Fact, wording: int, language: str) -> str:
        order = fact.entities if wording == 0 else (*fact.answers, fact.subject)
        return _join(order, language)


@dataclass(frozen=True)
class Passage:
    """One fact, or several of one relation told together; all of them share its passage_id."""

    facts: tuple[Fact, ...]

    @property
    def id(self) -> str:
        return "+".join(sorted(fact.id for fact in self.facts))

    def text(self, form: Sentences | Cards, wording: int, language: str) -> str:
        statements = [form.statement(f, wording, language) for f in self.facts]
        return ("" if language in ("zh", "ja", "yue") else " ").join(statements)


@dataclass
class Builder:
    """Renders one fold of the fact graph; every choice is a hash, so nothing depends on order."""

    p: object
    languages: tuple[str, ...]
    form: object
    facts: list[Fact] = field(init=False)
    test: set[str] = field(init=False)
    passages: dict[str, Passage] = field(init=False)

    def __post_init__(self):
        needed = len(self.languages) if self.p.form == "sentences" else 2
        self.facts = graph.facts(self.languages, needed)
        self.test = graph.test_facts(self.facts, self.p.fold, self.p.folds)
        self.passages = {f.id: passage for passage in self._passages() for f in passage.facts}

    def _passages(self):
        """Facts of one relation and one side of the split, in passages of 1 + distractors."""
        size, blocks = 1 + self.p.distractors, {}
        for fact in graph.shuffled(self.facts):
            blocks.setdefault((fact.relation, fact.id in self.test), []).append(fact)
        for block in blocks.values():
            for i in range(0, len(block), size):
                yield Passage(tuple(block[i : i + size]))

    def chains(self) -> list[Chain]:
        return graph.chains(self.facts, self.languages, self.p.bridges)

    def texts(self, chain: Chain, wording: int):
        """(language, question, passage) of a chain wherever everything in it has a name."""
        passage = self.passages[chain.fact.id]
        passage_wording = number(f"{chain.id}#{wording}", PASSAGE_WORDINGS)
        for language in self.languages:
            if all(graph.is_named(item, language) for item in (chain, *passage.facts)):
                question = self.form.question(chain, wording, language)
                if question:
                    yield language, question, passage.text(self.form, passage_wording, language)

    def rows(self, chain: Chain, wording: int) -> list[dict]:
        passage = self.passages[chain.fact.id].id
        return [
            {
                "pair": f"{chain.id}#{wording}",
                "language": language,
                "question": question,
                "passage": text,
                "passage_id": passage,
                "group": passage,
                "source": "cldr",
            }
            for language, question, text in self.texts(chain, wording)
        ]

    def training_rows(self) -> list[dict]:
        trained = [c for c in self.chains() if c.fact.id not in self.test]
        return [
            row
            for chain in trained
            for wording in range(self.form.trained)
            for row in self.rows(chain, wording)
            if self._is_kept(chain, row)
        ]

    def _is_kept(self, chain: Chain, row: dict) -> bool:
        language = row["language"]
        entities = {e for f in self.passages[chain.fact.id].facts for e in f.entities}
        return share(f"keep {row['pair']} {language}") < self.p.keep.get(language, 1.0) and not any(
            self.is_dropped(e, language) for e in {chain.subject, *entities}
        )

    def is_dropped(self, entity: Entity, language: str) -> bool:
        """Whether an entity's name never occurs in the training texts of a language."""
        return bool(self.p.drop_cells) and share(f"cell {entity} {language}") < self.p.drop_cells

    def test_rows(self) -> list[dict]:
        """Every test chain in one wording that was trained on and in the held-out one."""
        rows = []
        for chain in (c for c in self.chains() if c.fact.id in self.test):
            for label, wording in (
                ("seen", number(chain.id, self.form.trained)),
                ("held-out", self.form.trained),
            ):
                rows += [
                    row | self._strata(chain, label, row["language"])
                    for row in self.rows(chain, wording)
                ]
        return rows

    def _strata(self, chain: Chain, wording: str, language: str) -> dict:
        dropped = any(self.is_dropped(e, language) for e in chain.entities)
        return {
            "hops": f"{chain.hops}-hop",
            "wording": wording,
            "cell": "removed" if dropped else "kept",
            "names": [graph.name(e, language) for e in chain.entities],
        }

    def pool(self) -> list[dict]:
        """All passages in one wording each; test passages always, others up to `pool`."""
        distinct = graph.shuffled({p.id: p for p in self.passages.values()}.values())
        tested = [p for p in distinct if p.facts[0].id in self.test]
        others = [p for p in distinct if p.facts[0].id not in self.test]
        kept = tested + (others[: self.p.pool] if self.p.pool else others)
        return [
            {
                "passage_id": p.id,
                "language": language,
                "passage": p.text(self.form, number(p.id, PASSAGE_WORDINGS), language),
            }
            for p in kept
            for language in self.languages
            if all(graph.is_named(f, language) for f in p.facts)
        ]


def _languages(p) -> tuple[tuple[str, ...], dict[str, str]]:
    """Languages of the corpus, and why others were dropped. Raises ValueError."""
    if p.form == "sentences":
        missing = [x for x in p.languages if x not in sentences()]
        if missing:
            raise ValueError(
                f"languages: {missing[0]} has no sentences (they exist in "
                f"{' '.join(sorted(sentences()))}); form: cards has all languages"
            )
        return tuple(sorted(p.languages or sentences())), {}
    if p.languages:
        return tuple(sorted(p.languages)), {}
    kept, dropped = graph.distinct_languages(p.coverage)
    return tuple(kept), dropped


def available(p: Prepare) -> list[str]:
    """All languages that the form has."""
    if p.form == "sentences":
        return sorted(sentences())
    return sorted(graph.distinct_languages(p.coverage)[0])


def most_groups(p: Prepare) -> int | None:
    """The number of facts, in sentences; finding the languages of cards takes as long as all."""
    if p.form == "cards":
        return None
    languages, _ = _languages(p)
    return len(graph.facts(languages, len(languages)))


def build_corpus(p: Prepare) -> ParallelCorpus:
    """The corpus of one fold.

    Raises ValueError for a language without sentences, or fewer than two languages."""
    languages, dropped = _languages(p)
    if len(languages) < 2:
        raise ValueError("languages: a parallel corpus needs at least two")
    check_keep(p, languages)
    builder = Builder(p, languages, Sentences() if p.form == "sentences" else Cards())
    meta = {
        "source": "cldr",
        "version": f"Babel {babel.__version__}",
        "licence": LICENCE,
        "facts": len(builder.facts),
        "test_facts": len(builder.test),
        "passages": len({p.id for p in builder.passages.values()}),
        "dropped_languages": dropped,
    }
    return corpus_of_rows(builder.training_rows(), meta, builder.test_rows(), builder.pool())
