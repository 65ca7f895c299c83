"""Figures of the report: their tables by hand arithmetic, what they say, how they are saved."""

import re
from dataclasses import replace
from functools import cache

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from hypothesis import given
from hypothesis import strategies as st
from test_results import GAINS, scores, study

from lib.analysis import (
    claims,
    companion,
    contrasts,
    drawing,
    forests,
    heatmaps,
    labels,
    latex,
    plots,
    tables,
)
from lib.analysis.answers import first_sentence
from lib.analysis.results import Results
from lib.analysis.sums import summed

ALPHAS = {f"hybrid({alpha})": gain for alpha, gain in ((0.25, 0.01), (0.5, 0.03), (0.75, 0.02))}
FIVE = {"cross": 0.0} | ALPHAS | {"mono": 0.0}


@cache
def of_gains() -> Results:
    """The study of GAINS, made once."""
    return study(GAINS)


@pytest.fixture(autouse=True)
def closed():
    """Figures of a test do not stay in memory."""
    drawing.style()
    yield
    plt.close("all")


# --- tables ------------------------------------------------------------------------------------


def test_rivals_by_hand():
    """Each arm against each rival but itself: the gain of one arm less that of the other, since
    both have the same questions; hybrid(0.25) has no mix of its alpha: mix(0.5) it is."""
    gains = GAINS | {"hybrid(0.25)": 0.02, "mix(0.75)": -0.1, "hybrid(0.75)": 0.0}
    table = contrasts.rivals(study(gains))
    assert not (table["arm"] == table["versus"]).any()
    for row in table.itertuples():
        assert row.difference == pytest.approx(gains[row.arm] - gains[row.versus], abs=1e-9)
        assert row.low <= row.difference <= row.high and row.seeds == 5
    versus = table[table["rival"] == "mix"].set_index("arm")["versus"].to_dict()
    assert versus["hybrid(0.25)"] == versus["mono"] == versus["mix(0.75)"] == "mix(0.5)"
    assert versus["hybrid(0.75)"] == "mix(0.75)" and "mix(0.5)" not in versus
    assert (table["p_holm"] >= table["p"]).all()


def test_the_verdicts_on_rivals_by_hand():
    """Holm over the three comparisons of each setting; a gap of .05 is told apart, one of 0 with
    no noise is equivalent, and two seeds tell nothing."""
    gains = {"mono": 0.0, "hybrid(0.5)": 0.05, "cross": 0.0}
    table = contrasts.rivals(study(gains))
    verdicts = table.set_index(["arm", "versus"])["verdict"].groupby(level=[0, 1]).unique()
    assert {pair: list(found) for pair, found in verdicts.items()} == {
        ("hybrid(0.5)", "mono"): ["higher"],
        ("cross", "mono"): ["equivalent"],
        ("hybrid(0.5)", "cross"): ["higher"],
        ("mono", "cross"): ["equivalent"],
    }
    for _, part in table.groupby("setting"):
        p = part["p"].to_numpy()
        assert part["p_holm"].max() == 1 and sorted(p)[0] * len(p) == part["p_holm"].min()
    few = contrasts.rivals(study(gains, seeds=2))
    assert set(few["verdict"]) == {"—"}
    assert "cross − mono" in tables.against(table).index


def test_rivals_that_are_not_there():
    """A study of hybrid alone has none, and draws nothing."""
    table = contrasts.rivals(study({"hybrid(0.5)": 0.0}))
    assert not len(table) and forests.rivals(table).panels == {}


def test_alphas_begin_at_five():
    """Ends included; with four there is no table and no figure."""
    results = study(FIVE)
    table = contrasts.alphas(results, tables.quality(results, ("ap",)))
    assert set(table["strategy"]) == {"hybrid"} and len(table) == 5 * 3
    line = table[table["setting"] == "mono"]
    assert line["alpha"].tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert line["arm"].tolist() == list(FIVE)
    figure = plots.alphas(table)
    assert figure.panels["mono"].axes[0].lines[0].get_xdata().tolist() == line["alpha"].tolist()
    assert "highest at 0.5" in figure.alts["mono"]
    four = study(dict.fromkeys(list(FIVE)[:4], 0.0), seeds=2)
    assert plots.alphas(contrasts.alphas(four, tables.quality(four, ("ap",)))).panels == {}


def test_paths_name_each_alpha():
    """Ends have names of their own, or are alphas of the strategy, or of another one."""
    assert contrasts.paths(study(FIVE, seeds=1)) == {
        "hybrid": dict(zip((0, 0.25, 0.5, 0.75, 1), FIVE, strict=True))
    }
    named = contrasts.paths(
        study(dict.fromkeys(("hybrid(0)", "hybrid(1)", "mix(0.5)"), 0.0), seeds=1)
    )
    assert named == {
        "hybrid": {0: "hybrid(0)", 1: "hybrid(1)"},
        "mix": {0: "hybrid(0)", 0.5: "mix(0.5)"},
    }
    ends = study(dict.fromkeys(("mono", "cross", "cross-pair", "hybrid(0.5)"), 0.0), seeds=1)
    assert [*contrasts.paths(ends)] == ["hybrid"]  # no hybrid-pair between mono and cross-pair


CELLS = [("en", "en"), ("en", "de"), ("de", "en"), ("ar", "ar"), ("ar", "de"), ("de", "de")]


def cells(values: dict, seeds=2) -> Results:
    """Results whose cells have these AP by arm, one after the other, the same in each seed."""
    rows = [
        {
            "arm": arm,
            "seed": seed,
            "setting": "mono" if pair[0] == pair[1] else "cross",
            "question_language": pair[0],
            "candidate_language": pair[1],
            "ap": value,
            "n": 20 - (pair == ("en", "de")),
        }
        for arm, each in values.items()
        for seed in range(seeds)
        for pair, value in zip(CELLS, each, strict=True)
    ]
    return replace(study(dict.fromkeys(values, 0.0), seeds), cells=pd.DataFrame(rows))


def test_maps_of_differences_by_hand():
    """Cell by cell; Arabic before Latin; a pair with 19 questions is left out, one with 20 is
    not; a map of mix needs mix."""
    hybrid, mono = (0.5, 0.4, 0.3, 0.2, 0.1, 0.6), (0.6, 0.1, 0.1, 0.1, 0.1, 0.5)
    own = cells({"hybrid(0.5)": hybrid, "mono": mono})
    [(title, table)] = contrasts.by_language(own).items()
    assert title == "hybrid(0.5) − mono"
    assert list(table.index) == list(table.columns) == ["ar", "de", "en"]
    expected = [[0.1, 0.0, np.nan], [np.nan, 0.1, 0.2], [np.nan, np.nan, -0.1]]
    assert table.to_numpy() == pytest.approx(np.array(expected), nan_ok=True)
    more = replace(own, cells=own.cells.assign(n=20))
    assert contrasts.by_language(more)[title].loc["en", "de"] == pytest.approx(0.3)
    figure = heatmaps.differences({title: table})
    assert figure.alts[title] == (
        "hybrid(0.5) − mono: within a language +0.033 on average, from -0.100 (en) to +0.100 (ar), "
        "across languages +0.100 on average, from +0.000 (ar-de) to +0.200 (de-en)."
    )
    numbers = [text.get_text() for text in figure.panels[title].axes[0].texts]
    assert sorted(numbers[:5]) == sorted(["10", "0", "10", "20", "−10"])
    assert numbers[5:] == ["Arab", "Latn"]
    one = replace(own, cells=own.cells[own.cells["question_language"] == "ar"])
    assert contrasts.by_language(one) == {}


def test_maps_share_one_scale_around_zero():
    """The colour of zero is the same in both, and the larger difference sets the ends."""
    own = cells({"hybrid(0.5)": [0.5] * 6, "mono": [0.28] * 6, "mix(0.5)": [0.52] * 6})
    figure = heatmaps.differences(contrasts.by_language(own))
    assert list(figure.panels) == ["hybrid(0.5) − mono", "hybrid(0.5) − mix(0.5)"]
    scales = [drawn.axes[0].collections[0].get_clim() for drawn in figure.panels.values()]
    assert scales == [(-25.0, 25.0)] * 2


def by_scripts(gains: dict, which: str) -> Results:
    """Made-up scores, in which cross is of the `same` or of an `other` script, and there hybrid
    gains .1 more."""
    results, sums = study(gains), []
    for run in results.runs:
        own = scores(gains[run.arm], run.seed)
        cross = own["setting"] == "cross"
        own["script"] = np.where(cross, which, None)
        own["ap"] += 0.1 * (cross & (run.arm == "hybrid(0.5)"))
        sums.append(summed(own).assign(arm=run.arm, seed=run.seed))
    return replace(results, sums=pd.concat(sums))


def test_scripts_by_hand():
    """The gain of mono, and that of the pairs that are there; what is not there is not listed."""
    gains = {"mono": 0.0, "hybrid(0.5)": 0.05}
    for which, pair in (("same", "two languages, one script"), ("other", "two scripts")):
        table = contrasts.by_script(by_scripts(gains, which)).set_index("pair")
        assert list(table.index) == ["one language", pair]
        assert table["difference"].tolist() == pytest.approx([0.05, 0.15])
        assert set(table["versus"]) == {"mono"}
        figure = forests.scripts(table.reset_index())
        assert f"0.150 higher than mono [+0.150, +0.150] in {pair}." in figure.alts["minus mono"]


def test_mechanism_by_hand():
    """Each cell minus the one before it, all adjusted together; cells of other shares, and those
    that a study lacks, are left out."""
    gains = {"mix(0.5)": 0.0, "mix(0.25)": 0.3, "mix(0.5), in_language": 0.02, "mono": 0.1}
    gains |= {"mix(0.5), 7 negatives": -0.05, "hybrid(0.5)": 0.08, "hybrid-pair(0.5)": 0.06}
    results = study(gains, seeds=2)
    table = contrasts.mechanism(results)
    mono = table[table["setting"] == "mono"].set_index(["arm", "versus"])["difference"]
    assert mono.to_dict() == pytest.approx(
        {
            ("mix(0.5), in_language", "mix(0.5)"): 0.02,
            ("mix(0.5), in_language", "mix(0.5), 7 negatives"): 0.07,
            ("hybrid(0.5)", "hybrid-pair(0.5)"): 0.02,
        }
    )
    assert forests.mechanism(table).panels
    elsewhere = {*contrasts.rivals(results)["arm"]}
    assert elsewhere == {arm for arm in gains if ", " not in arm}
    alone = study({arm: gain for arm, gain in gains.items() if ", " in arm}, seeds=2)
    assert alone.compositions == alone.arms
    assert not len(contrasts.mechanism(of_gains())) and not forests.mechanism(table[:0]).panels


def test_maps_after_training_by_hand():
    """An encoder less itself; hybrid less mono, both changed, and as it is; no others."""
    gains = {"mono": 0.1, "mono, centred": 0.16, "hybrid(0.5)": 0.15, "hybrid(0.5), centred": 0.18}
    table = contrasts.posthoc(study(gains | {"x-x, centred": 0.05, "mix(0.5)": 0.3}))
    multi = table[table["setting"] == "multi"].set_index(["arm", "versus"])["difference"]
    assert multi.to_dict() == pytest.approx(
        {
            ("mono, centred", "mono"): 0.06,
            ("hybrid(0.5), centred", "hybrid(0.5)"): 0.03,
            ("hybrid(0.5), centred", "mono, centred"): 0.02,
            ("hybrid(0.5)", "mono, centred"): -0.01,
        }
    )
    none = table[:0]
    said = first_sentence(none, table, none, none, none, none, "")
    first, second = said.split(". Against it, hybrid(0.5) as it is ")
    assert first.startswith(
        "With each language's mean taken away, without training, mono **gains 0.060 "
    )
    assert "**loses 0.010 [0.010, 0.010] mAP in multi**" in second
    figure = forests.posthoc(table)
    assert figure.panels and "mono, centred is 0.060 higher than mono" in figure.alts[""]
    assert not len(contrasts.posthoc(study(GAINS))) and not forests.posthoc(table[:0]).panels


def test_other_ways_to_align_by_hand():
    """A loss less its batches without, hybrid(0.5) less those batches, and less each other way;
    code-switched pairs only less hybrid(0.5) where no arm has the pairs as they are."""
    gains = {"mono": 0.1, "hybrid(0.5)": 0.15, "x-x": 0.05, "x-x, lakda": 0.12}
    table = contrasts.others(study(gains | {"en-en, switched": 0.02}))
    cross = table[table["setting"] == "cross"].set_index(["arm", "versus"])["difference"]
    expected = {
        ("x-x, lakda", "x-x"): 0.07,
        ("hybrid(0.5)", "x-x"): 0.10,
        ("hybrid(0.5)", "x-x, lakda"): 0.03,
        ("hybrid(0.5)", "en-en, switched"): 0.13,
    }
    assert cross.to_dict() == pytest.approx(expected)
    whole = contrasts.others(study(gains | {"en-en, switched": 0.02, "en-en": 0.0}))
    multi = whole[whole["setting"] == "multi"].set_index(["arm", "versus"])["difference"]
    assert multi.to_dict() == pytest.approx(expected | {("en-en, switched", "en-en"): 0.02})
    none = table[:0]
    said = first_sentence(none, none, none, whole, none, none, "").split(". ")
    assert said[0].startswith('Over x-x, "x-x, lakda" **gains 0.070 ')
    assert "; hybrid(0.5) **gains 0.100 " in said[0]
    assert said[1].startswith('Over en-en, "en-en, switched" **gains 0.020 ')
    assert said[2].startswith('Of hybrid(0.5): against "x-x, lakda" it **gains 0.030 ')
    assert '; "en-en, switched" it **gains 0.130 ' in said[2]
    figure = forests.others(table)
    assert figure.panels and "x-x, lakda is 0.070 higher than x-x" in figure.alts[""]
    assert not len(contrasts.others(study(GAINS))) and not forests.others(none).panels


# --- forests -----------------------------------------------------------------------------------


def drawn_words(figure, panel=""):
    return [text.get_text() for text in figure.panels[panel].axes[0].texts]


def test_the_primary_forest_says_what_is_adjusted():
    """Filled where Holm's p tells a contrast from zero, hollow where not; the words have both the
    interval alone and the adjusted p, and stand above their marks."""
    results = study({"mono": 0.0, "cross": 0.0, "hybrid(0.5)": 0.05, "mix(0.5)": 0.05})
    table = claims.primary(results)
    figure = forests.primary(table)
    ax = figure.panels[""].axes[0]
    marks = [line for line in ax.lines if line.get_marker() == "D"]
    filled = [mark.get_markerfacecolor() != "white" for mark in marks]
    assert filled == (table["p_holm"] < 0.05).tolist() == [True, True, False]
    words = drawn_words(figure)
    assert "p < .001 (Holm)" in words[3] and words[3].startswith("+0.05")
    for row, mark in enumerate(marks):
        above = [t.get_position()[1] for t in ax.texts[4 * row : 4 * row + 4]]
        assert max(above) < mark.get_ydata()[0] - 0.2
    assert re.search(r"Cross gain: hybrid\(0.5\) is 0.05\d higher than mono \[", figure.alts[""])


def test_the_primary_forest_keeps_the_place_of_what_is_not_tested():
    """The reason stands where the numbers would; nothing is filled with too few seeds."""
    table = claims.primary(study({"mono": 0.0, "hybrid(0.5)": 0.5}, seeds=2))
    figure = forests.primary(table)
    words = drawn_words(figure)
    assert words[10:12] == ["not tested", "no arm mix(0.5)"] and "no verdict (2 seeds)" in words
    marks = [x for x in figure.panels[""].axes[0].lines if x.get_marker() == "D"]
    assert [mark.get_markerfacecolor() for mark in marks] == ["white"] * 3
    assert figure.alts[""].endswith("Batch effect: not tested, no arm mix(0.5).")


def test_rivals_are_filled_by_their_adjusted_p():
    """And by nothing else; a panel a rival, an axis a setting."""
    table = contrasts.rivals(of_gains())
    figure = forests.rivals(table)
    assert list(figure.panels) == ["minus mono", "minus cross", "minus mix"]
    for rival in ("mono", "cross", "mix"):
        for ax, setting in zip(
            figure.panels[f"minus {rival}"].axes, ("mono", "cross", "multi"), strict=True
        ):
            rows = table[(table["rival"] == rival) & (table["setting"] == setting)]
            marks = [line for line in ax.lines if line.get_marker() not in ("None", "")]
            filled = [mark.get_markerfacecolor() != "white" for mark in marks]
            assert filled == (rows["p_holm"] < 0.05).tolist() and any(filled)


# --- names -------------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 10), min_size=1, max_size=12), st.floats(0.1, 0.8))
def test_spread_names_do_not_overlap(places, gap):
    """At least a gap apart, in the order of their places, within the range if there is room; those
    that were apart stay."""
    got = labels.spread(places, gap, 0, 10)
    order = np.argsort(places, kind="stable")
    assert (np.diff(got[order]) >= gap - 1e-9).all() and got.min() >= 0
    assert got.max() <= 10 + 1e-9
    if (np.diff(np.sort(places)) >= gap).all():
        assert got == pytest.approx(np.array(places))


def test_spread_is_least_squares():
    """Three at one place: the middle one stays; two at the edge move inwards."""
    assert labels.spread([5, 5, 5], 1, 0, 10).tolist() == [4, 5, 6]
    assert labels.spread([10, 10], 1, 0, 10).tolist() == [9, 10]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, unique=True,
                max_size=8))  # fmt: skip
def test_names_cover_neither_marks_nor_each_other(points):
    """Points of a coarse grid leave room for all: every name is inside and clear."""
    marks = 100.0 + 60 * np.array(points, float)
    sizes = np.tile([50.0, 12.0], (len(marks), 1))
    offsets = labels.place(marks, sizes, np.array([0, 0, 800, 800]), np.empty((0, 2)), 6)
    edge = marks + offsets + np.sign(offsets) * [1, 0] * sizes / 2
    edge += (offsets[:, :1] == 0) * np.sign(offsets) * [0, 1] * sizes / 2
    low, high = edge - sizes / 2, edge + sizes / 2
    assert low.min() >= 0 and high.max() <= 800
    for i in range(len(marks)):
        for j in range(len(marks)):
            clear = [low[i], high[i], marks[j] - 6, marks[j] + 6]
            assert not ((clear[0] < clear[3]) & (clear[2] < clear[1])).all()
            if i != j:
                assert not ((low[i] < high[j]) & (low[j] < high[i])).all()


def test_names_avoid_lines():
    """A line to the right of the only mark: the name is elsewhere."""
    line = labels.along(np.array([[100.0, 100.0], [300.0, 100.0]]))
    assert np.diff(line[:, 0]).max() <= 4
    [offset] = labels.place(
        np.array([[100.0, 100.0]]), np.array([[40.0, 10.0]]), np.array([0, 0, 400, 400]), line, 5
    )
    assert offset[0] <= 0


# --- the plane ---------------------------------------------------------------------------------


def plane_of(references: dict):
    """The trade-off plane of two arms at (.5, .1) and (.2, .3), with references."""
    circle = np.stack([np.cos(np.linspace(0, 6.2, 30)), np.sin(np.linspace(0, 6.2, 30))], 1)
    means = {"mono": (0.5, 0.1), "cross": (0.2, 0.3)}
    regions = {arm: (mean, np.array(mean) + 0.02 * circle) for arm, mean in means.items()}
    runs = pd.DataFrame(
        [{"arm": a, "seed": 0, "mono": x, "cross": y} for a, (x, y) in means.items()]
    )
    paths = {"hybrid": ["cross", "mono"]}
    return plots.tradeoff(runs, regions, paths, references, ["mono", "cross"])


def test_the_plane_begins_at_zero_and_holds_all_that_is_near():
    """A reference up to 1.6 times the arms' best is drawn where it is."""
    figure = plane_of({"BM25": (0.8, 0.2)})
    ax = figure.panels[""].axes[0]
    assert ax.get_xlim()[0] == ax.get_ylim()[0] == 0 and ax.get_xlim()[1] > 0.8
    assert {text.get_text() for text in ax.texts} == {"mono", "cross", "BM25"}
    assert figure.alts[""] == (
        "No arm beats mono, cross in both mono and cross mAP. mono mono 0.500, cross 0.100; "
        "cross mono 0.200, cross 0.300; BM25 mono 0.800, cross 0.200."
    )


def test_an_arrow_leads_to_a_far_reference():
    """Which does not squeeze the arms into a corner; its place is in words."""
    ax = plane_of({"BM25": (1.0, 0.2)}).panels[""].axes[0]
    assert ax.get_xlim()[1] < 0.6
    assert "BM25\n(1.00, 0.20)" in [text.get_text() for text in ax.texts]


# --- saving ------------------------------------------------------------------------------------


def shown(figure, folder):
    return BeautifulSoup(drawing.show(figure, folder).data, "html.parser")


def test_figures_are_saved_as_vector_and_pixels(tmp_path):
    """A panel, two files, one image with its own words; the image is the vector file."""
    page = shown(forests.rivals(contrasts.rivals(of_gains())), tmp_path)
    names = {f"rivals-minus-{rival}.{kind}" for rival in ("mono", "cross", "mix")
             for kind in ("svg", "png")}  # fmt: skip
    assert {file.name for file in tmp_path.iterdir()} == names
    assert all(file.stat().st_size < 300_000 for file in tmp_path.iterdir())
    images = page.find_all("img")
    assert len({image["alt"] for image in images}) == 3
    assert all(image["src"].startswith("data:image/svg+xml;base64,") for image in images)
    assert not any(b"<text" in file.read_bytes() for file in tmp_path.glob("*.svg"))
    assert page.figure["id"] == "rivals"


def test_the_same_figure_is_the_same_file(tmp_path):
    """No dates, no random ids: a committed report changes where its numbers do."""
    for folder in (tmp_path / "a", tmp_path / "b"):
        drawing.show(plane_of({"BM25": (0.8, 0.2)}), folder)
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_coordinates_are_rounded_and_scales_are_not():
    """A hundredth of a point is not seen; a glyph's scale of .015625 is."""
    svg = '<svg>\n  <path d="M 1.234567 -0.005\n  L 20 3.999"/>\n  <g transform="scale(0.015625)"/>'
    expected = '<svg>\n<path d="M 1.23 -0.01\nL 20 4.00"/>\n<g transform="scale(0.015625)"/>'
    assert drawing._compact(svg) in (expected, expected.replace("-0.01", "-0.00"))


def test_nothing_to_draw_is_nothing(tmp_path):
    """No file and no words, so that a report leaves the section out."""
    assert drawing.show(plots.alphas(pd.DataFrame()), tmp_path / "figures").data == ""
    assert not list(tmp_path.iterdir())


def test_every_figure_of_a_run_says_what_it_shows():
    """Numbers of the data, not the kind of figure."""
    log = pd.DataFrame({"step": range(40), "loss": [4.0] * 20 + [1.5] * 20, "kind": "mono"})
    assert plots.curve(log).alts[""] == "The loss goes from 4.00 to 1.50 nats in 40 steps."
    steps = pd.DataFrame({"step": [10, 20, 30], "mono": [0.1, 0.4, 0.3]})
    alt = plots.validation(steps.assign(map=steps["mono"])).alts[""]
    assert alt == "Mean mAP is highest at step 20 (0.400); at the last, 30, it is 0.300."
    lengths = pd.DataFrame(
        {"language": list("aabb"), "side": ["question", "passage"] * 2, "tokens": [3, 5, 8, 9]}
    )
    alt = plots.lengths(lengths).alts[""]
    assert alt == (
        "the median passage has 5 tokens in a and 9 in b; "
        "the median question has 3 tokens in a and 8 in b."
    )
    share = pd.DataFrame([[0.0, 0.5], [0.7, 0.0]], list("ab"), list("ab"))
    assert "0.60 on average, from 0.50 (a-b) to 0.70 (b-a)" in plots.names(share).alts[""]
    ranked = pd.DataFrame({"stratum": "mono", "ranker": ["random", "BM25"], "mAP": [0.1, 0.6]})
    assert plots.difficulty(ranked).alts[""] == "mono: BM25 highest (0.600), random lowest (0.100)."
    knobs = {"knob": ["a", "a", "b"], "value": [1, 2, 1], "BM25": [0.2, 0.4, 0.3]}
    alt = plots.knobs(pd.DataFrame(knobs).assign(rows=9, length=5)).alts[""]
    assert alt.startswith("mAP of BM25 lies between 0.20 and 0.40 over 2 values of a; ")


# --- a paper -----------------------------------------------------------------------------------


def test_the_latex_table_by_hand():
    """Marks where a rival is told apart, either way; escaped names; a row an arm."""
    quality = pd.DataFrame(
        [
            ("a_b", "mono", "ap", 0.5, 0.45, 0.55, 8),
            ("a_b", "cross", "ap", 0.25, np.nan, np.nan, 8),
            ("a_b", "cross", "r1", 0.9, 0.8, 1.0, 8),
            ("mono", "mono", "ap", 1.0, 0.98, 1.0, 8),
        ],
        columns=["arm", "setting", "metric", "estimate", "low", "high", "seeds"],
    )
    gaps = pd.DataFrame(
        [
            ("a_b", "mono", "mono", "lower"),
            ("a_b", "mix", "mono", "higher"),
            ("a_b", "mix", "cross", "undecided"),
            ("a_b", "mono", "cross", "—"),
            ("a_b", "cross", "cross", "higher"),
        ],
        columns=["arm", "rival", "setting", "verdict"],
    )
    text = latex.table(quality, gaps)
    lines = text.splitlines()
    body = lines[lines.index(r"\midrule") + 1 : lines.index(r"\bottomrule")]
    assert body == [
        r"a\_b & .500$^{\dagger\ddagger}$ {\footnotesize[.450, .550]} & .250 \\",
        r"mono & 1.000 {\footnotesize[.980, 1.000]} & -- \\",
    ]
    assert r"\begin{tabular}{lll}" in lines and "mean over 8 seeds" in text
    assert text.count("{") == text.count("}") and "metric" not in text
    with pytest.raises(ValueError, match="no row of metric 'ap'"):
        latex.table(quality[quality["metric"] == "r1"], gaps)


def test_the_latex_table_of_a_study():
    """Of real tables; hybrid differs from both rivals everywhere."""
    results = of_gains()
    text = latex.table(tables.quality(results), contrasts.rivals(results))
    [row] = [line for line in text.splitlines() if line.startswith("hybrid(0.5)")]
    assert row.count(r"$^{\dagger\ddagger}$") == 3 and row.endswith(r"\\")


# --- the companion -----------------------------------------------------------------------------


def test_points_of_the_companion_are_the_tables():
    """The headline's rows are those of `quality`; a stratum by hand; references hold for every
    budget."""
    mono = study({"mono": 0.0}).sums.assign(arm="BM25 char n-grams")
    results = of_gains()
    results = replace(results, sums=pd.concat([results.sums, mono], ignore_index=True))
    table = companion.points(results, {})
    ap = tables.quality(results, ("ap",)).set_index(["arm", "setting"])
    head = table[table["stratum"] == "headline"].set_index(["arm", "setting"])
    for column in ("estimate", "low", "high"):
        assert head[column].to_dict() == pytest.approx(ap[column].to_dict())
    own = pd.concat([scores(seed=seed) for seed in range(5)])
    one_hop = own[(own["setting"] == "mono") & (own["hops"] == "1-hop")]["ap"].mean()
    row = table[(table["arm"] == "mono") & (table["setting"] == "mono")].set_index("stratum")
    assert row.loc["hops: 1-hop", "estimate"] == pytest.approx(one_hop)
    assert "wording: held-out" not in row.index  # all questions are
    budget = table.groupby("reference")["budget"].unique()
    assert budget[True].tolist() == [companion.EVERY] and len(budget[False]) == 1


def test_points_have_a_budget_each():
    """Arms at every budget, with that budget's figures."""
    found = {150: study({"mono": 0.0}), 300: study({"mono": 0.2})}
    table = companion.points(found[300], found)
    means = table[table["stratum"] == "headline"].groupby("budget")["estimate"].mean()
    assert means[300] - means[150] == pytest.approx(0.2)


POINTS = pd.DataFrame(
    [
        ("mono", "headline", 600, "mono", 0.5, 0.45, 0.55, False),
        ("mono", "headline", 600, "cross", 0.123456, np.nan, np.nan, False),
        ("BM25 </script>", "headline", 0, "mono", 0.25, 0.2, 0.3, True),
    ],
    columns=[*companion.COLUMNS, "reference"],
)


def test_the_companion_holds_its_data_and_loads_nothing():
    """One page, the same each time, that names no address and cannot be broken by a name."""
    page = companion.companion(POINTS, {"hybrid": {1.0: "mono"}}, "A study")
    assert page == companion.companion(POINTS, {"hybrid": {1.0: "mono"}}, "A study")
    assert not re.search(r"https?:|//[a-z]|src=|@import|url\(|\bfetch\(|import\(", page)
    assert page.count("</script>") == 1 and len(page) < 40_000
    assert "[0,0,0,600,0.5,0.45,0.55],[0,0,1,600,0.1235,null,null]" in page
    assert '"budgets":[600]' in page and '"paths":{"hybrid":[[1.0,0]]}' in page
    soup = BeautifulSoup(page, "html.parser")
    policy = soup.find("meta", {"http-equiv": "Content-Security-Policy"})["content"]
    assert policy.startswith("default-src 'none'")
    assert all(select.find_parent("label") for select in soup.find_all("select"))
    assert soup.find(id="say")["aria-live"] == "polite" and soup.html["lang"] == "en"


def test_the_companion_is_linked(tmp_path):
    """It lies beside the report."""
    link = BeautifulSoup(companion.show("page", tmp_path / "report").data, "html.parser").a
    assert (tmp_path / "report" / link["href"]).read_text() == "page"


def test_the_companion_asks_for_its_columns():
    """One line names what is missing."""
    with pytest.raises(ValueError, match="points need the column 'low'"):
        companion.companion(POINTS.drop(columns="low"), {}, "")


def test_a_study_of_one_arm_has_a_forest_of_untested_contrasts(tmp_path):
    """Each keeps its place, around zero."""
    table = claims.primary(study({"mono": 0.0}, seeds=1))
    assert table["difference"].isna().all()
    assert "<img" in drawing.show(forests.primary(table), tmp_path).data
