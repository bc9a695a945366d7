"""Many formulas at once: their values, and the derivatives by all constants, as one set of tensor
operations.

Legend: C formulas, J nodes, E edges of a node, N points, D features, P fitted constants inside the
nodes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from gradnas.laws.formula import (
    Formula,
    Node,
)
from gradnas.laws.primitives import (
    POWER,
    Primitive,
)

SUM, PRODUCT, RATIO = range(3)
_KINDS = {"sum": SUM, "product": PRODUCT, "ratio": RATIO}


@dataclass
class Values:
    """What one pass over a batch gives.

    Attributes:
        node_CJN: value of each node.
        parts: node by node, the derivatives that the way back needs.
    """

    node_CJN: Tensor
    parts: list[tuple[Tensor, Tensor, Tensor, Tensor]]


class FormulaBatch:
    """Formulas over the same features, padded to the same numbers of nodes and edges.

    A missing edge is the constant that its node does not notice: 0 in a sum, 1 in a product.
    """

    def __init__(self, formulas: Sequence[Formula], primitives: Mapping[str, Primitive]) -> None:
        self.formulas = list(formulas)
        self.primitives = primitives
        count = len(self.formulas)
        J = max(1, max(len(f.nodes) for f in formulas))
        E = max([1, *(len(node.edges) for f in formulas for node in f.nodes)])
        names = sorted(
            {edge.function for f in formulas for node in f.nodes for edge in node.edges}
            | {"identity"}
        )
        code = {name: i for i, name in enumerate(names)}
        self.names = names
        source = np.zeros((count, J, E), dtype=np.int64)
        function = np.full((count, J, E), code["identity"], dtype=np.int64)
        a, b = np.zeros((count, J, E)), np.zeros((count, J, E))
        free_a, free_b = np.zeros((count, J, E), dtype=bool), np.zeros((count, J, E), dtype=bool)
        below = np.zeros((count, J, E), dtype=bool)
        kind = np.zeros((count, J), dtype=np.int64)
        weight = np.zeros((count, J + 1))
        for c, formula in enumerate(self.formulas):
            weight[c, : len(formula.weights)] = formula.weights
            weight[c, J] = formula.bias
            for j, node in enumerate(formula.nodes):
                kind[c, j] = _KINDS[node.kind]
                if node.kind == "product":
                    b[c, j] = 1.0
                for e, edge in enumerate(node.edges):
                    source[c, j, e], function[c, j, e] = edge.source, code[edge.function]
                    a[c, j, e], b[c, j, e], below[c, j, e] = edge.a, edge.b, edge.below
                    free_a[c, j, e], free_b[c, j, e] = not edge.fixed, edge.b != 0.0
        self.source, self.function = torch.from_numpy(source), torch.from_numpy(function)
        self.a, self.b = torch.from_numpy(a), torch.from_numpy(b)
        self.free = torch.from_numpy(
            np.concatenate([free_a.reshape(count, -1), free_b.reshape(count, -1)], axis=1)
        )
        self.below, self.kind = torch.from_numpy(below), torch.from_numpy(kind)
        self.weight = torch.from_numpy(weight)
        self.in_output = self.weight != 0.0
        self.features = self.formulas[0].features
        self._index()

    def _index(self) -> None:
        """Which rows go through which function: computed once, used in every pass."""
        count, J, _ = self.source.shape
        self.rows = torch.arange(count).unsqueeze(1)
        self.by_function: list[list[tuple[str, Tensor]]] = []
        self.by_kind: list[tuple[Tensor, Tensor]] = []
        self.from_nodes: list[tuple[Tensor, Tensor]] = []
        for j in range(J):
            flat, kinds = self.function[:, j].reshape(-1), self.kind[:, j]
            groups = []
            for i, name in enumerate(self.names):
                if name != "identity":
                    index = (flat == i).nonzero().flatten()
                    if len(index):
                        groups.append((name, index))
            self.by_function.append(groups)
            self.by_kind.append(
                ((kinds == PRODUCT).nonzero().flatten(), (kinds == RATIO).nonzero().flatten())
            )
            source = self.source[:, j]
            inner = (source >= self.features).reshape(-1).nonzero().flatten()
            target = (self.rows * J + source - self.features).reshape(-1)[inner]
            self.from_nodes.append((inner, target))
        order = torch.argsort(self.free.to(torch.int8), dim=1, descending=True, stable=True)
        width = int(self.free.sum(1).max())
        self.slots = order[:, :width]
        self.slot_used = self.free.gather(1, self.slots)

    def select(self, index: Tensor) -> FormulaBatch:
        """The batch of some of the formulas."""
        other = object.__new__(FormulaBatch)
        other.primitives, other.names, other.features = self.primitives, self.names, self.features
        other.formulas = [self.formulas[i] for i in index.tolist()]
        for name in (
            "source",
            "function",
            "a",
            "b",
            "free",
            "below",
            "kind",
            "weight",
            "in_output",
        ):
            setattr(other, name, getattr(self, name)[index])
        other._index()
        return other

    def theta(self) -> Tensor:
        """The fitted constants inside the nodes, `(C, P)`, padded with what is not fitted."""
        return torch.cat([self.a.flatten(1), self.b.flatten(1)], dim=1).gather(1, self.slots)

    def constants(self, theta_CP: Tensor) -> tuple[Tensor, Tensor]:
        """`a` and `b` of all edges with the fitted ones from `theta_CP`."""
        both = torch.cat([self.a.flatten(1), self.b.flatten(1)], dim=1)
        held = both.gather(1, self.slots)
        both = both.scatter(1, self.slots, torch.where(self.slot_used, theta_CP, held))
        half = both.shape[1] // 2
        return both[:, :half].view_as(self.a), both[:, half:].view_as(self.b)

    def forward(self, x_DN: Tensor, theta_CP: Tensor) -> Values:
        """Values of all nodes, and the local derivatives."""
        a, b = self.constants(theta_CP)
        count, J, _ = self.source.shape
        D, N = x_DN.shape
        all_CVN = x_DN.new_empty(count, D + J, N)
        all_CVN[:, :D] = x_DN
        parts = []
        for j in range(J):
            input_CEN = all_CVN[self.rows, self.source[:, j]]
            value = torch.addcmul(b[:, j, :, None], a[:, j, :, None], input_CEN)
            by_b = torch.ones_like(value)
            by_a: Tensor | None = None
            flat_value, flat_by_b = value.view(-1, N), by_b.view(-1, N)
            by_input: Tensor | None = None
            for name, index in self.by_function[j]:
                if name == POWER:
                    exponent = a[:, j].reshape(-1, 1)[index]
                    base = input_CEN.reshape(-1, N)[index] + b[:, j].reshape(-1, 1)[index]
                    out = torch.pow(base, exponent)
                    if by_a is None:
                        by_a = torch.zeros_like(value)
                    by_a.view(-1, N)[index] = out * torch.log(base.abs())
                    flat_value[index] = out
                    flat_by_b[index] = exponent * out / base
                else:
                    primitive = self.primitives[name]
                    z = flat_value[index]
                    out = primitive.function(z)
                    flat_value[index] = out
                    flat_by_b[index] = primitive.slope(z, out)
            if by_a is None:
                by_a, by_input = input_CEN * by_b, a[:, j, :, None] * by_b
            else:
                powers = (self.function[:, j] == self.names.index(POWER)).unsqueeze(-1)
                by_a = torch.where(powers, by_a, input_CEN * by_b)
                by_input = torch.where(powers, by_b, a[:, j, :, None] * by_b)
            node_CN, by_edge = self._join(j, value)
            all_CVN[:, D + j] = node_CN
            parts.append((by_edge, by_a, by_b, by_input))
        return Values(all_CVN[:, D:], parts)

    def _join(self, j: int, value_CEN: Tensor) -> tuple[Tensor, Tensor]:
        """The nodes' values from those of their edges, and the derivatives by each edge's value."""
        by_edge = torch.ones_like(value_CEN)
        node_CN = value_CEN.sum(1)
        E = value_CEN.shape[1]
        products, ratios = self.by_kind[j]
        if len(products) and E > 1:
            chosen = value_CEN[products]
            others = torch.ones_like(chosen)
            running = torch.ones_like(chosen[:, 0])
            for e in range(E):
                others[:, e] = running
                running = running * chosen[:, e]
            node_CN[products] = running
            running = torch.ones_like(running)
            for e in reversed(range(E)):
                others[:, e] *= running
                running = running * chosen[:, e]
            by_edge[products] = others
        if len(ratios):
            chosen, below = value_CEN[ratios], self.below[ratios, j].unsqueeze(-1)
            under = (chosen * below).sum(1)
            ratio = (chosen * ~below).sum(1) / under
            node_CN[ratios] = ratio
            by_edge[ratios] = torch.where(
                below, -ratio.unsqueeze(1), torch.ones_like(chosen)
            ) / under.unsqueeze(1)
        return node_CN, by_edge

    def backward(self, values: Values, weight_CJ: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Derivatives of `sum_j weight_j node_j` by the fitted constants, `(C, P, N)`, and by each
        edge's input."""
        count, J, E = self.source.shape
        N = values.node_CJN.shape[-1]
        adjoint = weight_CJ.unsqueeze(-1).expand(count, J, N).clone()
        both = values.node_CJN.new_empty(2, count, J, E, N)
        inputs: list[Tensor] = [adjoint] * J
        for j in reversed(range(J)):
            by_edge, by_a, by_b, by_input = values.parts[j]
            through = adjoint[:, j, None] * by_edge
            torch.mul(through, by_a, out=both[0, :, j])
            torch.mul(through, by_b, out=both[1, :, j])
            inputs[j] = through * by_input
            inner, target = self.from_nodes[j]
            if len(inner):
                adjoint.view(-1, N).index_add_(0, target, inputs[j].view(-1, N)[inner])
        flat = both.transpose(0, 1).reshape(count, 2 * J * E, N)
        jacobian = flat[self.rows, self.slots] * self.slot_used.unsqueeze(-1)
        return jacobian, inputs

    def written(self, theta_CP: Tensor, weight_CJ: Tensor) -> list[Formula]:
        """The formulas with these constants."""
        a, b = (t.tolist() for t in self.constants(theta_CP))
        weights = weight_CJ.tolist()
        found = []
        for c, formula in enumerate(self.formulas):
            nodes = tuple(
                Node(
                    node.kind,
                    tuple(
                        edge
                        if edge.fixed and edge.b == 0.0
                        else replace(edge, a=a[c][j][e], b=b[c][j][e])
                        for e, edge in enumerate(node.edges)
                    ),
                )
                for j, node in enumerate(formula.nodes)
            )
            found.append(
                Formula(formula.features, nodes, tuple(weights[c][: len(nodes)]), weights[c][-1])
            )
        return found
