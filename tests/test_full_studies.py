"""Studies of public checkpoints and data: they expand, and name what they need exactly.

A run of each kind of encoder goes from start to report in tests/test_real_data_end_to_end.py.
"""

import json
import re
from pathlib import Path

import pytest
from test_mmarco import simple, world
from test_real_data_end_to_end import SMALL, checkpoint, sentence

from lib import benchmarks, sources, trainer
from lib.checkpoint import COMMIT
from lib.sources import mmarco
from lib.study import evaluate, grid, inputs, paths, prepare
from lib.training.models import load_encoder

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


def put_mkqa(folder):
    """MKQA's own file in two languages, over six passages of which each answers one question."""
    folder.mkdir()
    asked = [{"example_id": n, "queries": {"en": f"what {n}", "de": f"was {n}"}} for n in range(6)]
    found = [{"id": f"p{n}", "text": f"that is {n}"} for n in range(6)]
    for name, rows in (("mkqa", asked), ("passages", found)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    judged = "".join(f"{n}\tp{n}\t1\n" for n in range(6))
    (folder / "qrels.tsv").write_text("question_id\tpassage_id\tgrade\n" + judged)


def test_instructions_with_negatives_on_files_of_mmarco_and_mkqa(tmp_path, outputs):
    """The study of question 5 as it stands but for sizes and weights: two negatives a row of
    mMARCO's triples, prompts by kind of row, held-out questions and MKQA asked with a prompt."""
    study = grid.load_study(str(ROOT / "params/full/rq5_instruct.yaml"))
    run = study.runs["arm=hybrid50-words,seed=0"]
    p = study.corpora[run.train.corpus]
    world(tmp_path / "mmarco", simple(40), [mmarco.NAMES[code] for code in p.languages])
    small = {"folder": str(tmp_path / "mmarco"), "folds": 4, "vocabulary": 400}
    corpus = prepare.prepare(p.model_copy(update=small))
    assert corpus.languages == tuple(p.languages)
    words = [run.train.mono_prompt, run.train.cross_prompt, *corpus.rows["passage"][:50]]
    model = checkpoint(tmp_path / "model", "XLMRoberta", words)
    asked = run.train.model_copy(update=SMALL | {"model": model, "chunk": 8})
    assert trainer.schedule(corpus.index, asked).batch(0).negatives.shape == (8, 2)
    folder = paths.run_dir(asked.study, asked.run)
    inputs.remember(folder, asked)
    assert len(trainer.train(corpus, asked, folder).log) == SMALL["steps"]
    put_mkqa(tmp_path / "mkqa")
    specs = {n: run.evaluate.benchmarks[n] for n in ("same-language", "mkqa-any-language")}
    assert all(spec.prompt for spec in specs.values())
    specs["mkqa-any-language"] = specs["mkqa-any-language"].model_copy(
        update={"folder": str(tmp_path / "mkqa")}
    )
    e, encoder = (
        run.evaluate.model_copy(update={"benchmarks": specs}),
        load_encoder(folder / "model"),
    )
    for name, settings in (("same-language", 3), ("mkqa-any-language", 3)):
        scores = evaluate.evaluate(name, e, encoder, corpus, folder).scores
        own = scores[scores["setting"].isin(["mono", "cross", "multi"])]
        assert own["setting"].nunique() == settings and own["ap"].between(0, 1).all()


def test_many_languages_on_files_of_ntrex_and_tatoeba(tmp_path, outputs):
    """The study of question 2 as it stands but for sizes and weights: more languages beside four,
    the next sentence asked of held-out documents, a sentence's translation of Tatoeba."""
    study = grid.load_study(str(ROOT / "params/full/rq2_languages.yaml"))
    run = study.runs["languages=16,arm=x-x-xlco,seed=1"]
    p = study.corpora[run.train.corpus]
    assert p.more == 12 and p.order == 1
    folder = tmp_path / "ntrex"
    folder.mkdir()
    for code in ("src.eng", *(f"ref.{x}" for x in ("arb", "spa", "zho-CN", "deu", "fra", "ita"))):
        lines = (f"{code[4:]} {n} {sentence(code, n)}\n" for n in range(60))
        (folder / f"newstest2019-{code}.txt").write_text("".join(lines))
    (folder / "DOCUMENT_IDS.tsv").write_text("".join(f"d{n // 6}\n" for n in range(60)))
    small = {"folder": str(folder), "folds": 4, "vocabulary": 400, "more": 2}
    corpus = prepare.prepare(p.model_copy(update=small))
    assert len(corpus.languages) == 6 and {"ar", "en", "es", "zh"} < set(corpus.languages)
    model = checkpoint(tmp_path / "model", "XLMRoberta", list(corpus.rows["passage"][:90]))
    own = SMALL | {"model": model, "chunk": 8, "budgets": [3], "warmup_steps": 1}
    asked = run.train.model_copy(update=own)
    folder = paths.run_dir(asked.study, asked.run)
    inputs.remember(folder, asked)
    assert len(trainer.train(corpus, asked, folder).log) == SMALL["steps"]
    for side in ("deu", "eng"):
        lines = "".join(f"{sentence(side, n)}\n" for n in range(9))
        (tmp_path / f"tatoeba.deu-eng.{side}").write_text(lines)
    specs = dict(run.evaluate.benchmarks)
    specs["tatoeba"] = specs["tatoeba"].model_copy(update={"folder": str(tmp_path)})
    e, encoder = (
        run.evaluate.model_copy(update={"benchmarks": specs}),
        load_encoder(folder / "model"),
    )
    scores = evaluate.evaluate("heldout", e, encoder, corpus, folder).scores
    assert set(scores["question_language"]) == {"ar", "en", "es", "zh"}
    assert scores["ap"].between(0, 1).all()
    found = evaluate.evaluate("tatoeba", e, encoder, corpus, folder).scores
    assert found["direction"].tolist() == ["to_en", "from_en"] and (found["sentences"] == 9).all()
