"""mMARCO's raw files: what a pair is, what its negatives are, every fault, and bounded memory."""

from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import store
from lib.corpus import ParallelCorpus
from lib.sampler import Schedule
from lib.sources import mmarco
from lib.sources.assemble import corpus_of_rows, corpus_of_sorted
from lib.study import paths
from lib.training.tokenizer import tokenizer_texts
from speed.mmarco import generate, measured

LANGUAGES = ("english", "german", "dutch")


def asked(folder, **others):
    """Parameters as lib.params.Prepare holds them. With 10**6 folds hardly a group is held out."""
    defaults = {
        "study": "lab", "run": "base", "folder": str(folder), "languages": [], "limit": 0,
        "hard_negatives": 1, "pool": 0, "max_chars": 2000, "keep": {}, "fold": 0, "folds": 10**6,
    }  # fmt: skip
    return SimpleNamespace(**defaults | others)


def put(folder, name, rows):
    """A TSV file at its place in the repository's layout."""
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join("\t".join(map(str, row)) + "\n" for row in rows), encoding="utf-8")
    return file


def world(folder, triples, languages=LANGUAGES, questions=None, passages=None):
    """The repository's files, holding the ids that the triples name and one that they do not."""
    triples = list(triples)
    questions = questions or sorted({q for q, *_ in triples} | {999_999})
    passages = passages or sorted({p for _, *ps in triples for p in ps} | {888_888})
    put(folder, mmarco.TRIPLES, triples)
    for name in languages:
        put(folder, mmarco.QUESTIONS.format(name), [(q, f"{name} q {q}?") for q in questions])
        put(folder, mmarco.COLLECTION.format(name), [(x, f"{name} p {x}.") for x in passages])
    return folder


def simple(count, each=3):
    """Triples of `count` questions q with passage 1000 + q and negatives that nobody's are."""
    return [(q, 1000 + q, 5000 + q * each + n) for n in range(each) for q in range(1, count + 1)]


def rows_of(corpus, *columns):
    """Rows that ask something, as tuples."""
    return [tuple(row[c] for c in columns) for row in corpus.rows if row["question"]]


def refused(call, *parts):
    """`call` raises a ValueError of one line that holds all parts."""
    with pytest.raises(ValueError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert str(part) in message, message


def chosen(folder, file, **others):
    """{question: (passage, name of its group, negatives)} of the questions that are kept."""
    with TemporaryDirectory(dir=folder) as place, mmarco.database(place) as db:
        mmarco.choose(db, str(file), asked("", **others))
        kept = db.execute("SELECT id, passage, name FROM questions").fetchall()
        named = db.execute("SELECT id, passage FROM negatives ORDER BY id, rank").fetchall()
    return {x: (p, name, [n for q, n in named if q == x]) for x, p, name in kept}


def build(p):
    """The corpus, in a scratch folder of its own; nothing of a start that failed stays there."""
    store.make_folder(paths.outputs())
    scratch = Path(mkdtemp(dir=paths.outputs()))
    try:
        return mmarco.build_corpus(p, scratch)
    except ValueError:
        assert not [file for file in scratch.rglob("*") if file.name != "tables"]
        raise


@pytest.fixture
def files(tmp_path, outputs):
    """A small repository and a place for outputs."""
    return world(tmp_path / "mmarco", simple(6))


# --- what the files mean -----------------------------------------------------------------------


def test_rows_are_questions_in_every_language(files):
    """Texts come by id from each language's files, whose names become codes."""
    corpus = build(asked(files))
    assert corpus.languages == ("de", "en", "nl")
    found = rows_of(corpus, "pair", "language", "question", "passage", "passage_id", "group")
    assert len(found) == 18
    assert found[2] == ("1", "nl", "dutch q 1?", "dutch p 1001.", "1001", "1001")
    assert corpus.meta["counts"]["rows"] == {"de": 6, "en": 6, "nl": 6}
    assert corpus.meta["counts"]["negatives"] == {"de": 6, "en": 6, "nl": 6}


def test_languages_are_those_asked_for(files):
    """And English questions are read all the same, to tell what was left untranslated."""
    file = files / mmarco.QUESTIONS.format("german")
    file.write_text(file.read_text().replace("german q 2?", "english q 2?"))
    corpus = build(asked(files, languages=["de", "nl"]))
    assert corpus.languages == ("de", "nl")
    assert corpus.meta["dropped"] == {"untranslated": {"de": 1}}
    assert ("2", "nl") in rows_of(corpus, "pair", "language")
    assert ("2", "de") not in rows_of(corpus, "pair", "language")


def test_the_first_passage_in_file_order_is_the_pair(tmp_path, outputs):
    """Other relevant passages are no rows, and never negatives, wherever they are named."""
    triples = [(1, 12, 50), (1, 11, 12), (1, 11, 51), (2, 20, 11), (2, 20, 52), (3, 30, 53)]
    corpus = build(asked(world(tmp_path / "m", triples), hard_negatives=2, languages=[]))
    found = {row["pair"]: row for row in corpus.rows if row["question"]}
    assert found["1"]["passage_id"] == "12" and found["1"]["negatives"] == ["50", "51"]
    assert found["2"]["negatives"] == ["11", "52"]
    assert found.keys() == {"1", "2"}
    assert corpus.meta["dropped"] == {"few negatives": {"de": 1, "en": 1, "nl": 1}}


def test_questions_that_share_a_passage_are_one_group(tmp_path, outputs):
    """Also through a passage that is the first one of neither; named by its smallest passage."""
    triples = [(1, 12, 50), (2, 13, 50), (1, 14, 50), (2, 14, 50), (3, 15, 50), (4, 16, 14)]
    corpus = build(asked(world(tmp_path / "m", triples)))
    groups = dict(rows_of(corpus, "pair", "group"))
    assert groups == {"1": "12", "2": "12", "3": "15", "4": "16"}
    alone = {r["passage_id"]: r["group"] for r in corpus.rows if not r["question"]}
    assert alone == {"50": "50", "14": "12"}


@given(
    st.lists(
        st.tuples(st.integers(0, 6), st.integers(0, 9), st.integers(0, 15)), min_size=1, max_size=60
    ),
    st.integers(1, 4),
    st.integers(1, 7),
)
@settings(deadline=None)
def test_negatives_equal_a_slow_reading_of_the_triples(tmp_path_factory, rows, most, size):
    """The first H distinct ones in file order, however the file is cut into parts."""
    table = pa.table(list(np.array(rows, np.int32).T), ["question", "relevant", "irrelevant"])
    parts = table.to_batches(max_chunksize=size)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mmarco, "triples", lambda file: iter(parts))
        found = chosen(tmp_path_factory.getbasetemp(), "", hard_negatives=most)
    relevant = {}
    for q, p, _ in rows:
        relevant.setdefault(q, []).append(p)
    groups = [{q, *(("p", p) for p in ps)} for q, ps in relevant.items()]
    for _ in groups:  # merge until nothing touches
        groups = [set.union(*(h for h in groups if h & g)) for g in groups]
    for q, (passage, name, negatives) in found.items():
        own = next(g for g in groups if q in g)
        named = [n for a, _, n in rows if a == q and ("p", n) not in own]
        expected = list(dict.fromkeys(named))[:most]
        assert negatives == expected
        assert passage == relevant[q][0]
        assert name == min(x[1] for x in own if isinstance(x, tuple))
    assert found.keys() == relevant.keys()


def test_limit_is_a_choice_by_hash(tmp_path, outputs):
    """The same whatever the order of the file, smaller limits inside larger ones; not the first."""
    triples = simple(40)
    ten = chosen(tmp_path, put(tmp_path, "a.tsv", triples), limit=10)
    turned = chosen(tmp_path, put(tmp_path, "b.tsv", triples[::-1]), limit=10)
    five = chosen(tmp_path, tmp_path / "a.tsv", limit=5)
    assert ten.keys() == turned.keys() and len(ten) == 10
    assert five.keys() < ten.keys()
    assert sorted(ten) != list(range(1, 11))


def test_held_out_groups_are_in_no_training_row(tmp_path, outputs):
    """Neither as a positive nor as a negative; the pool has all passages unless it is limited."""
    triples = [(q, 1000 + q, 1000 + (q + n) % 30) for n in range(1, 20) for q in range(30)]
    folder = world(tmp_path / "m", triples)
    corpus = build(asked(folder, folds=3, fold=1))
    tested = set(corpus.test["group"][:])
    assert 0 < len(tested) < 30 and len(corpus.test) == 3 * len(tested)
    assert not tested & {row["group"] for row in corpus.rows}
    assert len(corpus.pool) == 3 * 30
    small = build(asked(folder, folds=3, fold=1, pool=2))
    assert len(small.pool) == 3 * (len(tested) + 2)
    shown = [{r["passage_id"] for r in small.pool if r["language"] == x} for x in small.languages]
    assert shown[0] == shown[1] == shown[2] > set(small.test["passage_id"][:])


def test_a_passage_of_two_groups_is_left_out(files):
    """Answers that are the same text, and one that is another question's negative: they would be
    false negatives in a batch, or be trained and tested on. In that language alone."""
    file = files / mmarco.COLLECTION.format("german")
    text = file.read_text().replace("german p 1002.", " german p  1001.")
    file.write_text(text.replace("german p 5009.", "german p 1004."))
    corpus = build(asked(files))
    assert corpus.meta["dropped"] == {"passage of two groups": {"de": 3}}
    found = rows_of(corpus, "pair", "language")
    assert {pair for pair, language in found if language == "de"} == {"3", "5", "6"}
    assert len(found) == 15


def test_hygiene_is_counted_by_reason_and_language(files):
    """An empty, an over-long and an identical row; a negative that cannot be shown, or says what
    the answer says, costs its row."""
    edits = {
        (mmarco.QUESTIONS, "german q 1?"): " ",
        (mmarco.COLLECTION, "german p 1002."): "x" * 2001,
        (mmarco.COLLECTION, "german p 1003."): "german q 3?",
        (mmarco.COLLECTION, "german p 5012."): "",
        (mmarco.COLLECTION, "german p 5015."): "german  p 1005.",
    }
    for (form, old), new in edits.items():
        file = files / form.format("german")
        file.write_text(file.read_text().replace(old, new))
    corpus = build(asked(files))
    assert corpus.meta["dropped"] == {
        reason: {"de": n}
        for reason, n in (
            ("empty", 1),
            ("few negatives", 1),
            ("identical", 1),
            ("over-long", 1),
            ("passage of two groups", 1),
        )
    }
    assert [pair for pair, code in rows_of(corpus, "pair", "language") if code == "de"] == ["6"]


def test_keep_thins_one_language(tmp_path, outputs):
    """As for every source; its negatives go with it."""
    corpus = build(asked(world(tmp_path / "m", simple(40)), keep={"de": 0.5}))
    counts = corpus.meta["counts"]
    assert counts["rows"]["en"] == 40 and 10 < counts["rows"]["de"] < 30
    assert counts["negatives"] == counts["rows"]


# --- negatives in training ---------------------------------------------------------------------


def test_negatives_reach_the_schedule(tmp_path, outputs):
    """Every row gets H of its own triples' negatives, in its passage's language, and passages that
    are only negatives are never asked and never a positive."""
    corpus = build(asked(world(tmp_path / "m", simple(12)), hard_negatives=2))
    index, rows = corpus.index, corpus.rows.to_list()
    assert len(index) == 12 + 12 * 2 * 3
    for batch in Schedule(index, "mix", alpha=0.3, batch_size=6, steps=30, explicit=2):
        own = index.rows(batch.pair, batch.question_language)
        shown = index.rows(batch.negatives, batch.passage_language[:, None])
        for row, negatives, code in zip(own, shown, batch.passage_language, strict=True):
            assert rows[row]["question"]
            assert [rows[n]["language"] for n in negatives] == [index.languages[code]] * 2
            named = {rows[n]["passage_id"] for n in negatives}
            assert named == set(rows[row]["negatives"]) and len(named) == 2


def test_no_negatives_are_asked_for(files):
    """Then there is neither such a column nor such rows."""
    corpus = build(asked(files, hard_negatives=0))
    assert "negatives" not in corpus.rows.column_names
    assert corpus.index.negatives is None and len(corpus.rows) == 18


def test_the_tiny_corpus_trains_with_explicit_negatives(files, tmp_path):
    """The trainer needs to know nothing of where negatives come from."""
    from lib.params import Train
    from lib.trainer import train
    from lib.training.tokenizer import train_tokenizer

    corpus = build(asked(files))
    with store.atomic_folder(tmp_path / "data", corpus.meta) as new:
        corpus.save(new)
        train_tokenizer(corpus.rows["passage"][:], 300).save(str(new / "tokenizer.json"))
    params = Train(
        negatives="both", explicit=1, batch_size=4, steps=3, width=8, strategy="hybrid", warmup=0
    )
    result = train(ParallelCorpus.load(tmp_path / "data"), params, tmp_path / "run")
    assert np.isfinite(result.log["loss"]).all() and len(result.log) == 3


# --- the corpus written as rows come -----------------------------------------------------------


def test_rows_one_by_one_make_the_same_corpus(files, tmp_path):
    """Hash, rows, index and what is read back equal those of a corpus made in memory."""
    streamed = build(asked(files, folds=3))
    tables = [t.to_list() for t in (streamed.rows, streamed.test, streamed.pool)]
    held = corpus_of_rows(tables[0], {}, tables[1], tables[2])
    assert held.content_hash == streamed.content_hash
    assert [t.to_list() for t in (held.rows, held.test, held.pool)] == tables
    assert held.index.group.tolist() == streamed.index.group.tolist()
    with store.atomic_folder(tmp_path / "data", streamed.meta) as new:
        streamed.save(new)
    place = streamed.place
    del streamed
    assert not place.exists()  # removed with the corpus
    back = ParallelCorpus.load(tmp_path / "data")
    assert [t.to_list() for t in (back.rows, back.test, back.pool)] == tables
    assert back.content_hash == held.content_hash
    for ours, theirs in zip(back.index.negatives, held.index.negatives, strict=True):
        assert ours.tolist() == theirs.tolist()


def test_texts_come_from_memory_and_from_files_alike(files, monkeypatch):
    """Each of them once or more, empty ones never; of many rows a tokenizer sees a fixed share."""
    streamed = build(asked(files))
    held = corpus_of_rows(streamed.rows.to_list(), {})
    rows = streamed.rows.to_list()
    texts = {row[side] for row in rows for side in ("question", "passage")} - {""}
    for corpus in (streamed, held):
        assert set(corpus.every_text()) == texts and tokenizer_texts(corpus) == sorted(texts)
    monkeypatch.setattr("lib.training.tokenizer.TOKENIZER_ROWS", 10)
    few = tokenizer_texts(streamed)
    assert few == tokenizer_texts(held) and 0 < len(few) < len(texts)


@pytest.mark.parametrize(
    "changes, message",
    [
        ([{}, {}], "pair b: two rows in en, expected one"),
        ([{}, {"pair": "a"}], "pair a: its row in en is out of order"),
        ([{}, {"language": "fr", "passage_id": "y"}], "pair b: two passage_ids"),
        ([{}, {"pair": "c", "group": "h"}], "passage x: lies in two groups"),
        ([], "no training rows"),
    ],
)
def test_streamed_rows_are_held_to_the_contract(tmp_path, changes, message):
    """As those in memory are, and to their order."""
    row = {"pair": "b", "language": "en", "question": "q", "passage": "p", "passage_id": "x"}
    row |= {"group": "g", "source": "test"}
    refused(
        lambda: corpus_of_sorted([row | change for change in changes], {}, tmp_path),
        message,
    )


# --- faults ------------------------------------------------------------------------------------


def edit(folder, name, change):
    """Change a file's bytes; returns its path as messages name it."""
    file = folder / name
    file.write_bytes(change(file.read_bytes()))
    return f"{folder}/{name}"


DE_QUESTIONS, DE_PASSAGES = (
    form.format("german") for form in (mmarco.QUESTIONS, mmarco.COLLECTION)
)
FAULTS = {
    "cut row": (DE_PASSAGES, lambda raw: raw[: raw.rindex(b"\t")], ["row 25", "expected an id"]),
    "three columns": (DE_QUESTIONS, lambda raw: b"1\ta\tb\n" + raw, ["row 1", "by a tab"]),
    "no id": (DE_QUESTIONS, lambda raw: b"x1\ta\n" + raw, ["row 1", "'x1"]),
    "huge id": (DE_PASSAGES, lambda raw: b"2147483648\ta\n" + raw, ["row 1", "expected an id"]),
    "bytes": (DE_PASSAGES, lambda raw: raw.replace(b"1002.", b"\xe9"), ["row 2", "not UTF-8"]),
    "question twice": (DE_QUESTIONS, lambda raw: raw + b"3\tx\n", ["row 8", "id 3 is there twice"]),
    "passage twice": (DE_PASSAGES, lambda raw: raw + b"1003\tx\n", ["row 26", "1003 is there tw"]),
    "two ids": (mmarco.TRIPLES, lambda raw: raw + b"1\t1001\n", ["row 19", "expected three ids"]),
    "four ids": (mmarco.TRIPLES, lambda raw: b"1\t2\t3\t4\n" + raw, ["row 1", "three ids"]),
    "a word": (mmarco.TRIPLES, lambda raw: raw + b"1\t1001\tx\n1\n", ["row 19", "three ids"]),
    "no value": (mmarco.TRIPLES, lambda raw: raw + b"1\t\t4\n", ["row 19", "three ids"]),
    "below 0": (mmarco.TRIPLES, lambda raw: raw + b"1\t-5\t4\n", ["row 19", "three ids"]),
    "empty line": (mmarco.TRIPLES, lambda raw: raw + b"\n", ["row 19", "three ids"]),
    "ids' bytes": (mmarco.TRIPLES, lambda raw: raw + b"1\t2\t\xff\n", ["row 19", "not UTF-8"]),
    "no triples": (mmarco.TRIPLES, lambda raw: b"", ["has no rows"]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_name_file_and_row(files, outputs, fault):
    """One line; and nothing half-written stays."""
    name, change, parts = FAULTS[fault]
    file = edit(files, name, change)
    refused(lambda: build(asked(files)), file, *parts)


@pytest.mark.parametrize(
    "triple, kind",
    [
        ("77\t1001\t5004\n", "questions"),
        ("1\t77\t5004\n7\t77\t5004\n", "passages"),
        ("7\t1002\t77\n", "passages"),
    ],
)
def test_ids_that_a_file_lacks_are_counted(files, triple, kind, capsys):
    """Said with the first triple, and kept with the corpus; what needs them is left out."""
    for name in LANGUAGES:
        edit(files, mmarco.QUESTIONS.format(name), lambda raw: raw + b"7\tseven\n")
    row = 19 if triple.startswith("7") else 20
    if row == 20:  # a new question, since the first relevant passage counts
        triple = "7\t1001\t5004\n" + triple.replace("1\t77", "8\t77").replace("7\t77", "8\t77")
        for name in LANGUAGES:
            edit(files, mmarco.QUESTIONS.format(name), lambda raw: raw + b"8\teight\n")
    triples = edit(files, mmarco.TRIPLES, lambda raw: raw + triple.encode())
    corpus = build(asked(files))
    named = [f"{kind} of the triples that the file of {x} lacks" for x in ("de", "en", "nl")]
    assert corpus.meta["unused"] == dict.fromkeys(named, 1)
    assert f"mmarco: 1 {named[0]} (first: {triples}: row {row})" in capsys.readouterr().out
    assert not {"8", "77"} & {*corpus.rows["pair"][:]}


def test_a_file_that_lacks_everything_is_refused(files):
    """It is another collection's."""
    file = edit(files, mmarco.COLLECTION.format("german"), lambda raw: b"99999\tnothing\n")
    refused(lambda: build(asked(files)), file, "row ", "has no passage", "nor any other")


@pytest.mark.parametrize("name", [mmarco.TRIPLES, DE_QUESTIONS, DE_PASSAGES])
def test_a_missing_file_is_named(files, name):
    """Also one of a language that nobody asked for by name but that is there by half."""
    (files / name).unlink()
    refused(lambda: build(asked(files)), f"{files}/{name}: no such file")


def test_languages_without_files_are_named(files, tmp_path):
    """One that mMARCO does not have, one that the folder does not have, and an empty folder."""
    refused(lambda: build(asked(files, languages=["en", "th"])), "mMARCO has no th", "vi")
    refused(lambda: build(asked(files, languages=["en", "fr"])), "french", "no such file")
    refused(lambda: build(asked(files, languages=["en"])), "at least two")
    refused(lambda: build(asked(tmp_path / "no")), "at least two", "no has: none")


def test_a_language_without_pairs_is_named(files):
    """With what became of its rows."""
    edit(files, DE_QUESTIONS, lambda raw: b"".join(b"%d\t\n" % q for q in range(1, 7)))
    refused(lambda: build(asked(files)), "language de", "german", "6 empty")


def test_files_come_from_the_pinned_revision(files, monkeypatch):
    """Without a folder each file is asked for by name; all languages where none are named."""
    from lib.sources import downloads

    calls = []

    def hub(repository, name, revision, kind):
        calls.append((repository, revision, kind))
        return files / name

    monkeypatch.setattr(downloads, "hub", hub)
    corpus = build(asked("", languages=["de", "nl"]))
    assert set(calls) == {("unicamp-dl/mmarco", mmarco.REVISION, "dataset")}
    assert len(calls) == 6 and mmarco.REVISION[:12] in corpus.meta["version"]
    assert len(mmarco.NAMES) == 14 and len(mmarco.REVISION) == 40


# --- memory ------------------------------------------------------------------------------------


def test_collections_are_never_in_memory(tmp_path):
    """Ten times the passages, as many of them needed: the peak moves by far less than the files
    grow (speed/mmarco.py does this at 2 million passages)."""
    peaks, sizes, languages = [], [], ["de", "en"]
    for passages in (10_000, 100_000):
        folder = tmp_path / str(passages)
        generate(folder, passages, 500, languages)
        sizes.append(sum(f.stat().st_size for f in folder.rglob("*.tsv")) / 2**20)
        peaks.append(measured(folder, languages, 0)["peak_mib"])
    assert sizes[1] - sizes[0] > 60
    assert peaks[1] - peaks[0] < 0.3 * (sizes[1] - sizes[0])
