"""The C++ kernels of the fused cell (`stencils.cpp`): compiled at first use, called with ctypes.

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
from torch import Tensor

from gradnas.spaces.cells.places import (
    Places,
    Size,
    call,
    channels_last,
    check_kernel,
    float64,
    integers,
    places_of_own,
    pointer,
    size_after,
)
from gradnas.spaces.native import has_memory, library

SOURCE = Path(__file__).with_name("stencils.cpp")
EPS = 1e-5  # of nn.BatchNorm2d

_LANES = {torch.float32: 8, torch.float64: 4}  # the least vector: channels must be a multiple

Normal = tuple[Tensor, Tensor]  # (scale, shift) of a normalisation, each `(C,)`


def kernels(*maps: Tensor) -> Kernels | None:
    """The functions for `maps` (B, C, H, W), or None: torch's operations have to do.

    The maps must agree in dtype and have memory on the CPU; no vector may be left half full of
    channels. What else the functions are given must have memory, too (`native.has_memory`).
    """
    dtype = maps[0].dtype
    lanes = _LANES.get(dtype)
    if lanes is None:
        return None
    for x in maps:
        if x.dtype != dtype or x.shape[1] % lanes:
            return None
    if not has_memory(*maps):
        return None
    return _of_dtype(dtype)


@functools.cache
def _of_dtype(dtype: torch.dtype) -> Kernels | None:
    compiled_library = library(SOURCE, dtype)
    return None if compiled_library is None else Kernels(compiled_library, dtype)


def compiled(like: Tensor) -> Kernels:
    """The functions where `kernels` has just given them; they check what they are given."""
    native = _of_dtype(like.dtype)
    assert native is not None
    return native


def num_pixels(x_BCHW: Tensor) -> int:
    """B * H * W."""
    return x_BCHW.numel() // x_BCHW.shape[1]


def unbiased(pixels: int) -> float:
    """P / (P - 1), of a variance that is kept; of a single pixel nothing is kept that counts."""
    return pixels / max(1, pixels - 1)


class Kernels:
    """The compiled functions; maps are `(B, C, H, W)`, channels-last, of the library's dtype.

    Every tensor that is given is checked before its address is handed over (`Places`).

    Raises:
        ValueError: a tensor is not what the function takes it for.
    """

    def __init__(self, library: ctypes.CDLL, dtype: torch.dtype) -> None:
        self._library = library
        self._dtype = dtype
        self._places = Places(dtype)

    # ---- depthwise convolutions ------------------------------------------------------------------

    def depthwise(
        self,
        x_BCHW: Tensor,
        weights: Sequence[Tensor],
        dilations: Sequence[int],
        stride: int,
        normal: Normal | None = None,
    ) -> list[Tensor]:
        """Depthwise convolutions `(C, 1, K, K)` of `relu(x)` or `relu(scale x + shift)`."""
        weights = [w.contiguous() for w in weights]
        outputs = [self._strided(x_BCHW, stride) for _ in weights]
        spec = self._spec(x_BCHW, stride, normal, weights, dilations)
        written = places_of_own(outputs)
        self._call("depthwise_forward", *spec, written)
        return outputs

    def depthwise_backward(
        self,
        x_BCHW: Tensor,
        weights: Sequence[Tensor],
        dilations: Sequence[int],
        stride: int,
        grads: Sequence[Tensor],
        normal: Normal | None = None,
        with_weights: bool = True,
    ) -> tuple[Tensor, list[Tensor]]:
        """Gradients of `depthwise`: of x, and of the weights (none without `with_weights`).

        With `normal`, scale and shift are taken as those of x's BatchNorm: the gradient of x is the
        one through its mean and variance too.
        """
        weights = [w.contiguous() for w in weights]
        grads = [channels_last(g) for g in grads]
        grad_x = self._new_map(size_after(x_BCHW, 1))
        grad_weights = [torch.empty_like(w) for w in weights] if with_weights else []
        spec = self._spec(x_BCHW, stride, normal, weights, dilations)
        read = self._places.of_maps(grads, size_after(x_BCHW, stride))
        written = places_of_own(grad_weights) if with_weights else None
        self._call("depthwise_backward", *spec, read, pointer(grad_x.data_ptr()), written)
        return grad_x, grad_weights

    # ---- products and sums over pixels -----------------------------------------------------------

    def sum_products(
        self,
        xs: Sequence[Tensor],
        matrices_KIO: Tensor,
        scaled: Sequence[tuple[Tensor, Tensor]] = (),
        bias_O: Tensor | None = None,
        relu: bool = False,
        gate: Tensor | None = None,
    ) -> Tensor:
        """`bias + sum_k x_k M_k + sum_t q_t * coefficient_t` for every pixel.

        Args:
            xs: the maps x_k, of I channels.
            scaled: pairs (q, coefficient).
            relu: there is one x, and its ReLU is taken.
            gate: the result is 0 where it is not positive.
        """
        like = xs[0] if xs else scaled[0][0]
        B, I, H, W = like.shape  # noqa: E741
        O = matrices_KIO.shape[2] if xs else I  # noqa: E741
        size = (B, O, H, W)
        y = self._new_map(size)
        matrices = matrices_KIO.to(self._dtype).contiguous()
        if bias_O is None:
            bias = torch.zeros(O, dtype=self._dtype, device="cpu")
        else:
            bias = bias_O.to(self._dtype).contiguous()
        maps = [q for q, _ in scaled]
        coefficients = torch.empty(0, O, dtype=self._dtype, device="cpu")
        if scaled:
            coefficients = torch.stack([c for _, c in scaled]).to(self._dtype)
        self._call(
            "sum_products",
            B * H * W,
            I,
            O,
            len(xs),
            self._places.of_maps(xs, like.shape),
            self._places.of_plain(matrices, (len(xs), I, O) if xs else matrices.shape),
            int(relu),
            None if gate is None else self._places.of_map(gate, size),
            len(maps),
            self._places.of_maps(maps, size),
            self._places.of_plain(coefficients, (len(maps), O)),
            self._places.of_plain(bias, (O,)),
            pointer(y.data_ptr()),
        )
        return y

    def cross(
        self,
        x: Tensor,
        y: Tensor,
        mean_x: Tensor | None = None,
        mean_y: Tensor | None = None,
        relu: bool = False,
    ) -> Tensor:
        """Sum over pixels of `(x - mean_x)^T (y - mean_y)`, `(I, O)` in float64; `relu`: of x's."""
        B, channels_in, H, W = x.shape
        channels_out = y.shape[1]
        out_IO = float64(channels_in, channels_out)
        self._call(
            "cross",
            num_pixels(x),
            channels_in,
            channels_out,
            self._places.of_map(x, x.shape),
            int(relu),
            None if mean_x is None else self._places.of_plain(mean_x, (channels_in,)),
            self._places.of_map(y, (B, channels_out, H, W)),
            None if mean_y is None else self._places.of_plain(mean_y, (channels_out,)),
            pointer(out_IO.data_ptr()),
        )
        return out_IO

    def covariance(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Mean `(C,)` and covariance `(C, C)` over pixels, in float64."""
        C = x_BCHW.shape[1]
        pixels = num_pixels(x_BCHW)
        mean_C = float64(C)
        sum_CC = float64(C, C)
        x = self._places.of_map(x_BCHW, x_BCHW.shape)
        written = (pointer(mean_C.data_ptr()), pointer(sum_CC.data_ptr()))
        self._call("covariance", pixels, C, x, *written)
        return mean_C, sum_CC / pixels

    def sums(self, x_BCHW: Tensor, times: Tensor | None = None) -> Tensor:
        """Sum over pixels, `(C,)` in float64: of x, or of `x * times`."""
        C = x_BCHW.shape[1]
        out_C = float64(C)
        x = self._places.of_map(x_BCHW, x_BCHW.shape)
        factor = None if times is None else self._places.of_map(times, x_BCHW.shape)
        self._call("sums", num_pixels(x_BCHW), C, x, factor, pointer(out_C.data_ptr()))
        return out_C

    def moments(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance over pixels, each `(C,)` in float64."""
        C = x_BCHW.shape[1]
        mean_C = float64(C)
        var_C = float64(C)
        written = (pointer(mean_C.data_ptr()), pointer(var_C.data_ptr()))
        x = self._places.of_map(x_BCHW, x_BCHW.shape)
        self._call("moments", num_pixels(x_BCHW), C, x, *written)
        return mean_C, var_C

    # ---- pools -----------------------------------------------------------------------------------

    def pools(self, x_BCHW: Tensor, stride: int) -> tuple[Tensor, Tensor]:
        """3x3 maximum and average, border 1 (the average counts the pixels inside)."""
        B, C, H, W = x_BCHW.shape
        largest = self._strided(x_BCHW, stride)
        average = self._strided(x_BCHW, stride)
        x = self._places.of_map(x_BCHW, x_BCHW.shape)
        written = [pointer(pooled.data_ptr()) for pooled in (largest, average)]
        self._call("pools", B, H, W, C, stride, x, *written)
        return largest, average

    def pools_backward(
        self,
        x_BCHW: Tensor,
        stride: int,
        grad_largest: Tensor | None,
        grad_average: Tensor | None,
        into: Tensor | None = None,
    ) -> Tensor:
        """Gradient of `pools`; that of a maximum goes to its first pixel.

        Args:
            into: a gradient so far, to which it is added.
        """
        B, C, H, W = x_BCHW.shape
        grad_x = self._new_map(size_after(x_BCHW, 1)) if into is None else into
        x = self._places.of_map(x_BCHW, x_BCHW.shape)
        size = size_after(x_BCHW, stride)
        read = []
        for grad in (grad_largest, grad_average):
            read.append(None if grad is None else self._places.of_map(grad, size))
        written = self._places.of_map(grad_x, x_BCHW.shape)
        adds = int(into is not None)
        self._call("pools_backward", B, H, W, C, stride, x, *read, adds, written)
        return grad_x

    # ---- calls -----------------------------------------------------------------------------------

    def _strided(self, x_BCHW: Tensor, stride: int) -> Tensor:
        """Room for a map of the size that a stride leaves."""
        return self._new_map(size_after(x_BCHW, stride))

    def _new_map(self, size: Size) -> Tensor:
        # Not on the default device, which a program may have set to another one.
        layout = torch.channels_last
        return torch.empty(size, dtype=self._dtype, device="cpu", memory_format=layout)

    def _spec(
        self,
        x: Tensor,
        stride: int,
        normal: Normal | None,
        weights: Sequence[Tensor],
        dilations: Sequence[int],
    ) -> tuple:
        """The arguments with which both depthwise kernels begin, up to the weights."""
        for weight, dilation in zip(weights, dilations, strict=True):
            check_kernel(weight, dilation, self._dtype)
        B, C, H, W = x.shape
        scale = None
        shift = None
        if normal is not None:
            scale, shift = (self._places.of_plain(t, (C,)) for t in normal)
        numbers = (len(weights), integers([w.shape[2] for w in weights]), integers(dilations))
        map_x = self._places.of_map(x, x.shape)
        read = self._places.of_weights(weights, C)
        return B, H, W, C, stride, map_x, scale, shift, *numbers, read

    def _call(self, name: str, *arguments: Any) -> None:
        call(self._library, name, *arguments)
