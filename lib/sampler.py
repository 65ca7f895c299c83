"""The batch schedule: which pair, asked in which language and answered in which, at which step.

How batches are composed is what this study varies, so it is exact and has no state: batch k is a
pure function of (corpus index, arm, seed, k). A run resumes from its step number alone, ranks
slice one global batch, and any batch can be looked at without running those before it.

A *stream* is an ordered pair of languages (question, passage), equal or not, and holds the pairs
that exist in both. The streams of all rows are drawn at construction. The n-th row of a stream
takes place n mod size of the stream's own keyed permutation number n // size, so that pairs are
used evenly although no list, shuffle or cursor is kept: 4 bytes a pair, 5 to 8 a row of the run.

>>> import numpy as np
>>> index = PairIndex.from_present(["de", "en", "th"], np.ones((6, 3)), group=range(6))
>>> for batch in Schedule(index, "hybrid", alpha=0.5, batch_size=4, steps=2):
...     print(batch.kind, batch.pair, batch.question_language, batch.passage_language)
mono [5 0 1 3] [0 0 0 0] [0 0 0 0]
mixed [3 0 5 4] [0 1 0 2] [1 0 1 1]
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from operator import index as whole

import numpy as np

# Shares that define an arm: batches of one language; of the others, batches of one ordered pair of
# languages; and, in the mixed batches that are left, rows that keep to one language.
ARMS = {
    "mono": (1, 0, 0),
    "x-x": (0, 0, 1),
    "cross-pair": (0, 1, 0),
    "cross": (0, 0, 0),
    "hybrid": ("alpha", 0, 0),
    "hybrid-pair": ("alpha", 1, 0),
    "mix": (0, 0, "alpha"),
    "en-en": (1, 0, 0),  # all weight on English
    "cross-fixed": (0, 0, 1),  # then each question is sent to a constant other language
}
KINDS = ("mono", "pair", "mixed")
# Least and largest value of what a schedule is asked for; lib.params is no laxer.
LIMITS = {
    "alpha": (0, 1), "language_power": (0, 1), "batch_size": (1, None),
    "steps": (0, None), "seed": (0, 2**64 - 1), "explicit": (0, None),
}  # fmt: skip
ROWS = 2**31  # of a schedule, which are fewer
# What a draw is for, hashed after the seed, so that no two purposes share draws.
BATCH_KIND, BATCH_STREAM, ROW_KIND, ROW_STREAM, PAIR, RESERVE, PARTNER, NEGATIVE = range(8)


def arm_name(strategy: str, alpha: float) -> str:
    """`hybrid(0.5)`; the strategy alone where alpha has no effect."""
    return f"{strategy}({alpha:g})" if "alpha" in ARMS[strategy] else strategy


def crosses(strategy: str, alpha: float) -> bool:
    """Whether an arm answers questions in another language, so that it needs translations."""
    mono, pair, keep = (alpha if share == "alpha" else share for share in ARMS[strategy])
    return strategy == "cross-fixed" or (mono < 1 and (pair > 0 or keep < 1))


@dataclass(frozen=True)
class PairIndex:
    """Which pairs exist in which languages, and which must not meet in one batch.

    Pairs that exist in the same set of languages share a *pattern*, so the index costs 8 bytes a
    pair however many languages there are.

    languages  L language codes, sorted
    pattern    int32 [P], row of `patterns` that says in which languages the pair exists
    patterns   bool [K, L], one row a distinct set of languages
    group      int32 [P], pairs of one group never share a batch (a passage lies in one group)
    negatives  optional CSR of explicit negatives: (offsets int64 [P+1], pairs int32 [N]), each
               named by pairs whose passage it is (see ParallelCorpus)
    alone      whether pairs of a single language are drawn too; then no arm may cross languages
    """

    languages: tuple[str, ...]
    pattern: np.ndarray
    patterns: np.ndarray
    group: np.ndarray
    negatives: tuple[np.ndarray, np.ndarray] | None = None
    alone: bool = False

    def __len__(self) -> int:
        """Number of pairs P."""
        return len(self.pattern)

    @cached_property
    def first_row(self) -> np.ndarray:
        """int64 [P]: the first row of each pair, rows being sorted by (pair, language)."""
        sizes = self.patterns.sum(1)[self.pattern]
        return np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)

    def rows(self, pair: np.ndarray, language: np.ndarray) -> np.ndarray:
        """Row numbers int64 of (pair, language number); broadcasts. KeyError for a pair that does
        not exist in the language."""
        pattern = self.pattern[pair]
        if not self.patterns[pattern, language].all():
            raise KeyError("a pair does not exist in the language asked for")
        return self.first_row[pair] + np.cumsum(self.patterns, 1)[pattern, language] - 1

    @classmethod
    def from_present(
        cls,
        languages: Sequence[str],
        present: np.ndarray,
        group: np.ndarray,
        negatives: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> PairIndex:
        """Index from a bool [P, L] table of which pair exists in which language."""
        present = np.asarray(present, bool)
        bits = np.packbits(present, axis=1)  # sorts as the table does, in a hundredth of the time
        keys = bits.view(f"S{bits.shape[1]}").ravel()
        _, first, pattern = np.unique(keys, return_index=True, return_inverse=True)
        group = np.unique(group, return_inverse=True)[1].astype(np.int32)  # ids may be large
        return cls(tuple(languages), pattern.astype(np.int32), present[first], group, negatives)


@dataclass(frozen=True)
class Batch:
    """One global batch of B rows; languages are numbers into `PairIndex.languages`.

    kind               "mono" (one language), "pair" (one ordered pair of languages) or "mixed"
    pair               int64 [B], no two of one group
    question_language  int16 [B]
    passage_language   int16 [B]
    negatives          int64 [B, H], pairs whose passage in the row's passage language is negative
    substituted        bool [B], rows whose first choice was of a group already in the batch
    """

    step: int
    kind: str
    pair: np.ndarray
    question_language: np.ndarray
    passage_language: np.ndarray
    negatives: np.ndarray
    substituted: np.ndarray

    def part(self, rank: int, world: int) -> Batch:
        """The rows of device `rank` of `world`: equal, contiguous slices, else ValueError."""
        size, rest = divmod(len(self.pair), world)
        if rest or not 0 <= rank < world:
            raise ValueError(f"a batch of {len(self.pair)} has no equal part {rank} of {world}")
        rows = slice(rank * size, (rank + 1) * size)
        values = (getattr(self, field.name) for field in fields(self))
        return Batch(*(v[rows] if isinstance(v, np.ndarray) else v for v in values))


def keyed(*words) -> np.ndarray:
    """uint64 hash of integers >= 0 (arrays broadcast). Each word w picks output number w of the
    splitmix64 generator (Steele, Lea and Flood 2014) which the words before it seed."""
    state = np.uint64(0)
    with np.errstate(over="ignore"):
        for word in words:
            count = np.asarray(word).astype(np.uint64) + np.uint64(1)
            state = state + count * np.uint64(0x9E3779B97F4A7C15)
            state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state = state ^ (state >> np.uint64(31))
    return state


def uniform(*words) -> np.ndarray:
    """float64 in [0, 1): `keyed` as a fraction."""
    return (keyed(*words) >> np.uint64(11)) * 2.0**-53


def permute(place: np.ndarray, size: np.ndarray, key: np.ndarray) -> np.ndarray:
    """int64 [n]: where the permutation of range(size) that belongs to `key` sends `place`.

    Costs the same for every size: a Feistel network over the two digits of a number in a grid
    just larger than `size`, repeated while it lands outside (cycle walking: Black and Rogaway,
    "Ciphers with arbitrary finite domains", 2002)."""
    size = size.astype(np.uint64)
    height = np.ceil(np.sqrt(size)).astype(np.uint64)
    width = (size + height - np.uint64(1)) // height
    value, outside = place.astype(np.uint64), np.arange(len(place))
    while len(outside):
        value[outside] = _feistel(value[outside], height[outside], width[outside], key[outside])
        outside = outside[value[outside] >= size[outside]]
    return value.astype(np.int64)


def _feistel(value, height, width, key) -> np.ndarray:
    """A bijection of range(height * width): each digit in turn moves by a hash of the other.
    Hashes are halved so that no sum overflows, which would break the bijection."""
    top, low = np.divmod(value, width)
    for turn in range(3):
        top = (top + (keyed(key, 2 * turn, low) >> np.uint64(1))) % height
        low = (low + (keyed(key, 2 * turn + 1, top) >> np.uint64(1))) % width
    return top * width + low


def joint(weight: np.ndarray, shared: np.ndarray, languages: tuple[str, ...]) -> np.ndarray:
    """Chances float64 [L, L] of (question, passage) languages for cross-lingual rows: zero on the
    diagonal and where `shared` bool [L, L] is false, and both marginals are `weight` [L].

    It is the outer product of the weights, rescaled (Sinkhorn's problem, which is convex, solved
    by Newton steps since Sinkhorn's own crawl where English is in nearly every pair).
    Raises ValueError where no such table exists. For weights in proportion to each language's
    pairs one does: split each pair evenly over the ordered pairs of its languages."""
    table = np.outer(weight, weight) * (shared & ~np.eye(len(weight), dtype=bool))
    scale = np.ones(len(weight))
    for _ in range(200):
        chances = table * np.outer(scale, scale)
        margin = chances.sum(1)
        if np.allclose(margin, weight, rtol=1e-9, atol=0):
            return chances
        move = np.linalg.lstsq(chances + np.diag(margin), weight - margin)[0]
        scale *= np.exp(move / max(1, np.abs(move).max()))
    few = margin < weight * (1 - 1e-6)
    others = (table[few] > 0).any(0)
    named = [", ".join(np.array(languages)[who][:5]) for who in (few, others)]
    raise ValueError(
        f"cross-lingual rows cannot give every language its weight: {named[0]} "
        f"({weight[few].sum():.3f} in all) share pairs only with {named[1]} "
        f"({weight[others].sum():.3f}): set language_power=1, always possible, or drop languages"
    )


class Streams:
    """The pairs of every stream in a fixed order, though no stream is listed.

    Pairs are sorted by pattern, so a stream is a union of whole runs of them. Pairs of a single
    language are in no stream (unless index.alone): all arms draw from the same texts. Runs are
    counted in about sqrt(K) blocks of as many patterns: finding a place takes O(sqrt(K)) time.

    drawn  bool [K]: patterns whose pairs are in any stream
    order  int32 [P], pairs by pattern
    until  int64 [L * L, blocks + 1], pairs of stream q * L + p before each block, and in all
    size   int64 [L * L], pairs of each stream
    """

    def __init__(self, index: PairIndex):
        self.index, self.languages, kinds = index, len(index.languages), len(index.patterns)
        self._width = max(1, int(np.ceil(np.sqrt(kinds))))
        padded = -(-kinds // self._width) * self._width
        count = np.bincount(index.pattern, minlength=padded)
        self.order = np.argsort(index.pattern.astype(np.min_scalar_type(kinds)), kind="stable")
        self.order = self.order.astype(np.int32)
        self._first = np.cumsum(count) - count
        self._member = np.zeros((self.languages, padded), bool)
        self._member[:, :kinds] = index.patterns.T
        self.drawn = index.patterns.sum(1) > (0 if index.alone else 1)
        self._count = np.where(np.pad(self.drawn, (0, padded - kinds)), count, 0)
        self.until = np.zeros((self.languages**2, padded // self._width + 1), np.int64)
        for block in range(padded // self._width):
            runs = slice(block * self._width, (block + 1) * self._width)
            member = self._member[:, runs].astype(np.float64)  # exact, and fast to multiply
            pairs = (member * self._count[runs]) @ member.T
            self.until[:, block + 1] = self.until[:, block] + pairs.astype(np.int64).ravel()
        self.size = self.until[:, -1]

    def select(self, stream: np.ndarray, place: np.ndarray) -> np.ndarray:
        """int64 [n]: the pair at each place int64 [n] of each stream int64 [n]."""
        rows = np.arange(len(stream))
        block = (self.until[stream, 1:] <= place[:, None]).sum(1)
        place = place - self.until[stream, block]
        patterns = block[:, None] * self._width + np.arange(self._width)
        question, passage = np.divmod(stream[:, None], self.languages)
        held = self._member[question, patterns] & self._member[passage, patterns]
        held = held * self._count[patterns]
        until = held.cumsum(1)
        run = (until <= place[:, None]).sum(1)
        place = place - (until - held)[rows, run]
        return self.order[self._first[patterns[rows, run]] + place].astype(np.int64)

    def require_groups(self, streams: np.ndarray, wanted: int) -> None:
        """Raises ValueError for a stream of fewer than `wanted` groups.

        More pairs than the wanted - 1 largest groups hold are enough; groups are counted only
        where that does not settle it, once for each set of patterns, smallest stream first."""
        group = self.index.group[(self._count > 0)[self.index.pattern]]
        largest = np.sort(np.unique(group, return_counts=True)[1])[::-1][: wanted - 1]
        streams, counts = streams[self.size[streams] <= largest.sum()], {}
        for stream in streams[np.argsort(self.size[streams])]:
            question, passage = divmod(int(stream), self.languages)
            held = self._member[question] & self._member[passage] & (self._count > 0)
            if (key := held.tobytes()) not in counts:
                counts[key] = len(np.unique(self.index.group[held[self.index.pattern]]))
            if counts[key] < wanted:
                names = dict.fromkeys(self.index.languages[i] for i in (question, passage))
                raise ValueError(
                    f"{'-'.join(names)} has pairs of {counts[key]} groups, fewer than "
                    f"batch_size={wanted}: lower batch_size or leave a language out"
                )


class Schedule:
    """All batches of one run: `schedule.batch(k)`, or iterate.

    strategy        a key of ARMS
    alpha           same-language share of batches (hybrids) or of rows (mix); else without effect
    language_power  weight of a language = (its pairs) ** power: 0 uniform, 1 size, 1/T temperature
    explicit        H, explicit negatives a row
    only            of mono and x-x: the one language that is drawn; en-en is mono of English

    In every arm languages have their weight in expectation, among questions and among passages
    (among passages of cross-fixed only where every pair exists in every language). Arms of one
    seed share draws: row i of step k asks in the same language wherever batches are mixed. More
    steps only append batches. ValueError, now and never later, for what cannot be met.
    """

    def __init__(
        self,
        index: PairIndex,
        strategy: str,
        *,
        alpha: float = 0.5,
        batch_size: int,
        steps: int,
        seed: int = 0,
        language_power: float = 0.0,
        explicit: int = 0,
        only: str = "",
    ):
        steps, batch_size, seed, explicit = map(whole, (steps, batch_size, seed, explicit))
        _check_limits(strategy, alpha=alpha, language_power=language_power, steps=steps,
                      batch_size=batch_size, seed=seed, explicit=explicit)  # fmt: skip
        if steps * batch_size >= ROWS:
            raise ValueError(f"steps={steps} make 2**31 rows or more")
        self.index, self.strategy, self.seed, self.explicit = index, strategy, seed, explicit
        self._mono, self._pair, self._keep = (alpha if s == "alpha" else s for s in ARMS[strategy])
        self.streams = Streams(index)
        self.weight = self._weigh(language_power, "en" if strategy == "en-en" else only)
        self._same = self._cross = np.diag(self.weight)  # chances of the streams
        needs, mixed = crosses(strategy, alpha), self._mono < 1 and self._pair < 1
        if needs and steps:
            if index.alone:
                raise ValueError(
                    f"{arm_name(strategy, alpha)} needs translations, and these pairs are for arms "
                    "without (no pair=, or prepare.parallel: false; expected mono, x-x or en-en)"
                )
            shared = self.streams.size.reshape(self._same.shape) > 0
            self._cross = joint(self.weight, shared, index.languages)
        keeps = self._mono > 0 or (mixed and self._keep > 0)
        leaves = needs and strategy != "cross-fixed"
        occurring = np.flatnonzero(self._same * keeps + self._cross * leaves)
        self.streams.require_groups(occurring, batch_size)
        if explicit:
            self._require_negatives()
        self._draw(steps, batch_size)

    def __len__(self) -> int:
        """Number of batches."""
        return len(self._stream)

    def __iter__(self) -> Iterator[Batch]:
        """Batches in order."""
        return map(self.batch, range(len(self)))

    def batch(self, step: int) -> Batch:
        """Batch number `step`, whatever was asked for before. Raises IndexError past the end."""
        if not 0 <= step < len(self):
            raise IndexError(f"no step {step} in a schedule of {len(self)} steps")
        stream = self._stream[step].astype(np.int64)
        pair, substituted = self._pairs(stream, self._turn[step].astype(np.int64))
        question, passage = np.divmod(stream, len(self.weight))
        if self.strategy == "cross-fixed":
            passage = self._partner(pair, question)
        none = np.empty((len(pair), 0), np.int64)
        negatives = self._negatives(step, pair, passage) if self.explicit else none
        languages = question.astype(np.int16), passage.astype(np.int16)
        return Batch(step, KINDS[self._kind[step]], pair, *languages, negatives, substituted)

    def _weigh(self, power: float, only: str) -> np.ndarray:
        """float64 [L], sums to 1. Raises ValueError where a language to be weighed has no pairs."""
        names, what = np.array(self.index.languages), f"{self.strategy} needs the language {only}"
        if only and only not in names:
            raise ValueError(f"{what}, the corpus has {', '.join(names)}")
        pairs = np.diag(self.streams.size.reshape(len(names), -1))
        weighed = (names == only) | (not only)
        if lacking := ", ".join(names[weighed & (pairs == 0)]):
            way_out = "add translations or leave the language out"
            raise ValueError(f"no pair in {lacking} exists in a second language: {way_out}")
        weight = weighed * pairs.astype(np.float64) ** power
        return weight / weight.sum()

    def _draw(self, steps: int, batch_size: int) -> None:
        """Draw the streams [steps, B], and count for each row the earlier rows of its stream."""
        streams = len(self.streams.size)
        until = np.cumsum([self._mono, (1 - self._mono) * self._pair])
        self._kind = until.searchsorted(uniform(self.seed, BATCH_KIND, np.arange(steps)), "right")
        self._stream = np.empty((steps, batch_size), np.min_scalar_type(streams))
        self._turn = np.empty((steps, batch_size), np.int32)
        used = np.zeros(streams, np.int64)
        for start in range(0, steps, 256):  # in parts only to bound the memory of the draws
            part = slice(start, start + 256)
            step = np.arange(steps)[part, None]
            self._stream[part] = self._draw_streams(step, np.arange(batch_size))
            self._turn[part] = _count_on(self._stream[part], used)

    def _draw_streams(self, step: np.ndarray, row: np.ndarray) -> np.ndarray:
        """int64 [n, B]: streams of rows [B] of steps [n, 1]; one a batch unless it is mixed."""
        of_batch = uniform(self.seed, BATCH_STREAM, step)
        of_row = uniform(self.seed, ROW_STREAM, step, row)
        keep = uniform(self.seed, ROW_KIND, step, row) < self._keep
        kind = self._kind[step]
        return np.select(
            [kind == 0, kind == 1, keep],
            [_pick(self._same, of_batch), _pick(self._cross, of_batch), _pick(self._same, of_row)],
            _pick(self._cross, of_row),
        )

    def _pairs(self, stream: np.ndarray, turn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pairs int64 [B] of the rows that are each stream's `turn`-th; which rows gave way.

        A row whose group an earlier row has walks its stream's reserve permutation, from place
        `turn` on, until it meets a group that the batch lacks. Such rows walk abreast, the
        earlier first. A group met in vain stays taken, so B groups in the stream are enough."""
        size = self.streams.size[stream]
        key = keyed(self.seed, PAIR, stream, turn // size)
        pair = self.streams.select(stream, permute(turn % size, size, key))
        settled = _first_of_each(self.index.group[pair])
        gave_way, key = ~settled, keyed(self.seed, RESERVE, stream)
        while not settled.all():
            rows = np.flatnonzero(~settled)
            place = permute(turn[rows] % size[rows], size[rows], key[rows])
            pair[rows] = self.streams.select(stream[rows], place)
            group = self.index.group[pair]
            settled[rows] = _first_of_each(group[rows]) & ~np.isin(group[rows], group[settled])
            turn = turn + 1
        return pair, gave_way

    def _partner(self, pair: np.ndarray, question: np.ndarray) -> np.ndarray:
        """int64 [B]: the constant passage language of each (pair, question language)."""
        exists = self.index.patterns[self.index.pattern[pair]]
        until = np.cumsum(self._cross[question] * exists, axis=1)
        draw = uniform(self.seed, PARTNER, pair, question)
        return (until / until[:, -1:] > draw[:, None]).argmax(1)

    def _negatives(self, step: int, pair: np.ndarray, passage: np.ndarray) -> np.ndarray:
        """int64 [B, H]: drawn without replacement from the usable negatives of each pair."""
        offsets, listed = self.index.negatives
        count = np.diff(offsets)[pair]
        row = np.repeat(np.arange(len(pair)), count)
        negative = listed[np.arange(len(row)) + (offsets[pair] - np.cumsum(count) + count)[row]]
        exists = self.index.patterns[self.index.pattern[negative], passage[row]]
        usable = exists & (self.index.group[negative] != self.index.group[pair[row]])
        row, negative = row[usable], negative[usable]
        order = np.lexsort((keyed(self.seed, NEGATIVE, step, row, negative), row))
        first = np.searchsorted(row, np.arange(len(pair)))
        return negative[order][first[:, None] + np.arange(self.explicit)].astype(np.int64)

    def _require_negatives(self) -> None:
        """Raises ValueError unless every pair has H usable negatives in each of its languages."""
        if self.index.negatives is None:
            raise ValueError(f"explicit={self.explicit}, but the corpus lists no negatives")
        offsets, listed = self.index.negatives
        owner = np.repeat(np.arange(len(self.index)), np.diff(offsets))
        apart = self.index.group[listed] != self.index.group[owner]
        short = np.zeros(len(self.index), bool)
        for exists in self.index.patterns.T[self.weight > 0]:
            usable = owner[apart & exists[self.index.pattern[listed]]]
            enough = np.bincount(usable, minlength=len(short)) >= self.explicit
            short |= (exists & self.streams.drawn)[self.index.pattern] & ~enough
        if short.any():
            raise ValueError(
                f"{short.sum()} pairs have fewer than explicit={self.explicit} "
                "negatives of another group in a language of theirs"
            )


def _check_limits(strategy: str, **values: float) -> None:
    """Raises ValueError for an unknown arm or a value outside LIMITS."""
    if strategy not in ARMS:
        raise ValueError(f"strategy={strategy!r} is none of {', '.join(ARMS)}")
    for name, value in values.items():
        low, high = LIMITS[name]
        if not low <= value <= (np.inf if high is None else high):
            most = high if high in (None, 1) else f"2**{high.bit_length()}-1"
            bounds = f"at least {low}" if high is None else f"in {low}..{most}"
            raise ValueError(f"{name}={value} is not {bounds}")


def _pick(table: np.ndarray, draw: np.ndarray) -> np.ndarray:
    """int64: flat cell numbers of `table`, with chances proportional to it, from uniform draws."""
    until = np.cumsum(table)
    return np.searchsorted(until / until[-1], draw, side="right")


def _first_of_each(values: np.ndarray) -> np.ndarray:
    """bool [n]: whether a value is the first of its kind."""
    first = np.zeros(len(values), bool)
    first[np.unique(values, return_index=True)[1]] = True
    return first


def _count_on(stream: np.ndarray, used: np.ndarray) -> np.ndarray:
    """int64: how many rows had each row's stream before it, counting on from `used` (updated)."""
    flat = stream.ravel()
    order = np.argsort(flat, kind="stable")
    count = np.bincount(flat, minlength=len(used))
    turn = np.empty(len(flat), np.int64)
    turn[order] = np.arange(len(flat)) + (used - np.cumsum(count) + count)[flat[order]]
    used += count
    return turn.reshape(stream.shape)
