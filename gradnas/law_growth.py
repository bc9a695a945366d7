"""How formulas grow: the score of every possible small change, from one pass, and the best of them refitted.

A change adds `amount * direction` to the formula's value, to first order. Its score is the drop of the squared error
that the best amount gives when the constants that are there may move too: `(r . d)^2 / |d'|^2`, where r is the residual
and d' the direction less its projection on the span of the Jacobian. All atoms in all places are scored by a few matrix
products; it is the gradient of the loss by the weight of an edge that is not there yet, in its natural units.

Legend: N points, G atoms, K columns of a basis, S places.
"""

from __future__ import annotations

import math
from collections.abc import Callable
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
    best = score_XG[:, atoms.members_SL].max(dim=-1)
    return best.values, atoms.members_SL.gather(1, best.indices.T).T


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


def best_sums(
    residual_N: Tensor, q_KN: Tensor, root_w_N: Tensor, atoms: Atoms, count: int
) -> list[tuple[float, Atom, Atom]]:
    """Pairs of atoms that together explain most of a residual as two terms, one per pair of signatures.

    The drop of the squared error by both at once, from their inner products: what neither shows alone is found, too.
    """
    if len(atoms.members_SL) < 2:
        return []
    p = atoms.value_GN * root_w_N
    p = p - (p @ q_KN.T) @ q_KN
    size = p.norm(dim=1)
    usable = size > 1e-5 * (atoms.value_GN * root_w_N).norm(dim=1)
    p = torch.where(usable.unsqueeze(1), p / size.clamp(min=1e-200).unsqueeze(1), 0.0)
    r = residual_N * root_w_N
    along = p @ (r - (r @ q_KN.T) @ q_KN)
    cosine = (p @ p.T).float()
    b = along.float()
    together = (b * b).unsqueeze(0) + (b * b).unsqueeze(1) - 2.0 * b.unsqueeze(0) * b.unsqueeze(1) * cosine
    left = 1.0 - cosine * cosine
    gain = torch.where(left > 1e-4, together / left.clamp(min=1e-4), 0.0)
    best, column = _best_of_signatures(gain, atoms)
    value, row = _best_of_signatures(best.T.contiguous(), atoms)
    value = value.tril()
    found = []
    for k in torch.argsort(value.flatten(), descending=True)[:count].tolist():
        s, f = divmod(k, value.shape[1])
        g = int(row[s, f])
        if float(value[s, f]) > 0:
            found.append((float(value[s, f]), atoms.atoms[g], atoms.atoms[int(column[g, s])]))
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


@dataclass(frozen=True)
class _Option:
    """A change that was scored and not built yet; `cost` is what it adds to the complexity, about."""

    kind: str
    gain: float
    cost: int
    build: Callable[[], Formula]


COSTS = {"term": 3, "pair": 5, "sum": 6, "factor": 2, "swap": 0, "inside": 3}


def changes(fitted: Fitted, data: LawData, small: Atoms, large: Atoms, count: int, inside: bool = True) -> list[Change]:
    """The most promising changes of a formula, by the description length that the score promises.

    Another term (an atom of `large`, or a product of two of `small`), two terms more for a formula of one, another
    factor of a term or another in the place of one, and something added to the input of any edge; each kind has its
    share of the `count`.
    """
    formula = fitted.formula
    t = tangent(fitted, data)
    ones_N = torch.ones_like(t.root_w_N)
    span = torch.cat([t.jacobian_KN, t.basis_KN, ones_N.unsqueeze(0)])
    free = replace(formula, bias=formula.bias or 1e-3)
    options = [
        _Option("pair", gain, COSTS["pair"], lambda a=a, b=b: add_term(free, [a, b]))
        for gain, a, b in best_pairs(t.residual_N, span, t.root_w_N, small, small, count)
    ]
    q = _orthonormal(span * t.root_w_N)
    if sum(weight != 0.0 for weight in formula.weights) <= 1:
        options += [
            _Option("sum", gain, COSTS["sum"], lambda a=a, b=b: add_term(add_term(free, [a]), [b]))
            for gain, a, b in best_sums(t.residual_N, q, t.root_w_N, large, count)
        ]
    place = _Place(t, q, t.residual_N, 0.0, count)
    options += place.scored("term", ones_N, large, lambda g, amount: add_term(free, [large.atoms[g]]))
    for j, weight in enumerate(formula.weights):
        if weight != 0.0:
            options += _on_term(formula, t, j, large, count)
        if inside:
            options += _in_edges(formula, t, j, place, small)
    squared = float(((t.residual_N * t.root_w_N) ** 2).sum())
    n = data.n

    def promise(option: _Option) -> float:
        left = max(squared - option.gain, 1e-12 * squared)
        return n * math.log(left / squared) + option.cost * math.log(n) if squared > 0 else 0.0

    options.sort(key=promise)
    share, chosen = max(2, count // 5), []
    taken: dict[str, int] = {}
    for option in options:
        taken[option.kind] = taken.get(option.kind, 0) + 1
        if taken[option.kind] <= share:
            chosen.append(option)
    kept = {id(option) for option in chosen}
    chosen += [option for option in options if id(option) not in kept][: max(0, count - len(chosen))]
    return [Change(option.gain, option.build()) for option in chosen]


def _on_term(formula: Formula, t: Tangent, j: int, atoms: Atoms, count: int) -> list[_Option]:
    """Factors for a term of the output: the term itself gives way, so it is part of what is to be explained."""
    weight, node = formula.weights[j], formula.nodes[j]
    others = t.basis_KN.clone()
    others[j] = 0.0
    q = _orthonormal(torch.cat([others, torch.ones_like(others[:1])]) * t.root_w_N)
    open_N = t.residual_N + weight * t.node_JN[j]
    full = open_N * t.root_w_N
    full = full - (full @ q.T) @ q
    lost = float((full**2).sum() - (t.residual_N**2 * t.root_w_N**2).sum())
    place = _Place(t, q, open_N, lost, count)
    found = place.scored("factor", t.node_JN[j], atoms, lambda g, amount: add_factor(formula, j, atoms.atoms[g]))
    if node.kind == "product" and len(node.edges) > 1:
        for e in range(len(node.edges)):
            found += place.scored(
                "swap", t.by_edge[j][e], atoms, lambda g, amount, e=e: add_factor(formula, j, atoms.atoms[g], instead=e)
            )
    return found


def _in_edges(formula: Formula, t: Tangent, j: int, place: _Place, atoms: Atoms) -> list[_Option]:
    """Additions to the inputs of a node's edges."""
    node, found = formula.nodes[j], []
    for e, edge in enumerate(node.edges):
        if edge.function == "identity" and (len(node.edges) == 1 or node.kind == "sum"):
            continue  # the same as another term
        source_N = t.x_VN[edge.source]
        size = float(source_N.abs().mean())
        for times in (False, True):
            largest = 0.3 if times else 0.3 * size

            def build(g: int, amount: float, e: int = e, times: bool = times, largest: float = largest) -> Formula:
                bounded = max(-largest, min(largest, amount)) / atoms.size(g)
                return add_inside(formula, j, e, atoms.atoms[g], bounded, times)

            found += place.scored("inside", t.inputs[j][e] * (source_N if times else 1.0), atoms, build)
    return found


@dataclass(frozen=True)
class _Place:
    """Where atoms may go: what is to be explained there, and what the constants that are there explain anyway."""

    t: Tangent
    q_KN: Tensor
    residual_N: Tensor
    lost: float
    count: int

    def scored(self, kind: str, times_N: Tensor, atoms: Atoms, build: Callable[[int, float], Formula]) -> list[_Option]:
        """The best atoms, multiplied by `times_N`; one per signature."""
        if not atoms.atoms or not bool(torch.isfinite(times_N).all()):
            return []
        q = self.q_KN
        d_GN = atoms.value_GN * (times_N * self.t.root_w_N)
        size = (d_GN**2).sum(-1)
        left = size - ((d_GN @ q.T) ** 2).sum(-1)
        r_N = self.residual_N * self.t.root_w_N
        r_N = r_N - (r_N @ q.T) @ q
        along = d_GN @ r_N
        usable = left > 1e-8 * size
        amount = torch.where(usable, along / torch.where(usable, left, 1.0), 0.0)
        best, index = _best_of_signatures((along * amount).unsqueeze(0), atoms)
        top = torch.topk(best[0], min(self.count, best.shape[1]))
        members = index[0][top.indices].tolist()
        amounts = amount[members].tolist()
        return [
            _Option(kind, gain - self.lost, COSTS[kind], lambda g=g, a=a: build(g, a))
            for gain, g, a in zip(top.values.tolist(), members, amounts, strict=True)
            if gain > 0
        ]


def most_telling(data: LawData, atoms: Atoms, count: int) -> list[int]:
    """The features whose atoms explain most, one after the other (orthogonal matching pursuit)."""
    root_w = data.w_N.sqrt()
    d_GN = atoms.value_GN * root_w
    basis = root_w.unsqueeze(0)
    chosen: list[int] = []
    for _ in range(count):
        q = _orthonormal(basis)
        rest = data.y_N * root_w
        rest = rest - (rest @ q.T) @ q
        left = d_GN - (d_GN @ q.T) @ q
        size = (left**2).sum(1)
        score = torch.where(size > 1e-8 * (d_GN**2).sum(1), (left @ rest) ** 2 / size.clamp(min=1e-300), -1.0)
        for g, atom in enumerate(atoms.atoms):
            if atom.edge.source in chosen:
                score[g] = -1.0
        g = int(score.argmax())
        if float(score[g]) < 0:
            break
        chosen.append(atoms.atoms[g].edge.source)
        basis = torch.cat([basis, d_GN[g : g + 1]])
    return chosen
