"""The way back from features and target of size 1 to the units of the data.

Legend: D features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from gradnas.laws.formula import (
    HOMOGENEOUS,
    SIGNED,
    Edge,
    Formula,
    Node,
)
from gradnas.laws.primitives import POWER


def unscaled(formula: Formula, scales_D: Sequence[float], scale_y: float) -> Formula:
    """The same law for features `x * scale` and a target `y * scale_y`.

    Where a function lets its input's unit out (`(h x)^p = h^p x^p`), the unit goes on to whatever
    uses the node, in the end to the output weights, so that no constant is added; elsewhere it goes
    into the edge's `a`.
    """
    D = formula.features
    # What a source was, as a multiple of what it is now.
    sizes = {d: 1.0 / scale for d, scale in enumerate(scales_D)}
    place = {d: d for d in range(D)}
    nodes: list[Node] = []
    weights: list[float] = []
    moved = 0.0  # logarithms of scales, which become part of the bias

    for j, (node, weight) in enumerate(zip(formula.nodes, formula.weights, strict=True)):
        lone = len(node.edges) == 1
        multiplies = lone or node.kind == "product"
        gain = 1.0
        edges: list[Edge] = []
        for edge in node.edges:
            h = sizes[edge.source]
            here = replace(edge, source=place[edge.source])
            if edge.function == POWER and multiplies:
                # (h x + b)^p = h^p (x + b / h)^p
                edges.append(replace(here, b=edge.b / h))
                gain *= h**edge.a
            elif edge.function == POWER:
                # Its scale needs an edge of its own: a node for the power, read with that scale.
                power = replace(here, b=edge.b / h, below=False)
                nodes.append(Node("sum", (power,)))
                weights.append(0.0)
                edges.append(Edge(D + len(nodes) - 1, "identity", h**edge.a, 0.0, edge.below))
            elif edge.function in HOMOGENEOUS and multiplies:
                # f(a h x + b) = factor * f(x + b / (a h))
                plain, factor = _let_out(here, edge.a * h)
                edges.append(plain)
                gain *= factor
            elif lone and weight != 0.0 and _is_plain_log(edge, h):
                # w ln(a x + b) = w ln(x + b / a) + w ln a
                a = edge.a * h
                edges.append(replace(here, a=1.0, b=edge.b / a))
                moved += weight * math.log(a)
            else:
                edges.append(replace(here, a=edge.a * h))
        if not multiplies and all(edge.function == "identity" for edge in edges):
            edges, gain = _first_coefficient_one(node, edges)
        nodes.append(Node(node.kind, tuple(edges)))
        weights.append(weight * gain * scale_y)
        place[D + j] = D + len(nodes) - 1
        sizes[D + j] = gain
    return Formula(D, tuple(nodes), tuple(weights), (formula.bias + moved) * scale_y)


def _let_out(edge: Edge, a: float) -> tuple[Edge, float]:
    """A homogeneous function of `a x + b` as one of `x + b / a`, and the factor before it.

    The sign of a plain input stays with it, as that of what a positive part is taken of: a power of
    the node needs it.
    """
    sign = -1.0 if edge.function in SIGNED and a < 0 else 1.0
    a *= sign
    plain = replace(edge, a=sign, b=edge.b / a, fixed=True)
    if edge.function in SIGNED:
        return plain, a
    if edge.function == "square":
        return plain, a * a
    return plain, 1.0 / a


def _is_plain_log(edge: Edge, h: float) -> bool:
    """Whether `ln(a x + b)` can be written as `ln(x + b / a) + ln a` without a further constant."""
    return edge.function == "ln" and edge.fixed and edge.a * h > 0


def _first_coefficient_one(node: Node, edges: Sequence[Edge]) -> tuple[list[Edge], float]:
    """A sum, or a ratio of sums, of plain inputs, its first coefficients 1 or -1.

    Returns:
        The edges, and the factor before the node.
    """
    above = _first_size(edges, below=False)
    under = _first_size(edges, below=True)
    divided: list[Edge] = []
    for edge in edges:
        size = under if edge.below else above
        divided.append(replace(edge, a=edge.a / size, b=edge.b / size))
    return divided, above / (under if node.kind == "ratio" else 1.0)


def _first_size(edges: Sequence[Edge], below: bool) -> float:
    """The size of the first coefficient above (or below) the line; 1 where there is none."""
    for edge in edges:
        if edge.below is below:
            return abs(edge.a)
    return 1.0
