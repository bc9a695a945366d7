"""What the numbers of a study show, and what they do not.

Final trainings are few, two to five as a rule. A percentile bootstrap of so few values is far too
narrow (of three against three its 95% interval misses the true difference about four times as often
as it says), so that what is said follows Welch's interval, which needs no equal spreads and is wide
where it must be; the bootstrap interval stands beside it.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from gradnas import extras
from gradnas.config import JsonObject
from gradnas.tasks.measure import Measure

CONFIDENCE = 0.95
RESAMPLES = 2000
FEWEST_RANKED = 3  # architectures; the order of two is a coin


def check_installed() -> None:
    """MissingPackageError where scipy is not installed."""
    extras.need("scipy", extra="study", what="gradnas study")


@dataclass(frozen=True)
class Sample:
    """Values of one kind.

    Attributes:
        sd: standard deviation, with n - 1; None of fewer than two.
    """

    values: tuple[float, ...]

    @property
    def n(self) -> int:
        """How many there are."""
        return len(self.values)

    @property
    def mean(self) -> float:
        """Their mean."""
        return statistics.fmean(self.values)

    @property
    def sd(self) -> float | None:
        """Their standard deviation; None of fewer than two."""
        return statistics.stdev(self.values) if self.n > 1 else None

    def to_json(self) -> JsonObject:
        """Mean, standard deviation, n and the values."""
        mean = self.mean if self.values else None
        return {"mean": mean, "sd": self.sd, "n": self.n, "values": list(self.values)}


@dataclass(frozen=True)
class Difference:
    """One sample minus another, with what is known of the true difference.

    Attributes:
        difference: of the means.
        low, high: Welch's 95% interval; None where a sample has fewer than two values, or neither
            has any spread.
        bootstrap: the percentile interval of the bootstrap, likewise.
    """

    first: Sample
    second: Sample
    difference: float
    low: float | None = None
    high: float | None = None
    bootstrap: tuple[float, float] | None = None

    @property
    def has_interval(self) -> bool:
        """Whether anything can be said beyond the two means."""
        return self.low is not None

    @property
    def is_shown(self) -> bool:
        """Whether the data show a difference: 0 is outside the interval."""
        if self.low is None or self.high is None:
            return False
        return self.low > 0 or self.high < 0

    def to_json(self) -> JsonObject:
        """As JSON types."""
        return {
            "difference": self.difference,
            "confidence": CONFIDENCE,
            "low": self.low,
            "high": self.high,
            "bootstrap": None if self.bootstrap is None else list(self.bootstrap),
            "is_shown": self.is_shown,
        }


def difference(first: Sequence[float], second: Sequence[float]) -> Difference:
    """The difference of two samples; each has at least one value."""
    one = Sample(tuple(first))
    other = Sample(tuple(second))
    found = one.mean - other.mean
    spread = [sample.sd for sample in (one, other)]
    if None in spread or not any(spread):
        return Difference(one, other, found)

    import numpy
    from scipy import stats

    half = _half_width(one, other)
    resampled = stats.bootstrap(
        (one.values, other.values),
        lambda x, y, axis: numpy.mean(x, axis=axis) - numpy.mean(y, axis=axis),
        confidence_level=CONFIDENCE,
        n_resamples=RESAMPLES,
        method="percentile",
        vectorized=True,
        rng=numpy.random.default_rng(0),
    ).confidence_interval
    return Difference(
        one,
        other,
        found,
        found - half,
        found + half,
        (float(resampled.low), float(resampled.high)),
    )


def _half_width(one: Sample, other: Sample) -> float:
    """Of Welch's interval.

    Not by `scipy.stats.ttest_ind`, which warns where one of the samples has no spread.
    """
    from scipy import stats

    assert one.sd is not None and other.sd is not None
    first = one.sd**2 / one.n
    second = other.sd**2 / other.n
    # Welch and Satterthwaite.
    freedom = (first + second) ** 2 / (first**2 / (one.n - 1) + second**2 / (other.n - 1))
    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom))
    return quantile * math.sqrt(first + second)


def sentence(found: Difference, first: str, second: str, measure: Measure) -> str:
    """What a difference says, in one sentence."""
    size = abs(found.difference)
    is_better = (found.difference > 0) == measure.higher_is_better
    unit = " points" if measure.unit == "%" else measure.unit
    than = f"{measure.scale * size:.2f}{unit} {'better' if is_better else 'worse'} on average than"
    by = "on average equal to" if found.difference == 0 else than
    counts = f"{found.first.n} and {found.second.n} final trainings"
    if len({*found.first.values, *found.second.values}) == 1:
        return f"{first} and {second} are alike to the last digit ({counts})"
    if min(found.first.n, found.second.n) < 2:
        return (
            f"{first} is {by} {second}, but with {counts} nobody can say whether another "
            "training would show the same: give --finals 3 or more"
        )
    if not found.has_interval:
        return (
            f"{first} is {by} {second}, and neither varies between its trainings ({counts}): "
            "whether that is chance cannot be told from them"
        )
    assert found.low is not None and found.high is not None
    low = measure.scale * found.low
    high = measure.scale * found.high
    interval = f"95% interval of the difference {low:+.2f} to {high:+.2f}{unit}; {counts}"
    if found.is_shown:
        return f"the data show a difference: {first} is {by} {second} ({interval})"
    return f"the data do not show a difference between {first} and {second} ({interval})"


def rank_agreement(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Kendall's tau between two measurements of the same architectures.

    None of fewer than three, or where one of the two is the same for all.
    """
    if len(pairs) < FEWEST_RANKED:
        return None
    from scipy import stats

    first = [a for a, _ in pairs]
    second = [b for _, b in pairs]
    if len(set(first)) == 1 or len(set(second)) == 1:
        return None
    tau = float(stats.kendalltau(first, second).statistic)
    return None if math.isnan(tau) else tau
