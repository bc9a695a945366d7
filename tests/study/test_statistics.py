"""Numbers and sentences of a comparison."""

from __future__ import annotations

import pytest
from scipy import stats

from gradnas.study.statistics import Sample, difference, rank_agreement, sentence
from gradnas.tasks.measure import Measure

ACCURACY = Measure("accuracy", "accuracies", True, 100.0, "%")
LOSS = Measure("loss", "losses", False)


def test_mean_and_standard_deviation():
    sample = Sample((0.5, 0.75, 1.0))
    assert sample.mean == 0.75 and sample.sd == 0.25 and sample.n == 3
    assert Sample((0.5,)).sd is None
    assert Sample(()).to_json() == {"mean": None, "sd": None, "n": 0, "values": []}


def test_the_interval_is_welchs():
    first = [0.90, 0.92, 0.94]
    second = [0.80, 0.81, 0.85, 0.82]
    found = difference(first, second)
    known = stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
    assert found.difference == pytest.approx(0.10)
    assert (found.low, found.high) == pytest.approx((known.low, known.high), rel=1e-12)
    assert found.is_shown
    low, high = found.bootstrap
    assert found.low < low < 0.10 < high < found.high  # too narrow, as it is with so few
    assert difference(second, first).is_shown
    assert not difference(first, [0.91, 0.95, 0.90]).is_shown
    assert difference(first, second) == found  # the same resamples


@pytest.mark.parametrize(
    ("first", "second", "measure", "words"),
    [
        ([0.90, 0.92, 0.94], [0.80, 0.81, 0.85], ACCURACY, "the data show a difference: a is 10."),
        ([1.0, 1.1, 1.2], [2.0, 2.1, 2.2], LOSS, "the data show a difference: a is 1.00 better"),
        ([2.0, 2.1, 2.2], [1.0, 1.1, 1.2], LOSS, "a is 1.00 worse on average"),
        ([0.9, 0.8], [0.85, 0.88], ACCURACY, "the data do not show a difference between a and b"),
        ([0.9], [0.8, 0.82], ACCURACY, "nobody can say whether another training"),
        ([0.9, 0.9], [0.8, 0.8], ACCURACY, "neither varies"),
        ([0.9, 0.9], [0.8, 0.9], ACCURACY, "the data do not show a difference between a and b"),
        ([0.9, 0.9, 0.9], [0.80, 0.81, 0.79], ACCURACY, "a difference: a is 10.00 points better"),
        ([0.80, 0.81, 0.79], [0.9, 0.9, 0.9], ACCURACY, "a difference: a is 10.00 points worse"),
        ([0.25, 0.75], [0.5], ACCURACY, "a is on average equal to b, but with 2 and 1 final"),
        ([0.9], [0.8], ACCURACY, "with 1 and 1 final trainings nobody can say"),
        ([0.9, 0.9], [0.9, 0.9], ACCURACY, "alike to the last digit"),
    ],
)
def test_what_is_said(first, second, measure, words):
    assert words in sentence(difference(first, second), "a", "b", measure)


def test_the_order_of_few_is_not_told():
    assert rank_agreement([(1.0, 2.0), (2.0, 3.0)]) is None
    assert rank_agreement([(1.0, 5.0), (1.0, 6.0), (1.0, 7.0)]) is None
    assert rank_agreement([(1, 1), (2, 2), (3, 3)]) == pytest.approx(1.0)
    # Of six pairs of four, one is the other way round: (5 - 1) / 6.
    assert rank_agreement([(1, 1), (2, 3), (3, 2), (4, 4)]) == pytest.approx(4 / 6)
