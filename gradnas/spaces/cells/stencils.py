"""Operations of the fused cell; on the CPU by C++ kernels (`stencils.cpp`), compiled at first use,
called with ctypes.

Legend: B batch, C channels, H height, W width, P pixels (B * H * W), K kernel width, I channels in,
O channels out.

`kernels(x)` gives the compiled functions for tensors like `x`, or None where there is no compiler,
another device, another dtype or a number of channels that does not fill a vector; callers then
compute the same with torch operations.

Why not torch's own operations: at 16 to 64 channels a depthwise convolution or a matrix product is
bound by memory, and each library call reads and writes whole maps. Here one call does, while a map
is in the cache: normalise, ReLU, all the depthwise convolutions that read it, or their gradients;
and one call adds all the operations that enter a node. All sums over pixels are accumulated in
float64. The work of the threads is split the same way in every run.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gradnas.spaces.native import differentiable, library
from gradnas.spaces.operations import half_on_cpu

KERNEL_WIDTHS, DILATIONS = (3, 5), (1, 2)  # of the depthwise convolutions that are compiled
_LANES = {torch.float32: 8, torch.float64: 4}  # the least vector: channels must be a multiple

SOURCE = Path(__file__).with_name("stencils.cpp")


# ---- the compiled library ----


def kernels(*tensors: Tensor) -> Kernels | None:
    """The functions for maps like `tensors` (B, C, H, W), or None: then torch's operations have to
    do.

    The tensors must agree in dtype and lie on the CPU; no vector may be left half full of channels.
    """
    first = tensors[0]
    lanes = _LANES.get(first.dtype)
    if lanes is None or torch.compiler.is_compiling():
        return None
    for x in tensors:
        if x.device.type != "cpu" or x.dtype != first.dtype or x.shape[1] % lanes or not x.numel():
            return None
    found = library(SOURCE, first.dtype)
    return None if found is None else Kernels(found, first.dtype)


def compiled(*tensors: Tensor) -> Kernels:
    """`kernels` where they are known to exist."""
    found = kernels(*tensors)
    assert found is not None
    return found


def channels_last(x_BCHW: Tensor) -> Tensor:
    """The same values with the channels of a pixel next to each other."""
    return x_BCHW.contiguous(memory_format=torch.channels_last)


class Kernels:
    """The compiled functions; all maps are `(B, C, H, W)` in channels-last memory, of the dtype of
    the library."""

    def __init__(self, library: ctypes.CDLL, dtype: torch.dtype) -> None:
        self._library, self._dtype = library, dtype

    def depthwise(
        self,
        x_BCHW: Tensor,
        weights: Sequence[Tensor],
        dilations: Sequence[int],
        stride: int,
        normal: tuple[Tensor, Tensor] | None = None,
    ) -> list[Tensor]:
        """Depthwise convolutions `(C, 1, K, K)` of `relu(x)`, or of `relu(scale * x + shift)`;
        zeros around."""
        weights = [w.contiguous() for w in weights]
        out = [self._strided(x_BCHW, stride) for _ in weights]
        spec = self._spec(x_BCHW, stride, normal, weights, dilations)
        self._call("depthwise_forward", *spec, _pointers(weights), _pointers(out))
        return out

    def depthwise_backward(
        self,
        x_BCHW: Tensor,
        weights: Sequence[Tensor],
        dilations: Sequence[int],
        stride: int,
        grads: Sequence[Tensor],
        normal: tuple[Tensor, Tensor] | None = None,
        with_weights: bool = True,
    ) -> tuple[Tensor, list[Tensor]]:
        """Gradients of `depthwise`: of x, where `scale` and `shift` are taken as those of x's
        BatchNorm; of weights."""
        weights, grads = [w.contiguous() for w in weights], [channels_last(g) for g in grads]
        grad_x = torch.empty_like(x_BCHW)
        grad_weights = [torch.empty_like(w) for w in weights] if with_weights else []
        spec = self._spec(x_BCHW, stride, normal, weights, dilations)
        last = _pointers(grad_weights) if with_weights else None
        self._call("depthwise_backward", *spec, _pointers(weights), _pointers(grads), grad_x, last)
        return grad_x, grad_weights

    def sum_products(
        self,
        xs: Sequence[Tensor],
        matrices_KIO: Tensor,
        scaled: Sequence[tuple[Tensor, Tensor]] = (),
        bias_O: Tensor | None = None,
        relu: bool = False,
        gate: Tensor | None = None,
    ) -> Tensor:
        """`bias + sum_k x_k M_k + sum_t q_t * coefficient_t` for every pixel, `scaled` being pairs
        (q, coefficient).

        With `relu` there is one x and its ReLU is taken; with `gate` the result is 0 where the gate
        is not positive.
        """
        like = xs[0] if xs else scaled[0][0]
        out_channels = matrices_KIO.shape[2] if xs else like.shape[1]
        B, _, H, W = like.shape
        y = torch.empty(
            (B, out_channels, H, W), dtype=self._dtype, memory_format=torch.channels_last
        )
        matrices = matrices_KIO.to(self._dtype).contiguous()
        bias = (
            torch.zeros(out_channels, dtype=self._dtype)
            if bias_O is None
            else bias_O.to(self._dtype).contiguous()
        )
        coefficients = torch.stack([c for _, c in scaled]).to(self._dtype) if scaled else bias
        maps = [q for q, _ in scaled]
        xs_spec = (
            B * H * W,
            like.shape[1],
            out_channels,
            len(xs),
            _pointers(xs),
            matrices,
            int(relu),
            gate,
        )
        self._call("sum_products", *xs_spec, len(maps), _pointers(maps), coefficients, bias, y)
        return y

    def cross(
        self,
        x: Tensor,
        y: Tensor,
        mean_x: Tensor | None = None,
        mean_y: Tensor | None = None,
        relu=False,
    ):
        """`sum over pixels of (x - mean_x)^T (y - mean_y)`, `(I, O)` in float64; with `relu`, of
        x's ReLU."""
        out = torch.empty((x.shape[1], y.shape[1]), dtype=torch.float64)
        sizes = (x.numel() // x.shape[1], x.shape[1], y.shape[1])
        self._call("cross", *sizes, x, int(relu), mean_x, y, mean_y, None, out)
        return out

    def covariance(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Mean `(C,)` and covariance `(C, C)` over pixels, in float64."""
        C, pixels = x_BCHW.shape[1], x_BCHW.numel() // x_BCHW.shape[1]
        mean, out = torch.empty(C, dtype=torch.float64), torch.empty((C, C), dtype=torch.float64)
        self._call("cross", pixels, C, C, x_BCHW, 0, None, x_BCHW, None, mean, out)
        return mean, out / pixels

    def sums(self, x_BCHW: Tensor, times: Tensor | None = None) -> Tensor:
        """Sum over pixels, `(C,)` in float64: of x, or of `x * times`."""
        out = torch.empty(x_BCHW.shape[1], dtype=torch.float64)
        self._call("sums", x_BCHW.numel() // x_BCHW.shape[1], x_BCHW.shape[1], x_BCHW, times, out)
        return out

    def moments(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance over pixels, each `(C,)` in float64."""
        mean, var = (torch.empty(x_BCHW.shape[1], dtype=torch.float64) for _ in range(2))
        self._call("moments", x_BCHW.numel() // x_BCHW.shape[1], x_BCHW.shape[1], x_BCHW, mean, var)
        return mean, var

    def pools(self, x_BCHW: Tensor, stride: int) -> tuple[Tensor, Tensor]:
        """3x3 maximum and average, border 1 (the average counts the pixels inside)."""
        largest, average = self._strided(x_BCHW, stride), self._strided(x_BCHW, stride)
        B, C, H, W = x_BCHW.shape
        self._call("pools", B, H, W, C, stride, x_BCHW, largest, average)
        return largest, average

    def pools_backward(
        self, x_BCHW: Tensor, stride: int, grad_largest: Tensor, grad_average: Tensor
    ) -> Tensor:
        """Gradient of `pools`; that of a maximum goes to its first pixel."""
        B, C, H, W = x_BCHW.shape
        grad_x = torch.empty_like(x_BCHW)
        self._call("pools_backward", B, H, W, C, stride, x_BCHW, grad_largest, grad_average, grad_x)
        return grad_x

    def _strided(self, x_BCHW: Tensor, stride: int) -> Tensor:
        B, C, H, W = x_BCHW.shape
        size = (B, C, (H - 1) // stride + 1, (W - 1) // stride + 1)
        return torch.empty(size, dtype=self._dtype, memory_format=torch.channels_last)

    def _spec(
        self, x: Tensor, stride: int, normal, weights: Sequence[Tensor], dilations: Sequence[int]
    ) -> tuple:
        for w, dilation in zip(weights, dilations, strict=True):
            if (
                w.dtype != self._dtype
                or w.shape[2] not in KERNEL_WIDTHS
                or dilation not in DILATIONS
            ):
                raise ValueError(
                    f"no kernel for weights {tuple(w.shape)}, {w.dtype}, dilation {dilation}"
                )
        B, C, H, W = x.shape
        scale, shift = (t.to(self._dtype).contiguous() for t in normal) if normal else (None, None)
        widths = _integers([w.shape[2] for w in weights])
        return B, H, W, C, stride, x, scale, shift, len(weights), widths, _integers(dilations)

    def _call(self, name: str, *arguments: object) -> None:
        values: list[Any] = []
        for a in arguments:
            if isinstance(a, int):
                values.append(ctypes.c_int64(a))
            elif isinstance(a, Tensor):
                values.append(ctypes.c_void_p(a.data_ptr()))
            else:
                values.append(a)  # an array of pointers or integers; None is a null pointer
        getattr(self._library, name)(*values, ctypes.c_int64(torch.get_num_threads()))


def _pointers(tensors: Sequence[Tensor]) -> ctypes.Array:
    return (ctypes.c_void_p * max(1, len(tensors)))(*(t.data_ptr() for t in tensors))


def _integers(values: Sequence[int]) -> ctypes.Array:
    return (ctypes.c_int64 * len(values))(*values)


# ---- operations of the cell: `plain` says what they compute, forward and backward do it with the kernels

EPS = 1e-5  # of nn.BatchNorm2d


def depthwise(x_BCHW: Tensor, weight: Tensor, dilation: int, stride: int = 1) -> Tensor:
    padding = dilation * (weight.shape[2] // 2)
    if dilation > 1 and half_on_cpu(x_BCHW):  # see DilatedConv2d
        with torch.autocast("cpu", enabled=False):
            return F.conv2d(
                x_BCHW.float(), weight, None, stride, padding, dilation, groups=weight.shape[0]
            )
    return F.conv2d(x_BCHW, weight, None, stride, padding, dilation, groups=weight.shape[0])


# ---- all depthwise convolutions of a source node -------------------------------------------------


class _ReluDepthwise(torch.autograd.Function):
    @staticmethod
    def plain(spec: tuple, x_BCHW: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        dilations, stride = spec
        x_BCHW = torch.relu(x_BCHW)
        return tuple(
            depthwise(x_BCHW, w, d, stride) for w, d in zip(weights, dilations, strict=True)
        )

    @staticmethod
    def forward(ctx: Any, spec: tuple, x_BCHW: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.spec = spec
        ctx.save_for_backward(x_BCHW, *weights)
        return tuple(compiled(x_BCHW).depthwise(x_BCHW, weights, *spec))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple:
        x_BCHW, *weights = ctx.saved_tensors
        needs = ctx.needs_input_grad[1:]
        if torch.is_grad_enabled():
            plain = functools.partial(_ReluDepthwise.plain, ctx.spec)
            return None, *differentiable(plain, (x_BCHW, *weights), needs, grads)
        native = compiled(x_BCHW)
        dilations, stride = ctx.spec
        grad_x, found = native.depthwise_backward(
            x_BCHW, weights, dilations, stride, grads, with_weights=any(needs[1:])
        )
        return None, grad_x, *(found or [None] * len(weights))


def relu_depthwise(
    x_BCHW: Tensor, weights: Sequence[Tensor], dilations: Sequence[int], stride: int
) -> tuple:
    """`depthwise_k(relu(x))` for every weight `(C, 1, K, K)`, zeros around."""
    method = _ReluDepthwise.plain if kernels(x_BCHW) is None else _ReluDepthwise.apply
    return method((tuple(dilations), stride), x_BCHW, *weights)


# ---- BatchNorm, ReLU and depthwise convolution, between the halves of a separable convolution ----


class _NormReluDepthwise(torch.autograd.Function):
    @staticmethod
    def plain(z_BCHW: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean_C, var_C = (
            torch.zeros(z_BCHW.shape[1], device=z_BCHW.device, dtype=weight.dtype) for _ in range(2)
        )
        # momentum 1 makes the "running" statistics those of this batch
        x_BCHW = F.batch_norm(z_BCHW, mean_C, var_C, training=True, momentum=1.0, eps=EPS)
        return depthwise(torch.relu(x_BCHW), weight, 1), mean_C, var_C

    @staticmethod
    def forward(ctx: Any, z_BCHW: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        native, pixels = compiled(z_BCHW), z_BCHW.numel() // z_BCHW.shape[1]
        mean_C, var_C = native.moments(z_BCHW)
        scale_C = (var_C + EPS).rsqrt().to(z_BCHW.dtype)
        normal = (scale_C, (-mean_C * scale_C).to(z_BCHW.dtype))
        ctx.save_for_backward(z_BCHW, weight, *normal)
        out = native.depthwise(z_BCHW, [weight], [1], 1, normal)[0]
        var_C = var_C * (pixels / (pixels - 1))
        ctx.mark_non_differentiable(mean_C, var_C)
        return out, mean_C, var_C

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple:
        grad = grads[0]  # the statistics have none
        z_BCHW, weight, scale_C, shift_C = ctx.saved_tensors
        if torch.is_grad_enabled():
            plain = lambda z, w: _NormReluDepthwise.plain(z, w)[:1]  # noqa: E731
            return tuple(differentiable(plain, (z_BCHW, weight), ctx.needs_input_grad, [grad]))
        native, with_weight = compiled(z_BCHW), ctx.needs_input_grad[1]
        grad_z, found = native.depthwise_backward(
            z_BCHW, [weight], [1], 1, [grad], (scale_C, shift_C), with_weight
        )
        return grad_z, found[0] if with_weight else None


def norm_relu_depthwise(z_BCHW: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`depthwise(relu(BN(z)))` with the statistics of this batch; and those statistics."""
    return (_NormReluDepthwise.plain if kernels(z_BCHW) is None else _NormReluDepthwise.apply)(
        z_BCHW, weight
    )


# ---- the pointwise convolution of an input of the cell -------------------------------------------


class _ReluPointwise(torch.autograd.Function):
    @staticmethod
    def plain(x_BIHW: Tensor, weight: Tensor) -> tuple[Tensor]:
        return (F.conv2d(torch.relu(x_BIHW), weight),)

    @staticmethod
    def forward(ctx: Any, x_BIHW: Tensor, weight: Tensor) -> tuple[Tensor]:
        ctx.save_for_backward(x_BIHW, weight)
        native = compiled(x_BIHW)
        return (native.sum_products([x_BIHW], weight.flatten(1).t()[None], relu=True),)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple:
        x_BIHW, weight = ctx.saved_tensors
        if torch.is_grad_enabled():
            return tuple(
                differentiable(_ReluPointwise.plain, (x_BIHW, weight), ctx.needs_input_grad, grads)
            )
        native, grad = compiled(x_BIHW), channels_last(grads[0])
        grad_x = (
            native.sum_products([grad], weight.flatten(1)[None], gate=x_BIHW)
            if ctx.needs_input_grad[0]
            else None
        )
        grad_weight = None
        if ctx.needs_input_grad[1]:
            grad_weight = (
                native.cross(x_BIHW, grad, relu=True).t().to(weight.dtype).reshape(weight.shape)
            )
        return grad_x, grad_weight


def relu_pointwise(x_BIHW: Tensor, weight: Tensor) -> Tensor:
    """The 1x1 convolution `(O, I, 1, 1)` of `relu(x)`; x is kept, its ReLU is not."""
    native = kernels(x_BIHW, weight.transpose(0, 1).expand(-1, -1, *x_BIHW.shape[2:]))
    return (_ReluPointwise.plain if native is None else _ReluPointwise.apply)(x_BIHW, weight)[0]


# ---- pools ---------------------------------------------------------------------------------------


class _Pools(torch.autograd.Function):
    @staticmethod
    def plain(stride: int, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        average = F.avg_pool2d(x_BCHW, 3, stride, 1, count_include_pad=False)
        return F.max_pool2d(x_BCHW, 3, stride, 1), average

    @staticmethod
    def forward(ctx: Any, stride: int, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        ctx.stride = stride
        ctx.save_for_backward(x_BCHW)
        return compiled(x_BCHW).pools(x_BCHW, stride)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple:
        (x_BCHW,) = ctx.saved_tensors
        if torch.is_grad_enabled():
            plain = functools.partial(_Pools.plain, ctx.stride)
            return None, *differentiable(plain, (x_BCHW,), ctx.needs_input_grad[1:], grads)
        return None, compiled(x_BCHW).pools_backward(x_BCHW, ctx.stride, *map(channels_last, grads))


def pools(x_BCHW: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """Maximum and average over 3x3 pixels; the border is not counted."""
    return (_Pools.plain if kernels(x_BCHW) is None else _Pools.apply)(stride, x_BCHW)
