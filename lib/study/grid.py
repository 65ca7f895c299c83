"""From a study file to its grid: which corpora and which runs, and what is wrong with the file.

One flat mapping a stage, and under `vary` the axes of the grid; every mistake is one line that
names file and key, and is found before anything runs.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lib import benchmarks, sources, store
from lib.mistakes import nearest, short
from lib.params import (
    DRIVEN,
    LABEL,
    STAGES,
    VARIED,
    Analyse,
    BadParameter,
    BenchmarkSpec,
    DoNotFitTogether,
    Evaluate,
    Prepare,
    Stage,
    Train,
    checked,
    spelled,
)
from lib.sampler import ROWS, arm_name
from lib.store import ROOT
from lib.study import checks, inputs, tune
from lib.study.paths import study_dir

SECTIONS = (*STAGES, "vary", "tune")


@dataclass(frozen=True)
class RunParams:
    """What one training run of a study and its evaluation are asked to do."""

    train: Train
    evaluate: Evaluate


@dataclass(frozen=True)
class Study:
    """A grid of runs: corpora and runs by key, in declared order."""

    name: str
    corpora: dict[str, Prepare]
    runs: dict[str, RunParams]
    analyse: Analyse
    file: str = ""  # what it was read from, seen from ROOT
    contents: dict[str, str] = field(default_factory=dict)  # path -> hash, of what it names

    @property
    def size(self) -> str:
        """`1 corpus, 40 runs`."""
        corpora, runs = len(self.corpora), len(self.runs)
        return f"{corpora} corp{'us' if corpora == 1 else 'ora'}, {runs} run{'s' * (runs != 1)}"


def load_study(path: str | Path, changes: Iterable[str] = ()) -> Study:
    """Read and expand a study file. Raises BadParameter in one line naming file and key.

    changes: `stage.parameter=value`, each in place of what the file says; values as in YAML."""
    return _load(path, changes)[0]


def load_search(path: str | Path, changes: Iterable[str] = ()) -> Study:
    """The search that a study file asks for (lib.study.tune). Raises BadParameter, or for none."""
    search = _load(path, changes)[1]
    if search is None:
        raise BadParameter(f"{path}: has no section tune (expected one: docs/tuning.md)")
    return search


def _load(path: str | Path, changes: Iterable[str]) -> tuple[Study, Study | None]:
    """The study and the search of a file: what is wrong with either is said before any starts."""
    try:
        data = _read_yaml(path)
        for change in changes:
            _change(data, change)
        study, search = _expand(study_name(path), data), None
        if "tune" in data:
            search = tune.search(study, data, _expand)
    except BadParameter as error:
        raise BadParameter(f"{path}: {error}") from None
    file = os.path.relpath(Path(path).resolve(), ROOT)
    return replace(study, file=file), search and replace(search, file=file)


def startable(path: str | Path, changes: Iterable[str] = (), search: bool = False) -> Study:
    """load_study, or load_search, with the files and folders that are named looked for, and looked
    at."""
    study = (load_search if search else load_study)(path, changes)
    try:
        inputs.check_paths(study)
        inputs.check_beginnings(study)
    except BadParameter as error:
        raise BadParameter(f"{path}: {error}") from None
    return study


def with_contents(study: Study) -> Study:
    """The study with hashes of all that it names, which may take a while the first time."""
    found = [inputs.contents(p) for p in inputs.stages(study)]
    return replace(study, contents={k: x for one in found for k, x in one.items()})


def freeze(study: Study) -> None:
    """Write the expanded study to outputs/<study>/study.json, which stages and analysis read."""
    runs = {
        key: {"train": run.train.model_dump(), "evaluate": run.evaluate.model_dump()}
        for key, run in study.runs.items()
    }
    corpora = {key: corpus.model_dump() for key, corpus in study.corpora.items()}
    frozen = {
        "file": study.file,
        "corpora": corpora,
        "runs": runs,
        "analyse": study.analyse.model_dump(),
        "contents": study.contents,
    }
    store.write_json(study_dir(study.name) / "study.json", frozen)


def load_frozen(name: str) -> Study:
    """The study that outputs/<name>/study.json holds. Raises BadParameter where there is none."""
    file = study_dir(name) / "study.json"
    try:
        data = store.read_json(file)
        corpora = {key: Prepare(**values) for key, values in data["corpora"].items()}
        runs = {
            key: RunParams(Train(**run["train"]), Evaluate(**run["evaluate"]))
            for key, run in data["runs"].items()
        }
        analyse, file_of = Analyse(**data["analyse"]), str(data.get("file", ""))
        return Study(name, corpora, runs, analyse, file_of, dict(data["contents"]))
    except FileNotFoundError:
        raise BadParameter(f"{file}: no such study; `make study` starts one") from None
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise BadParameter(f"{file}: was written by another version ({first})") from None


def keys(study: str) -> list[str]:
    """Keys of the runs that a study consists of, in declared order; [] for runs made by hand."""
    if not (study_dir(study) / "study.json").exists():
        return []
    return list(load_frozen(study).runs)


def study_name(path: str | Path) -> str:
    """The name of a study is that of its file. Raises BadParameter if no folder can have it."""
    name = Path(path).stem
    if not LABEL.fullmatch(name):
        raise BadParameter(f"{name!r} cannot name a study (expected letters, digits, . _ + -)")
    if name in ("lab", "reference", "compare"):
        raise BadParameter(f"the name {name!r} is reserved (expected another file name)")
    return name


def _read_yaml(path: str | Path) -> dict[str, Any]:
    """YAML 1.2, so that `no` is a language and 1e-5 a number; duplicate keys are errors."""
    from ruamel.yaml import YAML
    from ruamel.yaml.constructor import DuplicateKeyError
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        data = YAML(typ="safe", pure=True).load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise BadParameter(f"cannot be read ({error.strerror})") from None
    except MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        problem, expected = " ".join(str(error.problem).split()), "YAML"
        if isinstance(error, DuplicateKeyError):  # its values are not read yet, and shown as {}
            problem, expected = problem.partition(" with value")[0], "it once"
        raise BadParameter(f"{line}{problem} (expected {expected})") from None
    except (YAMLError, ValueError, LookupError) as error:
        raise BadParameter(f"is not YAML ({' '.join(str(error).split())})") from None
    except RecursionError:
        raise BadParameter("is nested too deeply (expected a mapping of each stage)") from None
    _refuse_unwritable(data)
    if not isinstance(data, dict):
        raise BadParameter(f"is {short(data)} (expected {', '.join(SECTIONS)})")
    return data


def _refuse_unwritable(value: Any, where: str = "", within: tuple[int, ...] = ()) -> None:
    """Raise BadParameter naming the key of what YAML can say and no file can: a text that is not
    Unicode, a value that holds itself, a number of thousands of digits."""
    try:
        f"{where} {json.dumps(value, ensure_ascii=False, default=str)}".encode()
        return
    except UnicodeEncodeError:
        what = "holds a lone surrogate (expected Unicode text)"
    except (ValueError, RecursionError):
        what = "holds itself, or thousands of digits (expected a value)"
    except TypeError:  # a key that JSON does not have
        what = ""
    for key, part in value.items() if isinstance(value, dict) else ():
        if id(part) not in (own := (*within, id(value))):
            _refuse_unwritable(part, f"{where}.{key}".removeprefix("."), own)
    if what:
        raise BadParameter(f"{ascii(where)[1:-1] or 'the file'}: {what}") from None


def _change(data: dict[str, Any], change: str) -> None:
    """Set one parameter of a parsed study file; a setting of an axis that names it keeps its own,
    as untrained runs their 0 steps. Raises BadParameter."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    name, equals, text = change.partition("=")
    stage, _, parameter = name.partition(".")
    if not equals or not parameter or stage not in STAGES:
        raise BadParameter(f"{change!r}: cannot be set (expected stage.parameter=value)")
    if name in _varied(data.get("vary", {})):
        raise BadParameter(f"{name}: is varied by the study (expected a parameter that is not)")
    try:
        value = YAML(typ="safe", pure=True).load(text) if text else ""
    except (YAMLError, ValueError, LookupError, RecursionError):
        raise BadParameter(f"{name}: {short(text)} is not a YAML value") from None
    _refuse_unwritable(value, name)
    mapping = _mapping(data.get(stage, {}), stage, "its parameters")
    data[stage] = {**mapping, parameter: value}


def _varied(vary: Any) -> set[Any]:
    """Names that every run has from an axis of a parsed file; of what is no axis nothing, as that
    fails later."""
    names: set[Any] = set()
    for axis, spec in vary.items() if isinstance(vary, dict) else ():
        settings = [*spec.values()] if isinstance(spec, dict) else []
        named = [{*values} if isinstance(values, dict) else set() for values in settings]
        names |= {axis} | (set.intersection(*named) if named else set())
    return names


# --- from a parsed file to a grid ---


@dataclass(frozen=True)
class Setting:
    """One point of an axis: (stage, parameter) -> value, and where the study file says so."""

    label: str  # "" where the label is the value's own spelling
    values: dict[tuple[str, str], Any]
    where: str

    def spelled(self, models: Mapping[str, Stage]) -> str:
        """The label, or the one value as it is after validation."""
        if self.label:
            return self.label
        ((stage, parameter),) = self.values
        return spelled(getattr(models[stage], parameter))


@dataclass(frozen=True)
class Axis:
    """Alternatives, of which each run takes one."""

    name: str
    settings: list[Setting]

    @property
    def parameters(self) -> set[tuple[str, str]]:
        return {parameter for setting in self.settings for parameter in setting.values}


def _expand(name: str, data: dict[str, Any]) -> Study:
    """The study that a parsed file describes. Raises BadParameter."""
    for key in data:
        if key not in SECTIONS:
            parameters = [f"{s}.{n}" for s in STAGES for n in STAGES[s].model_fields if n == key]
            hint = f" (did you mean {parameters[0]}?)" if parameters else ""
            hint = hint or nearest(key, SECTIONS)
            raise BadParameter(f"{key}: unknown section{hint}")
    base = {stage: _base(stage, data.get(stage, {})) for stage in STAGES}
    vary = _mapping(data.get("vary", {}), "vary", "axes")
    axes = [_axis(axis, spec) for axis, spec in vary.items()]
    _check_axes(axes)
    corpora: dict[str, Prepare] = {}
    runs: dict[str, RunParams] = {}
    same: dict[str, str] = {}  # a corpus without its name -> the first name that it has
    for settings in itertools.product(*(axis.settings for axis in axes)):
        prepare, train = _grid_point(name, base, axes, settings)
        _check_point(prepare, train)
        first = same.setdefault(prepare.model_dump_json(exclude={"run"}), prepare.run)
        prepare = prepare.model_copy(update={"run": first})
        train = train.model_copy(update={"corpus": first})
        if train.run in runs:
            raise BadParameter(f"vary: two runs would be called {train.run}")
        if corpora.setdefault(prepare.run, prepare) != prepare:
            raise BadParameter(f"vary: two corpora would be called {prepare.run}")
        runs[train.run] = RunParams(train, Evaluate(study=name, run=train.run, **base["evaluate"]))
    _check_distinct(runs)
    analyse = Analyse(study=name, **base["analyse"])
    evaluate = Evaluate(**base["evaluate"])
    _check_benchmarks(evaluate.benchmarks, analyse.benchmark)
    checks.axis(analyse, [axis.name for axis in axes], runs)
    checks.articles(evaluate.benchmarks, corpora.values())
    checks.maps(evaluate, (run.train for run in runs.values()))
    return Study(name, corpora, runs, analyse)


def _check_benchmarks(specs: Mapping[str, BenchmarkSpec], subject: str) -> None:
    """Raise BadParameter for a spec that does not suit its format, and unless a report can be about
    the benchmark `subject` (where none is named: the first)."""
    for name, spec in specs.items():
        where = f"evaluate.benchmarks[{name}]"
        try:
            benchmarks.format_of(spec)
        except ValueError as error:
            raise BadParameter(f"{where}[format]: {error}") from None
        try:
            benchmarks.check(spec)
        except ValueError as error:
            raise BadParameter(f"{where}: {error}") from None
    if subject and subject not in specs:
        raise BadParameter(
            f"analyse.benchmark: {subject!r} is not evaluated (expected one of {', '.join(specs)})"
        )
    where, first = (
        ("analyse.benchmark", subject) if subject else ("evaluate.benchmarks", next(iter(specs)))
    )
    if not benchmarks.format_of(specs[first]).in_memory:
        raise BadParameter(
            f"{where}: a report cannot be about {specs[first].format} ({first!r}; name another "
            "one first)"
        )


def _grid_point(name: str, base: dict, axes: list[Axis], settings: tuple) -> tuple[Prepare, Train]:
    """The corpus and the run of one combination of settings, with their keys."""
    models, point_of = {}, {}
    labels = {axis.name: s.label for axis, s in zip(axes, settings, strict=True) if s.label}
    for stage in VARIED:
        stage_settings = [s for s in settings if any(of == stage for of, _ in s.values)]
        values = base[stage] | {
            n: v for s in stage_settings for (of, n), v in s.values.items() if of == stage
        }
        values = {n: _labelled(value, labels) for n, value in values.items()}
        origins = {n: f"{s.where}: " for s in stage_settings for of, n in s.values if of == stage}
        point_of[stage] = "".join(f"{s.where}: " for s in stage_settings)
        models[stage] = checked(STAGES[stage], values, origins, point_of[stage])
    _check_source(models["prepare"], point_of["prepare"])
    parts = [f"{axis.name}={s.spelled(models)}" for axis, s in zip(axes, settings, strict=True)]
    run = ",".join(parts) or "base"
    if len(run) > 200:
        raise BadParameter(f"vary: the run name {run[:40]}... is too long (name the settings)")
    on_corpus = [any(of == "prepare" for of, _ in axis.parameters) for axis in axes]
    corpus = ",".join(itertools.compress(parts, on_corpus)) or "base"
    prepare = models["prepare"].model_copy(update={"study": name, "run": corpus})
    train = models["train"].model_copy(update={"study": name, "run": run, "corpus": corpus})
    return prepare, train


def _labelled(value: Any, labels: Mapping[str, str]) -> Any:
    """A text in which `{axis}` is the label that the axis has in this run, as for an encoder that
    another study has made with the same seed; other values as they are."""
    for axis, label in labels.items() if isinstance(value, str) else ():
        value = value.replace(f"{{{axis}}}", label)
    return value


def _check_point(prepare: Prepare, train: Train) -> None:
    """Raise BadParameter for what neither stage could refuse alone, or would only later."""
    if train.validate_every and not prepare.dev:
        raise BadParameter(
            f"train.validate_every: {train.validate_every} does not go with prepare.dev 0 "
            "(expected prepare.dev over 0)"
        )
    if train.steps * train.batch_size >= ROWS:
        raise BadParameter(
            f"train.steps: {train.steps} of batch_size {train.batch_size} make 2**31 pairs or "
            "more (expected fewer)"
        )
    checks.translations(prepare, train)
    checks.parts(train)


def _check_source(p: Prepare, point: str) -> None:
    """Raise BadParameter where parameters do not go with the source of the training pairs."""
    try:
        sources.check(p)
    except ValueError as error:
        raise BadParameter(f"{point}prepare.{error}") from None


def _base(stage: str, values: Any) -> dict[str, Any]:
    """A stage's own mapping, names and single values checked. What belongs together is checked
    with the grid, since an axis may complete it."""
    values = _mapping(values, stage, "its parameters")
    for parameter in values:
        _check_name("", stage, parameter)
    try:
        checked(STAGES[stage], values)
    except DoNotFitTogether:
        if stage not in VARIED:
            raise
    return values


def _axis(name: Any, spec: Any) -> Axis:
    """An axis: `stage.parameter: [values]`, or `name: {label: {stage.parameter: value}}`."""
    where = f"vary.{name}"
    if not spec or not isinstance(spec, list | dict):
        raise BadParameter(f"{where}: is {short(spec)} (expected a list or named settings)")
    if isinstance(spec, list):
        parameter = _parameter("vary: ", name)
        return Axis(parameter[1], [Setting("", {parameter: value}, "vary") for value in spec])
    if "." in str(name) or not LABEL.fullmatch(str(name)):
        raise BadParameter(f"{where}: cannot name an axis of settings (expected a plain name)")
    settings = [_setting(f"{where}.{label}", label, mapping) for label, mapping in spec.items()]
    return Axis(str(name), settings)


def _setting(where: str, label: Any, mapping: Any) -> Setting:
    if isinstance(label, bool) or not LABEL.fullmatch(str(label)):
        raise BadParameter(f"{where}: cannot name a setting (expected letters, digits, . _ + -)")
    values = _mapping(mapping, where, "stage.parameter: value").items()
    return Setting(str(label), {_parameter(f"{where}: ", name): v for name, v in values}, where)


def _parameter(where: str, name: Any) -> tuple[str, str]:
    """(stage, parameter) of `stage.parameter`, if a study may vary it."""
    stage, _, parameter = str(name).partition(".")
    if not parameter or stage not in STAGES:
        options = [f"{s}.{p}" for s in VARIED for p in STAGES[s].model_fields if p not in DRIVEN]
        matches = [o for o in options if o.endswith(f".{name}")]
        hint = f" (did you mean {matches[0]}?)" if matches else nearest(name, options)
        raise BadParameter(f"{where}{name}: unknown parameter{hint}")
    if stage not in VARIED:
        raise BadParameter(f"{where}{name}: cannot vary (expected a parameter of prepare or train)")
    _check_name(where, stage, parameter)
    return stage, parameter


def _check_name(where: str, stage: str, parameter: Any) -> None:
    fields = STAGES[stage].model_fields
    if parameter not in fields:
        hint = nearest(parameter, [name for name in fields if name not in DRIVEN])
        raise BadParameter(f"{where}{stage}.{parameter}: unknown parameter{hint}")
    if parameter in DRIVEN:
        raise BadParameter(f"{where}{stage}.{parameter}: is set by the study itself (remove it)")


def _check_axes(axes: list[Axis]) -> None:
    """No two axes of one name, and none that set the same parameter."""
    for one, other in itertools.combinations(axes, 2):
        if one.name == other.name:
            raise BadParameter(f"vary.{one.name}: two axes have this name")
        for stage, parameter in sorted(one.parameters & other.parameters):
            raise BadParameter(f"vary: {one.name} and {other.name} both set {stage}.{parameter}")


def _check_distinct(runs: dict[str, RunParams]) -> None:
    """Refuse two runs that would compute the same."""
    seen: dict[str, str] = {}
    for key, run in runs.items():
        settings = run.train.model_dump_json(exclude={"run"})
        if settings in seen:
            raise BadParameter(f"vary: runs {seen[settings]} and {key} are the same")
        seen[settings] = key


def _mapping(value: Any, where: str, expected: str) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise BadParameter(f"{where}: is {short(value)} (expected a mapping of {expected})")
    return value


def describe(study: Study) -> str:
    """The expanded grid and what it costs in runs, to read."""
    steps = sum(run.train.steps for run in study.runs.values())
    lines = [f"study {study.name}"]
    lines += [f"  corpus {key}" for key in study.corpora]
    for key, run in study.runs.items():
        train = run.train
        arm = arm_name(train.strategy, train.alpha)
        how = f"{arm}, {train.steps} steps" if train.steps else "untrained"
        lines.append(f"  run {key:<28} {how}, seed {train.seed}, corpus {train.corpus}")
    stages = len(study.corpora) + 2 * len(study.runs) + 2
    lines.append(f"{study.size} ({steps:,} training steps): {stages} stages")
    return "\n".join(lines)
