"""Further languages in nested random orders."""

import pytest

from lib.params import Prepare
from lib.sources import build_corpus, check, with_more

CODES = ("eng", "deu", "fra", "ita", "spa", "por")


@pytest.fixture
def folder(tmp_path):
    """Twelve sentences of three documents in six languages."""
    for code in CODES:
        kind = "src" if code == "eng" else "ref"
        lines = [f"{code} sentence {n} {n * n}." for n in range(12)]
        (tmp_path / f"newstest2019-{kind}.{code}.txt").write_text("\n".join(lines) + "\n")
    (tmp_path / "DOCUMENT_IDS.tsv").write_text("\n".join("aaaabbbbcccc") + "\n")
    return str(tmp_path)


def asked(folder, more, order=0, **others):
    return Prepare(
        **{"source": "ntrex", "folder": folder, "languages": ["en", "de"], "more": more,
           "order": order, "passage": "next", "folds": 3, "split": "article"} | others
    )  # fmt: skip


def test_few_languages_are_a_part_of_many(folder, tmp_path):
    """In every order; those that are named are always there; orders differ."""
    for order in range(3):
        chosen = [with_more(asked(folder, n, order)).languages for n in (1, 2, 4)]
        assert all(own[:2] == ["en", "de"] for own in chosen)
        assert set(chosen[0]) < set(chosen[1]) < set(chosen[2])
        assert set(chosen[2]) == {"en", "de", "fr", "it", "es", "pt"}
    firsts = {with_more(asked(folder, 1, order)).languages[-1] for order in range(20)}
    assert len(firsts) > 2
    corpus = build_corpus(asked(folder, 2), tmp_path / "scratch")
    assert set(corpus.languages) == set(with_more(asked(folder, 2)).languages)
    assert with_more(asked(folder, 0)) == asked(folder, 0)


def test_the_embedded_corpus_has_more_too(tmp_path):
    p = Prepare(languages=["en", "de"], more=2)
    assert len(with_more(p).languages) == 4
    cards = Prepare(form="cards", languages=["en", "de"], more=5)
    assert len(with_more(cards).languages) == 7


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"languages": []}, "more: 1 needs languages that all have"),
        ({"source": "bitext", "folder": "", "files": {"en": "x"}}, "more: 1 does not go with"),
    ],
)
def test_refusals(folder, values, words):
    base = {"source": "ntrex", "folder": folder, "languages": ["en"], "more": 1}
    with pytest.raises(ValueError, match=words):
        check(Prepare(**base | values))
    with pytest.raises(ValueError, match="more: 9 further languages .expected at most 4"):
        with_more(asked(folder, 9))
