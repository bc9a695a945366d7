"""The cell with every edge open, computed edge by edge as published.

It is the oracle that the fused cell is tested against, and what probes and costs are computed with.

Legend: B batch, C channels, H height, W width, E edges, O operations.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gradnas.latency import Place
from gradnas.modules.draws import Active
from gradnas.spaces.cells.builtin import NormalisedPool
from gradnas.spaces.cells.running import Statistics
from gradnas.spaces.cells.shape import INPUTS, CellKind, CellShape
from gradnas.spaces.open_edges import OpenEdges
from gradnas.spaces.operations import FactorizedReduce, relu_conv_bn


class EdgeCell(OpenEdges):
    """A cell of the supernet in which every operation of every edge is a module of its own.

    `FusedCell` has the same modules and arguments and computes the same function.
    """

    shape: CellShape

    def __init__(
        self,
        shape: CellShape,
        channels_in: tuple[int, int],
        channels: int,
        reduction: bool,
        reduction_before: bool,
        index: int = 0,
    ):
        super().__init__(channels)
        self.shape = shape
        self._index = index  # in the network, for errors
        self.reduction = reduction
        channels_before, channels_last = channels_in
        if reduction_before:
            # The output of the cell before the last is twice as large as that of the last.
            self.preprocess0 = FactorizedReduce(channels_before, channels, affine=False)
        else:
            self.preprocess0 = relu_conv_bn(channels_before, channels, affine=False)
        self.preprocess1 = relu_conv_bn(channels_last, channels, affine=False)
        self.make_edges()

    @property
    def kind(self) -> CellKind:
        """The name of the cell's table of alphas."""
        return "reduce" if self.reduction else "normal"

    @property
    def choice(self) -> str:
        return self.kind

    def own_names(self, row: int) -> tuple[str, ...]:
        return self.shape.names_of(self.kind, row)

    def made(self, row: int, name: str) -> nn.Module:
        return _open(super().made(row, name), self.channels)

    def stride(self, row: int) -> int:
        """The stride of an edge: in a reduction cell, 2 from the cell's inputs."""
        return 2 if self.reduction and self.shape.source(row) < INPUTS else 1

    def label_of(self, row: int, column: int) -> str:
        """What an error calls an operation; states count from 0, the cell's inputs first."""
        node = next(n for n in range(self.shape.nodes) if row < self.shape.edge(n + 1, 0))
        ends = f"state {self.shape.source(row)} to {node + INPUTS}"
        name = self.names(row)[column]
        return f"edge {row} ({ends}) of cell {self._index}, a {self.kind} cell: operation {name!r}"

    def forward(
        self,
        before_BCHW: Tensor,
        last_BCHW: Tensor,
        mix_EO: Tensor,
        active: Active,
        statistics: Statistics | None = None,
    ) -> Tensor:
        """`(B, C_before, H', W'), (B, C_last, H, W) -> (B, nodes * C, H, W)`; a reduction halves.

        Args:
            mix_EO: mixing weights.
            active: for each edge the operations to compute; others are never run.
            statistics: where given, a cell that updates its running statistics late adds to it what
                its BatchNorms saw, and the caller updates them, for many cells at once. Here every
                BatchNorm is a module that updates its own.
        """
        del statistics
        return self.edge_by_edge(before_BCHW, last_BCHW, mix_EO, active)

    def edge_by_edge(
        self,
        before_BCHW: Tensor,
        last_BCHW: Tensor,
        mix_EO: Tensor,
        active: Active,
        beside: Active | None = None,
        deferred: bool = False,
    ) -> Tensor:
        """As `forward`, with a module call for every operation, in every kind of cell.

        Args:
            beside, deferred: the draw's `probed` operations, and when they are computed.
        """
        states = [self.preprocess0(before_BCHW), self.preprocess1(last_BCHW)]
        self.add_nodes(states, mix_EO, active, beside, deferred)
        return torch.cat(states[INPUTS:], dim=1)

    def operation_state(self, row: int, name: str) -> dict[str, Tensor]:
        """Tensors of one operation of one edge, by the names they have in the derived network."""
        operation = self.operation(row, name)
        if isinstance(operation, NormalisedPool):
            operation = operation[0]
        return dict(operation.state_dict())

    def make_affine(self) -> dict[nn.Module, Place]:
        """As of any cell; in derived networks a pooling has no BatchNorm."""
        places = super().make_affine()
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d) and not module.affine:
                module.affine = True
                module.weight = nn.Parameter(torch.ones(module.num_features))
                module.bias = nn.Parameter(torch.ones(module.num_features))
        return places


def _open(operation: nn.Module, channels: int) -> nn.Module:
    """The form an operation has in the supernet."""
    if isinstance(operation, (nn.MaxPool2d, nn.AvgPool2d)):
        # As in the authors' code: a convolution ends with a BatchNorm, so a pool gets one too, and
        # the mixing weights compare outputs of one scale.
        return NormalisedPool(operation, nn.BatchNorm2d(channels, affine=False))
    return operation
