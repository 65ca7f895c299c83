"""What fine-tuning an encoder takes of memory, by part, before a weight is loaded.

The model is made of tensors without data (torch's FakeTensorMode), so 13 billion parameters are
planned in seconds anywhere, and what a forward keeps for its gradient is counted tensor by tensor,
not guessed: with the kernels of a CPU, of which those of a GPU differ little.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from lib.encoder import MASKED
from lib.params import Train
from lib.training import adapters, frozen, models, objectives, quantised, sharding

FLOAT, MOMENTS = 4, 2  # bytes of a number; of AdamW, a weight


@dataclass(frozen=True)
class Needs:
    """Bytes, but for the first two.

    parameters  of the whole encoder; trainable: those that steps change, word rows among them
    below       frozen layers under a cut and their word table, kept in the CPU's memory
    weights     of the rest, that one rank has; so for gradients, moments and texts. Where they are
                quantised, also of the largest one while it is restored
    together    blocks in parts (lib.training.sharding), put together at a time
    text        what the gradient of one text of so many tokens needs
    batch       vectors, and scores of all questions with all passages, with their gradients
    """

    parameters: int
    trainable: int
    below: int
    weights: int
    gradients: int
    moments: int
    together: int
    text: int
    tokens: int
    batch: int
    texts: int

    @property
    def fixed(self) -> int:
        """All but what grows with the texts in memory."""
        return self.weights + self.gradients + self.moments + self.together + self.batch

    def peak(self, chunk: int) -> int:
        """Of a step with so many texts in memory at a time (0: all of a rank)."""
        return self.fixed + self.text * (chunk or self.texts)

    def chunk(self, memory: int) -> int:
        """The most texts that fit into so many bytes; 0: none."""
        return max(0, min(self.texts, (memory - self.fixed) // self.text))


def needs(p: Train, vocabulary: int) -> Needs:
    """What a step of `p` takes, with every text at its max_length.

    vocabulary  word rows of an encoder from scratch; of a checkpoint all rows are taken to be used,
                so that is an upper bound
    Raises ValueError for a checkpoint whose configuration cannot be read, or adapters without
    matrices to stand beside."""
    config, kind = models.configuration(p, vocabulary)
    p = p.model_copy(update={"max_length": models.settings(p).max_length})
    with torch.device("meta"):
        model = kind(config)
        frozen.check(model, p.model, p.frozen)
    adapters.check(p, model, "cpu")
    loaded = sum(x.numel() for x in model.parameters())
    with torch.device("meta"):
        model = adapters.put_in(model, p).train()
    below = _cut(model, p.frozen)
    with FakeTensorMode():
        # What to_empty does, which does not take tensors of another mode.
        model._apply(lambda tensor: torch.empty(tensor.shape, dtype=tensor.dtype))
        trainable = sum(x.numel() for x in model.parameters() if x.requires_grad)
        texts = (2 + p.explicit + (p.objective in objectives.TRANSLATED)) * p.batch_size
        return Needs(
            parameters=loaded + trainable * bool(p.lora),
            trainable=trainable,
            below=FLOAT * below,
            weights=_held(model, p, lambda x: x.nbytes) + quantised.restoring(model),
            gradients=_held(model, p, _gradient),
            moments=_held(model, p, _gradient) * MOMENTS,
            together=_together(model, p),
            text=_a_text(model, p),
            tokens=p.max_length,
            batch=2 * FLOAT * texts * (config.hidden_size + p.batch_size),
            texts=texts // p.ranks,
        )


def _gradient(x: torch.nn.Parameter) -> int:
    """Bytes."""
    return FLOAT * x.numel() * x.requires_grad


def _held(model: torch.nn.Module, p: Train, size: Callable[[torch.nn.Parameter], int]) -> int:
    """Of all parameters, by their bytes, what one rank holds."""
    every = sum(map(size, model.parameters()))
    if not p.shard:
        return every
    blocks = sum(size(x) for block in sharding.blocks(model) for x in block.parameters())
    return every - blocks + blocks // p.ranks


def _together(model: torch.nn.Module, p: Train) -> int:
    """Bytes of the block that computes and the next, which is fetched: weights and gradients, and
    the weights that are on their way (measured with two ranks on a CPU)."""
    if not p.shard:
        return 0
    return max(
        sum(3 * x.nbytes + 2 * _gradient(x) for x in block.parameters())
        for block in sharding.blocks(model)
    )


def _cut(model: torch.nn.Module, layers: int) -> int:
    """Take embeddings and so many layers out (lib.training.frozen); the number of their weights."""
    if not layers:
        return 0
    blocks = model.encoder.layer
    parts = [model.embeddings, *blocks[:layers]]
    model.embeddings, model.encoder.layer = frozen.Passed(), blocks[layers:]
    return sum(x.numel() for part in parts for x in part.parameters())


def _a_text(model: torch.nn.Module, p: Train) -> int:
    """Bytes that a text adds to what is kept for the gradient, and one gradient inside a layer.
    Where layers are made again, what goes into each, and one layer in full."""
    config = model.config
    kept = (_kept(model, 4, p) - _kept(model, 2, p)) // 2
    if p.recompute:
        layers = max(1, config.num_hidden_layers - p.frozen)
        kept = kept // layers + FLOAT * layers * p.max_length * config.hidden_size
    inner = getattr(config, "intermediate_size", None) or getattr(config, "d_ff", 0)
    return kept + FLOAT * p.max_length * inner


def _kept(model: torch.nn.Module, texts: int, p: Train) -> int:
    """Bytes of the tensors that autograd keeps of a forward of so many texts, each once, and
    without the weights."""
    config, bytes_of = model.config, {}
    weights = {x.untyped_storage()._cdata for x in model.parameters()}
    states = torch.empty(texts, p.max_length, config.hidden_size, requires_grad=True)
    mask = torch.ones(texts, p.max_length, dtype=torch.long)
    if config.model_type in MASKED:
        mask = mask.bool()[:, None, None].expand(-1, 1, p.max_length, -1)

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        bytes_of[storage._cdata] = storage.nbytes()
        alive.append(storage)  # or another one would have its address
        return tensor

    alive, half = [], p.precision == "bf16"
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            model(inputs_embeds=states, attention_mask=mask)
    return sum(size for address, size in bytes_of.items() if address not in weights)
