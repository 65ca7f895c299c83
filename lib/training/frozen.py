"""Embeddings and lower layers that are not trained: their states, computed once a text and kept.

With `train.frozen: n` an encoder is cut above its nth layer. What is below never changes, so what
it makes of a text is the same in every step, run and evaluation: it is computed once and kept on
disk in fp16, in `states/<key>/` of the cache. The key stands for all that decides a state beside
the tokens: weights below the cut, what the configuration says of them, and the kind of device. A
text is known by its tokens, of which prompt, length limit and tokenizer are a part.

On a CPU every text is computed by itself, so that its states do not depend on the others, on the
order of runs, or on what is in the cache already: with or without it a run has the same bits.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from lib import store
from lib.encoder import MASKED, Encoder, on_device
from lib.training.tokens import SIDES, Tokens

# What of a configuration is not in the weights' shapes.
CONFIG = ("model_type", "hidden_act", "layer_norm_eps", "num_attention_heads", "pad_token_id")
LAYOUT = 1  # raise where states would be kept otherwise
KEPT = np.float16
TEXTS = 1_024  # that are written together
MOST = 2**35  # bytes kept of one encoder; beyond that, states are computed whenever they are needed
TOGETHER = {"cpu": 1, "cuda": 64}  # texts of equal length that are computed at once


def check(model: torch.nn.Module, name: str, frozen: int) -> None:
    """Raises ValueError where so many layers of the model cannot be frozen."""
    if not frozen:
        return
    kind, layers = model.config.model_type, model.config.num_hidden_layers
    if kind not in MASKED:
        raise ValueError(
            f"train.frozen: model {name!r} is of type {kind} (expected {', '.join(MASKED)}; "
            "for others 0)"
        )
    if frozen >= layers:
        raise ValueError(
            f"train.frozen: {frozen} leaves nothing to train of the {layers} layers of "
            f"{name!r} (expected {layers - 1} or less)"
        )


def freeze(encoder: Encoder, layers: int) -> None:
    """Cut the encoder above so many layers (0: not at all), for training and `encode` alike.

    What is below is no longer among its parameters, until `whole`."""
    if layers:
        encoder.lower = Lower(encoder, layers)


def fill(encoder: Encoder, texts: Tokens) -> None:
    """Have the states of all texts of a corpus, where an encoder is cut.

    Processes that do so at the same time share the work: each leaves for later what others do."""
    lower = encoder.lower
    if lower is None:
        return
    parts = [
        (side, rows[first : first + TEXTS])
        for side, rows in ((side, texts.ahead(side)) for side in SIDES)
        for first in range(0, len(rows), TEXTS)
    ]
    for part in [part for part in parts if not lower.keep(texts.take(*part), wait=False)]:
        lower.keep(texts.take(*part))


@contextmanager
def whole(encoder: Encoder) -> Iterator[None]:
    """Inside, the encoder is in one piece, to be saved; then it may go on."""
    lower = encoder.lower
    if lower is None:
        yield
        return
    encoder.lower = None
    lower.put_back()
    try:
        yield
    finally:
        lower.cut()
        encoder.lower = lower


class Passed(torch.nn.Module):
    """In place of a model's embeddings: what comes in goes on, being states already."""

    def forward(self, inputs_embeds: torch.Tensor, **_) -> torch.Tensor:
        return inputs_embeds


class Lower:
    """What is below the cut, and the states that it gave so far.

    computed  how many texts went through it
    """

    def __init__(self, encoder: Encoder, layers: int):
        """Takes the lower part out of the encoder's model."""
        self.model, self.layers, self.computed = encoder.model, layers, 0
        self.cut()
        self._place: dict[bytes, np.ndarray] = {}  # key of a text -> its states, mapped
        self._shards: set[str] = set()
        self._bytes, self._full = 0, False

    # --- cutting -------------------------------------------------------------------------------

    def cut(self) -> None:
        """Take embeddings and lower layers out of the whole model."""
        blocks = self.model.encoder.layer
        self.embeddings, self.below = self.model.embeddings, blocks[: self.layers]
        for part in (self.embeddings, self.below):
            part.requires_grad_(False).eval()  # no dropout below the cut
        self._move(torch.device("cpu"))  # leaves a GPU's memory to what is trained
        self.model.embeddings, self.model.encoder.layer = Passed(), blocks[self.layers :]

    def put_back(self) -> None:
        """Undo `cut`."""
        self._move(self.device)
        self.model.embeddings = self.embeddings
        self.model.encoder.layer = torch.nn.ModuleList([*self.below, *self.model.encoder.layer])

    @property
    def device(self) -> torch.device:
        """That of the layers above."""
        return next(self.model.parameters()).device

    @cached_property
    def folder(self) -> Path:
        """Where the states of such an encoder are kept."""
        return store.cache_dir() / "states" / store.digest(self.made_from)[:16]

    @cached_property
    def made_from(self) -> dict:
        """All that decides what a text's states are, beside its tokens."""
        weights = hashlib.sha256()
        for part in (self.embeddings, self.below):
            for name, value in part.state_dict().items():
                weights.update(f"{name} {list(value.shape)} {value.dtype}".encode())
                weights.update(value.cpu().contiguous().numpy())
        return {
            "weights": weights.hexdigest(),
            "config": {name: getattr(self.model.config, name, None) for name in CONFIG},
            "layers": self.layers,
            "device": self.device.type,
            "kept": [LAYOUT, np.dtype(KEPT).name],
        }

    # --- states --------------------------------------------------------------------------------

    def keep(self, token_lists: Sequence[np.ndarray], wait: bool = True) -> bool:
        """Have the states of these texts: those of other runs, or new ones, which others then have.

        Whether it has them, or has no room: it has not where another process is computing them
        and `wait` is false. Raises ValueError for states that fp16 cannot hold, OSError where the
        disk is full."""
        if not self._missing(token_lists) or self._full:
            return True
        store.make_folder(self.folder)
        busy = self.folder / f"{_name(map(_key, token_lists))}.lock"
        try:
            with store.lock(busy, wait):
                self._have(token_lists)
                busy.unlink(missing_ok=True)  # who waits for it finds the states
        except store.Busy:
            return False
        return True

    def _have(self, token_lists: Sequence[np.ndarray]) -> None:
        self._read()
        self._full = self._bytes > MOST
        if self._full:
            print(f"{self.folder}: holds {MOST:,} bytes; further states are not kept")
        elif missing := self._missing(token_lists):
            self._write(missing)
            self._read()

    def rows(self, token_lists: Sequence[np.ndarray]) -> tuple[torch.Tensor, list[np.ndarray]]:
        """States float32 [all tokens, width] of texts on the encoder's device, one text after the
        other, and the rows int64 of each."""
        self.keep(token_lists)
        rest = self._computed(self._missing(token_lists))  # where the cache is full
        states = [
            self._place[key] if key in self._place else rest[key] for key in map(_key, token_lists)
        ]
        ends = np.cumsum([len(tokens) for tokens in token_lists])
        places = np.split(np.arange(ends[-1]), ends[:-1])
        return on_device(self.device, np.concatenate(states)).float(), places

    def _missing(self, token_lists: Sequence[np.ndarray]) -> dict[bytes, np.ndarray]:
        """Texts without states, by key, each once."""
        every = {_key(tokens): tokens for tokens in token_lists}
        return {key: tokens for key, tokens in every.items() if key not in self._place}

    @torch.no_grad()
    def _computed(self, texts: dict[bytes, np.ndarray]) -> dict[bytes, np.ndarray]:
        """States of texts by key: fp16 [tokens, width]."""
        found: dict[bytes, np.ndarray] = {}
        if not texts:  # at nearly every step: the lower part stays where it is
            return found
        self._move(self.device)
        for keys in _alike(texts, TOGETHER[self.device.type]):
            ids = on_device(self.device, np.stack([texts[key] for key in keys]).astype(np.int64))
            words = self.embeddings.word_embeddings(ids)
            states = self.embeddings(inputs_embeds=words)
            for layer in self.below:
                states = layer(states)
            with np.errstate(over="ignore"):  # is refused below
                found |= zip(keys, states.cpu().numpy().astype(KEPT), strict=True)
        self._move(torch.device("cpu"))
        self.computed += len(texts)
        if not all(np.isfinite(x).all() for x in found.values()):
            raise ValueError(f"train.frozen: states after layer {self.layers} do not fit into fp16")
        return found

    def _move(self, device: torch.device) -> None:
        for part in (self.embeddings, self.below):
            part.to(device)

    # --- on disk -------------------------------------------------------------------------------

    def _write(self, texts: dict[bytes, np.ndarray]) -> None:
        """A shard of these texts' states."""
        states = self._computed(texts)
        made_from = {"made_from": self.made_from}
        with store.atomic_folder(self.folder / _name(states), made_from) as new:
            np.save(new / "keys.npy", np.frombuffer(b"".join(states), "V16"))
            np.save(new / "ends.npy", np.cumsum([len(x) for x in states.values()]))
            np.save(new / "states.npy", np.concatenate([*states.values()]))

    def _read(self) -> None:
        """Map the shards that have come. What is damaged is removed, to be computed again."""
        for manifest in sorted(self.folder.glob("*/manifest.json")):
            if (shard := manifest.parent).name not in self._shards:
                try:
                    store.verify(shard, self.made_from)
                    self._map(shard)
                except store.Damaged as damage:
                    print(f"{damage}; its states are computed again", flush=True)
                    shutil.rmtree(shard)

    def _map(self, shard: Path) -> None:
        states = np.load(shard / "states.npy", mmap_mode="r")
        keys, ends = np.load(shard / "keys.npy"), np.load(shard / "ends.npy")
        parts = np.split(states, ends[:-1])
        self._place |= zip((key.tobytes() for key in keys), parts, strict=True)
        self._shards.add(shard.name)
        self._bytes += states.nbytes


def _key(tokens: np.ndarray) -> bytes:
    """16 bytes that stand for a text."""
    return hashlib.blake2b(tokens.astype("<i4").tobytes(), digest_size=16).digest()


def _name(keys: Iterable[bytes]) -> str:
    """What stands for texts with these keys, as part of a path."""
    return hashlib.sha256(b"".join(keys)).hexdigest()[:16]


def _alike(texts: dict[bytes, np.ndarray], most: int) -> Iterator[list[bytes]]:
    """Keys of texts of equal length, at most so many at a time."""
    by_length: dict[int, list[bytes]] = {}
    for key, tokens in texts.items():
        by_length.setdefault(len(tokens), []).append(key)
    for keys in by_length.values():
        for first in range(0, len(keys), most):
            yield keys[first : first + most]
