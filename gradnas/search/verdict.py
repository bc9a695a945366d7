"""What a search has shown: its architecture beside others with the same weights, and their noise.

Probabilities alone mislead: an operation may win at 0.26 of four and be right, or at 0.9 and be as
good as the next. So architectures that differ in one choice are measured on the same held-out
examples, and a choice counts as decided where its best alternative is worse by more than the noise
of that comparison.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any, Literal

from gradnas.architectures.base import Architecture
from gradnas.architectures.shown import Shown
from gradnas.config import JsonObject, build, decoded, shown
from gradnas.search import verdict_words

FEWEST_GROUPS = 4  # of held-out examples; of fewer nothing can be said about the noise
SAME_END = 1e-3  # of an example: ends of groups are sums of fractions
# Student's t: 95% of differences without a cause lie within so many standard errors, for 1, 2, ...
# degrees of freedom; beyond these it is 1.96 + 2.5 / df, to 1%.
T_95 = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23)

State = Literal["decided", "undecided", "contradicted", "not compared", "not confirmed"]


@dataclass(frozen=True)
class Yardstick:
    """What architectures are compared by.

    Attributes:
        name: of the measure, or `loss`.
        higher_is_better: which way is better.
        scale, unit: how it is said: `scale * value`, and what stands behind the number.
        noun: of what it is a mean.
    """

    name: str = "loss"
    higher_is_better: bool = False
    scale: float = 1.0
    unit: str = ""
    noun: str = "examples"

    def text(self, value: float) -> str:
        """Such as `91.3%`."""
        return f"{self.scale * value:.4g}{self.unit}"


@dataclass(frozen=True)
class Scores:
    """The measure of one architecture on groups of held-out examples.

    The groups of two architectures may differ: of a measure that is no plain mean over examples, a
    batch is one group for one of them and many for another (`slices.measured_by_group`).
    """

    values: tuple[float, ...]
    weights: tuple[float, ...]  # examples in each

    @property
    def mean(self) -> float:
        """Over all examples."""
        return _weighted_mean(self.values, self.weights)


@dataclass(frozen=True)
class Difference:
    """How much better one architecture is than another, measured on the same examples.

    Attributes:
        value: positive where the first is better.
        noise: half the width of a 95% interval; infinite where there are too few groups to tell.
    """

    value: float
    noise: float

    @property
    def is_clear(self) -> bool:
        """Whether the first is better by more than the noise."""
        return self.value > self.noise

    @staticmethod
    def of(one: Scores, other: Scores, higher_is_better: bool) -> Difference:
        """Of two architectures; positive where the one is better."""
        sign = 1.0 if higher_is_better else -1.0
        ends = _common_ends(one.weights, other.weights)
        weights = [last - first for first, last in pairwise([0.0, *ends])]
        pairs = zip(_joined(one, ends), _joined(other, ends), strict=True)
        gains = [sign * (a - b) for a, b in pairs]
        mean = _weighted_mean(gains, weights)
        number = len(gains)
        if number < FEWEST_GROUPS:
            return Difference(mean, math.inf)
        total = sum(weights)
        squares = 0.0
        for gain, weight in zip(gains, weights, strict=True):
            squares += (weight / total * (gain - mean)) ** 2
        error = math.sqrt(squares * number / (number - 1))
        return Difference(mean, t_95(number - 1) * error)


def _common_ends(one: Sequence[float], other: Sequence[float]) -> list[float]:
    """Where groups of both end, in examples from the first on."""
    ends = []
    others = list(accumulate(other))
    k = 0
    for end in accumulate(one):
        while k < len(others) - 1 and others[k] < end - SAME_END:
            k += 1
        if abs(others[k] - end) <= SAME_END:
            ends.append(end)
    assert ends and abs(ends[-1] - sum(other)) <= SAME_END, (one, other)
    return ends


def _joined(scores: Scores, ends: Sequence[float]) -> list[float]:
    """Means over all groups up to each end."""
    means = []
    values: list[float] = []
    weights: list[float] = []
    seen = 0.0
    k = 0
    for value, weight in zip(scores.values, scores.weights, strict=True):
        values.append(value)
        weights.append(weight)
        seen += weight
        if seen >= ends[k] - SAME_END:
            means.append(_weighted_mean(values, weights))
            values, weights = [], []
            k += 1
    return means


def _weighted_mean(values: Sequence[float], weights: Sequence[float]) -> float:
    total = sum(weight * value for value, weight in zip(values, weights, strict=True))
    return total / sum(weights)


def t_95(freedom: int) -> float:
    """How many standard errors 95% of means without a cause lie within."""
    return T_95[freedom - 1] if freedom <= len(T_95) else 1.96 + 2.5 / freedom


@dataclass(frozen=True)
class Candidate:
    """One architecture that was measured.

    Attributes:
        text: the architecture.
        value: its measure.
        gain: how much better it is than the derived one; negative where it is worse.
        noise: of that difference, see `Difference`; None where it is not known.
        decision: the architecture itself; None where it was read from a file.
    """

    text: str
    value: float
    gain: float = 0.0
    noise: float | None = 0.0
    decision: Architecture | None = field(default=None, compare=False)

    @property
    def is_better(self) -> bool:
        """Whether it is better than the derived one by more than the noise."""
        return self.noise is not None and self.gain > self.noise


@dataclass(frozen=True)
class Judged:
    """One choice, and what the measured architectures say about it.

    Attributes:
        chosen: what the derived architecture has there.
        probability: that of the alphas; None where no single one belongs to it.
        alternative: the best that was measured in its place, all else the same; None without one.
        lead: how much better the chosen is than it; negative where it is worse.
        noise: of that difference; None where it is not known.
        state: `decided`: better by more than the noise. `undecided`: not. `contradicted`: the
            alternative is better by more than the noise. `not compared`: none was measured. `not
            confirmed`: better by more than the noise on the examples by which it was taken, or from
            which the weights have learned.
    """

    name: str
    chosen: str
    probability: float | None
    alternative: str | None
    lead: float
    noise: float | None
    state: State


@dataclass(frozen=True)
class Verdict(Shown):
    """What came out of a search, measured on held-out examples with the weights of the search.

    Attributes:
        measure: what architectures are compared by.
        examples, groups: how many held-out examples each was measured on, in how many groups.
        mixture: the measure of the supernet's mixture; None where there is none that was trained.
        derived: the derived network, BatchNorm recalibrated.
        candidates: the likeliest architectures, the likeliest first, and those that differ from the
            derived one in one choice. The first is the derived one.
        likeliest: how many of them are the likeliest.
        random: the measures of random architectures.
        choices: every choice, judged.
        has_all: whether these are all architectures that there are.
        recalibrated: whether the networks have BatchNorm statistics that were estimated anew.
        moved: whether the alphas have moved from where they started.
        notes: what was not done, and why.
        held_out: whether the weights have not learned from the examples.
        taken: whether the derived network was taken by measuring on them.
    """

    measure: Yardstick
    examples: int
    groups: int
    mixture: float | None
    derived: float
    candidates: tuple[Candidate, ...] = ()
    likeliest: int = 0
    random: tuple[float, ...] = ()
    choices: tuple[Judged, ...] = ()
    has_all: bool = False
    recalibrated: bool = False
    moved: bool = True
    notes: tuple[str, ...] = ()
    held_out: bool = True
    taken: bool = False

    # ---- what follows from it --------------------------------------------------------------------

    @property
    def kind(self) -> str:
        """Of the examples: `held-out`, or `training`."""
        return "held-out" if self.held_out else "training"

    @property
    def undecided(self) -> list[str]:
        """The choices whose alternative is not worse by more than the noise.

        All of them where the alphas have not moved.
        """
        names = []
        for choice in self.choices:
            if not self.moved or choice.state in ("undecided", "contradicted"):
                names.append(choice.name)
        return names

    @property
    def not_compared(self) -> list[str]:
        """The choices that no measured architecture says anything about."""
        return [choice.name for choice in self.choices if choice.state == "not compared"]

    @property
    def rank(self) -> int:
        """Of the derived network among the candidates, 1 for the best."""
        better = [c for c in self.candidates if self.gain(c.value, self.derived) > 0]
        return len(better) + 1

    @property
    def random_mean(self) -> float | None:
        """Of the random architectures."""
        return sum(self.random) / len(self.random) if self.random else None

    @property
    def random_sd(self) -> float | None:
        """Their standard deviation, that of a sample; None of fewer than two."""
        mean = self.random_mean
        if mean is None or len(self.random) < 2:
            return None
        squares = sum((value - mean) ** 2 for value in self.random)
        return math.sqrt(squares / (len(self.random) - 1))

    def best(self, number: int | None = None) -> Candidate:
        """The best of the `number` likeliest that were measured; of equal ones the likelier.

        Raises:
            ValueError: none was measured.
        """
        some = self.candidates[: self.likeliest if number is None else number]
        if not some:
            raise ValueError("no candidate was measured: " + "; ".join(self.notes))
        return max(some, key=lambda candidate: self.gain(candidate.value, 0.0))

    def gain(self, value: float, than: float) -> float:
        """How much better a measure is than another."""
        return value - than if self.measure.higher_is_better else than - value

    # ---- words -----------------------------------------------------------------------------------

    @property
    def sentence(self) -> str:
        """What it comes to."""
        return verdict_words.sentence(self)

    def lines(self, typed: bool = False, option: str = "") -> list[str]:
        """What is said of it in a terminal; `typed` and `option` as of `verdict_words.lines`."""
        return verdict_words.lines(self, typed, option)

    def __str__(self) -> str:
        return "\n".join([*verdict_words.table(self), *verdict_words.lines(self)])

    # ---- files -----------------------------------------------------------------------------------

    def to_json(self) -> JsonObject:
        """As JSON types; `from_json` reads it back."""
        written: dict[str, Any] = {"sentence": self.sentence, "undecided": self.undecided}
        for name, value in vars(self).items():
            written[name] = _plain(value)
        return written

    @classmethod
    def from_json(cls, obj: Mapping[str, Any]) -> Verdict:
        """From what `to_json` gave.

        Raises:
            ValueError: it is something else.
        """
        where = "verdict"
        fields: dict[str, Any] = {}
        for entry in dataclasses.fields(cls):
            if entry.name not in obj:
                if isinstance(entry.default, (bool, int)):
                    continue  # a file of before there was such a field
                raise ValueError(f"this is no verdict of a search: {entry.name!r} is missing")
            value = obj[entry.name]
            if entry.name == "measure":
                value = build(Yardstick, value, f"{where}.measure")
            elif entry.name in ("candidates", "choices"):
                part: Any = Candidate if entry.name == "candidates" else Judged
                value = _built(part, value, f"{where}.{entry.name}")
            else:
                value = decoded(cls, entry.name, value, where)
            fields[entry.name] = value
        return cls(**fields)


def _built(cls: type[Any], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise ValueError(f"{where} must be a list, not {shown(value)}")
    return tuple(build(cls, own, f"{where}[{k}]") for k, own in enumerate(value))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        fields = vars(value).items()
        return {name: _plain(part) for name, part in fields if name != "decision"}
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    return value
