"""The cell with every edge open, computed edge by edge as published: the oracle that the fused cell is tested against.

Legend: B batch, C channels, H height, W width, E edges, O operations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gradnas.choice import Active
from gradnas.spaces.operations import FactorizedReduce, Zero, relu_conv_bn

if TYPE_CHECKING:
    from gradnas.spaces.conv_cell import ConvCell


class EdgeCell(nn.Module):
    """A cell of the supernet, computed edge by edge: every operation of every edge is a module of its own.

    `FusedCell` has the same modules and arguments and computes the same function.
    """

    def __init__(
        self, space: ConvCell, channels_in: tuple[int, int], channels: int, reduction: bool, reduction_before: bool
    ):
        super().__init__()
        self.space = space
        before, last = channels_in
        if reduction_before:
            self.preprocess0 = FactorizedReduce(before, channels, affine=False)
        else:
            self.preprocess0 = relu_conv_bn(before, channels, affine=False)
        self.preprocess1 = relu_conv_bn(last, channels, affine=False)
        self.reduction = reduction
        self.edges = nn.ModuleList()
        for count in space.predecessors:
            for predecessor in range(count):
                stride = 2 if reduction and predecessor < 2 else 1
                operations = {name: _open(f(channels, stride, False), channels) for name, f in space.factories.items()}
                self.edges.append(nn.ModuleDict(operations))

    def forward(self, before_BCHW: Tensor, last_BCHW: Tensor, mix_EO: Tensor, active: Active) -> Tensor:
        """`(B, C_before, H', W'), (B, C_last, H, W) -> (B, nodes * C, H, W)`, halved in a reduction cell.

        Args:
            mix_EO: mixing weights.
            active: for each edge the operations to compute; others are never run.
        """
        states = [self.preprocess0(before_BCHW), self.preprocess1(last_BCHW)]
        step = 2 if self.reduction else 1
        for node in range(self.space.nodes):
            total = None
            for predecessor in range(node + 2):
                row = self.space.edge(node, predecessor)
                operations = list(self.edges[row].values())  # type: ignore[operator]
                for k in active[row]:
                    if isinstance(operations[k], Zero):
                        continue  # it keeps its share of the softmax, but there is nothing to compute
                    part = operations[k](states[predecessor]) * mix_EO[row, k]
                    total = part if total is None else total + part
            states.append(torch.zeros_like(states[0][:, :, ::step, ::step]) if total is None else total)
        return torch.cat(states[2:], dim=1)

    def operation_state(self, edge: int, name: str) -> dict[str, Tensor]:
        """Tensors of one operation of one edge, by the names they have in the derived network."""
        operation = self.edges[edge][name]  # type: ignore[index]
        return {} if isinstance(operation, _NormalisedPool) else dict(operation.state_dict())


class _NormalisedPool(nn.Sequential):
    """A pooling operation and the BatchNorm that follows it in the supernet only."""


def _open(operation: nn.Module, channels: int) -> nn.Module:
    """The form an operation has in the supernet."""
    if isinstance(operation, (nn.MaxPool2d, nn.AvgPool2d)):
        return _NormalisedPool(operation, nn.BatchNorm2d(channels, affine=False))
    return operation
