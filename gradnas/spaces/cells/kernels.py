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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gradnas.spaces.native import library

SOURCE = Path(__file__).with_name("stencils.cpp")
EPS = 1e-5  # of nn.BatchNorm2d

# The depthwise convolutions that are compiled; the dilation is a template parameter of theirs.
KERNEL_WIDTHS = (3, 5)
DILATIONS = (1, 2)
_LANES = {torch.float32: 8, torch.float64: 4}  # the least vector: channels must be a multiple

Normal = tuple[Tensor, Tensor]  # (scale, shift) of a normalisation, each `(C,)`


def kernels(*tensors: Tensor) -> Kernels | None:
    """The functions for maps like `tensors` (B, C, H, W), or None: torch's operations have to do.

    The tensors must agree in dtype and lie on the CPU; no vector may be left half full of channels.
    """
    dtype = tensors[0].dtype
    lanes = _LANES.get(dtype)
    # A compiler of torch programs cannot see into a call through ctypes.
    if lanes is None or torch.compiler.is_compiling():
        return None
    for x in tensors:
        fits = x.device.type == "cpu" and x.dtype == dtype and x.shape[1] % lanes == 0
        if not fits or not x.numel():
            return None
    compiled_library = library(SOURCE, dtype)
    return None if compiled_library is None else Kernels(compiled_library, dtype)


def compiled(*tensors: Tensor) -> Kernels:
    """`kernels` where they are known to exist."""
    native = kernels(*tensors)
    assert native is not None
    return native


def channels_last(x_BCHW: Tensor) -> Tensor:
    """The same values with the channels of a pixel next to each other."""
    return x_BCHW.contiguous(memory_format=torch.channels_last)


def num_pixels(x_BCHW: Tensor) -> int:
    """B * H * W."""
    return x_BCHW.numel() // x_BCHW.shape[1]


class Kernels:
    """The compiled functions; maps are `(B, C, H, W)`, channels-last, of the library's dtype."""

    def __init__(self, library: ctypes.CDLL, dtype: torch.dtype) -> None:
        self._library = library
        self._dtype = dtype

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
        self._call("depthwise_forward", *spec, _pointers(weights), _pointers(outputs))
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
        grad_x = torch.empty_like(x_BCHW)
        grad_weights = [torch.empty_like(w) for w in weights] if with_weights else []
        spec = self._spec(x_BCHW, stride, normal, weights, dilations)
        written = _pointers(grad_weights) if with_weights else None
        self._call(
            "depthwise_backward", *spec, _pointers(weights), _pointers(grads), grad_x, written
        )
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
        y = torch.empty((B, O, H, W), dtype=self._dtype, memory_format=torch.channels_last)
        matrices = matrices_KIO.to(self._dtype).contiguous()
        if bias_O is None:
            bias = torch.zeros(O, dtype=self._dtype)
        else:
            bias = bias_O.to(self._dtype).contiguous()
        maps = [q for q, _ in scaled]
        coefficients = bias  # something to point at: without maps nothing is read from it
        if scaled:
            coefficients = torch.stack([c for _, c in scaled]).to(self._dtype)
        products = (len(xs), _pointers(xs), matrices, int(relu), gate)
        sums = (len(maps), _pointers(maps), coefficients)
        self._call("sum_products", B * H * W, I, O, *products, *sums, bias, y)
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
        channels_in = x.shape[1]
        channels_out = y.shape[1]
        out_IO = torch.empty((channels_in, channels_out), dtype=torch.float64)
        sizes = (num_pixels(x), channels_in, channels_out)
        self._call("cross", *sizes, x, int(relu), mean_x, y, mean_y, None, out_IO)
        return out_IO

    def covariance(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Mean `(C,)` and covariance `(C, C)` over pixels, in float64."""
        C = x_BCHW.shape[1]
        pixels = num_pixels(x_BCHW)
        mean_C = torch.empty(C, dtype=torch.float64)
        sum_CC = torch.empty((C, C), dtype=torch.float64)
        # The same kernel as `cross`: given a place for the mean, it centres x by its own.
        self._call("cross", pixels, C, C, x_BCHW, 0, None, x_BCHW, None, mean_C, sum_CC)
        return mean_C, sum_CC / pixels

    def sums(self, x_BCHW: Tensor, times: Tensor | None = None) -> Tensor:
        """Sum over pixels, `(C,)` in float64: of x, or of `x * times`."""
        C = x_BCHW.shape[1]
        out_C = torch.empty(C, dtype=torch.float64)
        self._call("sums", num_pixels(x_BCHW), C, x_BCHW, times, out_C)
        return out_C

    def moments(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance over pixels, each `(C,)` in float64."""
        C = x_BCHW.shape[1]
        mean_C = torch.empty(C, dtype=torch.float64)
        var_C = torch.empty(C, dtype=torch.float64)
        self._call("moments", num_pixels(x_BCHW), C, x_BCHW, mean_C, var_C)
        return mean_C, var_C

    # ---- pools -----------------------------------------------------------------------------------

    def pools(self, x_BCHW: Tensor, stride: int) -> tuple[Tensor, Tensor]:
        """3x3 maximum and average, border 1 (the average counts the pixels inside)."""
        B, C, H, W = x_BCHW.shape
        largest = self._strided(x_BCHW, stride)
        average = self._strided(x_BCHW, stride)
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

    # ---- calls -----------------------------------------------------------------------------------

    def _strided(self, x_BCHW: Tensor, stride: int) -> Tensor:
        """Room for a map of the size that a stride leaves."""
        B, C, H, W = x_BCHW.shape
        size = (B, C, (H - 1) // stride + 1, (W - 1) // stride + 1)
        return torch.empty(size, dtype=self._dtype, memory_format=torch.channels_last)

    def _spec(
        self,
        x: Tensor,
        stride: int,
        normal: Normal | None,
        weights: Sequence[Tensor],
        dilations: Sequence[int],
    ) -> tuple:
        """The arguments with which both depthwise kernels begin."""
        for weight, dilation in zip(weights, dilations, strict=True):
            has_kernel = weight.shape[2] in KERNEL_WIDTHS and dilation in DILATIONS
            if weight.dtype != self._dtype or not has_kernel:
                raise ValueError(
                    f"no kernel for weights {tuple(weight.shape)}, {weight.dtype}, "
                    f"dilation {dilation}"
                )
        B, C, H, W = x.shape
        scale = None
        shift = None
        if normal is not None:
            scale, shift = (t.to(self._dtype).contiguous() for t in normal)
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
    # At least one place, as there is no array of none.
    pointers = ctypes.c_void_p * max(1, len(tensors))
    return pointers(*(t.data_ptr() for t in tensors))


def _integers(values: Sequence[int]) -> ctypes.Array:
    return (ctypes.c_int64 * len(values))(*values)
