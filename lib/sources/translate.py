"""Training pairs from English ones: the other languages are made by a translation model.

p.files is {"en": FILE}, in the format of `pairs` or of `squad` (p.translate_from); p.languages
says which languages to make, and `en` to keep the originals beside them. Machine translations are
not what people write: what a study finds on them holds for translated text.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, replace

from lib.corpus import ParallelCorpus
from lib.languages import language_code
from lib.params import Prepare
from lib.sources import Source, files, pairs, squad
from lib.sources.text import sift

SOURCE = Source(files=True, translator=True)

SIDES = ("question", "passage")
EXAMPLES = 20  # failed texts that the manifest lists for a reason and language


def build_corpus(p: Prepare) -> ParallelCorpus:
    """The corpus of one fold.

    A row whose question or passage was not translated is dropped, counted by reason; the
    manifest's `translation` lists such texts. Raises ValueError in one line."""
    from lib.sources.downloads import cache_dir
    from lib.sources.translation import Translator

    languages = _languages(p)
    made = [language for language in languages if language != "en"]
    if set(p.files) != {"en"}:
        found = ", ".join(p.files) or "none"
        raise ValueError(f"files: are of {found} (expected one, of en: the others are made)")
    read = _squad if p.translate_from == "squad" else _pairs
    english, dropped = read(p)
    english, faults = sift(english, {}, p.max_chars)
    translator = Translator(p.translator, cache_dir() / "translations")
    texts = {row[side] for row in english for side in SIDES}
    found = translator.translate(sorted(texts), made)
    rows, failed = _translated(english, found)
    corpus = files.corpus(
        p,
        "translate",
        {language: p.files["en"] if language == "en" else "" for language in languages},
        english + rows,
        dropped + faults + failed,
    )
    about = {
        "model": p.translator,
        "sha256": translator.sha256,
        "settings": asdict(translator.settings),
        "failed": _failed(found),
    }
    return replace(corpus, meta=corpus.meta | {"translation": about})


def _languages(p) -> list[str]:
    """Languages of the corpus, sorted. Raises ValueError where none is to be made."""
    found = sorted(set(map(language_code, p.languages)))
    if set(found) <= {"en"}:
        raise ValueError("languages: none to translate into (expected such as [en, de, fr])")
    if not p.translator:
        raise ValueError("translator: is empty (expected a checkpoint's name@revision or folder)")
    return found


def _pairs(p) -> tuple[list[dict], Counter]:
    rows = pairs.read(p.files)
    other = sorted({row["language"] for row in rows} - {"en"})
    if other:
        raise ValueError(f"{p.files['en']}: has rows in {other[0]} (expected en alone)")
    return rows, Counter()


def _squad(p) -> tuple[list[dict], Counter]:
    """Rows of a SQuAD file; the questions of a paragraph whose answers lie in one sentence share
    its passage_id, where sentences are the passages."""
    if p.unanswerable and p.passage == "sentence":
        raise ValueError("unanswerable: needs passage: paragraph, there is no answer sentence")
    rows, dropped, names = [], Counter(), {}
    for question in squad.questions(p.files["en"], p.passage):
        if reason := question.fault(p.unanswerable):
            dropped[reason, "en"] += 1
            continue
        name = question.paragraph
        if p.passage == "sentence":
            name = names.setdefault((question.paragraph, question.passage), question.id)
        rows.append(
            {
                "pair": question.id,
                "language": "en",
                "question": question.text,
                "passage": question.passage,
                "passage_id": name,
                "group": question.paragraph,
                "source": "translate",
            }
        )
    return rows, dropped


def _translated(english: list[dict], found: dict) -> tuple[list[dict], Counter]:
    """The rows in every other language, and {(reason, language): number} of those that failed."""
    rows, failed = [], Counter()
    for language, translations in found.items():
        for row in english:
            new = {side: translations[row[side]] for side in SIDES}
            fault = next((x.fault for x in new.values() if x.fault), "")
            if fault:
                failed[fault, language] += 1
            else:
                texts = {side: x.text for side, x in new.items()}
                rows.append(row | {"language": language, **texts})
    return rows, failed


def _failed(found: dict) -> dict[str, dict[str, list[str]]]:
    """reason -> language -> English texts, EXAMPLES at most."""
    listed: dict[str, dict[str, list[str]]] = {}
    for language, translations in found.items():
        for text, translated in translations.items():
            if translated.fault:
                own = listed.setdefault(translated.fault, {}).setdefault(language, [])
                own += [text] * (len(own) < EXAMPLES)
    return listed
