"""The schema as people read it: parameter cells of notebooks, and the reference."""

from __future__ import annotations

import json
from typing import Any, get_args

from pydantic.fields import FieldInfo

from lib import benchmarks, sources
from lib.params import STAGES, BenchmarkSpec

HEADINGS = {
    "prepare": {
        "source": "training pairs",
        "fold": "what is held out",
        "form": "the embedded corpus (cldr)",
        "passage": "other sources",
        "max_chars": "texts and tokens",
    },
    "train": {
        "corpus": "batches",
        "negatives": "loss",
        "model": "encoder",
        "steps": "training",
        "precision": "speed and memory",
        "checkpoint_every": "checkpoints, log, validation",
        "seed": "what last bits depend on",
    },
}  # what begins with a parameter
LISTED = {"source": sources.names, "format": benchmarks.names}  # modules, not the schema, say which


def cell(stage: str) -> str:
    """Source of the parameter cell of a stage's notebook: typed, commented literals."""
    lines = []
    for name, field in STAGES[stage].model_fields.items():
        if heading := HEADINGS.get(stage, {}).get(name):
            lines += ["", f"# {heading.capitalize()}"]
        value = _literal(field.default)
        line = f"{name}: {type(field.default).__name__} = {value}"
        options = _options(name, field)
        comment = f"# {field.description}{': ' * bool(options)}{', '.join(options)}"
        fits = len(line) + len(comment) + 2 <= 100
        lines += [f"{line}  {comment}"] if fits else [comment, line]
    return "\n".join(lines)


def _literal(value: Any) -> str:
    """A default as Python writes it."""
    if isinstance(value, bool | float):
        return repr(value)
    return json.dumps(value, ensure_ascii=False)


def _options(name: str, field: FieldInfo) -> tuple[str, ...]:
    """The values that a text can have, where they are few."""
    if name in LISTED:
        return tuple(LISTED[name]())
    return [x for x in get_args(field.annotation) if x] if isinstance(field.default, str) else ()


def reference() -> str:
    """Every parameter of every stage as Markdown tables: docs/parameters.md."""
    parts = [
        "# Parameters",
        "",
        "Made from the schema (`lib/params.py`) by `python -m lib.study parameters`. A study file "
        "sets them by stage, a notebook in its first cell.",
    ]
    for stage, model in STAGES.items():
        parts += ["", f"## {stage}", *_table(model.model_fields, HEADINGS.get(stage, {}))]
    parts += ["", "## One entry of evaluate.benchmarks", *_table(BenchmarkSpec.model_fields, {})]
    return "\n".join(parts) + "\n"


def _table(fields: dict[str, FieldInfo], headings: dict[str, str]) -> list[str]:
    lines = ["", "| parameter | default | meaning |", "|---|---|---|"]
    for name, field in fields.items():
        if name in headings:
            lines.append(f"| **{headings[name]}** | | |")
        options = ", ".join(f"`{x}`" for x in _options(name, field))
        words = f"{field.description or 'what it is'}{': ' * bool(options)}{options}"
        default = "(needed)" if field.is_required() else f"`{_literal(field.default)}`"
        lines.append(f"| `{name}` | {default} | {words} |".replace("||", "|"))
    return lines
