"""Keeping a Dirichlet distribution near the uniform one: DrNAS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from gradnas.objectives.terms import AlphaTerm, Fits, Tables, check_weight


@dataclass(frozen=True)
class DirichletKL(AlphaTerm):
    """`weight * sum over edges of KL(Dirichlet(elu(alpha) + 1) || Dirichlet(1))`, for `Dirichlet`.

    With concentrations c, their sum s, K operations and digamma psi, the divergence is `ln G(s) -
    sum_k ln G(c_k) - ln G(K) + sum_k (c_k - 1) (psi(c_k) - psi(s))`, G the gamma function.

    Cost: none. Give `AlphaOptimizer(weight_decay=0)` with it: decay of the alphas is the other form
    of the same pull.

    Source: Chen, Wang, Cheng, Tang, Hsieh, "DrNAS", ICLR 2021 (arXiv 2006.10355), eq. 3, with the
    weight of the authors' code. No difference.

    Raises:
        ValueError: a weight below 0.
    """

    weight: float = 1e-3
    fits: ClassVar[Fits] = "Dirichlet"

    def __post_init__(self) -> None:
        check_weight("weight", self.weight)

    def weight_at(self, done: float) -> float:
        del done
        return self.weight

    def value(self, alphas: Tables) -> Tensor:
        divergences = []
        for alpha in alphas.values():
            # elu(alpha) + 1, without the rounding to 0 that the sum has from alpha = -17 on.
            below = torch.exp(alpha.clamp(-80.0, 0.0))
            c = torch.where(alpha > 0, alpha + 1.0, below)
            s = c.sum(-1, keepdim=True)
            uniform = torch.lgamma(torch.full_like(s, float(alpha.shape[-1]))).sum()
            divergences.append(
                torch.lgamma(s).sum()
                - torch.lgamma(c).sum()
                - uniform
                + ((c - 1.0) * (torch.digamma(c) - torch.digamma(s))).sum()
            )
        return torch.stack(divergences).sum()
