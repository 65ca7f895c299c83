"""The axis that a report follows: whether it is one of the study, and of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lib.params import Analyse, BadParameter


def check(analyse: Analyse, axes: Mapping[str, Sequence[str]]) -> None:
    """Raises BadParameter for a trend over what is no axis, or no axis of numbers.

    axes: name -> labels of its settings, "" of those that are spelled by their values."""
    if analyse.axis and analyse.axis not in axes:
        named = ", ".join(axes) or "an axis"
        raise BadParameter(f"analyse.axis: {analyse.axis!r} is not varied (expected {named})")
    if analyse.points and not analyse.axis:
        raise BadParameter("analyse.points: does not go with axis '' (expected none)")
    for label in filter(None, axes.get(analyse.axis, ())):
        if not _is_positive(analyse, label):
            raise BadParameter(
                f"analyse.points: {label!r} has no number over 0 (expected one for each label)"
            )


def _is_positive(analyse: Analyse, label: str) -> bool:
    try:
        return analyse.number_of(label) > 0
    except ValueError:
        return False
