"""The shape of a network of NAS-Bench-201: its sizes, and where an edge stands in alpha.

Legend: E edges, O operations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from gradnas.architectures.dense_cell import DenseCell
from gradnas.config import did_you_mean
from gradnas.derivation import best_operation
from gradnas.relaxations import Relaxation
from gradnas.spaces.nas_bench_201.network import NasBench201Network
from gradnas.spaces.operations import Factory

CHOICE = "cell"  # the one table of alphas, of all cells


@dataclass(frozen=True, eq=False)
class BenchShape:
    """What `NasBench201` describes, checked: the parts that build and cost its networks read it.

    Rows of alpha are edges, grouped by the node they enter: 1<-0, 2<-0, 2<-1, 3<-0, ...

    Args:
        channels: of the first stage.
        cells: of each stage.
        nodes: of a cell, its input and its output among them.
        factories: operation name -> factory, in alpha's column order.
    """

    channels: int
    cells: int
    nodes: int
    factories: Mapping[str, Factory]

    @property
    def names(self) -> tuple[str, ...]:
        """The operations in alpha's column order."""
        return tuple(self.factories)

    @property
    def num_edges(self) -> int:
        """Rows of the table of alphas."""
        return self.nodes * (self.nodes - 1) // 2

    @property
    def predecessors(self) -> tuple[int, ...]:
        """Incoming edges of each node but the first: 1, 2, 3, ..."""
        return tuple(range(1, self.nodes))

    def edge(self, node: int, source: int) -> int:
        """Row of alpha for the edge from one node (from 0) into a later one."""
        return node * (node - 1) // 2 + source

    def ends(self, row: int) -> tuple[int, int]:
        """(source, node) of a row of alpha; the inverse of `edge`."""
        node = 1
        while row >= node:
            row -= node
            node += 1
        return row, node

    # ---- cells -----------------------------------------------------------------------------------

    def derive(self, alphas: Mapping[str, Tensor], relaxation: Relaxation) -> DenseCell:
        """The strongest operation of every edge, `none` among them; ties go to the first."""
        # float64: strengths that differ in alpha must not tie by rounding.
        strength_EO = relaxation.probabilities(alphas[CHOICE].detach().double())
        return self.cell([best_operation(strength_O) for strength_O in strength_EO])

    def cell(self, columns: list[int]) -> DenseCell:
        """The cell with these operations, by their columns, edge by edge."""
        return DenseCell.of([self.names[column] for column in columns])

    def random_decision(self, generator: torch.Generator) -> DenseCell:
        """A cell drawn uniformly."""
        size = (self.num_edges,)
        places = torch.randint(len(self.names), size, generator=generator, device="cpu")
        return self.cell(places.tolist())

    def checked(self, cell: object) -> DenseCell:
        """A cell of this space.

        Raises:
            ValueError: another number of nodes, or an operation that is none of the candidates.
        """
        if not isinstance(cell, DenseCell):
            raise ValueError(
                f"a network of NasBench201 needs a cell of this form, not a {type(cell).__name__}"
            )
        if len(cell.nodes) != self.nodes - 1:
            raise ValueError(
                f"the cell has {len(cell.nodes) + 1} nodes with its input, and the cells of this "
                f"space have {self.nodes}"
            )
        for source, node, name in cell.edges():
            if name not in self.factories:
                hint = did_you_mean(name, self.factories)
                raise ValueError(
                    f"edge {source} to {node}: this space has no operation {name!r}{hint}"
                )
        return cell

    # ---- networks --------------------------------------------------------------------------------

    def network(self, cell: DenseCell, num_classes: int, in_channels: int) -> NasBench201Network:
        """The plain network of a cell at this size, freshly initialised.

        Raises:
            ValueError: a cell of another space.
        """
        return NasBench201Network(
            self.checked(cell).nodes,
            channels=self.channels,
            cells=self.cells,
            num_classes=num_classes,
            in_channels=in_channels,
            operations=self.factories,
        )
