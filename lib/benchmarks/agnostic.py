"""Language-agnosticism: does a vector say what a passage means, or in which language it is?

One value each for an encoder and a benchmark in several languages: the accuracy of a language-ID
probe (of representations, as in Libovicky et al. 2020, arXiv 2004.05160), and the share of variance
that lies between the centroids of languages. docs/benchmarks.md has a row for each; what scores
say, question by question, is in lib.analysis.bias.

Both are of the passages that answer QUESTIONS questions at most, the same for every encoder, in all
of their languages: so these differ in nothing but language, as far as a benchmark is parallel.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from lib import metrics, search
from lib.benchmark import Benchmark
from lib.sources.assemble import united
from lib.sources.text import share

QUESTIONS = 200  # ids of questions, at most, in every language that has them
FOLDS = 5
SHRINKAGE = 0.01


def measures(benchmark: Benchmark, vectors: np.ndarray) -> pd.DataFrame:
    """One row: probe, chance, between, expected, and how many passages and languages they are of;
    no row where the passages that answer are in one language.

    vectors: float [C, d], of the candidates"""
    rows, group = sample(benchmark)
    language = benchmark.candidate_language[rows]
    languages = len(np.unique(language))
    if languages < 2:
        return pd.DataFrame()
    units = np.asarray(vectors[rows], np.float64)
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    found = {
        "probe": probe_accuracy(units, language, group),
        "chance": 1 / languages,
        "between": between_share(units, language),
        "expected": (languages - 1) / (len(rows) - 1),
        "passages": len(rows),
        "languages": languages,
    }
    return pd.DataFrame([found])


def sample(benchmark: Benchmark) -> tuple[np.ndarray, np.ndarray]:
    """Rows int64 [n] of the candidates that answer the QUESTIONS ids with the least hashes, and the
    group (str [n]) of each: questions that share a passage are of one group, and so are those whose
    groups the benchmark has as one. So a passage and its translations have the same."""
    chosen = _asked(benchmark)[benchmark.question]
    candidate = benchmark.candidate[chosen]
    groups = benchmark.questions["group"].to_numpy()[benchmark.question[chosen]]
    # The least name of what is linked is a group's, whatever the numbers of passages.
    name = united((f"group {g}", f"passage {c}") for c, g in zip(candidate, groups, strict=True))
    rows = np.unique(candidate)
    return rows, np.array([name[f"passage {row}"] for row in rows])


def _asked(benchmark: Benchmark) -> np.ndarray:
    """bool [Q]: the questions of the QUESTIONS answered ids with the least hashes."""
    ids = benchmark.questions["question_id"]
    answered = ids.iloc[np.unique(benchmark.question)].unique()
    least = sorted(answered, key=lambda name: share(f"agnostic {name}"))[:QUESTIONS]
    return ids.isin(least).to_numpy()


def bitext(benchmark: Benchmark, vectors: np.ndarray) -> pd.DataFrame:
    """question (row number), question_language, candidate_language, bitext: whether the translation
    of a question is nearest to it among the questions of that language, a tie counting as no.

    As in lib.benchmarks.parallel, of questions in place of passages: those of the same ids that
    `sample` takes, so that chance is 1 / QUESTIONS at the least. Empty where none is translated.
    vectors: float32 [Q, d], of the questions"""
    rows = np.flatnonzero(_asked(benchmark))
    own = benchmark.questions.iloc[rows].reset_index(drop=True)
    row = own["question_id"].rename_axis("row").reset_index()
    pairs = pd.merge(row, row, on="question_id", suffixes=("", "_other"))
    candidates = own.rename(columns={"question_id": "candidate_id"})
    made = Benchmark.from_pairs("bitext", own, candidates, pairs["row"], pairs["row_other"])
    ranks = search.relevant_ranks(search.tiles(vectors[rows], vectors[rows]), made)
    scores = metrics.question_scores(made, ranks)
    cross = scores[scores["setting"] == "cross"].rename(columns={"hit1": "bitext"})
    cross["question"] = rows[cross["question"]]
    return cross[["question", *metrics.CELL, "bitext"]].astype(dict.fromkeys(metrics.CELL, str))


def probe_accuracy(vectors: np.ndarray, language: np.ndarray, group: np.ndarray) -> float:
    """Share of passages whose language a linear probe tells, mean over languages; chance is 1 / L.

    The probe is a linear discriminant with equal priors (`discriminant`), tested on FOLDS folds of
    whole groups that it was not made of. NaN with one group. vectors: float [n, d]; language: int
    [n]; group: str [n]."""
    names, place = np.unique(group, return_inverse=True)
    if len(names) < 2:
        return np.nan
    fold = np.argsort(np.argsort([share(f"probe {name}") for name in names])) % FOLDS
    right = np.zeros(len(language), bool)
    for tested in np.unique(fold):
        held = fold[place] == tested
        known, weights, offsets = discriminant(vectors[~held], language[~held])
        told = known[np.argmax(vectors[held] @ weights + offsets, axis=1)]
        right[held] = told == language[held]
    return float(np.mean([right[language == x].mean() for x in np.unique(language)]))


def discriminant(vectors: np.ndarray, language: np.ndarray) -> tuple[np.ndarray, ...]:
    """Languages int [L], weights [d, L] and offsets [L]: the language of the largest x w + o is the
    likeliest, where languages are equally frequent normal clouds of one shape.

    w_l = A m_l, o_l = -m_l A m_l / 2, A the inverse of (1 - g) S + g tr(S) / d I with m_l the
    languages' means, S the covariance around them and g = SHRINKAGE (Friedman 1989, "Regularized
    discriminant analysis"): in closed form, so nothing is to be tuned or may fail to converge."""
    known, place, size = np.unique(language, return_inverse=True, return_counts=True)
    means = np.stack([vectors[place == x].mean(0) for x in range(len(known))])
    around = vectors - means[place]
    spread = (1 - SHRINKAGE) * (around.T @ around) / len(vectors)
    mean = np.trace(spread) / len(spread) / (1 - SHRINKAGE)
    spread[np.diag_indices_from(spread)] += SHRINKAGE * mean or 1.0
    weights = np.linalg.solve(spread, means.T)
    return known, weights, -(means.T * weights).sum(0) / 2


def between_share(vectors: np.ndarray, language: np.ndarray) -> float:
    """Sum over passages of |m_l - m|^2 over that of |x - m|^2, m_l the mean of the passage's
    language and m of all: the share of variance between centroids of languages (eta squared).

    (L - 1) / (n - 1) in expectation where labels of language are dealt out at random; of parallel
    passages down to 0, where translations have the same vector. NaN where all vectors are one."""
    around = vectors - vectors.mean(0)
    between = sum(
        (language == x).sum() * np.square(around[language == x].mean(0)).sum()
        for x in np.unique(language)
    )
    total = np.square(around).sum()
    return float(between / total) if total > 0 else np.nan
