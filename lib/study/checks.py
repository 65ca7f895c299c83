"""What of a study file is right by itself and does not go together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from lib import sources
from lib.params import Analyse, BadParameter, BenchmarkSpec, Prepare, Train
from lib.sampler import arm_name, crosses


def axis(analyse: Analyse, axes: Mapping[str, Sequence[str]]) -> None:
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
