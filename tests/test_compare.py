"""Encoders side by side: a difference and its interval by hand, vectors kept, bad input refused."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as student
from test_agnostic import parallel
from test_lareqa import paragraph

from lib import store
from lib.analysis import agnostic as report
from lib.analysis import comparison, stats
from lib.benchmarks import agnostic
from lib.encoder import Encoder
from lib.params import BadParameter, Train
from lib.study import compare
from lib.study.__main__ import main
from lib.study.evaluate import annotate
from lib.training.export import save_encoder
from lib.training.models import build_encoder
from lib.training.tokenizer import train_tokenizer

WORDS = "rain snow moss wind fire dust salt iron wood clay".split()
GERMAN = "regen schnee moos wind feuer staub salz eisen holz ton".split()


def benchmark(folder, topics=6):
    """XQuAD-R's layout in two languages: an article a topic, of two sentences and two questions."""
    folder.mkdir()
    for language, words in (("en", WORDS), ("de", GERMAN)):
        articles = []
        for n in range(topics):
            one, two = words[n], words[(n + 3) % 10]
            asked = {f"q{n}a": (f"{one} ?", one), f"q{n}b": (f"what {two} ?", two)}
            paragraphs = [paragraph(f"{one} falls {n}.", f"then {two} comes {n}.", **asked)]
            articles.append({"title": f"T{n}", "paragraphs": paragraphs})
        document = {"version": "1.1", "data": articles}
        (folder / f"{language}.json").write_text(json.dumps(document), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a benchmark `toy` and the random encoders a, b and c."""
    folder = tmp_path_factory.mktemp("compare")
    texts = [f"{w} falls comes what then ?" for w in WORDS + GERMAN]
    train_tokenizer(texts, 300).save(str(folder / "tokenizer.json"))
    for seed, name in enumerate("abc"):
        params = Train(width=16, seed=seed)
        save_encoder(build_encoder(params, folder / "tokenizer.json"), folder / name)
    benchmark(folder / "toy")
    return folder


@pytest.fixture(autouse=True)
def places(outputs, tmp_path, monkeypatch):
    """Outputs and vectors of the test alone."""
    monkeypatch.setenv("BATCHES_CACHE", str(tmp_path / "cache"))
    return outputs


@pytest.fixture
def encoded(monkeypatch):
    """Kinds of the texts that were encoded, in order."""
    calls, original = [], Encoder.encode
    monkeypatch.setattr(
        Encoder, "encode", lambda self, *a: calls.append(a[1]) or original(self, *a)
    )
    return calls


@pytest.fixture
def unseen(monkeypatch):
    """Pages without figures and tables, for who does not look."""
    monkeypatch.setattr(compare, "_parts", lambda *_: {})


# --- the statistics ----------------------------------------------------------------------------


def scores(values, setting="mono", language="en"):
    """A table of scores, values: cluster -> AP of its questions."""
    rows = [(setting, f"{g}{n}", g, language, language, ap, ap)
            for g, aps in values.items() for n, ap in enumerate(aps)]  # fmt: skip
    columns = ["setting", "question_id", "group", "question_language", "candidate_language", "ap",
               "r1"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def test_a_difference_by_hand():
    """Clusters x, y, z of two questions: means of b - a are .1, .2 and .6. Mean .3, variance of
    the three .07, standard error sqrt(.07 / 3), two degrees of freedom: t = 4.303."""
    a = scores({"x": [0.1, 0.3], "y": [0.2, 0.2], "z": [0.0, 0.4]})
    b = scores({"x": [0.3, 0.3], "y": [0.4, 0.4], "z": [0.6, 1.0]})
    [row] = comparison.Comparison("toy", {"a": a, "b": b}).differences().to_dict("records")
    error = np.sqrt(0.07 / 3)
    assert row["difference"] == pytest.approx(0.3) and row["df"] == pytest.approx(2)
    assert row["high"] - row["difference"] == pytest.approx(4.302653 * error, rel=1e-6)
    assert row["p"] == pytest.approx(2 * student.sf(0.3 / error, 2))
    assert row["verdict"] == stats.NO_VERDICT  # of three clusters nothing is concluded
    assert "3 clusters of questions are too few" in comparison.sentences(pd.DataFrame([row]))[0]


def table(values):
    """Tidy clusters of one seed."""
    return pd.DataFrame({"seed": 0, "cluster": range(len(values)), "value": values})


def test_fixed_encoders_are_of_clusters_alone():
    """Of one seed the t interval of clusters; of several what seeds say is left out."""
    values = np.array([0.1, 0.5, 0.3, 0.9])
    found = stats.interval(table(values), fixed=True)
    assert found.standard_error == pytest.approx(values.std(ddof=1) / 2)
    assert np.isnan(stats.interval(table(values)).low)
    assert np.isnan(stats.interval(table(values[:1]), fixed=True).low)
    apart = pd.concat([table(values), table(values + 0.5).assign(seed=1)])
    assert stats.interval(apart, fixed=True).standard_error == pytest.approx(found.standard_error)
    both = np.hypot(0.25, found.standard_error)  # seeds' means lie .5 apart: .5 / sqrt(2) / sqrt(2)
    assert stats.interval(apart).standard_error == pytest.approx(both)


@pytest.mark.parametrize("clusters", [8, 40])
def test_the_test_rejects_as_often_as_it_says(clusters):
    """Uneven clusters of a true difference of 0, values 0 or +-1 as reciprocal ranks differ: 5 %
    tests reject in 1 to 7 % of 2,000 tables."""
    random = np.random.default_rng(0)
    weight = random.integers(5, 40, (1, clusters)).astype(float)
    values = random.choice([-0.5, 0.0, 0.0, 0.5], (2000, 1, clusters)) + random.normal(
        0, 0.1, (2000, 1, clusters)
    )
    found = stats.components(values, weight)
    score = np.abs(found.estimate) / np.sqrt(found.parts[1])
    assert 0.01 < (score > student.ppf(0.975, found.cluster_df)).mean() < 0.07


def gap(difference, error, clusters=20):
    """A difference with its p value."""
    half = student.ppf(0.975, clusters - 1) * error
    ends = difference - half, difference + half
    found = stats.Interval(difference, *ends, error, clusters - 1.0, 1, clusters)
    return stats.Paired(found, stats.two_sided(found))


def test_holm_decides_over_all_that_is_compared():
    """p = .03 alone is told from zero, beside another of .03 it is not."""
    error = 0.1 / student.ppf(1 - 0.015, 19)
    alone, two = comparison.tested([gap(0.1, error)]), comparison.tested([gap(0.1, error)] * 2)
    assert alone["p"].tolist() == pytest.approx([0.03])
    assert alone["verdict"].tolist() == ["higher"]
    assert two["p_holm"].tolist() == pytest.approx([0.06, 0.06])
    assert two["verdict"].tolist() == ["not separable"] * 2
    assert two["detectable"].iloc[0] > alone["detectable"].iloc[0]


def test_sentences():
    """Who is ahead, by how much, whichever way; what could have been found where nobody is."""
    rows = comparison.tested([gap(0.2, 0.01), gap(-0.1, 0.01), gap(0.01, 0.02), gap(0.001, 0.003)])
    rows = rows.assign(arm="b", versus="a", setting="cross", metric="ap")
    ahead, behind, open_, same = comparison.sentences(rows)
    assert ahead == "b is ahead of a in cross mAP by 0.200 [0.179, 0.221], p < .001 (Holm)."
    assert behind == "a is ahead of b in cross mAP by 0.100 [0.079, 0.121], p < .001 (Holm)."
    assert open_.startswith("b and a are not separable on this benchmark in cross mAP: b \u2212 a")
    assert f"difference of {rows['detectable'][2]:.3f} would be found" in open_
    assert "less than 0.01 either way" in same and "either way" not in open_
    rows = rows.assign(setting="multi", metric="rank_distance")
    above, below, *_ = comparison.sentences(rows)
    assert above == "b is above a in rank distance by 0.2 [0.2, 0.2], p < .001 (Holm)."
    assert below.startswith("a is above b in rank distance by 0.1")


# --- language-agnosticism ----------------------------------------------------------------------


def test_agnosticism_of_planted_vectors():
    """Of 12 meanings in three languages, b says nothing else: each translation is found and
    strongly aligned. a adds the language: half of the translations lost, every passage of the own
    language first. The difference is told, and what clusters do not repeat has no interval."""
    benchmark = parallel(12, "xyz", per_group=1)
    meaning = pd.factorize(benchmark.questions["question_id"])[0]
    told = np.eye(15)[meaning]
    apart = told + 2 * np.eye(15)[12 + benchmark.question_language]
    apart[:, :12] *= np.where(meaning < 6, 1, 0)[:, None]  # the others' questions are all alike
    made = {"a": apart, "b": told}
    units = {
        x: (v / np.linalg.norm(v, axis=1, keepdims=True)).astype("f4") for x, v in made.items()
    }
    scores = {x: compare._of_vectors(benchmark, v, v) for x, v in units.items()}
    scores = {x: annotate(table, benchmark, None) for x, table in scores.items()}
    measured = {x: agnostic.measures(benchmark, v) for x, v in units.items()}
    found = comparison.Comparison("made", scores, measured)
    means = found.agnostic().set_index(["arm", "metric"])
    assert list(dict.fromkeys(means.index.get_level_values(1))) == [
        "bitext", "strong", "strong_each", "own_top10"
    ]  # fmt: skip
    assert means.loc[("b", "bitext"), ["estimate", "low", "high"]].tolist() == pytest.approx(
        [1] * 3
    )
    assert means.loc[("a", "bitext"), "estimate"] == pytest.approx(0.5)
    assert means.loc[("b", "strong"), "estimate"] == pytest.approx(1)
    assert means.loc[("a", "strong"), "high"] == 0
    assert means.loc[("a", "own_top10"), "estimate"] == pytest.approx(
        3
    )  # ten of ten, of a third of the pool
    gaps = found.agnostic_differences().set_index("metric")
    assert gaps.loc["bitext", "difference"] == pytest.approx(0.5)
    half = student.ppf(0.975, 11) * np.std([0] * 6 + [1] * 6, ddof=1) / np.sqrt(12)
    assert gaps.loc["bitext", "high"] == pytest.approx(0.5 + half)
    assert gaps.loc["strong", "verdict"] == "higher"
    table = found.vectors().set_index("arm")
    assert table.loc["a", "probe"] == 1 and table.loc["b", "between"] == pytest.approx(0)
    shown = report.against_first(found.vectors())
    assert shown.loc["a", "chance"] == "0.333" == shown.loc["b", "chance"]
    assert shown.loc["a", "language-ID probe"] == "1.000"
    gap = table.loc["b", "probe"] - 1
    assert shown.loc["b", "language-ID probe"] == f"{1 + gap:.3f} ({gap:+.3f})"


def test_questions_without_translations_have_no_bitext_accuracy():
    """The other measures stay, and nothing is said of vectors that were not measured."""
    tables = {x: scores({"x": [0.1], "y": [0.2]}, "multi").assign(strong=[0.0, 1.0]) for x in "ab"}
    found = comparison.Comparison("toy", tables)
    assert set(found.agnostic()["metric"]) == {"strong"}
    assert found.vectors().empty and report.against_first(found.vectors()).empty


# --- the command -------------------------------------------------------------------------------


def run(made, *names, benchmark="toy"):
    """Exit code of the command on encoders and a benchmark in the folder."""
    paths = [str(made / name) for name in names]
    return main(["compare", *paths, "--benchmark", str(made / benchmark)])


def test_the_command_writes_a_page_and_its_tables(made, outputs, capsys):
    """Every figure of the page has a table; per-question scores give the tables' means."""
    assert run(made, "a", "b", "c") == 0
    [folder] = (outputs / "compare").iterdir()
    said = capsys.readouterr().out
    differences = pd.read_csv(folder / "tables/differences.csv")
    assert differences["arm"].tolist() == ["b", "c"] * 3
    assert differences["setting"].tolist() == sum(([x] * 2 for x in ("mono", "cross", "multi")), [])
    page = (folder / "index.html").read_text(encoding="utf-8")
    sentences = store.read_json(folder / "comparison.json")["sentences"]
    families = [pd.read_csv(folder / f"tables/{x}.csv") for x in compare.SAID]
    assert families[0]["arm"].tolist() == differences["arm"].tolist()
    assert len(sentences) == sum(map(len, families)) > 6
    for sentence in sentences:
        assert sentence in said and sentence.replace("<", "&lt;") in page
    assert "with another seed gives another encoder" in page
    assert "http" not in page.replace("http-equiv", "") and page.count("<img") == 2
    quality = pd.read_csv(folder / "tables/quality.csv")
    mono = quality[(quality["setting"] == "mono") & (quality["metric"] == "ap")].set_index("arm")
    for number, name in enumerate("abc"):
        scores = pd.read_parquet(folder / f"scores/{number}.parquet")
        assert set(scores["encoder"]) == {name} and "trained" not in scores
        own = scores[scores["setting"] == "mono"]
        assert mono.loc[name, "estimate"] == pytest.approx(own["ap"].mean(), abs=1e-6)
        assert mono.loc[name, "clusters"] == 6
    made = {x: pd.read_csv(folder / f"tables/{x}.csv") for x in ("agnostic", "vectors")}
    bitext = made["agnostic"].query("metric == 'bitext'").set_index("arm")["estimate"]
    own = scores[scores["setting"] == "cross"]
    assert bitext["c"] == pytest.approx(own["bitext"].mean(), abs=1e-6)
    assert set(made["agnostic"]["clusters"]) == {6} and made["vectors"]["arm"].tolist() == [*"abc"]
    between = made["vectors"].set_index("arm")["between"]
    assert f"{between['b']:.3f} ({between['b'] - between['a']:+.3f})" in page
    assert "no intervals and no verdicts" in page


def test_vectors_are_kept(made, outputs, encoded, unseen):
    """The second comparison of an encoder encodes nothing, with the same tables; another one both
    of its sides; changed weights are another encoder."""
    run(made, "a", "b")
    assert encoded == ["question", "passage"] * 2
    tables = sorted((outputs / "compare").glob("*/tables/*.csv"))
    before = [file.read_bytes() for file in tables]
    run(made, "a", "b")
    assert len(encoded) == 4 and [file.read_bytes() for file in tables] == before
    run(made, "b", "c")
    assert len(encoded) == 6


def test_damaged_vectors_are_made_again(made, outputs, tmp_path, encoded, unseen, capsys):
    """What is kept is believed only as it was written."""
    run(made, "a", "b")
    file = min((tmp_path / "cache/vectors").glob("*/vectors.npy"))
    file.write_bytes(file.read_bytes()[:-1])
    run(made, "a", "b")
    assert len(encoded) == 5 and "making it again" in capsys.readouterr().out


def test_a_run_and_a_plain_checkpoint(made, outputs):
    """STUDY:RUN and a folder without encoder.json, which pools by the mean as
    sentence-transformers has it; what one states is shown."""
    run_folder = outputs / "s/runs/arm=mono,seed=0/model"
    encoder = build_encoder(Train(width=16, seed=5, pooling="cls"), made / "tokenizer.json")
    run_folder.mkdir(parents=True)
    save_encoder(encoder, run_folder)
    save_encoder(encoder, outputs / "plain")
    for name in ("encoder.json", "modules.json"):
        (outputs / "plain" / name).unlink()
    page = compare.compare(["s:arm=mono,seed=0", str(outputs / "plain")], str(made / "toy"))
    about = store.read_json(page.parent / "comparison.json")["encoders"]
    assert [x["pooling"] for x in about.values()] == ["cls", "mean"]
    assert list(about) == ["s:arm=mono,seed=0", "plain"]


def refused(capsys, code, *parts):
    """Exit code 2 and one line that says all."""
    error = capsys.readouterr().err
    assert code == 2 and error.count("\n") == 1
    for part in parts:
        assert part in error, error


def test_bad_encoders_are_refused(made, tmp_path, capsys):
    """Fewer than two, twice the same (under another name too), none there, none that loads."""
    refused(capsys, run(made, "a"), "1 encoder(s) named (expected two or more)")
    refused(capsys, run(made, "a", "b", "a"), "is the same as", "no difference is to be found")
    copy = tmp_path / "copy"
    shutil.copytree(made / "a", copy)
    refused(capsys, run(made, "a", copy), f"{copy}: is the same as {made / 'a'}")
    refused(capsys, run(made, "a", "z"), "z: is not there (expected a folder, ")
    (tmp_path / "empty").mkdir()
    refused(capsys, run(made, "a", tmp_path / "empty"), "empty", "has no config.json")
    (copy / "model.safetensors").write_bytes(b"no weights")
    refused(capsys, run(made, "a", copy), f"encoder {copy}: ", "header")


def test_a_run_that_is_not_there_is_refused(made, outputs, capsys):
    """With those that are."""
    (outputs / "s/runs/base/model").mkdir(parents=True)
    refused(capsys, main(["compare", str(made / "a"), "s:other", "--benchmark", "xquad-r"]),
            "encoder s:other", "is not there")  # fmt: skip


def test_bad_benchmarks_are_refused(made, tmp_path, capsys):
    """Unknown, of no format, one cluster, one language."""
    refused(capsys, main(["compare", *(str(made / x) for x in "ab"), "--benchmark", "xquad"]),
            "benchmark xquad: is unknown (expected xquad-r, mlqa-r, or a folder)")  # fmt: skip
    (tmp_path / "empty").mkdir()
    refused(capsys, run(made, "a", "b", benchmark=tmp_path / "empty"), "is of no format", "lareqa:")
    one = benchmark(tmp_path / "one", topics=1)
    refused(capsys, run(made, "a", "b", benchmark=one), "are 1 cluster (expected two or more)")
    single = benchmark(tmp_path / "single")
    (single / "de.json").unlink()
    refused(capsys, run(made, "a", "b", benchmark=single), "is in en alone (expected two languages")


def test_short_names_tell_apart():
    """As much of the end as it takes; the commit of the hub is left to the page."""
    commit = "0a" * 20
    hub = [f"intfloat/e5-small@{commit}", f"facebook/xlm@{commit}"]
    assert compare._short(hub) == ["e5-small", "xlm"]
    assert compare._short(["x/runs/one/model", "y/runs/one/model"]) == ["x/runs/one", "y/runs/one"]
    assert compare._short(["s:arm=a", "s:arm=b"]) == ["s:arm=a", "s:arm=b"]


def test_a_model_of_the_hub_is_read_from_its_commit(made, monkeypatch):
    """Only files that decide its vectors are fetched, and no others' pickles."""
    asked = []
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download", lambda *a, **b: asked.append((a, b)) or str(made / "a")
    )
    commit = "0a" * 20
    assert compare._named(f"some/model@{commit}").folder == made / "a"
    [(names, about)] = asked
    assert names == ("some/model",) and about["revision"] == commit
    assert not any("bin" in pattern for pattern in about["allow_patterns"])
    with pytest.raises(BadParameter, match="40 hex digits"):
        compare._named("some/model@main")
