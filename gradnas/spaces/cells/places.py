"""Tensors as the C++ kernels of cells take them: checked, and by their addresses.

Legend: B batch, C channels, H height, W width, K kernel width.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gradnas.spaces.native import address

# The depthwise convolutions that are compiled; the dilation is a template parameter of theirs.
KERNEL_WIDTHS = (3, 5)
DILATIONS = (1, 2)

Size = tuple[int, int, int, int]  # of a map: B, C, H, W


def channels_last(x_BCHW: Tensor) -> Tensor:
    """The same values with the channels of a pixel next to each other."""
    return x_BCHW.contiguous(memory_format=torch.channels_last)


def size_after(x_BCHW: Tensor, stride: int) -> Size:
    """The size that a stride leaves of a map."""
    B, C, H, W = x_BCHW.shape
    return B, C, (H - 1) // stride + 1, (W - 1) // stride + 1


def check_kernel(weight: Tensor, dilation: int, dtype: torch.dtype) -> None:
    """ValueError where no depthwise convolution was compiled for a weight."""
    has_kernel = weight.shape[2] in KERNEL_WIDTHS and dilation in DILATIONS
    if weight.dtype != dtype or not has_kernel:
        raise ValueError(
            f"no kernel for weights {tuple(weight.shape)}, {weight.dtype}, dilation {dilation}"
        )


def call(library: ctypes.CDLL, name: str, *arguments: Any) -> None:
    """Run a function with as many threads as torch has.

    Arguments are integers, and addresses and other numbers as ctypes has them; None is a null
    pointer. A tensor is none of these: ctypes refuses it.
    """
    values: list[Any] = []
    for a in arguments:
        values.append(ctypes.c_int64(a) if isinstance(a, int) else a)
    getattr(library, name)(*values, ctypes.c_int64(torch.get_num_threads()))


class Places:
    """Where tensors lie, as ctypes has it, after a check that they are what a function expects.

    Raises:
        ValueError: they are not (`native.address`).
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype = dtype

    def of_map(self, t: Tensor, size: tuple[int, ...]) -> ctypes.c_void_p:
        """The address of a map."""
        return pointer(address("a map", t, self._dtype, size, torch.channels_last))

    def of_maps(self, maps: Sequence[Tensor], size: tuple[int, ...]) -> ctypes.Array:
        """The addresses of maps of one size."""
        places = [address("a map", t, self._dtype, size, torch.channels_last) for t in maps]
        return pointers(places)

    def of_plain(self, t: Tensor, shape: tuple[int, ...]) -> ctypes.c_void_p:
        """The address of a vector or of matrices."""
        return pointer(address("a vector or a matrix", t, self._dtype, shape))

    def of_weights(self, weights: Sequence[Tensor], channels: int) -> ctypes.Array:
        """The addresses of depthwise weights `(C, 1, K, K)`."""
        places = []
        for w in weights:
            width = w.shape[2]
            size = (channels, 1, width, width)
            places.append(address("a depthwise weight", w, self._dtype, size))
        return pointers(places)


def places_of_own(tensors: Sequence[Tensor]) -> ctypes.Array:
    """The addresses of tensors that were made here for a function to write into."""
    return pointers([t.data_ptr() for t in tensors])


def float64(*shape: int) -> Tensor:
    """Room for sums."""
    return torch.empty(shape, dtype=torch.float64, device="cpu")


pointer = ctypes.c_void_p


def pointers(places: Sequence[int | None]) -> ctypes.Array:
    # At least one place, as there is no array of none.
    kind = ctypes.c_void_p * max(1, len(places))
    return kind(*places)


def integers(values: Sequence[int]) -> ctypes.Array:
    return (ctypes.c_int64 * len(values))(*values)
