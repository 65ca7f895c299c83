"""Training pairs from English ones: the other languages are made by a translation model.

p.files is {"en": FILE}, in the format of `pairs` or of `squad` (p.translate_from); p.languages
says which languages to make, and `en` to keep the originals beside them. Machine translations are
not what people write: what a study finds on them holds for translated text.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, replace

from lib.checkpoint import checkpoint_source
from lib.corpus import ParallelCorpus
from lib.languages import language_code
from lib.params import Prepare
from lib.sources import Source, files, pairs, squad
from lib.sources.text import sift

SOURCE = Source(files=True, translator=True, columns=pairs.COLUMNS, alone=True, articles=True)

SIDES = ("question", "passage")
EXAMPLES = 20  # failed texts that the manifest lists for a reason and language


def build_corpus(p: Prepare) -> ParallelCorpus:
    """The corpus of one fold.

    A row whose question or passage was not translated is dropped, counted by reason; the
    manifest's `translation` lists such texts. Raises ValueError in one line."""
    from lib.sources.downloads import cache_dir
    from lib.sources.translation import Translator

    languages = _languages(p)
    english, dropped = _english(p)
    translator = Translator(p.translator, cache_dir() / "translations")
    texts = {row[side] for row in english for side in SIDES}
    translations = translator.translate(sorted(texts), [x for x in languages if x != "en"])
    rows, failed = _translated(english, translations)
    named = {x: p.files["en"] if x == "en" else "" for x in languages}
    corpus = files.corpus(p, "translate", named, english + rows, dropped + failed)
    about = {"model": p.translator, "sha256": translator.sha256}
    about |= {"settings": asdict(translator.settings), "failed": _failed(translations)}
    return replace(corpus, meta=corpus.meta | {"translation": about})


def look(p: Prepare) -> None:
    """Raises ValueError for languages or an English file that will not do."""
    _languages(p)
    _check_files(p)
    checkpoint_source(p.translator)
    if p.translate_from == "squad":
        if p.columns:
            raise ValueError("columns: does not go with translate_from 'squad' (expected none)")
        squad.look_at(p.files["en"])
    else:
        pairs.look_at(p, numbered=True)


def _languages(p) -> list[str]:
    """Languages of the corpus, sorted. Raises ValueError where none is to be made."""
    languages = sorted(set(map(language_code, p.languages)))
    if set(languages) <= {"en"}:
        raise ValueError("languages: none to translate into (expected such as [en, de, fr])")
    if not p.translator:
        raise ValueError("translator: is empty (expected a checkpoint's folder, or name@commit)")
    return languages


def _english(p) -> tuple[list[dict], Counter]:
    """The rows to translate, and {(reason, language): number} of those that were dropped. Rows of a
    table without the column `pair` are a pair each: their translations are made here."""
    _check_files(p)
    if p.translate_from == "squad":
        rows, dropped = squad.rows(p, "translate", squad.read(p, languages=["en"]))
    else:
        rows, dropped = pairs.read(p, numbered=True), Counter()
    for other in sorted({row["language"] for row in rows} - {"en"}):
        raise ValueError(f"{p.files['en']}: has rows in {other} (expected en alone)")
    english, faults = sift(rows, {}, p.max_chars)
    return english, dropped + faults


def _check_files(p) -> None:
    if set(p.files) != {"en"}:
        labels = ", ".join(p.files) or "none"
        raise ValueError(f"files: are of {labels} (expected one, of en: the others are made)")


def _translated(english: list[dict], by_language: dict) -> tuple[list[dict], Counter]:
    """The rows in every other language, and {(reason, language): number} of those that failed."""
    rows, failed = [], Counter()
    for language, translations in by_language.items():
        for row in english:
            new = {side: translations[row[side]] for side in SIDES}
            texts = {side: x.text for side, x in new.items()}
            if fault := next((x.fault for x in new.values() if x.fault), ""):
                failed[fault, language] += 1
            else:
                rows.append(row | {"language": language, **texts})
    return rows, failed


def _failed(by_language: dict) -> dict[str, dict[str, list[str]]]:
    """reason -> language -> English texts, EXAMPLES at most."""
    listed: dict[str, dict[str, list[str]]] = {}
    for language, translations in by_language.items():
        for text in (x for x, translated in translations.items() if translated.fault):
            examples = listed.setdefault(translations[text].fault, {}).setdefault(language, [])
            examples += [text] * (len(examples) < EXAMPLES)
    return listed
