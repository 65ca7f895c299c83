"""Advice before training: the alignment is that of the encoder, and the law says the rest."""

import json

import numpy as np
import pandas as pd
import pytest
from test_predictions import ALIGNED

from lib.benchmarks import parallel
from lib.corpus import ParallelCorpus
from lib.params import BadParameter, Train
from lib.store import ROOT
from lib.study import advise, paths
from lib.study.__main__ import main
from lib.training.models import build_encoder

LANGUAGES = ("de", "en", "es")
STUDY = """\
prepare: {source: pairs, files: {mine: FILE}, folds: 3, vocabulary: 400}
train: {steps: 3, width: 16, batch_size: 4}
vary:
  arm:
    mono: {train.strategy: mono}
    untrained: {train.steps: 0}
"""
SIZES = {"mono cost": -0.1, "cross gain": 0.2, "multi gain": 0.1}


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study file over 30 made pairs, and rungs in which hybrid costs .1 (1 - A) within a language
    and gains twice as much across; cross has twice of each."""
    rows = [
        {
            "pair": f"p{n}",
            "language": code,
            "question": f"q {code} {n}",
            "passage": f"{code} w{n} x",
        }
        for n in range(30)
        for code in LANGUAGES
    ]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    file = tmp_path / "mine.yaml"
    file.write_text(STUDY.replace("FILE", str(tmp_path / "pairs.jsonl")))
    points = [
        {"rung": rung, "budget": 1, "contrast": name + of, "alignment": a, "missing": 0.0,
         "value": size * twice * (1 - a) + 1e-4 * (len(rung) - 6)}
        for rung, a in ALIGNED.items()
        for name, size in SIZES.items()
        for of, twice in (("", 1), (" of cross", 2))
    ]  # fmt: skip
    pd.DataFrame(points).to_csv(tmp_path / "points.csv", index=False)
    monkeypatch.setattr(advise, "POINTS", tmp_path / "points.csv")
    monkeypatch.setenv("BATCHES_OUTPUTS", str(tmp_path / "outputs"))
    return file


def test_alignment_is_bitext_accuracy(study):
    """Against the definition: of each passage the nearest of another language, ties shared."""
    found = advise.advise(str(study))
    corpus = ParallelCorpus.load(paths.corpus_dir("mine", "base") / "data")
    own = parallel.load_benchmark(corpus).candidates
    encoder = build_encoder(Train(steps=3, width=16, batch_size=4), corpus.tokenizer_file).eval()
    vectors = {
        code: (part["candidate_id"].tolist(), encoder.encode(part["text"].tolist(), "passage"))
        for code, part in own.groupby("language")
    }
    hits = []
    for asked, (names, left) in vectors.items():
        for other, (theirs, right) in vectors.items():
            if asked != other:
                cosines = np.rint(1e6 * left @ right.T)
                best = cosines == cosines.max(1, keepdims=True)
                right_one = np.array(names)[:, None] == np.array(theirs)
                hits.append(((best & right_one).sum(1) / best.sum(1)).mean())
    assert found.alignment.estimate == pytest.approx(np.mean(hits), abs=0.02)
    assert found.passages == len(own) / len(LANGUAGES)
    assert found.alignment.low < found.alignment.estimate < found.alignment.high


def test_the_law_says_the_rest(study):
    """-.1 (1 - A) and so on, at the alignment that was measured; which alpha follows."""
    found = advise.advise(str(study))
    room = 1 - found.alignment.estimate
    said = found.table.set_index(["setting", "alpha"])["estimate"]
    assert said["mono", 0.5] == pytest.approx(-0.1 * room, abs=5e-3)
    assert said["cross", 0.0] == pytest.approx(0.4 * room, abs=1e-2)
    text = str(found)
    assert "best alpha: 1" in text and "best alpha: 0" in text
    assert "knows nothing of large pools" in text


def test_the_notebook_of_the_law_says_it_of_mine(study, capsys):
    """Its section for an encoder of one's own; by default it says nothing."""
    notebook = json.loads((ROOT / "notebooks" / "06_law.ipynb").read_text(encoding="utf-8"))
    [cell] = [c for c in notebook["cells"] if c["id"] == "own"]
    for mine, said in ((str(study), "best alpha"), ("", "")):
        exec("".join(cell["source"]), {"mine": mine, "advise": advise})
        assert said in (out := capsys.readouterr().out) and bool(out) == bool(said)


def test_best_names_what_is_not_told_apart():
    rows = pd.DataFrame(
        [(0.0, 0.10, 0.05, 0.15), (0.5, 0.09, 0.04, 0.14)],
        columns=["alpha", "estimate", "low", "high"],
    )
    assert advise.best(rows) == "best alpha: 0 (not told apart: 0.5)"
    assert advise.best(rows.assign(estimate=-1.0, low=-2.0, high=-0.5)) == "best alpha: 1"


def test_pairs_that_are_refused_are_one_line(study, capsys):
    """And once they are mended the same command goes on."""
    pairs = study.with_name("pairs.jsonl")
    good = pairs.read_text()
    pairs.write_text(good.replace('"language": "de"', '"language": "german"', 1))
    assert main(["advise", str(study)]) == 2
    said = capsys.readouterr().err
    assert "unknown language 'german'" in said and said.count("\n") == 1
    pairs.write_text(good)
    assert main(["advise", str(study)]) == 0 and "alignment" in capsys.readouterr().out


def test_without_rungs_or_training_there_is_no_advice(study, monkeypatch, capsys):
    assert main(["advise", str(study), "--set", "train.steps=0"]) == 2
    assert "trains nothing" in capsys.readouterr().err
    monkeypatch.setattr(advise, "POINTS", study.with_name("none.csv"))
    with pytest.raises(BadParameter, match="none.csv: is not there"):
        advise.advise(str(study))
