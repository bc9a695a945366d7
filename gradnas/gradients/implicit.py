"""The architecture gradient by the implicit function theorem, near an optimum of the weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from gradnas import distributed
from gradnas.config import check_numbers
from gradnas.gradients.base import (
    ArchitectureGradient,
    Loss,
    SGDStep,
    Tensors,
    averaged,
    grad,
    leaves,
    pulled_back,
    require_inner,
    same_randomness,
    wide,
)

Vector = list[Tensor]


@dataclass(frozen=True)
class Implicit(ArchitectureGradient):
    """`dL_valid/d alpha - (d2 L_train / d alpha dw) H^-1 dL_valid/dw`, H the Hessian in w.

    H is that of the train loss, to which the weight decay of the inner step belongs. One forward
    pass of each loss, then one Hessian-vector product per solver step on the same graph.

    Args:
        solver: `"neumann"`: `H^-1 v ~ lr * sum_{k<steps} (I - lr H)^k v`, which converges for lr <
            2 / max eigenvalue. `"cg"`: conjugate gradients, for a positive definite H.
        steps: solver steps, at least 1.
        lr: the Neumann step size; by default the learning rate of the inner step.
        damping: added to the diagonal of H.

    Sources: Lorraine, Vicol, Duvenaud, "Optimizing millions of hyperparameters by implicit
    differentiation", AISTATS 2020 (arXiv 1911.02590), algorithm 3; Rajeswaran et al., iMAML (arXiv
    1909.04630), for conjugate gradients.

    Raises:
        ValueError: an impossible setting; at a call, no inner step given.
    """

    solver: Literal["neumann", "cg"] = "neumann"
    steps: int = 10
    lr: float | None = None
    damping: float = 0.0

    def __post_init__(self) -> None:
        if self.solver not in ("neumann", "cg"):
            raise ValueError(f"solver must be 'neumann' or 'cg', not {self.solver!r}")
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, not {self.steps}")
        if self.lr is not None and not self.lr > 0:
            raise ValueError(f"lr must be positive, not {self.lr}")
        if self.damping < 0:
            raise ValueError(f"damping must not be negative, not {self.damping}")
        check_numbers(self)

    @property
    def needs_inner_step(self) -> bool:
        return True

    @property
    def differentiates_twice(self) -> bool:
        return True

    def __call__(
        self,
        train_loss: Loss,
        valid_loss: Loss,
        params: Mapping[str, Tensor],
        alphas: Mapping[str, Tensor],
        inner: SGDStep | None = None,
    ) -> Tensors:
        inner = require_inner(inner, "Implicit")
        w = leaves(params)
        a = leaves(alphas)
        with same_randomness([*w.values(), *a.values()]) as rewind:
            both = grad(valid_loss(w, a), [*a.values(), *w.values()])
            direct = both[: len(a)]
            if not w:  # no weights learn any more, so nothing to look through
                return averaged(a, direct)
            # The solver adds up many terms, for which 16 bits are too few.
            v = [wide(d) for d in distributed.mean(both[len(a) :])]

            rewind()
            slope = grad(train_loss(w, a), w.values(), create_graph=True)
            weights = list(w.values())
            # Weight decay is a term of the train loss that SGD adds itself: its Hessian is this
            # multiple of the identity.
            shift = inner.weight_decay + self.damping

            def hessian_times(x: Vector) -> Vector:
                # H is symmetric, so that pulling x back through the slope is H x. Averaged for each
                # product: all ranks solve one system, that of their joint loss.
                products = distributed.mean(pulled_back(slope, weights, x))
                return _plus(products, shift, x)

            if self.solver == "neumann":
                step_size = self.lr if self.lr is not None else inner.lr
                x = _neumann(hessian_times, v, step_size, self.steps)
            else:
                x = _cg(hessian_times, v, self.steps)
            mixed = pulled_back(slope, list(a.values()), x)
        return averaged(a, [d - m for d, m in zip(direct, mixed, strict=True)])


def _plus(x: Vector, factor: float | Tensor, y: Vector) -> Vector:
    """`x + factor * y`."""
    return [xi + factor * yi for xi, yi in zip(x, y, strict=True)]


def _dot(x: Vector, y: Vector) -> Tensor:
    return torch.stack([(xi * yi).sum() for xi, yi in zip(x, y, strict=True)]).sum()


def _neumann(hessian_times: Callable[[Vector], Vector], v: Vector, lr: float, steps: int) -> Vector:
    """`lr * sum_k (I - lr H)^k v` for k below `steps`.

    The whole series is `H^-1 v`. Its first terms are what differentiating through so many steps of
    gradient descent gives at an optimum.
    """
    term = v
    total = list(v)
    for _ in range(steps - 1):
        product = hessian_times(term)
        term = [t - lr * h for t, h in zip(term, product, strict=True)]
        total = [s + t for s, t in zip(total, term, strict=True)]
    return [lr * s for s in total]


def _cg(hessian_times: Callable[[Vector], Vector], v: Vector, steps: int) -> Vector:
    """An approximation of `H^-1 v` by conjugate gradients, from zero."""
    x = [torch.zeros_like(t) for t in v]
    residual = list(v)
    direction = list(v)
    start = _dot(v, v)
    size = start
    for _ in range(steps):
        # Solved (or v = 0): a further step would divide zero by zero.
        if size <= start * 1e-30:
            break
        product = hessian_times(direction)
        curvature = _dot(direction, product)
        if curvature <= 0:  # H is not positive definite along this direction: keep what is there
            break
        length = size / curvature
        x = _plus(x, length, direction)
        residual = [r - length * h for r, h in zip(residual, product, strict=True)]
        new_size = _dot(residual, residual)
        direction = _plus(residual, new_size / size, direction)
        size = new_size
    return x
