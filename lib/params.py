"""Every parameter of every stage, once: types, ranges, defaults, meaning; and every path.

The models below are the schema of the notebooks' parameter cells and of the study files alike, so
that a mistyped name or a value out of range is one clear line before anything runs.

    python -m lib.params params/quick.yaml     what a study would run
    python -m lib.params --cell train          the parameter cell of a stage's notebook
"""

from __future__ import annotations

import difflib
import itertools
import json
import math
import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from annotated_types import Ge, Gt, Le, Lt
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from lib import store
from lib.text import language_code

ROOT = store.ROOT
FOLDER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=,-]*")
LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")  # part of a folder's name

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Device = Literal["auto", "cpu", "cuda"]


class BadParameter(ValueError):
    """A parameter is unknown, mistyped or out of range; the message is one line."""


def _folder_name(value: str) -> str:
    if not FOLDER_NAME.fullmatch(value):
        raise ValueError(f"{value!r} cannot name a folder (expected letters, digits, . _ + = -)")
    return value


# --- the schema --------------------------------------------------------------------------------


class Stage(BaseModel):
    """Parameters of one notebook."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)
    unnamed_run: ClassVar[str | None] = None  # what run = "" stands for; None: the spelled key
    may_change: ClassVar[tuple[str, ...]] = ()  # parameters that may differ when a run goes on

    study: str = Field("lab", description="outputs go below outputs/<study>")
    run: str = Field("", description="its folder; empty: spelled from what is not a default")

    @field_validator("study", "run")
    @classmethod
    def _is_a_folder_name(cls, value: str) -> str:
        return _folder_name(value) if value else value

    @classmethod
    def name(cls) -> str:
        return cls.__name__.lower()

    @classmethod
    def from_cell(cls, cell: Mapping[str, Any]) -> Self:
        """The stage's parameters out of a notebook's globals(), checked; `run` is filled in.

        Raises BadParameter in one line."""
        values = {name: cell[name] for name in cls.model_fields if name in cell}
        missing = [name for name in cls.model_fields if name not in cell]
        if missing:
            raise BadParameter(f"{cls.name()}.{missing[0]}: is missing from the parameter cell")
        found = _checked(cls, values)
        if not found.run:
            run = _spelled_key(found) if cls.unnamed_run is None else cls.unnamed_run
            found = found.model_copy(update={"run": run})
        return found


class Prepare(Stage):
    source: Literal["cldr", "pairs", "squad", "bitext", "translate", "xtreme_squad", "mmarco"] = (
        Field("cldr", description="where texts come from")
    )
    files: dict[str, str] = Field(
        {}, description="file of each language: pairs (any names), squad, bitext, translate (en)"
    )
    folder: str = Field(
        "", description="xtreme_squad, mmarco: a folder that has their files; empty: downloaded"
    )
    form: Literal["sentences", "cards"] = Field(
        "sentences", description="cldr: questions written in 11 languages, or bare names in any"
    )
    languages: list[str] = Field([], description="language codes; []: all that the source has")
    fold: Count = Field(0, description="which share of the facts or groups is held out for testing")
    folds: int = Field(5, ge=2, description="number of such shares")
    dev: float = Field(
        0.0, ge=0, lt=1, description="share of the held-out groups kept for validation"
    )
    bridges: Count = Field(4, description="cldr: two-hop questions a final fact; 0: one-hop only")
    distractors: Count = Field(0, description="cldr: other facts told in the same passage")
    pool: Count = Field(
        0, description="cldr, mmarco: distractor passages a language in the pool; 0: all"
    )
    drop_cells: Share = Field(
        0.0, description="cldr: share of (entity, language) names never trained on"
    )
    keep: dict[str, Share] = Field({}, description="share of training pairs kept, by language")
    coverage: Share = Field(0.8, description="cldr cards: share of the names a language must have")
    passage: Literal["sentence", "paragraph"] = Field(
        "sentence", description="squad: what answers a question"
    )
    unanswerable: bool = Field(False, description="squad: keep questions without an answer")
    limit: Count = Field(0, description="mmarco: questions kept; 0: all")
    hard_negatives: Count = Field(1, description="mmarco: negatives of its triples kept a question")
    translator: str = Field("", description="translate: checkpoint name or folder")
    translate_from: Literal["pairs", "squad"] = Field(
        "pairs", description="translate: format of the English file"
    )
    max_chars: Positive = Field(2000, description="files: rows with a longer text are dropped")
    vocabulary: int = Field(8000, ge=300, description="size of the tokenizer's vocabulary")

    @field_validator("languages")
    @classmethod
    def _known_languages(cls, value: list[str]) -> list[str]:
        codes = [language_code(name) for name in value]
        twice = [c for c in codes if codes.count(c) > 1]
        if twice:
            raise ValueError(f"{twice[0]} is named twice")
        return codes

    @field_validator("keep")
    @classmethod
    def _known_keep(cls, value: dict[str, float]) -> dict[str, float]:
        return {language_code(name): share for name, share in value.items()}

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.fold >= self.folds:
            raise ValueError(
                f"prepare.fold: {self.fold} is out of range (expected 0 to folds - 1, "
                f"{self.folds - 1})"
            )
        if bool(self.files) != (self.source in ("pairs", "squad", "bitext", "translate")):
            expected = "none" if self.files else "one file a language"
            raise ValueError(
                f"prepare.files: {len(self.files)} files do not go with source "
                f"{self.source!r} (expected {expected})"
            )
        if self.folder and self.source not in ("xtreme_squad", "mmarco"):
            raise ValueError(
                f"prepare.folder: {self.folder!r} does not go with source {self.source!r} "
                "(expected none)"
            )
        if bool(self.translator) != (self.source == "translate"):
            expected = "none" if self.translator else "a checkpoint's name or folder"
            raise ValueError(
                f"prepare.translator: {self.translator!r} does not go with source "
                f"{self.source!r} (expected {expected})"
            )
        if self.unanswerable and self.passage == "sentence":
            raise ValueError(
                "prepare.unanswerable: True does not go with passage 'sentence' (expected "
                "'paragraph': an unanswerable question has no answer sentence)"
            )
        unused = [c for c in self.keep if self.languages and c not in self.languages]
        if unused:
            raise ValueError(f"prepare.keep: {unused[0]} is not one of prepare.languages")
        return self


class Train(Stage):
    # How the same work is divided, and what is told of it: sums are rounded otherwise, and other
    # units drop out, but the run is the same.
    may_change = ("chunk", "ranks", "checkpoint_every", "keep_checkpoints", "log_every")

    corpus: str = Field("base", description="the run of 01_prepare to train on")
    strategy: Literal[
        "mono", "x-x", "cross-pair", "cross", "hybrid", "mix", "en-en", "cross-fixed"
    ] = Field("hybrid", description="how batches are composed")
    alpha: Share = Field(0.5, description="monolingual share of batches (hybrid) or rows (mix)")
    language_power: float = Field(
        0.0, ge=0, description="language weight ~ pairs ** power: 0 uniform, 1 by size"
    )
    negatives: Literal["in_batch", "explicit", "both"] = Field(
        "in_batch", description="what a question is contrasted with"
    )
    explicit: Count = Field(0, description="explicit negatives a row; over 0 unless in_batch")
    temperature: float = Field(0.1, gt=0, description="of the contrastive loss")
    symmetric: bool = Field(False, description="also contrast each passage with the questions")
    model: str = Field("", description="checkpoint name or folder; empty: small, from scratch")
    width: Positive = Field(64, description="from scratch: size of hidden states")
    layers: Positive = Field(1, description="from scratch: number of layers")
    heads: Positive = Field(2, description="from scratch: attention heads, a divisor of width")
    dropout: float = Field(0.0, ge=0, lt=1, description="from scratch: dropout")
    pooling: Literal["mean", "cls"] = Field("mean", description="token states to one vector")
    question_prompt: str = Field("", description="text before each question")
    passage_prompt: str = Field("", description="text before each passage")
    max_length: int = Field(64, ge=4, description="tokens of a text; the rest is cut off")
    steps: Count = Field(600, description="updates; 0: the untrained encoder")
    batch_size: int = Field(128, ge=2, description="question-passage pairs an update")
    chunk: Count = Field(
        0, description="texts in memory at a time, costs another forward; 0: the whole batch"
    )
    precision: Literal["fp32", "bf16"] = Field(
        "fp32", description="of matrix products; weights and loss stay fp32"
    )
    compile: bool = Field(
        False, description="by torch.compile: no promise of the same bits after a stop"
    )
    learning_rate: float = Field(3e-3, gt=0, description="its peak")
    weight_decay: float = Field(0.01, ge=0, description="of AdamW")
    warmup: Share = Field(0.1, description="share of the steps in which the learning rate rises")
    schedule: Literal["linear", "cosine", "constant"] = Field(
        "linear", description="of the learning rate after the warm-up"
    )
    clip: float = Field(1.0, gt=0, description="largest norm of the gradient")
    checkpoint_every: Positive = Field(200, description="steps between checkpoints")
    keep_checkpoints: Positive = Field(1, description="how many of the latest are kept")
    log_every: Positive = Field(50, description="steps between lines of the log")
    validate_every: Count = Field(
        0, description="steps between validations on prepare.dev, the best being kept; 0: none"
    )
    patience: Count = Field(
        0, description="stop after so many validations without a better one; 0: train all steps"
    )
    seed: int = Field(
        0, ge=0, le=2**63 - 1, description="of initial weights and of the batches"
    )  # torch takes one bit more, but tables hold int64
    threads: Positive = Field(1, description="CPU threads; results depend on it in the last bits")
    ranks: Positive = Field(
        1, description="processes that share each batch, on a GPU each where there are GPUs"
    )
    device: Device = Field("auto", description="cuda where there is one, or as said")

    @field_validator("corpus")
    @classmethod
    def _corpus_is_a_folder_name(cls, value: str) -> str:
        return _folder_name(value)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.explicit > 0) != (self.negatives != "in_batch"):
            expected = "0" if self.negatives == "in_batch" else "1 or more"
            raise ValueError(
                f"train.explicit: {self.explicit} does not go with negatives "
                f"{self.negatives!r} (expected {expected})"
            )
        if self.symmetric and self.negatives == "explicit":
            raise ValueError(
                "train.symmetric: True does not go with negatives 'explicit' (expected False: "
                "its loss has no column for another row's passage)"
            )
        if self.width % self.heads:
            raise ValueError(
                f"train.heads: {self.heads} does not divide the width {self.width} "
                "(expected a divisor)"
            )
        if self.patience and not self.validate_every:
            raise ValueError(
                f"train.patience: {self.patience} does not go with validate_every 0 (expected 0)"
            )
        if self.batch_size % self.ranks:
            raise ValueError(
                f"train.ranks: {self.ranks} does not divide the batch_size {self.batch_size} "
                "(expected a divisor)"
            )
        return self


class BenchmarkSpec(BaseModel):
    """One entry of `evaluate.benchmarks`: where a benchmark comes from and what is used of it."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    format: Literal["heldout", "lareqa", "beir", "collection", "tatoeba", "miracl"]
    folder: str = Field("", description="its files; empty: downloaded where that is possible")
    languages: list[str] = Field([], description="language codes; []: all that it has")
    trained: bool = Field(False, description="only languages that the corpus trains on")
    candidate: Literal["sentence", "sentence+paragraph"] = Field(
        "sentence", description="lareqa: what is searched"
    )
    split: str = Field("", description="lareqa: xquad-r or mlqa-r; beir, miracl: test, dev, ...")

    @field_validator("languages")
    @classmethod
    def _known_languages(cls, value: list[str], info: ValidationInfo) -> list[str]:
        if info.data.get("format") == "tatoeba":  # its names say which of two files is meant
            return value
        return [language_code(name) for name in value]

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if not self.folder and self.format in ("beir", "collection", "tatoeba", "miracl"):
            raise ValueError(f"folder is empty (expected the folder of {self.format}'s files)")
        if self.format == "lareqa" and self.split not in ("", "xquad-r", "mlqa-r"):
            raise ValueError(f"split {self.split!r} is unknown (expected xquad-r or mlqa-r)")
        if self.trained and self.format in ("tatoeba", "miracl"):
            raise ValueError(f"trained: does not go with {self.format} (name its languages)")
        return self


class Evaluate(Stage):
    unnamed_run = "base"

    run: str = Field("", description="the run of 02_train to evaluate; empty: base")
    benchmarks: dict[str, BenchmarkSpec] = Field(
        {"heldout": {"format": "heldout"}},
        validate_default=True,
        description="name: what is evaluated (see lib/params.py); the first is the report's own",
    )
    mteb: list[str] = Field([], description="also these tasks or benchmarks of the mteb package")
    encode_batch: Positive = Field(256, description="texts encoded at a time")
    threads: Positive = Field(1, description="CPU threads")
    device: Device = Field("auto", description="cuda where there is one, or as said")

    @field_validator("benchmarks")
    @classmethod
    def _named_benchmarks(cls, value: dict[str, BenchmarkSpec]) -> dict[str, BenchmarkSpec]:
        if not value:
            raise ValueError("is empty (expected one benchmark or more)")
        for name in value:
            if not LABEL.fullmatch(name):
                raise ValueError(f"{name!r} cannot name a file (expected letters, digits, . _ + -)")
        _check_own(next(iter(value)), value)
        return value


def _check_own(name: str, benchmarks: Mapping[str, BenchmarkSpec]) -> None:
    """Raise ValueError unless a report can be about this benchmark."""
    if name not in benchmarks:
        raise ValueError(f"{name!r} is not evaluated (expected one of {', '.join(benchmarks)})")
    if (form := benchmarks[name].format) in ("tatoeba", "miracl"):
        raise ValueError(f"a report cannot be about {form} ({name!r}; name another one first)")


class Analyse(Stage):
    unnamed_run = ""

    run: str = Field("", description="one run of 02_train; empty: all of the study")
    benchmark: str = Field("", description="what the report is about; empty: the first evaluated")
    note: str = Field("", description="what readers must know of the data, for the report's top")
    bootstrap: Positive = Field(
        2000, description="resamples of the bootstrap that checks intervals"
    )


STAGES: dict[str, type[Stage]] = {m.name(): m for m in (Prepare, Train, Evaluate, Analyse)}
VARIED = ("prepare", "train")  # evaluation and analysis see all of a study the same way
DRIVEN = ("study", "run", "corpus")  # set by whoever runs the study


def cell(stage: str) -> str:
    """Source of the parameter cell of a stage's notebook: typed, commented literals."""
    lines = []
    for name, field in STAGES[stage].model_fields.items():
        value = json.dumps(field.default, ensure_ascii=False)
        value = {"true": "True", "false": "False"}.get(value, value)
        if isinstance(field.default, float):
            value = repr(field.default)
        line = f"{name}: {type(field.default).__name__} = {value}"
        options = get_args(field.annotation) if isinstance(field.default, str) else ()
        comment = f"# {field.description}{': ' * bool(options)}{', '.join(options)}"
        fits = len(line) + len(comment) + 2 <= 100
        lines += [f"{line}  {comment}"] if fits else [comment, line]
    return "\n".join(lines)


# --- names and paths ---------------------------------------------------------------------------


def outputs() -> Path:
    """The folder of all results: BATCHES_OUTPUTS where set, else outputs/ of the project."""
    return Path(os.environ.get("BATCHES_OUTPUTS") or ROOT / "outputs").resolve()


def study_dir(study: str) -> Path:
    return outputs() / study


def corpus_dir(study: str, key: str) -> Path:
    return study_dir(study) / "corpus" / key


def beside_dir(corpus: Path, benchmark: str) -> Path:
    """Where the references of a benchmark lie, below the folder of a corpus."""
    return corpus / "benchmarks" / benchmark


def run_dir(study: str, key: str) -> Path:
    return study_dir(study) / "runs" / key


def report_dir(study: str) -> Path:
    return study_dir(study) / "report"


def needs(folder: Path, notebook: str) -> Path:
    """A folder of a corpus or a run, if it is there. Raises FileNotFoundError naming the notebook
    that makes it, and the corpora or runs that have one."""
    if folder.exists():
        return folder
    below = folder.parent.parent
    made = sorted(found.parent.name for found in below.glob(f"*/{folder.name}"))
    parameter = {"corpus": "corpus", "runs": "run"}.get(below.name)
    other = ""
    if made and parameter:
        more = f" and {len(made) - 5} more" * (len(made) > 5)
        other = f", or set {parameter!r} to one that is there: {' '.join(made[:5])}{more}"
    raise FileNotFoundError(f"{folder} is not there; run {notebook} first{other}")


def _spelled(value: Any) -> str:
    """A value as part of a folder's name: `1` and `1.0` alike, lists joined by +."""
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    if isinstance(value, list):
        return "+".join(_spelled(v) for v in value) or "none"
    if isinstance(value, dict):
        return "+".join(f"{k}-{_spelled(v)}" for k, v in value.items()) or "none"
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", str(value)) or "none"


def _spelled_key(stage: Stage) -> str:
    changed = {
        name: getattr(stage, name)
        for name, field in type(stage).model_fields.items()
        if name not in ("study", "run") and getattr(stage, name) != field.default
    }
    return ",".join(f"{name}={_spelled(value)}" for name, value in changed.items()) or "base"


# --- studies -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """One training run of a study and its evaluation."""

    train: Train
    evaluate: Evaluate


@dataclass(frozen=True)
class Study:
    """A grid of runs: corpora and runs by key, in declared order."""

    name: str
    corpora: dict[str, Prepare]
    runs: dict[str, Run]
    analyse: Analyse
    file: str = ""  # what it was read from, seen from ROOT


def load_study(path: str | Path, changes: Iterable[str] = ()) -> Study:
    """Read and expand a study file. Raises BadParameter in one line naming file and key.

    changes: `stage.parameter=value`, each in place of what the file says; values as in YAML."""
    try:
        data = _read_yaml(path)
        for change in changes:
            _change(data, change)
        study = _expand(study_name(path), data)
        return replace(study, file=os.path.relpath(Path(path).resolve(), ROOT))
    except BadParameter as error:
        raise BadParameter(f"{path}: {error}") from None


def check_paths(study: Study) -> None:
    """Raise BadParameter for a file or folder that a study names and that is not there: said before
    hours of training and not after. Names of checkpoints on a hub are not looked up."""
    for p in study.corpora.values():
        _check_named({f"prepare.files[{label}]": file for label, file in p.files.items()})
        _check_named({"prepare.folder": p.folder, "prepare.translator": _as_path(p.translator)})
    for run in study.runs.values():
        _check_named({"train.model": _as_path(run.train.model)})
        specs = run.evaluate.benchmarks.items()
        _check_named({f"evaluate.benchmarks[{name}].folder": spec.folder for name, spec in specs})


def _as_path(checkpoint: str) -> str:
    """The checkpoint's name where it can only be a path."""
    return checkpoint if checkpoint.startswith(("/", "./", "../")) else ""


def _check_named(named: Mapping[str, str]) -> None:
    for where, path in named.items():
        if path and not (ROOT / path).exists():
            raise BadParameter(f"{where}: {path}: no such file or folder")


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
    }
    store.write_json(study_dir(study.name) / "study.json", frozen)


def load_frozen(name: str) -> Study:
    """The study that outputs/<name>/study.json holds. Raises BadParameter where there is none."""
    file = study_dir(name) / "study.json"
    try:
        found = store.read_json(file)
        corpora = {key: Prepare(**values) for key, values in found["corpora"].items()}
        runs = {
            key: Run(Train(**run["train"]), Evaluate(**run["evaluate"]))
            for key, run in found["runs"].items()
        }
        return Study(name, corpora, runs, Analyse(**found["analyse"]), str(found.get("file", "")))
    except FileNotFoundError:
        raise BadParameter(f"{file}: no such study; `make study` starts one") from None
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise BadParameter(f"{file}: was written by another version ({first})") from None


def grid_keys(study: str) -> list[str]:
    """Keys of the runs that a study consists of, in declared order; [] for runs made by hand."""
    if not (study_dir(study) / "study.json").exists():
        return []
    return list(load_frozen(study).runs)


def study_name(path: str | Path) -> str:
    """The name of a study is that of its file. Raises BadParameter if no folder can have it."""
    name = Path(path).stem
    if not LABEL.fullmatch(name):
        raise BadParameter(f"{name!r} cannot name a study (expected letters, digits, . _ + -)")
    if name in ("lab", "reference"):
        raise BadParameter(f"the name {name!r} is reserved (expected another file name)")
    return name


def _read_yaml(path: str | Path) -> dict[str, Any]:
    """YAML 1.2, so that `no` is a language and 1e-5 a number; duplicate keys are errors."""
    from ruamel.yaml import YAML
    from ruamel.yaml.constructor import DuplicateKeyError
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        found = YAML(typ="safe", pure=True).load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise BadParameter(f"cannot be read ({error.strerror})") from None
    except MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        problem, expected = " ".join(str(error.problem).split()), "YAML"
        if isinstance(error, DuplicateKeyError):  # its values are not read yet, and shown as {}
            problem, expected = problem.partition(" with value")[0], "it once"
        raise BadParameter(f"{line}{problem} (expected {expected})") from None
    except (YAMLError, ValueError) as error:
        raise BadParameter(f"is not YAML ({' '.join(str(error).split())})") from None
    if not isinstance(found, dict):
        raise BadParameter(f"is {_short(found)} (expected prepare, train, evaluate, analyse, vary)")
    return found


def _change(data: dict[str, Any], change: str) -> None:
    """Set one parameter of a parsed study file. Raises BadParameter."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    name, equals, text = change.partition("=")
    stage, _, parameter = name.partition(".")
    if not equals or not parameter or stage not in STAGES:
        raise BadParameter(f"{change!r}: cannot be set (expected stage.parameter=value)")
    try:
        value = YAML(typ="safe", pure=True).load(text) if text else ""
    except YAMLError:
        raise BadParameter(f"{name}: {text!r} is not a YAML value") from None
    own = _mapping(data.get(stage, {}), stage, "its parameters")
    data[stage] = {**own, parameter: value}


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
        return _spelled(getattr(models[stage], parameter))


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
        if key not in (*STAGES, "vary"):
            raise BadParameter(f"{key}: unknown section{_hint(key, (*STAGES, 'vary'))}")
    base = {stage: _base(stage, data.get(stage, {})) for stage in STAGES}
    vary = _mapping(data.get("vary", {}), "vary", "axes")
    axes = [_axis(axis, spec) for axis, spec in vary.items()]
    _check_axes(axes)
    corpora: dict[str, Prepare] = {}
    runs: dict[str, Run] = {}
    for settings in itertools.product(*(axis.settings for axis in axes)):
        prepare, train = _grid_point(name, base, axes, settings)
        if train.validate_every and not prepare.dev:
            raise BadParameter(
                f"train.validate_every: {train.validate_every} does not go with prepare.dev 0 "
                "(expected prepare.dev over 0)"
            )
        if train.run in runs:
            raise BadParameter(f"vary: two runs would be called {train.run}")
        if corpora.setdefault(prepare.run, prepare) != prepare:
            raise BadParameter(f"vary: two corpora would be called {prepare.run}")
        runs[train.run] = Run(train, Evaluate(study=name, run=train.run, **base["evaluate"]))
    _check_distinct(runs)
    analyse = Analyse(study=name, **base["analyse"])
    if analyse.benchmark:
        try:
            _check_own(analyse.benchmark, Evaluate(**base["evaluate"]).benchmarks)
        except ValueError as error:
            raise BadParameter(f"analyse.benchmark: {error}") from None
    return Study(name, corpora, runs, analyse)


def _grid_point(name: str, base: dict, axes: list[Axis], settings: tuple) -> tuple[Prepare, Train]:
    """The corpus and the run of one combination of settings, with their keys."""
    models = {}
    for stage in VARIED:
        own = [s for s in settings if any(of == stage for of, _ in s.values)]
        values = base[stage] | {n: v for s in own for (of, n), v in s.values.items() if of == stage}
        origins = {n: f"{s.where}: " for s in own for of, n in s.values if of == stage}
        point = "".join(f"{s.where}: " for s in own)
        models[stage] = _checked(STAGES[stage], values, origins, point)
    parts = [f"{axis.name}={s.spelled(models)}" for axis, s in zip(axes, settings, strict=True)]
    run = ",".join(parts) or "base"
    if len(run) > 200:
        raise BadParameter(f"vary: the run name {run[:40]}... is too long (name the settings)")
    on_corpus = [any(of == "prepare" for of, _ in axis.parameters) for axis in axes]
    corpus = ",".join(itertools.compress(parts, on_corpus)) or "base"
    prepare = models["prepare"].model_copy(update={"study": name, "run": corpus})
    train = models["train"].model_copy(update={"study": name, "run": run, "corpus": corpus})
    return prepare, train


def _base(stage: str, own: Any) -> dict[str, Any]:
    """A stage's own mapping, names and single values checked. What belongs together is checked
    with the grid, since an axis may complete it."""
    own = _mapping(own, stage, "its parameters")
    for parameter in own:
        _check_name("", stage, parameter)
    try:
        _checked(STAGES[stage], own)
    except DoNotFitTogether:
        if stage not in VARIED:
            raise
    return own


def _axis(name: Any, spec: Any) -> Axis:
    """An axis: `stage.parameter: [values]`, or `name: {label: {stage.parameter: value}}`."""
    where = f"vary.{name}"
    if not spec or not isinstance(spec, list | dict):
        raise BadParameter(f"{where}: is {_short(spec)} (expected a list or named settings)")
    if isinstance(spec, list):
        parameter = _parameter("vary: ", name)
        return Axis(parameter[1], [Setting("", {parameter: value}, "vary") for value in spec])
    if "." in str(name) or not LABEL.fullmatch(str(name)):
        raise BadParameter(f"{where}: cannot name an axis of settings (expected a plain name)")
    settings = [_setting(f"{where}.{label}", label, own) for label, own in spec.items()]
    return Axis(str(name), settings)


def _setting(where: str, label: Any, own: Any) -> Setting:
    if isinstance(label, bool) or not LABEL.fullmatch(str(label)):
        raise BadParameter(f"{where}: cannot name a setting (expected letters, digits, . _ + -)")
    values = _mapping(own, where, "stage.parameter: value").items()
    return Setting(str(label), {_parameter(f"{where}: ", name): v for name, v in values}, where)


def _parameter(where: str, name: Any) -> tuple[str, str]:
    """(stage, parameter) of `stage.parameter`, if a study may vary it."""
    stage, _, parameter = str(name).partition(".")
    if not parameter or stage not in STAGES:
        options = [f"{s}.{p}" for s in VARIED for p in STAGES[s].model_fields if p not in DRIVEN]
        found = [o for o in options if o.endswith(f".{name}")]
        hint = f" (did you mean {found[0]}?)" if found else _hint(name, options)
        raise BadParameter(f"{where}{name}: unknown parameter{hint}")
    if stage not in VARIED:
        raise BadParameter(f"{where}{name}: cannot vary (expected a parameter of prepare or train)")
    _check_name(where, stage, parameter)
    return stage, parameter


def _check_name(where: str, stage: str, parameter: Any) -> None:
    fields = STAGES[stage].model_fields
    if parameter not in fields:
        hint = _hint(parameter, [name for name in fields if name not in DRIVEN])
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


def _check_distinct(runs: dict[str, Run]) -> None:
    """Refuse two runs that would compute the same."""
    seen: dict[str, str] = {}
    for key, run in runs.items():
        settings = run.train.model_dump_json(exclude={"run"})
        if settings in seen:
            raise BadParameter(f"vary: runs {seen[settings]} and {key} are the same")
        seen[settings] = key


def _mapping(value: Any, where: str, expected: str) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise BadParameter(f"{where}: is {_short(value)} (expected a mapping of {expected})")
    return value


# --- one line for each mistake -----------------------------------------------------------------

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


class DoNotFitTogether(BadParameter):
    """Each parameter is right by itself, but not with another one."""


def _checked(
    model: type[Stage], values: dict, origins: Mapping[str, str] | None = None, point: str = ""
) -> Stage:
    """The model of these values. Raises BadParameter in one line.

    origins: parameter -> where the study file sets it, put before the message; point: the same
    for what several parameters together make wrong."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    if not first["loc"]:
        raise DoNotFitTogether(point + first["msg"].removeprefix("Value error, "))
    name = str(first["loc"][0])
    inner = "".join(f"[{part}]" for part in first["loc"][1:])
    where = f"{(origins or {}).get(name, '')}{model.name()}.{name}{inner}"
    raise BadParameter(f"{where}: {_explain(model, name, first)}")


def _explain(model: type[Stage], name: str, error: Mapping[str, Any]) -> str:
    """What is wrong with a value, and what was expected, from one of pydantic's error records."""
    kind, value = error["type"], error["input"]
    if kind == "value_error":
        return error["msg"].removeprefix("Value error, ")
    if kind == "literal_error":
        options = error["ctx"]["expected"].replace("'", "").replace(" or ", ", ")
        return f"{_short(value)} is unknown (expected one of {options})"
    if kind == "missing":
        return "is missing"
    if kind == "extra_forbidden":
        return f"unknown{_hint(error['loc'][-1], BenchmarkSpec.model_fields)}"
    if kind in EXPECTED:
        quoted = isinstance(value, str) and re.fullmatch(r"[-+.\deE]+", value)
        hint = " without quotes" if quoted and "number" in EXPECTED[kind] else ""
        what = "is empty" if value is None else f"{_short(value)} is {_kind(value)}"
        return f"{what} (expected {EXPECTED[kind]}{hint})"
    if kind in ("greater_than", "greater_than_equal", "less_than", "less_than_equal"):
        bounds = [] if error["loc"][1:] else model.model_fields[name].metadata
        return f"{_short(value)} is out of range (expected {_range(bounds) or '0 to 1'})"
    return f"{_short(value)}: {error['msg']}"


def _range(bounds: list) -> str:
    """The annotated bounds in words."""
    low = next((b.ge for b in bounds if isinstance(b, Ge)), None)
    above = next((b.gt for b in bounds if isinstance(b, Gt)), None)
    high = next((b.le for b in bounds if isinstance(b, Le)), None)
    below = next((b.lt for b in bounds if isinstance(b, Lt)), None)
    if low is not None and high is not None:
        return f"{low} to {high}"
    words = [f"{low} or more"] * (low is not None) + [f"more than {above}"] * (above is not None)
    words += [f"less than {below}"] * (below is not None)
    return ", ".join(words)


def _kind(value: Any) -> str:
    if value in (math.inf, -math.inf) or value != value:
        return "not finite"
    names = {str: "text", bool: "true/false", int: "a number", float: "a decimal number",
             list: "a list", dict: "a mapping"}  # fmt: skip
    return names.get(type(value), type(value).__name__)


def _short(value: Any) -> str:
    if value in (None, "", [], {}):
        return "empty" if value != "" else "''"
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _hint(name: Any, options: Iterable[str]) -> str:
    """The nearest option as a question, or all of them."""
    near = difflib.get_close_matches(str(name), options, n=1, cutoff=0.6)
    return f" (did you mean {near[0]}?)" if near else f" (expected one of {', '.join(options)})"


# --- the command -------------------------------------------------------------------------------


def describe(study: Study) -> str:
    """The expanded grid and what it costs in runs, to read."""
    steps = sum(run.train.steps for run in study.runs.values())
    lines = [f"study {study.name}"]
    lines += [f"  corpus {key}" for key in study.corpora]
    for key, run in study.runs.items():
        train = run.train
        alpha = f"({train.alpha:g})" if train.strategy in ("hybrid", "mix") else ""
        how = f"{train.strategy}{alpha}, {train.steps} steps" if train.steps else "untrained"
        lines.append(f"  run {key:<28} {how}, seed {train.seed}, corpus {train.corpus}")
    corpora, runs = len(study.corpora), len(study.runs)
    lines.append(
        f"{corpora} corpora, {runs} runs ({steps:,} training steps): "
        f"{corpora + 2 * runs + 2} stages"
    )
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """The command line at the top of this module; 2 for bad input."""
    if len(arguments) == 2 and arguments[0] == "--cell" and arguments[1] in STAGES:
        print(cell(arguments[1]))
        return 0
    if len(arguments) != 1 or arguments[0].startswith("-"):
        usage = f"python -m lib.params STUDY.yaml | --cell {'|'.join(STAGES)}"
        print(f"expected: {usage}", file=sys.stderr)
        return 2
    try:
        print(describe(load_study(arguments[0])))
    except BadParameter as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
