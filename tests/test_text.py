"""One code for each language and one spelling for each text, whatever a source calls it."""

import unicodedata
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.languages import language_code
from lib.sources.text import clean, number, share, sift

SAME = {
    "en": ["en", "EN", "eng", "eng-Latn", "eng_Latn", "en-US", "eng-US"],
    "zh": ["zh", "zh-CN", "zho-CN", "cmn", "zho_Hans", "zh-Hans"],
    "zh-Hant": ["zho-TW", "zh_Hant", "zh-TW", "zho_Hant"],
    "ar": ["ar", "ara", "arb", "arb_Arab"],
    "el": ["el", "ell", "ell-Grek"],
    "no": ["no", "nor"],
    "nb": ["nb", "nob", "nob-Latn"],
    "fa": ["fa", "fas", "pes"],
    "fa-AF": ["prs"],
    "sr": ["srp", "srp-Cyrl"],
    "sr-Latn": ["srp-Latn", "sr_Latn"],
    "fr-CA": ["fra-CA"],
    "pt": ["pt", "por", "por-BR"],
    "es-419": ["es-419"],
    "mey": ["mey"],
    "ckb": ["ckb-Arab", "ckb_Arab"],
    "ko": ["ko", "kor", "kor_Hang", "kor-Kore", "ko-KR"],
    "ja": ["jpn_Jpan", "jpn-Hira", "ja-JP"],
    "ps": ["pbt_Arab", "pus", "ps-AF"],
    "ff": ["fuv_Latn", "ful", "fuc"],
    "qu": ["quy_Latn", "que"],
    "he": ["iw", "heb_Hebr"],
    "id": ["in", "ind_Latn"],
    "yi": ["ji", "ydd_Hebr"],
    "mn": ["khk_Cyrl", "mon"],
    "sq": ["als_Latn", "sqi"],
}


@pytest.mark.parametrize(("code", "names"), SAME.items())
def test_spellings_of_one_language_agree(code, names):
    """ISO 639-1, ISO 639-3, with and without script or territory."""
    assert {language_code(name) for name in names} == {code}


@pytest.mark.parametrize(
    "name", ["xx", "english", "", "e", "en-", "en-Qqqq", "en-QX", "en-Latn-US-x", " en", "en\n"]
)
def test_unknown_languages_are_refused(name):
    """A typing error must not become a language."""
    with pytest.raises(ValueError, match="unknown language"):
        language_code(name)


@given(st.sampled_from([name for names in SAME.values() for name in names]))
def test_a_code_is_its_own_code(name):
    """Normalising twice changes nothing."""
    assert language_code(language_code(name)) == language_code(name)


FLORES = """
acm_Arab afr_Latn als_Latn amh_Ethi apc_Arab arb_Arab ars_Arab ary_Arab arz_Arab asm_Beng azj_Latn
bam_Latn ben_Beng bod_Tibt bul_Cyrl cat_Latn ceb_Latn ces_Latn ckb_Arab dan_Latn deu_Latn ell_Grek
eng_Latn est_Latn eus_Latn fin_Latn fra_Latn fuv_Latn gaz_Latn grn_Latn guj_Gujr hat_Latn hau_Latn
heb_Hebr hin_Deva hrv_Latn hun_Latn hye_Armn ibo_Latn ilo_Latn ind_Latn isl_Latn ita_Latn jav_Latn
jpn_Jpan kac_Latn kan_Knda kat_Geor kaz_Cyrl kea_Latn khk_Cyrl khm_Khmr kin_Latn kir_Cyrl kor_Hang
lao_Laoo lin_Latn lit_Latn lug_Latn luo_Latn lvs_Latn mal_Mlym mar_Deva mkd_Cyrl mlt_Latn mri_Latn
mya_Mymr nld_Latn nob_Latn npi_Deva nso_Latn nya_Latn ory_Orya pan_Guru pbt_Arab pes_Arab plt_Latn
pol_Latn por_Latn ron_Latn rus_Cyrl shn_Mymr sin_Sinh slk_Latn slv_Latn sna_Latn snd_Arab som_Latn
sot_Latn spa_Latn srp_Cyrl ssw_Latn sun_Latn swe_Latn swh_Latn tam_Taml tel_Telu tgk_Cyrl tgl_Latn
tha_Thai tir_Ethi tsn_Latn tso_Latn tur_Latn ukr_Cyrl urd_Arab uzn_Latn vie_Latn war_Latn wol_Latn
xho_Latn yor_Latn zho_Hans zho_Hant zsm_Latn zul_Latn"""


def test_every_language_of_belebele_has_a_code_of_its_own():
    """Belebele's names are FLORES-200's; only a second script of a language shows in its code."""
    codes = {language_code(name): name for name in FLORES.split()}
    assert len(codes) == len(FLORES.split())
    assert [code for code in codes if "-" in code] == ["zh-Hant"]


def test_xquad_codes_are_project_codes():
    """The eleven languages keep the names that XQuAD-R gives them."""
    for code in "ar de el en es hi ru th tr vi zh".split():
        assert language_code(code) == code


def test_clean_text_by_hand():
    """Composed, on one line, without controls; joiners and direction marks belong to spelling."""
    assert clean("\ufeff Cafe\u0301 \x00\x1b noir\u3000\n") == "Café noir"
    assert clean("\ud83d ok") == "ok"
    assert clean("می\u200cخواهم") == "می\u200cخواهم"
    assert clean("a\x00\u0301") == "á"
    assert clean(" \t\x07") == ""


@given(st.text())
def test_clean_text_stays_as_it_is(text):
    """Cleaning twice changes nothing; no control characters, no blanks at the ends, NFC."""
    found = clean(text)
    assert clean(found) == found
    assert unicodedata.is_normalized("NFC", found)
    assert not [c for c in found if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")]
    assert found == found.strip() and "  " not in found


def text_row(pair, language, question, passage):
    return {"pair": pair, "language": language, "question": question, "passage": passage, "x": 1}


def test_rows_are_dropped_for_the_first_reason_that_fits():
    """Exactly max_chars is not over-long; English is never untranslated."""
    rows = [
        text_row("1", "en", "abcde", "x"),
        text_row("1", "de", "abcde\t", "x"),
        text_row("2", "de", "abcdef", "x"),
        text_row("2", "fr", "x", "abcdef"),
        text_row("3", "de", "same", " same"),
        text_row("4", "de", "\n", "abcdef"),
        text_row("5", "de", "ä", "a\u0308 b"),
    ]
    kept, dropped = sift(rows, {"1": " abcde"}, 5)
    assert kept == [rows[0], text_row("5", "de", "ä", "ä b")]
    expected = {
        ("untranslated", "de"): 1,
        ("over-long", "de"): 1,
        ("over-long", "fr"): 1,
        ("identical", "de"): 1,
        ("empty", "de"): 1,
    }
    assert dropped == Counter(expected)


def test_parallel_sentences_may_be_their_own_passage():
    """Only where a source says so."""
    rows = [text_row("1", "de", "same", "same")]
    assert sift(rows, {}, 5, same_text=True) == (rows, Counter())
    assert sift(rows, {}, 5)[1] == {("identical", "de"): 1}


def test_numbers_of_texts_never_change():
    """Splits depend on them: first 8 bytes of sha256("abc"), ba7816bf8f01cfea."""
    assert number("abc", 1 << 64) == 0xBA7816BF8F01CFEA
    assert share("abc") == (0xBA7816BF8F01CFEA % 2**53) / 2**53
