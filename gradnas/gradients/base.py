"""What every architecture gradient is: two losses in, d/d alpha out.

A loss is a closure `(params, alphas) -> scalar` over two dictionaries of tensors; nothing here
knows what a network, a data set or a search space is. All passes of one call start from the same
random state, so they see the same dropout masks, and the caller finds the random state as it was.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gradnas import distributed

Tensors = dict[str, Tensor]
Loss = Callable[[Tensors, Tensors], Tensor]

CLIP_EPS = 1e-6  # of torch.nn.utils.clip_grad_norm_


@dataclass(frozen=True)
class SGDStep:
    """One step of `torch.optim.SGD` on the weights, as a differentiable function of the gradient.

    `b' = momentum * b + (grad + weight_decay * w)`, `w' = w - lr * b'` (with Nesterov: `w - lr * (g
    + momentum * b')`).

    Args:
        lr: learning rate, > 0.
        momentum, weight_decay: as in SGD.
        buffers: parameter name -> momentum buffer b; a missing one is zero.
        clip_norm: the gradient is scaled by `min(1, clip_norm / (||grad|| + 1e-6))` first, as
            `torch.nn.utils.clip_grad_norm_` does; None for no clipping.
        differentiate_clip: whether the factor of the clipping counts as a function of the gradient.
            As published it is a constant.

    Raises:
        ValueError: a clip_norm that is not positive.
    """

    lr: float
    momentum: float = 0.0
    weight_decay: float = 0.0
    buffers: Mapping[str, Tensor] | None = field(default=None, repr=False)
    nesterov: bool = False
    clip_norm: float | None = None
    differentiate_clip: bool = False

    def __post_init__(self) -> None:
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"clip_norm must be positive, not {self.clip_norm}")

    @property
    def sensitivity(self) -> float:
        """`-dw'/dgrad` without clipping: the learning rate, and the extra momentum share under
        Nesterov."""
        return self.lr * (1.0 + self.momentum) if self.nesterov else self.lr

    def pull_back(
        self, grads: Sequence[Tensor], v: Sequence[Tensor]
    ) -> tuple[float | Tensor, list[Tensor]]:
        """A factor and a direction whose product is `-(dw'/dgrad)^T v`: how the product of w' and v
        follows `grads`."""
        factor = self.clip_factor(grads)
        if factor is None:
            return self.sensitivity, list(v)
        if self.differentiate_clip:
            # Where it is clipped, d(factor)/d(grad) = -factor / (size + eps) * grad / size; else 0.
            size = norm(grads)
            along = torch.stack([(g * d).sum() for g, d in zip(grads, v, strict=True)]).sum()
            back = torch.where(
                factor < 1, along / ((size + CLIP_EPS) * size), torch.zeros_like(size)
            )
            v = [d - back * g for g, d in zip(grads, v, strict=True)]
        return self.sensitivity * factor, list(v)

    def clip_factor(self, grads: Sequence[Tensor]) -> Tensor | None:
        """`min(1, clip_norm / (||grads|| + 1e-6))`; None without clipping."""
        if self.clip_norm is None:
            return None
        size = norm(grads if self.differentiate_clip else [g.detach() for g in grads])
        return torch.clamp(self.clip_norm / (size + CLIP_EPS), max=1.0)

    def __call__(
        self, params: Tensors, grads: Sequence[Tensor], buffers: Mapping[str, Tensor]
    ) -> tuple[Tensors, Tensors]:
        """New parameters and new momentum buffers; differentiable in everything."""
        new_params, new_buffers = {}, {}
        factor = self.clip_factor(grads)
        if factor is not None:
            grads = [factor * g for g in grads]
        for (name, w), grad in zip(params.items(), grads, strict=True):
            g = grad + self.weight_decay * w if self.weight_decay else grad
            b = g
            if self.momentum:
                b = g + self.momentum * buffers[name] if name in buffers else g
                new_buffers[name] = b
                b = g + self.momentum * b if self.nesterov else b
            new_params[name] = w - self.lr * b
        return new_params, new_buffers


class ArchitectureGradient(ABC):
    """d L_valid / d alpha. A subclass is a frozen dataclass in a file of its own."""

    @property
    def needs_inner_step(self) -> bool:
        """Whether the gradient looks through the weight step, so that `inner` must be given and be
        SGD."""
        return False

    @property
    def differentiates_twice(self) -> bool:
        """Whether the gradient takes second derivatives by autograd, which not every relaxation
        has."""
        return False

    @property
    def num_samples(self) -> int:
        """Networks that are sampled and evaluated for one gradient; 0 where it differentiates
        losses instead."""
        return 0

    @property
    def clips_inner_step(self) -> bool:
        """Whether the inner step is to clip its gradient as the weight step does."""
        return False

    @abstractmethod
    def __call__(
        self,
        train_loss: Loss,
        valid_loss: Loss,
        params: Mapping[str, Tensor],
        alphas: Mapping[str, Tensor],
        inner: SGDStep | None = None,
    ) -> Tensors:
        """The architecture gradient, with the keys and shapes of `alphas`; averaged over the ranks.

        Args:
            train_loss, valid_loss: `(params, alphas) -> scalar`.
            params: the weights that are trained, by name.
            alphas: the architecture parameters, by name.
            inner: the coming step on the weights.
        """


def leaves(tensors: Mapping[str, Tensor], requires_grad: bool = True) -> Tensors:
    """The same values as fresh graph leaves."""
    return {name: t.detach().requires_grad_(requires_grad) for name, t in tensors.items()}


def grad(loss: Tensor, inputs: Iterable[Tensor], *, create_graph: bool = False) -> list[Tensor]:
    """`torch.autograd.grad`, with zeros for what the loss does not depend on.

    Raises:
        ValueError: the loss is not a scalar.
    """
    inputs = list(inputs)
    if loss.dim() != 0:
        raise ValueError(f"a loss must be a scalar, got a tensor of shape {tuple(loss.shape)}")
    if not loss.requires_grad or not inputs:
        return [torch.zeros_like(t) for t in inputs]
    found = torch.autograd.grad(loss, inputs, create_graph=create_graph, allow_unused=True)
    return [torch.zeros_like(t) if g is None else g for g, t in zip(found, inputs, strict=True)]


def norm(tensors: Sequence[Tensor]) -> Tensor:
    """Global L2 norm over all tensors."""
    return torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(t) for t in tensors]))


def require_inner(inner: SGDStep | None, method: str) -> SGDStep:
    """`inner`, or ValueError that says what to pass."""
    if inner is None:
        raise ValueError(f"{method} looks through the weight step: pass inner=SGDStep(lr=...)")
    return inner


def copies(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Copies of tensors on one device, made in one launch for each dtype (or few)."""
    found: dict[int, Tensor] = {}
    for dtype in {t.dtype for t in tensors}:
        places = [k for k, t in enumerate(tensors) if t.dtype == dtype]
        made = [torch.empty_like(tensors[k]) for k in places]
        torch._foreach_copy_(made, [tensors[k].detach() for k in places])
        found |= dict(zip(places, made, strict=True))
    return [found[k] for k in range(len(tensors))]


def capturing() -> bool:
    """Whether this runs to be recorded in a CUDA graph: then no value of the device may be asked
    for."""
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


@contextmanager
def same_randomness(tensors: Iterable[Tensor]) -> Iterator[Callable[[], None]]:
    """Yields `rewind()`, which puts the random state back to that at entry; leaving does so too.

    Covers the CPU generator and those of the CUDA devices that hold `tensors`.
    """
    if capturing():  # a graph draws its own numbers: `CapturedStep` refuses modules that draw any
        yield lambda: None
        return
    devices = sorted({t.device.index for t in tensors if t.device.type == "cuda"})
    cpu, cuda = torch.get_rng_state(), [torch.cuda.get_rng_state(d) for d in devices]

    def rewind() -> None:
        torch.set_rng_state(cpu)
        for device, state in zip(devices, cuda, strict=True):
            torch.cuda.set_rng_state(state, device)

    try:
        yield rewind
    finally:
        rewind()


def averaged(alphas: Mapping[str, Tensor], grads: Sequence[Tensor]) -> Tensors:
    """The gradients by name, averaged over the ranks, without a graph."""
    return dict(zip(alphas, distributed.mean(list(grads)), strict=True))
