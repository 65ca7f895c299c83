"""Training pairs from files: every format, every fault with its file and row, the held-out split.

What the public data of the larger studies hold is checked against their published counts where
they are at hand (a folder beside the project).
"""

import csv
import gzip
import json
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib import store
from lib.corpus import ParallelCorpus
from lib.params import Prepare, checked
from lib.sampler import Streams
from lib.sources import bitext, files, ntrex, pairs, squad

DATA = store.ROOT.parent / "shared/data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"the public data are not in {DATA}")


def asked(named, **others):
    """Parameters as lib.params.Prepare holds them. With 1,000 folds hardly a group is held out."""
    defaults = {
        "languages": [],
        "passage": "sentence",
        "unanswerable": False,
        "max_chars": 2000,
        "fold": 0,
        "folds": 1000,
        "keep": {},
        "columns": {},
        "parallel": True,
        "split": "group",
    }
    return SimpleNamespace(
        files={label: str(file) for label, file in named.items()}, **defaults | others
    )


def put(path, content):
    """Write text or bytes, as gzip where the name says so."""
    raw = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return str(path)


def put_jsonl(path, rows):
    return put(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def put_parquet(path, rows):
    pq.write_table(pa.Table.from_pylist(rows), path)
    return str(path)


def refused(call, *parts):
    """`call` raises a ValueError of one line that holds all parts; returns it."""
    with pytest.raises(ValueError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, message
    return message


# --- reading records ---------------------------------------------------------------------------

TABLE = [
    {"pair": "1", "question": 'Who said "no"?', "passage": "Она, да"},
    {"pair": "2", "question": "Où, vraiment?", "passage": "ここ\u2028です"},
]


def write_table(path, rows):
    """The rows in the format that the path's suffix names."""
    kind = files.kind(str(path))
    if kind == ".jsonl":
        put_jsonl(path, rows)
    elif kind == ".json":
        put(path, json.dumps(rows))
    elif kind == ".parquet":
        put_parquet(path.with_suffix(""), rows) if path.suffix == ".gz" else put_parquet(path, rows)
        if path.suffix == ".gz":
            put(path, path.with_suffix("").read_bytes())
    else:
        plain = path.with_name("plain")
        quoting = csv.QUOTE_MINIMAL if kind == ".csv" else csv.QUOTE_NONE
        with open(plain, "w", newline="", encoding="utf-8") as out:
            writer = csv.writer(
                out,
                delimiter="," if kind == ".csv" else "\t",
                quoting=quoting,
                quotechar='"' if kind == ".csv" else None,
            )
            writer.writerow(rows[0])
            writer.writerows(row.values() for row in rows)
        put(path, plain.read_bytes())
    return str(path)


@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize("kind", [".jsonl", ".json", ".csv", ".tsv", ".parquet"])
def test_every_format_holds_the_same_records(tmp_path, kind, packed):
    """Quotes, commas and a Unicode line separator survive each of them."""
    file = write_table(tmp_path / f"table{kind}{packed}", TABLE)
    found = list(files.records(file))
    assert [record.values for record in found] == TABLE
    assert [record.row for record in found] == ([2, 3] if kind in (".csv", ".tsv") else [1, 2])


def test_a_text_may_be_long(tmp_path):
    """What JSON lines hold, CSV and TSV hold as well."""
    long = [TABLE[0], TABLE[0] | {"passage": "x" * 200_000}]
    for name in ("a.csv", "a.tsv", "a.jsonl"):
        found = files.records(write_table(tmp_path / name, long))
        assert [record.values for record in found] == long


@pytest.mark.parametrize(
    "field", ['"No," she said.', '"Heroes"', '""', '"', 'a "b" ""c""', '"a" and ""b""']
)
def test_quotes_in_a_tsv_are_text(tmp_path, field):
    """Unless a whole field is quoted as CSV quotes it."""
    found = files.records(put(tmp_path / "a.tsv", f"a\tb\r\n1\t{field}\r\n"))
    assert [record.values for record in found] == [{"a": "1", "b": field}]


@pytest.mark.parametrize("name", ["A.JSONL", "A.Csv", "A.TSV.GZ", "A.Parquet"])
def test_capitals_in_a_name(tmp_path, name):
    """Say the same."""
    file = write_table(tmp_path / name.lower(), TABLE)
    other = tmp_path / "x" / name
    other.parent.mkdir()
    other.write_bytes((tmp_path / name.lower()).read_bytes())
    assert file and [record.values for record in files.records(str(other))] == TABLE


def test_lines_end_at_line_feeds_only(tmp_path):
    """A byte order mark and carriage returns are no text; U+2028 and U+0085 end no line."""
    file = put(tmp_path / "a.txt", "\ufeffone\r\n\ntwo\u2028three\x85\nfour")
    assert list(files.lines(file)) == [(1, "one"), (2, ""), (3, "two\u2028three\x85"), (4, "four")]


def test_csv_fields_may_hold_line_ends(tmp_path):
    """The row is the line on which a record ends."""
    file = put(tmp_path / "a.csv", 'a,b\n"x\ny",1\n\nz,2\n')
    found = [(r.row, r.values) for r in files.records(file)]
    assert found == [(3, {"a": "x\ny", "b": "1"}), (5, {"a": "z", "b": "2"})]


def test_relative_paths_begin_at_the_root():
    """Wherever a notebook runs."""
    assert next(files.lines("pyproject.toml"))[1] == "[build-system]"


PACKED = gzip.compress(b"".join(b'{"a": "%d"}\n' % (i * 7919) for i in range(2000)))
BAD = {
    "broken.jsonl": (b'{"a": 1}\n{"a": \n', ["row 2", "broken JSON"]),
    "list.jsonl": (b'{"a": 1}\n\n[1, 2]\n', ["row 3", "expected an object"]),
    "latin.jsonl": ('{"a": 1}\n{"a": "é"}\n'.encode("latin-1"), ["row 2", "not UTF-8", "0xe9"]),
    "short.jsonl.gz": (PACKED[:-2000], ["row ", "gzip data are damaged or end early"]),
    "plain.jsonl.gz": (b'{"a": 1}\n', ["row 1", "gzip data are damaged"]),
    "broken.json": (b'[{"a": 1},\n{"a" 2}]', ["row 2", "broken JSON"]),
    "deep.json": (b"[" * 100_000, ["broken JSON"]),
    "object.json": (b'{"a": 1}', ["not a list of objects"]),
    "fields.csv": (b"a,b\n1,2\n3\n", ["row 3", "has 1 fields (expected 2"]),
    "quote.csv": (b'a,b\n1,2\n"3,4\n', ["row 3", "broken CSV"]),
    "twice.tsv": (b"a\tb\ta\n", ["row 1", "names the column 'a' twice"]),
    "latin.csv": ("a,b\n1,é\n".encode("latin-1"), ["row 2", "not UTF-8"]),
    "zwei.jsonl": ('{"a": 1}'.encode("utf-16"), ["row 1: is UTF-16 (expected UTF-8)"]),
    "zwei.csv": ("a,b\n1,2\n".encode("utf-16-le"), ["row 1: has zero bytes (expected UTF-8)"]),
    "pandas.tsv": (b'a\tb\n1\t"say ""no"" twice"\n', ["row 2: quotes a field as in CSV", ".csv"]),
    "lines.tsv": (b'a\tb\n"say ""no"" \ttwice"\n', ["row 2: quotes a field as in CSV"]),
    "quoted.tsv": (b'"a"\t"b"\n"1"\t"2"\n', ["row 1: quotes a field as in CSV"]),
    "text.parquet": (b"no parquet at all", ["row 1", "not readable as parquet"]),
    "rows.xlsx": (b"", ["unknown kind", ".jsonl"]),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_by_name_and_row(tmp_path, name):
    """One line each, whatever is wrong."""
    content, parts = BAD[name]
    (tmp_path / name).write_bytes(content)
    refused(lambda: list(files.records(str(tmp_path / name))), name, *parts)


def test_blank_lines_may_come_before_a_header(tmp_path):
    """Rows keep their numbers."""
    (tmp_path / "x.csv").write_text("\n\na,b\n1,2\n")
    [record] = files.records(str(tmp_path / "x.csv"))
    assert record["a"] == "1" and record.row == 4


def test_parquet_of_odd_columns_is_refused_by_name(tmp_path):
    """A date beyond Python's, in whatever column; two columns of one name; damage within."""
    never = pa.array([2**61], pa.timestamp("us"))
    pq.write_table(pa.table({"a": ["x"], "when": never}), tmp_path / "never.parquet")
    twice = pa.Table.from_arrays([pa.array(["x"]), pa.array(["y"])], names=["a", "a"])
    pq.write_table(twice, tmp_path / "twice.parquet")
    pq.write_table(pa.table({"a": [f"{n}" for n in range(1000)]}), tmp_path / "hurt.parquet")
    content = bytearray((tmp_path / "hurt.parquet").read_bytes())
    content[4:104] = bytes(100)
    (tmp_path / "hurt.parquet").write_bytes(content)
    parts = {"never": "that Python cannot hold", "twice": "names the column 'a' twice", "hurt": "r"}
    for name, part in parts.items():
        place = str(tmp_path / f"{name}.parquet")
        refused(lambda place=place: list(files.records(place)), f"{name}.parquet", part)
    with pytest.raises(ValueError) as caught:
        list(files.records(str(tmp_path / "hurt.parquet")))
    assert "None" not in str(caught.value)


def test_a_missing_file_or_a_folder_is_refused(tmp_path):
    """And named."""
    refused(lambda: list(files.records(str(tmp_path / "no.csv"))), "no.csv: no such file")
    refused(lambda: list(files.lines(str(tmp_path))), f"{tmp_path}: is a folder (expected a file)")


def test_parquet_that_is_not_utf8_is_refused(tmp_path):
    """Arrow does not look at the bytes when it reads them."""
    bad = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff")]
    )
    pq.write_table(pa.table({"a": bad}), tmp_path / "a.parquet")
    refused(lambda: list(files.records(str(tmp_path / "a.parquet"))), "a.parquet: row 1", "0xff")


def test_columns_are_checked():
    """Names are texts or whole numbers, texts may be null."""
    record = files.Record("x.csv", 7, {"a": "", "b": None, "c": 5, "d": True, "e": 1.0})
    assert (record.text("a"), record.text("b"), record.key("c")) == ("", "", "5")
    refused(lambda: record["question"], "x.csv: row 7", "no column 'question'", "a, b, c, d, e")
    refused(lambda: record.text("c"), "row 7", "c is 5 (expected text)")
    for column in "abde":
        refused(lambda column=column: record.key(column), f"row 7: {column} is")


# --- a user's own pairs ------------------------------------------------------------------------


def row(pair, language, question="Why?", passage="Because.", **others):
    return {"pair": pair, "language": language, "question": question, "passage": passage} | others


OWN = [
    row("a", "eng", "Why?", "Be\tcause."),
    row("a", "de", "Warum?", "Darum."),
    row("b", "en", "Who?", "Cafe\u0301.", passage_id="p", group="g"),
    row("b", "zho-CN", "谁？", "他。", passage_id="p", group="g"),
]


def test_pairs_by_hand(tmp_path):
    """passage_id defaults to the pair, group to the passage_id; codes and texts are normalised."""
    p = asked({"mine": put_jsonl(tmp_path / "own.jsonl", OWN)}, languages=[])
    corpus = pairs.build_corpus(p)
    found = [tuple(r.values()) for r in corpus.rows]
    assert found == [
        ("a", "de", "Warum?", "Darum.", "a", "a", "mine"),
        ("a", "en", "Why?", "Be cause.", "a", "a", "mine"),
        ("b", "en", "Who?", "Café.", "p", "g", "mine"),
        ("b", "zh", "谁？", "他。", "p", "g", "mine"),
    ]
    assert corpus.languages == ("de", "en", "zh")
    assert corpus.meta["licence"] == "as stated by the files' owner"
    hashes = {"name": "own.jsonl", "sha256": store.sha256(tmp_path / "own.jsonl")}
    assert corpus.meta["inputs"] == {"mine": hashes}
    assert (len(corpus.test), len(corpus.pool)) == (0, 4)


def test_pairs_of_several_files_and_formats(tmp_path):
    """Files are put together; CSV holds negatives as JSON, an empty cell is none."""
    full = [r | {"passage_id": r["pair"], "group": r["pair"], "negatives": []} for r in OWN]
    full[0]["negatives"] = ["b"]
    text = [r | {"negatives": json.dumps(r["negatives"])} for r in full[2:]]
    named = {
        "one": put_parquet(tmp_path / "a.parquet", full[:2]),
        "two": write_table(tmp_path / "b.csv.gz", text),
    }
    corpus = pairs.build_corpus(asked(named))
    assert corpus.rows["source"][:] == ["one", "one", "two", "two"]
    assert corpus.rows["negatives"][:] == [["b"], ["b"], [], []]
    offsets, numbers = corpus.index.negatives
    assert (offsets.tolist(), numbers.tolist()) == ([0, 1, 1], [1])


def test_negatives_that_say_what_the_answer_says_are_left_out(tmp_path, capsys):
    """c has b's text, in German alone; d has other texts. Also where the row that lists c is of
    another language than the one in which the two agree. Each is counted, the first is named."""
    rows = [
        row("b", "en", "Who?", "She.", negatives=["c", "d"]),
        row("b", "de", "Wer?", "Sie.", negatives=["c"]),
        row("c", "en", "They?", "They.", negatives=[]),
        row("c", "de", "Die?", " Sie.\n", negatives=["d"]),
        row("d", "en", "He?", "He.", negatives=["b"]),
        row("d", "de", "Der?", "Er.", negatives=[]),
    ]
    file = put_jsonl(tmp_path / "x.jsonl", rows)
    found = pairs.read(asked({"x": file}), numbered=False)
    assert {row["pair"]: row["negatives"] for row in found} == {"b": ["d"], "c": ["d"], "d": ["b"]}
    said = f"pairs: 2 negatives say what the pair's own passage says, left out (first: {file}: "
    assert capsys.readouterr().out == f"{said}row 1)\n"


def test_only_the_languages_asked_for(tmp_path):
    """Rows in others are left out, and are not counted as dropped."""
    p = asked({"x": put_jsonl(tmp_path / "x.jsonl", OWN)}, languages=["de", "en"])
    corpus = pairs.build_corpus(p)
    assert (corpus.languages, len(corpus.rows), corpus.meta["dropped"]) == (("de", "en"), 3, {})


BAD_PAIRS = {
    "no column 'passage'": [{"pair": "a", "language": "en", "question": "q"}],
    "row 2: unknown language 'xx'": [row("a", "en"), row("a", "xx")],
    "row 1: pair is null (expected a name": [row(None, "en")],
    "row 1: question is 5 (expected text)": [row("a", "en", 5)],
    "row 3: pair 'a' in en is already in row 1 of": [*OWN[:2], row("a", "en-US")],
    "row 2: pair 'a' lies in 'q', before in 'p'": [
        row("a", "en", passage_id="p"),
        row("a", "de", passage_id="q"),
    ],
    "row 2: passage 'p' lies in 'h', before in 'g'": [
        row("a", "en", passage_id="p", group="g"),
        row("b", "de", passage_id="p", group="h"),
    ],
    "row 2: passage 'p' in en has another text than in row 1 of": [
        row("a", "en", passage_id="p", group="g"),
        row("b", "en", passage_id="p", group="g", passage="another"),
    ],
    "row 2: negative 'z' is no row's passage_id": [
        row("a", "en", negatives=[]),
        row("b", "en", negatives=["z"]),
    ],
    "row 1: negative 'a' is the pair's own passage": [row("a", "en", negatives=["a"])],
    "row 1: negatives are not a JSON list": [row("a", "en", negatives="a b")],
    "row 1: negatives are not a list": [row("a", "en", negatives={"a": 1})],
    "own.jsonl: has language en alone (a parallel corpus needs at least two": [row("a", "en")],
}


@pytest.mark.parametrize("message", BAD_PAIRS)
def test_bad_pairs_are_refused(tmp_path, message):
    """Contradictions are named with the row where they show."""
    file = put_jsonl(tmp_path / "own.jsonl", BAD_PAIRS[message])
    refused(lambda: pairs.build_corpus(asked({"x": file})), message)


def test_languages_without_pairs_in_common_are_refused(tmp_path):
    """Such a corpus has nothing parallel; so has one where a language lost every row."""
    file = put_jsonl(tmp_path / "x.jsonl", [*OWN, row("c", "fr"), row("d", "es", " \x00")])
    refused(
        lambda: pairs.build_corpus(asked({"x": file}, languages=["de", "en", "fr"])),
        "language fr: shares no pair with language de, language en",
    )
    refused(
        lambda: pairs.build_corpus(asked({"x": file}, languages=["de", "en", "es"])),
        "language es: has no pairs (dropped: 1 empty)",
    )
    refused(
        lambda: pairs.build_corpus(asked({"x": file}, languages=["de", "en", "tr"])),
        "language tr: has no pairs (dropped: none)",
    )


def test_dropped_rows_are_counted_by_reason_and_language(tmp_path):
    """One row for each reason; what was dropped is in no table."""
    rows = [
        row("a", "en", "Why?", "Because."),
        row("a", "de", "Warum?", "Darum."),
        row("a", "fr", " Why?", "Parce que."),
        row("b", "en", "Long?", "x" * 21),
        row("b", "de", "", "Kurz."),
        row("c", "de", "Gleich.", "Gleich.\n"),
        row("c", "fr", "Quoi?", None),
        row("d", "en", "Yes?", "No."),
        row("d", "fr", "Oui?", "Non."),
    ]
    corpus = pairs.build_corpus(asked({"x": put_jsonl(tmp_path / "x.jsonl", rows)}, max_chars=20))
    assert corpus.meta["dropped"] == {
        "empty": {"de": 1, "fr": 1},
        "identical": {"de": 1},
        "over-long": {"en": 1},
        "untranslated": {"fr": 1},
    }
    kept = [("a", "de"), ("a", "en"), ("d", "en"), ("d", "fr")]
    assert list(zip(corpus.rows["pair"][:], corpus.rows["language"][:], strict=True)) == kept
    assert len(corpus.pool) == 4


HUB = [{"anchor": f"Why {n}?", "positive": f"Because {n}."} for n in range(5)]
NAMED = {"question": "anchor", "passage": "positive"}


def test_columns_of_other_names(tmp_path):
    """A file's own names stand for ours; without `language` the file's label is its language."""
    rows = [r | {"pair": n} for n, r in enumerate(HUB)]
    english = put_jsonl(tmp_path / "a.jsonl", rows)
    german = [{"pair": n, "anchor": f"Warum {n}?", "positive": f"Weil {n}."} for n in range(5)]
    named = {"eng": english, "de": write_table(tmp_path / "b.csv", german)}
    pairs.look(asked(named, columns=NAMED))
    corpus = pairs.build_corpus(asked(named, columns=NAMED))
    assert corpus.languages == ("de", "en") and set(corpus.rows["source"][:]) == {"de", "eng"}
    assert corpus.rows["question"][:2] == ["Warum 0?", "Why 0?"]
    swapped = [row("a", "en", "A?", "B."), row("a", "de", "C?", "D.")]
    p = asked({"x": put_jsonl(tmp_path / "x.jsonl", swapped)}, columns={"question": "passage"})
    assert pairs.read(p, numbered=False)[0]["question"] == "B."


@pytest.mark.parametrize(
    ("rows", "label", "asks", "parts"),
    [
        (HUB, "nq", {}, ["no column 'pair', 'language', 'question', 'passage' (its columns: "
         "anchor, positive; name its columns in prepare.columns", "parallel: false", "files: {en"]),
        (HUB, "en", {"columns": NAMED}, ["no column 'pair' (", "prepare.parallel: false"]),
        (HUB, "en", {"columns": NAMED | {"group": "topic"}, "parallel": False},
         ["no column 'topic' (its columns: anchor, positive"]),
        ([], "en", {}, ["has no rows"]),
    ],
)  # fmt: skip
def test_a_file_shows_at_once_what_it_lacks(tmp_path, rows, label, asks, parts):
    """What it has, what was expected and what to do; the same line before and in the stage."""
    p = asked({label: put_jsonl(tmp_path / "nq.jsonl", rows)}, **asks)
    said = refused(lambda: pairs.look(p), "nq.jsonl: ", *parts)
    assert refused(lambda: pairs.build_corpus(p)) == said


def test_pairs_without_translations(tmp_path, capsys):
    """Each row is a pair; a language that shares none with another is named, and trained on."""
    named = {"en": put_jsonl(tmp_path / "a.jsonl", HUB), "fr": put_jsonl(tmp_path / "b.jsonl", HUB)}
    p = asked({"en": named["en"]}, columns=NAMED, parallel=False)
    corpus = pairs.build_corpus(p)
    assert corpus.rows["pair"][:2] == ["en 1", "en 2"] and corpus.meta["parallel"] is False
    assert corpus.index.alone and Streams(corpus.index).size.tolist() == [5]
    capsys.readouterr()
    both = pairs.build_corpus(asked(named, columns=NAMED, parallel=False))
    assert Streams(both.index).size.tolist() == [5, 0, 0, 5]
    assert capsys.readouterr().out.splitlines() == [
        "language en: shares no pair with language fr: it is trained on by itself",
        "language fr: shares no pair with language en: it is trained on by itself",
    ]


def test_some_pairs_without_translations(tmp_path):
    """Asked for, all pairs are drawn from; otherwise those in two languages, as every arm can."""
    rows = [*OWN[:2], row("c", "en", "Where?", "There.")]
    file = put_jsonl(tmp_path / "x.jsonl", rows)
    sizes = [
        Streams(pairs.build_corpus(asked({"x": file}, parallel=x)).index).size.tolist()
        for x in (True, False)
    ]
    assert sizes == [[1, 1, 1, 1], [1, 1, 1, 2]]


def test_equal_passages_are_one_group(tmp_path, capsys):
    """In one language, after cleaning, directly or through others: neither meet in a batch nor be
    parted by the split. The group is the first by name."""
    rows = [
        row("a", "en", "A?", "Cafe\u0301  noir."), row("a", "de", "A!", "Eins."),
        row("b", "en", "B?", "Café noir."), row("b", "de", "B!", "Zwei."),
        row("c", "en", "C?", "Three."), row("c", "de", "C!", " Zwei. "),
        row("d", "en", "D?", "Zwei."), row("d", "de", "D!", "Vier."),
    ]  # fmt: skip
    file = put_jsonl(tmp_path / "x.jsonl", rows)
    corpus = pairs.build_corpus(asked({"x": file}))
    assert corpus.rows["group"][:] == ["a"] * 6 + ["d"] * 2
    assert corpus.rows["passage_id"][:] == list("aabbccdd")
    assert corpus.meta["joined"] == 2
    assert capsys.readouterr().out.startswith("2 groups hold a passage of another group")


@given(st.lists(st.tuples(st.integers(0, 6), st.sampled_from("xyzw")), max_size=25))
def test_joined_groups_equal_slow_merging(drawn):
    """Against merging any two groups that share a text until none do."""
    rows = [{"group": str(g), "language": "en", "passage": t} for g, t in drawn]
    parts = [{str(g)} for g in {g for g, _ in drawn}]
    held = {text: {str(g) for g, t in drawn if t == text} for _, text in drawn}
    for together in held.values():
        merged = set().union(*(x for x in parts if x & together))
        parts = [x for x in parts if not x & together] + [merged]
    name = {group: min(part) for part in parts for group in part}
    found, joined = files._joined(rows)
    assert [r["group"] for r in found] == [name[str(g)] for g, _ in drawn]
    assert joined == len({g for g, _ in drawn}) - len(parts)


# --- the held-out split ------------------------------------------------------------------------


def made_rows(groups):
    """Two pairs with one passage each, in two languages, for every group."""
    return [
        row(f"{g}/{i}", x, f"{x} {g} {i}?", f"{x} {g} {i}.", passage_id=f"{g}/{i}", group=g)
        for g in groups
        for i in range(2)
        for x in ("en", "de")
    ]


@given(st.lists(st.text(max_size=5), unique=True, max_size=12), st.integers(2, 6))
def test_folds_part_the_rows_by_group(groups, folds):
    """Each row is tested in one fold, and trained on in all others; a group is never parted."""
    rows = made_rows(groups)
    tested = []
    for fold in range(folds):
        train, test, pool = files.held_out(rows, fold, folds)
        assert len(train) + len(test) == len(rows) == len(pool)
        assert not {r["group"] for r in train} & {r["group"] for r in test}
        tested += [(r["pair"], r["language"]) for r in test]
    assert sorted(tested) == sorted((r["pair"], r["language"]) for r in rows)


def test_the_pool_holds_a_passage_once():
    """Of two texts for one passage in one language, the first in sorted order."""
    rows = [
        row(str(i), "en", passage=text, passage_id="p", group="g") for i, text in enumerate("bca")
    ]
    train, test, pool = files.held_out(rows, 0, 2)
    assert pool == [{"passage_id": "p", "language": "en", "passage": "a"}]
    assert (len(train), len(test)) in [(3, 0), (0, 3)]


def test_a_split_corpus_survives_the_disk(tmp_path):
    """Test rows have the columns of training rows; negatives in the test split are taken out."""
    rows = made_rows([f"g{i}" for i in range(20)])
    everything = sorted({r["passage_id"] for r in rows})
    for r in rows:
        r["negatives"] = [x for x in everything if x != r["passage_id"]]
    file = put_jsonl(tmp_path / "x.jsonl", rows)
    corpus = pairs.build_corpus(asked({"x": file}, fold=1, folds=4))
    with store.atomic_folder(tmp_path / "corpus", corpus.meta) as new:
        corpus.save(new)
    found = ParallelCorpus.load(tmp_path / "corpus")
    assert found.test.column_names == found.rows.column_names
    assert len(found.rows) + len(found.test) == len(found.pool) == 80
    assert 0 < len(found.test) < 40
    trained = set(found.rows["passage_id"][:])
    for passage, negatives in zip(found.rows["passage_id"], found.rows["negatives"], strict=True):
        assert set(negatives) == trained - {passage}
    assert len(found.index.negatives[1]) == len(trained) * (len(trained) - 1)


def test_a_share_of_a_language_can_be_kept(tmp_path):
    """`keep` thins out the training rows of a language and nothing else."""
    file = put_jsonl(tmp_path / "x.jsonl", made_rows([f"g{i}" for i in range(100)]))
    full, thin = (
        pairs.build_corpus(asked({"x": file}, folds=5, keep=keep)) for keep in ({}, {"de": 0.5})
    )
    assert thin.meta["counts"]["rows"]["en"] == full.meta["counts"]["rows"]["en"]
    share = thin.meta["counts"]["rows"]["de"] / full.meta["counts"]["rows"]["de"]
    assert 0.35 < share < 0.65
    assert thin.meta["counts"]["test"] == full.meta["counts"]["test"]
    refused(
        lambda: pairs.build_corpus(asked({"x": file}, keep={"de": 0.0})), "language de: no pair is"
    )
    refused(
        lambda: pairs.build_corpus(asked({"x": file}, keep={"fr": 0.5})),
        "keep: fr is not a language of this corpus",
    )


# --- SQuAD -------------------------------------------------------------------------------------

RHINE = "The Rhine is a river. It flows north. It ends in the Netherlands."
RHEIN = "Der Rhein ist ein Fluss, er fließt nach Norden. Er endet in den Niederlanden."
ALPS = "The Alps are high. Mont Blanc has 4,806 m."
ALPEN = "Die Alpen sind hoch. Der Mont Blanc hat 4.806 m."


def flat(id, title, context, question, answer):
    """A row in hub layout; the answer's first place in the context is its start."""
    answers = {"text": [answer], "answer_start": [context.index(answer)]} if answer else {}
    answers = answers or {"text": [], "answer_start": []}
    about = {"id": id, "title": title, "context": context, "question": question}
    return about | {"answers": answers}


ENGLISH = [
    flat("q1", "Rhine", RHINE, "What is the Rhine?", "a river"),
    flat("q2", "Rhine", RHINE, "Where does it flow?", "north"),
    flat("q3", "Rhine", RHINE, "Which way does it go?", "north"),
    flat("q4", "Rhine", ALPS, "How high is it?", "4,806 m"),
    flat("q5", "Rhine", ALPS, "How deep is it?", None),
]
GERMAN = [
    flat("q4", "Rhein", ALPEN, "Wie hoch ist er?", "4.806 m"),
    flat("q1", "Rhein", RHEIN, "Was ist der Rhein?", "ein Fluss"),
    flat("q2", "Rhein", RHEIN, "Wohin fließt er?", "nach Norden"),
    flat("q3", "Rhein", RHEIN, "Was ist sein Ende?", "in den Niederlanden"),
    flat("q6", "Rhein", RHEIN, "Wo endet er?", "Niederlanden"),
]


def squad_json(rows, version):
    """SQuAD's own JSON of flat rows; v2.0 flags what has no answer."""
    articles = {}
    for r in rows:
        answers = [
            {"text": t, "answer_start": s}
            for t, s in zip(r["answers"]["text"], r["answers"]["answer_start"], strict=True)
        ]
        question = {"id": r["id"], "question": r["question"], "answers": answers}
        if version == "v2.0":
            question["is_impossible"] = not answers
        articles.setdefault(r["title"], {}).setdefault(r["context"], []).append(question)
    data = [
        {"title": t, "paragraphs": [{"context": c, "qas": q} for c, q in paragraphs.items()]}
        for t, paragraphs in articles.items()
    ]
    return json.dumps({"version": version, "data": data})


def put_squad(path, rows, version="v2.0"):
    if files.kind(str(path)) == ".json":
        return put(path, squad_json(rows, version))
    return put_parquet(path, rows) if path.suffix == ".parquet" else put_jsonl(path, rows)


def build_squad(folder, suffix=".json", english=ENGLISH, german=GERMAN, version="v2.0", **others):
    named = {
        "en": put_squad(folder / f"en{suffix}", english, version),
        "deu": put_squad(folder / f"de{suffix}", german, version),
    }
    return squad.build_corpus(asked(named, **others))


def texts(corpus):
    return [
        (r["pair"], r["language"], r["passage"], r["passage_id"], r["group"]) for r in corpus.rows
    ]


BY_HAND = [
    ("q1", "de", "Der Rhein ist ein Fluss, er fließt nach Norden.", "q1", "Rhine#0"),
    ("q1", "en", "The Rhine is a river.", "q1", "Rhine#0"),
    ("q2", "de", "Der Rhein ist ein Fluss, er fließt nach Norden.", "q2", "Rhine#0"),
    ("q2", "en", "It flows north.", "q2", "Rhine#0"),
    ("q3", "de", "Er endet in den Niederlanden.", "q3", "Rhine#0"),
    ("q3", "en", "It flows north.", "q3", "Rhine#0"),
    ("q4", "de", "Der Mont Blanc hat 4.806 m.", "q4", "Rhine#1"),
    ("q4", "en", "Mont Blanc has 4,806 m.", "q4", "Rhine#1"),
    ("q6", "de", "Er endet in den Niederlanden.", "q3", "Rhine#0"),
]


@pytest.mark.parametrize("version", ["v1.1", "v2.0"])
@pytest.mark.parametrize("suffix", [".json", ".json.gz", ".jsonl", ".jsonl.gz", ".parquet"])
def test_squad_sentences_by_hand(tmp_path, suffix, version):
    """In every format. Paragraphs are numbered as in English, also for q6, which it lacks. q1 and
    q2 share a sentence in German only, q2 and q3 in English only: they stay apart; q6 and q3
    share theirs wherever both exist."""
    corpus = build_squad(tmp_path, suffix, version=version)
    assert texts(corpus) == BY_HAND
    assert corpus.meta["dropped"] == {"unanswerable": {"en": 1}}
    assert corpus.meta["source"] == "squad"


def test_squad_paragraphs_by_hand(tmp_path):
    """passage_id and group are the paragraph; what has no answer may be asked for."""
    corpus = build_squad(tmp_path, passage="paragraph", unanswerable=True)
    assert corpus.meta["dropped"] == {}
    found = texts(corpus)
    assert [x[:3] for x in found if x[0] in ("q4", "q5")] == [
        ("q4", "de", ALPEN), ("q4", "en", ALPS), ("q5", "en", ALPS)
    ]  # fmt: skip
    assert {x[3:] for x in found} == {("Rhine#0",) * 2, ("Rhine#1",) * 2}
    assert len(build_squad(tmp_path, passage="paragraph").rows) == len(found) - 1
    refused(lambda: checked(Prepare, {"unanswerable": True}), "expected 'paragraph'")


def test_squad_without_english(tmp_path):
    """English names the paragraphs even where it is not asked for, so groups stay comparable, and
    it tells what was left untranslated."""
    french = [r | {"question": r["question"] + " (fr)"} for r in ENGLISH[:4]]
    french[0]["question"] = ENGLISH[0]["question"]
    named = {
        "en": put_squad(tmp_path / "en.json", ENGLISH),
        "de": put_squad(tmp_path / "de.json", GERMAN),
        "fr": put_squad(tmp_path / "fr.json", french),
    }
    corpus = squad.build_corpus(asked(named, languages=["de", "fr"]))
    assert corpus.languages == ("de", "fr")
    assert corpus.meta["dropped"] == {"untranslated": {"fr": 1}}
    assert set(corpus.rows["group"][:]) == {"Rhine#0", "Rhine#1"}


def test_squad_rows_with_given_sentence_paragraph_and_suspicion(tmp_path):
    """A sentence in the file is taken as it is; suspect rows are dropped and counted; a row whose
    answer was not found (null or -1) has no sentence."""

    def given(id, context, **others):
        about = {"id": id, "title": "T", "context": context, "question": f"{context} {id}?"}
        return about | others

    english = [
        given("1", RHINE, passage_id="p", answer="river", answer_start=15, answer_sentence="So."),
        given("2", RHINE, passage_id="p", answer="river", answer_start=15),
        given("3", RHINE, passage_id="p", answer="", answer_start=None, answerable=True),
        given("4", RHINE, passage_id="p", answer="x", answer_start=-1, answerable=True),
    ]
    german = [
        given("1", RHEIN, passage_id="p", answer="Fluss", answer_start=18, suspect="length"),
        given("2", RHEIN, passage_id="p", answer="Fluss", answer_start=18, suspect=None),
    ]
    corpus = build_squad(tmp_path, ".jsonl", english, german)
    assert texts(corpus) == [
        ("1", "en", "So.", "1", "p"),
        ("2", "de", "Der Rhein ist ein Fluss, er fließt nach Norden.", "2", "p"),
        ("2", "en", "The Rhine is a river.", "2", "p"),
    ]
    assert corpus.meta["dropped"] == {"no answer sentence": {"en": 2}, "suspect": {"de": 1}}


def changed(position, **others):
    rows = [dict(r) for r in GERMAN]
    rows[position] |= others
    return rows


FLUSS = "Ö 𝔸 heißt so. Die Elbe ist lang. Im Süden ist die Elbe kurz. Die Elbe fließt."


def starts(text, at):
    """Where the `at`-th occurrence begins: characters, bytes of UTF-8, units of UTF-16."""
    begin = -1
    for _ in range(at + 1):
        begin = FLUSS.index(text, begin + 1)
    before = FLUSS[:begin]
    return begin, len(before.encode()), len(before.encode("utf-16-le")) // 2


@pytest.mark.parametrize("unit", [0, 1, 2])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_answers_are_taken_where_they_are(tmp_path, capsys, unit, at):
    """Whatever unit a file counts in; how many were elsewhere is in the manifest, and said."""
    sentences = ["Die Elbe ist lang.", "Im Süden ist die Elbe kurz.", "Die Elbe fließt."]
    begin = starts("Elbe", at)[unit]
    about = {"id": "q1", "title": "Elbe", "context": FLUSS, "question": "Welcher Fluss?"}
    german = [about | {"answers": {"text": ["Elbe"], "answer_start": [begin]}}]
    corpus = build_squad(tmp_path, german=german)
    assert corpus.rows["passage"][0] == sentences[at]
    moved = int(begin != starts("Elbe", at)[0])
    assert corpus.meta["moved"] == {"de": moved, "en": 0} and moved == (unit > 0)
    assert ("de.json: 1 of 1 answers are elsewhere" in capsys.readouterr().out) == bool(moved)


def test_the_nearest_answer_counts_and_a_missing_one_is_dropped(tmp_path, capsys):
    """Offsets that are a little off, or behind the end; a text that is nowhere has no sentence."""
    ends = [changed(1, answers={"text": ["Rhein"], "answer_start": [at]}) for at in (0, 2, 500, -5)]
    for german in ends:
        assert build_squad(tmp_path, ".jsonl", german=german).rows["passage"][0] == BY_HAND[0][2]
    lost = changed(1, answers={"text": ["Donau"], "answer_start": [4]})
    corpus = build_squad(tmp_path, ".jsonl", german=lost)
    assert corpus.meta["dropped"]["no answer sentence"] == {"de": 1}
    assert "de.jsonl: 0 of 5 answers are elsewhere than the file says, 1 nowhere (dropped)" in (
        capsys.readouterr().out
    )
    whole = build_squad(tmp_path, ".jsonl", german=lost, passage="paragraph")
    assert "no answer sentence" not in whole.meta["dropped"]


def test_squad_in_one_language(tmp_path):
    """For arms that need no translations."""
    named = {"en": put_squad(tmp_path / "en.json", ENGLISH)}
    corpus = squad.build_corpus(asked(named, parallel=False))
    assert len(corpus.rows) == 4 and corpus.index.alone
    refused(lambda: squad.build_corpus(asked(named)), "en.json: has language en alone")


BAD_SQUAD = {
    "de.jsonl: row 1: answer_start 'a'": changed(0, answers={"text": ["x"], "answer_start": ["a"]}),
    "de.jsonl: row 3: id 'q4' is already in row 1": changed(2, id="q4"),
    "de.jsonl: row 4: id is null": changed(3, id=None),
    "de.jsonl: row 5: context is 3 (expected text)": changed(4, context=3),
    "de.jsonl: row 2: is_impossible is 'False' (expected true": changed(1, is_impossible="False"),
    "de.jsonl: row 2: answerable is 'no' (expected true or": changed(1, answerable="no"),
    "language de (": [r | {"id": "x" + r["id"]} for r in GERMAN],
}


@pytest.mark.parametrize("message", BAD_SQUAD)
def test_bad_squad_rows_are_refused(tmp_path, message):
    """With file and row; files without a common id are both named."""
    english = put_squad(tmp_path / "en.jsonl", ENGLISH)
    german = put_squad(tmp_path / "de.jsonl", BAD_SQUAD[message])
    found = refused(lambda: squad.build_corpus(asked({"en": english, "de": german})), message)
    if message.startswith("language"):
        assert "shares no pair with" in found and "de.jsonl" in found and "en.jsonl" in found


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "row 1: is [] (expected an object)"),
        ("{}", "no column 'data'"),
        ('{"data": [{"title": "x"}]}', "no column 'paragraphs'"),
        ('{"data": [{"paragraphs": [{"qas": []}]}]}', "no column 'context'"),
        ('{"data": [{"paragraphs": {}}]}', "paragraphs is {} (expected a list)"),
        ('{"data": []}', "language de (", ),
    ],
)  # fmt: skip
def test_bad_squad_json_is_refused(tmp_path, content, message):
    """Another JSON, a part missing, no question at all."""
    named = {
        "en": put_squad(tmp_path / "en.json", ENGLISH),
        "de": put(tmp_path / "d.json", content),
    }
    refused(lambda: squad.build_corpus(asked(named)), "d.json", message)


def test_files_that_do_not_fit_the_languages_are_refused(tmp_path):
    """No file of a language, two files of one, one language alone, none."""
    english, german = (
        put_squad(tmp_path / f"{x}.json", rows) for x, rows in (("en", ENGLISH), ("de", GERMAN))
    )
    both = {"en": english, "de": german}
    refused(
        lambda: squad.build_corpus(asked(both, languages=["en", "fr"])), "no file of language fr"
    )
    refused(lambda: squad.build_corpus(asked(both | {"deu": german})), "both of language de")
    refused(lambda: squad.build_corpus(asked({"en": english})), "at least two")
    refused(lambda: squad.build_corpus(asked({})), "at least two")
    refused(
        lambda: squad.build_corpus(asked(both | {"german": german})), "unknown language 'german'"
    )


@pytest.mark.parametrize(
    ("context", "answer", "expected"),
    [
        ("One. Two! Three? Four.", "Two", "Two!"),
        ("One. Two! Three? Four.", "Four", "Four."),
        ("It has 3.5 m. So.", "3.5", "It has 3.5 m."),
        ("The U.S. army. It left.", "army", "The U.S. army."),
        ('He said "go." They went.', "They", "They went."),
        ("第一句。第二句！第三句", "第二", "第二句！"),
        ("他说「好。」然后走。", "然后", "然后走。"),
        ("यह एक है। वह दो है।", "दो", "वह दो है।"),
        ("هل هو؟ نعم هو.", "نعم", "نعم هو."),
        ("แม่น้ำไรน์ ไหลไปทางเหนือ", "ไหล", "แม่น้ำไรน์ ไหลไปทางเหนือ"),
        ("A title\nThe text.", "text", "The text."),
        ("One. Two! Three?", "One. Two", "One. Two!"),
        ("no end", "end", "no end"),
    ],
)
def test_the_sentence_that_holds_an_answer(context, answer, expected):
    """Marks of several scripts, abbreviations, numbers, quotes, an answer over an end."""
    start = context.index(answer)
    assert squad.sentence(context, start, start + len(answer)) == expected


@given(st.text("ab .!。\n", min_size=1), st.data())
def test_a_sentence_is_part_of_its_context(context, data):
    """Whatever the text, the answer's characters are in its sentence."""
    start = data.draw(st.integers(0, len(context) - 1))
    end = data.draw(st.integers(start, len(context)))
    found = squad.sentence(context, start, end)
    assert found in context and context[start:end].strip() in found


# --- parallel sentences ------------------------------------------------------------------------


def test_bitext_by_hand(tmp_path):
    """Line n is pair n; empty lines are dropped and counted; equal English lines share a group."""
    named = {
        "eng": put(tmp_path / "x.eng.gz", "Hello.\nHe came.\nHello.\n\nBye.\n"),
        "deu": put(tmp_path / "x.deu", "Hallo.\r\nEr kam.\r\nGuten Tag.\r\nNanu?\r\nTschüs."),
    }
    corpus = bitext.build_corpus(asked(named))
    found = [(r["pair"], r["language"], r["question"], r["group"]) for r in corpus.rows]
    assert found == [
        ("00000001", "de", "Hallo.", "00000001"),
        ("00000001", "en", "Hello.", "00000001"),
        ("00000002", "de", "Er kam.", "00000002"),
        ("00000002", "en", "He came.", "00000002"),
        ("00000003", "de", "Guten Tag.", "00000001"),
        ("00000003", "en", "Hello.", "00000001"),
        ("00000004", "de", "Nanu?", "00000004"),
        ("00000005", "de", "Tschüs.", "00000005"),
        ("00000005", "en", "Bye.", "00000005"),
    ]
    assert corpus.rows["passage"][:] == corpus.rows["question"][:]
    assert corpus.rows["passage_id"][:] == corpus.rows["pair"][:]
    assert corpus.meta["dropped"] == {"empty": {"en": 1}}


def test_files_of_different_length_are_refused(tmp_path):
    """With both counts; one damaged on the way is named with its row."""
    named = {"en": put(tmp_path / "a.en", "1\n2\n3\n"), "de": put(tmp_path / "a.de", "1\n2\n")}
    refused(lambda: bitext.build_corpus(asked(named)), "a.de has 2 lines", "a.en 3")
    named["de"] = put(tmp_path / "a.de", b"1\n2\n\xff\n")
    refused(lambda: bitext.build_corpus(asked(named)), "a.de: row 3: is not UTF-8")


# --- parallel documents ------------------------------------------------------------------------


def put_ntrex(folder, english, german, documents):
    """A folder in NTREX's layout, of lines."""
    folder.mkdir()
    for name, lines in (("src.eng", english), ("ref.deu", german), ("ref-2.deu", german)):
        put(folder / f"newstest2019-{name}.txt.gz", "".join(f"{line}\n" for line in lines))
    put(folder / "DOCUMENT_IDS.tsv", "".join(f"{name}\n" for name in documents))
    return folder


def ntrex_of(folder, **others):
    asked_of = {"source": "ntrex", "folder": str(folder), "folds": 1000} | others
    return ntrex.build_corpus(Prepare(**asked_of))


def test_next_sentences_go_in_twos(tmp_path):
    """Of documents of three, two and one sentence: two twos, no text on both sides; what is one
    line is one sentence in the other form; documents are articles."""
    lines = [f"Line {n}." for n in range(6)]
    folder = put_ntrex(tmp_path / "n", lines, [f"Zeile {n}." for n in range(6)], "aaabbc")
    corpus = ntrex_of(folder, passage="next")
    assert [
        (r["pair"], r["language"], r["question"], r["passage"], r["article"]) for r in corpus.rows
    ] == [
        ("00000001", "de", "Zeile 0.", "Zeile 1.", "a"),
        ("00000001", "en", "Line 0.", "Line 1.", "a"),
        ("00000004", "de", "Zeile 3.", "Zeile 4.", "b"),
        ("00000004", "en", "Line 3.", "Line 4.", "b"),
    ]
    same = ntrex_of(folder)
    assert same.rows["passage"][:] == same.rows["question"][:]
    assert len(same.rows) == 12 and set(same.meta["inputs"]) == {"de", "en", "DOCUMENT_IDS.tsv"}


@given(st.lists(st.integers(1, 7), min_size=1, max_size=8))
def test_twos_leave_no_text_on_both_sides(sizes):
    """Of a document of n sentences there are n // 2 twos, each of neighbours in it."""
    document = [str(name) for name, size in enumerate(sizes) for _ in range(size)]
    firsts, seconds = ntrex._twos(document)
    assert len(firsts) == sum(size // 2 for size in sizes)
    assert not set(firsts) & set(seconds)
    for one, other in zip(firsts, seconds, strict=True):
        assert other == one + 1 and document[one] == document[other]


def test_a_document_is_held_out_whole(tmp_path):
    """split: article."""
    lines = [f"Line {n}." for n in range(40)]
    folder = put_ntrex(
        tmp_path / "n", lines, [f"Zeile {n}." for n in range(40)], [n // 4 for n in range(40)]
    )
    corpus = ntrex_of(folder, split="article", folds=3, passage="next")
    trained, tested = (set(part["article"]) for part in (corpus.rows, corpus.test))
    assert trained and tested and not trained & tested


def test_folders_that_are_not_of_its_layout_are_refused(tmp_path):
    lines = ["One.", "Two."]
    folder = put_ntrex(tmp_path / "n", lines, ["Eins."], "aa")
    refused(lambda: ntrex_of(folder), "ref.deu.txt.gz has 1 lines", "src.eng.txt.gz 2")
    put(folder / "newstest2019-ref.deu.txt.gz", "Eins.\nZwei.\n")
    put(folder / "DOCUMENT_IDS.tsv", "a\n")
    refused(lambda: ntrex_of(folder), "DOCUMENT_IDS.tsv has 1 lines (expected 2")
    refused(lambda: ntrex_of(tmp_path), "has no files newstest2019-ref.<xxx>.txt")
    refused(lambda: ntrex_of(""), "folder: is empty")
    looked = asked({}, folder=str(folder), passage="paragraph")
    refused(lambda: ntrex.look(looked), "'paragraph' does not go with ntrex")
    (folder / "DOCUMENT_IDS.tsv").unlink()
    looked = asked({}, folder=str(folder))
    refused(lambda: ntrex.look(looked), "DOCUMENT_IDS.tsv: no such file")
    put(folder / "newstest2019-ref.xqx.txt", "1\n2\n")
    refused(lambda: ntrex.look(looked), "newstest2019-ref.xqx.txt", "in its name")


# --- all of them -------------------------------------------------------------------------------


@pytest.mark.parametrize("source", [pairs, squad, bitext])
def test_the_order_of_files_changes_nothing(tmp_path, source):
    """Same files, same corpus, however they are listed."""
    if source is pairs:
        named = {x: put_jsonl(tmp_path / f"{x}.jsonl", OWN[i::2]) for i, x in enumerate("ab")}
    elif source is squad:
        named = {
            "en": put_squad(tmp_path / "en.json", ENGLISH),
            "de": put_squad(tmp_path / "de.json", GERMAN),
        }
    else:
        named = {x: put(tmp_path / x, f"{x} 1\n{x} 2\n") for x in ("en", "de")}
    one, two = (
        source.build_corpus(asked(dict(x))) for x in (named.items(), reversed(named.items()))
    )
    assert one.meta == two.meta
    assert one.pool.to_list() == two.pool.to_list()


# --- the public data ---------------------------------------------------------------------------

# language: (answerable, with answer sentence, unanswerable, passages), as the data's README states
SQUAD_COUNTS = {
    "en": (9380, 9380, 5063, 1827),
    "zh": (6957, 6633, 5063, 1818),
    "da": (6744, 6743, 2987, 1815),
    "it": (6117, 6117, 0, 1614),
    "es": (5851, 5851, 2784, 1789),
    "pt": (5111, 5011, 5063, 1031),
    "sv": (4492, 4492, 5063, 1031),
    "id": (3770, 3770, 3206, 1029),
}
SHARED = {"en zh": 6957, "en zh da": 5190, "en es zh": 4529, "en es zh it da": 2562}


def squad_file(language):
    return str(DATA / f"squad-train/{language}.jsonl.gz")


@pytest.fixture(scope="module")
def public():
    """language -> questions of the public SQuAD translations."""
    return {x: list(squad.questions(squad_file(x), "sentence")) for x in SQUAD_COUNTS}


@needs_data
def test_public_squad_has_its_published_counts(public):
    """Questions by language, and those that languages share."""
    found = {
        language: (
            sum(q.answerable for q in own),
            sum(q.passage is not None for q in own),
            sum(not q.answerable for q in own),
            len({q.paragraph for q in own}),
        )
        for language, own in public.items()
    }
    assert found == SQUAD_COUNTS
    answerable = {x: {q.id for q in own if q.answerable} for x, own in public.items()}
    for languages, number in SHARED.items():
        assert len(set.intersection(*(answerable[x] for x in languages.split()))) == number


@needs_data
@pytest.mark.parametrize("passage", ["sentence", "paragraph"])
def test_every_row_of_public_squad_is_accounted_for(public, passage):
    """Training, test and dropped rows add up, language by language; no group is in both."""
    p = asked({x: squad_file(x) for x in public}, passage=passage, folds=5)
    corpus = squad.build_corpus(p)
    counts, dropped = corpus.meta["counts"], corpus.meta["dropped"]
    for language, own in public.items():
        lost = sum(by_language.get(language, 0) for by_language in dropped.values())
        assert counts["rows"][language] + counts["test"][language] + lost == len(own)
    assert not set(corpus.rows["group"][:]) & set(corpus.test["group"][:])
    pool = {(r["passage_id"], r["language"]): r["passage"] for r in corpus.pool}
    assert all(pool[r["passage_id"], r["language"]] == r["passage"] for r in corpus.test)


@needs_data
def test_our_sentences_are_nearly_those_of_public_squad():
    """The splitter finds the given sentence of nearly every English answer (measured: 95.7 %)."""
    found = []
    for r in files.records(squad_file("en")):
        if given := r.values.get("answer_sentence"):
            start = r["answer_start"]
            own = squad.sentence(r.raw("context"), start, start + len(r["answer"]))
            found.append(own == given)
    assert sum(found) > 0.95 * len(found)


@needs_data
def test_public_parallel_sentences():
    """NTREX has 1,997 lines a language, Tatoeba 1,000 for Afrikaans."""
    folder = DATA / "ntrex"
    named = {"eng": folder / "newstest2019-src.eng.txt.gz"}
    named |= {x: folder / f"newstest2019-ref.{x}.txt.gz" for x in ("deu", "zho-CN", "swa")}
    counts = bitext.build_corpus(asked(named, folds=5)).meta["counts"]
    assert counts["pool"]["en"] == counts["rows"]["en"] + counts["test"]["en"] == 1997
    assert set(counts["pool"]) == {"de", "en", "sw", "zh"}
    named = {x: DATA / f"tatoeba/tatoeba.afr-eng.{x}" for x in ("afr", "eng")}
    assert bitext.build_corpus(asked(named)).meta["counts"]["pool"] == {"af": 1000, "en": 1000}
