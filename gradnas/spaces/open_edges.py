"""Edges with every operation open: what the cells of all supernets have in common.

Legend: B batch, C channels, H height, W width, E edges, O operations.
"""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Mapping
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from gradnas.choice import Active
from gradnas.modules.inplace import unspoilt
from gradnas.probing import Probes, probed
from gradnas.spaces.operations import Zero


def is_zero(operation: nn.Module, stride: int) -> bool:
    """Whether an operation is exactly `none`, which there is nothing to compute for.

    Hooks are not looked at: what records costs puts some on every module.
    """
    if type(operation) is not Zero or "forward" in operation.__dict__:
        return False
    return operation.stride == stride


class OpenEdges(nn.Module):
    """A cell in which every operation of every edge is a module of its own.

    Attributes:
        edges: for every row of alpha a `ModuleDict` from the names of its operations, in the order
            of alpha's columns.
    """

    edges: nn.ModuleList  # made by the class itself, among its other modules

    def __init__(self, channels: int) -> None:
        super().__init__()
        # Private: the plain public settings of a module are in the keys of latency tables, and
        # tables that exist shall fit.
        self._channels = channels

    @property
    def channels(self) -> int:
        """Of every node, C."""
        return self._channels

    @abstractmethod
    def names(self, row: int) -> tuple[str, ...]:
        """The operations of an edge, in the order of alpha's columns."""

    @abstractmethod
    def label_of(self, row: int, column: int) -> str:
        """What an error calls an operation."""

    def stride(self, row: int) -> int:
        """The stride of an edge."""
        del row
        return 1

    def operation(self, row: int, name: str) -> nn.Module:
        """The module of one operation of one edge."""
        edge = self.edges[row]
        assert isinstance(edge, nn.ModuleDict)
        return edge[name]

    def weightless(self) -> Tensor:
        """Whether each operation has no weights, `(E, O)`."""
        rows = []
        for row in range(len(self.edges)):
            of_row = []
            for name in self.names(row):
                of_row.append(next(self.operation(row, name).parameters(), None) is None)
            rows.append(of_row)
        return torch.tensor(rows)

    def entering(
        self,
        x_BCHW: Tensor,
        row: int,
        mix_EO: Tensor,
        active: Active,
        beside: Active | None = None,
        deferred: bool = False,
    ) -> list[Tensor]:
        """What enters by one edge, to be added up: its active operations, each with its weight.

        Args:
            beside, deferred: the draw's `probed` operations, and when they are computed.
        """
        parts = []
        for column, operation in self._computed(row, active).items():
            part = self.output(operation, row, column, x_BCHW)
            parts.append(part * mix_EO[row, column])
        # A probe is for the gradient of a mixing weight; without one there is nothing to probe.
        if beside is not None and mix_EO.requires_grad and torch.is_grad_enabled():
            others = self._computed(row, beside)
            parts = [self._probed(parts, x_BCHW, row, mix_EO[row], others, deferred)]
        return parts

    def _computed(self, row: int, columns: Active) -> dict[int, nn.Module]:
        """Column -> module of the operations of an edge that there is something to compute for.

        `none` keeps its share of the softmax, but its output is zero.
        """
        names = self.names(row)
        computed = {}
        for column in columns[row]:
            operation = self.operation(row, names[column])
            if not is_zero(operation, self.stride(row)):
                computed[column] = operation
        return computed

    def output(self, operation: nn.Module, row: int, column: int, x_BCHW: Tensor) -> Tensor:
        """What an operation of an edge gives, by its module.

        Raises:
            ValueError: not the size that the edge needs, which torch might stretch to it in
                silence; an input changed in place, which other operations read.
        """
        label = self.label_of(row, column)
        y_BCHW = unspoilt(operation, x_BCHW, label)
        B, _, H, W = x_BCHW.shape
        stride = self.stride(row)
        size = (B, self._channels, (H - 1) // stride + 1, (W - 1) // stride + 1)
        if not isinstance(y_BCHW, Tensor) or y_BCHW.shape != size:
            given = type(y_BCHW).__name__
            if isinstance(y_BCHW, Tensor):
                given = f"the shape {tuple(y_BCHW.shape)}"
            raise ValueError(
                f"{label} gives {given}, where the edge needs {size}: its "
                f"factory was asked for channels={self._channels} and stride={stride}"
            )
        return y_BCHW

    def _probed(
        self,
        parts: list[Tensor],
        x_BCHW: Tensor,
        row: int,
        mix_O: Tensor,
        others: Mapping[int, nn.Module],
        deferred: bool,
    ) -> Tensor:
        """What enters by one edge, with the gradients of operations beside the active ones."""
        if parts:
            y_BCHW = sum(parts[1:], parts[0])
        else:
            stride = self.stride(row)
            y_BCHW = torch.zeros_like(x_BCHW[:, :, ::stride, ::stride])
        probes = Probes(
            others,
            (x_BCHW,),
            {},
            x_BCHW.device,
            nullcontext,
            functools.partial(self.label_of, row),
        )
        return probed(y_BCHW, mix_O, probes, deferred, f"edge {row}")
