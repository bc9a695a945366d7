"""The C++ kernels of accelerated blocks (`blocks.cpp`): compiled at first use, called with ctypes.

Legend: B batch, C channels, H height, W width, K kernel width, I channels in, O channels out, P
pixels (B * H * W). Maps are `(B, C, H, W)` in channels-last memory, with any number of channels.

A stage is what stands before a BatchNorm: scale and shift (those of the BatchNorm before it),
activation, depthwise convolution, pointwise convolution; each may be missing. Forward and backward
take a few images through all of it while they are in the second-level cache: neither what the
activation gives nor what enters the pointwise convolution is ever written to memory, and backward
computes both again, which costs less than to read them. All sums over pixels end in float64. The
work of the threads is split the same way in every run.
"""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gradnas.spaces.native import address, library

SOURCE = Path(__file__).with_name("blocks.cpp")

KERNEL_WIDTHS = (3, 5, 7)  # those that are compiled
DILATIONS = (1, 2)
STRIDES = (1, 2)

NONE = 0
RELU = 1
RELU6 = 2


class Stage(NamedTuple):
    """The layers up to a BatchNorm, and the BatchNorm's `eps`.

    Attributes:
        act: the activation before the convolutions: NONE, RELU or RELU6.
        width: K of the depthwise convolution; 0 without one.
        stride: of the depthwise convolution. Without one, a stride of 2 reads pixels 0, 2, ... of
            both sides and, as further channels, pixels 1, 3, ...: both sides are even, and there is
            no BatchNorm before it.
        pointwise: whether there is a pointwise convolution.
        affine: whether the BatchNorm has scale and shift.
    """

    act: int
    width: int
    stride: int
    dilation: int
    pointwise: bool
    affine: bool
    eps: float


class Last(NamedTuple):
    """What follows the last BatchNorm: an activation, and a factor for each image."""

    act: int = NONE
    factor_B: Tensor | None = None


def is_halving(stage: Stage) -> bool:
    """Whether it reads even and odd pixels side by side."""
    return stage.width == 0 and stage.stride == 2


@functools.cache
def kernels(dtype: torch.dtype) -> Kernels | None:
    """The functions for one dtype; None without a compiler and for other dtypes than its two."""
    if dtype not in (torch.float32, torch.float64):
        return None
    compiled_library = library(SOURCE, dtype)
    return None if compiled_library is None else Kernels(compiled_library, dtype)


class Kernels:
    """The compiled functions.

    Every tensor that is given is checked before its address is handed over (`native.address`).

    Raises:
        ValueError: a tensor is not what the function takes it for.
    """

    def __init__(self, library: ctypes.CDLL, dtype: torch.dtype) -> None:
        self._library = library
        self._dtype = dtype

    def stage(
        self,
        stage: Stage,
        x_BIHW: Tensor,
        norm_4I: Tensor | None,
        depthwise: Tensor | None,
        pointwise: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What enters the BatchNorm, `(B, O, H, W)`, with its mean and variance, `(O,)` in float64.

        Args:
            norm_4I: of the BatchNorm before: scale, shift, mean, 1 / sqrt(variance + eps).
            depthwise: `(I, 1, K, K)`.
            pointwise: `(O, I, 1, 1)`.
        """
        sizes, size_z = self._sizes(stage, x_BIHW, pointwise)
        z_BOHW = self.new_map(size_z)
        mean_O = _float64(size_z[1])
        var_O = _float64(size_z[1])
        scale = shift = None
        if norm_4I is not None:
            scale, shift, _, _ = norm_4I.unbind()
        channels = x_BIHW.shape[1]
        self._call(
            "stage_forward",
            *sizes,
            self._map(x_BIHW),
            self._plain(scale, (channels,)),
            self._plain(shift, (channels,)),
            stage.act,
            *self._weights(stage, channels, depthwise, pointwise),
            _pointer(z_BOHW.data_ptr()),
            _pointer(mean_O.data_ptr()),
            _pointer(var_O.data_ptr()),
        )
        return z_BOHW, mean_O, var_O

    def stage_backward(
        self,
        stage: Stage,
        x_BIHW: Tensor,
        norm_4I: Tensor | None,
        depthwise: Tensor | None,
        pointwise: Tensor | None,
        z_BOHW: Tensor,
        norm_4O: Tensor,
        means_2O: Tensor,
        last: Last,
        grad_BOHW: Tensor,
        needs: tuple[bool, bool, bool],
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
        """Gradients of x (before its activation), of both weights, and `gradient_sums` of x's.

        Args:
            means_2O: `gradient_sums` of z, divided by the number of pixels.
            last: what is after z's BatchNorm, which the gradient has not crossed yet.
            grad_BOHW: of what left z's BatchNorm or `last`; `pixel_step` says how it lies.
            needs: which of the first three are wanted. Without the first there are no sums.
        """
        sizes, size_z = self._sizes(stage, x_BIHW, pointwise)
        channels = x_BIHW.shape[1]
        grad_x = self.new_map(tuple(x_BIHW.shape)) if needs[0] else None
        grad_depthwise = self._new(depthwise) if needs[1] else None
        grad_pointwise = self._new(pointwise) if needs[2] else None
        sums_2I = _float64(2, channels) if needs[0] and norm_4I is not None else None
        self._call(
            "stage_backward",
            *sizes,
            self._map(x_BIHW),
            self._plain(norm_4I, (4, channels)),
            stage.act,
            *self._weights(stage, channels, depthwise, pointwise),
            self._map(z_BOHW, size_z),
            self._plain(norm_4O, (4, size_z[1])),
            self._plain(means_2O, (2, size_z[1])),
            last.act,
            self._plain(last.factor_B, (size_z[0],)),
            *self._grad(grad_BOHW, size_z),
            *(_own(t) for t in (grad_x, grad_depthwise, grad_pointwise, sums_2I)),
        )
        return grad_x, grad_depthwise, grad_pointwise, sums_2I

    def apply(
        self, z_BCHW: Tensor, norm_4C: Tensor, last: Last, other_BCHW: Tensor | None = None
    ) -> Tensor:
        """`factor * act(scale z + shift) + other`."""
        B, C, H, W = z_BCHW.shape
        size = tuple(z_BCHW.shape)
        y_BCHW = self.new_map(size)
        scale, shift, _, _ = norm_4C.unbind()
        self._call(
            "apply",
            B * H * W,
            C,
            self._map(z_BCHW),
            *(self._plain(t, (C,)) for t in (scale, shift)),
            last.act,
            self._plain(last.factor_B, (B,)),
            H * W,
            None if other_BCHW is None else self._map(other_BCHW, size),
            _pointer(y_BCHW.data_ptr()),
        )
        return y_BCHW

    def gradient_sums(self, z_BCHW: Tensor, norm_4C: Tensor, last: Last, grad: Tensor) -> Tensor:
        """Sums over pixels, `(2, C)` in float64: of the gradient, and of it times normalised z."""
        B, C, H, W = z_BCHW.shape
        sums_2C = _float64(2, C)
        self._call(
            "gradient_sums",
            B * H * W,
            C,
            self._map(z_BCHW),
            self._plain(norm_4C, (4, C)),
            last.act,
            self._plain(last.factor_B, (B,)),
            H * W,
            *self._grad(grad, tuple(z_BCHW.shape)),
            _pointer(sums_2C.data_ptr()),
        )
        return sums_2C

    def pool(self, x_BCHW: Tensor, stride: int) -> Tensor:
        """The largest of 3x3 pixels, with a border of one."""
        B, C, H, W = x_BCHW.shape
        y_BCHW = self.new_map((B, C, (H - 1) // stride + 1, (W - 1) // stride + 1))
        written = _pointer(y_BCHW.data_ptr())
        self._call("pool", B, H, W, C, stride, self._map(x_BCHW), written)
        return y_BCHW

    def pool_backward(self, x_BCHW: Tensor, stride: int, grad: Tensor) -> Tensor:
        """Gradient of `pool`; it goes to the first of the largest."""
        B, C, H, W = x_BCHW.shape
        size = (B, C, (H - 1) // stride + 1, (W - 1) // stride + 1)
        grad_x = self.new_map(tuple(x_BCHW.shape))
        read = (self._map(x_BCHW), self._map(grad, size))
        written = _pointer(grad_x.data_ptr())
        self._call("pool_backward", B, H, W, C, stride, *read, written)
        return grad_x

    def new_map(self, size: tuple[int, ...]) -> Tensor:
        """Room for a map."""
        # Not on the default device, which a program may have set to another one.
        layout = torch.channels_last
        return torch.empty(size, dtype=self._dtype, device="cpu", memory_format=layout)

    # ---- arguments -------------------------------------------------------------------------------

    def _sizes(
        self, stage: Stage, x: Tensor, pointwise: Tensor | None
    ) -> tuple[tuple[int, ...], tuple[int, int, int, int]]:
        """The integers with which the functions of a stage begin, and the size of z."""
        B, channels, H, W = x.shape
        assert stage.width in (0, *KERNEL_WIDTHS) and stage.dilation in DILATIONS
        assert stage.stride in STRIDES
        if is_halving(stage):
            assert stage.pointwise and H % 2 == 0 and W % 2 == 0
        outputs = channels if pointwise is None else pointwise.shape[0]
        size_z = (B, outputs, (H - 1) // stage.stride + 1, (W - 1) // stage.stride + 1)
        sizes = (B, H, W, channels, outputs, stage.stride, stage.width, stage.dilation)
        return sizes, size_z

    def _weights(
        self, stage: Stage, channels: int, depthwise: Tensor | None, pointwise: Tensor | None
    ) -> list[ctypes.c_void_p | None]:
        assert (depthwise is None) == (stage.width == 0)
        assert (pointwise is None) == (not stage.pointwise)
        width = stage.width
        outputs = 0 if pointwise is None else pointwise.shape[0]
        inputs = 2 * channels if is_halving(stage) else channels
        return [
            self._plain(depthwise, (channels, 1, width, width)),
            self._plain(pointwise, (outputs, inputs, 1, 1)),
        ]

    def _map(self, x: Tensor, size: tuple[int, ...] | None = None) -> ctypes.c_void_p:
        size = tuple(x.shape) if size is None else size
        return _pointer(address("a map", x, self._dtype, size, torch.channels_last))

    def _plain(self, t: Tensor | None, shape: tuple[int, ...]) -> ctypes.c_void_p | None:
        if t is None:
            return None
        return _pointer(address("a vector or weights", t, self._dtype, shape))

    def _grad(self, grad: Tensor, size: tuple[int, ...]) -> tuple[ctypes.c_void_p, int]:
        """Where a gradient lies, and how far its pixels are from each other."""
        step = pixel_step(grad)
        if step is None or grad.dtype != self._dtype or grad.shape != size or not grad.is_cpu:
            raise ValueError(f"a kernel needs a gradient as {self._dtype} of the shape {size}")
        return _pointer(grad.data_ptr()), step

    def _new(self, like: Tensor | None) -> Tensor:
        assert like is not None
        return torch.empty(like.shape, dtype=self._dtype, device="cpu")

    def _call(self, name: str, *arguments: Any) -> None:
        """Arguments are integers, and addresses as ctypes has them; None is a null pointer."""
        values: list[Any] = []
        for a in arguments:
            values.append(ctypes.c_int64(a) if isinstance(a, int) else a)
        getattr(self._library, name)(*values, ctypes.c_int64(torch.get_num_threads()))


def pixel_step(grad_BCHW: Tensor) -> int | None:
    """How far pixels are from each other where they lie in order and a pixel's channels together.

    So lies a map in channels-last memory, and a slice of the channels of one, as the gradient of a
    concatenation is. None for any other.
    """
    B, C, H, W = grad_BCHW.shape
    strides = grad_BCHW.stride()
    if C > 1 and strides[1] != 1:
        return None
    if W > 1:
        step = strides[3]
    elif H > 1:
        step = strides[2]
    else:
        step = strides[0] if B > 1 else C
    expected = (H * W * step, 1, W * step, step)
    for length, stride, wanted in zip(grad_BCHW.shape, strides, expected, strict=True):
        if length > 1 and stride != wanted:
            return None
    return step if step >= C else None


def _float64(*shape: int) -> Tensor:
    """Room for sums."""
    return torch.empty(shape, dtype=torch.float64, device="cpu")


_pointer = ctypes.c_void_p


def _own(t: Tensor | None) -> ctypes.c_void_p | None:
    """The address of a tensor that was made here for a function to write into."""
    return None if t is None else _pointer(t.data_ptr())
