"""What is in a study's inputs is part of it: an edited file is noticed, wherever it is named."""

import json
import os
import shutil
import time
from pathlib import Path

import pytest
from test_study_run import planned

from lib import sources, store
from lib.params import BadParameter, Evaluate, Prepare, Train
from lib.sources import cldr, files
from lib.study import grid, inputs, plan, run, stage


def write_pairs(file, word="a"):
    rows = [
        {"pair": i, "language": language, "passage_id": i, "group": i,
         "question": f"{word} {i}", "passage": f"{language} {i}"}
        for i in range(9) for language in ("de", "en")
    ]  # fmt: skip
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def study_of(place, more=""):
    """A study that names a file, a benchmark's folder and a checkpoint."""
    write_pairs(place.folder / "pairs.jsonl")
    for name in ("bench", "model"):
        (place.folder / name).mkdir(exist_ok=True)
        (place.folder / name / "config.json").write_text('{"model_type": "bert"}')
        (place.folder / name / "x.safetensors").write_text("")
        (place.folder / name / "tokenizer.json").write_text("{}")
    return place.study(
        f"prepare: {{source: pairs, files: {{all: {place.folder}/pairs.jsonl}}}}\n"
        f"train: {{model: {place.folder}/model, steps: 2}}\n"
        "evaluate: {benchmarks: {heldout: {format: heldout}, "
        f"b: {{format: beir, folder: {place.folder}/bench, languages: [en], split: test}}}}}}\n"
        + (more or "vary: {train.seed: [0]}\n")
    )


EDITED = {
    "pairs.jsonl": {"prepare base", "train seed=0", "evaluate seed=0", "analyse", "report"},
    "model/config.json": {"train seed=0", "evaluate seed=0", "analyse", "report"},
    "bench/x.safetensors": {"evaluate seed=0", "analyse", "report"},
}


@pytest.mark.parametrize("edited", EDITED)
def test_an_edited_input_reaches_what_depends_on_it(place, edited):
    """Stamps hold hashes of contents: other bytes, other stamps; another time alone changes none.
    Nothing tells by size and times of the file, which may be set."""
    path, file = study_of(place), place.folder / edited

    def stamps():
        study = grid.with_contents(grid.load_study(path))
        return {job.name: job.stamp for job in plan.plan(study)}

    first = stamps()
    assert first != {name: job.stamp for name, job in planned(path).items()}
    before = file.stat()
    os.utime(file)
    assert stamps() == first
    content = file.read_bytes()
    file.write_bytes(content[:-1] + b"~")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    second = stamps()
    assert {name for name in first if first[name] != second[name]} == EDITED[edited]


def test_seeds_are_not_trained_on_two_versions_of_the_data(place):
    """A corpus made before the edit stops the study before anything starts, naming both; one of
    which nothing is made is asked for anew."""
    path = study_of(place)
    jobs = {job.name: job for job in plan.plan(grid.with_contents(grid.load_study(path)))}
    folder = jobs["prepare base"].folder
    inputs.remember(folder, jobs["prepare base"].params)
    run._refuse_other_parameters([*jobs.values()], path)
    assert not (folder / "params.json").exists()
    inputs.remember(folder, jobs["prepare base"].params)
    (folder / "data").mkdir()
    (folder / "data/manifest.json").write_text("{}")
    write_pairs(place.folder / "pairs.jsonl", word="b")
    path = study_of(place, "vary: {train.seed: [0, 1]}\n")
    write_pairs(place.folder / "pairs.jsonl", word="c")
    study = grid.with_contents(grid.load_study(path))
    with pytest.raises(BadParameter) as caught:
        run._refuse_other_parameters(plan.plan(study), path)
    assert str(caught.value) == (
        f"{path}: {jobs['prepare base'].folder} was made from {place.folder}/pairs.jsonl as it was "
        f"before it changed (expected the same; `make clean STUDY={path}` starts afresh)"
    )
    with pytest.raises(ValueError, match="as it was before it changed; remove that folder or"):
        inputs.remember(jobs["prepare base"].folder, jobs["prepare base"].params)


def test_an_input_that_changes_while_the_study_runs(place, monkeypatch):
    """Before a stage begins, or while it works: it fails, and no stamp vouches for it."""
    path = study_of(place)
    study = grid.with_contents(grid.load_study(path))
    grid.freeze(study)
    job = {job.name: job for job in plan.plan(grid.load_frozen("tiny"))}["prepare base"]
    assert job.contents == {
        f"{place.folder}/pairs.jsonl": study.contents[str(place.folder / "pairs.jsonl")]
    }

    def edit(_):
        write_pairs(place.folder / "pairs.jsonl", word="other")

    monkeypatch.setattr(stage, "_run_notebook", edit)
    for _ in range(2):
        with pytest.raises(stage.StageFailed, match="pairs.jsonl: was changed after the study was"):
            stage.run_stage("tiny", "prepare", "base")
        assert not job.ok.exists()


def test_named_inputs():
    """Of checkpoints, paths and folders that are there; a name on a hub is its revision."""
    specs = {"a": {"format": "beir", "folder": "x/y"}, "heldout": {"format": "heldout"}}
    assert inputs.named(Evaluate(benchmarks=specs)) == {"evaluate.benchmarks[a].folder": "x/y"}
    assert inputs.named(Prepare(files={"en": "a.csv"}, translator="org/x@" + "12" * 20)) == {
        "prepare.files[en]": "a.csv"
    }
    assert inputs.named(Train(model="lib")) == {"train.model": "lib"}
    assert inputs.named(Train(model="./absent")) == {"train.model": "./absent"}
    assert inputs.named(Train(model="org/name@" + "ab" * 20)) == {}


def test_a_hash_is_computed_once(place, monkeypatch):
    """Until the file changes; a file that has just changed is not remembered, since a change in the
    same moment would have its size and times. Damage to what is remembered costs time alone."""
    path = study_of(place)
    p = next(iter(grid.load_study(path).corpora.values()))
    read = []
    monkeypatch.setattr(
        store, "sha256", lambda file, hashed=store.sha256: read.append(file) or hashed(file)
    )
    first = inputs.contents(p)
    assert inputs.contents(p) == first and len(read) == 2
    monkeypatch.setattr(time, "time", lambda now=time.time: now() + 10)
    assert inputs.contents(p) == inputs.contents(p) == first and len(read) == 3
    (place.outputs / "tiny" / inputs.FILE).write_text("[")
    assert inputs.contents(p) == first and len(read) == 4
    (place.folder / "pairs.jsonl").unlink()
    assert inputs.contents(p) == {}


def test_a_folder_is_its_names_and_contents(place):
    """Links followed; hidden files and those that people read apart, which come and go."""
    folder = place.folder / "some"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a").write_text("x")
    first = inputs._digest(folder, store.sha256)
    for name in (".DS_Store", "README.md", "LICENSE"):
        (folder / name).write_text("x")
    assert inputs._digest(folder, store.sha256) == first
    (place.folder / "elsewhere").mkdir()
    (place.folder / "elsewhere" / "c").write_text("x")
    (folder / "linked").symlink_to(place.folder / "elsewhere")
    (folder / "linked" / "loop").symlink_to(folder)
    linked = inputs._digest(folder, store.sha256)
    (place.folder / "elsewhere" / "c").write_text("y")
    assert len({first, linked, inputs._digest(folder, store.sha256)}) == 3
    (folder / "linked").unlink()
    (folder / "sub" / "a").rename(folder / "sub" / "b")
    assert inputs._digest(folder, store.sha256) != first


# --- batches that no corpus can fill ---


def test_a_batch_larger_than_the_data_is_refused_at_once(place):
    """Of a user's own small file by the number of its rows, with the default batch of 128."""
    write_pairs(place.folder / "pairs.jsonl")
    text = f"prepare: {{source: pairs, files: {{all: {place.folder}/pairs.jsonl}}}}\n"
    path = place.study(text)
    with pytest.raises(BadParameter) as caught:
        grid.startable(path)
    assert str(caught.value) == (
        f"{path}: train.batch_size: 128 is more than there can be groups to train on (19), of "
        "which a batch has one each (expected fewer)"
    )
    assert grid.startable(place.study(text + "train: {batch_size: 8}"))
    assert grid.startable(place.study(text + "train: {steps: 0}"))


@pytest.mark.parametrize("changes", [{}, {"distractors": 2}, {"languages": ["de", "en"]}])
def test_the_embedded_corpus_has_no_more_groups_than_said(changes):
    """And a good share of them."""
    p = Prepare(**{"bridges": 1, "languages": ["de", "zh"]} | changes)
    groups = len(set(cldr.build_corpus(p).rows["group"][:]))
    assert groups <= sources.most_groups(p) <= 1.5 * groups * (1 + p.distractors)


def test_where_no_number_is_known_nothing_is_refused(tmp_path):
    """Packed files, parquet, JSON in one piece; line-parallel files have a row a line."""
    for name in ("a.jsonl.gz", "a.parquet", "a.json"):
        assert files.rows_at_most(str(tmp_path / name)) is None
    (tmp_path / "a.txt").write_text("x\ny")
    assert sources.most_groups(Prepare(source="bitext", files={"en": str(tmp_path / "a.txt")})) == 2
    assert sources.most_groups(Prepare(form="cards")) is None


LACKING = {
    "format: beir, split: dev": "b/qrels/dev.tsv: no such file (nor with .gz)",
    "format: beir, languages: [de, en]": "no file of language de",
    "format: collection": "b/passages.jsonl: no such file",
    "format: miracl": "b: holds no topics of split dev",
    "format: tatoeba, languages: [de]": "has no pair of language 'de'",
    "format: lareqa, languages: [th]": "no file of language th",
}


@pytest.mark.parametrize("spec", LACKING)
def test_a_benchmark_that_lacks_files_is_refused_at_once(place, spec):
    """Split and languages included: training would be over before they are read."""
    folder = place.folder / "b"
    for name in (
        "corpus.jsonl", "queries.jsonl", "qrels/test.tsv", "en/corpus.jsonl", "questions.jsonl",
        "en.json", "tatoeba.fra-eng.fra", "tatoeba.fra-eng.eng",
    ):  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")
    heldout = "heldout: {format: heldout}"
    path = place.study(f"evaluate: {{benchmarks: {{{heldout}, x: {{{spec}, folder: {folder}}}}}}}")
    with pytest.raises(BadParameter) as caught:
        grid.startable(path)
    assert str(caught.value).startswith(f"{path}: evaluate.benchmarks[x]: ")
    assert LACKING[spec] in str(caught.value)


def test_where_inputs_lie_is_no_part_of_a_stamp(place):
    """The same files in another folder, in a study of another name, give the same stamps; another
    file with the same name does not (above)."""
    first = Path(study_of(place))
    elsewhere = place.folder / "elsewhere"
    shutil.copytree(place.folder, elsewhere)
    text = first.read_text().replace(str(place.folder), str(elsewhere))
    other = first.with_name("other.yaml")
    other.write_text(text)
    assert text != first.read_text()
    stamps = [
        {j.name: j.stamp for j in plan.plan(grid.with_contents(grid.load_study(str(path))))}
        for path in (first, other)
    ]
    assert stamps[0] == stamps[1]
