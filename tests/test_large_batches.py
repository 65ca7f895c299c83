"""Batches whose activations do not fit: exact gradients, the same dropout twice, bounded memory."""

import resource
from functools import partial

import numpy as np
import pytest
import torch
from kill_trainer import PARAMS
from test_trainer import preloaded, results, start, stop_after

from lib.losses import info_nce
from lib.params import Train
from lib.trainer import train
from lib.training import packing as module
from lib.training.models import build_encoder
from lib.training.packing import embed

SIZE, HARD = 6, 2  # rows of a batch, explicit negatives a row
CASES = [
    ({"mode": "in_batch"}, 0.05),
    ({"mode": "in_batch", "symmetric": True}, 1.0),
    ({"mode": "in_batch", "most": 2}, 0.05),
    ({"mode": "in_language", "language": torch.tensor([0, 1, 0, 0, 1, 2])}, 0.1),
    ({"mode": "explicit"}, 0.05),
    ({"mode": "both", "symmetric": True}, 0.1),
]


def doubled(corpus, dropout=0.0):
    """A small encoder in float64, as it is in training."""
    params = Train(width=16, heads=2, layers=2, max_length=16, dropout=dropout)
    return build_encoder(params, corpus.tokenizer_file).double().train()


def texts(corpus, encoder):
    """Token lists of several lengths: questions, passages, negatives."""
    rows = [*range(0, 54, 9)]
    questions = encoder.tokenize(corpus.rows["question"][rows], "question")
    passages = encoder.tokenize(
        corpus.rows["passage"][[r + k for k in (0, 30, 60) for r in rows]], "passage"
    )
    return [tokens[: 3 + i % 9] for i, tokens in enumerate(questions + passages)]


def loss_of(vectors, temperature, mode, **options):
    """The contrastive loss of vectors of `texts`."""
    question, passage, negatives = vectors.split([SIZE, SIZE, SIZE * HARD])
    if mode in ("explicit", "both"):
        options = options | {"negatives": negatives.unflatten(0, (SIZE, HARD))}
    return info_nce(question, passage, temperature, mode=mode, **options)


def gradients(encoder, loss):
    """Loss and the gradient of every parameter, by name; those are cleared."""
    encoder.zero_grad()
    loss.backward()
    assert all(p.grad is not None or not p.requires_grad for p in encoder.parameters())
    found = {n: p.grad.clone() for n, p in encoder.named_parameters() if p.requires_grad}
    return loss.item(), found


def differ(one, other):
    """Largest difference of two losses or of two gradients, relative to the largest entry. That of
    keys' biases is zero but for rounding: it moves all scores of one query alike."""
    (loss, own), (expected, theirs) = one, other
    assert own.keys() == theirs.keys()
    apart = [abs(loss - expected) / abs(expected)]
    scale = {name: theirs[name].abs().max().clamp(min=1e-6) for name in own}
    apart += [((own[n] - theirs[n]).abs().max() / scale[n]).item() for n in own]
    return max(apart)


# --- the same numbers --------------------------------------------------------------------------


@pytest.mark.parametrize(("options", "temperature"), CASES)
def test_gradients_equal_those_of_one_text_at_a_time(corpus, options, temperature):
    """For chunks of 1, 5 and more texts than there are, against a graph of all texts that shares no
    look-up, padding or order with them; float64, every parameter."""
    encoder = doubled(corpus)
    lists = texts(corpus, encoder)

    def alone(tokens):
        ids = torch.from_numpy(tokens.astype(np.int64))[None]
        return encoder(ids, torch.ones_like(ids))

    own = partial(loss_of, temperature=temperature, **options)
    plain = gradients(encoder, own(torch.cat([alone(tokens) for tokens in lists])))
    assert all(gradient.abs().max() > 0 for gradient in plain[1].values())
    for chunk in (0, 1, 5, 99):
        assert differ(gradients(encoder, own(embed(encoder, lists, chunk))), plain) < 1e-9


def with_dropout(corpus, chunk, monkeypatch, forward=None):
    """Loss and gradients with dropout; `forward` in place of the one that forgets."""
    encoder = doubled(corpus, dropout=0.3)
    if forward:
        monkeypatch.setattr(module, "_twice", forward)
    torch.manual_seed(5)
    vectors = embed(encoder, texts(corpus, encoder), chunk)
    after = torch.get_rng_state()
    torch.rand(7)  # whatever else draws between the two forwards
    found = gradients(encoder, loss_of(vectors, 0.05, "both", symmetric=True))
    monkeypatch.undo()
    return found, after


@pytest.mark.parametrize("chunk", [1, 4, 99])
def test_dropout_is_the_same_both_times(corpus, chunk, monkeypatch):
    """Against the same chunks in one graph, which draw their masks once; float64. The masks matter:
    other ones the second time give other gradients."""
    cached, after = with_dropout(corpus, chunk, monkeypatch)
    plain, expected = with_dropout(corpus, chunk, monkeypatch, lambda encoder, *x: encoder(*x))
    assert differ(cached, plain) < 1e-12
    assert torch.equal(after, expected)
    forgets = partial(module.checkpoint, use_reentrant=True, preserve_rng_state=False)
    other, _ = with_dropout(corpus, chunk, monkeypatch, forgets)
    assert other[0] == cached[0] and differ(other, plain) > 1e-3


def test_frozen_word_vectors_lose_no_other_gradient(corpus):
    """The one input of a chunk that wants a gradient must not be the trainable table."""
    encoder = doubled(corpus)
    encoder.model.get_input_embeddings().weight.requires_grad_(False)
    lists = texts(corpus, encoder)
    found = [
        gradients(encoder, loss_of(embed(encoder, lists, chunk), 0.1, "both")) for chunk in (0, 3)
    ]
    assert differ(*found) < 1e-9


# --- in training -------------------------------------------------------------------------------


def test_a_run_in_chunks_is_the_run_at_once(corpus, tmp_path):
    """Losses, gradient norms and counts of a run without dropout, where batches are the same."""
    whole = PARAMS.model_copy(update={"dropout": 0.0})
    runs = [
        train(corpus, whole.model_copy(update={"chunk": chunk}), tmp_path / str(chunk))
        for chunk in (0, 5)
    ]
    for name in ("loss", "gradient_norm"):
        assert np.allclose(runs[0].log[name], runs[1].log[name], rtol=1e-3)
    assert (runs[0].log["batch"] == runs[1].log["batch"]).all()
    assert runs[0].exposure == runs[1].exposure


PART = {"strategy": "mix", "negatives": "in_language", "explicit": 0, "most_negatives": 2}


@pytest.mark.parametrize("changes", [{}, PART])
def test_resumes_to_the_same_bits(corpus, tmp_path, changes):
    """With dropout, which each chunk draws twice; also where a loss leaves out rows."""
    params = PARAMS.model_copy(update={"chunk": 5} | changes)
    train(corpus, params, tmp_path / "whole")
    stop_after(corpus, tmp_path / "half", 8, params)
    train(corpus, params, tmp_path / "half")
    assert results(tmp_path / "half") == results(tmp_path / "whole")


# --- memory ------------------------------------------------------------------------------------


def growth(tokenizer_file, number, chunk, answer):
    """Send how many bytes the gradient of `number` texts of 32 tokens adds to this process."""
    torch.set_num_threads(1)
    params = Train(width=64, heads=2, layers=2, max_length=32, dropout=0.1)
    encoder = build_encoder(params, tokenizer_file).train()
    lists = list(np.random.default_rng(0).integers(5, 300, (number, 32), np.int32))
    embed(encoder, lists[:64], chunk).sum().backward()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    embed(encoder, lists, chunk).sum().backward()
    answer.put(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))


def test_memory_does_not_grow_with_the_batch(corpus):
    """640 texts at once need over 150 MB beyond those of 64 texts, in chunks of 64 a fifth."""
    needed = []
    for chunk in (0, 64):
        answer = preloaded().SimpleQueue()
        process = start(growth, corpus.tokenizer_file, 640, chunk, answer)
        process.join()
        needed.append(answer.get())
    assert needed[0] > 1.5e8 and needed[1] < needed[0] / 5
