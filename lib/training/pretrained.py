"""What a checkpoint says of itself beside its weights, read before anything is loaded.

A checkpoint of sentence-transformers is a chain of modules: how token vectors become one, what
stands before a text, layers behind the pooling. All of it is applied, unless the study says
something else; what lib.encoder does not do is refused by name, since it would be left out in
silence. No torch is needed: a study is checked before its first stage.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

from lib import store
from lib.checkpoint import checkpoint_source, loading
from lib.params import Train
from lib.presets import NONE
from lib.training import decoders, packaged

# What says it, also on the hub; of modules the folders that modules.json names.
FILES = [
    "config.json",
    "modules.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
    "tokenizer_config.json",
    "encoder.json",
    "[0-9]*_*/config.json",
    "[0-9]*_Dense/model.safetensors",
]
CODE = "*.py"  # the same of code that a checkpoint brings
LONGEST = 2**17  # tokenizers without a limit state one beyond all use
# sentence-transformers' own names of what it puts before texts, the first that there is.
PROMPTS = {"question": ("query",), "passage": ("document", "passage", "corpus")}
# What is known to do the same in torch.nn by its name alone.
ACTIVATIONS = ("Identity", "Tanh", "ReLU", "GELU", "SiLU", "Sigmoid")
POOLINGS = ("mean", "cls", "lasttoken", "weightedmean")
ORDER = re.compile("Transformer Pooling( Dense)*( Normalize)?( LanguageMaps)?")
UNSAID = {"pooling": "mean", "max_length": 128}  # where neither checkpoint nor study says it
SETTINGS = ("pooling", "question_prompt", "passage_prompt", "max_length")


class Own(NamedTuple):
    """What a checkpoint asks for; "", 0 or nothing where it does not say.

    dense   folders of the Dense modules behind the pooling, in their order
    causal  whether a token sees only those before it
    maps    whether lib.training.maps come last"""

    pooling: str = ""
    question_prompt: str = ""
    passage_prompt: str = ""
    max_length: int = 0
    dense: tuple[Path, ...] = ()
    causal: bool = False
    maps: bool = False


def check(p: Train) -> None:
    """Raises ValueError in one line where p.model is no checkpoint, or one that p does not load as
    it is meant. Of the hub only the name is looked at; `own` is for its files."""
    if p.model == packaged.NAME:
        packaged.check()
        applied(Own(packaged.POOLING), p)
    elif p.model:
        source = checkpoint_source(p.model)
        if "revision" not in source:
            applied(own(here(p.model, p.remote_code), p.model, p.remote_code), p)


def applied(said: Own, p: Train) -> dict[str, Any]:
    """Values of lib.encoder.Settings by name: the checkpoint's own where the study says nothing.

    Raises ValueError in one line where the two differ; only the length is the study's choice, and
    whether there is a prompt ("none")."""
    if said.maps:
        _refuse(p.model, "has a map for each language behind it")
    values = {name: getattr(p, name) for name in SETTINGS}
    unsaid = UNSAID | ({"pooling": decoders.POOLING} if said.causal else {})
    for name, asked in values.items():
        theirs = getattr(said, name)
        if NONE != asked != theirs and asked and theirs and name != "max_length":
            raise ValueError(
                f"model {p.model!r} has {name} {theirs!r}, train.{name} is {asked!r} "
                f"(expected {theirs!r}, or to leave it out)"
            )
        values[name] = "" if asked == NONE else asked or theirs or unsaid.get(name, "")
    if said.causal and values["pooling"] == "cls":
        what = "expected lasttoken, weightedmean or mean: the first token sees no other"
        raise ValueError(f"model {p.model!r} is a decoder, train.pooling is 'cls' ({what})")
    return values


def here(model: str, code: bool = False) -> Path:
    """The folder with what a checkpoint says of itself, and its code if that is asked for; of the
    hub it is fetched. Raises ValueError."""
    source = checkpoint_source(model)
    folder = source["pretrained_model_name_or_path"]
    if "revision" in source:
        from huggingface_hub import snapshot_download

        wanted = [*FILES, *[CODE] * code]
        with loading(model):
            folder = snapshot_download(folder, revision=source["revision"], allow_patterns=wanted)
    return Path(folder)


def code_of(folder: Path) -> str:
    """Hex sha256 of the code that a checkpoint brings, by the names of its files."""
    files = sorted(folder.glob(CODE))
    return store.digest({file.name: store.sha256(file) for file in files})


def own(folder: Path, model: str, code: bool = False) -> Own:
    """What the files in the folder of the checkpoint `model` say. code: whether it may bring some.

    Raises ValueError in one line for what is not applied here, and for damaged files."""
    try:
        _check_code(model, folder, code)
        return _own(folder, model)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        what = f"{type(error).__name__}: {error}"
        raise ValueError(f"model {model!r}: its settings are damaged ({what})") from None


def _own(folder: Path, model: str) -> Own:
    modules = _read(folder / "modules.json") or []
    about = _read(folder / "config_sentence_transformers.json")
    if (what := about.get("model_type", "SentenceTransformer")) != "SentenceTransformer":
        _refuse(model, f"is a {what}")
    kinds = [_kind(model, module) for module in modules]
    if modules and not ORDER.fullmatch(" ".join(kinds)):
        _refuse(model, f"has its modules in the order {', '.join(kinds)}")
    similarity = about.get("similarity_fn_name") or "cosine"
    if similarity != "cosine" and "Normalize" not in kinds:
        _refuse(model, f"compares vectors by {similarity} and not by cosine")
    if about.get("truncate_dim"):
        _refuse(model, f"cuts vectors to {about['truncate_dim']} numbers")
    folders = [folder / module["path"] for module in modules]
    dense = tuple(f for f, kind in zip(folders, kinds, strict=True) if kind == "Dense")
    for place in dense:
        _check_dense(model, place)
    prompts = [_prompt(side, about) for side in PROMPTS]
    pooling = _pooling(model, _read(folders[1] / "config.json"), any(prompts)) if modules else ""
    causal = decoders.is_causal(_read(folder / "config.json"))
    length, mapped = _length(folder, model, bool(modules)), "LanguageMaps" in kinds
    found = Own(pooling, *prompts, length, dense, causal, mapped)
    if not (saved := _read(folder / "encoder.json")):
        return found
    kept = {name: saved[name] for name in SETTINGS if name in saved}
    return found._replace(**kept | {"pooling": saved["pooling"]})


def longest(folder: Path) -> int:
    """Tokens of a text that a checkpoint is made for: what its files say, else the model's
    positions; 0 where there is no limit. RoBERTa's kin begin to count behind the padding token's.

    Raises ValueError for what is not applied here."""
    config, tokens = _read(folder / "config.json"), _read(folder / "tokenizer_config.json")
    said = own(folder, str(folder)).max_length or tokens.get("model_max_length") or 0
    first = 2 * ("roberta" in str(config.get("model_type")))
    positions = max(0, config.get("max_position_embeddings", 0) - first)
    return int(said) if 0 < said <= LONGEST else positions


def _kind(model: str, module: dict[str, Any]) -> str:
    """Its name, without the package's. Raises ValueError for a module that is not known here."""
    package, _, kind = str(module["type"]).rpartition(".")
    known = kind in ("Transformer", "Pooling", "Dense", "Normalize", "LanguageMaps")
    if not known or not package.startswith("sentence_transformers."):
        _refuse(model, f"has a module {module['type']} ({module['path']})")
    return kind


def _pooling(model: str, config: dict[str, Any], prompted: bool) -> str:
    """Older versions say pooling_mode_cls_token: true and the like, newer ones a name."""
    old = [key.removeprefix("pooling_mode_") for key, on in config.items() if on is True]
    old = [key.removesuffix("_tokens").removesuffix("_token") for key in old if "prompt" not in key]
    modes = config.get("pooling_mode", old or "mean")
    modes = [modes] if isinstance(modes, str) else [*modes]
    if len(modes) != 1 or modes[0] not in POOLINGS:
        _refuse(model, f"pools by {' and '.join(map(str, modes))}")
    if config.get("include_prompt") is False and prompted:
        _refuse(model, "leaves prompts out of its pooling")
    return modes[0]


def _check_code(model: str, folder: Path, allowed: bool) -> None:
    """Raises ValueError for a checkpoint with a class of its own, unless that is allowed: it would
    be another model without it, also where transformers has one of that type. Never allowed are
    code that lies with another checkpoint, whose commit nobody named, and that of a tokenizer."""
    for name in ("config.json", "tokenizer_config.json"):
        classes = _read(folder / name).get("auto_map")
        ways = "expected a class of transformers; where that is the same, take the entry out"
        ways += "; to run the code, train.remote_code: true" * (name == "config.json")
        if classes and not (allowed and name == "config.json"):
            what = f"brings code of its own (auto_map in {name}), which is not run"
            raise ValueError(f"model {model!r} {what} ({ways})")
        if "--" in str(classes):
            what = f"names code of another checkpoint (auto_map in {name})"
            raise ValueError(f"model {model!r} {what} (expected its files beside {name})")


def _check_dense(model: str, place: Path) -> None:
    """Raises ValueError for a head that is more than a matrix, a bias and an activation."""
    config, where = _read(place / "config.json"), f"its {place.name}"
    if activation(config) not in ACTIVATIONS:
        _refuse(model, f"has an activation {config['activation_function']} in {where}")
    if config.get("use_residual"):
        _refuse(model, f"adds what goes into {where} to what comes out")
    for end in ("module_input_name", "module_output_name"):
        if (name := config.get(end) or "sentence_embedding") != "sentence_embedding":
            _refuse(model, f"has {where} at {name}, not at the pooled vector")
    if not (place / "model.safetensors").is_file():
        what = "no model.safetensors (weights as pickle are not read)"
        raise ValueError(
            f"model {model!r}: {where} has {what}, expected what save_pretrained writes"
        )


def activation(config: dict[str, Any]) -> str:
    """The class of torch.nn in the configuration of a Dense module, where it is one."""
    package, _, kind = config["activation_function"].rpartition(".")
    return kind if package.startswith("torch.nn.") else ""


def _length(folder: Path, model: str, modules: bool) -> int:
    """The limit in tokens: newer versions leave it to the tokenizer's settings."""
    reads, tokens = (_read(folder / f"{n}_config.json") for n in ("sentence_bert", "tokenizer"))
    if reads.get("do_lower_case") and not tokens.get("do_lower_case"):
        _refuse(model, "puts texts in lower case")
    limit = reads.get("max_seq_length") or (modules and tokens.get("model_max_length")) or 0
    return int(limit) if limit <= LONGEST else 0


def _prompt(side: str, about: dict[str, Any]) -> str:
    """What is put before the questions or passages; "" where nothing is said."""
    prompts = about.get("prompts") or {}
    names = (*PROMPTS[side], about.get("default_prompt_name"))
    return next((prompts[name] for name in names if prompts.get(name)), "")


def _refuse(model: str, what: str) -> None:
    raise ValueError(f"model {model!r} {what}, which is not applied here")


def _read(file: Path) -> Any:
    """The value of a JSON file; {} where there is none. Raises ValueError."""
    return store.read_json(file) if file.is_file() else {}
