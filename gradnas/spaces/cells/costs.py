"""What the operations of cells count in a sum of costs, and the best cells within a budget.

A node of a derived cell keeps two edges, so the choice of a node is a choice of a pair of edges
with their operations: those pairs are the options of the knapsack in `gradnas.derivation`.

Legend: E edges, O operations.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from gradnas.architectures.genotype import Genotype
from gradnas.derivation import Option, Picks, log_strength, top_edges
from gradnas.latency import Costs
from gradnas.spaces.cells.shape import KINDS, CellKind, CellShape


def cell_shares(shape: CellShape) -> dict[str, list[float]]:
    """How much an edge counts in an expectation: of n edges into a node two stay, so 2 / n each."""
    shares = []
    for count in shape.predecessors:
        # Which two stay is open, so all count alike; the shares of a node add up to 2.
        shares += [2.0 / count] * count
    return {kind: shares for kind in KINDS}


def cell_options(
    shape: CellShape, costs: Costs, strengths: Mapping[str, Tensor]
) -> dict[str, list[Option]]:
    """For every node of both cells the ways to take two edges with operations other than `none`.

    Raises:
        ValueError: operations of several edges share parameters.
    """
    if costs.shared or costs.nested:
        raise ValueError(
            "operations of several edges share parameters, or hold choices of their own: nothing "
            f"can be derived within a budget of {costs.noun}; let the cell's operations make "
            "layers of their own"
        )
    options = {}
    for kind in KINDS:
        for node in range(shape.nodes):
            ways = _ways(shape, kind, costs.tables[kind], strengths[kind], node)
            options[_name(kind, node)] = [way.option for way in ways]
    return options


def cells_of(
    shape: CellShape, costs: Costs, strengths: Mapping[str, Tensor], picks: Picks
) -> Genotype:
    """The genotype of picks among `cell_options`; inputs of a node by strength, as in DARTS."""
    cells = {}
    for kind in KINDS:
        # The rule of DARTS finds exactly these edges where all others are weaker than any strength.
        kept_EO = torch.full_like(strengths[kind], -1.0)
        for node in range(shape.nodes):
            # Made again in the order of `cell_options`, by which the pick was numbered.
            ways = list(_ways(shape, kind, costs.tables[kind], strengths[kind], node))
            way = ways[picks[_name(kind, node)]]
            for place in way.places:
                kept_EO[place] = strengths[kind][place]
        cells[kind] = shape.named(kind, top_edges(kept_EO, shape.predecessors))
    return Genotype.conv(normal=cells["normal"], reduce=cells["reduce"])


@dataclass(frozen=True)
class _Way:
    """One way to decide a node."""

    option: Option
    places: tuple[tuple[int, int], tuple[int, int]]  # (row, column) of its two edges


def _name(kind: str, node: int) -> str:
    return f"{kind}/{node}"


def _ways(
    shape: CellShape, kind: CellKind, cost_EO: Tensor, strength_EO: Tensor, node: int
) -> Iterator[_Way]:
    """All pairs of edges into a node with all pairs of operations, always in the same order."""
    # Plain numbers: of a tensor each entry would take a microsecond.
    p_EO: list[list[float]] = strength_EO.detach().double().tolist()
    costs_EO: list[list[float]] = cost_EO.tolist()
    rows = [shape.edge(node, predecessor) for predecessor in range(shape.predecessors[node])]
    columns = {row: shape.chosen_columns(kind, row) for row in rows}

    # The score of a way is the logarithm of the product of its strengths, less that of the best
    # way: 0 for the best, whatever the strengths are.
    best_of_rows = [max(p_EO[row][column] for column in columns[row]) for row in rows]
    best_two = sorted(best_of_rows, reverse=True)[:2]
    best_score = sum(log_strength(p) for p in best_two)

    for first_row, second_row in itertools.combinations(rows, 2):
        pairs = itertools.product(columns[first_row], columns[second_row])
        for first_column, second_column in pairs:
            first = (first_row, first_column)
            second = (second_row, second_column)
            score = log_strength(p_EO[first_row][first_column])
            score += log_strength(p_EO[second_row][second_column])
            cost = costs_EO[first_row][first_column] + costs_EO[second_row][second_column]
            yield _Way(Option(score - best_score, cost), (first, second))
