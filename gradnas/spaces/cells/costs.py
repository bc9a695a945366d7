"""What the operations of cells cost, and the best cells within a budget.

Legend: E edges, O operations.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gradnas.architectures.genotype import Genotype
from gradnas.derivation import Option, Picks, top_edges
from gradnas.latency import Costs, CostView, Place
from gradnas.spaces.operations import Zero

if TYPE_CHECKING:
    from gradnas.spaces.cells.conv_cell import (
        ConvCell,
        ConvSupernet,
    )

KINDS = ("normal", "reduce")


def cell_view(plain: ConvSupernet) -> CostView:
    """How to time a supernet of cells edge by edge; `plain` is a fresh one with unfused cells, and
    is changed.

    Every operation gets the form that it has in derived networks (a pooling without BatchNorm). The
    rest of a network is timed with two edges into every node, as derived cells have; it includes a
    multiplication for each of them that a derived network does not make.
    """
    space = plain.space
    places: dict[nn.Module, Place] = {}
    cells: Any = plain.cells
    for cell in cells:
        kind = "reduce" if cell.reduction else "normal"
        channels = cell.preprocess1[1].out_channels
        for row, operations in enumerate(cell.edges):
            stride = 2 if cell.reduction and space.source(row) < 2 else 1
            for column, (name, make) in enumerate(space.factories.items()):
                operations[name] = make(channels, stride, True)
                if not isinstance(operations[name], Zero):
                    places[operations[name]] = Place(kind, row, column)
        for module in cell.modules():
            if isinstance(module, nn.BatchNorm2d) and not module.affine:  # as derived cells have
                module.affine = True
                module.weight, module.bias = (
                    nn.Parameter(torch.ones(module.num_features)) for _ in range(2)
                )
    some = space.random_decision(torch.Generator().manual_seed(0))
    dense, sparse = plain.dense_draw(), plain.one_hot_draw(some)
    plain.alphas = nn.ParameterDict()  # no part of a derived network
    return CostView(plain, places, {"draw": dense}, {"draw": sparse})


def cell_shares(space: ConvCell) -> dict[str, list[float]]:
    """How much an edge counts in an expectation: a node with n edges keeps two of them, so each
    counts 2 / n."""
    shares = [2.0 / count for count in space.predecessors for _ in range(count)]
    return {kind: shares for kind in KINDS}


def cell_options(
    space: ConvCell, costs: Costs, strengths: Mapping[str, Tensor]
) -> dict[str, list[Option]]:
    """For every node of both cells the ways to take two edges, each with an operation other than
    `none`."""
    return {
        f"{kind}/{node}": [option for option, _ in _ways(space, costs, strengths, kind, node)]
        for kind in KINDS
        for node in range(space.nodes)
    }


def cells_of(
    space: ConvCell, costs: Costs, strengths: Mapping[str, Tensor], picks: Picks
) -> Genotype:
    """The genotype of picks among `cell_options`; inputs of a node in descending order of strength,
    as in DARTS."""
    cells = {}
    for kind in KINDS:
        kept_EO = torch.full_like(strengths[kind], -1.0)
        for node in range(space.nodes):
            _, way = list(_ways(space, costs, strengths, kind, node))[picks[f"{kind}/{node}"]]
            for row, column in way:
                kept_EO[row, column] = strengths[kind][row, column]
        pairs = top_edges(kept_EO, space.predecessors)
        cells[kind] = [(space.names[operation], predecessor) for operation, predecessor in pairs]
    return Genotype.conv(normal=cells["normal"], reduce=cells["reduce"])


def _ways(
    space: ConvCell, costs: Costs, strengths: Mapping[str, Tensor], kind: str, node: int
) -> Iterator[tuple[Option, tuple[tuple[int, int], tuple[int, int]]]]:
    """(option, its two (row, column)) of a node."""
    columns = [k for k, name in enumerate(space.names) if name != "none"]
    p_EO, cost_EO = strengths[kind].detach().double(), costs.tables[kind]
    rows = [space.edge(node, predecessor) for predecessor in range(space.predecessors[node])]
    best = sorted((float(p_EO[row, columns].max()) for row in rows), reverse=True)[:2]
    reference = sum(math.log(max(p, 1e-300)) for p in best)
    for first, second in itertools.combinations(rows, 2):
        for a, b in itertools.product(columns, columns):
            p, q = float(p_EO[first, a]), float(p_EO[second, b])
            score = math.log(max(p, 1e-300)) + math.log(max(q, 1e-300)) - reference
            if p != p or q != q:
                score = math.nan
            yield (
                Option(score, float(cost_EO[first, a] + cost_EO[second, b])),
                ((first, a), (second, b)),
            )
