"""The sampler as others take it: on a plain data set, with an evaluation set, from the wheel.

Batches are read where they count, as in test_sentence_transformers: at the loss, text by text.
"""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_sentence_transformers import BATCH, LANGUAGES, PAIRS, Run, save_model, together

from lib.sampler import PairIndex, Schedule
from lib.store import ROOT

STEPS, OPTIONS = 5, {"batch_size": BATCH, "steps": 5, "seed": 1}
SIDES = {"question": "ask", "passage": "answer", "language": "tongue"}


def parallel():
    """A data set of 40 facts in three languages, rows in no order, two facts a page."""
    from datasets import Dataset

    places = np.random.default_rng(0).permutation(PAIRS * len(LANGUAGES))
    facts = [(int(x) // 3, LANGUAGES[x % 3]) for x in places]
    return Dataset.from_list(
        [
            {"page": p // 2, "ask": f"q{p:02}{x}", "tongue": x, "answer": f"a{p:02}{x}", "fact": p}
            for p, x in facts
        ]
    )


def apart():
    """Each fact in one language only."""
    rows = parallel()
    return rows.filter(lambda row: row["tongue"] == LANGUAGES[row["fact"] % 3])


def scheduled_rows(rows, strategy, **columns):
    """What the trainer gets."""
    from lib.bridges.pairs import Pairs
    from lib.bridges.sentence_transformers import scheduled

    pairs = Pairs.from_dataset(rows, **SIDES, **columns)
    return scheduled(pairs, Schedule(pairs.index, strategy, **OPTIONS))


def spelt_out(rows, strategy, pair=None, group=None):
    """Texts [step][column] of an epoch, from a table of which fact is in which language."""
    numbers = range(len(rows)) if pair is None else rows[pair][:]
    facts = list(dict.fromkeys(numbers))
    place = {(facts.index(n), row["tongue"]): row for n, row in zip(numbers, rows, strict=True)}
    present = [[(i, x) in place for x in LANGUAGES] for i in range(len(facts))]
    pages = {facts.index(n): row[group or "fact"] for n, row in zip(numbers, rows, strict=True)}
    groups = [pages[i] for i in range(len(facts))]
    index = PairIndex.from_present(LANGUAGES, np.array(present), np.array(groups))
    found = []
    for batch in Schedule(replace(index, alone=pair is None), strategy, **OPTIONS):
        sides = [("ask", batch.question_language), ("answer", batch.passage_language)]
        found.append(
            [
                [place[i, LANGUAGES[x]][side] for i, x in zip(batch.pair, spoken, strict=True)]
                for side, spoken in sides
            ]
        )
    return found


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save_model(folder / "plain")
    return folder / "plain"


# ---- one process ----


@pytest.mark.parametrize("strategy", ["hybrid", "cross", "mix"])
def test_translations_are_batched_as_scheduled(model, tmp_path, strategy):
    """Two epochs, both the schedule; no page twice in a batch."""
    rows = parallel()
    columns = {"pair": "fact", "group": "page"}
    given = scheduled_rows(rows, strategy, **columns)
    seen = Run(model, tmp_path, rows=given, num_train_epochs=2).train().seen
    assert seen == 2 * spelt_out(rows, strategy, **columns)
    assert all(len({int(text[1:3]) // 2 for text in asked}) == BATCH for asked, _ in seen)
    crossed = [q[3:] != a[3:] for asked, answered in seen
               for q, a in zip(asked, answered, strict=True)]  # fmt: skip
    assert any(crossed) and all(crossed) == (strategy == "cross")


@pytest.mark.parametrize("strategy", ["mono", "x-x"])
def test_data_that_is_not_parallel(model, tmp_path, strategy):
    """One language a batch, or many; each question with its own passage."""
    rows = apart()
    assert len(rows) == PAIRS
    seen = Run(model, tmp_path, rows=scheduled_rows(rows, strategy)).train().seen
    assert seen == spelt_out(rows, strategy)
    assert all([q[1:] for q in asked] == [a[1:] for a in answered] for asked, answered in seen)
    assert all((len({q[3:] for q in asked}) == 1) == (strategy == "mono") for asked, _ in seen)


def test_an_evaluation_set_is_read_in_its_own_order(model, tmp_path):
    """Beside the schedule, which it does not disturb; one line says so."""
    rows = parallel()
    dev = rows.select_columns(["ask", "answer"]).select(range(21))
    given = scheduled_rows(rows, "hybrid", pair="fact", group="page")
    beside = {"eval_dataset": dev, "eval_strategy": "epoch", "per_device_eval_batch_size": 4}
    run = Run(model, tmp_path, rows=given, **beside)
    with pytest.warns(UserWarning, match="fit for evaluation, not for training"):
        run.train()
    assert run.seen == spelt_out(rows, "hybrid", pair="fact", group="page")
    assert [len(asked) for asked, _ in run.judged] == [4, 4, 4, 4, 4, 1]
    assert [q for asked, _ in run.judged for q in asked] == dev["ask"][:]
    assert [a for _, answered in run.judged for a in answered] == dev["answer"][:]
    assert run.trainer.state.log_history[-2]["eval_loss"] > 0


def test_what_that_librarys_own_samplers_do():
    """docs/batch-sampler.md on ROUND_ROBIN and PROPORTIONAL, one data set a language."""
    from sentence_transformers.base import sampler
    from torch.utils.data import ConcatDataset, SequentialSampler

    sizes = {"de": 8, "en": 24}
    data = ConcatDataset([[(name, i) for i in range(size)] for name, size in sizes.items()])
    own = [sampler.DefaultBatchSampler(SequentialSampler(d), 4, False) for d in data.datasets]

    def languages(kind):
        batches = kind(dataset=data, batch_samplers=own, generator=None, seed=0)
        return [{data[i][0] for i in batch} for batch in batches]

    equal = languages(sampler.RoundRobinBatchSampler)
    assert equal == 2 * [{"de"}, {"en"}]  # 16 of 24 English rows are left
    by_size = languages(sampler.ProportionalBatchSampler)
    assert Counter(map(min, by_size)) == {"de": 2, "en": 6} and all(len(x) == 1 for x in by_size)


# ---- two processes ----


def main(folder: Path) -> None:
    """One rank of two: what it saw and what it evaluated, into a file of its own."""
    rows = parallel()
    given = scheduled_rows(rows, "hybrid", pair="fact", group="page")
    dev = rows.select_columns(["ask", "answer"]).select(range(20))
    beside = {"eval_dataset": dev, "eval_strategy": "epoch", "per_device_eval_batch_size": 5}
    run = Run(folder / "plain", folder / "out", 2, rows=given, num_train_epochs=2, **beside).train()
    alone = Run(folder / "plain", folder / "out", 2, rows=scheduled_rows(apart(), "mono")).train()
    found = {"hybrid": (run.seen, run.judged), "mono": (alone.seen, [])}
    (folder / f"{os.environ['RANK']}.json").write_text(json.dumps(found))


def test_two_processes(model, tmp_path):
    """Each step's batch is the schedule's, half of it on each rank, in every epoch; the evaluation
    set is shared out; data that is not parallel works as well."""
    shutil.copytree(model, tmp_path / "plain")
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    surroundings = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *launch, __file__, str(tmp_path)],
        capture_output=True,
        text=True,
        env=os.environ | surroundings | {"TOKENIZERS_PARALLELISM": "false"},
    )
    assert done.returncode == 0, done.stderr
    ranks = [json.loads((tmp_path / f"{i}.json").read_text()) for i in range(2)]
    assert together(ranks, "hybrid") == 2 * spelt_out(parallel(), "hybrid", "fact", "page")
    assert together(ranks, "mono") == spelt_out(apart(), "mono")
    for rank in ranks:
        assert [len(asked) for asked, _ in rank["hybrid"][1]] == 4 * [5]
    judged = [q for rank in ranks for asked, _ in rank["hybrid"][1] for q in asked]
    assert sorted(judged) == sorted(2 * parallel()["ask"][:20])


# ---- installed elsewhere ----

# What importing the sampler must not bring along, and what its bridge must not.
STUDY = "babel duckdb matplotlib nbformat papermill pydantic scipy seaborn snakemake".split()
HEAVY = ["torch", "datasets", "pyarrow", "pandas", *STUDY]

SCRIPT = """
import json, sys
import batch_composition.sampler
found = [[name for name in {heavy} + ["lib"] if name in sys.modules]]
import batch_composition.bridges.sentence_transformers
found += [[name for name in {study} + ["lib", "transformers"] if name in sys.modules]]
from datasets import Dataset
from sentence_transformers import SentenceTransformer
model = SentenceTransformer({model!r}, device="cpu")
rows = Dataset.from_list([
    {{"anchor": f"q{{p}}{{x}}", "positive": f"a{{p}}{{x}}", "language": x, "pair": p}}
    for p in range(70) for x in ("de", "en")])
dev = rows.select_columns(["anchor", "positive"]).select(range(8))
{snippet}
found += [SentenceTransformerTrainer.__name__, schedule.batch(1).kind, batch_composition.__file__]
found += ["lib" in sys.modules]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with what the wheel holds."""
    place = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, place)
    shutil.copytree(ROOT / "lib", place / "lib", ignore=shutil.ignore_patterns("__pycache__"))
    quiet = ["-q", "--disable-pip-version-check", "--no-index", "--no-deps"]
    build = [sys.executable, "-m", "pip", "wheel", *quiet, "--no-build-isolation"]
    done = subprocess.run(
        [*build, "-w", str(place), str(place)], cwd=place, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    [wheel] = place.glob("*.whl")
    shutil.unpack_archive(wheel, place / "site", "zip")
    return place / "site"


def test_the_wheel_holds_the_sampler_alone(installed):
    """Under a name of its own, typed, with numpy as the one requirement."""
    files = {f.relative_to(installed).as_posix() for f in installed.rglob("*") if f.is_file()}
    code = {name for name in files if ".dist-info/" not in name}
    names = "__init__.py py.typed sampler.py bridges/__init__.py bridges/pairs.py"
    names += " bridges/sentence_transformers.py"
    assert code == {f"batch_composition/{name}" for name in names.split()}
    [about] = installed.glob("*.dist-info/METADATA")
    needs = re.findall(r"^Requires-Dist: (.*)$", about.read_text(), re.M)
    assert [need for need in needs if "extra ==" not in need] == ["numpy>=2"]


def test_the_page_is_ten_statements(installed, model, tmp_path):
    """They train, from the wheel; imports are light, and `lib` is never one of them."""
    page = (ROOT / "docs/batch-sampler.md").read_text(encoding="utf-8")
    [snippet] = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    assert len(ast.parse(snippet).body) <= 10
    short = snippet.replace("steps=1000", "steps=2").replace('"out"', '"out", report_to="none"')
    assert short.count("steps=2") == short.count("report_to") == 1
    script = SCRIPT.format(heavy=HEAVY, study=STUDY, model=str(model), snippet=short)
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    first, second, *_, place, own = json.loads(done.stdout.splitlines()[-1])
    assert first == second == [] and own is False
    assert Path(place).is_relative_to(installed)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
