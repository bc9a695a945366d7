"""The first-order architecture gradient of DARTS (xi = 0)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from gradnas.gradients.base import (
    ArchitectureGradient,
    Loss,
    SGDStep,
    Tensors,
    averaged,
    grad,
    leaves,
    same_randomness,
)


@dataclass(frozen=True)
class FirstOrder(ArchitectureGradient):
    """`dL_valid(w, alpha) / d alpha` at the current weights; one forward and backward pass.

    Source: DARTS (arXiv 1806.09055), section 2.3, "first-order approximation".
    """

    def __call__(
        self,
        train_loss: Loss,
        valid_loss: Loss,
        params: Mapping[str, Tensor],
        alphas: Mapping[str, Tensor],
        inner: SGDStep | None = None,
    ) -> Tensors:
        del train_loss, inner
        a = leaves(alphas)
        with same_randomness([*params.values(), *alphas.values()]):
            loss = valid_loss(leaves(params, requires_grad=False), a)
            return averaged(a, grad(loss, a.values()))
