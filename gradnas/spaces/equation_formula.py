"""`Formula`: one discrete equation, as plain data, with its constants.

Legend: N points, D features, J nodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from gradnas.spaces.equation_primitives import POWER, PRIMITIVES, Primitive

Kind = Literal["sum", "product", "ratio"]


@dataclass(frozen=True)
class Edge:
    """`function(a * x + b)`, or `(x + b) ** a` for `power`, of feature `source`, or of node `source - D`.

    Args:
        below: in a ratio, whether the edge is a term of the denominator.
    """

    source: int
    function: str
    a: float = 1.0
    b: float = 0.0
    below: bool = False


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
        """Its values at N points, in the true form of every function: NaN where a function is undefined."""
        values = list(x_ND.unbind(dim=1))
        total = torch.full_like(x_ND[:, 0], self.bias)
        for node, weight in zip(self.nodes, self.weights, strict=True):
            value = _node_value(node, values, primitives)
            values.append(value)
            if weight != 0.0:
                total = total + weight * value
        return total

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return asdict(self)

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Formula:
        """The inverse of `to_dict`."""
        nodes = tuple(Node(node["kind"], tuple(Edge(**edge) for edge in node["edges"])) for node in data["nodes"])
        return Formula(data["features"], nodes, tuple(data["weights"]), data["bias"])


def edge_value(edge: Edge, x_N: Tensor, primitives: Mapping[str, Primitive] = PRIMITIVES) -> Tensor:
    """What the edge passes on."""
    if edge.function == POWER:
        return torch.pow(x_N + edge.b, edge.a)
    return primitives[edge.function].function(edge.a * x_N + edge.b)


def _node_value(node: Node, values: list[Tensor], primitives: Mapping[str, Primitive]) -> Tensor:
    terms = [edge_value(edge, values[edge.source], primitives) for edge in node.edges]
    if node.kind == "ratio":
        above = [t for t, edge in zip(terms, node.edges, strict=True) if not edge.below]
        below = [t for t, edge in zip(terms, node.edges, strict=True) if edge.below]
        return torch.stack(above).sum(0) / torch.stack(below).sum(0)
    stacked = torch.stack(terms)
    return stacked.sum(0) if node.kind == "sum" else stacked.prod(0)
