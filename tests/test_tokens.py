"""Token numbers on the disk: those of the tokenizer, made once, never those of something else."""

import numpy as np
import pytest
from test_trainer import PARAMS, damage, toy_corpus, toy_rows

from lib.encoder import Encoder
from lib.training import tokens
from lib.training.models import build_encoder
from lib.training.tokens import SIDES, tokenized


@pytest.fixture
def corpus(tmp_path):
    """A toy corpus whose cache is empty; some texts are empty, some too long."""
    rows = toy_rows()
    rows[0]["question"], rows[5]["passage"] = "", " ".join(["longer"] * 40)
    return toy_corpus(tmp_path / "data", rows)


def encoder(corpus, **changes):
    """An encoder over the tokenizer of the corpus."""
    return build_encoder(PARAMS.model_copy(update=changes), corpus.tokenizer_file)


@pytest.mark.parametrize("batch", [7, 10_000])
def test_they_are_the_tokenizers(corpus, batch, monkeypatch):
    """Of any rows in any order, with prompts; one text was cut."""
    monkeypatch.setattr(tokens, "BATCH", batch)
    own = encoder(corpus, question_prompt="ask ", passage_prompt="tell ")
    found, rows = tokenized(corpus, own), np.random.default_rng(0).permutation(len(corpus.rows))
    rows = np.concatenate([rows, rows[:5]])
    for side in SIDES:
        wanted = own.tokenize(corpus.rows[rows][side], side)
        taken = found.take(side, rows)
        assert all(np.array_equal(a, b) for a, b in zip(taken, wanted, strict=True))
        assert {x.dtype for x in taken} == {np.dtype(np.int32)}
    assert found.truncated_share == 1 / (2 * len(corpus.rows))
    every = [own.tokenize(corpus.rows[side][:], side) for side in SIDES]
    assert np.array_equal(found.used, np.unique(np.concatenate(sum(every, []))))


def test_they_are_made_once(corpus, monkeypatch):
    """A second encoder of the same settings reads them; a damaged file is made again."""
    first = tokenized(corpus, encoder(corpus)).take("passage", np.arange(9))
    [file] = (corpus.folder.parent / "tokens").glob("*/tokens.arrow")
    with monkeypatch.context() as patch:
        patch.setattr(Encoder, "tokenize", None)
        tokenized(corpus, encoder(corpus))
        damage(file)
        with pytest.raises(TypeError):
            tokenized(corpus, encoder(corpus))
    again = tokenized(corpus, encoder(corpus)).take("passage", np.arange(9))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


def test_other_settings_have_their_own(corpus, tmp_path):
    """Length limit, prompts, texts and tokenizer are part of the key; the seed is not."""

    def key(of=corpus, **changes):
        return tokens._key(of, encoder(of, **changes))

    rows = toy_rows()
    rows[3]["passage"] += " more"
    other = toy_corpus(tmp_path / "other", rows)
    changes = [{}, {"max_length": 12}, {"question_prompt": "x "}, {"passage_prompt": "x "}]
    assert len({*(key(**change) for change in changes), key(other)}) == 5
    assert key(seed=5) == key()
