"""Whether a law runs off to infinity between the data.

A law may fit every row and have a pole between two of them: `1 / (x - 4.788)` where no x is 4.788.
The box of the features is looked at for places where something that is divided by is zero, and the
law itself is evaluated beside them: `sin(z)**2 / z**2` divides by zero and has no pole.

Legend: N rows, M points, D features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from gradnas.laws.formula import Formula, divisors
from gradnas.laws.primitives import Primitive

MARGIN = 0.05  # of a feature's range, on either side of it
POINTS = 1024  # drawn in the box
PARTS = 32  # of the way between two points where a divisor has different signs, and
CUTS = 12  # how often the part where the sign changes is cut so: 60 halvings, to rounding
BESIDE = 1e-6  # of the way, on either side of a zero: where the law itself is looked at
ROUNDS = 12  # of drawing points ever closer to the smallest value of a divisor
SMALL = 1e-5  # of a divisor's largest value: below it counts as a zero that is touched
LARGE = 1e3  # times the largest target: a law beyond that near a zero has a pole there


@dataclass(frozen=True)
class Box:
    """The ranges of the features, with a margin, and the size of the target in them.

    Attributes:
        low_D, high_D: the ends. A feature that has one sign in all rows keeps it: what is positive
            by nature is not looked at below zero.
        largest: the largest absolute target.
    """

    low_D: Tensor
    high_D: Tensor
    largest: float

    @staticmethod
    def around(x_DN: Tensor, y_N: Tensor) -> Box:
        """The box of some rows."""
        low_D = x_DN.min(dim=1).values
        high_D = x_DN.max(dim=1).values
        margin_D = MARGIN * (high_D - low_D)
        # The end of a feature of one sign stays away from zero by a part of itself.
        wider_low_D = torch.where(low_D > 0, torch.maximum(low_D - margin_D, 0.5 * low_D), 0.0)
        wider_high_D = torch.where(high_D < 0, torch.minimum(high_D + margin_D, 0.5 * high_D), 0.0)
        return Box(
            low_D=torch.where(low_D > 0, wider_low_D, low_D - margin_D),
            high_D=torch.where(high_D < 0, wider_high_D, high_D + margin_D),
            largest=float(y_N.abs().max()),
        )

    def drawn(self, points: int, generator: torch.Generator) -> Tensor:
        """`(M, D)` points of the box, evenly drawn, and its corners as far as there are few."""
        D = len(self.low_D)
        share_MD = torch.rand(points, D, generator=generator, dtype=torch.float64)
        # Zeros at the rim show at corners first; of many features a part of the corners is drawn.
        corners_MD = torch.randint(0, 2, (points // 4, D), generator=generator).double()
        share_MD = torch.cat([share_MD, corners_MD])
        return self.low_D + share_MD * (self.high_D - self.low_D)


def has_pole(formula: Formula, box: Box, primitives: Mapping[str, Primitive]) -> bool:
    """Whether the formula exceeds every bound somewhere in the box.

    What is looked for: zeros of what is divided by (reciprocals, negative powers, the lower sums of
    ratios) where it changes its sign or touches zero, at which the formula itself is a thousand
    times larger than any target. Functions of one's own are not looked into.
    """
    generator = torch.Generator(device="cpu").manual_seed(0)
    x_MD = box.drawn(POINTS, generator)
    num_divisors = len(divisors(formula, x_MD, primitives))
    for k in range(num_divisors):
        for zero_MD in _near_zeros(formula, k, x_MD, box, primitives, generator):
            value_M = formula(zero_MD, primitives)
            is_large_M = value_M.abs() > LARGE * max(box.largest, 1e-300)
            if bool((is_large_M | torch.isinf(value_M)).any()):
                return True
    return False


def _near_zeros(
    formula: Formula,
    k: int,
    x_MD: Tensor,
    box: Box,
    primitives: Mapping[str, Primitive],
    generator: torch.Generator,
) -> list[Tensor]:
    """Points close to a zero of divisor k; none where it has no zero that is found."""
    value_M = divisors(formula, x_MD, primitives)[k]
    known_M = torch.isfinite(value_M)
    if not bool(known_M.any()):
        return []
    x_MD = x_MD[known_M]
    value_M = value_M[known_M]
    lowest = int(value_M.argmin())
    highest = int(value_M.argmax())
    if float(value_M[lowest]) < 0.0 < float(value_M[highest]):
        return [_around_crossing(formula, k, x_MD[lowest], x_MD[highest], primitives)]
    size = float(value_M.abs().max())
    closest_D = x_MD[int(value_M.abs().argmin())]
    width_D = 0.25 * (box.high_D - box.low_D)
    for _ in range(ROUNDS):
        share_MD = torch.randn(POINTS // 8, len(closest_D), generator=generator).double()
        near_MD = torch.cat([closest_D.unsqueeze(0), closest_D + share_MD * width_D])
        near_MD = torch.minimum(torch.maximum(near_MD, box.low_D), box.high_D)
        distance_M = divisors(formula, near_MD, primitives)[k].abs()
        distance_M = torch.where(torch.isfinite(distance_M), distance_M, torch.inf)
        closest_D = near_MD[int(distance_M.argmin())]
        width_D = width_D / 3.0
    smallest = float(divisors(formula, closest_D.unsqueeze(0), primitives)[k].abs())
    return [closest_D.unsqueeze(0)] if smallest < SMALL * size else []


def _around_crossing(
    formula: Formula, k: int, below_D: Tensor, above_D: Tensor, primitives: Mapping[str, Primitive]
) -> Tensor:
    """Two points beside the zero of divisor k on the way between two points, `(2, D)`."""

    low = 0.0
    high = 1.0
    for _ in range(CUTS):
        share_M = torch.linspace(low, high, PARTS + 1, dtype=torch.float64)
        way_MD = below_D + share_M.unsqueeze(1) * (above_D - below_D)
        is_below_M = divisors(formula, way_MD, primitives)[k] < 0.0
        is_below_M[0] = True
        is_below_M[-1] = False
        # The first part over which the sign changes.
        m = int((~is_below_M).to(torch.int8).argmax())
        low, high = float(share_M[m - 1]), float(share_M[m])
    share_2 = torch.tensor([max(0.0, low - BESIDE), min(1.0, high + BESIDE)], dtype=torch.float64)
    return below_D + share_2.unsqueeze(1) * (above_D - below_D)
