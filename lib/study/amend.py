"""Set parameters in a study file, and leave every other character of it as it is.

A round trip through a YAML library keeps comments, but not the columns that people align. So only
the places of settings are taken from the parser, and the result is read again and compared.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from lib.params import BadParameter

if TYPE_CHECKING:
    from ruamel.yaml.nodes import Node

Values = Mapping[str, float]  # `stage.parameter` -> value
OURS = re.compile(r"[ \t]*# tuned:.*")
# What may follow a setting on its line if a comment is to stand there; group 1 is one that does.
REST = re.compile(r":?[ \t]*(#[^\r\n]*)?(?=\r?\n|\Z)")


class Edit(NamedTuple):
    """`text` in place of the characters from `start` to `end`."""

    start: int
    end: int
    text: str


def amended(text: str, axis: str, chosen: Mapping[str, Values], notes: Mapping[str, str]) -> str:
    """The study file `text` with values set in the named settings of an axis.

    notes: setting -> what a comment on its line says, in place of an earlier one; left out where
    the line goes on. Raises BadParameter unless all settings are mappings of their own."""
    from ruamel.yaml import YAML

    settings = _entries(_of(_of(YAML(pure=True).compose(text), "vary"), axis))
    edits: list[Edit] = []
    for label, values in chosen.items():
        for key, setting in (pair for pair in settings if pair[0].value == label):
            edits += _values(text, setting, values)
            edits += _note(text, setting if setting.flow_style else key, notes[label])
    new = text
    for edit in sorted(edits, key=lambda edit: edit.start, reverse=True):
        new = new[: edit.start] + edit.text + new[edit.end :]
    reader = YAML(typ="safe", pure=True)
    if _read(reader, new) != _wanted(_read(reader, text), axis, chosen):
        raise BadParameter(
            f"vary.{axis}: cannot be written to (expected each setting as a mapping of its own, "
            "without anchors); add the lines by hand"
        )
    return new


def _entries(node: Node | None) -> list[tuple[Node, Node]]:
    """Keys and values of a mapping; none of what is no mapping."""
    return node.value if node is not None and node.id == "mapping" else []


def _of(node: Node | None, name: str) -> Node | None:
    return next((value for key, value in _entries(node) if key.value == name), None)


def _values(text: str, setting: Node, values: Values) -> list[Edit]:
    """Each value in the place of the one that is there, or else before the first."""
    edits, new = [], []
    for name, value in values.items():
        if (there := _of(setting, name)) is None:
            new.append(f"{name}: {value!r}")
        else:
            edits.append(Edit(there.start_mark.index, there.end_mark.index, repr(value)))
    return edits + ([_addition(text, setting, new)] if new else [])


def _addition(text: str, setting: Node, lines: list[str]) -> Edit:
    """Further entries: after the last one of `{a: 1}`, on lines of their own before a block."""
    if not setting.flow_style:
        mark = setting.start_mark
        indent = ("\r\n" if "\r\n" in text else "\n") + " " * mark.column
        return Edit(mark.index, mark.index, "".join(line + indent for line in lines))
    entries = _entries(setting)
    if entries:
        at = entries[-1][1].end_mark.index
        return Edit(at, at, "".join(f", {line}" for line in lines))
    at = setting.start_mark.index + 1
    return Edit(at, at, ", ".join(lines))


def _note(text: str, node: Node, note: str) -> list[Edit]:
    """The comment at the end of the line on which the node ends."""
    at = node.end_mark.index
    rest = REST.match(text, at)
    if not rest:
        return []
    kept = OURS.sub("", rest[0])
    return [Edit(at, rest.end(), f"{kept}  # tuned: {note}")]


def _read(reader: Any, text: str) -> Any:
    """A parsed file; None where it is not one, which an edit may have brought about."""
    from ruamel.yaml.error import YAMLError

    try:
        return reader.load(text)
    except YAMLError:
        return None


def _wanted(data: Any, axis: str, chosen: Mapping[str, Values]) -> Any:
    """The parsed file as it is to be."""
    settings = data["vary"][axis]
    own = {label: {**settings[label], **values} for label, values in chosen.items()}
    return {**data, "vary": {**data["vary"], axis: {**settings, **own}}}
