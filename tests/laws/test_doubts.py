"""What is said of a law that other rows will not follow."""

import numpy as np
import pytest

from gradnas.laws.doubts import with_doubts
from gradnas.laws.formula import Formula
from gradnas.laws.law import Law, Laws

NAMES = ["a", "b"]
CONSTANT = Formula(2, (), (), bias=1.0)


def laws_of(train_error, valid_error, measure=""):
    """A front of one law; what it says of rows is not asked here."""
    law = Law(
        formula=CONSTANT,
        complexity=3,
        train_error=train_error,
        valid_error=valid_error,
        description_length=0.0,
        agreement=1,
        measure=measure,
    )
    return Laws(front=(law,), best=0)


@pytest.fixture
def rows():
    random = np.random.default_rng(0)
    x_ND = random.uniform(1.0, 2.0, (40, 2))
    y_N = x_ND[:, 0] + x_ND[:, 1]
    return x_ND, y_N, np.ones(40)


def test_a_row_far_off_that_decides_a_law_is_named(rows):
    x_ND, y_N, _ = rows
    y_N[7] *= 1000.0
    variance = y_N.var()
    found = with_doubts(laws_of(0.02 * variance, 0.9 * variance), *rows, "squared", NAMES)
    (note,) = found.notes
    assert "98% of the variance of these rows, and 10%" in note
    assert f"the row with a={x_ND[7, 0]:.4g}, b={x_ND[7, 1]:.4g} is far off" in note
    assert "--loss huber" in note


def test_without_such_a_row_only_the_difference_is_said(rows):
    variance = rows[1].var()
    (note,) = with_doubts(laws_of(0.02 * variance, 2 * variance), *rows, "squared", NAMES).notes
    assert "and 0% of that" in note and "huber" not in note


@pytest.mark.parametrize("train, valid", [(0.01, 0.02), (0.5, 0.9), (1.0, 1.1), (0.001, 0.1)])
def test_a_law_that_holds_as_far_as_any_does_is_not_doubted(rows, train, valid):
    variance = rows[1].var()
    found = with_doubts(laws_of(train * variance, valid * variance), *rows, "squared", NAMES)
    assert found.notes == ()


def test_errors_in_other_units_than_the_variance_are_left_alone(rows):
    assert with_doubts(laws_of(0.0, 1e9), *rows, "logistic", NAMES).notes == ()
    assert with_doubts(laws_of(0.0, 1e9, "mean loss"), *rows, "squared", NAMES).notes == ()
