"""Orthogonal matching pursuit over a wide library, several ways side by side.

Pairs of so many columns are too many to look at, but what one more column adds to each of a few
sums is one matrix product (Pati et al., 1993; with a beam: Karahanoglu and Erdogan, 2012).

Legend: N points, G columns, B ways (a beam), K columns of a way.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gradnas.laws.engine.data import LawData

BEAM = 12  # ways
EACH = 6  # columns by which each goes on
EXCHANGED = 4  # of them, of which each column gives way to a better one in the end
DEEPEST = 5  # columns of a way
LEAST = 1e-3  # of a column's square, that must be left beside the others
FINEST = 1e-13  # share of the target's square that counts as nothing left


@dataclass(frozen=True)
class _Way:
    """Some columns, an orthonormal basis of their span, and what they leave of the target."""

    places: tuple[int, ...]
    basis_KN: Tensor
    left_N: Tensor
    promise: float


def pursue(
    data: LawData,
    value_GN: Tensor,
    cost_G: Tensor,
    starts: Sequence[Sequence[int]] = ((),),
    alone_G: Tensor | None = None,
    beam: int = BEAM,
    exchanged: int = EXCHANGED,
) -> list[tuple[tuple[int, ...], float]]:
    """Sums of few columns, those that promise the shortest descriptions first.

    Args:
        value_GN: single precision suffices: gains are compared with what is left.
        starts: columns that ways begin with.
        alone_G: columns of which a way has at most one.
        beam: ways that are gone on with.
        exchanged: of which each column gives way to a better one in the end.

    Returns:
        The places of the columns, and the share of the target's square that is left, as large as a
        sum without cost would leave to be worth the same.
    """
    root_w_N = data.w_N.sqrt()
    one_1N = (root_w_N / root_w_N.norm()).unsqueeze(0)
    target_N = data.y_N * root_w_N
    target_N = target_N - (one_1N @ target_N) * one_1N[0]
    squared = float(target_N @ target_N)
    if not squared > 0 or not len(value_GN):
        return []
    unit_GN, usable_G = _units(value_GN, root_w_N, one_1N)
    step = math.log(data.n) / data.n  # of a factor: see `engine/sparse.py`
    factor_G = torch.exp(cost_G * step).float()
    data.work.pursuit(beam, value_GN.numel())

    fit = _Pursuit(unit_GN, usable_G, factor_G, cost_G, alone_G, step, squared)
    ways = [fit.way(places, one_1N, target_N) for places in starts]
    found: dict[tuple[int, ...], _Way] = {}

    def remember(some: Sequence[_Way]) -> None:
        for way in some:
            found.setdefault(tuple(sorted(way.places)), way)

    for _ in range(DEEPEST):
        ways = fit.followed(ways, found)[:beam]
        remember(ways)
        if not ways or fit.is_exact(ways[0]):
            break
    for _ in range(2):
        best = sorted(found.values(), key=lambda way: way.promise)[:exchanged]
        if not best or fit.is_exact(best[0]):
            break
        # What was best beside few columns need not be beside more.
        shorter: dict[tuple[int, ...], _Way] = {}
        for way in best:
            for k in range(len(way.places)):
                places = tuple(sorted((*way.places[:k], *way.places[k + 1 :])))
                if places not in shorter:
                    shorter[places] = fit.way(places, one_1N, target_N)
        remember(fit.followed(list(shorter.values()), found)[:beam])
    ranked = sorted(found.values(), key=lambda way: way.promise)
    return [(way.places, way.promise / squared) for way in ranked]


@dataclass(frozen=True)
class _Pursuit:
    """What sums are looked for among.

    Attributes:
        unit_GN: unit vectors of the columns beside the constant.
        factor_G: by which a column must reduce the squared error to be worth its cost.
        step: logarithm of that factor for a cost of 1.
        squared: the target's square, beside the constant.
    """

    unit_GN: Tensor
    usable_G: Tensor
    factor_G: Tensor
    cost_G: Tensor
    alone_G: Tensor | None
    step: float
    squared: float

    def way(self, places: Sequence[int], one_1N: Tensor, target_N: Tensor) -> _Way:
        """The way of some columns."""
        basis_KN = one_1N
        for g in places:
            basis_KN = _with(basis_KN, self.unit_GN[g].double())
        left_N = target_N - (target_N @ basis_KN.T) @ basis_KN
        return self._promising(tuple(places), basis_KN, left_N)

    def _promising(self, places: tuple[int, ...], basis_KN: Tensor, left_N: Tensor) -> _Way:
        left = max(float(left_N @ left_N), FINEST * self.squared)
        cost = float(self.cost_G[list(places)].sum()) + len(places)
        return _Way(places, basis_KN, left_N, left * math.exp(cost * self.step))

    def is_exact(self, way: _Way) -> bool:
        """Whether nothing is left."""
        return float(way.left_N @ way.left_N) < FINEST * self.squared

    def followed(self, ways: Sequence[_Way], found: dict[tuple[int, ...], _Way]) -> list[_Way]:
        """The ways with one more column that promise most and are not found yet, best first."""
        following: dict[tuple[int, ...], _Way] = {}
        for way, (gain_G, size_G) in zip(ways, _gains(self.unit_GN, ways), strict=True):
            is_open_G = self.usable_G & (size_G > LEAST)
            promise_G = torch.where(is_open_G, 1.0 - gain_G, 1.0).clamp_(min=1e-6)
            promise_G.mul_(self.factor_G)
            if way.places:
                promise_G[list(way.places)] = torch.inf
                if self.alone_G is not None and bool(self.alone_G[list(way.places)].any()):
                    promise_G[self.alone_G] = torch.inf
            count = min(EACH, len(promise_G))
            for g in promise_G.topk(count, largest=False).indices.tolist():
                places = (*way.places, g)
                mark = tuple(sorted(places))
                if mark in following or mark in found or not float(promise_G[g]) < 1.0:
                    continue
                basis_KN = _with(way.basis_KN, self.unit_GN[g].double())
                left_N = way.left_N - (basis_KN[-1] @ way.left_N) * basis_KN[-1]
                following[mark] = self._promising(places, basis_KN, left_N)
        return sorted(following.values(), key=lambda way: way.promise)


def _units(value_GN: Tensor, root_w_N: Tensor, one_1N: Tensor) -> tuple[Tensor, Tensor]:
    """Unit vectors of the weighted columns beside the constant, in single precision."""
    unit_GN = value_GN.float() * root_w_N.float()
    length_G = unit_GN.square().sum(1)
    one_N = one_1N[0].float()
    unit_GN.addr_(unit_GN @ one_N, one_N, alpha=-1.0)
    size_G = unit_GN.square().sum(1)
    usable_G = size_G > 1e-6 * length_G
    unit_GN.mul_(size_G.clamp(min=1e-30).rsqrt().unsqueeze(1))
    return unit_GN, usable_G


def _gains(unit_GN: Tensor, ways: Sequence[_Way]) -> list[tuple[Tensor, Tensor]]:
    """For each way, the share of what it leaves that a column explains, and what is left of it."""
    rows: list[Tensor] = []
    for way in ways:
        rows.append((way.left_N / way.left_N.norm().clamp(min=1e-300)).unsqueeze(0))
        rows.append(way.basis_KN[1:])  # columns are beside the constant already
    along_GR = unit_GN @ torch.cat(rows).float().T
    gains: list[tuple[Tensor, Tensor]] = []
    r = 0
    for way in ways:
        K = len(way.basis_KN) - 1
        size_G = 1.0 - along_GR[:, r + 1 : r + 1 + K].square().sum(1)
        gain_G = along_GR[:, r].square() / size_G.clamp(min=LEAST)
        gains.append((gain_G, size_G))
        r += 1 + K
    return gains


def _with(basis_KN: Tensor, unit_N: Tensor) -> Tensor:
    """The basis with one more direction."""
    beside_N = unit_N
    for _ in range(2):  # the second round removes the rounding error of the first
        beside_N = beside_N - (beside_N @ basis_KN.T) @ basis_KN
    size = beside_N.norm()
    row_1N = (beside_N / size.clamp(min=1e-300)).unsqueeze(0)
    return torch.cat([basis_KN, row_1N])
