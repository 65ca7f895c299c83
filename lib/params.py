"""Every parameter of every stage, once: types, ranges, defaults, meaning.

The models below are the schema of the notebooks' parameter cells and of the study files alike, so
that a mistyped name or a value out of range is one clear line before anything runs. What a source
or a benchmark format asks for is stated in its own module, and checked with the study file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from lib import presets
from lib.languages import language_code
from lib.mistakes import explained, require_fit, short
from lib.sampler import ARMS

FOLDER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=,-]*")
LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")  # part of a folder's name

Share = Annotated[float, Field(ge=0, le=1)]
# Upper bounds are far beyond use: what passes them is a slip, and would fill memory first.
Count = Annotated[int, Field(ge=0, le=10**9)]
Positive = Annotated[int, Field(ge=1, le=10**9)]
Size = Annotated[int, Field(ge=1, le=2**16)]
Device = Literal["auto", "cpu", "cuda"]
Negatives = Literal["in_batch", "in_language", "explicit", "both"]
Objective = Literal["", "lakda", "xlco", "distil"]
Pooling = Literal["", "mean", "cls", "lasttoken", "weightedmean"]


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
    # Parameters that came when runs were kept already: the value that leaves those what they are.
    came_later: ClassVar[dict[str, Any]] = {}

    study: str = Field("lab", description="outputs go below outputs/<study>")
    run: str = Field("", description="its folder; empty: spelled from what is not a default")

    @field_validator("study", "run")
    @classmethod
    def _is_a_folder_name(cls, value: str) -> str:
        return _folder_name(value) if value else value

    def defaults(self) -> dict[str, Any]:
        """What each parameter is where nobody sets it."""
        return {name: field.default for name, field in type(self).model_fields.items()}

    def known(self) -> dict[str, Any]:
        """The parameters without those that came after kept runs, and change nothing here."""
        absent = {n for n, value in self.came_later.items() if getattr(self, n) == value}
        return self.model_dump(exclude=absent)

    def of_the_work(self) -> dict[str, Any]:
        """Those that make the work another one."""
        aside = {*DRIVEN, *self.may_change}
        return {name: value for name, value in self.known().items() if name not in aside}

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
        parameters = checked(cls, values)
        if not parameters.run:
            run = _spelled_key(parameters) if cls.unnamed_run is None else cls.unnamed_run
            parameters = parameters.model_copy(update={"run": run})
        return parameters


class Prepare(Stage):
    came_later = {"switch": 0.0, "lexicon": {}, "groups": 1.0, "more": 0, "order": 0}

    source: str = Field("cldr", description="where texts come from")
    files: dict[str, str] = Field(
        {}, description="file of each language: pairs (any names), squad, bitext, translate (en)"
    )
    folder: str = Field(
        "", description="xtreme_squad, mmarco, ntrex: that of their files; empty: downloaded"
    )
    columns: dict[str, str] = Field(
        {},
        description="pairs, translate: our name of a column: the files' own, where it is another",
    )
    languages: list[str] = Field([], description="language codes; []: all that the source has")
    more: Count = Field(0, description="ntrex, cldr: so many languages beside those named")
    order: Count = Field(0, description="more: which random order they come in, few within many")
    parallel: bool = Field(
        True, description="train on pairs in two languages or more; false: on all, no arm may cross"
    )
    keep: dict[str, Share] = Field({}, description="share of training pairs kept, by language")
    fold: Count = Field(0, description="which share of the facts or groups is held out for testing")
    folds: int = Field(5, ge=2, le=10**6, description="number of such shares")
    split: Literal["group", "article"] = Field("group", description="squad: held out as a whole")
    dev: float = Field(0.0, ge=0, lt=1, description="share of held-out groups for validation")
    pool: Count = Field(0, description="cldr, mmarco: distractors a language in the pool; 0: all")
    form: Literal["sentences", "cards"] = Field(
        "sentences", description="cldr: questions written in 11 languages, or bare names in any"
    )
    bridges: Count = Field(4, description="cldr: two-hop questions a final fact; 0: one-hop only")
    distractors: Count = Field(0, description="cldr: other facts told in the same passage")
    drop_cells: Share = Field(0.0, description="cldr: share of (entity, language) names left out")
    coverage: Share = Field(0.8, description="cldr cards: share of the names a language must have")
    passage: Literal["sentence", "paragraph", "next"] = Field(
        "sentence", description="squad: what answers a question; ntrex: itself, or the one after it"
    )
    unanswerable: bool = Field(False, description="squad: keep questions without an answer")
    limit: Count = Field(0, description="mmarco: questions kept; 0: all")
    hard_negatives: Count = Field(1, description="mmarco: negatives of its triples kept a question")
    translator: str = Field("", description="translate: checkpoint name or folder")
    translate_from: Literal["pairs", "squad"] = Field(
        "pairs", description="translate: format of the English file"
    )
    groups: Share = Field(1.0, description="share of training groups kept, smaller ones in larger")
    switch: Share = Field(0.0, description="share of English words that are translated in training")
    lexicon: dict[str, str] = Field(
        {}, description="switch: file of each language, English word and translation; {}: found"
    )
    max_chars: Positive = Field(2000, description="files: rows with a longer text are dropped")
    vocabulary: int = Field(8000, ge=300, le=2 * 10**6, description="entries of the tokenizer")

    @field_validator("languages")
    @classmethod
    def _known_languages(cls, value: list[str]) -> list[str]:
        codes = [language_code(name) for name in value]
        if twice := [c for c in codes if codes.count(c) > 1]:
            raise ValueError(f"{twice[0]} is named twice")
        return codes

    @field_validator("keep")
    @classmethod
    def _known_keep(cls, value: dict[str, float]) -> dict[str, float]:
        return dict(zip(cls._known_languages([*value]), value.values(), strict=True))

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.fold >= self.folds:
            raise ValueError(
                f"prepare.fold: {self.fold} is out of range (expected 0 to folds - 1, "
                f"{self.folds - 1})"
            )
        if self.unanswerable and self.passage == "sentence":
            raise ValueError(
                "prepare.unanswerable: True does not go with passage 'sentence' (expected "
                "'paragraph': an unanswerable question has no answer sentence)"
            )
        if self.lexicon and not self.switch:
            raise ValueError("prepare.lexicon: does not go with switch 0 (expected more, or none)")
        unused = [c for c in self.keep if self.languages and c not in self.languages]
        if unused:
            raise ValueError(f"prepare.keep: {unused[0]} is not one of prepare.languages")
        return self


class Train(Stage):
    # How the same work is divided, and what is told of it: sums are rounded otherwise, and other
    # units drop out, but the run is the same.
    may_change = (
        "chunk",
        "recompute",
        "ranks",
        "shard",
        "checkpoint_every",
        "keep_checkpoints",
        "log_every",
    )
    came_later = {"layers_kept": 0, "frozen": 0, "lora": 0, "recompute": False, "only": ""}
    came_later |= {"maps": "", "angle": 0.0, "directions": 0, "look_every": 0, "weights": "fp32"}
    came_later |= {"objective": "", "objective_weight": 1.0, "mono_prompt": "", "cross_prompt": ""}
    came_later |= {"remote_code": False, "shard": False}

    corpus: str = Field("base", description="the run of 01_prepare to train on")
    strategy: Literal[tuple(ARMS)] = Field("hybrid", description="how batches are made")
    alpha: Share = Field(0.5, description="monolingual share of batches (hybrids) or rows (mix)")
    language_power: Share = Field(
        0.0, description="language weight ~ pairs ** power: 0 uniform, 1 by size"
    )
    only: str = Field("", description="mono, x-x: the one language of all batches; empty: all")
    batch_size: int = Field(128, ge=2, le=2**20, description="question-passage pairs an update")
    negatives: Negatives = Field("in_batch", description="what a question is contrasted with")
    explicit: Count = Field(0, description="explicit negatives a row; over 0 if explicit or both")
    most_negatives: Count = Field(0, description="at most so many in-batch negatives; 0: all")
    temperature: float = Field(0.0, ge=0, description="of the loss; 0: the model's own")
    symmetric: bool = Field(False, description="also contrast each passage with the questions")
    objective: Objective = Field("", description="added to the loss: lib.training.objectives")
    objective_weight: float = Field(1.0, gt=0, description="of what is added")
    model: str = Field("", description="checkpoint's name or folder; empty: small, from scratch")
    remote_code: bool = Field(False, description="checkpoint: run the code that it brings")
    width: Size = Field(64, description="from scratch: size of hidden states")
    layers: Size = Field(1, description="from scratch: number of layers")
    heads: Size = Field(2, description="from scratch: attention heads, a divisor of width")
    dropout: float = Field(0.0, ge=0, lt=1, description="from scratch: dropout")
    layers_kept: Count = Field(0, description="checkpoint: its first so many layers; 0: all")
    frozen: Count = Field(0, description="checkpoint: lower layers that are not trained")
    lora: Count = Field(0, description="checkpoint: rank of adapters, trained alone; 0: none")
    maps: Literal["", "rotated", "free", "centred", "projected"] = Field(
        "", description="of each language, behind the encoder (lib.training.maps)"
    )
    angle: Share = Field(0.0, description="maps rotated, free: share of the way to a random one")
    directions: Count = Field(0, description="maps projected: how many are taken out")
    pooling: Pooling = Field("", description="of token states; empty: the model's own")
    question_prompt: str = Field("", description="text, or name of a preset; empty: model's own")
    passage_prompt: str = Field("", description="the same of passages")
    mono_prompt: str = Field("", description="text before questions of same-language rows, if any")
    cross_prompt: str = Field("", description="the same of the other rows")
    max_length: int = Field(0, ge=0, le=2**17, description="tokens of a text; 0: the model's own")
    steps: Count = Field(600, description="updates; 0: the untrained encoder")
    learning_rate: float = Field(0.0, gt=0, description="peak; 0: the model's own")
    weight_decay: float = Field(0.01, ge=0, description="of AdamW")
    warmup: Share = Field(0.1, description="share of the steps in which the learning rate rises")
    schedule: Literal["linear", "cosine", "constant", "wsd"] = Field(
        "linear", description="of the learning rate after the warm-up"
    )
    warmup_steps: Count = Field(60, description="wsd: steps in which it rises, in place of warmup")
    decay: Share = Field(0.2, description="wsd: share of a budget's steps in which it falls to 0")
    budgets: list[int] = Field(
        [], description="wsd: steps after each of which an encoder is left, the last being `steps`"
    )
    clip: float = Field(1.0, gt=0, description="largest norm of the gradient")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="of products, not of weights")
    weights: Literal["fp32", "bf16", "int8", "nf4"] = Field("fp32", description="beside lora")
    compile: bool = Field(False, description="by torch.compile: other last bits after a stop")
    chunk: Count = Field(0, description="texts in memory at a time, for another forward; 0: all")
    recompute: bool = Field(False, description="layers' inner states made again for gradients")
    ranks: Size = Field(1, description="processes that share each batch, a GPU each if any")
    shard: bool = Field(False, description="each rank holds its part of every layer, not all of it")
    checkpoint_every: Positive = Field(200, description="steps between checkpoints")
    keep_checkpoints: Positive = Field(1, description="how many of the latest are kept")
    log_every: Positive = Field(50, description="steps between lines of the log")
    validate_every: Count = Field(0, description="steps between validations, best kept; 0: none")
    patience: Count = Field(0, description="validations without a better one, then stop; 0: never")
    look_every: Count = Field(
        0, description="steps between looks at gradients of mono and cross batches; 0: none"
    )
    # torch takes one bit more, but tables hold int64
    seed: int = Field(0, ge=0, le=2**63 - 1, description="of initial weights and of batches")
    threads: Size = Field(1, description="CPU threads; results depend on it in the last bits")
    device: Device = Field("auto", description="cuda where there is one, or as said")

    @model_validator(mode="before")
    @classmethod
    def _of_scratch_or_checkpoint(cls, values: Any) -> Any:
        """Fill in what is 0, empty or absent by what is trained."""
        return presets.filled(values) if isinstance(values, dict) else values

    def defaults(self) -> dict[str, Any]:
        return super().defaults() | presets.own(self.model)

    @field_validator("only")
    @classmethod
    def _known_only(cls, value: str) -> str:
        return language_code(value) if value else value

    @field_validator("corpus")
    @classmethod
    def _corpus_is_a_folder_name(cls, value: str) -> str:
        return _folder_name(value)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        require_fit(self)
        self._check_budgets()
        return self

    def leaves(self, budget: int) -> int:
        """Steps on the trunk of a budget, after which its branch leaves and the rate falls."""
        return budget - round(self.decay * budget)

    def _check_budgets(self) -> None:
        name, found, first = "train.budgets", self.budgets, next(iter(self.budgets), self.steps)
        if found and self.schedule != "wsd":
            words = f"does not go with schedule {self.schedule!r} (expected 'wsd')"
            raise ValueError(f"{name}: {words}")
        if [0, *found] != sorted({0, *found}):
            raise ValueError(f"{name}: {short(found)} does not increase (expected it, from 1 on)")
        if found and found[-1] != self.steps:
            raise ValueError(f"{name}: ends with {found[-1]} (expected train.steps, {self.steps})")
        if found and self.validate_every:
            raise ValueError(f"{name}: does not go with validate_every (expected 0)")
        rising, stable = max(1, self.warmup_steps), self.leaves(first)
        if self.schedule == "wsd" and first and stable < rising:
            raise ValueError(
                f"train.warmup_steps: the rate of a budget of {first} falls after {stable} steps, "
                f"before it has risen (expected {rising} or more, by warmup_steps or decay)"
            )


class BenchmarkSpec(BaseModel):
    """One entry of `evaluate.benchmarks`: where a benchmark comes from and what is used of it."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    format: str
    folder: str = Field("", description="its files; empty: downloaded where that is possible")
    languages: list[str] = Field([], description="language codes; []: all that it has")
    trained: bool = Field(False, description="only languages that the corpus trains on")
    unseen: bool = Field(False, description="lareqa: only articles the corpus does not train on")
    candidate: Literal["sentence", "sentence+paragraph"] = Field(
        "sentence", description="lareqa: what is searched"
    )
    clusters: Literal["article", "paragraph"] = Field(
        "article", description="lareqa, heldout, parallel: questions that are not independent"
    )
    split: str = Field("", description="lareqa: xquad-r or mlqa-r; beir, miracl: test, dev, ...")
    prompt: str = Field(  # left out of what was written before it came
        "", exclude_if=lambda text: not text, description="text before its questions, if any"
    )


class Evaluate(Stage):
    unnamed_run = "base"

    run: str = Field("", description="the run of 02_train to evaluate; empty: base")
    benchmarks: dict[str, BenchmarkSpec] = Field(
        {"heldout": {"format": "heldout"}},
        validate_default=True,
        description="name: what is evaluated (docs/benchmarks.md); the first is the report's own",
    )
    mteb: list[str] = Field([], description="also these tasks or benchmarks of the mteb package")
    encode_batch: Size = Field(256, description="texts encoded at a time")
    threads: Size = Field(1, description="CPU threads")
    device: Device = Field("auto", description="cuda where there is one, or as said")

    @field_validator("benchmarks")
    @classmethod
    def _named_benchmarks(cls, value: dict[str, BenchmarkSpec]) -> dict[str, BenchmarkSpec]:
        if not value:
            raise ValueError("is empty (expected one benchmark or more)")
        for name in value:
            beside = name.endswith((".cells", ".agnostic"))  # what its sums have beside them
            if beside or not LABEL.fullmatch(name):
                raise ValueError(f"{name!r} cannot name a file (expected letters, digits, . _ + -)")
        return value


class Analyse(Stage):
    unnamed_run = ""
    came_later = {"axis": "", "points": {}, "question": "", "asked": {}, "full": ""}

    run: str = Field("", description="one run of 02_train; empty: all of the study")
    benchmark: str = Field("", description="what the report is about; empty: the first evaluated")
    note: str = Field("", description="what readers must know of the data, for the report's top")
    question: str = Field("", description="that the study is to answer, for the report's top")
    asked: dict[str, str] = Field({}, description="what was asked for: what was measured here")
    full: str = Field("", description="asked: the study file that runs all of it")
    axis: str = Field(
        "", description="of the study: a trend over it; all else is of its last label"
    )
    points: dict[str, float] = Field({}, description="axis: number of a label; {}: it is one")
    bootstrap: Positive = Field(2000, description="resamples of the bootstrap, a check")

    def number_of(self, label: str) -> float:
        """What a label of the axis stands for. Raises ValueError where that is no number."""
        return self.points.get(label) or float(label)


STAGES: dict[str, type[Stage]] = {m.name(): m for m in (Prepare, Train, Evaluate, Analyse)}
VARIED = ("prepare", "train")  # evaluation and analysis see all of a study the same way
DRIVEN = ("study", "run", "corpus")  # set by whoever runs the study


def spelled(value: Any) -> str:
    """A value as part of a folder's name: `1` and `1.0` alike, lists joined by +."""
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    if isinstance(value, list):
        return "+".join(spelled(v) for v in value) or "none"
    if isinstance(value, dict):
        return "+".join(f"{k}-{spelled(v)}" for k, v in value.items()) or "none"
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", str(value)) or "none"


def _spelled_key(stage: Stage) -> str:
    changed = {
        name: getattr(stage, name)
        for name, default in stage.defaults().items()
        if name not in ("study", "run") and getattr(stage, name) != default
    }
    return ",".join(f"{name}={spelled(value)}" for name, value in changed.items()) or "base"


# --- one line for each mistake -----------------------------------------------------------------


class DoNotFitTogether(BadParameter):
    """Each parameter is right by itself, but not with another one."""


def checked(
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
    inner = "".join(f"[{' '.join(str(x).split())}]" for x in first["loc"][1:])
    where = f"{(origins or {}).get(name, '')}{model.name()}.{name}{inner}"
    bounds = model.model_fields[name].metadata if name in model.model_fields else []
    what = explained(first, bounds, BenchmarkSpec.model_fields)
    raise BadParameter(f"{where}: {what}")
