"""Functions of simple expressions of the features, in natural units: specials of a library.

An inner expression u is a feature, its square, a product, a ratio, a sum or a difference of two, a
sum of two squares, a feature and its square, or a longer product. The functions are those of u and
of one more or one less than u. In natural units the laws of physics, and those of the schoolbook,
have round rates; refitting moves them.

Legend: D features.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gradnas.laws.engine.atoms import HERE, Atom
from gradnas.laws.engine.data import LawData
from gradnas.laws.engine.library import Column, monomials
from gradnas.laws.formula import Edge, Node, canonical
from gradnas.laws.primitives import POWER

# What the parts of a special cost beside the others; columns are taken by rising cost.
OF_TWO = 0.6
OF_SQUARE = 0.6
OF_BOTH = 1.0  # a feature and its square, two squares
WAVE = 2.0
# Of waves: frequencies in natural units.
MULTIPLES = {
    1.0: 0.0,
    2.0: 1.0,
    0.5: 1.0,
    math.pi: 1.1,
    2.0 * math.pi: 1.2,
    4.0 * math.pi: 2.0,
}
EXPONENTIAL = 2.0
RATES = {1.0: 0.0, -1.0: 0.1, -0.5: 1.0, 2.0: 1.0, -2.0: 1.0}
OTHER = 2.0  # logarithms, roots, reciprocals, squares of sums
SQUARE_LESS = 0.6  # a square of a sum costs less: it is a distance
BESIDE_ONE = 0.5  # more, where it is one more or less than u
MOST_ARGUMENTS = 80  # longer products u
MOST_SPECIALS = 600


@dataclass(frozen=True)
class Inner:
    """An expression u inside a function.

    Attributes:
        stem: None for a feature as it is.
        source: what an edge calls it.
        unit: u in the units of the data over what the stem gives for features of size 1; None where
            the stem is in those units already.
        is_sum: whether it is no product of powers: those have columns of their own.
        has_scale: whether the stem has a scale of its own, so that a function needs none.
    """

    stem: Node | None
    source: int
    unit: float
    cost: float
    is_sum: bool
    has_scale: bool = False


def inner_expressions(
    data: LawData, scales_D: Sequence[float], features: Sequence[int], functions: Sequence[str]
) -> list[Inner]:
    """The expressions u, by rising cost."""
    found: list[Inner] = []
    squares = "square" in functions
    for d in features:
        found.append(Inner(None, d, scales_D[d], 0.0, False))
        if squares:
            square = canonical(Node("sum", (Edge(d, "square", fixed=True),)))
            found.append(Inner(square, HERE, scales_D[d] ** 2, OF_SQUARE, False))
            for sign in (1.0, -1.0):
                # In natural units: the two terms have different ones.
                edges = (Edge(d, "square", scales_D[d]), Edge(d, "identity", sign * scales_D[d]))
                found.append(Inner(Node("sum", edges), HERE, 1.0, OF_BOTH, True, True))
    for i, j in itertools.combinations(features, 2):
        ratio = scales_D[j] / scales_D[i]
        for sign in (1.0, -1.0):
            edges = (Edge(i, "identity", 1.0, fixed=True), Edge(j, "identity", sign * ratio))
            found.append(Inner(Node("sum", edges), HERE, scales_D[i], OF_TWO, True))
        if squares:
            edges = (Edge(i, "square", scales_D[i]), Edge(j, "square", scales_D[j]))
            found.append(Inner(Node("sum", edges), HERE, 1.0, OF_BOTH, True, True))
    for column in monomials(data, features, functions, MOST_ARGUMENTS, only=(1.0, -1.0)):
        edges = tuple(atom.edge for atom in column.atoms)
        if len(edges) == 1 and edges[0].function == "identity":
            continue
        unit = 1.0
        for edge in edges:
            unit *= scales_D[edge.source] ** (-1.0 if edge.function == "reciprocal" else 1.0)
        node = canonical(Node("product" if len(edges) > 1 else "sum", edges))
        found.append(Inner(node, HERE, unit, OF_TWO * (column.cost - 0.6), False))
    found.sort(key=lambda inner: inner.cost)
    return found


def specials(
    data: LawData, scales_D: Sequence[float], features: Sequence[int], functions: Sequence[str]
) -> list[Column]:
    """The cheapest functions of inner expressions; those that are undefined somewhere as well."""
    found: list[Column] = []
    for inner in inner_expressions(data, scales_D, features, functions):
        for edge, cost in _functions_of(inner, functions):
            found.append(Column((Atom(edge, inner.stem),), inner.cost + cost))
    found.sort(key=lambda column: column.cost)
    return found[:MOST_SPECIALS]


def waves(
    data: LawData, scales_D: Sequence[float], features: Sequence[int], functions: Sequence[str]
) -> list[Column]:
    """Sines and cosines of the inner expressions of at most two features, without pi."""
    found: list[Column] = []
    for inner in inner_expressions(data, scales_D, features, functions):
        if inner.cost > OF_TWO + 0.4:
            break
        for edge, cost in _waves_of(inner, functions):
            if cost <= WAVE + 1.0:
                found.append(Column((Atom(edge, inner.stem),), inner.cost + cost))
    return found


def _functions_of(inner: Inner, functions: Sequence[str]) -> Iterator[tuple[Edge, float]]:
    """Edges that apply a function to an inner expression, and what they cost."""
    source = inner.source
    unit = inner.unit
    scaled = inner.has_scale
    yield from _waves_of(inner, functions)
    if "exp" in functions:
        for rate, more in RATES.items():
            yield Edge(source, "exp", rate * unit, fixed=scaled), EXPONENTIAL + more
    if "ln" in functions:
        yield Edge(source, "ln", unit, fixed=True), OTHER - 0.5
        for sign in (1.0, -1.0):
            yield Edge(source, "ln", sign * unit, 1.0, fixed=scaled), OTHER + BESIDE_ONE
    if "tanh" in functions:
        yield Edge(source, "tanh", unit, fixed=scaled), EXPONENTIAL + 1.0
    # Roots, reciprocals and squares: of u itself where it is a sum, and of one and u.
    for function, exponent in (("reciprocal", 0.0), (POWER, 0.5), (POWER, -0.5), ("square", 0.0)):
        if function not in functions:
            continue
        if inner.is_sum:
            more = 0.0 if function != "square" else -SQUARE_LESS
            yield Edge(source, function, exponent or 1.0, fixed=True), OTHER + more
        b = 1.0 / unit
        if function == POWER:
            yield Edge(source, function, exponent, b, fixed=True), OTHER + BESIDE_ONE
        elif function == "reciprocal":
            for sign in (1.0, -1.0):
                yield Edge(source, function, sign, b, fixed=True), OTHER + BESIDE_ONE


def _waves_of(inner: Inner, functions: Sequence[str]) -> Iterator[tuple[Edge, float]]:
    if "sin" not in functions and "cos" not in functions:
        return
    for multiple, more in MULTIPLES.items():
        for is_cosine in (False, True):
            yield _wave(inner, inner.unit * multiple, is_cosine, functions), WAVE + more


def _wave(inner: Inner, a: float, is_cosine: bool, functions: Sequence[str]) -> Edge:
    fixed = inner.has_scale
    if is_cosine and "sin" not in functions:
        return Edge(inner.source, "cos", a, fixed=fixed)
    if "sin" in functions:
        return Edge(inner.source, "sin", a, math.pi / 2 if is_cosine else 0.0, fixed=fixed)
    return Edge(inner.source, "cos", a, -math.pi / 2, fixed=fixed)
