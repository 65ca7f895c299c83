"""What of a study file is right by itself and does not go together."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from itertools import pairwise

from lib import benchmarks, sources
from lib.params import Analyse, BadParameter, BenchmarkSpec, Evaluate, Prepare, Train
from lib.sampler import arm_name, crosses
from lib.study import paths


def axis(analyse: Analyse, axes: Collection[str], runs: Iterable[str]) -> None:
    """Raises BadParameter for a trend over what is no axis, or no axis of numbers that ascend.

    axes: their names; runs: keys of all runs."""
    if analyse.axis and analyse.axis not in axes:
        named = ", ".join(axes) or "an axis"
        raise BadParameter(f"analyse.axis: {analyse.axis!r} is not varied (expected {named})")
    if analyse.points and not analyse.axis:
        raise BadParameter("analyse.points: does not go with axis '' (expected none)")
    labels = [*dict.fromkeys(paths.labels(run)[analyse.axis] for run in runs if analyse.axis)]
    for label in labels:
        if not _is_positive(analyse, label):
            raise BadParameter(
                f"analyse.points: {label!r} has no number over 0 (expected one for each label)"
            )
    for label in analyse.points:
        if label not in labels:
            expected = ", ".join(labels)
            raise BadParameter(
                f"analyse.points: {label!r} is no label of {analyse.axis} (expected {expected})"
            )
    for first, second in pairwise(labels):
        if not analyse.number_of(first) < analyse.number_of(second):
            raise BadParameter(
                f"analyse.axis: {second!r} comes after {first!r} (expected numbers that ascend)"
            )


def _is_positive(analyse: Analyse, label: str) -> bool:
    try:
        return analyse.number_of(label) > 0
    except ValueError:
        return False


def maps(evaluate: Evaluate, trains: Iterable[Train]) -> None:
    """Raises BadParameter for encoders with a map for each language where texts come without."""
    mapped = next((train.maps for train in trains if train.maps), "")
    kinds = {name: benchmarks.format_of(spec) for name, spec in evaluate.benchmarks.items()}
    untold = [name for name, kind in kinds.items() if not (kind.in_memory and kind.ranked)]
    if mapped and (untold := untold + evaluate.mteb):
        raise BadParameter(
            f"evaluate: {untold[0]!r} does not go with train.maps {mapped!r} (expected benchmarks "
            "that say the language of each text)"
        )


def translations(prepare: Prepare, train: Train) -> None:
    """Raise BadParameter for what needs translations on a corpus that is made for arms that do
    not: they draw from texts that it cannot."""
    arm = train.strategy, train.alpha
    if train.steps and not prepare.parallel and (train.objective or crosses(*arm)):
        what = f"objective: {train.objective}" if train.objective else f"strategy: {arm_name(*arm)}"
        raise BadParameter(
            f"train.{what} needs translations, which does not go with prepare.parallel false "
            "(expected mono, x-x or en-en, and no objective)"
        )


def parts(train: Train) -> None:
    """Raise BadParameter for blocks in parts on one rank, which a study alone knows that it is:
    torchrun may start others."""
    if train.shard and train.ranks == 1:
        raise BadParameter("train.shard: True does not go with ranks 1 (expected 2 or more)")


def articles(specs: Mapping[str, BenchmarkSpec], corpora: Iterable[Prepare]) -> None:
    """Raise BadParameter for a benchmark of unseen articles beside a source that has none."""
    for name in (name for name, spec in specs.items() if spec.unseen):
        for source in (p.source for p in corpora if not sources.module(p.source).SOURCE.articles):
            raise BadParameter(
                f"evaluate.benchmarks[{name}]: unseen: does not go with prepare.source {source!r} "
                "(expected one whose texts are of articles, as squad)"
            )
