"""A run of stages with their BatchNorms as one operation of autograd.

Legend: B batch, C channels, H height, W width. Of a run are kept its input and what enters each of
its BatchNorms, and nothing else. Where the backward itself is to be differentiated
(`create_graph`), it steps aside for autograd on `plain_run`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gradnas.spaces.blocks.kernels import (
    NONE,
    RELU,
    Kernels,
    Last,
    Stage,
    is_halving,
    kernels,
    pixel_step,
)
from gradnas.spaces.native import differentiable, has_memory

Stages = tuple[Stage, ...]


class Weights(NamedTuple):
    """Of one stage; None for what it does not have."""

    depthwise: Tensor | None
    pointwise: Tensor | None
    scale: Tensor | None
    shift: Tensor | None


def run_stages(
    stages: Stages,
    last: Last,
    x_BCHW: Tensor,
    weights: Sequence[Tensor],
    other_BCHW: Tensor | None = None,
) -> tuple[Tensor, list[tuple[Tensor, Tensor]]] | None:
    """The output, and for each BatchNorm mean and variance as it keeps them, in float64.

    None where there are no kernels for these tensors, or a BatchNorm sees a single pixel.

    Args:
        weights: of all stages, in the order of `Weights`, without what is missing.
        other_BCHW: is added to the output.
    """
    more = [t for t in (last.factor_B, other_BCHW) if t is not None]
    if x_BCHW.ndim != 4 or not has_memory(x_BCHW, *weights, *more):
        return None
    dtype = x_BCHW.dtype
    if any(t.dtype != dtype for t in (*weights, *more)) or kernels(dtype) is None:
        return None
    B, C, H, W = x_BCHW.shape
    if _channels(stages[0], weights) != C:  # for torch to refuse
        return None
    for stage in stages:
        H = (H - 1) // stage.stride + 1
        W = (W - 1) // stage.stride + 1
    if B * H * W == 1:  # for torch to refuse
        return None
    if other_BCHW is not None:
        size = (B, num_outputs(stages, weights), H, W)
        if other_BCHW.shape != size:
            return None
        other_BCHW = _channels_last(other_BCHW)
    # Before the operation, so that autograd sees a copy that is made here.
    x_BCHW = _channels_last(x_BCHW)
    y_BCHW, *statistics = _Run.apply(stages, last, other_BCHW, x_BCHW, *weights)
    return y_BCHW, list(zip(statistics[::2], statistics[1::2], strict=True))


def _channels(stage: Stage, weights: Sequence[Tensor]) -> int:
    """How many a stage reads."""
    if stage.width:
        return weights[0].shape[0]
    return weights[0].shape[1] // (2 if is_halving(stage) else 1)


def by_stage(stages: Stages, weights: Sequence[Tensor]) -> list[Weights]:
    """The weights of each stage."""
    remaining = iter(weights)
    found = []
    for stage in stages:
        depthwise = next(remaining) if stage.width else None
        pointwise = next(remaining) if stage.pointwise else None
        scale = next(remaining) if stage.affine else None
        shift = next(remaining) if stage.affine else None
        found.append(Weights(depthwise, pointwise, scale, shift))
    return found


def activate(x: Tensor, act: int) -> Tensor:
    """An activation by its number."""
    if act == RELU:
        return torch.relu(x)
    return x if act == NONE else F.relu6(x)


def num_outputs(stages: Stages, weights: Sequence[Tensor]) -> int:
    """Channels of the output."""
    found = _channels(stages[0], weights)
    for w in by_stage(stages, weights):
        found = found if w.pointwise is None else w.pointwise.shape[0]
    return found


def plain_run(stages: Stages, last: Last, x_BCHW: Tensor, *weights: Tensor) -> tuple[Tensor]:
    """The output on torch's operations; no running statistics are changed."""
    for stage, w in zip(stages, by_stage(stages, weights), strict=True):
        x_BCHW = activate(x_BCHW, stage.act)
        if w.depthwise is not None:
            border = stage.dilation * (stage.width // 2)
            x_BCHW = F.conv2d(
                x_BCHW, w.depthwise, None, stage.stride, border, stage.dilation, x_BCHW.shape[1]
            )
        if is_halving(stage):
            x_BCHW = torch.cat([x_BCHW[:, :, ::2, ::2], x_BCHW[:, :, 1::2, 1::2]], dim=1)
        if w.pointwise is not None:
            x_BCHW = F.conv2d(x_BCHW, w.pointwise)
        x_BCHW = F.batch_norm(x_BCHW, None, None, w.scale, w.shift, training=True, eps=stage.eps)
    y_BCHW = activate(x_BCHW, last.act)
    return (y_BCHW if last.factor_B is None else y_BCHW * last.factor_B.view(-1, 1, 1, 1),)


class _Run(torch.autograd.Function):
    """Arguments: stages, what is last, what is added, x, weights.

    Gives the output, and two statistics for each stage.
    """

    @staticmethod
    def forward(
        ctx: Any,
        stages: Stages,
        last: Last,
        other_BCHW: Tensor | None,
        x_BCHW: Tensor,
        *weights: Tensor,
    ) -> tuple[Tensor, ...]:
        native = _kernels(x_BCHW)
        norm_4C: Tensor | None = None
        maps = [x_BCHW]
        norms = []
        statistics = []
        for stage, w in zip(stages, by_stage(stages, weights), strict=True):
            depthwise, pointwise = _side_by_side(w)
            z, mean_C, var_C = native.stage(stage, maps[-1], norm_4C, depthwise, pointwise)
            pixels = z.numel() // z.shape[1]
            norm_4C = _norm(mean_C, var_C, stage, w, x_BCHW.dtype)
            maps.append(z)
            norms.append(norm_4C)
            statistics += [mean_C, var_C * (pixels / (pixels - 1))]  # as BatchNorm keeps it
        assert norm_4C is not None
        y_BCHW = native.apply(maps[-1], norm_4C, last, other_BCHW)
        ctx.spec = (stages, last)
        ctx.save_for_backward(*maps, *norms, *weights)
        ctx.mark_non_differentiable(*statistics)
        ctx.set_materialize_grads(False)
        return y_BCHW, *statistics

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple:
        grad = grads[0]
        stages, last = ctx.spec
        if grad is None:
            return (None,) * len(ctx.needs_input_grad)
        grad_other = grad if ctx.needs_input_grad[2] else None
        num = len(stages)
        saved = ctx.saved_tensors
        maps, norms, weights = saved[: num + 1], saved[num + 1 : 2 * num + 1], saved[2 * num + 1 :]
        needs = ctx.needs_input_grad[3:]
        if torch.is_grad_enabled() or not has_memory(grad, *saved) or grad.dtype != maps[0].dtype:
            plain = functools.partial(plain_run, stages, last)
            found = differentiable(plain, (maps[0], *weights), needs, [grad])
            return None, None, grad_other, *found
        native = _kernels(grad)
        if pixel_step(grad) is None:
            grad = _channels_last(grad)
        sums_2C: Tensor | None = native.gradient_sums(maps[-1], norms[-1], last, grad)
        by_number = by_stage(stages, weights)
        needs_weights = _needs_by_stage(stages, needs[1:])
        own_grads: list[Tensor | None] = []
        for number in reversed(range(num)):
            stage = stages[number]
            z = maps[number + 1]
            assert grad is not None and sums_2C is not None
            means_2C = (sums_2C / (z.numel() // z.shape[1])).to(z.dtype)
            depthwise, pointwise = _side_by_side(by_number[number])
            # Below the first stage that has to go on nothing is asked for.
            goes_on = number > 0 or needs[0]
            needs_own = needs_weights[number]
            own: list[Tensor | None] = []
            grad, grad_depthwise, grad_pointwise, sums_below = native.stage_backward(
                stage,
                maps[number],
                norms[number - 1] if number else None,
                depthwise,
                pointwise,
                z,
                norms[number],
                means_2C,
                last if number == num - 1 else Last(),
                grad,
                (goes_on, *needs_own),
            )
            if stage.width:
                own.append(grad_depthwise)
            if stage.pointwise:
                own.append(grad_pointwise)
            if stage.affine:
                shift_C, scale_C = sums_2C.to(z.dtype)
                own += [scale_C, shift_C]
            own_grads = own + own_grads
            sums_2C = sums_below
        asked = [g if need else None for g, need in zip(own_grads, needs[1:], strict=True)]
        return None, None, grad_other, grad, *asked


def pooled(x_BCHW: Tensor, stride: int) -> Tensor | None:
    """The largest of 3x3 pixels; None where there are no kernels for this tensor."""
    if x_BCHW.ndim != 4 or not has_memory(x_BCHW) or kernels(x_BCHW.dtype) is None:
        return None
    return _Pool.apply(stride, _channels_last(x_BCHW))


class _Pool(torch.autograd.Function):
    """Arguments: stride and x, which is kept; torch keeps a place for each number."""

    @staticmethod
    def forward(ctx: Any, stride: int, x_BCHW: Tensor) -> Tensor:
        ctx.stride = stride
        ctx.save_for_backward(x_BCHW)
        return _kernels(x_BCHW).pool(x_BCHW, stride)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple:
        (x_BCHW,) = ctx.saved_tensors
        (grad,) = grads
        if torch.is_grad_enabled() or not has_memory(grad, x_BCHW) or grad.dtype != x_BCHW.dtype:

            def plain(x_BCHW: Tensor) -> tuple[Tensor]:
                return (F.max_pool2d(x_BCHW, 3, ctx.stride, 1),)

            return None, *differentiable(plain, (x_BCHW,), ctx.needs_input_grad[1:], grads)
        return None, _kernels(grad).pool_backward(x_BCHW, ctx.stride, _channels_last(grad))


def _kernels(like: Tensor) -> Kernels:
    native = kernels(like.dtype)
    assert native is not None  # looked for by the caller
    return native


def _channels_last(x_BCHW: Tensor) -> Tensor:
    return x_BCHW.contiguous(memory_format=torch.channels_last)


def _side_by_side(w: Weights) -> tuple[Tensor | None, Tensor | None]:
    """Both weights as the kernels read them; a weight may lie in channels-last memory."""
    depthwise = None if w.depthwise is None else w.depthwise.contiguous()
    pointwise = None if w.pointwise is None else w.pointwise.contiguous()
    return depthwise, pointwise


def _norm(mean_C: Tensor, var_C: Tensor, stage: Stage, w: Weights, dtype: torch.dtype) -> Tensor:
    """Scale, shift, mean and 1 / sqrt(variance + eps) of a BatchNorm, `(4, C)`."""
    inverse_C = (var_C + stage.eps).rsqrt()
    scale_C = inverse_C if w.scale is None else inverse_C * w.scale
    scale_C = scale_C.to(dtype)
    # From the rounded scale: the kernel computes scale z + shift, whose mean should be the shift.
    shift_C = -mean_C * scale_C
    if w.shift is not None:
        shift_C = shift_C + w.shift
    return torch.stack([scale_C, shift_C.to(dtype), mean_C.to(dtype), inverse_C.to(dtype)])


def _needs_by_stage(stages: Stages, needs: Sequence[bool]) -> list[tuple[bool, bool]]:
    """Of each stage, whether the gradients of its two convolutions are wanted."""
    remaining = iter(needs)
    found = []
    for stage in stages:
        depthwise = next(remaining) if stage.width else False
        pointwise = next(remaining) if stage.pointwise else False
        if stage.affine:
            next(remaining)
            next(remaining)
        found.append((depthwise, pointwise))
    return found
