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

from gradnas.spaces.blocks.kernels import Kernels, kernels, pixel_step
from gradnas.spaces.blocks.stage import (
    NO_OTHERS,
    NONE,
    RELU,
    Last,
    Others,
    Stage,
    Term,
    Weights,
    is_halving,
)
from gradnas.spaces.native import differentiable, has_memory

Stages = tuple[Stage, ...]


def run_stages(
    stages: Stages,
    last: Last,
    x_BCHW: Tensor,
    weights: Sequence[Tensor],
    other_BCHW: Tensor | None = None,
    shortcut: bool = False,
) -> tuple[Tensor, list[Tensor]] | None:
    """The output, and for each BatchNorm mean and variance as it keeps them, `(2, C)`.

    None where there are no kernels for these tensors, or a BatchNorm sees a single pixel.

    Args:
        weights: of all stages, in the order of `Weights`, without what is missing.
        other_BCHW: is added to the output.
        shortcut: whether the input is added to the output.
    """
    more = [t for t in (last.factor_B, other_BCHW) if t is not None]
    if x_BCHW.ndim != 4 or not has_memory(x_BCHW, *weights, *more):
        return None
    dtype = x_BCHW.dtype
    if any(t.dtype != dtype for t in (*weights, *more)) or kernels(dtype) is None:
        return None
    B, C, H, W = x_BCHW.shape
    if num_inputs(stages, weights) != C:  # for torch to refuse
        return None
    if stages[0].full and x_BCHW.requires_grad:
        return None
    H, W = size_after(stages, H, W)
    if B * H * W == 1:  # for torch to refuse
        return None
    size = (B, num_outputs(stages, weights), H, W)
    if shortcut and x_BCHW.shape != size:
        return None
    if other_BCHW is not None:
        if other_BCHW.shape != size:
            return None
        other_BCHW = channels_last(other_BCHW)
    # Before the operation, so that autograd sees a copy that is made here.
    x_BCHW = channels_last(x_BCHW)
    y_BCHW, *statistics = _Run.apply(stages, last, shortcut, other_BCHW, x_BCHW, *weights)
    return y_BCHW, statistics


def size_after(stages: Stages, height: int, width: int) -> tuple[int, int]:
    """Height and width of the map that leaves them."""
    for stage in stages:
        height = (height - 1) // stage.stride + 1
        width = (width - 1) // stage.stride + 1
    return height, width


def num_inputs(stages: Stages, weights: Sequence[Tensor]) -> int:
    """Channels of the input."""
    return _channels(stages[0], weights)


def _channels(stage: Stage, weights: Sequence[Tensor]) -> int:
    """How many a stage reads."""
    if stage.width and not stage.full:
        return weights[0].shape[0]
    return weights[0].shape[1] // (2 if is_halving(stage) else 1)


def by_stage(stages: Stages, weights: Sequence[Tensor]) -> list[Weights]:
    """The weights of each stage."""
    remaining = iter(weights)
    found = []
    for stage in stages:
        depthwise = next(remaining) if stage.width and not stage.full else None
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
        if stage.full and w.pointwise is not None:
            x_BCHW = F.conv2d(x_BCHW, w.pointwise, None, stage.stride, stage.width // 2)
        elif w.pointwise is not None:
            x_BCHW = F.conv2d(x_BCHW, w.pointwise)
        x_BCHW = F.batch_norm(x_BCHW, None, None, w.scale, w.shift, training=True, eps=stage.eps)
    y_BCHW = activate(x_BCHW, last.act)
    return (y_BCHW if last.factor_B is None else y_BCHW * last.factor_B.view(-1, 1, 1, 1),)


class Computed(NamedTuple):
    """What forward leaves of a run.

    Attributes:
        maps: the input, and what enters each BatchNorm.
        norms: `(4, C)` of each BatchNorm (`Term.norm_4C`).
        statistics: mean and variance of each, as it keeps them, `(2, C)`.
    """

    maps: list[Tensor]
    norms: list[Tensor]
    statistics: list[Tensor]


def forward_stages(
    native: Kernels,
    stages: Stages,
    x_BCHW: Tensor,
    weights: Sequence[Tensor],
    norm_4C: Tensor | None = None,
) -> Computed:
    """Up to what enters the last BatchNorm.

    Args:
        norm_4C: of a BatchNorm before the first stage, which x has not crossed yet.
    """
    found = Computed([x_BCHW], [], [])
    for stage, w in zip(stages, by_stage(stages, weights), strict=True):
        z, norm_4C, kept_2C = native.stage(stage, found.maps[-1], norm_4C, _side_by_side(w))
        found.maps.append(z)
        found.norms.append(norm_4C)
        found.statistics.append(kept_2C)
    return found


class Gradients(NamedTuple):
    """Of a run: of x, of all weights (None where not wanted), and `gradient_sums` of x's."""

    x_BCHW: Tensor | None
    weights: list[Tensor | None]
    sums_2C: Tensor | None


def backward_stages(
    native: Kernels,
    stages: Stages,
    maps: Sequence[Tensor],
    norms: Sequence[Tensor],
    weights: Sequence[Tensor],
    last: Last,
    grad: Tensor,
    sums_2C: Tensor,
    needs: Sequence[bool],
    norm_4C: Tensor | None = None,
    others: Others = NO_OTHERS,
) -> Gradients:
    """Back to the input.

    Args:
        last: what follows the last BatchNorm, which the gradient has not crossed yet.
        sums_2C: `gradient_sums` of the last BatchNorm.
        needs: whether the gradient of the input is wanted, and that of each weight.
        norm_4C: as in `forward_stages`.
    """
    by_number = by_stage(stages, weights)
    needs_weights = _needs_by_stage(stages, needs[1:])
    own_grads: list[Tensor | None] = []
    reached: Tensor | None = grad
    sums: Tensor | None = sums_2C
    for number in reversed(range(len(stages))):
        stage = stages[number]
        assert reached is not None and sums is not None
        w = _side_by_side(by_number[number])
        reached, own, sums = native.stage_backward(
            stage,
            maps[number],
            norms[number - 1] if number else norm_4C,
            w,
            maps[number + 1],
            norms[number],
            sums,
            last if number == len(stages) - 1 else Last(),
            reached,
            # Below the first stage that has to go on nothing is asked for.
            (number > 0 or needs[0], *needs_weights[number]),
            NO_OTHERS if number else others,
        )
        own_grads = [g for t, g in zip(w, own, strict=True) if t is not None] + own_grads
    asked = [g if need else None for g, need in zip(own_grads, needs[1:], strict=True)]
    return Gradients(reached, asked, sums)


class _Run(torch.autograd.Function):
    """Arguments: stages, what is last, whether x is added, what is added, x, weights.

    Gives the output, and what the BatchNorm of each stage keeps.
    """

    @staticmethod
    def forward(
        ctx: Any,
        stages: Stages,
        last: Last,
        shortcut: bool,
        other_BCHW: Tensor | None,
        x_BCHW: Tensor,
        *weights: Tensor,
    ) -> tuple[Tensor, ...]:
        native = kernels_for(x_BCHW)
        found = forward_stages(native, stages, x_BCHW, weights)
        terms = [Term(found.maps[-1], found.norms[-1], last)]
        if other_BCHW is not None:
            terms.append(Term(other_BCHW))
        if shortcut:
            terms.append(Term(x_BCHW))
        y_BCHW = native.combine(terms)
        ctx.spec = (stages, last, shortcut)
        ctx.save_for_backward(*found.maps, *found.norms, *weights)
        ctx.mark_non_differentiable(*found.statistics)
        ctx.set_materialize_grads(False)
        return y_BCHW, *found.statistics

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple:
        grad = grads[0]
        stages, last, shortcut = ctx.spec
        if grad is None:
            return (None,) * len(ctx.needs_input_grad)
        grad_other = grad if ctx.needs_input_grad[3] else None
        num = len(stages)
        saved = ctx.saved_tensors
        maps, norms, weights = saved[: num + 1], saved[num + 1 : 2 * num + 1], saved[2 * num + 1 :]
        needs = ctx.needs_input_grad[4:]
        if torch.is_grad_enabled() or not has_memory(grad, *saved) or grad.dtype != maps[0].dtype:
            plain = functools.partial(_plain_with_shortcut, stages, last, shortcut)
            found = differentiable(plain, (maps[0], *weights), needs, [grad])
            return None, None, None, grad_other, *found
        native = kernels_for(grad)
        if pixel_step(grad) is None:
            grad = channels_last(grad)
        (sums_2C,) = native.gradient_sums([Term(maps[-1], norms[-1], last)], grad)
        others = Others(grad) if shortcut and needs[0] else NO_OTHERS
        own = backward_stages(
            native, stages, maps, norms, weights, last, grad, sums_2C, needs, others=others
        )
        return None, None, None, grad_other, own.x_BCHW, *own.weights


def _plain_with_shortcut(
    stages: Stages, last: Last, shortcut: bool, x_BCHW: Tensor, *weights: Tensor
) -> tuple[Tensor]:
    (y_BCHW,) = plain_run(stages, last, x_BCHW, *weights)
    return (x_BCHW + y_BCHW if shortcut else y_BCHW,)


def pooled(x_BCHW: Tensor, stride: int) -> Tensor | None:
    """The largest of 3x3 pixels; None where there are no kernels for this tensor."""
    if x_BCHW.ndim != 4 or not has_memory(x_BCHW) or kernels(x_BCHW.dtype) is None:
        return None
    return _Pool.apply(stride, channels_last(x_BCHW))


class _Pool(torch.autograd.Function):
    """Arguments: stride and x, which is kept; torch keeps a place for each number."""

    @staticmethod
    def forward(ctx: Any, stride: int, x_BCHW: Tensor) -> Tensor:
        ctx.stride = stride
        ctx.save_for_backward(x_BCHW)
        ctx.set_materialize_grads(False)
        return kernels_for(x_BCHW).pool(x_BCHW, stride)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple:
        (grad,) = grads
        if grad is None:
            return None, None
        (x_BCHW,) = ctx.saved_tensors
        if torch.is_grad_enabled() or not has_memory(grad, x_BCHW) or grad.dtype != x_BCHW.dtype:

            def plain(x_BCHW: Tensor) -> tuple[Tensor]:
                return (F.max_pool2d(x_BCHW, 3, ctx.stride, 1),)

            return None, *differentiable(plain, (x_BCHW,), ctx.needs_input_grad[1:], grads)
        return None, kernels_for(grad).pool_backward(x_BCHW, ctx.stride, channels_last(grad))


def kernels_for(like: Tensor) -> Kernels:
    """The functions for its dtype, which the caller knows to be there."""
    native = kernels(like.dtype)
    assert native is not None
    return native


def channels_last(x_BCHW: Tensor) -> Tensor:
    """The map in channels-last memory."""
    return x_BCHW.contiguous(memory_format=torch.channels_last)


def lies_channels_last(t: Tensor) -> bool:
    """Whether torch's convolutions see a map or a weight in channels-last memory."""
    if t.ndim != 4 or t.shape[1:].numel() == 1:
        return False
    return t.stride(1) == 1 and t.stride(3) >= t.shape[1]


def _side_by_side(w: Weights) -> Weights:
    """As the kernels read them; a weight may lie in channels-last memory."""
    depthwise, pointwise, scale, shift = w
    if pointwise is not None:
        is_full = pointwise.shape[2] > 1
        layout = torch.channels_last if is_full else torch.contiguous_format
        pointwise = pointwise.contiguous(memory_format=layout)
    if depthwise is not None:
        depthwise = depthwise.contiguous()
    if scale is not None and shift is not None:
        return Weights(depthwise, pointwise, scale.contiguous(), shift.contiguous())
    return Weights(depthwise, pointwise, None, None)


def _needs_by_stage(stages: Stages, needs: Sequence[bool]) -> list[tuple[bool, bool]]:
    """Of each stage, whether the gradients of its two convolutions are wanted."""
    remaining = iter(needs)
    found = []
    for stage in stages:
        depthwise = next(remaining) if stage.width and not stage.full else False
        pointwise = next(remaining) if stage.pointwise else False
        if stage.affine:
            next(remaining)
            next(remaining)
        found.append((depthwise, pointwise))
    return found
