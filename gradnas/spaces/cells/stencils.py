"""Operations of the fused cell that read the pixels around a pixel, on the C++ kernels or on torch.

Legend: B batch, C channels, H height, W width, K kernel width, I channels in, O channels out.

Every operation is a `torch.autograd.Function` with three methods: `plain` says what it computes, on
torch's operations; `forward` and `backward` do it with the kernels. Where there are no kernels for
a map, `plain` runs. Where the backward itself is to be differentiated (`create_graph`), it steps
aside for autograd on `plain`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradnas.spaces.cells.kernels import EPS, compiled, kernels, num_pixels, unbiased
from gradnas.spaces.cells.places import channels_last
from gradnas.spaces.native import differentiable, has_memory
from gradnas.spaces.operations import half_on_cpu

# Layers of the convolutions that are fused: ReLU, depthwise, pointwise, BatchNorm; of a separable
# one the same again.
DEPTHWISE = 1
POINTWISE = 2
NORM = 3
SECOND_DEPTHWISE = 5
LAST_POINTWISE = -2
LAST_NORM = -1


def conv_weight(layer: nn.Module) -> Tensor:
    """The weight of a layer that is a convolution."""
    assert isinstance(layer, nn.Conv2d)
    return layer.weight


def batch_norm(layer: nn.Module) -> nn.BatchNorm2d:
    """A layer that is a BatchNorm."""
    assert isinstance(layer, nn.BatchNorm2d)
    return layer


def depthwise(x_BCHW: Tensor, weight: Tensor, dilation: int, stride: int = 1) -> Tensor:
    """The depthwise convolution by `weight` `(C, 1, K, K)` on torch's operations, zeros around."""
    padding = dilation * (weight.shape[2] // 2)  # the size stays, but for the stride
    groups = weight.shape[0]
    if dilation > 1 and half_on_cpu(x_BCHW):  # see DilatedConv2d
        with torch.autocast("cpu", enabled=False):
            return F.conv2d(x_BCHW.float(), weight, None, stride, padding, dilation, groups)
    return F.conv2d(x_BCHW, weight, None, stride, padding, dilation, groups)


# ---- all depthwise convolutions of a source node -------------------------------------------------


def relu_depthwise(
    x_BCHW: Tensor, weights: Sequence[Tensor], dilations: Sequence[int], stride: int
) -> tuple[Tensor, ...]:
    """`depthwise_k(relu(x))` for every weight `(C, 1, K, K)`, zeros around."""
    by_torch = kernels(x_BCHW) is None or not has_memory(*weights)
    method = _ReluDepthwise.plain if by_torch else _ReluDepthwise.apply
    return method((tuple(dilations), stride), x_BCHW, *weights)


class _ReluDepthwise(torch.autograd.Function):
    """Arguments: (dilations, stride), x, and the weights. x is kept, its ReLU is not."""

    @staticmethod
    def plain(
        spec: tuple[tuple[int, ...], int], x_BCHW: Tensor, *weights: Tensor
    ) -> tuple[Tensor, ...]:
        dilations, stride = spec
        positive_BCHW = torch.relu(x_BCHW)
        outputs = []
        for weight, dilation in zip(weights, dilations, strict=True):
            outputs.append(depthwise(positive_BCHW, weight, dilation, stride))
        return tuple(outputs)

    @staticmethod
    def forward(
        ctx: Any, spec: tuple[tuple[int, ...], int], x_BCHW: Tensor, *weights: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.spec = spec
        ctx.save_for_backward(x_BCHW, *weights)
        dilations, stride = spec
        return tuple(compiled(x_BCHW).depthwise(x_BCHW, weights, dilations, stride))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple:
        x_BCHW, *weights = ctx.saved_tensors
        needs = ctx.needs_input_grad[1:]
        native = None if torch.is_grad_enabled() else kernels(*grads)
        if native is None:
            plain = functools.partial(_ReluDepthwise.plain, ctx.spec)
            return None, *differentiable(plain, (x_BCHW, *weights), needs, grads)
        dilations, stride = ctx.spec
        with_weights = any(needs[1:])
        # One call for all: each reads x, and all their gradients add up in that of x.
        grad_x, grad_weights = native.depthwise_backward(
            x_BCHW, weights, dilations, stride, grads, with_weights=with_weights
        )
        if not with_weights:
            return None, grad_x, *[None] * len(weights)
        return None, grad_x, *grad_weights


# ---- BatchNorm, ReLU and depthwise convolution, between the halves of a separable convolution ----


def norm_relu_depthwise(z_BCHW: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`depthwise(relu(BN(z)))` with the statistics of this batch; and those statistics."""
    by_torch = kernels(z_BCHW) is None or not has_memory(weight)
    method = _NormReluDepthwise.plain if by_torch else _NormReluDepthwise.apply
    return method(z_BCHW, weight)


class _NormReluDepthwise(torch.autograd.Function):
    """Arguments: z and the weight. Of the three maps between them only z is kept."""

    @staticmethod
    def plain(z_BCHW: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        channels = z_BCHW.shape[1]
        mean_C = torch.zeros(channels, device=z_BCHW.device, dtype=weight.dtype)
        var_C = torch.zeros(channels, device=z_BCHW.device, dtype=weight.dtype)
        # Momentum 1 makes the "running" statistics those of this batch.
        x_BCHW = F.batch_norm(z_BCHW, mean_C, var_C, training=True, momentum=1.0, eps=EPS)
        return depthwise(torch.relu(x_BCHW), weight, 1), mean_C, var_C

    @staticmethod
    def forward(ctx: Any, z_BCHW: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        native = compiled(z_BCHW)
        pixels = num_pixels(z_BCHW)
        mean_C, var_C = native.moments(z_BCHW)
        scale_C = (var_C + EPS).rsqrt().to(z_BCHW.dtype)
        # From the rounded scale: the kernel computes scale z + shift, whose mean should be 0.
        shift_C = (-mean_C * scale_C).to(z_BCHW.dtype)
        ctx.save_for_backward(z_BCHW, weight, scale_C, shift_C)
        (output,) = native.depthwise(z_BCHW, [weight], [1], 1, (scale_C, shift_C))
        var_C = var_C * unbiased(pixels)  # as BatchNorm keeps it
        ctx.mark_non_differentiable(mean_C, var_C)
        return output, mean_C, var_C

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple:
        grad = grads[0]  # the statistics have none
        z_BCHW, weight, scale_C, shift_C = ctx.saved_tensors
        needs = ctx.needs_input_grad
        native = None if torch.is_grad_enabled() else kernels(grad)
        if native is None:

            def plain(z_BCHW: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
                return _NormReluDepthwise.plain(z_BCHW, weight)[:1]

            return tuple(differentiable(plain, (z_BCHW, weight), needs, [grad]))
        with_weight = needs[1]
        grad_z, grad_weights = native.depthwise_backward(
            z_BCHW, [weight], [1], 1, [grad], (scale_C, shift_C), with_weight
        )
        return grad_z, grad_weights[0] if with_weight else None


# ---- the pointwise convolution of an input of the cell -------------------------------------------


def relu_pointwise(x_BIHW: Tensor, weight: Tensor) -> Tensor:
    """The 1x1 convolution `(O, I, 1, 1)` of `relu(x)`; x is kept, its ReLU is not."""
    # The kernels want whole vectors of channels on both sides, so they are asked for a map of O
    # channels too: the weight, seen as one of x's size.
    like_BOHW = weight.transpose(0, 1).expand(-1, -1, *x_BIHW.shape[2:])
    by_torch = kernels(x_BIHW, like_BOHW) is None
    method = _ReluPointwise.plain if by_torch else _ReluPointwise.apply
    return method(x_BIHW, weight)[0]


class _ReluPointwise(torch.autograd.Function):
    """Arguments: x and the weight."""

    @staticmethod
    def plain(x_BIHW: Tensor, weight: Tensor) -> tuple[Tensor]:
        return (F.conv2d(torch.relu(x_BIHW), weight),)

    @staticmethod
    def forward(ctx: Any, x_BIHW: Tensor, weight: Tensor) -> tuple[Tensor]:
        ctx.save_for_backward(x_BIHW, weight)
        # The kernel adds up products of several maps; here it is one, with its (I, O) matrix.
        matrix_1IO = weight.flatten(1).t()[None]
        return (compiled(x_BIHW).sum_products([x_BIHW], matrix_1IO, relu=True),)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple:
        x_BIHW, weight = ctx.saved_tensors
        needs_x, needs_weight = ctx.needs_input_grad
        native = None if torch.is_grad_enabled() else kernels(*grads)
        if native is None:
            needs = ctx.needs_input_grad
            return tuple(differentiable(_ReluPointwise.plain, (x_BIHW, weight), needs, grads))
        grad = channels_last(grads[0])
        grad_x = None
        if needs_x:
            # The derivative of the ReLU is the gate: 0 where x is not positive.
            matrix_1OI = weight.flatten(1)[None]
            grad_x = native.sum_products([grad], matrix_1OI, gate=x_BIHW)
        grad_weight = None
        if needs_weight:
            # The sum over all pixels of relu(x)_i grad_o.
            grad_IO = native.cross(x_BIHW, grad, relu=True)
            grad_weight = grad_IO.t().to(weight.dtype).reshape(weight.shape)
        return grad_x, grad_weight


# ---- pools ---------------------------------------------------------------------------------------


def pools(x_BCHW: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """Maximum and average over 3x3 pixels; the border is not counted."""
    method = _Pools.plain if kernels(x_BCHW) is None else _Pools.apply
    return method(stride, x_BCHW)


class _Pools(torch.autograd.Function):
    """Arguments: stride and x."""

    @staticmethod
    def plain(stride: int, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        average = F.avg_pool2d(x_BCHW, 3, stride, 1, count_include_pad=False)
        largest = F.max_pool2d(x_BCHW, 3, stride, 1)
        return largest, average

    @staticmethod
    def forward(ctx: Any, stride: int, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        ctx.stride = stride
        ctx.save_for_backward(x_BCHW)
        return compiled(x_BCHW).pools(x_BCHW, stride)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple:
        (x_BCHW,) = ctx.saved_tensors
        native = None if torch.is_grad_enabled() else kernels(*grads)
        if native is None:
            plain = functools.partial(_Pools.plain, ctx.stride)
            return None, *differentiable(plain, (x_BCHW,), ctx.needs_input_grad[1:], grads)
        grad_largest, grad_average = (channels_last(grad) for grad in grads)
        return None, native.pools_backward(x_BCHW, ctx.stride, grad_largest, grad_average)
