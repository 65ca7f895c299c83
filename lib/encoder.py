"""Text to unit vectors: one encoder for questions and passages, loaded or built from scratch.

Everything that decides a vector (weights, tokenizer, pooling, heads, prompts, truncation) travels
in one folder (lib.training.export), so an encoder cannot be evaluated with another prompt than it
was trained with.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

# Tokens that lengths are rounded up to before, which tensor cores like.
MULTIPLE = {"cpu": 1, "cuda": 8}
# Types of models whose mask is made here: given one a text, `transformers` takes its time, and
# waits for a GPU, to look whether it hides anything. In these, all tokens see all others.
MASKED = ("bert", "roberta", "xlm-roberta")
# Mask [n, t] of 0 and 1 to the weight of each token before it is divided by the text's sum; those
# of weightedmean rise from 1 by one a token (SGPT: Muennighoff, arXiv 2202.08904, section 3.2).
# Padding may stand on either side; names are those of sentence-transformers.
WEIGHTS = {
    "mean": lambda mask: mask,
    "cls": lambda mask: mask * (mask.cumsum(1) == 1),
    "lasttoken": lambda mask: mask * (mask.cumsum(1) == mask.sum(1, keepdim=True)),
    "weightedmean": lambda mask: mask * mask.cumsum(1),
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

    dense      what stands between pooling and normalisation: Linear, activation, Linear, …; or none
    truncated  how many texts `tokenize` has cut to max_length so far
    lower      lib.training.frozen.Lower, where only the layers above it are in `model`; or none
    maps       lib.training.maps.LanguageMaps, which whoever asks for vectors has to apply; or none
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        settings: Settings,
        dense: torch.nn.Sequential | None = None,
    ):
        """Raises ValueError where tokenizer or position table do not suit the settings."""
        super().__init__()
        self.model, self.tokenizer, self.settings = model, tokenizer, settings
        self.dense = torch.nn.Sequential() if dense is None else dense
        self.truncated, self.lower, self.maps = 0, None, None
        self._words, self._longest = _words(tokenizer), _positions(model)
        _check(model, tokenizer, settings)
        self._words.enable_truncation(settings.max_length)

    @property
    def width(self) -> int:
        """Length d of a vector."""
        return self.dense[-2].out_features if self.dense else self.model.config.hidden_size

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def tokenize(self, texts: Sequence[str], kind: str) -> list[np.ndarray]:
        """Token numbers int32 of each text with its prompt, special tokens included."""
        prompt = self.settings.prompt(kind)
        codes = self._words.encode_batch_fast([prompt + text for text in texts])
        self.truncated += sum(bool(code.overflowing) for code in codes)
        return [np.array(code.ids, np.int32) for code in codes]

    def forward(
        self, ids: torch.Tensor, mask: torch.Tensor, rows: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Unit vectors [n, d], float32 or wider, of token numbers int64 [n, t], where mask [n, t]
        is 1.

        rows  float [U, e]: what was `looked_up` beforehand, which ids then count into"""
        words = self.words(ids) if rows is None else F.embedding(ids, rows)
        seen = mask
        if self.model.config.model_type in MASKED:
            seen = mask.bool()[:, None, None].expand(-1, 1, mask.shape[1], -1)
        hidden = self.model(inputs_embeds=words, attention_mask=seen).last_hidden_state
        hidden = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
        with torch.autocast(hidden.device.type, enabled=False):  # a mean keeps its precision
            weight = WEIGHTS[self.settings.pooling](mask.to(hidden.dtype))
            share = weight / weight.sum(1, keepdim=True)
            return F.normalize(self.dense((share[:, None] @ hidden)[:, 0]), dim=-1)

    def encode(self, texts: Sequence[str], kind: str, batch_size: int = 256) -> np.ndarray:
        """Unit vectors float32 [n, d] of texts, as `vectors` gives them.

        Raises ValueError where the encoder has maps: they ask for languages."""
        if self.maps is not None:
            raise ValueError("an encoder with a map for each language embeds no text without one")
        return self.vectors(self.tokenize(texts, kind), batch_size)

    @torch.no_grad()
    def vectors(self, tokens: Sequence[np.ndarray], batch_size: int = 256) -> np.ndarray:
        """Unit vectors float32 [n, d] of what `tokenize` gave, in its order; dropout is off.

        Texts are sorted by length and cut into batches of batch_size, so the same call gives the
        same bits; another batch_size changes paddings and with them the last bits."""
        order = np.argsort([len(x) for x in tokens], kind="stable")
        vectors = np.empty((len(tokens), self.width), np.float32)
        training = self.training
        self.eval()
        for start in range(0, len(order), batch_size):
            part = order[start : start + batch_size]
            rows, places = self.looked_up([tokens[i] for i in part])
            vectors[part] = self(*self.padded(places), rows).cpu().numpy()
        self.train(training)
        return vectors

    def looked_up(self, token_lists: Sequence[np.ndarray]) -> tuple[torch.Tensor, list[np.ndarray]]:
        """What the model begins with, float [U, e], and the rows of each text's tokens in it: their
        word vectors, or states after frozen layers."""
        if self.lower is not None:
            return self.lower.rows(token_lists)
        used, place = np.unique(np.concatenate(token_lists), return_inverse=True)
        ends = np.cumsum([len(tokens) for tokens in token_lists])
        rows = self.words(on_device(self.device, used.astype(np.int64)))
        return rows, np.split(place, ends[:-1])

    @property
    def words(self) -> torch.nn.Module:
        """The table of word vectors: token numbers to [..., e]."""
        return self.model.get_input_embeddings()

    def rounded(self, length: np.ndarray) -> np.ndarray:
        """Lengths as the device likes them, but no more than the model has positions for."""
        multiple = MULTIPLE[self.device.type]
        return np.minimum(-(-length // multiple) * multiple, self._longest).astype(np.int64)

    def padded(self, token_lists: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        """int64 [n, t] tokens and mask; where the mask is 0 stands some token that there is."""
        length = np.array([len(tokens) for tokens in token_lists])
        mask = np.arange(self.rounded(length).max()) < length[:, None]
        ids = np.full(mask.shape, token_lists[0][0], np.int64)
        ids[mask] = np.concatenate(token_lists)
        return on_device(self.device, ids), on_device(self.device, mask.astype(np.int64))


def on_device(device: torch.device, array: np.ndarray) -> torch.Tensor:
    """The array there; a GPU fetches it without anybody waiting."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def pick_device(wanted: str) -> str:
    """cpu or cuda; "auto" is cuda where there is one. Raises ValueError for a missing GPU."""
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise ValueError("device is 'cuda', but torch finds no GPU here, expected 'cpu' or 'auto'")
    return "cuda" if available and wanted != "cpu" else "cpu"


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
    if settings.pooling not in WEIGHTS:
        raise ValueError(f"pooling is {settings.pooling!r}, expected {' or '.join(WEIGHTS)}")
    longest = _positions(model)
    if not len(special) < settings.max_length <= longest:
        raise ValueError(
            f"max_length is {settings.max_length}, expected more than {len(special)} "
            f"(special tokens) and at most {longest} (positions of the model)"
        )


def _positions(model) -> float:
    """The longest text in tokens that the model has positions for; inf where there is no limit."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):
            # RoBERTa's kin count positions from the number after the padding token's.
            first = 0 if module.padding_idx is None else module.padding_idx + 1
            return module.num_embeddings - first
    return getattr(model.config, "max_position_embeddings", None) or math.inf  # rotary ones
