"""Machine translation from English with any `transformers` checkpoint, each sentence once.

A hundred thousand passages take hours, so whatever is finished is kept: on disk in shards, by the
checkpoint's content, the target language and the sentence itself. Sentences are what these models
were trained on: given several, they leave some out (NLLB most of all).

Padding moves scores in their last bits, so a sentence is padded by its own length, never to its
batch's longest: a run that is killed and resumed gives the same texts. Another processor, thread
count or torch build may not, where two hypotheses are that close; what is in the cache stays.
"""

from __future__ import annotations

import difflib
import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from hashlib import sha256
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import regex
import torch

from lib import encoder, store
from lib.checkpoint import checkpoint_source, loading, silent
from lib.languages import language_code, script
from lib.sources.squad import END
from lib.sources.text import clean

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FILES = ["*.safetensors", "*.json", "*.model", "*.spm", "*.txt"]  # what a checkpoint consists of
STEP = 8  # widths of batches, in tokens

# Ends that are none: initials, and what is written before a name or a number.
ABBREVIATION = regex.compile(r"(?<!\p{L})(\p{Lu}|Dr|Mrs?|Ms|St|Prof|Rev|Gen|Col|Lt|Sgt|vs)\.$")
CLAUSE = regex.compile(r"[,;:)\]—–]\s+")
RUN = regex.compile(r"(.{1,60}?)\1{3,}")
LANGUAGE_TOKEN = regex.compile(r"[a-z]{2,3}_[A-Z][A-Za-z]{1,3}")  # of NLLB and mBART-50
# A model's code that is no BCP 47 (M2M100's of Northern Sotho).
NAMES = {"ns": "nso"}

EMPTY = "translation is empty"
REPEATS = "translation repeats itself"
CUT_OFF = "translation was cut off"
TOO_LONG = "longer than the translator reads"
UNTRANSLATED = "untranslated"


@dataclass(frozen=True)
class Settings:
    """How a text is translated; all of it is part of the cache's key."""

    beams: int = 4  # hypotheses that the beam search keeps; 1 is greedy
    batch: int = 32  # sentences translated at a time, at most
    longest: int = 200  # tokens of a sentence; longer ones are cut at a clause, or else a blank
    shard: int = 256  # sentences saved at a time


@dataclass(frozen=True)
class Target:
    """A language as a model spells it, and how the model is told to write it."""

    code: str
    mark: int | None = None  # number of its language token; None: a model of one pair
    prefix: str = ""  # goes before a text; "": the mark is the first token that is written


@dataclass(frozen=True)
class Translated:
    """A text in another language, or why there is none: fault "" is a success."""

    text: str
    fault: str


class Translator:
    """A translation checkpoint from English, and all that it has translated before."""

    def __init__(self, name: str, cache: Path, settings: Settings = Settings()):
        """name: a folder or name@commit, as lib.checkpoint takes them; cache: where to keep
        translations. Weights are only read once they are needed.

        Raises ValueError in one line for a checkpoint that is none, or not from English."""
        self.name, self.cache, self.settings = name, Path(cache), settings
        self.folder = _folder(name)
        self.sha256 = _content(self.folder)  # of names and content of its files
        config, self.tokenizer = _parts(name, self.folder)
        self.targets = targets(self.tokenizer)
        _read_english(name, self.tokenizer, self.targets)
        positions = getattr(config, "max_position_embeddings", 512)
        self._longest = min(settings.longest, positions - STEP) // STEP * STEP
        self._most = positions - 1
        self._marks = {target.mark for target in self.targets.values()}

    @cached_property
    def model(self):
        """The model in float32, on the GPU where there is one. Raises ValueError."""
        from transformers import AutoModelForSeq2SeqLM as Model

        how = {"dtype": torch.float32, "use_safetensors": True, "trust_remote_code": False}
        with loading(self.name):
            model, report = Model.from_pretrained(self.folder, output_loading_info=True, **how)
        for missing in sorted(report["missing_keys"]):
            raise ValueError(f"model {self.name!r} lacks weights, {missing} among them")
        return model.eval().to(encoder.pick_device("auto"))

    def target(self, language: str) -> Target:
        """Raises ValueError for a language that the model does not know, naming the nearest."""
        if language in self.targets:
            return self.targets[language]
        near = difflib.get_close_matches(language, self.targets, n=3, cutoff=0)
        known = ", ".join(f"{code} ({self.targets[code].code})" for code in near) or "none"
        nearest = f"nearest of its {len(self.targets)} languages: {known}"
        raise ValueError(f"model {self.name!r} does not translate into {language} ({nearest})")

    def translate(
        self, texts: Iterable[str], languages: Sequence[str], say: Callable = print
    ) -> dict[str, dict[str, Translated]]:
        """language -> text -> its translation. Sentences that texts share are translated once.

        Every language is looked up before any work. Two processes may do this at once: the second
        waits, language by language. say: gets lines of progress."""
        for language in languages:
            self.target(language)
        with silent():  # of settings that ours override, and of texts that are cut here
            cut = {text: self.pieces(clean(text)) for text in texts}
            return {language: self._into(language, cut, say) for language in languages}

    def _into(self, language: str, cut: dict[str, list[str]], say: Callable) -> dict:
        """text -> its translation. cut: text -> its pieces."""
        folder = self.folder_of(self.targets[language])
        with store.locked(folder, say):
            done = self._filled(
                folder, {x for pieces in cut.values() for x in pieces}, language, say
            )
        blank = "" if script(language) in ("Hans", "Hant", "Jpan") else " "
        return {
            text: _joined(text, [done[x] for x in pieces], blank) for text, pieces in cut.items()
        }

    def folder_of(self, target: Target) -> Path:
        """Where all translations are kept that this model, so set, makes into a language."""
        about = {"model": self.sha256, "target": target.code, **asdict(self.settings)}
        if hasattr(self.tokenizer, "punc_normalizer"):  # Marian's, which needs that package
            about["sacremoses"] = find_spec("sacremoses") is not None
        folder = self.cache / store.digest(about)[:32]
        store.write_json(folder / "about.json", {"name": self.name, **about})
        return folder

    def pieces(self, text: str) -> list[str]:
        """The sentences of a text; those of too many tokens in parts."""
        return [part for sentence in sentences(text) for part in self._fitting(sentence)]

    def _fitting(self, sentence: str) -> list[str]:
        if len(self.tokenizer(sentence)["input_ids"]) <= self._longest:
            return [sentence]
        parts = halves(sentence)
        return parts if len(parts) == 1 else [x for part in parts for x in self._fitting(part)]

    def _filled(self, folder: Path, pieces: set[str], language: str, say: Callable) -> dict:
        """piece -> translation, from the shards in the folder and new ones, which are kept there.

        What is missing is sorted by length and cut into shards from the short end, so a killed
        run's shards are those of one that was never killed."""
        done, target, size = _read(folder, say), self.targets[language], self.settings.shard
        missing = {x: self.tokenizer(target.prefix + x)["input_ids"] for x in pieces - done.keys()}
        order = sorted(missing, key=lambda piece: (len(missing[piece]), piece))
        for start in range(0, len(order), size):
            part = {piece: missing[piece] for piece in order[start : start + size]}
            new = dict(self._translated(part, target))
            _write(folder, new)
            done |= new
            say(f"translate {language}: {start + len(part):,} of {len(order):,}")
        return done

    def _translated(self, tokens: dict[str, list[int]], target: Target) -> Iterator[tuple]:
        """(piece, Translated) of pieces that are sorted by length."""
        width = {piece: -(-len(ids) // STEP) * STEP for piece, ids in tokens.items()}
        batch = {piece: i // self.settings.batch for i, piece in enumerate(tokens)}
        for _, group in groupby(tokens, key=lambda piece: (width[piece], batch[piece])):
            part = list(group)
            wide = width[part[0]]
            if wide > self._longest + STEP:  # STEP: a prefix is not counted when texts are cut
                yield from ((piece, Translated("", TOO_LONG)) for piece in part)
                continue
            limit = min(3 * wide + 16, self._most)
            written = self._written([tokens[piece] for piece in part], wide, limit, target)
            for piece, row in zip(part, written, strict=True):
                yield piece, self._judged(piece, row, limit)

    @torch.inference_mode()
    def _written(self, rows: list[list[int]], width: int, limit: int, target: Target) -> list:
        """What the model writes for each row of tokens: token numbers without the first one, which
        only starts the decoder. Rows are padded to `width`; at most `limit` tokens are written."""
        padded = self.tokenizer.pad(
            {"input_ids": rows}, padding="max_length", max_length=width, return_tensors="pt"
        )
        written = self.model.generate(
            **padded.to(self.model.device),
            num_beams=self.settings.beams,
            do_sample=False,
            max_new_tokens=limit,
            forced_bos_token_id=None if target.prefix else target.mark,
        )
        return written[:, 1:].tolist()

    def _judged(self, piece: str, row: list[int], limit: int) -> Translated:
        """The text of written tokens, and what is wrong with it, the first that fits."""
        end = self.model.generation_config.eos_token_id
        ends = end if isinstance(end, list) else [end]
        length = next((i for i, token in enumerate(row) if token in ends), len(row))
        kept = [token for token in row[:length] if token not in self._marks]
        text = clean(self.tokenizer.decode(kept, skip_special_tokens=True))
        if not text:
            return Translated(text, EMPTY)
        if is_runaway(text) and not is_runaway(piece):
            return Translated(text, REPEATS)
        # The last place may hold an end that was forced there, so an end in it tells nothing.
        return Translated(text, CUT_OFF if length >= limit - 1 else "")


# --- a checkpoint ------------------------------------------------------------------------------


def _folder(name: str) -> Path:
    """The folder of a checkpoint, downloaded where it is on the hub. Raises ValueError."""
    source = checkpoint_source(name)
    folder = source.pop("pretrained_model_name_or_path")
    if source:
        from huggingface_hub import snapshot_download as download

        with loading(name):
            folder = download(folder, **source, allow_patterns=FILES, ignore_patterns=["*/*"])
    if not any(Path(folder).glob("*.safetensors")):
        where = "on the hub they are often in a pull request, whose commit can be named"
        raise ValueError(f"model {name!r} has no safetensors weights ({where})")
    return Path(folder)


def _content(folder: Path) -> str:
    """sha256 of the names and content of a checkpoint's files."""
    files = sorted({file for pattern in FILES for file in folder.glob(pattern)})
    return store.digest([(x.name, store.sha256(x)) for x in files])


def _parts(name: str, folder: Path):
    """Configuration and tokenizer. Raises ValueError for what does not turn texts into texts."""
    from transformers import MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING, AutoConfig, AutoTokenizer

    with loading(name), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that sacremoses is missing
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        if type(config) in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING:
            how = {"trust_remote_code": False, "clean_up_tokenization_spaces": False}
            return config, AutoTokenizer.from_pretrained(folder, **how)
    kinds = "expected a translation model such as NLLB, M2M100 or Marian"
    raise ValueError(f"model {name!r} is of type {config.model_type}, {kinds}")


def targets(tokenizer: PreTrainedTokenizerBase) -> dict[str, Target]:
    """Project's language code -> Target, from the tokenizer's own table.

    Where several of its codes mean one language, the one that is spelled as here counts, else the
    first. Languages that CLDR does not know are left out."""
    candidates = sorted(_listed(tokenizer), key=lambda target: _known(target.code) != target.code)
    known = {_known(target.code): target for target in reversed(candidates)}
    return {language: target for language, target in known.items() if language}


def _listed(tokenizer) -> list[Target]:
    """M2M100 and mBART have `lang_code_to_id`, Marian `supported_language_codes` (none where it
    knows one pair), NLLB only its added tokens."""
    if hasattr(tokenizer, "lang_code_to_id"):
        return [Target(code, mark) for code, mark in tokenizer.lang_code_to_id.items()]
    if not hasattr(tokenizer, "supported_language_codes"):
        added = tokenizer.get_added_vocab()
        return [Target(x, added[x]) for x in added if LANGUAGE_TOKEN.fullmatch(x)]
    number, marks = tokenizer.convert_tokens_to_ids, tokenizer.supported_language_codes
    several = [Target(mark.strip("<>"), number(mark), f"{mark} ") for mark in marks]
    return several or [Target(tokenizer.target_lang or "")]


def _known(code: str) -> str | None:
    """The project's code of a model's code (`deu_Latn`, `en_XX`); None where CLDR has none."""
    try:
        return NAMES.get(code) or language_code(code.removesuffix("_XX"))
    except ValueError:
        return None


def _read_english(name: str, tokenizer, known: dict[str, Target]) -> None:
    """Set the tokenizer to English input. Raises ValueError where it has none."""
    if hasattr(tokenizer, "supported_language_codes"):
        source = _known(tokenizer.source_lang or "")
        if source not in ("en", "mul", None):  # None: a group of languages, as `gmw`
            raise ValueError(f"model {name!r} translates from {source}, expected from en")
    elif "en" not in known:
        raise ValueError(f"model {name!r} names no English among its languages")
    else:
        tokenizer.src_lang = known["en"].code


# --- texts -------------------------------------------------------------------------------------


def sentences(text: str) -> list[str]:
    """The sentences of an English text; an initial or a title does not end one.

    >>> sentences("Dr. J. Smith left. Who (if anyone) knew? It was 3.5 m.")
    ['Dr. J. Smith left.', 'Who (if anyone) knew?', 'It was 3.5 m.']
    """
    parts, start = [], 0
    for end in (*(match.end() for match in END.finditer(text)), len(text)):
        part = text[start:end].strip()
        if part and (end == len(text) or not ABBREVIATION.search(part)):
            parts.append(part)
            start = end
    return parts


def halves(text: str) -> list[str]:
    """A text cut in two: after a mark in its middle half, else at the blank nearest the middle;
    uncut where it has neither."""
    middle = len(text) / 2
    clauses = [m.end() for m in CLAUSE.finditer(text) if abs(m.end() - middle) < middle / 2]
    cuts = clauses or [match.end() for match in regex.finditer(r"\s+", text)]
    if not cuts:
        return [text]
    cut = min(cuts, key=lambda cut: abs(cut - middle))
    return [text[:cut].strip(), text[cut:].strip()]


def is_runaway(text: str) -> bool:
    """Whether up to 60 characters stand there four times or more in a row, 16 in all at least."""
    return any(len(match[0]) >= 16 for match in RUN.finditer(text))


def _joined(text: str, parts: list[Translated], blank: str) -> Translated:
    """A text out of its sentences; the first fault of any is its own."""
    whole = blank.join(part.text for part in parts)
    fault = {clean(text): UNTRANSLATED, "": EMPTY}.get(whole, "")
    return Translated(whole, next((part.fault for part in parts if part.fault), fault))


# --- shards on disk ----------------------------------------------------------------------------


def _write(folder: Path, new: dict[str, Translated]) -> None:
    """Keep finished translations in a file that is named after its content."""
    lines = (json.dumps({"piece": piece, **asdict(done)}) + "\n" for piece, done in new.items())
    body = "".join(lines).encode()
    with store.atomic_file(folder / f"{sha256(body).hexdigest()[:32]}.jsonl") as temporary:
        temporary.write_bytes(body)


def _read(folder: Path, say: Callable) -> dict[str, Translated]:
    """All translations in the folder, which must be locked. A shard whose content is not what its
    name says is removed, and so is what a killed writer left."""
    done: dict[str, Translated] = {}
    for left in folder.glob(".*.jsonl.*.tmp"):
        left.unlink()
    for file in sorted(folder.glob("*.jsonl")):
        body = file.read_bytes()
        if sha256(body).hexdigest()[:32] != file.stem:
            say(f"{file}: is damaged; its texts are translated again")
            file.unlink()
            continue
        rows = map(json.loads, body.splitlines())
        done |= {row["piece"]: Translated(row["text"], row["fault"]) for row in rows}
    return done
