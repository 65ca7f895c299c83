"""Equal tuning: the same small search for every trained arm, on questions that nobody else asks.

The section `tune` of a study file says which learning rates and temperatures, and on which seeds:

    tune:
      seeds: {100: {train.seed: 100, prepare.fold: 0}}
      train.learning_rate: [1e-3, 3e-3]
      train.temperature: [0.05, 0.1]
      train.steps: 500        # may be left out: as in the study

The search is a study of its own, `<study>-tune`: arms x values x seeds, trained, and validated once
at the end on the dev share of what their folds hold out (prepare.dev). The best setting of each arm
is written to the study file where that is asked for (lib.study.choose). Questions that are
evaluated choose nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lib.mistakes import short
from lib.params import BadParameter, Train

if TYPE_CHECKING:
    from lib.study.grid import Study

SEARCHED = ("train.learning_rate", "train.temperature")
SECTION = ("seeds", *SEARCHED, "train.steps")
OF_A_SEED = {"train.seed", "prepare.fold"}


def search(study: Study, data: dict[str, Any], expand: Callable[[str, dict], Study]) -> Study:
    """The search that the section `tune` of a parsed study file describes. Raises BadParameter.

    expand: makes a study of a name and a parsed file."""
    section, dev = data["tune"], {corpus.dev for corpus in study.corpora.values()}
    _check_section(section)
    if len(dev) > 1 or not max(dev):
        found = "differs between corpora" if len(dev) > 1 else "is 0"
        raise BadParameter(
            f"tune: prepare.dev {found}, so that a search would ask test questions (expected one "
            "share over 0 of what is held out, which is set aside)"
        )
    try:
        found = expand(f"{study.name}-tune", _searched(data, section))
    except BadParameter as error:
        said = str(error).removeprefix("vary: ").replace("vary.seed.", "seeds.")
        raise BadParameter(f"tune: {said}") from None
    shared = _seeds(study) & _seeds(found)
    if shared:
        raise BadParameter(
            f"tune.seeds: train.seed {min(shared)} is one of the study's (expected others: a seed "
            "that chooses is used for nothing else)"
        )
    return found


def _seeds(study: Study) -> set[int]:
    return {run.train.seed for run in study.runs.values()}


def _check_section(section: Any) -> None:
    """Raise BadParameter for what cannot be a search, whatever the study."""
    if not isinstance(section, dict):
        raise BadParameter(
            f"tune: is {short(section)} (expected a mapping of {', '.join(SECTION)})"
        )
    for name in section:
        if name not in SECTION:
            raise BadParameter(f"tune.{name}: cannot be searched (expected {', '.join(SECTION)})")
    for name in SEARCHED:
        values = section.get(name, [0])
        if not isinstance(values, list) or not values:
            raise BadParameter(f"tune.{name}: is {short(values)} (expected a list of values)")
        if again := [value for value in values if values.count(value) > 1]:
            raise BadParameter(f"tune.{name}: {short(again[0])} is named twice")
    if not any(name in section for name in SEARCHED):
        raise BadParameter(f"tune: searches nothing (expected {' or '.join(SEARCHED)})")
    steps = section.get("train.steps", 1)
    if type(steps) is not int or steps < 1:
        raise BadParameter(f"tune.train.steps: is {short(steps)} (expected a whole number from 1)")
    _check_seeds(section.get("seeds"))


def _check_seeds(seeds: Any) -> None:
    where, expected = "tune.seeds", "(expected {name: {train.seed: 100, prepare.fold: 0}})"
    if not isinstance(seeds, dict) or not seeds:
        raise BadParameter(f"{where}: is {short(seeds)} {expected}")
    for label, values in seeds.items():
        names = {*values} if isinstance(values, dict) else set()
        if "train.seed" not in names or names - OF_A_SEED:
            raise BadParameter(f"{where}.{label}: is {short(values)} {expected}")


def arm_axis(vary: Any) -> str:
    """The axis of arms: the only one beside those of seeds and folds. Raises BadParameter."""
    vary = vary if isinstance(vary, dict) else {}
    others = [name for name, spec in vary.items() if not _is_of_seeds(name, spec)]
    if len(others) != 1 or not isinstance(vary[others[0]], dict):
        found = ", ".join(map(str, others)) or "none"
        raise BadParameter(f"needs one axis of named arms beside seeds (found {found})")
    return others[0]


def _is_of_seeds(name: Any, spec: Any) -> bool:
    settings = spec.values() if isinstance(spec, dict) else [{name: None}]
    return all({*values} <= OF_A_SEED for values in settings)


def _searched(data: dict[str, Any], section: dict[str, Any]) -> dict[str, Any]:
    """The search as a parsed study file."""
    axis, train = arm_axis(data.get("vary")), data.get("train", {})
    arms = {label: train | _of_train(values) for label, values in data["vary"][axis].items()}
    settings = {
        label: {n: v for n, v in values.items() if n not in section}
        | _validated(arms[label], section)
        for label, values in data["vary"][axis].items()
        if arms[label].get("steps", 1)
    }
    if not settings:
        raise BadParameter("nothing is trained (expected an arm with train.steps over 0)")
    values = {name: section[name] for name in SEARCHED if name in section}
    vary = {axis: settings, **values, "seed": section["seeds"]}
    return {"prepare": data.get("prepare", {}), "train": train, "vary": vary}


def _of_train(values: dict[str, Any]) -> dict[str, Any]:
    """The settings of training, without their stage's name."""
    return {n.removeprefix("train."): v for n, v in values.items() if n.startswith("train.")}


def _validated(train: dict[str, Any], section: dict[str, Any]) -> dict[str, Any]:
    """Settings of a run that leaves one encoder, validated once, after its last step."""
    default = Train.model_fields["steps"].default
    steps = section.get("train.steps", train.get("steps", default))
    once = {"train.steps": steps, "train.validate_every": steps}
    return once | {"train.patience": 0, "train.budgets": []}
