"""Many formulas at once: values and derivatives as one set of tensor operations.

Legend: C formulas, J nodes, E edges of a node, N points, D features, V features and nodes, P fitted
constants inside the nodes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from gradnas.laws.formula import (
    Edge,
    Formula,
    Node,
)
from gradnas.laws.primitives import (
    POWER,
    Primitive,
)

SUM = 0
PRODUCT = 1
RATIO = 2
_KINDS = {"sum": SUM, "product": PRODUCT, "ratio": RATIO}


@dataclass
class Slopes:
    """Derivatives at one node of every formula, each `(C, E, N)`.

    Attributes:
        by_edge: of the node's value by the value of each edge.
        by_a, by_b: of the edge's value by its constants.
        by_input: of the edge's value by its input.
    """

    by_edge: Tensor
    by_a: Tensor
    by_b: Tensor
    by_input: Tensor


@dataclass
class Values:
    """What one pass over a batch gives.

    Attributes:
        node_CJN: value of each node.
        slopes: node by node, what the way back needs.
    """

    node_CJN: Tensor
    slopes: list[Slopes]


def largest_sizes(formulas: Sequence[Formula]) -> tuple[int, int]:
    """The largest numbers of nodes, and of edges of a node; at least 1 each."""
    J = 1
    E = 1
    for formula in formulas:
        J = max(J, len(formula.nodes))
        for node in formula.nodes:
            E = max(E, len(node.edges))
    return J, E


class FormulaBatch:
    """Formulas over the same features, padded to the same numbers of nodes and edges.

    A missing edge is the constant that its node does not notice: 0 in a sum, 1 in a product.
    """

    def __init__(self, formulas: Sequence[Formula], primitives: Mapping[str, Primitive]) -> None:
        self.formulas = list(formulas)
        self.primitives = primitives
        self.features = self.formulas[0].features
        self.names = _functions_of(self.formulas)
        code = {name: i for i, name in enumerate(self.names)}

        # Filled in NumPy: single numbers are written far faster than into tensors. A missing edge
        # stays 0 * feature 0 + 0, and neither of its constants is free (fitted).
        count = len(self.formulas)
        J, E = largest_sizes(self.formulas)
        source = np.zeros((count, J, E), dtype=np.int64)
        function = np.full((count, J, E), code["identity"], dtype=np.int64)
        a = np.zeros((count, J, E))
        b = np.zeros((count, J, E))
        free_a = np.zeros((count, J, E), dtype=bool)
        free_b = np.zeros((count, J, E), dtype=bool)
        below = np.zeros((count, J, E), dtype=bool)
        kind = np.zeros((count, J), dtype=np.int64)
        weight = np.zeros((count, J + 1))
        for c, formula in enumerate(self.formulas):
            weight[c, : len(formula.weights)] = formula.weights
            weight[c, J] = formula.bias
            for j, node in enumerate(formula.nodes):
                kind[c, j] = _KINDS[node.kind]
                if node.kind == "product":
                    b[c, j] = 1.0  # of the missing edges; those that are there follow
                for e, edge in enumerate(node.edges):
                    place = (c, j, e)
                    source[place] = edge.source
                    function[place] = code[edge.function]
                    a[place] = edge.a
                    b[place] = edge.b
                    below[place] = edge.below
                    free_a[place] = not edge.fixed
                    free_b[place] = edge.b != 0.0

        free = np.concatenate([free_a.reshape(count, -1), free_b.reshape(count, -1)], axis=1)
        self.source = torch.from_numpy(source)
        self.function = torch.from_numpy(function)
        self.a = torch.from_numpy(a)
        self.b = torch.from_numpy(b)
        self.free = torch.from_numpy(free)
        self.below = torch.from_numpy(below)
        self.kind = torch.from_numpy(kind)
        self.weight = torch.from_numpy(weight)
        self.in_output = self.weight != 0.0
        self._index()

    def _index(self) -> None:
        """Which rows go through which function: computed once, used in every pass."""
        count, J, _ = self.source.shape
        self.rows = torch.arange(count).unsqueeze(1)
        self.by_function: list[list[tuple[str, Tensor]]] = []
        self.by_kind: list[tuple[Tensor, Tensor]] = []
        self.from_nodes: list[tuple[Tensor, Tensor]] = []
        for j in range(J):
            self.by_function.append(self._functions_at(j))
            kinds = self.kind[:, j]
            products = (kinds == PRODUCT).nonzero().flatten()
            ratios = (kinds == RATIO).nonzero().flatten()
            self.by_kind.append((products, ratios))
            # The edges that read another node, and that node's place among those of all formulas.
            source = self.source[:, j]
            inner = (source >= self.features).reshape(-1).nonzero().flatten()
            target = (self.rows * J + source - self.features).reshape(-1)[inner]
            self.from_nodes.append((inner, target))

        # The fitted constants of every formula, moved to the front: a formula with fewer of them
        # than another has columns that count for nothing. A stable sort keeps their order, all `a`
        # before all `b`, so that a constant's column does not depend on the others of the batch.
        order = torch.argsort(self.free.to(torch.int8), dim=1, descending=True, stable=True)
        width = int(self.free.sum(1).max())
        self.slots = order[:, :width]
        self.slot_used = self.free.gather(1, self.slots)

    def _functions_at(self, j: int) -> list[tuple[str, Tensor]]:
        """The functions on the edges of node j, with the places of these edges, `C * E` in all."""
        flat = self.function[:, j].reshape(-1)
        groups: list[tuple[str, Tensor]] = []
        for i, name in enumerate(self.names):
            if name == "identity":
                continue
            index = (flat == i).nonzero().flatten()
            if len(index):
                groups.append((name, index))
        return groups

    def select(self, index: Tensor) -> FormulaBatch:
        """The batch of some of the formulas."""
        # Not through __init__, which would walk over every edge of the formulas again.
        part = object.__new__(FormulaBatch)
        part.primitives = self.primitives
        part.names = self.names
        part.features = self.features
        part.formulas = [self.formulas[i] for i in index.tolist()]
        part.source = self.source[index]
        part.function = self.function[index]
        part.a = self.a[index]
        part.b = self.b[index]
        part.free = self.free[index]
        part.below = self.below[index]
        part.kind = self.kind[index]
        part.weight = self.weight[index]
        part.in_output = self.in_output[index]
        part._index()
        return part

    def theta(self) -> Tensor:
        """The fitted constants inside the nodes, `(C, P)`, padded with what is not fitted."""
        both = torch.cat([self.a.flatten(1), self.b.flatten(1)], dim=1)
        return both.gather(1, self.slots)

    def constants(self, theta_CP: Tensor) -> tuple[Tensor, Tensor]:
        """`a` and `b` of all edges with the fitted ones from `theta_CP`."""
        both = torch.cat([self.a.flatten(1), self.b.flatten(1)], dim=1)
        held = both.gather(1, self.slots)
        # An unused slot points at a constant that is given: that one is written back as it was.
        both = both.scatter(1, self.slots, torch.where(self.slot_used, theta_CP, held))
        half = both.shape[1] // 2
        return both[:, :half].view_as(self.a), both[:, half:].view_as(self.b)

    def forward(self, x_DN: Tensor, theta_CP: Tensor) -> Values:
        """Values of all nodes, and the local derivatives."""
        a_CJE, b_CJE = self.constants(theta_CP)
        count, J, _ = self.source.shape
        D, N = x_DN.shape
        # Features first, then nodes as they are computed: an edge reads either by one index.
        all_CVN = x_DN.new_empty(count, D + J, N)
        all_CVN[:, :D] = x_DN
        slopes: list[Slopes] = []
        for j in range(J):
            input_CEN = all_CVN[self.rows, self.source[:, j]]
            value_CEN, by_a, by_b, by_input = self._edges(j, input_CEN, a_CJE[:, j], b_CJE[:, j])
            node_CN, by_edge = self._join(j, value_CEN)
            all_CVN[:, D + j] = node_CN
            slopes.append(Slopes(by_edge, by_a, by_b, by_input))
        return Values(all_CVN[:, D:], slopes)

    def _edges(
        self, j: int, input_CEN: Tensor, a_CE: Tensor, b_CE: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The values of the edges into node j, and their derivatives by a, by b and by the input.

        All edges are computed as `a x + b`; those with another function are then written over,
        function by function.
        """
        N = input_CEN.shape[-1]
        a_CE1 = a_CE[:, :, None]
        value = torch.addcmul(b_CE[:, :, None], a_CE1, input_CEN)
        by_b = torch.ones_like(value)
        # Views, C * E rows of N: what is written into them is written into `value` and `by_b`.
        flat_value = value.view(-1, N)
        flat_by_b = by_b.view(-1, N)
        power_by_a: Tensor | None = None
        for name, index in self.by_function[j]:
            if name == POWER:
                # (x + b)^a: its `a` is an exponent, and what holds for `f(a x + b)` does not.
                exponent = a_CE.reshape(-1, 1)[index]
                base = input_CEN.reshape(-1, N)[index] + b_CE.reshape(-1, 1)[index]
                out = torch.pow(base, exponent)
                power_by_a = torch.zeros_like(value)
                # d (x + b)^a / da is the power times ln(x + b). A negative base has a power for
                # whole exponents alone; its logarithm would be NaN.
                power_by_a.view(-1, N)[index] = out * torch.log(base.abs())
                flat_value[index] = out
                flat_by_b[index] = exponent * out / base
            else:
                primitive = self.primitives[name]
                z = flat_value[index]
                out = primitive.function(z)
                flat_value[index] = out
                flat_by_b[index] = primitive.slope(z, out)
        # d f(a x + b) / da = x f', and / dx = a f'; of a power by its base it is the same as by b.
        by_a = input_CEN * by_b
        by_input = a_CE1 * by_b
        if power_by_a is not None:
            powers = (self.function[:, j] == self.names.index(POWER)).unsqueeze(-1)
            by_a = torch.where(powers, power_by_a, by_a)
            by_input = torch.where(powers, by_b, by_input)
        return value, by_a, by_b, by_input

    def _join(self, j: int, value_CEN: Tensor) -> tuple[Tensor, Tensor]:
        """The nodes' values from those of their edges, and the derivatives by each edge's value."""
        by_edge = torch.ones_like(value_CEN)
        node_CN = value_CEN.sum(1)
        E = value_CEN.shape[1]
        products, ratios = self.by_kind[j]
        if len(products) and E > 1:
            # The product of the others of each edge: what stands before it times what stands after
            # it. Dividing the whole product by the edge would fail where an edge is zero.
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
            chosen = value_CEN[ratios]
            below = self.below[ratios, j].unsqueeze(-1)
            under = (chosen * below).sum(1)
            ratio = (chosen * ~below).sum(1) / under
            node_CN[ratios] = ratio
            # d(u / v) is du / v for an edge above, and -(u / v) dv / v for one below.
            # Both share the division by v.
            slope = torch.where(below, -ratio.unsqueeze(1), torch.ones_like(chosen))
            by_edge[ratios] = slope / under.unsqueeze(1)
        return node_CN, by_edge

    def backward(self, values: Values, weight_CJ: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Derivatives of `sum_j weight_j node_j` at every point.

        Returns:
            Those by the fitted constants, `(C, P, N)`, and node by node those by each edge's input,
            `(C, E, N)`.
        """
        count, J, E = self.source.shape
        N = values.node_CJN.shape[-1]
        # The derivative by each node's value: its own weight, and what later nodes hand back.
        adjoint_CJN = weight_CJ.unsqueeze(-1).expand(count, J, N).clone()
        both = values.node_CJN.new_empty(2, count, J, E, N)
        inputs: list[Tensor] = [adjoint_CJN] * J  # every place is filled below, from the last one
        # Backwards: only later nodes read node j, so its adjoint is complete when its turn comes.
        for j in reversed(range(J)):
            slopes = values.slopes[j]
            through = adjoint_CJN[:, j, None] * slopes.by_edge
            # Into their places: these are the largest tensors of a pass.
            torch.mul(through, slopes.by_a, out=both[0, :, j])
            torch.mul(through, slopes.by_b, out=both[1, :, j])
            inputs[j] = through * slopes.by_input
            inner, target = self.from_nodes[j]
            if len(inner):
                handed_back = inputs[j].view(-1, N)[inner]
                adjoint_CJN.view(-1, N).index_add_(0, target, handed_back)
        # Laid out as `theta` is: all `a` of a formula, then all `b`.
        flat = both.transpose(0, 1).reshape(count, 2 * J * E, N)
        jacobian = flat[self.rows, self.slots] * self.slot_used.unsqueeze(-1)
        return jacobian, inputs

    def written(self, theta_CP: Tensor, weight_CL: Tensor) -> list[Formula]:
        """The formulas with these constants."""
        a_CJE, b_CJE = self.constants(theta_CP)
        a = a_CJE.tolist()
        b = b_CJE.tolist()
        weights = weight_CL.tolist()
        formulas: list[Formula] = []
        for c, formula in enumerate(self.formulas):
            nodes: list[Node] = []
            for j, node in enumerate(formula.nodes):
                edges: list[Edge] = []
                for e, edge in enumerate(node.edges):
                    given = edge.fixed and edge.b == 0.0  # it has no fitted constant
                    edges.append(edge if given else replace(edge, a=a[c][j][e], b=b[c][j][e]))
                nodes.append(Node(node.kind, tuple(edges)))
            outputs = tuple(weights[c][: len(nodes)])
            formulas.append(Formula(formula.features, tuple(nodes), outputs, weights[c][-1]))
        return formulas


def _functions_of(formulas: Sequence[Formula]) -> list[str]:
    """The functions on the edges, sorted, and `identity`, which stands for a missing edge."""
    names = {"identity"}
    for formula in formulas:
        for node in formula.nodes:
            for edge in node.edges:
                names.add(edge.function)
    return sorted(names)
