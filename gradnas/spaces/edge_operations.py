"""The operations of the edges of a cell, each a module of its own.

Legend: B batch, C channels, H height, W width, E edges, O operations.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from gradnas.latency import Place
from gradnas.modules.draws import Additions
from gradnas.modules.inplace import unspoilt
from gradnas.spaces.operations import Zero

AUXILIARY = "auxiliary_skip"  # in a place of its own beside the operations of an edge


def is_zero(operation: nn.Module, stride: int) -> bool:
    """Whether an operation is exactly `none`, which there is nothing to compute for.

    Hooks are not looked at: what records costs puts some on every module.
    """
    if type(operation) is not Zero or "forward" in operation.__dict__:
        return False
    return operation.stride == stride


class EdgeOperations(nn.Module):
    """A cell in which every operation of every edge is a module of its own.

    Attributes:
        shape: where edges stand, and the factories of operations; made by the class itself, as the
            shapes of spaces differ: with `num_edges`, `factories`, `predecessors`.
        edges: for every row of alpha a `ModuleDict` from the names of its operations, in the order
            of alpha's columns.
    """

    shape: Any
    edges: nn.ModuleList  # made by the class itself, among its other modules

    def __init__(self, channels: int) -> None:
        super().__init__()
        # Private: the plain public settings of a module are in the keys of latency tables, and
        # tables that exist shall fit.
        self._channels = channels
        self._added = Additions()

    @property
    def channels(self) -> int:
        """That operations see: of every node, C, or its share of them."""
        return self._channels // self._added.channel_share

    @abstractmethod
    def own_names(self, row: int) -> tuple[str, ...]:
        """The operations of an edge, in the order of alpha's columns."""

    def made(self, row: int, name: str) -> nn.Module:
        """A new module of an operation of an edge, in the form that it has in the supernet."""
        return self.shape.factories[name](self.channels, self.stride(row), False)

    def names(self, row: int) -> tuple[str, ...]:
        """The operations of an edge in the order of `columns`, with an auxiliary skip if it has."""
        own = self.own_names(row)
        return (*own, AUXILIARY) if self._added.auxiliary_skip else own

    def make_edges(self) -> None:
        """Make the operations of all edges."""
        self.edges = nn.ModuleList()
        for row in range(self.num_edges):
            operations = nn.ModuleDict()
            for name in self.own_names(row):
                operations[name] = self.made(row, name)
            self.edges.append(operations)

    @property
    def num_edges(self) -> int:
        """Rows of alpha."""
        return self.shape.num_edges

    @property
    @abstractmethod
    def choice(self) -> str:
        """The name of the cell's table of alphas."""

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

    def make_affine(self) -> dict[nn.Module, Place]:
        """Give every operation the form that it has in derived networks, with new weights.

        There every BatchNorm has a scale and a shift.

        Returns:
            The operations that cost something, and where their mixing weights are.
        """
        places: dict[nn.Module, Place] = {}
        for row, operations in enumerate(self.edges):
            assert isinstance(operations, nn.ModuleDict)
            for column, name in enumerate(self.own_names(row)):
                operation = self.shape.factories[name](self.channels, self.stride(row), True)
                operations[name] = operation
                if operation in places:
                    raise ValueError(
                        f"the operation {name!r} of a cell is one module on several edges: what it "
                        "costs cannot be told; let it make a new module each time"
                    )
                if not is_zero(operation, self.stride(row)):
                    places[operation] = Place(self.choice, row, column)
        return places

    def weightless(self) -> Tensor:
        """Whether each operation has no weights, `(E, O)`."""
        rows = []
        for row in range(len(self.edges)):
            of_row = []
            for name in self.names(row):
                of_row.append(next(self.operation(row, name).parameters(), None) is None)
            rows.append(of_row)
        return torch.tensor(rows, device="cpu")

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
        size = (B, self.channels, (H - 1) // stride + 1, (W - 1) // stride + 1)
        if not isinstance(y_BCHW, Tensor) or y_BCHW.shape != size:
            given = type(y_BCHW).__name__
            if isinstance(y_BCHW, Tensor):
                given = f"the shape {tuple(y_BCHW.shape)}"
            raise ValueError(
                f"{label} gives {given}, where the edge needs {size}: its "
                f"factory was asked for channels={self.channels} and stride={stride}"
            )
        return y_BCHW
