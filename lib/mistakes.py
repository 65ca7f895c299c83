"""What is wrong with a value that a parameter cannot have, or with two, in words of one line."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from annotated_types import Ge, Gt, Le, Lt

EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
}


def explained(error: Mapping[str, Any], bounds: list, known: Iterable[str]) -> str:
    """What is wrong with a value, and what was expected, from one of pydantic's error records.

    bounds: annotations of the parameter's range. known: names that a mapping in it may have."""
    kind, value = error["type"], error["input"]
    if kind == "value_error":
        return error["msg"].removeprefix("Value error, ")
    if kind == "literal_error":
        options = error["ctx"]["expected"].replace("'", "").replace(" or ", ", ")
        return f"{short(value)} is unknown (expected one of {options})"
    if kind == "missing":
        return "is missing"
    if kind == "extra_forbidden":
        return f"unknown{nearest(error['loc'][-1], known)}"
    if kind in EXPECTED:
        quoted = isinstance(value, str) and re.fullmatch(r"[-+.\deE]+", value)
        quotes = " without quotes" if quoted and "number" in EXPECTED[kind] else ""
        what = "is empty" if value is None else f"{short(value)} is {_kind(value)}"
        return f"{what} (expected {EXPECTED[kind]}{quotes})"
    if kind in ("greater_than", "greater_than_equal", "less_than", "less_than_equal"):
        expected = (
            _range([] if error["loc"][1:] else bounds, whole=kind.startswith("less")) or "0 to 1"
        )
        return f"{short(value)} is out of range (expected {expected})"
    return f"{short(value)}: {error['msg']}"


def _range(bounds: list, whole: bool) -> str:
    """The annotated bounds in words; an upper one that is far beyond use only if `whole`."""
    low = next((b.ge for b in bounds if isinstance(b, Ge)), None)
    above = next((b.gt for b in bounds if isinstance(b, Gt)), None)
    high = next((b.le for b in bounds if isinstance(b, Le)), None)
    below = next((b.lt for b in bounds if isinstance(b, Lt)), None)
    if low is not None and high is not None and (whole or high < 2**16):
        return f"{low} to {high}"
    words = [f"{low} or more"] * (low is not None) + [f"more than {above}"] * (above is not None)
    words += [f"less than {below}"] * (below is not None)
    return ", ".join(words)


def _kind(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "not finite"
    names = {str: "text", bool: "true/false", int: "a number", float: "a decimal number",
             list: "a list", dict: "a mapping"}  # fmt: skip
    return names.get(type(value), type(value).__name__)


def short(value: Any) -> str:
    if value is None or (isinstance(value, list | dict) and not value):
        return "empty"
    try:
        text = " ".join(repr(value).split())  # of an array it has lines
    except ValueError:
        return "a number of thousands of digits"
    return text if len(text) <= 40 else f"{text[:37]}..."


def nearest(name: Any, options: Iterable[str]) -> str:
    """The nearest option as a question, or all of them."""
    near = difflib.get_close_matches(str(name), options, n=1, cutoff=0.6)
    return f" (did you mean {near[0]}?)" if near else f" (expected one of {', '.join(options)})"


def _of_checkpoints(p: Any) -> tuple[tuple, ...]:
    """The rows of `require_fit` about what only checkpoints have."""
    return (
        (p.layers_kept and not p.model, "layers_kept", "model ''", "0"),
        (p.frozen and not p.model, "frozen", "model ''", "0"),
        (p.remote_code and not p.model, "remote_code", "model ''", "False"),
        (p.lora and not p.model, "lora", "model ''", "0"),
        (p.weights != "fp32" and not p.lora, "weights", "lora 0", "fp32"),
        (p.weights == "bf16" != p.precision, "weights", "precision 'fp32'", "fp32"),
        (p.lora and p.frozen, "lora", f"frozen {p.frozen}", "one of the two"),
    )


def require_fit(p: Any) -> None:
    """Raises ValueError for parameters of the stage `train` (lib.params.Train) that are right by
    themselves and do not go with each other."""
    hard, most = p.negatives in ("explicit", "both"), p.most_negatives
    kind = f"negatives {p.negatives!r}"
    for wrong, name, other, expected in (
        ((p.explicit > 0) != hard, "explicit", kind, "1 or more" if hard else "0"),
        (most and hard, "most_negatives", kind, "0"),
        (most >= p.batch_size, "most_negatives", f"batch_size {p.batch_size}", "less"),
        (p.symmetric and (most or p.negatives not in ("in_batch", "both")), "symmetric",
         f"{kind}, most_negatives {most}", "False: not all rows' passages are contrasted"),
        (p.only and p.strategy not in ("mono", "x-x"), "only", f"strategy {p.strategy!r}",
         "none, or mono or x-x"),
        (p.patience and not p.validate_every, "patience", "validate_every 0", "0"),
        (not p.objective and p.objective_weight != 1, "objective_weight",
         "objective ''", "1"),
        (p.shard and p.frozen, "frozen", "shard True", "0"),
        (p.shard and p.compile, "compile", "shard True", "False"),
        (p.shard and p.look_every, "look_every", "shard True", "0"),
        (p.shard and p.weights in ("int8", "nf4"), "weights", "shard True", "fp32 or bf16"),
        (p.objective == "distil" and p.maps, "maps", "objective 'distil'", "none"),
        (p.objective == "lakda" and p.mono_prompt, "mono_prompt", "objective 'lakda'", "none"),
        (p.objective == "lakda" and p.cross_prompt, "cross_prompt", "objective 'lakda'", "none"),
        *_of_checkpoints(p),
        (p.angle and p.maps not in ("rotated", "free"), "angle", f"maps {p.maps!r}",
         "rotated or free"),
        ((p.directions > 0) != (p.maps == "projected"), "directions",
         f"maps {p.maps!r}", "1 or more of projected, else 0"),
    ):  # fmt: skip
        if wrong:
            raise ValueError(
                f"train.{name}: {getattr(p, name)} does not go with {other} (expected {expected})"
            )
    for name, whole in (("heads", "width"), ("ranks", "batch_size")):
        if getattr(p, whole) % getattr(p, name):
            raise ValueError(
                f"train.{name}: {getattr(p, name)} does not divide the {whole} "
                f"{getattr(p, whole)} (expected a divisor)"
            )
