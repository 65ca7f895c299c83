"""The trade-off plane: two means of the same seeds as a point with an ellipse; the Pareto front."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from lib.analysis.cells import Cells, cells, union
from lib.analysis.stats import Interval, cluster_covariance, components, interval, sampling_part


@dataclass(frozen=True)
class Region:
    """Two means of the same seeds, as a point of a plane with an ellipse around it.

    covariance  float64 [2, 2] of the two estimates
    points      float64 [n, 2], the ellipse as an open polygon; its projections on the axes are
                exactly the two intervals. It is a picture of both, not a joint region: both means
                lie in it less often than each in its own interval.
    """

    x: Interval
    y: Interval
    covariance: np.ndarray
    points: np.ndarray

    @property
    def correlation(self) -> float:
        """Correlation of the two estimates in -1..1; 0 where one of them does not vary."""
        return _correlation(self.covariance)

    def within(self, lowest: float, highest: float) -> Region:
        """Both intervals and the ellipse cut off at lowest and highest: means of 0 to 1."""
        x, y = (mean.within(lowest, highest) for mean in (self.x, self.y))
        return replace(self, x=x, y=y, points=np.clip(self.points, lowest, highest))


def region(
    table_x: pd.DataFrame | Cells,
    table_y: pd.DataFrame | Cells,
    level: float = 0.95,
    fixed: bool = False,
) -> Region:
    """Ellipse of two means over the same seeds, such as mono and cross mAP of one arm.

    They covary by the seed effects and by the cluster effects (clusters of both tables count,
    shared ones covary). Seed effects that one table does not show cannot covary, and no correlation
    exceeds 1. With half widths h and correlation r the boundary is x + h_x cos(a),
    y + h_y cos(a - arccos(r)): its extremes are the intervals' ends.
    fixed: as of `interval`. Raises ValueError when the seeds differ, or like `interval`."""
    own = cells(table_x), cells(table_y)
    seeds, other = (set(one.seeds) for one in own)
    if seeds != other:
        raise ValueError(
            f"a region needs the same seeds on both axes: {sorted(seeds ^ other)} only on one"
        )
    x, y = (interval(one, level, fixed) for one in own)
    covariance = _covariance(*own)
    turn = np.arccos(_correlation(covariance))
    angle = np.linspace(0, 2 * np.pi, 128, endpoint=False)
    ends = [0.0, np.pi, turn, turn + np.pi]  # so that the polygon, too, touches all four ends
    angle = np.unique(np.concatenate([angle, ends]))
    points = [
        x.estimate + x.half_width * np.cos(angle),
        y.estimate + y.half_width * np.cos(angle - turn),
    ]
    return Region(x, y, covariance, np.stack(points, axis=1))


def pareto(points: np.ndarray) -> np.ndarray:
    """bool [n]: rows of `points` [n, k] that no other row dominates, larger being better.

    A row dominates another that it equals or exceeds everywhere and exceeds somewhere, so equal
    rows keep each other. Raises ValueError for another shape or NaN.

    >>> pareto(np.array([[1, 3], [2, 2], [1, 2]])).tolist()
    [True, True, False]
    """
    points = np.asarray(points, float)
    if points.ndim != 2 or np.isnan(points).any():
        raise ValueError(f"points must be numbers [n, k] without NaN, got shape {points.shape}")
    as_good = (points[:, None] >= points).all(-1)
    better = (points[:, None] > points).any(-1)
    return ~(as_good & better).any(0)


def _covariance(cells_x: Cells, cells_y: Cells) -> np.ndarray:
    """Covariance float64 [2, 2] of the two estimates over the same seeds.

    Their correlation is that of the method-of-moments components, whose seeds' part is what is left
    of V_s without V_e; the variances are V."""
    clusters = union(cells_x, cells_y)
    own = cells_x.on(clusters), cells_y.on(clusters)
    x, y = (components(one.value, one.weight) for one in own)
    pulls = [one.share * (one.value - one.means[:, None]) for one in own]
    cross = cluster_covariance(own[0].share, pulls[0], own[1].share, pulls[1])
    between = (x.means - x.estimate) @ (y.means - y.estimate) / max(x.seeds - 1, 1)
    seeds = [np.maximum(0.0, one.between - one.sampling) / one.seeds for one in (x, y)]
    most = np.sqrt(seeds[0] * seeds[1])
    both = np.clip((between - sampling_part(cross)) / x.seeds, -most, most) + cross.mean()
    parts = [seed + one.parts[1] for seed, one in zip(seeds, (x, y), strict=True)]
    correlation = _correlation(np.array([[parts[0], both], [both, parts[1]]]))
    both = correlation * np.sqrt(x.variance * y.variance)
    return np.array([[x.variance, both], [both, y.variance]])


def _correlation(covariance: np.ndarray) -> float:
    """Correlation in -1..1 of a 2 x 2 covariance matrix; 0 where a variance is 0."""
    scale = np.sqrt(covariance[0, 0] * covariance[1, 1])
    return float(np.clip(covariance[0, 1] / scale, -1, 1)) if scale > 0 else 0.0
