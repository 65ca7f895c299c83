"""Parallel question-passage pairs: the rows on disk and the index that the sampler draws from.

A row is one pair in one language. Rows are kept sorted by (pair, language), so that a row number
follows from (pair, language) by arithmetic and the sampler needs no text at all.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import numpy as np
import regex
from datasets import Dataset, disable_progress_bars, load_from_disk

from lib import store

TABLES = ("rows", "test", "pool")
disable_progress_bars()


@dataclass(frozen=True)
class PairIndex:
    """Which pairs exist in which languages, and which must not meet in one batch.

    Pairs that exist in the same set of languages share a *pattern*, so the index costs 8 bytes a
    pair however many languages there are.

    languages  L language codes, sorted
    pattern    int32 [P], row of `patterns` that says in which languages the pair exists
    patterns   bool [K, L], one row a distinct set of languages
    group      int32 [P], pairs of one group never share a batch (a passage lies in one group)
    negatives  optional CSR of explicit negatives: (offsets int64 [P+1], pairs int32 [N]); a
               negative is named by a pair whose passage it is
    """

    languages: tuple[str, ...]
    pattern: np.ndarray
    patterns: np.ndarray
    group: np.ndarray
    negatives: tuple[np.ndarray, np.ndarray] | None = None

    def __len__(self) -> int:
        """Number of pairs P."""
        return len(self.pattern)

    @cached_property
    def first_row(self) -> np.ndarray:
        """int64 [P]: the first row of each pair, rows being sorted by (pair, language)."""
        sizes = self.patterns.sum(1)[self.pattern]
        return np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)

    def rows(self, pair: np.ndarray, language: np.ndarray) -> np.ndarray:
        """Row numbers int64 of (pair, language number); broadcasts.

        Raises KeyError if a pair does not exist in the asked language."""
        pattern = self.pattern[pair]
        if not self.patterns[pattern, language].all():
            raise KeyError("a pair does not exist in the language asked for")
        return self.first_row[pair] + np.cumsum(self.patterns, 1)[pattern, language] - 1

    @classmethod
    def from_present(cls, languages, present, group, negatives=None) -> PairIndex:
        """Index from a bool [P, L] table of which pair exists in which language."""
        patterns, pattern = np.unique(np.asarray(present, bool), axis=0, return_inverse=True)
        return cls(
            tuple(languages),
            pattern.reshape(-1).astype(np.int32),
            patterns,
            np.asarray(group, np.int32),
            negatives,
        )


@dataclass(frozen=True)
class ParallelCorpus:
    """Training pairs in several languages, and where a source has them a test split and a pool.

    rows  Dataset: pair, language, question, passage, passage_id, group, source [, negatives]
    test  Dataset of the same columns plus strata (hops, wording, …); empty if there is no split
    pool  Dataset: passage_id, language, passage: what is searched; empty if there is no split
    meta  source, version, licence, counts: the manifest's own words
    """

    rows: Dataset
    test: Dataset
    pool: Dataset
    meta: dict
    folder: Path | None = None

    @classmethod
    def from_rows(cls, rows, meta, test=(), pool=(), folder=None) -> ParallelCorpus:
        """Corpus of lists of dicts. Raises ValueError where rows contradict the contract."""
        rows = sorted(rows, key=lambda row: (row["pair"], row["language"]))
        _check(rows)
        test = sorted(test, key=lambda row: (row["language"], row["pair"]))
        pool = sorted(pool, key=lambda row: (row["language"], row["passage_id"]))
        tables = [Dataset.from_list(list(part)) for part in (rows, test, pool)]
        meta = meta | {"counts": _counts(tables), "content_hash": _digest(rows)}
        return cls(*tables, meta, folder)

    @property
    def languages(self) -> tuple[str, ...]:
        return self.index.languages

    @property
    def tokenizer_file(self) -> Path:
        return self.folder / "tokenizer.json"

    @property
    def content_hash(self) -> str:
        """sha256 of the training rows: what a checkpoint was trained on."""
        return self.meta["content_hash"]

    @cached_property
    def index(self) -> PairIndex:
        """The training pairs x languages, numbered in the order of the rows."""
        languages, column = np.unique(self.rows["language"][:], return_inverse=True)
        _, first, pair = np.unique(self.rows["pair"][:], return_index=True, return_inverse=True)
        present = np.zeros((len(first), len(languages)), bool)
        present[pair, column] = True
        group = np.unique(np.asarray(self.rows["group"][:])[first], return_inverse=True)[1]
        negatives = self._negatives(first) if "negatives" in self.rows.column_names else None
        return PairIndex.from_present(languages.tolist(), present, group, negatives)

    def _negatives(self, first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """CSR of explicit negatives, each named by the first pair that has its passage."""
        passages, named = self.rows["passage_id"][:], self.rows["negatives"][:]
        pair_of = {passages[row]: pair for pair, row in reversed(list(enumerate(first.tolist())))}
        lists = [[pair_of[x] for x in named[row]] for row in first.tolist()]
        offsets = np.concatenate([[0], np.cumsum([len(x) for x in lists])]).astype(np.int64)
        return offsets, np.array([x for found in lists for x in found], np.int32)

    def save(self, folder: Path) -> None:
        """Write the three tables below `folder`; `meta` belongs into its manifest."""
        for name in TABLES:
            if len(table := getattr(self, name)):  # datasets cannot read an empty one back
                table.save_to_disk(folder / name)

    @classmethod
    def load(cls, folder: Path) -> ParallelCorpus:
        """Read a saved corpus whose manifest verifies (else lib.store.Damaged is raised)."""
        meta = store.verify(folder)
        tables = [
            load_from_disk(str(folder / name))
            if (folder / name).is_dir()
            else Dataset.from_list([])
            for name in TABLES
        ]
        return cls(*tables, meta, folder)


def _check(rows: list[dict]) -> None:
    """One passage a pair, one group a passage, one row a (pair, language): or ValueError."""
    passage, group, seen = {}, {}, set()
    for row in rows:
        pair, key = row["pair"], (row["pair"], row["language"])
        if key in seen:
            raise ValueError(f"pair {pair}: two rows in {row['language']}, expected one")
        seen.add(key)
        if passage.setdefault(pair, row["passage_id"]) != row["passage_id"]:
            raise ValueError(f"pair {pair}: two passage_ids, expected the same in each language")
        if group.setdefault(row["passage_id"], row["group"]) != row["group"]:
            raise ValueError(f"passage {row['passage_id']}: lies in two groups, expected one")
    if not rows:
        raise ValueError("the corpus has no training rows")


def _counts(tables) -> dict:
    """Rows of each table by language."""
    return {
        name: dict(sorted(Counter(table["language"][:]).items())) if len(table) else {}
        for name, table in zip(TABLES, tables, strict=True)
    }


def _digest(rows: list[dict]) -> str:
    """sha256 of the training rows' texts and keys."""
    digest = sha256()
    for row in rows:
        digest.update("\x1f".join(map(str, row.values())).encode() + b"\x1e")
    return digest.hexdigest()


def train_tokenizer(texts, vocabulary: int):
    """A BPE tokenizer (`tokenizers.Tokenizer`) of all characters that occur in `texts`.

    The same texts give the same bytes in every process. Special tokens as BERT's, ids 0 to 4."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Punctuation(), pre_tokenizers.Metaspace()]
    )
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=special, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


# --- leak audit --------------------------------------------------------------------------------

NGRAM = 13  # words, as in the contamination audits of GPT-3 (arXiv 2005.14165, appendix C)
_UNSPACED = r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff]"
# With marks, which Python's \w leaves out: without its vowel signs Togo is Tonga in Hindi.
_WORD = regex.compile(rf"{_UNSPACED}|(?:(?!{_UNSPACED})[\p{{L}}\p{{M}}\p{{N}}])+")


def _words(text: str) -> list[str]:
    """Case-folded words; each Han, kana or Thai character is a word of its own."""
    return _WORD.findall(text.casefold())


def _ngrams(words: list[str]) -> set[int]:
    return {hash(tuple(words[i : i + NGRAM])) for i in range(len(words) - NGRAM + 1)}


@dataclass(frozen=True)
class Overlap:
    """How many of `texts` also occur in training: as they are, but for case and punctuation, or
    by any run of 13 words."""

    texts: int
    exact: int
    normalised: int
    ngram: int
    examples: tuple[str, ...]


def leak_audit(training, benchmark) -> Overlap:
    """Overlap of distinct `benchmark` texts with `training` texts (iterables of str)."""
    training, benchmark = set(training), sorted(set(benchmark))
    normal, ngrams = set(), set()
    for text in training:
        words = _words(text)
        normal.add(" ".join(words))
        ngrams |= _ngrams(words)
    words = {text: _words(text) for text in benchmark}
    exact = [t for t in benchmark if t in training]
    normalised = [t for t in benchmark if " ".join(words[t]) in normal]
    shared = [t for t in benchmark if _ngrams(words[t]) & ngrams]
    return Overlap(
        len(benchmark),
        len(exact),
        len(normalised),
        len(shared),
        tuple(dict.fromkeys(exact + normalised + shared))[:5],
    )
