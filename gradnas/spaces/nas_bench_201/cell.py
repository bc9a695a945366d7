"""The cell of NAS-Bench-201 with every edge open, computed edge by edge as published.

It is the oracle that the shared cell is tested against, and what probes and costs are computed
with.

Legend: B batch, C channels, H height, W width, E edges, O operations.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gradnas.choice import Active
from gradnas.latency import Place
from gradnas.spaces.cells.running import Statistics
from gradnas.spaces.nas_bench_201.shape import CHOICE, BenchShape
from gradnas.spaces.open_edges import OpenEdges, is_zero


class BenchCell(OpenEdges):
    """A cell in which every operation of every edge is a module of its own.

    Pools have no BatchNorm, in the search as little as after it; those of convolutions are not
    affine. `SharedCell` has the same modules and arguments and computes the same function.
    """

    def __init__(self, shape: BenchShape, channels: int, index: int) -> None:
        super().__init__(channels)
        self.shape = shape
        self._index = index  # in the network, for errors
        self.make_edges()

    @property
    def num_edges(self) -> int:
        return self.shape.num_edges

    def own_names(self, row: int) -> tuple[str, ...]:
        del row
        return self.shape.names

    def made(self, row: int, name: str) -> nn.Module:
        del row
        return self.shape.factories[name](self.channels, 1, False)

    def sources(self, node: int, states: Sequence[Tensor]) -> list[tuple[int, Tensor]]:
        """Row of alpha and source of every edge into a node."""
        return [(self.shape.edge(node, source), states[source]) for source in range(node)]

    def label_of(self, row: int, column: int) -> str:
        """What an error calls an operation."""
        source, node = self.shape.ends(row)
        name = self.names(row)[column]
        return f"edge {source} to {node} of cell {self._index}: operation {name!r}"

    def forward(
        self, x_BCHW: Tensor, mix_EO: Tensor, active: Active, statistics: Statistics | None = None
    ) -> Tensor:
        """`(B, C, H, W) -> (B, C, H, W)`.

        Args:
            mix_EO: mixing weights.
            active: for each edge the operations to compute; others are never run.
            statistics: where given, a cell that updates its running statistics late adds to it what
                its BatchNorms saw. Here every BatchNorm is a module that updates its own.
        """
        del statistics
        return self.edge_by_edge(x_BCHW, mix_EO, active)

    def edge_by_edge(
        self,
        x_BCHW: Tensor,
        mix_EO: Tensor,
        active: Active,
        beside: Active | None = None,
        deferred: bool = False,
    ) -> Tensor:
        """As `forward`, with a module call for every operation, in every kind of cell.

        Args:
            beside, deferred: the draw's `probed` operations, and when they are computed.
        """
        states = [x_BCHW]
        for node in range(1, self.shape.nodes):
            total = None
            for source in range(node):
                row = self.shape.edge(node, source)
                parts = self.entering(
                    self.seen(states[source]), row, mix_EO, active, beside, deferred
                )
                for part in parts:
                    total = part if total is None else total + part
            if total is None:
                total = torch.zeros_like(self.seen(x_BCHW))
            states.append(self.with_rest(total, self.sources(node, states), mix_EO))
        return states[-1]

    def make_affine(self) -> dict[nn.Module, Place]:
        """Give every operation the form that it has in derived networks, with new weights.

        Returns:
            The operations that cost something, and where their mixing weights are.
        """
        places: dict[nn.Module, Place] = {}
        for row, operations in enumerate(self.edges):
            assert isinstance(operations, nn.ModuleDict)
            for column, (name, factory) in enumerate(self.shape.factories.items()):
                operation = factory(self.channels, 1, True)
                operations[name] = operation
                if operation in places:
                    raise ValueError(
                        f"the operation {name!r} of a cell is one module on several edges: what it "
                        "costs cannot be told; let it make a new module each time"
                    )
                if not is_zero(operation, 1):
                    places[operation] = Place(CHOICE, row, column)
        return places
