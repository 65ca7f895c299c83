"""The law of alignment: what is put in is found, what is not there is not."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.analysis import law

RUNGS = [0.1, 0.25, 0.4, 0.55, 0.7, 0.85]


def points(function, noise=0.0, seed=0, rungs=RUNGS, missing=(0.0, 0.1)):
    """A row a rung and budget of a law without and with missing skill."""
    generator = np.random.default_rng(seed)
    rows = [
        (number, a, m, function(a, m) + noise * generator.normal())
        for number, a in enumerate(rungs)
        for m in missing
    ]
    return pd.DataFrame(rows, columns=["rung", "alignment", "missing", "value"])


@given(st.floats(-0.5, 0.5), st.floats(-2, 2), st.integers(0, 40))
def test_a_law_without_noise_is_found(size, missing, tenths):
    """Its values, at alignments in between too."""
    power = tenths / 10
    table = points(lambda a, m: (size + missing * m) * (1 - a) ** power)
    found = law.fit(table, "alignment and missing skill")
    between = np.linspace(0.1, 0.85, 7)
    expected = (size + missing * 0.05) * (1 - between) ** power
    assert found.at(between, 0.05) == pytest.approx(expected, abs=1e-6)


def test_by_hand():
    """Size -.2 and power 2: half of the languages aligned, a quarter of the cost."""
    assert law.Law(-0.2, 0, 2).at(0.5) == pytest.approx(-0.05)
    assert law.Law(-0.2, 1, 1).at([0, 1], 0.1) == pytest.approx([-0.1, 0])


def test_a_constant_is_the_mean_and_its_error_is_that_of_the_others_mean():
    table = points(lambda a, m: a, missing=(0.0,), rungs=[0.0, 0.5, 1.0])
    found = law.fit(table, "constant")
    assert (found.size, found.missing, found.power) == (pytest.approx(0.5), 0, 0)
    assert law.left_out(table, "constant") == pytest.approx([-0.75, 0, 0.75])


@pytest.mark.parametrize(
    ("terms", "function"),
    [
        ("constant", lambda a, m: -0.1),
        ("missing skill", lambda a, m: -0.02 - 1.5 * m),
        ("alignment", lambda a, m: -0.2 * (1 - a) ** 1.5),
        ("alignment and missing skill", lambda a, m: (-0.1 - 2 * m) * (1 - a) ** 1.5),
    ],
)
def test_rungs_left_out_choose_the_terms_that_are_there(terms, function):
    """Out of 20 made worlds mostly; with a constant more terms find noise now and then."""
    chosen = [law.candidates(points(function, 0.01, seed))["law"][0] for seed in range(20)]
    assert chosen.count(terms) >= (8 if terms == "constant" else 14)


def test_intervals_cover_what_they_say():
    """Of a new rung with noise of its own: .90 asked, .80 to .97 of 150 worlds found."""
    true, inside = (lambda a, m: -0.2 * (1 - a) ** 1.5), 0
    for seed in range(150):
        table = points(true, 0.02, seed, missing=(0.0,))
        _, low, high = law.predicted(table, "alignment", 0.6)
        new = true(0.6, 0) + 0.02 * np.random.default_rng([seed, 1]).normal()
        inside += low <= new <= high
    assert 0.80 <= inside / 150 <= 0.97


def test_too_few_rungs_are_refused():
    with pytest.raises(ValueError, match="1 rungs do not decide a law of 2 param"):
        law.fit(points(lambda a, m: a, missing=(0.0,), rungs=[0.5]), "alignment")


@given(st.integers(0, 10**6))
def test_fits_are_the_least_squares_of_a_slow_search(seed):
    """Against numpy's solver at every power."""
    generator = np.random.default_rng(seed)
    table = points(lambda a, m: generator.normal(), missing=(0.0, 0.1, 0.3))
    found = law.fit(table, "alignment and missing skill")
    value = table["value"].to_numpy()
    errors = []
    for power in law.POWERS:
        room = (1 - table["alignment"].to_numpy()) ** power
        columns = np.stack([room, room * table["missing"]], axis=1)
        solved = np.linalg.lstsq(columns, value, rcond=None)[0]
        errors.append(((columns @ solved - value) ** 2).sum())
    own = ((found.at(table["alignment"], table["missing"]) - value) ** 2).sum()
    assert own == pytest.approx(min(errors), abs=1e-9)
