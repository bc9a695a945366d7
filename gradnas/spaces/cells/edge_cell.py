"""The cell with every edge open, computed edge by edge as published: the oracle that the fused cell
is tested against.

Legend: B batch, C channels, H height, W width, E edges, O operations.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gradnas.choice import Active
from gradnas.probing import Probes, probed
from gradnas.spaces.cells.grouped_cell import Statistics
from gradnas.spaces.operations import FactorizedReduce, Zero, relu_conv_bn

if TYPE_CHECKING:
    from gradnas.spaces.cells.conv_cell import ConvCell


class EdgeCell(nn.Module):
    """A cell of the supernet, computed edge by edge: every operation of every edge is a module of
    its own.

    `FusedCell` has the same modules and arguments and computes the same function.
    """

    def __init__(
        self,
        space: ConvCell,
        channels_in: tuple[int, int],
        channels: int,
        reduction: bool,
        reduction_before: bool,
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
                operations = {
                    name: _open(f(channels, stride, False), channels)
                    for name, f in space.factories.items()
                }
                self.edges.append(nn.ModuleDict(operations))

    def forward(
        self,
        before_BCHW: Tensor,
        last_BCHW: Tensor,
        mix_EO: Tensor,
        active: Active,
        statistics: Statistics | None = None,
    ) -> Tensor:
        """`(B, C_before, H', W'), (B, C_last, H, W) -> (B, nodes * C, H, W)`, halved in a reduction
        cell.

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
        step = 2 if self.reduction else 1
        for node in range(self.space.nodes):
            total = None
            for predecessor in range(node + 2):
                row = self.space.edge(node, predecessor)
                operations = list(self.edges[row].values())  # type: ignore[operator]
                parts = []
                for k in active[row]:
                    if isinstance(operations[k], Zero):
                        continue  # it keeps its share of the softmax, but there is nothing to compute
                    parts.append(operations[k](states[predecessor]) * mix_EO[row, k])
                if beside is not None and mix_EO.requires_grad and torch.is_grad_enabled():
                    others = {
                        k: operations[k] for k in beside[row] if not isinstance(operations[k], Zero)
                    }
                    parts = [
                        self._probed(parts, states[predecessor], row, mix_EO[row], others, deferred)
                    ]
                for part in parts:
                    total = part if total is None else total + part
            states.append(
                torch.zeros_like(states[0][:, :, ::step, ::step]) if total is None else total
            )
        return torch.cat(states[2:], dim=1)

    def _probed(
        self,
        parts: list[Tensor],
        x_BCHW: Tensor,
        row: int,
        mix_O: Tensor,
        others: dict[int, Any],
        deferred: bool,
    ) -> Tensor:
        """What enters by one edge, with the gradients of operations beside the active ones."""
        if parts:
            y_BCHW = sum(parts[1:], parts[0])
        else:
            step = 2 if self.reduction and self.space.source(row) < 2 else 1
            y_BCHW = torch.zeros_like(x_BCHW[:, :, ::step, ::step])
        probes = Probes(others, (x_BCHW,), {}, x_BCHW.device, nullcontext)
        return probed(y_BCHW, mix_O, probes, deferred, f"edge {row}")

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
