"""The shape of a network of cells: its sizes, and where an edge of a cell stands in alpha.

Legend: E edges, O operations.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from gradnas.architectures.genotype import Genotype
from gradnas.config import did_you_mean
from gradnas.derivation import top_edges
from gradnas.relaxations import Relaxation
from gradnas.spaces.cells.conv_network import ConvNetwork, Edges, EdgesByNode
from gradnas.spaces.edge_weights import edge_softmax, edges_name
from gradnas.spaces.operations import OPERATIONS, Factory

CellKind = Literal["normal", "reduce"]
KINDS: tuple[CellKind, CellKind] = ("normal", "reduce")

Sets: TypeAlias = tuple[tuple[str, ...], ...]  # for each edge its operations

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
        sets: kind of cell -> the operations of every edge, in the order of its own columns, where
            edges have other operations than each other; None: each has all.
    """

    channels: int
    cells: int
    nodes: int
    stem: Literal["cifar", "imagenet"]
    factories: Mapping[str, Factory]
    sets: Mapping[CellKind, Sets] | None = None

    # ---- tables of alphas ------------------------------------------------------------------------

    @property
    def names(self) -> tuple[str, ...]:
        """All operations; in alpha's column order where every edge has them all."""
        return tuple(self.factories)

    def names_of(self, kind: CellKind, row: int) -> tuple[str, ...]:
        """The operations of an edge, in the order of alpha's columns."""
        return tuple(self.factories) if self.sets is None else self.sets[kind][row]

    @property
    def num_columns(self) -> int:
        """Of each table of alphas: the operations of an edge."""
        return len(self.names_of("normal", 0))

    def column_names(self, kind: CellKind) -> tuple[str, ...]:
        """What the columns of a table are called.

        Where edges have other operations than each other, the operations of all its rows: `skip
        x2, max_pool_3x3, skip`.
        """
        if self.sets is None:
            return self.names
        names = []
        for column in range(self.num_columns):
            runs = itertools.groupby(operations[column] for operations in self.sets[kind])
            counted = [(name, len(list(run))) for name, run in runs]
            words = [name if count == 1 else f"{name} x{count}" for name, count in counted]
            names.append(", ".join(words))
        return tuple(names)

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

    def chosen_columns(self, kind: CellKind, row: int) -> list[int]:
        """Columns of the operations that a derived cell can have on an edge: all but `none`."""
        names = self.names_of(kind, row)
        return [column for column, name in enumerate(names) if name != "none"]

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
            _edges_to_build(genotype, "normal"),
            genotype.normal_concat,
            _edges_to_build(genotype, "reduce"),
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
        cells = {}
        for kind in KINDS:
            # float64: strengths that differ in alpha must not tie by rounding.
            strength_EO = relaxation.probabilities(alphas[kind].detach().double())
            of_edges = alphas.get(edges_name(kind))
            if of_edges is not None:
                edge_E = edge_softmax(of_edges.detach().double(), self.predecessors)
                strength_EO = strength_EO * edge_E.unsqueeze(-1)
            cells[kind] = self.named(kind, _top_edges(self, kind, strength_EO))
        return Genotype.conv(normal=cells["normal"], reduce=cells["reduce"])

    def named(self, kind: CellKind, pairs: list[tuple[int, int]]) -> list[tuple[str, int]]:
        """(column, predecessor) pairs, two for each node, with operations in place of columns."""
        found = []
        for k, (column, predecessor) in enumerate(pairs):
            names = self.names_of(kind, self.edge(k // 2, predecessor))
            found.append((names[column], predecessor))
        return found

    def random_decision(self, generator: torch.Generator) -> Genotype:
        """A cell pair drawn uniformly, as `ConvCell.random_decision`."""
        normal = self._random_cell("normal", generator)
        reduce = self._random_cell("reduce", generator)
        return Genotype.conv(normal=normal, reduce=reduce)

    def _random_cell(self, kind: CellKind, generator: torch.Generator) -> list[tuple[str, int]]:
        edges = []
        for node, count in enumerate(self.predecessors):
            two = torch.randperm(count, generator=generator, device="cpu")[:2].tolist()
            for predecessor in two:
                row = self.edge(node, predecessor)
                names = [name for name in self.names_of(kind, row) if name != "none"]
                place = torch.randint(len(names), (1,), generator=generator, device="cpu")
                edges.append((names[int(place)], predecessor))
        return edges


def _top_edges(shape: CellShape, kind: CellKind, strength_EO: Tensor) -> list[tuple[int, int]]:
    if shape.sets is None:
        excluded = [column for column, name in enumerate(shape.names) if name == "none"]
        return top_edges(strength_EO, shape.predecessors, excluded)
    # `none` has another column in each row: below every strength it is chosen nowhere.
    strength_EO = strength_EO.clone()
    for row, names in enumerate(shape.sets[kind]):
        for column, name in enumerate(names):
            if name == "none":
                strength_EO[row, column] = -1.0
    return top_edges(strength_EO, shape.predecessors)


def edges_of(genotype: Genotype, kind: CellKind) -> tuple[tuple[str, int], ...]:
    """(operation, predecessor) pairs of one of the two cells; pairs 2i and 2i + 1 enter node i."""
    return genotype.normal if kind == "normal" else genotype.reduce


def _edges_to_build(genotype: Genotype, kind: CellKind) -> Edges | EdgesByNode:
    """The edges of a cell in the form that says what drop path drops (`ConvCellNetwork`)."""
    if genotype.cell(kind).inputs_per_node is None:
        return edges_of(genotype, kind)
    return genotype.inputs(kind)


def check_fits(shape: CellShape, genotype: Genotype) -> None:
    """ValueError where a supernet of the shape does not have this architecture."""
    nodes = shape.nodes
    all_nodes = tuple(range(INPUTS, nodes + INPUTS))
    concats: dict[CellKind, tuple[int, ...]] = {
        "normal": genotype.normal_concat,
        "reduce": genotype.reduce_concat,
    }
    for kind, concat in concats.items():
        edges = edges_of(genotype, kind)
        if genotype.cell(kind).inputs_per_node is not None:
            raise ValueError(
                f"the {kind} cell has not two edges into every node, as the cells of this "
                "supernet have: build its network by the space"
            )
        if len(edges) != 2 * nodes or tuple(concat) != all_nodes:
            raise ValueError(
                f"the {kind} cell has {len(edges) // 2} nodes and the concatenation "
                f"{list(concat)}; a cell of this supernet has {nodes} nodes, all of them "
                "concatenated"
            )
        for k, (name, predecessor) in enumerate(edges):
            names = shape.names_of(kind, shape.edge(k // 2, predecessor))
            if name not in names:
                hint = did_you_mean(name, names)
                where = "" if shape.sets is None else _edge_words(kind, k // 2, predecessor)
                raise ValueError(f"the supernet has no operation {name!r}{where}{hint}")


def _edge_words(kind: str, node: int, predecessor: int) -> str:
    return f" on the edge from state {predecessor} to {node + INPUTS} of the {kind} cell"
