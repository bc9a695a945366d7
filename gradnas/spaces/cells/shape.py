"""The shape of a network of cells: its sizes, and where an edge of a cell stands in alpha.

Legend: E edges, O operations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from gradnas.architectures.genotype import Genotype
from gradnas.config import did_you_mean
from gradnas.derivation import top_edges
from gradnas.relaxations import Relaxation
from gradnas.spaces.cells.conv_network import ConvNetwork
from gradnas.spaces.operations import OPERATIONS, Factory

CellKind = Literal["normal", "reduce"]
KINDS: tuple[CellKind, CellKind] = ("normal", "reduce")

INPUTS = 2  # states 0 and 1 of a cell: the outputs of the two cells before it


@dataclass(frozen=True, eq=False)
class CellShape:
    """What `ConvCell` describes, checked: the parts that build and cost its networks read it here.

    A cell has the states 0 and 1 (its inputs) and one for each intermediate node; every node has an
    edge from each earlier state. Rows of alpha are edges, grouped by the node they enter.

    Args:
        channels: of the first cell.
        cells: their number.
        nodes: intermediate nodes of a cell.
        stem: as in `ConvCell`.
        factories: operation name -> factory, in alpha's column order.
    """

    channels: int
    cells: int
    nodes: int
    stem: Literal["cifar", "imagenet"]
    factories: Mapping[str, Factory]

    # ---- tables of alphas ------------------------------------------------------------------------

    @property
    def names(self) -> tuple[str, ...]:
        """The operations in alpha's column order."""
        return tuple(self.factories)

    @property
    def predecessors(self) -> tuple[int, ...]:
        """Incoming edges of each intermediate node: 2, 3, 4, ..."""
        return tuple(range(INPUTS, self.nodes + INPUTS))

    @property
    def num_edges(self) -> int:
        """Rows of each table of alphas."""
        return sum(self.predecessors)

    def edge(self, node: int, predecessor: int) -> int:
        """Row of alpha for the edge into intermediate node `node` (from 0)."""
        # The nodes before this one have 2 + 3 + ... + (node + 1) edges.
        return node * (node + 3) // 2 + predecessor

    def source(self, edge: int) -> int:
        """The predecessor that a row of alpha starts from; the inverse of `edge`."""
        for count in self.predecessors:
            if edge < count:
                return edge
            edge -= count
        raise IndexError(f"there are only {self.num_edges} edges")

    @property
    def chosen_columns(self) -> list[int]:
        """Columns of the operations that a derived cell can have: all but `none`."""
        return [column for column, name in enumerate(self.names) if name != "none"]

    # ---- networks --------------------------------------------------------------------------------

    def is_reduction(self, index: int) -> bool:
        """Whether a cell halves the maps and doubles the channels: at one and two thirds."""
        return index in (self.cells // 3, 2 * self.cells // 3)

    def network(
        self, genotype: Genotype, num_classes: int, in_channels: int, auxiliary: bool = False
    ) -> ConvNetwork:
        """The plain network of a genotype at this size, freshly initialised.

        Raises:
            ValueError: a genotype of another space, or with an operation that is not known here.
        """
        if not isinstance(genotype, Genotype) or genotype.kind != "conv":
            kind = genotype.kind if isinstance(genotype, Genotype) else type(genotype).__name__
            raise ValueError(
                f"a convolutional network needs a conv genotype, not one of kind {kind!r}"
            )
        known = {**OPERATIONS, **self.factories}
        for kind in KINDS:
            for name, _ in edges_of(genotype, kind):
                if name not in known:
                    raise ValueError(
                        f"unknown operation {name!r} in the {kind} cell{did_you_mean(name, known)}"
                    )
        return ConvNetwork(
            genotype.inputs("normal"),
            genotype.normal_concat,
            genotype.inputs("reduce"),
            genotype.reduce_concat,
            channels=self.channels,
            cells=self.cells,
            num_classes=num_classes,
            in_channels=in_channels,
            stem=self.stem,
            auxiliary=auxiliary,
            operations=known,
        )

    # ---- genotypes -------------------------------------------------------------------------------

    def derive(self, alphas: Mapping[str, Tensor], relaxation: Relaxation) -> Genotype:
        """The two strongest edges into every node, as `ConvCell.derive`."""
        excluded = [column for column, name in enumerate(self.names) if name == "none"]
        cells = {}
        for kind in KINDS:
            # float64: strengths that differ in alpha must not tie by rounding.
            strength_EO = relaxation.probabilities(alphas[kind].detach().double())
            cells[kind] = self.named(top_edges(strength_EO, self.predecessors, excluded))
        return Genotype.conv(normal=cells["normal"], reduce=cells["reduce"])

    def named(self, pairs: list[tuple[int, int]]) -> list[tuple[str, int]]:
        """(column, predecessor) pairs with the operations' names in place of their columns."""
        names = self.names
        return [(names[column], predecessor) for column, predecessor in pairs]

    def random_decision(self, generator: torch.Generator) -> Genotype:
        """A cell pair drawn uniformly, as `ConvCell.random_decision`."""
        normal = self._random_cell(generator)
        reduce = self._random_cell(generator)
        return Genotype.conv(normal=normal, reduce=reduce)

    def _random_cell(self, generator: torch.Generator) -> list[tuple[str, int]]:
        names = [name for name in self.names if name != "none"]
        edges = []
        for count in self.predecessors:
            two = torch.randperm(count, generator=generator, device="cpu")[:2].tolist()
            for predecessor in two:
                name = names[
                    int(torch.randint(len(names), (1,), generator=generator, device="cpu"))
                ]
                edges.append((name, predecessor))
        return edges


def edges_of(genotype: Genotype, kind: CellKind) -> tuple[tuple[str, int], ...]:
    """(operation, predecessor) pairs of one of the two cells; pairs 2i and 2i + 1 enter node i."""
    return genotype.normal if kind == "normal" else genotype.reduce
