"""On a GPU: the losses of a CPU, the same bits again, bf16, compiling, chunks, and the costs."""

import math
import multiprocessing
import os
import subprocess
import sys

import kill_trainer
import numpy as np
import pytest
import torch
from kill_trainer import PARAMS
from test_large_batches import differ
from test_trainer import results, stop_after, toy_rows
from torch import distributed

from lib import search, store, trainer
from lib.benchmarks import heldout
from lib.corpus import ParallelCorpus
from lib.encoder import on_device
from lib.losses import columns
from lib.sources.assemble import corpus_of_rows
from lib.trainer import Diverged, train
from lib.training import ranks
from lib.training.determinism import reproducible
from lib.training.models import build_encoder
from lib.training.packing import embed
from lib.training.tokenizer import train_tokenizer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU here")
ON_GPU = PARAMS.model_copy(update={"device": "cuda"})


def params(device="cuda", **changes):
    """Two layers and no dropout, whose masks are other ones on a GPU."""
    values = {"layers": 2, "width": 32, "dropout": 0.0, "device": device}
    return PARAMS.model_copy(update=values | changes)


@pytest.fixture(scope="module")
def finished(corpus, tmp_path_factory):
    """The folder of a run on the GPU that nobody disturbed; with dropout."""
    folder = tmp_path_factory.mktemp("finished")
    train(corpus, ON_GPU, folder)
    return folder


# --- the numbers of a CPU ----------------------------------------------------------------------


def gradients(corpus, folder, asked):
    """Loss of a batch and the gradient of every parameter, on the CPU."""
    with reproducible(1, asked.device):
        run = trainer.Training(corpus, asked, folder, {})
        torch.manual_seed(0)
        loss = run.loss(run.schedule.batch(1))
        loss.backward()
        assert loss.dtype == torch.float32 and loss.device.type == asked.device
        return loss.item(), {name: p.grad.cpu() for name, p in run.encoder.named_parameters()}


def norm(tensors):
    """Of all together."""
    return float(torch.stack([x.double().norm() for x in tensors.values()]).norm())


def apart(one, other):
    """How far gradients lie from each other, as a share of the length of `other`."""
    return norm({name: one[name] - other[name] for name in other}) / norm(other)


@pytest.mark.parametrize("chunk", [0, 5])
def test_gradients_are_those_of_a_cpu(corpus, tmp_path, chunk):
    """fp32 without TF32: both add up in their own order; so do whole batches and chunks."""
    loss, exact = gradients(corpus, tmp_path, params("cpu"))
    other, found = gradients(corpus, tmp_path, params(chunk=chunk))
    assert other == pytest.approx(loss, rel=1e-5)
    assert apart(found, exact) < 1e-4


@pytest.mark.parametrize("chunk", [0, 5])
def test_bf16_is_within_its_rounding(corpus, tmp_path, chunk):
    """As tests/test_precision.py says it for a CPU: the loss within 1e-3 of itself; the gradient
    within 1/128 of its norm, since attention is another kernel."""
    loss, exact = gradients(corpus, tmp_path, params(chunk=chunk))
    other, found = gradients(corpus, tmp_path, params(chunk=chunk, precision="bf16"))
    assert other != loss and other == pytest.approx(loss, rel=1e-3)
    assert {gradient.dtype for gradient in found.values()} == {torch.float32}
    assert apart(found, exact) < 1 / 128


def test_chunks_have_the_gradient_of_the_batch_in_float64(corpus):
    """With dropout off, every parameter; and the same dropout twice, else runs would not agree."""
    small = build_encoder(params(max_length=16), corpus.tokenizer_file).double().cuda().train()
    lists = list(np.random.default_rng(0).integers(5, 100, (24, 12), np.int32))
    lists = [tokens[: 3 + i % 9] for i, tokens in enumerate(lists)]
    found = []
    for chunk in (0, 1, 7):
        small.zero_grad()
        loss = trainer.info_nce(*embed(small, lists, chunk).split(12), 0.05)
        loss.backward()
        found.append((loss.item(), {n: p.grad.clone() for n, p in small.named_parameters()}))
    assert differ(found[1], found[0]) < 1e-9 and differ(found[2], found[0]) < 1e-9


def test_chunks_drop_out_the_same_units_twice(corpus, monkeypatch):
    """Against the same chunks in one graph, which draw their masks once; float64."""
    values = {"max_length": 16, "dropout": 0.3}
    small = build_encoder(params(**values), corpus.tokenizer_file).double().cuda().train()
    lists, found = list(np.random.default_rng(0).integers(5, 100, (8, 12), np.int32)), []
    for forward in (None, lambda encoder, *given: encoder(*given)):
        if forward:
            monkeypatch.setattr("lib.training.packing._twice", forward)
        small.zero_grad()
        torch.manual_seed(5)
        vectors = embed(small, lists, 3)
        torch.rand(7, device="cuda")  # whatever else draws between the two forwards
        loss = vectors.pow(3).sum()
        loss.backward()
        found.append((loss.item(), {n: p.grad.clone() for n, p in small.named_parameters()}))
    assert differ(*found) < 1e-9


@pytest.mark.parametrize("most", [0, 3])
def test_a_loss_leaves_out_what_it_does_on_a_cpu(most):
    """By kernels that are deterministic."""
    language = torch.randint(0, 3, (40,), generator=torch.Generator().manual_seed(0))
    with reproducible(1, "cuda"):
        kept = columns(language.cuda(), most)
    assert torch.equal(kept.cpu(), columns(language, most))


def test_a_run_ends_near_that_of_a_cpu(corpus, tmp_path):
    """Losses of all 12 steps within 1 %, the batches the same, and exposure but for padding."""
    runs = [train(corpus, params(device), tmp_path / device) for device in ("cpu", "cuda")]
    assert (runs[0].log["batch"] == runs[1].log["batch"]).all()
    assert np.allclose(runs[0].log["loss"], runs[1].log["loss"], rtol=1e-2)
    assert np.allclose(runs[0].log["loss"][:2], runs[1].log["loss"][:2], rtol=1e-4)
    assert runs[0].exposure == runs[1].exposure


def test_a_compiled_model_has_the_plain_loss(corpus, tmp_path):
    """By inductor, in bf16, of which it rounds less."""
    asked = params(precision="bf16", layers=1)
    loss, exact = gradients(corpus, tmp_path, asked)
    compiled = asked.model_copy(update={"compile": True})
    other, found = gradients(corpus, tmp_path, compiled)
    assert other == pytest.approx(loss, rel=1e-3)
    assert apart(found, exact) < 1 / 64


# --- the same bits -----------------------------------------------------------------------------


def test_the_same_bits_again(corpus, finished, tmp_path):
    """Also in another interpreter; and another seed has others."""
    train(corpus, ON_GPU, tmp_path / "again")
    assert results(tmp_path / "again") == results(finished)
    train(corpus, ON_GPU.model_copy(update={"seed": 1}), tmp_path / "other")
    model = "model/model.safetensors"
    assert results(tmp_path / "other")[model] != results(finished)[model]


@pytest.mark.parametrize("changes", [{}, {"chunk": 5}, {"precision": "bf16"}])
def test_stopped_and_resumed_to_the_same_bits(corpus, tmp_path, changes):
    """After step 8, from the checkpoint of step 6; with dropout."""
    asked = ON_GPU.model_copy(update=changes)
    train(corpus, asked, tmp_path / "whole")
    stop_after(corpus, tmp_path / "half", 8, asked)
    train(corpus, asked, tmp_path / "half")
    assert results(tmp_path / "half") == results(tmp_path / "whole")


def killed_run(corpus_folder, out):
    """Train until killed at the fifth file of tensors: in the writing of the third checkpoint."""
    kill_trainer._die_at(*kill_trainer.POINTS["save_file"], 5)
    train(ParallelCorpus.load(corpus_folder), ON_GPU, out)


def test_killed_and_resumed_to_the_same_bits(corpus, finished, tmp_path):
    """SIGKILL within a checkpoint's writing; a process of its own, hence a CUDA context too."""
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=killed_run, args=(corpus.folder, tmp_path))
    process.start()
    process.join()
    assert process.exitcode == -9 and not (tmp_path / "model").exists()
    train(corpus, ON_GPU, tmp_path)
    assert results(tmp_path) == results(finished)


def test_divergence_names_the_step_though_losses_are_read_late(corpus, tmp_path, monkeypatch):
    """And nothing of it is written."""
    original = trainer.info_nce
    monkeypatch.setattr(trainer, "info_nce", lambda *a, **k: original(*a, **k) * math.nan)
    with pytest.raises(Diverged, match="step 0, seed 0: loss nan"):
        train(corpus, ON_GPU.model_copy(update={"log_every": 50}), tmp_path)
    assert not (tmp_path / "model").exists() and not (tmp_path / "checkpoints").exists()


def test_out_of_memory_says_what_to_lower(corpus, tmp_path, monkeypatch):
    """In the words of the GPU's allocator."""
    large = {"device": "cuda", "dtype": torch.uint8}
    monkeypatch.setattr(trainer, "info_nce", lambda *a, **k: torch.empty(2**46, **large))
    with pytest.raises(MemoryError, match="step 0: out of memory with batch_size=8, chunk=0"):
        train(corpus, ON_GPU, tmp_path)


# --- what it costs -----------------------------------------------------------------------------


def test_cost_has_peaks_and_utilisation(corpus, finished):
    """The GPU's memory and a step's seconds by its own clock; a product as fast as a GPU's."""
    result = train(corpus, ON_GPU, finished)
    cost = result.cost
    assert 0 < cost["peak_gpu_memory_bytes"] < torch.cuda.mem_get_info()[1]
    assert cost["peak_memory_bytes"] > 2**27
    assert (result.log["seconds"] > 0).all() and cost["seconds"] >= result.log["seconds"].sum()
    assert cost["matmul_flops_per_second"] > 1e12
    assert 0 < cost["utilisation"] < 1 and 0 <= cost["padded_share"] < 0.7  # lengths are rounded


def test_arrays_reach_the_gpu_by_pinned_memory(corpus):
    """Copies of many arrays whose own memory is given back at once."""
    arrays = [np.full(100_000, number) for number in range(50)]
    there = [on_device(torch.device("cuda"), array + 0) for array in arrays]
    for array, tensor in zip(arrays, there, strict=True):
        assert tensor.is_cuda and np.array_equal(tensor.cpu().numpy(), array)


# --- encoding and evaluation -------------------------------------------------------------------


def test_vectors_and_ranks_are_those_of_a_cpu(corpus, finished):
    """Vectors within 1e-5, so the exact search gives the same ranks."""
    encoder = trainer.TrainResult.read(finished).encoder
    texts = {side: sorted({*corpus.rows[side][:]}) for side in ("question", "passage")}
    found = {}
    for device in ("cpu", "cuda"):
        encoder.to(device)
        found[device] = {side: encoder.encode(texts[side], side) for side in texts}
    for side, vectors in found["cpu"].items():
        assert np.abs(found["cuda"][side] - vectors).max() < 1e-5
        assert np.array_equal(found["cuda"][side], encoder.encode(texts[side], side))
    orders = []
    for vectors in found.values():
        tiles = search.tiles(vectors["question"], vectors["passage"])
        orders.append(np.concatenate([scores for _, scores in tiles]))
    assert np.abs(orders[0] - orders[1]).max() <= 30  # of a million
    top = [scores.argmax(1) for scores in orders]
    assert (top[0] == top[1]).mean() > 0.99


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    """The toy corpus with ten pairs held out, half of them for validation."""
    rows = [{k: v for k, v in row.items() if k != "negatives"} for row in toy_rows()]
    pool = [{k: row[k] for k in ("passage_id", "language", "passage")} for row in rows]
    folder = tmp_path_factory.mktemp("held out") / "data"
    made = corpus_of_rows(rows[:-30], {"source": "toy", "dev": 0.5}, rows[-30:], pool)
    with store.atomic_folder(folder, made.meta) as new:
        made.save(new)
        train_tokenizer([r["question"] for r in rows], 400).save(str(new / "tokenizer.json"))
    return ParallelCorpus.load(folder)


def test_validation_on_the_way(held_out, tmp_path):
    """Its figures are a CPU's; the run resumes to the same bits with it."""
    changes = {"validate_every": 4, "negatives": "in_batch", "explicit": 0}
    dev, runs = heldout.dev(held_out), {}
    for device in ("cpu", "cuda"):
        runs[device] = train(held_out, params(device, **changes), tmp_path / device, dev)
    maps = [run.validation["map"].to_numpy() for run in runs.values()]
    assert len(maps[0]) == 3 and np.allclose(*maps, atol=0.05)
    stop_after(held_out, tmp_path / "half", 8, params(**changes), dev)
    train(held_out, params(**changes), tmp_path / "half", dev)
    assert results(tmp_path / "half") == results(tmp_path / "cuda")


# --- ranks -------------------------------------------------------------------------------------


def test_more_ranks_than_gpus_are_refused(corpus, tmp_path):
    """In one line, before anything starts."""
    count = torch.cuda.device_count()
    wanted = ON_GPU.model_copy(update={"ranks": count + 1})
    with pytest.raises(ValueError, match=f"ranks is {count + 1}, but there are {count}") as caught:
        train(corpus, wanted, tmp_path)
    assert "\n" not in str(caught.value)


def one_of_nccl(corpus_folder, out):
    """As the only rank: what several say to each other, which one alone would leave out; then a
    run."""
    assert distributed.get_backend() == "nccl"
    part = torch.arange(6.0, device="cuda").view(3, 2).requires_grad_()
    whole = ranks._Gathered.apply(part)
    whole.pow(2).sum().backward()
    assert torch.equal(whole[0], part) and torch.equal(part.grad, 2 * part)
    values = [None]
    distributed.all_gather_object(values, {"newest": "step-000003"})
    assert values == [{"newest": "step-000003"}]
    gradient = torch.ones(5, device="cuda")
    distributed.all_reduce(gradient, async_op=True).wait()
    assert gradient.sum() == 5
    train(ParallelCorpus.load(corpus_folder), ON_GPU, out)


def test_a_group_of_one_over_nccl(corpus, finished, tmp_path):
    """The same bits as without a group."""
    if not distributed.is_nccl_available():
        pytest.skip("this build of torch has no NCCL")
    ranks.start(1, "cuda", one_of_nccl, corpus.folder, tmp_path)
    assert results(tmp_path) == results(finished)


def test_launched_by_torchrun(corpus, finished, tmp_path):
    """A script of one's own, one process a GPU: with one of them the same bits again."""
    if not distributed.is_nccl_available():
        pytest.skip("this build of torch has no NCCL")
    script = tmp_path / "own.py"
    script.write_text(
        "from pathlib import Path\nfrom kill_trainer import PARAMS\n"
        "from lib.corpus import ParallelCorpus\nfrom lib.trainer import train\n"
        f"corpus = ParallelCorpus.load(Path({str(corpus.folder)!r}))\n"
        f"train(corpus, PARAMS.model_copy(update={{'device': 'cuda'}}), "
        f"Path({str(tmp_path / 'out')!r}))\n"
    )
    folders = [str(store.ROOT), str(store.ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1"]
    done = subprocess.run(
        [*launch, str(script)],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(folders)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert results(tmp_path / "out") == results(finished)
