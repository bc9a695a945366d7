"""How formulas grow: a score for every possible small change, from one pass.

A change adds `amount * direction` to the formula's value, to first order. Its score is the drop of
the squared error that the best amount gives when the constants that are there may move too: `(r .
d)^2 / |d'|^2`, where r is the residual and d' the direction less its projection on the span of the
Jacobian. All atoms in all places are scored by a few matrix products; it is the gradient of the
loss by the weight of an edge that is not there yet, in its natural units. The best changes are
built and refitted.

Legend: N points, G atoms, K columns of a basis, S signatures, J nodes, V features and nodes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from gradnas.laws.engine.atoms import (
    Atom,
    Atoms,
)
from gradnas.laws.engine.batch import FormulaBatch
from gradnas.laws.engine.data import LawData, Work
from gradnas.laws.engine.edits import (
    add_factor,
    add_inside,
    add_term,
)
from gradnas.laws.engine.pairs import (
    best_pairs,
    best_sums,
    orthonormal,
)
from gradnas.laws.engine.refit import Fitted, curvature_and_residual, output_basis
from gradnas.laws.formula import Formula

# ---- one formula at its fit ----------------------------------------------------------------------


@dataclass(frozen=True)
class Tangent:
    """A formula at its fit, and the directions in which its constants move it.

    Attributes:
        residual_N: what is left to explain; for losses other than the squared error, of the
            quadratic model of the loss.
        root_w_N: roots of the points' weights in that model.
        jacobian_KN: derivatives by the constants inside the nodes.
        basis_KN: derivatives by the output weights and the bias.
        node_JN: values of the nodes.
        by_edge: node by node, the derivatives of its value by that of each edge, `(E, N)`.
        inputs: node by node, the derivatives of the output by each edge's input, `(E, N)`.
        x_VN: values of the features and nodes, which edges read.
    """

    residual_N: Tensor
    root_w_N: Tensor
    jacobian_KN: Tensor
    basis_KN: Tensor
    node_JN: Tensor
    by_edge: list[Tensor]
    inputs: list[Tensor]
    x_VN: Tensor


def tangent(fitted: Fitted, data: LawData) -> Tangent:
    """One forward and one backward pass."""
    batch = FormulaBatch([fitted.formula], data.primitives)
    values = batch.forward(data.x_DN, batch.theta())
    basis = output_basis(batch, values)
    eta = (batch.weight.unsqueeze(1) @ basis).squeeze(1)
    curvature, residual = curvature_and_residual(eta, data)
    jacobian, by_b_MN = batch.backward(values, batch.weight[:, :-1])
    by_edge_MN = batch.by_edge(values)
    node_JN = values.node_CJN[0]
    rows = [batch.rows_of(j) for j in range(len(fitted.formula.nodes))]
    return Tangent(
        # The gradient divided by the curvature is the step to the minimum of the quadratic model.
        residual_N=(residual / curvature)[0],
        root_w_N=curvature[0].sqrt(),
        jacobian_KN=jacobian[0],
        basis_KN=basis[0],
        node_JN=node_JN,
        by_edge=[by_edge_MN[own] for own in rows],
        inputs=[batch.by_input(values, by_b_MN, own) for own in rows],
        x_VN=torch.cat([data.x_DN, node_JN]),
    )


# ---- changes -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Change:
    """A formula that a change leads to, not yet refitted, and the drop of the error it promises."""

    gain: float
    formula: Formula


@dataclass(frozen=True)
class _Option:
    """A change that was scored and not built yet."""

    kind: str
    gain: float
    build: Callable[[], Formula]

    @property
    def cost(self) -> int:
        """What it adds to the complexity, about."""
        return COSTS[self.kind]


# Constants and operations, as `Formula.complexity` counts them, for atoms of one function without a
# constant of their own. A term: its function, its weight, and the addition. A pair: two functions,
# their product, and weight and addition. A sum: two terms. A factor: its function and the product.
# Inside an edge: the function, its amount, and the addition there.
COSTS = {"term": 3, "pair": 5, "sum": 6, "factor": 2, "swap": 0, "inside": 3}


def changes(
    fitted: Fitted, data: LawData, small: Atoms, large: Atoms, count: int, inside: bool = True
) -> list[Change]:
    """The most promising changes of a formula, by the description length that the score promises.

    Another term (an atom of `large`, or a product of two of `small`), two terms more for a formula
    of one, another factor of a term or another in the place of one, and something added to the
    input of any edge; each kind has its share of the `count`.
    """
    formula = fitted.formula
    at_fit = tangent(fitted, data)
    ones_N = torch.ones_like(at_fit.root_w_N)
    span_KN = torch.cat([at_fit.jacobian_KN, at_fit.basis_KN, ones_N.unsqueeze(0)])
    q_KN = orthonormal(span_KN * at_fit.root_w_N)
    num_terms = len(formula.outputs)

    # Another term wants another bias, and one of 0.0 counts as none and would not be fitted.
    free = replace(formula, bias=formula.bias or 1e-3)
    options: list[_Option] = []
    # Two atoms at once: neither of a product or of a sum need explain anything alone.
    for gain, a, b in best_pairs(at_fit.residual_N, span_KN, at_fit.root_w_N, small, small, count):
        options.append(_Option("pair", gain, partial(add_term, free, [a, b])))
    if num_terms <= 1:
        for gain, a, b in best_sums(at_fit.residual_N, q_KN, at_fit.root_w_N, large, count):
            options.append(_Option("sum", gain, partial(_add_two_terms, free, a, b)))

    num_sums = len(large.coarse) ** 2 if num_terms <= 1 else 0
    data.work.pairs(products=len(small.atoms) ** 2, sums=num_sums)
    place = _Place(data.work, at_fit, q_KN, at_fit.residual_N, 0.0, count)
    options += place.scored("term", ones_N, large, partial(_new_term, free, large))
    for j, weight in enumerate(formula.weights):
        if weight != 0.0:
            options += _on_term(formula, data.work, at_fit, j, large, count)
        if inside:
            options += _in_edges(formula, at_fit, j, place, small)

    squared = float(((at_fit.residual_N * at_fit.root_w_N) ** 2).sum())
    most_promising = _chosen(options, squared, data.n, count)
    return [Change(option.gain, option.build()) for option in most_promising]


def _chosen(options: list[_Option], squared: float, n: float, count: int) -> list[_Option]:
    """The best options by the description length they promise, each kind with a share of its own.

    Args:
        squared: the squared error that there is.
        n: the number of points.
    """

    def promise(option: _Option) -> float:
        if not squared > 0:
            return 0.0
        # A score is of first order: it may promise more than there is to gain.
        left = max(squared - option.gain, 1e-12 * squared)
        return n * math.log(left / squared) + option.cost * math.log(n)

    # Scores of one kind are often all alike, such as the same factor in other places. Without
    # shares they would keep every other kind out.
    share = max(2, count // 5)
    chosen: list[_Option] = []
    others: list[_Option] = []
    taken: dict[str, int] = {}
    for option in sorted(options, key=promise):
        taken[option.kind] = taken.get(option.kind, 0) + 1
        if taken[option.kind] <= share:
            chosen.append(option)
        else:
            others.append(option)
    missing = max(0, count - len(chosen))
    return chosen + others[:missing]


def _new_term(formula: Formula, atoms: Atoms, g: int, amount: float) -> Formula:
    del amount  # the output weight of a new term is solved for
    return add_term(formula, [atoms.atoms[g]])


def _add_two_terms(formula: Formula, a: Atom, b: Atom) -> Formula:
    return add_term(add_term(formula, [a]), [b])


def _new_factor(
    formula: Formula, at: int, instead: int | None, atoms: Atoms, g: int, amount: float
) -> Formula:
    del amount  # it goes into the output weight, which is solved for
    return add_factor(formula, at, atoms.atoms[g], instead=instead)


def _on_term(
    formula: Formula, work: Work, at_fit: Tangent, j: int, atoms: Atoms, count: int
) -> list[_Option]:
    """Factors for a term of the output.

    The term itself gives way, so it is part of what is to be explained.
    """
    weight = formula.weights[j]
    node = formula.nodes[j]
    # The basis has a row for each node, and one for the bias. Without the Jacobian: with the term
    # go the constants inside it.
    others = at_fit.basis_KN.clone()
    others[j] = 0.0
    span_KN = torch.cat([others, torch.ones_like(others[:1])])
    q_KN = orthonormal(span_KN * at_fit.root_w_N)
    open_N = at_fit.residual_N + weight * at_fit.node_JN[j]

    # What taking the term out costs, after the other terms have made up for it as far as they can.
    full_N = open_N * at_fit.root_w_N
    full_N = full_N - (full_N @ q_KN.T) @ q_KN
    lost = float((full_N**2).sum() - (at_fit.residual_N**2 * at_fit.root_w_N**2).sum())
    place = _Place(work, at_fit, q_KN, open_N, lost, count)

    build = partial(_new_factor, formula, j, None, atoms)
    options = place.scored("factor", at_fit.node_JN[j], atoms, build)
    if node.kind == "product" and len(node.edges) > 1:
        for e in range(len(node.edges)):
            # The derivative of a product by one factor is the product of the others.
            build = partial(_new_factor, formula, j, e, atoms)
            options += place.scored("swap", at_fit.by_edge[j][e], atoms, build)
    return options


@dataclass(frozen=True)
class _Inside:
    """Builds a formula with an atom added to the input of an edge.

    Attributes:
        largest: bound of the amount: the score is first order, so a long step is not to be trusted.
            As a share of the source where the atom is multiplied by it.
    """

    formula: Formula
    node: int
    edge: int
    times_source: bool
    largest: float
    atoms: Atoms

    def __call__(self, g: int, amount: float) -> Formula:
        # The amount is of the values that were scored, which are the atom's over its size.
        bounded = max(-self.largest, min(self.largest, amount)) / self.atoms.sizes[g]
        atom = self.atoms.atoms[g]
        return add_inside(self.formula, self.node, self.edge, atom, bounded, self.times_source)


def _in_edges(
    formula: Formula, at_fit: Tangent, j: int, place: _Place, atoms: Atoms
) -> list[_Option]:
    """Additions to the inputs of a node's edges."""
    node = formula.nodes[j]
    options: list[_Option] = []
    for e, edge in enumerate(node.edges):
        alone = len(node.edges) == 1 or node.kind == "sum"
        if edge.function == "identity" and alone:
            continue  # the same as another term
        source_N = at_fit.x_VN[edge.source]
        size = float(source_N.abs().mean())
        by_input_N = at_fit.inputs[j][e]
        # The input s becomes s + amount * atom, or s + amount * s * atom.
        plus = _Inside(formula, j, e, False, 0.3 * size, atoms)
        options += place.scored("inside", by_input_N, atoms, plus)
        times = _Inside(formula, j, e, True, 0.3, atoms)
        options += place.scored("inside", by_input_N * source_N, atoms, times)
    return options


@dataclass(frozen=True)
class _Place:
    """Where atoms may go.

    Attributes:
        q_KN: orthonormal; what the constants that are there explain anyway.
        residual_N: what is to be explained there.
        lost: squared error that comes with making room.
        count: options that are kept.
    """

    work: Work
    at_fit: Tangent
    q_KN: Tensor
    residual_N: Tensor
    lost: float
    count: int

    def scored(
        self, kind: str, times_N: Tensor, atoms: Atoms, build: Callable[[int, float], Formula]
    ) -> list[_Option]:
        """The best atoms, multiplied by `times_N`; one per signature.

        Args:
            build: the formula with atom g, and the amount of it that is best to first order.
        """
        if not atoms.atoms or not bool(torch.isfinite(times_N).all()):
            return []
        self.work.places(atoms.value_GN.numel())
        q_KN = self.q_KN
        d_GN = atoms.value_GN * (times_N * self.at_fit.root_w_N)
        size_G = (d_GN**2).sum(-1)
        # |d'|^2 by Pythagoras, without forming d'.
        left_G = size_G - ((d_GN @ q_KN.T) ** 2).sum(-1)
        r_N = self.residual_N * self.at_fit.root_w_N
        r_N = r_N - (r_N @ q_KN.T) @ q_KN
        along_G = d_GN @ r_N
        # Where nearly nothing of d is left, the difference above is rounding error.
        usable_G = left_G > 1e-8 * size_G
        divisor_G = torch.where(usable_G, left_G, 1.0)
        amount_G = torch.where(usable_G, along_G / divisor_G, 0.0)
        # (r . d)^2 / |d'|^2, of the atoms that are usable.
        gain_G = (along_G * amount_G).numpy()
        # The atoms of a signature stand side by side: `reduceat` takes the largest of each run.
        best_S = np.maximum.reduceat(gain_G, atoms.starts[:-1])
        options: list[_Option] = []
        for s in np.argsort(-best_S, kind="stable")[: self.count].tolist():
            if not best_S[s] > 0:
                break
            g = int(atoms.starts[s] + gain_G[atoms.members(s)].argmax())
            new = partial(build, g, float(amount_G[g]))
            options.append(_Option(kind, float(best_S[s]) - self.lost, new))
        return options
