"""The corpus on disk, the pair x language index, and the leak audit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import store
from lib.benchmarks.leaks import leak_audit
from lib.corpus import ParallelCorpus
from lib.sampler import PairIndex
from lib.sources.assemble import corpus_of_rows


def row(pair, language, **changes):
    return {
        "pair": pair,
        "language": language,
        "question": f"q {pair} {language}",
        "passage": f"p {pair} {language}",
        "passage_id": f"P{pair}",
        "group": f"G{pair}",
        "source": "test",
    } | changes


ROWS = [
    row("b", "en"),
    row("a", "fr"),
    row("a", "en"),
    row("c", "en"),
    row("c", "fr"),
    row("c", "de"),
]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sets(st.integers(0, 3), min_size=1), min_size=1, max_size=30))
def test_row_numbers_follow_from_pair_and_language(present):
    """rows(pair, language) counts rows sorted by (pair, language), as a dictionary would."""
    table = np.zeros((len(present), 4), bool)
    for pair, languages in enumerate(present):
        table[pair, list(languages)] = True
    index = PairIndex.from_present("abcd", table, range(len(present)))
    expected = {
        key: n
        for n, key in enumerate(
            (pair, x) for pair, languages in enumerate(present) for x in sorted(languages)
        )
    }
    keys = np.array(list(expected))
    assert index.rows(keys[:, 0], keys[:, 1]).tolist() == list(expected.values())


def test_absent_row_is_refused():
    """Asking for a pair in a language that it lacks is an error, not another pair's row."""
    index = PairIndex.from_present("ab", [[True, False], [True, True]], [0, 1])
    with pytest.raises(KeyError, match="does not exist"):
        index.rows(np.array([0]), np.array([1]))


def test_index_of_a_corpus_matches_its_rows():
    """Index rows lead back to the texts, whatever order the rows came in."""
    corpus = corpus_of_rows(ROWS, {})
    index = corpus.index
    assert corpus.languages == ("de", "en", "fr") and len(index) == 3
    number = index.rows(np.array([2]), np.array([0]))[0]
    assert corpus.rows[int(number)]["question"] == "q c de"


def test_negatives_name_pairs_of_their_passages():
    """Explicit negatives become numbers of pairs that have the passage."""
    rows = [
        row("a", "en", negatives=["Pb", "Pc"]),
        row("b", "en", negatives=[]),
        row("c", "en", negatives=["Pa"]),
    ]
    offsets, pairs = corpus_of_rows(rows, {}).index.negatives
    assert offsets.tolist() == [0, 2, 2, 3] and pairs.tolist() == [1, 2, 0]


@pytest.mark.parametrize(
    "changed, message",
    [
        (row("a", "en"), "pair a: two rows in en"),
        (row("b", "fr", passage_id="other"), "pair b: two passage_ids"),
        (row("d", "fr", passage_id="Pa", group="other"), "passage Pa: lies in two groups"),
    ],
)
def test_contradictory_rows_are_refused(changed, message):
    """The contract of a corpus is checked when it is made."""
    with pytest.raises(ValueError, match=message):
        corpus_of_rows([*ROWS, changed], {})


def test_empty_corpus_is_refused():
    """A corpus without rows is an error at once."""
    with pytest.raises(ValueError, match="no training rows"):
        corpus_of_rows([], {})


def test_saved_and_loaded_corpus_is_the_same(tmp_path):
    """What is read back equals what was written, counts and hash included."""
    corpus = corpus_of_rows(ROWS, {"source": "test"}, test=ROWS[:1])
    with store.atomic_folder(tmp_path / "data", corpus.meta) as new:
        corpus.save(new)
    back = ParallelCorpus.load(tmp_path / "data")
    assert back.rows.to_list() == corpus.rows.to_list()
    assert back.test.to_list() == corpus.test.to_list() and len(back.pool) == 0
    assert back.content_hash == corpus.content_hash
    assert back.meta["counts"]["rows"] == {"de": 1, "en": 3, "fr": 2}


def test_altered_corpus_is_named(tmp_path):
    """A corpus whose files were changed is not read."""
    corpus = corpus_of_rows(ROWS, {})
    with store.atomic_folder(tmp_path / "data", corpus.meta) as new:
        corpus.save(new)
    victim = next((tmp_path / "data" / "rows").glob("*.arrow"))
    victim.write_bytes(victim.read_bytes()[:-8] + b"tampered")
    with pytest.raises(store.Damaged, match=victim.name):
        ParallelCorpus.load(tmp_path / "data")


def test_content_hash_depends_on_texts_only():
    """The same rows in another order have the same hash; one other letter changes it."""
    digest = corpus_of_rows(ROWS, {}).content_hash
    assert corpus_of_rows(ROWS[::-1], {}).content_hash == digest
    assert corpus_of_rows([*ROWS[1:], row("b", "en", question="x")], {}).content_hash != digest


def test_leak_audit_counts_each_kind_of_overlap():
    """One text verbatim, one but for case and punctuation, one by 13 words, one not at all."""
    long = " ".join(f"w{i}" for i in range(13))
    training = ["The exact text.", "Only, normalised!", f"before {long} after"]
    found = leak_audit(
        training,
        ["The exact text.", "only normalised", f"x {long} y", "something else", "something else"],
    )
    assert (found.texts, found.exact, found.normalised, found.ngram) == (4, 1, 2, 1)


def test_leak_audit_keeps_vowel_signs():
    """Togo and Tonga differ in Hindi by vowel signs alone, which are no punctuation."""
    assert leak_audit(["टोंगा कहाँ है?"], ["टोगो कहाँ है?"]).normalised == 0
    assert leak_audit(["टोंगा कहाँ है?"], ["टोंगा कहाँ है"]).normalised == 1


def test_leak_audit_reads_unspaced_scripts_by_character():
    """Thirteen shared Chinese characters are an overlap though no space separates them."""
    shared = "问题和段落在同一种语言里训练"
    assert leak_audit([f"前{shared}后"], [f"另{shared}外"]).ngram == 1
    assert leak_audit([f"前{shared[:12]}后"], [f"另{shared[:12]}外"]).ngram == 0
