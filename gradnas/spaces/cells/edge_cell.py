"""The cell with every edge open, computed edge by edge as published.

It is the oracle that the fused cell is tested against, and what probes and costs are computed with.

Legend: B batch, C channels, H height, W width, E edges, O operations.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from gradnas.choice import Active
from gradnas.latency import Place
from gradnas.modules.inplace import unspoilt
from gradnas.probing import Probes, probed
from gradnas.spaces.cells.builtin import NormalisedPool, is_zero
from gradnas.spaces.cells.running import Statistics
from gradnas.spaces.cells.shape import INPUTS, CellKind, CellShape
from gradnas.spaces.operations import FactorizedReduce, relu_conv_bn


class EdgeCell(nn.Module):
    """A cell of the supernet in which every operation of every edge is a module of its own.

    `FusedCell` has the same modules and arguments and computes the same function.
    """

    def __init__(
        self,
        shape: CellShape,
        channels_in: tuple[int, int],
        channels: int,
        reduction: bool,
        reduction_before: bool,
        index: int = 0,
    ):
        super().__init__()
        self.shape = shape
        # Private: the plain public settings of a module are in the keys of latency tables, and
        # tables that exist shall fit.
        self._channels = channels
        self._index = index  # in the network, for errors
        self.reduction = reduction
        channels_before, channels_last = channels_in
        if reduction_before:
            # The output of the cell before the last is twice as large as that of the last.
            self.preprocess0 = FactorizedReduce(channels_before, channels, affine=False)
        else:
            self.preprocess0 = relu_conv_bn(channels_before, channels, affine=False)
        self.preprocess1 = relu_conv_bn(channels_last, channels, affine=False)
        self.edges = nn.ModuleList()
        for row in range(shape.num_edges):
            operations = nn.ModuleDict()
            for name, factory in shape.factories.items():
                operation = factory(channels, self.stride(row), False)
                operations[name] = _open(operation, channels)
            self.edges.append(operations)

    @property
    def kind(self) -> CellKind:
        """The name of the cell's table of alphas."""
        return "reduce" if self.reduction else "normal"

    @property
    def channels(self) -> int:
        """Of every node, C."""
        return self._channels

    def stride(self, row: int) -> int:
        """The stride of an edge: in a reduction cell, 2 from the cell's inputs."""
        return 2 if self.reduction and self.shape.source(row) < INPUTS else 1

    def operation(self, row: int, name: str) -> nn.Module:
        """The module of one operation of one edge."""
        edge = self.edges[row]
        assert isinstance(edge, nn.ModuleDict)
        return edge[name]

    def label_of(self, row: int, column: int) -> str:
        """What an error calls an operation; states count from 0, the cell's inputs first."""
        node = next(n for n in range(self.shape.nodes) if row < self.shape.edge(n + 1, 0))
        ends = f"state {self.shape.source(row)} to {node + INPUTS}"
        name = self.shape.names[column]
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
        # A probe is for the gradient of a mixing weight; without one there is nothing to probe.
        with_probes = beside is not None and mix_EO.requires_grad and torch.is_grad_enabled()
        states = [self.preprocess0(before_BCHW), self.preprocess1(last_BCHW)]
        for node in range(self.shape.nodes):
            total = None
            for predecessor in range(node + INPUTS):
                row = self.shape.edge(node, predecessor)
                x_BCHW = states[predecessor]
                parts = []
                for column, operation in self._computed(row, active).items():
                    part = self.output(operation, row, column, x_BCHW)
                    parts.append(part * mix_EO[row, column])
                if with_probes:
                    assert beside is not None
                    others = self._computed(row, beside)
                    parts = [self._probed(parts, x_BCHW, row, mix_EO[row], others, deferred)]
                for part in parts:
                    total = part if total is None else total + part
            if total is None:
                total = torch.zeros_like(_every(states[0], 2 if self.reduction else 1))
            states.append(total)
        return torch.cat(states[INPUTS:], dim=1)

    def _computed(self, row: int, columns: Active) -> dict[int, nn.Module]:
        """Column -> module of the operations of an edge that there is something to compute for.

        `none` keeps its share of the softmax, but its output is zero.
        """
        names = self.shape.names
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
            y_BCHW = torch.zeros_like(_every(x_BCHW, self.stride(row)))
        probes = Probes(
            others,
            (x_BCHW,),
            {},
            x_BCHW.device,
            nullcontext,
            functools.partial(self.label_of, row),
        )
        return probed(y_BCHW, mix_O, probes, deferred, f"edge {row}")

    def operation_state(self, row: int, name: str) -> dict[str, Tensor]:
        """Tensors of one operation of one edge, by the names they have in the derived network."""
        operation = self.operation(row, name)
        if isinstance(operation, NormalisedPool):
            operation = operation[0]
        return dict(operation.state_dict())

    def make_affine(self) -> dict[nn.Module, Place]:
        """Give every operation the form that it has in derived networks, with new weights.

        There a pooling has no BatchNorm, and every BatchNorm a scale and a shift.

        Returns:
            The operations that cost something, and where their mixing weights are.
        """
        places: dict[nn.Module, Place] = {}
        for row, operations in enumerate(self.edges):
            assert isinstance(operations, nn.ModuleDict)
            for column, (name, factory) in enumerate(self.shape.factories.items()):
                operation = factory(self._channels, self.stride(row), True)
                operations[name] = operation
                if operation in places:
                    raise ValueError(
                        f"the operation {name!r} of a cell is one module on several edges: what it "
                        "costs cannot be told; let it make a new module each time"
                    )
                if not is_zero(operation, self.stride(row)):
                    places[operation] = Place(self.kind, row, column)
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


def _every(x_BCHW: Tensor, stride: int) -> Tensor:
    """The pixels that are left after a stride."""
    return x_BCHW[:, :, ::stride, ::stride]
