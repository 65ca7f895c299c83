"""Any data set of text pairs as what a Schedule draws from.

Imports are relative here and in `sentence_transformers`, because these modules are installed
elsewhere under another name than `lib` (setup.py).

>>> rows = Dataset.from_dict({
...     "anchor": ["wer", "who", "wo", "where"], "positive": ["ich", "me", "hier", "here"],
...     "language": ["de", "en", "de", "en"], "fact": [1, 1, 2, 2]})
>>> pairs = Pairs.from_dataset(rows, pair="fact")
>>> pairs.index.languages, pairs.index.patterns, pairs.questions["anchor"][:]
(('de', 'en'), array([[ True,  True]]), ['wer', 'who', 'wo', 'where'])
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from ..sampler import PairIndex


@dataclass(frozen=True)
class Pairs:
    """Questions and passages in several languages, and the index of which there are.

    questions, passages  Datasets whose row `index.rows(pair, language)` is that text. Passages may
                         have further columns of texts, which go with them

    `from_dataset` takes these names of columns:

    question   text; as `passage`
    negatives  texts that go with the passage, as explicit negatives in its language do
    language   the language of a row; two columns where question and passage differ in it
    pair       what a pair and its translations have in common. Without it a row is a pair of its
               own, for arms that need no translations (mono, x-x, en-en). With it, pairs that
               exist in one language alone are left out of every arm
    group      what pairs have in common that must not meet in a batch; by default nothing
    """

    index: PairIndex
    questions: Dataset
    passages: Dataset

    @classmethod
    def from_dataset(
        cls,
        rows: Dataset,
        *,
        question: str = "anchor",
        passage: str = "positive",
        negatives: Sequence[str] = (),
        language: str | tuple[str, str] = "language",
        pair: str | None = None,
        group: str | None = None,
        languages: Collection[str] | None = None,
    ) -> Pairs:
        """Pairs of a data set with a question and a passage in each row, in `languages` if given.

        A pair exists in a language where both of its texts do; a text without its other side is
        left out, with a warning that counts them. Raises TypeError for anything but a Dataset,
        ValueError for a column that is missing, named twice or of another type, an empty or
        unexpected value, a negative that is the passage, two texts in one place, and a pair without
        any language; each names column and row."""
        if not isinstance(rows, Dataset):
            raise TypeError(f"given {type(rows).__name__}, expected a datasets.Dataset, one split")
        if not len(rows):
            raise ValueError("has no rows (expected some)")
        for name, several in (("negatives", negatives), ("languages", languages)):
            if isinstance(several, str):
                raise TypeError(f"{name}={several!r} is a text, expected a list of them")
        _require_distinct(question, passage, *negatives)
        texts = [_texts(rows, name) for name in (question, passage, *negatives)]
        _require_no_answers(texts[1], dict(zip(negatives, texts[2:], strict=True)))
        names, spoken = _languages(rows, language, languages)
        number = np.arange(len(rows)) if pair is None else _numbers(rows, pair)
        present, first = _present(number, names, spoken, (texts[:1], texts[1:]), pair)
        groups = np.arange(len(present)) if group is None else _groups(rows, group, number, pair)
        index = replace(PairIndex.from_present(names, present, groups), alone=pair is None)
        columns = [question], [passage, *negatives]
        plain = rows.with_format(None)
        tables = [plain.select_columns(c).select(f) for c, f in zip(columns, first, strict=True)]
        return cls(index, *tables)


def _require_distinct(*columns: str) -> None:
    """Raises ValueError for a column that is named for two kinds of texts."""
    for name in columns:
        if columns.count(name) > 1:
            raise ValueError(
                f"column {name!r} is named twice among question, passage and negatives (expected "
                "one each)"
            )


def _require_no_answers(passage: pa.ChunkedArray, negatives: dict[str, pa.ChunkedArray]) -> None:
    """Raises ValueError for a negative that is its row's passage."""
    for name, column in negatives.items():
        if (at := pc.index(pc.equal(column, passage), True).as_py()) >= 0:
            raise ValueError(f"{name}: row {at} has the text of its passage (expected another)")


def _present(
    number: np.ndarray,
    names: list[str],
    spoken: list[np.ndarray],
    texts: tuple[list[pa.ChunkedArray], list[pa.ChunkedArray]],
    pair: str | None,
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Which pair exists in which language, bool [P, L]; and the rows of its question and of its
    passage in each, two of int64 [present.sum()], by (pair, language)."""
    places = [number * len(names) + codes for codes in spoken]
    (asked, first_question), (answered, first_passage) = (
        _places(place, columns, pair) for place, columns in zip(places, texts, strict=True)
    )
    both, i, j = np.intersect1d(asked, answered, assume_unique=True, return_indices=True)
    present = np.zeros((len(np.unique(number)), len(names)), bool)
    present.ravel()[both] = True
    _require_pairs(present, number, spoken, names, pair)
    if left := len(asked) + len(answered) - 2 * len(both):
        warnings.warn(
            f"{left} texts are left out: their pair lacks the other side in their language",
            stacklevel=3,
        )
    return present, [first_question[i], first_passage[j]]


def _column(rows: Dataset, name: str) -> pa.ChunkedArray:
    """A column that is there and nowhere empty, else ValueError."""
    if name not in rows.column_names:
        raise ValueError(f"no column {name!r} (expected one of {', '.join(rows.column_names)})")
    column = rows.with_format("arrow")[name][:]
    empty = pc.is_null(column, nan_is_null=True)
    if _is_text(column):
        empty = pc.or_kleene(empty, pc.equal(pc.utf8_trim_whitespace(column), ""))
    if (at := pc.index(empty, True).as_py()) >= 0:
        raise ValueError(f"{name}: row {at} is empty")
    return column


def _texts(rows: Dataset, name: str) -> pa.ChunkedArray:
    column = _column(rows, name)
    if not _is_text(column):
        raise ValueError(f"{name}: is {column.type}, expected text")
    return column


def _is_text(column: pa.ChunkedArray) -> bool:
    return pa.types.is_string(column.type) or pa.types.is_large_string(column.type)


def _numbers(rows: Dataset, name: str) -> np.ndarray:
    """int64 [n]: numbers of a column's values, in the order of their first occurrence. Raises
    ValueError for values that have parts."""
    column = _column(rows, name)
    if pa.types.is_nested(column.type):
        raise ValueError(f"{name}: is a column of {column.type} (expected numbers or texts)")
    return pc.index_in(column, value_set=pc.unique(column)).to_numpy().astype(np.int64)


def _languages(
    rows: Dataset, language: str | tuple[str, str], expected: Collection[str] | None
) -> tuple[list[str], list[np.ndarray]]:
    """Names, sorted, and numbers int64 [n] into them of each row's question and passage."""
    sides = (language, language) if isinstance(language, str) else language
    if len(sides) != 2:
        raise ValueError(f"language={language!r} names {len(sides)} columns (expected one, or two)")
    columns = [_texts(rows, side) for side in sides]
    names = sorted({name for column in columns for name in pc.unique(column).to_pylist()})
    spoken = [pc.index_in(column, value_set=pa.array(names)).to_numpy() for column in columns]
    for side, codes in zip(sides, spoken, strict=True):
        for unknown in [k for k, name in enumerate(names) if expected and name not in expected]:
            for row in np.flatnonzero(codes == unknown)[:1]:
                raise ValueError(
                    f"{side}: row {row} has {names[unknown]!r}, expected one of "
                    f"{', '.join(sorted(expected))}"
                )
    return names, spoken


def _places(
    place: np.ndarray, texts: list[pa.ChunkedArray], pair: str | None
) -> tuple[np.ndarray, np.ndarray]:
    """Distinct places (pair, language), sorted, and the first row of each. Raises ValueError where
    a place has different texts."""
    distinct, first, which = np.unique(place, return_index=True, return_inverse=True)
    again = np.flatnonzero(first[which] != np.arange(len(place)))
    for column in texts:
        same = pc.equal(column.take(again), column.take(first[which[again]]))
        if (at := pc.index(same, False).as_py()) >= 0:
            row = again[at]
            raise ValueError(
                f"{pair}: rows {first[which[row]]} and {row} are of one pair and language, with "
                "different texts (expected one question, one passage and their translations; "
                "what only must not share a batch shares a group)"
            )
    return distinct, first


def _require_pairs(
    present: np.ndarray,
    number: np.ndarray,
    spoken: list[np.ndarray],
    names: list[str],
    pair: str | None,
) -> None:
    """Raises ValueError for a pair without a language in which it has both texts."""
    for missing in np.flatnonzero(~present.any(1))[:1]:
        row = np.flatnonzero(number == missing)[0]
        question, passage = (names[codes[row]] for codes in spoken)
        raise ValueError(
            f"row {row} asks in {question} and answers in {passage}, and its pair has no language "
            "with both a question and a passage"
            + ("" if pair else " (expected pair=, the column that translations share)")
        )


def _groups(rows: Dataset, group: str, number: np.ndarray, pair: str | None) -> np.ndarray:
    """int64 [P]: the group of each pair; all its rows have to name the same."""
    codes = _numbers(rows, group)
    first = np.unique(number, return_index=True)[1]
    for row in np.flatnonzero(codes != codes[first][number])[:1]:
        raise ValueError(
            f"{group}: rows {first[number[row]]} and {row} are of one {pair}, in different groups"
        )
    return codes[first]
