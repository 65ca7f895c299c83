"""From per-question scores to tables, figures' data and verdicts."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from lib.analysis import claims, drawing, plots, published, tables, words
from lib.analysis.results import (
    ENDS,
    WITH_ALPHA,
    Results,
    ScoredRun,
    arm_labels,
    cluster_sums,
    headline,
    language_cells,
    mean_of_sums,
    stratum,
)
from lib.metrics import BIAS
from lib.params import BenchmarkSpec, Train
from lib.sampler import ARMS
from lib.study.results import commits, scored_runs


def scores(gain=0.0, seed=0):
    """Made-up scores: 40 facts, two questions each, two languages, and the strata."""
    rng, rows = np.random.default_rng(seed), []
    for fact in range(40):
        base = rng.normal(0.5, 0.1)
        for hops in ("1-hop", "2-hop"):
            for setting, a, b, names in (
                ("mono", "en", "en", "identical"),
                ("cross", "en", "de", "different"),
                ("cross", "de", "en", "similar"),
                ("multi", "en", "*", None),
            ):
                rows.append(
                    {
                        "setting": setting,
                        "question_language": a,
                        "candidate_language": b,
                        "group": f"f{fact}",
                        "hops": hops,
                        "wording": "held-out",
                        "names": names,
                        "ap": base + gain + rng.normal(0, 0.02),
                    }
                )
    table = pd.DataFrame(rows)
    for metric in ("ap20", "r1", "r10", "r100", "ndcg10"):
        table[metric] = table["ap"]
    multi = table["setting"] == "multi"
    for metric in ("rank_distance", "rank_distance_ratio", "max_at_r", "own_language_advantage"):
        table[metric] = np.where(multi, 1 - table["ap"], np.nan)
    return table


def study(gains: dict, seeds=3) -> Results:
    """Results of arms named `strategy` or `strategy(alpha)` with a gain in mAP each."""
    runs, sums, cells = [], [], []
    for arm, gain in gains.items():
        name, *left_out = arm.split(", ")
        strategy, _, alpha = name.rstrip(")").partition("(")
        part = {"negatives": "in_language"} if "in_language" in left_out else {}
        part |= {"most_negatives": 7} if "7 negatives" in left_out else {}
        for seed in range(seeds):
            train = Train(strategy=strategy, alpha=float(alpha or 0.5), seed=seed, **part)
            runs.append(ScoredRun(f"arm={arm},seed={seed}", arm, train, None))
            own = scores(gain, seed)
            sums.append(cluster_sums(own).assign(arm=arm, seed=seed))
            cells.append(language_cells(own).assign(arm=arm, seed=seed))
    return Results("made-up", runs, pd.concat(sums), pd.concat(cells))


NO_AUDIT = pd.DataFrame()
GAINS = {"mono": 0.0, "cross": 0.0, "hybrid(0.5)": 0.05, "mix(0.5)": 0.0}


def test_sums_give_back_the_means():
    """A mean from cluster sums equals the mean of the questions it was made of."""
    own, results = scores(), study({"mono": 0.0}, seeds=1)
    expected = own[
        (own["setting"] == "cross") & (own["hops"] == "2-hop") & (own["names"] == "different")
    ]["ap"].mean()
    table = results.table("mono", "cross")
    assert np.average(table["value"], weights=table["weight"]) == pytest.approx(expected)
    assert len(table) == 40


def test_every_pair_of_languages_weighs_the_same():
    """Two pairs with 3 and 1 questions, AP 0 and 1: the mean is 1/2 and not 1/4, by hand; the
    cluster with a question of both holds 1/3 of the first pair's weight and all of the second's."""
    scores = pd.DataFrame(
        {
            "setting": "cross",
            "question_language": ["de", "de", "de", "en"],
            "candidate_language": ["en", "en", "en", "de"],
            "group": ["a", "b", "c", "c"],
            "ap": [0.0, 0.0, 0.0, 1.0],
        }
    )
    sums = cluster_sums(scores).assign(arm="mono", seed=0)
    table = Results("made-up", [], sums, None).table("mono", "cross").set_index("cluster")
    assert np.average(table["value"], weights=table["weight"]) == pytest.approx(1 / 2)
    assert table["weight"].to_dict() == pytest.approx({"a": 2 / 3, "b": 2 / 3, "c": 2 / 3 + 2})
    assert table.loc["c", "value"] == pytest.approx(2 / (2 / 3 + 2))
    assert mean_of_sums(sums, ["arm"])["mono"] == pytest.approx(1 / 2)


def test_headline_selects_by_stratum():
    """Two-hop and held-out always; names only where languages differ; absent strata are skipped."""
    own = headline(scores())
    assert set(own["hops"]) == {"2-hop"}
    assert set(own[own["setting"] == "cross"]["names"]) == {"different"}
    assert set(own[own["setting"] == "mono"]["names"]) == {"identical"}
    assert stratum(scores()).startswith("Two-hop questions in a held-out wording; across")
    bare = scores().drop(columns=["hops", "wording", "names"])
    assert len(headline(bare)) == len(bare)
    assert stratum(bare) == "All test questions."


def test_labels_are_short_where_clear():
    """Arms are named by strategy and alpha; keys decide where two arms would share a name."""
    trains = {
        "arm=a,seed=0": Train(strategy="hybrid", alpha=0.25),
        "arm=a,seed=1": Train(strategy="hybrid", alpha=0.25, seed=1),
        "arm=b,seed=0": Train(strategy="mono"),
        "arm=c,seed=0": Train(steps=0),
    }
    assert set(arm_labels(trains).values()) == {"hybrid(0.25)", "mono", "untrained"}
    trains["arm=wide,seed=0"] = Train(strategy="mono", width=256)
    assert arm_labels(trains)["arm=b,seed=0"] == "arm=b"
    assert arm_labels(trains)["arm=wide,seed=0"] == "arm=wide"


def test_labels_say_what_a_softmax_leaves_out():
    """So that they are arms of their own: in their family's colour, with markers of their own."""
    trains = {
        "arm=a,seed=0": Train(strategy="mix"),
        "arm=b,seed=0": Train(strategy="mix", negatives="in_language"),
        "arm=c,seed=0": Train(strategy="hybrid-pair", most_negatives=12),
        "arm=d,seed=0": Train(strategy="x-x", negatives="in_language", most_negatives=8),
    }
    assert list(arm_labels(trains).values()) == [
        "mix(0.5)",
        "mix(0.5), in_language",
        "hybrid-pair(0.5), 12 negatives",
        "x-x, in_language, 8 negatives",
    ]
    looks = [drawing.look(arm) for arm in arm_labels(trains).values()]
    plain = [drawing.look(arm) for arm in ("mix", "mix", "hybrid-pair", "x-x")]
    assert [look["color"] for look in looks] == [look["color"] for look in plain]
    assert [look["marker"] for look in looks] == ["^", ">", "<", "d"]


def test_every_arm_has_a_look_and_a_line_its_ends():
    """Colours and markers of all arms differ; what alpha runs between is known."""
    looks = [tuple(drawing.look(arm).values()) for arm in ARMS]
    assert all(len(set(values)) == len(ARMS) for values in zip(*looks, strict=True))
    assert set(ENDS) == set(WITH_ALPHA)


def test_families_end_in_the_pure_arms():
    """hybrid runs from cross to mono, mix from cross to x-x, by alpha; under whichever name."""
    results = study(GAINS | {"x-x": 0.0, "hybrid-pair(0.25)": 0.0, "cross-pair": 0.0}, seeds=1)
    assert results.family("hybrid") == ["cross", "hybrid(0.5)", "mono"]
    assert results.family("hybrid-pair") == ["cross-pair", "hybrid-pair(0.25)", "mono"]
    assert results.family("mix") == ["cross", "mix(0.5)", "x-x"]
    named = study(dict.fromkeys(["hybrid(0)", "hybrid(1)", "mix(0.5)", "mix(1)"], 0.0), seeds=1)
    assert named.family("hybrid") == ["hybrid(0)", "hybrid(1)"]
    assert named.family("mix") == ["hybrid(0)", "mix(0.5)", "mix(1)"]


def test_a_softmax_over_a_part_of_the_batch_is_another_strategy():
    """On no line over alpha; so its name is not the strategy's."""
    arms = [*GAINS, "mix(0.5), in_language", "hybrid(0.5), 7 negatives"]
    results = study(dict.fromkeys(arms, 0.0), seeds=2)
    assert set(results.arms) == set(arms)
    assert results.family("hybrid") == ["cross", "hybrid(0.5)", "mono"]
    assert results.family("mix") == ["cross", "mix(0.5)"]


def test_clear_gain_is_supported_and_its_opposite_contradicted():
    """Verdicts follow from the scores: a large gain supports, a large loss contradicts."""
    table = claims.decide(study(GAINS))
    assert set(table["verdict"]) == {"supported"}
    table = claims.decide(study(GAINS | {"hybrid(0.5)": -0.05}))
    assert set(table["verdict"]) == {"contradicted"}


def test_no_gain_is_inconclusive_for_better_and_supported_for_as_good_as():
    """With equal arms `better` cannot be told, while `as good as` within .01 can."""
    table = claims.decide(study(GAINS | {"hybrid(0.5)": 0.0}))
    better = table[(table["null"] == 0)]
    assert set(better["verdict"]) == {"inconclusive"}
    assert set(table[table["null"] < 0]["verdict"]) == {"supported"}


def test_a_claim_fails_with_any_of_its_comparisons():
    """One contradicted comparison contradicts a claim; untestable claims are listed."""
    table = pd.DataFrame(
        {
            "claim": ["A", "A", "B", "B"],
            "verdict": ["supported", "contradicted", "supported", "inconclusive"],
        }
    )
    found = claims.verdicts(table, NO_AUDIT).set_index("claim")["verdict"]
    assert found["A"] == "contradicted" and found["B"] == "inconclusive"
    assert set(found[list(claims.UNTESTABLE)]) == {"not testable here"}


def unseen(results: Results, gain: float) -> Results:
    """The same study on a benchmark none of whose languages were trained on; hybrid gains."""
    better = results.sums["arm"].str.startswith("hybrid")
    sums = results.sums.assign(trained="neither")
    return Results("unseen", results.runs, sums.assign(ap=sums["ap"] + gain * better), None)


def test_zero_shot_is_decided_where_languages_were_not_trained_on():
    """A benchmark with such languages makes the claim testable, by mono and cross there."""
    own = study(GAINS | {"hybrid(0.5)": 0.0})
    table = claims.decide(own, [own, unseen(own, -0.05), unseen(own, 0.05)])
    mine = table[table["claim"] == claims.ZERO_SHOT]
    assert list(zip(mine["setting"], mine["versus"], strict=True)) == [
        ("mono", "mono"),
        ("cross", "cross"),
    ]
    assert set(mine["verdict"]) == {"contradicted"}
    found = claims.verdicts(table, NO_AUDIT).set_index("claim")
    assert found.loc[claims.ZERO_SHOT, "verdict"] == "contradicted"
    assert claims.ZERO_SHOT not in set(claims.decide(own)["claim"])


def changed(results: Results, **columns) -> Results:
    """The same results with other columns of sums."""
    sums = results.sums.assign(**columns)
    return Results("changed", results.runs, sums, results.cells)


def test_a_benchmark_without_parallel_passages_has_no_bias():
    """Bias columns without any value give no table and no comparison; quality keeps its own."""
    own = study(GAINS)
    bare = changed(own, **{f"n_{metric}": 0 for metric in BIAS})
    assert bare.biases == [] and own.biases == list(BIAS)
    assert not len(tables.bias(bare)) and len(tables.bias(own))
    assert set(claims.decide(bare)["metric"]) == {"ap"}


def test_a_benchmark_in_one_language_has_mono_alone():
    """Its pool of all languages is its own, and nothing is claimed of it."""
    own = study(GAINS)
    sums = own.sums[own.sums["setting"].isin(["mono", "multi"])].assign(question_language="en")
    single = Results("single", own.runs, sums, own.cells)
    assert single.settings == ["mono"] and set(tables.quality(single)["setting"]) == {"mono"}
    assert not len(claims.decide(single))


def test_languages_never_trained_on_that_make_no_pair():
    """One such language alone: no cross-lingual pair of them, so no column and no claim of it."""
    own = study(GAINS)
    sums = own.sums.assign(
        trained=np.where(own.sums["setting"] == "mono", "neither", "one"), arm=own.sums["arm"]
    )
    found = Results("one", own.runs, sums, own.cells)
    assert list(tables.by_training(found)) == ["mono, neither trained", "cross, one trained"]
    mine = claims.decide(own, [found])
    assert set(mine[mine["claim"] == claims.ZERO_SHOT]["setting"]) == {"mono"}


def test_a_training_text_in_the_benchmark_contradicts_disjointness():
    """Verbatim questions or answers count; shared runs of words, and distractors, are only told."""
    audit = pd.DataFrame(
        {
            "benchmark": "made-up",
            "part": ["questions", "relevant candidates", "candidates"],
            "texts": [10, 5, 100],
            "exact": [0, 0, 90],
            "normalised": [0, 0, 90],
            "ngram": [2, 1, 95],
            "overlapping": [2, 1, 95],
        }
    )
    claim = claims.verdicts(NO_AUDIT, audit).set_index("claim").loc[claims.DISJOINT]
    assert claim["verdict"] == "supported"
    assert claim["why"].endswith("made-up: 0 of 15 (3 more share a run of 13 words)")
    audit.loc[1, "normalised"] = 1
    claim = claims.verdicts(NO_AUDIT, audit).set_index("claim").loc[claims.DISJOINT]
    assert claim["verdict"] == "contradicted"


def test_published_rows_need_the_whole_benchmark():
    """The paper's rows stand below XQuAD-R in all its languages, and below nothing else."""
    spec = BenchmarkSpec(format="lareqa")
    rows = published.rows(spec, 13_090)
    assert list(rows.loc["published: XLM-R, hybrid(0.5) (arXiv 2408.10536)"]) == [
        "0.798",
        "0.705",
        "0.593",
    ]
    assert list(rows.loc["published: mBERT, x-x (arXiv 2004.05484)"]) == ["", "", "0.23"]
    assert not len(published.rows(spec, 3 * 1_190))
    assert not len(published.rows(BenchmarkSpec(format="beir", folder="x"), 13_090))
    assert len(published.rows(BenchmarkSpec(format="lareqa", split="mlqa-r"), 4_199)) == 10


def test_mix_of_another_alpha_decides_nothing():
    """The claim is about the same alpha."""
    table = claims.decide(study(GAINS))
    assert (table["versus"] == "mix(0.5)").sum() == 4  # three settings, and among all others
    other = {"mono": 0.0, "cross": 0.0, "hybrid(0.5)": 0.05, "mix(0.25)": 0.0}
    table = claims.decide(study(other))
    assert not table["claim"].str.contains("at the same alpha").any()


def test_study_without_hybrid_has_no_claims():
    """Nothing is claimed where the arm in question was not run."""
    assert len(claims.decide(study({"mono": 0.0}))) == 0
    assert set(claims.verdicts(claims.decide(study({"mono": 0.0})), NO_AUDIT)["verdict"]) == {
        "not testable here"
    }


def test_differences_name_the_best_other_arm():
    """Each arm is compared with the best of the others, never with itself."""
    gaps = tables.differences(study(GAINS)).set_index(["arm", "setting"])
    assert gaps.loc[("mono", "mono"), "versus"] == "hybrid(0.5)"
    assert gaps.loc[("hybrid(0.5)", "mono"), "difference"] == pytest.approx(0.05, abs=0.01)
    assert gaps.loc[("hybrid(0.5)", "mono"), "verdict"] == "supported"


def test_front_holds_the_arms_that_nobody_beats():
    """The Pareto front by hand."""
    means = {"a": (0.9, 0.1), "b": (0.5, 0.5), "c": (0.4, 0.4), "d": (0.1, 0.9)}
    assert tables.front(means) == ["a", "b", "d"]


def test_wide_table_shows_intervals():
    """Cells read `estimate [low, high]` with three digits, arms in their order."""
    table = pd.DataFrame(
        {
            "arm": ["b", "a"],
            "setting": "mono",
            "metric": "ap",
            "estimate": [0.5, 0.25],
            "low": [0.4, 0.2],
            "high": [0.6, 0.3],
        }
    )
    wide = tables.wide(table, "setting")
    assert list(wide.index) == ["b", "a"]
    assert wide.loc["b", "mono"] == "0.500 [0.400, 0.600]"
    assert tables.wide(table, "metric", intervals=False).loc["a", "mAP"] == "0.250"


def test_incomplete_grid_is_named(outputs):
    """A study without evaluated runs says which notebook to run."""
    with pytest.raises(ValueError, match="no evaluated run.*02_train and 03_evaluate"):
        scored_runs("lab")


def test_findings_name_the_best_arm():
    """The report's first words hold the arm and figure that the tables hold."""
    results = study(GAINS)
    results = Results(
        "made-up",
        results.runs,
        pd.concat([results.sums, cluster_sums(scores()).assign(arm="BM25 char n-grams", seed=0)]),
        results.cells,
    )
    quality, gaps = tables.quality(results), tables.differences(results)
    text = words.findings(
        results, quality, gaps, claims.verdicts(claims.decide(results), NO_AUDIT)
    ).data
    best = quality[
        (quality["arm"] == "hybrid(0.5)")
        & (quality["metric"] == "ap")
        & (quality["setting"] == "mono")
    ]["estimate"].iloc[0]
    assert f"**mono**: **hybrid(0.5)** has the highest mAP, {best:.3f}" in text
    assert "(told apart by this interval alone)" in text


def test_commits_are_collected(tmp_path):
    """Runs of two commits are told apart, so that the report can warn."""
    from lib import store

    runs = []
    for number, commit in enumerate(("aaa", "bbb")):
        folder = tmp_path / str(number)
        folder.mkdir()
        store.write_json(folder / "provenance.json", {"commit": commit, "dirty": False})
        runs.append(SimpleNamespace(folder=folder))
    assert commits(runs) == ["aaa", "bbb"]


def with_reference(results: Results) -> Results:
    """The same with a reference ranker that is as good as mono."""
    mono = results.sums[results.sums["arm"] == "mono"]
    return replace(results, sums=pd.concat([results.sums, mono.assign(arm="BM25 char n-grams")]))


def test_a_benchmark_of_one_question_is_shown_without_intervals(tmp_path):
    """Of one cluster every table, sentence and figure of a report is made, with dashes."""
    whole = with_reference(study(GAINS))
    own = replace(whole, sums=whole.sums[whole.sums["group"] == "f0"])
    quality, gaps = tables.quality(own), tables.differences(own)
    assert (quality["clusters"] == 1).all() and quality["estimate"].notna().all()
    assert quality["low"].isna().all() and gaps["high"].isna().all()
    decided = claims.decide(own)
    assert set(decided["verdict"]) == {"inconclusive"} and decided["p_holm"].isna().all()
    verdicts = claims.verdicts(decided, NO_AUDIT)
    shown = tables.wide(quality[quality["metric"] == "ap"], "setting")
    assert shown.map(lambda cell: cell.endswith(" [—]")).all(axis=None)
    assert set(tables.compared(decided)["p (Holm)"]) == {"—"}
    assert tables.bootstrap(own, 10).map(lambda cell: cell == "[—] [—]").all(axis=None)
    said = words.findings(own, quality, gaps, verdicts).data
    assert "1 cluster of questions, too few for intervals" in said and "nan" not in said
    for drawn in (
        plots.tradeoff(*tables.plane(own, quality), about=""),
        plots.differences(gaps),
        plots.bias(tables.bias(own)),
    ):
        assert "<img" in drawing.show(drawn, tmp_path).data


def test_a_sample_of_questions_is_said():
    """Reference rankers of large benchmarks answer some questions alone: tables and words tell."""
    results = with_reference(study(GAINS))
    sampled = results.sums["group"].isin([f"f{i}" for i in range(10)])
    kept = results.sums["arm"].isin(GAINS) | sampled
    results = replace(results, sums=results.sums[kept])
    quality, gaps = tables.quality(results), tables.differences(results)
    mono = quality[(quality["metric"] == "ap") & (quality["setting"] == "mono")]
    assert mono.set_index("arm")["questions"].to_dict() == dict.fromkeys(GAINS, 40) | {
        "BM25 char n-grams": 10
    }
    said = words.findings(results, quality, gaps, claims.verdicts(claims.decide(results), NO_AUDIT))
    assert "in mono on a sample of 10 of 40 questions;" in said.data
