"""Laws by linear least squares: few columns of a library for a function of the target.

For y, ln y, 1/y, y^2 and others (`engine/targets.py`) the best few columns of a library are looked
for: all pairs at once, then one column after the other (orthogonal matching pursuit; Pati et al.,
1993). Columns times the target itself are among them: `T = P + T Q` is the rational function
`T = P / (1 - Q)`, found without any iteration.

Legend: N points, D features, G columns, K columns of a basis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from gradnas.laws.engine.data import LawData
from gradnas.laws.engine.library import Library
from gradnas.laws.engine.pursuit import pursue

NARROW = 2500  # columns, the cheapest, that sums are built of step by step
PURSUED = 2  # pairs that are gone on from among all columns
WIDE = 8  # sums of those that are looked at
PAIRED = 1500  # columns, the cheapest, all pairs of which are looked at
BLOCK = 128  # of them, in one block of pairs: it stays in the cache
TRIPLES = 4  # of columns: one of the `FIRST` cheapest that must be alone, two of `AMONG` others;
AMONG = 400
FIRST = 100  # where there are none, one of so many and two of twice as many
MOST_TERMS = 6
EXCHANGES = 2  # rounds
SINGLES = 2  # columns, and
PAIRS = 5  # pairs of columns, that longer sums start from
LEAST = 1e-6  # of a column's length, that must be left beside the others
BLURRED = 1e-12  # the same, below which inner products do not tell it
RIDGE = 1e-13  # of inner products of unit vectors
RESOLVED = 1e-22  # share of the target's square below which there is nothing left to explain


@dataclass(frozen=True)
class Sum:
    """A linear combination of columns.

    Attributes:
        places: of the columns, in the library.
        squared: the (weighted) squared error, as a share of that of the best constant.
        length: a description length.
    """

    places: tuple[int, ...]
    coefficients: tuple[float, ...]
    bias: float
    squared: float
    length: float


def sums(
    data: LawData, columns: Library, value_GN: Tensor, alone: Sequence[bool], most: int
) -> list[Sum]:
    """The best linear combinations, by description length.

    Args:
        alone: the columns of which a combination has at most one. Of columns times the target,
            several can make up a constant, and `T = T` is no law.
        value_GN: the values of the columns; they may hold the target, so they are not the
            library's own.
    """
    root_w_N = data.w_N.sqrt()
    target_N = data.y_N * root_w_N
    ones_N = root_w_N / root_w_N.norm()
    d_GN = value_GN[:NARROW] * root_w_N
    length_G = d_GN.norm(dim=1)
    beside_GN = d_GN - (d_GN @ ones_N).unsqueeze(1) * ones_N
    size_G = beside_GN.norm(dim=1)
    usable_G = size_G > LEAST * length_G
    unit_GN = torch.where(
        usable_G.unsqueeze(1), beside_GN / size_G.clamp(min=1e-200).unsqueeze(1), 0.0
    )
    rest_N = target_N - (target_N @ ones_N) * ones_N
    squared = float(rest_N @ rest_N)
    if not squared > 0:
        return []
    cost_G = columns.cost_G[:NARROW]
    few_F = usable_G.nonzero().flatten()
    few_F = few_F[cost_G[few_F].argsort(stable=True)[:PAIRED]]
    data.work.sums(pairs=len(few_F) ** 2 + FIRST * AMONG**2, numbers=d_GN.numel())

    alone_all_G = torch.tensor(alone, dtype=torch.bool)
    alone_G = alone_all_G[:NARROW]
    b_G = unit_GN @ rest_N
    fit = _Fit(
        n=data.n,
        root_w_N=root_w_N,
        target_N=target_N,
        value_GN=value_GN,
        unit_GN=unit_GN.numpy(),
        b_G=b_G.numpy(),
        cost_G=columns.cost_G.numpy(),
        alone_G=alone_G.numpy(),
        squared=squared,
    )
    few = _Few(
        places_F=few_F.numpy(),
        unit_FN=unit_GN[few_F].float(),
        b_F=b_G[few_F].float() / math.sqrt(squared),
        # The change of a description length as a factor: `n ln(open) + cost ln n` is smallest where
        # `open * exp(cost ln n / n)` is, and no logarithm of every pair is needed.
        factor_F=torch.exp(cost_G[few_F] * (math.log(data.n) / data.n)).float(),
        alone_F=alone_G[few_F],
    )
    starts = [(int(few_F[f]),) for f in few.singles()]
    starts += few.pairs()
    starts += few.triples()
    found: dict[tuple[int, ...], Sum] = {}
    seen: set[tuple[int, ...]] = set()
    for start in dict.fromkeys(starts):
        for candidate in fit.grown(start, seen):
            found.setdefault(tuple(sorted(candidate.places)), candidate)
    pairs = [start for start in starts if len(start) == 2][:PURSUED]
    wide = pursue(data, value_GN, columns.cost_G, [(), *pairs], alone_all_G)
    for places, _ in wide[:WIDE]:
        candidate = fit.solved(places)
        if candidate is not None:
            found.setdefault(tuple(sorted(places)), candidate)
    ranked = sorted(found.values(), key=lambda candidate: candidate.length)
    return ranked[:most]


@dataclass(frozen=True)
class _Few:
    """The cheapest columns, and what pairs and triples of them explain.

    In single precision: less than 1e-6 of what there was cannot be told from nothing.

    Attributes:
        places_F: in the library.
        unit_FN: unit vectors beside the constant, and `b_F` their inner products with the target,
            which has the length 1.
        factor_F: by which a column must reduce the squared error to be worth its cost.
    """

    places_F: np.ndarray
    unit_FN: Tensor
    b_F: Tensor
    factor_F: Tensor
    alone_F: Tensor

    def singles(self) -> list[int]:
        """The best columns."""
        promise_F = (1.0 - self.b_F**2).clamp(min=1e-6) * self.factor_F
        return promise_F.argsort()[:SINGLES].tolist()

    def pairs(self) -> list[tuple[int, ...]]:
        """The best pairs: of each column the best partner, and of these pairs the best."""
        best: list[Tensor] = []
        partners: list[Tensor] = []
        for first in range(0, len(self.places_F), BLOCK):
            rows = slice(first, first + BLOCK)
            cosine_RF = self.unit_FN[rows] @ self.unit_FN.T
            promise_RF = _left_of_two(self.b_F[rows], self.b_F, cosine_RF, 1.0, 1e-5)
            promise_RF.mul_(self.factor_F)
            promise_RF[self.alone_F[rows].unsqueeze(1) & self.alone_F] = torch.inf
            lowest_R, place_R = promise_RF.min(dim=1)
            best.append(lowest_R * self.factor_F[rows])
            partners.append(place_R)
        if not best:
            return []
        best_F = torch.cat(best)
        partner_F = torch.cat(partners)
        chosen: list[tuple[int, ...]] = []
        for f in best_F.argsort().tolist():
            two = (int(self.places_F[f]), int(self.places_F[int(partner_F[f])]))
            pair = tuple(sorted(two))
            if two[0] != two[1] and pair not in chosen:
                chosen.append(pair)
            if len(chosen) == PAIRS:
                break
        return chosen

    def triples(self) -> list[tuple[int, ...]]:
        """The best sums of three: one of those alone, if there are any, and two of the cheapest.

        What three columns explain together need not show in any two of them, as the terms of a
        rational function.
        """
        among = (~self.alone_F).nonzero().flatten()
        if bool(self.alone_F.any()):
            among = among[:AMONG]
            first = self.alone_F.nonzero().flatten()[:FIRST]
        else:
            among = among[: 2 * FIRST]
            first = among[:FIRST]
        if len(among) < 2:
            return []
        b_M = self.b_F[among]
        factor_M = self.factor_F[among]
        cosine_MM = self.unit_FN[among] @ self.unit_FN[among].T
        along_GM = self.unit_FN[first] @ self.unit_FN[among].T
        found: list[tuple[float, tuple[int, ...]]] = []
        for g, along_M in zip(first.tolist(), along_GM, strict=True):
            # Beside column g: the inner products of what is left of the others.
            left_M = (1.0 - along_M**2).clamp(min=0.0)
            usable_M = left_M > 1e-4
            root_M = torch.where(usable_M, left_M, 1.0).rsqrt() * usable_M
            beside_M = (b_M - along_M * self.b_F[g]) * root_M
            cosine = torch.addr(cosine_MM, along_M, along_M, alpha=-1.0)
            cosine.mul_(root_M).mul_(root_M.unsqueeze(1))
            now = float(1.0 - self.b_F[g] ** 2)
            promise_MM = _left_of_two(beside_M, beside_M, cosine, now, 1e-4)
            promise_MM.mul_(factor_M).mul_(factor_M.unsqueeze(1))
            i, j = divmod(int(promise_MM.argmin()), len(among))
            three = {g, int(among[i]), int(among[j])}
            if len(three) == 3:
                promise = float(promise_MM[i, j] * self.factor_F[g])
                found.append((promise, tuple(sorted(int(self.places_F[f]) for f in three))))
        found.sort()
        return list(dict.fromkeys(places for _, places in found))[:TRIPLES]


def _left_of_two(b_R: Tensor, b_C: Tensor, cosine_RC: Tensor, now: float, least: float) -> Tensor:
    """What two columns leave of `now`: less `b^2 + (b' - c b)^2 / (1 - c^2)`, c their cosine.

    The cosines are overwritten.

    Args:
        least: of `1 - c^2`, below which they count as one column.
    """
    gain_RC = torch.addcmul(b_C, cosine_RC, b_R.unsqueeze(1), value=-1.0).square_()
    beside_RC = cosine_RC.square_().neg_().add_(1.0)
    is_one_RC = beside_RC <= least
    gain_RC.div_(beside_RC.clamp_(min=least)).masked_fill_(is_one_RC, 0.0)
    return gain_RC.neg_().add_((now - b_R**2).unsqueeze(1)).clamp_(min=1e-6)


@dataclass
class _Fit:
    """What a linear combination is fitted to.

    Attributes:
        target_N: times the roots of the weights `root_w_N`.
        value_GN: the columns, all of them.
        unit_GN: unit vectors of the first ones beside the constant, weighted.
        b_G: their inner products with the target. By inner products a step costs next to nothing
            (Rubinstein et al., 2008, "Efficient implementation of the K-SVD algorithm using batch
            OMP"); those with one column are computed when it is first used.
        squared: the target's square, beside the constant.
    """

    n: float
    root_w_N: Tensor
    target_N: Tensor
    value_GN: Tensor
    unit_GN: np.ndarray
    b_G: np.ndarray
    cost_G: np.ndarray
    alone_G: np.ndarray
    squared: float
    rows: dict[int, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        cost_G = self.cost_G[: len(self.unit_GN)]
        self.factor_G = np.exp(cost_G * (math.log(self.n) / self.n))

    def along(self, places: Sequence[int]) -> np.ndarray:
        """Cosines of some columns with all, `(K, G)`."""
        for g in places:
            if g not in self.rows:
                self.rows[g] = self.unit_GN @ self.unit_GN[g]
        return np.stack([self.rows[g] for g in places])

    def grown(self, start: Sequence[int], seen: set[tuple[int, ...]]) -> list[Sum]:
        """The combination of some columns, and of ever more of them while that pays.

        Args:
            seen: where ways have been; one that comes there ends.
        """
        places = list(start)
        length = self.length(places)
        ways = [places]
        while len(places) < MOST_TERMS and self.open(places) > BLURRED * self.squared:
            following = self.exchanged([*places, self.following(places)])
            if self.length(following) > length - 1.0:
                break
            places = following
            length = self.length(places)
            ways.append(places)
            mark = tuple(sorted(places))
            if mark in seen:
                break
            seen.add(mark)
        solved = [self.solved(way) for way in ways[-2:]]
        return [found for found in solved if found is not None]

    def open(self, places: Sequence[int]) -> float:
        """The squared error of some columns, as far as inner products tell it."""
        b_K = self.b_G[places]
        left = self.squared - float(b_K @ self._solution(places, b_K))
        return max(left, BLURRED * self.squared)

    def length(self, places: Sequence[int]) -> float:
        """The description length of some columns."""
        cost = float(self.cost_G[places].sum()) + len(places)
        return self.n * math.log(self.open(places)) + cost * math.log(self.n)

    def _solution(self, places: Sequence[int], right: np.ndarray) -> np.ndarray:
        gram_KK = self.along(places)[:, places]
        # Dependent columns have a solution too: which one does not matter here.
        return np.linalg.solve(gram_KK + RIDGE * np.eye(len(places)), right)

    def following(self, places: Sequence[int]) -> int:
        """The column that is best beside some others, by the description length it promises."""
        if not places:
            size_G = np.ones_like(self.b_G)
            beside_G = self.b_G
        else:
            along_KG = self.along(places)
            through_KG = self._solution(places, along_KG)
            size_G = 1.0 - np.einsum("kg,kg->g", through_KG, along_KG)
            beside_G = self.b_G - self.b_G[places] @ through_KG
        gain_G = np.where(size_G > LEAST, beside_G**2 / np.maximum(size_G, LEAST), 0.0)
        now = self.open(places) if places else self.squared
        promise_G = np.maximum(now - gain_G, BLURRED * self.squared) * self.factor_G
        if self.alone_G[places].any():
            promise_G[self.alone_G] = np.inf
        return int(promise_G.argmin())

    def exchanged(self, places: list[int]) -> list[int]:
        """The columns after some were exchanged for better ones, one after the other.

        What was best beside few columns need not be beside more.
        """
        length = self.length(places)
        for _ in range(EXCHANGES):
            before = places
            for place in before:
                others = [other for other in places if other != place]
                if len(others) == len(places):
                    continue  # it was exchanged already
                following = self.following(others)
                if following == place:
                    continue
                candidate = [*others, following]
                if self.length(candidate) < length - 1e-6:
                    places = candidate
                    length = self.length(places)
            if places is before:
                break
        return places

    def solved(self, places: Sequence[int]) -> Sum | None:
        """The least squares fit of some columns; None where they are dependent."""
        value_KN = self.value_GN[list(places)]
        coefficients = _least_squares(value_KN, self.root_w_N, self.target_N)
        if coefficients is None:
            return None
        bias, *weights = coefficients.tolist()
        basis_KN = torch.cat([torch.ones_like(value_KN[:1]), value_KN]) * self.root_w_N
        rest_N = self.target_N - coefficients @ basis_KN
        squared = float(rest_N @ rest_N) / self.squared
        cost = float(self.cost_G[list(places)].sum()) + len(places)
        length = self.n * math.log(max(squared, RESOLVED)) + cost * math.log(self.n)
        return Sum(tuple(places), tuple(weights), bias, squared, length)


def solved_sum(
    data: LawData, columns: Library, places: Sequence[int], squared: float
) -> Sum | None:
    """The least squares fit of some columns that are known to leave this share of the target."""
    root_w_N = data.w_N.sqrt()
    value_KN = columns.value_GN[list(places)]
    coefficients = _least_squares(value_KN, root_w_N, data.y_N * root_w_N)
    if coefficients is None:
        return None
    bias, *weights = coefficients.tolist()
    return Sum(tuple(places), tuple(weights), bias, squared, math.nan)


def _least_squares(value_KN: Tensor, root_w_N: Tensor, target_N: Tensor) -> Tensor | None:
    """The bias and the coefficients of some columns; None where they are dependent."""
    basis_NK = (torch.cat([torch.ones_like(value_KN[:1]), value_KN]) * root_w_N).T
    scale_K = basis_NK.norm(dim=0)
    solution = torch.linalg.lstsq(basis_NK / scale_K, target_N.unsqueeze(1)).solution
    coefficients_K = solution.squeeze(1) / scale_K
    return coefficients_K if bool(torch.isfinite(coefficients_K).all()) else None
