"""Several processes do what one does: gradients, batches, files, resuming, and failing."""

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time

import kill_trainer
import numpy as np
import pytest
import torch
from kill_trainer import PARAMS
from safetensors.torch import load_file, save_file
from test_large_batches import differ
from test_trainer import results, start, stop_after
from torch import distributed

from lib import store, trainer
from lib.corpus import ParallelCorpus
from lib.params import Train
from lib.trainer import Diverged, train
from lib.training import ranks
from lib.training.determinism import dropout_seed
from lib.training.record import TrainResult

CASES = [
    {"negatives": "in_batch", "explicit": 0, "temperature": 0.05},
    {"negatives": "in_batch", "explicit": 0, "symmetric": True},
    {"negatives": "in_language", "explicit": 0, "strategy": "mix", "chunk": 5},
    {"negatives": "in_batch", "explicit": 0, "most_negatives": 5, "strategy": "hybrid-pair"},
    {"negatives": "in_language", "explicit": 0, "most_negatives": 2, "strategy": "mix"},
    {"negatives": "in_batch", "explicit": 0, "objective": "lakda", "chunk": 5},
    {"negatives": "both", "objective": "xlco", "objective_weight": 0.3, "strategy": "mix"},
    {"negatives": "in_language", "explicit": 0, "objective": "distil", "strategy": "mono"},
    {"negatives": "explicit", "chunk": 5},
    {"negatives": "both", "symmetric": True, "chunk": 1},
]


def params(**changes):
    """Two layers, 12 rows a batch, no dropout: the masks of two ranks are not those of one."""
    values = PARAMS.model_dump() | {"layers": 2, "dropout": 0.0, "batch_size": 12} | changes
    return Train(**values)


# --- the same gradients ------------------------------------------------------------------------


def gradients(number, count, corpus_folder, place):
    """Write loss and gradients of one batch in each case, in float64, as one rank finds them; and
    those of the last case before they are added up."""
    distributed.init_process_group(
        "gloo", init_method=f"file://{place}/meet-{count}", rank=number, world_size=count
    )
    corpus, found = ParallelCorpus.load(corpus_folder), {}
    for case, changes in enumerate(CASES):
        run = trainer.Training(corpus, params(**changes), place / "none", {})
        run.encoder.double()
        loss = run.loss(run.schedule.batch(1))
        loss.backward()
        weights = dict(run.encoder.named_parameters())
        own = {f"own {name}": p.grad.clone() for name, p in weights.items()}
        ranks.add_up(weights.values())
        found |= {f"{case} {name}": p.grad for name, p in weights.items()}
        found[f"{case} loss"] = loss.detach()
    save_file(found | own, place / f"{count}-{number}.safetensors")


@pytest.fixture(scope="module")
def found(corpus, tmp_path_factory):
    """What `gradients` wrote: by number of ranks and rank."""
    place = tmp_path_factory.mktemp("gradients")
    members = [(number, count) for count in (1, 2, 3) for number in range(count)]
    for process in [start(gradients, *member, corpus.folder, place) for member in members]:
        process.join()
    return {
        (count, number): load_file(place / f"{count}-{number}.safetensors")
        for number, count in members
    }


def case_of(found, case):
    """Loss and gradients by name."""
    own = {k.partition(" ")[2]: v for k, v in found.items() if k.startswith(f"{case} ")}
    return own.pop("loss").item(), own


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("case", range(len(CASES)))
def test_ranks_have_the_gradients_of_one(found, case, count):
    """Loss and every gradient in float64; on all ranks the same bits, so their weights agree."""
    one, first = case_of(found[1, 0], case), case_of(found[count, 0], case)
    assert differ(first, one) < 1e-10
    for number in range(1, count):
        other = case_of(found[count, number], case)
        assert other[0] == first[0]
        assert all(torch.equal(other[1][name], first[1][name]) for name in first[1])


def test_each_rank_has_but_a_part_of_the_gradient(found):
    """Else the sum over ranks would be too large, and what the test above compares no sum."""
    own = {k: v for k, v in found[2, 0].items() if k.startswith("own ")}
    whole = {k: v for k, v in found[1, 0].items() if k.startswith("own ")}
    assert differ((1.0, own), (1.0, whole)) > 1e-2


def test_ranks_drop_out_other_units():
    """Step and rank decide; the first rank's seeds are those of a run without ranks."""
    seeds = [dropout_seed(7, step, rank) for step in range(50) for rank in range(4)]
    assert len(set(seeds)) == 200
    alone = np.random.SeedSequence([7, 3]).generate_state(1, np.uint64)[0] >> 1
    assert dropout_seed(7, 3, 0) == alone


# --- the same run ------------------------------------------------------------------------------


def alike(one, other):
    """Whether two runs of the same steps differ in no more than rounding."""
    close = [
        np.allclose(one.log[name], other.log[name], rtol=1e-3) for name in ("loss", "gradient_norm")
    ]
    batches = (one.log["batch"] == other.log["batch"]).all()
    return all(close) and batches and one.exposure == other.exposure


def test_launched_run_is_that_of_one_process(corpus, tmp_path, capfd):
    """As a notebook starts it: losses, norms, exposure with its tokens; one rank talks."""
    one = train(corpus, params(), tmp_path / "1")
    capfd.readouterr()
    two = train(corpus, params(ranks=2), tmp_path / "2")
    assert alike(one, two)
    assert two.cost["tokens"] == one.cost["tokens"]
    assert 0 <= two.cost["padded_share"] <= 0.1 / 1.1
    lines = capfd.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == [f"{step}/12" for step in range(1, 13)]
    kept = sorted(path.name for path in (tmp_path / "2" / "checkpoints").iterdir())
    assert kept == ["step-000006", "step-000009"]


def test_launched_by_torchrun(corpus, tmp_path, fast):
    """A script of one's own, in two processes: the bits of two ranks."""
    train(corpus, PARAMS.model_copy(update={"ranks": 2}), tmp_path / "ranks")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    script = [*launch, kill_trainer.__file__, corpus.folder, tmp_path / "torchrun"]
    done = subprocess.run(script, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert results(tmp_path / "torchrun") == results(tmp_path / "ranks")
    assert done.stdout.count("step 12/12") == 1


def test_goes_on_with_another_number_of_ranks(corpus, tmp_path, fast):
    """From 1 to 3 and from 2 to 1, after a stop: the run that nobody stopped, up to rounding."""
    whole = train(corpus, params(), tmp_path / "whole")
    stop_after(corpus, tmp_path / "up", 8, params())
    assert alike(train(corpus, params(ranks=3), tmp_path / "up"), whole)
    killed(corpus, params(ranks=2), tmp_path / "down")
    assert alike(train(corpus, params(), tmp_path / "down"), whole)


def test_two_ranks_have_the_branches_of_one(corpus, tmp_path, fast):
    """Every budget up to rounding, also where one process was stopped in a branch and two go on."""
    values = {"schedule": "wsd", "budgets": [8, 12], "decay": 0.5, "warmup_steps": 2}
    own = Train(**params().model_dump() | values)
    two = own.model_copy(update={"ranks": 2})
    train(corpus, own, tmp_path / "1")
    train(corpus, two, tmp_path / "2")
    stop_after(corpus, tmp_path / "3", 7, own)
    assert (tmp_path / "3/budgets/8/checkpoints/step-000006").is_dir()
    train(corpus, two, tmp_path / "3")
    for part in ("", "budgets/8"):
        runs = [TrainResult.read(tmp_path / n / part) for n in "123"]
        assert alike(runs[1], runs[0]) and alike(runs[2], runs[0])


def killed(corpus, params, folder, victim=0, dev=None):
    """Train until the first checkpoint is there, then SIGKILL one rank; the error's message."""
    first = folder / "checkpoints" / f"step-{params.checkpoint_every:06d}"

    def kill():
        while not first.is_dir():
            time.sleep(0.001)
        ranks = sorted(multiprocessing.active_children(), key=lambda process: process.pid)
        os.kill(ranks[victim].pid, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    with pytest.raises(RuntimeError) as caught:
        train(corpus, params, folder, dev)
    thread.join()
    return str(caught.value)


@pytest.mark.parametrize("victim", [0, 1])
def test_killed_rank_ends_all_and_costs_nothing(corpus, tmp_path, fast, victim):
    """One line that says so, no process left, and then the bits of a run that nobody killed; with
    dropout, which is each rank's own."""
    asked = params(ranks=2, dropout=0.2)
    train(corpus, asked, tmp_path / "whole")
    message = killed(corpus, asked, tmp_path / "half", victim)
    assert message.startswith(f"rank {victim} of 2 was killed") and "\n" not in message
    assert not multiprocessing.active_children()
    train(corpus, asked, tmp_path / "half")
    assert results(tmp_path / "half") == results(tmp_path / "whole")


# --- failing -----------------------------------------------------------------------------------


def test_error_of_a_rank_is_the_error(corpus, tmp_path, fast):
    """The type and the line that one process would raise."""
    asked = params(ranks=2, learning_rate=1e30)
    with pytest.raises(Diverged, match=r"step \d, seed 0: loss nan") as caught:
        train(corpus, asked, tmp_path)
    assert "\n" not in str(caught.value)
    assert not multiprocessing.active_children()


def fails(number):
    """Raises on one rank; others wait for it."""
    if ranks.rank() == number:
        raise KeyError("own fault")
    ranks.collected(None)


@pytest.mark.parametrize("number", [0, 1])
def test_ranks_that_wait_for_a_failed_one_are_not_blamed(number, fast):
    """Theirs is but a lost connection."""
    with pytest.raises(KeyError, match="own fault"):
        ranks.start(2, "cpu", fails, number)


def test_an_error_half_written_is_no_error(tmp_path):
    """As the end of a process leaves it that was writing: the others' errors count."""
    (tmp_path / ".error-0.abcd.tmp").write_bytes(b"")
    with store.atomic_file(tmp_path / "error-1") as file:
        file.write_bytes(pickle.dumps(KeyError("own fault")))
    assert isinstance(ranks._cause([], tmp_path), KeyError)


def test_too_few_gpus():
    """Counted before anything starts."""
    count = torch.cuda.device_count() + 1
    with pytest.raises(ValueError, match=f"ranks is {count}, but there are {count - 1} GPUs here"):
        ranks.start(count, "cuda", fails, 0)


def test_batches_must_have_equal_parts():
    """Said when parameters are read."""
    with pytest.raises(ValueError, match="ranks: 5 does not divide the batch_size 12"):
        params(ranks=5)
