"""The second-order architecture gradient of DARTS: through one (or more) steps of the weights."""

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
    capturing,
    grad,
    leaves,
    norm,
    require_inner,
    same_randomness,
)
from gradnas.precision import HALF, full_precision


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

    The finite difference needs weights of 32 bits: in 16 a weight keeps less than a perturbation
    moves it by. Under `precision="bf16"` its two perturbed passes run in float32.

    Raises:
        ValueError: an impossible setting; at a call, no inner step given, or a finite difference of
            weights in 16 bits.
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
                f"steps={self.steps} needs mode='exact': the finite difference is derived for a "
                "single inner step"
            )
        check_numbers(self)

    @property
    def needs_inner_step(self) -> bool:
        return True

    @property
    def differentiates_twice(self) -> bool:
        return self.mode == "exact"

    @property
    def clips_inner_step(self) -> bool:
        return self.clip

    def check_weights(self, params: Mapping[str, Tensor]) -> None:
        if self.mode == "exact":
            return
        for name, weight in params.items():
            if weight.dtype in HALF:
                raise ValueError(
                    f"the weight {name!r} is {str(weight.dtype).removeprefix('torch.')}, which "
                    "resolves less than the finite difference of Unrolled moves it by: use "
                    'Unrolled(mode="exact"), or weights in float32 with '
                    'Search(..., precision="bf16")'
                )

    def __call__(
        self,
        train_loss: Loss,
        valid_loss: Loss,
        params: Mapping[str, Tensor],
        alphas: Mapping[str, Tensor],
        inner: SGDStep | None = None,
    ) -> Tensors:
        inner = require_inner(inner, "Unrolled")
        self.check_weights(params)
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
        w = leaves(params)
        a = leaves(alphas)
        buffers: Mapping[str, Tensor] = inner.buffers or {}
        with same_randomness([*w.values(), *a.values()]) as rewind:
            for _ in range(self.steps):
                rewind()
                grads = grad(train_loss(w, a), w.values(), create_graph=True)
                # Averaged inside the graph: the step that all ranks take depends on the alphas
                # through every rank's batch. The mean of finished hypergradients would be that of
                # steps that nobody takes, each on one rank's batch alone.
                grads = distributed.mean_with_autograd(grads)
                w, buffers = inner(w, grads, buffers)
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
        w = leaves(params)
        a = leaves(alphas)
        fixed = leaves(alphas, requires_grad=False)
        with same_randomness([*w.values(), *a.values()]) as rewind:
            # w': the weights after the coming step, which all ranks take together.
            grads = distributed.mean(grad(train_loss(w, fixed), w.values()))
            with torch.no_grad():
                stepped, _ = inner(w, grads, inner.buffers or {})
            unrolled = leaves(stepped)

            rewind()
            both = grad(valid_loss(unrolled, a), [*a.values(), *unrolled.values()])
            direct = both[: len(a)]
            # One v for all ranks. What follows is linear in the train loss, so that its mean over
            # the ranks, at the end, is the difference of their joint loss.
            v = distributed.mean(both[len(a) :])
            if not v:  # no weights, so nothing to look through
                return averaged(a, direct)

            # The direction in which the train gradient matters: v, or what the clipping leaves of
            # it.
            sensitivity, v = inner.pull_back(grads, v)
            size = norm(v)
            if not capturing() and not torch.isfinite(size):
                raise FloatingPointError(
                    "the validation gradient at the unrolled weights is not finite"
                )
            # The weights move by epsilon in all, whatever the scale of v. v = 0 makes the implicit
            # term zero: any finite R gives that without a division by zero.
            radius = torch.where(size > 0, self.epsilon / size, torch.ones_like(size))
            difference = self._difference(train_loss, w, a, v, radius, rewind)
            scale = sensitivity / (2.0 * radius)
            total = [d - scale * h for d, h in zip(direct, difference, strict=True)]
            return averaged(a, total)

    @staticmethod
    def _difference(
        train_loss: Loss,
        w: Tensors,
        a: Tensors,
        v: list[Tensor],
        radius: Tensor,
        rewind: Callable[[], None],
    ) -> list[Tensor]:
        """`dL_train/d alpha (w + R v) - dL_train/d alpha (w - R v)`.

        Over 2 R this is `d2 L_train / (d alpha dw) v` up to R^2, where a single side would be wrong
        by R. The weights w before the step are perturbed and not w': the step reads the train
        gradient at w.
        """
        sides = []
        for sign in (1.0, -1.0):
            rewind()
            moved = {}
            with torch.no_grad():
                for (name, weight), direction in zip(w.items(), v, strict=True):
                    moved[name] = weight + (sign * radius) * direction
            sides.append(grad(_in_full_precision(train_loss, moved, a), a.values()))
        plus, minus = sides
        return [up - down for up, down in zip(plus, minus, strict=True)]


def _in_full_precision(loss: Loss, w: Tensors, a: Tensors) -> Tensor:
    """A loss at moved weights: a cast to 16 bits would round away by how little they moved."""
    try:
        with full_precision():
            return loss(w, a)
    except RuntimeError as error:
        # Of data that come in 16 bits, and rely on the cast of the weights.
        if "BFloat16" in str(error) or "Half" in str(error):
            raise ValueError(
                "the two perturbed passes of Unrolled run in float32, and the network met tensors "
                f"of 16 bits there ({str(error).splitlines()[0]}): give it inputs in float32, or "
                'use Unrolled(mode="exact")'
            ) from error
        raise
