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
from torch.autograd.function import once_differentiable

from gradnas import distributed
from gradnas.precision import HALF

Tensors = dict[str, Tensor]
Loss = Callable[[Tensors, Tensors], Tensor]

# What to do where torch cannot differentiate a second time.
NO_SECOND = "use Unrolled(mode='finite_difference') or FirstOrder(), which differentiate once"

# The code of every backward that is marked so, whatever it wraps.
ONCE_DIFFERENTIABLE = once_differentiable(lambda ctx: None).__code__

CLIP_EPS = 1e-6  # of torch.nn.utils.clip_grad_norm_


class NoSecondDerivative(ValueError):
    """A function in the graph of a loss has no second derivative.

    Attributes:
        what: the beginning of a sentence that says which.
    """

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}, and this gradient needs a second derivative: {NO_SECOND}")
        self.what = what


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
        """`-dw'/dgrad` without clipping: the learning rate, and under Nesterov a share more."""
        if self.nesterov:
            return self.lr * (1.0 + self.momentum)
        return self.lr

    def pull_back(
        self, grads: Sequence[Tensor], v: Sequence[Tensor]
    ) -> tuple[float | Tensor, list[Tensor]]:
        """A factor and a direction whose product is `-(dw'/dgrad)^T v`.

        In words: how the inner product of w' and v falls as the gradient grows.
        """
        factor = self.clip_factor(grads)
        if factor is None:
            return self.sensitivity, list(v)
        if not self.differentiate_clip:
            return self.sensitivity * factor, list(v)

        # With c the factor, s = ||grad|| and eps of the clipping: w' holds c * grad, and where it
        # is clipped, dc/dgrad = -c / (s + eps) * grad / s. So v is pulled back to
        # c * (v - <grad, v> / ((s + eps) * s) * grad): what points along grad does not get through,
        # because the clipped step has one length whatever that of the gradient.
        size = norm(grads)
        along = torch.stack([(g * d).sum() for g, d in zip(grads, v, strict=True)]).sum()
        share = along / ((size + CLIP_EPS) * size)
        lost = torch.where(factor < 1, share, torch.zeros_like(size))
        direction = [d - lost * g for g, d in zip(grads, v, strict=True)]
        return self.sensitivity * factor, direction

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
        factor = self.clip_factor(grads)
        if factor is not None:
            grads = [factor * grad for grad in grads]
        new_params = {}
        new_buffers = {}
        for (name, weight), grad in zip(params.items(), grads, strict=True):
            # Nothing is multiplied by zero: where there is no decay or momentum, the graph has no
            # node for it either.
            if self.weight_decay:
                grad = grad + self.weight_decay * weight
            step = grad
            if self.momentum:
                buffer = grad
                if name in buffers:
                    buffer = grad + self.momentum * buffers[name]
                new_buffers[name] = buffer
                step = grad + self.momentum * buffer if self.nesterov else buffer
            new_params[name] = weight - self.lr * step
        return new_params, new_buffers


class ArchitectureGradient(ABC):
    """d L_valid / d alpha. A subclass is a frozen dataclass in a file of its own."""

    @property
    def needs_inner_step(self) -> bool:
        """Whether it looks through the weight step: `inner` must be given, and be SGD."""
        return False

    @property
    def differentiates_twice(self) -> bool:
        """Whether it takes second derivatives by autograd, which not every relaxation has."""
        return False

    @property
    def num_samples(self) -> int:
        """Networks to sample and evaluate for one gradient; 0 where it differentiates losses."""
        return 0

    @property
    def clips_inner_step(self) -> bool:
        """Whether the inner step is to clip its gradient as the weight step does."""
        return False

    def check_weights(self, params: Mapping[str, Tensor]) -> None:  # noqa: B027 (most take any)
        """ValueError for weights that it cannot work with; `params` by name."""

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
    if not requires_grad:
        return {name: t.detach() for name, t in tensors.items()}
    return {name: t.detach().requires_grad_() for name, t in tensors.items()}


def grad(loss: Tensor, inputs: Iterable[Tensor], *, create_graph: bool = False) -> list[Tensor]:
    """`torch.autograd.grad`, with zeros for what the loss does not depend on.

    Raises:
        ValueError: the loss is not a scalar.
        NoSecondDerivative: with `create_graph`, a function in it has none.
    """
    inputs = list(inputs)
    if loss.dim() != 0:
        raise ValueError(f"a loss must be a scalar, got a tensor of shape {tuple(loss.shape)}")
    if not loss.requires_grad or not inputs:
        return [torch.zeros_like(t) for t in inputs]
    grads = torch.autograd.grad(loss, inputs, create_graph=create_graph, allow_unused=True)
    filled = zeros_for_none(grads, inputs)
    if create_graph:
        _check_second_derivatives([loss, *filled])
    return filled


def _check_second_derivatives(tensors: Sequence[Tensor]) -> None:
    """NoSecondDerivative where a function marked `once_differentiable` has a part in these.

    What such a function gives in backward is a constant, or hangs on a leaf of its own behind a
    node that is to raise an error. Asked for the derivative in certain inputs alone, autograd never
    comes by that node: the term is missing, and nobody is told.

    Args:
        tensors: a loss and its gradients.
    """
    waiting = [tensor.grad_fn for tensor in tensors if tensor.grad_fn is not None]
    seen = set(waiting)
    missing: str | None = None
    while waiting:
        node = waiting.pop()
        function = getattr(node, "_forward_cls", None)  # of functions written in Python
        backward = getattr(function, "backward", None)
        is_marked = getattr(backward, "__code__", None) is ONCE_DIFFERENTIABLE
        if is_marked and function is not None:
            missing = function.__name__
        elif node.name() == "torch::autograd::Error" and missing is None:
            missing = "a function"
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                waiting.append(following)
    if missing is not None:
        raise NoSecondDerivative(
            f"{missing} in the network or the loss is marked once_differentiable"
        )


def zeros_for_none(grads: Sequence[Tensor | None], inputs: Sequence[Tensor]) -> list[Tensor]:
    """What autograd returned, with zeros for the inputs that its outputs do not depend on."""
    filled = []
    for grad, tensor in zip(grads, inputs, strict=True):
        filled.append(torch.zeros_like(tensor) if grad is None else grad)
    return filled


def pulled_back(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], vector: Sequence[Tensor]
) -> list[Tensor]:
    """`sum_i vector_i * d outputs_i / d inputs`, keeping the graph; float32 or wider.

    Of the gradient of a loss, in what it is the gradient in: a Hessian times a vector.
    """
    heads = []
    cotangents = []
    for output, cotangent in zip(outputs, vector, strict=True):
        # A weight in which the loss is linear has a constant slope, without a graph.
        if output.requires_grad:
            heads.append(output)
            cotangents.append(cotangent.to(output.dtype))
    if not heads:
        return [wide(torch.zeros_like(t)) for t in inputs]
    grads = torch.autograd.grad(heads, inputs, cotangents, retain_graph=True, allow_unused=True)
    return [wide(grad) for grad in zeros_for_none(grads, inputs)]


def wide(tensor: Tensor) -> Tensor:
    """In float32 where it has 16 bits: sums of many terms need more."""
    return tensor.float() if tensor.dtype in HALF else tensor


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
    copied = [torch.empty_like(tensor) for tensor in tensors]
    for dtype in {tensor.dtype for tensor in tensors}:
        places = [place for place, tensor in enumerate(tensors) if tensor.dtype == dtype]
        targets = [copied[place] for place in places]
        torch._foreach_copy_(targets, [tensors[place].detach() for place in places])
    return copied


def capturing() -> bool:
    """Whether a CUDA graph is being recorded: then no value of the device may be asked for."""
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
    cpu_state = torch.get_rng_state()
    cuda_states = {device: torch.cuda.get_rng_state(device) for device in devices}

    def rewind() -> None:
        torch.set_rng_state(cpu_state)
        for device, state in cuda_states.items():
            torch.cuda.set_rng_state(state, device)

    try:
        yield rewind
    finally:
        rewind()


def averaged(alphas: Mapping[str, Tensor], grads: Sequence[Tensor]) -> Tensors:
    """The gradients by name, averaged over the ranks, without a graph."""
    return dict(zip(alphas, distributed.mean(list(grads)), strict=True))
