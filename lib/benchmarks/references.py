"""Reference rankers: what chance, an oracle of one language, and shared words reach."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache

import numpy as np

from lib.benchmark import Benchmark
from lib.metrics import REFERENCES, Ranks
from lib.search import ROWS, SCALE, Tile, language_columns, relevant_ranks


def reference_ranks(benchmark: Benchmark, name: str, seed: int = 0) -> Ranks:
    """Ranks of a reference row: random, oracle, bm25_words or bm25_chars; else ValueError.

    `seed` is for the first two. BM25 weighs terms by the collection it indexes, so `own` comes from
    one index a language and the other ranks from one index of the whole pool."""
    if name == "random":
        return relevant_ranks(random_tiles(benchmark, seed), benchmark)
    if name == "oracle":
        return relevant_ranks(oracle_tiles(benchmark, seed), benchmark)
    if name not in REFERENCES:
        raise ValueError(f"unknown reference ranker {name!r}; expected {', '.join(REFERENCES)}")
    tokenizer = cache(words if name == "bm25_words" else char_ngrams)
    questions = benchmark.questions["text"].tolist()
    texts = benchmark.candidates["text"].to_numpy(object)
    pooled = bm25_tiles(questions, texts.tolist(), tokenizer)
    columns = [chosen for chosen in language_columns(benchmark) if len(texts[chosen])]
    single = [bm25_tiles(questions, texts[chosen].tolist(), tokenizer) for chosen in columns]
    ranks = relevant_ranks(_side_by_side(single, columns, len(texts)), benchmark).own
    return replace(relevant_ranks(pooled, benchmark), own=ranks)


def random_tiles(benchmark: Benchmark, seed: int = 0) -> Iterator[Tile]:
    """Tiles of independent uniform scores below 2^30.

    Tile k is drawn by a generator seeded with (seed, k): the same benchmark and seed, the same
    scores; in another order of texts a question draws others."""
    count, width = len(benchmark.questions), len(benchmark.candidates)
    for first in range(0, count, ROWS):
        generator = np.random.default_rng([seed, first // ROWS])
        shape = (min(ROWS, count - first), width)
        yield first, generator.integers(0, 1 << 30, shape, np.int32)


def oracle_tiles(benchmark: Benchmark, seed: int = 0) -> Iterator[Tile]:
    """Tiles of an oracle for the own language only.

    A question's relevant candidates in its own language come first, in random order; everything
    else is random, relevant or not: perfect monolingual retrieval, no cross-lingual skill."""
    same = (
        benchmark.question_language[benchmark.question]
        == benchmark.candidate_language[benchmark.candidate]
    )
    question, candidate = benchmark.question[same], benchmark.candidate[same]
    for first, scores in random_tiles(benchmark, seed):
        here = slice(*np.searchsorted(question, [first, first + len(scores)]))
        scores[question[here] - first, candidate[here]] += 1 << 30
        yield first, scores


def words(text: str) -> list[str]:
    r"""Lower-cased runs of \w.

    >>> words("Wo liegt's?")
    ['wo', 'liegt', 's']
    """
    return re.findall(r"\w+", text.lower())


_HAN_OR_THAI = re.compile(
    r"[\u0e00-\u0e7f\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    r"\U00020000-\U0003ffff]"
)


def char_ngrams(text: str) -> list[str]:
    """Character trigrams of each lower-cased word in underscores; bigrams if it has Han or Thai.

    >>> char_ngrams("Wo? 北京")
    ['_wo', 'wo_', '_北', '北京', '京_']
    """
    grams = []
    for word in words(text):
        size, framed = 2 if _HAN_OR_THAI.search(word) else 3, f"_{word}_"
        grams += [framed[i : i + size] for i in range(len(framed) - size + 1)]
    return grams


def bm25_tiles(
    questions: list[str], candidates: list[str], tokenizer: Callable[[str], list[str]]
) -> Iterator[Tile]:
    """Tiles of int64 scores rint(1e6 * BM25) by bm25s with its defaults (Lucene, k1 1.5, b .75).

    bm25s stores a term's share of the score for each candidate, so that the scores of many
    questions are one product of their term counts with that matrix. Summed in float64: how terms
    are numbered cannot break a tie."""
    vocabulary = {"": 0}  # no text has this term; it keeps the vocabulary of empty texts non-empty
    documents = [
        [vocabulary.setdefault(term, len(vocabulary)) for term in tokenizer(text)]
        for text in candidates
    ]
    weights = _bm25_weights(documents, vocabulary)
    for first in range(0, len(questions), ROWS):
        part = [
            [vocabulary[term] for term in tokenizer(text) if term in vocabulary]
            for text in questions[first : first + ROWS]
        ]
        scores = (_term_counts(part, len(vocabulary)) @ weights).toarray()
        yield first, np.rint(scores * SCALE).astype(np.int64)


def _bm25_weights(documents: list[list[int]], vocabulary: dict[str, int]):
    """Sparse float64 [terms, documents]: what one occurrence of a term in a question adds."""
    import bm25s
    from scipy import sparse

    index = bm25s.BM25()
    with np.errstate(invalid="ignore"):  # texts without any term have a mean length of 0
        index.index((documents, vocabulary), show_progress=False)
    parts = index.scores["data"].astype(np.float64), index.scores["indices"], index.scores["indptr"]
    return sparse.csr_array(parts, shape=(len(vocabulary), len(documents)))


def _term_counts(texts: list[list[int]], terms: int):
    """Sparse float64 [texts, terms]: how often each text has each term."""
    from scipy import sparse

    offsets = np.cumsum([0, *map(len, texts)])
    numbers = np.fromiter((term for text in texts for term in text), np.int64, offsets[-1])
    return sparse.csr_array((np.ones(len(numbers)), numbers, offsets), shape=(len(texts), terms))


def _side_by_side(parts: list[Iterator[Tile]], columns: list, width: int) -> Iterator[Tile]:
    """Tiles of all columns from iterators that score some of them each."""
    for together in zip(*parts, strict=True):
        scores = np.empty((len(together[0][1]), width), np.int64)
        for chosen, (_, part) in zip(columns, together, strict=True):
            scores[:, chosen] = part
        yield together[0][0], scores
