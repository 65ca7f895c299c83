"""LAReQA's benchmarks: by hand on a tiny set, partly parallel questions, damaged files, counts.

XQuAD-R itself is checked where it is at hand (a folder beside the project)."""

import copy
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lib import store
from lib.benchmarks import lareqa
from lib.sources import downloads

DATA = Path(__file__).parents[2] / "shared" / "data" / "xquad-r"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"XQuAD-R is not in {DATA}")
MLQA = DATA.parent / "mlqa-r"
needs_mlqa = pytest.mark.skipif(not MLQA.is_dir(), reason=f"MLQA-R is not in {MLQA}")


def asked(folder="", **others):
    """What the study asks of a benchmark."""
    defaults = {"languages": [], "candidate": "sentence", "split": "", "clusters": "paragraph"}
    return SimpleNamespace(folder=str(folder), **defaults | others)


def paragraph(*sentences, **questions):
    """A paragraph of sentences joined by one blank. questions: id = (text, answer)."""
    context, breaks, at = " ".join(sentences), [], 0
    for sentence in sentences:
        breaks.append([at, at + len(sentence)])
        at += len(sentence) + 1
    qas = [
        {"id": x, "question": q, "answers": [{"answer_start": context.index(a), "text": a}]}
        for x, (q, a) in questions.items()
    ]
    return {"context": context, "qas": qas, "sentence_breaks": breaks}


def put(folder, **languages):
    """A file of one article for each language."""
    folder.mkdir(exist_ok=True)
    for language, paragraphs in languages.items():
        document = {"version": "1.1", "data": [{"title": "T", "paragraphs": paragraphs}]}
        text = json.dumps(document, ensure_ascii=False)
        (folder / f"{language}.json").write_text(text, encoding="utf-8")
    return folder


ENGLISH = [
    paragraph("It rains.", "It snows.", q1=("What falls first?", "rains"), q2=("Then?", "snows")),
    paragraph("Moss grows.", q3=("What grows?", "Moss")),
]
GERMAN = [
    paragraph("Es regnet.", "Es schneit.", q1=("Was erst?", "regnet"), q2=("Dann?", "schneit")),
    paragraph("Moos", "wächst.", q3=("Was wächst?", "Moos")),
]


def relevant(benchmark):
    """{(question id, its language): [texts of its relevant candidates]}"""
    found = {}
    for q, c in zip(benchmark.question, benchmark.candidate, strict=True):
        question = benchmark.questions.iloc[q]
        key = question["question_id"], question["language"]
        found.setdefault(key, []).append(benchmark.candidates["text"].iloc[c])
    return found


def refused(call, *parts):
    """`call` raises a ValueError of one line that holds all parts."""
    with pytest.raises(ValueError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, message


def test_a_parallel_set_by_hand(tmp_path):
    """Seven sentences; each question is answered by the sentence of its answer in each language."""
    folder = put(tmp_path / "x", en=ENGLISH, deu=GERMAN)
    found = lareqa.load_benchmark("tiny", asked(folder))
    assert (found.name, found.languages) == ("tiny", ("de", "en"))
    assert found.candidates["text"].tolist() == [
        "Es regnet.", "Es schneit.", "Moos", "wächst.", "It rains.", "It snows.", "Moss grows."
    ]  # fmt: skip
    assert found.candidates["candidate_id"].tolist()[:4] == ["0/0", "0/1", "1/0", "1/1"]
    snow, moss = ["Es schneit.", "It snows."], ["Moos", "Moss grows."]
    assert relevant(found) == {
        **{("q1", x): ["Es regnet.", "It rains."] for x in ("de", "en")},
        **{("q2", x): snow for x in ("de", "en")},
        **{("q3", x): moss for x in ("de", "en")},
    }
    assert found.questions["group"].tolist() == ["q1", "q1", "q3"] * 2
    articles = lareqa.load_benchmark("tiny", asked(folder, clusters="article"))
    assert set(articles.questions["group"]) == {"q1"}  # the file has one article
    assert set(found.grade) == {1}


def test_a_candidate_may_be_followed_by_its_paragraph(tmp_path):
    """As in XTREME; questions and relevance are the same."""
    folder = put(tmp_path / "x", en=ENGLISH, de=GERMAN)
    plain = lareqa.load_benchmark("x", asked(folder))
    whole = lareqa.load_benchmark(
        "x", asked(folder, candidate="sentence+paragraph", languages=["en", "de"])
    )
    assert whole.candidates["text"].iloc[5] == "It snows. It rains. It snows."
    assert (whole.candidate == plain.candidate).all()


def test_a_single_language_can_be_asked_for(tmp_path):
    """By any usual code; it has no other one to share its questions with."""
    folder = put(tmp_path / "x", en=ENGLISH, de=GERMAN)
    found = lareqa.load_benchmark("x", asked(folder, languages=["eng"]))
    assert found.languages == ("en",)
    assert (len(found.questions), len(found.candidates), len(found.question)) == (3, 3, 3)


def test_partly_parallel_questions_by_hand(tmp_path):
    """As in MLQA-R: relevance only where the id exists. A paragraph of one language links the
    questions that another one splits (q1 and q2 through German), and so does a text that occurs
    twice (q4 and q5 in Spanish), so they share a group."""
    folder = put(
        tmp_path / "x",
        en=[
            paragraph("It rains.", q1=("What falls?", "rains")),
            paragraph("It snows.", q2=("Then?", "snows")),
            paragraph("Only here.", q6=("Where?", "here")),
        ],
        de=[paragraph("Regen.", "Schnee.", q2=("Dann?", "Schnee"), q1=("Was?", "Regen"))],
        es=[
            paragraph("Nieva.", q2=("¿Y luego?", "Nieva")),
            paragraph("Sol y luna.", q4=("¿Qué?", "Sol")),
            paragraph("Sol y luna.", q5=("¿Y?", "luna")),
        ],
    )
    found = lareqa.load_benchmark("x", asked(folder))
    assert relevant(found) == {
        **{("q1", x): ["Regen.", "It rains."] for x in ("de", "en")},
        **{("q2", x): ["Schnee.", "It snows.", "Nieva."] for x in ("de", "en", "es")},
        ("q6", "en"): ["Only here."],
        ("q4", "es"): ["Sol y luna."],
        ("q5", "es"): ["Sol y luna."],
    }
    group = dict(zip(found.questions["question_id"], found.questions["group"], strict=True))
    assert group == {"q1": "q1", "q2": "q1", "q4": "q4", "q5": "q4", "q6": "q6"}
    assert len(found.candidates) == 3 + 2 + 3


def test_texts_are_cleaned_after_sentences_are_cut(tmp_path):
    """Offsets count the characters of the file: a byte order mark, blanks, an accent apart."""
    found = paragraph("\ufeff  Cafe\u0301.", "Th\x00e\u0301\tnoir.", q=("Quoi ?\n", "noir"))
    folder = put(tmp_path / "x", fr=[found])
    found = lareqa.load_benchmark("x", asked(folder))
    assert relevant(found) == {("q", "fr"): ["Thé noir."]}
    assert found.questions["text"].tolist() == ["Quoi ?"]


@pytest.mark.parametrize(("start", "text"), [(0, "A."), (1, "A."), (2, "B."), (4, "B.")])
def test_the_sentence_that_holds_the_start(tmp_path, start, text):
    """An answer that starts with the blank before a sentence belongs to that sentence."""
    found = paragraph("A.", "B.", q=("?", "A"))
    found["qas"][0]["answers"][0]["answer_start"] = start
    assert relevant(lareqa.load_benchmark("x", asked(put(tmp_path / "x", en=[found])))) == {
        ("q", "en"): [text]
    }


def test_an_answer_behind_the_last_sentence_has_no_candidate(tmp_path):
    """The question stays, and in that language nothing is relevant to it."""
    german = copy.deepcopy(GERMAN)
    german[1]["context"] += " Ja."
    german[1]["qas"][0]["answers"][0]["answer_start"] = len(GERMAN[1]["context"]) + 1
    found = relevant(lareqa.load_benchmark("x", asked(put(tmp_path / "x", en=ENGLISH, de=german))))
    assert found["q3", "de"] == found["q3", "en"] == ["Moss grows."]


def test_a_question_without_an_answer_is_counted(tmp_path, capsys):
    """As in SQuAD v2.0: said and kept in `unused`; other languages may answer it."""
    german = copy.deepcopy(GERMAN)
    german[1]["qas"][0]["answers"] = []
    loaded = lareqa.load_benchmark("x", asked(put(tmp_path / "x", en=ENGLISH, de=german)))
    assert relevant(loaded)["q3", "de"] == ["Moss grows."]
    assert loaded.unused == {"questions whose answer no sentence holds": 1}
    assert "x: 1 questions whose answer no sentence holds" in capsys.readouterr().out


def damaged(**others):
    """The German file with its second paragraph changed."""
    return json.dumps({"data": [{"paragraphs": [GERMAN[0], GERMAN[1] | others]}]})


def question(start=0, **others):
    return [{"id": "q3", "question": "?", "answers": [{"answer_start": start}]} | others]


BAD = {
    "broken.": ('{"data": [\n{]}', "de.json: row 2: is broken JSON"),
    "bytes": ('{"data": "é"}'.encode("latin-1"), "de.json: row 1: is not UTF-8"),
    "list": ("[]", "de.json: row 1: is [] (expected an object)"),
    "no data": ("{}", "no column 'data'"),
    "no breaks": (json.dumps({"data": [{"paragraphs": [{"context": "", "qas": []}]}]}),
                  "row 1: has no column 'sentence_breaks'"),
    "breaks": (damaged(sentence_breaks=[]), "row 2: sentence_breaks are not a list"),
    "break": (damaged(sentence_breaks=[[0, 4], "x"]), "row 2: sentence break x does not"),
    "break order": (damaged(sentence_breaks=[[0, 4], [3, 9]]), "break [3, 9] does not follow 4"),
    "break end": (damaged(sentence_breaks=[[0, 4], [5, 13]]), "its text (12 characters)"),
    "break empty": (damaged(sentence_breaks=[[4, 4]]), "break [4, 4]"),
    "offset": (damaged(qas=question(12)), "row 2: question 'q3': answer_start 12 lies outside"),
    "offset -1": (damaged(qas=question(-1)), "answer_start -1 lies outside its text (12 char"),
    "offset text": (damaged(qas=question("1")), "answer_start '1' lies outside"),
    "empty": (damaged(qas=question(question="\x00 ")), "row 2: question 'q3' is empty"),
    "twice": (damaged(qas=question(id="q1")), "row 2: id 'q1' is already in row 1"),
    "twice in one": (damaged(qas=question() * 2), "row 2: id 'q3' is already in row 2"),
    "no question": (json.dumps({"data": []}), "de.json: has no questions"),
    "disjoint": (json.dumps({"data": [{"paragraphs": [paragraph("A.", z=("?", "A"))]}]}),
                 "de.json: shares no question id with the other"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_damaged_file_is_refused(tmp_path, name):
    """In one line, with the file and the number of the paragraph."""
    content, message = BAD[name]
    folder = put(tmp_path / "x", en=ENGLISH)
    (folder / "de.json").write_bytes(content.encode() if isinstance(content, str) else content)
    refused(lambda: lareqa.load_benchmark("x", asked(folder)), message)


def test_a_folder_that_does_not_fit_is_refused(tmp_path):
    """Missing, empty, without a language asked for, with a name that is no language."""
    refused(lambda: lareqa.load_benchmark("x", asked(tmp_path / "no")), "no: no such folder")
    refused(lambda: lareqa.load_benchmark("x", asked(tmp_path)), "holds no <language>.json")
    folder = put(tmp_path / "x", en=ENGLISH, de=GERMAN)
    refused(
        lambda: lareqa.load_benchmark("x", asked(folder, languages=["en", "fr"])),
        "x: ",
        "of language fr",
    )
    put(folder, readme=ENGLISH)
    refused(lambda: lareqa.load_benchmark("x", asked(folder)), "x: unknown language 'readme'")


@pytest.mark.parametrize(
    ("split", "place"), [("", "9bc8c7f/xquad-r"), ("mlqa-r", "354d67d1cd0668")]
)
def test_without_a_folder_files_are_downloaded_by_hash(tmp_path, monkeypatch, split, place):
    """Each asked language by the URL of its commit, with its sha256."""
    folder = put(tmp_path / "x", en=ENGLISH, de=GERMAN)
    calls = []

    def download(url, sha256, name):
        calls.append((url, sha256, name))
        return folder / url.rsplit("/", 1)[1]

    monkeypatch.setattr(downloads, "fetch", download)
    found = lareqa.load_benchmark("x", asked(split=split, languages=["en", "deu"]))
    assert found.languages == ("de", "en")
    used = split or "xquad-r"
    assert [name for *_, name in calls] == [f"lareqa/{used}/{x}.json" for x in ("de", "en")]
    for (url, sha256, _), language in zip(calls, ("de", "en"), strict=True):
        assert place in url and url.endswith(f"/{used}/{language}.json")
        assert sha256 == lareqa.SHA256[used][language]
    refused(
        lambda: lareqa.load_benchmark("x", asked(split=split, languages=["ja"])),
        "no file of language ja",
    )


def test_an_unknown_split_is_refused():
    """The two that exist are named."""
    refused(
        lambda: lareqa.load_benchmark("x", asked(split="squad")), "'squad'", "xquad-r or mlqa-r"
    )


COUNTS = {
    "ar": 1222, "de": 1276, "el": 1234, "en": 1180, "es": 1215, "hi": 1244,
    "ru": 1219, "th": 852, "tr": 1167, "vi": 1209, "zh": 1196,
}  # fmt: skip


@needs_data
def test_xquad_r_has_its_published_counts():
    """11 x 1,190 questions in 240 paragraphs of 48 articles, 13,014 candidates, and exactly one
    relevant candidate for each question in each language: 11 monolingual and 110 cross-lingual
    settings."""
    found = lareqa.load_benchmark("xquad-r", asked(DATA, clusters="article"))
    assert found.questions.groupby("language").size().to_dict() == dict.fromkeys(COUNTS, 1190)
    assert found.candidates.groupby("language").size().to_dict() == COUNTS
    assert found.questions["group"].nunique() == 48  # articles
    paragraphs = lareqa.load_benchmark("xquad-r", asked(DATA))
    assert paragraphs.questions["group"].nunique() == 240
    assert paragraphs.candidates.equals(found.candidates)
    assert found.questions.groupby("question_id")["group"].nunique().max() == 1
    times = np.zeros((13_090, 11), int)
    np.add.at(times, (found.question, found.candidate_language[found.candidate]), 1)
    assert (times == 1).all()


@needs_data
def test_xquad_r_is_the_pinned_one():
    """Its hashes are those that a download is compared with."""
    assert {x: store.sha256(DATA / f"{x}.json") for x in COUNTS} == lareqa.SHA256["xquad-r"]


@needs_mlqa
def test_mlqa_r_has_its_published_counts():
    """(questions, candidates) of each language; every question has two to four translations."""
    found = lareqa.load_benchmark("mlqa-r", asked(MLQA))
    sizes = [t.groupby("language").size().to_dict() for t in (found.questions, found.candidates)]
    assert sizes == [
        {"ar": 517, "de": 512, "en": 1148, "es": 500, "hi": 507, "vi": 511, "zh": 504},
        {"ar": 2545, "de": 2362, "en": 6264, "es": 1787, "hi": 2426, "vi": 2828, "zh": 2322},
    ]
    assert set(found.questions["question_id"].value_counts()) == {2, 3, 4}
