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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gradnas.spaces.blocks.stage import (
    DILATIONS,
    KERNEL_WIDTHS,
    MOST_TERMS,
    NO_OTHERS,
    NONE,
    STRIDES,
    Last,
    Others,
    Stage,
    Term,
    Weights,
    is_halving,
)
from gradnas.spaces.native import address, library

SOURCE = Path(__file__).with_name("blocks.cpp")


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
        weights: Weights,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What enters the BatchNorm, `(B, O, H, W)`, its norm, `(4, O)`, and what it keeps.

        That is `(2, O)`: mean and variance, with the number of pixels less one below.

        Args:
            norm_4I: of the BatchNorm before: scale, shift, mean, 1 / sqrt(variance + eps).
            weights: side by side.
        """
        _, _, scale, shift = weights
        sizes, size_z = self._sizes(stage, x_BIHW, weights.pointwise)
        z_BOHW = self.new_map(size_z)
        outputs = size_z[1]
        norm_4O = torch.empty((4, outputs), dtype=self._dtype, device="cpu")
        kept_2O = torch.empty((2, outputs), dtype=self._dtype, device="cpu")
        channels = x_BIHW.shape[1]
        self._call(
            "stage_forward",
            *sizes,
            self._map(x_BIHW),
            self._plain(norm_4I, (4, channels)),
            stage.act,
            *self._weights(stage, channels, weights),
            self._plain(scale, (outputs,)),
            self._plain(shift, (outputs,)),
            ctypes.c_double(stage.eps),
            *(_own(t) for t in (z_BOHW, norm_4O, kept_2O)),
        )
        return z_BOHW, norm_4O, kept_2O

    def stage_backward(
        self,
        stage: Stage,
        x_BIHW: Tensor,
        norm_4I: Tensor | None,
        weights: Weights,
        z_BOHW: Tensor,
        norm_4O: Tensor,
        sums_2O: Tensor,
        last: Last,
        grad_BOHW: Tensor,
        needs: tuple[bool, bool, bool],
        others: Others = NO_OTHERS,
    ) -> tuple[Tensor | None, Weights, Tensor | None]:
        """Gradients of x (before its activation), of the weights, and `gradient_sums` of x's.

        Args:
            sums_2O: `gradient_sums` of z.
            last: what is after z's BatchNorm, which the gradient has not crossed yet.
            grad_BOHW: of what left z's BatchNorm or `last`; `pixel_step` says how it lies.
            needs: which are wanted: of x and of both convolutions. Without the first there are no
                sums.
            others: what is added to the gradient of x; its `base` is in the sums, and what `into`
                holds is not.
        """
        sizes, size_z = self._sizes(stage, x_BIHW, weights.pointwise)
        channels = x_BIHW.shape[1]
        size_x = tuple(x_BIHW.shape)
        base, into = others
        if stage.full or is_halving(stage):
            assert base is None and into is None and not (stage.full and needs[0])
        grad_x = (self.new_map(size_x) if into is None else into) if needs[0] else None
        grad_depthwise = self._new(weights.depthwise) if needs[1] else None
        grad_pointwise = self._new(weights.pointwise) if needs[2] else None
        grad_2O = torch.empty((2, size_z[1]), dtype=self._dtype, device="cpu")  # of shift and scale
        sums_2I = _float64(2, channels) if needs[0] and norm_4I is not None else None
        self._call(
            "stage_backward",
            *sizes,
            self._map(x_BIHW),
            self._plain(norm_4I, (4, channels)),
            stage.act,
            *self._weights(stage, channels, weights),
            self._map(z_BOHW, size_z),
            self._plain(norm_4O, (4, size_z[1])),
            self._plain(sums_2O, (2, size_z[1]), torch.float64),
            last.act,
            self._plain(last.factor_B, (size_z[0],)),
            *self._grad(grad_BOHW, size_z),
            *((None, 0) if base is None else self._grad(base, size_x)),
            into is not None,
            None if grad_x is None else self._map(grad_x, size_x),
            *(_own(t) for t in (grad_depthwise, grad_pointwise, grad_2O, sums_2I)),
        )
        shift, scale = grad_2O.unbind()
        return grad_x, Weights(grad_depthwise, grad_pointwise, scale, shift), sums_2I

    def combine(self, terms: Sequence[Term], out_BCHW: Tensor | None = None) -> Tensor:
        """The sum of terms of one size.

        Args:
            out_BCHW: where it is written; `pixel_step` says how it lies.
        """
        size = tuple(terms[0].map_BCHW.shape)
        B, C, H, W = size
        y_BCHW = self.new_map(size) if out_BCHW is None else out_BCHW
        rest = list(terms)
        while rest:
            some = rest[:MOST_TERMS]
            rest = rest[MOST_TERMS:]
            maps = [self._grad(term.map_BCHW, size) for term in some]
            self._call(
                "combine",
                B * H * W,
                C,
                H * W,
                len(some),
                _pointers([place for place, _ in maps]),
                _integers([step for _, step in maps]),
                _pointers([self._plain(term.norm_4C, (4, C)) for term in some]),
                _integers([term.last.act for term in some]),
                _pointers([self._plain(term.last.factor_B, (B,)) for term in some]),
                *self._grad(y_BCHW, size),
            )
            if rest:
                rest.insert(0, Term(y_BCHW))  # every number is read before it is written
        return y_BCHW

    def gradient_sums(self, terms: Sequence[Term], grad: Tensor) -> list[Tensor]:
        """Sums over pixels, `(2, C)` in float64: of the gradient, and of it times normalised z.

        Of one or two terms with a BatchNorm whose sum has this gradient, for each.
        """
        assert 1 <= len(terms) <= 2
        size = tuple(grad.shape)
        B, C, H, W = size
        sums_N2C = _float64(len(terms), 2, C)
        self._call(
            "gradient_sums",
            B * H * W,
            C,
            H * W,
            len(terms),
            _pointers([self._map(term.map_BCHW, size) for term in terms]),
            _pointers([self._plain(term.norm_4C, (4, C)) for term in terms]),
            _integers([term.last.act for term in terms]),
            _pointers([self._plain(term.last.factor_B, (B,)) for term in terms]),
            *self._grad(grad, size),
            _pointer(sums_N2C.data_ptr()),
        )
        return list(sums_N2C.unbind())

    def pool(self, x_BCHW: Tensor, stride: int) -> Tensor:
        """The largest of 3x3 pixels, with a border of one."""
        B, C, H, W = x_BCHW.shape
        y_BCHW = self.new_map((B, C, (H - 1) // stride + 1, (W - 1) // stride + 1))
        written = _pointer(y_BCHW.data_ptr())
        self._call("pool", B, H, W, C, stride, self._map(x_BCHW), written)
        return y_BCHW

    def pool_backward(
        self, x_BCHW: Tensor, stride: int, grad: Tensor, into: Tensor | None = None
    ) -> Tensor:
        """Gradient of `pool`; it goes to the first of the largest.

        Args:
            into: a gradient of x so far, to which it is added.
        """
        B, C, H, W = x_BCHW.shape
        size_x = tuple(x_BCHW.shape)
        size = (B, C, (H - 1) // stride + 1, (W - 1) // stride + 1)
        grad_x = self.new_map(size_x) if into is None else into
        read = (self._map(x_BCHW), self._map(grad, size))
        written = self._map(grad_x, size_x)
        self._call("pool_backward", B, H, W, C, stride, *read, into is not None, written)
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
        dilation = 0 if stage.full else stage.dilation
        sizes = (B, H, W, channels, outputs, stage.stride, stage.width, dilation)
        return sizes, size_z

    def _weights(
        self, stage: Stage, channels: int, weights: Weights
    ) -> list[ctypes.c_void_p | None]:
        depthwise, pointwise, _, _ = weights
        width = stage.width
        assert (depthwise is None) == (width == 0 or stage.full)
        assert (pointwise is None) == (not stage.pointwise)
        outputs = 0 if pointwise is None else pointwise.shape[0]
        if stage.full:
            assert stage.act == NONE and pointwise is not None
            layout = torch.channels_last  # a patch has the channels of a pixel together
            weight = address(
                "weights", pointwise, self._dtype, (outputs, channels, width, width), layout
            )
            return [None, _pointer(weight)]
        inputs = 2 * channels if is_halving(stage) else channels
        return [
            self._plain(depthwise, (channels, 1, width, width)),
            self._plain(pointwise, (outputs, inputs, 1, 1)),
        ]

    def _map(self, x: Tensor, size: tuple[int, ...] | None = None) -> ctypes.c_void_p:
        size = tuple(x.shape) if size is None else size
        return _pointer(address("a map", x, self._dtype, size, torch.channels_last))

    def _plain(
        self, t: Tensor | None, shape: tuple[int, ...], dtype: torch.dtype | None = None
    ) -> ctypes.c_void_p | None:
        if t is None:
            return None
        return _pointer(address("a vector or weights", t, dtype or self._dtype, shape))

    def _grad(self, grad: Tensor, size: tuple[int, ...]) -> tuple[ctypes.c_void_p, int]:
        """Where a map or its gradient lies, and how far its pixels are from each other."""
        step = pixel_step(grad)
        if step is None or grad.dtype != self._dtype or grad.shape != size or not grad.is_cpu:
            what = f"a map or a gradient as {self._dtype} of the shape {size}"
            raise ValueError(f"a kernel needs {what}")
        return _pointer(grad.data_ptr()), step

    def _new(self, like: Tensor | None) -> Tensor:
        assert like is not None
        layout = torch.preserve_format  # a full convolution's is in channels-last memory
        return torch.empty_like(like, dtype=self._dtype, device="cpu", memory_format=layout)

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


def _pointers(places: Sequence[ctypes.c_void_p | None]) -> Any:
    return (ctypes.c_void_p * len(places))(*[None if p is None else p.value for p in places])


def _integers(numbers: Sequence[int]) -> Any:
    return (ctypes.c_int64 * len(numbers))(*numbers)


def _own(t: Tensor | None) -> ctypes.c_void_p | None:
    """The address of a tensor that was made here for a function to write into."""
    return None if t is None else _pointer(t.data_ptr())
