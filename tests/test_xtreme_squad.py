"""XTREME's translated SQuAD: names of files, misplaced answers, ids shared with English.

The counts of translated SQuAD files are checked where they are at hand (a folder beside the
project)."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lib.params import Prepare
from lib.sources import downloads, xtreme_squad

DATA = Path(__file__).parents[2] / "shared" / "data" / "squad-train"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"the SQuAD files are not in {DATA}")

RHINE = "The Rhine is a river. It flows north."
RHEIN = "Der Rhein ist ein Fluss. Er fließt nach Norden, immer ein Fluss."
RIN = "El Rin es un río. Fluye hacia el norte."


def asked(folder="", **others):
    """Parameters of the stage. With 1,000 folds hardly a group is held out."""
    others = {"folds": 1000} | others
    return Prepare(source="xtreme_squad", folder=str(folder), **others)


def row(id, context, question, answer, start=None):
    """A flat row; the answer starts where it first is, unless said."""
    start = context.index(answer) if start is None else start
    answers = {"text": [answer], "answer_start": [start]}
    about = {"id": id, "title": "Rhine", "context": context, "question": question}
    return about | {"answers": answers}


ENGLISH = [
    row("q1", RHINE, "What is the Rhine?", "a river"),
    row("q2", RHINE, "Where does it flow?", "north"),
]
GERMAN = [
    row("q1", RHEIN, "Was ist der Rhein?", "ein Fluss"),
    row("q2", RHEIN, "Wohin fließt er?", "nach Norden"),
]
SPANISH = [row("q2", RIN, "¿Hacia dónde fluye?", "norte"), row("x", RIN, "¿Qué es?", "un río")]


def document(rows):
    """SQuAD's own JSON of rows of one paragraph."""
    qas = [
        {
            "id": r["id"],
            "question": r["question"],
            "answers": [{k: v[0] for k, v in r["answers"].items()}],
        }
        for r in rows
    ]
    paragraphs = [{"context": rows[0]["context"], "qas": qas}]
    return json.dumps({"data": [{"title": "Rhine", "paragraphs": paragraphs}]})


def put(folder, **named):
    """Files of rows, in the format that each name says (`__` for a dot, `_` for a hyphen)."""
    folder.mkdir(exist_ok=True)
    for name, rows in named.items():
        path = folder / name.replace("__", ".").replace("_", "-")
        lines = "".join(json.dumps(r) + "\n" for r in rows)
        if path.suffix == ".parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
            continue
        text = (lines if ".jsonl" in path.name else document(rows)).encode()
        path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return folder


def refused(call, *parts):
    """`call` raises a ValueError of one line that holds all parts."""
    with pytest.raises(ValueError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, message


def passages(corpus):
    return {(r["pair"], r["language"]): r["passage"] for r in corpus.rows}


BY_HAND = {
    ("q1", "en"): "The Rhine is a river.",
    ("q2", "en"): "It flows north.",
    ("q1", "de"): "Der Rhein ist ein Fluss.",
    ("q2", "de"): "Er fließt nach Norden, immer ein Fluss.",
    ("q2", "es"): "Fluye hacia el norte.",
    ("x", "es"): "El Rin es un río.",
}


@pytest.mark.parametrize("suffix", ["__jsonl__gz", "__jsonl", "__json", "__json__gz", "__parquet"])
def test_a_folder_by_hand(tmp_path, capsys, suffix):
    """In every format; the overlap of ids is in the manifest's words and printed."""
    folder = put(
        tmp_path / "x",
        **{f"en{suffix}": ENGLISH, f"deu{suffix}": GERMAN},
        squad__translate__train__en_es__json=SPANISH,
    )
    corpus = xtreme_squad.build_corpus(asked(folder))
    assert passages(corpus) == BY_HAND
    assert set(corpus.rows["source"][:]) == {"xtreme_squad"} == {corpus.meta["source"]}
    assert corpus.meta["overlap"] == {"de": [2, 2], "es": [1, 2]}
    assert corpus.meta["inputs"]["es"]["name"] == "squad.translate.train.en-es.json"
    assert corpus.meta["dropped"] == {}
    assert capsys.readouterr().out.splitlines() == [
        "de: 2 of 2 question ids are English ones",
        "es: 1 of 2 question ids are English ones",
    ]


def test_other_files_are_no_language(tmp_path):
    """Names with a further part, read-mes, archives."""
    folder = put(tmp_path / "x", en__json=ENGLISH, de__jsonl=GERMAN, en__train87k__jsonl=SPANISH)
    for name in ("README.md", "SHA256SUMS", "es.zip", "notes.json"):
        (folder / name).write_text("no data")
    (folder / "fr").mkdir()
    assert xtreme_squad.build_corpus(asked(folder)).languages == ("de", "en")
    (folder / "de.jsonl").rename(folder / "DE.JSONL")
    assert xtreme_squad.build_corpus(asked(folder)).languages == ("de", "en")


def test_misplaced_answers_are_counted(tmp_path, capsys):
    """Those that were found elsewhere, and those that were not."""
    lost = [GERMAN[0], row("q2", RHEIN, "Wohin?", "immer", 0), row("q3", RHEIN, "Wo?", "Elbe", 0)]
    folder = put(tmp_path / "x", en__json=ENGLISH, de__json=lost)
    assert xtreme_squad.build_corpus(asked(folder)).meta["moved"] == {"de": 1, "en": 0}
    said = "de.json: 1 of 3 answers are elsewhere than the file says, 1 nowhere (dropped)"
    assert said in capsys.readouterr().out


def test_only_the_languages_asked_for(tmp_path):
    """English is read for its ids and paragraphs all the same."""
    folder = put(tmp_path / "x", en__json=ENGLISH, de__json=GERMAN, es__json=SPANISH)
    corpus = xtreme_squad.build_corpus(asked(folder, languages=["de", "es"]))
    assert passages(corpus) == {k: v for k, v in BY_HAND.items() if k[1] != "en"}
    assert set(corpus.rows["group"][:]) == {"Rhine#0"}
    refused(
        lambda: xtreme_squad.build_corpus(asked(folder, languages=["de", "fr"])),
        "x: ",
        "language fr",
    )


def moved(start, answer):
    return [GERMAN[0], row("q2", RHEIN, "Wohin fließt er?", answer, start)]


@pytest.mark.parametrize(
    ("start", "answer", "sentence"),
    [
        (RHEIN.rindex("ein Fluss"), "ein Fluss", BY_HAND["q2", "de"]),
        (0, "immer", BY_HAND["q2", "de"]),
        (-1, "immer", BY_HAND["q2", "de"]),
        (5000, "Der Rhein", BY_HAND["q1", "de"]),
        ("?", "Der Rhein", BY_HAND["q1", "de"]),
        (0, "ein Fluss", None),
        (0, "in die See", None),
        (-1, "", None),
    ],
)
def test_a_misplaced_answer_is_searched_for(tmp_path, start, answer, sentence):
    """At the place said, or else where it is once; twice or nowhere it has no sentence, and the
    question is dropped and counted."""
    folder = put(tmp_path / "x", en__json=ENGLISH, de__json=moved(start, answer))
    corpus = xtreme_squad.build_corpus(asked(folder))
    assert passages(corpus).get(("q2", "de")) == sentence
    reason = "no answer sentence" if answer else "unanswerable"
    assert corpus.meta["dropped"] == ({} if sentence else {reason: {"de": 1}})


def test_paragraphs_need_no_place_of_the_answer(tmp_path):
    """The paragraph holds it wherever it is."""
    folder = put(tmp_path / "x", en__json=ENGLISH, de__json=moved(-1, "in die See"))
    corpus = xtreme_squad.build_corpus(asked(folder, passage="paragraph"))
    assert passages(corpus)["q2", "de"] == RHEIN
    assert corpus.meta["dropped"] == {}


def test_a_folder_that_does_not_fit_is_refused(tmp_path):
    """Missing, without English, without a common id, with two files of a language, damaged."""
    refused(lambda: xtreme_squad.build_corpus(asked(tmp_path / "no")), "no: no such folder")
    folder = put(tmp_path / "x", de__json=GERMAN, es__json=SPANISH)
    refused(lambda: xtreme_squad.build_corpus(asked(folder)), "x: has no file of language en")
    put(folder, en__json=ENGLISH, fr__json=[SPANISH[1]])
    refused(
        lambda: xtreme_squad.build_corpus(asked(folder)),
        "fr.json: shares no question id",
        "en.json",
    )
    put(folder, fr__json=ENGLISH, fra__jsonl=ENGLISH)
    refused(lambda: xtreme_squad.build_corpus(asked(folder)), "fr.json and fra.jsonl are both of")
    (folder / "fra.jsonl").unlink()
    (folder / "fr.json").write_text('{"data": [\n]]')
    refused(lambda: xtreme_squad.build_corpus(asked(folder)), "fr.json: row 2: is broken JSON")
    (folder / "fr.json").rename(folder / "zq.json")
    refused(lambda: xtreme_squad.build_corpus(asked(folder)), "zq.json: unknown language 'zq'")


@pytest.mark.parametrize("languages", [[], ["de", "es"], ["en", "de"]])
def test_without_a_folder_files_are_downloaded(tmp_path, monkeypatch, languages):
    """English by its sha256, the translations by trust on first use."""
    made = {"en": ENGLISH, "es": SPANISH}
    calls = {}

    def download(url, sha256, name):
        language = name.removesuffix(".json")[-2:] if "translate" in name else "en"
        calls[language] = url, sha256
        path = put(tmp_path / "x", **{f"{language}__json": made.get(language, GERMAN)})
        return path / f"{language}.json"

    monkeypatch.setattr(downloads, "fetch", download)
    corpus = xtreme_squad.build_corpus(asked(languages=languages))
    wanted = languages or ["ar", "de", "el", "en", "es", "hi", "ru", "th", "tr", "vi", "zh"]
    assert sorted(calls) == sorted({*wanted, "en"})
    assert corpus.languages == tuple(sorted(wanted))
    url, sha256 = calls.pop("en")
    assert url.endswith("/train-v1.1.json") and sha256 == xtreme_squad.ENGLISH_SHA256
    for language, (url, sha256) in calls.items():
        assert url.startswith("https://storage.googleapis.com/xtreme_translations/SQuAD/")
        assert url.endswith(f"/translate-train/squad.translate.train.en-{language}.json")
        assert sha256 is None


# Rows that are answerable, and those of them that have an answer sentence.
PUBLISHED = {
    "en": (9380, 9380), "zh": (6957, 6633), "da": (6744, 6743), "it": (6117, 6117),
    "es": (5851, 5851), "pt": (5111, 5011), "sv": (4492, 4492), "id": (3770, 3770),
}  # fmt: skip
UNANSWERABLE = {"en": 5063, "zh": 5063, "da": 2987, "it": 0, "es": 2784, "pt": 5063, "sv": 5063,
                "id": 3206}  # fmt: skip


@needs_data
def test_public_translations_have_their_published_counts():
    """Every row is trained on, tested, or dropped for a reason; all ids are English ones."""
    meta = xtreme_squad.build_corpus(asked(DATA, folds=5)).meta
    counts, dropped = meta["counts"], meta["dropped"]
    assert set(counts["rows"]) == set(PUBLISHED)
    for language, (answerable, located) in PUBLISHED.items():
        lost = {reason: own.get(language, 0) for reason, own in dropped.items()}
        kept = counts["rows"][language] + counts["test"][language]
        assert kept + sum(lost.values()) == answerable + UNANSWERABLE[language]
        assert 0 <= located - kept <= lost["suspect"]
        assert lost["no answer sentence"] <= answerable - located
        if language != "en":
            assert meta["overlap"][language] == [answerable + UNANSWERABLE[language]] * 2
