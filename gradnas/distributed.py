"""Rank, world and averages over ranks; every function is the identity in a run of one process.

A search in several processes is the same search on a larger batch: each rank sees its share of every batch, and what
one process would average over the batch is averaged over the ranks. Inside an unrolled step that average must itself
be differentiated: averaging the finished hypergradients is wrong, because the inner gradient then belongs to one
rank's batch only.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor


def start(device: torch.device) -> None:
    """Join the processes that `torchrun` started (its environment variables); nothing to do in a single process."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")


def stop() -> None:
    """Leave the group that `start` joined."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def world() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Index of this process, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def is_main() -> bool:
    """Whether this process writes files and prints."""
    return rank() == 0


class _Mean(torch.autograd.Function):
    """Mean over ranks whose derivative is again a mean over ranks.

    With `y = mean_r x_r` and the total loss `mean_s L_s(y)`, rank r needs `d/dx_r = (1/W) * sum_s dL_s/dy / W`; since
    finished gradients are averaged over ranks once more (the outer 1/W with a sum), each rank contributes the mean.
    """

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:  # type: ignore[override]
        total = x.contiguous().clone()
        dist.all_reduce(total)
        return total / world()

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:  # type: ignore[override]
        return _Mean.apply(grad)


def mean_with_autograd(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Mean of each tensor over the ranks, differentiable any number of times. Shapes must agree on all ranks."""
    if world() == 1 or not tensors:
        return list(tensors)
    # One collective for all: ranks cannot get out of step, and small tensors do not cost a round trip each.
    flat = _Mean.apply(torch.cat([t.reshape(-1) for t in tensors]))
    pieces = flat.split([t.numel() for t in tensors])
    return [piece.reshape(t.shape) for piece, t in zip(pieces, tensors, strict=True)]


@torch.no_grad()
def mean(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Mean of each tensor over the ranks, without a graph."""
    return mean_with_autograd([t.detach() for t in tensors])


def mean_of_values(values: Mapping[str, float]) -> dict[str, float]:
    """Mean over the ranks of named numbers (float64)."""
    if world() == 1:
        return dict(values)
    (averaged,) = mean([torch.tensor(list(values.values()), dtype=torch.float64)])
    return dict(zip(values, averaged.tolist(), strict=True))


@torch.no_grad()
def copy_from_main(tensors: Sequence[Tensor]) -> None:
    """Overwrite each tensor, in place, with rank 0's."""
    if world() > 1:
        for tensor in tensors:
            dist.broadcast(tensor, src=0)


def same_seed(seed: int) -> int:
    """Rank 0's seed, on every rank."""
    if world() == 1:
        return seed
    box = [seed]
    dist.broadcast_object_list(box, src=0)
    return int(box[0])


def barrier() -> None:
    """Wait for all ranks."""
    if world() > 1:
        dist.barrier()
