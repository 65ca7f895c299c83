"""Reference rankers: what chance, an oracle of one language, and shared words reach.

They say how hard a benchmark is, which a sample of its questions says as well: where all questions
and candidates make more than SCORES scores, `sampled` draws one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np

from lib.benchmark import Benchmark
from lib.benchmarks import part, told
from lib.metrics import REFERENCES, Ranks
from lib.search import SCALE, Tile, relevant_ranks, tile_rows
from lib.sources.text import characters, runs, share

SCORES = 1_000_000_000  # of a ranker on a benchmark: a minute or two


def sampled(benchmark: Benchmark, scores: int = SCORES) -> Benchmark:
    """The benchmark with so many questions that they and its candidates make at most `scores`
    scores; itself where all do. All candidates stay, so every rank is what it is in the whole.

    Every language keeps the same number of questions (all, if it has fewer), chosen by the hash of
    their group: always the same ones, and translations together. Prints how many are left."""
    most = scores // len(benchmark.candidates)
    if len(benchmark.questions) <= most:
        return benchmark
    drawn = [share(f"reference {group}") for group in benchmark.questions["group"]]
    questions = benchmark.questions.assign(drawn=drawn).sort_values("drawn", kind="stable")
    languages = questions["language"]
    place = questions.groupby("language").cumcount().sort_index().to_numpy()
    chosen = place < max(1, most // languages.nunique())
    print(
        f"{benchmark.name}: reference rankers answer {chosen.sum():,} of {len(chosen):,} questions "
        f"(a fixed sample) over all {len(benchmark.candidates):,} candidates",
        flush=True,
    )
    return part(benchmark, chosen, np.ones(len(benchmark.candidates), bool))[0]


def reference_ranks(benchmark: Benchmark, name: str, seed: int = 0) -> Ranks:
    """Ranks of a reference row: random, oracle, bm25_words or bm25_chars; else ValueError.

    `seed` is for the first two. BM25 weighs terms by the collection it indexes, so `own` comes from
    one index a language, made one after the other, and the other ranks from one index of the whole
    pool. Says how far it is every half minute."""
    if name in ("random", "oracle"):
        tiles = random_tiles if name == "random" else oracle_tiles
        return _ranks(benchmark, tiles(benchmark, seed), name)
    if name not in REFERENCES:
        raise ValueError(f"unknown reference ranker {name!r}; expected {', '.join(REFERENCES)}")
    terms = word_terms if name == "bm25_words" else char_ngrams
    ranks = _bm25_ranks(benchmark, terms, name)
    own = np.empty_like(ranks.own)
    for number, language in enumerate(benchmark.languages):
        found = benchmark.candidate_language == number
        asked = np.zeros(len(benchmark.questions), bool)
        asked[benchmark.question[found[benchmark.candidate]]] = True
        if asked.any():
            own_pool, pairs = part(benchmark, asked, found)
            own[pairs] = _bm25_ranks(own_pool, terms, f"{name} in {language}").pool
    return replace(ranks, own=own)


def _bm25_ranks(benchmark: Benchmark, terms: Callable[[str], list[str]], what: str) -> Ranks:
    texts = [side["text"].tolist() for side in (benchmark.questions, benchmark.candidates)]
    return _ranks(benchmark, bm25_tiles(*texts, terms), what)


def _ranks(benchmark: Benchmark, tiles: Iterable[Tile], what: str) -> Ranks:
    line = f"{benchmark.name}: {what}: {{}} of {len(benchmark.questions):,} questions"
    return relevant_ranks(told(tiles, line), benchmark)


def random_tiles(benchmark: Benchmark, seed: int = 0) -> Iterator[Tile]:
    """Tiles of independent uniform scores below 2^30.

    Tile k is drawn by a generator seeded with (seed, k): the same benchmark and seed, the same
    scores; in another order of texts a question draws others."""
    count, width = len(benchmark.questions), len(benchmark.candidates)
    rows = tile_rows(width)
    for first in range(0, count, rows):
        generator = np.random.default_rng([seed, first // rows])
        shape = (min(rows, count - first), width)
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


def word_terms(text: str) -> list[str]:
    """Folded words; of scripts without spaces between words pairs of neighbouring characters (a
    lone one is itself), as in Lucene's CJKAnalyzer. Single ones are little more than letters in
    Thai (mAP on XQuAD-R .69, of pairs .78; in Chinese .79 and .78).

    >>> word_terms("Wo liegt's? 北京市")
    ['wo', 'liegt', 's', '北京', '京市']
    """
    terms = []
    for run, unspaced in runs(text):
        parts = characters(run) if unspaced else [run]
        terms += ["".join(parts[i : i + 2]) for i in range(len(parts) - 1)] or parts
    return terms


def char_ngrams(text: str) -> list[str]:
    """Character trigrams of each folded word in underscores, marks being characters; bigrams of
    scripts without spaces between words.

    >>> char_ngrams("Wo? 北京")
    ['_wo', 'wo_', '_北', '北京', '京_']
    """
    grams = []
    for run, unspaced in runs(text):
        size, framed = 2 if unspaced else 3, f"_{run}_"
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
    numbered = told(enumerate(candidates), f"BM25: {{}} of {len(candidates):,} passages read")
    terms = ([vocabulary.setdefault(x, len(vocabulary)) for x in tokenizer(t)] for _, t in numbered)
    weights = _bm25_weights(list(terms), vocabulary)
    rows = tile_rows(len(candidates))
    for first in range(0, len(questions), rows):
        part = [
            [vocabulary[term] for term in tokenizer(text) if term in vocabulary]
            for text in questions[first : first + rows]
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
