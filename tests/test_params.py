"""Parameters: one schema, strict, and every mistake one clear line."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lib.params import STAGES, Analyse, BadParameter, Evaluate, Prepare, Train
from lib.store import ROOT
from lib.study import cells, grid, inputs, paths
from lib.study.__main__ import main

NOTEBOOKS = {s: ROOT / "notebooks" / f"0{i}_{s}.ipynb" for i, s in enumerate(STAGES, 1)}
STRATEGIES = "mono, x-x, cross-pair, cross, hybrid, hybrid-pair, mix, en-en, cross-fixed"


@pytest.fixture
def load(tmp_path):
    """Loads a study from the text of its file."""

    def from_text(text):
        file = tmp_path / "tiny.yaml"
        file.write_text(text, encoding="utf-8")
        return grid.load_study(file)

    return from_text


# --- parameter cells ---


@pytest.mark.parametrize("stage", STAGES)
def test_a_notebook_has_the_models_cell(stage):
    """Names, order, defaults and comments: the cell is what `--cell` prints."""
    if not NOTEBOOKS[stage].exists():
        pytest.skip(f"{NOTEBOOKS[stage].name} is missing")
    found = json.loads(NOTEBOOKS[stage].read_text(encoding="utf-8"))["cells"]
    tagged = [c for c in found if "parameters" in c["metadata"].get("tags", [])]
    assert ["".join(c["source"]) for c in tagged] == [cells.cell(stage)]


@pytest.mark.parametrize("stage", STAGES)
def test_a_cell_holds_commented_literals_that_give_the_defaults(stage):
    """Executed, the cell gives the model's defaults; each line is a literal of a builtin type."""
    names = {}
    exec(cells.cell(stage), names)
    found = STAGES[stage].from_cell(names)
    assert found.model_copy(update={"run": ""}) == STAGES[stage]()
    body = ast.parse(cells.cell(stage)).body
    assert [node.target.id for node in body] == list(STAGES[stage].model_fields)
    for node in body:
        assert type(ast.literal_eval(node.value)).__name__ == node.annotation.id
    assert all("#" in line or ": list = " in line or ": str = " in line or ": dict = " in line
               for line in cells.cell(stage).splitlines() if line)  # fmt: skip


@pytest.mark.parametrize("stage", STAGES)
def test_a_cell_is_formatted(stage):
    """The formatter that checks the notebooks leaves a generated cell alone."""
    command = [sys.executable, "-m", "ruff", "format", "-"]
    done = subprocess.run(command, input=cells.cell(stage) + "\n", capture_output=True, text=True)
    assert done.stdout == cells.cell(stage) + "\n"


def test_an_unnamed_run_is_spelled_from_what_differs():
    """So that runs by hand do not overwrite each other."""
    cell = {name: field.default for name, field in Train.model_fields.items()}
    assert Train.from_cell(cell).run == "base"
    assert Train.from_cell(cell | {"strategy": "mix", "alpha": 1}).run == "strategy=mix,alpha=1"
    assert Train.from_cell(cell | {"model": "org/some model"}).run == "model=org-some-model"
    assert Train.from_cell(cell | {"run": "mine", "seed": 3}).run == "mine"
    prepare = Prepare().model_dump() | {"languages": ["en", "deu"], "keep": {"de": 0.5}}
    assert Prepare.from_cell(prepare).run == "languages=en+de,keep=de-0.5"


def test_evaluation_takes_the_base_run_and_analysis_all():
    """What an empty name means in the notebooks that read runs."""
    assert Evaluate.from_cell(Evaluate().model_dump() | {"encode_batch": 8}).run == "base"
    assert Analyse.from_cell(Analyse().model_dump()).run == ""


def test_a_cell_without_a_parameter_is_refused():
    """An old notebook with a newer library."""
    cell = Train().model_dump()
    del cell["clip"]
    with pytest.raises(BadParameter, match=r"^train\.clip: is missing from the parameter cell$"):
        Train.from_cell(cell)


def test_other_globals_are_not_parameters():
    """globals() holds imports and more."""
    assert Train.from_cell(Train().model_dump() | {"json": json, "_": 3}).run == "base"


def test_a_checkpoint_has_defaults_of_its_own():
    """Not set, or 0 as in the notebook's cell, means what suits scratch or a checkpoint; what is
    set stays, and only that is in the run's name."""
    scratch, checkpoint = Train(), Train(model="org/name")
    assert (scratch.learning_rate, scratch.temperature, scratch.max_length) == (3e-3, 0.1, 64)
    assert (checkpoint.learning_rate, checkpoint.temperature) == (3e-5, 0.05)
    assert (checkpoint.max_length, checkpoint.pooling) == (0, "")  # its own
    assert (scratch.pooling, checkpoint.warmup) == ("mean", scratch.warmup)
    assert checkpoint.warmup == scratch.warmup
    chosen = Train(model="org/name", learning_rate=1e-4, max_length=0)
    assert (chosen.learning_rate, chosen.max_length) == (1e-4, 0)
    assert Train(**chosen.model_dump()) == chosen  # as a frozen study gives it to its stages
    cell = {name: field.default for name, field in Train.model_fields.items()}
    found = Train.from_cell(cell | {"model": "org/name", "temperature": 0.02})
    assert found.run == "temperature=0.02,model=org-name" and found.learning_rate == 3e-5


# --- study files ---


def test_quick_study():
    """Four arms and the untrained encoder, eight seeds, and each fold in two of them."""
    study = grid.load_study(ROOT / "params" / "quick.yaml")
    assert study.name == "quick" and list(study.corpora) == [f"seed={s}" for s in range(4)]
    arms = ["mono", "cross", "hybrid50", "mix50", "untrained"]
    assert list(study.runs) == [f"arm={a},seed={s}" for a in arms for s in range(8)]
    for key, run in study.runs.items():
        corpus = study.corpora[run.train.corpus]
        assert corpus.fold == run.train.seed % corpus.folds and corpus.folds == 4
        assert key.endswith(f",seed={run.train.seed}")
        assert (run.train.run, run.evaluate.run) == (key, key)
        assert {run.train.study, run.evaluate.study, corpus.study} == {"quick"}
        assert (run.train.steps == 0) == ("untrained" in key)


def test_embedded_study():
    """All arms in steps of a quarter, none of them twice, the mechanism cells, five seeds."""
    study = grid.load_study(ROOT / "params" / "embedded.yaml")
    arms = {
        (t.strategy, t.alpha, t.steps > 0, t.negatives, t.most_negatives)
        for t in (run.train for run in study.runs.values())
    }
    assert len(study.runs) == 5 * len(arms) == 85 and len(study.corpora) == 5
    for strategy in ("hybrid", "mix"):
        assert {a for s, a, trained, *_ in arms if s == strategy and trained} == {0.25, 0.5, 0.75}
    assert {s for s, *_ in arms} == set(STRATEGIES.split(", "))
    assert {one[0] for one in arms if one[-1]} == {"hybrid-pair", "mix"}


def test_keys_are_canonical(load):
    """`1` and `1.0` are one key; axes stay in declared order; only corpus axes name a corpus."""
    study = load("vary: {train.alpha: [0, 1, 0.5], prepare.fold: [2, 1]}")
    assert list(study.runs)[:3] == ["alpha=0,fold=2", "alpha=0,fold=1", "alpha=1,fold=2"]
    assert list(study.corpora) == ["fold=2", "fold=1"]
    assert study.runs["alpha=1,fold=2"].train.corpus == "fold=2"
    assert list(load("vary: {train.alpha: [1.0]}").runs) == ["alpha=1"]


def test_a_study_without_axes_is_one_run(load):
    """The smallest study."""
    study = load("train: {steps: 3}")
    assert list(study.runs) == list(study.corpora) == ["base"]
    assert study.runs["base"].train.steps == 3


def test_an_arm_may_set_the_corpus(load):
    """An axis names the corpora if any of its settings touches them."""
    study = load("vary: {size: {full: {}, small: {prepare.keep: {de: 0.1}}}}")
    assert list(study.corpora) == ["size=full", "size=small"]
    assert study.corpora["size=small"].keep == {"de": 0.1}


def test_norwegian_and_small_numbers_work(load):
    """YAML 1.1 would read a truth value and a text."""
    study = load(
        "prepare: {form: cards, languages: [no, en]}\ntrain: {learning_rate: 1e-5, weight_decay: 1}"
    )
    assert study.corpora["base"].languages == ["no", "en"]
    assert study.runs["base"].train.learning_rate == 0.00001
    assert repr(study.runs["base"].train.weight_decay) == "1.0"


MISTAKES = {
    "train: {alhpa: 0.5}": "train.alhpa: unknown parameter (did you mean alpha?)",
    "train: {alpha: 1.5}": "train.alpha: 1.5 is out of range (expected 0 to 1)",
    "train: {alpha: -0.1}": "train.alpha: -0.1 is out of range (expected 0 to 1)",
    "train: {alpha: '0.5'}": "train.alpha: '0.5' is text (expected a number without quotes)",
    "train: {steps: '300'}": "train.steps: '300' is text (expected a whole number without quotes)",
    "train: {steps: 300.5}": "train.steps: 300.5 is a decimal number (expected a whole number)",
    "train: {steps: -1}": "train.steps: -1 is out of range (expected 0 or more)",
    "train: {steps: true}": "train.steps: True is true/false (expected a whole number)",
    "train: {temperature: -1}": "train.temperature: -1 is out of range (expected 0 or more)",
    "train: {clip: 0}": "train.clip: 0 is out of range (expected more than 0)",
    "train: {dropout: 1}": "train.dropout: 1 is out of range (expected 0 or more, less than 1)",
    "train: {clip: .nan}": "train.clip: nan is not finite (expected a finite number)",
    "train: {symmetric: 1}": "train.symmetric: 1 is a number (expected true or false)",
    "train: {model: 7}": "train.model: 7 is a number (expected text)",
    "train: {strategy: hybird}": f"train.strategy: 'hybird' is unknown (expected one of "
    f"{STRATEGIES})",
    "train: {seed: }": "train.seed: is empty (expected a whole number)",
    "train: {corpus: x}": "train.corpus: is set by the study itself (remove it)",
    "train: {run: x}": "train.run: is set by the study itself (remove it)",
    "prepare: {study: x}": "prepare.study: is set by the study itself (remove it)",
    "train: {explicit: 2}": "train.explicit: 2 does not go with negatives 'in_batch' (expected 0)",
    "train: {negatives: both}": "train.explicit: 0 does not go with negatives 'both' "
    "(expected 1 or more)",
    "train: {negatives: in_language, explicit: 1}": "train.explicit: 1 does not go with negatives "
    "'in_language' (expected 0)",
    "train: {negatives: both, explicit: 1, most_negatives: 9}": "train.most_negatives: 9 does not "
    "go with negatives 'both' (expected 0)",
    "train: {batch_size: 8, most_negatives: 8}": "train.most_negatives: 8 does not go with "
    "batch_size 8 (expected less)",
    "train: {negatives: in_language, symmetric: true}": "train.symmetric: True does not go with "
    "negatives 'in_language', most_negatives 0 (expected False: not all rows' passages are "
    "contrasted)",
    "train: {symmetric: true, most_negatives: 3}": "train.symmetric: True does not go with "
    "negatives 'in_batch', most_negatives 3 (expected False: not all rows' passages are "
    "contrasted)",
    "train: {negatives: in-language}": "train.negatives: 'in-language' is unknown (expected one of "
    "in_batch, in_language, explicit, both)",
    "train: {width: 8, heads: 3}": "train.heads: 3 does not divide the width 8 "
    "(expected a divisor)",
    "prepare: {fold: 5}": "prepare.fold: 5 is out of range (expected 0 to folds - 1, 4)",
    "prepare: {languages: [en, xx]}": "prepare.languages: unknown language 'xx' "
    "(expected a code such as en, zh-Hant, fr-CA or deu)",
    "prepare: {languages: [en, eng]}": "prepare.languages: en is named twice",
    "train: {maps: rotated, angle: 0.4}\n"
    "evaluate: {benchmarks: {h: {format: heldout}, t: {format: tatoeba, folder: x}}}": "evaluate: "
    "'t' does not go with train.maps 'rotated' (expected benchmarks that say the language of each "
    "text)",
    "train: {maps: rotated, angle: 0.4}\nevaluate: {mteb: [STS17]}": "evaluate: 'STS17' does not "
    "go with train.maps 'rotated' (expected benchmarks that say the language of each text)",
    "prepare: {keep: {en: 0.9, eng: 0.1}}": "prepare.keep: en is named twice",
    "evaluate: {benchmarks: {x.cells: {format: heldout}}}": "evaluate.benchmarks: 'x.cells' cannot "
    "name a file (expected letters, digits, . _ + -)",
    "prepare: {languages: en}": "prepare.languages: 'en' is text (expected a list)",
    "prepare: {languages: [en, 3]}": "prepare.languages[1]: 3 is a number (expected text)",
    "prepare: {source: sqad}": "prepare.source: 'sqad' is unknown (expected one of bitext, cldr, "
    "mmarco, ntrex, pairs, squad, translate, xtreme_squad)",
    "prepare: {source: squad}": "prepare.files: 0 files do not go with source "
    "'squad' (expected one file a language)",
    "prepare: {files: {en: a.jsonl}}": "prepare.files: 1 files do not go with "
    "source 'cldr' (expected none)",
    "prepare: {unanswerable: true}": "prepare.unanswerable: True does not go with passage "
    "'sentence' (expected 'paragraph': an unanswerable question has no answer sentence)",
    "prepare: {keep: {de: 2}}": "prepare.keep[de]: 2 is out of range (expected 0 to 1)",
    "prepare: {languages: [de], keep: {fr: 0.5}}": "prepare.keep: fr is not one of "
    "prepare.languages",
    "evaluate: {encode_batch: 0}": "evaluate.encode_batch: 0 is out of range (expected 1 or more)",
    "trian: {}": "trian: unknown section (did you mean train?)",
    "train: [1]": "train: is [1] (expected a mapping of its parameters)",
    "vary: {train.alpha: []}": "vary.train.alpha: is empty (expected a list or named settings)",
    "vary: {arm: {}}": "vary.arm: is empty (expected a list or named settings)",
    "vary: {arm: 3}": "vary.arm: is 3 (expected a list or named settings)",
    "vary: {alpha: [1]}": "vary: alpha: unknown parameter (did you mean train.alpha?)",
    "vary: {train.alpah: [1]}": "vary: train.alpah: unknown parameter (did you mean alpha?)",
    "vary: {evaluate.threads: [1]}": "vary: evaluate.threads: cannot vary "
    "(expected a parameter of prepare or train)",
    "vary: {train.alpha: [0, 2]}": "vary: train.alpha: 2 is out of range (expected 0 to 1)",
    "vary: {arm: {a: {train.alpha: 2}}}": "vary.arm.a: train.alpha: 2 is out of range "
    "(expected 0 to 1)",
    "vary: {arm: {a: {analyse.bootstrap: 9}}}": "vary.arm.a: analyse.bootstrap: cannot vary "
    "(expected a parameter of prepare or train)",
    "vary: {arm: {a: {train.run: x}}}": "vary.arm.a: train.run: is set by the study itself "
    "(remove it)",
    "vary: {arm: {a/b: {train.seed: 1}}}": "vary.arm.a/b: cannot name a setting "
    "(expected letters, digits, . _ + -)",
    "vary: {arm: {a: {prepare.folds: 2}, b: {prepare.fold: 9}}}": "vary.arm.b: prepare.fold: 9 "
    "is out of range (expected 0 to folds - 1, 4)",
    "vary: {train.alpha: [1, 1.0]}": "vary: two runs would be called alpha=1",
    "vary: {arm: {a: {train.seed: 1}, b: {train.seed: 1}}}": "vary: runs arm=a and arm=b are the "
    "same",
    "vary: {train.seed: [1], s: {a: {train.seed: 2}}}": "vary: seed and s both set train.seed",
    "train: {alpha: 0.1, alpha: 0.2}": 'line 1: found duplicate key "alpha" (expected it once)',
    "train: {alpha: 0.1}\ntrain: {steps: 2}": 'line 2: found duplicate key "train" '
    "(expected it once)",
    f"train: {{seed: {2**63}}}": f"train.seed: {2**63} is out of range (expected 0 to {2**63 - 1})",
    "train: {alpha: 0.1": "line 1: expected ',' or '}', but got '<stream end>' (expected YAML)",
    "[" * 2000 + "]" * 2000: "is nested too deeply (expected a mapping of each stage)",
    "train: {seed: 2024-01-01}": "train.seed: datetime.date(2024, 1, 1) is date (expected a whole "
    "number)",
    'train: {model: "\\uD800"}': "train.model: holds a lone surrogate (expected Unicode text)",
    "train: &a {model: *a}": "train: holds itself, or thousands of digits (expected a value)",
    "vary: &a [*a]": "vary: holds itself, or thousands of digits (expected a value)",
    f"train: {{steps: 0x{4000 * 'f'}}}": "train.steps: holds itself, or thousands of digits "
    "(expected a value)",
    "train: {symmetric: !!bool maybe}": "is not YAML ('maybe')",
    'vary: {arm: {"\\uD800": {train.seed: 1}}}': "vary.arm.\\ud800.train.seed: holds a lone "
    "surrogate (expected Unicode text)",
    "width: 3": "width: unknown section (did you mean train.width?)",
    "train: {steps: 99999999999999999999999}": "train.steps: 99999999999999999999999 is out of "
    "range (expected 0 to 1000000000)",
    "train: {steps: 17000000}": "train.steps: 17000000 of batch_size 128 make 2**31 pairs or more "
    "(expected fewer)",
    "train: {max_length: 100000000}": "train.max_length: 100000000 is out of range (expected 0 to "
    "131072)",
    "prepare: {vocabulary: 1000000000000}": "prepare.vocabulary: 1000000000000 is out of range "
    "(expected 300 to 2000000)",
    "just words": "is 'just words' (expected prepare, train, evaluate, analyse, vary, tune)",
    "": "is empty (expected prepare, train, evaluate, analyse, vary, tune)",
    "a: !!python/name:os.system x": "line 1: could not determine a constructor for the tag "
    "'tag:yaml.org,2002:python/name:os.system' (expected YAML)",
}


@pytest.mark.parametrize(("text", "message"), MISTAKES.items())
def test_each_mistake_is_one_line(load, tmp_path, text, message):
    """It names the file, the key, what was wrong and what was expected."""
    with pytest.raises(BadParameter) as caught:
        load(text)
    assert str(caught.value) == f"{tmp_path / 'tiny.yaml'}: {message}"


@pytest.mark.parametrize("name", ["zzz", "run", "train.zzz", "corpus", "prepare.studyy"])
def test_what_may_not_be_set_is_not_suggested(load, name):
    """study, run and corpus are the study's own."""
    with pytest.raises(BadParameter) as caught:
        load(f"vary: {{{name}: [1]}}")
    suggested = str(caught.value).partition("unknown parameter")[2]
    assert suggested and not re.search(r"\b(study|run|corpus)\b", suggested)


@pytest.mark.parametrize("value", [np.int64(3), np.array([1, 2]), np.zeros((40, 40)), np.bool_(1)])
def test_a_value_of_numpy_in_a_cell(value):
    """It is refused in one line, as every value that is no literal."""
    cell = Train().model_dump() | {"steps": value}
    with pytest.raises(BadParameter, match=r"^train\.steps: .* \(expected a whole number\)$"):
        Train.from_cell(cell)


def test_the_largest_seed_is_one_everywhere(load):
    """For torch, numpy and the batches, and as a number of a table beside others."""
    import numpy as np
    import pandas as pd
    import torch

    from lib.sampler import uniform

    seed = load(f"train: {{seed: {2**63 - 1}}}").runs["base"].train.seed
    assert torch.Generator().manual_seed(seed).initial_seed() == seed
    assert np.random.SeedSequence([seed, 0]).entropy == [seed, 0]
    assert uniform(seed, 1) != uniform(seed - 1, 1)
    table = pd.concat([pd.DataFrame({"seed": [s]}) for s in (0, seed - 1, seed)])
    assert table["seed"].tolist() == [0, seed - 1, seed]


@pytest.mark.parametrize("name", ["lab", "reference", "a b", ".yaml", "a=b"])
def test_some_names_are_no_study(tmp_path, name):
    """The name of the file becomes a folder."""
    (tmp_path / f"{name}.yaml").write_text("train: {}")
    with pytest.raises(BadParameter, match="name"):
        grid.load_study(tmp_path / f"{name}.yaml")


def test_files_that_cannot_be_read(tmp_path):
    """Absent, a folder, binary."""
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x01")
    for name in ("absent", "folder", "binary"):
        with pytest.raises(BadParameter, match=rf"{name}\.yaml: (cannot be read|is not YAML)"):
            grid.load_study(tmp_path / f"{name}.yaml")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner,
                                                                max_size=3),
    max_leaves=6,
)  # fmt: skip
FIELDS = [(s, name) for s, model in STAGES.items() for name in model.model_fields]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(field=st.sampled_from(FIELDS), value=VALUES, vary=st.booleans())
def test_no_value_escapes_the_schema(load, field, value, vary):
    """Whatever a file says, it is a study or one line that names the parameter."""
    name = ".".join(field)
    text = {"vary": {name: value}} if vary else {field[0]: {field[1]: value}}
    try:
        study = load(json.dumps(text))
    except BadParameter as error:
        assert "\n" not in str(error) and (field[1] in str(error) or "vary" in str(error))
    else:
        assert study.runs and study.corpora


# --- frozen studies, paths, the command ---


def test_a_frozen_study_is_the_study(outputs, load):
    """What stages read is what the file said."""
    study = load("vary: {train.alpha: [0.1, 1], prepare.keep: [{}, {de: 0.5}]}")
    grid.freeze(study)
    assert grid.load_frozen("tiny") == study
    assert not Path(study.file).is_absolute() and Path(study.file).name == "tiny.yaml"
    assert grid.keys("tiny") == list(study.runs)
    assert grid.keys("lab") == []


def test_a_study_that_is_not_there_or_damaged(outputs):
    """Stages say so in one line."""
    with pytest.raises(BadParameter, match="no such study"):
        grid.load_frozen("tiny")
    (outputs / "tiny").mkdir(parents=True)
    for text in ("{", "[]", '{"corpora": {}}', '{"corpora": {"a": {"x": 1}}, "runs": {}}'):
        (outputs / "tiny" / "study.json").write_text(text)
        with pytest.raises(BadParameter, match=r"another version \([^\n]*\)$"):
            grid.load_frozen("tiny")


def test_paths_start_from_the_project(monkeypatch, tmp_path):
    """Not from the working directory, which differs between Jupyter, papermill and tests."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BATCHES_OUTPUTS", raising=False)
    outputs = ROOT / "outputs"
    assert (ROOT / "lib" / "params.py").exists()
    assert paths.run_dir("s", "k") == outputs / "s" / "runs" / "k"
    assert paths.corpus_dir("s", "k") == outputs / "s" / "corpus" / "k"
    assert paths.report_dir("s") == outputs / "s" / "report"


def test_what_is_needed_and_what_there_is(outputs):
    """The notebook to run first, or the parameter to set to what was made already."""
    corpus, model = paths.corpus_dir("lab", "base") / "data", paths.run_dir("lab", "b") / "model"
    with pytest.raises(FileNotFoundError) as caught:
        paths.needs(corpus, "01_prepare")
    assert str(caught.value) == f"{corpus} is not there; run 01_prepare first"
    for key in ("pool=100", "fold=1"):
        (paths.corpus_dir("lab", key) / "data").mkdir(parents=True)
    (paths.corpus_dir("lab", "half") / "figures").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="first, or set 'corpus' to one that is there: "
                       "fold=1 pool=100$"):  # fmt: skip
        paths.needs(corpus, "01_prepare")
    for number in range(7):
        (paths.run_dir("lab", f"seed={number}") / "model").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="first, or set 'run' to one that is there: "
                       "seed=0 seed=1 seed=2 seed=3 seed=4 and 2 more$"):  # fmt: skip
        paths.needs(model, "02_train")
    model.mkdir(parents=True)
    assert paths.needs(model, "02_train") == model


def test_no_name_leaves_its_folder():
    """A run called ../x would be written elsewhere."""
    for name in ("../x", "a/b", ".hidden", "/abs", "a b"):
        with pytest.raises(BadParameter, match="cannot name a folder"):
            Train.from_cell(Train().model_dump() | {"run": name})


def test_the_command_prints_the_grid(capsys):
    """What would run, and how much of it."""
    assert main(["check", str(ROOT / "params" / "quick.yaml")]) == 0
    printed = capsys.readouterr().out
    assert "arm=hybrid50,seed=2" in printed and "hybrid(0.5), " in printed
    assert re.fullmatch(
        r"4 corpora, 40 runs \([\d,]+ training steps\): 86 stages", printed.splitlines()[-1]
    )


def test_the_command_refuses_in_one_line(tmp_path):
    """Exit 2, no traceback."""
    file = tmp_path / "bad.yaml"
    file.write_text("train: {alpha: 2}")
    command = [sys.executable, "-m", "lib.study", "check", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == f"{file}: train.alpha: 2 is out of range (expected 0 to 1)\n"


def test_the_command_prints_a_cell(capsys):
    """For whoever edits a notebook."""
    assert main(["cell", "train"]) == 0
    assert capsys.readouterr().out == cells.cell("train") + "\n"
    for arguments in (["cell", "nothing"], []):
        with pytest.raises(SystemExit, match="2"):
            main(arguments)


@pytest.mark.parametrize(
    ("evaluate", "said"),
    {
        "{x: {format: bier}}": "evaluate.benchmarks[x][format]: 'bier' is unknown",
        "{x: {}}": "evaluate.benchmarks[x][format]: is missing",
        "{}": "evaluate.benchmarks: is empty",
        "{x: {format: beir}}": "folder is empty (expected the folder of beir's files)",
        "{x: {format: beir, flder: a}}": "[x][flder]: unknown (did you mean folder?)",
        "{x: {format: lareqa, split: dev}}": "split 'dev' is unknown",
        "{x: {format: lareqa, languages: [qq]}}": "unknown language 'qq'",
        "{x: {format: tatoeba, folder: a}}": "a report cannot be about tatoeba ('x'",
        "{a b: {format: lareqa}}": "'a b' cannot name a file",
        "{x: {format: miracl, folder: a, trained: true}}": "does not go with miracl",
    }.items(),
)
def test_each_mistake_about_a_benchmark_is_one_line(load, evaluate, said):
    """The name of the benchmark, what is wrong and what was expected."""
    with pytest.raises(BadParameter) as error:
        load(f"evaluate: {{benchmarks: {evaluate}}}")
    assert said in str(error.value) and "\n" not in str(error.value)


def test_the_reports_benchmark_is_one_that_is_evaluated(load):
    """Said before anything runs."""
    with pytest.raises(BadParameter, match="analyse.benchmark: 'nix' is not evaluated .*heldout"):
        load("analyse: {benchmark: nix}")


def test_a_change_takes_the_place_of_what_the_file_says(tmp_path):
    """`stage.parameter=value` is read as YAML; what is not a parameter is refused in one line."""
    file = tmp_path / "s.yaml"
    file.write_text("prepare: {fold: 1}\nvary: {train.seed: [0, 1]}\n")
    changes = ["prepare.fold=2", "train.learning_rate=1e-4", "prepare.languages=[no]"]
    study = grid.load_study(file, changes)
    assert study.corpora["base"].fold == 2
    assert study.corpora["base"].languages == ["no"]
    assert {run.train.learning_rate for run in study.runs.values()} == {1e-4}
    for change, words in {
        "fold=2": "cannot be set",
        "prepare.fold": "cannot be set",
        "prepare.flod=2": "did you mean fold",
        "prepare.fold=two": "expected a whole number",
        "prepare.fold=[": "not a YAML value",
        "prepare.run=x": "is set by the study itself",
        "train.seed=7": r"train\.seed: is varied by the study",
    }.items():
        with pytest.raises(BadParameter, match=words):
            grid.load_study(file, [change])


def test_paths_that_are_not_there_are_named_before_anything_runs(load, tmp_path):
    """Files of the pairs, a checkpoint that can only be a folder, the folder of a benchmark; names
    that may be a hub's are left alone, and so is what is there."""
    there = tmp_path / "there.jsonl"
    there.write_text("")
    for text, said in {
        "prepare: {source: pairs, files: {a: nowhere.jsonl}}": "prepare.files[a]: nowhere.jsonl",
        "train: {model: ./nowhere}": "train.model: ./nowhere",
        "evaluate: {benchmarks: {x: {format: beir, folder: nowhere}}}": "benchmarks[x].folder",
    }.items():
        with pytest.raises(BadParameter, match="no such file or folder") as error:
            inputs.check_paths(load(text))
        assert said in str(error.value)
    inputs.check_paths(load("train: {model: organisation/name}"))
    inputs.check_paths(load(f"prepare: {{source: pairs, files: {{a: {there}}}}}"))


def test_a_path_that_is_not_there_names_the_study(tmp_path, capsys):
    """As every other mistake of its file."""
    file = tmp_path / "mine.yaml"
    file.write_text("prepare: {source: pairs, files: {a: nowhere.jsonl}}")
    assert main(["check", str(file)]) == 2
    said = f"{file}: prepare.files[a]: nowhere.jsonl: no such file or folder\n"
    assert capsys.readouterr().err == said


ROWS = {
    "parallel.jsonl": '{"pair": 1, "language": "en", "question": "Q?", "passage": "P."}\n',
    "hub.csv": "anchor,positive\nQ?,P.\n",
    "header.csv": "pair,language,question,passage\n",
    "empty.jsonl": "",
    "rows.xlsx": "",
    "wide.jsonl": b"\xff\xfe{\0}\0",
    "flat.jsonl": '{"id": 1, "question": "Q?"}\n',
}


def own(label, file, more=""):
    """A study of one file of pairs; AT stands for its folder."""
    return f"prepare: {{source: pairs, files: {{{label}: AT/{file}}}{more}}}"


UNUSABLE = {
    own("x", "hub.csv"): "hub.csv: has no column 'pair', 'language', 'question', 'pass",
    own("en", "hub.csv", ", columns: {question: anchor, passage: positive}"): (
        "hub.csv: has no column 'pair' (its columns: anchor, positive"
    ),
    own("x", "header.csv"): "header.csv: has no rows",
    own("x", "empty.jsonl"): "empty.jsonl: has no rows",
    own("x", "rows.xlsx"): "rows.xlsx: is of an unknown kind (expected .jsonl",
    own("x", "wide.jsonl"): "wide.jsonl: row 1: is UTF-16",
    own("x", "folder"): "prepare.files[x]: AT/folder: is not a file (expected one)",
    "prepare: {source: squad, files: {en: AT/flat.jsonl}}": "flat.jsonl: row 1: has no col",
    "prepare: {source: squad, files: {en: AT/hub.csv}, languages: [de]}": "no file of language",
    "prepare: {source: bitext, files: {en: AT/hub.csv}}": "hub.csv: is a table by its name",
    "prepare: {source: mmarco, folder: 'AT/folder'}": "folder has: none",
    "prepare: {source: mmarco, languages: [ko]}": "mMARCO has no ko",
    "prepare: {source: xtreme_squad, folder: 'AT/folder'}": "folder: has no file of language en",
    "prepare: {source: xtreme_squad, folder: 'AT/hub.csv'}": "hub.csv: is not a folder",
    "prepare: {source: xtreme_squad, languages: [en, fr]}": "XTREME's SQuAD has no fr",
    "prepare: {source: translate, files: {en: AT/hub.csv}, languages: [de], translator: a/b}": (
        "model 'a/b' is no folder here"
    ),
    "train: {model: owner/name}": "train.model: model 'owner/name' is no folder here",
    "train: {model: 'AT/hub.csv'}": "train.model: AT/hub.csv: is not a folder",
    "train: {model: 'AT/folder'}": "folder' has no config.json",
    "train: {model: 'AT/pickled'}": "has no *.safetensors (weights as pickle are not read)",
    "train: {model: 'AT/cls', pooling: mean}": "has pooling 'cls', train.pooling is 'mean' (exp",
}


@pytest.fixture
def folder(tmp_path):
    """A folder of files and checkpoints, most of which will not do."""
    for name, content in ROWS.items():
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    for name in ("folder", "pickled", "cls"):
        (tmp_path / name).mkdir()
    for name in ("pickled", "cls"):
        (tmp_path / name / "config.json").write_text("{}")
    (tmp_path / "pickled/pytorch_model.bin").write_text("")
    (tmp_path / "cls/model.safetensors").write_text("")
    (tmp_path / "cls/tokenizer.json").write_text("{}")
    (tmp_path / "cls/encoder.json").write_text('{"pooling": "cls"}')
    return tmp_path


@pytest.mark.parametrize("text", UNUSABLE)
def test_what_cannot_be_used_is_said_before_anything_runs(folder, text):
    """As far as names, first rows and a checkpoint's configuration tell it, in one line."""
    file = folder / "s.yaml"
    file.write_text(text.replace("AT", str(folder)))
    with pytest.raises(BadParameter) as error:
        grid.startable(file)
    message = str(error.value)
    assert message.startswith(f"{file}: ") and "\n" not in message
    assert UNUSABLE[text].replace("AT", str(folder)) in message


def test_what_can_be_used_starts(folder):
    """Files whose first row has what is needed; a checkpoint that is asked for as it is."""
    for text in (
        own("x", "parallel.jsonl") + "\ntrain: {batch_size: 2}",
        own("en", "hub.csv", ", parallel: false, columns: {question: anchor, passage: "
                     "positive}") + "\ntrain: {strategy: mono, batch_size: 2}",
        "train: {model: 'AT/cls', pooling: cls}",
        "train: {model: 'AT/cls'}",
        f"train: {{model: owner/name@{'01' * 20}}}",
    ):  # fmt: skip
        (folder / "s.yaml").write_text(text.replace("AT", str(folder)))
        grid.startable(folder / "s.yaml")


def test_arms_that_need_translations_are_named(load):
    """Where the corpus is made without; an untrained encoder needs none."""
    own = "prepare: {source: pairs, files: {en: x.jsonl}, parallel: false}\n"
    arms = "vary: {train.strategy: [mono, x-x, en-en]}"
    assert len(load(own + arms).runs) == 3
    load(own + "train: {strategy: mix, alpha: 1.0}")
    load(own + "train: {steps: 0}")
    for arm, name in (("cross", "cross"), ("cross-fixed", "cross-fixed"), ("mix", "mix(0.5)")):
        with pytest.raises(BadParameter, match=re.escape(f"train.strategy: {name} needs transl")):
            load(own + f"train: {{strategy: {arm}}}")
    with pytest.raises(BadParameter, match="parallel: false does not go with source 'cldr'"):
        load("prepare: {parallel: false}\ntrain: {strategy: mono}")
    with pytest.raises(BadParameter, match="columns: 'anchor' .* source 'pairs' .*pair, language"):
        load("prepare: {source: pairs, files: {en: x}, columns: {anchor: question}}")


def test_texts_hold_the_labels_of_a_run(load):
    """`{axis}` is the label of that axis; other braces and values of other kinds stay."""
    study = load(
        "train: {model: 'a/{seed}/{arm}', question_prompt: '{x} {arm'}\n"
        "vary: {arm: {one: {train.alpha: 0.1}, two: {train.alpha: 0.2}},"
        " seed: {3: {train.seed: 3}, 4: {train.seed: 4}}}"
    )
    found = [run.train.model for run in study.runs.values()]
    assert found == ["a/3/one", "a/4/one", "a/3/two", "a/4/two"]
    assert {run.train.question_prompt for run in study.runs.values()} == {"{x} {arm"}


def test_what_every_run_has_from_an_axis_cannot_be_set(tmp_path):
    """Else the value given would be passed over in silence; what some settings name stays there."""
    file = tmp_path / "s.yaml"
    file.write_text(
        "vary: {arm: {a: {train.strategy: mix}, b: {train.strategy: mono},"
        " zero: {train.strategy: cross, train.steps: 0}}, train.width: [8, 16]}"
    )
    for change in ("train.strategy=x-x", "train.width=4"):
        with pytest.raises(BadParameter, match="is varied by the study"):
            grid.load_study(file, [change])
    found = grid.load_study(file, ["train.seed=7", "train.steps=3"]).runs
    assert {run.train.seed for run in found.values()} == {7}
    assert {key.split(",")[0]: run.train.steps for key, run in found.items()} == {
        "arm=a": 3, "arm=b": 3, "arm=zero": 0
    }  # fmt: skip


def test_a_parameter_that_came_later_leaves_kept_runs_what_they_are(monkeypatch):
    """At the value that changes nothing it is no part of the work, at any other it is."""
    known = Train(steps=3).of_the_work()
    assert "seed" in known and not {*known} & {"study", "run", "corpus", "chunk"}
    monkeypatch.setattr(Train, "came_later", Train.came_later | {"layers": 1})
    assert Train(steps=3).of_the_work() == {n: v for n, v in known.items() if n != "layers"}
    assert Train(steps=3, layers=2).of_the_work() == known | {"layers": 2}
