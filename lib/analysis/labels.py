"""Where names stand in a figure, so that they cover nothing: geometry alone, in pixels.

A box is (left, bottom, right, top).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import isotonic_regression

# Pixels from a mark to the nearest edge of its name: right or left, above or below, or both.
OFFSETS = np.array(
    [
        (far * across, far * up)
        for far in (10, 17, 27, 40, 55, 75, 100)
        for across, up in (
            *((1, 0), (-1, 0), (0, 1), (0, -1)),
            *((1, 0.7), (1, -0.7), (-1, 0.7), (-1, -0.7)),
            *((0.5, 1), (0.5, -1), (-0.5, 1), (-0.5, -1)),
        )
    ]
)
OUTSIDE, OVER, THROUGH, LINE = 1e4, 1e3, 80, 25  # what is wrong with a place, in pixels of way
ROUNDS = 4  # each name is moved so often, the others being where they are


def place(
    marks: np.ndarray, sizes: np.ndarray, inside: np.ndarray, lines: np.ndarray, mark: float
) -> np.ndarray:
    """The offset of each name, float64 [n, 2] out of OFFSETS: that with the least cost.

    A name should be inside a box, on no mark, no other name and few points of lines; the straight
    line from mark to name should cross no others; and it should be near.

    marks   float64 [n, 2]; `mark` is half the width of one
    sizes   float64 [n, 2], width and height of the names
    lines   float64 [m, 2], points along lines, in even steps
    """
    boxes = _boxes(marks, sizes)
    ways = marks[:, None, None] + np.linspace(0.2, 1, 9)[:, None] * OFFSETS[:, None]
    around = np.concatenate([marks - mark, marks + mark], axis=1)
    fixed = OUTSIDE * ((boxes < [*inside[:2]] * 2) | (boxes > [*inside[2:]] * 2)).any(-1)
    fixed += OVER * _overlap(boxes[:, :, None], around).sum(-1)
    fixed += LINE * _holds(boxes, lines[:, None, None]).sum(0)
    crossed = _holds(around, ways[:, :, :, None]).any(2)  # [n, offsets, marks]
    crossed[range(len(marks)), :, range(len(marks))] = False
    fixed += THROUGH * crossed.sum(-1) + np.hypot(*OFFSETS.T)
    chosen, every = fixed.argmin(1), np.arange(len(marks))
    for _ in range(ROUNDS):
        for one in every:
            rest = every[every != one]
            others = boxes[rest, chosen[rest]]
            cost = fixed[one] + OVER * _overlap(boxes[one][:, None], others).sum(-1)
            cost += THROUGH * _holds(others, ways[one][:, :, None]).any(1).sum(-1)
            theirs = ways[rest, chosen[rest]][:, :, None]
            cost += THROUGH * _holds(boxes[one], theirs).any(1).sum(0)
            chosen[one] = cost.argmin()
    return OFFSETS[chosen]


def _boxes(marks: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The box of every name at every offset, float64 [n, offsets, 4]."""
    centre = marks[:, None] + OFFSETS + np.sign(OFFSETS) * [1, 0] * sizes[:, None] / 2
    upright = (OFFSETS[:, 0] == 0)[:, None] * np.sign(OFFSETS) * [0, 1]
    centre = centre + upright * sizes[:, None] / 2
    return np.concatenate([centre - sizes[:, None] / 2, centre + sizes[:, None] / 2], axis=-1)


def _overlap(box: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Whether boxes [..., 4] share an area, broadcast."""
    return ((box[..., :2] < other[..., 2:]) & (other[..., :2] < box[..., 2:])).all(-1)


def _holds(box: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Whether boxes [..., 4] hold points [..., 2], broadcast."""
    return ((box[..., :2] <= points) & (points <= box[..., 2:])).all(-1)


def along(line: np.ndarray, step: float = 4) -> np.ndarray:
    """Points of a polyline [n, 2], `step` apart or a little less; none where it has no place."""
    parts = [np.empty((0, 2))]
    for start, end in zip(line[:-1], line[1:], strict=True):
        if np.isfinite([start, end]).all():
            count = int(np.hypot(*(end - start)) / step) + 2
            parts.append(start + np.linspace(0, 1, count)[:, None] * (end - start))
    return np.concatenate(parts)


def spread(places: Sequence[float], gap: float, low: float, high: float) -> np.ndarray:
    """Places moved as little as can be (least squares) so that they are `gap` apart and, if there
    is room, within low..high: names at the ends of lines.

    Of sorted places y, z[i] = y[i] - i gap must not fall: isotonic regression (Barlow et al. 1972,
    "Statistical inference under order restrictions").

    >>> spread([0.5, 0.5, 0.9], 0.2, 0, 1).round(3).tolist()
    [0.4, 0.6, 0.9]
    """
    order = np.argsort(places, kind="stable")
    steps = gap * np.arange(len(order))
    moved = isotonic_regression(np.asarray(places, float)[order] - steps).x
    spaced = np.empty(len(order))
    spaced[order] = np.clip(moved, low, max(low, high - steps[-1])) + steps
    return spaced
