"""The losses against hand arithmetic, a slow loop over rows and columns, and finite differences."""

from math import exp, log

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.losses import MODES, columns, info_nce

QUESTION = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
PASSAGE = torch.tensor([[0.6, 0.8], [0.28, 0.96]])
NEGATIVES = torch.tensor([[[0.8, 0.6]], [[-1.0, 0.0]]])


def units(*shape, seed=0):
    """Random unit vectors in float64."""
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


def slow_candidates(i, size, mode, most, language):
    """Rows whose passages question i is contrasted with, its own first: one after the other."""
    others = [] if mode == "explicit" else [(i + d) % size for d in range(1, size)]
    others = [j for j in others if mode != "in_language" or language[j] == language[i]]
    return [i, *others[: most or size]]


def slow(question, passage, temperature, mode, symmetric, negatives, question_group, groups,
         most=0, language=None):  # fmt: skip
    """The same loss, a dot product at a time."""

    def s(a, b):
        return exp(float(a @ b) / temperature)

    def lookup(x, own, candidates):
        return -log(s(x, own) / sum(s(x, c) for c in candidates))

    total, size = 0.0, len(question)
    for i in range(size):
        own = [passage[j] for j in slow_candidates(i, size, mode, most, language)]
        hard = (
            []
            if mode.startswith("in_")
            else [
                negatives[j, h]
                for j in range(size)
                for h in range(negatives.shape[1])
                if groups is None or groups[j, h] != question_group[i]
            ]
        )
        total += lookup(question[i], passage[i], own + hard) / size
    if symmetric:
        back = sum(lookup(passage[i], question[i], list(question)) for i in range(size)) / size
        total = (total + back) / 2
    return total


def test_in_batch_by_hand():
    """Scores are [[.6, .28], [.8, .96]] with positives on the diagonal, doubled by temperature."""
    expected = (log(1 + exp(0.56 - 1.2)) + log(1 + exp(1.6 - 1.92))) / 2
    assert info_nce(QUESTION, PASSAGE, 0.5).item() == pytest.approx(expected, abs=1e-6)


def test_explicit_by_hand():
    """Eq. 1 of arXiv 2408.10536: own positive and both rows' negatives (scores [[.8, -1], [.6, 0]])
    in the denominator, the other row's positive not."""
    expected = (
        log(1 + exp(0.8 - 0.6) + exp(-1 - 0.6)) + log(1 + exp(0.6 - 0.96) + exp(0 - 0.96))
    ) / 2
    loss = info_nce(QUESTION, PASSAGE, 1.0, mode="explicit", negatives=NEGATIVES)
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_both_by_hand():
    """All positives and all negatives in the denominator."""
    expected = (
        log(1 + exp(0.28 - 0.6) + exp(0.8 - 0.6) + exp(-1 - 0.6))
        + log(1 + exp(0.8 - 0.96) + exp(0.6 - 0.96) + exp(0 - 0.96))
    ) / 2
    loss = info_nce(QUESTION, PASSAGE, 1.0, mode="both", negatives=NEGATIVES)
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_symmetric_by_hand():
    """Rows of the transposed scores are passages: [.6, .8] and [.28, .96]."""
    forth = (log(1 + exp(0.28 - 0.6)) + log(1 + exp(0.8 - 0.96))) / 2
    back = (log(1 + exp(0.8 - 0.6)) + log(1 + exp(0.28 - 0.96))) / 2
    loss = info_nce(QUESTION, PASSAGE, 1.0, symmetric=True)
    assert loss.item() == pytest.approx((forth + back) / 2, abs=1e-6)


def test_a_negative_of_the_own_group_is_no_candidate():
    """Row 0 loses the first row's negative, which is of its group; row 1 keeps both."""
    loss = info_nce(
        QUESTION,
        PASSAGE,
        1.0,
        mode="explicit",
        negatives=NEGATIVES,
        question_group=torch.tensor([7, 8]),
        negative_group=torch.tensor([[7], [9]]),
    )
    expected = (log(1 + exp(-1 - 0.6)) + log(1 + exp(0.6 - 0.96) + exp(0 - 0.96))) / 2
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_in_language_by_hand():
    """Passages 0 and 2 are in one language, and passage 1 alone in its own: row 1 has no negative
    and adds nothing. Scores are [[.6, ., .28], [., ., .], [.8, ., .96]]."""
    question = torch.stack([QUESTION[0], QUESTION[0], QUESTION[1]])
    passage = torch.stack([PASSAGE[0], PASSAGE[1], PASSAGE[1]])
    loss = info_nce(question, passage, 0.5, mode="in_language", language=torch.tensor([4, 7, 4]))
    expected = (log(1 + exp(0.56 - 1.2)) + 0 + log(1 + exp(1.6 - 1.92))) / 3
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_most_by_hand():
    """Each of three rows sees its own passage and the next row's: the last the first's."""
    question = torch.stack([QUESTION[0], QUESTION[1], QUESTION[1]])
    passage = torch.stack([PASSAGE[0], PASSAGE[1], QUESTION[0]])
    expected = (log(1 + exp(0.28 - 0.6)) + log(1 + exp(0 - 0.96)) + log(1 + exp(0.8 - 0))) / 3
    assert info_nce(question, passage, 1.0, most=1).item() == pytest.approx(expected, abs=1e-6)


CASES = [
    (mode, symmetric, grouped)
    for mode in ("in_batch", "explicit", "both")
    for symmetric in (False, True)
    for grouped in (False, True)
    if not (symmetric and mode == "explicit") and not (grouped and mode == "in_batch")
]
PARTS = [("in_batch", 1), ("in_batch", 3), ("in_language", 0), ("in_language", 1)]


def test_every_mode_is_tested():
    """Of the parameter's values."""
    assert {mode for mode, *_ in CASES + PARTS} == set(MODES)


@pytest.mark.parametrize(("mode", "symmetric", "grouped"), CASES)
def test_equals_a_slow_loop(mode, symmetric, grouped):
    """Every mode equals the loop over rows and candidates, on random vectors."""
    for seed in range(3):
        question, passage = units(5, 8, seed=seed), units(5, 8, seed=seed + 50)
        negatives = None if mode == "in_batch" else units(5, 3, 8, seed=seed + 100)
        generator = torch.Generator().manual_seed(seed)
        groups = torch.randint(0, 5, (5, 3), generator=generator) if grouped else None
        own = torch.arange(5) if grouped else None
        loss = info_nce(
            question,
            passage,
            0.3,
            mode=mode,
            symmetric=symmetric,
            negatives=negatives,
            question_group=own,
            negative_group=groups,
        )
        expected = slow(question, passage, 0.3, mode, symmetric, negatives, own, groups)
        assert loss.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("mode", "most"), PARTS)
def test_parts_of_a_batch_equal_a_slow_loop(mode, most):
    """Loss, and every gradient: the loop's own by finite differences, in float64."""
    for seed in range(3):
        vectors = [units(5, 4, seed=seed).requires_grad_(), units(5, 4, seed=seed + 50)]
        vectors[1].requires_grad_()
        language = torch.randint(0, 2, (5,), generator=torch.Generator().manual_seed(seed))
        part = {"mode": mode, "most": most, "language": language}

        def loop(question, passage, part=part):
            return slow(question, passage, 0.3, part["mode"], False, None, None, None, part["most"],
                        part["language"].tolist())  # fmt: skip

        loss = info_nce(*vectors, 0.3, **part)
        assert loss.item() == pytest.approx(loop(*(v.detach() for v in vectors)), rel=1e-12)
        loss.backward()
        for which, vector in enumerate(vectors):
            for at in range(vector.numel()):
                ends = []
                for move in (1e-6, -1e-6):
                    moved = [v.detach().clone() for v in vectors]
                    moved[which].view(-1)[at] += move
                    ends.append(loop(*moved))
                slope = (ends[0] - ends[1]) / 2e-6
                assert vector.grad.view(-1)[at].item() == pytest.approx(slope, abs=1e-7)


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=12),
    st.integers(0, 14),
    st.sampled_from(["in_batch", "in_language"]),
)
@settings(deadline=None, max_examples=60, derandomize=True)
def test_columns_are_those_of_the_slow_choice_and_even(languages, most, mode):
    """Each row has its own column and as many others as there are, at most `most`; and a passage is
    a negative of as many questions as its own question has negatives."""
    language = torch.tensor(languages) * (mode == "in_language")
    kept = columns(language, most)
    for i, row in enumerate(kept):
        wanted = slow_candidates(i, len(languages), mode, most, languages)
        assert row.nonzero().flatten().tolist() == sorted(wanted)
    assert torch.equal(kept.sum(0), kept.sum(1))


@pytest.mark.parametrize("most", [0, 2])
def test_a_batch_with_passages_in_one_language_has_no_other_negatives(most):
    """There in_language is in_batch, to the bit."""
    vectors = units(6, 8, seed=1), units(6, 8, seed=2)
    loss = info_nce(*vectors, 0.1, mode="in_language", most=most, language=torch.full((6,), 5))
    assert loss == info_nce(*vectors, 0.1, most=most)


@pytest.mark.parametrize(("mode", "symmetric", "grouped"), CASES)
def test_gradient_equals_finite_differences(mode, symmetric, grouped):
    """In float64, for questions, passages and negatives alike, masked cells among them."""
    vectors = [units(3, 4, seed=1), units(3, 4, seed=2)]
    vectors += [] if mode == "in_batch" else [units(3, 2, 4, seed=3)]
    groups = (
        {
            "question_group": torch.arange(3),
            "negative_group": torch.tensor([[0, 1], [4, 4], [0, 4]]),
        }
        if grouped
        else {}
    )

    def loss(question, passage, negatives=None):
        return info_nce(
            question, passage, 0.5, mode=mode, symmetric=symmetric, negatives=negatives, **groups
        )

    assert torch.autograd.gradcheck(loss, [v.requires_grad_() for v in vectors])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mode": "hard"}, "unknown negatives 'hard', expected one of in_batch, in_language, exp"),
        ({"passage": PASSAGE[:1]}, "differ in shape"),
        ({"temperature": 0.0}, "temperature is 0.0, expected more than 0"),
        ({"mode": "both"}, "lacks explicit negatives"),
        ({"negatives": NEGATIVES}, "takes no explicit negatives"),
        (
            {"mode": "explicit", "negatives": NEGATIVES, "symmetric": True},
            "symmetric needs in-batch",
        ),
        ({"mode": "in_language"}, "in_language lacks the passages' language"),
        ({"mode": "both", "negatives": NEGATIVES, "most": 1}, "expected 0 with 'both'"),
        ({"most": 1, "symmetric": True}, "symmetric needs in-batch negatives.* most=0"),
    ],
)
def test_contradictions_are_refused(change, message):
    """Each in one line that says what was expected."""
    arguments = {"question": QUESTION, "passage": PASSAGE, "temperature": 1.0} | change
    with pytest.raises(ValueError, match=message) as caught:
        info_nce(**arguments)
    assert "\n" not in str(caught.value)
