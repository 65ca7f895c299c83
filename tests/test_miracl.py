"""MIRACL and search on disk: by hand, against the search in memory, killed, bounded, damaged."""

import gzip
import json
import math
import multiprocessing
import os
import signal
import subprocess
import sys
from dataclasses import replace
from functools import cache
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import metrics, search, store
from lib.benchmark import Benchmark
from lib.benchmarks import Task, miracl, shards

ROOT = Path(__file__).resolve().parent.parent
WIDTH = 6


# --- a small MIRACL ----------------------------------------------------------------------------


def put(folder, language, topics, qrels, docs, split="dev"):
    """The files of one language. topics: id -> text; qrels: rows; docs: a list of passages
    (docid, title, text) for each shard."""
    own, corpus = folder / f"miracl-v1.0-{language}", folder / f"miracl-corpus-v1.0-{language}"
    for kind, rows in ("topics", topics.items()), ("qrels", qrels):
        (own / kind).mkdir(parents=True, exist_ok=True)
        text = "".join("\t".join(map(str, row)) + "\n" for row in rows)
        file = own / kind / f"{kind}.miracl-v1.0-{language}-{split}.tsv"
        file.write_text(text, encoding="utf-8")
    corpus.mkdir(exist_ok=True)
    for number, passages in enumerate(docs):
        put_docs(corpus / f"docs-{number}.jsonl.gz", passages)
    return folder


def put_docs(file, passages):
    """A shard of passages (docid, title, text)."""
    keys = ("docid", "title", "text")
    lines = [json.dumps(dict(zip(keys, x, strict=True)), ensure_ascii=False) for x in passages]
    file.write_bytes(gzip.compress("".join(line + "\n" for line in lines).encode(), 1, mtime=0))


def asked(folder, **others):
    """What a study asks of the benchmark."""
    return SimpleNamespace(**{"folder": str(folder), "languages": [], "split": ""} | others)


def vector(text):
    """A unit vector of small entries that depends on the text alone; scores of texts often tie."""
    entries = [1, *(byte % 3 - 1 for byte in sha256(text.encode()).digest()[: WIDTH - 1])]
    return np.array(entries) / np.linalg.norm(entries)


def encode(texts, kind):
    """float32 [n, WIDTH]; the same text has other vectors as question and as passage."""
    return np.stack([vector(f"{kind} {text}") for text in texts]).astype(np.float32)


def evaluated(source, folder, encode=encode, encoder="toy", at_a_time=3, memory_mib=1.0, **others):
    """Scores, silently."""
    spec = asked(source, **others)
    task = Task("miracl", spec, encode, encoder, folder)
    return miracl.evaluate(task, at_a_time, memory_mib, lambda line: None)


def cut(items, sizes):
    """Consecutive parts of the sizes, then what is left."""
    ends = np.cumsum([0, *sizes, len(items)])
    return [p for p in (items[a:b] for a, b in zip(ends, ends[1:], strict=False)) if p]


def collection(language, size):
    """Passages that say nothing twice but the titles."""
    return [(f"{n // 3}#{n % 3}", f"Title {n // 3}", f"{language} text {n}") for n in range(size)]


def judged(language, questions, size, seed=0):
    """Topics, and qrels with grades 0 to 2 of which each question has one above 0."""
    rng, rows = np.random.default_rng([seed, ord(language[0])]), []
    for question in range(questions):
        chosen = rng.choice(size, 4, replace=False)
        grades = [1, *rng.integers(0, 3, 3)]
        rows += [
            (f"{question}#q", "Q0", f"{n // 3}#{n % 3}", g)
            for n, g in zip(chosen, grades, strict=True)
        ]
    return {f"{n}#q": f"{language} question {n}" for n in range(questions)}, rows


SIZES = {"en": 50, "sw": 23}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Two languages, several shards each."""
    folder = tmp_path_factory.mktemp("miracl")
    for language, size in SIZES.items():
        topics, qrels = judged(language, 8, size)
        put(folder, language, topics, qrels, cut(collection(language, size), [7, 1, 12]))
    return folder


# --- figures -----------------------------------------------------------------------------------


def test_scores_by_hand(tmp_path):
    """Ranks 2 (grade 2) and 3.5 (grade 1, tied with another) of 5; a passage judged 0 is first."""
    angles = {"far": 90, "near": 5, "twin": 30, "mid": 20, "bad": 0}
    angles |= {"Twin copy": 30, "ask me": 0}

    def by_angle(texts, kind):
        radians = np.radians([angles[text] for text in texts])
        return np.stack([np.cos(radians), np.sin(radians)], 1).astype(np.float32)

    passages = [("1#0", "", "far"), ("1#1", "", "near"), ("2#0", "", "twin")]
    more = [("2#1", "Twin", "copy"), ("3#0", "", "bad")]
    qrels = [("7", "Q0", "3#0", 0), ("7", "Q0", "2#1", 1), ("7", "Q0", "1#1", 2)]
    put(tmp_path, "en", {"7": " ask  me"}, qrels, [passages, more])
    row = evaluated(tmp_path, tmp_path / "index", by_angle).iloc[0]
    assert row["ap"] == (1 / 2 + 2 / 3.5) / 2
    assert (row["r1"], row["r10"], row["r100"]) == (0, 1, 1)
    gained, ideal = 2 / math.log2(3) + 1 / math.log2(4.5), 2 + 1 / math.log2(3)
    assert row["ndcg10"] == pytest.approx(gained / ideal, abs=1e-15)
    keys = ["setting", "question_language", "candidate_language", "question_id", "group"]
    assert row[keys].tolist() == ["mono", "en", "en", "7", "en:7"]
    assert row[list(metrics.BIAS)].isna().all()


@cache
def in_memory():
    """The same scores from a Benchmark that holds every passage, with vectors rounded to half."""
    questions, candidates, pairs = [], [], []
    for language, size in SIZES.items():
        topics, qrels = judged(language, 8, size)
        first, start = len(candidates), len(questions)
        questions += [(q, language, text, f"{language}:{q}") for q, text in topics.items()]
        candidates += [(d, language, f"{a} {b}") for d, a, b in collection(language, size)]
        place = {d: first + n for n, (d, _, _) in enumerate(collection(language, size))}
        number = {q: start + n for n, q in enumerate(topics)}
        pairs += [(number[q], place[d], grade) for q, _, d, grade in qrels if grade > 0]
    questions = pd.DataFrame(questions, columns=["question_id", "language", "text", "group"])
    candidates = pd.DataFrame(candidates, columns=["candidate_id", "language", "text"])
    benchmark = Benchmark.from_pairs("miracl", questions, candidates, *zip(*pairs, strict=True))
    half = encode(candidates["text"], "passage").astype(np.float16)
    found = search.tiles(encode(questions["text"], "question"), half)
    scores = metrics.question_scores(benchmark, search.relevant_ranks(found, benchmark))
    scores = scores[scores["setting"] == "mono"].reset_index(drop=True)
    own = questions[["question_id", "group"]].astype("category")
    own = own.iloc[scores.pop("question")].reset_index(drop=True)
    return pd.concat([scores, own], axis=1)


def test_equals_the_search_in_memory(small, tmp_path):
    """The table is bit for bit the mono part of what a Benchmark in memory gives."""
    expected = in_memory()
    pd.testing.assert_frame_equal(evaluated(small, tmp_path), expected, check_exact=True)
    assert len(expected) == 16 and expected["ap"].nunique() > 10
    assert (expected["ap20"] != expected["ap"]).any()  # ranks go beyond 20


@settings(max_examples=12, deadline=None)
@given(
    st.lists(st.integers(1, 20), max_size=6),
    st.integers(1, 60),
    st.floats(0.001, 1),  # of a MiB: 1 to 50 candidates in memory at once
)
def test_files_and_bounds_change_nothing(sizes, at_a_time, memory_mib):
    """However passages are cut into files, encoded and searched in parts: the same bits."""
    with TemporaryDirectory() as folder:
        for language, size in SIZES.items():
            topics, qrels = judged(language, 8, size)
            put(Path(folder), language, topics, qrels, cut(collection(language, size), sizes))
        found = evaluated(
            folder, Path(folder) / "index", at_a_time=at_a_time, memory_mib=memory_mib
        )
    pd.testing.assert_frame_equal(found, in_memory(), check_exact=True)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 99), st.integers(1, 600), st.floats(0.001, 0.2))
def test_ranks_equal_a_sort(seed, count, memory_mib):
    """Mid-ranks of many questions (several tiles) equal those counted in the whole score table."""
    rng = np.random.default_rng(seed)
    questions, vectors = rng.normal(size=(count, 4)), rng.integers(-2, 3, (40, 4)) + [0, 0, 0, 9]
    question = np.sort(rng.integers(0, count, 30))
    passage = rng.integers(0, 40, 30)
    with TemporaryDirectory() as folder:
        found = shards.relevant_ranks(
            questions, _indexed(Path(folder), vectors, [13, 2]), question, passage, memory_mib
        )
    table = np.concatenate([t for _, t in search.tiles(questions, vectors)])
    score = table[question, passage][:, None]
    expected = (table[question] > score).sum(1) + ((table[question] == score).sum(1) + 1) / 2
    assert found.tolist() == expected.tolist()


def _indexed(folder, vectors, sizes):
    """Shards of given vectors; the text of a passage is its row."""
    texts = [str(row) for row in range(len(vectors))]
    parts = {str(folder / f"f{n}"): part for n, part in enumerate(cut(texts, sizes))}
    for file, part in parts.items():
        Path(file).write_text(" ".join(part))

    def read(file):
        return zip(parts[file], parts[file], strict=True)

    found = shards.index(parts, read, folder / "index")
    shards.encode(found, read, lambda rows: vectors[[int(x) for x in rows]], "x", 9, str)
    return found


def test_vectors_are_stored_in_half_precision(small, tmp_path):
    """vectors.npy is an ordinary array file, in the order of the input and of ids.txt."""
    evaluated(small, tmp_path)
    stored = np.load(tmp_path / "en" / "docs-2.jsonl.gz" / "vectors" / "vectors.npy")
    part = collection("en", 50)[8:20]
    expected = encode([f"{title} {text}" for _, title, text in part], "passage")
    assert stored.dtype == np.float16
    assert (stored == expected.astype(np.float16)).all()
    ids = (tmp_path / "en" / "docs-2.jsonl.gz" / "ids" / "ids.txt").read_text().split()
    assert ids == [name for name, *_ in part]


def test_hashes_are_those_of_the_task(small, tmp_path):
    """So that a study can remember them: each file of the collection is asked for once, and another
    hash is another file, encoded anew."""
    asked_for, spec = [], asked(small)

    def sha256(path):
        asked_for.append(path.name)
        return store.sha256(path)

    task = Task("miracl", spec, encode, "toy", tmp_path, sha256)
    first = miracl.evaluate(task, say=lambda line: None)
    docs = sorted(path.name for path in small.rglob("docs-*"))
    assert docs and sorted(asked_for) == docs
    made = [path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("vectors.npy"))]
    other = replace(task, sha256=lambda path: "other")
    pd.testing.assert_frame_equal(miracl.evaluate(other, say=lambda line: None), first)
    remade = [path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("vectors.npy"))]
    assert len(made) == len(docs) and all(a < b for a, b in zip(made, remade, strict=True))


def test_questions_without_relevant_passages_are_reported(tmp_path):
    """One judged 0 only and one not judged at all: no row, and a line that counts them."""
    topics, said = {"1": "a", "2": "b", "3": "c"}, []
    qrels = [("2", "Q0", "0#1", 1), ("1", "Q0", "0#0", 0)]
    put(tmp_path, "en", topics, qrels, [collection("en", 5)])
    found = miracl.evaluate(
        Task("m", asked(tmp_path), encode, "toy", tmp_path / "i"), say=said.append
    )
    assert found["question_id"].tolist() == ["2"]
    assert said[0] == "m en: 2 of 3 questions have no relevant passage"
    assert said[1].endswith("docs-0.jsonl.gz: 5 passages encoded")


# --- which files -------------------------------------------------------------------------------


def test_both_hub_folders_or_one(small, tmp_path):
    """Files are found at any depth, also through links, in any order; other files are ignored."""
    (tmp_path / "topics_here").mkdir()
    for path in small.iterdir():
        part = "hub/miracl-corpus" if "corpus" in path.name else "hub/miracl"
        (tmp_path / part).mkdir(parents=True, exist_ok=True)
        (tmp_path / part / path.name).symlink_to(path)
    (tmp_path / "hub" / "topics.miracl-v1.0-en-test-a.tsv").write_text("1\tno qrels\n")
    (tmp_path / "hub" / "README.md").write_text("#")
    found = evaluated(tmp_path, tmp_path / "index")
    pd.testing.assert_frame_equal(found, evaluated(small, tmp_path / "other"), check_exact=True)


def test_languages_and_split(small, tmp_path):
    """Only the languages asked for, by any of their codes; another split reads its own files."""
    found = evaluated(small, tmp_path / "index", languages=["swh"])
    assert set(found["question_language"]) == {"sw"} and len(found) == 8
    put(tmp_path, "en", {"5": "x"}, [("5", "Q0", "0#0", 1)], [collection("en", 4)], "train")
    assert len(evaluated(tmp_path, tmp_path / "index", split="train")) == 1
    with pytest.raises(ValueError, match=r"no topics of split dev \(expected miracl-v1.0-<lang>/"):
        evaluated(tmp_path, tmp_path / "index")


def test_shards_are_read_in_the_order_of_their_numbers(tmp_path):
    """docs-10 comes after docs-9."""
    passages = collection("en", 11)
    put(tmp_path, "en", *judged("en", 2, 11), [[passage] for passage in passages])
    found = miracl._layout(asked(tmp_path))["en"].docs
    assert [Path(file).name for file in found] == [f"docs-{n}.jsonl.gz" for n in range(11)]


# --- resume ------------------------------------------------------------------------------------


def counting(calls):
    """The toy encoder; notes the texts of each call for passages."""

    def counted(texts, kind):
        if kind == "passage":
            calls.append(list(texts))
        return encode(texts, kind)

    return counted


def arrays(folder):
    """Everything written, by name; what a killed writer left beside is not looked at."""
    files = (f for f in folder.rglob("*") if f.is_file() and ".tmp" not in str(f))
    return {str(f.relative_to(folder)): f.read_bytes() for f in files}


def test_memory_of_encoding_is_bounded_by_its_parameter(small, tmp_path):
    """No call holds more passages than asked, and every passage is encoded once."""
    calls = []
    evaluated(small, tmp_path, counting(calls), at_a_time=5)
    assert max(map(len, calls)) == 5
    assert sum(map(len, calls)) == sum(SIZES.values())


def test_only_what_changed_is_encoded_again(small, tmp_path):
    """Nothing; everything for another encoder; one shard that differs, is damaged, or is lost."""
    source, index = tmp_path / "source", tmp_path / "index"
    for language, size in SIZES.items():
        put(source, language, *judged(language, 8, size), cut(collection(language, size), [9, 9]))
    first = evaluated(source, index)

    def texts_encoded(encoder="toy"):
        calls = []
        scores = evaluated(source, index, counting(calls), encoder)
        return scores, sum(map(len, calls))

    assert texts_encoded()[1] == 0
    assert texts_encoded("other")[1] == sum(SIZES.values())
    assert texts_encoded("other")[1] == 0
    vectors = index / "en" / "docs-0.jsonl.gz" / "vectors" / "vectors.npy"
    vectors.write_bytes(vectors.read_bytes()[:-1] + b"\x00")
    again, encoded = texts_encoded("other")
    assert encoded == 9
    pd.testing.assert_frame_equal(again, first, check_exact=True)
    changed = [*collection("sw", 23)[9:18], ("new#0", "Other", "words")]
    put_docs(source / "miracl-corpus-v1.0-sw" / "docs-1.jsonl.gz", changed)
    again, encoded = texts_encoded("other")
    assert encoded == 10
    pd.testing.assert_frame_equal(again, evaluated(source, tmp_path / "new"), check_exact=True)


def _die_at(owner, name, number):
    """SIGKILL in place of the number-th call, as in a power cut."""
    original, calls = getattr(owner, name), []

    def dying(*args, **kwargs):
        calls.append(1)
        if len(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    setattr(owner, name, dying)


def _evaluate_and_die(source, folder, point, number):
    owner, name = {
        "encode": (sys.modules[__name__], "encode"),
        "rename": (Path, "rename"),
        "fsync": (os, "fsync"),
    }[point]
    _die_at(owner, name, number)
    evaluated(source, folder, lambda texts, kind: encode(texts, kind))


@pytest.mark.parametrize(
    ("point", "number"),
    [("encode", n) for n in (1, 4, 5, 19)]
    + [("rename", n) for n in (2, 7, 10)]
    + [("fsync", n) for n in (3, 25, 41)],
)
def test_a_killed_run_resumes_to_the_same_bits(small, tmp_path, point, number):
    """After a real SIGKILL: files bit-equal to those never interrupted, one shard at most lost."""
    whole = evaluated(small, tmp_path / "whole")
    job = multiprocessing.get_context("fork").Process(
        target=_evaluate_and_die, args=(small, tmp_path / "killed", point, number)
    )
    job.start()
    job.join(60)
    assert job.exitcode == -signal.SIGKILL
    done = len(list((tmp_path / "killed").glob("*/docs-*/vectors/vectors.npy")))
    calls, expected = [], arrays(tmp_path / "whole")
    found = evaluated(small, tmp_path / "killed", counting(calls))
    pd.testing.assert_frame_equal(found, whole, check_exact=True)
    assert arrays(tmp_path / "killed") == expected
    assert not list((tmp_path / "killed").rglob("*.tmp"))
    parts = [len(p) for n in SIZES.values() for p in cut(list(range(n)), [7, 1, 12])]
    assert sum(map(len, calls)) == sum(parts[done:])


# --- memory ------------------------------------------------------------------------------------

MEASURE = """
import sys
from types import SimpleNamespace
import numpy as np
from lib.benchmarks import Task, miracl

def status(key):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(x.split()[1]) for x in lines if x.startswith(key)) / 1024

def encode(texts, kind):
    return np.random.default_rng(len(texts)).normal(size=(len(texts), 64)).astype(np.float32)

spec = SimpleNamespace(folder=sys.argv[1], languages=[], split="")
np.ones((512, 512)) @ np.ones((512, 512))  # the buffers of BLAS
before = status("VmRSS")
for mib in 32, 512:
    task = Task("m", spec, encode, "x", sys.argv[2])
    miracl.evaluate(task, 2000, mib, lambda line: None)
    print(status("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_peak_memory_keeps_the_bound(tmp_path):
    """200,000 vectors, of which a whole file's scores and copies would take some 170 MiB: within
    32 MiB and what Python needs; given 512 MiB the same run does take more than 100."""
    put(tmp_path, "en", {"1": "a"}, [("1", "Q0", "7#0", 1)], [])
    for n in range(2):
        rows = (f'{{"docid":"{i}#{n}","title":"","text":"t"}}\n' for i in range(100_000))
        (tmp_path / "miracl-corpus-v1.0-en" / f"docs-{n}.jsonl").write_text("".join(rows))
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path), str(tmp_path / "index")],
        capture_output=True, text=True, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert not done.returncode, done.stderr
    bounded, generous = map(float, done.stdout.split())
    assert bounded < 32 + 8
    assert generous > 100


def test_repeated_ids_are_found_in_parts(tmp_path):
    """However little memory: an id of two files is found, and nothing where there is none."""
    names = [str(n) for n in range(300)]
    files = {str(tmp_path / "a"): names[:150], str(tmp_path / "b"): [*names[150:], "77"]}
    for file in files:
        Path(file).write_text(file)

    def read(file):
        return ((name, "text") for name in files[file])

    found = shards.index(files, read, tmp_path / "index")
    for memory_mib in 0.001, 0.02, 1:  # 38 parts, 2 parts, 1 part
        assert shards.repeated(found, memory_mib) == "77"
        assert shards.repeated(found[:1], memory_mib) is None


# --- bad input ---------------------------------------------------------------------------------


def _replaced(path, old, new):
    path.write_bytes(path.read_bytes().replace(old, new))


def _docs(path, change):
    path.write_bytes(gzip.compress(change(gzip.decompress(path.read_bytes()))))


BAD = {
    "no qrels": (
        lambda own, docs: (own / "qrels/qrels.miracl-v1.0-en-dev.tsv").unlink(),
        "holds no qrels.miracl-v1.0-en-dev.tsv$",
    ),
    "no docs": (
        lambda own, docs: [file.unlink() for file in docs.iterdir()],
        "holds no miracl-corpus-v1.0-en/docs-0.jsonl.gz$",
    ),
    "a file is missing": (
        lambda own, docs: (docs / "docs-1.jsonl.gz").unlink(),
        "holds no miracl-corpus-v1.0-en/docs-1.jsonl.gz$",
    ),
    "a file twice": (
        lambda own, docs: (docs / "docs-1.jsonl").write_text(""),
        "docs-1.jsonl and .*docs-1.jsonl.gz are both miracl-corpus-v1.0-en/docs-1.jsonl.gz$",
    ),
    "truncated": (
        lambda own, docs: os.truncate(docs / "docs-1.jsonl.gz", 60),
        r"docs-1.jsonl.gz: row \d: the gzip data are damaged or end early$",
    ),
    "broken JSON": (
        lambda own, docs: _docs(docs / "docs-1.jsonl.gz", lambda x: x[:-9]),
        r"docs-1.jsonl.gz: row 3: is broken JSON \(Unterminated string.*\)$",
    ),
    "not UTF-8": (
        lambda own, docs: _docs(docs / "docs-1.jsonl.gz", lambda x: x.replace(b"en t", b"\xff")),
        r"docs-1.jsonl.gz: row 1: is not UTF-8 \(byte 0xff\)$",
    ),
    "no text": (
        lambda own, docs: _docs(docs / "docs-0.jsonl.gz", lambda x: x.replace(b'"text"', b'"T"')),
        r"docs-0.jsonl.gz: row 1: has no column 'text' \(its columns: docid, title, T\)$",
    ),
    "no passages": (
        lambda own, docs: _docs(docs / "docs-2.jsonl.gz", lambda x: b"\n"),
        "docs-2.jsonl.gz: holds no passage$",
    ),
    "docid twice": (
        lambda own, docs: _docs(docs / "docs-2.jsonl.gz", lambda x: x.replace(b"2#1", b"0#2")),
        r"docs-2.jsonl.gz: row 2: docid '0#2' is already in .*/docs-0.jsonl.gz, row 3$",
    ),
    "docid with a blank": (
        lambda own, docs: _docs(docs / "docs-2.jsonl.gz", lambda x: x.replace(b"2#1", b"2 1")),
        "docs-2.jsonl.gz: row 2: docid '2 1' holds white space$",
    ),
    "topics not UTF-8": (
        lambda own, docs: _replaced(own / "topics/topics.miracl-v1.0-en-dev.tsv", b"n 1", b"\xfe"),
        r"topics.miracl-v1.0-en-dev.tsv: row 2: is not UTF-8 \(byte 0xfe\)$",
    ),
    "a topic without text": (
        lambda own, docs: _replaced(own / "topics/topics.miracl-v1.0-en-dev.tsv", b"#q\t", b"#q "),
        "topics.miracl-v1.0-en-dev.tsv: row 1: is not an id, a tab and a question$",
    ),
    "a topic that is empty": (
        lambda own, docs: (own / "topics/topics.miracl-v1.0-en-dev.tsv").write_text("0#q\t \n"),
        "topics.miracl-v1.0-en-dev.tsv: row 1: is empty \\(a passage is relevant\\)$",
    ),
    "a topic twice": (
        lambda own, docs: _replaced(own / "topics/topics.miracl-v1.0-en-dev.tsv", b"1#q", b"0#q"),
        "topics.miracl-v1.0-en-dev.tsv: row 2: question '0#q' is given twice$",
    ),
    "judged twice": (
        lambda own, docs: (own / "qrels/qrels.miracl-v1.0-en-dev.tsv").write_text(
            "0#q\tQ0\t0#1\t1\n1#q\tQ0\t0#1\t1\n0#q\tQ0\t0#1\t0\n"
        ),
        "dev.tsv: row 3: judges '0#1' for '0#q' otherwise than an earlier row$",
    ),
    "a grade that is none": (
        lambda own, docs: _replaced(own / "qrels/qrels.miracl-v1.0-en-dev.tsv", b"\t1\n", b"\tx\n"),
        "en-dev.tsv: row 1: is not question, Q0, passage and a whole number$",
    ),
    "nothing relevant": (
        lambda own, docs: (own / "qrels/qrels.miracl-v1.0-en-dev.tsv").write_text(
            "0#q Q0 0#1 0\n0#q Q0 0#2 -1\n"
        ),
        "qrels.miracl-v1.0-en-dev.tsv: no question has a relevant passage$",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused_in_one_line(tmp_path, name):
    """Before anything is encoded, with file and row; nothing half-written stays."""
    change, message = BAD[name]
    source = put(tmp_path / "s", "en", *judged("en", 2, 9), cut(collection("en", 9), [3, 3]))
    change(source / "miracl-v1.0-en", source / "miracl-corpus-v1.0-en")
    calls = []
    with pytest.raises(ValueError, match=message) as error:
        evaluated(source, tmp_path / "index", counting(calls))
    assert "\n" not in str(error.value) and not calls
    assert not list((tmp_path / "index").rglob("*.tmp"))


def test_what_published_files_lack_is_counted(tmp_path):
    """Judgements of absent questions and passages, a pair judged twice alike, an empty question
    that nothing judges: said, with the first place, and the others are scored."""
    topics, qrels = judged("en", 2, 9)
    source = put(tmp_path / "s", "en", topics | {"x": ""}, qrels, [collection("en", 9)])
    file = source / "miracl-v1.0-en/qrels/qrels.miracl-v1.0-en-dev.tsv"
    whole = evaluated(source, tmp_path / "index")
    file.write_text(file.read_text() + "9#q Q0 0#1 1\n0#q Q0 9#9 1\n" + file.read_text())
    said = []
    task = Task("miracl", asked(source), encode, "toy", tmp_path / "index")
    pd.testing.assert_frame_equal(miracl.evaluate(task, say=said.append), whole)
    rows = len(qrels)
    told = "judgements of {} (first: {}: row {})"
    assert "en: 1 " + told.format("questions that are not there", file, rows + 1) in said
    assert "en: 1 " + told.format("passages that no file holds", file, rows + 2) in said


def test_a_folder_is_needed(small, tmp_path):
    """Without one, the message says which files of which data sets to put where."""
    with pytest.raises(
        ValueError, match="^miracl: folder is empty; put .*-dev.tsv of .*miracl/mir"
    ):
        evaluated("", tmp_path)
    with pytest.raises(ValueError, match="^nowhere: no such folder"):
        evaluated("nowhere", tmp_path)
    with pytest.raises(ValueError, match=f"^{small}: files: no file of language de"):
        evaluated(small, tmp_path, languages=["de"])


@pytest.mark.parametrize(
    ("faulty", "message"),
    [
        (lambda x: x * 0, "docs-0.jsonl.gz: passage '0#0': its vector is zero or not finite"),
        (lambda x: x * 1e6, "passage '0#0': its vector is zero or not finite as float16$"),
        (lambda x: x[1:], r"gave vectors \[2, 6\] for 3 passages; expected \[3, d\]$"),
        (lambda x: x[:, : len(x)], r"gave vectors \[1, 1\] for 1 passages; expected \[1, 3\]$"),
    ],
)
def test_vectors_that_cannot_be_searched_are_refused(small, tmp_path, faulty, message):
    """No direction in half precision, or another shape than asked; nothing of the shard stays."""
    with pytest.raises(ValueError, match=message):
        evaluated(small, tmp_path, lambda texts, kind: faulty(encode(texts, kind)))
    assert not list(tmp_path.rglob("vectors*"))


def test_memory_must_be_positive(small, tmp_path):
    """A bound of 0 is refused."""
    with pytest.raises(ValueError, match="memory_mib is 0"):
        evaluated(small, tmp_path, memory_mib=0)
