"""Laws that are products, by linear least squares for the logarithm of the target.

`ln |y|` is a linear combination of `ln |x|` of every feature, whatever its exponent, and of the
logarithms of a few special factors (`engine/factors.py`). The best one or two of these beside the
powers of all features are looked for.

Legend: N points, D features, G factors, K columns of a basis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from gradnas.laws.engine.data import LawData
from gradnas.laws.engine.factors import Factor, columns_of_factors
from gradnas.laws.engine.library import AWAY, power_of
from gradnas.laws.formula import Edge, Formula, Node, canonical
from gradnas.laws.primitives import POWER

NEAR = 2e-3  # an exponent this near to a multiple of a half is that
NONE = 2e-3  # an exponent below it is none
SINGLES = 10  # factors, and
PAIRS = 10  # pairs of them, that formulas are made of
FIRSTS = 250  # factors that a second one is looked for beside, and
BLOCK = 25  # of them at once
FEWEST_ROWS = 8  # whose target is not zero, and
FEWEST_SHARE = 0.8  # of all rows
LEAST = 1e-4  # of a factor's length, that must be left beside the powers


def laws_of_products(
    data: LawData, scales_D: Sequence[float], features: Sequence[int], functions: Sequence[str]
) -> list[Formula]:
    """Products of powers of all features and of at most two special factors, not yet refitted.

    None where the target is zero in more than 20% of the rows, or powers are not allowed.
    """
    if POWER not in functions or data.loss != "squared":
        return []
    # The size alone: a factor that changes its sign with the target explains both.
    rows_N = data.y_N.abs() > AWAY * float(data.y_N.abs().max())
    if int(rows_N.sum()) < max(FEWEST_ROWS, FEWEST_SHARE * len(rows_N)):
        return []
    data = data.rows(rows_N.nonzero().flatten())
    y_N = data.y_N
    # An error of dy in y is one of dy / y in its logarithm.
    root_w_N = (data.w_N * y_N**2).sqrt()
    target_N = torch.log(y_N.abs()) * root_w_N
    logs: list[Tensor] = []
    base: list[int] = []
    for d in features:
        x_N = data.x_DN[d]
        if bool((x_N.abs() > AWAY).all()) and (bool((x_N > 0).all()) or bool((x_N < 0).all())):
            base.append(d)
            logs.append(torch.log(x_N.abs()))
    basis_KN = torch.stack([torch.ones_like(y_N), *logs]) * root_w_N
    kept = columns_of_factors(data, scales_D, features, functions)
    column_GN = kept.column_GN
    data.work.logarithms(len(kept), min(FIRSTS, len(kept)), column_GN.numel())
    chosen: list[tuple[int, ...]] = [()]
    if len(kept):
        chosen += _best(basis_KN, target_N, column_GN * root_w_N, kept.cost_G, data.n)
    formulas: list[Formula] = []
    sign = 1.0 if float(y_N[0]) > 0 else -1.0
    for places in chosen:
        rows = [basis_KN, *((column_GN[g] * root_w_N).unsqueeze(0) for g in places)]
        all_KN = torch.cat(rows)
        scale_K = all_KN.norm(dim=1)
        solved = torch.linalg.lstsq((all_KN / scale_K.unsqueeze(1)).T, target_N.unsqueeze(1))
        coefficients = (solved.solution.squeeze(1) / scale_K).tolist()
        formula = _formula(
            data, base, [kept.factor(g) for g in places], coefficients, functions, sign
        )
        if formula is not None:
            formulas.append(formula)
    return formulas


def _best(
    basis_KN: Tensor, target_N: Tensor, d_GN: Tensor, cost_G: Tensor, n: float
) -> list[tuple[int, ...]]:
    """The factors, and pairs of factors, that explain most beside the powers."""
    scaled_KN = basis_KN / basis_KN.norm(dim=1, keepdim=True)
    q_NK, _ = torch.linalg.qr(scaled_KN.T)
    rest_N = target_N - q_NK @ (q_NK.T @ target_N)
    squared = float(rest_N @ rest_N)
    if not squared > 1e-20 * float(target_N @ target_N):
        return []  # a product of powers, and nothing beside it
    left_GN = d_GN - (d_GN @ q_NK) @ q_NK.T
    size_G = left_GN.norm(dim=1)
    usable_G = size_G > LEAST * d_GN.norm(dim=1)
    unit_GN = torch.where(
        usable_G.unsqueeze(1), left_GN / size_G.clamp(min=1e-200).unsqueeze(1), 0.0
    )
    cost_G = cost_G * math.log(n)
    b_G = unit_GN @ rest_N
    open_G = (squared - b_G**2).clamp(min=1e-20 * squared)
    promise_G = n * torch.log(open_G) + cost_G
    chosen: list[tuple[int, ...]] = []
    for g in promise_G.argsort()[:SINGLES].tolist():
        chosen.append((g,))
    # The second factor beside each of the best first ones, exactly.
    pairs: list[tuple[float, tuple[int, ...]]] = []
    for firsts in promise_G.argsort()[:FIRSTS].split(BLOCK):
        cosine_FG = unit_GN[firsts] @ unit_GN.T
        beside_FG = 1.0 - cosine_FG**2
        b_F1 = b_G[firsts].unsqueeze(1)
        gain_FG = b_F1**2 + (b_G - cosine_FG * b_F1) ** 2 / beside_FG.clamp(min=1e-300)
        gain_FG = torch.where(beside_FG > 1e-8, gain_FG, 0.0)
        both_FG = n * torch.log((squared - gain_FG).clamp(min=1e-20 * squared)) + cost_G
        best_F, second_F = both_FG.min(dim=1)
        best_F = best_F + cost_G[firsts]
        for g, h, promise in zip(firsts.tolist(), second_F.tolist(), best_F.tolist(), strict=True):
            if h != g:
                pairs.append((promise, (min(g, h), max(g, h))))
    pairs.sort()
    different = list(dict.fromkeys(places for _, places in pairs))
    return chosen + different[:PAIRS]


def _formula(
    data: LawData,
    base: Sequence[int],
    special: Sequence[Factor],
    coefficients: Sequence[float],
    functions: Sequence[str],
    sign: float,
) -> Formula | None:
    """The product with these exponents; those near a multiple of a half are that."""
    D = len(data.x_DN)
    edges: list[Edge] = []
    for d, exponent in zip(base, coefficients[1 : 1 + len(base)], strict=True):
        edge = _to_power(d, exponent, functions, positive=bool((data.x_DN[d] > 0).all()))
        if edge is not None:
            edges.append(edge)
    nodes: list[Node] = []
    for factor, exponent in zip(special, coefficients[1 + len(base) :], strict=True):
        moved = len(nodes)
        for node in factor.nodes:
            own: list[Edge] = []
            for edge in node.edges:
                shift = moved if edge.source >= D else 0
                own.append(
                    Edge(
                        edge.source + shift,
                        edge.function,
                        edge.a,
                        edge.b,
                        edge.below,
                        edge.fixed,
                    )
                )
            nodes.append(Node(node.kind, tuple(own)))
        place = D + len(nodes) - 1
        if factor.exponential:
            edges.append(Edge(place, "exp", exponent))
            continue
        weights = (*[0.0] * (len(factor.nodes) - 1), 1.0)
        value_N = Formula(D, factor.nodes, weights)(data.x_DN.T, data.primitives)
        is_positive = bool((value_N > 0).all())
        edge = _to_power(place, exponent, functions, is_positive)
        if edge is not None:
            edges.append(edge)
    if not edges or len(edges) > 12:
        return None
    kind = "product" if len(edges) > 1 else "sum"
    nodes.append(canonical(Node(kind, tuple(edges))))
    scale = sign * math.exp(min(50.0, max(-50.0, coefficients[0])))
    return Formula(D, tuple(nodes), (*[0.0] * (len(nodes) - 1), scale), 0.0)


def _to_power(
    source: int, exponent: float, functions: Sequence[str], positive: bool
) -> Edge | None:
    """An edge that is a power; None for the power zero."""
    if abs(exponent) < NONE:
        return None
    nearest = round(2.0 * exponent) / 2.0
    if nearest != 0.0 and abs(exponent - nearest) < NEAR and (positive or nearest.is_integer()):
        return power_of(source, nearest, functions)
    return Edge(source, POWER, exponent) if positive else None
