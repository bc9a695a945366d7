"""Rank, world and averages over ranks; every function is the identity in a run of one process.

A search in several processes is the same search on a larger batch: each rank sees its share of
every batch, and what one process would average over the batch is averaged over the ranks. Inside an
unrolled step that average must itself be differentiated: averaging the finished hypergradients is
wrong, because the inner gradient then belongs to one rank's batch only. Where the ranks have uneven
shares of a batch, each multiplies its loss by `factors`, and the plain mean is that of the batch.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

RESTARTS = "TORCHELASTIC_RESTART_COUNT"  # torchrun says how often it has started this process again


class RankLost(RuntimeError):
    """Another process of this run is gone, or did not answer."""


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """What a collective raises when another process is gone, as a sentence."""
    try:
        yield
    except RuntimeError as error:  # of many kinds: gloo's are plain
        # Gloo says first in which file of its own it was, and adds advice after a full stop.
        first = re.sub(r"^(\[[^]]*\]\s*)+", "", str(error).strip()).partition(". ")[0]
        reason = first.splitlines()[0] if first else "no answer"
        raise RankLost(
            f"process {rank()} of {world()}: another process of this run is gone ({reason:.120}); "
            "start all of them again to go on from the last checkpoint"
        ) from error


def pick_device(name: str) -> torch.device:
    """The device of this name; `"auto"` is CUDA where there is one.

    Raises:
        ValueError: CUDA is asked for but absent, or there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"unknown device {name!r}; use cpu, cuda, cuda:N or auto") from error
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count == 0:
            raise ValueError(
                f"device {name!r} was asked for, but this machine has no usable CUDA device; use "
                "--device cpu"
            )
        if device.index is not None and device.index >= count:
            raise ValueError(
                f"device {name!r} was asked for, but there are only {count} CUDA devices"
            )
    elif device.type != "cpu":
        raise ValueError(f"device {name!r} is not supported; use cpu, cuda, cuda:N or auto")
    return device


def joined_device(name: str) -> torch.device:
    """The device that was asked for; joins the processes of torchrun, where there are any."""
    device = pick_device(name)
    is_any_cuda = device.type == "cuda" and device.index is None
    if is_any_cuda and "LOCAL_RANK" in os.environ:
        # torchrun numbers the processes of a machine: each takes the device of its number.
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    start(device)
    return device


def start(device: torch.device) -> None:
    """Join the processes that `torchrun` started; nothing to do in a single process."""
    num_processes = int(os.environ.get("WORLD_SIZE", "1"))  # torchrun says so
    if num_processes > 1 and not dist.is_initialized():
        # Numbers that are compared or averaged lie on the CPU, wherever the weights are.
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        if not is_restart():
            dist.init_process_group(backend)
            return
        # The store of torchrun may still hold where the processes were that failed.
        store, own_rank, number = next(dist.rendezvous("env://"))
        again = dist.PrefixStore(f"gradnas/{os.environ[RESTARTS]}", store)
        dist.init_process_group(backend, store=again, rank=own_rank, world_size=number)


def is_restart() -> bool:
    """Whether `torchrun --max-restarts` has started this process again after another one failed."""
    return os.environ.get(RESTARTS, "0") not in ("", "0")


def check_joined() -> None:
    """ValueError where `torchrun` started several processes and this one has not joined them."""
    num_processes = os.environ.get("WORLD_SIZE", "1")
    if num_processes.isdigit() and int(num_processes) > 1 and not _joined():
        raise ValueError(
            f"this is one of {num_processes} processes (WORLD_SIZE says so) that know nothing of "
            "each other, and each would search for itself: call "
            'torch.distributed.init_process_group("gloo"), or "nccl" on CUDA devices, before the '
            "search is made (or unset WORLD_SIZE)"
        )


def stop() -> None:
    """Leave the group that `start` joined."""
    if _joined():
        dist.destroy_process_group()


def _joined() -> bool:
    return dist.is_available() and dist.is_initialized()


_alone: ContextVar[bool] = ContextVar("gradnas_alone", default=False)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Within, this process works for itself: it asks the others nothing, who need not take part."""
    token = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(token)


def world() -> int:
    """Number of processes."""
    return dist.get_world_size() if _joined() and not _alone.get() else 1


def rank() -> int:
    """Index of this process, from 0."""
    return dist.get_rank() if _joined() and not _alone.get() else 0


def is_main() -> bool:
    """Whether this process writes files and prints."""
    return rank() == 0


class _Mean(torch.autograd.Function):
    """Mean over ranks whose derivative is again a mean over ranks.

    With `y = mean_r x_r` and the total loss `mean_s L_s(y)`, rank r needs `d/dx_r = (1/W) * sum_s
    dL_s/dy / W`; since finished gradients are averaged over ranks once more (the outer 1/W with a
    sum), each rank contributes the mean.
    """

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return _summed(x) / world()

    @staticmethod
    def backward(ctx, *grads: Tensor) -> Tensor:
        return _Mean.apply(*grads)


class _Sum(torch.autograd.Function):
    """Sum over ranks whose derivative is again a sum over ranks.

    With `y = sum_r x_r` and the total loss `sum_s L_s(y)`, rank r needs `d/dx_r = sum_s dL_s/dy`.
    """

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return _summed(x)

    @staticmethod
    def backward(ctx, *grads: Tensor) -> Tensor:
        return _Sum.apply(*grads)


def _summed(x: Tensor) -> Tensor:
    total = x.contiguous().clone()
    with _told():
        dist.all_reduce(total)
    return total


def sum_with_autograd(x: Tensor) -> Tensor:
    """Sum of a tensor over the ranks, differentiable any number of times."""
    return x if world() == 1 else _Sum.apply(x)


def mean_with_autograd(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Mean of each tensor over the ranks, differentiable any number of times.

    Shapes must agree on all ranks.
    """
    if world() == 1 or not tensors:
        return list(tensors)
    # One collective for all: ranks cannot get out of step, and small tensors do not cost a round
    # trip each.
    flat = _Mean.apply(torch.cat([t.reshape(-1) for t in tensors]))
    pieces = flat.split([t.numel() for t in tensors])
    # Back to their own types: side by side, narrow ones were widened to the widest.
    return [p.reshape(t.shape).to(t.dtype) for p, t in zip(pieces, tensors, strict=True)]


@torch.no_grad()
def mean(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Mean of each tensor over the ranks, without a graph."""
    return mean_with_autograd([t.detach() for t in tensors])


def mean_of_values(values: Mapping[str, float]) -> dict[str, float]:
    """Mean over the ranks of named numbers (float64)."""
    if world() == 1:
        return dict(values)
    numbers = torch.tensor(list(values.values()), dtype=torch.float64)
    (averaged,) = mean([numbers])
    return dict(zip(values, averaged.tolist(), strict=True))


def factors(sizes: Sequence[int | None], device: torch.device) -> list[float]:
    """What this rank's losses are multiplied by, for their mean over ranks to be the batch's.

    A loss that is a mean over n of the N examples of a batch counts n / N in the mean over all of
    them, and 1 / W in the mean over W ranks: the factor is W n / N, and 1 where shares are even.

    Args:
        sizes: of this rank's share of each batch; None: not known, on any rank.

    Raises:
        ValueError: one is known on some ranks only.
    """
    if world() == 1:
        return [1.0] * len(sizes)
    known = [0 if size is None else 1 for size in sizes]
    own = [0 if size is None else size for size in sizes]
    counts = torch.tensor([known, own], device=device)
    with _told():
        dist.all_reduce(counts)
    num_known, totals = counts.tolist()
    shares = []
    for size, ranks, total in zip(sizes, num_known, totals, strict=True):
        if ranks not in (0, world()):
            raise ValueError(
                f"the size of a batch is known on {ranks} of {world()} processes: give it on all "
                "of them, step(..., sizes=(train, valid)), or on none"
            )
        shares.append(1.0 if size is None or total == 0 else world() * size / total)
    return shares


@torch.no_grad()
def copy_from_main(tensors: Sequence[Tensor]) -> None:
    """Overwrite each tensor, in place, with rank 0's."""
    if world() > 1:
        with _told():
            for tensor in tensors:
                dist.broadcast(tensor, src=0)


def barrier() -> None:
    """Wait for all ranks."""
    if world() > 1:
        with _told():
            dist.barrier()


def most(values: Sequence[int]) -> list[int]:
    """The largest of each number over the ranks."""
    if world() == 1:
        return list(values)
    numbers = torch.tensor(list(values))
    with _told():
        dist.all_reduce(numbers, op=dist.ReduceOp.MAX)
    return numbers.tolist()


def gathered(value: Any) -> list[Any]:
    """The values of all ranks: tensors and plain values, in the order of ranks, on every rank."""
    if world() == 1:
        return [value]
    values: list[Any] = [None] * world()
    with _told():
        dist.all_gather_object(values, value)
    return values


def from_main(value: Any) -> Any:
    """Rank 0's value, on every rank."""
    return gathered(value)[0]
