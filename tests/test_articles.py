"""Articles of SQuAD-type files: what folds hold out, what clusters are, what was not trained on.

Real files are checked where they are at hand (a folder beside the project)."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib import benchmarks
from lib.benchmarks import heldout
from lib.params import BadParameter, BenchmarkSpec, Prepare
from lib.sources import check, files, squad, xtreme_squad
from lib.sources.assemble import corpus_of_rows
from lib.study import grid

DATA = Path(__file__).parents[2] / "shared" / "data"
TITLES = ("Sky_(United_Kingdom)", "Rhine", "Elbe", "Oder", "Ems", "Weser")
KNOWN = ["sky (united kingdom)", "rhine", "elbe", "oder", "ems", "weser"]


def squad_json(language, titled=lambda title: title, titles=TITLES):
    """SQuAD's own JSON: of each title two paragraphs of one sentence each with two questions."""
    articles = []
    for title in titles:
        paragraphs = []
        for number in range(2):
            context = f"{language} {title} {number} flows north."
            start = context.index("north")
            qas = [
                {
                    "id": f"{title}-{number}{i}",
                    "question": f"{language} {title} {number}{i}?",
                    "answers": [{"text": "north", "answer_start": start}],
                }
                for i in "ab"
            ]
            breaks = [[0, len(context)]]
            paragraphs.append({"context": context, "qas": qas, "sentence_breaks": breaks})
        named = {"title": titled(title)} if titled(title) else {}
        articles.append(named | {"paragraphs": paragraphs})
    return json.dumps({"data": articles})


def put(folder, **texts):
    """Files of languages."""
    folder.mkdir(exist_ok=True)
    for language, text in texts.items():
        (folder / f"{language}.json").write_text(text)
    return str(folder)


def prepared(folder, **others):
    return Prepare(**{"source": "xtreme_squad", "folder": folder, "folds": 3} | others)


def built(folder, **others):
    return xtreme_squad.build_corpus(prepared(folder, **others))


def articles(table):
    """Of each row; an empty table has no columns."""
    return table["article"][:] if len(table) else []


@pytest.fixture
def rivers(tmp_path):
    """English and German, each with titles of its own."""
    german = squad_json("de", lambda title: f"{title}_auf_Deutsch")
    return put(tmp_path / "rivers", en=squad_json("en"), de=german)


# --- which article a row is of -----------------------------------------------------------------


def test_articles_have_english_titles_in_every_language(rivers):
    """A translated title is no other article; two languages, four questions an article."""
    corpus = built(rivers, folds=1000, fold=999)
    titles = articles(corpus.rows) + articles(corpus.test)
    assert {title: titles.count(title) for title in KNOWN} == dict.fromkeys(KNOWN, 8)
    assert len(titles) == 48


def test_a_question_of_one_language_is_of_the_article_of_its_paragraph(tmp_path):
    """German asks one more about the Rhine; flat rows without titles say so by their paragraph."""
    context, extra = "Der Rhein fließt.", {"id": "new", "question": "Neu?"}
    rows = [{"id": "Rhine-0a", "question": "Alt?"}, extra]
    about = {"context": context, "answers": {"text": ["fließt"], "answer_start": [10]}}
    folder = put(tmp_path / "x", en=squad_json("en"))
    text = "".join(json.dumps(row | about) + "\n" for row in rows)
    (tmp_path / "x" / "de.jsonl").write_text(text)
    corpus = built(folder, folds=1000, fold=999)
    found = {r["pair"]: r["article"] for r in corpus.rows if r["language"] == "de"}
    assert found == {"Rhine-0a": "rhine", "new": "rhine"}


def test_without_titles_all_is_as_it_was(tmp_path, rivers):
    """No column, and the rows of a corpus with titles but for their names of paragraphs: SQuAD's
    JSON numbers articles without a title. One article without is enough."""

    def anonymous(title):
        return "" if title == "Rhine" else title

    folder = put(tmp_path / "x", en=squad_json("en", anonymous), de=squad_json("de", anonymous))
    corpus, titled = built(folder), built(rivers)
    assert "article" not in corpus.rows.column_names + corpus.test.column_names
    assert titled.rows.column_names == [*corpus.rows.column_names, "article"]
    groups = set(corpus.rows["group"][:]) | set(corpus.test["group"][:])
    assert {"article 1#0", "article 1#1", "Elbe#0"} <= groups and "Rhine#0" not in groups


@pytest.mark.parametrize("fold", [0, 1, 2])
def test_articles_change_nothing_else(rivers, monkeypatch, fold):
    """The default split, by group, is the one of rows without articles: same rows, same test, same
    pool, and without the column the same content."""
    titled = built(rivers, fold=fold)
    monkeypatch.setattr(squad, "name_articles", lambda read: dict.fromkeys(titled_ids(), ""))
    plain = built(rivers, fold=fold)
    rows, test = (t.remove_columns("article").to_list() for t in (titled.rows, titled.test))
    assert rows == plain.rows.to_list() and test == plain.test.to_list()
    assert titled.pool.to_list() == plain.pool.to_list()
    again = corpus_of_rows(rows, {}, test, titled.pool.to_list())
    assert again.content_hash == plain.content_hash != titled.content_hash


def titled_ids():
    return [f"{title}-{number}{i}" for title in TITLES for number in range(2) for i in "ab"]


# --- folds -------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 12)), min_size=1, max_size=30),
    st.integers(2, 5),
)
def test_each_article_is_tested_in_one_fold(drawn, folds):
    """Whatever articles and groups share rows: no article and no group is on both sides of a fold,
    and every row is tested in one fold."""
    rows = [
        {"pair": str(i), "language": "en", "passage_id": str(i), "passage": "x",
         "group": f"g{group}", "article": f"a{article}"}
        for i, (article, group) in enumerate(drawn)
    ]  # fmt: skip
    tested = []
    for fold in range(folds):
        train, test, _ = files.held_out(rows, fold, folds, "article")
        assert len(train) + len(test) == len(rows)
        for unit in ("article", "group"):
            assert {r[unit] for r in train}.isdisjoint(r[unit] for r in test)
        tested += [r["pair"] for r in test]
    assert sorted(tested) == sorted(r["pair"] for r in rows)


def test_whole_articles_are_held_out(rivers):
    """Of files: a fold trains on no row of a tested article; the folds test all six, once. By group
    some article is parted."""
    tested, parted = [], 0
    for fold in range(3):
        corpus = built(rivers, split="article", fold=fold)
        trained, test = (set(table["article"][:]) for table in (corpus.rows, corpus.test))
        assert trained.isdisjoint(test) and len(trained | test) == 6
        assert len(corpus.test) == 8 * len(test) and len(corpus.pool) == 24
        tested += test
        by_group = built(rivers, fold=fold)
        parted += not set(by_group.rows["article"][:]).isdisjoint(by_group.test["article"][:])
    assert sorted(tested) == sorted(KNOWN) and parted


def test_articles_that_share_a_passage_are_held_out_together(tmp_path):
    """One text in two articles: their groups are one, and so they are."""
    same = squad_json("en").replace("en Elbe 0 flows", "en Rhine 0 flows")
    folder = put(tmp_path / "x", en=same, de=squad_json("de"))
    for fold in range(3):
        test = articles(built(folder, split="article", fold=fold).test)
        assert ("rhine" in test) == ("elbe" in test)


def test_a_split_by_article_needs_articles(tmp_path):
    """A source without any is refused before anything runs; files without titles in one line."""
    with pytest.raises(ValueError, match=r"^split: 'article' does not go with source 'cldr'"):
        check(Prepare(split="article"))
    text = "prepare: {split: article}"
    (tmp_path / "study.yaml").write_text(text)
    with pytest.raises(BadParameter, match="prepare.split: 'article' does not go with"):
        grid.load_study(tmp_path / "study.yaml")
    folder = put(tmp_path / "x", en=squad_json("en", lambda _: ""), de=squad_json("de"))
    line = r"^language \w\w \(.*\.json\): pair '.*' is in no article \(prepare.split: article expec"
    with pytest.raises(ValueError, match=line) as caught:
        built(folder, split="article")
    assert "\n" not in str(caught.value)


# --- clusters ----------------------------------------------------------------------------------


def test_clusters_of_held_out_questions_are_articles(rivers):
    """Or paragraphs, where these are asked for; nothing else differs. Of both splits."""
    for split in ("group", "article"):
        corpus = built(rivers, split=split)
        found = heldout.load_benchmark(corpus)
        article = dict(zip(corpus.test["pair"], corpus.test["article"], strict=True))
        assert found.questions["group"].tolist() == [
            article[pair] for pair in found.questions["question_id"]
        ]
        spec = BenchmarkSpec(format="heldout", clusters="paragraph")
        paragraphs = benchmarks.load_benchmark("heldout", spec, corpus)
        assert set(paragraphs.questions["group"]) == set(corpus.test["group"])
        assert (paragraphs.questions["text"] == found.questions["text"]).all()
        assert paragraphs.digest != found.digest


def test_a_corpus_without_articles_has_its_groups_as_clusters(tmp_path):
    """Both words give the same benchmark."""
    anonymous = (squad_json(x, lambda _: "") for x in ("en", "de"))
    corpus = built(put(tmp_path / "x", **dict(zip(("en", "de"), anonymous, strict=True))))
    by_article, by_paragraph = (
        heldout.load_benchmark(corpus, clusters) for clusters in ("article", "paragraph")
    )
    assert by_article.digest == by_paragraph.digest
    assert set(by_article.questions["group"]) == set(corpus.test["group"])


def test_validation_takes_whole_articles_where_folds_do(rivers):
    """Then no article is both chosen by and reported on; else whole paragraphs, as before."""
    for split, column in (("article", "article"), ("group", "group")):
        corpus = built(rivers, folds=2, split=split)
        corpus.meta["dev"] = 0.4
        column_of = dict(zip(corpus.test["pair"], corpus.test[column], strict=True))
        dev, test = (
            {column_of[pair] for pair in part.questions["question_id"]}
            for part in (heldout.dev(corpus), heldout.load_benchmark(corpus))
        )
        assert dev and test and dev.isdisjoint(test)
        assert dev | test == set(corpus.test[column])


# --- unseen articles ---------------------------------------------------------------------------


def asked(folder, **others):
    return BenchmarkSpec(format="lareqa", folder=folder, unseen=True, **others)


@pytest.fixture
def xquad(tmp_path):
    """A benchmark of three of the articles, spelled otherwise, and one that no corpus has."""
    titles = [*TITLES[:3], "Danube"]
    texts = {
        x: squad_json(x, lambda title: title.replace("_", " ").upper(), titles)
        for x in ("en", "de", "th")
    }
    return put(tmp_path / "xquad", **texts)


def test_only_questions_of_unseen_articles_are_asked(rivers, xquad, capsys):
    """Those of the fold and the one that is nowhere else; all candidates stay, and each fold has
    another benchmark."""
    digests = set()
    for fold in range(3):
        corpus = built(rivers, split="article", fold=fold)
        found = benchmarks.load_benchmark("x", asked(xquad), corpus)
        left = {"danube", *corpus.test["article"]} & {*KNOWN[:3], "danube"}
        whole = benchmarks.load_benchmark("x", BenchmarkSpec(format="lareqa", folder=xquad), corpus)
        expected = whole.questions["article"].isin(left)
        assert found.questions["question_id"].tolist() == (
            whole.questions.loc[expected, "question_id"].tolist()
        )
        assert len(found.questions) == 12 * len(left) == len(found.question) / 3
        assert found.candidates.equals(whole.candidates) and len(whole.candidates) == 24
        assert f"x: {len(left)} of 4 articles are not trained on" in capsys.readouterr().out
        digests.add(found.digest)
    assert len(digests) == 3


def test_unseen_goes_with_trained_languages(rivers, xquad):
    """Thai is left out on both sides."""
    corpus = built(rivers, split="article")
    found = benchmarks.load_benchmark("x", asked(xquad, trained=True), corpus)
    assert found.languages == ("de", "en") and len(found.candidates) == 16


def test_an_article_counts_as_seen_by_one_row(rivers, xquad):
    """By group each article has training rows, so none but the Danube is left."""
    corpus = built(rivers, folds=1000, fold=999)
    found = benchmarks.load_benchmark("x", asked(xquad), corpus)
    assert set(found.questions["article"]) == {"danube"}


def one_line(call, *parts):
    with pytest.raises(ValueError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, message


def test_what_cannot_be_unseen_is_refused(tmp_path, rivers, xquad):
    """No question left; a corpus, a benchmark or a format without articles; a study that shows it
    before anything runs."""
    corpus = built(rivers, folds=1000, fold=999)
    same = put(tmp_path / "same", en=squad_json("en"), de=squad_json("de"))
    one_line(
        lambda: benchmarks.load_benchmark("x", asked(same), corpus),
        "benchmark 'x': unseen: no question is left, all 6 articles", "prepare.split: article",
    )  # fmt: skip
    untitled = squad_json("en", lambda _: "")
    anonymous = put(tmp_path / "anonymous", en=untitled, de=squad_json("de"))
    for folder, others in ((anonymous, {}), (xquad, {"languages": ["de", "th"]})):
        one_line(
            lambda f=folder, o=others: benchmarks.load_benchmark("x", asked(f, **o), corpus),
            "benchmark 'x': unseen: a question's article has no title (expected English titles)",
        )
    one_line(
        lambda: benchmarks.load_benchmark("x", asked(xquad), built(anonymous)),
        "benchmark 'x': unseen: the corpus names no articles",
    )
    one_line(
        lambda: benchmarks.check(BenchmarkSpec(format="heldout", unseen=True)),
        "unseen: does not go with heldout",
    )
    text = "evaluate: {benchmarks: {x: {format: lareqa, unseen: true}}}"
    (tmp_path / "study.yaml").write_text(text)
    with pytest.raises(BadParameter, match=re.escape("[x]: unseen: does not go with prepare.sour")):
        grid.load_study(tmp_path / "study.yaml")


# --- a study, and real files -------------------------------------------------------------------


def test_seeds_of_one_fold_share_their_corpus():
    """Eight seeds over four folds: four corpora, each named by the first of its two seeds."""
    study = grid.load_study(Path(__file__).parents[1] / "params" / "xquad-articles.yaml")
    assert list(study.corpora) == [f"seed={i}" for i in range(4)]
    assert len(study.runs) == 4 * 8
    for run in study.runs.values():
        assert run.train.corpus == f"seed={run.train.seed % 4}"
        assert study.corpora[run.train.corpus].fold == run.train.seed % 4


@pytest.mark.skipif(
    not (DATA / "squad-train").is_dir() or not (DATA / "xquad-r").is_dir(),
    reason=f"SQuAD files and XQuAD-R are not in {DATA}",
)
def test_the_folds_of_real_files_test_all_of_xquad_r():
    """Translations of SQuAD's dev set have the 48 articles of XQuAD-R, by title; together four
    folds ask each of its 13,090 questions once."""
    spec, seen = asked(str(DATA / "xquad-r")), []
    for fold in range(4):
        corpus = built(str(DATA / "squad-train"), folds=4, fold=fold, split="article")
        found = benchmarks.load_benchmark("xquad-r", spec, corpus)
        tested = set(corpus.test["article"])
        assert set(found.questions["article"]) == tested
        assert found.questions["group"].nunique() == len(tested)
        assert tested.isdisjoint(corpus.rows["article"]) and len(found.candidates) == 13_014
        seen += found.questions["question_id"].tolist()
    assert len(seen) == 13_090 and len(set(seen)) == 1_190
