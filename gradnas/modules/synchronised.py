"""BatchNorm over the batch of all ranks.

A search in several processes is the same search on a larger batch, so that what is normalised over
a batch is normalised over that of all ranks. The means cross ranks by a sum that autograd crosses,
any number of times and on the CPU too (torch's own `SyncBatchNorm` is for CUDA alone, and cannot be
differentiated twice).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import Tensor
from torch.overrides import TorchFunctionMode

from gradnas import distributed

_at_work = False  # whether what runs now is synchronised
_are_local = False


def keep_norms_local(local: bool = True) -> None:
    """Let each rank normalise over its own share of a batch, in this process, from now on."""
    global _are_local
    _are_local = local


def norms_words() -> str | None:
    """How norms are taken, for the environment of a run; None in a single process."""
    if distributed.world() == 1:
        return None
    return "of each process" if _are_local else "over all processes"


def norms_are_synchronised() -> bool:
    """Whether a BatchNorm that runs now in training is one over all ranks."""
    return _at_work


@contextmanager
def synchronised_norms() -> Iterator[None]:
    """Within, every BatchNorm that is in training normalises over the batches of all ranks.

    All ranks must run the same passes within. In a single process nothing changes.
    """
    global _at_work
    if distributed.world() == 1 or _are_local or _at_work:
        yield
        return
    _at_work = True
    try:
        with _OverRanks(), _also_when_run_again():
            yield
    finally:
        _at_work = False


@contextmanager
def _also_when_run_again() -> Iterator[None]:
    """Within, what `torch.utils.checkpoint` runs again in backward is synchronised there, too.

    torch takes a mode away for the time of a call that it was told of, and a backward pass is one.
    """
    module: Any = torch.utils.checkpoint
    # Not public: every form of checkpointing goes through these two.
    names = ("_checkpoint_without_reentrant_generator", "CheckpointFunction")
    generator, reentrant = (getattr(module, name) for name in names)

    def synchronised(function: Callable[..., Any], *settings: Any, **named: Any) -> Any:
        return generator(_again(function), *settings, **named)

    class Applied:
        @staticmethod
        def apply(function: Callable[..., Any], *settings: Any) -> Any:
            return reentrant.apply(_again(function), *settings)

    for name, own in zip(names, (synchronised, Applied), strict=True):
        setattr(module, name, own)
    try:
        yield
    finally:
        setattr(module, names[0], generator)
        setattr(module, names[1], reentrant)


def _again(function: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **named: Any) -> Any:
        with _OverRanks():
            return function(*args, **named)

    return run


class _OverRanks(TorchFunctionMode):
    """Calls of torch's functions, with `batch_norm` in training replaced."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        named = kwargs or {}
        if func is F.batch_norm and _is_training(args, named):
            return synchronised_batch_norm(*args, **named)
        return func(*args, **named)


def _is_training(args: tuple[Any, ...], named: dict[str, Any]) -> bool:
    training = args[5] if len(args) > 5 else named.get("training", False)
    return bool(training)


def synchronised_batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`torch.nn.functional.batch_norm` in training, over the batches of all ranks.

    Args:
        input: `(B, C, ...)`, this rank's share.

    Raises:
        ValueError: one value for each channel, over all ranks.
    """
    assert training
    # Narrow numbers are summed as wide ones, as torch does it.
    wide = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
    mean_C, variance_C, count = moments(wide, [0, *range(2, wide.dim())])
    shape = [1, -1] + [1] * (wide.dim() - 2)
    centred = wide - mean_C.reshape(shape)
    output = centred * torch.rsqrt(variance_C + eps).reshape(shape)
    if weight is not None:
        output = output * weight.reshape(shape)
    if bias is not None:
        output = output + bias.reshape(shape)
    with torch.no_grad():
        if running_mean is not None:
            running_mean.lerp_(mean_C.detach().to(running_mean.dtype), momentum)
        if running_var is not None:
            # That of the population, as torch keeps it.
            unbiased_C = variance_C.detach() * (count / (count - 1))
            running_var.lerp_(unbiased_C.to(running_var.dtype), momentum)
    return output.to(input.dtype)


def moments(x: Tensor, dims: list[int]) -> tuple[Tensor, Tensor, float]:
    """Mean and variance (of what there is) over some dimensions and over all ranks; the count.

    Raises:
        ValueError: there is one value alone.
    """
    number = 1
    for dim in dims:
        number *= x.shape[dim]
    # One sum carries the count: a share may be larger than another.
    sums = x.sum(dims)
    both = distributed.sum_with_autograd(torch.cat([sums, sums.new_tensor([float(number)])]))
    count = float(both[-1].detach())
    if count <= 1:
        raise ValueError(
            "Expected more than 1 value per channel when training, got input size "
            f"{tuple(x.shape)} on {distributed.world()} processes"
        )
    mean = both[:-1] / count
    shape = [1 if dim in dims else size for dim, size in enumerate(x.shape)]
    squares = (x - mean.reshape(shape)).square().sum(dims)
    variance = distributed.sum_with_autograd(squares) / count
    return mean, variance, count
