"""The loop: same bits whatever happens, formulas by hand, refusals, and that it learns."""

import errno
import math
import multiprocessing
import os
import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import kill_trainer
import numpy as np
import pandas as pd
import pytest
import torch
from kill_trainer import PARAMS
from safetensors import SafetensorError
from safetensors.torch import load_file

from lib import store, trainer
from lib.corpus import ParallelCorpus
from lib.encoder import Encoder
from lib.params import Train
from lib.sources.assemble import corpus_of_rows
from lib.trainer import Diverged, adamw, learning_rate, train
from lib.training import checkpoints, progress, record, vocabulary
from lib.training.checkpoints import LogRow
from lib.training.determinism import reproducible
from lib.training.export import save_encoder
from lib.training.exposure import exposure, negatives_of
from lib.training.models import build_encoder, load_encoder
from lib.training.optimizer import shrunk
from lib.training.tokenizer import train_tokenizer

PAIRS, LANGUAGES = 40, ("de", "en", "th")


def toy_rows():
    """Questions and passages that share no word: what belongs together must be learned."""

    def word(*key):
        own = random.Random(repr(key))
        return "".join(own.choice("abcdefghijklmnop") for _ in range(6))

    return [
        {
            "pair": f"p{i:02d}",
            "language": language,
            "passage_id": f"p{i:02d}",
            "group": f"p{i:02d}",
            "source": "toy",
            "question": f"{word('ask', language)} {word('q', i, language)}",
            "passage": f"{word('p', i, language)} {word('say', language)} {word('x', i)}",
            "negatives": [f"p{(i + j) % PAIRS:02d}" for j in range(1, 5)],
        }
        for i in range(PAIRS)
        for language in LANGUAGES
    ]


def toy_corpus(folder, rows=None):
    """A toy corpus on the disk, as 01_prepare leaves one."""
    made = corpus_of_rows(rows or toy_rows(), {"source": "toy"})
    with store.atomic_folder(folder, made.meta) as new:
        made.save(new)
        texts = sorted({*made.rows["question"][:], *made.rows["passage"][:]})
        train_tokenizer(texts, 400).save(str(new / "tokenizer.json"))
    return ParallelCorpus.load(folder)


@pytest.fixture(scope="module")
def finished(corpus, tmp_path_factory):
    """The folder of a run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("finished")
    train(corpus, PARAMS, folder)
    return folder


@pytest.fixture
def half(corpus, tmp_path):
    """The folder of a run that was stopped after step 8, with checkpoints of steps 3 and 6."""
    stop_after(corpus, tmp_path, 8)
    return tmp_path


def stop_after(corpus, folder, steps, params=PARAMS, dev=None):
    """Train until just before a step that fails."""
    original = trainer.Training.step

    def step(run):
        if run.state.step == steps:
            raise KeyboardInterrupt
        return original(run)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(trainer.Training, "step", step)
        train(corpus, params, folder, dev)


def results(folder):
    """Bytes of all that must be the same; times and costs are not in it."""
    files = ["train_log.parquet", "exposure.json", "model/model.safetensors", "model/config.json"]
    return {name: (Path(folder) / name).read_bytes() for name in files}


def preloaded():
    """Processes forked from a server that has the imports done."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["kill_trainer"])
    return context


def start(target, *args):
    """A process of its own."""
    process = preloaded().Process(target=target, args=args)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(store.ROOT), str(Path(__file__).parent)]))
        process.start()
    return process


# --- same bits ---------------------------------------------------------------------------------


def test_another_interpreter_gives_the_same_bits(corpus, finished, tmp_path):
    """With another hash seed and after other random numbers."""
    script = [sys.executable, kill_trainer.__file__, corpus.folder, tmp_path]
    subprocess.run(
        script, check=True, env=os.environ | {"PYTHONHASHSEED": "7"}, stdout=subprocess.DEVNULL
    )
    assert results(tmp_path) == results(finished)
    torch.manual_seed(99)
    train(corpus, PARAMS, tmp_path / "again")
    assert results(tmp_path / "again") == results(finished)


def test_another_seed_gives_other_batches_and_weights(corpus, finished, tmp_path):
    """So the comparison of bits above can fail."""
    train(corpus, PARAMS.model_copy(update={"seed": 1}), tmp_path)
    other, own = results(tmp_path), results(finished)
    assert other["model/model.safetensors"] != own["model/model.safetensors"]
    logs = [pd.read_parquet(f / "train_log.parquet") for f in (tmp_path, finished)]
    assert (logs[0]["batch"] != logs[1]["batch"]).all()


# A run of 12 steps writes checkpoints after 3, 6 and 9 (2 tensor files each) and keeps two.
KILLS = [
    ("batch", 1),
    ("batch", 5),
    ("batch", 7),
    ("batch", 12),
    ("save_file", 1),
    ("save_file", 4),
    ("save_file", 5),
    ("fsync", 2),
    ("fsync", 12),
    ("fsync", 21),
    ("rename", 1),
    ("rename", 2),
    ("rename", 4),
    ("rmtree", 4),
]


@pytest.mark.parametrize(("point", "number"), KILLS)
def test_killed_at_a_point_and_resumed(corpus, finished, tmp_path, point, number):
    """SIGKILL before that call, in a checkpoint's writing among others: then the same bits."""
    process = start(kill_trainer.run, corpus.folder, tmp_path, point, number)
    process.join()
    assert process.exitcode == -9
    assert not (tmp_path / "model").exists()
    train(corpus, PARAMS, tmp_path)
    assert results(tmp_path) == results(finished)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == [
        "step-000006",
        "step-000009",
    ]


def test_killed_from_outside_again_and_again(corpus, finished, tmp_path):
    """At moments nobody chose, until a process gets through."""
    moments = random.Random(0)
    for kills in range(100):
        process = start(kill_trainer.run, corpus.folder, tmp_path, "", 0, 0.03)
        process.join(moments.uniform(0.2, 0.4 + kills / 10))
        process.kill()
        process.join()
        if process.exitcode == 0:
            break
    assert kills > 0
    assert results(tmp_path) == results(finished)


def test_a_head_is_resumed_to_the_bit(corpus, finished, tmp_path):
    """A checkpoint with a Dense head: training changes the head, a checkpoint holds its weights and
    moments, and a run that is killed and resumed ends as one that is not."""
    own = load_encoder(finished / "model")
    torch.manual_seed(3)
    head = torch.nn.Sequential(torch.nn.Linear(16, 6), torch.nn.Tanh())
    save_encoder(Encoder(own.model, own.tokenizer, own.settings, head), tmp_path / "headed")
    params = Train(**PARAMS.model_dump() | {"model": str(tmp_path / "headed")})
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train(corpus, params, whole)
    process = start(kill_trainer.run, corpus.folder, killed, "batch", 8, 0.0, params)
    process.join()
    assert process.exitcode == -9
    moments = load_file(killed / "checkpoints/step-000006/optimizer.safetensors")
    assert moments["dense.0.weight.exp_avg_sq"].min() > 0
    train(corpus, params, killed)
    assert results(killed) == results(whole)
    weights = [load_file(run / "model/2_Dense/model.safetensors") for run in (whole, killed)]
    for name in ("weight", "bias"):
        first, second = (w[f"linear.{name}"] for w in weights)
        assert torch.equal(first, second) and (first != getattr(head[0], name)).any()


def test_finished_run_is_read_and_not_trained(corpus, finished, monkeypatch, tmp_path):
    """A second call gives the same result at once; its encoder is the one in memory."""
    monkeypatch.setattr(trainer, "Training", None)
    result = train(corpus, PARAMS, finished)
    assert list(result.log["step"]) == list(range(12))
    assert result.encoder.encode(["x"], "question").shape == (1, 16)


# --- checkpoints that will not do --------------------------------------------------------------


def damage(file):
    """Flip a bit in the middle."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("kind", ["bit", "cut", "file", "manifest", "half-written"])
def test_damaged_checkpoint_is_named_and_skipped(corpus, finished, half, kind, capsys):
    """An older one serves, or none; the result is the same."""
    newest = half / "checkpoints" / "step-000006"
    weights = newest / "optimizer.safetensors"
    if kind == "bit":
        damage(weights)
    elif kind == "cut":
        weights.write_bytes(weights.read_bytes()[:-9])
    elif kind == "half-written":
        newest.rename(newest.with_name(".step-000006.00ff00ff.tmp"))
    else:
        (weights if kind == "file" else newest / "manifest.json").unlink()
    train(corpus, PARAMS, half)
    printed = capsys.readouterr().out.splitlines()
    assert "step-000006" in printed[0] and "skip" in printed[0]
    assert printed[1] == "going on from step 3"
    assert results(half) == results(finished)


def test_damaged_newest_does_not_cost_the_older(corpus, half):
    """A checkpoint known to be damaged takes no place among those kept."""
    damage(half / "checkpoints" / "step-000006" / "model.safetensors")
    (half / "checkpoints" / "step-000006").rename(half / "checkpoints" / "step-000011")
    stop_after(corpus, half, 4)
    stop_after(corpus, half, 7)
    assert sorted(p.name for p in (half / "checkpoints").iterdir()) == [
        "step-000003",
        "step-000006",
    ]


def test_all_damaged_starts_afresh(corpus, finished, half):
    """No valid checkpoint: from step 0, the same result."""
    for weights in half.glob("checkpoints/*/model.safetensors"):
        damage(weights)
    train(corpus, PARAMS, half)
    assert results(half) == results(finished)


@pytest.mark.parametrize("name", record.FILES)
def test_a_damaged_record_is_made_again(corpus, finished, tmp_path, name, capsys):
    """Log, exposure, cost and so on are of one piece with the encoder."""
    folder = shutil.copytree(finished, tmp_path / "run")
    (damage if name.endswith(".parquet") else Path.unlink)(folder / name)
    train(corpus, PARAMS, folder)
    assert capsys.readouterr().out.startswith(f"{folder / name}: ")
    assert results(folder) == results(finished)
    train(corpus, PARAMS, folder)
    assert capsys.readouterr().out == ""


def test_checkpoint_without_optimizer_state_is_refused(corpus, half):
    """It would train on with other steps than the run that was stopped."""
    newest = half / "checkpoints" / "step-000006"
    meta = {k: v for k, v in store.verify(newest).items() if k not in ("files", "sealed")}
    copy = half / "copy"
    shutil.copytree(newest, copy)
    with store.atomic_folder(newest, meta) as new:
        for name in ("model.safetensors", "log.parquet", "state.json"):
            shutil.copy(copy / name, new / name)
    with pytest.raises(ValueError, match="step-000006: has no optimizer state"):
        train(corpus, PARAMS, half)


@pytest.mark.parametrize(("name", "value"), [("learning_rate", 1e-3), ("alpha", 0.25), ("seed", 3)])
def test_other_parameters_are_refused(corpus, half, finished, name, value):
    """Named, with both values, for a run half done and for a finished one."""
    other = PARAMS.model_copy(update={name: value})
    for folder in (half, finished):
        with pytest.raises(ValueError, match=f"{name} {getattr(PARAMS, name)}, now {value}"):
            train(corpus, other, folder)


def test_bookkeeping_parameters_may_differ(corpus, finished, half, monkeypatch):
    """How often to save and to print changes no number; nor does when losses are read."""
    monkeypatch.setitem(trainer.UNREAD, "cpu", 5)
    other = PARAMS.model_copy(update={"log_every": 5, "checkpoint_every": 4, "run": "x"})
    train(corpus, other, half)
    assert results(half) == results(finished)


def test_other_corpus_is_refused(corpus, half):
    """By content, not by name."""
    rows = toy_rows()
    rows[0]["question"] += "!"
    other = corpus_of_rows(rows, {}, folder=corpus.folder)
    with pytest.raises(ValueError, match="was made with corpus content"):
        train(other, PARAMS, half)


def test_damaged_encoder_is_made_again(corpus, half, finished, capsys):
    """From the last checkpoint, with a line that names the file."""
    train(corpus, PARAMS, half)
    damage(half / "model" / "model.safetensors")
    capsys.readouterr()
    train(corpus, PARAMS, half)
    printed = capsys.readouterr().out.splitlines()
    assert "model.safetensors" in printed[0] and printed[1] == "going on from step 9"
    assert results(half) == results(finished)


# --- formulas ----------------------------------------------------------------------------------


def test_learning_rate_by_hand():
    """10 steps, 2 of them rising; peak 1."""
    base = Train(steps=10, warmup=0.2, learning_rate=1.0)
    rates = {
        kind: [
            learning_rate(base.model_copy(update={"schedule": kind}), step) for step in range(10)
        ]
        for kind in ("linear", "cosine", "constant")
    }
    assert rates["linear"] == pytest.approx(
        [0.5, 1, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]
    )
    assert rates["constant"] == [0.5] + [1.0] * 9
    assert rates["cosine"][:3] == [0.5, 1, 1]
    assert rates["cosine"][6] == pytest.approx(0.5)
    assert rates["cosine"][8] == pytest.approx((1 - math.sqrt(0.5)) / 2)
    flat = Train(steps=4, warmup=0.0, learning_rate=1.0)
    assert [learning_rate(flat, s) for s in range(4)] == [1, 0.75, 0.5, 0.25]
    rising = Train(steps=4, warmup=1.0, learning_rate=1.0)
    assert [learning_rate(rising, s) for s in range(4)] == [0.25, 0.5, 0.75, 1]


def test_only_matrices_decay():
    """One AdamW step by hand with zero gradients: w - rate * decay * w for matrices alone."""
    layer = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.LayerNorm(3))
    torch.nn.init.ones_(layer[0].bias)
    before = [p.detach().clone() for p in layer.parameters()]
    optimizer = adamw(layer, Train(learning_rate=0.1, weight_decay=0.5))
    for p in layer.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for old, new in zip(before, layer.parameters(), strict=True):
        expected = old * (1 - 0.1 * 0.5) if old.ndim == 2 else old
        assert torch.allclose(new, expected)


def test_first_step_equals_a_hand_written_one(corpus, tmp_path, monkeypatch):
    """Clipping, then AdamW as Loshchilov & Hutter (arXiv 1711.05101) write it, from the plain
    gradient of the first batch; the norm in the log is that before clipping."""
    params = Train(
        steps=1,
        batch_size=8,
        width=16,
        heads=2,
        max_length=16,
        clip=0.01,
        warmup=0.0,
        strategy="mono",
        learning_rate=1e-3,
        weight_decay=0.1,
        temperature=0.05,
    )
    result = train(corpus, params, tmp_path)
    monkeypatch.setattr(vocabulary, "train_only", lambda *_: None)
    with reproducible(1):
        run = trainer.Training(corpus, params, tmp_path / "other", {})
        run.loss(run.schedule.batch(0)).backward()
    weights = dict(run.encoder.named_parameters())
    norm = math.sqrt(sum(float((p.grad.double() ** 2).sum()) for p in weights.values()))
    assert result.log["gradient_norm"][0] == pytest.approx(norm, rel=1e-5)
    assert norm > 0.01
    for name, p in result.encoder.named_parameters():
        gradient = weights[name].grad * (0.01 / norm)
        step = gradient / (gradient.abs() + 1e-8)  # both moments, bias-corrected, at step 1
        decay = 0.1 if p.ndim > 1 else 0.0
        expected = weights[name] * (1 - 1e-3 * decay) - 1e-3 * step
        assert torch.allclose(p, expected, atol=2e-5), name


@pytest.mark.parametrize(
    ("negatives", "most"),
    [("in_batch", 0), ("in_batch", 3), ("in_language", 0), ("explicit", 0), ("both", 0)],
)
def test_loss_of_a_batch_from_its_texts(corpus, tmp_path, negatives, most):
    """Each text in the language that the schedule says, negatives in the passage's language, and
    none of the question's own group among them, as happens with those of other rows."""
    explicit = negatives in ("explicit", "both")
    values = PARAMS.model_dump() | {
        "strategy": "mix",
        "negatives": negatives,
        "most_negatives": most,
        "dropout": 0.0,
        "explicit": 2 * explicit,
    }
    run = trainer.Training(corpus, Train(**values), tmp_path, {})
    batch = run.schedule.batch(1)
    text = {
        (r["pair"], r["language"], side): r[side]
        for r in toy_rows()
        for side in ("question", "passage")
    }

    def vectors(side, pairs, languages):
        texts = [
            text[f"p{p:02d}", LANGUAGES[x], side] for p, x in zip(pairs, languages, strict=True)
        ]
        return torch.from_numpy(run.encoder.encode(texts, side))

    hard = {"most": most, "language": torch.tensor(batch.passage_language)}
    if explicit:
        own = np.array([[p in row for p in batch.pair] for row in batch.negatives]).any()
        assert own  # else the mask would not matter
        spread = vectors("passage", batch.negatives.ravel(), np.repeat(batch.passage_language, 2))
        hard |= {
            "negatives": spread.view(8, 2, 16),
            "question_group": torch.tensor(batch.pair),
            "negative_group": torch.tensor(batch.negatives),
        }
    expected = trainer.info_nce(
        vectors("question", batch.pair, batch.question_language),
        vectors("passage", batch.pair, batch.passage_language),
        0.05,
        mode=negatives,
        **hard,
    )
    assert run.loss(batch).item() == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize(
    ("negatives", "most"),
    [("in_batch", 0), ("in_batch", 3), ("in_language", 0), ("in_language", 1), ("explicit", 0),
     ("both", 0)],
)  # fmt: skip
@pytest.mark.parametrize("strategy", ["mix", "hybrid-pair"])
def test_exposure_counts_the_negatives_of_the_loss(corpus, strategy, negatives, most):
    """Where all scores are equal, the loss of a question with n negatives is log(1 + n)."""
    hard = negatives in ("explicit", "both")
    values = {"strategy": strategy, "negatives": negatives, "most_negatives": most}
    params = Train(**PARAMS.model_dump() | values | {"explicit": 2 * hard})
    group, counts = corpus.index.group, []
    for batch in trainer.schedule(corpus.index, params):
        counts.append(negatives_of(batch, group, negatives, most))
        explicit = {
            "negatives": torch.zeros(8, 2, 4, dtype=torch.float64),
            "question_group": torch.tensor(group[batch.pair]),
            "negative_group": torch.tensor(group[batch.negatives]),
        }
        alike = torch.zeros(8, 4, dtype=torch.float64)
        language = torch.tensor(batch.passage_language)
        options = {"mode": negatives, "most": most, "language": language}
        loss = trainer.info_nce(alike, alike, 1.0, **options, **(explicit if hard else {}))
        assert loss.item() == pytest.approx(np.log(1 + counts[-1]).mean(), abs=1e-12)
    table = exposure(trainer.schedule(corpus.index, params), negatives, most)
    mean = np.average(table["negatives"], weights=table["question_uses"])
    assert mean == pytest.approx(np.mean(counts))


# --- what a run leaves -------------------------------------------------------------------------


def test_learns_a_toy_retrieval_task(corpus, tmp_path):
    """Questions and passages without a common word: chance before training, nearly all after."""
    base = {
        "strategy": "x-x",
        "width": 32,
        "heads": 2,
        "batch_size": 24,
        "max_length": 16,
        "learning_rate": 1e-2,
        "temperature": 0.05,
    }
    texts = [
        corpus.rows[side][corpus.index.rows(np.arange(PAIRS), 1)]
        for side in ("question", "passage")
    ]
    found = {}
    for steps in (0, 80):
        result = train(corpus, Train(steps=steps, **base), tmp_path / str(steps))
        question, passage = (
            result.encoder.encode(t, s) for t, s in zip(texts, ("question", "passage"), strict=True)
        )
        best = (question @ passage.T).argmax(1)
        found[steps] = (best == np.arange(PAIRS)).mean()
    assert found[0] < 0.2 and found[80] > 0.9
    assert result.log["loss"][:5].mean() > 2 * result.log["loss"][-5:].mean()


def test_zero_steps_save_the_untrained_encoder(corpus, tmp_path):
    """Of the same weights that any longer run of the seed begins with."""
    params = PARAMS.model_copy(update={"steps": 0})
    result = train(corpus, params, tmp_path)
    fresh = build_encoder(PARAMS, corpus.tokenizer_file)
    for name, p in result.encoder.named_parameters():
        assert torch.equal(p, fresh.get_parameter(name))
    assert len(result.log) == 0 and result.cost["pairs"] == 0
    assert list(result.log.columns) == list(LogRow._fields)


def test_log_exposure_and_cost_agree(corpus, finished):
    """Counts by hand: 12 steps of 8 pairs; tokens as the tokenizer gives them."""
    result = train(corpus, PARAMS, finished)
    assert list(result.log.columns) == list(LogRow._fields)
    assert set(result.log["kind"]) == {"mono", "mixed"}
    assert result.log["learning_rate"].tolist() == [learning_rate(PARAMS, s) for s in range(12)]
    assert result.cost["pairs"] == result.exposure["pairs"] == 96
    tokens, monolingual = 0, 0
    for batch in trainer.schedule(corpus.index, PARAMS):
        asked = corpus.index.rows(batch.pair, batch.question_language)
        answered = corpus.index.rows(batch.pair, batch.passage_language)
        hard = corpus.index.rows(batch.negatives, batch.passage_language[:, None]).ravel()
        for side, rows in (("question", asked), ("passage", answered), ("passage", hard)):
            lists = result.encoder.tokenize(corpus.rows[side][rows.tolist()], side)
            tokens += sum(map(len, lists))
        monolingual += (batch.question_language == batch.passage_language).sum()
    assert result.exposure["tokens"] == result.cost["tokens"] == tokens
    assert result.exposure["monolingual"] == pytest.approx(monolingual / 96)
    assert 21 < result.exposure["negatives"] < 23  # 7 passages, 16 explicit less own group's
    by_language = pd.DataFrame(result.exposure["languages"])
    assert list(by_language["language"]) == list(LANGUAGES)
    assert by_language[["question_tokens", "passage_tokens"]].sum().sum() == tokens
    # Matrices and vectors of one BERT layer of width 16 with 32 inside; two layer norms and the
    # one after the embeddings.
    weights = 4 * (16 * 16 + 16) + 16 * 32 + 32 + 32 * 16 + 16 + 3 * 2 * 16
    assert result.exposure["flops"] == 6 * weights * tokens
    assert 0 <= result.cost["padded_share"] <= 0.1 / 1.1
    assert result.cost["peak_memory_bytes"] > 2**27
    saved = result.encoder.parameters()
    assert result.cost["parameters"] == sum(p.numel() for p in saved)
    assert result.cost["seconds"] >= result.log["seconds"].sum()


def test_cost_adds_up_over_resumptions(corpus, half):
    """Times and starts of the checkpoint are kept; steps lost with a kill are not counted."""
    place = half / "checkpoints" / "step-000006"
    state = store.read_json(place / "state.json")
    meta = {k: v for k, v in store.verify(place).items() if k not in ("files", "sealed")}
    state["cost"] |= {"seconds": 5000.0, "cpu_seconds": 4000.0, "starts": 7}
    shutil.copytree(place, half / "copy")
    with store.atomic_folder(place, meta) as new:
        for file in (half / "copy").iterdir():
            if file.name not in ("manifest.json", "state.json"):
                shutil.copy(file, new / file.name)
        store.write_json(new / "state.json", state)
    cost = train(corpus, PARAMS, half).cost
    assert 5000 < cost["seconds"] < 5100 and 4000 < cost["cpu_seconds"] < 4100
    assert cost["starts"] == 8 and cost["steps"] == 12
    assert 0 <= cost["padded_share"] <= 0.1 / 1.1


def test_a_slow_run_is_not_silent(monkeypatch, capsys):
    """Steps of 11 s with a line every 50 of them: one after 33 s, then again."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    pace, log = progress.Pace(0, PARAMS.model_copy(update={"log_every": 50, "steps": 99})), []
    for step in range(1, 7):
        now[0] += 11
        log.append(LogRow(step, "mono", 2.0, 0.1, 1.0, 0, 11.0))
        pace.tell(step, log)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == ["3/99", "6/99"]
    assert lines[0].endswith("about 17:36 left")


def test_progress_lines(corpus, tmp_path, capsys):
    """One plain line every log_every steps and at the end."""
    train(corpus, PARAMS.model_copy(update={"log_every": 5}), tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == ["5/12", "10/12", "12/12"]
    for line in lines:
        assert re.fullmatch(
            r"step \d+/12  loss \d+\.\d{3}  \d+\.\d steps/s  about 0:\d\d left", line
        )


@pytest.mark.parametrize("unread", [1, 2, 50])
def test_divergence_stops_before_anything_is_written(corpus, half, monkeypatch, unread):
    """One line with step, seed and pairs, however late losses are read; the last checkpoint is
    intact and serves later."""
    monkeypatch.setitem(trainer.UNREAD, "cpu", unread)
    original = trainer.info_nce
    monkeypatch.setattr(trainer, "info_nce", lambda *a, **k: original(*a, **k) * math.nan)
    expected = trainer.schedule(corpus.index, PARAMS).batch(6).pair
    with pytest.raises(Diverged, match="step 6, seed 0: loss nan, gradient norm nan") as caught:
        train(corpus, PARAMS, half)
    assert f"(pairs {', '.join(map(str, expected))})" in str(caught.value)
    assert "\n" not in str(caught.value)
    store.verify(half / "checkpoints" / "step-000006")
    assert not (half / "model").exists()
    assert not (half / "checkpoints" / "step-000009").exists()


def stepped(corpus, folder, steps=6, **changes):
    """An encoder in float64 after some steps as `train` makes them, its log, and its word table."""
    values = {"batch_size": 4, "weight_decay": 0.3, "clip": 0.5, "warmup": 0.5, "steps": steps}
    params = PARAMS.model_copy(update=values | changes)
    with reproducible(1):
        run = trainer.Training(corpus, params, folder, {})
        run.encoder.double()
        for run.state.step in range(steps):
            run.launched.append(run.step())
        run.write_log()
        vocabulary.restore(run.encoder, shrunk(params, steps))
    return run.encoder, run.state.log, run


def test_used_words_alone_give_the_whole_table(tmp_path, monkeypatch):
    """Every weight after steps with decay, clipping and dropout, in float64, and every norm; the
    tokenizer knows words that the corpus has not, and the corpus some that no batch has."""
    rows = toy_rows()
    corpus = toy_corpus(tmp_path / "data", rows)
    some = [{k: v for k, v in row.items() if k != "negatives"} for row in rows[: 3 * PAIRS // 2]]
    few = corpus_of_rows(some, {}, folder=corpus.folder)
    negatives = {"negatives": "in_batch", "explicit": 0}
    with monkeypatch.context() as patch:
        patch.setattr(vocabulary, "train_only", lambda *_: None)
        whole, log, run = stepped(few, tmp_path / "a", **negatives)
    spared, other, short = stepped(few, tmp_path / "b", **negatives)
    table = whole.model.get_input_embeddings().weight
    before = build_encoder(PARAMS, corpus.tokenizer_file).model.get_input_embeddings().weight
    unused = shrunk(run.params, 6) * before.double()
    absent = torch.isclose(table, unused, rtol=1e-12, atol=0).all(1)
    known = np.isin(np.arange(len(table)), vocabulary.used(run.encoder, run.texts, None))
    assert 0 < known.sum() < len(table) - 20
    assert absent[~known].all() and 0 < absent[known].sum() < known.sum()
    assert max(row.gradient_norm for row in log) > 0.5  # clipped
    assert [row.gradient_norm for row in log] == pytest.approx(
        [row.gradient_norm for row in other], rel=1e-12
    )
    for name, p in whole.named_parameters():
        assert torch.allclose(p, spared.get_parameter(name), rtol=1e-10, atol=1e-12), name
    assert short.state.optimizer.param_groups[0]["params"][0].shape == (known.sum(), 16)


def test_used_words_from_start_to_end(corpus, finished, tmp_path, monkeypatch):
    """Losses and encoder as those of the whole table, and the encoder knows words of no text of the
    corpus."""
    with monkeypatch.context() as patch:
        patch.setattr(vocabulary, "train_only", lambda *_: None)
        result = train(corpus, PARAMS, tmp_path / "whole")
    other = train(corpus, PARAMS, finished)
    for name in ("loss", "gradient_norm", "batch"):
        assert np.allclose(result.log[name], other.log[name], rtol=1e-3)
    assert result.exposure == other.exposure
    assert result.cost["truncated_share"] == other.cost["truncated_share"]
    texts = ["zzzz", "[MASK] [PAD]", "abc"]
    assert np.allclose(
        result.encoder.encode(texts, "question"), other.encoder.encode(texts, "question"), atol=0.01
    )


def bad_texts(rows):
    """Some questions of one character or none, some passages of none or of far too many words."""
    for number, row in enumerate(rows):
        kind = number // len(LANGUAGES) % 4
        row["question"] = (row["question"], "a", "", "  ")[kind]
        row["passage"] = (row["passage"], " ".join([row["passage"]] * 9), row["passage"], "")[kind]
    return rows


def test_empty_and_long_texts_do_no_harm(tmp_path):
    """Vectors are those of the special tokens; what is too long is cut, and the share counted."""
    corpus = toy_corpus(tmp_path / "data", bad_texts(toy_rows()))
    result = train(corpus, PARAMS.model_copy(update={"strategy": "mono"}), tmp_path / "run")
    assert np.isfinite(result.log[["loss", "gradient_norm"]]).all().all()
    assert 0.05 < result.cost["truncated_share"] < 0.25
    vectors = result.encoder.encode(["", "a", "  "], "question")
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def gpu_is_full():
    """As torch says it."""
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.mark.parametrize(
    "fail",
    [
        lambda *a, **k: torch.empty(2**50),  # torch's own words for a CPU
        lambda *a, **k: np.empty(2**50),
        lambda *a, **k: gpu_is_full(),
    ],
)
def test_out_of_memory_says_what_to_lower(corpus, half, finished, monkeypatch, fail):
    """And keeps the checkpoint, from which smaller chunks can go on."""
    with monkeypatch.context() as patch, pytest.raises(MemoryError) as caught:
        patch.setattr(trainer, "info_nce", fail)
        train(corpus, PARAMS, half)
    message = "step 6: out of memory with batch_size=8, chunk=0, max_length=16; set chunk"
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)
    train(corpus, PARAMS.model_copy(update={"chunk": 4}), half)
    assert (half / "model").is_dir()


def test_other_errors_of_torch_pass_unchanged(corpus, tmp_path, monkeypatch):
    """Only what is known to be a lack of memory is called so."""
    monkeypatch.setattr(trainer, "info_nce", lambda *a, **k: torch.ones(2) @ torch.ones(3))
    with pytest.raises(RuntimeError, match="inconsistent tensor size"):
        train(corpus, PARAMS, tmp_path)


def full(number, error):
    """Raise `error` in place of the number-th call and all after it."""
    calls = []

    def wrapped(original):
        def call(*args, **kwargs):
            calls.append(1)
            if len(calls) >= number:
                raise error
            return original(*args, **kwargs)

        return call

    return wrapped


# Calls of the first checkpoint and some of the second.
FULL = [
    (
        checkpoints,
        "save_file",
        3,
        SafetensorError("I/O error: No space left on device (os error 28)"),
    ),
    (
        checkpoints,
        "save_file",
        4,
        SafetensorError("I/O error: No space left on device (os error 28)"),
    ),
    (os, "fsync", 14, OSError(errno.ENOSPC, "No space left on device")),
    (Path, "rename", 2, OSError(errno.ENOSPC, "No space left on device")),
]


@pytest.mark.parametrize(("owner", "name", "number", "error"), FULL)
def test_full_disk_leaves_the_last_checkpoint(
    corpus, finished, tmp_path, monkeypatch, owner, name, number, error
):
    """One line that names the checkpoint; nothing half-written stays; later the run goes on."""
    with monkeypatch.context() as patch, pytest.raises(OSError) as caught:
        patch.setattr(owner, name, full(number, error)(getattr(owner, name)))
        train(corpus, PARAMS, tmp_path)
    assert re.search(r"step-000006: not written \(.*No space left on device", str(caught.value))
    assert "\n" not in str(caught.value)
    left = list((tmp_path / "checkpoints").iterdir())
    assert [path.name for path in left] == ["step-000003"]
    store.verify(left[0])
    train(corpus, PARAMS, tmp_path)
    assert results(tmp_path) == results(finished)


def test_settings_of_torch_are_given_back(corpus, tmp_path):
    """Threads, determinism and random numbers of the caller."""
    torch.set_num_threads(2)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    train(corpus, PARAMS.model_copy(update={"steps": 2}), tmp_path)
    assert torch.get_num_threads() == 2
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.equal(state, torch.get_rng_state())
    torch.set_num_threads(1)


def test_unavailable_device_is_refused(corpus, tmp_path):
    """In one line."""
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(ValueError, match="torch finds no GPU here"):
        train(corpus, PARAMS.model_copy(update={"device": "cuda"}), tmp_path)


def test_progress_estimates_from_this_start(capsys):
    """10 steps in 2 seconds after going on from step 50: 5 a second, 8 seconds for 40 more."""
    pace = progress.Pace(50, Train(steps=100, log_every=10))
    pace.start = time.perf_counter() - 2
    pace.tell(60, [LogRow(s, "mono", 1.0, 0.0, 0.0, 0, 0.0) for s in range(60)])
    assert capsys.readouterr().out == "step 60/100  loss 1.000  5.0 steps/s  about 0:08 left\n"
