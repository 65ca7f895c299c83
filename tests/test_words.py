"""What the report says: its answer, its advice, its sentences and tables, from made-up figures."""

from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from scipy.stats import t
from test_results import GAINS, by_hand, noisy, study

from lib.analysis import advice, claims, contrasts, drawing, forests, plots, showing, tables, words
from lib.analysis.results import Results, ScoredRun
from lib.metrics import CELL
from lib.params import BenchmarkSpec, Train
from lib.sampler import ARMS

NAN = float("nan")


@cache
def made() -> Results:
    """One study for all that only read it."""
    return study(GAINS)


# --- the answer --------------------------------------------------------------------------------


def contrast(difference, verdict, **changes):
    """A row of the primary contrasts whose interval is .01 wide on both sides."""
    row = {"arm": "hybrid(0.5)", "versus": "mono", "difference": difference, "verdict": verdict}
    row |= {"low": difference - 0.01, "high": difference + 0.01, "seeds": 8, "detectable": 0.02}
    return row | {"why": ""} | changes


def answered(cost, gain, batch):
    """The answer to three rows."""
    return words.answer(pd.DataFrame([cost, gain, batch | {"versus": "mix(0.5)"}])).data


def test_the_answer_has_sizes_with_their_intervals():
    """A loss is told by its size, so its interval turns round; each effect once, where it is."""
    text = answered(
        contrast(-0.115, "supported"), contrast(0.182, "supported"), contrast(0.03, "supported")
    )
    assert text == (
        "Training on batches half of which are in one language and half across languages "
        "(hybrid(0.5)) **loses 0.115 [0.105, 0.125] mAP within a language** and **gains 0.182 "
        "[0.172, 0.192] mAP across languages**, against one language a batch throughout (mono); "
        "against mixing both kinds inside every batch (mix(0.5)) it **gains 0.030 [0.020, 0.040] "
        "mAP over all settings**."
    )


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (contrast(0.05, "contradicted"), "**gains 0.050 [0.040, 0.060] mAP within a language**"),
        (contrast(-0.05, "supported"), "**loses 0.050 [0.040, 0.060] mAP within a language**"),
        (
            contrast(0.0074, "supported", low=0.000086, high=0.0147),
            "**gains 0.007 [0.0001, 0.015] mAP within a language**, below the margin of "
            "0.01 fixed beforehand",
        ),
        (
            contrast(-0.008, "supported", low=-0.0156, high=-0.0004),
            "**loses 0.008 [0.0004, 0.016] mAP within a language**, below the margin of "
            "0.01 fixed beforehand",
        ),
        (
            contrast(0.001, "equivalent"),
            "**differs by no more than 0.01 mAP within a language** (+0.001 [-0.009, +0.011])",
        ),
        (
            contrast(-0.004, "inconclusive"),
            "**neither gains nor loses for certain within a language** (-0.004 [-0.014, +0.006] "
            "mAP; 0.020 could have been detected)",
        ),
        (
            contrast(-0.004, "—", seeds=4),
            "differs by -0.004 [-0.014, +0.006] mAP within a language",
        ),
        (
            contrast(NAN, "not tested", why="no arm mono"),
            "was not compared within a language (no arm mono)",
        ),
    ],
)
def test_each_verdict_has_its_words(row, expected):
    """Whatever the contrast found, and the two beside it are decided."""
    text = answered(row, contrast(0.1, "supported"), contrast(0.1, "supported"))
    assert f"(hybrid(0.5)) {expected} and **gains 0.100" in text
    assert text.startswith("Training on") and "nan" not in text


@pytest.mark.parametrize(
    ("seeds", "expected"),
    [
        (1, "**Undecided: one seed decides nothing; five are needed.** So far: training"),
        (3, "**Undecided: 3 seeds decide nothing; five are needed.** So far: training"),
        (8, "**Undecided: one cluster of questions decides nothing.** So far: training"),
    ],
)
def test_too_few_seeds_are_said_first(seeds, expected):
    """Before any figure; one row that has a verdict, and it is not said."""
    undecided = contrast(0.1, "—", seeds=seeds)
    assert answered(undecided, undecided, undecided).startswith(expected)
    missing = contrast(NAN, "not tested", why="no arm mix(0.5)", seeds=NAN)
    assert answered(undecided, undecided, missing).startswith(expected)
    assert answered(undecided, undecided, contrast(0.1, "supported")).startswith("Training")


def test_an_answer_needs_arms():
    """Without the arm in question the page says so, once for each reason."""
    missing = contrast(NAN, "not tested", why="no arm hybrid(0.5)")
    text = answered(missing, missing, missing | {"why": "no arm hybrid(0.5), mix(0.5)"})
    assert text == "**Not answered here**: no arm hybrid(0.5); no arm hybrid(0.5), mix(0.5)."


def test_a_study_with_an_answer_of_its_own_needs_no_contrasts():
    """What it lacks is then not said; a ranker that is ahead is."""
    none = contrast(float("nan"), claims.NOT_TESTED, why="no arm mono")
    rows = pd.DataFrame([none] * 3)
    assert "Not answered here" in words.answer(rows, " BM25.").data
    assert words.answer(rows, " BM25.", "Yes.").data == "BM25."


def test_the_answer_of_a_study_is_that_of_its_contrasts():
    """From scores to words: the figures are those of the table."""
    primary = claims.primary(made())
    text = words.answer(primary).data
    for row in primary.to_dict("records"):
        assert f"gains {row['difference']:.3f} [{row['low']:.3f}, {row['high']:.3f}] mAP" in text


# --- what belongs to it ------------------------------------------------------------------------


def with_reference(results: Results, gain=0.0) -> Results:
    """The same with a reference ranker that is as good as mono, or better."""
    mono = results.sums[results.sums["arm"] == "mono"]
    better = mono["total"] + gain * mono["weight"]
    ranker = mono.assign(arm="BM25 char n-grams", total=better)
    return replace(results, sums=pd.concat([results.sums, ranker], ignore_index=True))


def beside(results, note=""):
    return words.beside(results, tables.quality(results, ("ap",)), note).data


def test_what_figures_are_of_stands_beside_the_answer():
    """Seeds, clusters, measure and headline stratum with its words; the note as it is written."""
    text = beside(with_reference(made()), "half <b>of it</b>")
    assert text.startswith("Brackets: 95 % intervals over 5 seeds and 40 clusters of questions. ")
    assert (
        "Figures are of the *headline stratum*, unless they say otherwise: two-hop questions in a "
        "held-out wording; of pairs of languages that spell all names differently (a two-hop "
        "question joins two facts, no training question has a held-out wording)."
    ) in text
    assert text.endswith("\n\n**Note.** half \\<b\\>of it\\<\\/b\\>")
    plain = made()
    bare = plain.sums.drop(columns=["hops", "wording", "names"])
    text = beside(with_reference(replace(plain, sums=bare)))
    assert "unless they say otherwise: all test questions. BM25" in text and "Note" not in text


@pytest.mark.parametrize(
    ("gain", "settings"),
    [(0.02, ""), (0.5, "mono, cross and multi")],
)
def test_a_ranker_that_is_ahead_is_said_with_the_answer(gain, settings):
    """.02 better than mono is behind hybrid(0.5), which is .05 better; .5 is ahead of all."""
    results = with_reference(made(), gain)
    quality = tables.quality(results, ("ap",))
    said = words.ahead_untrained(results, quality)
    assert (
        said.endswith(f"has a higher mAP than every arm in {settings}.**") if settings else not said
    )
    assert words.answer(claims.primary(results), said).data.endswith(f"over all settings**.{said}")
    best = quality.set_index(["arm", "setting", "metric"])["estimate"]
    mono = [best[arm, "mono", "ap"] for arm in ("BM25 char n-grams", "hybrid(0.5)")]
    assert f"reaches {mono[0]:.3f} in mono (best arm {mono[1]:.3f}), " in beside(results)


def test_settings_where_a_ranker_is_ahead_are_listed():
    """By hand: ahead in cross alone, then in mono and multi; a tie is not ahead."""
    results = made()
    quality = tables.quality(with_reference(results), ("ap",)).set_index(["arm", "setting"])
    for ahead, listed in (({"cross"}, "cross"), ({"mono", "multi"}, "mono and multi")):
        for setting in results.settings:
            best = max(quality.loc[(arm, setting), "estimate"] for arm in results.arms)
            own = best + 0.001 * (setting in ahead)
            quality.loc[("BM25 char n-grams", setting), "estimate"] = own
        said = words.ahead_untrained(results, quality.reset_index())
        assert said.endswith(f"every arm in {listed}.**")


def test_a_sample_of_questions_is_said():
    """Reference rankers of large benchmarks answer some questions alone: tables and words tell."""
    results = with_reference(made())
    sampled = results.sums["group"].isin([f"f{i}" for i in range(10)])
    kept = results.sums["arm"].isin(GAINS) | sampled
    results = replace(results, sums=results.sums[kept])
    quality = tables.quality(results, ("ap",))
    mono = quality[quality["setting"] == "mono"]
    assert mono.set_index("arm")["questions"].to_dict() == dict.fromkeys(GAINS, 40) | {
        "BM25 char n-grams": 10
    }
    assert "on a sample of 10 of 40 questions." in beside(results)


def test_a_benchmark_of_one_question_is_shown_without_intervals(tmp_path):
    """Of one cluster every table, sentence and figure of a report is made, with dashes."""
    whole = with_reference(made())
    own = replace(whole, sums=whole.sums[whole.sums["group"] == "f0"])
    quality, gaps = tables.quality(own), contrasts.rivals(own)
    assert (quality["clusters"] == 1).all() and quality["estimate"].notna().all()
    assert quality["low"].isna().all() and gaps["high"].isna().all()
    table, _ = claims.decide(own)
    assert set(table["verdict"]) == {"—"} and table["p"].isna().all()
    shown = tables.wide(quality[quality["metric"] == "ap"], "setting")
    assert shown.map(lambda cell: cell.endswith(" [—]")).all(axis=None)
    assert set(tables.compared(table)["p"]) == {"—"}
    assert tables.against(gaps).map(lambda cell: cell.endswith(" [—]")).all(axis=None)
    assert tables.bootstrap(own, 10).map(lambda cell: cell == "[—] [—]").all(axis=None)
    chosen = advice.advise(own)
    assert set(chosen["advice"]) == {"undecided: one cluster of questions"}
    said = [words.answer(claims.primary(own)).data, beside(own)]
    said += [
        cell for column in advice.shown(chosen, own) for cell in advice.shown(chosen, own)[column]
    ]
    assert "Over 5 seeds and 1 cluster of questions. " in said[1]
    assert not any("nan" in text for text in said)
    for drawn in (
        plots.tradeoff(*tables.plane(own, quality), about=""),
        forests.rivals(gaps),
        forests.primary(claims.primary(own)),
        plots.bias(tables.bias(own)),
    ):
        assert "<img" in drawing.show(drawn, tmp_path).data


def test_arms_are_told_once_each():
    """Those of the study, with what alpha runs between, and no others."""
    found = study(GAINS | {"hybrid(0.25)": 0, "mix(0.5), in_language": 0}, seeds=1)
    text = words.arms(found).data
    assert text.count("*hybrid(alpha)*: each batch") == text.count("*in_language*: ") == 1
    assert "x-x*" not in text and "untrained" not in text and "negatives*" not in text
    assert text.endswith(
        "hybrid runs from cross at 0 to mono at 1, mix runs from cross at 0 to x-x at 1."
    )
    assert "Alpha" not in words.arms(study({"mono": 0.0}, seeds=1)).data
    assert list(words.STRATEGIES) == [name for name in words.STRATEGIES if name in ARMS]
    assert set(words.STRATEGIES) == set(ARMS)


def test_what_was_measured_is_said():
    """Data, benchmark, encoder, steps and seeds; of runs that differ all values."""
    trains = [Train(seed=3), Train(seed=1, steps=50), Train(seed=3, steps=0)]
    runs = [ScoredRun(f"r{i}", f"a{i}", train, None) for i, train in enumerate(trains)]
    cells = pd.DataFrame({"question_language": ["de", "en", "en"]})
    text = words.about(
        Results("xquad-r", runs, pd.DataFrame(), cells),
        BenchmarkSpec(format="lareqa"), "pairs", {"de": 1200, "en": 34},
    ).data  # fmt: skip
    assert text.startswith(
        "**Training data** pairs: 1,234 rows in 2 languages (de, en). **Benchmark** xquad-r "
        "(lareqa): 2 languages. **Encoder** "
    )
    batch, steps = Train().batch_size, Train().steps
    assert f"**Training** {steps} / 50 steps of {batch} pairs, seeds 1, 3." in text


def test_what_was_not_tested_is_listed():
    """With the reason; a study that tested all lists nothing."""
    verdicts = pd.DataFrame(
        [("A", "supported", "1"), ("B", "not tested", "no arm x")],
        columns=["claim", "verdict", "why"],
    )
    assert words.not_measured(verdicts).data == "**Not tested here**\n\n- B: no arm x."
    assert words.not_measured(verdicts[:1]) is showing.NOTHING
    shown = tables.tested(verdicts.assign(family="exploratory"))
    assert shown.to_dict("records") == [{"claim": "A", "verdict": "supported", "why": "1"}]


def test_runs_that_are_left_out_are_named():
    """By key, arm and seed; nothing is said of none."""
    run = ScoredRun("arm=mix,seed=4", "mix(0.5)", Train(seed=4), None)
    assert words.left_out([run]).data.startswith(
        "**Left out** `arm=mix,seed=4` (mix(0.5), seed 4): arms are compared on the same seeds "
    )
    assert words.left_out([]).data == ""


def test_provenance_explains_several_commits():
    """And links every table."""
    one = words.provenance(1, ["abc"], ["quality", "bias"]).data
    assert one.startswith("1 run made with abc.") and "Several" not in one
    assert one.endswith("Tables: [quality.csv](tables/quality.csv), [bias.csv](tables/bias.csv).")
    assert "3 runs made with abc, def. Several, " in words.provenance(3, ["abc", "def"], []).data


def test_a_run_tells_what_it_does_and_did():
    """Before, with a checkpoint's values; after, from its log; and how well it retrieves."""
    p = Train(run="r", steps=40, batch_size=8)
    assert words.training(p).data.endswith("40 steps of 8 pairs, an encoder from scratch.")
    loaded = p.model_copy(update={"model": "m", "learning_rate": 2e-5})
    assert "from the checkpoint m with " in words.training(loaded).data
    assert "learning_rate 2e-05" in words.training(loaded).data
    log = pd.DataFrame({"loss": [4.0] * 20 + [1.0] * 20})
    cost = {"pairs_per_second": 1234.4, "padded_share": 0.05}
    text = words.trained(p, log, cost, {"monolingual": 0.5, "negatives": 7.0}).data
    assert "went from 4.00 to 1.00 nats at 1,234 pairs a second, 5%" in text
    assert "50% of the rows were monolingual" in text and "7.0 negatives" in text
    assert words.trained(p, log[:0], {}, {}).data == "`r`: the untrained encoder."
    index = pd.MultiIndex.from_product([["headline"], ["mono", "multi"]])
    means = pd.DataFrame({"ap": [0.5, 0.25], "own_language_advantage": [NAN, 0.75]}, index)
    share = pd.DataFrame(
        [("*", "de", 0.5), ("*", "en", 1.5), ("de", "de", 9.0)],
        columns=["question_language", "candidate_language", "lift"],
    )
    text = words.evaluated("r", "heldout", means, share).data
    assert "mAP 0.500 mono, 0.250 multi; own-language advantage +0.75" in text
    assert "en holds 1.50 times" in text


# --- advice ------------------------------------------------------------------------------------


def test_advice_by_hand():
    """The best of four by its mean; the others stay unless their gap is beyond .01 at a level that
    is divided by three: t intervals from mean squares."""
    gains = {"mono": 0.0, "cross": 0.028, "hybrid(0.5)": 0.1, "mix(0.5)": 0.09}
    results, values = noisy(gains, seeds=6, spread=0.015)
    table = advice.advise(results).set_index("setting")
    assert list(table.index) == ["mono", "cross", "multi", "mono+cross"]
    for setting, row in table.iterrows():
        mean = {a: sum(v[s] for s in setting.split("+")) for a, v in values.items()}
        mean = {arm: value / (setting.count("+") + 1) for arm, value in mean.items()}
        order = sorted(mean, key=lambda arm: -mean[arm].mean())
        assert (row["arm"], row["versus"]) == tuple(order[:2])
        as_good = []
        for arm in results.arms:
            gap, error, df = by_hand(mean[order[0]] - mean[arm]) if arm != order[0] else (NAN,) * 3
            half = t.ppf(1 - 0.05 / 3 / 2, df) * error
            as_good += [arm] * bool(gap - half <= 0.01)
            if arm == order[1]:
                assert row["difference"] == pytest.approx(gap)
                assert row[["gap_low", "gap_high"]].tolist() == pytest.approx(
                    [gap - half, gap + half]
                )
        assert row["as_good"] == "; ".join(as_good)
    assert table.loc["mono", "advice"].startswith(f"take {table.loc['mono', 'arm']}")


def test_advice_in_words():
    """One clear winner, two that are as good, none that is better, too few seeds."""
    clear = advice.advise(study({"mono": 0.3, "cross": 0.0, "hybrid(0.5)": 0.1}))
    assert set(clear["advice"]) == {"take mono"} and set(clear["as_good"]) == {""}
    two = advice.advise(study({"mono": 0.3, "cross": 0.0, "hybrid(0.5)": 0.3}))
    other = {"mono": "hybrid(0.5)", "hybrid(0.5)": "mono"}
    assert two["advice"].tolist() == [
        f"take {arm}; not shown to be worse by more than .01: {other[arm]}" for arm in two["arm"]
    ]
    none = advice.advise(study({"mono": 0.0, "cross": 0.0, "hybrid(0.5)": 0.0}))
    assert set(none["advice"]) == {"no arm is shown to be better by more than .01"}
    few = advice.advise(study({"mono": 0.3, "cross": 0.0}, seeds=4))
    assert set(few["advice"]) == {"undecided: 4 seeds, a choice needs 5"}
    one = advice.advise(study({"mono": 0.3, "cross": 0.0}, seeds=1))
    assert set(one["advice"]) == {"undecided: 1 seed, a choice needs 5"}
    assert not len(advice.advise(study({"mono": 0.3})))


def test_advice_names_alpha():
    """That of the best arm, by whichever name; a dash off the lines. A benchmark without cross
    advises on mono alone."""
    results = study({"mono": 0.3, "cross": 0.0, "hybrid(0.5)": 0.1, "cross-fixed": 0.0}, seeds=2)
    assert advice.alpha_of(results) == {"cross": "0", "hybrid(0.5)": "0.5", "mono": "1"}
    shown = advice.shown(advice.advise(results), results)
    assert set(shown["alpha"]) == {"1"} and set(shown["best arm"]) == {"mono"}
    assert shown["mAP [95 %]"].str.fullmatch(r"[01]\.\d{3} \[[01]\.\d{3}, [01]\.\d{3}\]").all()
    off = study({"mono": 0.0, "cross": 0.0, "cross-fixed": 0.3}, seeds=2)
    assert set(advice.shown(advice.advise(off), off)["alpha"]) == {"—"}
    mono = results.sums[results.sums["setting"] == "mono"]
    single = Results("x", results.runs, mono, results.cells.assign(question_language="en"))
    assert list(advice.advise(single)["setting"]) == ["mono"]


# --- tables ------------------------------------------------------------------------------------


def test_a_table_has_its_caption_and_file():
    """Rows named by the index or the first column; text is escaped; nothing of an empty one."""
    numbered = showing.show(pd.DataFrame({"claim": ["<a>"], "p": [NAN]}), "All & more", "claims")
    page = BeautifulSoup(numbered.data, "html.parser")
    assert page.caption.get_text() == "All & more" and page.find("a")["href"] == "tables/claims.csv"
    cells = [cell.get_text() for cell in page.find_all(["th", "td"])]
    assert cells == ["claim", "p", "<a>", "—"] and "style" not in numbered.data
    named = BeautifulSoup(showing.show(pd.DataFrame({"p": [1]}, ["mono"]), "A").data, "html.parser")
    assert [cell.get_text() for cell in named.find_all(["th", "td"])] == ["", "p", "mono", "1"]
    assert named.find("a") is None
    assert showing.show(pd.DataFrame({"p": []}), "A") is showing.NOTHING


def test_tables_together_leave_out_the_empty_ones():
    """One link for all, below the last that is shown."""
    full, empty = pd.DataFrame({"p": [1]}), pd.DataFrame()
    page = BeautifulSoup(
        showing.together({"a": full, "b": full, "c": empty}, "mAP", "further").data, "html.parser"
    )
    assert [c.get_text() for c in page.find_all("caption")] == ["a: mAP", "b: mAP"]
    assert len(page.find_all("a")) == 1 and page.find_all(["table", "a"])[-1].name == "a"
    assert showing.together({"c": empty}, "mAP") is showing.NOTHING


def comparison(**changes):
    """A row behind a claim: +.02 [.01, .03], undecided."""
    row = {"claim": "A: b", "arm": "h", "versus": "m", "setting": "mono+cross", "metric": "ap"}
    row |= {"null": 0.0, "difference": 0.02, "low": 0.01, "high": 0.03, "seeds": 8}
    return row | {"detectable": 0.0166, "p": 0.0001, "verdict": "inconclusive"} | changes


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"p_holm": 0.06}, "p < .001 alone; adjusted over the three 0.060"),
        ({"verdict": "—", "seeds": 3.0}, "3 seeds decide nothing: a test needs 5"),
        ({"p_against": 0.9, "null": 0.015}, "without 0, but not beyond 0.015, the margin"),
        (
            {"p_against": 0.07, "null": -0.01, "low": -0.03, "high": -0.02, "difference": -0.025},
            "below -0.010, the margin; adjusted within the claim, p 0.070",
        ),
        (
            {"p_against": 0.07},
            "the other way than claimed; adjusted within the claim, p 0.070",
        ),
        ({"why": "no arm x", "low": NAN, "high": NAN}, "no arm x"),
        ({"low": -0.01}, None),
        ({"verdict": "supported"}, None),
    ],
)
def test_an_interval_without_zero_that_decides_nothing_says_why(changes, note):
    """The note of a comparison; no column of notes where there is nothing to note."""
    table = tables.compared(pd.DataFrame([comparison(**changes)]))
    assert (list(table["note"]) if "note" in table else [None]) == [note]


def test_compared_is_for_people():
    """What is the same of no difference in all rows has no column; p and effects are short."""
    rows = [comparison(verdict="supported"), comparison(p=0.04567, difference=NAN, verdict="x")]
    shown = tables.compared(pd.DataFrame(rows))
    assert shown.to_dict("records")[0] == {
        "claim": "A",
        "verdict": "supported",
        "difference": "h − m",
        "of": "mono, cross mAP",
        "value [95 %]": "+0.020 [+0.010, +0.030]",
        "detectable": "0.017",
        "p": "< .001",
    }
    assert list(shown.iloc[1][["value [95 %]", "p"]]) == ["—", "0.046"]
    bias = tables.compared(
        pd.DataFrame([comparison(metric="rank_distance", null=-1.0, difference=-57.64, low=-60)])
    )
    assert bias["value [95 %]"][0] == "-57.6 [-60.0, +0.0]" and bias["beyond"][0] == "-1.0"
    assert not len(tables.compared(pd.DataFrame()))


def test_against_marks_what_is_told_apart():
    """A star by the adjusted test, = where arms are equivalent, nothing else; a row a pair."""
    gaps = pd.DataFrame(
        [
            ("a", "mono", "mono", 0.1, 0.05, 0.15, "higher"),
            ("a", "mono", "cross", -0.1, -0.15, -0.05, "lower"),
            ("b", "mono", "mono", 0.0, -0.005, 0.005, "equivalent"),
            ("b", "mono", "cross", 0.02, 0.001, 0.04, "undecided"),
        ],
        columns=["arm", "versus", "setting", "difference", "low", "high", "verdict"],
    )
    shown = tables.against(gaps)
    assert list(shown.index) == ["a − mono", "b − mono"] and list(shown) == ["mono", "cross"]
    assert [cell[-2:] for cell in shown.to_numpy().ravel()] == [" *", " *", " =", "0]"]
    assert not len(tables.against(gaps[:0]))
    named = tables.against(gaps.replace("mono", "mono, centred"))
    assert list(named.index) == ["a − (mono, centred)", "b − (mono, centred)"]


def test_p_values_are_short():
    """Three places, below half a thousandth a bound, a dash for none."""
    assert [tables.p_shown(p) for p in (0.00049, 0.0005, 0.25, NAN)] == [
        "< .001", "0.001", "0.250", "—",
    ]  # fmt: skip


def test_measures_beside_map_are_by_setting():
    """hit@1 and recall, without intervals."""
    table = tables.without_intervals(tables.quality(study(GAINS, seeds=2)))
    assert list(table["mono"]) == ["hit@1", "R@10", "R@100", "nDCG@10"]
    assert set(table.columns.get_level_values(0)) == {"mono", "cross", "multi"}
    assert table.map(lambda cell: len(cell) == 5).all(axis=None)


def test_strata_are_means_by_hand():
    """Of two fixed values: mono AP 1 for one-hop questions, .5 for two-hop ones."""
    rows = [("mono", "mono", hops, "seen", "ap", total, 2.0) for hops, total in
            (("1-hop", 2.0), ("2-hop", 1.0))]  # fmt: skip
    sums = pd.DataFrame(
        rows, columns=["arm", "setting", "hops", "wording", "metric", "total", "weight"]
    ).assign(seed=0, group="g", questions=2)
    run = ScoredRun("arm=mono,seed=0", "mono", Train(strategy="mono"), None)
    table = tables.strata(Results("x", [run], sums, None))
    assert table[["stratum", "estimate"]].to_numpy().tolist() == [
        ["1-hop, seen", 1.0], ["2-hop, seen", 0.5],
    ]  # fmt: skip
    shown = tables.by_stratum(table)
    assert shown["mono"].loc["mono"].to_dict() == {
        "1\N{NON-BREAKING HYPHEN}hop, seen": "1.000",
        "2\N{NON-BREAKING HYPHEN}hop, seen": "0.500",
    }


def test_strata_are_told_where_they_are():
    """Those of the table, and none where it has none."""
    table = pd.DataFrame({"stratum": ["same script", "other script"]})
    assert words.strata(table).data == (
        "Here *script* tells whether the two languages are written alike."
    )
    whole = words.strata(tables.strata(made())).data
    assert [name for name in ("*hops*", "*held-out*", "*names*", "*trained*", "*script*")
            if name in whole] == ["*hops*", "*held-out*", "*names*"]  # fmt: skip
    assert words.strata(table[:0]).data == ""


def test_what_was_seen_is_in_whole_numbers():
    """But shares and negatives."""
    exposure = pd.DataFrame(
        {"pairs": 1234.0, "substituted": 2.5, "flops": 3.2e12, "monolingual": 0.504}
        | {"negatives": 127.25},
        index=pd.Index(["mono"], name="arm"),
    )
    assert tables.seen(exposure).loc["mono"].to_dict() == {
        "rows": "1,234", "rows that gave way": "2", "GFLOP": "3,200", "share monolingual": "0.50",
        "negatives a question": "127.2",
    }  # fmt: skip


def test_tables_are_saved_anew(tmp_path):
    """CSV of those that have rows, LaTeX beside; files of before go, others stay."""
    for name in ("old.csv", "old.tex", "readme.txt"):
        (tmp_path / name).write_text("")
    own = {"quality": pd.DataFrame({"x": [1 / 3]}), "further": pd.DataFrame()}
    assert tables.save(own, tmp_path, {"quality": "\\alpha"}) == ["quality"]
    assert {f.name for f in tmp_path.iterdir()} == {"quality.csv", "quality.tex", "readme.txt"}
    assert (tmp_path / "quality.csv").read_text() == "x\n0.333333\n"


def test_points_and_marks_are_means():
    """A run's point is its weighted mean in each setting; a reference's mark the table's."""
    results, values = noisy({"mono": 0.0, "cross": 0.1}, seeds=2)
    own = tables.points(results).set_index(["arm", "seed"])
    assert own.loc[("cross", 1), "multi"] == pytest.approx(values["cross"]["multi"][1].mean())
    quality = tables.quality(results, ("ap",))
    found = tables.marks(quality, ["mono", "absent"])
    assert found == {
        "mono": pytest.approx((values["mono"]["mono"].mean(), values["mono"]["cross"].mean()))
    }


def test_sentence_search_is_a_mean_over_languages():
    """Of several an interval, of one none."""
    rows = [
        ("mono", "to en", s, c, v, v / 2) for s in (0, 1) for c, v in (("de", 0.5), ("fr", 0.75))
    ]
    table = pd.DataFrame(rows, columns=["arm", "direction", "seed", "cluster", "accuracy", "f1"])
    table["weight"] = 1.0
    found = tables.sentence_search({"t": table, "u": table[table["cluster"] == "de"]})
    assert found.loc["mono", "t, to en, accuracy"].startswith("0.625 [")
    assert found.loc["mono", "u, to en, F1"] == "0.250"


def test_tables_of_one_run():
    """Rounded, named; maps by language within one pool and out of all."""
    scores = pd.DataFrame(
        [("mono", "de", "de", 0.5), ("cross", "de", "en", 0.25), ("one_target", "de", "en", 0.125)],
        columns=["setting", *CELL, "ap"],
    )
    one, every = tables.language_maps(scores).values()
    assert one.loc["de"].to_dict() == {"de": 0.5, "en": 0.25}
    assert every.loc["de"].to_dict() == {"en": 0.125}
    share = pd.DataFrame(
        [("*", "de", 0.12345, 0.5, 0.2469), ("de", "de", 0, 0, 0)],
        columns=["question_language", "candidate_language", "share", "pool", "lift"],
    )
    assert tables.language_share(share).loc["de"].tolist() == [0.123, 0.5, 0.247]
    assert np.isfinite(tables.language_share(share).to_numpy()).all()


def test_tables_of_a_run_stand_under_their_names():
    """Without the empty ones; of none nothing is shown."""
    table = pd.DataFrame({"a": [1]})
    text = words.titled({"one": table, "none": table[:0]}).data
    assert text.startswith("<h3>one</h3><table") and "none" not in text
    assert words.titled({"none": table[:0]}) is showing.NOTHING
