"""The C++ kernels of whole cells (`sources.cpp`): all that leaves a source, all that enters a node.

Legend: B batch, C channels, H height, W width, P pixels (B * H * W); K convolutions that leave a
source, or that enter a node; N of them separable; T maps without a product. Maps are
`(B, C, H, W)`, channels-last, of the library's dtype; all of a cell have C channels.

Why not the kernels one by one (`kernels.py`): each of them reads and writes whole maps, which are
larger than the caches. Here a few images go from the first operation to the last that needs no
mean over the batch: the depthwise convolutions of a source, their products and the sums for what
follows; backward, the gradient of what enters a node is formed where the transposed convolution
reads it, and never written.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from gradnas.spaces.cells.kernels import EPS, num_pixels
from gradnas.spaces.cells.places import (
    Places,
    Size,
    call,
    check_kernel,
    float64,
    integers,
    places_of_own,
    pointer,
    pointers,
    size_after,
)
from gradnas.spaces.native import library

SOURCE = Path(__file__).with_name("sources.cpp")


class Convolution(NamedTuple):
    """The weights of a convolution that leaves a source, up to its last pointwise product.

    Attributes:
        depthwise: `(C, 1, K, K)`.
        dilation: of it.
        pointwise, second: of a separable one, `(C, C, 1, 1)` and `(C, 1, K, K)`.
    """

    depthwise: Tensor
    dilation: int
    pointwise: Tensor | None = None
    second: Tensor | None = None


class Left(NamedTuple):
    """What left a source.

    Attributes:
        maps: of every convolution what enters its last product.
        mean_KC, covariance_KCC: of those over the pixels, float64.
        products: of the separable ones what enters the BatchNorm between the halves.
        normal_K2C: scale and shift of that BatchNorm; arbitrary where there is none.
        inner_K2C: its mean and variance, float64.
    """

    maps: list[Tensor]
    mean_KC: Tensor
    covariance_KCC: Tensor
    products: list[Tensor]
    normal_K2C: Tensor
    inner_K2C: Tensor


class Entered(NamedTuple):
    """The gradient of a map from that of the node that it enters: g M + map S + bias."""

    grad_BCHW: Tensor  # g
    M_CC: Tensor  # (out, in)
    S_CC: Tensor
    bias_C: Tensor


class WeightGradients(NamedTuple):
    """Of a convolution, as `Convolution` has its weights."""

    depthwise: Tensor
    pointwise: Tensor | None
    second: Tensor | None


@functools.cache
def source_kernels(dtype: torch.dtype) -> SourceKernels | None:
    """The compiled functions for maps of a dtype; None without a compiler."""
    compiled = library(SOURCE, dtype)
    return None if compiled is None else SourceKernels(compiled, dtype)


class SourceKernels:
    """The compiled functions. Every tensor that is given is checked (`Places`).

    Raises:
        ValueError: a tensor is not what the function takes it for.
    """

    def __init__(self, library: ctypes.CDLL, dtype: torch.dtype) -> None:
        self._library = library
        self._dtype = dtype
        self._places = Places(dtype)

    def leave(self, x_BCHW: Tensor, convolutions: Sequence[Convolution], stride: int) -> Left:
        """All convolutions of `relu(x)` up to their last products, with BatchNorms of the batch."""
        C = x_BCHW.shape[1]
        num = len(convolutions)
        spec, _kept = self._spec(x_BCHW, convolutions, stride)
        size = size_after(x_BCHW, stride)
        maps = [self._new_map(size) for _ in convolutions]
        products = [self._new_map(size) for c in convolutions if c.pointwise is not None]
        inner_K2C = float64(num, 2, C)
        normal_K2C = torch.empty(num, 2, C, dtype=self._dtype, device="cpu")
        mean_KC = float64(num, C)
        covariance_KCC = float64(num, C, C)
        call(
            self._library,
            "leave_source",
            *spec,
            ctypes.c_double(EPS),
            _spread(convolutions, products),
            places_of_own(maps),
            *(pointer(t.data_ptr()) for t in (inner_K2C, normal_K2C, mean_KC, covariance_KCC)),
        )
        return Left(maps, mean_KC, covariance_KCC, products, normal_K2C, inner_K2C)

    def leave_backward(
        self,
        x_BCHW: Tensor,
        convolutions: Sequence[Convolution],
        stride: int,
        maps: Sequence[Tensor],
        products: Sequence[Tensor],
        normal_K2C: Tensor,
        entered: Sequence[Entered],
        needs_x: bool,
        with_weights: bool,
        into: Tensor | None = None,
    ) -> tuple[Tensor | None, list[WeightGradients]]:
        """Gradients of `leave`: of x, and of the weights (none without `with_weights`).

        Args:
            maps, products, normal_K2C: of `Left`.
            entered: of every convolution.
            into: a gradient of x so far, to which it is added.
        """
        C = x_BCHW.shape[1]
        num = len(convolutions)
        of_map = self._places.of_map
        spec, _kept = self._spec(x_BCHW, convolutions, stride)
        size = size_after(x_BCHW, stride)
        self._places.of_maps(products, size)
        work = [torch.empty_like(z) for z in products]
        M_KCC, S_KCC = (
            torch.stack([getattr(e, name) for e in entered]).to(self._dtype).contiguous()
            for name in ("M_CC", "S_CC")
        )
        bias_KC = torch.stack([e.bias_C for e in entered]).to(self._dtype).contiguous()
        grad_x = into
        if into is None and needs_x:
            grad_x = torch.empty_like(x_BCHW)
        gradients: list[WeightGradients] = []
        depthwise: list[Tensor] = []
        second: list[Tensor] = []
        sums_NCC = float64(len(products), C, C)
        if with_weights:
            depthwise = [_plain_like(c.depthwise) for c in convolutions]
            second = [_plain_like(c.second) for c in convolutions if c.second is not None]
        call(
            self._library,
            "leave_source_backward",
            *spec,
            self._places.of_plain(normal_K2C, (num, 2, C)),
            _spread(convolutions, products),
            self._places.of_maps(maps, size),
            self._places.of_maps([e.grad_BCHW for e in entered], size),
            self._places.of_plain(M_KCC, (num, C, C)),
            self._places.of_plain(S_KCC, (num, C, C)),
            self._places.of_plain(bias_KC, (num, C)),
            _spread(convolutions, work),
            int(into is not None),
            None if grad_x is None or not needs_x else of_map(grad_x, x_BCHW.shape),
            places_of_own(depthwise) if with_weights else None,
            pointer(sums_NCC.data_ptr()),
            _spread(convolutions, second) if with_weights else None,
        )
        if with_weights:
            pointwise = iter(sums_NCC.transpose(1, 2).to(self._dtype))
            seconds = iter(second)
            for c, own in zip(convolutions, depthwise, strict=True):
                if c.pointwise is None:
                    gradients.append(WeightGradients(own, None, None))
                else:
                    matrix = next(pointwise).reshape(C, C, 1, 1)
                    gradients.append(WeightGradients(own, matrix, next(seconds)))
        return grad_x, gradients

    def enter_backward(
        self, grad_BCHW: Tensor, maps: Sequence[Tensor], others: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Sums over pixels for the gradients of what enters a node.

        Args:
            grad_BCHW: of the node.
            maps: those that enter by a product.
            others: those that enter without.

        Returns:
            Sum `(C,)` of the gradient g; near `(C,)`, its mean, rounded; `x^T (g - near)` of every
            map, `(K, C, C)`; `sum of q g` of every other, `(T, C)`; near in the dtype of the maps,
            all else in float64.
        """
        C = grad_BCHW.shape[1]
        sum_C = float64(C)
        near_C = torch.empty(C, dtype=self._dtype, device="cpu")
        cross_KCC = float64(len(maps), C, C)
        along_TC = float64(len(others), C)
        call(
            self._library,
            "enter_node_backward",
            num_pixels(grad_BCHW),
            C,
            self._places.of_map(grad_BCHW, grad_BCHW.shape),
            len(maps),
            self._places.of_maps(maps, grad_BCHW.shape),
            len(others),
            self._places.of_maps(others, grad_BCHW.shape),
            *(pointer(t.data_ptr()) for t in (sum_C, near_C, cross_KCC, along_TC)),
        )
        return sum_C, near_C, cross_KCC, along_TC

    # ---- arguments -------------------------------------------------------------------------------

    def _new_map(self, size: Size) -> Tensor:
        layout = torch.channels_last
        return torch.empty(size, dtype=self._dtype, device="cpu", memory_format=layout)

    def _spec(
        self, x: Tensor, convolutions: Sequence[Convolution], stride: int
    ) -> tuple[tuple, list[Tensor]]:
        """The arguments with which both functions begin, and tensors that have to live as long."""
        B, C, H, W = x.shape
        depthwise = [c.depthwise.contiguous() for c in convolutions]
        second: list[Tensor] = []
        matrices: list[Tensor] = []
        for c in convolutions:
            if c.pointwise is not None and c.second is not None:
                second.append(c.second.contiguous())
                # Of each product its matrix for the forward pass, (in, out), then its transpose.
                W_OI = c.pointwise.flatten(1)
                matrices.append(torch.stack([W_OI.t(), W_OI]))
        for w, dilation in zip(depthwise, [c.dilation for c in convolutions], strict=True):
            check_kernel(w, dilation, self._dtype)
        for w in second:
            check_kernel(w, 1, self._dtype)
        for matrix in matrices:
            self._places.of_plain(matrix, (2, C, C))
        self._places.of_weights(second, C)
        spec = (
            B,
            H,
            W,
            C,
            stride,
            self._places.of_map(x, x.shape),
            len(convolutions),
            integers([w.shape[2] for w in depthwise]),
            integers([c.dilation for c in convolutions]),
            self._places.of_weights(depthwise, C),
            _spread(convolutions, matrices),
            integers([3 if c.second is None else c.second.shape[2] for c in convolutions]),
            _spread(convolutions, second),
        )
        return spec, [*depthwise, *second, *matrices]


def _plain_like(weight: Tensor) -> Tensor:
    return torch.empty_like(weight, memory_format=torch.contiguous_format)


def _spread(convolutions: Sequence[Convolution], tensors: Sequence[Tensor]) -> ctypes.Array:
    """Addresses of what separable convolutions have, with none for the others."""
    remaining = iter(tensors)
    places: list[int | None] = []
    for c in convolutions:
        places.append(None if c.pointwise is None else next(remaining).data_ptr())
    return pointers(places)
