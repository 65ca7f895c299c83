"""Encoders from checkpoints, or new ones of a chosen size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from lib import store
from lib.checkpoint import checkpoint_source, loading
from lib.encoder import Encoder, Settings, pick_device
from lib.params import Train
from lib.training import adapters, decoders, export, frozen, maps, packaged, pretrained

SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}


def build_encoder(params: Train, tokenizer_file: Path) -> Encoder:
    """The encoder that `params` asks for, before training.

    model ""  a BERT of params.width, layers, heads and dropout over the tokenizer in the file
    else      packaged.NAME, a checkpoint's folder, or name@revision of the Hugging Face hub

    New weights depend on params.seed alone, and nobody else's random numbers change. Raises
    ValueError for a model or tokenizer that will not do."""
    asked, said = settings(params), _own(params)  # before anything large is loaded
    with _seeded(params.seed):
        if params.model:
            own = params.model == packaged.NAME
            name = str(packaged.folder()) if own else params.model
            model, tokenizer = _checkpoint(name, params.layers_kept, params.remote_code)
            if said.causal and not said.pooling:
                decoders.end_with_eos(tokenizer, params.model)
            frozen.check(model, params.model, params.frozen)
            adapters.check(params, model, pick_device(params.device))
        else:
            tokenizer = _tokenizer(tokenizer_file)
            model = _small(params, tokenizer)
    return Encoder(model, tokenizer, asked, export.heads(said.dense))


def settings(params: Train) -> Settings:
    """Pooling, prompts and length of what `params` asks for: the checkpoint's own where it does not
    say. Raises ValueError where the two differ."""
    return Settings(**pretrained.applied(_own(params), params))


def load_encoder(folder: Path, code: bool = True) -> Encoder:
    """Read what `export.save_encoder` wrote: gives the same vectors.

    code: whether a run whose study said `remote_code` may run what it saved: only of runs that were
    made here, since a folder from elsewhere says so of itself.

    Raises ValueError where the folder holds no saved encoder, store.Damaged where it has a
    manifest that does not verify."""
    has_manifest = (Path(folder) / "manifest.json").is_file()
    manifest = store.verify(folder) if has_manifest else {}
    if not (Path(folder) / "encoder.json").is_file():
        raise ValueError(f"{folder} holds no saved encoder (encoder.json is missing)")
    settings = Settings(**store.read_json(Path(folder) / "encoder.json"))
    identity = manifest.get("identity", {})
    code = code and identity.get("remote_code", False)
    dense = export.heads(pretrained.own(Path(folder), str(folder), code).dense)
    encoder = Encoder(*_checkpoint(str(Path(folder).resolve()), code=code), settings, dense)
    frozen.freeze(encoder, identity.get("frozen", 0))  # has its states
    encoder.maps = maps.load(Path(folder))
    return encoder


def recompute(model: torch.nn.Module) -> None:
    """Have the model keep what goes into a layer alone, and make the rest again for gradients."""
    newer = getattr(model, "activation_checkpointing_enable", None)  # transformers 5.23 and later
    (newer or model.gradient_checkpointing_enable)({"use_reentrant": False})


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Random numbers of torch's CPU generator follow from `seed` inside, and go on after."""
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(state)


def _tokenizer(file: Path):
    """The tokenizer in a JSON file of `tokenizers`. Raises ValueError if it lacks BERT's tokens."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    if not Path(file).is_file():
        raise ValueError(f"there is no tokenizer {file}")
    words = Tokenizer.from_file(str(file))
    for token in SPECIAL.values():
        if words.token_to_id(token) is None:
            raise ValueError(f"{file} has no token {token}, expected {', '.join(SPECIAL.values())}")
    return PreTrainedTokenizerFast(tokenizer_object=words, **SPECIAL)


def _small(params: Train, tokenizer):
    """A new BertModel over a tokenizer."""
    from transformers.models.bert import BertModel

    return BertModel(_sizes(params, len(tokenizer), tokenizer.pad_token_id), False)


def _sizes(params: Train, vocabulary: int, padding: int = 0):
    """A configuration of BERT. Inner layers are 2 x width, where BERT has 4 x: a third faster."""
    from transformers.models.bert import BertConfig

    return BertConfig(
        vocab_size=vocabulary,
        pad_token_id=padding,
        type_vocab_size=1,
        hidden_size=params.width,
        intermediate_size=2 * params.width,
        num_hidden_layers=params.layers,
        num_attention_heads=params.heads,
        max_position_embeddings=params.max_length,
        hidden_dropout_prob=params.dropout,
        attention_probs_dropout_prob=params.dropout,
    )


def configuration(params: Train, vocabulary: int):
    """(configuration, what makes a model of it without weights) of what `build_encoder` builds;
    vocabulary: of an encoder from scratch. Raises ValueError in one line."""
    from transformers import AutoConfig
    from transformers.models.bert import BertModel

    if not params.model:
        return _sizes(params, vocabulary), lambda config: BertModel(config, False)
    own = params.model == packaged.NAME
    name = str(packaged.folder()) if own else params.model
    with loading(name):
        source = checkpoint_source(name) | {"trust_remote_code": params.remote_code}
        config = AutoConfig.from_pretrained(**source)
    kind = _encoder_class(name, config)
    if params.layers_kept:
        _keep(config, params.layers_kept, params.model)
    return config, lambda config: _bare(
        kind.from_config(config, trust_remote_code=params.remote_code)
    )


def _own(params: Train) -> pretrained.Own:
    """What a checkpoint says of itself, on the hub too. Raises ValueError for what is not applied:
    it would lose some of what it is."""
    name, code = params.model, params.remote_code
    if name in ("", packaged.NAME):
        return pretrained.Own(packaged.POOLING if name else "")
    return pretrained.own(pretrained.here(name, code), name, code)


def _checkpoint(name: str, layers: int = 0, code: bool = False):
    """Model, of which the first so many layers (0: all), and tokenizer, of a folder or of hub
    name@revision.

    No code that comes with a model is run, unless `code`, and no pickle is read. Raises ValueError
    in one line."""
    from transformers import AutoConfig, AutoTokenizer

    source = checkpoint_source(name) | {"trust_remote_code": code}
    with loading(name):
        config = AutoConfig.from_pretrained(**source)
    kind = _encoder_class(name, config)
    if code:  # where a hub's name stands before each: a saved encoder has its code beside it
        own = getattr(config, "auto_map", None) or {}
        config.auto_map = {auto: place.rpartition("--")[2] for auto, place in own.items()}
    if layers:
        _keep(config, layers, name)
    with loading(name):
        model, report = kind.from_pretrained(
            **source,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            output_loading_info=True,
        )
        tokenizer = AutoTokenizer.from_pretrained(**source)
    missing = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise ValueError(f"model {name!r} lacks weights, {missing[0]} among them")
    if config.model_type in decoders.KINDS:
        model.config.use_cache = False  # of states, for texts that go on
    _pad(tokenizer, model.config, name)
    _check_table(tokenizer, model, name)
    return _bare(model).eval(), tokenizer


def _bare(model: torch.nn.Module) -> torch.nn.Module:
    """The model without what is not used and would only be dead weight."""
    if getattr(model, "pooler", None) is not None:
        model.pooler = None
    return model


def _pad(tokenizer, config, name: str) -> None:
    """Have a token to pad with, as other programs need one: here padding is masked, whatever it is.

    The one that the model's configuration numbers, else EOS, and it is said."""
    if tokenizer.pad_token is not None:
        return
    number = getattr(config, "pad_token_id", None)
    own = tokenizer.convert_ids_to_tokens(number) if number in range(len(tokenizer)) else None
    tokenizer.pad_token = own or tokenizer.eos_token or tokenizer.sep_token
    if tokenizer.pad_token is None:
        raise ValueError(f"model {name!r}: its tokenizer has no token to pad with (expected one)")
    what = f"no token to pad with; {tokenizer.pad_token} is taken, which no vector depends on"
    print(f"model {name!r}: its tokenizer names {what}", flush=True)


def _check_table(tokenizer, model, name: str) -> None:
    """Raises ValueError for tokens without a word vector.

    Special tokens that nothing puts into a text or pads with may lack one, as that for images in
    Gemma 3's tokenizer does."""
    words, rows = tokenizer.backend_tokenizer, model.get_input_embeddings().num_embeddings
    named = {getattr(tokenizer, f"{mark}_token_id") for mark in ("pad", "unk", "eos")}
    placed = named.union(words.encode("").ids)
    special = {n for n, token in words.get_added_tokens_decoder().items() if token.special}
    beyond = {n: t for t, n in words.get_vocab().items() if n >= rows}
    if lost := beyond.keys() - (special - placed):
        raise ValueError(
            f"model {name!r}: its tokenizer goes beyond the table of {rows} word vectors, by "
            f"{len(lost)} from {beyond[min(lost)]!r} on (expected the tokenizer of this model)"
        )


def _keep(config, layers: int, name: str) -> None:
    """Make the configuration that of the first layers; weights of others are then not loaded."""
    if layers > config.num_hidden_layers:
        raise ValueError(
            f"train.layers_kept: {layers} is more than the {config.num_hidden_layers} layers of "
            f"{name!r} (expected {config.num_hidden_layers} or less)"
        )
    config.num_hidden_layers = layers
    if getattr(config, "layer_types", None):  # one of each layer
        config.layer_types = config.layer_types[:layers]


def _encoder_class(name: str, config):
    """The class that loads the encoder, of encoder-decoders only that half.

    Raises ValueError for a type that is neither an encoder nor one of lib.training.decoders."""
    from transformers import AutoModel, AutoModelForTextEncoding
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    if config.model_type in ("t5", "mt5", "umt5"):
        return AutoModelForTextEncoding
    if "AutoModel" in (getattr(config, "auto_map", None) or {}):  # of which was said that it is run
        return AutoModel
    masked = config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    if config.model_type in decoders.KINDS or (masked and not config.is_encoder_decoder):
        return AutoModel
    raise ValueError(
        f"model {name!r} is of type {config.model_type}, expected an encoder such as bert, "
        "xlm-roberta, modernbert or (its encoder half) mt5, or a decoder: "
        f"{', '.join(decoders.KINDS)}"
    )
