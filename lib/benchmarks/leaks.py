"""Leak audit: which benchmark texts also occur in training text.

A figure on a benchmark says little where the encoder was trained on its texts, so the report counts
three kinds of overlap, each weaker and more common than the one before, and shows examples:

exact       a training text is the same string
normalised  a training text has the same words: the same but for case, punctuation, white space and
            compatibility forms (NFKC)
ngram       a training text shares a run of 13 words, as in the contamination audits of GPT-3
            (arXiv 2005.14165, appendix C)

In scripts without spaces a Han or kana character counts as one word. Five characters of Thai, Lao,
Khmer or Burmese do: XQuAD-R's Thai has 5.4 characters to an English word, and at 13 characters, a
country's name, 574 of its 852 candidates "leak" from unrelated news (NTREX), at 65 none.

What the audit does not see: a text below 13 words inside a longer one (`Overlap.long` says how many
texts can show up at all as "ngram"), paraphrases, and translations.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cached_property
from itertools import accumulate, chain
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from lib.benchmarks import told
from lib.sources.text import is_dense, words

if TYPE_CHECKING:
    from lib.benchmark import Benchmark

KINDS = ("exact", "normalised", "ngram")
NGRAM = 13  # words
DENSE = 5  # characters that count as one word, in scripts that write no spaces between words
SHOWN = 3  # examples of each kind
REMEMBERED = 1_000_000  # training texts that are not compared again when they come again


@dataclass(frozen=True)
class Example:
    """A benchmark text and the first training text that it overlaps with."""

    kind: str
    benchmark: str
    training: str

    @property
    def shared(self) -> str:
        """The longest run of words that both have."""
        benchmark_words, training_words = words(self.benchmark), words(self.training)
        match = SequenceMatcher(
            None, benchmark_words, training_words, autojunk=False
        ).find_longest_match()
        return " ".join(benchmark_words[match.a : match.a + match.size])


@dataclass(frozen=True)
class Overlap:
    """How many of `texts` distinct benchmark texts occur in training, by kind (see above).

    A text counts under every kind that fits, so `normalised` includes `exact`; overlapping: under
    any kind. long: texts of 13 words or more, which alone can count under `ngram`. examples: up to
    3 of each kind, each text once."""

    texts: int
    long: int
    exact: int
    normalised: int
    ngram: int
    overlapping: int
    examples: tuple[Example, ...]


def leak_audit(training: Iterable[str], benchmark: Iterable[str]) -> Overlap:
    """Overlap of the distinct `benchmark` texts with the `training` texts, read once, in order."""
    index = _Index(benchmark)
    return _overlap(index.texts, index.matches(training), index)


def audit(training: Iterable[str], benchmark: Benchmark, by_language: bool = False) -> pd.DataFrame:
    """Overlap of a benchmark with training texts (distinct ones: repeats only cost time).

    Columns: part (questions, relevant candidates, candidates) [, language], those of Overlap, and
    examples as lists of dicts (kind, benchmark, training, shared), so that parquet takes them.
    Training texts are read once and not kept but for those that overlap: memory is some
    30 bytes for each word of the benchmark."""
    relevant = benchmark.candidates.iloc[np.unique(benchmark.candidate)]
    parts = {
        "questions": benchmark.questions,
        "relevant candidates": relevant,
        "candidates": benchmark.candidates,
    }
    index = _Index(chain(benchmark.questions["text"], benchmark.candidates["text"]))
    matches, rows = index.matches(training), []
    for part, table in parts.items():
        groups = table.groupby("language")["text"] if by_language else [(None, table["text"])]
        for language, texts in groups:
            overlap = vars(_overlap(set(texts), matches, index))
            examples = [vars(x) | {"shared": x.shared} for x in overlap["examples"]]
            labels = {"part": part} | ({"language": language} if by_language else {})
            rows.append(labels | overlap | {"examples": examples})
    return pd.DataFrame(rows)


# --- how texts are compared --------------------------------------------------------------------


def _runs(words: list[str]) -> list[int]:
    """Hashes of all shortest runs of consecutive words that make up 13 words."""
    sizes = (len(word) if is_dense(word) else DENSE for word in words)
    ends = list(accumulate(sizes, initial=0))
    last = np.searchsorted(ends, np.array(ends) + NGRAM * DENSE).tolist()
    return [hash(tuple(words[i:j])) for i, j in enumerate(last) if j < len(ends)]


def _keys(text: str) -> dict[str, list[int]]:
    """What must be equal in two texts for an overlap of each kind: 64-bit hashes, so that among
    10^8 and 10^6 runs an overlap is invented with a probability of 10^-5."""
    tokens = words(text)
    normal = " ".join(tokens) or text  # texts without words are not all the same
    return {"exact": [hash(text)], "normalised": [hash(normal)], "ngram": _runs(tokens)}


class _Index:
    """The distinct texts of a benchmark, to be found by their keys.

    texts   list of str
    keys    kind -> int64 [K], sorted
    owners  kind -> int32 [K], which text has the key
    """

    def __init__(self, texts: Iterable[str]):
        self.texts = list(dict.fromkeys(texts))
        keys = {kind: array("q") for kind in KINDS}
        owners = {kind: array("i") for kind in KINDS}
        line = f"leak audit: {{}} of {len(self.texts):,} benchmark texts read"
        for number, text in told(enumerate(self.texts), line):
            for kind, hashes in _keys(text).items():
                keys[kind].extend(hashes)
                owners[kind].extend([number] * len(hashes))
        self.keys, self.owners = {}, {}
        for kind in KINDS:
            hashes = np.frombuffer(keys[kind], np.int64)
            order = np.argsort(hashes)
            self.keys[kind] = hashes[order]
            self.owners[kind] = np.frombuffer(owners[kind], np.int32)[order]

    @cached_property
    def long(self) -> set[str]:
        """Texts that have a run of 13 words."""
        return {self.texts[i] for i in np.unique(self.owners["ngram"])}

    def matches(self, training: Iterable[str]) -> dict[str, dict[str, str]]:
        """kind -> benchmark text -> the first training text that overlaps with it."""
        matches, seen = {kind: {} for kind in KINDS}, set()
        for _, text in told(enumerate(training), "leak audit: {} training texts compared"):
            if (key := hash(text)) in seen:
                continue
            if len(seen) < REMEMBERED:
                seen.add(key)
            for kind, keys in _keys(text).items():
                for number in self._owners(kind, keys):
                    matches[kind].setdefault(self.texts[number], text)
        return matches

    def _owners(self, kind: str, keys: list[int]) -> list[int]:
        """Which texts have any of the keys, possibly repeated."""
        low = np.searchsorted(self.keys[kind], keys)
        high = np.searchsorted(self.keys[kind], keys, "right")
        ranges = zip(low[low < high], high[low < high], strict=True)
        return [number for i, j in ranges for number in self.owners[kind][i:j].tolist()]


def _overlap(texts: Collection[str], matches: dict[str, dict[str, str]], index: _Index) -> Overlap:
    """The matches of some of the index' texts."""
    shared = {kind: sorted(pairs.keys() & texts) for kind, pairs in matches.items()}
    examples, seen = [], set()
    for kind, hits in shared.items():
        chosen = [text for text in hits if text not in seen][:SHOWN]
        examples += [Example(kind, text, matches[kind][text]) for text in chosen]
        seen.update(hits)
    return Overlap(
        texts=len(texts),
        long=len(index.long & set(texts)),
        **{kind: len(hits) for kind, hits in shared.items()},
        overlapping=len(seen),
        examples=tuple(examples),
    )
