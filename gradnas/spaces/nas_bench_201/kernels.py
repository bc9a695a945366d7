"""The C++ kernels of the open cell of NAS-Bench-201 (`open_cell.cpp`), called with ctypes.

Legend: B batch, C channels, H height, W width, K convolutions, E edges, O operations.

Why not torch's own operations: at 4 to 32 channels its convolutions, pools and normalisations reach
a small part of what a core can do, and each of them reads and writes whole maps.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from gradnas.spaces.cells.kernels import EPS
from gradnas.spaces.cells.places import call, float64, integers, pointer, pointers
from gradnas.spaces.native import address, library

SOURCE = Path(__file__).with_name("open_cell.cpp")


class Convolution(NamedTuple):
    """ReLU, a convolution of width 1 or 3 and a BatchNorm, from a node to a later one."""

    source: int
    target: int
    width: int
    place: int  # of its mixing weight in the flat table


class Weighed(NamedTuple):
    """A node, or its average pool, that is only weighed on its way to a later one."""

    source: int
    target: int
    pooled: bool
    place: int


class Plan(NamedTuple):
    """What is computed of a cell."""

    nodes: int
    convolutions: tuple[Convolution, ...]
    weighed: tuple[Weighed, ...]

    def live(self) -> list[bool]:
        """Of each node whether the last one depends on it."""
        found = [False] * (self.nodes - 1) + [True]
        leaving = [(own.source, own.target) for own in (*self.convolutions, *self.weighed)]
        for source, target in sorted(leaving, reverse=True):
            found[source] |= found[target]
        return found


class Computed(NamedTuple):
    """What a cell gives, and what is kept of it for backward.

    Attributes:
        seen_2KC: mean and variance that its BatchNorms normalised by, float64.
        kept: nodes but the last, then what the convolutions gave, in blocks of images.
    """

    y_BCHW: Tensor
    seen_2KC: Tensor
    kept: Tensor


@functools.cache
def kernels(dtype: torch.dtype) -> Kernels | None:
    """The compiled functions for maps of a dtype; None without a compiler, and for other dtypes."""
    if dtype not in (torch.float32, torch.float64):
        return None
    compiled = library(SOURCE, dtype)
    return None if compiled is None else Kernels(compiled, dtype)


class Kernels:
    """The compiled functions. Maps and weights may lie in memory in any way.

    Attributes:
        lanes: images that are computed together.

    Raises:
        ValueError: a tensor is not what the function takes it for.
    """

    def __init__(self, library: ctypes.CDLL, dtype: torch.dtype) -> None:
        self._library = library
        self._dtype = dtype
        library.lanes_of_vectors.restype = ctypes.c_int64
        self.lanes: int = library.lanes_of_vectors()

    def forward(
        self,
        plan: Plan,
        x_BCHW: Tensor,
        mix_EO: Tensor,
        weights: Sequence[Tensor],
        seen_2KC: Tensor | None,
    ) -> Computed:
        """The last node.

        Args:
            mix_EO: mixing weights, float64 and contiguous.
            weights: of the convolutions, `(C, C, width, width)`.
            seen_2KC: mean and variance to normalise by, float64; None: those of this batch.
        """
        spec = self._spec(plan, x_BCHW.shape, weights, weights)
        size = (2, len(weights), x_BCHW.shape[1])
        y_BCHW = torch.empty_like(x_BCHW)
        found_2KC = float64(*size) if seen_2KC is None else seen_2KC
        kept = x_BCHW.new_empty(self._size_kept(plan, x_BCHW.shape))
        call(
            self._library,
            "open_cell",
            *spec,
            self._place(x_BCHW, x_BCHW.shape),
            integers(x_BCHW.stride()),
            *self._read(mix_EO, weights),
            int(seen_2KC is None),
            ctypes.c_double(EPS),
            *_places_of_rows(found_2KC, size),
            pointer(kept.data_ptr()),
            pointer(y_BCHW.data_ptr()),
            integers(y_BCHW.stride()),
        )
        return Computed(y_BCHW, found_2KC, kept)

    def backward(
        self,
        plan: Plan,
        grad_BCHW: Tensor,
        like: Tensor,
        mix_EO: Tensor,
        weights: Sequence[Tensor],
        seen_2KC: Tensor,
        kept: Tensor,
        of_batch: bool,
        needs_x: bool,
        needs_weights: Sequence[bool],
    ) -> tuple[Tensor | None, Tensor, list[Tensor | None]]:
        """Gradients of `forward`: of x, of the mixing weights (float64), of the weights.

        Args:
            grad_BCHW: of the last node.
            like: x, of which nothing is read.
            seen_2KC, kept: of `Computed`.
            of_batch: the BatchNorms normalised by what they saw.
        """
        grad_x = torch.empty_like(like) if needs_x else None
        grads = [
            torch.empty_like(w) if n else None for w, n in zip(weights, needs_weights, strict=True)
        ]
        spec = self._spec(plan, like.shape, weights, grads)
        grad_EO = torch.zeros_like(mix_EO)
        # For the gradients of all nodes, and of what their pools read
        room = like.new_empty(2 * plan.nodes * self._size(like.shape))
        call(
            self._library,
            "open_cell_backward",
            *spec,
            self._place(grad_BCHW, like.shape),
            integers(grad_BCHW.stride()),
            *self._read(mix_EO, weights),
            int(of_batch),
            ctypes.c_double(EPS),
            *_places_of_rows(seen_2KC, (2, len(weights), like.shape[1])),
            self._place(kept, (self._size_kept(plan, like.shape),)),
            pointer(room.data_ptr()),
            None if grad_x is None else pointer(grad_x.data_ptr()),
            integers(like.stride() if grad_x is None else grad_x.stride()),
            pointers([None if t is None else t.data_ptr() for t in grads]),
            pointer(grad_EO.data_ptr()),
        )
        return grad_x, grad_EO, grads

    # ---- arguments -------------------------------------------------------------------------------

    def _size(self, shape: torch.Size) -> int:
        """Numbers of a map in blocks of images."""
        B, C, H, W = shape
        return -(-B // self.lanes) * self.lanes * C * H * W

    def _spec(
        self,
        plan: Plan,
        shape: torch.Size,
        weights: Sequence[Tensor],
        grads: Sequence[Tensor | None],
    ) -> tuple:
        """The arguments with which both functions begin."""
        C = shape[1]
        if len(weights) != len(plan.convolutions):
            raise ValueError(f"{len(plan.convolutions)} weights are needed, not {len(weights)}")
        numbers: list[int] = []
        for own, w, grad in zip(plan.convolutions, weights, grads, strict=True):
            if w.shape != (C, C, own.width, own.width):
                raise ValueError(f"no kernel for a weight of the shape {tuple(w.shape)}")
            numbers += own
            numbers += w.stride()
            numbers += w.stride() if grad is None else grad.stride()
        weighed = [int(number) for own in plan.weighed for number in own]
        return (
            *shape,
            plan.nodes,
            len(weights),
            integers(numbers),
            len(plan.weighed),
            integers(weighed),
        )

    def _size_kept(self, plan: Plan, shape: torch.Size) -> int:
        return (plan.nodes - 1 + len(plan.convolutions)) * self._size(shape)

    def _read(self, mix_EO: Tensor, weights: Sequence[Tensor]) -> tuple:
        places = [address("a weight", w, self._dtype, w.shape, None) for w in weights]
        mix = address("a table", mix_EO, torch.float64, mix_EO.shape)
        return pointers(places), pointer(mix)

    def _place(self, t: Tensor, shape: tuple[int, ...]) -> ctypes.c_void_p:
        return pointer(address("a map", t, self._dtype, shape, None))


def _places_of_rows(t: Tensor, shape: tuple[int, ...]) -> tuple:
    """Of a table of two rows."""
    first = address("a table", t, torch.float64, shape)
    return pointer(first), pointer(first + t.stride(0) * t.element_size())
