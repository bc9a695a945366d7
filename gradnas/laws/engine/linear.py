"""Linear laws: what every other law is measured by.

A law whose structure was searched for predicts new rows less well than cross-validation with that
structure says; a linear one of given features does not. So where a linear law predicts held-out
rows better, that speaks against a law, however short it is.

Legend: N points, D features, K features of a law.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gradnas.laws.engine.atoms import Atom
from gradnas.laws.engine.data import LawData
from gradnas.laws.engine.edits import add_term
from gradnas.laws.formula import Edge, Formula

FEWEST_ROWS = 3  # for each constant of a linear law


def linear_formulas(data: LawData, features: Sequence[int]) -> list[Formula]:
    """Linear laws of one feature, of two, and so on, each time with the one that explains most.

    As long as there are three rows for each of their constants.
    """
    root_w_N = data.w_N.sqrt()
    target_N = data.y_N * root_w_N
    chosen: list[int] = []
    formulas: list[Formula] = []
    formula = Formula(len(data.x_DN), (), (), 1e-3)
    while len(chosen) < len(features) and data.n >= FEWEST_ROWS * (len(chosen) + 2):
        lefts: list[tuple[float, int]] = []
        for d in features:
            if d not in chosen:
                lefts.append((_left(data.x_DN[[*chosen, d]], root_w_N, target_N), d))
        _, d = min(lefts)
        chosen.append(d)
        formula = add_term(formula, [Atom(Edge(d, "identity", fixed=True))])
        formulas.append(formula)
    return formulas


def _left(x_KN: Tensor, root_w_N: Tensor, target_N: Tensor) -> float:
    """The squared error that a linear fit leaves."""
    basis_KN = torch.cat([torch.ones_like(x_KN[:1]), x_KN]) * root_w_N
    basis_KN = basis_KN / basis_KN.norm(dim=1, keepdim=True).clamp(min=1e-200)
    q_NK, _ = torch.linalg.qr(basis_KN.T)
    rest_N = target_N - q_NK @ (q_NK.T @ target_N)
    return float(rest_N @ rest_N)
