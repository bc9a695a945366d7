"""The supernet of NAS-Bench-201: all cells with every edge open, and one table of alphas.

Legend: B batch, C channels, H height, W width, E edges, O operations, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gradnas.architectures.dense_cell import DenseCell
from gradnas.derivation import Option, Picks, log_strength
from gradnas.latency import Costs
from gradnas.modules.draws import Draw
from gradnas.relaxations import Relaxation, Softmax
from gradnas.spaces.added import CellSupernet
from gradnas.spaces.base import Weights
from gradnas.spaces.budget import Knapsack, Ranking
from gradnas.spaces.cells.running import Statistics, update_running_statistics, updates_of
from gradnas.spaces.edge_operations import is_zero
from gradnas.spaces.inherited import copy_state
from gradnas.spaces.nas_bench_201.cell import BenchCell
from gradnas.spaces.nas_bench_201.network import (
    NUM_STAGES,
    DenseCellNetwork,
    NasBench201Network,
    ResidualReduction,
    bench_last,
    bench_stem,
)
from gradnas.spaces.nas_bench_201.shape import CHOICE, BenchShape
from gradnas.spaces.nas_bench_201.shared_cell import SharedCell


class NasBench201Supernet(CellSupernet[DenseCell]):
    """All cells with every edge open; `alphas["cell"]` is `(E, O)` and serves them all."""

    shape: BenchShape

    def __init__(
        self,
        shape: BenchShape,
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
        cell_class = SharedCell if fused else BenchCell
        self.stem = bench_stem(in_channels, channels)
        self.cells = nn.ModuleList()
        for stage in range(NUM_STAGES):
            if stage > 0:
                self.cells.append(ResidualReduction(channels, 2 * channels))
                channels = 2 * channels
            for _ in range(shape.cells):
                self.cells.append(cell_class(shape, channels, len(self.cells)))
        self.last = bench_last(channels)
        self.classifier = nn.Linear(channels, num_classes)
        table_EO = 1e-3 * torch.randn(shape.num_edges, len(shape.names))
        self.alphas = nn.ParameterDict({CHOICE: nn.Parameter(table_EO)})

    def forward(self, x_BCHW: Tensor, *, draw: Draw | None = None) -> Tensor:
        """Images to logits `(B, K)`."""
        if draw is None:
            draw = self.dense_draw()
        statistics: Statistics = []  # of all cells, for one update
        x_BCHW = self.stem(x_BCHW)
        for cell in self.cells:
            if isinstance(cell, BenchCell):
                x_BCHW = self.cell_output(cell, CHOICE, (x_BCHW,), draw, statistics)
            else:
                x_BCHW = cell(x_BCHW)
        update_running_statistics(updates_of(statistics))
        return self.classifier(self.last(x_BCHW).mean(dim=(2, 3)))

    # ---- cells -----------------------------------------------------------------------------------

    def decide(self, relaxation: Relaxation = Softmax()) -> DenseCell:
        return self.shape.derive(dict(self.alphas.items()), relaxation)

    def operation_names(self) -> dict[str, tuple[str, ...]]:
        return {CHOICE: self.shape.names}

    def weightless(self) -> dict[str, Tensor]:
        cell = next(cell for cell in self.cells if isinstance(cell, BenchCell))
        return {CHOICE: cell.weightless()}

    def is_blind(self, decision: DenseCell) -> bool:
        """Whether `none` lies on every path of the cell: 341 of the benchmark's 15,625."""
        cell = next(cell for cell in self.cells if isinstance(cell, BenchCell))
        return decision.is_cut(lambda row, name: is_zero(cell.operation(row, name), 1))

    def skip_count(self, decision: DenseCell) -> int:
        """Skip connections of the cell."""
        return decision.operations.count("skip_connect")

    def one_hot_draw(self, cell: DenseCell) -> Draw:
        """Mixing weight 1 on the cell's operations."""
        names = self.shape.names
        columns = [names.index(name) for name in self.shape.checked(cell).operations]
        tables = {name: table.detach() for name, table in self.alphas.items()}
        return Draw.one_hot({CHOICE: columns}, tables)

    # ---- costs -----------------------------------------------------------------------------------

    def plain(self) -> NasBench201Supernet:
        return NasBench201Supernet(self.shape, self.in_channels, self.num_classes, fused=False)

    def ranking(self, costs: Costs, strengths: Mapping[str, Tensor]) -> Ranking[DenseCell]:
        if costs.shared or costs.nested:
            raise ValueError(
                "operations of several edges share parameters, or hold choices of their own: "
                f"nothing can be derived within a budget of {costs.noun}; let the cell's "
                "operations make layers of their own"
            )
        p_EO: list[list[float]] = strengths[CHOICE].detach().double().tolist()
        costs_EO: list[list[float]] = costs.tables[CHOICE].tolist()
        options = {}
        for row, (p_O, costs_O) in enumerate(zip(p_EO, costs_EO, strict=True)):
            best = max(log_strength(p) for p in p_O)
            options[str(row)] = [
                Option(log_strength(p) - best, cost) for p, cost in zip(p_O, costs_O, strict=True)
            ]
        return Ranking(Knapsack(options, joint={}), costs.fixed, self._picked)

    def _picked(self, picks: Picks) -> DenseCell:
        return self.shape.cell([picks[str(row)] for row in range(self.shape.num_edges)])

    # ---- derived networks ------------------------------------------------------------------------

    def derived(self, decision: DenseCell, weights: Weights = "keep") -> NasBench201Network:
        """The plain network of a cell; `"keep"` copies the supernet's tensors.

        Kept BatchNorms of cells start at scale 1 and shift 0, as in the supernet; their running
        statistics are those of the supernet's mixture: recalibrate them before evaluation.

        Raises:
            ValueError: the cell is not one of this space.
        """
        if weights == "keep":
            self.check_keeps()
        network = self.shape.network(decision, self.num_classes, self.in_channels)
        network.to(self.classifier.weight.device, self.classifier.weight.dtype)
        if weights == "keep":
            for name in ("stem", "last", "classifier"):
                own: nn.Module = getattr(self, name)
                getattr(network, name).load_state_dict(own.state_dict())
            for source, target in zip(self.cells, network.cells, strict=True):
                if not isinstance(source, BenchCell):
                    target.load_state_dict(source.state_dict())
                    continue
                assert isinstance(target, DenseCellNetwork)
                for row, name in enumerate(decision.operations):
                    operation = source.operation(row, name)
                    copy_state(dict(operation.state_dict()), target.operations[row])
        return network
