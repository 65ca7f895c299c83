"""Pairs of any data set: against bookkeeping over its rows, and what is refused."""

import warnings

import numpy as np
import pytest
from datasets import Dataset, DatasetDict
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.bridges.pairs import Pairs
from lib.sampler import Schedule

# A fact in German and English, another in English and Thai, a third in Thai alone.
ROWS = [
    {"anchor": "wer", "positive": "ich", "language": "de", "fact": "a", "page": 1},
    {"anchor": "where", "positive": "here", "language": "en", "fact": "b", "page": 1},
    {"anchor": "who", "positive": "me", "language": "en", "fact": "a", "page": 1},
    {"anchor": "ที่ไหน", "positive": "ที่นี่", "language": "th", "fact": "b", "page": 1},
    {"anchor": "เมื่อไร", "positive": "วันนี้", "language": "th", "fact": "c", "page": 2},
]


def dataset(**changed):
    """ROWS with other values: column=(row, value)."""
    rows = [dict(row) for row in ROWS]
    for column, (row, value) in changed.items():
        rows[row][column] = value
    return Dataset.from_list(rows)


def texts(pairs):
    """{(pair, language): (question, passage)} by the index, all of it."""
    found = {}
    for pair in range(len(pairs.index)):
        for number, name in enumerate(pairs.index.languages):
            if pairs.index.patterns[pairs.index.pattern[pair], number]:
                row = int(pairs.index.rows(np.array(pair), np.array(number)))
                sides = pairs.questions[row]["anchor"], pairs.passages[row]["positive"]
                found[pair, name] = sides
    return found


def test_translations_share_a_pair():
    """Numbers in the order of first occurrence, languages sorted, groups as they are named."""
    pairs = Pairs.from_dataset(dataset(), pair="fact", group="page")
    assert pairs.index.languages == ("de", "en", "th") and not pairs.index.alone
    assert texts(pairs) == {
        (0, "de"): ("wer", "ich"),
        (0, "en"): ("who", "me"),
        (1, "en"): ("where", "here"),
        (1, "th"): ("ที่ไหน", "ที่นี่"),
        (2, "th"): ("เมื่อไร", "วันนี้"),
    }
    assert pairs.index.group.tolist() == [0, 0, 1]


def test_without_a_pair_column_each_row_is_one():
    """And the arms that need translations refuse."""
    pairs = Pairs.from_dataset(dataset())
    assert pairs.index.alone and len(pairs.index) == 5
    assert pairs.index.group.tolist() == list(range(5))
    assert texts(pairs) == {
        (i, row["language"]): (row["anchor"], row["positive"]) for i, row in enumerate(ROWS)
    }
    for strategy in ("mono", "x-x"):
        assert len(Schedule(pairs.index, strategy, batch_size=1, steps=9).batch(8).pair) == 1
    with pytest.raises(ValueError, match=r"^hybrid\(0.5\) needs translations.*no pair=.*mono"):
        Schedule(pairs.index, "hybrid", batch_size=1, steps=1)


def test_a_language_column_a_side():
    """Texts are collected by side: a row may ask in one language and answer in another."""
    rows = Dataset.from_dict(
        {
            "anchor": ["who", "wer", "qui"],
            "positive": ["ich", "me", "ich"],
            "asked": ["en", "de", "fr"],
            "answered": ["de", "en", "de"],
            "fact": [7, 7, 7],
        }
    )
    with pytest.warns(UserWarning, match="^1 texts are left out: their pair lacks the other side"):
        pairs = Pairs.from_dataset(rows, language=("asked", "answered"), pair="fact")
    assert texts(pairs) == {(0, "de"): ("wer", "ich"), (0, "en"): ("who", "me")}
    with pytest.raises(ValueError, match=r"^row 0 asks in en and answers in de.*\(expected pair="):
        Pairs.from_dataset(rows, language=("asked", "answered"))
    with pytest.raises(ValueError, match="^row 0 asks in en and answers in de.* passage$"):
        Pairs.from_dataset(rows.select([0]), language=("asked", "answered"), pair="fact")


def test_negatives_go_with_the_passage():
    """In its row, under their own names; the data set's format and order do not matter."""
    rows = dataset().map(lambda row: {"wrong": "not " + row["positive"]})
    rows = rows.select([4, 3, 2, 1, 0]).with_format("numpy")
    pairs = Pairs.from_dataset(rows, pair="fact", negatives=["wrong"])
    assert pairs.passages.column_names == ["positive", "wrong"]
    assert all(row["wrong"] == "not " + row["positive"] for row in pairs.passages)
    assert isinstance(pairs.passages[0]["wrong"], str)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from("abcd")), min_size=1, unique=True))
def test_any_order_and_any_gaps(places):
    """Whatever (pair, language) there are, each is found where the index says."""
    rows = Dataset.from_list(
        [
            {"anchor": f"q{p}{x}", "positive": f"a{p}{x}", "language": x, "fact": p}
            for p, x in places
        ]
    )
    with warnings.catch_warnings(action="error"):
        pairs = Pairs.from_dataset(rows, pair="fact")
    numbers = {p: i for i, p in enumerate(dict.fromkeys(p for p, _ in places))}
    assert texts(pairs) == {(numbers[p], x): (f"q{p}{x}", f"a{p}{x}") for p, x in places}


@pytest.mark.parametrize(
    "rows, asked, said",
    [
        (dataset(), {"question": "query"}, r"^no column 'query' \(expected one of anchor, posit"),
        (dataset(), {"language": "lang"}, r"^no column 'lang' \("),
        (dataset(), {"passage": "anchor"}, "^column 'anchor' is named twice among question, pass"),
        (dataset(), {"negatives": ["positive"]}, "^column 'positive' is named twice among"),
        (dataset(), {"negatives": ["fact", "fact"]}, "^column 'fact' is named twice among"),
        (dataset(fact=(2, "me")), {"negatives": ["fact"]}, "^fact: row 2 has the text of its pas"),
        (dataset(), {"pair": "id"}, r"^no column 'id' \("),
        (dataset(), {"group": "doc"}, r"^no column 'doc' \("),
        (dataset(), {"language": ("language",)}, "names 1 columns"),
        (dataset().select([]), {}, "^has no rows"),
        (dataset(), {"language": "page"}, "^page: is int64, expected text$"),
        (dataset(), {"passage": "page"}, "^page: is int64, expected text$"),
        (
            dataset(language=(3, "xx")),
            {"languages": ["de", "en", "th"]},
            "^language: row 3 has 'xx', expected one of de, en, th$",
        ),
        (dataset(language=(3, None)), {}, "^language: row 3 is empty$"),
        (dataset(language=(2, "")), {}, "^language: row 2 is empty$"),
        (dataset(positive=(1, " ")), {}, "^positive: row 1 is empty$"),
        (dataset(fact=(1, "")), {"pair": "fact"}, "^fact: row 1 is empty$"),
        (dataset(page=(4, None)), {"group": "page"}, "^page: row 4 is empty$"),
        (
            dataset(language=(2, "de")),
            {"pair": "fact"},
            "^fact: rows 0 and 2 are of one pair and language, with different texts",
        ),
        (
            dataset(page=(2, 2)),
            {"pair": "fact", "group": "page"},
            "^page: rows 0 and 2 are of one fact, in different groups$",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(rows, asked, said):
    """Column, row, and what was expected."""
    with pytest.raises(ValueError, match=said) as refused:
        Pairs.from_dataset(rows, **asked)
    assert "\n" not in str(refused.value)


def test_only_one_split_is_taken():
    """Several, or a stream, have no row numbers."""
    with pytest.raises(TypeError, match="^given DatasetDict, expected a datasets.Dataset"):
        Pairs.from_dataset(DatasetDict(train=dataset()))
    with pytest.raises(TypeError, match="^given IterableDataset, expected"):
        Pairs.from_dataset(dataset().to_iterable_dataset())


def test_a_language_without_translations_is_refused_by_the_schedule():
    """Which names it."""
    pairs = Pairs.from_dataset(dataset().select([0, 2, 4]), pair="fact")
    with pytest.raises(ValueError, match="^no pair in th exists in a second language"):
        Schedule(pairs.index, "hybrid", batch_size=1, steps=1)
