"""The second-order architecture gradient of DARTS: through one (or more) steps of the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from gradnas import distributed
from gradnas.gradients.base import (
    ArchitectureGradient,
    Loss,
    SGDStep,
    Tensors,
    averaged,
    capturing,
    grad,
    leaves,
    norm,
    require_inner,
    same_randomness,
)


@dataclass(frozen=True)
class Unrolled(ArchitectureGradient):
    """`d/d alpha L_valid(w'(alpha), alpha)` with `w' = SGDStep(w, dL_train(w, alpha)/dw)`.

    Args:
        mode: `"finite_difference"`, as published: with v = dL_valid/dw' and R = epsilon / ||v||,
            `dL_valid/d alpha (w') - lr * (dL_train/d alpha (w + R v) - dL_train/d alpha (w - R v))
            / (2 R)`; four forward-backward pairs, no graph of a graph. `"exact"`: autograd through
            the inner step; about the memory of three passes at once.
        epsilon: size of the perturbation of w in all (L2 norm); finite differences only.
        steps: inner steps, all on the same train loss; more than one needs `"exact"`.
        clip: within a `Search`, clip the inner gradient as the weight step does (called directly,
            `inner.clip_norm` says so).

    Source: DARTS (arXiv 1806.09055), eq. 6 to 8, with the momentum and weight decay of the authors'
    code. For images they leave out gradient clipping in the inner step; for recurrent cells they
    have it (`clip=True`), with a factor that may exceed 1, which ours never does.

    Raises:
        ValueError: an impossible setting; at a call, no inner step given.
        FloatingPointError: at a call, the gradient at the unrolled weights is not finite.
    """

    mode: Literal["finite_difference", "exact"] = "finite_difference"
    epsilon: float = 0.01
    steps: int = 1
    clip: bool = False

    def __post_init__(self) -> None:
        if self.mode not in ("finite_difference", "exact"):
            raise ValueError(f"mode must be 'finite_difference' or 'exact', not {self.mode!r}")
        if not self.epsilon > 0:
            raise ValueError(f"epsilon must be positive, not {self.epsilon}")
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, not {self.steps}")
        if self.steps > 1 and self.mode != "exact":
            raise ValueError(
                f"steps={self.steps} needs mode='exact': the finite difference is derived for a single inner step"
            )

    @property
    def needs_inner_step(self) -> bool:
        return True

    @property
    def differentiates_twice(self) -> bool:
        return self.mode == "exact"

    @property
    def clips_inner_step(self) -> bool:
        return self.clip

    def __call__(
        self,
        train_loss: Loss,
        valid_loss: Loss,
        params: Mapping[str, Tensor],
        alphas: Mapping[str, Tensor],
        inner: SGDStep | None = None,
    ) -> Tensors:
        inner = require_inner(inner, "Unrolled")
        method = self._exact if self.mode == "exact" else self._finite_difference
        return method(train_loss, valid_loss, params, alphas, inner)

    def _exact(
        self,
        train_loss: Loss,
        valid_loss: Loss,
        params: Mapping[str, Tensor],
        alphas: Mapping[str, Tensor],
        inner: SGDStep,
    ) -> Tensors:
        w, a = leaves(params), leaves(alphas)
        buffers: Mapping[str, Tensor] = inner.buffers or {}
        with same_randomness([*w.values(), *a.values()]) as rewind:
            for _ in range(self.steps):
                rewind()
                grads = grad(train_loss(w, a), w.values(), create_graph=True)
                # Averaged inside the graph: the step all ranks take depends on the alphas through
                # every rank's batch.
                w, buffers = inner(w, distributed.mean_with_autograd(grads), buffers)
            rewind()
            return averaged(a, grad(valid_loss(w, a), a.values()))

    def _finite_difference(
        self,
        train_loss: Loss,
        valid_loss: Loss,
        params: Mapping[str, Tensor],
        alphas: Mapping[str, Tensor],
        inner: SGDStep,
    ) -> Tensors:
        w, a, fixed = leaves(params), leaves(alphas), leaves(alphas, requires_grad=False)
        with same_randomness([*w.values(), *a.values()]) as rewind:
            grads = distributed.mean(grad(train_loss(w, fixed), w.values()))
            with torch.no_grad():
                unrolled, _ = inner(w, grads, inner.buffers or {})
            unrolled = leaves(unrolled)
            rewind()
            both = grad(valid_loss(unrolled, a), [*a.values(), *unrolled.values()])
            direct, v = both[: len(a)], distributed.mean(both[len(a) :])
            if not v:
                return averaged(a, direct)
            # The direction in which the train gradient matters: v, or what the clipping leaves of
            # it.
            sensitivity, v = inner.pull_back(grads, v)
            size = norm(v)
            if not capturing() and not torch.isfinite(size):
                raise FloatingPointError(
                    "the validation gradient at the unrolled weights is not finite"
                )
            # v = 0 makes the implicit term zero: any finite R gives that without a division by
            # zero.
            radius = torch.where(size > 0, self.epsilon / size, torch.ones_like(size))
            difference = self._difference(train_loss, w, a, v, radius, rewind)
            implicit = [(sensitivity / (2.0 * radius)) * h for h in difference]
            return averaged(a, [d - h for d, h in zip(direct, implicit, strict=True)])

    @staticmethod
    def _difference(
        train_loss: Loss, w: Tensors, a: Tensors, v: list[Tensor], radius: Tensor, rewind
    ) -> list[Tensor]:
        """`dL_train/d alpha (w + R v) - dL_train/d alpha (w - R v)`: the original weights are
        perturbed, not w'."""
        sides = []
        for sign in (1.0, -1.0):
            rewind()
            with torch.no_grad():
                moved = {
                    name: p + (sign * radius) * d for (name, p), d in zip(w.items(), v, strict=True)
                }
            sides.append(grad(train_loss(moved, a), a.values()))
        return [plus - minus for plus, minus in zip(*sides, strict=True)]
