"""Linear combinations of columns as formulas: sums, and ratios of two sums.

Legend: D features.
"""

from __future__ import annotations

from collections.abc import Sequence

from gradnas.laws.engine.edits import add_term
from gradnas.laws.engine.library import Column, Library
from gradnas.laws.engine.sparse import Sum
from gradnas.laws.formula import Edge, Formula, Node, canonical

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
        (below if times_target[place] else terms).append((columns.column(place), amount))
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
