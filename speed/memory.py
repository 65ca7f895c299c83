"""What fine-tuning a decoder of 7 or 13 billion parameters takes on one GPU, by part.

    python -m speed.memory [--quick] [--only 7b 13b] [--seconds 80] [--device cuda]

Shapes are those of Mistral-7B and Llama-2-13B, weights random and in bf16, made on the GPU. LoRA of
rank 16 (peft, which is no dependency of this project) is on all matrices of a layer, in fp32 under
autocast, and trained by fused AdamW. A step is that of this project: lib.training.packing.embed
over the 256 texts of 128 pairs in chunks, info_nce over all of them, clipping, AdamW. All texts
have the same number of tokens; the vector is that of the last one.

One line of JSON a configuration: `weights_gib` is the model with its adapters, `state_gib` what
gradients and AdamW's moments add, `peak_gib` the most that was allocated in a step (torch's count,
without CUDA's own half GiB), `activations_gib` the rest of it. `utilisation` counts 4 operations
a parameter and token, since frozen weights need no gradients and what is computed twice is not
counted, against a large matrix product. What does not fit says so. A shape's configurations begin
with large chunks and end after --seconds; how many were left out is said. Without a GPU peaks are
null, and only --quick, a toy, is to be had.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from itertools import product
from time import perf_counter

import numpy as np
import torch

from lib.encoder import Encoder, Settings
from lib.losses import info_nce
from lib.params import Train
from lib.training import cost
from lib.training.optimizer import adamw
from lib.training.packing import embed

PAIRS, RANK, GIB = 128, 16, 2**30
MATRICES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@dataclass(frozen=True)
class Shape:
    """Size of a decoder of the Llama family."""

    layers: int
    width: int
    inner: int
    heads: int
    key_heads: int
    vocabulary: int = 32_000


SHAPES = {
    "7b": Shape(32, 4096, 14336, 32, 8),
    "13b": Shape(40, 5120, 13824, 40, 40),
    "toy": Shape(2, 32, 64, 4, 2, 100),
}


@dataclass(frozen=True)
class Configuration:
    """One line: texts of so many tokens, so many in memory at a time, layers' activations kept, or
    only their inputs (gradient checkpointing)."""

    tokens: int
    chunk: int
    checkpointing: bool


QUICK = [Configuration(8, 4, False), Configuration(8, 4, True)]
FULL = [
    Configuration(tokens, chunk, checkpointing)
    for chunk, tokens, checkpointing in product((32, 8, 16, 4), (128, 32), (False, True))
]


class Decoder(Encoder):
    """A causal model as an encoder of token numbers: the last token's vector, and no tokenizer."""

    def __init__(self, model: torch.nn.Module):
        torch.nn.Module.__init__(self)
        self.model, self.settings, self._longest = model, Settings("lasttoken"), math.inf
        self.dense, self.lower = torch.nn.Sequential(), None


def build(shape: Shape, device: str) -> Decoder:
    """Random weights in bf16, frozen, with adapters that are not."""
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaModel

    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_heads,
        use_cache=False,
    )
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            model = LlamaModel(config)
    finally:
        torch.set_default_dtype(torch.float32)
    lora = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=MATRICES, lora_dropout=0.0)
    return Decoder(get_peft_model(model, lora)).to(device).train()


def switch(model: torch.nn.Module, checkpointing: bool) -> None:
    """Gradient checkpointing of layers, on or off."""
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    else:
        model.gradient_checkpointing_disable()


def step(
    encoder: Decoder, optimizer: torch.optim.AdamW, texts: list[np.ndarray], chunk: int
) -> torch.Tensor:
    """One update of all adapters; its loss."""
    from peft.helpers import disable_input_dtype_casting

    optimizer.zero_grad()
    half = torch.autocast(encoder.device.type, torch.bfloat16)
    with half, disable_input_dtype_casting(encoder.model):
        vectors = embed(encoder, texts, chunk)
    loss = info_nce(*vectors.split(len(texts) // 2), 0.05)
    with disable_input_dtype_casting(encoder.model):  # layers are computed again in here
        loss.backward()
    torch.nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
    optimizer.step()
    return loss.detach()


def measured(
    encoder: Decoder, optimizer: torch.optim.AdamW, how: Configuration, pairs: int
) -> dict:
    """Seconds, loss and memory of one step after a short one that warms up."""
    switch(encoder.model.base_model.model, how.checkpointing)
    rng, cuda = np.random.default_rng(0), encoder.device.type == "cuda"
    shape = (2 * pairs, how.tokens)
    texts = list(rng.integers(5, encoder.words.num_embeddings, shape).astype(np.int32))
    step(encoder, optimizer, texts[: 2 * how.chunk], how.chunk)
    optimizer.zero_grad()
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    begin = perf_counter()
    loss = step(encoder, optimizer, texts, how.chunk).item()
    if cuda:
        torch.cuda.synchronize()
    seconds = perf_counter() - begin
    peak, kept = torch.cuda.max_memory_allocated(), torch.cuda.memory_allocated()  # 0 on a CPU
    return {"seconds": seconds, "loss": loss, "peak": peak, "kept": kept}


def row(name: str, encoder: Decoder, how: Configuration, found: dict, rate: float) -> dict:
    """Figures of a configuration, as they are printed; `found` is what `measured` gave."""
    parameters = list(encoder.parameters())
    weights = sum(p.numel() * p.element_size() for p in parameters)
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    tokens = found["tokens"]
    done = cost.flops(encoder)[0] * tokens
    known = found["peak"] > 0
    return {
        "shape": name,
        **asdict(how),
        "pairs": tokens // how.tokens // 2,
        "parameters": sum(p.numel() for p in parameters),
        "trainable": trained,
        "weights_gib": round(weights / GIB, 3),
        "state_gib": round((found["kept"] - weights) / GIB, 3) if known else None,
        "peak_gib": round(found["peak"] / GIB, 3) if known else None,
        "activations_gib": round((found["peak"] - found["kept"]) / GIB, 3) if known else None,
        "seconds": round(found["seconds"], 3),
        "tokens_s": round(tokens / found["seconds"]),
        "utilisation": round(done / found["seconds"] / rate, 3),
        "loss": round(found["loss"], 4),
    }


def rows(
    name: str, device: str, wanted: list[Configuration], pairs: int, limit: float
) -> Iterator[dict]:
    """The lines of a shape, as they come; those beyond the time limit are but counted."""
    begin = perf_counter()
    encoder = build(SHAPES[name], device)
    optimizer = adamw(encoder, Train())
    rate = cost.matmul_rate(torch.device(device), torch.bfloat16)
    yield {"shape": name, "build_seconds": round(perf_counter() - begin, 1), "matmul": rate}
    for number, how in enumerate(wanted):
        if perf_counter() - begin > limit:
            yield {"shape": name, "left_out": len(wanted) - number}
            break
        try:
            found = measured(encoder, optimizer, how, pairs)
            yield row(name, encoder, how, found | {"tokens": 2 * pairs * how.tokens}, rate)
        except torch.OutOfMemoryError:
            yield {"shape": name, **asdict(how), "pairs": pairs, "failed": "out of memory"}
        tidy()


def tidy() -> None:
    """Give back what an earlier configuration, or one that did not fit, has left."""
    gc.collect()
    torch.cuda.empty_cache()


def main() -> None:
    """Print a line of JSON for each configuration, with the card's name."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a toy shape")
    parser.add_argument("--only", nargs="+", choices=("7b", "13b"), default=("7b", "13b"))
    parser.add_argument("--seconds", type=float, default=80, help="after which a shape ends")
    parser.add_argument("--device", choices=("cpu", "cuda"))
    given = parser.parse_args()
    device = given.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if not find_spec("peft"):
        parser.exit(2, "not installed: peft; no adapters can be made without it\n")
    if device == "cpu" and not given.quick:
        parser.exit(2, "no GPU was found or asked for; only --quick runs on a CPU\n")
    card = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    names, wanted, pairs = (["toy"], QUICK, 6) if given.quick else (given.only, FULL, PAIRS)
    for name in names:
        for line in rows(name, device, wanted, pairs, given.seconds):
            print(json.dumps({"speed": "memory", "device": card} | line), flush=True)
        tidy()


if __name__ == "__main__":
    main()
