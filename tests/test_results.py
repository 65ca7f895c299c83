"""From per-question scores to tables, figures' data and verdicts."""

from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t

from lib.analysis import claims, contrasts, drawing, published, tables
from lib.analysis.results import (
    ENDS,
    WITH_ALPHA,
    Results,
    ScoredRun,
    arm_labels,
)
from lib.analysis.sums import headline, language_cells, means, stratum, summed
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
                        "question_id": f"f{fact} {hops}",
                        "group": f"f{fact}",
                        "hops": hops,
                        "wording": "held-out",
                        "names": names,
                        "ap": base + gain + rng.normal(0, 0.02),
                    }
                )
    table = pd.DataFrame(rows)
    for metric in ("ap20", "hit1", "r1", "r10", "r100", "ndcg10"):
        table[metric] = table["ap"]
    multi = table["setting"] == "multi"
    for metric in ("rank_distance", "rank_distance_ratio", "max_at_r", "own_language_advantage"):
        table[metric] = np.where(multi, 1 - table["ap"], np.nan)
    return table


@cache
def made_up(gain, seed):
    """(sums, cells) of such scores; the same are asked for again and again."""
    own = scores(gain, seed)
    return summed(own), language_cells(own)


def study(gains: dict, seeds=5) -> Results:
    """Results of arms named `strategy` or `strategy(alpha)` with a gain in mAP each."""
    runs, sums, cells = [], [], []
    for arm, gain in gains.items():
        name, *left_out = arm.split(", ")
        strategy, _, alpha = name.rstrip(")").partition("(")
        part = {"negatives": "in_language"} if "in_language" in left_out else {}
        part |= {"most_negatives": 7} if "7 negatives" in left_out else {}
        part |= {"maps": "centred", "steps": 0} if "centred" in left_out else {}
        part |= {"objective": "lakda"} if "lakda" in left_out else {}
        warm = [float(own.split()[1]) for own in left_out if own.startswith("temperature ")]
        part |= {"temperature": warm[0]} if warm else {}
        for seed in range(seeds):
            train = Train(strategy=strategy, alpha=float(alpha or 0.5), seed=seed, **part)
            switched = "switched" in left_out
            runs.append(ScoredRun(f"arm={arm},seed={seed}", arm, train, None, switched))
            own = made_up(gain, seed)
            sums.append(own[0].assign(arm=arm, seed=seed))
            cells.append(own[1].assign(arm=arm, seed=seed))
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


def of_pairs(setting, sizes, **columns):
    """Scores of pairs of languages "de en" -> the AP of their questions, a cluster each."""
    rows = [
        {"setting": setting, "question_language": a, "candidate_language": b, "ap": ap}
        | {"question_id": f"{a}{i}", "group": f"c{i}"}
        for pair, values in sizes.items()
        for a, b in [pair.split()]
        for i, ap in enumerate(values)
    ]
    return pd.DataFrame(rows).assign(**columns)


def test_every_pair_of_languages_weighs_the_same():
    """Two pairs with 60 and 20 questions, AP 0 and 1: the mean is 1/2 and not 1/4, by hand; the
    first clusters have a 60th and a 20th of a pair's weight, the others a 60th."""
    sums = summed(of_pairs("cross", {"de en": [0.0] * 60, "en de": [1.0] * 20}))
    table = Results("made-up", [], sums.assign(arm="mono", seed=0), None).table("mono", "cross")
    table = table.set_index("cluster")
    assert np.average(table["value"], weights=table["weight"]) == pytest.approx(1 / 2)
    assert table.loc["c3", "weight"] == pytest.approx(1 / 60 + 1 / 20)
    assert table.loc["c3", "value"] == pytest.approx((1 / 20) / (1 / 60 + 1 / 20))
    assert table.loc["c30", "weight"] == pytest.approx(1 / 60)
    assert sums["questions"].sum() == 80


def test_cells_held_out_of_training_share_the_weight_of_their_language():
    """By hand: 100 questions of de that were kept, AP 1; of fr 100 kept, AP 1, and 50 removed, AP
    0: the mean over languages of 1 and 2/3, and not over three cells."""
    kept, removed = (
        of_pairs("mono", sizes, cell=cell)
        for cell, sizes in (
            ("kept", {"de de": [1.0] * 100, "fr fr": [1.0] * 100}),
            ("removed", {"fr fr": [0.0] * 50}),
        )
    )
    sums = summed(pd.concat([kept, removed.assign(question_id=removed["question_id"] + "x")]))
    assert means(sums, ["setting"])["mono"] == pytest.approx((1 + 2 / 3) / 2)
    assert means(sums, ["cell"]).to_dict() == {"kept": 1.0, "removed": 0.0}


def test_thin_pairs_are_pooled():
    """Pairs with 5 and 10 questions weigh 5/20 and 10/20 of one with 100: each of their questions
    weighs the same, and one question of AP 1 does not move the mean as a language would."""
    sizes = {"de en": [0.0] * 100, "en de": [1.0] * 5, "fr de": [1.0] * 10}
    sums = summed(of_pairs("cross", sizes))
    assert means(sums, ["setting"])["cross"] == pytest.approx(15 / 20 / (1 + 15 / 20))
    assert sums["weight"].sum() == pytest.approx(1.75)


def test_mono_and_cross_are_of_the_same_questions():
    """A question whose names differ in one of two other languages counts half within its own, in
    that stratum; one whose names differ in none not at all. By hand, with 40 questions of each
    kind: mono AP 1, .5 and 0 of those that count 1, 1/2 and 0."""
    kinds = {1.0: ("different", "different"), 0.5: ("different", "same"), 0.0: ("same", "same")}
    cross = [
        of_pairs("cross", {f"en {other}": [0.0] * 40}, names=kinds[ap][place]).assign(kind=ap)
        for ap in kinds
        for place, other in enumerate(("de", "fr"))
    ]
    mono = [
        of_pairs(setting, {f"en {pool}": [ap] * 40}, names=None, kind=ap)
        for ap in kinds
        for setting, pool in (("mono", "en"), ("multi", "*"))
    ]
    scores = pd.concat(cross + mono, ignore_index=True)
    scores["question_id"] += scores.pop("kind").astype(str)
    sums = headline(summed(scores))
    assert set(sums["names"]) == {"different"} and set(sums["metric"]) == {"ap"}
    expected = (40 * 1 + 40 * 0.5 * 0.5) / (40 + 20)
    found = means(sums, ["setting"])
    assert found["mono"] == found["multi"] == pytest.approx(expected)
    assert sums.groupby("setting")["questions"].sum().to_dict() == {
        "mono": 60.0, "cross": 120.0, "multi": 60.0,
    }  # fmt: skip


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"), st.floats(0, 1)), min_size=1)
)
def test_sums_are_a_slow_mean(rows):
    """Against a loop over pairs of languages: mean of their means, weighted by twentieths."""
    scores = pd.concat([of_pairs("cross", {f"{a} {b}": [ap]}) for a, b, ap in rows])
    pairs: dict = {}
    for a, b, ap in rows:
        pairs.setdefault((a, b), []).append(ap)
    weights = [min(len(values), 20) / 20 for values in pairs.values()]
    expected = np.average([np.mean(values) for values in pairs.values()], weights=weights)
    assert means(summed(scores), ["setting"])["cross"] == pytest.approx(expected)


def test_headline_selects_by_stratum():
    """Strata that are there; absent ones are skipped, and one may be left open."""
    sums = summed(scores())
    own = headline(sums)
    assert set(own["hops"]) == {"2-hop"} and set(own["names"]) == {"different"}
    assert set(own["setting"]) == {"mono", "cross", "multi"}
    assert set(headline(sums, but="names")["names"]) == {"different", "similar"}
    assert stratum(sums).startswith("Two-hop questions in a held-out wording; of pairs of")
    bare = summed(scores().drop(columns=["hops", "wording", "names"]))
    assert len(headline(bare)) == len(bare)
    assert stratum(bare) == "All test questions."


def test_other_measures_are_summed_for_the_headline_alone():
    """mAP has every stratum; nDCG@10 the headline's."""
    sums = summed(scores())
    assert set(sums.loc[sums["metric"] == "ap", "hops"]) == {"1-hop", "2-hop"}
    assert set(sums.loc[sums["metric"] == "ndcg10", "hops"]) == {"2-hop"}


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


def test_temperatures_of_one_arm_are_in_its_name():
    """Of all but the first, which is the arm itself; seeds share it; all else is the same."""
    trains = {
        f"arm={name},seed={seed}": Train(strategy="mono", temperature=t, seed=seed)
        for name, t in (("a", 0.02), ("b", 0.05), ("c", 0.01))
        for seed in (0, 1)
    }
    labels = ["mono", "mono, temperature 0.05", "mono, temperature 0.01"]
    assert [*dict.fromkeys(arm_labels(trains).values())] == labels
    run = ScoredRun("k", labels[1], trains["arm=b,seed=0"], None)
    assert (run.plain, run.strategy) == ("mono", labels[1])
    trains["arm=wide,seed=0"] = Train(strategy="mono", temperature=0.02, width=256)
    named = arm_labels(trains)
    assert named["arm=a,seed=0"] == "arm=a" and named["arm=wide,seed=0"] == "arm=wide"
    assert named["arm=b,seed=0"] == labels[1]
    tuned = {"arm=a,seed=0": Train(strategy="mono", temperature=0.05), "arm=b,seed=0": Train()}
    assert [*arm_labels(tuned).values()] == ["mono", "hybrid(0.5)"]


def test_code_switched_pairs_are_in_the_name():
    """Of a run whose corpus was switched, and of no other with the same batches."""
    trains = {f"arm={name},seed=0": Train(strategy="en-en") for name in ("plain", "switched")}
    named = arm_labels(trains, ["arm=switched,seed=0"])
    assert [*named.values()] == ["en-en", "en-en, switched"]
    run = ScoredRun("k", "en-en, switched", Train(strategy="en-en"), None, switched=True)
    assert run.strategy == "en-en, switched"


def test_labels_of_maps_after_training_name_the_encoder():
    """That of the run that they start from; a rotation before training is a rung, no arm."""
    trains = {
        "arm=a,seed=0": Train(strategy="mono"),
        "arm=b,seed=0": Train(steps=0, model="outputs/x/runs/arm=a,seed=0/model", maps="centred"),
        "arm=c,seed=0": Train(steps=0, model="some/model", maps="projected", directions=1),
        "arm=d,seed=0": Train(steps=0, model="some/model", maps="rotated", angle=0.5),
    }
    labels = ["mono", "mono, centred", "untrained, projected", "untrained"]
    assert [*arm_labels(trains).values()] == labels


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
    assert [*results.alphas("hybrid").values()] == ["cross", "hybrid(0.5)", "mono"]
    assert [*results.alphas("hybrid-pair").values()] == ["cross-pair", "hybrid-pair(0.25)", "mono"]
    assert [*results.alphas("mix").values()] == ["cross", "mix(0.5)", "x-x"]
    named = study(dict.fromkeys(["hybrid(0)", "hybrid(1)", "mix(0.5)", "mix(1)"], 0.0), seeds=1)
    assert [*named.alphas("hybrid").values()] == ["hybrid(0)", "hybrid(1)"]
    assert [*named.alphas("mix").values()] == ["hybrid(0)", "mix(0.5)", "mix(1)"]


def test_a_softmax_over_a_part_of_the_batch_is_another_strategy():
    """On no line over alpha; so its name is not the strategy's."""
    arms = [*GAINS, "mix(0.5), in_language", "hybrid(0.5), 7 negatives"]
    results = study(dict.fromkeys(arms, 0.0), seeds=2)
    assert set(results.arms) == set(arms)
    assert [*results.alphas("hybrid").values()] == ["cross", "hybrid(0.5)", "mono"]
    assert [*results.alphas("mix").values()] == ["cross", "mix(0.5)"]


def decided(results, others=()):
    """Comparisons of the exploratory claims."""
    return claims.decide(results, others)[0]


def test_clear_gain_is_supported_and_its_opposite_contradicted():
    """Verdicts follow from the scores: a large gain supports, a large loss contradicts."""
    table = decided(study(GAINS))
    assert set(table["verdict"]) == {"supported"}
    table = decided(study(GAINS | {"hybrid(0.5)": -0.05}))
    assert set(table["verdict"]) == {"contradicted"}


def test_no_gain_is_equivalent_for_better_and_supported_for_as_good_as():
    """Equal arms: `better` is not told but the margin is, `as good as` within .01 is."""
    table = decided(study(GAINS | {"hybrid(0.5)": 0.0}))
    better = table[(table["null"] == 0) & (table["metric"] == "ap")]
    assert set(better["verdict"]) == {"equivalent"}
    assert set(table[table["null"] < 0]["verdict"]) == {"supported"}
    assert set(table[table["metric"] != "ap"]["verdict"]) == {"inconclusive"}  # no margin of these


def row(verdict, **changes):
    """A comparison as `verdicts` reads it."""
    return {"claim": "A", "verdict": verdict, "versus": "mono", "setting": "mono"} | {
        "detectable": 0.02,
        "seeds": 5,
    } | changes  # fmt: skip


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (["supported", "supported"], "supported"),
        (["supported", "equivalent"], "equivalent"),
        (["supported", "inconclusive", "equivalent"], "inconclusive"),
        (["supported", "inconclusive", "contradicted"], "contradicted"),
        (["supported", "—"], "—"),
    ],
)
def test_a_claim_needs_all_and_fails_with_any(verdicts, expected):
    """Supported if all are, contradicted if any is; claims that need other data are listed."""
    table = pd.DataFrame([row(verdict) for verdict in verdicts])
    found = claims.verdicts(table, {"B": "no arm x"}, NO_AUDIT).set_index("claim")
    assert found.loc["A", "verdict"] == expected
    assert ("detectable: 0.02 (mono, mono)" in found.loc["A", "why"]) == (
        expected in ("inconclusive", "—")
    )
    assert set(found.loc[["B", *claims.ELSEWHERE], "verdict"]) == {"not tested"}
    assert found.loc["B", "why"] == "no arm x"


def noisy(gains, seeds=5, clusters=12, spread=0.03):
    """Results whose scores are one question a cluster, setting and language pair, all known:
    and those scores, arm -> setting -> [seeds, clusters]."""
    generator, runs, sums, values = np.random.default_rng(4), [], [], {}
    for arm, gain in gains.items():
        strategy, _, alpha = arm.rstrip(")").partition("(")
        values[arm] = {}
        for setting in ("mono", "cross", "multi"):
            effects = [generator.normal(0, spread, s) for s in ((seeds, 1), (seeds, clusters))]
            values[arm][setting] = 0.5 + gain + sum(effects)
        for seed in range(seeds):
            train = Train(strategy=strategy, alpha=float(alpha or 0.5), seed=seed)
            runs.append(ScoredRun(f"arm={arm},seed={seed}", arm, train, None))
            for setting, table in values[arm].items():
                frame = pd.DataFrame(
                    {
                        "setting": setting,
                        "question_language": "en",
                        "candidate_language": {"mono": "en", "cross": "de", "multi": "*"}[setting],
                        "group": [f"c{cluster}" for cluster in range(clusters)],
                        "ap": table[seed],
                    }
                )
                for metric in BIAS:
                    frame[metric] = 1 - table[seed] if setting == "multi" else np.nan
                sums.append(summed(frame).assign(arm=arm, seed=seed))
    return Results("made-up", runs, pd.concat(sums, ignore_index=True), None), values


def by_hand(gap):
    """Mean, standard error, degrees of freedom of [S, C] differences from mean squares alone."""
    seeds, clusters = gap.shape
    rows, columns, mean = gap.mean(1), gap.mean(0), gap.mean()
    rest = gap - rows[:, None] - columns[None] + mean
    by_seed = ((rows - mean) ** 2).sum() / (seeds - 1) / seeds
    by_cluster = ((columns - mean) ** 2).sum() / (clusters - 1) / clusters
    cells = (rest**2).sum() / (seeds - 1) / (clusters - 1) / seeds / clusters
    variance = max(by_seed, by_cluster, by_seed + by_cluster - cells)
    satterthwaite = variance**2 / (by_seed**2 / (seeds - 1) + by_cluster**2 / (clusters - 1))
    df = seeds - 1 if by_seed > by_cluster / 2 else max(satterthwaite, seeds - 1)
    return mean, np.sqrt(variance), df


def holm_by_hand(p):
    """Step-down: the smallest times m, the next times m - 1, never below the one before."""
    order, adjusted, highest = sorted(range(len(p)), key=lambda i: p[i]), [0.0] * len(p), 0.0
    for step, which in enumerate(order):
        highest = max(highest, min(1.0, p[which] * (len(p) - step)))
        adjusted[which] = highest
    return adjusted


COMPARED = ("mono", "cross", "hybrid(0.5)", "mix(0.5)")


@pytest.mark.parametrize("gains", [(0, 0, 0, 0), (0.04, 0, 0.03, 0), (0, -0.03, 0.06, 0.02)])
def test_claims_follow_from_their_rows(gains):
    """Every verdict again, from the scores alone: mean squares, t, Holm by hand."""
    results, values = noisy(dict(zip(COMPARED, gains, strict=True)))
    table, _ = claims.decide(results)
    found = claims.verdicts(table, {}, NO_AUDIT).set_index("claim")["verdict"]
    for claim in claims.CLAIMS[:-1]:  # the last needs languages that were not trained on
        own = table[table["claim"] == claim.words].reset_index(drop=True)
        p, against, equivalent = [], [], []
        for at, (setting, rival) in enumerate(claim.pairs):
            a, b = (values[arm][setting] for arm in ("hybrid(0.5)", rival))
            gap = a - b if claim.metric == "ap" else b - a  # bias is 1 - score
            mean, error, df = by_hand(gap)
            score = (claim.side * mean - claim.null) / error
            p.append(min(1, claim.sides * t.sf(score, df)))
            against.append(min(1, claim.sides * t.cdf(score, df)))
            near = max(t.sf((mean + 0.01) / error, df), t.cdf((mean - 0.01) / error, df))
            equivalent.append(near if claim.metric == "ap" and claim.sides == 2 else 1)
            assert own.loc[at, "difference"] == pytest.approx(mean)
            half = t.ppf(0.975, df) * error
            assert own.loc[at, ["low", "high"]].tolist() == pytest.approx(
                [mean - half, mean + half]
            )
        assert own["p"].tolist() == pytest.approx(p)
        assert own["p_against"].tolist() == pytest.approx(holm_by_hand(against))
        if max(p) < 0.05:
            expected = "supported"
        elif min(holm_by_hand(against)) < 0.05:
            expected = "contradicted"
        elif all(min(pair) < 0.05 for pair in zip(p, equivalent, strict=True)):
            expected = "equivalent"
        else:
            expected = "inconclusive"
        assert found[claim.words] == expected, claim.words


@pytest.mark.parametrize("gains", [(0, 0, 0, 0), (0.06, 0, 0.0, 0.03), (0, -0.03, 0.06, 0.0)])
def test_primary_contrasts_follow_from_the_scores(gains):
    """Mono cost, cross gain and batch effect again by hand, with Holm over the three."""
    results, values = noisy(dict(zip(COMPARED, gains, strict=True)))
    hybrid, mono, mix = (values[arm] for arm in ("hybrid(0.5)", "mono", "mix(0.5)"))
    contrasts = (
        (-1, hybrid["mono"] - mono["mono"]),
        (1, hybrid["cross"] - mono["cross"]),
        (1, sum(hybrid[s] - mix[s] for s in ("mono", "cross", "multi")) / 3),
    )
    table = claims.primary(results)
    assert list(table["family"]) == ["primary"] * 3 and list(table["why"]) == [""] * 3
    hand = [by_hand(gap) for _, gap in contrasts]
    p = holm_by_hand([2 * t.sf(abs(mean) / error, df) for mean, error, df in hand])
    assert table["difference"].tolist() == pytest.approx([mean for mean, *_ in hand])
    assert table["p_holm"].tolist() == pytest.approx(p)
    for (side, _), (mean, error, df), adjusted, verdict in zip(
        contrasts, hand, p, table["verdict"], strict=True
    ):
        near = max(t.sf((mean + 0.01) / error, df), t.cdf((mean - 0.01) / error, df))
        if adjusted < 0.05:
            assert verdict == ("supported" if side * mean > 0 else "contradicted")
        else:
            assert verdict == ("equivalent" if 3 * near < 0.05 else "inconclusive")


def test_primary_contrasts_that_lack_an_arm_keep_their_place():
    """Without mix two contrasts are tested, still as two of three; the third says why not."""
    table = claims.primary(study({"mono": 0.0, "hybrid(0.5)": 0.05}))
    assert list(table["verdict"]) == ["contradicted", "supported", "not tested"]
    assert table["why"].tolist() == ["", "", "no arm mix(0.5)"]
    assert table["p_holm"].iloc[:2].max() >= 2 * table["p"].iloc[:2].min()


def test_few_seeds_tell_what_could_be_detected():
    """Three seeds: intervals and detectable effects, no verdict; one: a dash throughout."""
    few, _ = noisy(GAINS, seeds=3)
    table, untested = claims.decide(few)
    assert set(table["verdict"]) == {"—"} and table["detectable"].gt(0).all()
    why = claims.verdicts(table, untested, NO_AUDIT)["why"]
    assert why.str.startswith("3 seeds, a test needs 5; detectable: 0.").sum() == 7
    assert set(claims.primary(few)["verdict"]) == {"—"}
    one, _ = noisy(GAINS, seeds=1)
    table, untested = claims.decide(one)
    assert set(table["verdict"]) == {"—"}
    assert table[["low", "p", "detectable"]].isna().all(axis=None)
    why = claims.verdicts(table, untested, NO_AUDIT)["why"]
    assert (why == "1 seed, a test needs 5").sum() == 7
    assert set(tables.compared(claims.primary(one))["detectable"]) == {"—"}
    assert set(contrasts.rivals(one)["verdict"]) == {"—"}


def test_nothing_enters_a_family_twice():
    """Rows of a claim differ; other alphas of hybrid are no rivals; every claim is one row."""
    assert len({claim.words for claim in (*claims.PRIMARY, *claims.CLAIMS)}) == 11
    for claim in (*claims.PRIMARY, *claims.CLAIMS):
        assert len(set(claim.pairs)) == len(claim.pairs)
        assert not any(rival.startswith("hybrid") for _, rival in claim.pairs)
    hypotheses = [
        (c.arm, *pair, c.metric, c.null, c.where) for c in claims.PRIMARY for pair in c.pairs
    ]
    assert len(set(hypotheses)) == len(claims.PRIMARY) == 3


def test_intervals_of_quality_stay_within_0_and_1():
    """Seeds that differ widely: the interval of a mean average precision is cut off."""
    results, _ = noisy({"mono": 0.0, "cross": 0.4}, seeds=2, spread=0.2)
    table = tables.quality(results, ("ap",))
    assert table["low"].min() == 0 and table["high"].max() == 1
    plane = tables.plane(results, table)
    assert min(points.min() for _, points in plane.regions.values()) == 0


def unseen(results: Results, gain: float) -> Results:
    """The same study on a benchmark none of whose languages were trained on; hybrid gains."""
    sums = results.sums.assign(trained="neither")
    gained = gain * sums["weight"] * sums["arm"].str.startswith("hybrid")
    return Results("unseen", results.runs, sums.assign(total=sums["total"] + gained), None)


def test_zero_shot_is_decided_where_languages_were_not_trained_on():
    """A benchmark with such languages makes the claim testable, by mono and cross there."""
    own = study(GAINS | {"hybrid(0.5)": 0.0})
    table, untested = claims.decide(own, [own, unseen(own, -0.05), unseen(own, 0.05)])
    mine = table[table["claim"] == claims.ZERO_SHOT]
    assert list(zip(mine["setting"], mine["versus"], strict=True)) == [
        ("mono", "mono"),
        ("cross", "cross"),
    ]
    assert set(mine["verdict"]) == {"contradicted"}
    found = claims.verdicts(table, untested, NO_AUDIT).set_index("claim")
    assert found.loc[claims.ZERO_SHOT, "verdict"] == "contradicted"
    table, untested = claims.decide(own)
    assert claims.ZERO_SHOT not in set(table["claim"])
    assert untested == {claims.ZERO_SHOT: "every language here is trained on"}


def test_a_benchmark_without_parallel_passages_has_no_bias():
    """Bias columns without any value give no table and no comparison; quality keeps its own."""
    own = study(GAINS)
    bare = replace(own, sums=own.sums[~own.sums["metric"].isin(BIAS)])
    assert bare.biases == [] and own.biases == list(BIAS)
    assert not len(tables.bias(bare)) and len(tables.bias(own))
    table, untested = claims.decide(bare)
    assert set(table["metric"]) == {"ap"}
    assert list(untested.values()).count("the benchmark has no parallel passages") == 4


def test_a_benchmark_in_one_language_has_mono_alone():
    """Its pool of all languages is its own, and nothing is claimed of it."""
    own = study(GAINS)
    sums = own.sums[own.sums["setting"].isin(["mono", "multi"])]
    single = Results("single", own.runs, sums, own.cells.assign(question_language="en"))
    assert single.settings == ["mono"] and set(tables.quality(single)["setting"]) == {"mono"}
    table, untested = claims.decide(single)
    assert not len(table) and len(untested) == len(claims.CLAIMS)
    found = claims.primary(single)["verdict"].tolist()
    assert found == ["contradicted", "not tested", "not tested"]


def test_languages_never_trained_on_that_make_no_pair():
    """One such language alone: no cross-lingual pair of them, so no column and no claim of it."""
    own = study(GAINS)
    sums = own.sums.assign(
        trained=np.where(own.sums["setting"] == "mono", "neither", "one"), arm=own.sums["arm"]
    )
    found = Results("one", own.runs, sums, own.cells)
    assert list(tables.by_training(found)) == ["mono, neither trained", "cross, one trained"]
    table, untested = claims.decide(found)
    assert claims.ZERO_SHOT not in set(table["claim"])
    assert untested[claims.ZERO_SHOT] == "no such questions in cross"


def test_the_leak_audit_counts_and_decides_nothing():
    """Three counts of questions and answers; distractors are left out; the paper's data is not
    what was looked at."""
    audit = pd.DataFrame(
        {
            "benchmark": "made-up",
            "part": ["questions", "relevant candidates", "candidates"],
            "texts": [10, 5, 100],
            "exact": [0, 1, 90],
            "normalised": [1, 1, 90],
            "ngram": [2, 1, 95],
            "overlapping": [2, 1, 95],
        }
    )
    claim = claims.verdicts(NO_AUDIT, {}, audit).set_index("claim").loc[claims.DISJOINT]
    assert (claim["family"], claim["verdict"]) == ("audit", "counted")
    assert claim["why"].endswith(
        "made-up: 1 verbatim, 2 with the same words, 3 with a run of 13 words, of 15"
    )


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


def test_a_benchmark_whose_usual_measure_is_not_map_shows_that():
    """Parallel passages: hit@1 by setting, and no published mAP below it."""
    results = study({"mono": 0.0}, seeds=2)
    spec = BenchmarkSpec(format="parallel")
    quality = tables.quality(results).query("metric == 'hit1'").set_index("setting")
    shown = tables.with_published(tables.quality(results), results, spec, ("hit1",))
    assert [*shown.columns] == [("hit@1", setting) for setting in ("mono", "cross", "multi")]
    mean = quality.loc["mono", "estimate"]
    assert [*shown.index] == ["mono"] and shown.iloc[0, 0].startswith(f"{mean:.3f} [")


def test_claims_name_their_arms():
    """Another alpha is another arm: what names one that the study lacks is not tested."""
    table, untested = claims.decide(study(GAINS))
    assert (table["versus"] == "mix(0.5)").sum() == 6 and set(untested) == {claims.ZERO_SHOT}
    other = {"mono": 0.0, "cross": 0.0, "hybrid(0.5)": 0.05, "mix(0.25)": 0.0, "hybrid(0.25)": 0}
    table, untested = claims.decide(study(other))
    assert not table["versus"].str.startswith(("mix", "hybrid")).any()
    assert list(untested.values()).count("no arm mix(0.5)") == 4


def test_study_without_hybrid_tests_nothing():
    """Nothing is claimed where the arm in question was not run, and why is said."""
    table, untested = claims.decide(study({"mono": 0.0}))
    found = claims.verdicts(table, untested, NO_AUDIT)
    assert not len(table) and set(found["verdict"]) == {"not tested"}
    assert found["why"].str.startswith("no arm hybrid(0.5)").sum() == len(claims.CLAIMS)


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
