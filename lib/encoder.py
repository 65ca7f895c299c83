"""Text to unit vectors: one encoder for questions and passages, loaded or built from scratch.

Everything that decides a vector (weights, tokenizer, pooling, prompts, truncation) travels in one
folder, so an encoder cannot be evaluated with another prompt than it was trained with. The folder
is also an ordinary `transformers` checkpoint, readable by AutoModel and AutoTokenizer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from lib import store

# What a further forward costs, as a share of the batch's tokens, weighed against padding: halved
# until there are no more padding tokens than that share of the real ones.
CHARGE, PADDING = 0.04, 0.1
# Tokens that lengths are rounded up to before, which tensor cores like.
MULTIPLE = {"cpu": 1, "cuda": 8}
# Types of models whose mask is made here: given one a text, `transformers` looks whether it hides
# anything, and so waits for a GPU in each forward. In these, all tokens see all others.
MASKED = {"cpu": (), "cuda": ("bert", "roberta", "xlm-roberta")}

SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}


@dataclass(frozen=True)
class Settings:
    """How token vectors become one, what is put before a text, and its length limit in tokens."""

    pooling: str = "mean"
    question_prompt: str = ""
    passage_prompt: str = ""
    max_length: int = 64

    def prompt(self, kind: str) -> str:
        """The prompt of "question" or "passage". Raises ValueError for any other kind."""
        if kind not in ("question", "passage"):
            raise ValueError(f"kind of text is {kind!r}, expected 'question' or 'passage'")
        return getattr(self, f"{kind}_prompt")


class Encoder(torch.nn.Module):
    """A `transformers` encoder with its fast tokenizer, pooling, prompts and normalisation.

    truncated  how many texts `tokenize` has cut to max_length so far
    slots      how many token places `embed` has computed so far, padding included
    """

    def __init__(self, model, tokenizer, settings: Settings):
        """Raises ValueError where tokenizer or position table do not suit the settings."""
        super().__init__()
        self.model, self.tokenizer, self.settings = model, tokenizer, settings
        self.truncated = self.slots = 0
        self._words, self._longest = _words(tokenizer), _positions(model)
        _check(model, tokenizer, settings)
        self._words.enable_truncation(settings.max_length)

    @property
    def width(self) -> int:
        """Length d of a vector."""
        return self.model.config.hidden_size

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def tokenize(self, texts: Sequence[str], kind: str) -> list[np.ndarray]:
        """Token numbers int32 of each text with its prompt, special tokens included."""
        prompt = self.settings.prompt(kind)
        codes = self._words.encode_batch_fast([prompt + text for text in texts])
        self.truncated += sum(bool(code.overflowing) for code in codes)
        return [np.array(code.ids, np.int32) for code in codes]

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, rows=None) -> torch.Tensor:
        """Unit vectors [n, d], float32 or wider, of token numbers int64 [n, t], where mask [n, t]
        is 1.

        rows  float [U, e]: word vectors looked up beforehand, which ids then count into"""
        words = self._table()(ids) if rows is None else F.embedding(ids, rows)
        seen = mask
        if self.model.config.model_type in MASKED[mask.device.type]:
            seen = mask.bool()[:, None, None].expand(-1, 1, mask.shape[1], -1)
        hidden = self.model(inputs_embeds=words, attention_mask=seen).last_hidden_state
        hidden = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
        with torch.autocast(hidden.device.type, enabled=False):  # a mean keeps its precision
            return F.normalize(self._pool(hidden, mask.to(hidden.dtype)), dim=-1)

    def embed(self, token_lists: Sequence[np.ndarray], chunk: int = 0) -> torch.Tensor:
        """Unit vectors [n, d] with gradient, in the order given.

        chunk  0, or how many texts are in memory at a time: activations are dropped, and computed
               again when the gradient of the vectors is known, with the same dropout. So a loss
               over any number of texts has its exact gradient (GradCache: Gao et al., arXiv
               2101.06983) in the memory of one chunk, at the price of another forward.

        The word vectors of the whole batch are looked up once: else every chunk would add a dense
        gradient of the size of the vocabulary."""
        length = np.array([len(tokens) for tokens in token_lists])
        used, place = np.unique(np.concatenate(token_lists), return_inverse=True)
        places = np.split(place, np.cumsum(length)[:-1])
        rows = self._table()(on_device(self.device, used.astype(np.int64)))
        chunks = [part for whole in chunked(self._rounded(length)) for part in _cut(whole, chunk)]
        forward = partial(_twice, self) if chunk else self
        vectors = []
        for part in chunks:
            ids, mask = self._padded([places[i] for i in part])
            self.slots += ids.numel()
            vectors.append(forward(ids, mask, rows))
        back = on_device(self.device, np.argsort(np.concatenate(chunks)))
        return torch.cat(vectors).index_select(0, back)

    def train_only(self, used: np.ndarray) -> None:
        """Keep only the word vectors of these tokens, distinct int64, until `restore`; texts may
        hold no others. Tables that do more than look up stay whole."""
        table = self._table()
        if type(table) is torch.nn.Embedding and not (table.max_norm or table.scale_grad_by_freq):
            self.model.set_input_embeddings(UsedRows(table, used))

    def restore(self, factor: float) -> None:
        """Undo `train_only`: trained word vectors beside the others, which are scaled."""
        if isinstance(table := self._table(), UsedRows):
            self.model.set_input_embeddings(table.whole(factor))

    @torch.no_grad()
    def encode(self, texts: Sequence[str], kind: str, batch_size: int = 256) -> np.ndarray:
        """Unit vectors float32 [n, d], in the order given; dropout is off.

        Texts are sorted by length and cut into batches of batch_size, so the same call gives the
        same bits; another batch_size changes paddings and with them the last bits."""
        tokens = self.tokenize(texts, kind)
        order = np.argsort([len(x) for x in tokens], kind="stable")
        vectors = np.empty((len(tokens), self.width), np.float32)
        training = self.training
        self.eval()
        for start in range(0, len(order), batch_size):
            part = order[start : start + batch_size]
            vectors[part] = self(*self._padded([tokens[i] for i in part])).cpu().numpy()
        self.train(training)
        return vectors

    def save(self, folder: Path) -> None:
        """Write weights (safetensors), config, tokenizer and encoder.json into `folder`."""
        with _silent():
            self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        store.write_json(Path(folder) / "encoder.json", asdict(self.settings))

    @classmethod
    def load(cls, folder: Path) -> Encoder:
        """Read what `save` wrote: gives the same vectors.

        Raises ValueError where the folder holds no saved encoder, store.Damaged where it has a
        manifest that does not verify."""
        if (Path(folder) / "manifest.json").is_file():
            store.verify(folder)
        if not (Path(folder) / "encoder.json").is_file():
            raise ValueError(f"{folder} holds no saved encoder (encoder.json is missing)")
        settings = Settings(**store.read_json(Path(folder) / "encoder.json"))
        return cls(*_checkpoint(str(Path(folder).resolve())), settings)

    def _table(self) -> torch.nn.Module:
        return self.model.get_input_embeddings()

    def _rounded(self, length: np.ndarray) -> np.ndarray:
        """Lengths as the device likes them, but no more than the model has positions for."""
        multiple = MULTIPLE[self.device.type]
        return np.minimum(-(-length // multiple) * multiple, self._longest).astype(np.int64)

    def _padded(self, token_lists) -> tuple[torch.Tensor, torch.Tensor]:
        """int64 [n, t] tokens and mask; where the mask is 0 stands some token that there is."""
        length = np.array([len(tokens) for tokens in token_lists])
        mask = np.arange(self._rounded(length).max()) < length[:, None]
        ids = np.full(mask.shape, token_lists[0][0], np.int64)
        ids[mask] = np.concatenate(token_lists)
        return on_device(self.device, ids), on_device(self.device, mask.astype(np.int64))

    def _pool(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """[n, d]: the first token's vector, or the mean over tokens where the mask is 1."""
        if self.settings.pooling == "cls":
            return hidden[:, 0]
        share = mask / mask.sum(1, keepdim=True)
        return (share[:, None] @ hidden)[:, 0]


class UsedRows(torch.nn.Embedding):
    """Stands for a word table while training, with only those of its rows that texts use.

    All other rows would have no gradient, so that AdamW did nothing but shrink them, all by one
    factor; `whole` makes good for that. In a vocabulary of 250,000 they are most of a model."""

    def __init__(self, table: torch.nn.Embedding, used: np.ndarray):
        """used: distinct tokens int64."""
        rows = torch.from_numpy(used)
        place = torch.full((table.num_embeddings,), -1)  # no row: looking it up is an error
        place[rows] = torch.arange(len(used))
        padding = -1 if table.padding_idx is None else int(place[table.padding_idx])
        weight = table.weight.detach()[rows]
        super().__init__(*weight.shape, _weight=weight, padding_idx=None)
        self.padding_idx = None if padding < 0 else padding
        self.register_buffer("place", place, persistent=False)
        self._table = [table]  # in a list, or it would be a part of the model

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Word vectors of token numbers of the whole table."""
        return super().forward(self.place[ids])

    @torch.no_grad()
    def whole(self, factor: float) -> torch.nn.Embedding:
        """The table itself with the rows as they are now, all others times `factor`."""
        [table] = self._table
        weight, used = table.weight.to(self.weight), self.place >= 0
        weight = weight * factor
        weight[used] = self.weight[self.place[used]]
        table.weight = torch.nn.Parameter(weight)
        return table


def chunked(length: np.ndarray) -> list[np.ndarray]:
    """Texts, by their length in tokens int [n], as chunks to pad alike: numbers of texts, shorter
    ones first. Padding tokens are at most PADDING of the real ones; the more so, the less a further
    chunk is taken to cost."""
    order = np.argsort(length, kind="stable")
    distinct, count = np.unique(length, return_counts=True)
    until, charge = np.concatenate([[0], np.cumsum(count)]), CHARGE * length.sum()
    cuts, padded = _cheapest(distinct, until, charge)
    while padded > (1 + PADDING) * length.sum():
        charge /= 2
        cuts, padded = _cheapest(distinct, until, charge)
    return np.split(order, cuts)


def _cheapest(distinct: np.ndarray, until: np.ndarray, charge: float) -> tuple[list[int], int]:
    """Where to cut texts sorted by length, so that padded tokens plus `charge` a chunk are least,
    and how many padded tokens that gives: dynamic programming over the distinct lengths."""
    least, begin = np.zeros(len(until)), np.zeros(len(until), int)
    for end, longest in enumerate(distinct, start=1):
        cost = least[:end] + (until[end] - until[:end]) * longest
        begin[end] = cost.argmin()
        least[end] = cost.min() + charge
    cuts, end = [], begin[-1]
    while end:
        cuts, end = [until[end], *cuts], begin[end]
    return cuts, round(least[-1] - charge * (len(cuts) + 1))


def _twice(encoder: Encoder, ids: torch.Tensor, mask: torch.Tensor, rows: torch.Tensor):
    """Its vectors, forgetting how they came about until their gradient is there.

    Reentrant, for the other kind keeps the graph's empty shell: .7 MB a chunk of 12 layers. But
    that takes parameters into account only where an input wants a gradient, so `rows` has to."""
    return checkpoint(encoder, ids, mask, rows.requires_grad_(), use_reentrant=True)


def on_device(device: torch.device, array: np.ndarray) -> torch.Tensor:
    """The array there; a GPU fetches it without anybody waiting."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def _cut(texts: np.ndarray, size: int) -> list[np.ndarray]:
    """Pieces of at most `size` texts; 0: all in one."""
    return np.split(texts, range(size, len(texts), size)) if size else [texts]


def pick_device(wanted: str) -> str:
    """cpu or cuda; "auto" is cuda where there is one. Raises ValueError for a missing GPU."""
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise ValueError("device is 'cuda', but torch finds no GPU here, expected 'cpu' or 'auto'")
    return "cuda" if available and wanted != "cpu" else "cpu"


def build(params, tokenizer_file: Path) -> Encoder:
    """The encoder that `params` (lib.params.Train) asks for, before training.

    model ""  a BERT of params.width, layers, heads and dropout over the tokenizer in the file
    else      the checkpoint folder, or name@revision to load from the Hugging Face hub

    New weights depend on params.seed alone, and nobody else's random numbers change. Raises
    ValueError for a model or tokenizer that will not do."""
    settings = Settings(
        params.pooling, params.question_prompt, params.passage_prompt, params.max_length
    )
    with _seeded(params.seed):
        if params.model:
            model, tokenizer = _checkpoint(params.model)
        else:
            tokenizer = _tokenizer(tokenizer_file)
            model = _small(params, tokenizer)
    return Encoder(model, tokenizer, settings)


@contextmanager
def _seeded(seed: int):
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


def _small(params, tokenizer):
    """A new BertModel. Its inner layers are 2 x width, where BERT has 4 x: a third faster."""
    from transformers.models.bert import BertConfig, BertModel

    return BertModel(
        BertConfig(
            vocab_size=len(tokenizer),
            pad_token_id=tokenizer.pad_token_id,
            type_vocab_size=1,
            hidden_size=params.width,
            intermediate_size=2 * params.width,
            num_hidden_layers=params.layers,
            num_attention_heads=params.heads,
            max_position_embeddings=params.max_length,
            hidden_dropout_prob=params.dropout,
            attention_probs_dropout_prob=params.dropout,
        ),
        add_pooling_layer=False,
    )


def _checkpoint(name: str):
    """Model and tokenizer of a folder or of hub name@revision.

    No code that comes with a model is run and no pickle is read. Raises ValueError in one line."""
    from transformers import AutoConfig, AutoTokenizer

    source = _source(name) | {"trust_remote_code": False}
    with _loading(name):
        config = AutoConfig.from_pretrained(**source)
    kind = _encoder_class(name, config)
    with _loading(name):
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
    if getattr(model, "pooler", None) is not None:  # not used, so it would only be dead weight
        model.pooler = None
    return model.eval(), tokenizer


@contextmanager
def _loading(name: str):
    """Says in one line what fails."""
    try:
        with _silent():
            yield
    except (OSError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise ValueError(f"model {name!r} cannot be loaded: {first}") from error


@contextmanager
def _silent():
    """No progress bars and load reports of `transformers`: notebooks would keep them."""
    from transformers.utils import logging

    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


def _source(name: str) -> dict:
    """Arguments of from_pretrained for a folder (relative to the project) or name@revision."""
    if (store.ROOT / name).is_dir():
        return {"pretrained_model_name_or_path": str(store.ROOT / name)}
    hub, _, revision = name.partition("@")
    if not revision:
        raise ValueError(
            f"model {name!r} is no folder here, expected one, or a model of the "
            "Hugging Face hub with the revision to use: owner/name@commit"
        )
    return {"pretrained_model_name_or_path": hub, "revision": revision}


def _encoder_class(name: str, config):
    """The class that loads the encoder, of encoder-decoders only that half.

    Raises ValueError where tokens cannot see those after them (decoders are not supported)."""
    from transformers import AutoModel, AutoModelForTextEncoding
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    if config.model_type in ("t5", "mt5", "umt5"):
        return AutoModelForTextEncoding
    if config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not config.is_encoder_decoder:
        return AutoModel
    raise ValueError(
        f"model {name!r} is of type {config.model_type}, expected an encoder such as "
        "bert, xlm-roberta, modernbert or (its encoder half) mt5"
    )


def _words(tokenizer):
    """The `tokenizers.Tokenizer` inside; a padding that was stored with it is switched off."""
    if not hasattr(tokenizer, "backend_tokenizer"):
        raise ValueError(
            f"{type(tokenizer).__name__} is not backed by `tokenizers`, expected a fast tokenizer"
        )
    tokenizer.backend_tokenizer.no_padding()
    return tokenizer.backend_tokenizer


def _check(model, tokenizer, settings: Settings) -> None:
    """Raises ValueError where tokenizer or position table do not suit the settings."""
    special = tokenizer.backend_tokenizer.encode("").ids
    if not special:
        raise ValueError("the tokenizer adds no special tokens, so an empty text has no vector")
    if settings.pooling == "cls" and special[0] != tokenizer.cls_token_id:
        raise ValueError(
            "pooling='cls' needs a tokenizer that begins texts with its CLS token, "
            "expected pooling='mean'"
        )
    if settings.pooling not in ("mean", "cls"):
        raise ValueError(f"pooling is {settings.pooling!r}, expected 'mean' or 'cls'")
    longest = _positions(model)
    if not len(special) < settings.max_length <= longest:
        raise ValueError(
            f"max_length is {settings.max_length}, expected more than {len(special)} "
            f"(special tokens) and at most {longest} (positions of the model)"
        )


def _positions(model) -> float:
    """The longest text in tokens that the model has positions for; inf where they are relative."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):
            # RoBERTa's kin count positions from the number after the padding token's.
            first = 0 if module.padding_idx is None else module.padding_idx + 1
            return module.num_embeddings - first
    return math.inf
