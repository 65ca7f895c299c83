"""Studies of public checkpoints and data: they expand, and name what they need exactly."""

import re
from pathlib import Path

import pytest

from lib import benchmarks, sources
from lib.checkpoint import COMMIT
from lib.study import grid

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "params" / "full").glob("*.yaml"))
studies = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


def models(file):
    """Names of the checkpoints of a study, each once."""
    return sorted({run.train.model for run in grid.load_study(file).runs.values()})


def test_all_that_were_asked_for_are_there():
    names = {"paper", "lareqa", "xlmr_labse", "mt5", "instruct", "decoders_7b_13b"}
    assert names <= {file.stem for file in FILES}


@studies
def test_it_expands(file):
    """The arms of the primary contrasts with three seeds or more, nothing but what its source and
    its benchmarks take, and a headline benchmark that a report can be about."""
    study = grid.load_study(file)
    seeds = {}
    for run in study.runs.values():
        if run.train.steps:
            arm = run.train.strategy, run.train.alpha, run.train.model
            seeds.setdefault(arm, set()).add(run.train.seed)
    for model in models(file):
        named = {strategy for strategy, _, of in seeds if of == model}
        assert {"mono", "cross", "hybrid", "mix"} <= named
    assert min(map(len, seeds.values())) >= 3
    for corpus in study.corpora.values():
        sources.check(corpus)
    for run in study.runs.values():
        for spec in run.evaluate.benchmarks.values():
            benchmarks.check(spec)


@studies
def test_checkpoints_are_named_exactly(file):
    """By a commit, or a folder that the file says how to fill."""
    text = file.read_text(encoding="utf-8")
    for model in models(file):
        name, _, commit = model.partition("@")
        if commit:
            assert COMMIT.fullmatch(commit), model
        else:
            assert name.startswith("models/") and "hf download" in text, model
    assert f"make study STUDY=params/full/{file.name}" in text


def test_commits_are_those_that_mteb_pins():
    """Where mteb knows the checkpoint: nobody has made one up."""
    mteb = pytest.importorskip("mteb", reason="not installed: mteb; its commits are not compared")
    pinned = {name.partition("@")[::2] for file in FILES for name in models(file) if "@" in name}
    known = {
        name: re.search(r"[0-9a-f]{40}", str(mteb.get_model_meta(name).revision))
        for name, _ in pinned
        if name != "meta-llama/Llama-2-7b-hf"  # among its rerankers, which are no models to ask for
    }
    assert len(known) >= 5
    for name, commit in pinned:
        assert name not in known or known[name][0] == commit, name
