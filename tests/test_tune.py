"""Equal tuning: what is searched, what is chosen, and what reaches the study file."""

import csv
import os
import signal
import subprocess

import pandas as pd
import pytest
from test_study_run import CODE, pretend_done, wait_for, write_notebooks

from lib import store
from lib.analysis import tuning
from lib.analysis.results import ScoredRun
from lib.benchmarks import heldout
from lib.corpus import ParallelCorpus
from lib.params import BadParameter
from lib.store import ROOT
from lib.study import amend, choose, grid, paths, plan
from lib.study.__main__ import main
from lib.training import validation
from lib.training.models import load_encoder

STUDY = """# a comment
prepare: {dev: 0.2}
train: {steps: 12, schedule: wsd, warmup_steps: 1, budgets: [6, 12]}
tune:
  seeds: {100: {train.seed: 100, prepare.fold: 3}, 101: {train.seed: 101}}
  train.learning_rate: [1e-3, 3e-3]
  train.temperature: [0.05, 0.1]
vary:
  arm:
    mono:      {train.strategy: mono}       # within
    hybrid50:  {train.strategy: hybrid, train.alpha: 0.5, train.learning_rate: 0.5}
    untrained: {train.steps: 0, train.budgets: []}
  seed:
    0: {train.seed: 0, prepare.fold: 0}
    1: {train.seed: 1, prepare.fold: 1}
"""


@pytest.fixture
def study(outputs, tmp_path):
    """A function text -> the path of a study file `tiny` of it."""

    def written(text=STUDY):
        (tmp_path / "tiny.yaml").write_text(text)
        return tmp_path / "tiny.yaml"

    return written


# --- what is searched ---


def test_the_search_is_arms_by_values_by_seeds(study):
    """By hand: 2 trained arms x 2 rates x 2 temperatures x 2 seeds; one encoder each, validated
    once, after the last step; all else is the study's."""
    own, search = grid.load_study(study()), grid.load_search(study())
    keys = [
        f"arm={arm},learning_rate={rate},temperature={t},seed={seed}"
        for arm in ("mono", "hybrid50") for rate in ("0.001", "0.003")
        for t in ("0.05", "0.1") for seed in ("100", "101")
    ]  # fmt: skip
    assert search.name == "tiny-tune" and list(search.runs) == keys
    for key, run in search.runs.items():
        arm, rate, temperature, seed = (part.partition("=")[2] for part in key.split(","))
        wanted = own.runs[f"arm={arm},seed=0"].train.model_dump() | {
            "study": "tiny-tune", "run": key, "corpus": f"seed={seed}", "seed": int(seed),
            "learning_rate": float(rate), "temperature": float(temperature),
            "validate_every": 12, "budgets": [],
        }  # fmt: skip
        assert run.train.model_dump() == wanted
    assert {k: p.fold for k, p in search.corpora.items()} == {"seed=100": 3, "seed=101": 0}
    assert own.runs["arm=mono,seed=0"].train.validate_every == 0


def test_a_search_may_be_shorter_than_the_study(study):
    """Only where the section says so."""
    text = STUDY.replace("tune:", "tune:\n  train.steps: 5")
    trains = [run.train for run in grid.load_search(study(text)).runs.values()]
    assert {(t.steps, t.validate_every) for t in trains} == {(5, 5)}
    assert grid.load_study(study(text)).runs["arm=mono,seed=0"].train.steps == 12


BAD = {
    "no section": (("tune:", "analyse: {}\nnone:"), "none: unknown section"),
    "no share": (("dev: 0.2", "dev: 0.0"), "tune: prepare.dev is 0, so that a search would ask te"),
    "two shares": (("mono}", "mono, prepare.dev: 0.1}"), "tune: prepare.dev differs between corp"),
    "a seed of the study": (
        ("train.seed: 101", "train.seed: 1"),
        "tune.seeds: train.seed 1 is one of the study's (expected others: a seed that chooses is ",
    ),
    "a share of its own": (
        ("{train.seed: 101}", "{train.seed: 101, prepare.dev: 0.5}"),
        "tune.seeds.101: is {'train.seed': 101, 'prepare.dev': 0.5} (expected {name: {train.seed:",
    ),
    "no seeds": (("  seeds:", "  # seeds:"), "tune.seeds: is empty (expected {name: {train.seed"),
    "another name": (
        ("train.temperature:", "train.clip:"),
        "tune.train.clip: cannot be searched (expected seeds,",
    ),
    "one value": (
        ("[0.05, 0.1]", "0.05"), "tune.train.temperature: is 0.05 (expected a list of values)"
    ),
    "a value twice": (("3e-3", "0.001"), "tune.train.learning_rate: 0.001 is named twice"),
    "a wrong value": (
        ("3e-3", "-1.0"), "tune: train.learning_rate: -1.0 is out of range (expected more than 0)"
    ),
    "a wrong fold": (
        ("fold: 3", "fold: 9"), "tune: seeds.100: prepare.fold: 9 is out of range (expected 0 to"
    ),
    "no steps": (
        ("tune:", "tune:\n  train.steps: 0"),
        "tune.train.steps: is 0 (expected a whole number from 1)",
    ),
    "nothing to search": (
        ("  train.learning_rate: [1e-3, 3e-3]\n  train.temperature: [0.05, 0.1]\n", ""),
        "tune: searches nothing (expected train.learning_rate or train.temperature)",
    ),
    "no section of its own": (
        (STUDY[STUDY.index("tune:"):STUDY.index("vary:")], "tune: []\n"),
        "tune: is empty (expected a mapping of seeds, train.learning_rate,",
    ),
    "two axes": (
        ("vary:\n", "vary:\n  train.clip: [1.0, 2.0]\n"),
        "tune: needs one axis of named arms beside seeds (found train.clip, arm)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", BAD)
def test_what_cannot_be_searched_is_one_line(study, capsys, fault):
    """Also said of the study itself, before hours of it: seeds that chose would be evaluated."""
    (old, new), message = BAD[fault]
    assert STUDY.count(old) == 1
    path = study(STUDY.replace(old, new))
    with pytest.raises(BadParameter) as caught:
        grid.load_study(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)
    assert main(["tune", str(path)]) == 2 and str(caught.value) in capsys.readouterr().err


def test_a_study_without_the_section_has_no_search(study, capsys):
    """And the choice of a search of something else is not written."""
    path = study("train: {steps: 1}")
    assert main(["tune", str(path)]) == 2
    assert (
        capsys.readouterr().err == f"{path}: has no section tune (expected one: docs/tuning.md)\n"
    )
    assert main(["tune", str(study()), "--write", "--set", "train.clip=2.0"]) == 2
    assert "--write does not go with --set (expected the file" in capsys.readouterr().err


# --- what is chosen ---

MAPS = {  # arm, rate, temperature -> map of seed 100, of seed 101
    ("mono", 0.001, 0.05): (0.10, 0.20),  # mean .15
    ("mono", 0.001, 0.1): (0.40, 0.20),  # mean .30, a tie with the last one, which is later
    ("mono", 0.003, 0.05): (0.10, 0.30),  # mean .20
    ("mono", 0.003, 0.1): (0.25, 0.35),  # mean .30
    ("hybrid50", 0.001, 0.05): (0.5, 0.5),
    ("hybrid50", 0.001, 0.1): (0.5, 0.505),
    ("hybrid50", 0.003, 0.05): (0.1, 0.1),
    ("hybrid50", 0.003, 0.1): (0.5, 0.51),  # mean .505, best in both seeds, in one with others
}


def searched(path, maps=MAPS):
    """The search of a study file, as if it had been run and its validations had found `maps`."""
    search = grid.load_search(path)
    for key, run in search.runs.items():
        arm = key.split(",")[0].removeprefix("arm=")
        value = maps[arm, run.train.learning_rate, run.train.temperature][run.train.seed - 100]
        scores = {"step": 12, "mono": value + 0.1, "cross": value - 0.1, "multi": value}
        found = [scores | {"map": 9.0, "step": 6}, scores | {"map": value}]  # the last one counts
        store.write_json(paths.run_dir(search.name, key) / "validation.json", found)
    return search


def test_the_best_mean_is_chosen_and_ties_are_seen(study):
    """Hand arithmetic; of equal means the first in the file."""
    rows = choose.table(searched(study()))
    columns = ("map", "behind", "best_in", "chosen")
    assert [tuple(row[c] for c in columns) for row in rows] == [
        (0.15, 0.15, 0, ""), (0.3, 0.0, 1, "yes"), (0.2, 0.1, 0, ""), (0.3, 0.0, 1, ""),
        (0.5, 0.005, 1, ""), (0.5025, 0.0025, 1, ""), (0.1, 0.405, 0, ""), (0.505, 0.0, 2, "yes"),
    ]  # fmt: skip
    assert (rows[1]["mono"], rows[1]["cross"], rows[1]["multi"]) == (0.4, 0.2, 0.3)
    assert {(row["seeds"], row["steps"], row["dev"], row["folds"]) for row in rows} == {
        (2, 12, 0.2, 5)
    }
    assert [row["edge"] for row in rows if row["chosen"]] == [
        "lowest learning_rate, highest temperature", "highest learning_rate, highest temperature",
    ]  # fmt: skip


def test_a_choice_inside_the_grid_has_no_edge(study):
    """Three rates, one temperature, which has no ends."""
    text = STUDY.replace("[1e-3, 3e-3]", "[1e-3, 2e-3, 3e-3]").replace("[0.05, 0.1]", "[0.1]")
    maps = {(a, r, 0.1): (m, m) for a in ("mono", "hybrid50")
            for r, m in ((0.001, 0.1), (0.002, 0.3), (0.003, 0.2))}  # fmt: skip
    rows = choose.table(searched(study(text), maps))
    assert [row["chosen"] for row in rows] == ["", "yes", ""] * 2
    assert {row["edge"] for row in rows} == {""}


def test_nothing_is_written_unasked(study, capsys):
    """The lines are printed. Asked for, they stand in the file, a table beside it, and a second
    search of the file is the same one."""
    path = study()
    search = searched(path)
    choose.conclude(search, str(path), write=False)
    said = capsys.readouterr().out
    mono = (
        "    mono:      {train.strategy: mono, train.learning_rate: 0.001, train.temperature: 0.1}"
        "       # within  # tuned: dev mAP 0.300, next -0.000"
    )
    hybrid = (
        "    hybrid50:  {train.strategy: hybrid, train.alpha: 0.5, train.learning_rate: 0.003, "
        "train.temperature: 0.1}  # tuned: dev mAP 0.505, next -0.003"
    )
    assert said.splitlines()[-2:] == [mono, hybrid]
    assert path.read_text() == STUDY and not (path.parent / "tuned").exists()
    choose.conclude(search, str(path), write=True)
    lines = STUDY.splitlines()
    lines[9], lines[10] = mono, hybrid
    assert path.read_text().splitlines() == lines
    assert grid.load_search(path) == search
    before = path.read_bytes()
    capsys.readouterr()
    choose.conclude(search, str(path), write=True)
    assert path.read_bytes() == before
    assert capsys.readouterr().out.endswith(f"{path} has these settings\n")
    kept = (path.parent / "tuned/tiny.csv").read_text()
    assert kept == (paths.study_dir("tiny-tune") / "tuning.csv").read_text()
    assert [r["chosen"] for r in csv.DictReader(kept.splitlines())].count("yes") == 2


FORMS = {
    "flow": (" {x.a: 1}  # why", " {x.a: 1, t.r: 0.5}  # why  # tuned: so"),
    "empty": (" {}", " {t.r: 0.5}  # tuned: so"),
    "there": (" {t.r: 1e-3 , x.a: 1}", " {t.r: 0.5 , x.a: 1}  # tuned: so"),
    "again": (" {t.r: 0.1}  # tuned: once, next", " {t.r: 0.5}  # tuned: so"),
    "a comma": (" {x.a: [1, 2], }", " {x.a: [1, 2], t.r: 0.5, }  # tuned: so"),
    "lines": (" {x.a: 1,\n      x.b: 2}", " {x.a: 1,\n      x.b: 2, t.r: 0.5}  # tuned: so"),
    "block": ("\n      x.a: 1", "  # tuned: so\n      t.r: 0.5\n      x.a: 1"),
    "block, there": ("  # why\n      t.r: 1", "  # why  # tuned: so\n      t.r: 0.5"),
    "block of blocks": (
        "\n      x.a:\n      - 1", "  # tuned: so\n      t.r: 0.5\n      x.a:\n      - 1"
    ),
}  # fmt: skip


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("form", FORMS)
def test_only_what_is_chosen_changes(form, newline):
    """Every other character stays, in whatever way an arm is written."""
    text = "# é\nvary:\n  arm:\n    one:   {}\n    two:%s\n  seed:   {0: {s: 0}}   # end\n"
    old, new = ((text % part).replace("\n", newline) for part in FORMS[form])
    assert amend.amended(old, "arm", {"two": {"t.r": 0.5}}, {"two": "so"}) == new


def test_a_line_of_several_arms_has_no_comment():
    """It would hide the others."""
    text = "vary: {arm: {a: {}, b: {x.y: 1}}}"
    chosen = {"a": {"t.r": 0.5}, "b": {"t.r": 1e-05}}
    found = amend.amended(text, "arm", chosen, {"a": "so", "b": "so"})
    assert found == "vary: {arm: {a: {t.r: 0.5}, b: {x.y: 1, t.r: 1e-05}}}"


@pytest.mark.parametrize(
    "text",
    ["vary: {arm: {a: &x {y: 1}, b: *x}}", "z: &x {a: {}, b: {}}\nvary: {arm: *x}"],
)
def test_anchors_are_left_to_people(text):
    """A change at one place would be one at another too."""
    with pytest.raises(BadParameter, match=r"^vary.arm: cannot be written to .* by hand$"):
        amend.amended(text, "arm", {"a": {"t.r": 0.5}}, {"a": "so"})


# --- what the study and its report see ---


def test_every_start_brings_the_table_along(place):
    """Where it is another one than before, the analysis runs again; nothing else does."""
    path = place.study(STUDY)
    study = grid.load_study(path)
    jobs = {job.name: job for job in plan.plan(study)}
    pretend_done(jobs)
    choose.carry(study)
    assert all(job.done for job in jobs.values()) and choose.tuning("tiny").empty
    choose.conclude(searched(path), path, write=True)
    choose.carry(study)
    assert [name for name, job in jobs.items() if not job.done] == ["analyse"]
    assert list(choose.tuning("tiny")["arm"]) == ["mono"] * 4 + ["hybrid50"] * 4
    pretend_done({"analyse": jobs["analyse"]})
    choose.carry(study)
    assert jobs["analyse"].done
    (place.folder / "tuned/tiny.csv").unlink()
    choose.carry(study)
    assert not jobs["analyse"].done and choose.tuning("tiny").empty


@pytest.mark.parametrize("change", ["prepare.dev=0.1", "prepare.folds=4"])
def test_a_study_is_not_tested_on_what_has_chosen(place, capsys, change):
    """Other groups would be set aside, and those of the search asked."""
    path = place.study(STUDY.replace("fold: 3", "fold: 2"))
    choose.conclude(searched(path), path, write=True)
    assert main(["run", path, "--set", change]) == 2
    said = capsys.readouterr().err
    said = said.partition(", and the study has")[0]
    assert said.endswith("tuned/tiny.csv: was searched with prepare.dev 0.2, folds 5, split group")


def test_how_a_search_split_counts_too(place):
    """Tables from before it was said were split by groups."""
    path = place.study(STUDY.replace("fold: 3", "fold: 2"))
    choose.conclude(searched(path), path, write=True)
    table, study = place.folder / "tuned/tiny.csv", grid.load_study(path)
    said = table.read_text()
    assert ",split," in said and ",group," in said
    table.write_text(said.replace(",split,", ",").replace(",group,", ","))
    choose.carry(study)
    table.write_text(said.replace(",group,", ",article,"))
    with pytest.raises(BadParameter, match="folds 5, split article, and the study has others"):
        choose.carry(study)


@pytest.mark.parametrize("spoil", [
    lambda text: text.encode().replace(b",", b";"),
    lambda text: text.encode()[: text.index("0.2,5") + 3],
    lambda text: text.replace("0.2,5", "abc,5").encode(),
    lambda text: b"\xff" + text.encode(),
])  # fmt: skip
def test_a_spoilt_table_of_a_search_is_one_line(place, capsys, spoil):
    """Whatever a spreadsheet made of it."""
    path = place.study(STUDY.replace("fold: 3", "fold: 2"))
    choose.conclude(searched(path), path, write=True)
    table = place.folder / "tuned/tiny.csv"
    table.write_bytes(spoil(table.read_text()))
    assert main(["run", path]) == 2
    said = capsys.readouterr().err
    assert "tuned/tiny.csv: is n" in said and said.count("\n") == 1


def runs_of(path):
    study = grid.load_study(path)
    return [ScoredRun(key, key, run.train, None) for key, run in study.runs.items()]


def test_the_report_says_how_arms_were_tuned(place):
    """What was searched, near-ties, edges, and where runs use something else."""
    path = place.study(STUDY)
    choose.conclude(searched(path), path, write=True)
    choose.carry(grid.load_study(path))
    table = choose.tuning("tiny")
    said = tuning.sentence(table, runs_of(path)).data
    assert said.startswith(
        "Each of 2 arms was trained at every learning rate 0.001 / 0.003, temperature 0.05 / 0.1, "
        "for 12 steps, on 2 seeds used for nothing else. "
    )
    assert "In 2 arms the next setting is less than 0.01 behind; in 2 the chosen one lies" in said
    shown = tuning.shown(table, runs_of(path))
    assert list(shown.loc["hybrid50"]) == [
        "0.003", "0.1", "0.605", "0.405", "0.505", "0.505", "-0.003", "2 of 2 seeds",
        "highest learning rate, highest temperature", "as chosen",
    ]  # fmt: skip
    other = place.study(STUDY)  # as it was before the choice: mono at the defaults
    assert list(tuning.shown(table, runs_of(other))["used"]) == ["0.003, 0.1", "0.5, 0.1"]


def test_the_report_says_that_arms_were_not_tuned(study):
    """Same settings only where they are the same."""
    none = pd.DataFrame()
    assert tuning.sentence(none, runs_of(study())).data == "Not tuned: settings are as given."
    same = runs_of(study(STUDY.replace("train.learning_rate: 0.5", "train.clip: 0.5")))
    assert tuning.sentence(none, same).data == "Not tuned: every arm has the same settings."
    assert tuning.shown(none, same).empty


# --- whole searches ---

VALIDATED = """
store.write_json(folder / "validation.json", [{"step": step, "mono": value, "map": value}])
"""


def test_a_killed_search_goes_on(place):
    """Killed while it trains, started again: only what was missing runs, nothing is evaluated, and
    the study's own outputs are not touched."""
    write_notebooks(place.folder / "notebooks", CODE | {"train": CODE["train"] + VALIDATED})
    path = place.study(STUDY.replace("101: {train.seed: 101}", "").replace("[0.05, 0.1]", "[0.1]"))
    runs = place.outputs / "tiny-tune/runs"
    process = place.start("tune", path, "--cores", "2")
    wait_for(lambda: len(list(runs.glob("*/train.ok"))) >= 2)
    os.kill(process.pid, signal.SIGINT)
    assert process.communicate(timeout=30)[0].endswith("the same command goes on from here\n")
    before = {file: file.stat().st_mtime_ns for file in runs.glob("*/train.ok")}
    assert 2 <= len(before) < 4
    code, lines = place.run("tune", path, "--cores", "2")
    assert code == 0, lines
    assert f"{1 + len(before)} of 5 stages are done, {4 - len(before)} to run" in lines[0]
    assert all(file.stat().st_mtime_ns == at for file, at in before.items())
    assert len(list(runs.glob("*/train.ok"))) == 4 and not list(runs.glob("*/evaluate.ok"))
    assert not (place.outputs / "tiny").exists() and not (runs.parent / "report").exists()
    assert sum(line.startswith("*  ") for line in lines) == 2
    code, lines = place.run("tune", path)
    assert "5 of 5 stages are done, nothing to run" in lines[0]


REAL = """
prepare: {languages: [de, en], bridges: 1, pool: 100, vocabulary: 1500, dev: 0.5}
train: {steps: 600, batch_size: 32, width: 16}
tune:
  seeds: {100: {train.seed: 100, prepare.fold: 1}}
  train.learning_rate: [1e-5, 1e-2]
  train.steps: 20
vary:
  arm: {mono: {train.strategy: mono}}
"""


def test_a_real_search(outputs, tmp_path, capsys, in_process):
    """Real notebooks: the table has the encoders' own scores on the dev share, and the rate that
    teaches something is chosen and written."""
    path = tmp_path / "real.yaml"
    path.write_text(REAL)
    assert main(["tune", str(path), "--write", "--cores", "2"]) == 0, capsys.readouterr().out
    data = paths.corpus_dir("real-tune", "seed=100") / "data"
    dev = heldout.dev(ParallelCorpus.load(data))
    rows = choose.table(grid.load_search(path))
    for row, rate in zip(rows, ("1e-05", "0.01"), strict=True):
        folder = paths.run_dir("real-tune", f"arm=mono,learning_rate={rate},seed=100")
        scores = validation.validate(load_encoder(folder / "model"), dev)
        assert {n: row[n] for n in scores} == pytest.approx(scores, abs=2e-6)
    assert [row["chosen"] for row in rows] == ["", "yes"]
    assert "mono: {train.strategy: mono, train.learning_rate: 0.01}" in path.read_text()
    assert grid.load_study(path).runs["arm=mono"].train.learning_rate == 0.01


@pytest.mark.parametrize("write, passed", [("", ""), ("WRITE=0", ""), ("WRITE=1", " --write")])
def test_make_writes_only_where_asked(write, passed):
    """WRITE=1, and nothing else."""
    command = ["make", "-n", "tune", "RUN=x", "SET_UP=", *[write][: len(write)]]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.rstrip().endswith(f'"$SET"}}{passed}')


@pytest.mark.parametrize("name", ["quick", "xquad"])
def test_the_studies_have_searches(name):
    """Every trained arm has the same settings to choose from, on seeds of its own."""
    path = ROOT / "params" / f"{name}.yaml"
    study, search = grid.load_study(path), grid.load_search(path)
    arms = {key.split(",")[0] for key, run in study.runs.items() if run.train.steps}
    tried = {key.partition(",")[0] for key in search.runs}
    assert tried == arms
