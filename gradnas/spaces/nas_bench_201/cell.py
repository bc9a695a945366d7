"""The cell of NAS-Bench-201 with every edge open, computed edge by edge as published.

It is the oracle that the shared cell is tested against, and what probes and costs are computed
with.

Legend: B batch, C channels, H height, W width, E edges, O operations.
"""

from __future__ import annotations

from torch import Tensor

from gradnas.modules.draws import Active
from gradnas.spaces.cells.running import Statistics
from gradnas.spaces.nas_bench_201.shape import CHOICE, BenchShape
from gradnas.spaces.open_edges import OpenEdges


class BenchCell(OpenEdges):
    """A cell in which every operation of every edge is a module of its own.

    Pools have no BatchNorm, in the search as little as after it; those of convolutions are not
    affine. `SharedCell` has the same modules and arguments and computes the same function.
    """

    shape: BenchShape

    def __init__(self, shape: BenchShape, channels: int, index: int) -> None:
        super().__init__(channels)
        self.shape = shape
        self._index = index  # in the network, for errors
        self.make_edges()

    @property
    def choice(self) -> str:
        return CHOICE

    def own_names(self, row: int) -> tuple[str, ...]:
        del row
        return self.shape.names

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
        self.add_nodes(states, mix_EO, active, beside, deferred)
        return states[-1]
