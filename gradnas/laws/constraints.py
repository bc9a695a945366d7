"""Constraints of a law: what it is to keep everywhere in the ranges of the features.

A constraint is checked at points of the ranges; constants of laws that break one are fitted again
with what they break as a penalty, and a law that still breaks it is dropped.

Legend: S sets of constants, M points, R conditions, P constants, D features.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gradnas.config import did_you_mean
from gradnas.laws.fitting import Model, Rows
from gradnas.randomness import generator_for

CHECKED = 3000  # points drawn in the ranges that a law is checked at
MOST_CORNERS = 256
FITTED = 96  # of them that constants are fitted at
STEP = 1e-4  # of a feature's range: the distance of differences
TOLERANCE = 1e-6  # of the target's deviation (by a feature's range, for slopes)
MARGIN = 1e-5  # by which fitted constants keep away from a limit
# Weights of the penalty, one after the other: squares in units of the target's variance.
FORCES = (1e2, 1e5, 1e8)
SIGNS = ("positive", "negative")


@dataclass(frozen=True)
class Constraint:
    """One condition on the law's value or on a derivative of it; made by the functions below.

    "Positive" and "increasing" allow zero. Conditions hold in the ranges that the features have in
    the data of `fit`.

    Args:
        low, high: limits of the value or of the derivative.
        feature: by which it is differentiated; None: the value is meant.
        order: of the derivative.
        where: features that are held at a value; the others run over their ranges.
    """

    low: float = -math.inf
    high: float = math.inf
    feature: str | None = None
    order: int = 0
    where: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.low <= self.high or (self.low == -math.inf and self.high == math.inf):
            raise ValueError(
                f"a constraint has limits low <= high, not low={self.low}, high={self.high}"
            )
        if self.order not in (0, 1, 2) or (self.order == 0) != (self.feature is None):
            raise ValueError(
                "a constraint is on the value, or on the first or second derivative by a feature, "
                f"not on derivative {self.order!r} by {self.feature!r}"
            )

    @staticmethod
    def positive() -> Constraint:
        """The law is nowhere below zero."""
        return Constraint(low=0.0)

    @staticmethod
    def negative() -> Constraint:
        """The law is nowhere above zero."""
        return Constraint(high=0.0)

    @staticmethod
    def between(low: float, high: float) -> Constraint:
        """The law stays between two numbers."""
        return Constraint(low=float(low), high=float(high))

    @staticmethod
    def increasing(feature: str) -> Constraint:
        """The law nowhere falls with a feature."""
        return Constraint.derivative(feature, "positive")

    @staticmethod
    def decreasing(feature: str) -> Constraint:
        """The law nowhere rises with a feature."""
        return Constraint.derivative(feature, "negative")

    @staticmethod
    def convex(feature: str) -> Constraint:
        """The second derivative by a feature is nowhere negative."""
        return Constraint.derivative(feature, "positive", order=2)

    @staticmethod
    def concave(feature: str) -> Constraint:
        """The second derivative by a feature is nowhere positive."""
        return Constraint.derivative(feature, "negative", order=2)

    @staticmethod
    def derivative(feature: str, sign: str, order: int = 1) -> Constraint:
        """The derivative of this order by a feature has a sign, "positive" or "negative"."""
        if sign not in SIGNS:
            raise ValueError(f"sign is 'positive' or 'negative', not {sign!r}")
        if sign == "positive":
            return Constraint(low=0.0, feature=feature, order=order)
        return Constraint(high=0.0, feature=feature, order=order)

    @staticmethod
    def at(where: Mapping[str, float], value: float) -> Constraint:
        """The law has a value where some features have theirs, whatever the others are."""
        if not where:
            raise ValueError("at takes the values of one or more features, such as {'x1': 0.0}")
        held = {str(name): float(number) for name, number in where.items()}
        if not all(math.isfinite(number) for number in [float(value), *held.values()]):
            raise ValueError(f"at takes finite numbers, not {dict(where)!r} and {value!r}")
        return Constraint(low=float(value), high=float(value), where=held)

    def __str__(self) -> str:
        if self.feature is None:
            what = "value"
        else:
            what = (
                f"derivative by {self.feature}"
                if self.order == 1
                else (f"second derivative by {self.feature}")
            )
        if self.low == self.high:
            says = f"{what} of {self.low:g}"
        elif self.high == math.inf:
            says = f"{what} of at least {self.low:g}"
        elif self.low == -math.inf:
            says = f"{what} of at most {self.high:g}"
        else:
            says = f"{what} from {self.low:g} to {self.high:g}"
        places = [f"{name} = {number:g}" for name, number in self.where.items()]
        return f"{says} at {', '.join(places)}" if places else says


def checked_constraints(constraints: Sequence[Constraint], names: Sequence[str]) -> None:
    """Refuse what is no constraint, and those of features that there are not.

    Raises:
        ValueError: see above.
    """
    are = (
        "constraints are a list such as [gradnas.Constraint.increasing('x1'), "
        "gradnas.Constraint.positive()], not "
    )
    if not isinstance(constraints, (list, tuple)):
        raise ValueError(f"{are}{constraints!r}")
    for constraint in constraints:
        if not isinstance(constraint, Constraint):
            raise ValueError(f"{are}of {constraint!r}")
        used = [*constraint.where, *([] if constraint.feature is None else [constraint.feature])]
        for name in used:
            if name not in names:
                hint = did_you_mean(name, names)
                raise ValueError(f"the constraint {constraint} is of {name!r}, no feature{hint}")


@dataclass(frozen=True)
class _Conditions:
    """Conditions on sums of values at points.

    Attributes:
        x_MD: all points.
        place_R3, factor_R3: each condition is on the sum of up to three values times factors.
        low_R, high_R: its limits; all in units in which a difference of 1 is as large as the data.
    """

    x_MD: Tensor
    place_R3: Tensor
    factor_R3: Tensor
    low_R: Tensor
    high_R: Tensor

    def part(self, rows: Tensor) -> _Conditions:
        """Some of the conditions, at the points that they need."""
        places, inverse = torch.unique(self.place_R3[rows], return_inverse=True)
        return _Conditions(
            self.x_MD[places],
            inverse,
            self.factor_R3[rows],
            self.low_R[rows],
            self.high_R[rows],
        )

    def sums(self, value_SM: Tensor) -> Tensor:
        """`(S, R)` of values at all points."""
        return (value_SM[:, self.place_R3] * self.factor_R3).sum(-1)

    def broken(self, sum_SR: Tensor, margin: float = 0.0) -> Tensor:
        """By how much each condition is broken: above 0 below its low limit, below 0 beyond."""
        is_range_R = self.low_R < self.high_R
        margin_R = torch.where(is_range_R, margin, 0.0)
        under_SR = (self.low_R + margin_R - sum_SR).clamp(min=0.0)
        over_SR = (sum_SR - self.high_R + margin_R).clamp(min=0.0)
        return under_SR - over_SR


class Limits:
    """Constraints over the ranges of some rows."""

    def __init__(
        self, constraints: Sequence[Constraint], names: Sequence[str], rows: Rows, seed: int
    ) -> None:
        checked_constraints(constraints, names)
        self.constraints = list(constraints)
        self.names = list(names)
        self.low_D = rows.x_ND.min(dim=0).values
        self.high_D = rows.x_ND.max(dim=0).values
        self.size = math.sqrt(rows.spread)
        generator = generator_for(seed, 7)
        drawn_MD = self._drawn(generator)
        self.points = torch.cat([drawn_MD, rows.x_ND[:CHECKED]])
        self.all = [self._conditions(constraint, self.points) for constraint in self.constraints]
        self._fitted: list[_Conditions] = []
        for conditions in self.all:
            order = torch.randperm(len(conditions.low_R), generator=generator)
            self._fitted.append(conditions.part(order[:FITTED]))

    def _drawn(self, generator: torch.Generator) -> Tensor:
        """Points within the ranges, their corners among them."""
        D = len(self.low_D)
        share_MD = torch.rand(CHECKED, D, generator=generator, dtype=torch.float64)
        if 2**D <= MOST_CORNERS:
            corners = torch.tensor(list(itertools.product((0.0, 1.0), repeat=D)))
        else:
            corners = torch.randint(0, 2, (MOST_CORNERS, D), generator=generator)
        share_MD = torch.cat([corners.double(), share_MD])
        return self.low_D + share_MD * (self.high_D - self.low_D)

    def _conditions(self, constraint: Constraint, x_MD: Tensor) -> _Conditions:
        """A constraint as conditions at points."""
        x_MD = x_MD.clone()
        for name, number in constraint.where.items():
            x_MD[:, self.names.index(name)] = number
        if len(constraint.where) == len(self.names):
            x_MD = x_MD[:1]
        M = len(x_MD)
        here = torch.arange(M)
        if constraint.feature is None:
            factor_R3 = torch.zeros(M, 3, dtype=torch.float64)
            factor_R3[:, 0] = 1.0 / self.size
            place_R3 = here.unsqueeze(1).expand(M, 3)
            scale = self.size
            return self._with_limits(constraint, x_MD, place_R3, factor_R3, scale)
        d = self.names.index(constraint.feature)
        span = float(self.high_D[d] - self.low_D[d]) or 1.0
        # The second derivative cancels more digits, and takes a larger step.
        h = span * (STEP if constraint.order == 1 else 20.0 * STEP)
        middle_MD = x_MD.clone()
        middle_MD[:, d] = middle_MD[:, d].clamp(self.low_D[d] + h, self.high_D[d] - h)
        shift_D = torch.zeros(len(self.names), dtype=torch.float64)
        shift_D[d] = h
        all_MD = torch.cat([middle_MD - shift_D, middle_MD, middle_MD + shift_D])
        place_R3 = torch.stack([here, here + M, here + 2 * M], dim=1)
        if constraint.order == 1:
            factors = torch.tensor([-0.5, 0.0, 0.5], dtype=torch.float64) / h
        else:
            factors = torch.tensor([1.0, -2.0, 1.0], dtype=torch.float64) / h**2
        scale = self.size / span**constraint.order
        return self._with_limits(
            constraint, all_MD, place_R3, (factors / scale).expand(M, 3), scale
        )

    def _with_limits(
        self,
        constraint: Constraint,
        x_MD: Tensor,
        place_R3: Tensor,
        factor_R3: Tensor,
        scale: float,
    ) -> _Conditions:
        low_R = torch.full((len(place_R3),), constraint.low / scale, dtype=torch.float64)
        high_R = torch.full((len(place_R3),), constraint.high / scale, dtype=torch.float64)
        return _Conditions(x_MD, place_R3, factor_R3, low_R, high_R)

    def penalty(self, force: float) -> LimitsPenalty:
        """What breaking a limit adds to a loss of squared errors."""
        return LimitsPenalty(tuple(self._fitted), force * self.size**2)

    def worst(self, model: Model, theta_P: Tensor) -> list[float]:
        """By how much each constraint is broken at most; inf where the law is undefined."""
        worst: list[float] = []
        for conditions in self.all:
            value_SM, _ = model(conditions.x_MD, theta_P.unsqueeze(0))
            broken_R = conditions.broken(conditions.sums(value_SM))[0].abs()
            largest = float(torch.nan_to_num(broken_R, nan=math.inf).max())
            worst.append(largest)
        return worst

    def breaks(self, model: Model, theta_P: Tensor) -> list[Constraint]:
        """The constraints that a law does not keep."""
        found: list[Constraint] = []
        worst = self.worst(model, theta_P)
        for constraint, largest in zip(self.constraints, worst, strict=True):
            if largest > TOLERANCE:
                found.append(constraint)
        return found

    def tighten(self, model: Model, theta_P: Tensor) -> None:
        """Fit at the points, too, where a law breaks a constraint most."""
        for k, conditions in enumerate(self.all):
            value_SM, _ = model(conditions.x_MD, theta_P.unsqueeze(0))
            broken_R = conditions.broken(conditions.sums(torch.nan_to_num(value_SM)))[0].abs()
            order = torch.argsort(broken_R, descending=True)[:32]
            order = order[broken_R[order] > 0.0]
            if len(order):
                self._fitted[k] = _joined(self._fitted[k], conditions.part(order))


def _joined(first: _Conditions, second: _Conditions) -> _Conditions:
    return _Conditions(
        torch.cat([first.x_MD, second.x_MD]),
        torch.cat([first.place_R3, second.place_R3 + len(first.x_MD)]),
        torch.cat([first.factor_R3, second.factor_R3]),
        torch.cat([first.low_R, second.low_R]),
        torch.cat([first.high_R, second.high_R]),
    )


@dataclass(frozen=True)
class LimitsPenalty:
    """`force` times the mean square of what is broken, of each constraint."""

    conditions: tuple[_Conditions, ...]
    force: float

    def __call__(self, model: Model, theta_SP: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        S, P = theta_SP.shape
        penalty_S = theta_SP.new_zeros(S)
        matrix = theta_SP.new_zeros(S, P, P)
        towards_SP = theta_SP.new_zeros(S, P)
        for conditions in self.conditions:
            value_SM, slope_SPM = model(conditions.x_MD, theta_SP)
            broken_SR = conditions.broken(conditions.sums(value_SM), MARGIN)
            places = conditions.place_R3
            slope_SPR = (slope_SPM[:, :, places] * conditions.factor_R3).sum(-1)
            active_SR = (broken_SR != 0.0).double()
            slope_SPR = torch.nan_to_num(slope_SPR * active_SR.unsqueeze(1))
            share = self.force / len(places)
            penalty_S = penalty_S + share * (broken_SR**2).sum(-1)
            matrix = matrix + share * slope_SPR @ slope_SPR.transpose(1, 2)
            towards_SP = towards_SP + share * (
                slope_SPR @ torch.nan_to_num(broken_SR).unsqueeze(-1)
            ).squeeze(-1)
        return penalty_S, matrix, towards_SP
