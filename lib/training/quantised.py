"""Frozen matrices kept in one byte a number or half of one, by the library bitsandbytes.

int8  each number of a row as one of 255 even steps up to the largest of the row (Dettmers et al.,
      arXiv 2208.07339); products are those of the restored matrix, not of whole numbers
nf4   each of 64 numbers as one of 16 quantiles of a normal distribution, times the largest of the
      64 (QLoRA, Dettmers et al., arXiv 2305.14314, without its second quantisation, of the scales)

A product restores its matrix, and again for the gradient, so that no restored matrix stays in
memory between the two. Rounding is done once, on the CPU: all devices hold the same numbers.
"""

from __future__ import annotations

import logging
from importlib.util import find_spec

import torch

# Of a kernel for CPUs that it does not find, and that nothing here calls. peft imports it too.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

PACKAGE = "bitsandbytes"
KINDS = ("int8", "nf4")
MADE = {"int8": 8, "nf4": 4}  # bytes a number while a matrix is restored; int8 is so in two steps
BLOCK = 64  # numbers of nf4 that share a scale
OWN = (".base_layer.packed", ".base_layer.scales")  # what is held in place of a weight


def check(kind: str, device: str) -> None:
    """Raises ValueError in one line where matrices of a kind cannot be had, or on this device."""
    if kind not in KINDS:
        return
    name = f"train.weights: {kind}"
    if find_spec(PACKAGE) is None:
        what = f".venv/bin/pip install {PACKAGE}, or train.weights: bf16"
        raise ValueError(f"{name} needs the package {PACKAGE} (expected {what})")
    try:
        Quantised(torch.nn.Linear(BLOCK, BLOCK), kind).to(device).restored(torch.float32)
    except Exception as error:  # whatever the library says where it has no kernels for a device
        said = next(iter(str(error).splitlines()), type(error).__name__)
        what = f"cannot be had on {device}: {PACKAGE} says {said!r}"
        raise ValueError(f"{name} {what} (expected bf16 or fp32)") from error


class Quantised(torch.nn.Module):
    """A frozen linear layer whose matrix is kept as `kind` says and its bias as it was.

    packed  int8 [out, in], or uint8 [out * in / 2, 1] with two numbers each
    scales  float32: of each row, or of each BLOCK of numbers"""

    def __init__(self, linear: torch.nn.Linear, kind: str):
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.kind, self.bias = kind, linear.bias
        packed, scales = _pack(linear.weight.detach(), kind)
        self.packed = torch.nn.Parameter(packed, requires_grad=False)
        self.scales = torch.nn.Parameter(scales, requires_grad=False)

    @property
    def weight(self) -> torch.Tensor:
        """The matrix that it multiplies with, float32 [out, in], made anew."""
        return self.restored(torch.float32)

    def restored(self, dtype: torch.dtype) -> torch.Tensor:
        """The same in a precision."""
        from bitsandbytes import functional

        if self.kind == "int8":
            return functional.int8_vectorwise_dequant(self.packed, self.scales).to(dtype)
        shape = torch.Size((self.out_features, self.in_features))
        state = functional.QuantState(
            self.scales, shape, dtype=dtype, blocksize=BLOCK, quant_type=self.kind
        )
        return functional.dequantize_4bit(self.packed, state)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Its product in bf16 where all are, and else, as in validation, in the precision of x."""
        half = torch.is_autocast_enabled(x.device.type)
        return _Product.apply(x.to(torch.bfloat16) if half else x, self)


def uncounted(model: torch.nn.Module) -> int:
    """How many more numbers its quantised matrices have than what stands for them: nf4 packs two
    into one, and both have scales."""
    held = (x.packed.numel() + x.scales.numel() for x in _layers(model))
    return sum(map(_numbers, _layers(model))) - sum(held)


def restoring(model: torch.nn.Module) -> int:
    """Bytes that its largest quantised matrix takes while it is restored."""
    return max((MADE[x.kind] * _numbers(x) for x in _layers(model)), default=0)


def _layers(model: torch.nn.Module) -> list[Quantised]:
    return [x for x in model.modules() if isinstance(x, Quantised)]


def _numbers(layer: Quantised) -> int:
    return layer.in_features * layer.out_features


def _pack(matrix: torch.Tensor, kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    """(packed, scales) of a matrix, as Quantised has them."""
    from bitsandbytes import functional

    if kind == "int8":
        return functional.int8_vectorwise_quant(matrix.half())[:2]  # it is made for fp16
    packed, state = functional.quantize_4bit(matrix, blocksize=BLOCK, quant_type=kind)
    return packed, state.absmax


class _Product(torch.autograd.Function):
    """x W^T + b of a layer, for which autograd would keep the restored W until the gradient."""

    @staticmethod
    def forward(ctx, x: torch.Tensor, layer: Quantised) -> torch.Tensor:
        ctx.layer = layer
        return torch.nn.functional.linear(x, layer.restored(x.dtype), layer.bias)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradient @ ctx.layer.restored(gradient.dtype), None
