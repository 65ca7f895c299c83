"""The losses against hand arithmetic, a slow loop over rows and columns, and finite differences."""

from math import exp, log

import pytest
import torch
import torch.nn.functional as F

from lib.losses import MODES, info_nce

QUESTION = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
PASSAGE = torch.tensor([[0.6, 0.8], [0.28, 0.96]])
NEGATIVES = torch.tensor([[[0.8, 0.6]], [[-1.0, 0.0]]])


def units(*shape, seed=0):
    """Random unit vectors in float64."""
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


def slow(question, passage, temperature, mode, symmetric, negatives, question_group, groups):
    """The same loss, a dot product at a time."""

    def s(a, b):
        return exp(float(a @ b) / temperature)

    def lookup(x, own, candidates):
        return -log(s(x, own) / sum(s(x, c) for c in candidates))

    total, size = 0.0, len(question)
    for i in range(size):
        own = [passage[i]] if mode == "explicit" else list(passage)
        hard = (
            []
            if mode == "in_batch"
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


CASES = [
    (mode, symmetric, grouped)
    for mode in MODES
    for symmetric in (False, True)
    for grouped in (False, True)
    if not (symmetric and mode == "explicit") and not (grouped and mode == "in_batch")
]


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
        ({"mode": "hard"}, "unknown negatives 'hard', expected one of in_batch, explicit, both"),
        ({"passage": PASSAGE[:1]}, "differ in shape"),
        ({"temperature": 0.0}, "temperature is 0.0, expected more than 0"),
        ({"mode": "both"}, "lacks explicit negatives"),
        ({"negatives": NEGATIVES}, "takes no explicit negatives"),
        (
            {"mode": "explicit", "negatives": NEGATIVES, "symmetric": True},
            "symmetric needs in-batch",
        ),
    ],
)
def test_contradictions_are_refused(change, message):
    """Each in one line that says what was expected."""
    arguments = {"question": QUESTION, "passage": PASSAGE, "temperature": 1.0} | change
    with pytest.raises(ValueError, match=message) as caught:
        info_nce(**arguments)
    assert "\n" not in str(caught.value)
