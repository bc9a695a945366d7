"""Products of simple functions of the features, as columns that a linear fit chooses among.

Monomials, sines and cosines of features, of their differences and of their products, and monomials
times those. The scientist's laws are mostly short sums of such columns, for the target or for a
simple function of it.

Legend: N points, D features, G columns.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gradnas.laws.engine.atoms import HERE, LARGEST, Atom
from gradnas.laws.engine.data import LawData
from gradnas.laws.formula import Edge, Formula, Node, canonical, edge_value
from gradnas.laws.primitives import POWER

# What an exponent of a feature costs beside the others; columns are taken by rising cost.
COSTS = {1.0: 1.0, -1.0: 1.1, 2.0: 1.6, -2.0: 2.2, 0.5: 2.2, -0.5: 2.4, 3.0: 2.5, -3.0: 3.0}
# Of products of so many features: the exponents that are tried.
EXPONENTS: dict[int, tuple[float, ...]] = {
    1: (1.0, -1.0, 2.0, -2.0, 0.5, -0.5, 3.0, -3.0),
    2: (1.0, -1.0, 2.0, -2.0, 0.5, -0.5, 3.0),
    3: (1.0, -1.0, 2.0, -2.0),
    4: (1.0, -1.0, 2.0, -2.0),
    5: (1.0, -1.0),
    6: (1.0, -1.0),
    7: (1.0,),
    8: (1.0,),
}
TRIGONOMETRIC = 2.0  # cost of a sine or a cosine of a feature
OF_TWO = 0.6  # what it costs more where two features are inside
MULTIPLE = 1.0  # and where the frequency is twice or half the natural one
MOST_MONOMIALS = 800
MOST_WAVES = 1000  # columns with a sine or a cosine
MOST_DIFFERENCES = 250  # columns with a difference
FEW = 80  # monomials that these are multiplied by
AWAY = 1e-6  # from zero, of features of size 1: nearer ones are not divided by


@dataclass(frozen=True)
class Column:
    """A product of atoms, and what it costs to write."""

    atoms: tuple[Atom, ...]
    cost: float


@dataclass(frozen=True)
class Library:
    """Columns and their values, `(G, N)`, each of size 1; `sizes` is what they were divided by."""

    columns: tuple[Column, ...]
    value_GN: Tensor
    sizes_G: Tensor

    def __len__(self) -> int:
        return len(self.columns)


def power_of(d: int, exponent: float, functions: Sequence[str]) -> Edge | None:
    """A feature to a power, in the simplest function that is allowed; None where none is."""
    plain = {1.0: "identity", 2.0: "square", -1.0: "reciprocal"}
    function = plain.get(exponent, POWER)
    if function == "identity" or function in functions:
        if function == POWER:
            return Edge(d, POWER, exponent, fixed=True)
        return Edge(d, function, fixed=True)
    if POWER in functions:
        return Edge(d, POWER, exponent, fixed=True)
    return None


def monomials(
    data: LawData,
    features: Sequence[int],
    functions: Sequence[str],
    most: int,
    only: Sequence[float] = tuple(COSTS),
) -> list[Column]:
    """Products of powers of different features, by rising cost.

    Args:
        only: the exponents that are wanted.
    """
    powers: dict[tuple[int, float], Edge] = {}
    for d in features:
        x_N = data.x_DN[d]
        is_away = bool((x_N.abs() > AWAY).all())
        is_positive = bool((x_N > 0).all())
        for exponent in COSTS:
            whole = exponent.is_integer()
            if (exponent < 0 and not is_away) or (not whole and not is_positive):
                continue
            edge = power_of(d, exponent, functions)
            if edge is not None:
                powers[d, exponent] = edge
    found: list[Column] = []
    for count in range(1, len(features) + 1):
        exponents = [exponent for exponent in EXPONENTS.get(count, ()) if exponent in only]
        for chosen in itertools.combinations(features, count):
            for way in itertools.product(exponents, repeat=count):
                # Of many factors only one may be a square: the others make up the numbers.
                if count == 4 and sum(abs(exponent) == 2.0 for exponent in way) > 1:
                    continue
                keys = list(zip(chosen, way, strict=True))
                if all(key in powers for key in keys):
                    atoms = tuple(Atom(powers[key]) for key in keys)
                    found.append(Column(atoms, sum(COSTS[exponent] for exponent in way)))
    found.sort(key=lambda column: column.cost)
    return found[:most]


def waves(
    data: LawData, scales_D: Sequence[float], features: Sequence[int], functions: Sequence[str]
) -> list[Column]:
    """Sines and cosines of features, of differences and of products of two, in natural units.

    Their frequencies are 1, 2 and 1/2 in the units of the data, where a law of physics has them;
    refitting moves them. A square of a sine is half of one less the cosine of twice the angle.
    """
    if "sin" not in functions and "cos" not in functions:
        return []
    stems: list[tuple[Node | None, int, float, float]] = []  # stem, source, unit, cost
    for d in features:
        stems.append((None, d, scales_D[d], TRIGONOMETRIC))
    for i, j in itertools.combinations(features, 2):
        ratio = scales_D[j] / scales_D[i]
        edges = (Edge(i, "identity", 1.0, fixed=True), Edge(j, "identity", -ratio))
        stems.append((Node("sum", edges), HERE, scales_D[i], TRIGONOMETRIC + OF_TWO))
        edges = (Edge(i, "identity", fixed=True), Edge(j, "identity", fixed=True))
        unit = scales_D[i] * scales_D[j]
        stems.append((canonical(Node("product", edges)), HERE, unit, TRIGONOMETRIC + OF_TWO))
    found: list[Column] = []
    for stem, source, unit, cost in stems:
        for multiple in (1.0, 2.0, 0.5):
            more = 0.0 if multiple == 1.0 else MULTIPLE
            for is_cosine in (False, True):
                edge = _wave(source, unit * multiple, is_cosine, functions)
                found.append(Column((Atom(edge, stem),), cost + more))
    return found


def logarithms(data: LawData, features: Sequence[int], functions: Sequence[str]) -> list[Column]:
    """Logarithms of the features that are positive."""
    if "ln" not in functions:
        return []
    positive = [d for d in features if bool((data.x_DN[d] > 0).all())]
    return [Column((Atom(Edge(d, "ln", fixed=True)),), 1.5) for d in positive]


def differences(
    data: LawData, scales_D: Sequence[float], features: Sequence[int], functions: Sequence[str]
) -> list[Column]:
    """Squares and reciprocals of differences of two features, and of their squares."""
    found: list[Column] = []
    for i, j in itertools.combinations(features, 2):
        ratio = scales_D[j] / scales_D[i]
        edges = (Edge(i, "identity", 1.0, fixed=True), Edge(j, "identity", -ratio))
        stem = Node("sum", edges)
        for function, cost in (("square", 2.0), ("reciprocal", 2.5)):
            if function in functions:
                found.append(Column((Atom(Edge(HERE, function, fixed=True), stem),), cost))
    return found


def _wave(source: int, a: float, is_cosine: bool, functions: Sequence[str]) -> Edge:
    if is_cosine and "sin" not in functions:
        return Edge(source, "cos", a)
    if "sin" in functions:
        return Edge(source, "sin", a, math.pi / 2 if is_cosine else 0.0)
    return Edge(source, "cos", a, -math.pi / 2)


def products(first: Sequence[Column], second: Sequence[Column], most: int) -> list[Column]:
    """Every column of the one with every one of the other, and these alone, by rising cost."""
    found = list(second)
    for a in first:
        for b in second:
            found.append(Column((*a.atoms, *b.atoms), a.cost + b.cost))
    found.sort(key=lambda column: column.cost)
    return found[:most]


def library(data: LawData, columns: Sequence[Column]) -> Library:
    """The columns that are finite and not constant, with their values."""
    cached: dict[Atom, Tensor] = {}

    def value(atom: Atom) -> Tensor:
        if atom not in cached:
            cached[atom] = atom_value(atom, data)
        return cached[atom]

    kept: list[Column] = []
    values: list[Tensor] = []
    sizes: list[float] = []
    for column in columns:
        value_N = value(column.atoms[0])
        for atom in column.atoms[1:]:
            value_N = value_N * value(atom)
        largest = float(value_N.abs().max())
        if 0.0 < largest < LARGEST:  # false for NaN, too
            kept.append(column)
            values.append(value_N / largest)
            sizes.append(largest)
    if not kept:
        return Library((), data.x_DN.new_zeros(0, data.x_DN.shape[1]), data.x_DN.new_zeros(0))
    value_GN = torch.stack(values)
    varied_G = (value_GN.max(1).values - value_GN.min(1).values) > 1e-9
    places = varied_G.nonzero().flatten().tolist()
    return Library(
        tuple(kept[g] for g in places),
        value_GN[places],
        torch.tensor(sizes, dtype=torch.float64)[places],
    )


def atom_value(atom: Atom, data: LawData) -> Tensor:
    """The value of an atom at every point."""
    if atom.stem is None:
        return edge_value(atom.edge, data.x_DN[atom.edge.source], data.primitives)
    stem = Formula(len(data.x_DN), (atom.stem,), (1.0,))
    return edge_value(atom.edge, stem(data.x_DN.T, data.primitives), data.primitives)
