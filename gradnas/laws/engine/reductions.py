"""Fewer features: symmetries of the target, tested on the data.

A power of a feature may be a factor of the whole target, a feature may not matter, and two features
may come in as their difference, sum, product, ratio or distance alone (Udrescu and Tegmark, 2020,
"AI Feynman"). Each is tested by a surrogate: kernel ridge regressions of the target by the fewer
features that are left predict points that they have not seen, and if the symmetry holds they
predict them better than those by all features.

Legend: N points, D features, R features of the reduced problem.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from gradnas.laws.engine.data import LawData
from gradnas.laws.engine.library import AWAY, power_of
from gradnas.laws.engine.residuals import WIDTHS, left_out_errors
from gradnas.laws.formula import Edge, Formula, Node, as_product, canonical

EXPONENTS = (0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5, 3.0, -3.0)
RIDGES = (1e-8, 1e-5, 1e-3, 1e-1)
FAR = 20.0  # times the error to be reached: other widths of the kernel do not make up for it
BETTER = 0.85  # of the error so far, that a reduction must reach
MOST_FEATURES = 6  # among which pairs are looked at
MOST_POINTS = 150  # that the surrogates are fitted to

Pairing = Literal["difference", "sum", "product", "ratio", "distance"]


@dataclass(frozen=True)
class Reduced:
    """A problem with fewer features, and the way back.

    Attributes:
        data: of the reduced problem: its features are those of `sources`.
        sources: what a reduced feature is: a feature, or from D on a node of `nodes`.
        nodes: over the features and each other.
        units_R: what a reduced feature is in the units of the data, over its value.
        unit: the same of the target.
        factors: powers of features that the target was divided by.
        factor_N: their product.
        size: what the target was divided by beside them.
    """

    data: LawData
    sources: tuple[int, ...]
    nodes: tuple[Node, ...]
    units_R: tuple[float, ...]
    unit: float
    factors: tuple[tuple[int, float], ...]
    factor_N: Tensor
    size: float

    @property
    def features(self) -> list[int]:
        """All of them."""
        return list(range(len(self.sources)))

    def back(self, formula: Formula, D: int, functions: Sequence[str]) -> Formula:
        """A formula for the reduced target as one for the target."""
        R = formula.features
        nodes = list(self.nodes)
        first = D + len(nodes)  # what edges call the first node of the formula
        weights = [0.0] * len(nodes)
        for node, weight in zip(formula.nodes, formula.weights, strict=True):
            edges: list[Edge] = []
            for edge in node.edges:
                is_node = edge.source >= R
                source = edge.source - R + first if is_node else self.sources[edge.source]
                edges.append(replace(edge, source=source))
            nodes.append(canonical(Node(node.kind, tuple(edges))))
            weights.append(weight * self.size)
        whole = Formula(D, tuple(nodes), tuple(weights), formula.bias * self.size)
        if not self.factors:
            return whole
        outer: list[Edge] = []
        for d, exponent in self.factors:
            edge = power_of(d, exponent, functions)
            assert edge is not None
            outer.append(edge)
        return _times(whole, outer)


def _times(formula: Formula, factors: Sequence[Edge]) -> Formula:
    """The formula multiplied by some factors: each of its terms, or the sum of them as one."""
    D = formula.features
    nodes = list(formula.nodes)
    terms = formula.outputs
    if not terms:
        nodes.append(as_product(list(factors)))
        return Formula(D, tuple(nodes), (*[0.0] * (len(nodes) - 1), formula.bias))
    scale = abs(formula.weights[terms[0]])
    edges: list[Edge] = []
    for j in terms:
        a = formula.weights[j] / scale
        b = formula.bias / scale if not edges else 0.0
        edges.append(Edge(D + j, "identity", a, b, fixed=not edges and a == 1.0))
    if len(edges) == 1 and edges[0].b == 0.0:
        nodes.append(as_product([*factors, replace(edges[0], a=1.0, fixed=True)]))
        scale = formula.weights[terms[0]]
    else:
        nodes.append(Node("sum", tuple(edges)))
        whole = Edge(D + len(nodes) - 1, "identity", fixed=True)
        nodes.append(as_product([*factors, whole]))
    return Formula(D, tuple(nodes), (*[0.0] * (len(nodes) - 1), scale))


def reduced(
    data: LawData,
    scales_D: Sequence[float],
    scale_y: float,
    features: Sequence[int],
    functions: Sequence[str],
) -> Reduced | None:
    """The problem after every reduction that the surrogates accept; None where there is none."""
    if data.loss != "squared" or len(features) < 2:
        return None
    state = _State(data, list(features), [scales_D[d] for d in features], functions)
    while len(state.sources) > 1 and (state.divided() or state.paired()):
        pass
    return state.result(scale_y)


class _State:
    """The reduced problem so far."""

    def __init__(
        self, data: LawData, features: list[int], units: list[float], functions: Sequence[str]
    ) -> None:
        self.data = data
        self.functions = functions
        self.D = len(data.x_DN)
        self.sources = features
        self.units = units
        self.unit = 1.0  # of the target
        self.values = [data.x_DN[d] for d in features]
        self.nodes: list[Node] = []
        self.factors: list[tuple[int, float]] = []
        self.factor_N = torch.ones_like(data.y_N)
        # Relative errors count where the target has one sign: its logarithm is smoother.
        self.in_logs = bool((data.y_N > 0).all()) or bool((data.y_N < 0).all())
        target_N1 = self._target(self.factor_N).unsqueeze(1)
        errors = {width: self._errors(self.values, target_N1, (width,))[0] for width in WIDTHS}
        # The width of the kernel that is looked at first.
        self.width = min(WIDTHS, key=lambda width: errors[width])
        self.error = errors[self.width]

    def _target(self, factor_N: Tensor) -> Tensor:
        """What the surrogates predict, of variance 1 where relative errors do not count."""
        z_N = (self.data.y_N / factor_N)[:MOST_POINTS]
        if self.in_logs:
            z_N = z_N.abs().log()
            return z_N - z_N.mean()
        z_N = z_N - z_N.mean()
        return z_N / z_N.std().clamp(min=1e-200)

    def _error_of(self, values: Sequence[Tensor], z_NP: Tensor, goal: float) -> list[float]:
        """Errors of the surrogates; only about where they are far from the `goal`."""
        errors = self._errors(values, z_NP, (self.width,))
        if min(errors) > FAR * goal:
            return errors
        others = tuple(width for width in WIDTHS if width != self.width)
        more = self._errors(values, z_NP, others)
        return [min(pair) for pair in zip(errors, more, strict=True)]

    def _errors(
        self, values: Sequence[Tensor], z_NP: Tensor, widths: tuple[float, ...]
    ) -> list[float]:
        x_RN = torch.stack([value_N[:MOST_POINTS] for value_N in values])
        self.data.work.surrogates(len(widths), x_RN.shape[1])
        return left_out_errors(x_RN, z_NP, RIDGES, widths=widths).tolist()

    def divided(self) -> bool:
        """Divide the target by the best power of a feature, and leave the feature out."""
        best = (BETTER * self.error, -1, 0.0)
        for r, source in enumerate(self.sources):
            exponents = [0.0]
            if source < self.D and bool((self.values[r].abs() > AWAY).all()):
                exponents = [e for e in EXPONENTS if self._allowed(source, e)]
            columns: list[Tensor] = []
            for exponent in exponents:
                factor_N = self.factor_N * _power(self.values[r], exponent)
                columns.append(self._target(factor_N))
            rest = [*self.values[:r], *self.values[r + 1 :]]
            errors = self._error_of(rest, torch.stack(columns, dim=1), best[0])
            for exponent, error in zip(exponents, errors, strict=True):
                best = min(best, (error, r, exponent))
        error, r, exponent = best
        if r < 0:
            return False
        if exponent != 0.0:
            self.factors.append((self.sources[r], exponent))
            self.factor_N = self.factor_N * _power(self.values[r], exponent)
            self.unit *= self.units[r] ** exponent
        for some in (self.sources, self.values, self.units):
            del some[r]
        self.error = error
        return True

    def _allowed(self, d: int, exponent: float) -> bool:
        if exponent == 0.0:
            return True
        positive = bool((self.data.x_DN[d] > 0).all())
        if not positive and not exponent.is_integer():
            return False
        return power_of(d, exponent, self.functions) is not None

    def paired(self) -> bool:
        """Replace two features by the best function of them."""
        if not 2 <= len(self.sources) <= MOST_FEATURES:
            return False
        target_N1 = self._target(self.factor_N).unsqueeze(1)
        best: tuple[float, int, int, Pairing | None] = (BETTER * self.error, -1, -1, None)
        for i, j in itertools.combinations(range(len(self.sources)), 2):
            rest = [value for r, value in enumerate(self.values) if r not in (i, j)]
            for pairing in self._pairings(i, j):
                together_N = self._pair(i, j, pairing)[1]
                error = self._error_of([*rest, together_N], target_N1, best[0])[0]
                if error < best[0]:
                    best = (error, i, j, pairing)
        error, i, j, pairing = best
        if pairing is None:
            return False
        node, value_N, unit = self._pair(i, j, pairing)
        self.nodes.append(node)
        for some in (self.sources, self.values, self.units):
            del some[j], some[i]
        self.sources.append(self.D + len(self.nodes) - 1)
        self.values.append(value_N)
        self.units.append(unit)
        self.error = error
        return True

    def _pairings(self, i: int, j: int) -> list[Pairing]:
        found: list[Pairing] = ["difference", "sum", "product"]
        if "square" in self.functions:
            found.append("distance")
        if "reciprocal" in self.functions and bool((self.values[j].abs() > AWAY).all()):
            found.append("ratio")
        return found

    def _pair(self, i: int, j: int, pairing: Pairing) -> tuple[Node, Tensor, float]:
        """The node, its value, and its unit; features count in the units of the data."""
        a, b = self.sources[i], self.sources[j]
        x_N, z_N = self.values[i], self.values[j]
        ratio = self.units[j] / self.units[i]
        first = Edge(a, "identity", fixed=True)
        if pairing == "product":
            node = as_product([first, Edge(b, "identity", fixed=True)])
            return node, x_N * z_N, self.units[i] * self.units[j]
        if pairing == "ratio":
            node = as_product([first, Edge(b, "reciprocal", fixed=True)])
            return node, x_N / z_N, self.units[i] / self.units[j]
        if pairing == "distance":
            node = Node("sum", (Edge(a, "square", fixed=True), Edge(b, "square", ratio)))
            return node, x_N**2 + (ratio * z_N) ** 2, self.units[i] ** 2
        signed = ratio if pairing == "sum" else -ratio
        return (
            Node("sum", (first, Edge(b, "identity", signed))),
            x_N + signed * z_N,
            self.units[i],
        )

    def result(self, scale_y: float) -> Reduced | None:
        """The reduced problem, if it is one."""
        if not self.factors and not self.nodes and len(self.sources) == self.D:
            return None
        if not self.factors and not self.nodes:
            return None  # features that do not matter alone: nothing that the search needs
        y_N = self.data.y_N / self.factor_N
        size = float(y_N.abs().max())
        if not (math.isfinite(size) and size > 0):
            return None
        w_N = self.data.w_N * self.factor_N**2
        data = LawData(
            torch.stack(self.values),
            y_N / size,
            w_N / w_N.mean(),
            "squared",
            self.data.primitives,
            points=self.data.points,
            work=self.data.work,
        )
        return Reduced(
            data,
            tuple(self.sources),
            tuple(self.nodes),
            tuple(self.units),
            scale_y / self.unit * size,
            tuple(self.factors),
            self.factor_N,
            size,
        )


def _power(value_N: Tensor, exponent: float) -> Tensor:
    return torch.ones_like(value_N) if exponent == 0.0 else value_N**exponent
