"""Formulas as a PyTorch module.

Legend: K formulas, N points, D features.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gradnas.laws.formulas import Formulas
from gradnas.laws.primitives import Primitive


class FormulaNetwork(nn.Module):
    """The values of some formulas: `(D, N)` features to `(K, N)`; NaN where a formula is None."""

    def __init__(self, decision: Formulas, table: Mapping[str, Primitive]) -> None:
        super().__init__()
        self.formulas = decision.formulas
        self.table = dict(table)

    def forward(self, x_DN: Tensor) -> Tensor:
        """The value of each formula at each point."""
        values: list[Tensor] = []
        for formula in self.formulas:
            if formula is None:
                values.append(torch.full_like(x_DN[0], torch.nan))
            else:
                values.append(formula(x_DN.T, self.table))
        return torch.stack(values)
