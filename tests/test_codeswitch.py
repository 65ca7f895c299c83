"""Code-switching: words are found in parallel texts, and put where they belong."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.params import BadParameter, Prepare, checked
from lib.sources import build_corpus, codeswitch
from lib.sources.assemble import corpus_of_rows

WORDS = {"salt": "salz", "road": "strasse", "ice": "eis", "winter": "winter", "cold": "kalt"}
LEXICON = {"de": {"salt": "Salz", "ice": "Eis"}, "es": {"salt": "sal"}}


def rows(count=60):
    """Pairs of words in random order, English and German, each language with words of its own."""
    generator, made = np.random.default_rng(0), []
    for n in range(count):
        chosen = generator.choice(sorted(WORDS), 3, replace=False)
        texts = {
            "en": " ".join(["the", *chosen]),
            "de": " ".join([*(WORDS[w] for w in generator.permutation(chosen)), "der"]),
        }
        for code, text in texts.items():
            made.append(
                {"pair": f"p{n:03}", "language": code, "question": text + "?", "passage": text,
                 "passage_id": f"p{n:03}", "group": f"p{n:03}", "source": "toy"}
            )  # fmt: skip
    return made


def test_phi_squared_by_hand():
    """Always together 1, independent 0, apart 0; 3 of 4 and 4 of 10 texts, all of the first shared:
    (3 x 10 - 3 x 4)^2 / (3 x 4 x 7 x 6)."""
    found = codeswitch.phi_squared(
        np.array([5, 4, 0, 3]), np.array([5, 8, 3, 3]), np.array([5, 5, 3, 4]), 10
    )
    assert found == pytest.approx([1, 0, 0, 18**2 / (12 * 42)])


def test_translations_are_found_in_parallel_texts():
    """Each word's own; what is in every text (the, der) has no partner that tells."""
    found = codeswitch.found(rows())
    assert {w: found["de"][w] for w in WORDS} == WORDS
    assert codeswitch.found([r for r in rows() if r["language"] == "en"]) == {}


def test_a_word_is_switched_where_it_stands():
    """With its punctuation, into one of the languages that have it; what no lexicon has stays."""
    text = codeswitch.switch('Why is "salt," put on ice?', LEXICON, 1.0, "p q")
    parts = text.split(" ")
    assert parts[:2] == ["Why", "is"] and parts[3:5] == ["put", "on"]
    assert parts[2] in ('"Salz,"', '"sal,"') and parts[5] == "Eis?"
    languages = {codeswitch.switch("salt", LEXICON, 1.0, f"p{n}") for n in range(30)}
    assert languages == {"Salz", "sal"}


@given(st.floats(0, 1), st.integers(0, 50))
def test_the_share_is_that_of_the_words(part, number):
    """Of 400 words about that many; the same again for the same name."""
    text = " ".join(["salt"] * 400)
    found = codeswitch.switch(text, LEXICON, part, f"p{number}")
    assert found == codeswitch.switch(text, LEXICON, part, f"p{number}")
    changed = sum(word != "salt" for word in found.split(" ")) / 400
    assert abs(changed - part) < 0.12


def test_only_english_training_texts_change():
    """Other languages, questions set aside and the pool stay as they are."""
    train, held = rows(50), [r for r in rows(60) if r["pair"] >= "p050"]
    pool = [{k: r[k] for k in ("passage_id", "language", "passage")} for r in rows(60)]
    corpus = corpus_of_rows(train, {"source": "toy"}, held, pool)
    found = codeswitch.switched(corpus, Prepare(switch=0.5))
    before, after = list(corpus.rows), list(found.rows)
    assert len(before) == len(after) and found.content_hash != corpus.content_hash
    changed = [new for old, new in zip(before, after, strict=True) if old != new]
    assert {row["language"] for row in changed} == {"en"} and len(changed) > 40
    assert list(found.test) == list(corpus.test) and list(found.pool) == list(corpus.pool)
    assert found.meta["switched"]["lexicon"]["de"] >= len(WORDS)
    assert list(codeswitch.switched(corpus, Prepare(switch=0.5)).rows) == after


def test_a_lexicon_of_ones_own(tmp_path):
    """Two columns; the first of several translations; a bad row is named."""
    file = tmp_path / "de.txt"
    file.write_text("salt Salz\nsalt Kochsalz\nice\tEis\n")
    assert codeswitch.read({"de": str(file)}) == {"de": {"salt": "Salz", "ice": "Eis"}}
    file.write_text("salt Salz\nrock salt Steinsalz\n")
    with pytest.raises(ValueError, match="de.txt: row 2: 3 words .expected an English one"):
        codeswitch.read({"de": str(file)})
    with pytest.raises(ValueError, match="none.txt: cannot be read"):
        codeswitch.read({"de": str(tmp_path / "none.txt")})


def test_refusals(tmp_path):
    """A lexicon that is not used; nothing to translate; a source that memory does not hold."""
    with pytest.raises(BadParameter, match="prepare.lexicon: does not go with switch 0"):
        checked(Prepare, {"lexicon": {"de": "x"}})
    german = corpus_of_rows([r for r in rows() if r["language"] == "de"], {"source": "toy"})
    with pytest.raises(ValueError, match="finds no English words to translate"):
        codeswitch.switched(german, Prepare(switch=0.5))
    with pytest.raises(ValueError, match="switch: 0.5 does not go with source 'mmarco'"):
        build_corpus(Prepare(source="mmarco", switch=0.5), tmp_path)


def test_the_embedded_corpus_can_be_switched(tmp_path):
    """Through the same door as every source."""
    p = Prepare(switch=0.5, languages=["de", "en"], bridges=1)
    plain, found = (
        build_corpus(one, tmp_path) for one in (p.model_copy(update={"switch": 0.0}), p)
    )
    assert found.content_hash != plain.content_hash
    assert len(found.rows) == len(plain.rows)
