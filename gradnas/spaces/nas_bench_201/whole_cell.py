"""The open cell of NAS-Bench-201 as one operation of autograd, by the kernels of `open_cell.cpp`.

Legend: B batch, C channels, H height, W width, K convolutions, E edges, O operations.

Every convolution is computed and normalised on its own, and what enters a node is added up in one
pass: BatchNorms scaled by their mixing weights, nodes that are only weighed, and one average pool
of a weighted sum. Kept for backward are the nodes and what the convolutions gave; the gradient of
what a convolution gave is formed where its transposed convolution reads it.

Where the backward itself is to be differentiated (`create_graph`), it steps aside for autograd on
the cell by torch's operations.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from gradnas.spaces.nas_bench_201.kernels import Plan, kernels
from gradnas.spaces.native import differentiable, has_memory

Seen = Tensor | None  # mean and variance `(2, K, C)` to normalise by, float64
Plain = Callable[..., Tensor]  # (seen, x, mixing weights, *weights) -> the last node


def fits(plan: Plan, x_BCHW: Tensor, mix_EO: Tensor, weights: Sequence[Tensor]) -> bool:
    """Whether `run_cell` can compute it; what torch would refuse is for torch to refuse."""
    if not has_memory(x_BCHW, mix_EO, *weights) or torch.is_autocast_enabled("cpu"):
        return False
    if x_BCHW.dim() != 4 or any(w.dtype != x_BCHW.dtype for w in weights):
        return False
    if any(w.shape[1] != x_BCHW.shape[1] for w in weights) or not mix_EO.is_floating_point():
        return False
    parts = (*plan.convolutions, *plan.weighed)
    if not any(own.target == plan.nodes - 1 for own in parts):  # zeros, that know of no input
        return False
    native = kernels(x_BCHW.dtype)
    B, _, H, W = x_BCHW.shape
    # A vector holds images: of few most of it would be empty.
    return native is not None and native.lanes <= 2 * B and B * H * W > 1


def run_cell(
    plan: Plan,
    plain: Plain,
    seen: Seen,
    x_BCHW: Tensor,
    mix_EO: Tensor,
    weights: Sequence[Tensor],
) -> tuple[Tensor, Tensor]:
    """The last node of a cell from its first; and what its BatchNorms normalised by, `(2, K, C)`.

    Args:
        plain: the same on torch's operations.
        seen: what BatchNorms normalise by; None: what they see in this batch.
    """
    found: list[Tensor] = []
    y_BCHW = _Cell.apply(plan, plain, seen, found, x_BCHW, mix_EO, *weights)
    return y_BCHW, found[0]


class _Cell(torch.autograd.Function):
    """Arguments: plan, plain, seen, a list for what is found, x, the mixing weights, weights."""

    @staticmethod
    def forward(
        ctx: Any,
        plan: Plan,
        plain: Plain,
        seen: Seen,
        found: list[Tensor],
        x_BCHW: Tensor,
        mix_EO: Tensor,
        *weights: Tensor,
    ) -> Tensor:
        native = kernels(x_BCHW.dtype)
        assert native is not None
        table_EO = mix_EO.detach().double().contiguous()
        computed = native.forward(plan, x_BCHW, table_EO, weights, seen)
        found.append(computed.seen_2KC)
        ctx.plan = plan
        ctx.plain = plain
        ctx.of_batch = seen is None
        kept = (table_EO, computed.seen_2KC, computed.kept)
        ctx.save_for_backward(x_BCHW, mix_EO, *kept, *weights)
        return computed.y_BCHW

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple:
        x_BCHW, mix_EO, table_EO, seen_2KC, kept, *weights = ctx.saved_tensors
        needs = ctx.needs_input_grad[4:]
        if torch.is_grad_enabled() or not has_memory(*grads):
            seen = None if ctx.of_batch else seen_2KC
            plain = functools.partial(ctx.plain, seen)
            tensors = (x_BCHW, mix_EO, *weights)
            found = differentiable(lambda *tensors: (plain(*tensors),), tensors, needs, grads)
            return None, None, None, None, *found
        native = kernels(x_BCHW.dtype)
        assert native is not None
        grad_x, grad_EO, grad_weights = native.backward(
            ctx.plan,
            grads[0],
            x_BCHW,
            table_EO,
            weights,
            seen_2KC,
            kept,
            ctx.of_batch,
            needs[0],
            needs[2:],
        )
        mix = grad_EO.to(mix_EO.dtype) if needs[1] else None
        return None, None, None, None, grad_x, mix, *grad_weights
