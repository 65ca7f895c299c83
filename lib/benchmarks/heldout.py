"""The held-out split of a corpus as a benchmark: its test questions over its pool of passages."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pandas as pd

from lib.benchmark import Benchmark
from lib.benchmarks import Format
from lib.corpus import ParallelCorpus
from lib.sources.assemble import whole_articles
from lib.sources.text import fold, share

FORMAT = Format(of_corpus=True)

DEV_POOL = 2_000  # passages a language that validation searches
SIMILAR = 0.3  # Jaccard overlap of character trigrams above which two names are similar
STRATA = ("hops", "wording", "cell")
NAME_COLUMNS = ["question_id", "question_language", "candidate_language", "names"]


def load_benchmark(corpus: ParallelCorpus, clusters: str = "article") -> Benchmark:
    """Questions = test rows (question_id is the pair), candidates = pool, relevant = the passage
    of the pair in every language that has it. Passages of one language with the same text are one
    candidate, relevant for all of their questions. A question's group is its article, where the
    corpus has these and `clusters` does not say "paragraph", else the group of its row. Raises
    ValueError where there is no split, or all of it is set aside."""
    return _benchmark("heldout", tested(corpus, clusters), corpus.pool.to_pandas())


def tested(corpus: ParallelCorpus, clusters: str) -> pd.DataFrame:
    """The rows that test, with their groups by `clusters`. Raises ValueError for none."""
    test, _ = _tables(corpus, aside=False)
    if not len(test):
        raise ValueError("the corpus has no held-out questions to evaluate on")
    return test.assign(group=_by_article(test)) if clusters == "article" else test


def dev(corpus: ParallelCorpus) -> Benchmark:
    """The questions that prepare.dev sets aside for validation while training: whole groups, or
    articles where these are what is held out. The pool is up to DEV_POOL passages a language,
    theirs first. Raises ValueError for none."""
    test, pool = _tables(corpus, aside=True)
    if not len(test) and (share := corpus.meta.get("dev")):
        raise ValueError(
            f"prepare.dev {share:g} sets aside none of the groups held out (expected more data, "
            "fewer folds or a larger share)"
        )
    if not len(test):
        raise ValueError(
            "no questions are set aside for validation: set prepare.dev (expected a share of what "
            "is held out, of a source that holds some out), or train.validate_every to 0"
        )
    others = ~pool["passage_id"].isin(test["passage_id"])
    pool = pool.assign(others=others).sort_values("others", kind="stable")
    pool = pool.groupby("language", sort=True).head(DEV_POOL).drop(columns="others")
    return _benchmark("dev", test, pool.reset_index(drop=True))


def _tables(corpus: ParallelCorpus, aside: bool) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The test rows that are set aside for validation, or the others, and the whole pool."""
    test, pool = corpus.test.to_pandas(), corpus.pool.to_pandas()
    if len(test):
        test = test[_set_aside(corpus, test) == aside].reset_index(drop=True)
    return test, pool


def _by_article(test: pd.DataFrame) -> pd.Series:
    """The article of each test row; its group in a corpus without articles."""
    if "article" not in test:
        return test["group"]
    return test["group"].map(whole_articles(zip(test["group"], test["article"], strict=True)))


def _set_aside(corpus: ParallelCorpus, test: pd.DataFrame) -> np.ndarray:
    """bool [rows of the test table]: whether the group (or article: whatever folds hold out whole)
    is one for validation. Of a share over 0 there is one at least, and one that is not, where
    there are two."""
    whole = _by_article(test) if corpus.meta.get("split") == "article" else test["group"]
    group, dev = whole.tolist(), corpus.meta.get("dev", 0.0)
    groups = sorted(set(group), key=lambda name: share(f"dev {name}"))
    aside = set(groups[: min(len(groups) - 1, math.ceil(dev * len(groups)))])
    return np.array([name in aside for name in group])


def _benchmark(name: str, test: pd.DataFrame, pool: pd.DataFrame) -> Benchmark:
    strata = [column for column in STRATA if column in test]
    questions = test[["pair", "language", "question", "group", *strata]].rename(
        columns={"pair": "question_id", "question": "text"}
    )
    pool["candidate"] = pool.groupby(["language", "passage"], sort=False).ngroup()
    candidates = pool.drop_duplicates("candidate").drop(columns="candidate")
    candidates = candidates.rename(columns={"passage_id": "candidate_id", "passage": "text"})
    relevant = pd.merge(
        test["passage_id"].rename_axis("question").reset_index(),
        pool[["passage_id", "candidate"]].drop_duplicates(),
        on="passage_id",
    ).drop_duplicates(["question", "candidate"])
    return Benchmark.from_pairs(
        name,
        questions,
        candidates.reset_index(drop=True),
        relevant["question"],
        relevant["candidate"],
    )


@cache
def _trigrams(name: str) -> frozenset[str]:
    text = f"_{name}_"
    return frozenset(text[i : i + 3] for i in range(len(text) - 2))


@cache
def _alike(a: str, b: str) -> int:
    """2: the same name, 1: similar names, 0: different names."""
    a, b = fold(a), fold(b)
    if a == b:
        return 2
    first, second = _trigrams(a), _trigrams(b)
    return int(len(first & second) > SIMILAR * len(first | second))


def name_strata(corpus: ParallelCorpus) -> pd.DataFrame:
    """How alike the names in a question's chain are in two languages: columns question_id,
    question_language, candidate_language, names (identical / similar / different).

    The most alike of the chain's names decides, so `different` holds no shared string at all.
    Empty for a corpus that lists no names."""
    rows = []
    if "names" not in corpus.test.column_names:
        return pd.DataFrame(columns=NAME_COLUMNS)
    for pair, block in corpus.test.to_pandas().groupby("pair", sort=True):
        names = dict(zip(block["language"], block["names"], strict=True))
        for a, one in names.items():
            for b, other in names.items():
                alike = max(_alike(x, y) for x, y in zip(one, other, strict=True))
                rows.append((pair, a, b, ("different", "similar", "identical")[alike]))
    table = pd.DataFrame(rows, columns=NAME_COLUMNS)
    return table.astype(dict.fromkeys(NAME_COLUMNS[1:], "category"))
