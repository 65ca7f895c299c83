"""Nested shares of the training groups."""

import pytest
from test_codeswitch import rows

from lib.params import Prepare
from lib.sources import build_corpus, subset
from lib.sources.assemble import corpus_of_rows


def corpus(negatives=False):
    own = [row | ({"negatives": ["p001", "p002"]} if negatives else {}) for row in rows(400)]
    pool = [{k: row[k] for k in ("passage_id", "language", "passage")} for row in rows(400)]
    return corpus_of_rows(own, {"source": "toy"}, rows(10), pool)


def test_smaller_shares_are_parts_of_larger_ones():
    """About as many groups as asked, whole in all languages, the rest untouched."""
    whole, groups = corpus(), {}
    for part in (0.05, 0.25, 0.5, 1.0):
        found = subset.nested(whole, part)
        groups[part] = {row["group"] for row in found.rows}
        assert len(groups[part]) == pytest.approx(400 * part, abs=40)
        assert len(found.rows) == 2 * len(groups[part])
        assert list(found.test) == list(whole.test) and list(found.pool) == list(whole.pool)
    assert groups[0.05] < groups[0.25] < groups[0.5] < groups[1.0]
    assert subset.nested(whole, 1.0).content_hash == whole.content_hash


def test_negatives_that_went_are_named_no_more():
    """Or the index would look for them in vain."""
    found = subset.nested(corpus(negatives=True), 0.5)
    known = {row["passage_id"] for row in found.rows}
    assert all(set(row["negatives"]) == {"p001", "p002"} & known for row in found.rows)
    assert len(found.index) == len(known)


def test_refusals(tmp_path):
    with pytest.raises(ValueError, match="groups: 0 leaves no group to train on"):
        subset.nested(corpus(), 0.0)
    with pytest.raises(ValueError, match="groups: 0.5 does not go with source 'mmarco'"):
        build_corpus(Prepare(source="mmarco", groups=0.5), tmp_path)
