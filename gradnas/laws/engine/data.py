"""What laws are fitted to: points, a loss, and a count of the work that was done with them.

Legend: C formulas, N points, D features.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from gradnas.laws.primitives import (
    PRIMITIVES,
    Primitive,
)

Loss = Literal["squared", "logistic", "poisson"]
# Share of the target's variance below which an error counts as none. It is a relative error of
# 1e-7: what single precision holds, and far above the rounding of doubles. A smaller one would pay
# for terms of 1e-9 that explain nothing but how far the descent had come.
EXACT = 1e-14


def constant_note(names: Sequence[str]) -> str:
    """The sentence on features of which nothing can be learnt."""
    they, are = ("they", "are") if len(names) > 1 else ("it", "is")
    return f"{', '.join(names)}: the same value in every row; {they} {are} not used"


@dataclass
class Work:
    """What a search has done, and what it may do, in seconds that one core takes for it, about.

    Computed from the sizes of what is done, not read from a clock: unless a deadline was asked for,
    a search ends at the same place on every machine. The coefficients were measured on one; a
    processor twice as fast needs half the time.
    """

    limit: float = math.inf
    spent: float = 0.0
    deadline: float = math.inf  # by `time.monotonic()`, where somebody asked for one
    stopped: bool = False  # by the user

    def descent(self, levels: int, columns: int, points: int) -> None:
        """Values and normal equations of formulas at some constants, as of one step of a descent.

        Args:
            levels: of edges that can be computed together, which are gone through in turn.
            columns: of all formulas' Jacobians.
        """
        self.spent += 2.1e-3 + 4.2e-4 * levels + 8e-8 * columns * points

    def formulas(self, edges: int) -> None:
        """Reading and writing formulas with so many edges in all."""
        self.spent += 2e-5 * edges

    def pairs(self, products: int, sums: int) -> None:
        """Scores of so many products and sums of two atoms."""
        self.spent += 8e-3 + 3.5e-8 * products + 1.6e-8 * sums

    def places(self, numbers: int) -> None:
        """Scores of atoms in a place, which are so many numbers in all."""
        self.spent += 4e-4 + 7e-9 * numbers

    def atoms(self, count: int) -> None:
        """Making so many atoms."""
        self.spent += 7e-5 * count

    def library(self, numbers: int) -> None:
        """Making a library of columns, which are so many numbers in all."""
        self.spent += 0.02 + 1.2e-7 * numbers

    def sums(self, pairs: int, numbers: int) -> None:
        """Sums of the best of so many pairs of columns, which are so many numbers in all."""
        self.spent += 0.03 + 1.8e-8 * pairs + 1e-7 * numbers

    def pursuit(self, ways: int, numbers: int) -> None:
        """Sums of columns, which are so many numbers in all, by so many ways side by side."""
        self.spent += 0.01 + (3e-8 + 1e-8 * ways) * numbers

    def logarithms(self, factors: int, firsts: int, numbers: int) -> None:
        """Products of powers with one or two of so many factors."""
        self.spent += 0.02 + 1e-5 * factors + (9e-8 + 1.3e-9 * firsts) * numbers

    def surrogates(self, count: int, points: int) -> None:
        """So many kernel ridge regressions, each of so many points."""
        self.spent += count * (3e-4 + 1.8e-9 * points**3)

    @staticmethod
    def supernets(restarts: int, constants: int, points: int) -> float:
        """What one training step of so many supernets with so many inner constants takes."""
        return 6e-3 + 5e-8 * restarts * constants * points

    def over(self, share: float = 1.0) -> bool:
        """Whether this share of what may be done is done, or nothing more may be."""
        return self.spent >= share * self.limit or self.ended

    @property
    def ended(self) -> bool:
        """Whether the user stopped the search, or its time is over."""
        return self.stopped or time.monotonic() >= self.deadline


@dataclass(frozen=True)
class LawData:
    """What laws are fitted to.

    Attributes:
        x_DN: features, float64.
        y_N: target.
        w_N: weights with mean 1.
        loss: squared error, cross entropy of the log-odds, or Poisson deviance of the log-rate.
        points: how many points the rows stand for, where that is not their number: equal rows may
            be one row of larger weight.
        work: what was done with these data; parts and transformations of them count there, too.
    """

    x_DN: Tensor
    y_N: Tensor
    w_N: Tensor
    loss: Loss = "squared"
    primitives: Mapping[str, Primitive] = field(default_factory=lambda: PRIMITIVES, repr=False)
    points: float | None = None
    work: Work = field(default_factory=Work, repr=False, compare=False)

    @property
    def n(self) -> float:
        """The number of points, n of a description length."""
        return len(self.y_N) if self.points is None else self.points

    @property
    def spread(self) -> float:
        """Mean loss of the best constant; no less than the rounding error of the numbers."""
        mean = (self.w_N * self.y_N).mean()
        if self.loss == "squared":
            floor = 1e-30 * float((self.y_N**2).mean())
            variance = float((self.w_N * (self.y_N - mean) ** 2).mean())
            return max(variance, floor, 1e-300)
        eta = torch.log(mean / (1 - mean)) if self.loss == "logistic" else torch.log(mean)
        return float(mean_loss(eta.expand(1, len(self.y_N)), self)[0])

    def rows(self, index_M: Tensor) -> LawData:
        """Some of the points."""
        w_M = self.w_N[index_M]
        return LawData(
            self.x_DN[:, index_M],
            self.y_N[index_M],
            w_M / w_M.mean(),
            self.loss,
            self.primitives,
            points=self.n * float(w_M.sum() / self.w_N.sum()),
            work=self.work,
        )


def mean_loss(eta_CN: Tensor, data: LawData) -> Tensor:
    """Weighted mean loss of each row; inf where a value is not finite."""
    y_N = data.y_N
    if data.loss == "squared":
        loss_CN = (eta_CN - y_N) ** 2
    elif data.loss == "logistic":
        loss_CN = F.softplus(eta_CN) - y_N * eta_CN
    else:
        # Half the Poisson deviance: 0 where the rate is the count.
        loss_CN = torch.exp(eta_CN) - y_N * eta_CN + torch.special.xlogy(y_N, y_N) - y_N
    mean_C = (data.w_N * loss_CN).mean(-1)
    return torch.where(torch.isfinite(mean_C), mean_C, torch.inf)
