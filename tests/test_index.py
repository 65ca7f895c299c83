"""The page over all studies: what it says follows from the kept tables, and a study that is added
is on it."""

import json
import re

import pandas as pd
import pytest
from bs4 import BeautifulSoup
from test_prompts import told_by
from test_trends import scarce

from lib import params
from lib.analysis import claims, overview
from lib.analysis.overview import Kept, Trained
from lib.store import ROOT
from lib.study import __main__ as command
from lib.study import index

COST, GAIN, BATCH = (claim.words for claim in claims.PRIMARY)
BEST = claims.CLAIMS[1].words


def primary(cost, gain, batch, verdict="supported", seeds=8):
    """The table of primary contrasts, with intervals .01 wide on each side."""
    rows = []
    for claim, value in zip(claims.PRIMARY, (cost, gain, batch), strict=True):
        ((setting, versus),) = claim.pairs
        about = {"family": "primary", "claim": claim.words, "arm": "hybrid(0.5)", "versus": versus}
        about |= {"setting": setting, "metric": "ap", "null": 0.0, "difference": value}
        about |= {"low": value - 0.01, "high": value + 0.01, "seeds": seeds, "clusters": 12}
        rows.append(about | {"detectable": 0.02, "p": 0.001, "p_holm": 0.003, "verdict": verdict})
    return pd.DataFrame(rows).assign(why="")


def quality(best=0.6, bm25=0.7):
    rows = [
        {"arm": arm, "setting": setting, "metric": "ap", "estimate": value, "low": 0.1}
        | {"high": 0.9, "seeds": 8, "clusters": 12, "questions": 340}
        for arm, value in (("mono", 0.5), ("cross", best), ("BM25 char n-grams", bm25))
        for setting in ("mono", "cross", "multi")
    ]
    return pd.DataFrame(rows)


def judged(verdict):
    rows = [("exploratory", BEST, verdict, "3 comparisons"), ("exploratory", "MIRACL", "not tested",
             "needs MIRACL")]  # fmt: skip
    return pd.DataFrame(rows, columns=["family", "claim", "verdict", "why"])


def series(values):
    """Tables of a study along an axis: the mono cost at 5 and 100, and its slope."""
    along = pd.DataFrame(
        [["mono cost", x, y, y - 0.01, y + 0.01, 8] for x, y in values.items()]
        + [["multi gain", 5, 0.5, 0.4, 0.6, 8]],
        columns=["contrast", "x", "value", "low", "high", "seeds"],
    )
    slopes = pd.DataFrame(
        [["mono cost", -0.012, -0.02, -0.004, 0.01, 0.001, 8, 0.002, 1.0],
         ["multi gain", 0.3, 0.2, 0.4, 0.01, 0.001, 8, 0.002, 1.0]],
        columns=[*"contrast slope low high detectable p seeds p_holm p_turn".split()],
    )  # fmt: skip
    return {"trend": along, "slopes": slopes}


def made(count=2):
    train = params.Train(strategy="mono", steps=400, batch_size=64)
    return Trained([params.Prepare()], [{"en": 1000, "de": 500}], [train] * 2, count, "asked")


@pytest.fixture
def place(outputs):
    """A function that keeps a study of two runs, in the way of a ledger with its report."""

    def keep(name, tables, **analyse):
        folder = outputs / "reference" / name
        (folder / "tables").mkdir(parents=True)
        for file, table in tables.items():
            table.to_csv(folder / "tables" / f"{file}.csv", index=False, float_format="%.6f")
        frozen = json.loads((ROOT / "outputs/reference/quick/ledger/study.json").read_text())
        frozen["runs"] = {k: frozen["runs"][k] for k in list(frozen["runs"])[:2]}
        frozen["analyse"] |= {"study": name} | analyse
        own = folder / "ledger"
        for key in frozen["corpora"]:
            (own / "corpus" / key / "data").mkdir(parents=True)
            counts = {"counts": {"rows": {"en": 1000, "de": 500}}}
            (own / "corpus" / key / "data/manifest.json").write_text(json.dumps(counts))
        for key in frozen["runs"]:
            (own / "runs" / key).mkdir(parents=True)
            (own / "runs" / key / "metrics.json").write_text("{}")
        (own / "study.json").write_text(json.dumps(frozen))
        if tables:
            (folder / "index.html").write_text("")
        return folder

    return keep


def soup(outputs):
    return BeautifulSoup(index.page(outputs / "reference"), "html.parser")


def row(page, title):
    """The row of a question: its text, blanks as one."""
    [found] = [r for r in page.find(class_="stack").find_all("tr") if title in r.th.get_text()]
    return re.sub(r"\s+", " ", found.get_text(" "))


def test_answers_are_those_of_the_tables(place, outputs):
    """Differences with their intervals, seeds, data; the same figures stand in the contrasts."""
    place("xquad", {"primary": primary(-0.047, 0.126, 0.016), "quality": quality()})
    page = soup(outputs)
    said = row(page, "Which mix")
    assert "BM25 over character n-grams is ahead of every arm in mono, cross, multi." in said
    assert "loses 0.047 [0.037, 0.057] mAP within a language" in said
    assert "gains 0.126 [0.116, 0.136] mAP across languages" in said
    assert "8 seeds; 1,500 rows of cldr in 2 languages (en de); asked heldout: 340" in said
    table = page.find(id="contrasts").find_next("table").get_text(" ")
    assert "-0.047 [-0.057, -0.037]" in table and "supported" in table
    assert "0.700" in page.find(string=re.compile("^mAP of BM25")).find_next("tbody").get_text()


def test_a_study_that_is_added_is_on_the_page(place, outputs):
    """With its link, in the row of its question, which no longer waits."""
    place("xquad", {"primary": primary(-0.047, 0.126, 0.016)})
    before = row(soup(outputs), "Data size")
    assert "Not run yet. It waits for: params/rq1_epochs.yaml" in before
    tables = series({5: -0.01, 100: -0.06}) | {"primary": primary(-0.06, 0.1, 0.01)}
    asked = {"BEIR": "XQuAD-R alone"}
    place("rq1_size", tables, axis="size", question="?", asked=asked)
    page = soup(outputs)
    after = row(page, "Data size")
    assert "loses more within a language, by 0.012 [0.004, 0.020] mAP" in after
    assert "(mono cost -0.010 [-0.020, +0.000] at 5, -0.060 [" in after and "multi" not in after
    assert "rq1_size.yaml" not in after and "Not run yet: params/rq1_epochs.yaml" in after
    assert page.find("a", href="rq1_size/index.html")
    assert "Asked for BEIR; measured: XQuAD-R alone." in page.find(id="not-shown").find_next(
        "ul"
    ).get_text(" ")


def test_a_language_of_few_pairs_and_prompts_have_their_own_answers(place, outputs):
    """Not the primary contrasts, whatever these say."""
    along, slopes = scarce()
    tables = {"trend": along, "slopes": slopes, "primary": primary(-0.3, 0.1, 0.1)}
    place("rq4_da", tables, axis="share")
    choices = told_by("higher", "undecided", "higher")
    lacking = primary(-0.3, 0.1, 0.1).assign(seeds=None, difference=None, why="no arm mono")
    place("rq5_prompts", {"choices": choices, "primary": lacking})
    page = soup(outputs)
    said = row(page, "Low resource")
    assert "against training on that language alone: gains 0.050 [0.040, 0.060] at share 1" in said
    assert "0.300" not in said and not page.find(id="relatives")
    said = row(page, "Instructions")
    assert "Yes, the question can choose, and more than with prompts that mean nothing." in said
    assert 'Control, "blue" / "red": with marks: own-language advantage +0.300' in said
    assert "8 seeds; " in said and "no arm mono" not in said


def test_a_glance_at_all_contrasts(place, outputs):
    """Of studies without an axis a panel a contrast, told apart by the adjusted test; of others a
    panel a study, where all three are known along the axis."""
    place("xquad", {"primary": primary(-0.047, 0.126, 0.016)})
    place("quick", {"primary": primary(0.02, 0.001, 0.3, "equivalent")})
    along = pd.DataFrame(
        [[name, x, x / 100, 0.0, 1.0] for name in ("mono cost", "cross gain", "batch effect",
         "S_mono") for x in (5, 25)], columns=["contrast", "x", "value", "low", "high"],
    )  # fmt: skip
    place("rq1_size", {"trend": along, "primary": primary(-0.9, 0.9, 0.9)}, axis="size")
    place("rq4_da", {"trend": along[:2], "primary": primary(0.8, 0.8, 0.8)}, axis="share")
    figures = soup(outputs).find(id="glance").find_next_siblings("figure")[:2]
    said = [[image["alt"] for image in figure.find_all("img")] for figure in figures]
    assert said[0][0] == (
        "quick, from scratch: +0.020 [+0.010, +0.030]; "
        "xquad, from scratch: -0.047 [-0.057, -0.037]."
    )
    assert len(said[0]) == 3 and "+0.300" in said[0][2]
    assert said[1] == [
        " ".join(
            f"{name}: +0.050 at 5 (share of training paragraphs, %), +0.250 at 25."
            for name in along["contrast"].unique()[:3]
        )
    ]


def test_the_page_begins_with_two_studies_beside_each_other(place, outputs):
    """A column each of those that are kept, and no others; a star where a contrast is told."""
    place("quick", {"primary": primary(-0.2, 0.2, 0.2)})
    assert soup(outputs).h1.find_next(["table", "nav"]).name == "nav"
    place("xquad", {"primary": primary(-0.047, 0.126, 0.016)})
    place("pretrained", {"primary": primary(-0.001, 0.012, 0.003, "inconclusive")})
    table = soup(outputs).h1.find_next("table")
    cells = [[c.get_text() for c in r.find_all(["th", "td"])] for r in table.find_all("tr")]
    assert cells[0] == ["hybrid(0.5) less", *index.HEADS.values()]
    assert cells[1] == [
        "mono, within a language", "-0.047 [-0.057, -0.037]*", "-0.001 [-0.011, +0.009]"
    ]  # fmt: skip
    assert [row[0] for row in cells[2:]] == [*overview.IN_SHORT.values()][1:]
    assert cells[3][1:] == ["\N{EM DASH}"] * 2  # neither has compared in one pool
    assert cells[4][1:] == ["+0.016 [+0.006, +0.026]*", "+0.003 [-0.007, +0.013]"]


def test_arms_beside_the_runs_of_another_study_are_not_that_study_again():
    """The first of those with the same contrasts counts; what has none of its own stays."""
    same = primary(-0.047, 0.126, 0.016)
    studies = [
        Kept("a", {"primary": same}),
        Kept("a-more", {"primary": same.assign(p=0.5)}),
        Kept("b", {"primary": primary(-0.047, 0.126, 0.017)}),
        Kept("c", {"primary": primary(0.1, 0.1, 0.1), "posthoc": pd.DataFrame()}),
        Kept("law", {}),
        Kept("rungs", {}),
    ]
    assert [kept.name for kept in overview.distinct(studies)] == ["a", "b", "law", "rungs"]
    assert "mono cost -0.047 to -0.047 (supported in 2 of 2 studies)" in overview.together(studies)
    about = {"rival": "mono", "versus": "mono", "low": 0.03, "high": 0.05, "detectable": 0.01}
    about |= {"difference": 0.04, "seeds": 8, "verdict": "higher"}
    arms = [("mix", "multi"), ("hybrid(0.25)", "multi"), ("hybrid(0.25)", "mono")]
    rivals = pd.DataFrame([about | {"arm": arm, "setting": one} for arm, one in arms])
    more = Kept("a-more", studies[1].tables | {"rivals": rivals})
    first = Kept("a", studies[0].tables | {"rivals": rivals[:1]})
    said = overview.answer(more, [first, more])
    assert said == (
        "The contrasts of a, whose runs it took. "
        "Over mono, hybrid(0.25) **gains 0.040 [0.030, 0.050] mAP in one pool**."
    )
    assert overview.answer(first, [first, more]).startswith("hybrid(0.5)")


def test_a_glance_at_the_law(place, outputs):
    """Of its tables, what mixing costs and gains; nothing without them."""
    place("xquad", {"primary": primary(-0.047, 0.126, 0.016)})
    assert not soup(outputs).find(id="phases")
    folder = ROOT / "outputs/reference/law/tables"
    tables = {file.stem: pd.read_csv(file) for file in folder.glob("*.csv")}
    place("law", tables)
    said = [image["alt"] for image in soup(outputs).find(id="phases").find_all("img")]
    first = tables["curves"].query("contrast == 'cross gain'").iloc[0]
    assert [alt.partition(" over")[0] for alt in said] == ["mono cost", "cross gain"]
    assert f"the law says {first.estimate:+.3f} at {first.alignment:.2f}" in said[1]


def test_verdicts_of_a_glance_are_those_of_the_adjusted_test():
    """And a study whose contrasts are another's is not shown twice."""
    run = params.Train(strategy="mono", steps=4, model="outputs/xquad/runs/a/model")
    trained = Trained(runs=[run])
    tables = {"primary": primary(-0.047, 0.126, 0.016, "supported")}
    studies = [
        Kept("a", {"primary": primary(0.1, 0.1, 0.1, "inconclusive")}, made=made()),
        Kept("b", tables, made=trained),
        Kept("c", tables | {"posthoc": pd.DataFrame()}, made=trained),
    ]
    table = overview.side_by_side(studies)
    assert table["contrast"].tolist() == sum(([x] * 2 for x in overview.PRIMARY.values()), [])
    assert table["study"].tolist() == ["b", "a"] * 3  # what starts from an encoder comes first
    assert table["start"].tolist() == ["those of the study xquad", "from scratch"] * 3
    assert table["verdict"].tolist() == ["lower", "undecided", *["higher", "undecided"] * 2]
    assert overview.side_by_side([]).empty and overview.along([]).empty


def test_gains_by_relatives_are_drawn_of_two_studies(place, outputs):
    """A panel each, in a fixed order, with what it shows in words; the page stays one file."""
    along, slopes = scarce()
    for name in ("rq4_da", "rq4_zh"):
        place(name, {"trend": along, "slopes": slopes, "primary": primary(0, 0, 0)}, axis="share")
    page = soup(outputs)
    images = page.find(id="relatives").find_next("figure").find_all("img")
    assert len(images) == 2 and all(i["src"].startswith("data:image/svg") for i in images)
    assert images[0]["alt"] == images[1]["alt"]
    assert "gain over alone: +0.050 [+0.040, +0.060] at 1" in images[0]["alt"]
    assert page.find("a", href="#relatives")
    assert {f.name for f in (outputs / "reference").iterdir()} == {"rq4_da", "rq4_zh"}


def test_verdicts_stand_side_by_side(place, outputs):
    """A column a verdict, of studies that lead to their reports; what none could test."""
    place("quick", {"primary": primary(-0.2, 0.1, 0.1), "claims": judged("inconclusive")})
    place("xquad", {"primary": primary(-0.1, 0.3, 0.0), "claims": judged("supported")})
    page = soup(outputs)
    table = page.find(id="claims").find_next("table")
    heads, first = (r.find_all(["th", "td"]) for r in table.find_all("tr")[:2])
    assert [h.get_text() for h in heads] == ["claim", "supported", "inconclusive"]
    assert [c.get_text() for c in first] == [BEST, "xquad", "quick"]
    assert first[1].a["href"] == "xquad/index.html#do-the-claims-hold"
    assert "Not tested by any study: MIRACL (needs MIRACL)" in page.get_text()
    together = row(page, "Which mix")
    assert "mono cost -0.200 to -0.100 (supported in 2 of 2 studies)" in together


def test_runs_of_another_study_are_not_counted_twice(place, outputs):
    """A study of maps after training says what these bring; its contrasts are the other's."""
    other = {"primary": primary(-0.1, 0.3, 0.0), "claims": judged("supported")}
    place("quick", {"primary": primary(-0.2, 0.1, 0.1), "claims": judged("inconclusive")})
    place("xquad", other)
    about = {"arm": "mono, centred", "versus": "mono", "setting": "multi", "verdict": "higher"}
    gained = about | {"difference": 0.04, "low": 0.03, "high": 0.05, "detectable": 0.01}
    place("pretrained-posthoc", other | {"posthoc": pd.DataFrame([gained])})
    page = soup(outputs)
    said = row(page, "Which mix")
    assert "mono gains 0.040 [0.030, 0.050] mAP in multi" in said
    assert "mono cost -0.200 to -0.100 (supported in 2 of 2 studies)" in said
    few = {"primary": primary(-0.9, 0.9, 0.9, "—", seeds=2), "claims": judged("—")}
    place("pretrained-full", few)
    page = soup(outputs)
    assert "mono cost -0.200 to -0.100 (supported in 2 of 2 studies)" in row(page, "Which mix")
    assert "pretrained-full" in page.find(id="contrasts").find_next("table").get_text()
    for part in ("contrasts", "claims"):
        assert "posthoc" not in page.find(id=part).find_next("table").get_text()


def test_a_study_without_report_answers_nothing(place, outputs):
    """Its runs are counted, and the question has not run."""
    place("quick", {"primary": primary(-0.2, 0.1, 0.1)})
    place("rq2_cards", {})
    said = row(soup(outputs), "Languages")
    assert "Not run yet." in said and "rq2_cards (2 runs)" in said
    assert overview.unreported(Kept("x", {}, made=made(1))) == "under way, 1 of 2 runs"


def test_what_is_in_a_table_is_text(place, outputs):
    """No markup of a study file or a table gets into the page; names of files are quoted."""
    note = "<b>bold</b> & **strong**"
    place("a+b", {"primary": primary(-0.2, 0.1, 0.1, verdict="<script>")}, note=note)
    page = index.page(outputs / "reference")
    assert "<b>" not in page and page.count("<script>") == 1
    assert note in BeautifulSoup(page, "html.parser").get_text()
    assert 'href="a%2Bb/index.html"' in page


def test_five_seeds_decide_and_three_do_not():
    """The sentence says so before its figures."""
    kept = Kept("x", {"primary": primary(-0.2, 0.1, 0.1, verdict="—", seeds=3)})
    assert overview.answer(kept).startswith("**Undecided: 3 seeds decide nothing")
    none = primary(-0.2, 0.1, 0.1).assign(difference=None, why="no arm mono", verdict="not tested")
    assert overview.answer(Kept("x", {"primary": none})) == "**Not answered here**: no arm mono."


def test_a_ranker_that_is_behind_is_not_named():
    """Only where it is ahead of the best arm."""
    kept = Kept("x", {"primary": primary(-0.2, 0.1, 0.1), "quality": quality(0.8, 0.7)})
    assert "BM25" not in overview.answer(kept)


def test_the_law_answers_from_its_tables():
    """Of the committed page: rungs, and the predictions that are blind."""
    folder = ROOT / "outputs/reference/law/tables"
    kept = Kept("law", {f.stem: pd.read_csv(f) for f in folder.glob("*.csv")})
    points = kept.table("points")
    assert f"{points['rung'].nunique()} rungs" in overview.rests_on(kept)
    said = overview.answer(kept)
    assert said.startswith("**") and "From scratch, the mono cost of hybrid(0.5) is " in said


def test_the_pool_of_all_languages_is_beside_the_primary_contrasts():
    """What hybrid(0.5) gains over mono there, and none of the other comparisons."""
    rows = [
        (arm, versus, setting, value)
        for arm, versus, setting, value in (
            ("hybrid(0.5)", "mono", "multi", 0.05),
            ("hybrid(0.5)", "mono", "cross", 0.9),
            ("hybrid(0.5)", "cross", "multi", 0.9),
            ("cross", "mono", "multi", 0.9),
        )
    ]
    rivals = pd.DataFrame(rows, columns=["arm", "versus", "setting", "difference"])
    rivals = rivals.assign(low=0.04, high=0.06, verdict="higher")
    kept = Kept("xquad", {"primary": primary(-0.1, 0.3, 0.0), "rivals": rivals}, made=made())
    table = overview.side_by_side([kept])
    assert table["contrast"].tolist() == ["Mono cost", "Cross gain", "Batch effect", "Multi gain"]
    assert table.iloc[-1][["difference", "verdict"]].tolist() == [0.05, "higher"]


def test_an_answer_along_an_axis_says_how_good_its_ends_are():
    """Contrasts shrink where nothing is learned; and BM25 is ahead of the last of them."""
    columns = ["arm", "x", "setting", "mAP"]
    rows = [("mono", 5, "mono", 0.3), ("cross", 5, "mono", 0.4), ("cross", 5, "cross", 0.9),
            ("mono", 100, "mono", 0.05)]  # fmt: skip
    tables = series({5: -0.1, 100: -0.01}) | {"series": pd.DataFrame(rows, columns=columns)}
    analyse = params.Analyse(axis="train_size", points={"a": 5, "b": 100})
    kept = Kept(
        "rq1", tables | {"quality": quality(), "primary": primary(0, 0, 0)}, analyse, made()
    )
    assert overview.answer(kept).endswith(
        " The best arm's mAP within a language is 0.400 at train size 5 and 0.050 at 100. At 100 "
        "BM25 over character n-grams is ahead of every arm in mono, cross, multi."
    )
    del tables["series"]
    assert "best arm" not in overview.answer(Kept("rq1", tables, analyse, made()))


def test_the_same_runs_are_counted_once():
    """Of two studies whose comparisons of a claim are equal; others are two, and so are claims
    that nothing was compared for."""

    def study(name, verdict, differences):
        table = pd.DataFrame({"claim": BEST, "difference": differences})
        return Kept(name, {"claims": judged(verdict), "comparisons": table}, made=made())

    one, other = study("a", "supported", [0.1, 0.2]), study("b", "supported", [0.1, 0.2])
    third = study("c", "supported", [0.1, 0.3])
    fourth = study("d", "contradicted", [0.1, 0.4])
    table = overview.verdicts([fourth, one, other, third]).set_index("claim")
    assert table.loc[BEST].to_dict() == {"supported": ("a", "c"), "contradicted": ("d",)}


def test_what_starts_from_another_study_names_it_once():
    """Not a folder for every seed; sizes as ranges."""
    runs = [
        params.Train(strategy="mono", model=f"outputs/rungs/runs/seed={s}/model", steps=steps)
        for s, steps in enumerate((100, 200))
    ]
    kept = Kept("x", {}, made=Trained([], [], runs, 2, "asked"))
    assert overview.rests_on(kept).endswith(
        "encoder those of the study rungs; 100 to 200 steps of 128."
    )


def test_nothing_kept_is_one_line(outputs, capsys):
    """And no page."""
    (outputs / "reference").mkdir(parents=True)
    assert command.main(["index"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "no study is kept there" in said


def test_the_committed_page_is_that_of_the_committed_studies():
    """`python -m lib.study index` makes it; a study that was added needs that, a study file that
    waits does not."""
    folder = ROOT / "outputs" / "reference"
    page = (folder / "index.html").read_text(encoding="utf-8")
    main = [BeautifulSoup(text, "html.parser").main for text in (page, index.page(folder))]
    for drawn in [one for each in main for one in each.find_all("img")]:
        del drawn["src"]  # which rounds otherwise on other machines
    for waits in [one for each in main for one in each.find_all(class_="waiting")]:
        waits.decompose()
    assert str(main[0]) == str(main[1]), "python -m lib.study index makes it anew"
    for link in main[0].find_all("a", href=True):
        href = link["href"].partition("#")[0]
        assert not href or (folder / href).exists(), href
    assert not re.search(r"(src|href)=.?https?:|/(home|root|tmp|work)/", page)
    assert "&lt;a " not in page, "a link that is shown as text"
    for own in folder.glob("*/index.html"):
        assert main[0].find("a", href=f"{own.parent.name}/index.html"), own


def test_every_claim_links_to_where_reports_give_it():
    """The heading's anchor is there."""
    for page in (ROOT / "outputs/reference").glob("*/tables/claims.csv"):
        report = page.parent.parent / "index.html"
        assert 'id="do-the-claims-hold"' in report.read_text(encoding="utf-8"), report


def test_every_report_has_a_title():
    """In words, since names of studies are short."""
    kept = {own.parent.name for own in (ROOT / "outputs/reference").glob("*/index.html")}
    assert kept <= {*index.TITLES}
