"""Supernets of cells that can have what methods ask for beside operations and their alphas.

Legend: E edges, O operations.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gradnas.choice import Active, Additions, Draw
from gradnas.randomness import seed_for
from gradnas.relaxations import Relaxation
from gradnas.spaces.base import D, Supernet
from gradnas.spaces.edge_weights import edge_softmax, edges_name
from gradnas.spaces.open_edges import OpenEdges
from gradnas.spaces.operations import FactorizedReduce

ADDED = 91  # stream of random numbers


class CellSupernet(Supernet[D]):
    """A supernet whose cells are `OpenEdges`; `shape` and `cells` are made by the class itself."""

    shape: Any  # with `num_edges`, and `predecessors`: incoming edges of each node
    cells: nn.ModuleList
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
