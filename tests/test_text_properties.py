"""Text of every script, with marks, in every normal form, with controls and halves of surrogate
pairs, through all that reads text: hygiene, words, tokenizer, benchmark, BM25, leak audit."""

import json
import unicodedata
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import benchmarks
from lib.benchmarks import leaks, references
from lib.params import BenchmarkSpec
from lib.sources.text import clean, fold, words
from lib.training.tokenizer import train_tokenizer

PIECES = """
Straße STRASSE ﬁn ＡＢＣ１２ café cafe\u0301 İzmir ısı liegt's CAT’s Ŝ 3.5m² Ελλάδος ΕΛΛΆΔΟΣ п'ять
می\u200cخواهم العربيّة שָׁלוֹם की का के टोगो टोंगा හි\u0dca\u200dර\u0dd3 தமிழ் తెలుగు བོད་སྐད་
አማርኛ ქართული ที่นี่ ประเทศไทย ລາວ ភាសា\u200bខ្មែរ မြန်မာ 北京市 東京タワー ｶﾞｷﾞ ひらがな ㄅㄆㄇ
한국어 ꆈꌠ 👩\u200d👧 1️⃣ ½ ﷺ
""".split()
TROUBLE = [" ", "\t\n", "\x00", "\x1b", "\ufeff", "\ud83d", "\udc00", "\u00ad", "\u0301", "\u0e31"]
ANY = st.characters(exclude_categories=())  # also halves of surrogate pairs
texts = st.lists(st.sampled_from([*PIECES, *TROUBLE]) | ANY, max_size=12).map("".join)
cleaned = texts.map(clean)
LETTER = regex.compile(r"[\p{L}\p{M}\p{N}]")
TOKENIZER = train_tokenizer([clean(piece) for piece in PIECES], 200)


def forms(text):
    """The text in every normal form, and in small and capital letters."""
    found = [unicodedata.normalize(form, text) for form in ("NFC", "NFD", "NFKC", "NFKD")]
    found += [text.lower(), text.casefold()]
    return found if "ı" in text else [*found, text.upper()]  # its capital is that of i


@settings(max_examples=300, deadline=None)
@given(texts)
def test_cleaning_once_is_enough(text):
    """Twice changes nothing, and any file can hold the result."""
    found = clean(text)
    assert clean(found) == found and found.encode().decode() == found
    assert unicodedata.is_normalized("NFC", found)


@settings(max_examples=300, deadline=None)
@given(texts)
def test_one_text_has_one_list_of_words(text):
    """Normal form and case play no part; folding twice changes nothing."""
    assert fold(fold(text)) == fold(text)
    for other in forms(text):
        assert words(other) == words(text), ascii(other)


@settings(max_examples=300, deadline=None)
@given(texts)
def test_words_keep_every_letter_and_mark(text):
    """Put together they are all letters, marks and digits of the folded text, in order; a text of
    words is its own."""
    found = words(text)
    assert "".join(found) == "".join(LETTER.findall(fold(text))) and all(found)
    assert words(" ".join(found)) == found


def test_words_that_differ_stay_different():
    """In pairs that differ by a mark, a vowel sign, or a letter alone."""
    for group in ("की का के कि कु", "टोगो टोंगा", "ที่ ที ทิ", "ສີ ສິ", "ක කි කී", "שָׁ שֶׁ", "kır kir", "が か"):
        for one, other in combinations(group.split(), 2):
            assert words(one) != words(other)
            assert references.word_terms(one) != references.word_terms(other)
            assert references.char_ngrams(one) != references.char_ngrams(other)
            assert leaks.leak_audit([one], [other]).normalised == 0


def test_joiners_and_soft_hyphens_divide_no_word():
    """Persian and Sinhala are spelled with them, also in part; a zero-width space is a space."""
    assert words("می\u200cخواهم") == words("میخواهم") and len(words("ශ්\u200dරී")) == 1
    assert words("Donau\u00addampf") == ["donaudampf"]
    assert words("ab\u200bcd") == ["ab", "cd"]


@settings(max_examples=200, deadline=None)
@given(cleaned)
def test_tokens_do_not_depend_on_the_normal_form(text):
    """Any clean text has tokens, between the two marks of its ends."""
    ids = TOKENIZER.encode(text).ids
    assert ids[0] == 2 and ids[-1] == 3
    assert TOKENIZER.encode(unicodedata.normalize("NFD", text)).ids == ids


def put_beir(folder, asked, found):
    """A set whose ids hold the texts too; its first document answers its first question."""
    for name, rows in ("queries", asked), ("corpus", found):
        lines = [json.dumps({"_id": f"{i} {text}", "text": text}) for i, text in enumerate(rows)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    ids = "\t".join(clean(f"0 {side[0]}") for side in (asked, found))
    (folder / "qrels").mkdir()
    (folder / "qrels/test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{ids}\t1\n", "utf-8")


@settings(max_examples=60, deadline=None)
@given(st.lists(texts, min_size=1, max_size=5), st.lists(texts, min_size=1, max_size=5))
def test_whatever_a_file_holds_it_is_read_or_refused_in_one_line(asked, found):
    """A BEIR folder of any texts and ids: what is loaded is clean, and ranked by every reference
    ranker; what is not is refused naming the file and row."""
    with TemporaryDirectory() as folder:
        put_beir(Path(folder), asked, found)
        spec = BenchmarkSpec(format="beir", folder=folder)
        try:
            made = benchmarks.load_benchmark("any", spec, None)
        except ValueError as error:
            assert "\n" not in str(error) and not clean(asked[0])
            assert "queries.jsonl: row 1: text is empty" in str(error)
            return
    assert made.candidates["text"].tolist() == [clean(text) for text in found]
    assert made.questions["text"].tolist() == [clean(asked[0])] and made.digest
    for name in references.REFERENCES:
        assert (references.reference_ranks(made, name).pool >= 1).all()
    audit = leaks.audit(found, made)
    assert audit.loc[audit["part"] == "candidates", "texts"].item() == len({*map(clean, found)})


@pytest.mark.parametrize("terms", [references.word_terms, references.char_ngrams])
@settings(max_examples=100, deadline=None)
@given(st.lists(cleaned, min_size=1, max_size=8))
def test_bm25_finds_the_copy_of_a_text(terms, found):
    """Of texts that share no term each finds itself, asked in any normal form and case."""
    apart, known = [], set()
    for text in found:
        own = {*terms(text)}
        if own and own.isdisjoint(known):
            apart.append(text)
            known |= own
    for form in map(forms, apart):
        for text in form:
            assert terms(text) and {*terms(text)} <= known
    if not apart:
        return
    for place in range(len(forms(apart[0]))):
        asked = [(forms(text) * 2)[place] for text in apart]
        scores = np.concatenate([tile for _, tile in references.bm25_tiles(asked, apart, terms)])
        best = scores.max(1)
        assert (best > 0).all() and (scores.argmax(1) == np.arange(len(apart))).all()
        assert ((scores == best[:, None]).sum(1) == 1).all()


@settings(max_examples=100, deadline=None)
@given(cleaned, st.lists(cleaned, max_size=3))
def test_a_text_leaks_in_every_spelling(text, others):
    """A text that was trained on is found in any normal form and case; never without words."""
    for other in forms(text):
        counts = leaks.leak_audit([*others, other], [text])
        if words(text):
            assert counts.normalised == 1
        if other == text:
            assert counts.exact == counts.normalised == 1
