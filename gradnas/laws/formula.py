"""`Formula`: one discrete equation, as plain data, with its constants.

Legend: N points, D features, J nodes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from gradnas.laws.primitives import (
    POWER,
    PRIMITIVES,
    Primitive,
)

# f(a x) is a power of a times f(x); of `SIGNED` ones for a > 0 alone, or with a sign that has to
# stay inside.
HOMOGENEOUS = ("identity", "square", "reciprocal", "relu", "max", "min")
SIGNED = ("identity", "relu", "max", "min")
ANGLES = ("sin", "cos")  # functions of an angle
Kind = Literal["sum", "product", "ratio"]


@dataclass(frozen=True)
class Edge:
    """`function(a * x + b)`, or `(x + b) ** a` for `power`.

    Args:
        source: what x is: a feature, or from D on the node `source - D`.
        below: in a ratio, whether the edge is a term of the denominator.
        fixed: whether `a` is a given number rather than a fitted constant. `b` is fitted where it
            is not zero.
    """

    source: int
    function: str
    a: float = 1.0
    b: float = 0.0
    below: bool = False
    fixed: bool = False


@dataclass(frozen=True)
class Node:
    """The sum or the product of its edges, or the sum of some over the sum of the others."""

    kind: Kind
    edges: tuple[Edge, ...]


@dataclass(frozen=True)
class Formula:
    """`bias + sum_j weights[j] * node_j`; a node may use the features and the nodes before it.

    Args:
        features: number of features D.
        nodes: in the order of computation.
        weights: one per node; 0 for a node that only serves others.
        bias: the constant term.
    """

    features: int
    nodes: tuple[Node, ...]
    weights: tuple[float, ...]
    bias: float = 0.0

    def __call__(self, x_ND: Tensor, primitives: Mapping[str, Primitive] = PRIMITIVES) -> Tensor:
        """Its values at N points; NaN where a function of it is undefined."""
        values = list(x_ND.unbind(dim=1))
        total = torch.full_like(x_ND[:, 0], self.bias)
        for node, weight in zip(self.nodes, self.weights, strict=True):
            value = _node_value(node, values, primitives)
            values.append(value)
            # 0 times NaN would be NaN, and a node that only serves others may be undefined.
            if weight != 0.0:
                total = total + weight * value
        return total

    @property
    def outputs(self) -> list[int]:
        """The nodes that are terms of the output."""
        return [j for j, weight in enumerate(self.weights) if weight != 0.0]

    @property
    def constants(self) -> int:
        """How many fitted numbers it has."""
        inner = 0
        for edge in self._edges():
            inner += (not edge.fixed) + (edge.b != 0.0)
        return inner + self._terms()

    @property
    def operations(self) -> int:
        """How many functions it applies, and how many edges and terms it joins.

        Constants bring their own operations.
        """
        functions = sum(edge.function != "identity" for edge in self._edges())
        joins = sum(len(node.edges) - 1 for node in self.nodes)
        return functions + joins + max(0, self._terms() - 1)

    @property
    def complexity(self) -> int:
        """Constants and operations."""
        return self.constants + self.operations

    def _edges(self) -> Iterator[Edge]:
        for node in self.nodes:
            yield from node.edges

    def _terms(self) -> int:
        """Terms of the output, the constant one included."""
        return len(self.outputs) + (self.bias != 0.0)


def canonical(node: Node) -> Node:
    """The same node without constants that others make redundant.

    They are a fixed `a` where a scale can be moved elsewhere. In a product (or a lone edge) the
    scale of `x + b`, its square, its reciprocal and its positive part goes into whatever uses the
    node, and so does the factor `exp(b)`; in a sum of plain inputs the first has the coefficient 1,
    in a ratio the first above and the first below. Constants are moved only where the values stay
    the same up to a scale.
    """
    if node.kind == "product" or len(node.edges) == 1:
        kind: Kind = "sum" if len(node.edges) == 1 else "product"
        return Node(kind, tuple(_as_factor(edge) for edge in node.edges))
    if any(edge.function != "identity" for edge in node.edges):
        return node
    scales = {True: 0.0, False: 0.0}  # of the first edge below, and above; 0: none yet
    edges: list[Edge] = []
    for edge in node.edges:
        is_first = not any(other.below == edge.below for other in edges)
        if scales[edge.below] == 0.0:
            scales[edge.below] = abs(edge.a)
        scale = scales[edge.below]
        a = edge.a / scale
        # A first coefficient of -1 counts as fitted: the scale does not take the sign.
        edges.append(replace(edge, a=a, b=edge.b / scale, fixed=is_first and a == 1.0))
    return Node(node.kind, tuple(edges))


def as_product(edges: Sequence[Edge]) -> Node:
    """The product of some edges, or one edge alone, as a canonical node."""
    return canonical(Node("product" if len(edges) > 1 else "sum", tuple(edges)))


def _as_factor(edge: Edge) -> Edge:
    if edge.function in SIGNED and edge.a < 0.0:
        # The sign stays: a power of the node needs it.
        return replace(edge, a=-1.0, b=-edge.b / edge.a, fixed=True)
    if edge.function in HOMOGENEOUS and edge.a != 0.0:
        return replace(edge, a=1.0, b=edge.b / edge.a, fixed=True)
    if edge.function == "exp":
        return replace(edge, b=0.0)
    return edge


def edge_value(edge: Edge, x_N: Tensor, primitives: Mapping[str, Primitive] = PRIMITIVES) -> Tensor:
    """What the edge passes on."""
    if edge.function == POWER:
        return torch.pow(x_N + edge.b, edge.a)
    return primitives[edge.function].function(edge.a * x_N + edge.b)


def divisors(
    formula: Formula, x_ND: Tensor, primitives: Mapping[str, Primitive] = PRIMITIVES
) -> list[Tensor]:
    """What the formula divides by, each at N points.

    The inputs of reciprocals, the bases of negative powers, and the lower sums of ratios.
    """
    values = list(x_ND.unbind(dim=1))
    found: list[Tensor] = []
    for node in formula.nodes:
        below: list[Tensor] = []
        for edge in node.edges:
            x_N = values[edge.source]
            if edge.function == POWER and edge.a < 0.0:
                found.append(x_N + edge.b)
            elif edge.function == "reciprocal":
                found.append(edge.a * x_N + edge.b)
            if edge.below:
                below.append(edge_value(edge, x_N, primitives))
        if node.kind == "ratio":
            found.append(torch.stack(below).sum(0))
        values.append(_node_value(node, values, primitives))
    return found


def _node_value(node: Node, values: list[Tensor], primitives: Mapping[str, Primitive]) -> Tensor:
    terms = [edge_value(edge, values[edge.source], primitives) for edge in node.edges]
    if node.kind == "ratio":
        above: list[Tensor] = []
        below: list[Tensor] = []
        for edge, term in zip(node.edges, terms, strict=True):
            (below if edge.below else above).append(term)
        return torch.stack(above).sum(0) / torch.stack(below).sum(0)
    stacked = torch.stack(terms)
    return stacked.sum(0) if node.kind == "sum" else stacked.prod(0)
