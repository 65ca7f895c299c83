"""mMARCO: MS MARCO's training questions and passages, translated into 13 languages by machine.

Raw TSV files of the hub repository `unicamp-dl/mmarco` (Bonifacio et al., arXiv 2108.13897; it
calls Dutch "dt", its files `dutch`, the project `nl`), parallel by the ids of MS MARCO: questions,
one collection of 8.8 million passages (2.7 to 7.7 GB) a language, and 39.8 million triples
(question, relevant passage, irrelevant passage).

Full size is larger than memory, so texts never lie there: what the triples name is held as
integers, each file is streamed once, the texts that are needed go to an unnamed file, and rows are
written from it as they are put together. The machine needs disk for the needed texts twice.

A pair is a question with its first relevant passage. Questions that share a relevant passage,
directly or through others, are one group, so that no question ever meets another passage of its
own as a negative. Explicit negatives are mostly nobody's positive: they become rows without a
question (see lib.corpus.ParallelCorpus).
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from lib import params, store
from lib.corpus import ParallelCorpus
from lib.params import Prepare
from lib.sources import Source, files
from lib.sources.text import clean, number, share, sift

SOURCE = Source(folder=True, scratch=True)

REPOSITORY, REVISION = "unicamp-dl/mmarco", "6d039c4638c0ba3e46a9cb7b498b145e7edc6230"
LICENCE = "mMARCO: Apache-2.0; MS MARCO: research only, not commercial"
NAMES = {
    "ar": "arabic", "de": "german", "en": "english", "es": "spanish", "fr": "french",
    "hi": "hindi", "id": "indonesian", "it": "italian", "ja": "japanese", "nl": "dutch",
    "pt": "portuguese", "ru": "russian", "vi": "vietnamese", "zh": "chinese",
}  # fmt: skip
TRIPLES = "data/triples.train.ids.small.tsv"
QUESTIONS = "data/google/queries/train/{}_queries.train.tsv"
COLLECTION = "data/google/collections/{}_collection.tsv"
BLOCK = 2000  # questions whose texts are in memory at once


def build_corpus(p: Prepare) -> ParallelCorpus:
    """The corpus of one fold. p: folder ("": from the hub), languages, limit,
    hard_negatives (H: every training row has so many in its language), pool (distractors a
    language; 0: all passages), max_chars, keep, fold, folds.

    Raises ValueError naming file and row."""
    paths = Paths.find(p)
    questions = Questions.read(paths.triples, p)
    folder = params.corpus_dir(p.study, p.run)
    for left in folder.glob(".mmarco-*/"):  # of a start that was killed
        shutil.rmtree(left, ignore_errors=True)
    store.make_folder(folder)
    place = Path(tempfile.mkdtemp(prefix=".mmarco-", dir=folder))
    try:
        asked = _spools(paths, paths.questions, questions.id, "question", (0,), place)
        told = _spools(paths, paths.collections, questions.passages(), "passage", (1, 2), place)
        return _corpus(p, paths, Rows.sift(p, questions, asked, told), place)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise


def _corpus(p, paths: Paths, rows: Rows, place: Path) -> ParallelCorpus:
    rows.require_parallel(paths.collections)
    inputs = {"triples": paths.triples}
    inputs |= {f"questions {code}": file for code, file in paths.questions.items()}
    inputs |= {f"collection {code}": file for code, file in paths.collections.items()}
    version = files._version(inputs)
    if not p.folder:
        version["version"] = f"{REPOSITORY} at {REVISION[:12]}"
    meta = {"source": "mmarco", **version, "licence": LICENCE}
    meta["dropped"] = files._table(rows.dropped)
    return ParallelCorpus.from_sorted(rows.train(), meta, place, rows.test(), rows.pool(p.pool))


@dataclass(frozen=True)
class Paths:
    """Where the files are. collections: of the languages asked for, by code, sorted; questions:
    of these, and the English ones to tell what was left untranslated, where there are any."""

    triples: str
    questions: dict[str, str]
    collections: dict[str, str]

    @classmethod
    def find(cls, p) -> Paths:
        """Raises ValueError for a language that mMARCO lacks, or a file that is not there."""
        for code in p.languages:
            if code not in NAMES:
                raise ValueError(f"languages: mMARCO has no {code} (it has: {' '.join(NAMES)})")
        place = _local(p.folder) if p.folder else _hub
        codes = sorted(p.languages) or [x for x in NAMES if not p.folder or _has_any(p.folder, x)]
        if len(codes) < 2:
            where = f" ({p.folder} has: {' '.join(codes) or 'none'})" if p.folder else ""
            raise ValueError(f"languages: a parallel corpus needs at least two{where}")
        english = not p.folder or _is_file(p.folder, QUESTIONS.format("english"))
        asked = sorted({*codes, "en"} if english else codes)
        return cls(
            place(TRIPLES),
            {code: place(QUESTIONS.format(NAMES[code])) for code in asked},
            {code: place(COLLECTION.format(NAMES[code])) for code in codes},
        )


def _is_file(folder: str, name: str) -> bool:
    return (store.ROOT / folder / name).is_file()


def _has_any(folder: str, code: str) -> bool:
    return any(_is_file(folder, form.format(NAMES[code])) for form in (QUESTIONS, COLLECTION))


def _local(folder: str):
    """A function from a file's name in the repository to its path in a folder laid out alike."""

    def place(name: str) -> str:
        if not _is_file(folder, name):
            raise ValueError(f"{folder}/{name}: no such file")
        return f"{folder}/{name}"

    return place


def _hub(name: str) -> str:
    from lib.sources import downloads

    return str(downloads.hub(REPOSITORY, name, REVISION, kind="dataset"))


# --- triples -----------------------------------------------------------------------------------


def triples(file: str) -> Iterator[np.ndarray]:
    """int32 [n, 3], part by part: question, relevant passage, irrelevant passage.

    Raises ValueError naming file and row for anything but three ids in a row."""
    from pyarrow import csv

    ids = ["question", "relevant", "irrelevant"]
    try:
        parts = csv.open_csv(
            store.ROOT / file,
            csv.ReadOptions(use_threads=False, block_size=1 << 24, column_names=ids),
            csv.ParseOptions(delimiter="\t", quote_char=False, ignore_empty_lines=False),
            csv.ConvertOptions(column_types=dict.fromkeys(ids, pa.int32()), null_values=[]),
        )
        for part in parts:
            values = np.stack([column.to_numpy() for column in part.columns], 1)
            if values.min(initial=0) < 0:
                raise pa.ArrowInvalid("an id below 0")
            yield values
    except pa.ArrowException as error:
        raise _bad_triple(file, error) from None


def _bad_triple(file: str, error: Exception) -> ValueError:
    """The fast reader's error, with the row that it does not tell."""
    row = 0
    for row, text in files.lines(file):
        fields = text.split("\t")
        if len(fields) != 3 or not all(map(_is_id, fields)):
            return ValueError(f"{file}: row {row}: is {text[:40]!r} (expected three ids by tabs)")
    said = str(error).splitlines()[0] if row else "it has no rows"
    return ValueError(f"{file}: cannot be read ({said})")


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdecimal() and int(text) < 2**31


def _relevant(file: str) -> tuple[np.ndarray, np.ndarray]:
    """Distinct (question, relevant passage), int32 [n] each, by question and first appearance."""
    known, seen, row = np.empty(0, np.int64), np.empty(0, np.int64), 0
    for part in triples(file):
        key = np.concatenate([known, _joined(part[:, 0], part[:, 1])])
        seen = np.concatenate([seen, np.arange(row, row + len(part))])
        known, at = np.unique(key, return_index=True)
        seen, row = seen[at], row + len(part)
    known = known[np.lexsort((seen, known >> 32))]
    return (known >> 32).astype(np.int32), (known & 0xFFFFFFFF).astype(np.int32)


def _joined(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    """int64: two int32 in one."""
    return high.astype(np.int64) << 32 | low.astype(np.int64)


@dataclass(frozen=True)
class Groups:
    """Which passages are relevant for questions that belong together.

    passage  int32 [n], sorted: every passage that is relevant for some question
    name     int32 [n]: the smallest of its group, which names it
    tested   bool [n]: whether the group is held out"""

    passage: np.ndarray
    name: np.ndarray
    tested: np.ndarray

    @classmethod
    def of(cls, question: np.ndarray, passage: np.ndarray, p) -> Groups:
        """Connected components of questions and their relevant passages; all questions of the
        triples count, so that neither groups nor folds depend on how many are kept."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        asked, row = np.unique(question, return_inverse=True)
        told, column = np.unique(passage, return_inverse=True)
        size = len(asked) + len(told)
        edges = coo_array((np.ones(len(row), bool), (row, column + len(asked))), (size, size))
        label = connected_components(edges, directed=False)[1][len(asked) :]
        _, first, group = np.unique(label, return_index=True, return_inverse=True)
        name = told[first]  # sorted ids: the first one is the smallest
        tested = np.array([number(str(x), p.folds) == p.fold for x in name.tolist()])
        return cls(told, name[group], tested[group])

    def find(self, passage: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(name of its group, whether that is held out) of each passage; one that is relevant for
        no question is its own group, never held out."""
        at = np.minimum(np.searchsorted(self.passage, passage), len(self.passage) - 1)
        found = self.passage[at] == passage
        return np.where(found, self.name[at], passage), found & self.tested[at]


@dataclass(frozen=True)
class Questions:
    """The questions that are kept, as the triples tell them.

    id         int32 [Q], sorted
    passage    int32 [Q], the first relevant one
    group      int32 [Q], see Groups
    tested     bool [Q], held out
    negatives  int32 [Q, H], the first distinct ones of another group; -1 where there are fewer
    groups     of all passages
    """

    id: np.ndarray
    passage: np.ndarray
    group: np.ndarray
    tested: np.ndarray
    negatives: np.ndarray
    groups: Groups

    @classmethod
    def read(cls, file: str, p) -> Questions:
        """Raises ValueError naming file and row."""
        asked, passage = _relevant(file)
        groups = Groups.of(asked, passage, p)
        ids, first = np.unique(asked, return_index=True)
        kept = _chosen(ids, p.limit, "question")
        ids, passage = ids[kept], passage[first[kept]]
        group, tested = groups.find(passage)
        negatives = np.full((len(ids), p.hard_negatives), -1, np.int32)
        questions = cls(ids, passage, group, tested, negatives, groups)
        questions._find_negatives(file)
        return questions

    def _find_negatives(self, file: str) -> None:
        """Fill `negatives`. A trained question gets no passage that a held-out one is tested on."""
        if not self.negatives.size:
            return
        for part in triples(file):
            at = np.minimum(np.searchsorted(self.id, part[:, 0]), len(self.id) - 1)
            usable = (self.id[at] == part[:, 0]) & (self.negatives[at, -1] < 0)
            at, negative = at[usable], part[usable, 2]
            group, tested = self.groups.find(negative)
            usable = (group != self.group[at]) & (self.tested[at] | ~tested)
            _enter(self.negatives, at[usable], negative[usable])

    def passages(self) -> np.ndarray:
        """Sorted ids of all passages whose text is needed."""
        named = np.unique(np.concatenate([self.passage, self.negatives.ravel()]))
        return named[named >= 0]


def _chosen(ids: np.ndarray, most: int, purpose: str) -> np.ndarray:
    """Sorted places of the `most` (0: of all) ids whose hash is smallest."""
    if not most or most >= len(ids):
        return np.arange(len(ids))
    draw = np.array([share(f"{purpose} {x}") for x in ids.tolist()])
    return np.sort(np.argsort(draw, kind="stable")[:most])


def _enter(table: np.ndarray, row: np.ndarray, value: np.ndarray) -> None:
    """Append to each row of `table` (int32 [Q, H], free cells -1 at the end) the values that it
    lacks, in order of appearance, while there is room."""
    at = np.unique(_joined(row, value), return_index=True)[1]
    at = at[(table[row[at]] != value[at, None]).all(1)]
    at = at[np.lexsort((at, row[at]))]
    row, value = row[at], value[at]
    rank = np.arange(len(row)) - np.searchsorted(row, row)
    cell = (table[row] >= 0).sum(1) + rank
    room = cell < table.shape[1]
    table[row[room], cell[room]] = value[room]


# --- texts -------------------------------------------------------------------------------------


class Spool:
    """Clean texts in an unnamed file, found by id. A mapped file would count as our memory.

    id     int32 [n], sorted
    chars  int32 [n], length of each text
    mark   int64 [n], hash of each text, to tell equal ones within this process"""

    def __init__(self, ids: np.ndarray, place: Path):
        self.id, self._file = ids, tempfile.TemporaryFile(dir=place)
        self._start, self._size = np.full(len(ids), -1), np.zeros(len(ids), np.int32)
        self.chars, self.mark = np.zeros(len(ids), np.int32), np.zeros(len(ids), np.int64)

    def fill(self, file: str, slots: dict[int, int]) -> None:
        """Take the texts of the wanted ids (slots: id -> place in `id`) out of a file.

        Raises ValueError naming the row of a broken line, or of a wanted id that comes again."""
        end = 0
        for row, line in files.lines(file):
            name, tab, text = line.partition("\t")
            if not tab or "\t" in text or not _is_id(name):
                words = f"is {line[:40]!r} (expected an id and a text by a tab)"
                raise ValueError(f"{file}: row {row}: {words}")
            slot = slots.get(int(name))
            if slot is None:
                continue
            if self._start[slot] >= 0:
                raise ValueError(f"{file}: row {row}: id {name} is there twice")
            text = clean(text)
            raw = text.encode()
            self._file.write(raw)
            self._start[slot], self._size[slot] = end, len(raw)
            self.chars[slot], self.mark[slot] = len(text), hash(text)
            end += len(raw)
        self._file.flush()

    def missing(self) -> np.ndarray:
        """Ids that no file had."""
        return self.id[self._start < 0]

    def at(self, ids: np.ndarray) -> np.ndarray:
        """Places of ids."""
        return np.searchsorted(self.id, ids)

    def text(self, slot: int) -> str:
        size, start = int(self._size[slot]), int(self._start[slot])
        return os.pread(self._file.fileno(), size, start).decode()


def _spools(
    paths: Paths, named: dict[str, str], ids: np.ndarray, kind: str, columns, place: Path
) -> dict[str, Spool]:
    """Language -> the texts of `ids`. Raises ValueError naming the triple (whose `columns` hold
    ids of this kind) with an id that a file lacks."""
    slots, spools = {x: slot for slot, x in enumerate(ids.tolist())}, {}
    for code, file in named.items():
        spools[code] = Spool(ids, place)
        spools[code].fill(file, slots)
        for lost in spools[code].missing()[:1]:
            row = _row_naming(paths.triples, lost, columns)
            raise ValueError(f"{paths.triples}: row {row}: {file} has no {kind} {lost}")
    return spools


def _row_naming(file: str, wanted: int, columns) -> int:
    """The first row of the triples that has an id in one of the columns."""
    row = 1
    for part in triples(file):
        found = (part[:, columns] == wanted).any(1)
        if found.any():
            return row + int(found.argmax())
        row += len(part)
    raise ValueError(f"{file}: was changed while it was read")


# --- rows --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rows:
    """Which rows there are, and their texts on demand.

    languages  L codes, sorted
    kept       bool [Q, L], questions that passed text hygiene (and `keep`)
    usable     bool [n, L], passages that may be shown: neither empty nor too long
    dropped    {(reason, language): number}
    """

    questions: Questions
    languages: tuple[str, ...]
    asked: dict[str, Spool]
    told: dict[str, Spool]
    kept: np.ndarray
    usable: np.ndarray
    dropped: Counter

    @classmethod
    def sift(cls, p, questions: Questions, asked, told) -> Rows:
        """Text hygiene as for every source; then training rows with fewer than H negatives in
        their language are dropped, for "few negatives"."""
        languages, dropped, kept, usable = tuple(told), Counter(), [], []
        for code in languages:
            good = np.zeros(len(questions.id), bool)
            for start in range(0, len(good), BLOCK):
                block = range(start, min(start + BLOCK, len(good)))
                rows, faults = _sift(block, code, questions, asked, told, p.max_chars)
                good[[row["pair"] for row in rows]] = True
                dropped += faults
            chars = told[code].chars
            usable.append((chars > 0) & (chars <= p.max_chars))
            few = good & ~questions.tested & ~_has_negatives(questions, told[code], usable[-1])
            dropped += Counter({("few negatives", code): int(few.sum())})
            kept.append(good & ~few & (questions.tested | _is_kept(questions.id, code, p.keep)))
        return cls(
            questions, languages, asked, told, np.stack(kept, 1), np.stack(usable, 1), dropped
        )

    @property
    def passages(self) -> np.ndarray:
        """int32 [n], sorted: ids of all passages."""
        return self.told[self.languages[0]].id

    def require_parallel(self, places: dict[str, str]) -> None:
        """Raises ValueError for a language without training pairs, or with none that another
        language has."""
        trained = self.kept & ~self.questions.tested[:, None]
        for column, code in enumerate(self.languages):
            place, own = f"language {code} ({places[code]})", trained[:, column]
            lost = [f"{n} {why}" for (why, x), n in sorted(self.dropped.items()) if x == code]
            if not own.any():
                words = f"has no pairs to train on (dropped: {', '.join(lost) or 'none'})"
                raise ValueError(f"{place}: {words}")
            if trained[own].sum(1).max() == 1:
                raise ValueError(f"{place}: shares no pair with another language")

    def train(self) -> Iterator[dict]:
        """Training rows by (pair, language), then the passages that are only negatives."""
        order = _by_name(self.questions.id)
        for at in order[~self.questions.tested[order]].tolist():
            for column in np.flatnonzero(self.kept[at]):
                yield self._row(at, self.languages[column])
        if self.questions.negatives.shape[1]:
            yield from self._negatives()

    def _negatives(self) -> Iterator[dict]:
        """A row of each passage and language in which a training row names it as its negative."""
        trained = self.kept & ~self.questions.tested[:, None]
        ids = self.passages
        needed = np.zeros((len(ids), len(self.languages)), bool)
        slots = np.searchsorted(ids, self.questions.negatives)
        for column in range(len(self.languages)):
            needed[slots[trained[:, column]].ravel(), column] = True
        group = self.questions.groups.find(ids)[0]
        for slot in _by_name(ids).tolist():
            for column in np.flatnonzero(needed[slot]):
                code, name = self.languages[column], str(ids[slot])
                yield {
                    "pair": f"passage {name} {code}",
                    "language": code,
                    "question": "",
                    "passage": self.told[code].text(slot),
                    "passage_id": name,
                    "group": str(group[slot]),
                    "source": "mmarco",
                    "negatives": [],
                }

    def test(self) -> Iterator[dict]:
        """Held-out rows by (language, pair)."""
        order = _by_name(self.questions.id)
        for column, code in enumerate(self.languages):
            wanted = self.questions.tested & self.kept[:, column]
            for at in order[wanted[order]].tolist():
                yield self._row(at, code)

    def pool(self, most: int) -> Iterator[dict]:
        """By (language, passage_id): what held-out questions are answered by, and `most` (0: all)
        of the other passages, the same in every language."""
        ids = self.passages
        held_out = self.questions.tested & self.kept.any(1)
        if not held_out.any():
            return
        wanted = np.isin(ids, self.questions.passage[held_out])
        others = np.flatnonzero(~wanted)
        wanted[others[_chosen(ids[others], most, "pool")]] = True
        order = _by_name(ids)
        for column, code in enumerate(self.languages):
            shown = wanted & self.usable[:, column]
            for slot in order[shown[order]].tolist():
                yield {
                    "passage_id": str(ids[slot]),
                    "language": code,
                    "passage": self.told[code].text(slot),
                }

    def _row(self, at: int, code: str) -> dict:
        questions = self.questions
        row = {
            "pair": str(questions.id[at]),
            "language": code,
            **_texts(at, code, questions, self.asked, self.told),
            "passage_id": str(questions.passage[at]),
            "group": str(questions.group[at]),
            "source": "mmarco",
        }
        named = [str(x) for x in questions.negatives[at].tolist() if x >= 0]
        return row | ({"negatives": named} if questions.negatives.shape[1] else {})


def _texts(at: int, code: str, questions: Questions, asked, told) -> dict[str, str]:
    passage = told[code].at(questions.passage[at])
    return {"question": asked[code].text(at), "passage": told[code].text(passage)}


def _sift(block: Iterable[int], code: str, questions, asked, told, max_chars: int):
    """lib.sources.text.sift of a block of questions in one language; pairs are places in `questions`."""
    english = {at: asked["en"].text(at) for at in block} if "en" in asked else {}
    rows = (
        {"pair": at, "language": code, **_texts(at, code, questions, asked, told)} for at in block
    )
    return sift(rows, english, max_chars)


def _has_negatives(questions: Questions, told: Spool, usable: np.ndarray) -> np.ndarray:
    """bool [Q]: whether all H negatives may be shown and read differently from the answer."""
    slot = told.at(questions.negatives)  # of -1: 0, ruled out below
    answer = told.mark[told.at(questions.passage)]
    good = (questions.negatives >= 0) & usable[slot] & (told.mark[slot] != answer[:, None])
    return good.all(1)


def _is_kept(ids: np.ndarray, code: str, keep) -> np.ndarray:
    """bool [Q]: the share of a language's training pairs that is kept, as for every source."""
    if code not in keep:
        return np.ones(len(ids), bool)
    return np.array([share(f"keep {x} {code}") < keep[code] for x in ids.tolist()])


def _by_name(ids: np.ndarray) -> np.ndarray:
    """Places of ids in the order of their names as texts."""
    return np.argsort(ids.astype(str), kind="stable")
