"""The leak audit: hand-made overlaps, a slow reference, and the figures known for real data."""

import gzip
import json
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.benchmark import Benchmark
from lib.benchmarks import leaks
from lib.benchmarks.leaks import Example, audit, leak_audit

DATA = Path(__file__).parents[2] / "shared" / "data"
RUN = " ".join(f"w{i}" for i in range(13))
THAI = "ประเทศสหรัฐอเมริกา" * 4


def counts(training, text: str) -> tuple[int, int, int]:
    """Whether one benchmark text overlaps, as 0 or 1 by kind."""
    found = leak_audit(training, [text])
    return found.exact, found.normalised, found.ngram


# ---- what counts ----


def test_each_kind_is_counted():
    """One text verbatim, one but for case and punctuation, one by 13 words, one not at all."""
    found = leak_audit(
        ["The exact text.", "Only, normalised!", f"before {RUN} after"],
        ["The exact text.", "only normalised", f"x {RUN} y", "something else", "something else"],
    )
    assert (found.texts, found.long) == (4, 1)
    assert (found.exact, found.normalised, found.ngram, found.overlapping) == (1, 2, 1, 3)


@pytest.mark.parametrize(
    "enough, too_little",
    [
        (RUN, RUN[: RUN.rindex(" ")]),
        ("问题和段落在同一种语言里训", "问题和段落在同一种语言里"),
        (THAI[:65], THAI[:64]),
        (f"{RUN[: RUN.rindex(' ')]} {THAI[:5]}", f"{RUN[: RUN.rindex(' ')]} {THAI[:4]}"),
    ],
    ids=["13 words", "13 Han", "65 Thai", "12 words and 5 Thai"],
)
def test_shortest_run(enough, too_little):
    """Thirteen words are a run, twelve none; a Han character is a word, five Thai ones are."""
    assert counts([f"a {enough} b"], f"c {enough} d") == (0, 0, 1)
    assert counts([f"a {too_little} b"], f"c {too_little} d") == (0, 0, 0)


def test_run_is_not_cut_short_by_a_longer_word():
    """Words are compared whole: the last one may not go on in the other text."""
    assert counts([f"a {RUN}s b"], f"c {RUN} d") == (0, 0, 0)


def test_vowel_signs_count_and_unicode_forms_do_not():
    """Togo and Tonga differ in Hindi by signs alone; composed and decomposed accents are equal."""
    assert counts(["टोंगा कहाँ है?"], "टोगो कहाँ है?") == (0, 0, 0)
    assert counts(["टोंगा कहाँ है?"], "टोंगा कहाँ है") == (0, 1, 0)
    assert counts(["Café １２"], unicodedata.normalize("NFD", "café 12")) == (0, 1, 0)


def test_texts_without_words_are_not_all_the_same():
    """Only the same string of punctuation is an overlap."""
    assert counts(["...", ""], "?!") == (0, 0, 0)
    assert counts(["...", "?!"], "?!") == (1, 1, 0)


@given(
    st.lists(st.text("ab กข,", max_size=40), max_size=4),
    st.lists(st.text("ab กข,", max_size=40), max_size=4),
)
def test_equal_to_a_slow_search(training, benchmark):
    """Comparing all stretches of all texts gives the same counts, at runs of two words."""

    def stretches(text):
        words = leaks.words(text)
        return {
            tuple(words[i:j])
            for j in range(len(words) + 1)
            for i in range(j)
            if sum(1 if word in "กข" else 5 for word in words[i:j]) >= 10
        }

    known = set().union(*map(stretches, training))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leaks, "NGRAM", 2)
        found = leak_audit(training, benchmark)
    distinct = set(benchmark)
    same = {tuple(leaks.words(text)) or text for text in training}
    assert found.texts == len(distinct)
    assert found.exact == len(distinct & set(training))
    assert found.normalised == sum((tuple(leaks.words(x)) or x) in same for x in distinct)
    assert found.ngram == sum(bool(stretches(x) & known) for x in distinct)
    assert found.long == sum(bool(stretches(x)) for x in distinct)


# ---- examples and tables ----


def test_examples_show_both_texts():
    """The first training text that overlaps, up to three a kind, each benchmark text once."""
    training = [f"Before {RUN}.", f"After {RUN}.", *"ABCD"]
    found = leak_audit(iter(training), [f"x {RUN} y", *"ABCD", "a"]).examples
    assert found[:3] == tuple(Example("exact", x, x) for x in "ABC")
    assert found[3:] == (
        Example("normalised", "a", "A"),
        Example("ngram", f"x {RUN} y", f"Before {RUN}."),
    )
    assert found[-1].shared == RUN


def toy() -> Benchmark:
    """Two questions in each of two languages, two relevant passages and one that is not."""
    questions = pd.DataFrame(
        {
            "question_id": ["1", "2", "1", "2"],
            "language": ["de", "de", "en", "en"],
            "text": ["wer?", "wo?", "who?", "where?"],
            "group": "g",
        }
    )
    candidates = pd.DataFrame(
        {
            "candidate_id": ["1", "2", "3"],
            "language": ["de", "en", "en"],
            "text": ["Ich.", "Me.", f"Not {RUN}."],
        }
    )
    return Benchmark.from_pairs("toy", questions, candidates, range(4), [0, 0, 1, 1])


def test_audit_tells_the_parts_of_a_benchmark_apart():
    """Questions, passages that answer one, and all passages, each against one reading."""
    table = audit(iter(["WHO?", "me", f"{RUN}!"]), toy())
    assert table["part"].tolist() == ["questions", "relevant candidates", "candidates"]
    assert table["texts"].tolist() == [4, 2, 3]
    assert table["long"].tolist() == [0, 0, 1]
    assert table["normalised"].tolist() == [1, 1, 1]
    assert table["ngram"].tolist() == [0, 0, 1]
    assert table["overlapping"].tolist() == [1, 1, 2]
    assert table["exact"].sum() == 0
    [example] = table["examples"][0]
    assert example == {
        "kind": "normalised",
        "benchmark": "who?",
        "training": "WHO?",
        "shared": "who",
    }


def test_audit_by_language_adds_up():
    """A row a part and language; the languages of a part sum to its own row."""
    training = ["WHO?", "Ich.", f"{RUN}!"]
    table = audit(training, toy(), by_language=True)
    assert table[["part", "language"]].value_counts().tolist() == [1] * 6
    names = ["texts", "long", "exact", "normalised", "ngram", "overlapping"]
    summed = table.groupby("part", sort=False)[names].sum()
    np.testing.assert_array_equal(summed, audit(training, toy())[names])
    assert table.set_index(["part", "language"])["exact"]["candidates", "de"] == 1


def test_audit_can_be_saved(tmp_path):
    """Parquet gives the table back, examples included, also where there are none."""
    for training in ["WHO?", "Me."], []:
        table = audit(training, toy())
        table.to_parquet(tmp_path / "leaks.parquet", index=False)
        back = pd.read_parquet(tmp_path / "leaks.parquet")
        assert [list(x) for x in back["examples"]] == table["examples"].tolist()
        assert back.drop(columns="examples").equals(table.drop(columns="examples"))


# ---- real data ----


def xquad(language: str) -> Benchmark:
    """XQuAD-R with paragraphs as relevant candidates, and sentences beside them."""
    document = json.loads((DATA / f"xquad-r/{language}.json").read_text("utf-8"))
    paragraphs = [p for article in document["data"] for p in article["paragraphs"]]
    asked = [(q["question"], i) for i, p in enumerate(paragraphs) for q in p["qas"]]
    texts = [p["context"] for p in paragraphs]
    texts += [p["context"][a:b] for p in paragraphs for a, b in p["sentence_breaks"]]
    questions = pd.DataFrame({"text": [text for text, _ in asked], "language": "x", "group": "g"})
    candidates = pd.DataFrame({"text": texts, "language": "x"})
    return Benchmark.from_pairs(
        "xquad-r",
        questions.assign(question_id=questions.index),
        candidates.assign(candidate_id=candidates.index),
        range(len(asked)),
        [paragraph for _, paragraph in asked],
    )


def squad(name: str) -> list[str]:
    """Questions, paragraphs and answer sentences of a training file."""
    with gzip.open(DATA / f"squad-train/{name}.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    keys = ("question", "context", "answer_sentence")
    return list(dict.fromkeys(row.get(key) or "" for key in keys for row in rows))


@pytest.mark.parametrize("name, equal_questions", [("en", 0), ("en.train87k", 1)])
def test_figures_of_squad_against_xquad_r(name, equal_questions):
    """0 of 240 paragraphs occur exactly and 3 share 13 words, no sentence occurs, 0 or 1 question.

    Sentences are looked for as texts of their own. Inside training paragraphs three short ones do
    occur ("Examples of clothing are also displayed.", "1", "3, 1")."""
    if not DATA.is_dir():
        pytest.skip(f"no {DATA}: the overlap of real training data and XQuAD-R is not checked")
    table = audit(squad(name), xquad("en")).set_index("part")
    assert table["texts"].tolist() == [1187, 240, 240 + 1180 - 7]  # 7 paragraphs are one sentence
    assert table["exact"].tolist() == [equal_questions, 0, 0]
    assert table["normalised"].tolist() == [equal_questions, 0, 0]
    assert table["ngram"].tolist()[:2] == [0, 3]
    assert all(x["shared"].count(" ") >= 12 for x in table["examples"]["relevant candidates"])


def test_unrelated_thai_text_is_no_leak():
    """Thai news share no run with XQuAD-R, as English news do not: 13 characters are not enough."""
    if not DATA.is_dir():
        pytest.skip(f"no {DATA}: false alarms on real Thai text are not checked")
    [file] = (DATA / "ntrex").glob("*.tha*")
    news = gzip.decompress(file.read_bytes()).decode("utf-8").splitlines()
    assert len(news) == 1997
    assert audit(news, xquad("th"))["overlapping"].sum() == 0
