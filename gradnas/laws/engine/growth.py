"""How formulas grow: the score of every possible small change, from one pass, and the best of them
refitted.

A change adds `amount * direction` to the formula's value, to first order. Its score is the drop of
the squared error that the best amount gives when the constants that are there may move too: `(r .
d)^2 / |d'|^2`, where r is the residual and d' the direction less its projection on the span of the
Jacobian. All atoms in all places are scored by a few matrix products; it is the gradient of the
loss by the weight of an edge that is not there yet, in its natural units.

Legend: N points, G atoms, K columns of a basis, S places.
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
    add_factor,
    add_inside,
    add_term,
)
from gradnas.laws.engine.batch import FormulaBatch
from gradnas.laws.engine.refit import (
    Fitted,
    LawData,
    _basis,
    _curvature,
)
from gradnas.laws.formula import Formula

ROWS = 96  # of atoms, in one block of scores of pairs


@dataclass(frozen=True)
class Change:
    """A formula that a change leads to, not yet refitted, and the error that it promises to
    remove."""

    gain: float
    formula: Formula


def _orthonormal(basis_KN: Tensor) -> Tensor:
    """An orthonormal basis of the span of the rows."""
    scaled = basis_KN / basis_KN.norm(dim=1, keepdim=True).clamp(min=1e-200)
    _, size, rows = torch.linalg.svd(scaled, full_matrices=False)
    return rows[size > 1e-9 * size.max()]


def _best_two(
    score: Callable[[np.ndarray, np.ndarray], Tensor],
    first: Atoms,
    second: Atoms,
    count: int,
    coarse: bool,
) -> list[tuple[float, Atom, Atom]]:
    """The best pairs of an atom of `first` and one of `second`, one per pair of signatures, best
    first.

    Args:
        coarse: pairs of signatures are compared by their coarse atoms; all atoms are looked at in
            the best of them.
        score: gains of the pairs of some atoms of `first` with some of `second`; symmetric if the
            two are the same. It is called for some signatures at a time, so that its matrices stay
            in the cache.
    """
    same = first is second
    (row, rows), (column, columns) = (
        (a.coarse, a.coarse_starts) if coarse else (np.arange(len(a.atoms)), a.starts)
        for a in (first, second)
    )
    best = np.zeros((len(rows) - 1, len(columns) - 1), dtype=np.float32)
    s = 0
    while s < len(best):
        t = max(s + 1, int(np.searchsorted(rows, rows[s] + ROWS, side="right")) - 1)
        width = t if same else best.shape[1]  # of a symmetric matrix half is enough
        block = score(row[rows[s] : rows[t]], column[: columns[width]]).numpy()
        by_row = np.maximum.reduceat(block, rows[s:t] - rows[s], axis=0)
        best[s:t, :width] = np.maximum.reduceat(by_row, columns[:width], axis=1)
        s = t
    if same:
        best = np.tril(best)
    found = []
    for k in np.argsort(-best, axis=None, kind="stable")[: 2 * count if coarse else count].tolist():
        i, j = divmod(k, best.shape[1])
        if not best[i, j] > 0:
            break
        rows_i, columns_j = first.members(i), second.members(j)
        block = score(rows_i, columns_j)
        g, h = divmod(int(block.argmax()), block.shape[1])
        found.append((float(block[g, h]), first.atoms[rows_i[g]], second.atoms[columns_j[h]]))
    return sorted(found, key=lambda entry: -entry[0])[:count]


def best_pairs(
    residual_N: Tensor, basis_KN: Tensor, root_w_N: Tensor, first: Atoms, second: Atoms, count: int
) -> list[tuple[float, Atom, Atom]]:
    """Products of two atoms that explain most of a residual, one per pair of signatures."""
    if not first.atoms or not second.atoms:
        return []
    q_KN = _orthonormal(basis_KN * root_w_N).float()
    a, b = first.value_GN.float(), (second.value_GN * root_w_N).float()
    r_N = (residual_N * root_w_N).float()

    def score(rows: np.ndarray, columns: np.ndarray) -> Tensor:
        u, v = a[rows], b[columns].T
        left = (u * u) @ (v * v)
        least = 1e-5 * left
        for q_N in q_KN:
            along = (u * q_N) @ v
            left.addcmul_(along, along, value=-1.0)
        gain = ((u * r_N) @ v).square_().div_(left)
        return gain.masked_fill_(left <= least, 0.0)

    return _best_two(score, first, second, count, coarse=False)


def best_sums(
    residual_N: Tensor, q_KN: Tensor, root_w_N: Tensor, atoms: Atoms, count: int
) -> list[tuple[float, Atom, Atom]]:
    """Pairs of atoms that together explain most of a residual as two terms, one per pair of
    signatures.

    The drop of the squared error by both at once, from their inner products: what neither shows
    alone is found, too. For unit vectors that explain b and b' of it and meet at the cosine c it is
    `b^2 + (b' - c b)^2 / (1 - c^2)`.
    """
    if len(atoms.starts) < 3:
        return []
    p = atoms.value_GN * root_w_N
    p = p - (p @ q_KN.T) @ q_KN
    size = p.norm(dim=1)
    usable = size > 1e-5 * (atoms.value_GN * root_w_N).norm(dim=1)
    p = torch.where(usable.unsqueeze(1), p / size.clamp(min=1e-200).unsqueeze(1), 0.0)
    r = residual_N * root_w_N
    b = (p @ (r - (r @ q_KN.T) @ q_KN)).float()
    p, squared = p.float(), b * b

    def score(rows: np.ndarray, columns: np.ndarray) -> Tensor:
        cosine = p[rows] @ p[columns].T
        gain = torch.addcmul(b[columns], cosine, b[rows].unsqueeze(1), value=-1.0).square_()
        left = cosine.square_().neg_().add_(1.0)
        gain.div_(left.clamp(min=1e-4)).add_(squared[rows].unsqueeze(1))
        return gain.masked_fill_(left <= 1e-4, 0.0)

    return _best_two(score, atoms, atoms, count, coarse=True)


@dataclass(frozen=True)
class Tangent:
    """A formula at its fit: residual, weights of the points, and the directions in which its
    constants move it."""

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
    """A change that was scored and not built yet; `cost` is what it adds to the complexity,
    about."""

    kind: str
    gain: float
    cost: int
    build: Callable[[], Formula]


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
    places = 1 + 3 * sum(weight != 0.0 for weight in formula.weights)
    data.work.scores(len(small.atoms) ** 2, len(large.coarse) ** 2, places * large.value_GN.numel())
    place = _Place(t, q, t.residual_N, 0.0, count)
    options += place.scored(
        "term", ones_N, large, lambda g, amount: add_term(free, [large.atoms[g]])
    )
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
    chosen += [option for option in options if id(option) not in kept][
        : max(0, count - len(chosen))
    ]
    return [Change(option.gain, option.build()) for option in chosen]


def _on_term(formula: Formula, t: Tangent, j: int, atoms: Atoms, count: int) -> list[_Option]:
    """Factors for a term of the output: the term itself gives way, so it is part of what is to be
    explained."""
    weight, node = formula.weights[j], formula.nodes[j]
    others = t.basis_KN.clone()
    others[j] = 0.0
    q = _orthonormal(torch.cat([others, torch.ones_like(others[:1])]) * t.root_w_N)
    open_N = t.residual_N + weight * t.node_JN[j]
    full = open_N * t.root_w_N
    full = full - (full @ q.T) @ q
    lost = float((full**2).sum() - (t.residual_N**2 * t.root_w_N**2).sum())
    place = _Place(t, q, open_N, lost, count)
    found = place.scored(
        "factor", t.node_JN[j], atoms, lambda g, amount: add_factor(formula, j, atoms.atoms[g])
    )
    if node.kind == "product" and len(node.edges) > 1:
        for e in range(len(node.edges)):
            found += place.scored(
                "swap",
                t.by_edge[j][e],
                atoms,
                lambda g, amount, e=e: add_factor(formula, j, atoms.atoms[g], instead=e),
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

            def build(
                g: int, amount: float, e: int = e, times: bool = times, largest: float = largest
            ) -> Formula:
                bounded = max(-largest, min(largest, amount)) / atoms.size(g)
                return add_inside(formula, j, e, atoms.atoms[g], bounded, times)

            found += place.scored(
                "inside", t.inputs[j][e] * (source_N if times else 1.0), atoms, build
            )
    return found


@dataclass(frozen=True)
class _Place:
    """Where atoms may go: what is to be explained there, and what the constants that are there
    explain anyway."""

    t: Tangent
    q_KN: Tensor
    residual_N: Tensor
    lost: float
    count: int

    def scored(
        self, kind: str, times_N: Tensor, atoms: Atoms, build: Callable[[int, float], Formula]
    ) -> list[_Option]:
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
        gain = (along * amount).numpy()
        best = np.maximum.reduceat(gain, atoms.starts[:-1])
        found = []
        for s in np.argsort(-best, kind="stable")[: self.count].tolist():
            if not best[s] > 0:
                break
            g = int(atoms.starts[s] + gain[atoms.members(s)].argmax())
            new = partial(build, g, float(amount[g]))
            found.append(_Option(kind, float(best[s]) - self.lost, COSTS[kind], new))
        return found


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
        score = torch.where(
            size > 1e-8 * (d_GN**2).sum(1), (left @ rest) ** 2 / size.clamp(min=1e-300), -1.0
        )
        for g, atom in enumerate(atoms.atoms):
            if atom.edge.source in chosen:
                score[g] = -1.0
        g = int(score.argmax())
        if float(score[g]) < 0:
            break
        chosen.append(atoms.atoms[g].edge.source)
        basis = torch.cat([basis, d_GN[g : g + 1]])
    return chosen
