"""A benchmark: questions, candidates, and which candidate answers which question.

Every format (a corpus' held-out split, LAReQA, BEIR, ...) ends in this one type, so that search and
metrics are written once. Only relevant (question, candidate) pairs are stored; the settings mono,
cross, multi and one-target follow from the languages of the two sides.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

QUESTION_COLUMNS = ("question_id", "language", "text", "group")
CANDIDATE_COLUMNS = ("candidate_id", "language", "text")


@dataclass(frozen=True, eq=False)
class Benchmark:
    """Q questions, C candidates and N relevant pairs of them; checked when made (ValueError).

    name        what reports and score files call it
    questions   question_id, language, text, group (questions of one group are not independent: the
                unit of resampling), and any further columns as strata; (question_id, language) is
                unique, so translations may share an id
    candidates  candidate_id, language, text; (candidate_id, language) is unique
    question    int32 [N], row numbers into `questions`, sorted
    candidate   int32 [N], row numbers into `candidates`, sorted within a question
    grade       float32 [N], gain of each relevant pair, > 0 (1 where relevance is yes or no)
    unused      what of its files is of no use, in words -> how often (published files have such)
    """

    name: str
    questions: pd.DataFrame
    candidates: pd.DataFrame
    question: np.ndarray
    candidate: np.ndarray
    grade: np.ndarray
    unused: dict[str, int] = field(default_factory=dict)

    def __post_init__(self):
        _check_table(self, "questions", QUESTION_COLUMNS)
        _check_table(self, "candidates", CANDIDATE_COLUMNS)
        _check_pairs(self)

    @classmethod
    def from_pairs(
        cls,
        name: str,
        questions: pd.DataFrame,
        candidates: pd.DataFrame,
        question: ArrayLike,
        candidate: ArrayLike,
        grade: ArrayLike | None = None,
        unused: dict[str, int] | None = None,
    ) -> Benchmark:
        """A benchmark from relevant pairs in any order; without `grade` every pair has grade 1."""
        question, candidate = np.asarray(question, np.int32), np.asarray(candidate, np.int32)
        grade = np.ones(len(question)) if grade is None else np.asarray(grade)
        order = np.lexsort((candidate, question))
        return cls(
            name,
            questions,
            candidates,
            question[order],
            candidate[order],
            grade[order].astype(np.float32),
            dict(unused or {}),
        )

    @cached_property
    def digest(self) -> str:
        """40 hex digits that stand for its texts, languages and relevance."""
        pairs = pd.DataFrame({x: getattr(self, x) for x in ("question", "candidate", "grade")})
        tables = self.questions[[*QUESTION_COLUMNS]], self.candidates[[*CANDIDATE_COLUMNS]], pairs
        checksum = sha256()
        for table in tables:
            checksum.update(table.to_csv(index=False).encode())
        return checksum.hexdigest()[:40]

    @cached_property
    def languages(self) -> tuple[str, ...]:
        """The L languages of either side, sorted; language numbers below count in this order."""
        return tuple(sorted({*self.questions["language"], *self.candidates["language"]}))

    @cached_property
    def question_language(self) -> np.ndarray:
        """int16 [Q]: language number of each question."""
        return pd.Index(self.languages).get_indexer(self.questions["language"]).astype(np.int16)

    @cached_property
    def candidate_language(self) -> np.ndarray:
        """int16 [C]: language number of each candidate."""
        return pd.Index(self.languages).get_indexer(self.candidates["language"]).astype(np.int16)


def _check_table(benchmark: Benchmark, side: str, columns: tuple[str, ...]) -> None:
    """Raise ValueError unless the table has rows, the columns, and one row an (id, language)."""
    table, where = getattr(benchmark, side), f"benchmark {benchmark.name!r}: {side}"
    if missing := [column for column in columns if column not in table]:
        raise ValueError(f"{where} lacks column {missing[0]!r}; expected {', '.join(columns)}")
    if not len(table):
        raise ValueError(f"{where} is empty")
    for column in columns:
        if (bad := table[column].isna().to_numpy()).any():
            raise ValueError(f"{where} row {bad.argmax()} has no {column}")
    keys = [columns[0], "language"]
    if (repeated := table.duplicated(keys).to_numpy()).any():
        row = table.iloc[repeated.argmax()]
        raise ValueError(f"{where} names {keys[0]} {row[keys[0]]!r} twice in {row['language']!r}")


def _check_pairs(benchmark: Benchmark) -> None:
    """Raise ValueError unless the three arrays describe distinct, sorted, existing pairs."""
    arrays = {"question": np.int32, "candidate": np.int32, "grade": np.float32}
    where, size = f"benchmark {benchmark.name!r}", len(benchmark.question)
    for name, dtype in arrays.items():
        array = getattr(benchmark, name)
        if array.shape != (size,) or array.dtype != dtype:
            raise ValueError(
                f"{where}: {name} is {array.dtype} {list(array.shape)}, "
                f"expected {np.dtype(dtype)} [{size}]"
            )
    if not size:
        raise ValueError(f"{where}: no question has a relevant candidate")
    for name, table in ("question", benchmark.questions), ("candidate", benchmark.candidates):
        rows = getattr(benchmark, name)
        if rows.min() < 0 or rows.max() >= len(table):
            raise ValueError(
                f"{where}: {name} row {rows.min() if rows.min() < 0 else rows.max()} "
                f"does not exist among {len(table)}"
            )
    step = np.diff(
        benchmark.question.astype(np.int64) * len(benchmark.candidates) + benchmark.candidate
    )
    if (step <= 0).any():
        at = int((step <= 0).argmax()) + 1
        problem = "given twice" if step[at - 1] == 0 else "out of order (question, then candidate)"
        raise ValueError(
            f"{where}: relevant pair {at} (question row {benchmark.question[at]}, "
            f"candidate row {benchmark.candidate[at]}) is {problem}"
        )
    if not (np.isfinite(benchmark.grade) & (benchmark.grade > 0)).all():
        raise ValueError(
            f"{where}: every grade must be a finite number above 0; leave irrelevant pairs out"
        )
