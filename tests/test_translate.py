"""Translation: nothing is lost, mixed up or done twice, and failures are told apart.

The models are real M2M100 and Marian classes with random weights: what they write is garbage, but
it depends on all of the input, so any mistake in order, padding or language shows as another text.
Where the judgement of a text is tested, what the model writes is given.
"""

import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib import store
from lib.sources import translate, translation
from lib.sources.translation import Settings, Translated, Translator

pytestmark = pytest.mark.filterwarnings("ignore:Recommended")  # sacremoses, for Marian
SMALL = Settings(beams=2, batch=4, longest=40, shard=8)
QUIET = {"say": lambda line: None}
WORDS = (
    "the river runs through city and people live near water old house stands on hill king".split()
)
TEXTS = [
    " ".join(WORDS[(7 * i + j * (i + 3)) % 16] for j in range(2 + i % 7)).capitalize() + "."
    for i in range(16)
]


def save_pieces(folder):
    """A sentencepiece model of the words above in `folder`; returns its pieces."""
    import sentencepiece

    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 5),
        model_prefix=str(folder / "sp"),
        vocab_size=70,
        model_type="bpe",
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
    )
    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "sp.model"))
    return [model.IdToPiece(i) for i in range(3, model.GetPieceSize())]


def size(**others):
    """A configuration's numbers: small, and random enough to write something."""
    return {
        "d_model": 16,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32,
        "max_position_embeddings": 128,
        "init_std": 1.0,
        "dropout": 0.0,
    } | others


def save(model, tokenizer, folder):
    """A checkpoint folder; its model ends a text now and then."""
    with torch.no_grad():
        model.lm_head.weight[model.config.eos_token_id] *= 2
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def pieces(tmp_path_factory):
    """(folder with sp.model, its pieces)."""
    folder = tmp_path_factory.mktemp("pieces")
    return folder, save_pieces(folder)


@pytest.fixture(scope="session")
def m2m(pieces, tmp_path_factory):
    """A tiny M2M100, which knows a hundred languages."""
    from transformers import M2M100Config, M2M100ForConditionalGeneration, M2M100Tokenizer

    folder, found = pieces
    vocabulary = ["<s>", "<pad>", "</s>", "<unk>", *found]
    (folder / "m2m.json").write_text(json.dumps({x: i for i, x in enumerate(vocabulary)}))
    tokenizer = M2M100Tokenizer(str(folder / "m2m.json"), str(folder / "sp.model"))
    numbers = size(vocab_size=len(vocabulary) + 108, tie_word_embeddings=False)
    torch.manual_seed(1)
    model = M2M100ForConditionalGeneration(M2M100Config(**numbers, decoder_start_token_id=2))
    return save(model, tokenizer, tmp_path_factory.mktemp("m2m"))


def save_marian(pieces, folder, marks=(), source="en", target="de"):
    """A tiny Marian with language tokens `marks`, or of one pair."""
    from transformers import MarianConfig, MarianMTModel, MarianTokenizer

    place, found = pieces
    vocabulary = ["</s>", "<unk>", *found, *marks, "<pad>"]
    file = place / f"marian{len(marks)}.json"
    file.write_text(json.dumps({x: i for i, x in enumerate(vocabulary)}))
    spm = str(place / "sp.model")
    tokenizer = MarianTokenizer(spm, spm, str(file), source_lang=source, target_lang=target)
    last = len(vocabulary) - 1
    ends = {"eos_token_id": 0, "forced_eos_token_id": 0}
    numbers = size(vocab_size=last + 1, pad_token_id=last, decoder_start_token_id=last, **ends)
    torch.manual_seed(1)
    return save(MarianMTModel(MarianConfig(**numbers)), tokenizer, folder)


@pytest.fixture(scope="session")
def marian(pieces, tmp_path_factory):
    """A tiny Marian of two target languages."""
    return save_marian(pieces, tmp_path_factory.mktemp("marian"), (">>deu<<", ">>fra<<"), "eng", "")


def slow(translator, text, language):
    """What the model writes for one sentence: no batch, no padding, no cache, as the documentation
    of the two models has it."""
    tokenizer, model = translator.tokenizer, translator.model
    target = translator.targets[language]
    first = {} if target.prefix else {"forced_bos_token_id": target.mark}
    inputs = tokenizer(target.prefix + text, return_tensors="pt")
    width = -(-inputs["input_ids"].shape[1] // 8) * 8
    written = model.generate(
        **inputs, num_beams=2, do_sample=False, max_new_tokens=min(3 * width + 16, 127), **first
    )
    marks = [target.mark for target in translator.targets.values()]
    kept = [token for token in written[0, 1:].tolist() if token not in marks]
    text = tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return " ".join(text.split())


def refused(call, *parts):
    """`call` raises a ValueError of one line that holds all parts."""
    with pytest.raises(ValueError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, message


# --- what is translated ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["m2m", "marian"])
def test_batches_give_what_one_sentence_alone_gives(kind, request, tmp_path):
    """Every text has its own translation, whatever was beside it and however it was padded."""
    translator = Translator(request.getfixturevalue(kind), tmp_path, SMALL)
    found = translator.translate(TEXTS, ["de", "fr"], **QUIET)
    for language in found:
        assert list(found[language]) == list(dict.fromkeys(TEXTS))
        for text, translated in found[language].items():
            assert translated.text == slow(translator, text, language)
        assert len({x.text for x in found[language].values()}) > 5
    assert found["de"] != found["fr"]


def test_no_language_token_is_left_in_a_text(m2m, tmp_path):
    """M2M100's tokenizer does not count its language tokens as special; they are taken out."""
    translator = Translator(m2m, tmp_path, SMALL)
    german, french = (translator.targets[x].mark for x in ("de", "fr"))
    who = translator.tokenizer("river", add_special_tokens=False)["input_ids"]
    raw = translator.tokenizer.decode([german, *who], skip_special_tokens=True)
    assert "__de__" in raw
    assert translator._judged("x", [german, *who, french, 2, 1, 1], 50).text == "river"


def test_every_sentence_is_translated_once(m2m, tmp_path, monkeypatch):
    """Texts share sentences: each is given to the model once, and never again by a later run."""
    given = count_rows(monkeypatch)
    one, two, three = "The king stands.", "Water runs.", "People live."
    texts = [one, f"{one} {two}", f"{two} {one}", two]
    found = Translator(m2m, tmp_path, SMALL).translate(texts, ["de"], **QUIET)["de"]
    assert len(given) == 2
    assert found[f"{two} {one}"].text == f"{found[two].text} {found[one].text}"
    again = Translator(m2m, tmp_path, SMALL)
    assert again.translate([*texts, three], ["de"], **QUIET)["de"].items() > found.items()
    assert len(given) == 3
    again.translate(texts, ["fr"], **QUIET)
    assert len(given) == 5


def count_rows(monkeypatch):
    """A list that grows by every row of tokens that a model is given."""
    given, real = [], Translator._written
    monkeypatch.setattr(
        Translator, "_written", lambda self, rows, *x: given.extend(rows) or real(self, rows, *x)
    )
    return given


def test_weights_are_not_read_when_all_is_done(m2m, tmp_path, monkeypatch):
    """A corpus made from the cache alone costs no model."""
    first = Translator(m2m, tmp_path, SMALL).translate(TEXTS[:3], ["de"], **QUIET)
    again = Translator(m2m, tmp_path, SMALL)
    assert again.translate(TEXTS[:3], ["de"], **QUIET) == first
    assert "model" not in vars(again)


def test_other_weights_or_settings_are_not_mixed(m2m, marian, tmp_path):
    """Checkpoint, language and settings each have a folder of their own."""
    translators = [
        Translator(m2m, tmp_path, SMALL),
        Translator(marian, tmp_path, SMALL),
        Translator(m2m, tmp_path, Settings(beams=1, batch=4, longest=40, shard=8)),
    ]
    folders = {t.folder_of(t.target(x)) for t in translators for x in ("de", "fr")}
    assert len(folders) == 6


def test_padding_is_a_matter_of_the_text_alone(m2m, tmp_path, monkeypatch):
    """Width and length limit follow from a sentence's own tokens, whatever it is batched with."""
    seen = {}
    monkeypatch.setattr(
        Translator,
        "_written",
        lambda self, rows, *x: seen.update({tuple(r): x[:2] for r in rows}) or [[5, 2]] * len(rows),
    )
    Translator(m2m, tmp_path / "a", SMALL).translate(TEXTS, ["de"], **QUIET)
    together = dict(seen)
    for i, text in enumerate(TEXTS[:6]):
        seen.clear()
        Translator(m2m, tmp_path / str(i), SMALL).translate([text], ["de"], **QUIET)
        assert seen.items() <= together.items()
    for row, (width, limit) in together.items():
        assert width % 8 == 0 and 0 <= width - len(row) < 8
        assert limit == min(3 * width + 16, 127)


# --- cutting and joining -----------------------------------------------------------------------


def test_sentences_by_hand():
    """Initials, titles and decimals end no sentence; a closing quote belongs to its own."""
    text = 'Mr. J. Poe lived in St. Louis. He said "no." Was it 3.5 km? Yes'
    assert translation.sentences(text) == [
        "Mr. J. Poe lived in St. Louis.",
        'He said "no."',
        "Was it 3.5 km?",
        "Yes",
    ]
    assert translation.sentences("") == []
    assert translation.sentences("Ends with J.") == ["Ends with J."]


@given(st.lists(st.sampled_from(["Dr.", "one", "Two", "three.", "Who?", "A.", "x,", "!"])))
def test_cutting_loses_nothing(words):
    """Sentences, and halves of a text, joined by blanks are the text."""
    text = " ".join(words)
    assert " ".join(translation.sentences(text)) == text
    if text:
        assert " ".join(translation.halves(text)) == text


def test_halves_by_hand():
    """A clause's end near the middle is preferred, then the blank nearest the middle."""
    assert translation.halves("one two three, four five") == ["one two three,", "four five"]
    assert translation.halves("a, two three four") == ["a, two", "three four"]
    assert translation.halves("undivided") == ["undivided"]


def test_a_long_sentence_is_cut_to_fit(m2m, tmp_path, monkeypatch):
    """Each part is within the limit; the parts' translations stand joined in their order; a word
    that cannot be cut is a fault of its own, and nothing is truncated in silence."""
    given = count_rows(monkeypatch)
    translator = Translator(m2m, tmp_path, SMALL)
    long = " ".join(WORDS * 4) + "."
    parts = translator.pieces(long)
    assert len(parts) > 1 and " ".join(parts) == long
    endless = "water" * 60
    found = translator.translate([long, endless, *parts], ["de"], **QUIET)["de"]
    assert found[long].text == " ".join(found[part].text for part in parts)
    assert max(map(len, given)) <= 40
    assert found[endless] == Translated("", translation.TOO_LONG)


def test_languages_without_blanks_are_joined_without(m2m, tmp_path, monkeypatch):
    """Chinese and Japanese sentences follow each other at once, Korean and Thai ones do not."""
    monkeypatch.setattr(Translator, "_written", lambda self, rows, *x: [[9, 2]] * len(rows))
    translator = Translator(m2m, tmp_path, SMALL)
    found = translator.translate(["One. Two."], ["zh", "ja", "ko", "th"], **QUIET)
    texts = {language: own["One. Two."].text for language, own in found.items()}
    assert texts["zh"] == texts["ja"] != texts["ko"] == texts["th"]
    assert texts["ko"].replace(" ", "") == texts["zh"] and texts["ko"].count(" ") == 1


# --- faults ------------------------------------------------------------------------------------


def test_faults_by_hand(m2m, tmp_path):
    """Empty, repeating, cut off (an end forced at the limit counts as none), untranslated, fine."""
    translator = Translator(m2m, tmp_path, SMALL)
    german, end = translator.targets["de"].mark, 2

    def tokens(text):
        return translator.tokenizer(text, add_special_tokens=False)["input_ids"]

    def fault(piece, *row, limit=99):
        return translator._judged(piece, [german, *row], limit).fault

    river, run = tokens("river runs"), tokens("old king ") * 5
    assert fault("x", end) == translation.EMPTY
    assert fault("x", *run, end) == translation.REPEATS
    assert fault("old king " * 5, *run, end) == ""
    assert fault("x", *river, end) == ""
    size = len(river) + 1
    assert fault("x", *river, end, limit=size + 2) == ""
    assert fault("x", *river, end, limit=size + 1) == translation.CUT_OFF
    assert fault("x", *river, limit=size) == translation.CUT_OFF
    joined = translation._joined("A b", [Translated("A", ""), Translated("b", "")], " ")
    assert joined == Translated("A b", translation.UNTRANSLATED)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("ha ha ha", False), ("ab" * 8, True), ("a" * 15, False), ("of the king " * 4, True)],
)
def test_runaway_by_hand(text, expected):
    """Four times in a row and 16 characters."""
    assert translation.is_runaway(text) is expected


# --- languages ---------------------------------------------------------------------------------


def test_codes_of_nllb(pieces, tmp_path):
    """Its added tokens; Korean's script and Southern Pashto are named as the project names them.
    The language's token is forced to be the first."""
    from transformers import M2M100Config, M2M100ForConditionalGeneration, NllbTokenizer

    words = ["<s>", "<pad>", "</s>", "<unk>", *pieces[1]]
    tokenizer = NllbTokenizer(vocab={x: i for i, x in enumerate(words)}, merges=[])
    config = M2M100Config(**size(vocab_size=len(tokenizer)), decoder_start_token_id=2)
    folder = save(M2M100ForConditionalGeneration(config), tokenizer, tmp_path / "nllb")
    translator = Translator(folder, tmp_path / "cache", SMALL)
    tokenizer, found = translator.tokenizer, translator.targets
    translated = translator.translate(TEXTS[:3], ["ko"], **QUIET)["ko"]
    assert [x.text for x in translated.values()] == [
        slow(translator, text, "ko") for text in translated
    ]
    rows = translator._written([[5, 2]], 8, 4, found["ko"])
    assert rows[0][0] == tokenizer.convert_tokens_to_ids("kor_Hang")
    spelled = {code: found[code].code for code in ("de", "en", "zh", "zh-Hant", "ko", "ps", "sw")}
    assert spelled == {
        "de": "deu_Latn",
        "en": "eng_Latn",
        "zh": "zho_Hans",
        "zh-Hant": "zho_Hant",
        "ko": "kor_Hang",
        "ps": "pbt_Arab",
        "sw": "swh_Latn",
    }
    assert (
        found["de"].mark == tokenizer.convert_tokens_to_ids("deu_Latn") and not found["de"].prefix
    )
    assert tokenizer("river")["input_ids"][0] == found["en"].mark


def test_codes_of_m2m(m2m, tmp_path):
    """The tokenizer's own table; the source language's token is put before a text."""
    translator = Translator(m2m, tmp_path, SMALL)
    mark = translator.tokenizer.lang_code_to_id
    assert translator.target("de").mark == mark["de"]
    assert {"zh", "th", "fil", "nso"} <= set(translator.targets)
    assert translator.target("nso").mark == mark["ns"]
    assert translator.tokenizer("river")["input_ids"][0] == mark["en"]


def test_codes_of_marian(pieces, marian, tmp_path):
    """Several targets by a token before the text; one pair by what the tokenizer says."""
    translator = Translator(marian, tmp_path, SMALL)
    assert sorted(translator.targets) == ["de", "fr"]
    mark = translator.tokenizer.convert_tokens_to_ids(">>fra<<")
    target = translator.target("fr")
    assert (target.prefix, target.mark) == (">>fra<< ", mark)
    assert translator.tokenizer(target.prefix + "river")["input_ids"][0] == mark
    pair = Translator(save_marian(pieces, tmp_path / "pair"), tmp_path, SMALL)
    assert pair.targets == {"de": translation.Target("de")}
    assert pair.translate(["river"], ["de"], **QUIET)["de"]["river"]


def test_several_codes_of_one_language():
    """The code spelled as in the project wins, then the first; an unknown one is left out."""
    added = {"eng_Latn": 1, "ajp_Arab": 2, "apc_Arab": 3, "xxq_Latn": 4, "<mask>": 5}
    tokenizer = SimpleNamespace(get_added_vocab=lambda: added, convert_tokens_to_ids=None)
    assert {x: t.mark for x, t in translation.targets(tokenizer).items()} == {"en": 1, "apc": 2}
    tokenizer = SimpleNamespace(lang_code_to_id={"pt_BR": 1, "pt": 2}, convert_tokens_to_ids=None)
    assert translation.targets(tokenizer)["pt"].mark == 2


def test_unsupported_languages_are_refused(m2m, pieces, tmp_path):
    """One line names the nearest codes, before any work; a model of another source is refused."""
    translator = Translator(m2m, tmp_path, SMALL)
    refused(lambda: translator.translate(TEXTS, ["de", "zh-Hant"]), "zh-Hant", "zh (zh)", "100")
    assert "model" not in vars(translator) and not list(tmp_path.iterdir())
    folder = save_marian(pieces, tmp_path / "fi", source="fi")
    refused(lambda: Translator(folder, tmp_path), "translates from fi")


def test_what_is_no_translation_model(tmp_path, pieces, m2m):
    """A missing folder, one without weights or tokenizer, an encoder, a bare name."""
    from transformers import BertConfig

    refused(lambda: Translator("facebook/nllb", tmp_path), "facebook/nllb", "@commit")
    BertConfig().save_pretrained(tmp_path / "bert")
    folder = str(tmp_path / "bert")
    refused(lambda: Translator(folder, tmp_path), "has no *.safetensors")
    (tmp_path / "bert/model.safetensors").write_bytes(b"")
    refused(lambda: Translator(folder, tmp_path), "has no tokenizer")
    (tmp_path / "bert/vocab.txt").write_bytes(b"")
    refused(lambda: Translator(folder, tmp_path), "is of type bert", "Marian")


# --- killed, damaged, at once ------------------------------------------------------------------

WORKER = """
import json, sys, time, torch
from pathlib import Path
from lib.sources import translation
torch.set_num_threads(1)
name, cache, settings, pause, texts = json.loads(sys.argv[1])
write = translation._write
translation._write = lambda *x: (write(*x), time.sleep(pause))
translator = translation.Translator(name, Path(cache), translation.Settings(**settings))
found = translator.translate(texts, ["de"], lambda line: None)
print(json.dumps({text: [x.text, x.fault] for text, x in found["de"].items()}))
"""
SHARDS = Settings(beams=1, batch=4, longest=40, shard=2)


def start(model, cache, pause):
    given = json.dumps([model, str(cache), vars(SHARDS), pause, TEXTS])
    environment = os.environ | {"PYTHONPATH": str(store.ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", WORKER, given]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def shards(cache):
    return {file.name: file.stat().st_mtime_ns for file in cache.glob("*/*.jsonl")}


def wait_for_shards(cache, number):
    limit = time.monotonic() + 120
    while len(shards(cache)) < number:
        assert time.monotonic() < limit
        time.sleep(0.05)


def test_a_killed_run_goes_on(m2m, tmp_path):
    """After SIGKILL, two processes at once (this is one) finish it: they use its shards, make
    those of a run that was never killed, byte for byte, and both give the same."""
    killed = start(m2m, tmp_path / "cut", 0.5)
    wait_for_shards(tmp_path / "cut", 2)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    before = shards(tmp_path / "cut")
    torn = next((tmp_path / "cut").iterdir()) / ".x.jsonl.0.tmp"
    torn.write_text("half a li")
    other = start(m2m, tmp_path / "cut", 0.2)
    wait_for_shards(tmp_path / "cut", len(before) + 1)
    waited = []
    found = Translator(m2m, tmp_path / "cut", SHARDS).translate(TEXTS, ["de"], waited.append)
    assert any("waiting" in line for line in waited)
    assert found == Translator(m2m, tmp_path / "whole", SHARDS).translate(TEXTS, ["de"], **QUIET)
    expected = {text: [x.text, x.fault] for text, x in found["de"].items()}
    assert json.loads(other.communicate()[0]) == expected
    after = shards(tmp_path / "cut")
    assert 2 <= len(before) < len(after)
    assert before.items() <= after.items()
    assert after.keys() == shards(tmp_path / "whole").keys()
    assert not torn.exists()


def test_a_damaged_shard_is_made_again(m2m, tmp_path):
    """A shard that was cut short or altered is not believed; the result is the same."""
    first = Translator(m2m, tmp_path, SMALL).translate(TEXTS, ["de"], **QUIET)
    names = sorted(tmp_path.glob("*/*.jsonl"))
    names[0].write_bytes(names[0].read_bytes()[:-20])
    text = names[1].read_text()
    names[1].write_text(text.replace("e", "o", 1))
    said = []
    assert Translator(m2m, tmp_path, SMALL).translate(TEXTS, ["de"], said.append) == first
    assert sum("damaged" in line for line in said) == 2
    assert sorted(tmp_path.glob("*/*.jsonl")) == names
    assert names[1].read_text() == text


def test_a_failed_write_leaves_nothing(m2m, tmp_path, monkeypatch):
    """A full disk raises, keeps the shards before it and leaves no part of the next one."""
    real, calls = store._flush, []

    def full(path):
        if str(path).endswith(".tmp") and ".jsonl" in str(path):
            calls.append(path)
            if len(calls) == 2:
                raise OSError(28, "No space left on device")
        real(path)

    monkeypatch.setattr(store, "_flush", full)
    with pytest.raises(OSError, match="No space left"):
        Translator(m2m, tmp_path, SMALL).translate(TEXTS, ["de"], **QUIET)
    left = [file.name for file in next(tmp_path.iterdir()).iterdir()]
    assert len([name for name in left if name.endswith(".jsonl")]) == 1
    assert not [name for name in left if name.endswith(".tmp")]


# --- the source --------------------------------------------------------------------------------


def asked(tmp_path, rows, **others):
    """Parameters as lib.params.Prepare holds them, over a file of rows."""
    file = tmp_path / "en.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    defaults = {
        "files": {"en": str(file)},
        "languages": ["en", "de", "fr"],
        "translator": "given",
        "translate_from": "pairs",
        "passage": "sentence",
        "unanswerable": False,
        "max_chars": 300,
        "fold": 0,
        "folds": 1000,
        "keep": {},
        "columns": {},
        "parallel": True,
        "split": "group",
    }
    return SimpleNamespace(**defaults | others)


def english(number, **others):
    return {
        "pair": str(number),
        "language": "en",
        "question": f"Who built house {number}?",
        "passage": f"King {number} built it. He lived on the hill.",
        "group": "all",
    } | others


@pytest.fixture
def given_model(m2m, tmp_path, monkeypatch):
    """The source with a cache of its own, and a model that writes the text back in capitals with
    its language before it, but for texts that are told to fail."""
    monkeypatch.setattr(
        "lib.sources.downloads.cache_dir", lambda: tmp_path / "cache", raising=False
    )

    def judged(self, pieces, target):
        for piece in pieces:
            fault = translation.REPEATS if "FAIL" in piece else ""
            same = "SAME" in piece
            yield piece, Translated(piece if same else f"{target.code} {piece.upper()}", fault)

    monkeypatch.setattr(Translator, "_translated", judged)
    return m2m


def test_rows_of_every_language(given_model, tmp_path):
    """English is kept, others have its ids and their own texts; what failed is counted by reason,
    language by language, and listed."""
    rows = [english(i) for i in range(8)]
    rows[3]["question"] = "FAIL?"
    rows[4]["passage"] = "Fine. FAIL."
    rows[5]["question"] = "SAME?"
    rows[6]["passage"] = "x" * 301
    corpus = translate.build_corpus(asked(tmp_path, rows, translator=given_model))
    found = {(row["pair"], row["language"]): row for row in corpus.rows}
    assert sorted(found) == [
        (str(i), language)
        for i in range(8)
        for language in ("de", "en", "fr")
        if i != 6 and (language == "en" or i not in (3, 4, 5))
    ]
    german = found["1", "de"]
    assert german["question"] == "de WHO BUILT HOUSE 1?"
    assert german["passage"] == "de KING 1 BUILT IT. de HE LIVED ON THE HILL."
    for column in ("passage_id", "group", "source"):
        assert german[column] == found["1", "en"][column]
    assert corpus.meta["dropped"] == {
        "over-long": {"en": 1},
        translation.REPEATS: {"de": 2, "fr": 2},
        translation.UNTRANSLATED: {"de": 1, "fr": 1},
    }
    about = corpus.meta["translation"]
    assert about["failed"] == {
        translation.REPEATS: {x: ["FAIL?", "Fine. FAIL."] for x in ("de", "fr")},
        translation.UNTRANSLATED: {x: ["SAME?"] for x in ("de", "fr")},
    }
    assert len(about["sha256"]) == 64 and about["settings"]["beams"] == 4


def test_english_can_be_left_out(given_model, tmp_path):
    """Only the languages that are named are in the corpus."""
    p = asked(tmp_path, [english(0)], translator=given_model, languages=["fra", "deu"])
    assert translate.build_corpus(p).languages == ("de", "fr")


def test_squad_passages(given_model, tmp_path):
    """From SQuAD, a passage is the answer's sentence or the paragraph; sentences of one paragraph
    that are the same share their passage_id."""
    context = "King one built it. He lived on the hill."

    def row(number, start):
        answers = {"text": ["it"], "answer_start": [start]}
        about = {"id": str(number), "title": "t", "context": context, "answers": answers}
        return about | {"question": f"Question {number}?"}

    rows = [
        row(0, 15),
        row(1, 15),
        row(2, 20) | {"answers": {"text": ["lived"], "answer_start": [22]}},
    ]
    sentences = asked(tmp_path, rows, translator=given_model, translate_from="squad")
    corpus = translate.build_corpus(sentences)
    german = {r["pair"]: r for r in corpus.rows if r["language"] == "de"}
    assert german["0"]["passage"] == "de KING ONE BUILT IT."
    assert [german[str(i)]["passage_id"] for i in range(3)] == ["0", "0", "2"]
    assert {r["group"] for r in corpus.rows} == {"t#0"}
    p = SimpleNamespace(**vars(sentences) | {"passage": "paragraph"})
    german = [r for r in translate.build_corpus(p).rows if r["language"] == "de"]
    assert {r["passage"] for r in german} == {"de KING ONE BUILT IT. de HE LIVED ON THE HILL."}
    assert {r["passage_id"] for r in german} == {"t#0"}


def test_parameters_that_do_not_fit(tmp_path):
    """No language to make, no model, other files than English, rows of other languages."""
    rows = [english(0), english(1, language="de")]
    for changes, parts in (
        ({"languages": []}, ["languages", "none to translate"]),
        ({"languages": ["en"]}, ["languages", "none to translate"]),
        ({"translator": ""}, ["translator", "folder"]),
        ({"files": {"de": "x"}}, ["files", "of de", "expected one, of en"]),
        ({"files": {}}, ["files", "none"]),
        ({}, ["en.jsonl", "rows in de"]),
        ({"translate_from": "squad"}, ["en.jsonl", "row 1", "context"]),
    ):
        p = asked(tmp_path, rows, **changes)
        refused(lambda p=p: translate.build_corpus(p), *parts)


def test_real_model_from_file_to_corpus(m2m, tmp_path, monkeypatch):
    """A model that writes garbage gives a corpus of what is no fault, twice the same; the second
    time from the cache."""
    monkeypatch.setattr(
        "lib.sources.downloads.cache_dir", lambda: tmp_path / "cache", raising=False
    )
    rows = [english(i, question=text, passage=TEXTS[-1 - i]) for i, text in enumerate(TEXTS)]
    monkeypatch.setattr(translation, "is_runaway", lambda text: False)
    monkeypatch.setattr(translation, "CUT_OFF", "")
    p = asked(tmp_path, rows, translator=m2m)
    first = translate.build_corpus(p)
    assert set(first.languages) == {"en", "de", "fr"}
    given = count_rows(monkeypatch)
    assert translate.build_corpus(p).content_hash == first.content_hash and not given
