"""How formulas grow: the score of every possible small change, from one pass, and the best of them refitted.

A change adds `amount * direction` to the formula's value, to first order. Its score is the drop of the squared error
that the best amount gives when the constants that are there may move too: `(r . d)^2 / |d'|^2`, where r is the residual
and d' the direction less its projection on the span of the Jacobian. All atoms in all places are scored by a few matrix
products; it is the gradient of the loss by the weight of an edge that is not there yet, in its natural units.

Legend: N points, G atoms, K columns of a basis, S places.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gradnas.law_batch import FormulaBatch
from gradnas.law_refit import Fitted, LawData, _basis, _curvature
from gradnas.law_terms import Atom, Atoms, add_factor, add_inside, add_term
from gradnas.spaces.equation_formula import Formula


@dataclass(frozen=True)
class Change:
    """A formula that a change leads to, not yet refitted, and the error that it promises to remove."""

    gain: float
    formula: Formula


def _orthonormal(basis_KN: Tensor) -> Tensor:
    """An orthonormal basis of the span of the rows."""
    scaled = basis_KN / basis_KN.norm(dim=1, keepdim=True).clamp(min=1e-200)
    _, size, rows = torch.linalg.svd(scaled, full_matrices=False)
    return rows[size > 1e-9 * size.max()]


def _best_of_signatures(score_XG: Tensor, atoms: Atoms) -> tuple[Tensor, Tensor]:
    """Per signature the largest score and its atom: two tensors `(X, signatures)`."""
    found = [part.max(dim=-1) for part in score_XG.split(atoms.lengths, dim=-1)]
    offset = torch.tensor(atoms.starts[:-1])
    return torch.stack([f.values for f in found], -1), torch.stack([f.indices for f in found], -1) + offset


def best_pairs(
    residual_N: Tensor, basis_KN: Tensor, root_w_N: Tensor, first: Atoms, second: Atoms, count: int
) -> list[tuple[float, Atom, Atom]]:
    """Products of two atoms that explain most of a residual, one per pair of signatures."""
    if not first.atoms or not second.atoms:
        return []
    q_KN = _orthonormal(basis_KN * root_w_N).float()
    a, b = first.value_GN.float(), (second.value_GN * root_w_N).float()
    size = (a * a) @ (b * b).T
    left = size.clone()
    for q_N in q_KN:
        left -= ((a * q_N) @ b.T) ** 2
    score = ((a * (residual_N * root_w_N).float()) @ b.T) ** 2 / torch.where(left > 1e-5 * size, left, torch.inf)
    best, column = _best_of_signatures(score, second)
    value, row = _best_of_signatures(best.T.contiguous(), first)  # (signatures of second, of first)
    if first is second:
        value = value.tril()
    order = torch.argsort(value.flatten(), descending=True)[:count].tolist()
    width = value.shape[1]
    found = []
    for k in order:
        s, f = divmod(k, width)
        g = int(row[s, f])
        gain = float(value[s, f])
        if gain > 0:
            found.append((gain, first.atoms[g], second.atoms[int(column[g, s])]))
    return found


@dataclass(frozen=True)
class Tangent:
    """A formula at its fit: residual, weights of the points, and the directions in which its constants move it."""

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
    basis = _basis(batch, values)
    eta = (batch.weight.unsqueeze(1) @ basis).squeeze(1)
    curvature, residual = _curvature(eta, data)
    jacobian, inputs = batch.backward(values, batch.weight[:, :-1])
    return Tangent(
        (residual / curvature)[0],
        curvature[0].sqrt(),
        jacobian[0],
        basis[0],
        values.node_CJN[0],
        [part[0][0] for part in values.parts],
        [part[0] for part in inputs],
        torch.cat([data.x_DN, values.node_CJN[0]]),
    )


def changes(fitted: Fitted, data: LawData, small: Atoms, large: Atoms, count: int, inside: bool = True) -> list[Change]:
    """The most promising changes of a formula.

    Another term (an atom of `large`, or a product of two of `small`), another factor of a term or another in the place
    of one, and something added to the input of any edge.
    """
    formula = fitted.formula
    t = tangent(fitted, data)
    span = torch.cat([t.jacobian_KN, t.basis_KN, torch.ones_like(t.root_w_N).unsqueeze(0)])
    found: list[Change] = []
    free = replace(formula, bias=formula.bias or 1e-3)
    for gain, a, b in best_pairs(t.residual_N, span, t.root_w_N, small, small, count):
        found.append(Change(gain, add_term(free, [a, b])))
    ones_N = torch.ones_like(t.root_w_N)
    found += _scored(
        t, span, t.residual_N, ones_N, large, count, 0.0, lambda g, amount: add_term(free, [large.atoms[g]])
    )
    for j, (node, weight) in enumerate(zip(formula.nodes, formula.weights, strict=True)):
        if weight != 0.0:
            # The term itself gives way, so it counts as part of what is to be explained.
            others = t.basis_KN.clone()
            others[j] = 0.0
            others = torch.cat([others, ones_N.unsqueeze(0)])
            open_N = t.residual_N + weight * t.node_JN[j]
            q = _orthonormal(others * t.root_w_N)
            full = open_N * t.root_w_N
            full = full - (full @ q.T) @ q
            lost = float((full**2).sum() - (t.residual_N**2 * t.root_w_N**2).sum())
            found += _scored(
                t, others, open_N, t.node_JN[j], large, count, lost,
                lambda g, amount, j=j: add_factor(formula, j, large.atoms[g]),
            )  # fmt: skip
            if node.kind == "product" and len(node.edges) > 1:
                for e in range(len(node.edges)):
                    found += _scored(
                        t, others, open_N, t.by_edge[j][e], large, count, lost,
                        lambda g, amount, j=j, e=e: add_factor(formula, j, large.atoms[g], instead=e),
                    )  # fmt: skip
        if not inside:
            continue
        for e, edge in enumerate(node.edges):
            if (
                edge.function == "identity"
                and (len(node.edges) == 1 or node.kind == "sum")
                and edge.source < formula.features
            ):
                continue
            source_N = t.x_VN[edge.source]
            for times in (False, True):
                push_N = t.inputs[j][e] * (source_N if times else 1.0)
                size = float(source_N.abs().mean()) if not times else 1.0

                def build(
                    g: int, amount: float, j: int = j, e: int = e, times: bool = times, size: float = size
                ) -> Formula:
                    largest = 0.3 * size
                    scale = float(_unscaled(small, g, data))
                    bounded = max(-largest, min(largest, amount)) / scale
                    return add_inside(formula, j, e, small.atoms[g], bounded, times)

                found += _scored(t, span, t.residual_N, push_N, small, count, 0.0, build)
    found.sort(key=lambda change: -change.gain)
    return found[:count]


def _unscaled(atoms: Atoms, g: int, data: LawData) -> float:
    """Size of the atom that `value_GN` holds with size 1."""
    from gradnas.spaces.equation_formula import edge_value

    atom = atoms.atoms[g]
    if atom.stem is not None:
        value = Formula(len(data.x_DN), (atom.stem,), (1.0,))(data.x_DN.T, data.primitives)
    else:
        value = data.x_DN[atom.edge.source]
    return float(edge_value(atom.edge, value, data.primitives).abs().max())


def _scored(
    t: Tangent,
    span_KN: Tensor,
    residual_N: Tensor,
    times_N: Tensor,
    atoms: Atoms,
    count: int,
    lost: float,
    build: Callable[[int, float], Formula],
) -> list[Change]:
    """The best atoms in one place, one per signature."""
    if not atoms.atoms or not bool(torch.isfinite(times_N).all()):
        return []
    q = _orthonormal(span_KN * t.root_w_N)
    d_GN = atoms.value_GN * (times_N * t.root_w_N)
    size = (d_GN**2).sum(-1)
    left = size - ((d_GN @ q.T) ** 2).sum(-1)
    r_N = residual_N * t.root_w_N
    r_N = r_N - (r_N @ q.T) @ q
    along = d_GN @ r_N
    usable = left > 1e-8 * size
    score = torch.where(usable, along**2 / torch.where(usable, left, 1.0), 0.0)
    best, index = _best_of_signatures(score.unsqueeze(0), atoms)
    found = []
    for s in torch.argsort(best[0], descending=True)[:count].tolist():
        gain = float(best[0, s])
        if gain > 0:
            g = int(index[0, s])
            found.append(Change(gain - lost, build(g, float(along[g] / left[g]))))
    return found


def deduplicated(items: Sequence[Change], key: Callable[[Formula], object]) -> list[Change]:
    """The first of each structure."""
    seen: set[object] = set()
    kept = []
    for change in items:
        k = key(change.formula)
        if k not in seen:
            seen.add(k)
            kept.append(change)
    return kept
