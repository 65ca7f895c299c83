"""Benchmarks from files: BEIR folders, Tatoeba, questions in many languages over one collection.

Every file here is made by its test, in the published format. Tatoeba itself is checked where it is
at hand (a folder beside the project); its scores are checked against mteb's own evaluator.
"""

import gzip
import json
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import benchmarks, metrics, search
from lib.benchmarks import Task, beir, collection, references, tatoeba
from lib.params import BenchmarkSpec

TATOEBA = Path(__file__).parents[2] / "shared" / "data" / "tatoeba"
needs_tatoeba = pytest.mark.skipif(not TATOEBA.is_dir(), reason=f"Tatoeba is not in {TATOEBA}")


def asked(folder, *languages, split=""):
    """What lib.params says of a benchmark."""
    return SimpleNamespace(
        format="", folder=str(folder), languages=[*languages], candidate="sentence", split=split
    )


def put(path, content):
    """Write text or bytes, as gzip where the name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)


def put_jsonl(path, rows):
    put(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def tsv(*rows):
    return "".join("\t".join(row) + "\n" for row in rows)


def put_tsv(path, *rows):
    put(path, tsv(*rows))


def refused(call, *parts):
    """`call` raises a ValueError of one line that holds all parts."""
    with pytest.raises(ValueError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, message


def relevant(benchmark):
    """{(question id, its language, candidate id, its language): grade}."""
    ask, pool = benchmark.questions, benchmark.candidates
    pairs = zip(benchmark.question, benchmark.candidate, benchmark.grade, strict=True)
    return {
        (ask.question_id[q], ask.language[q], pool.candidate_id[c], pool.language[c]): float(grade)
        for q, c, grade in pairs
    }


# --- BEIR --------------------------------------------------------------------------------------

CORPUS = [
    {"_id": "d1", "title": "Tea", "text": "is a drink", "metadata": {}},
    {"_id": "d2", "title": "", "text": "no title"},
    {"_id": "d3", "text": ""},
    {"_id": "4", "title": "Only a title", "text": None},
]
QUERIES = [{"_id": f"q{i}", "text": f"question {i}", "metadata": {}} for i in range(5)]
HEADER = ("query-id", "corpus-id", "score")
QRELS = [row.split() for row in ("q3 d2 1", "q3 4 2", "q1 d1 1", "q1 d2 0", "q4 d1 -1")]


def put_beir(folder, corpus=CORPUS, queries=QUERIES, qrels=QRELS, split="test", packed=""):
    put_jsonl(folder / f"corpus.jsonl{packed}", corpus)
    put_jsonl(folder / f"queries.jsonl{packed}", queries)
    put_tsv(folder / "qrels" / f"{split}.tsv", HEADER, *qrels)
    return folder


@pytest.mark.parametrize("packed", ["", ".gz"])
def test_beir_folder(tmp_path, packed, capsys):
    """Titles join texts, grades stay, questions without a relevant document go and are counted."""
    found = beir.load_benchmark("nano", asked(put_beir(tmp_path, packed=packed)))
    assert found.name == "nano" and found.languages == ("en",)
    assert found.candidates.candidate_id.tolist() == ["d1", "d2", "d3", "4"]
    assert found.candidates.text.tolist() == ["Tea is a drink", "no title", "", "Only a title"]
    assert found.questions.text.tolist() == ["question 1", "question 3"]
    assert found.questions.group.tolist() == ["q1", "q3"]
    assert relevant(found) == {
        ("q1", "en", "d1", "en"): 1,
        ("q3", "en", "d2", "en"): 1,
        ("q3", "en", "4", "en"): 2,
    }
    told = capsys.readouterr().out
    assert "2 questions; left out: 2 not judged, 1 judged without a relevant document" in told


def test_beir_figures_by_hand(tmp_path):
    """nDCG@10 and R@100 of a graded question from a score matrix: gains 1 and 2 at ranks 1, 3."""
    found = beir.load_benchmark("nano", asked(put_beir(tmp_path)))
    scores = np.array([[9, 8, 7, 6], [1, 9, 8, 7]])
    table = metrics.question_scores(found, search.relevant_ranks([(0, scores)], found))
    mono = table[table["setting"] == "mono"].set_index("question")
    expected = (1 / np.log2(2) + 2 / np.log2(4)) / (2 / np.log2(2) + 1 / np.log2(3))
    assert mono.ndcg10[1] == pytest.approx(expected) and mono.ndcg10[0] == 1
    assert mono.r100.tolist() == [1, 1] and mono.ap[1] == pytest.approx((1 + 2 / 3) / 2)


def test_beir_counts_what_published_files_lack(tmp_path, capsys):
    """Judgements of absent documents and questions, an empty question that nothing judges, a row
    twice, documents without any text: said with their first place, kept in `unused`."""
    corpus, queries = [*CORPUS, CORPUS[0]], [*QUERIES, {"_id": "q9", "text": " \x07"}]
    qrels = [*QRELS, ("q1", "d7", "1"), ("q7", "d1", "1"), ("q1", "d8", "0")]
    put_beir(tmp_path, corpus, queries, qrels)
    found = beir.load_benchmark("nano", asked(tmp_path))
    whole = beir.load_benchmark("nano", asked(put_beir(tmp_path / "whole")))
    assert relevant(found) == relevant(whole) and found.digest == whole.digest
    assert whole.unused == {"documents without text": 1}
    assert found.unused == whole.unused | {
        "documents given twice": 1,
        "questions without text": 1,
        "judgements of documents that are not there": 2,
        "judgements of questions that are not there": 1,
    }
    told = capsys.readouterr().out
    place = f"{tmp_path}/qrels/test.tsv: row 7"
    assert f"nano: 2 judgements of documents that are not there (first: {place})" in told
    put_beir(tmp_path, qrels=[("q1", "d7", "1")])
    refused(lambda: beir.load_benchmark("nano", asked(tmp_path)), "no question of language en")


def test_ids_are_one_spelling(tmp_path):
    """Files that write an id in two Unicode forms name one thing; two ids that are one are not."""
    composed, apart = "caf\u00e9", "cafe\u0301"
    put_beir(tmp_path, [{"_id": composed, "text": "a"}], QUERIES, [("q1", apart, "1")])
    found = beir.load_benchmark("nano", asked(tmp_path))
    assert relevant(found) == {("q1", "en", composed, "en"): 1}
    both = [{"_id": composed, "text": "a"}, {"_id": apart, "text": "b"}]
    put_beir(tmp_path, both, QUERIES, [("q1", apart, "1")])
    refused(lambda: beir.load_benchmark("nano", asked(tmp_path)), "corpus.jsonl: row 2", composed)


def test_texts_go_through_the_hygiene_of_training_pairs(tmp_path):
    """Whatever the format: composed, without controls and halves of surrogate pairs."""
    dirty = " Cafe\u0301\t\ud83d\x00noir\ufeff"
    put(tmp_path / "queries.jsonl", json.dumps({"_id": "q1", "text": dirty}))
    put(tmp_path / "corpus.jsonl", json.dumps({"_id": "d1", "text": dirty}))
    put_tsv(tmp_path / "qrels" / "test.tsv", HEADER, ("q1", "d1", "1"))
    spec = BenchmarkSpec(format="beir", folder=str(tmp_path))
    found = benchmarks.load_benchmark("x", spec, None)
    assert found.questions.text.tolist() == found.candidates.text.tolist() == ["Caf\u00e9 noir"]
    assert len(found.digest) == 40

    put_pair(tmp_path, "deu", ["Cafe\u0301 \x00 noir"], ["a  b"])
    seen = []

    def encode(texts, kind):
        seen.extend(texts)
        return np.eye(len(texts))

    spec = BenchmarkSpec(format="tatoeba", folder=str(tmp_path))
    benchmarks.evaluate(Task("t", spec, encode, "", Path()))
    assert seen == ["Caf\u00e9 noir", "a b"]


def test_beir_split_and_language(tmp_path):
    """Another split has its own judgements; the one language may be any code."""
    put_beir(tmp_path)
    put_beir(tmp_path, qrels=[("q0", "d3", "1")], split="dev")
    found = beir.load_benchmark("nano", asked(tmp_path, "pol", split="dev"))
    assert relevant(found) == {("q0", "pl", "d3", "pl"): 1}
    refused(
        lambda: beir.load_benchmark("nano", asked(tmp_path, split="train")),
        "train.tsv: no such file",
    )


def test_beir_translations_are_relevant_in_every_language(tmp_path, capsys):
    """The same ids and judgements in all languages, in any order: one set, translated."""
    put_beir(tmp_path / "de", packed=".gz")
    put_beir(tmp_path / "eng", corpus=CORPUS[::-1], qrels=QRELS[::-1])
    put(tmp_path / "notes" / "README", "not a language")
    found = beir.load_benchmark("nano", asked(tmp_path))
    both = ("de", "en")
    assert relevant(found) == {
        (q, asking, d, answering): grade
        for q, d, grade in [("q1", "d1", 1), ("q3", "d2", 1), ("q3", "4", 2)]
        for asking in both
        for answering in both
    }
    assert found.questions.group.tolist() == ["q1", "q3"] * 2
    assert "relevant in every language" in capsys.readouterr().out


@pytest.mark.parametrize("differs", ["qrels", "corpus", "queries"])
def test_beir_sets_of_their_own_are_relevant_within_a_language(tmp_path, differs, capsys):
    """Ids that merely look alike say nothing: any difference, and no relevance across."""
    other = {
        "qrels": {"qrels": [("q1", "d2", "1")]},
        "corpus": {"corpus": [*CORPUS, {"_id": "d9", "text": "x"}], "qrels": QRELS},
        "queries": {"queries": [*QUERIES, {"_id": "q9", "text": "x"}], "qrels": QRELS},
    }[differs]
    put_beir(tmp_path / "de")
    put_beir(tmp_path / "en", **other)
    put_beir(tmp_path / "fr")
    found = beir.load_benchmark("nano", asked(tmp_path, "en", "de"))
    expected = {
        ("q1", "de", "d1", "de"): 1,
        ("q3", "de", "d2", "de"): 1,
        ("q3", "de", "4", "de"): 2,
    }
    english = {"qrels": {("q1", "en", "d2", "en"): 1}}.get(
        differs, {(q, "en", d, "en"): grade for (q, _, d, _), grade in expected.items()}
    )
    assert relevant(found) == expected | english
    assert found.questions.group.is_unique
    assert "relevant in its own language only" in capsys.readouterr().out


def test_beir_one_subfolder(tmp_path, capsys):
    """One language of a multilingual set is a set of one language; a missing one is named."""
    put_beir(tmp_path / "de")
    put_beir(tmp_path / "fr")
    found = beir.load_benchmark("nano", asked(tmp_path, "de"))
    assert found.languages == ("de",) and len(found.questions) == 2
    refused(
        lambda: beir.load_benchmark("nano", asked(tmp_path, "it")),
        str(tmp_path),
        "no file of language it",
    )
    put(tmp_path / "it" / "queries.jsonl", "")
    beir.load_benchmark("nano", asked(tmp_path))
    assert f"{tmp_path}/it: holds no corpus.jsonl and is left out" in capsys.readouterr().out
    put_beir(tmp_path / "xx9")
    refused(
        lambda: beir.load_benchmark("nano", asked(tmp_path)),
        str(tmp_path),
        "unknown language 'xx9'",
    )


def test_beir_tells_of_questions_that_are_documents(tmp_path, capsys):
    """As in ArguAna, where published figures leave such a document out."""
    queries = [*QUERIES, {"_id": "d3", "text": "x"}]
    put_beir(tmp_path, queries=queries, qrels=[*QRELS, ("d3", "d1", "1")])
    beir.load_benchmark("nano", asked(tmp_path))
    assert "1 questions have the id of a document" in capsys.readouterr().out


PACKED = gzip.compress(
    "".join(f'{{"_id": "{i * 7919}", "id": {i}, "text": "{i}"}}\n' for i in range(3000)).encode()
)
BAD_BEIR = {
    "truncated": ("corpus.jsonl.gz", PACKED[:-3000], ["row ", "damaged or end early"]),
    "broken": ("corpus.jsonl", '{"_id": "d1", "text": "a"}\n{"_id":\n', ["row 2", "broken JSON"]),
    "not utf-8": ("queries.jsonl", b'{"_id": "q1", "text": "\xe9"}\n', ["row 1", "not UTF-8"]),
    "twice": (
        "queries.jsonl",
        '{"_id": "q1", "text": "a"}\n{"_id": "q1", "text": "b"}\n',
        ["row 2", "'q1'", "earlier", "another text"],
    ),
    "no id": ("corpus.jsonl", '{"id": "d1", "text": "a"}\n', ["row 1", "no column '_id'"]),
    "number": ("corpus.jsonl", '{"_id": "d1", "text": 5}\n', ["row 1", "text is 5"]),
    "blank": ("queries.jsonl", '{"_id": "q1", "text": " "}\n', ["row 1", "text is empty"]),
    "nothing": ("queries.jsonl", "\n", ["has no rows"]),
    "header": ("qrels/test.tsv", "q1\td1\t1\nq3\td2\t1\n", ["row 2", "no column 'query-id'"]),
    "grade": ("qrels/test.tsv", tsv(HEADER, "q1 d1 yes".split()), ["row 2", "score is 'yes'"]),
    "nan": ("qrels/test.tsv", tsv(HEADER, "q1 d1 nan".split()), ["row 2", "score is 'nan'"]),
    "fields": ("qrels/test.tsv", tsv(HEADER, "q1 d1".split()), ["row 2", "2 fields"]),
    "contradiction": (
        "qrels/test.tsv",
        tsv(HEADER, "q1 d1 1".split(), "q1 d1 1".split(), "q1 d1 2".split()),
        ["row 4", "score 2", "was 1"],
    ),
    "irrelevant": (
        "qrels/test.tsv",
        tsv(HEADER, "q1 d1 0".split()),
        ["no question of language en"],
    ),
}


@pytest.mark.parametrize("case", BAD_BEIR)
def test_beir_faults_name_file_and_row(tmp_path, case):
    """Each in one line."""
    file, content, parts = BAD_BEIR[case]
    put_beir(tmp_path)
    (tmp_path / file.removesuffix(".gz")).unlink()
    (tmp_path / file).write_bytes(content.encode() if isinstance(content, str) else content)
    where = "split test" if case == "irrelevant" else str(tmp_path / file)
    refused(lambda: beir.load_benchmark("nano", asked(tmp_path)), where, *parts)


@pytest.mark.parametrize("file", ["queries.jsonl", "qrels/test.tsv"])
def test_beir_missing_files(tmp_path, file):
    """A missing file is named as it was asked for."""
    put_beir(tmp_path)
    (tmp_path / file).unlink()
    refused(
        lambda: beir.load_benchmark("nano", asked(tmp_path)), f"{tmp_path / file}: no such file"
    )


def test_folders_must_be_named_and_exist(tmp_path):
    """For every format: an empty name is not the project's root, nor is another file a folder."""
    for read in (
        lambda spec: beir.load_benchmark("x", spec),
        lambda spec: collection.load_benchmark("x", spec),
        lambda spec: list(tatoeba.pairs(spec)),
    ):
        refused(lambda read=read: read(asked("")), "folder: is empty")
        refused(
            lambda read=read: read(asked(tmp_path / "no")), f"{tmp_path / 'no'}: no such folder"
        )
        refused(lambda read=read: read(asked(tmp_path)), str(tmp_path), "holds")


# --- Tatoeba -----------------------------------------------------------------------------------


def put_pair(folder, name, sources, english):
    put(folder / f"tatoeba.{name}-eng.{name}", "".join(f"{text}\n" for text in sources))
    put(folder / f"tatoeba.{name}-eng.eng", "".join(f"{text}\n" for text in english))


@pytest.fixture
def small(tmp_path):
    """Four pairs in LASER's layout: a usual language, one that CLDR lacks, two of one code."""
    put_pair(tmp_path, "cmn", ["一", "二"], ["one", "two"])
    put_pair(tmp_path, "ber", ["a"], ["A"])
    put_pair(tmp_path, "dtp", ["b"], ["B"])
    put_pair(tmp_path, "kzj", ["c"], ["C"])
    put(tmp_path / "README.md", "Tatoeba")
    return tmp_path


def test_tatoeba_pairs_by_name_or_code(small):
    """A Tatoeba name is itself, a code is every pair that has it (`dtp` is both); none is all."""
    names = lambda *languages: [name for name, *_ in tatoeba.pairs(asked(small, *languages))]  # noqa: E731
    assert names() == ["ber", "cmn", "dtp", "kzj"]
    assert names("zh", "ber") == ["ber", "cmn"] and names("cmn", "zh") == ["cmn"]
    assert names("dtp") == ["dtp", "kzj"] and names("kzj") == ["kzj"]
    refused(lambda: names("fr"), str(small), "'fr'", "ber cmn dtp kzj")
    refused(lambda: names("xx9"), str(small), "'xx9'")  # not one with `ber`, which has no code
    assert next(tatoeba.pairs(asked(small, "zh"))) == ("cmn", ["一", "二"], ["one", "two"])


def test_tatoeba_table(small):
    """One row a language and direction, with Tatoeba's name beside the code; both sides are
    encoded alike."""
    vectors = {"一": [1, 0], "二": [1, 0.1], "one": [1, 0], "two": [0, 1]}
    kinds = []

    def encode(texts, kind):
        kinds.append(kind)
        return np.array([vectors.get(text, [1, 1]) for text in texts], np.float32)

    table = tatoeba.evaluate(Task("t", asked(small), encode, "", Path()))
    assert list(table) == ["name", "language", "direction", "sentences", "accuracy", "f1"]
    assert table.name.tolist()[::2] == ["ber", "cmn", "dtp", "kzj"]
    assert table.language.tolist()[::2] == ["", "zh", "dtp", "dtp"]
    assert table.direction.tolist()[:2] == ["to_en", "from_en"] and {*kinds} == {"question"}
    chinese = table[table.name == "cmn"].set_index("direction")
    # 一 and 二 are both nearest to "one": half right; "one", found but asked twice: 2/3, "two": 0.
    assert chinese.accuracy.to_dict() == {"to_en": 0.5, "from_en": 1}
    assert chinese.f1["to_en"] == pytest.approx(1 / 3) and chinese.f1["from_en"] == 1
    assert chinese.sentences.tolist() == [2, 2]


def test_tatoeba_ties_are_wrong():
    """Two targets with one vector: neither is nearest alone, whichever comes first."""
    sources, targets = np.eye(3), np.eye(3)[[0, 0, 2]]
    there, back = tatoeba.score(sources, targets)
    # Source 0 has two equal best targets; source 1 has three of score 0, source 2 is right.
    assert there == tatoeba.Score(1 / 3, 1 / 3)
    # Both of the first targets choose source 0, of which one is right.
    assert back.accuracy == pytest.approx(2 / 3) and back.f1 == pytest.approx((2 / 3 + 0 + 1) / 3)
    same = np.ones((4, 2))
    assert tatoeba.score(same, same) == (tatoeba.Score(0, 0), tatoeba.Score(0, 0))


def slow(scores):
    """Accuracy and scikit-learn's weighted F1 by the definitions, loop by loop."""
    answers = []
    for row in scores:
        best = [j for j, score in enumerate(row) if score == max(row)]
        answers.append(best[0] if len(best) == 1 else None)
    total = 0.0
    for label in range(len(scores)):
        true = sum(i == label and answer == label for i, answer in enumerate(answers))
        false = sum(i != label and answer == label for i, answer in enumerate(answers))
        total += 2 * true / (2 * true + false + (1 - true))
    right = sum(i == answer for i, answer in enumerate(answers))
    return right / len(scores), total / len(scores)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 7), st.integers(0, 10**6))
def test_tatoeba_scores_match_the_definitions(size, seed):
    """Few distinct vectors, hence many ties; order of the sentences plays no part."""
    rng = np.random.default_rng(seed)
    sources, targets = rng.integers(-1, 2, (2, size, 3)) + [0.0, 0.0, 1.5]
    scores = np.concatenate([tile for _, tile in search.tiles(sources, targets)])
    found = tatoeba.score(sources, targets)
    for one, expected in zip(found, (slow(scores), slow(scores.T)), strict=True):
        assert (one.accuracy, one.f1) == pytest.approx(expected)
    shuffled = rng.permutation(size)
    assert [(x.accuracy, pytest.approx(x.f1)) for x in found] == [
        (x.accuracy, x.f1) for x in tatoeba.score(sources[shuffled], targets[shuffled])
    ]


def test_tatoeba_agrees_with_mteb():
    """The same vectors through mteb's own Tatoeba task, without ties: its accuracy and F1."""
    mteb = pytest.importorskip("mteb", reason="mteb is not installed")
    from datasets import Dataset

    size, rng = 200, np.random.default_rng(3)
    sources = rng.normal(size=(size, 16)).astype(np.float32)
    targets = (sources + rng.normal(size=sources.shape)).astype(np.float32)
    sides = [f"s{i}" for i in range(size)], [f"t{i}" for i in range(size)]
    table = dict(zip(sides[0] + sides[1], np.concatenate([sources, targets]), strict=True))

    class Given(mteb.models.abs_encoder.AbsEncoder):
        """Looks vectors up."""

        mteb_model_meta = mteb.models.ModelMeta.create_empty({"name": "test/given"})

        def __init__(self):
            pass

        def encode(self, inputs, **kwargs):
            return np.stack([table[text] for batch in inputs for text in batch["text"]])

        def similarity(self, one, other):
            one, other = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (one, other))
            return one @ other.T

    task = mteb.get_task("Tatoeba", languages=["deu"])
    for found, order in zip(tatoeba.score(sources, targets), (1, -1), strict=True):
        columns = dict(zip(("sentence1", "sentence2"), sides[::order], strict=True))
        task.dataset = {"deu-eng": {"test": Dataset.from_dict(columns)}}
        task.data_loaded = True
        theirs = task.evaluate(Given(), subsets_to_run=["deu-eng"], encode_kwargs={})["deu-eng"]
        assert 0.2 < found.accuracy < 0.9  # neither nothing nor everything is found
        assert found.accuracy == pytest.approx(theirs["accuracy"], abs=1e-12)
        assert found.f1 == pytest.approx(theirs["f1"], abs=1e-12)


def test_tatoeba_faults(small):
    """Missing side, sides of different length, empty lines, other encodings, other numbers."""
    read = lambda: list(tatoeba.pairs(asked(small, "cmn")))  # noqa: E731
    english = small / "tatoeba.cmn-eng.eng"
    put(english, "one\n")
    refused(read, "tatoeba.cmn-eng.cmn has 2 lines", "tatoeba.cmn-eng.eng 1")
    put(english, "one\n \n")
    assert read() == [("cmn", ["一"], ["one"])]
    put(english, b"one\ntw\xf6\n")
    refused(read, f"{english}: row 2: is not UTF-8")
    put(english, " \n\n")
    refused(read, "tatoeba.cmn-eng.cmn: has no sentences")
    english.unlink()
    refused(read, f"{english}: no such file")
    refused(lambda: tatoeba.score(np.ones((2, 3)), np.ones((3, 3))), "2 source and 3 target")
    refused(lambda: tatoeba.score(np.ones((0, 3)), np.ones((0, 3))), "at least one")


@needs_tatoeba
def test_the_published_tatoeba():
    """112 languages of up to 1,000 sentences; no file has a line twice, so index equality is fair;
    only `ber` has no code and only dtp and kzj share one."""
    sizes, codes = {}, {}
    for name, sources, targets in tatoeba.pairs(asked(TATOEBA)):
        sizes[name] = len(sources)
        codes.setdefault(tatoeba.code(name), []).append(name)
        assert len({*sources}) == len(sources) and len({*targets}) == len(targets)
    assert len(sizes) == 112 and max(sizes.values()) == 1000 and min(sizes.values()) == 104
    assert {code: names for code, names in codes.items() if len(names) > 1 or not code} == {
        "": ["ber"],
        "dtp": ["dtp", "kzj"],
    }


@needs_tatoeba
def test_spelling_alone_finds_near_languages():
    """Hashed character trigrams, no encoder: better at Interlingua than at Chinese, by far."""

    def encode(texts, kind):
        vectors = np.zeros((len(texts), 512), np.float32)
        for row, text in enumerate(texts):
            for gram in references.char_ngrams(text):
                vectors[row, zlib.crc32(gram.encode()) % 512] += 1
        return vectors + 1e-3

    table = tatoeba.evaluate(Task("t", asked(TATOEBA, "ia", "zh"), encode, "", Path())).set_index(
        ["language", "direction"]
    )
    assert table.sentences.tolist() == [1000] * 4
    assert table.accuracy["ia", "to_en"] > 0.2 > 0.05 > table.accuracy["zh", "to_en"]
    assert (table.f1 <= table.accuracy).all()


# --- one collection ----------------------------------------------------------------------------

ASKED = [
    {"id": 1, "language": "en", "question": "who?"},
    {"id": 1, "language": "deu", "question": "wer?"},
    {"id": 1, "language": "zh_tw", "question": "誰?"},
    {"id": 2, "language": "en", "question": "when?"},
    {"id": 2, "language": "de", "question": "wann?"},
    {"id": 2, "language": "zh_tw", "question": "何時?"},
    {"id": 3, "language": "en", "question": "why?"},
]
PASSAGES = [
    {"id": "p1", "title": "Her", "text": "she"},
    {"id": "p2", "text": "now"},
    {"id": "p3", "text": "he", "language": None},
]
GRADES = [row.split() for row in ("question_id passage_id grade", "1 p3 1", "1 p1 2", "2 p2 1")]


def put_collection(folder, questions="questions.jsonl", rows=ASKED):
    put_jsonl(folder / questions, rows)
    put_jsonl(folder / "passages.jsonl.gz", PASSAGES)
    put_tsv(folder / "qrels.tsv", *GRADES)
    return folder


def expected(*languages):
    judged = [("1", "p1", 2), ("1", "p3", 1), ("2", "p2", 1)]
    return {(q, x, p, "en"): grade for x in languages for q, p, grade in judged}


def test_collection(tmp_path, capsys):
    """Translations share judgements and group; the pool is the one collection, in English."""
    found = collection.load_benchmark("nq", asked(put_collection(tmp_path)))
    assert relevant(found) == expected("en", "de", "zh-Hant")
    assert found.candidates.language.tolist() == ["en"] * 3
    assert found.candidates.text.tolist() == ["Her she", "now", "he"]
    assert found.questions.group.tolist() == found.questions.question_id.tolist()
    assert "6 questions; left out: 1 not judged, 0 judged" in capsys.readouterr().out


def test_collection_settings(tmp_path):
    """mono is English, cross the other languages over the same pool, and multi ranks no others."""
    found = collection.load_benchmark("nq", asked(put_collection(tmp_path), "en", "de"))
    assert relevant(found) == expected("en", "de")
    tile = np.array([[9, 5, 8], [5, 9, 8], [9, 5, 8], [8, 9, 5]])
    order = [("1", "en"), ("1", "de"), ("2", "en"), ("2", "de")]
    assert list(zip(found.questions.question_id, found.questions.language, strict=True)) == order
    table = metrics.question_scores(found, search.relevant_ranks([(0, tile)], found))
    means = table.groupby(["setting", "question_language"], observed=True).ap.mean()
    mono, cross = (1 + 1 / 3) / 2, ((1 / 2 + 2 / 3) / 2 + 1) / 2
    assert means["mono"].to_dict() == pytest.approx({"en": mono})
    assert means["cross"].to_dict() == pytest.approx({"de": cross})
    assert means["multi"].to_dict() == pytest.approx({"en": mono, "de": cross})


def test_collection_one_file_a_language(tmp_path):
    """The name says the language; judgements may name questions of languages not asked for."""
    put_collection(tmp_path, "questions.zh_tw.jsonl.gz", [ASKED[2]])
    put_jsonl(tmp_path / "questions.en.jsonl", [ASKED[0], ASKED[3]])
    found = collection.load_benchmark("nq", asked(tmp_path))
    assert {(q, x) for q, x, _, _ in relevant(found)} == {
        ("1", "en"),
        ("2", "en"),
        ("1", "zh-Hant"),
    }
    chinese = collection.load_benchmark("nq", asked(tmp_path, "zh-TW"))
    assert {(q, x) for q, x, _, _ in relevant(chinese)} == {("1", "zh-Hant")}
    refused(
        lambda: collection.load_benchmark("nq", asked(tmp_path, "fr")),
        "nq: has no questions of language fr (there are: en zh-Hant)",
    )


MKQA = [
    {
        "example_id": number,
        "query": english,
        "queries": {"en": english, "zh_cn": chinese, "zh_hk": chinese, "no": english + "!"},
        "answers": {"en": [{"type": "date", "entity": None, "text": "2007", "aliases": []}]},
    }
    for number, english, chinese in [(-56, "who?", "谁"), (563260143484355911, "when?", "何时")]
]


def test_mkqa(tmp_path):
    """MKQA's own lines, joined to a collection by example_id (which is also negative)."""
    put_collection(tmp_path, "mkqa.jsonl.gz", MKQA)
    put_tsv(
        tmp_path / "qrels.tsv", GRADES[0], ("-56", "p1", "1"), ("563260143484355911", "p2", "1")
    )
    found = collection.load_benchmark("mkqa", asked(tmp_path))
    assert found.languages == ("en", "no", "zh", "zh-HK")
    assert relevant(found) == {
        (q, x, p, "en"): 1
        for x in found.languages
        for q, p in [("-56", "p1"), ("563260143484355911", "p2")]
    }
    files = [str(tmp_path / x) for x in ("mkqa.jsonl.gz", "passages.jsonl.gz", "qrels.tsv")]
    chinese = collection.from_mkqa("mkqa", *files, languages=["zh"])
    assert chinese.questions.text.tolist() == ["谁", "何时"]


def test_collection_counts_what_published_files_lack(tmp_path, capsys):
    """An empty question that nothing judges, and judgements of what is not there."""
    rows = [*ASKED, {"id": 4, "language": "de", "question": None}]
    put_collection(tmp_path, rows=rows)
    put_tsv(tmp_path / "qrels.tsv", *GRADES, ("1", "p9", "1"), ("9", "p1", "1"))
    found = collection.load_benchmark("nq", asked(tmp_path))
    assert relevant(found) == expected("en", "de", "zh-Hant")
    assert found.unused == {
        "questions without text": 1,
        "judgements of documents that are not there": 1,
        "judgements of questions that are not there": 1,
    }
    assert f"(first: {tmp_path}/qrels.tsv: row 5)" in capsys.readouterr().out


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


BAD_COLLECTION = {
    "twice": ("questions.jsonl", lines(ASKED[4], *ASKED), ["row 6", "id '2' in de"]),
    "language": ("questions.jsonl", lines(ASKED[0] | {"language": "xx9"}), ["row 1", "'xx9'"]),
    "no language": ("questions.jsonl", lines({"id": 1, "question": "a"}), ["row 1", "'language'"]),
    "empty": (
        "questions.jsonl",
        lines(ASKED[0] | {"question": ""}),
        ["row 1", "question is empty"],
    ),
    "none": ("questions.jsonl", "", ["has no rows"]),
    "not utf-8": ("questions.jsonl", b'{"id": "\xff"}\n', ["row 1", "not UTF-8"]),
    "passage": (
        "passages.jsonl.gz",
        gzip.compress(lines(*PASSAGES, PASSAGES[1] | {"text": "then"}).encode()),
        ["row 4", "'p2'", "another text"],
    ),
    "passage language": (
        "passages.jsonl",
        lines({"id": 1, "text": "", "language": 5}),
        ["row 1", "language is 5"],
    ),
    "truncated": ("passages.jsonl.gz", PACKED[:-3000], ["row ", "damaged or end early"]),
    "broken": ("passages.jsonl", '{"id": "p1"', ["row 1", "broken JSON"]),
    "header": ("qrels.tsv", tsv(HEADER, "1 p1 1".split()), ["row 2", "'question_id'"]),
    "unanswered": ("qrels.tsv", tsv(GRADES[0], "3 p1 1".split()), ["language de has"]),
}


@pytest.mark.parametrize("case", BAD_COLLECTION)
def test_collection_faults_name_file_and_row(tmp_path, case):
    """Each in one line."""
    file, content, parts = BAD_COLLECTION[case]
    put_collection(tmp_path)
    for old in (file, file.removesuffix(".gz"), f"{file}.gz"):
        (tmp_path / old).unlink(missing_ok=True)
    (tmp_path / file).write_bytes(content.encode() if isinstance(content, str) else content)
    refused(lambda: collection.load_benchmark("nq", asked(tmp_path)), str(tmp_path / file), *parts)


def test_mkqa_faults(tmp_path):
    """Rows without queries, or with an empty one, are named."""
    put_collection(tmp_path, "mkqa.jsonl", [MKQA[0], {"example_id": 1}])
    read = lambda: collection.load_benchmark("mkqa", asked(tmp_path))  # noqa: E731
    refused(read, "mkqa.jsonl: row 2", "'queries'")
    put_jsonl(tmp_path / "mkqa.jsonl", [MKQA[0], {"example_id": 1, "queries": {"en": None}}])
    refused(read, "mkqa.jsonl: row 2", "en is empty")
    put_jsonl(tmp_path / "questions.jsonl", ASKED)
    refused(read, str(tmp_path), "holds mkqa.jsonl questions.jsonl", "one of the three")
