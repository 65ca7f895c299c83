"""LoRA: small matrices beside the frozen ones of a model, the only weights of it that are trained.

`train.lora: 16` puts matrices of rank 16 beside every linear layer inside the blocks (Hu et al.,
arXiv 2106.09685, as the package peft makes them; on all of them as in Dettmers et al., arXiv
2305.14314, section 4). Of the model only they have states in AdamW and lie in checkpoints; heads
behind it (Dense of a LaBSE) and free maps are trained whole beside them. What is
saved is an ordinary checkpoint, with what they learned added to the matrices beside them, so
that nothing that reads it has to know.

`train.weights: bf16` keeps the frozen matrices in two bytes a number. Products under
`precision: bf16` round them to that anyway, so training is the same to the bit; what is saved is
the rounded matrix, with what was learned added in fp32. `int8` and `nf4` keep them in one byte a
number and half of one (lib.training.quantised), and what is saved is again what was trained beside.
"""

from __future__ import annotations

from importlib.util import find_spec

import torch

from lib.params import Train
from lib.training import quantised

PACKAGE = "peft"
SCALE = 2  # lora_alpha over the rank: what is learned counts twice, as is usual


def check(p: Train, model: torch.nn.Module, device: str) -> None:
    """Raises ValueError in one line where adapters are asked for and cannot be had, or matrices
    beside them as they are asked for on this device."""
    if not p.lora:
        return
    if find_spec(PACKAGE) is None:
        what = ".venv/bin/pip install peft, or train.lora: 0"
        raise ValueError(f"train.lora: {p.lora} needs the package peft (expected {what})")
    if not targets(model):
        words = "has no linear layers in blocks (expected 0)"
        raise ValueError(f"train.lora: model {p.model!r} {words}")
    quantised.check(p.weights, device)


def targets(model: torch.nn.Module) -> list[str]:
    """Names of the linear layers that adapters stand beside: all inside numbered blocks."""
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and any(part.isdigit() for part in name.split("."))
    ]


def put_in(model: torch.nn.Module, p: Train) -> torch.nn.Module:
    """The model, frozen, with adapters beside its matrices, which change nothing at first; as it
    was for p.lora 0. Random numbers follow from the seed, and nobody else's change."""
    if not p.lora:
        return model
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(
        r=p.lora, lora_alpha=SCALE * p.lora, lora_dropout=0.0, target_modules=targets(model)
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(p.seed)
        model = inject_adapter_in_model(config, model.requires_grad_(False))
    for module in beside(model).values() if p.weights != "fp32" else ():
        module.base_layer = _kept(module.base_layer, p.weights)  # only now: adapters would be too
    return model


def _kept(linear: torch.nn.Linear, weights: str) -> torch.nn.Module:
    """A frozen layer that keeps its matrix as p.weights says."""
    return Halved(linear) if weights == "bf16" else quantised.Quantised(linear, weights)


def beside(model: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """Name -> each matrix with the adapter beside it."""
    return {name: x for name, x in model.named_modules() if hasattr(x, "base_layer")}


class Halved(torch.nn.Module):
    """A frozen linear layer whose matrix is kept in bf16 and its bias as it was."""

    def __init__(self, linear: torch.nn.Linear):
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight = torch.nn.Parameter(linear.weight.to(torch.bfloat16), requires_grad=False)
        self.bias = linear.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Its product in bf16 where all are, and else, as in validation, in the precision of x."""
        half = torch.is_autocast_enabled(x.device.type)
        return torch.nn.functional.linear(
            x, self.weight if half else self.weight.to(x.dtype), self.bias
        )


@torch.no_grad()
def merged(model: torch.nn.Module) -> dict[str, torch.Tensor] | None:
    """The weights of the model as it was loaded, with what adapters learned added: named as there,
    matrices in the CPU's memory, since a GPU may hold them in fewer bytes alone. None where it has
    no adapters."""
    from_adapters = beside(model)
    if not from_adapters:
        return None
    weights = {
        name.replace(".base_layer.", "."): value
        for name, value in model.state_dict().items()
        if ".lora_" not in name and not name.endswith(quantised.OWN)
    }
    for name, module in from_adapters.items():
        learned = module.get_delta_weight("default")
        weights[f"{name}.weight"] = (module.base_layer.weight + learned).cpu()
    return weights
