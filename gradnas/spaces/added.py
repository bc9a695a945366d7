"""Supernets of cells that can have what methods ask for beside operations and their alphas.

Legend: E edges, O operations.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Self

import torch
from torch import Tensor, nn

from gradnas.latency import CostView, Place
from gradnas.modules.draws import Active, Additions, Draw
from gradnas.precision import HALF
from gradnas.randomness import seed_for
from gradnas.relaxations import Relaxation
from gradnas.spaces.base import D, Supernet
from gradnas.spaces.cells.running import Statistics
from gradnas.spaces.edge_weights import edge_softmax, edges_name
from gradnas.spaces.open_edges import OpenEdges
from gradnas.spaces.operations import FactorizedReduce
from gradnas.spaces.recomputed import recomputed

ADDED = 91  # stream of random numbers


class CellSupernet(Supernet[D]):
    """A supernet whose cells are `OpenEdges`; what it consists of is made by the class itself."""

    shape: Any  # with `num_edges`, and `predecessors`: incoming edges of each node
    cells: nn.ModuleList
    classifier: nn.Linear
    checkpoint_cells: bool
    _added = Additions()

    def add(self, additions: Additions, seed: int) -> None:
        """New operations of fewer channels, skips beside them, alphas of whole edges.

        Raises:
            ValueError: channels that cannot be divided so; a supernet with other additions.
        """
        if additions == self._added:
            return
        if self._added != Additions():
            raise ValueError(
                f"this supernet was made for another method already ({self._added}): build a new "
                "one for each search"
            )
        cells = [cell for cell in self.cells if isinstance(cell, OpenEdges)]
        for cell in cells:
            cell.check(additions)
        like = next(self.parameters())
        alpha = next(iter(self.alphas.values()))
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.default_generator.manual_seed(seed_for(seed, ADDED))
            for cell in cells:
                cell.add(additions)
            self.to(like.device, like.dtype)
            if additions.edge_weights:
                tables = nn.ParameterDict()
                for name in self.alphas:
                    start_E = 1e-3 * torch.randn(self.shape.num_edges)
                    tables[name] = nn.Parameter(start_E.to(alpha))
                self.tables_of_edges = tables
        self.train(self.training)
        self.keeps_weights = additions.channel_share == 1
        self._added = additions

    @property
    def edge_alphas(self) -> dict[str, nn.Parameter]:
        tables = self._modules.get("tables_of_edges")
        return {} if tables is None else dict(tables.items())  # type: ignore[missing-attribute]

    def weights_of_operations(self) -> dict[str, list[nn.Parameter]]:
        """Those of skips that halve the maps are none of an operation that is searched for."""
        found: dict[str, list[nn.Parameter]] = {}
        for cell in self.cells:
            if not isinstance(cell, OpenEdges):
                continue
            for row in range(cell.num_edges):
                for column, name in enumerate(cell.own_names(row)):
                    operation = cell.operation(row, name)
                    weights = [] if is_skip(operation) else list(operation.parameters())
                    if weights:
                        found[cell.label_of(row, column)] = weights
        return found

    def mixed(self, cell: OpenEdges, name: str, draw: Draw) -> tuple[Tensor, Active]:
        """Mixing weights and active operations of a draw, as the edges of a cell take them."""
        alpha_E = self.edge_alphas.get(name)
        edge_E = None if alpha_E is None else edge_softmax(alpha_E, self.shape.predecessors)
        return cell.columns(draw.mix[name], draw.active[name], edge_E, draw.skip)

    def cell_output(
        self,
        cell: Any,
        choice: str,
        inputs: tuple[Tensor, ...],
        draw: Draw,
        statistics: Statistics,
    ) -> Tensor:
        """What a cell gives for a draw.

        Args:
            cell: with `forward` and `edge_by_edge` of its inputs, mixing weights and active
                operations.
            choice: its table of alphas.
            statistics: as the cell's `forward` takes them.
        """
        mix_EO, active = self.mixed(cell, choice, draw)
        if draw.probed is not None:
            if self.checkpoint_cells:
                raise ValueError(
                    "checkpoint_cells computes a cell again in backward, and this relaxation "
                    "computes operations there itself: build the supernet without checkpoint_cells"
                )
            # Edge by edge, whatever the cell: a probe needs each operation on its own.
            beside = draw.probed[choice]
            return cell.edge_by_edge(*inputs, mix_EO, active, beside, draw.deferred)
        # Alphas are never narrower than float32; the kernels take one type for all.
        dtype = self.classifier.weight.dtype
        if dtype in HALF:
            mix_EO = mix_EO.to(dtype)
        if self.checkpoint_cells and torch.is_grad_enabled():
            return recomputed(cell, *inputs, mix_EO, active)
        return cell(*inputs, mix_EO, active, statistics)

    def random_decision(self, generator: torch.Generator) -> D:
        return self.shape.random_decision(generator)

    # ---- costs -----------------------------------------------------------------------------------

    @abstractmethod
    def plain(self) -> Self:
        """A supernet of this size whose cells are computed edge by edge, with new weights."""

    def cost_view(self) -> CostView:
        """How to time the cells edge by edge, with every operation as derived networks have it.

        The rest of a network is timed with as many edges as derived cells have; it includes a
        multiplication for each of them that a derived network does not make.
        """
        # The weights of this copy are of no interest, and must not cost random numbers.
        with torch.random.fork_rng(devices=[]):
            plain = self.plain()
            places: dict[nn.Module, Place] = {}
            for cell in plain.cells:
                if not isinstance(cell, OpenEdges):
                    continue
                for operation, place in cell.make_affine().items():
                    # On the same edge of cells of one table it is chosen for all of them at once.
                    if places.setdefault(operation, place) != place:
                        name = cell.own_names(place.row)[place.column]
                        raise ValueError(
                            f"the operation {name!r} is one module in several cells, on other "
                            "edges or in cells of other tables of alphas: what it costs cannot be "
                            "told; let it make a new module each time"
                        )
        some = self.shape.random_decision(torch.Generator().manual_seed(0))
        dense = plain.dense_draw()
        sparse = plain.one_hot_draw(some)
        plain.alphas = nn.ParameterDict()  # no part of a derived network
        plain.to(self.classifier.weight.device, self.classifier.weight.dtype)
        return CostView(plain, places, {"draw": dense}, {"draw": sparse})

    # ---- strengths, derived networks -------------------------------------------------------------

    def strengths_by_alphas(self, relaxation: Relaxation) -> dict[str, Tensor]:
        """With weights of edges, the product of the two."""
        found = super().strengths_by_alphas(relaxation)
        for name, alpha_E in self.edge_alphas.items():
            edge_E = edge_softmax(alpha_E.detach().double(), self.shape.predecessors)
            found[name] = found[name] * edge_E.unsqueeze(-1)
        return found

    def check_keeps(self) -> None:
        """ValueError where a derived network has other channels than the supernet's operations."""
        if not self.keeps_weights:
            raise ValueError(
                "the operations of this supernet see a part of the channels (PartialChannels), and "
                "those of a derived network see all: it can have fresh weights alone, "
                'derive(weights="fresh")'
            )


def is_skip(operation: nn.Module) -> bool:
    """Whether an operation only passes on what it is given, if halved."""
    return isinstance(operation, (nn.Identity, FactorizedReduce))


def edge_tables(supernet: Supernet[D]) -> dict[str, Tensor]:
    """Alphas of operations and of edges, as a space derives from them."""
    tables: dict[str, Tensor] = dict(supernet.alphas.items())
    for name, alpha_E in supernet.edge_alphas.items():
        tables[edges_name(name)] = alpha_E
    return tables
