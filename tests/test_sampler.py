"""The schedule against slow references, hand arithmetic and the properties that arms promise."""

import doctest
from bisect import bisect_right
from collections import Counter, defaultdict
from dataclasses import replace
from itertools import accumulate, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from lib import sampler
from lib.sampler import ARMS, PairIndex, Schedule, Streams, joint, keyed, permute
from lib.training.exposure import exposure

quick = settings(deadline=None, max_examples=25, derandomize=True)


def parallel(languages: int, pairs: int, group_size: int = 1) -> PairIndex:
    """A corpus whose pairs exist in every language; number 1 is English."""
    names = ["de", "en", "th", "tr", "vi", "zh"][:languages]
    return PairIndex.from_present(
        names, np.ones((pairs, languages)), np.arange(pairs) // group_size
    )


@st.composite
def corpora(draw) -> tuple[PairIndex, int]:
    """A partly parallel corpus with groups of uneven size, and a batch size that it can meet."""
    languages, batch = draw(st.integers(2, 5)), draw(st.integers(1, 9))
    pairs = batch + draw(st.integers(0, 50))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    present = rng.random((pairs, languages)) < draw(st.sampled_from([0.3, 0.7, 1.0]))
    present[:batch] = True
    group = np.r_[:batch, rng.integers(0, batch + draw(st.integers(0, 60)), pairs - batch)]
    order = rng.permutation(pairs)
    names = ["de", "en", "th", "tr", "vi"][:languages]
    return PairIndex.from_present(names, present[order], group[order]), batch


def same(one, other) -> bool:
    """Whether two batches hold the same values."""
    return (
        one.step == other.step
        and one.kind == other.kind
        and all(
            np.array_equal(getattr(one, name), getattr(other, name))
            for name in (
                "pair",
                "question_language",
                "passage_language",
                "negatives",
                "substituted",
            )
        )
    )


def languages_of(schedule) -> tuple[np.ndarray, np.ndarray]:
    """Question and passage languages [steps, B] of a whole run."""
    batches = list(schedule)
    return (
        np.array([b.question_language for b in batches]),
        np.array([b.passage_language for b in batches]),
    )


# --- the reference: lists, dicts and Python integers, one row at a time ---------------------


def slow_keyed(*words: int) -> int:
    """`keyed` in Python integers."""
    state = 0
    for word in words:
        state = (state + (word + 1) * 0x9E3779B97F4A7C15) % 2**64
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        state = (state ^ state >> 27) * 0x94D049BB133111EB % 2**64
        state ^= state >> 31
    return state


def slow_uniform(*words: int) -> float:
    """`uniform` in Python integers."""
    return (slow_keyed(*words) >> 11) / 2**53


def slow_permute(place: int, size: int, key: int) -> int:
    """`permute` of one place, in Python integers."""
    height = next(h for h in range(size + 1) if h * h >= size)
    width = -(-size // height)
    while True:
        top, low = divmod(place, width)
        for turn in range(0, 6, 2):
            top = (top + slow_keyed(key, turn, low) // 2) % height
            low = (low + slow_keyed(key, turn + 1, top) // 2) % width
        place = top * width + low
        if place < size:
            return place


def slow_pick(table, draw: float) -> tuple[int, int]:
    """The cell of a square table that a draw falls into."""
    until = list(accumulate(float(x) for x in table.ravel()))
    return divmod(bisect_right([x / until[-1] for x in until], draw), len(table))


def slow_schedule(index, strategy, alpha, batch_size, steps, seed, weight, cross):
    """(pairs, question languages, passage languages) of each step, by bookkeeping."""
    mono, pair_share, keep = (alpha if share == "alpha" else share for share in ARMS[strategy])
    kept, used = np.diag(weight), Counter()
    exists = [set(np.flatnonzero(index.patterns[k])) for k in index.pattern]
    drawn = [p for p in range(len(index)) if index.alone or len(exists[p]) > 1]
    parallel = sorted(drawn, key=lambda p: (index.pattern[p], p))
    for step in range(steps):
        kind = slow_uniform(seed, 0, step)
        drawn = []
        for row in range(batch_size):
            if kind < mono:
                drawn.append(slow_pick(kept, slow_uniform(seed, 1, step)))
            elif kind < mono + (1 - mono) * pair_share:
                drawn.append(slow_pick(cross, slow_uniform(seed, 1, step)))
            else:
                table = kept if slow_uniform(seed, 2, step, row) < keep else cross
                drawn.append(slow_pick(table, slow_uniform(seed, 3, step, row)))
        pairs, turns, lists = [], [], []
        for a, b in drawn:
            listed = [p for p in parallel if {a, b} <= exists[p]]
            turn, number, size = used[a, b], a * len(weight) + b, len(listed)
            used[a, b] += 1
            key = slow_keyed(seed, 4, number, turn // size)
            pairs.append(listed[slow_permute(turn % size, size, key)])
            turns.append(turn)
            lists.append((listed, slow_keyed(seed, 5, number)))
        taken, waiting = set(), []
        for row, pair in enumerate(pairs):
            waiting += [row] * (index.group[pair] in taken)
            taken.add(index.group[pair])
        tries = 0
        while waiting:
            still = []
            for row in waiting:
                listed, key = lists[row]
                place = (turns[row] + tries) % len(listed)
                pair = listed[slow_permute(place, len(listed), key)]
                if index.group[pair] in taken:
                    still.append(row)
                else:
                    taken.add(index.group[pair])
                    pairs[row] = pair
            waiting, tries = still, tries + 1
        passages = [b for _, b in drawn]
        if strategy == "cross-fixed":
            passages = []
            for pair, (a, _) in zip(pairs, drawn, strict=True):
                chances = [cross[a, b] if b in exists[pair] else 0.0 for b in range(len(weight))]
                until = list(accumulate(chances))
                draw = slow_uniform(seed, 6, pair, a)
                passages.append(bisect_right([x / until[-1] for x in until], draw))
        yield pairs, [a for a, _ in drawn], passages


@quick
@given(
    corpora(),
    st.sampled_from(list(ARMS)),
    st.floats(0, 1),
    st.integers(0, 2**64 - 1),
    st.sampled_from([0.0, 0.3, 1.0]),
)
def test_equals_slow_bookkeeping(corpus, strategy, alpha, seed, power):
    """Every batch of every arm equals what lists, counters and sets give row by row."""
    index, batch_size = corpus
    if power not in (0, 1) and strategy not in ("mono", "x-x", "en-en"):
        power = 1.0  # between the two a cross-lingual table need not exist
    schedule = Schedule(
        index,
        strategy,
        alpha=alpha,
        batch_size=batch_size,
        steps=12,
        seed=seed,
        language_power=power,
    )
    pairs = np.array(
        [
            (index.patterns[:, i] & (index.patterns.sum(1) > 1))[index.pattern].sum()
            for i in range(len(index.languages))
        ]
    )
    weight = pairs**power / (pairs**power).sum()
    if strategy == "en-en":
        weight = np.array([0.0, 1.0, 0.0, 0.0, 0.0][: len(weight)])
    np.testing.assert_allclose(schedule.weight, weight, rtol=1e-12)
    expected = slow_schedule(
        index, strategy, alpha, batch_size, 12, seed, schedule.weight, schedule._cross
    )
    for batch, (pair, question, passage) in zip(schedule, expected, strict=True):
        assert batch.pair.tolist() == pair
        assert batch.question_language.tolist() == question
        assert batch.passage_language.tolist() == passage


@quick
@given(corpora(), st.sampled_from(["mono", "x-x", "en-en", "hybrid", "mix"]), st.integers(0, 99))
def test_arms_without_translations_draw_pairs_of_one_language_too(corpus, strategy, seed):
    """Where the corpus is made for them, every batch equals what bookkeeping over all pairs
    gives, and each arm draws from all texts of its languages."""
    index, batch_size = corpus
    index = replace(index, alone=True)
    made = {"alpha": 1, "batch_size": batch_size, "seed": seed}
    schedule = Schedule(index, strategy, steps=12, **made)
    weight = schedule.weight
    expected = slow_schedule(index, strategy, 1, batch_size, 12, seed, weight, np.diag(weight))
    for batch, (pair, question, passage) in zip(schedule, expected, strict=True):
        assert batch.pair.tolist() == pair
        assert batch.question_language.tolist() == question == passage
    drawn = Counter(Schedule(index, strategy, steps=900, **made).streams.size.tolist())
    present = index.patterns[index.pattern]
    assert drawn == Counter((present.T.astype(int) @ present).ravel().tolist())


@pytest.mark.parametrize("strategy", ARMS)
def test_a_corpus_without_translations_refuses_arms_that_need_them(strategy):
    """Unless nothing is trained; one language is enough for the others."""
    index = PairIndex.from_present(["en"], np.ones((9, 1)), np.arange(9))
    index = replace(index, alone=True)
    Schedule(index, strategy, batch_size=3, steps=0)
    if sampler.crosses(strategy, 0.5):
        with pytest.raises(ValueError, match=r"needs translations.*expected mono, x-x or en-en"):
            Schedule(index, strategy, batch_size=3, steps=5)
    else:
        batches = list(Schedule(index, strategy, batch_size=3, steps=5))
        assert len({p for batch in batches for p in batch.pair.tolist()}) == 9


def test_which_arms_need_translations():
    """By shares; the ends of hybrid and mix are arms of their own."""
    without = {(s, a) for s in ARMS for a in (0, 0.5, 1) if not sampler.crosses(s, a)}
    own = {(s, a) for s in ("mono", "x-x", "en-en") for a in (0, 0.5, 1)}
    assert without == own | {("hybrid", 1), ("hybrid-pair", 1), ("mix", 1)}


# --- hash and permutation -------------------------------------------------------------------


def test_hash_is_splitmix64():
    """The first words give the published outputs of splitmix64 seeded with 0."""
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert keyed(np.arange(3)).tolist() == published


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=4))
@quick
def test_hash_equals_python_integers(words):
    """No numpy cast or overflow changes the hash."""
    assert int(keyed(*words)) == slow_keyed(*words)


def test_permutation_is_a_bijection_of_every_size():
    """All of range(n) is hit once, for n up to 300 and one size too large for 16 bits."""
    for size in [*range(1, 301), 70_001]:
        images = permute(np.arange(size), np.full(size, size), keyed(7, np.full(size, size)))
        assert np.array_equal(np.sort(images), np.arange(size)), size


def test_permutation_handles_rows_of_different_sizes_and_keys():
    """A row's image does not depend on the rows beside it."""
    size = np.array([1, 2, 3, 10, 1000, 999_983, 2**31 - 1])
    place, key = size // 2, keyed(3, np.arange(7))
    together = permute(place, size, key)
    assert (
        together.tolist()
        == [
            slow_permute(int(p), int(n), int(k))
            for p, n, k in zip(place[:6], size[:6], key[:6], strict=True)
        ]
        + permute(place[6:], size[6:], key[6:]).tolist()
    )


@pytest.mark.parametrize("size", [2, 3, 4])
def test_all_orders_are_equally_frequent(size):
    """Each of the n! orders occurs in its share of 24,000 keys (chi-square, 6 sd)."""
    keys = keyed(11, np.repeat(np.arange(24_000), size))
    place = np.tile(np.arange(size), 24_000)
    images = permute(place, np.full(len(place), size), keys).reshape(-1, size)
    count = Counter(map(tuple, images.tolist()))
    orders = list(permutations(range(size)))
    expected = 24_000 / len(orders)
    statistic = sum((count[order] - expected) ** 2 / expected for order in orders)
    free = len(orders) - 1
    assert statistic < free + 6 * np.sqrt(2 * free)


@pytest.mark.parametrize("size", [7, 40, 257])
def test_places_go_everywhere_equally_often(size):
    """Over keys, a place and the next one have all images equally often, and jointly so."""
    keys = keyed(5, np.arange(200 * size))
    here, there = (
        permute(np.full(len(keys), place), np.full(len(keys), size), keys) for place in (0, 1)
    )
    for images, cells in ((here, size), (there, size), ((there - here) % size - 1, size - 1)):
        expected = len(keys) / cells
        statistic = ((np.bincount(images, minlength=cells) - expected) ** 2 / expected).sum()
        assert abs(statistic - cells + 1) < 6 * np.sqrt(2 * cells)


def test_draws_fall_into_cells_with_a_chance():
    """A draw on a boundary belongs to the next cell; cells without a chance are never drawn."""
    cells = sampler._pick(np.array([0, 0.5, 0, 1.5, 0]), np.array([0, 0.2, 0.25, 1 - 2**-53]))
    assert cells.tolist() == [1, 1, 3, 3]


# --- streams --------------------------------------------------------------------------------


@quick
@given(corpora())
def test_streams_equal_brute_force_intersection(corpus):
    """Each stream lists the pairs in both languages (and in at least two), sorted by pattern."""
    index, _ = corpus
    present, streams = index.patterns[index.pattern], Streams(index)
    for stream, (a, b) in enumerate(np.ndindex(len(index.languages), len(index.languages))):
        wanted = np.flatnonzero(present[:, a] & present[:, b] & (present.sum(1) > 1))
        wanted = wanted[np.argsort(index.pattern[wanted], kind="stable")]
        assert streams.size[stream] == len(wanted)
        place = np.arange(len(wanted))
        assert np.array_equal(streams.select(np.full(len(wanted), stream), place), wanted)


def test_streams_select_many_patterns_at_once():
    """Rows of different streams, with hundreds of patterns, equal one stream at a time."""
    rng = np.random.default_rng(0)
    index = PairIndex.from_present(
        [f"l{i:02}" for i in range(12)], rng.random((900, 12)) < 0.6, np.arange(900)
    )
    assert len(index.patterns) > 500
    streams = Streams(index)
    stream = rng.integers(0, 144, 500)
    place = rng.integers(0, streams.size[stream])
    alone = [streams.select(stream[i : i + 1], place[i : i + 1])[0] for i in range(500)]
    assert streams.select(stream, place).tolist() == alone
    index.rows(np.array(alone), stream // 12), index.rows(np.array(alone), stream % 12)


def test_memory_is_four_bytes_a_pair_and_five_a_row():
    """No array grows with pairs x languages."""
    schedule = Schedule(parallel(6, 5000), "cross", batch_size=32, steps=100)
    arrays = {
        name: value.nbytes
        for owner in (schedule, schedule.streams)
        for name, value in vars(owner).items()
        if isinstance(value, np.ndarray)
    }
    assert arrays.pop("order") == 4 * 5000
    assert arrays.pop("_turn") == 4 * 3200
    assert arrays.pop("_stream") == 3200
    assert sum(arrays.values()) < 36 * 8 * 6 + 100 * 8 + 1000


# --- what arms are made of ------------------------------------------------------------------


@quick
@given(corpora(), st.floats(0, 1), st.integers(0, 1000))
def test_composition_of_every_arm(corpus, alpha, seed):
    """Languages and kinds of each batch are what the arm's name promises."""
    index, batch_size = corpus
    for strategy in ARMS:
        for batch in Schedule(
            index, strategy, alpha=alpha, batch_size=batch_size, steps=6, seed=seed
        ):
            asked, answered = batch.question_language, batch.passage_language
            streams = set(zip(asked.tolist(), answered.tolist(), strict=True))
            if strategy in ("mono", "en-en") or batch.kind == "mono":
                assert batch.kind == "mono" and len(streams) == 1 and (asked == answered).all()
            if strategy == "en-en":
                assert index.languages[asked[0]] == "en"
            if strategy == "cross-pair" or (strategy == "hybrid-pair" and batch.kind != "mono"):
                assert batch.kind == "pair" and len(streams) == 1
            if strategy in ("cross", "cross-pair", "cross-fixed") or (
                strategy in ("hybrid", "hybrid-pair") and batch.kind != "mono"
            ):
                assert (asked != answered).all()
            if strategy == "x-x":
                assert (asked == answered).all()
            if strategy in ("x-x", "cross", "mix", "cross-fixed"):
                assert batch.kind == "mixed"
            assert "hybrid" in strategy or batch.kind != "mono" or ARMS[strategy][0] == 1


def test_mixed_batches_mix():
    """A mixed batch of 60 rows holds all three languages, on both sides."""
    for strategy in ("x-x", "cross", "mix", "cross-fixed"):
        for side in languages_of(Schedule(parallel(3, 200), strategy, batch_size=60, steps=20)):
            assert all(set(row) == {0, 1, 2} for row in side.tolist())


@pytest.mark.parametrize("alpha", [0, 0.1, 0.5, 0.9, 1])
def test_share_of_monolingual_batches_and_rows(alpha):
    """Hybrids' batches and mix's rows are monolingual alpha of the time (binomial, 4 sd)."""
    hybrid, paired = (
        Schedule(parallel(3, 50), strategy, alpha=alpha, batch_size=1, steps=1500)
        for strategy in ("hybrid", "hybrid-pair")
    )
    question, passage = languages_of(
        Schedule(parallel(3, 50), "mix", alpha=alpha, batch_size=15, steps=100)
    )
    for share in (
        np.mean([batch.kind == "mono" for batch in hybrid]),
        np.mean([batch.kind == "mono" for batch in paired]),
        np.mean(question == passage),
    ):
        assert abs(share - alpha) <= 4 * np.sqrt(alpha * (1 - alpha) / 1500)


@quick
@given(corpora(), st.integers(0, 2**64 - 1))
def test_identities_hold_batch_for_batch(corpus, seed):
    """mono = hybrid(1) = hybrid-pair(1), cross-pair = hybrid-pair(0), cross = hybrid(0) = mix(0),
    x-x = mix(1)."""
    index, batch_size = corpus
    for named, *others in (
        (("mono", 0.3), ("hybrid", 1.0), ("hybrid-pair", 1)),
        (("cross-pair", 0.3), ("hybrid-pair", 0)),
        (("x-x", 0.3), ("mix", 1)),
        (("cross", 0.3), ("hybrid", 0), ("mix", 0.0)),
    ):
        runs = [
            Schedule(index, strategy, alpha=alpha, batch_size=batch_size, steps=5, seed=seed)
            for strategy, alpha in (named, *others)
        ]
        assert all(same(runs[0].batch(k), run.batch(k)) for run in runs[1:] for k in range(5))


@quick
@given(corpora(), st.floats(0, 1), st.integers(0, 2**64 - 1))
def test_hybrids_of_an_alpha_differ_in_their_cross_lingual_batches_alone(corpus, alpha, seed):
    """The same steps are monolingual, with the same batches."""
    index, batch_size = corpus
    make = {"alpha": alpha, "batch_size": batch_size, "steps": 12, "seed": seed}
    hybrids = (Schedule(index, strategy, **make) for strategy in ("hybrid", "hybrid-pair"))
    for one, other in zip(*hybrids, strict=True):
        assert (one.kind, other.kind) in {("mono", "mono"), ("mixed", "pair")}
        assert one.kind != "mono" or same(one, other)


def test_mix_of_one_in_l_is_uniform_over_language_pairs():
    """mix(1/L) draws all L x L ordered pairs, equal ones too, equally often (chi-square, 6 sd)."""
    question, passage = languages_of(
        Schedule(parallel(4, 400), "mix", alpha=1 / 4, batch_size=64, steps=150)
    )
    count = np.bincount((question * 4 + passage).ravel(), minlength=16)
    assert ((count - 600) ** 2 / 600).sum() < 15 + 6 * np.sqrt(30)


def test_arms_of_a_seed_share_draws():
    """Question languages agree in all arms with mixed batches; alpha only adds mono batches."""
    runs = [
        languages_of(Schedule(parallel(4, 100), strategy, batch_size=16, steps=50))[0]
        for strategy in ("x-x", "cross", "mix", "cross-fixed")
    ]
    assert all(np.array_equal(runs[0], run) for run in runs[1:])
    kinds = [
        [
            batch.kind
            for batch in Schedule(parallel(4, 100), "hybrid", alpha=alpha, batch_size=1, steps=200)
        ]
        for alpha in (0.3, 0.6)
    ]
    assert all(more == "mono" for less, more in zip(*kinds, strict=True) if less == "mono")
    assert kinds[0] != kinds[1]


# --- language weights -----------------------------------------------------------------------


def uneven() -> PairIndex:
    """100 pairs in all of de, en, th; 60 more in de and en: 160, 160 and 100 pairs."""
    present = np.ones((170, 3), bool)
    present[100:, 2] = False
    present[160:, 0] = False  # ten pairs in English alone: never drawn
    return PairIndex.from_present(["de", "en", "th"], present, np.arange(170))


@pytest.mark.parametrize("power", [0, 0.5, 1])
def test_weights_are_uniform_by_temperature_or_by_size(power):
    """Languages are asked in proportion to pairs ** power, counting pairs in two languages."""
    weight = np.array([160, 160, 100.0]) ** power
    weight /= weight.sum()
    schedule = Schedule(uneven(), "x-x", batch_size=50, steps=100, language_power=power)
    np.testing.assert_allclose(schedule.weight, weight)
    share = np.bincount(languages_of(schedule)[0].ravel(), minlength=3) / 5000
    assert (np.abs(share - weight) < 4 * np.sqrt(weight * (1 - weight) / 5000)).all()


@pytest.mark.parametrize("strategy", [s for s in ARMS if s != "en-en"])
@pytest.mark.parametrize("power", [0, 1])
def test_arms_have_equal_language_marginals(strategy, power):
    """Both sides of every arm have each language with its weight (chi-square over batches)."""
    index = uneven() if strategy != "cross-fixed" else parallel(3, 170)
    schedule = Schedule(index, strategy, batch_size=10, steps=500, language_power=power, seed=1)
    draws = 5000 if ARMS[strategy][2] else 500  # rows of a one-stream batch are one draw
    draws = 5000 if strategy == "cross" else draws
    for side in languages_of(schedule):
        share = np.bincount(side.ravel(), minlength=3) / 5000
        assert draws * ((share - schedule.weight) ** 2 / schedule.weight).sum() < 14  # p = 1e-3


def test_no_arm_draws_pairs_of_a_single_language():
    """The ten pairs that only English has are in no arm's batches."""
    for strategy in ARMS:
        pairs = np.concatenate(
            [batch.pair for batch in Schedule(uneven(), strategy, batch_size=40, steps=40)]
        )
        assert pairs.max() < 160 and len(np.unique(pairs)) > 100


def feasible(weight, shared) -> bool:
    """Whether a table with these marginals and this support exists, by linear programming."""
    cells = np.argwhere(shared & ~np.eye(len(weight), dtype=bool))
    sums = np.concatenate([[cells[:, axis] == i for i in range(len(weight))] for axis in (0, 1)])
    return linprog(np.zeros(len(cells)), A_eq=sums, b_eq=np.r_[weight, weight]).status == 0


@settings(deadline=None, max_examples=80, derandomize=True)
@given(st.integers(2, 6), st.integers(0, 2**32), st.sampled_from([0.2, 0.6, 1.0]))
def test_joint_table_exists_exactly_where_it_can(size, seed, density):
    """Marginals, zeros and symmetry hold, and a refusal means that no table exists."""
    rng = np.random.default_rng(seed)
    weight = rng.dirichlet(np.ones(size) * 3)
    shared = rng.random((size, size)) < density
    shared |= shared.T
    names = tuple("abcdef"[:size])
    if not (shared & ~np.eye(size, dtype=bool)).any() or not feasible(weight, shared):
        with pytest.raises(ValueError, match=r"cannot give every language its weight: \w.* share "):
            joint(weight, shared, names)
        return
    table = joint(weight, shared, names)
    np.testing.assert_allclose(table.sum(0), weight, rtol=1e-8)
    np.testing.assert_allclose(table.sum(1), weight, rtol=1e-8)
    assert (table[~shared] == 0).all() and (np.diag(table) == 0).all() and (table >= 0).all()


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    st.integers(2, 6),
    st.integers(0, 2**32),
    st.sampled_from([0.2, 0.5, 0.9]),
    st.sampled_from([0, 10**3, 10**6]),
)
def test_weights_by_size_always_have_a_joint_table(size, seed, density, hub):
    """Also where nearly all pairs are with English, which Sinkhorn's own steps take ages for."""
    rng = np.random.default_rng(seed)
    present = rng.random((30, size)) < density
    present[: size - 1, 1] = present[np.arange(size - 1), [0, *range(2, size)]] = True
    times = np.ones(30)
    times[: size - 1] += hub * (present[: size - 1].sum(1) == 2)
    present = present[(keep := present.sum(1) > 1)]
    shared = present.T @ (present * times[keep, None])
    weight = np.diag(shared) / np.trace(shared)
    table = joint(weight, shared > 0, tuple("abcdef"[:size]))
    np.testing.assert_allclose(table.sum(0), weight, rtol=1e-8)


# --- what a batch and a run contain ---------------------------------------------------------


@quick
@given(corpora(), st.sampled_from(list(ARMS)), st.integers(0, 2**64 - 1))
def test_no_pair_passage_or_group_twice_in_a_batch(corpus, strategy, seed):
    """Groups of a batch differ, and each pair exists in both of its languages."""
    index, batch_size = corpus
    for batch in Schedule(index, strategy, batch_size=batch_size, steps=25, seed=seed):
        assert len(batch.pair) == batch_size
        assert len(set(index.group[batch.pair].tolist())) == batch_size
        index.rows(batch.pair, batch.question_language)
        index.rows(batch.pair, batch.passage_language)


@quick
@given(corpora(), st.sampled_from(list(ARMS)), st.integers(0, 1000))
def test_usage_within_a_stream_is_even_but_for_rows_that_gave_way(corpus, strategy, seed):
    """Uses of a stream's pairs differ by at most one, give or take its substituted rows."""
    index, batch_size = corpus
    schedule = Schedule(index, strategy, batch_size=batch_size, steps=40, seed=seed)
    uses, gave_way = defaultdict(Counter), Counter()
    for batch in schedule:
        passage = batch.question_language if strategy == "cross-fixed" else batch.passage_language
        for pair, a, b, moved in zip(
            batch.pair, batch.question_language, passage, batch.substituted, strict=True
        ):
            uses[a, b][pair] += 1
            gave_way[a, b] += moved
    for (a, b), count in uses.items():
        listed = np.flatnonzero(
            index.patterns[index.pattern][:, [a, b]].all(1)
            & (index.patterns.sum(1) > 1)[index.pattern]
        )
        times = np.array([count[pair] for pair in listed])
        low, rest = divmod(times.sum(), len(times))
        off = np.maximum(times - low - (rest > 0), 0) + np.maximum(low - times, 0)
        assert times.sum() == count.total() and off.sum() <= 2 * gave_way[a, b]
        if gave_way[a, b] == 0:
            assert times.max() - times.min() <= 1


def test_an_epoch_uses_every_pair_once():
    """Where nothing conflicts, every pair of each language is used equally often, in new orders."""
    index = parallel(1 + 1, 24)
    runs = defaultdict(list)
    for batch in Schedule(index, "mono", batch_size=8, steps=60):
        assert not batch.substituted.any()
        runs[batch.question_language[0]] += batch.pair.tolist()
    for pairs in runs.values():
        epochs = [pairs[i : i + 24] for i in range(0, len(pairs) - 23, 24)]
        assert len(epochs) > 3 and all(sorted(epoch) == list(range(24)) for epoch in epochs)
        assert len(set(map(tuple, epochs))) == len(epochs)


def test_languages_of_equal_size_have_different_orders():
    """Each stream, and each seed, reads a fully parallel corpus in an order of its own."""
    orders = set()
    for seed in (0, 1):
        for strategy in ("mono", "cross-pair"):
            firsts = {}
            for batch in Schedule(parallel(4, 40), strategy, batch_size=40, steps=120, seed=seed):
                key = batch.question_language[0], batch.passage_language[0]
                firsts.setdefault(key, tuple(batch.pair.tolist()))
            assert len(firsts) == (4 if strategy == "mono" else 12)
            orders |= set(firsts.values())
    assert len(orders) == 2 * 16


@quick
@given(corpora(), st.sampled_from(list(ARMS)), st.integers(0, 1000))
def test_longer_run_keeps_the_prefix_and_batches_need_no_state(corpus, strategy, seed):
    """batch(k), asked in any order, is the k-th of iterating and of a run ten times as long."""
    index, batch_size = corpus
    make = {"batch_size": batch_size, "seed": seed}
    short = Schedule(index, strategy, steps=12, **make)
    long = Schedule(index, strategy, steps=120, **make)
    asked = {int(k): long.batch(int(k)) for k in np.random.default_rng(seed).permutation(12)}
    assert len(list(short)) == len(short) == 12
    assert all(same(batch, asked[k]) for k, batch in enumerate(short))


def test_a_long_run_is_drawn_in_parts_without_seams():
    """Turns count on over the parts in which streams are drawn: 600 steps, one epoch of 24 each."""
    pairs = [
        batch.pair.tolist()
        for batch in Schedule(parallel(2, 24), "en-en", batch_size=24, steps=600)
    ]
    assert len(set(map(tuple, pairs))) == 600 and all(sorted(p) == list(range(24)) for p in pairs)


@pytest.mark.parametrize("strategy", ["mono", "x-x"])
def test_one_language_alone(strategy):
    """Every row is in it, with the same pairs as en-en where it is English; the other batches'
    draws are those of the arm with all languages."""
    index, how = parallel(3, 60), {"batch_size": 8, "steps": 30, "seed": 3}
    for number, code in enumerate(index.languages):
        for batch in Schedule(index, strategy, only=code, **how):
            assert set(batch.question_language) == set(batch.passage_language) == {number}
    english = Schedule(index, strategy, only="en", **how), Schedule(index, "en-en", **how)
    if "en" in index.languages:
        pairs = ([batch.pair.tolist() for batch in arm] for arm in english)
        assert next(pairs) == next(pairs)
    with pytest.raises(ValueError, match=f"{strategy} needs the language da, the corpus has"):
        Schedule(index, strategy, only="da", **how)


def test_a_scarce_language_alone_needs_groups_of_its_own(monkeypatch):
    """Five pairs exist in the second language: batches of it hold five rows, and none of six."""
    present = np.ones((40, 3), bool)
    present[5:, 1] = False
    index = PairIndex.from_present(["de", "en", "th"], present, np.arange(40))
    assert len(Schedule(index, "mono", only="en", batch_size=5, steps=4).batch(3).pair) == 5
    with pytest.raises(ValueError, match="en has pairs of 5 groups, fewer than batch_size=6"):
        Schedule(index, "mono", only="en", batch_size=6, steps=4)
    assert len(Schedule(index, "mono", only="de", batch_size=6, steps=4).batch(3).pair) == 6


def test_seeds_differ():
    """Another seed draws other languages and other pairs."""
    one, other = (Schedule(parallel(3, 50), "mix", batch_size=16, steps=9, seed=s) for s in (0, 1))
    assert not any(np.array_equal(one.batch(k).pair, other.batch(k).pair) for k in range(9))
    assert not np.array_equal(languages_of(one)[0], languages_of(other)[0])


@pytest.mark.parametrize("group_size", [1, 5])
def test_a_batch_may_hold_every_group(group_size):
    """The largest possible batch is found however rows conflict."""
    index = parallel(3, 60, group_size)
    for strategy in ARMS:
        for batch in Schedule(index, strategy, batch_size=60 // group_size, steps=5):
            assert sorted(index.group[batch.pair]) == list(range(60 // group_size))


def test_first_come_rows_keep_their_pair():
    """Only rows whose group an earlier row had are substituted, and there are such rows."""
    index = parallel(3, 60, group_size=3)
    big = Schedule(index, "x-x", batch_size=15, steps=20)
    moved = np.array([batch.substituted for batch in big])
    assert 0 < moved.mean() < 0.9 and not moved[:, 0].any()


@given(st.integers(1, 6), st.integers(1, 6))
@quick
def test_parts_of_ranks_partition_the_batch(world, share):
    """Concatenated parts are the batch; a world that does not divide it is refused."""
    index = parallel(3, 60)
    offsets = np.arange(61) * 59
    others = np.concatenate([np.delete(np.arange(60), i) for i in range(60)])
    index = PairIndex(
        index.languages,
        index.pattern,
        index.patterns,
        index.group,
        (offsets, others.astype(np.int32)),
    )
    batch = Schedule(index, "mix", batch_size=world * share, steps=1, explicit=2).batch(0)
    parts = [batch.part(rank, world) for rank in range(world)]
    for name in ("pair", "question_language", "passage_language", "negatives", "substituted"):
        whole = np.concatenate([getattr(part, name) for part in parts])
        assert np.array_equal(whole, getattr(batch, name))
    assert {(part.step, part.kind, len(part.pair)) for part in parts} == {(0, "mixed", share)}
    for rank, size in ((0, world * share + 1), (world, world), (-1, world)):
        with pytest.raises(ValueError, match="no equal part"):
            batch.part(rank, size)


def test_step_outside_the_run_is_an_index_error():
    """Neither the step past the end nor a negative one wraps around."""
    schedule = Schedule(parallel(2, 9), "mono", batch_size=3, steps=4)
    for step in (4, -1):
        with pytest.raises(IndexError, match=f"no step {step}"):
            schedule.batch(step)
    assert list(Schedule(parallel(2, 9), "mono", batch_size=3, steps=0)) == []


# --- cross-fixed ----------------------------------------------------------------------------


@quick
@given(corpora(), st.integers(0, 1000))
def test_cross_fixed_partner_is_constant(corpus, seed):
    """A question meets one other language throughout, asked and paired as x-x would."""
    index, batch_size = corpus
    make = {"batch_size": batch_size, "steps": 20, "seed": seed}
    partner = {}
    for fixed, plain in zip(
        Schedule(index, "cross-fixed", **make), Schedule(index, "x-x", **make), strict=True
    ):
        assert np.array_equal(fixed.pair, plain.pair)
        assert np.array_equal(fixed.question_language, plain.question_language)
        for pair, a, b in zip(
            fixed.pair.tolist(),
            fixed.question_language.tolist(),
            fixed.passage_language.tolist(),
            strict=True,
        ):
            assert a != b and partner.setdefault((pair, a), b) == b


def test_cross_fixed_spreads_partners_by_weight():
    """Partners of one language follow its row of the joint table (chi-square, 2 free, p = 1e-3)."""
    question, passage = languages_of(
        Schedule(parallel(4, 9000), "cross-fixed", batch_size=300, steps=100)
    )
    for a in range(4):  # no pair is asked twice in a language
        count = np.bincount(passage[question == a], minlength=4)
        expected = count.sum() / 3
        assert count[a] == 0 and count.sum() > 6000
        assert (np.delete(count - expected, a) ** 2).sum() / expected < 14


def test_cross_fixed_has_as_many_positives_as_mono():
    """Over a long run: P a language for mono and cross-fixed, (L - 1) P for cross."""
    positives = {
        strategy: exposure(
            Schedule(parallel(3, 40), strategy, batch_size=10, steps=300)
        ).positives.tolist()
        for strategy in ("mono", "cross-fixed", "cross")
    }
    assert positives == {"mono": [40] * 3, "cross-fixed": [40] * 3, "cross": [80] * 3}


# --- explicit negatives ---------------------------------------------------------------------


def with_negatives(index, lists) -> PairIndex:
    """The index with lists of negatives, one a pair."""
    offsets = np.cumsum([0, *map(len, lists)]).astype(np.int64)
    return PairIndex(
        index.languages,
        index.pattern,
        index.patterns,
        index.group,
        (offsets, np.concatenate(lists).astype(np.int32)),
    )


@pytest.mark.parametrize("strategy", ["mono", "mix", "cross-fixed"])
def test_explicit_negatives_are_usable_and_distinct(strategy):
    """Negatives come from the pair's list, exist in the passage's language, of another group."""
    rng = np.random.default_rng(0)
    present = rng.random((80, 3)) < 0.7
    present[:20] = True
    index = PairIndex.from_present(["de", "en", "th"], present, np.arange(80) // 2)
    lists = [
        np.r_[rng.permutation(20), rng.permutation(np.arange(20, 80))[: rng.integers(9)]]
        for _ in range(80)
    ]
    index = with_negatives(index, lists)
    seen = defaultdict(set)
    for batch in Schedule(index, strategy, batch_size=8, steps=150, explicit=3):
        assert batch.negatives.shape == (8, 3)
        assert np.array_equal(
            batch.negatives,
            Schedule(index, strategy, batch_size=8, steps=batch.step + 1, explicit=3)
            .batch(batch.step)
            .negatives,
        )
        index.rows(batch.negatives, batch.passage_language[:, None])
        assert (index.group[batch.negatives] != index.group[batch.pair][:, None]).all()
        for pair, passage, row in zip(
            batch.pair, batch.passage_language, batch.negatives, strict=True
        ):
            assert len(set(row)) == 3 and set(row) <= set(lists[pair])
            seen[pair, passage] |= set(row.tolist())
    pair, passage = max(seen, key=lambda key: len(seen[key]))
    usable = [n for n in lists[pair] if present[n, passage] and n // 2 != pair // 2]
    assert len(seen[pair, passage]) > len(usable) / 2


def test_too_few_negatives_are_refused_with_their_number():
    """Own-group and missing negatives do not count, and no list at all is refused."""
    present = np.ones((10, 2), bool)
    present[9, 1] = False
    index = PairIndex.from_present(["de", "en"], present, np.r_[0, 0, 2:10])
    lists = [np.delete(np.arange(10), i)[:4] for i in range(10)]  # pairs 0, 1 list each other
    lists[5] = np.array([0, 2, 3, 9])  # 9 does not exist in English
    make = {"batch_size": 2, "steps": 3}
    Schedule(with_negatives(index, lists), "mix", explicit=3, **make)
    with pytest.raises(ValueError, match="^3 pairs have fewer than explicit=4 negatives"):
        Schedule(with_negatives(index, lists), "mix", explicit=4, **make)
    with pytest.raises(ValueError, match="explicit=1, but the corpus lists no negatives"):
        Schedule(index, "mix", explicit=1, **make)


# --- refusals -------------------------------------------------------------------------------


def star() -> PairIndex:
    """German, Thai and Turkish share pairs with English only."""
    present = np.zeros((90, 4), bool)
    present[:, 1] = True
    present[np.arange(90), np.repeat([0, 2, 3], 30)] = True
    return PairIndex.from_present(["de", "en", "th", "tr"], present, np.arange(90))


def test_whole_numbers_are_whole_and_do_not_overflow():
    """numpy's of 32 bits are counted as Python's, and group ids may be large."""
    index = parallel(3, 60)
    for name in ("batch_size", "steps", "seed", "explicit"):
        with pytest.raises(TypeError):
            Schedule(index, "mono", **{"batch_size": 4, "steps": 2} | {name: 1.5})
    with pytest.raises(ValueError, match="make 2"):
        Schedule(index, "mono", batch_size=np.int32(4), steps=np.int32(2**30))
    large = PairIndex.from_present(["de", "en"], np.ones((3, 2)), np.array([2**32, 0, 2]))
    assert large.group.tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strategy": "xx"}, "strategy='xx' is none of mono, x-x, cross-pair, cross, hybrid, hyb"),
        ({"alpha": -0.1}, "alpha=-0.1 is not in 0..1"),
        ({"alpha": 1.1}, "alpha=1.1 is not in 0..1"),
        ({"alpha": float("nan")}, "alpha=nan is not in 0..1"),
        ({"language_power": 2}, "language_power=2 is not in 0..1"),
        ({"batch_size": 0}, "batch_size=0 is not at least 1"),
        ({"steps": -1}, "steps=-1 is not at least 0"),
        ({"steps": 2**28}, "steps=268435456 make 2"),
        ({"seed": -1}, "seed=-1 is not in 0..2"),
        ({"explicit": -1}, "explicit=-1 is not at least 0"),
        ({"batch_size": 61}, "de has pairs of 60 groups, fewer than batch_size=61: lower"),
        ({"strategy": "cross", "batch_size": 61}, "de-en has pairs of 60 groups, fewer than"),
        ({"index": parallel(3, 60, 3), "batch_size": 21}, "de has pairs of 20 groups, fewer than"),
        ({"index": parallel(1, 60)}, "no pair in de exists in a second language: add transl"),
        ({"index": parallel(1, 60), "strategy": "cross"}, "no pair in de exists in a second"),
        (
            {"index": parallel(1, 60), "strategy": "en-en"},
            "en-en needs the language en, the corpus ",
        ),
        (
            {
                "index": PairIndex.from_present(
                    ["de", "en", "th"], np.array([[1, 1, 0]] * 9), range(9)
                )
            },
            "no pair in th exists in a second language",
        ),
        (
            {"index": PairIndex.from_present(["de", "en"], np.zeros((0, 2)), range(0))},
            "no pair in de, en exists in a second language",
        ),
        (
            {"index": uneven(), "strategy": "cross", "batch_size": 101},
            "(de|en)-th has pairs of 100 ",
        ),
        (
            {"index": star(), "strategy": "cross"},
            r"weight: de, th, tr \(0.750 in all\) share pairs only with en \(0.250\): set",
        ),
        ({"index": star(), "strategy": "cross-fixed"}, "cannot give every language its weight"),
        ({"index": star(), "strategy": "hybrid"}, "cannot give every language its weight"),
    ],
)
def test_impossible_requests_are_refused_at_construction(change, message):
    """One clear line, naming what was wrong and what was expected."""
    request = {"index": parallel(3, 60), "strategy": "mono", "batch_size": 8, "steps": 5} | change
    with pytest.raises(ValueError, match=message) as refusal:
        Schedule(**request)
    assert "\n" not in str(refusal.value)


def test_what_an_arm_does_not_need_is_not_asked_of_the_corpus():
    """A star round English serves same-language arms, and cross-lingual ones weighed by size."""
    for strategy, alpha in (("mono", 0), ("x-x", 0), ("hybrid", 1), ("mix", 1), ("en-en", 0)):
        Schedule(star(), strategy, alpha=alpha, batch_size=30, steps=2)
    schedule = Schedule(star(), "cross", language_power=1, batch_size=30, steps=9)
    question, passage = languages_of(schedule)
    assert ((question == 1) != (passage == 1)).all()


@quick
@given(corpora(), st.sampled_from(list(ARMS)))
def test_groups_are_counted_exactly(corpus, strategy):
    """A batch is accepted just up to the fewest groups that an occurring stream holds."""
    index, _ = corpus
    present, n = index.patterns[index.pattern], len(index.languages)
    crosses = {
        "cross": [True],
        "cross-pair": [True],
        "hybrid": [True, False],
        "hybrid-pair": [True, False],
        "mix": [True, False],
    }.get(strategy, [False])
    fewest = min(
        len(np.unique(index.group[present[:, a] & present[:, b] & (present.sum(1) > 1)]))
        for a in range(n)
        for b in range(n)
        if (a != b) in crosses and (strategy != "en-en" or a == b == 1)
    )
    schedule = Schedule(index, strategy, batch_size=fewest, steps=4)
    assert all(len(set(index.group[batch.pair])) == fewest for batch in schedule)
    with pytest.raises(ValueError, match=f"has pairs of {fewest} groups"):
        Schedule(index, strategy, batch_size=fewest + 1, steps=1)


# --- exposure -------------------------------------------------------------------------------


@quick
@given(corpora(), st.sampled_from(list(ARMS)), st.integers(0, 15))
def test_exposure_equals_counting(corpus, strategy, steps):
    """Every column equals a Counter over the rows of the run."""
    index, batch_size = corpus
    schedule = Schedule(index, strategy, batch_size=batch_size, steps=steps)
    table = exposure(schedule)
    rows = [
        row
        for b in schedule
        for row in zip(
            b.pair.tolist(),
            b.question_language.tolist(),
            b.passage_language.tolist(),
            b.substituted.tolist(),
            strict=True,
        )
    ]
    assert table.language.tolist() == list(index.languages)
    for i, line in table.iterrows():
        for column, side in ((1, "question"), (2, "passage")):
            texts = Counter(row[0] for row in rows if row[column] == i)
            assert line[f"{side}_uses"] == texts.total()
            assert line[f"{side}_texts"] == len(texts)
            assert line[f"{side}_max_repeats"] == max(texts.values(), default=0)
            assert line[f"{side}_mean_repeats"] == pytest.approx(texts.total() / max(len(texts), 1))
        asked = [row for row in rows if row[1] == i]
        assert line.positives == len({row[:3] for row in asked})
        assert line.monolingual == pytest.approx(
            sum(row[2] == i for row in asked) / max(len(asked), 1)
        )
        assert line.substituted == sum(row[3] for row in asked)
        assert line.negatives == (batch_size - 1 if asked else 0)


def test_docstring_example():
    """The example in the module's docstring runs and prints what it says."""
    result = doctest.testmod(sampler)
    assert result.attempted == 3 and result.failed == 0
