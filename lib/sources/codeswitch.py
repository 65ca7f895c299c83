"""English pairs with words of other languages in them: training on parallel words, not texts.

A share of the words of each English question and passage gives way to a translation into a random
other language (Litschko, Artemova and Plank, arXiv 2305.05295: multilingual code-switching of
both sides). Trained with the strategy en-en, that is their method; the texts of other languages
stay as they are, and so does what is held out.

The lexicon is a file of two columns a language, or is found in the study's own parallel texts: a
word's translation is the one whose texts overlap most with its own, phi squared (Gale and Church,
HLT 1991, "Identifying word correspondences in parallel texts").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array

from lib.corpus import ParallelCorpus
from lib.languages import language_code
from lib.params import Prepare
from lib.sources.assemble import corpus_of_rows
from lib.sources.text import fold, number, share, words
from lib.store import ROOT

TOGETHER = 3  # texts that a word and its translation must share
ALIKE = 0.2  # least phi squared
SIDES = ("question", "passage")
Lexicon = dict[str, dict[str, str]]  # language -> folded English word -> translation


def switched(corpus: ParallelCorpus, p: Prepare) -> ParallelCorpus:
    """The corpus with its English training rows switched. Raises ValueError where nothing can be:
    no English, no lexicon, or no word in it."""
    rows = list(corpus.rows)
    lexicon = read(p.lexicon) if p.lexicon else found(rows)
    if not any(row["language"] == "en" for row in rows) or not any(lexicon.values()):
        raise ValueError(
            f"switch: {p.switch:g} finds no English words to translate (expected rows in en, and a "
            "lexicon or parallel texts in other languages)"
        )
    new = [
        row
        | {side: switch(row[side], lexicon, p.switch, f"{row['pair']} {side}") for side in SIDES}
        if row["language"] == "en" and row["question"]
        else row
        for row in rows
    ]
    counts = {code: len(own) for code, own in sorted(lexicon.items())}
    meta = corpus.meta | {"switched": {"share": p.switch, "lexicon": counts}}
    return corpus_of_rows(new, meta, list(corpus.test), list(corpus.pool))


def switch(text: str, lexicon: Mapping[str, Mapping[str, str]], part: float, name: str) -> str:
    """The text with that part of its words translated, as far as the lexicon has them.

    Which, and into which language, depends on `name` and their place alone."""
    made = []
    for place, word in enumerate(text.split(" ")):
        own = fold(word).strip(PUNCTUATION)
        known = [code for code, translations in lexicon.items() if own in translations]
        where = f"{name} {place}"
        if known and share(f"switch {where}") < part:
            code = known[number(f"into {where}", len(known))]
            word = _in_place(word, lexicon[code][own])
        made.append(word)
    return " ".join(made)


PUNCTUATION = ".,;:!?()[]\"'\N{LEFT DOUBLE QUOTATION MARK}\N{RIGHT DOUBLE QUOTATION MARK}"


def _in_place(word: str, translation: str) -> str:
    """The translation with the punctuation around the word."""
    bare = word.strip(PUNCTUATION)
    return word.replace(bare, translation, 1)


# --- lexicons ----------------------------------------------------------------------------------


def read(files: Mapping[str, str]) -> Lexicon:
    """Lexicons of files with an English word and a translation a line, between them white space
    (as MUSE has them). Of several translations the first is taken.

    Raises ValueError in one line that names file and row."""
    lexicon: Lexicon = {}
    for code, file in files.items():
        own = lexicon.setdefault(language_code(code), {})
        for row, line in enumerate(_lines(file), start=1):
            parts = line.split()
            if len(parts) != 2:
                raise ValueError(
                    f"{file}: row {row}: {len(parts)} words (expected an English one and its "
                    "translation)"
                )
            own.setdefault(fold(parts[0]), parts[1])
    return lexicon


def _lines(file: str) -> list[str]:
    try:
        return Path(ROOT / file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: cannot be read ({error})") from None


def found(rows: Iterable[Mapping[str, str]]) -> Lexicon:
    """Lexicons out of parallel texts: rows of pair, language, question, passage."""
    by_language: dict[str, dict[str, list[set[str]]]] = {}
    for row in rows:
        texts = [set(words(row[side])) for side in SIDES]
        by_language.setdefault(row["language"], {})[row["pair"]] = texts
    english = by_language.pop("en", {})
    return {code: _associated(english, own) for code, own in sorted(by_language.items())}


def _associated(english: Mapping[str, list], other: Mapping[str, list]) -> dict[str, str]:
    """English word -> its translation, of the texts that both have."""
    both = [pair for pair in english if pair in other]
    texts = [[text for pair in both for text in language[pair]] for language in (english, other)]
    (left, names), (right, others) = (_occurrences(own) for own in texts)
    if not names or not others:
        return {}
    together = (left.T @ right).tocsr()
    counts = [np.asarray(m.sum(0)).ravel() for m in (left, right)]
    total, lexicon = left.shape[0], {}
    for word, name in enumerate(names):
        row = slice(together.indptr[word], together.indptr[word + 1])
        at, shared = together.indices[row], together.data[row]
        alike = phi_squared(shared, counts[0][word], counts[1][at], total)
        alike = np.where(shared >= TOGETHER, alike, 0)
        if len(at) and alike.max() >= ALIKE:
            lexicon[name] = others[at[alike.argmax()]]
    return lexicon


def _occurrences(texts: list[set[str]]) -> tuple[csr_array, list[str]]:
    """float64 [texts, words] of 0 and 1, and the words, sorted."""
    names = sorted(set().union(*texts)) if texts else []
    number_of = {name: n for n, name in enumerate(names)}
    columns = [[number_of[word] for word in sorted(text)] for text in texts]
    ends = np.concatenate([[0], np.cumsum([len(own) for own in columns])]).astype(int)
    flat = np.array([n for own in columns for n in own], int)
    return csr_array((np.ones(len(flat)), flat, ends), (len(texts), len(names))), names


def phi_squared(both: np.ndarray, one: np.ndarray, other: np.ndarray, total: int) -> np.ndarray:
    """Of two words in `both` texts together, and in `one` and `other` of `total`: 0 independent, 1
    always together; 0 where they avoid each other."""
    ahead = np.maximum(both * total - one * other, 0)
    spread = one * other * (total - one) * (total - other)
    return np.where(spread > 0, ahead**2 / np.where(spread > 0, spread, 1), both == total)
