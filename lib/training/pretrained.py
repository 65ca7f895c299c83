"""What a checkpoint says of itself beside its weights, read before anything is loaded.

A checkpoint of sentence-transformers is a chain of modules: how token vectors become one, what
stands before a text, layers behind the pooling. What lib.encoder does not do would be left out in
silence, and the model be another one than its name says. So it is refused, or the parameter is
named that says the same. No torch is needed: a study is checked before its first stage.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lib import store
from lib.checkpoint import checkpoint_source
from lib.params import Train
from lib.training import packaged

# What says it, also on the hub; of modules the folders that modules.json names.
FILES = [
    "modules.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
    "tokenizer_config.json",
    "encoder.json",
    "[0-9]*_*/config.json",
]
LONGEST = 2**17  # tokenizers without a limit state one beyond all use
# sentence-transformers' own names of what it puts before texts, the first that there is.
PROMPTS = {"question": ("query",), "passage": ("document", "passage", "corpus")}


def check(p: Train) -> None:
    """Raises ValueError in one line where p.model is no checkpoint, or one that p does not load as
    it is meant. Of the hub only the name is looked at; `check_folder` is for its files."""
    if p.model == packaged.NAME:
        packaged.check()
        _compare(p, "pooling", packaged.POOLING)
    elif p.model:
        source = checkpoint_source(p.model)
        if "revision" not in source:
            check_folder(Path(source["pretrained_model_name_or_path"]), p)


def check_folder(folder: Path, p: Train) -> None:
    """Raises ValueError in one line for what is not applied, naming the parameter if it can be."""
    try:
        _check_settings(folder, p)
    except (KeyError, TypeError, AttributeError) as error:
        what = f"{type(error).__name__}: {error}"
        raise ValueError(f"model {p.model!r}: its settings are damaged ({what})") from None


def _check_settings(folder: Path, p: Train) -> None:
    modules = _read(folder / "modules.json") or []
    about = _read(folder / "config_sentence_transformers.json")
    reads = _read(folder / "sentence_bert_config.json")
    own = _read(folder / "encoder.json")
    if (what := about.get("model_type", "SentenceTransformer")) != "SentenceTransformer":
        _refuse(p, f"is a {what}")
    kinds = [_kind(p, module) for module in modules]
    for kind, module in zip(kinds, modules, strict=True):
        if kind == "Pooling":
            _check_pooling(p, _read(folder / module["path"] / "config.json"))
    similarity = about.get("similarity_fn_name") or "cosine"
    if similarity != "cosine" and "Normalize" not in kinds:
        _refuse(p, f"compares vectors by {similarity} and not by cosine")
    tokenizer = _read(folder / "tokenizer_config.json")
    if reads.get("do_lower_case") and not tokenizer.get("do_lower_case"):
        _refuse(p, "puts texts in lower case")
    for side in PROMPTS:
        if prompt := own.get(f"{side}_prompt") or _prompt(side, about):
            _compare(p, f"{side}_prompt", prompt)
    if own:
        _compare(p, "pooling", own["pooling"])


def _kind(p: Train, module: dict[str, Any]) -> str:
    """Transformer, Pooling or Normalize. Raises ValueError for any other module."""
    package, _, kind = str(module["type"]).rpartition(".")
    known = kind in ("Transformer", "Pooling", "Normalize")
    if not known or not package.startswith("sentence_transformers."):
        _refuse(p, f"has a module {module['type']} ({module['path']})")
    return kind


def stated(folder: Path) -> dict[str, Any]:
    """Parameters of `train` that the folder of a checkpoint states of itself: pooling (the mean
    where nothing is said, as sentence-transformers has it), both prompts, and max_length where one
    is stated. What is not applied here, `check_folder` refuses. Raises ValueError."""
    try:
        modules = _read(folder / "modules.json") or []
        about = _read(folder / "config_sentence_transformers.json")
        modes = [
            _modes(_read(folder / module["path"] / "config.json"))
            for module in modules
            if str(module["type"]).endswith(".Pooling")
        ]
        prompts = {f"{side}_prompt": _prompt(side, about) for side in PROMPTS}
        limit = _read(folder / "sentence_bert_config.json").get("max_seq_length")
        limit = limit or _read(folder / "tokenizer_config.json").get("model_max_length") or 0
        if not 0 < limit <= LONGEST:
            limit = _positions(_read(folder / "config.json"))
    except (KeyError, TypeError, AttributeError) as error:
        what = f"{type(error).__name__}: {error}"
        raise ValueError(f"{folder}: its settings are damaged ({what})") from None
    pooling = next((mode[0] for mode in modes if mode in (["mean"], ["cls"])), "mean")
    length = {"max_length": limit} if limit else {}
    return {"pooling": pooling, **prompts, **length}


def _positions(config: dict[str, Any]) -> int:
    """Tokens that a model has positions for, 0 where it states none; RoBERTa's kin begin to count
    behind the padding token's."""
    first = 2 * ("roberta" in str(config.get("model_type")))
    return max(0, config.get("max_position_embeddings", 0) - first)


def _modes(config: dict[str, Any]) -> list[str]:
    """Names of a pooling. Older versions say pooling_mode_cls_token: true and the like, newer ones
    a name."""
    old = [key.removeprefix("pooling_mode_") for key, on in config.items() if on is True]
    old = [key.removesuffix("_tokens").removesuffix("_token") for key in old if "prompt" not in key]
    modes = config.get("pooling_mode", old or "mean")
    return [modes] if isinstance(modes, str) else [*modes]


def _check_pooling(p: Train, config: dict[str, Any]) -> None:
    modes = _modes(config)
    if modes not in (["mean"], ["cls"]):
        _refuse(p, f"pools by {' and '.join(map(str, modes))}")
    _compare(p, "pooling", modes[0])
    if config.get("include_prompt") is False and (p.question_prompt or p.passage_prompt):
        _refuse(p, "leaves prompts out of its pooling")


def _prompt(side: str, about: dict[str, Any]) -> str:
    """What is put before the questions or passages; "" where nothing is said."""
    prompts = about.get("prompts") or {}
    names = (*PROMPTS[side], about.get("default_prompt_name"))
    return next((prompts[name] for name in names if prompts.get(name)), "")


def _compare(p: Train, parameter: str, theirs: Any) -> None:
    ours = getattr(p, parameter)
    if ours != theirs:
        raise ValueError(
            f"model {p.model!r} has {parameter} {theirs!r}, train.{parameter} is {ours!r} "
            f"(expected {theirs!r})"
        )


def _refuse(p: Train, what: str) -> None:
    raise ValueError(f"model {p.model!r} {what}, which is not applied here")


def _read(file: Path) -> Any:
    """The value of a JSON file; {} where there is none. Raises ValueError."""
    return store.read_json(file) if file.is_file() else {}
