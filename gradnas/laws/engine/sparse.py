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
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gradnas.laws.engine.data import LawData
from gradnas.laws.engine.edits import add_term
from gradnas.laws.engine.library import Column, Library
from gradnas.laws.formula import Edge, Formula, Node, canonical

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
    d_GN = value_GN * root_w_N
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
    cost_G = torch.tensor([column.cost for column in columns.columns], dtype=torch.float64)
    data.work.scores(products=0, sums=len(columns) ** 2, places=8 * value_GN.numel())

    b_G = unit_GN @ rest_N
    cosine_GG = unit_GN @ unit_GN.T
    fit = _Fit(
        n=data.n,
        root_w_N=root_w_N,
        target_N=target_N,
        d_GN=d_GN,
        b_G=b_G.numpy(),
        cosine_GG=cosine_GG.numpy(),
        cost_G=cost_G.numpy(),
        alone_G=np.array(alone),
        squared=squared,
    )
    found: dict[tuple[int, ...], Sum] = {}
    starts = _starts(b_G, cosine_GG, cost_G, torch.tensor(alone), data.n, squared)
    starts += _triples(b_G, cosine_GG, cost_G, alone, data.n, squared)
    for start in starts:
        for candidate in fit.grown(start):
            found.setdefault(tuple(sorted(candidate.places)), candidate)
    ranked = sorted(found.values(), key=lambda candidate: candidate.length)
    return ranked[:most]


def _starts(
    b_G: Tensor,
    cosine_GG: Tensor,
    cost_G: Tensor,
    alone_G: Tensor,
    n: float,
    squared: float,
) -> list[tuple[int, ...]]:
    """The best columns, and the best pairs of columns."""
    log_n = math.log(n)
    singles_G = n * torch.log((squared - b_G**2).clamp(min=RESOLVED * squared)) + cost_G * log_n
    starts: list[tuple[int, ...]] = []
    for g in singles_G.argsort()[:SINGLES].tolist():
        starts.append((g,))

    # What a pair explains: b^2 + (b' - c b)^2 / (1 - c^2), of unit vectors of the cosine c.
    # In single precision: less than 1e-6 of what there was cannot be told from nothing.
    b = b_G.float()
    cost = cost_G.float() * log_n
    cosine = cosine_GG.float()
    gain_GG = torch.addcmul(b.unsqueeze(0), cosine, b.unsqueeze(1), value=-1.0).square_()
    left_GG = cosine.square_().neg_().add_(1.0)
    gain_GG.div_(left_GG.clamp(min=1e-5)).masked_fill_(left_GG <= 1e-5, 0.0)
    open_GG = gain_GG.neg_().add_((squared - b**2).unsqueeze(1)).clamp_(min=1e-6 * squared)
    promise_GG = open_GG.log_().mul_(n).add_(cost.unsqueeze(0)).add_(cost.unsqueeze(1))
    promise_GG[torch.outer(alone_G, alone_G)] = torch.inf
    # The best partner of each column, and of these pairs the best: pairs that differ.
    best_G, partner_G = promise_GG.min(dim=1)
    seen: set[frozenset[int]] = set()
    for g in best_G.argsort().tolist():
        pair = frozenset((g, int(partner_G[g])))
        if len(seen) == PAIRS:
            break
        if len(pair) == 2 and pair not in seen:
            seen.add(pair)
            starts.append(tuple(sorted(pair)))
    return starts


def _triples(
    b_G: Tensor,
    cosine_GG: Tensor,
    cost_G: Tensor,
    alone: Sequence[bool],
    n: float,
    squared: float,
) -> list[tuple[int, ...]]:
    """The best sums of three columns: one of `alone`, if there are any, and two of the cheapest.

    What three columns explain together need not show in any two of them, as the terms of a rational
    function.
    """
    order = cost_G.argsort().tolist()
    among = [g for g in order if not alone[g]]
    if any(alone):
        among = among[:AMONG]
        first = [g for g in order if alone[g]][:FIRST]
    else:
        among = among[: 2 * FIRST]
        first = among[:FIRST]
    if len(among) < 2:
        return []
    log_n = math.log(n)
    index = torch.tensor(among)
    b_M = b_G[index].float()
    cost_M = cost_G[index].float() * log_n
    cosine_MM = cosine_GG[index][:, index].float()
    found: list[tuple[float, tuple[int, ...]]] = []
    for g in first:
        # Beside column g: the inner products of what is left of the others.
        along_M = cosine_GG[index, g].float()
        left_M = (1.0 - along_M**2).clamp(min=0.0)
        usable_M = left_M > 1e-4
        root_M = torch.where(usable_M, left_M, 1.0).rsqrt() * usable_M
        beside_M = (b_M - along_M * b_G[g].float()) * root_M
        cosine = torch.addr(cosine_MM, along_M, along_M, alpha=-1.0)
        cosine.mul_(root_M).mul_(root_M.unsqueeze(1))
        gain = torch.addcmul(beside_M.unsqueeze(0), cosine, beside_M.unsqueeze(1), value=-1.0)
        left = cosine.square_().neg_().add_(1.0)
        gain.square_().div_(left.clamp(min=1e-4)).masked_fill_(left <= 1e-4, 0.0)
        now = squared - float(b_G[g]) ** 2
        open_MM = gain.add_((beside_M**2).unsqueeze(1)).neg_().add_(now)
        open_MM.clamp_(min=1e-6 * squared).log_().mul_(n).add_(cost_M).add_(cost_M.unsqueeze(1))
        k = int(open_MM.argmin())
        i, j = divmod(k, len(among))
        promise = float(open_MM[i, j]) + float(cost_G[g]) * log_n
        if len({g, among[i], among[j]}) == 3:
            found.append((promise, tuple(sorted((g, among[i], among[j])))))
    found.sort()
    return list(dict.fromkeys(places for _, places in found))[:TRIPLES]


@dataclass(frozen=True)
class _Fit:
    """What a linear combination is fitted to.

    Attributes:
        d_GN: the columns, times the roots of the weights `root_w_N`, as the target is.
        b_G, cosine_GG: inner products of the columns' unit vectors, beside the constant, with the
            target and with each other. By these a step costs next to nothing (Rubinstein et al.,
            2008, "Efficient implementation of the K-SVD algorithm using batch OMP").
        squared: the target's square, beside the constant.
    """

    n: float
    root_w_N: Tensor
    target_N: Tensor
    d_GN: Tensor
    b_G: np.ndarray
    cosine_GG: np.ndarray
    cost_G: np.ndarray
    alone_G: np.ndarray
    squared: float

    def grown(self, start: Sequence[int]) -> list[Sum]:
        """The combination of some columns, and of ever more of them while that pays."""
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
        gram_KK = self.cosine_GG[np.ix_(places, places)]
        # Dependent columns have a solution too: which one does not matter here.
        return np.linalg.solve(gram_KK + RIDGE * np.eye(len(places)), right)

    def following(self, places: Sequence[int]) -> int:
        """The column that is best beside some others, by the description length it promises."""
        if not places:
            size_G = np.ones_like(self.b_G)
            beside_G = self.b_G
        else:
            along_KG = self.cosine_GG[places]
            through_KG = self._solution(places, along_KG)
            size_G = 1.0 - (through_KG * along_KG).sum(0)
            beside_G = self.b_G - self.b_G[places] @ through_KG
        gain_G = np.where(size_G > LEAST, beside_G**2 / np.maximum(size_G, LEAST), 0.0)
        now = self.open(places) if places else self.squared
        open_G = np.maximum(now - gain_G, BLURRED * self.squared)
        promise_G = self.n * np.log(open_G) + self.cost_G * math.log(self.n)
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
        basis_NK = torch.stack([self.root_w_N, *(self.d_GN[g] for g in places)], dim=1)
        scale_K = basis_NK.norm(dim=0)
        solution = torch.linalg.lstsq(basis_NK / scale_K, self.target_N.unsqueeze(1)).solution
        coefficients_K = solution.squeeze(1) / scale_K
        if not bool(torch.isfinite(coefficients_K).all()):
            return None
        rest_N = self.target_N - basis_NK @ coefficients_K
        squared = float(rest_N @ rest_N) / self.squared
        cost = float(self.cost_G[list(places)].sum()) + len(places)
        length = self.n * math.log(max(squared, RESOLVED)) + cost * math.log(self.n)
        bias = float(coefficients_K[0])
        return Sum(tuple(places), tuple(coefficients_K[1:].tolist()), bias, squared, length)


# ---- formulas ------------------------------------------------------------------------------------

SMALL = 1e-9  # of what there is: a bias below it is none


def as_formula(
    features: int,
    chosen: Sum,
    columns: Library,
    times_target: Sequence[bool],
) -> Formula | None:
    """A linear combination as a formula for the target; with columns times it, as a ratio.

    Args:
        times_target: whether a column is to be multiplied by the target.
    """
    bias = chosen.bias
    terms: list[tuple[Column, float]] = []
    below: list[tuple[Column, float]] = []
    for place, coefficient in zip(chosen.places, chosen.coefficients, strict=True):
        amount = coefficient / float(columns.sizes_G[place])
        (below if times_target[place] else terms).append((columns.columns[place], amount))
    largest = max((abs(amount) for _, amount in terms), default=0.0)
    has_bias = abs(bias) > SMALL * max(largest, abs(bias))
    if not below:
        return _sum_of(features, terms, bias if has_bias else 0.0)
    if not terms and not has_bias:
        return None
    return _ratio_of(features, terms, below, bias if has_bias else 0.0)


def _sum_of(features: int, terms: Sequence[tuple[Column, float]], bias: float) -> Formula:
    formula = Formula(features, (), (), bias)
    for column, amount in terms:
        formula = add_term(formula, column.atoms)
        formula = Formula(features, formula.nodes, (*formula.weights[:-1], amount), bias)
    return formula


def _ratio_of(
    features: int,
    above: Sequence[tuple[Column, float]],
    below: Sequence[tuple[Column, float]],
    bias: float,
) -> Formula:
    """`(bias + sum of terms above) / (1 - sum of terms below)`."""
    formula = Formula(features, (), (), 0.0)
    edges: list[Edge] = []
    for column, amount in above:
        formula = add_term(formula, column.atoms)
        source = features + len(formula.nodes) - 1
        edges.append(Edge(source, "identity", amount, bias if not edges else 0.0))
    if not above:
        # A constant above: an edge of nothing but an offset would not be fitted, so the constant
        # becomes the weight of one over the lower sum.
        return _reciprocal_of(formula, below, bias)
    first = True
    for column, amount in below:
        formula = add_term(formula, column.atoms)
        source = features + len(formula.nodes) - 1
        edges.append(Edge(source, "identity", -amount, 1.0 if first else 0.0, below=True))
        first = False
    nodes = (*formula.nodes, canonical(Node("ratio", tuple(edges))))
    return Formula(features, nodes, (*[0.0] * len(formula.nodes), _scale(edges)), 0.0)


def _scale(edges: Sequence[Edge]) -> float:
    """What `canonical` divides a ratio by."""
    above = next(abs(edge.a) for edge in edges if not edge.below)
    under = next(abs(edge.a) for edge in edges if edge.below)
    return above / under


def _reciprocal_of(formula: Formula, below: Sequence[tuple[Column, float]], bias: float) -> Formula:
    features = formula.features
    edges: list[Edge] = []
    for column, amount in below:
        formula = add_term(formula, column.atoms)
        source = features + len(formula.nodes) - 1
        edges.append(Edge(source, "identity", -amount, 1.0 if not edges else 0.0))
    total = canonical(Node("sum", tuple(edges)))
    source = features + len(formula.nodes)
    nodes = (
        *formula.nodes,
        total,
        canonical(Node("sum", (Edge(source, "reciprocal", fixed=True),))),
    )
    first = abs(edges[0].a) or 1.0
    return Formula(features, nodes, (*[0.0] * (len(nodes) - 1), bias / first), 0.0)
