"""The special factors of laws that are products, with columns for the fit of the logarithm.

Sums and differences of features and of their squares, sines, `1 + u`, `exp(u) - 1`, `tanh u` and
the like of a product u of features, or `u` itself for an exponential.

Legend: N points, D features, G factors.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from gradnas.laws.engine.data import LawData
from gradnas.laws.engine.library import (
    Column,
    library,
    monomials,
)
from gradnas.laws.engine.specials import waves
from gradnas.laws.formula import Edge, Formula, Kind, Node, canonical

# Of functions of u: rates in natural units, and those for which the largest u is this large.
NATURAL = (1.0, 0.5, 2.0, 0.5 / math.pi)
SCALES = (0.5, 2.0)
MOST_ARGUMENTS = 700  # products u, and
MOST_PLAIN = 750  # those of the powers 1 and -1, which come first, and
MOST_CURVED = 400  # those of these that curved functions are applied to


@dataclass(frozen=True)
class Factor:
    """A factor of a law: a node over the features, to a power that the fit finds.

    Attributes:
        nodes: the last one is the factor; they read features, and each other counted from D.
        exponential: whether the fit's coefficient is that of an exponent, `exp(c * node)`, instead
            of a power.
    """

    nodes: tuple[Node, ...]
    exponential: bool
    cost: float


@dataclass(frozen=True)
class _Group:
    """Factors of one form, with a column of the logarithm's fit and a cost for each.

    There are thousands, of which few are ever written out: `build(k, D)` does that for one.
    """

    build: Callable[[int, int], Factor]
    column_GN: Tensor
    cost_G: Tensor


@dataclass(frozen=True)
class Factors:
    """Factors of some groups, with their columns and costs.

    Attributes:
        place_G: where each stands among all of the groups.
    """

    D: int
    groups: tuple[_Group, ...]
    place_G: Tensor
    column_GN: Tensor
    cost_G: Tensor

    def __len__(self) -> int:
        return len(self.place_G)

    def factor(self, g: int) -> Factor:
        """One factor, written out."""
        k = int(self.place_G[g])
        for group in self.groups:
            if k < len(group.cost_G):
                return group.build(k, self.D)
            k -= len(group.cost_G)
        raise AssertionError(f"there is no factor {g}")


def factors(
    data: LawData, scales_D: Sequence[float], features: Sequence[int], functions: Sequence[str]
) -> list[Factor]:
    """The special factors that the functions allow."""
    found = _sums(len(data.x_DN), scales_D, features, functions)
    for column in waves(data, scales_D, features, functions):
        atom = column.atoms[0]
        if atom.stem is None:
            found.append(Factor((_lone(atom.edge),), False, column.cost))
        else:
            edge = Edge(len(data.x_DN), atom.edge.function, atom.edge.a, atom.edge.b)
            found.append(Factor((atom.stem, _lone(edge)), False, column.cost))
    return found


def _lone(edge: Edge) -> Node:
    return Node("sum", (edge,))


def _sums(
    D: int, scales_D: Sequence[float], features: Sequence[int], functions: Sequence[str]
) -> list[Factor]:
    """Sums and differences of features and of squares, and of these with one, in natural units."""
    found: list[Factor] = []
    for d in features:
        for sign in (1.0, -1.0):
            edge = Edge(d, "identity", sign, 1.0 / scales_D[d], fixed=True)
            found.append(Factor((_lone(edge),), False, 2.0))
        if "square" in functions:
            square = _lone(Edge(d, "square", fixed=True))
            for sign in (1.0, -1.0):
                edge = Edge(D, "identity", sign, 1.0 / scales_D[d] ** 2, fixed=True)
                found.append(Factor((square, _lone(edge)), False, 3.0))
    for i, j in itertools.combinations(features, 2):
        ratio = scales_D[j] / scales_D[i]
        product = canonical(
            Node("product", (Edge(i, "identity", fixed=True), Edge(j, "identity", fixed=True)))
        )
        for sign in (1.0, -1.0):
            edges = (Edge(i, "identity", 1.0, fixed=True), Edge(j, "identity", sign * ratio))
            found.append(Factor((Node("sum", edges),), False, 2.0))
            if "square" in functions:
                found.append(_of_squares(D, [i, j], [1.0, sign], scales_D))
            edge = Edge(D, "identity", sign, 1.0 / (scales_D[i] * scales_D[j]), fixed=True)
            found.append(Factor((product, _lone(edge)), False, 3.0))
    for three in itertools.combinations(features, 3):
        if "square" in functions:
            found.append(_of_squares(D, three, [1.0, 1.0, 1.0], scales_D))
        edges = []
        for d in three:
            edges.append(Edge(d, "identity", scales_D[d] / scales_D[three[0]], fixed=d == three[0]))
        found.append(Factor((Node("sum", tuple(edges)),), False, 3.0))
    return found


def _of_squares(
    D: int, features: Sequence[int], signs: Sequence[float], scales_D: Sequence[float]
) -> Factor:
    nodes: list[Node] = []
    edges: list[Edge] = []
    for d, sign in zip(features, signs, strict=True):
        nodes.append(_lone(Edge(d, "square", fixed=True)))
        ratio = (scales_D[d] / scales_D[features[0]]) ** 2
        is_first = not edges
        edges.append(Edge(D + len(nodes) - 1, "identity", sign * ratio, fixed=is_first))
    return Factor((*nodes, Node("sum", tuple(edges))), False, 2.0 + len(features))


def _unit(column: Column, scales_D: Sequence[float]) -> float:
    """What a monomial of the data is, as a multiple of that of features of size 1."""
    unit = 1.0
    for atom in column.atoms:
        edge = atom.edge
        exponent = {"identity": 1.0, "square": 2.0, "reciprocal": -1.0}.get(edge.function, edge.a)
        unit *= scales_D[edge.source] ** exponent
    return unit


def _of_arguments(
    data: LawData,
    scales_D: Sequence[float],
    features: Sequence[int],
    functions: Sequence[str],
) -> list[_Group]:
    """Functions of products u: exponentials, hyperbolic ones, one more or less than u."""
    simple = monomials(data, features, functions, MOST_PLAIN, only=(1.0, -1.0))
    known = {column.atoms for column in simple}
    others = monomials(data, features, functions, MOST_ARGUMENTS)
    others = [column for column in others if column.atoms not in known]
    arguments = library(data, [*simple, *others])
    written = arguments.columns
    cost_G = arguments.cost_G
    own_GN = arguments.value_GN * arguments.sizes_G.unsqueeze(1)
    groups = [_Group(partial(_exponential, written), own_GN, cost_G + 1.0)]
    # One more or less than u, in natural units.
    units = [_unit(column, scales_D) for column in written]
    natural_G = torch.tensor(units, dtype=torch.float64) * arguments.sizes_G
    natural_GN = arguments.value_GN * natural_G.unsqueeze(1)
    for sign in (1.0, -1.0):
        value_GN = 1.0 + sign * natural_GN
        turned_G = torch.where((value_GN > 0).all(1), 1.0, -1.0).tolist()
        build = partial(_beside_one, written, units, sign, turned_G)
        groups.append(_Group(build, torch.log(value_GN.abs()), cost_G + 0.5))
    positive = (arguments.value_GN > 0).all(1).nonzero().flatten().tolist()
    positive = [g for g in positive if written[g].atoms in known][:MOST_CURVED]
    chosen = [written[g] for g in positive]
    # Rates of the functions: of natural u, where laws of physics have them, and of a u of size 1.
    sizes_G = arguments.sizes_G[positive]
    rates = [(natural_G / arguments.sizes_G)[positive] * rate for rate in NATURAL]
    rates += [scale / sizes_G for scale in SCALES]
    for c_G in rates:
        u_GN = arguments.value_GN[positive] * (c_G * sizes_G).unsqueeze(1)
        c = c_G.tolist()
        curves = [
            (_exp_less_one, torch.log(torch.expm1(u_GN)), 3.0),
            (_exp_with_inverse, torch.log(2.0 * torch.cosh(u_GN)), 4.0),
            (_tanh, torch.log(torch.tanh(u_GN)), 2.0),
        ]
        for build, column_GN, more in curves:
            groups.append(_Group(partial(build, chosen, c), column_GN, cost_G[positive] + more))
    return groups


def _product_of(column: Column) -> Node:
    kind: Kind = "product" if len(column.atoms) > 1 else "sum"
    return canonical(Node(kind, tuple(atom.edge for atom in column.atoms)))


def _exponential(columns: Sequence[Column], k: int, place: int) -> Factor:
    del place
    return Factor((_product_of(columns[k]),), True, columns[k].cost + 1.0)


def _beside_one(
    columns: Sequence[Column],
    units: Sequence[float],
    sign: float,
    turned: Sequence[float],
    k: int,
    place: int,
) -> Factor:
    """One more or less than u, turned so that it is positive."""
    edge = Edge(place, "identity", sign * turned[k], turned[k] / units[k], fixed=True)
    return Factor((_product_of(columns[k]), _lone(edge)), False, columns[k].cost + 0.5)


def _exp_less_one(columns: Sequence[Column], c: Sequence[float], k: int, place: int) -> Factor:
    nodes = (_product_of(columns[k]), *_less_one(place + 1, c[k]))
    return Factor(nodes, False, columns[k].cost + 3.0)


def _exp_with_inverse(columns: Sequence[Column], c: Sequence[float], k: int, place: int) -> Factor:
    nodes = (_product_of(columns[k]), *_with_inverse(place + 1, c[k]))
    return Factor(nodes, False, columns[k].cost + 4.0)


def _tanh(columns: Sequence[Column], c: Sequence[float], k: int, place: int) -> Factor:
    nodes = (_product_of(columns[k]), _lone(Edge(place, "tanh", c[k])))
    return Factor(nodes, False, columns[k].cost + 2.0)


def _less_one(place: int, c: float) -> tuple[Node, ...]:
    """`exp(c u) - 1`, u being the node before `place`."""
    return (
        _lone(Edge(place - 1, "exp", c)),
        _lone(Edge(place, "identity", 1.0, -1.0, fixed=True)),
    )


def _with_inverse(place: int, c: float) -> tuple[Node, ...]:
    """`exp(c u) + exp(-c u)`."""
    edges = (
        Edge(place, "identity", 1.0, fixed=True),
        Edge(place + 1, "identity", 1.0),
    )
    return (
        _lone(Edge(place - 1, "exp", c)),
        _lone(Edge(place - 1, "exp", -c)),
        Node("sum", edges),
    )


def columns_of_factors(
    data: LawData, scales_D: Sequence[float], features: Sequence[int], functions: Sequence[str]
) -> Factors:
    """The factors that are defined on all rows, with the columns of the logarithm's fit."""
    D = len(data.x_DN)
    single: list[Factor] = []
    columns: list[Tensor] = []
    for factor in factors(data, scales_D, features, functions):
        weights = (*[0.0] * (len(factor.nodes) - 1), 1.0)
        value_N = Formula(D, factor.nodes, weights)(data.x_DN.T, data.primitives)
        if not factor.exponential:
            if bool((value_N < 0).all()):
                factor = _turned(factor)
            away = float(value_N.abs().min()) > 1e-9 * float(value_N.abs().max())
            if not away:
                continue
            value_N = torch.log(value_N.abs())
        is_varied = float(value_N.max() - value_N.min()) > 1e-9
        if bool(torch.isfinite(value_N).all()) and is_varied:
            single.append(factor)
            columns.append(value_N)
    groups: list[_Group] = []
    if single:
        cost_G = torch.tensor([factor.cost for factor in single], dtype=torch.float64)
        groups.append(_Group(partial(_written, single), torch.stack(columns), cost_G))
    if "exp" in functions and "tanh" in functions:
        groups += _of_arguments(data, scales_D, features, functions)
    none_GN = data.x_DN.new_zeros(0, len(data.y_N))
    column_GN = torch.cat([none_GN, *(group.column_GN for group in groups)])
    cost_G = torch.cat([none_GN.new_zeros(0), *(group.cost_G for group in groups)])
    finite = torch.isfinite(column_GN).all(1).nonzero().flatten()
    return Factors(D, tuple(groups), finite, column_GN[finite], cost_G[finite])


def _written(factors: Sequence[Factor], k: int, place: int) -> Factor:
    del place
    return factors[k]


def _turned(factor: Factor) -> Factor:
    """The factor with the other sign: of what is negative there are whole powers only."""
    last = factor.nodes[-1]
    if len(last.edges) > 1 or last.edges[0].function == "identity":
        edges = [replace(edge, a=-edge.a, b=-edge.b) for edge in last.edges]
        return replace(factor, nodes=(*factor.nodes[:-1], Node(last.kind, tuple(edges))))
    return factor
