"""One code for each language, whatever a source calls it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.text import language_code

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
    "ckb": ["ckb-Arab"],
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


def test_xquad_codes_are_project_codes():
    """The eleven languages keep the names that XQuAD-R gives them."""
    for code in "ar de el en es hi ru th tr vi zh".split():
        assert language_code(code) == code
