"""The real notebooks, end to end at toy size: the whole graph, a kill, and plain papermill."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest

from lib import store
from lib.params import BadParameter
from lib.store import ROOT
from lib.study import grid, ledger, plan
from lib.study.__main__ import main

TOY = """
prepare: {fold: 1, languages: [de, en, zh], bridges: 1, pool: 100, vocabulary: 1500}  # 0 has knobs
train: {steps: 24, batch_size: 32, width: 16, checkpoint_every: 5}
vary:
  arm:
    mono:      {train.strategy: mono}
    hybrid50:  {train.strategy: hybrid, train.alpha: 0.5}
    untrained: {train.steps: 0}
  seed:
    0: {train.seed: 0}
    1: {train.seed: 1}
"""


def start(folder: Path, study: Path | None = None) -> subprocess.Popen:
    """`make study` of a study, or else of the toy study, with its outputs below `folder`."""
    if study is None:
        study = folder / "toy.yaml"
        study.write_text(TOY)
    return subprocess.Popen(
        [sys.executable, "-m", "lib.study", "run", str(study), "--cores", "2"],
        cwd=ROOT,
        env=os.environ | {"BATCHES_OUTPUTS": str(folder / "outputs")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen) -> str:
    output = process.communicate(timeout=400)[0]
    assert process.returncode == 0, output
    return output


def kill_all(process: subprocess.Popen) -> None:
    """SIGKILL for the driver and everything below it, kernels too."""
    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for member in family:
        try:
            member.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            pass
    process.wait()


def tables(folder: Path) -> dict[str, str]:
    return {f.name: f.read_text() for f in (folder / "outputs/toy/report/tables").glob("*.csv")}


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """Two toy studies and what was said: one undisturbed; one that lacks an arm and is damaged, is
    killed while it trains that arm, loses its report, and is then started again."""
    whole, killed = (tmp_path_factory.mktemp(name) for name in ("whole", "killed"))
    said = finish(start(whole))
    shutil.copytree(whole / "outputs", killed / "outputs")
    folder = killed / "outputs/toy"
    for lacking in folder.glob("runs/arm=hybrid50*"):
        shutil.rmtree(lacking)
    damage(folder)
    victim = start(killed)
    deadline = time.monotonic() + 200
    while not list(folder.glob("runs/arm=hybrid50*/checkpoints/step-*")):
        assert victim.poll() is None and time.monotonic() < deadline, "no checkpoint was seen"
        time.sleep(0.02)
    kill_all(victim)
    shutil.rmtree(folder / "report")
    return whole, killed, said, victim.stdout.read(), finish(start(killed))


def flip(file: Path, where: float = 0.5) -> None:
    """Another bit of a byte."""
    content = bytearray(file.read_bytes())
    content[int(where * len(content))] ^= 1
    file.write_bytes(content)


def damage(folder: Path) -> None:
    """Scores that were changed, a table and an exposure that are gone; an encoder with another bit,
    and references."""
    scores = folder / "runs/arm=mono,seed=0/scores/heldout.parquet"
    pd.read_parquet(scores).assign(ap=1.0).to_parquet(scores, index=False)
    (folder / "report/tables/quality.csv").unlink()
    (folder / "runs/arm=untrained,seed=1/exposure.json").unlink()
    flip(folder / "runs/arm=untrained,seed=1/model/model.safetensors")
    flip(folder / "corpus/base/benchmarks/heldout/references.parquet")


def test_study_leaves_a_report(toy):
    """Every page is there, links to the others, and the figure and verdicts are on the first."""
    whole, _, said, *_ = toy
    report = whole / "outputs/toy/report"
    pages = {f.name for f in report.glob("*.html")}
    assert len(pages) == 2 + 1 + 6 + 6 and "explore.html" in pages
    index = (report / "index.html").read_text()
    assert 'id="tradeoff"' in index and "Do the claims hold?" in index
    assert "report" in said.splitlines()[-1]


def test_tables_hold_every_arm_and_reference(toy):
    """Quality of each arm in each setting, with intervals that hold their estimate."""
    quality = pd.read_csv(toy[0] / "outputs/toy/report/tables/quality.csv")
    assert set(quality["arm"]) == {
        "mono",
        "hybrid(0.5)",
        "untrained",
        "random",
        "own-language oracle",
        "BM25 words",
        "BM25 char n-grams",
    }
    assert set(quality["setting"]) == {"mono", "cross", "multi"}
    assert quality["estimate"].between(0, 1).all()
    assert (
        (quality["low"] <= quality["estimate"]) & (quality["estimate"] <= quality["high"])
    ).all()
    oracle = quality[(quality["arm"] == "own-language oracle") & (quality["metric"] == "ap")]
    assert oracle.set_index("setting").loc["mono", "estimate"] == 1


def test_training_beats_the_untrained_encoder(toy):
    """Even 24 toy steps rank relevant passages better than random weights, one hop."""
    strata = pd.read_csv(toy[0] / "outputs/toy/report/tables/runs.csv")
    assert set(strata["arm"]) == {"mono", "hybrid(0.5)"}
    for seed in (0, 1):
        folder = toy[0] / "outputs/toy/runs"
        trained, fresh = (
            json.loads((folder / f"arm={arm},seed={seed}/metrics.json").read_text())
            for arm in ("mono", "untrained")
        )
        assert (
            trained["summary"]["heldout"]["mono"]["ap"] > fresh["summary"]["heldout"]["mono"]["ap"]
        )


def test_killed_study_ends_in_the_same_tables(toy):
    """After SIGKILL of everything while training, the second start finishes the remainder, and
    every result table is the same to the last digit."""
    whole, killed, *_, said = toy
    done = int(re.search(r"(\d+) of \d+ stages are done", said)[1])
    assert done >= 1
    assert tables(killed) == tables(whole) and len(tables(whole)) >= 7


def test_finished_study_runs_nothing(toy):
    """A third start only says where the report is, in seconds."""
    begin = time.monotonic()
    said = finish(start(toy[0]))
    assert "nothing to run" in said and time.monotonic() - begin < 20


def test_damage_never_reaches_a_figure(toy):
    """What is read at the start is named and made again, the rest when it is opened: the tables are
    the same."""
    said = toy[3]
    assert said.count("making it again") == 3 and "heldout.parquet: was altered" in said
    assert tables(toy[1]) == tables(toy[0])


def test_no_file_is_outside_of_a_sealed_set(toy, monkeypatch):
    """Whatever of a finished study has a bit flipped, is cut short or deleted is noticed, by name:
    at the start, or when it is opened. Nobody reads logs and locks; checkpoints are skipped."""
    folder = toy[0] / "outputs/toy"
    monkeypatch.setenv("BATCHES_OUTPUTS", str(folder.parent))
    jobs = plan.plan(grid.load_frozen("toy"))
    unread = re.compile(r"logs/|.*\.lock$|\.snakemake/|runs/[^/]*/checkpoints/|study\.json$")
    files = [f for f in folder.rglob("*") if f.is_file() and not f.name.endswith(".ok")]
    files = [f for f in files if not unread.match(f.relative_to(folder).as_posix())]
    assert len(files) > 120 and not any(job.faults() for job in jobs)
    for number, file in enumerate(files):
        content = file.read_bytes()
        sealed = next((p for p in file.parents if (p / "manifest.json").exists()), folder)
        match number % 3:
            case 0:
                flip(file)
            case 1:
                file.write_bytes(content[: len(content) // 2])
            case 2:
                file.unlink()
        found = {path for job in jobs for path in job.faults()}
        if file not in found:
            with pytest.raises(store.Damaged, match=re.escape(file.name)):
                store.verify(sealed)
        file.write_bytes(content)


def test_a_study_of_ones_own_pairs(outputs, tmp_path, in_process):
    """A file of pairs goes through all four notebooks: no names, no hops, partly parallel."""
    colours = {"en": "red green blue black white grey".split(),
               "de": "rot grün blau schwarz weiß grau".split(),
               "fr": "rouge vert bleu noir blanc".split()}  # fmt: skip
    rows = [
        {"pair": f"{n}-{k}", "language": language, "passage_id": f"p{n}-{k}", "group": f"g{n}-{k}",
         "question": f"{name} {k} ?", "passage": f"{name} {name} {k} !"}
        for language, names in colours.items() for n, name in enumerate(names) for k in range(30)
    ]  # fmt: skip
    pairs, study = tmp_path / "pairs.jsonl", tmp_path / "own.yaml"
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    study.write_text(
        f"prepare: {{source: pairs, files: {{mine: '{pairs}'}}, vocabulary: 400}}\n"
        "train: {steps: 5, batch_size: 16, width: 16}\n"
    )
    assert main(["run", str(study)]) == 0
    quality = pd.read_csv(outputs / "own/report/tables/quality.csv")
    assert quality["estimate"].between(0, 1).all()


def test_papermill_commands_of_the_page(tmp_path):
    """The four commands that docs/ecosystem.md lists, in sequence, at toy size."""
    text = (ROOT / "docs/ecosystem.md").read_text(encoding="utf-8")
    commands = re.findall(r"^\.venv/bin/papermill (notebooks/.*)$", text, re.M)
    assert [c.split()[0][10:12] for c in commands] == ["01", "02", "03", "04"]
    small = {
        "01": '-p run base -p vocabulary 1500 -p pool 50 -p bridges 1 -y {"languages":["de","en"]}',
        "02": "-p steps 6 -p width 16",
    }
    environment = os.environ | {"BATCHES_OUTPUTS": str(tmp_path)}
    for command in commands:
        notebook, output, *rest = shlex.split(command)
        executed = tmp_path / Path(output).name
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "papermill",
                str(ROOT / notebook),
                str(executed),
                *rest,
                *small.get(notebook[10:12], "").split(),
                "--no-progress-bar",
            ],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-2000:]
    assert list((tmp_path / "lab/report/tables").glob("quality.csv"))
    assert list((tmp_path / "lab/corpus/base/figures").glob("knobs*.svg"))


def test_notebook_run_too_early_names_what_to_run_first(outputs, tmp_path):
    """02_train without a corpus says which notebook makes it."""
    import papermill

    with pytest.raises(papermill.PapermillExecutionError, match="run 01_prepare first"):
        papermill.execute_notebook(
            str(ROOT / "notebooks/02_train.ipynb"),
            str(tmp_path / "out.ipynb"),
            kernel_name="python3",
            cwd=str(ROOT),
            progress_bar=False,
        )


def test_a_study_outlives_its_machine(toy, outputs, tmp_path, capsys, in_process):
    """The ledger of a study, kilobytes a run, gives the same tables where nothing else is; another
    machine takes from a ledger the runs that it has and makes the others, to the same tables."""
    study, reference = toy[0] / "toy.yaml", outputs / "reference/toy"

    def said(code, *arguments):
        found, both = main([*map(str, arguments)]), capsys.readouterr()
        assert found == code, both.out + both.err
        return both

    shutil.copytree(toy[0] / "outputs", outputs)
    said(0, "ledger", study)
    shutil.rmtree(outputs / "toy")
    runs = sorted((reference / "ledger/runs").iterdir())
    assert len(runs) == 6
    sizes = [sum(f.stat().st_size for f in run.rglob("*") if f.is_file()) for run in runs]
    assert max(sizes) < 100_000
    assert not {".ipynb", ".safetensors"} & {f.suffix for f in reference.rglob("*")}

    said(0, "report", "--from", reference)
    assert tables(tmp_path) == tables(toy[0]) and "agnostic.csv" in tables(toy[0])
    assert (outputs / "toy/report/index.html").exists()
    assert "has runs taken from" in said(2, "run", study).err
    shutil.rmtree(outputs / "toy")

    for lacking in runs[:2]:
        shutil.rmtree(lacking)
    elsewhere = tmp_path / "toy.yaml"
    elsewhere.write_text(TOY.replace("width: 16", "width: 20"))
    refused = said(2, "run", elsewhere, "--from", reference)
    assert "was made with width 16, now 20" in refused.err
    added = said(0, "run", study, "--from", reference)
    assert "4 runs are taken from" in added.out
    assert tables(tmp_path) == tables(toy[0])
    made = [f.parent.parent.name for f in (outputs / "toy/runs").glob("*/model/*.safetensors")]
    assert sorted(made) == [run.name for run in runs[:2]]

    store.write_json(outputs / "toy" / ledger.TAKEN, {"from": "outputs/reference/toy"})
    ledger.require_named("toy", str(ROOT / "outputs/reference/toy"))  # the same place
    with pytest.raises(BadParameter, match="has runs taken from outputs/reference/toy "):
        ledger.require_named("toy", str(reference))

    along = tmp_path / "along.yaml"
    along.write_text(TOY.replace("vary:\n", "vary:\n  size: {small: {train.width: 16}}\n", 1))
    jobs = plan.plan(grid.with_contents(grid.load_study(along)))
    lacking = [f"size=small,{run.name}" for run in runs[:2]]
    assert sorted(ledger.missing(str(reference), jobs)) == lacking
    assert ledger.adopt(str(reference), jobs) == 4
    done = {job.key for job in jobs if job.stage == "evaluate" and job.done}
    assert done == {f"size=small,{run.name}" for run in runs[2:]}
