"""Many formulas at once: values and derivatives as one set of tensor operations.

The edges of all formulas are rows of one table, those that can be computed together side by side:
first what reads features alone, then what reads that, and so on. There are few such levels, however
many nodes the formulas have, and nothing is computed for the nodes and edges that smaller formulas
do not have.

Legend: C formulas, J nodes, E edges of a node, N points, D features, V features and all nodes, M
edges of all formulas, P fitted constants inside the nodes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from gradnas.laws.engine.levels import PRODUCT, RATIO, SUM, Level, levels_of
from gradnas.laws.formula import (
    Edge,
    Formula,
    Node,
)
from gradnas.laws.primitives import (
    POWER,
    Primitive,
)

_KINDS = {"sum": SUM, "product": PRODUCT, "ratio": RATIO}


@dataclass
class Values:
    """What one pass over a batch gives: its values, and what the way back needs.

    Attributes:
        node_CJN: value of each node.
        a_M1, b_M1: the constants of each edge.
        inputs: level by level, what each edge reads.
        slope_MN: derivative of each edge's value by its `b`; of plain edges, where it is 1, it is
            not filled in.
        by_exponent: derivatives of powers by their exponents, by the place of the first one.
        by_edge: level by level, edges of it and the derivatives of their nodes' values by theirs;
            of other edges these are 1.
    """

    node_CJN: Tensor
    a_M1: Tensor
    b_M1: Tensor
    inputs: list[Tensor]
    slope_MN: Tensor
    by_exponent: dict[int, Tensor]
    by_edge: list[list[tuple[Tensor, Tensor]]]


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
    """Formulas over the same features; their constants are padded to the same numbers.

    Attributes:
        source, function, a, b, free, below: of every edge, `(C, J, E)`; `free`, `(C, 2 J E)`, of
            all `a` and then all `b`.
        present: whether there is such an edge.
        slots: the places of the fitted constants in `free`, `(C, P)`; formulas with fewer of them
            than others have some that are not used.
    """

    def __init__(self, formulas: Sequence[Formula], primitives: Mapping[str, Primitive]) -> None:
        self.formulas = list(formulas)
        self.primitives = primitives
        self.features = self.formulas[0].features
        self.names = _functions_of(self.formulas)
        code = {name: i for i, name in enumerate(self.names)}

        # Filled in NumPy: single numbers are written far faster than into tensors. Neither constant
        # of a missing edge is free (fitted).
        count = len(self.formulas)
        J, E = largest_sizes(self.formulas)
        source = np.zeros((count, J, E), dtype=np.int64)
        function = np.full((count, J, E), code["identity"], dtype=np.int64)
        a = np.zeros((count, J, E))
        b = np.zeros((count, J, E))
        free_a = np.zeros((count, J, E), dtype=bool)
        free_b = np.zeros((count, J, E), dtype=bool)
        below = np.zeros((count, J, E), dtype=bool)
        present = np.zeros((count, J, E), dtype=bool)
        kind = np.zeros((count, J), dtype=np.int64)
        weight = np.zeros((count, J + 1))
        for c, formula in enumerate(self.formulas):
            weight[c, : len(formula.weights)] = formula.weights
            weight[c, J] = formula.bias
            for j, node in enumerate(formula.nodes):
                kind[c, j] = _KINDS[node.kind]
                for e, edge in enumerate(node.edges):
                    place = (c, j, e)
                    source[place] = edge.source
                    function[place] = code[edge.function]
                    a[place] = edge.a
                    b[place] = edge.b
                    below[place] = edge.below
                    present[place] = True
                    free_a[place] = not edge.fixed
                    free_b[place] = edge.b != 0.0

        free = np.concatenate([free_a.reshape(count, -1), free_b.reshape(count, -1)], axis=1)
        self.source = torch.from_numpy(source)
        self.function = torch.from_numpy(function)
        self.a = torch.from_numpy(a)
        self.b = torch.from_numpy(b)
        self.free = torch.from_numpy(free)
        self.below = torch.from_numpy(below)
        self.present = torch.from_numpy(present)
        self.kind = torch.from_numpy(kind)
        self.weight = torch.from_numpy(weight)
        self.in_output = self.weight != 0.0
        self._index()

    def _index(self) -> None:
        """Which edges are computed when, and where their constants stand: once for every pass."""
        count, J, E = self.source.shape
        self.place_M, self.levels = levels_of(
            self.source.numpy(),
            self.function.numpy(),
            self.kind.numpy(),
            self.below.numpy(),
            self.present.numpy(),
            self.features,
        )
        # The fitted constants of every formula, moved to the front: a formula with fewer of them
        # than another has columns that count for nothing. A stable sort keeps their order, all `a`
        # before all `b`, so that a constant's column does not depend on the others of the batch.
        order = torch.argsort(self.free.to(torch.int8), dim=1, descending=True, stable=True)
        width = int(self.free.sum(1).max())
        self.slots = order[:, :width]
        self.slot_used = self.free.gather(1, self.slots)
        powers = [code for code, name in enumerate(self.names) if name == POWER]
        function_M = self.function.reshape(-1)[self.place_M]
        self.is_power_M1 = torch.isin(function_M, torch.tensor(powers)).unsqueeze(1)
        # Which edges have fitted constants, and the rows of these among the C * P of a Jacobian.
        row = self.free.cumsum(1) - 1 + width * torch.arange(count).unsqueeze(1)
        formula_M = self.place_M // (J * E)
        a_M = self.place_M + formula_M * (J * E)  # places in `free`, whose rows are twice as long
        b_M = a_M + J * E
        self.with_a = self.free.reshape(-1)[a_M].nonzero().flatten()
        self.with_b = self.free.reshape(-1)[b_M].nonzero().flatten()
        self.row_of_a = row.reshape(-1)[a_M[self.with_a]]
        self.row_of_b = row.reshape(-1)[b_M[self.with_b]]

    @property
    def num_edges(self) -> int:
        """The number of edges of all formulas."""
        return len(self.place_M)

    @property
    def num_columns(self) -> int:
        """The number of columns of all Jacobians: of constants, output weights and biases."""
        return len(self.formulas) * (self.slots.shape[1] + self.weight.shape[1])

    def rows_of(self, j: int) -> Tensor:
        """The rows of the edges into node j of the first formula, in their order."""
        E = self.source.shape[2]
        row_of = {place: m for m, place in enumerate(self.place_M.tolist())}
        num_edges = int(self.present[0, j].sum())
        return torch.tensor([row_of[j * E + e] for e in range(num_edges)], dtype=torch.long)

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
        part.present = self.present[index]
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
        # Features first, then the nodes of all formulas: an edge reads either by one index.
        all_VN = x_DN.new_zeros(D + count * J, N)
        all_VN[:D] = x_DN
        values = Values(
            node_CJN=all_VN[D:].view(count, J, N),
            a_M1=a_CJE.reshape(-1)[self.place_M].unsqueeze(1),
            b_M1=b_CJE.reshape(-1)[self.place_M].unsqueeze(1),
            inputs=[],
            slope_MN=x_DN.new_empty(self.num_edges, N),
            by_exponent={},
            by_edge=[],
        )
        for level in self.levels:
            rows = slice(level.first, level.last)
            input_LN = all_VN[level.source_L]
            values.inputs.append(input_LN)
            value_LN = torch.addcmul(values.b_M1[rows], values.a_M1[rows], input_LN)
            self._apply(level, input_LN, value_LN, values)
            node_VN = all_VN[D:]
            node_VN.index_add_(0, level.node_L, value_LN)
            values.by_edge.append(_join(level, value_LN, node_VN))
        return values

    def _apply(self, level: Level, input_LN: Tensor, value_LN: Tensor, values: Values) -> None:
        """Write the functions of a level's edges over `a x + b`, and note their slopes."""
        for code, low, high in level.functions:
            name = self.names[code]
            if name == "identity":
                continue
            rows = slice(low - level.first, high - level.first)
            slope = values.slope_MN[low:high]
            if name == POWER:
                # (x + b)^a: its `a` is an exponent, and what holds for `f(a x + b)` does not.
                exponent = values.a_M1[low:high]
                base = input_LN[rows] + values.b_M1[low:high]
                out = torch.pow(base, exponent)
                # d (x + b)^a / da is the power times ln(x + b). A negative base has a power for
                # whole exponents alone; its logarithm would be NaN.
                values.by_exponent[low] = out * torch.log(base.abs())
                slope.copy_(exponent * out / base)
            else:
                primitive = self.primitives[name]
                z = value_LN[rows].clone()  # it is written over
                out = primitive.function(z)
                slope.copy_(primitive.slope(z, out))
            value_LN[rows] = out

    def backward(self, values: Values, weight_CJ: Tensor) -> tuple[Tensor, Tensor]:
        """Derivatives of `sum_j weight_j node_j` at every point.

        Returns:
            Those by the fitted constants, `(C, P, N)`, and those by each edge's `b`, `(M, N)`.
        """
        count, J, _ = self.source.shape
        N = values.node_CJN.shape[-1]
        # The derivative by each node's value: its own weight, and what later nodes hand back.
        adjoint_VN = weight_CJ.reshape(-1, 1).expand(count * J, N).clone()
        by_b_MN = torch.empty_like(values.slope_MN)
        by_exponent: dict[int, Tensor] = {}
        # Backwards: only later levels read a node, so its adjoint is complete when its turn comes.
        for level, by_edge in zip(reversed(self.levels), reversed(values.by_edge), strict=True):
            own_LN = by_b_MN[level.first : level.last]
            torch.index_select(adjoint_VN, 0, level.node_L, out=own_LN)
            for edge_K, slope_KN in by_edge:
                own_LN[edge_K] *= slope_KN
            for code, low, high in level.functions:
                name = self.names[code]
                if name == POWER:
                    by_exponent[low] = by_b_MN[low:high] * values.by_exponent[low]
                if name != "identity":
                    by_b_MN[low:high] *= values.slope_MN[low:high]
            if len(level.inner_K):
                by_input_KN = self.by_input(values, by_b_MN, level.inner_K + level.first)
                adjoint_VN.index_add_(0, level.inner_node_K, by_input_KN)
        input_MN = torch.cat([*values.inputs, by_b_MN[:0]])
        by_a = by_b_MN[self.with_a] * input_MN[self.with_a]
        for low, rows in by_exponent.items():
            ends = torch.tensor([low, low + len(rows)])
            first, last = torch.searchsorted(self.with_a, ends).tolist()
            by_a[first:last] = rows[self.with_a[first:last] - low]
        # A column of a formula that has fewer constants than another stays 0.
        jacobian = by_a.new_zeros(count * self.slots.shape[1], N)
        jacobian[self.row_of_a] = by_a
        jacobian[self.row_of_b] = by_b_MN[self.with_b]
        return jacobian.view(count, -1, N), by_b_MN

    def by_input(self, values: Values, by_b_MN: Tensor, rows: Tensor) -> Tensor:
        """Derivatives by the inputs of some edges, from those by their `b`."""
        # Of f(a x + b) it is `a` times that by b; of a power the same.
        factor_M1 = torch.where(self.is_power_M1, 1.0, values.a_M1)
        return by_b_MN[rows] * factor_M1[rows]

    def by_edge(self, values: Values) -> Tensor:
        """The derivatives of the nodes' values by those of their edges, `(M, N)`."""
        ones_MN = torch.ones_like(values.slope_MN)
        for level, by_edge in zip(self.levels, values.by_edge, strict=True):
            for edge_K, slope_KN in by_edge:
                ones_MN[edge_K + level.first] = slope_KN
        return ones_MN

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
    """`identity`, and the other functions on the edges, sorted."""
    names: set[str] = set()
    for formula in formulas:
        for node in formula.nodes:
            for edge in node.edges:
                names.add(edge.function)
    return ["identity", *sorted(names - {"identity"})]


def _join(level: Level, value_LN: Tensor, node_VN: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Write the products and ratios of a level over the sums of the same edges.

    Returns:
        Edges of them, and the derivatives of their nodes' values by those of the edges.
    """
    by_edge: list[tuple[Tensor, Tensor]] = []
    for products in level.products:
        # The product of the others of each edge: what stands before it times what stands after it.
        # Dividing the whole product by the edge would fail where an edge is zero.
        factors = value_LN[products.edge_PE].unbind(1)
        others = list(factors)
        running = factors[0]
        for e in range(1, len(factors)):
            others[e] = running
            running = running * factors[e]
        node_VN[products.node_P] = running
        running = factors[-1]
        for e in reversed(range(1, len(factors) - 1)):
            others[e] = others[e] * running
            running = running * factors[e]
        others[0] = running
        slope = torch.stack(others, dim=1).flatten(0, 1)
        by_edge.append((products.edge_PE.flatten(), slope))
    ratios = level.ratios
    if ratios is not None:
        value_KN = value_LN[ratios.edge_K]
        under_RN = value_KN.new_zeros(len(ratios.node_R), value_KN.shape[1])
        over_RN = torch.zeros_like(under_RN)
        under_RN.index_add_(0, ratios.ratio_K, value_KN * ratios.below_K1)
        over_RN.index_add_(0, ratios.ratio_K, value_KN * ~ratios.below_K1)
        ratio_RN = over_RN / under_RN
        node_VN[ratios.node_R] = ratio_RN
        # d(u / v) is du / v for an edge above, and -(u / v) dv / v for one below.
        # Both share the division by v.
        slope_KN = torch.where(ratios.below_K1, -ratio_RN[ratios.ratio_K], 1.0)
        by_edge.append((ratios.edge_K, slope_KN / under_RN[ratios.ratio_K]))
    return by_edge
