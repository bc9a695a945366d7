"""The supernet of the cell space: the network of cells with every choice open.

Legend: B batch, C channels, H height, W width, E edges, O operations, K classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from gradnas.architectures.genotype import Genotype
from gradnas.latency import Costs, LatencyTable
from gradnas.modules.draws import Draw
from gradnas.relaxations import Relaxation, Softmax
from gradnas.spaces.added import CellSupernet, edge_tables
from gradnas.spaces.base import Weights
from gradnas.spaces.budget import Knapsack, Ranking
from gradnas.spaces.cells.conv_network import (
    ConvCellNetwork,
    ConvNetwork,
    cifar_stem,
    imagenet_stem,
)
from gradnas.spaces.cells.costs import cell_options, cell_shares, cells_of
from gradnas.spaces.cells.edge_cell import EdgeCell
from gradnas.spaces.cells.fused_cell import FusedCell
from gradnas.spaces.cells.running import Statistics, update_running_statistics, updates_of
from gradnas.spaces.cells.shape import KINDS, CellShape, check_fits, edges_of
from gradnas.spaces.inherited import copy_state


class ConvSupernet(CellSupernet[Genotype]):
    """The cells with every choice open; `alphas["normal"]` and `alphas["reduce"]` are `(E, O)`."""

    shape: CellShape

    def __init__(
        self,
        shape: CellShape,
        in_channels: int,
        num_classes: int,
        fused: bool = True,
        checkpoint_cells: bool = False,
    ) -> None:
        super().__init__()
        self.shape = shape
        self.in_channels = in_channels
        self.num_classes = num_classes
        self.checkpoint_cells = checkpoint_cells

        channels = shape.channels
        if shape.stem == "imagenet":
            stem_channels = channels
            self.stem0, self.stem1 = imagenet_stem(in_channels, stem_channels)
        else:
            stem_channels = 3 * channels
            self.stem = cifar_stem(in_channels, stem_channels)

        self.cells = nn.ModuleList()
        cell_class = FusedCell if fused else EdgeCell
        channels_before = stem_channels
        channels_last = stem_channels
        # The second stem of ImageNet halves the maps, as a reduction cell would.
        reduction_before = shape.stem == "imagenet"
        for index in range(shape.cells):
            reduction = shape.is_reduction(index)
            if reduction:
                channels = 2 * channels
            channels_in = (channels_before, channels_last)
            cell = cell_class(shape, channels_in, channels, reduction, reduction_before, index)
            self.cells.append(cell)
            channels_before = channels_last
            channels_last = shape.nodes * channels
            reduction_before = reduction

        self.classifier = nn.Linear(channels_last, num_classes)
        self.alphas = nn.ParameterDict()
        for kind in KINDS:
            table_EO = 1e-3 * torch.randn(shape.num_edges, shape.num_columns)
            self.alphas[kind] = nn.Parameter(table_EO)

    def forward(self, x_BCHW: Tensor, *, draw: Draw | None = None) -> Tensor:
        """Images to logits `(B, K)`."""
        if draw is None:
            draw = self.dense_draw()
        if self.shape.stem == "imagenet":
            before = self.stem0(x_BCHW)
            last = self.stem1(before)
        else:
            before = self.stem(x_BCHW)
            last = before
        # The grouped cells collect here what their BatchNorms saw, so that one update serves the
        # whole network: on a GPU that is a few launches instead of a few for each cell.
        statistics: Statistics = []
        for cell in self.cells:
            assert isinstance(cell, EdgeCell)
            inputs = (before, last)
            output = self.cell_output(cell, cell.kind, inputs, draw, statistics)
            before = last
            last = output
        update_running_statistics(updates_of(statistics))
        return self.classifier(last.mean(dim=(2, 3)))

    # ---- genotypes -------------------------------------------------------------------------------

    def decide(self, relaxation: Relaxation = Softmax()) -> Genotype:
        return self.shape.derive(edge_tables(self), relaxation)

    def selectable(self, name: str, row: int) -> list[int]:
        return self.shape.chosen_columns("reduce" if name == "reduce" else "normal", row)

    def nodes_of_edges(self) -> list[tuple[str, tuple[int, ...], int]]:
        nodes = []
        for kind in KINDS:
            for node, count in enumerate(self.shape.predecessors):
                rows = tuple(self.shape.edge(node, source) for source in range(count))
                nodes.append((str(kind), rows, 2))
        return nodes

    def operation_names(self) -> dict[str, tuple[str, ...]]:
        return {kind: self.shape.column_names(kind) for kind in KINDS}

    def weightless(self) -> dict[str, Tensor]:
        """As of any supernet; on edges that halve the maps a skip connection has weights."""
        found: dict[str, Tensor] = {}
        for cell in self.cells:
            assert isinstance(cell, EdgeCell)
            if cell.kind not in found:
                found[cell.kind] = cell.weightless()
        return {kind: free for kind, free in found.items() if free.any() and not free.all()}

    def skip_count(self, decision: Genotype) -> int:
        """Skip connections of the normal cell: the collapse of DARTS shows there."""
        names = [name for name, _ in decision.normal]
        return names.count("skip_connect")

    def one_hot_draw(self, genotype: Genotype) -> Draw:
        """Mixing weights 1 on the genotype's edges and operations, all other edges cut."""
        check_fits(self.shape, genotype)
        choices: dict[str, list[int | None]] = {}
        for kind in KINDS:
            columns: list[int | None] = [None] * self.shape.num_edges
            for k, (name, predecessor) in enumerate(edges_of(genotype, kind)):
                row = self.shape.edge(k // 2, predecessor)
                columns[row] = self.shape.names_of(kind, row).index(name)
            choices[kind] = columns
        return Draw.one_hot(choices, {kind: table.detach() for kind, table in self.alphas.items()})

    # ---- costs -----------------------------------------------------------------------------------

    def plain(self) -> ConvSupernet:
        return ConvSupernet(self.shape, self.in_channels, self.num_classes, fused=False)

    def costs(
        self,
        quantity: str,
        inputs: Sequence[Any],
        table: LatencyTable | None = None,
        named: Mapping[str, Any] | None = None,
    ) -> Costs:
        """As for every supernet; in an expectation each of the n edges into a node counts 2 / n."""
        costs = super().costs(quantity, inputs, table, named)
        return dataclasses.replace(costs, shares=cell_shares(self.shape))

    def ranking(self, costs: Costs, strengths: Mapping[str, Tensor]) -> Ranking[Genotype]:
        options = Knapsack(cell_options(self.shape, costs, strengths), joint={})
        decision = partial(cells_of, self.shape, costs, strengths)
        return Ranking(options, costs.fixed, decision)

    # ---- derived networks ------------------------------------------------------------------------

    def derived(self, decision: Genotype, weights: Weights = "keep") -> ConvNetwork:
        """The plain network of a genotype; `"keep"` copies the supernet's tensors.

        Kept BatchNorms start at scale 1 and shift 0, as in the supernet; their running statistics
        are those of the supernet's mixture: recalibrate them before evaluation.

        Raises:
            ValueError: the genotype is not one of this space.
        """
        check_fits(self.shape, decision)
        if weights == "keep":
            self.check_keeps()
        network = self.shape.network(decision, self.num_classes, self.in_channels)
        network.to(self.classifier.weight.device, self.classifier.weight.dtype)
        if weights == "keep":
            # A network has the stem of CIFAR or the two of ImageNet.
            for name in ("stem", "stem0", "stem1", "classifier"):
                if hasattr(self, name):
                    own: nn.Module = getattr(self, name)
                    getattr(network, name).load_state_dict(own.state_dict())
            for source, target in zip(self.cells, network.cells, strict=True):
                assert isinstance(source, EdgeCell) and isinstance(target, ConvCellNetwork)
                _inherit_cell(self.shape, source, target, edges_of(decision, source.kind))
        return network


def _inherit_cell(
    shape: CellShape, source: EdgeCell, target: ConvCellNetwork, edges: Sequence[tuple[str, int]]
) -> None:
    copy_state(source.preprocess0.state_dict(), target.preprocess0)
    copy_state(source.preprocess1.state_dict(), target.preprocess1)
    for k, (name, predecessor) in enumerate(edges):
        row = shape.edge(k // 2, predecessor)
        copy_state(source.operation_state(row, name), target.operations[k])
