"""What a grouped cell computes in each of its stages: the operations by kind, their weights.

Legend: E edges, O operations.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradnas.spaces.cells.builtin import Known, Layers, Rows
from gradnas.spaces.cells.edge_cell import EdgeCell
from gradnas.spaces.cells.shape import INPUTS
from gradnas.spaces.cells.stencils import (
    DEPTHWISE,
    LAST_NORM,
    LAST_POINTWISE,
    POINTWISE,
    SECOND_DEPTHWISE,
    batch_norm,
    conv_weight,
)
from gradnas.spaces.operations import FactorizedReduce

SHARED = ("maximum", "average", "identity")  # one map serves all edges of a source


@dataclass(frozen=True)
class Item:
    """An operation of an edge."""

    source: int  # place among the sources of the stage
    target: int  # intermediate node
    row: int  # of alpha
    column: int
    operation: nn.Module
    layers: Layers  # of a known operation

    def layer(self, place: int) -> nn.Module:
        """Of a known convolution or pool."""
        return self.layers[place]

    def weight(self, place: int) -> Tensor:
        """Of a layer that is a convolution."""
        return conv_weight(self.layer(place))

    def norm(self, place: int) -> nn.BatchNorm2d:
        """A layer that is a BatchNorm."""
        return batch_norm(self.layer(place))

    def last_norm(self) -> nn.BatchNorm2d:
        """The BatchNorm that ends the operation."""
        if isinstance(self.operation, FactorizedReduce):
            return self.operation.bn
        return self.norm(LAST_NORM)


@dataclass
class Stage:
    """What leaves some sources, by kind."""

    sources: list[int] = field(default_factory=list)  # those with an active edge
    separable: list[Item] = field(default_factory=list)
    dilated: list[Item] = field(default_factory=list)
    maxima: list[Item] = field(default_factory=list)
    averages: list[Item] = field(default_factory=list)
    reductions: list[Item] = field(default_factory=list)
    identities: list[Item] = field(default_factory=list)
    others: list[Item] = field(default_factory=list)  # run as modules of their own

    @property
    def convolutions(self) -> list[Item]:
        return self.separable + self.dilated


@dataclass(frozen=True)
class StageWeights:
    """Of the convolutions of a stage, side by side."""

    separable: Tensor  # depthwise
    dilated: Tensor  # depthwise
    second_separable: Tensor  # depthwise
    first_pointwise: Tensor  # of the separable ones
    last_pointwise: Tensor  # of all


def stages_of(cell: EdgeCell, rows: Rows, is_even: bool) -> list[Stage]:
    """One for each intermediate node: what leaves the sources known when its turn comes.

    Args:
        rows: the active operations of each edge.
        is_even: whether the maps of the inputs have even sides. Factorized reductions of others run
            as modules, which refuse them.
    """
    num_nodes = cell.shape.nodes
    stages = [Stage() for _ in range(num_nodes)]
    for number, stage in enumerate(stages):
        # The first stage knows the cell's inputs; each later one the node of the stage before it.
        sources = list(range(INPUTS)) if number == 0 else [number + 1]
        for source in sources:
            place = len(stage.sources)
            for target in range(number, num_nodes):
                row = cell.shape.edge(target, source)
                for column, known in rows[row].items():
                    operation = cell.operation(row, cell.names(row)[column])
                    if source not in stage.sources:
                        stage.sources.append(source)
                    layers = () if known is None else known.layers
                    items = _of_kind(stage, known, is_even)
                    is_second = bool(items) and items[-1].row == row
                    if is_second and known is not None and known.kind in SHARED:
                        # Edges share these maps, and an edge takes a map once: another operation of
                        # the kind, under another name, is called.
                        items = stage.others
                    items.append(Item(place, target, row, column, operation, layers))
    return stages


def _of_kind(stage: Stage, known: Known | None, is_even: bool) -> list[Item]:
    """The list of a stage that an operation belongs to."""
    if known is None or (known.kind == "reduction" and not is_even):
        return stage.others
    match known.kind:
        case "separable":
            return stage.separable
        case "dilated":
            return stage.dilated
        case "maximum":
            return stage.maxima
        case "average":
            return stage.averages
        case "reduction":
            return stage.reductions
        case "identity":
            return stage.identities


def served_edges(stage: Stage, training: bool) -> list[list[Item]]:
    """The edges that each of the mixed maps serves, in the order of `grouped_cell._mixed_maps`."""
    served = [[item] for item in stage.convolutions]
    for items in (stage.maxima, stage.averages):
        if training:
            served += _by_source(stage, items)
        else:
            # Running statistics of edges that were drawn at different times differ: each has its
            # own map.
            served += [[item] for item in items]
    served += [[item] for item in stage.reductions]
    served += _by_source(stage, stage.identities)
    return served


def _by_source(stage: Stage, items: list[Item]) -> list[list[Item]]:
    """Items that share one map for each source; a source without any has an empty list."""
    if not items:
        return []
    groups: list[list[Item]] = [[] for _ in stage.sources]
    for item in items:
        groups[item.source].append(item)
    return groups


# ---- weights side by side ------------------------------------------------------------------------


def gathered_weights(stages: list[Stage]) -> list[StageWeights]:
    """The weights of all stages side by side, in a few launches for all of them together."""
    depthwise: list[list[Tensor]] = []
    pointwise: list[list[Tensor]] = []
    for stage in stages:
        depthwise.append(_weights(stage.separable, DEPTHWISE))
        depthwise.append(_weights(stage.dilated, DEPTHWISE))
        depthwise.append(_weights(stage.separable, SECOND_DEPTHWISE))
        pointwise.append(_weights(stage.separable, POINTWISE))
        pointwise.append(_weights(stage.convolutions, LAST_POINTWISE))
    depthwise_joined = iter(_joined(depthwise))
    pointwise_joined = iter(_joined(pointwise))
    weights = []
    for _ in stages:
        weights.append(
            StageWeights(
                separable=next(depthwise_joined),
                dilated=next(depthwise_joined),
                second_separable=next(depthwise_joined),
                first_pointwise=next(pointwise_joined),
                last_pointwise=next(pointwise_joined),
            )
        )
    return weights


def _weights(items: list[Item], place: int) -> list[Tensor]:
    """Of the layers at one place."""
    return [item.weight(place) for item in items]


def _joined(groups: list[list[Tensor]]) -> Sequence[Tensor]:
    """For each group one tensor, the weights of which lie side by side; a view of all in one."""
    weights = _of_one_size(list(itertools.chain(*groups)))
    if not weights:
        return [torch.empty(0)] * len(groups)
    # Contiguous in torch's sense is not enough: a 1x1 weight may carry channels-last strides, and
    # would pass them on.
    joined = torch.cat([w.flatten(1) for w in weights]).view(-1, *weights[0].shape[1:])
    channels = weights[0].shape[0]
    return joined.split([channels * len(group) for group in groups])


def _of_one_size(weights: list[Tensor]) -> list[Tensor]:
    """Kernels of 3x3 with a border of zeros, if there are some of 5x5."""
    small = [w for w in weights if w.shape[2] == 3]
    has_large = any(w.shape[2] == 5 for w in weights)
    if not small or not has_large:
        return weights
    channels = small[0].shape[0]
    padded = iter(F.pad(torch.cat(small), (1, 1, 1, 1)).split(channels))
    return [next(padded) if w.shape[2] == 3 else w for w in weights]
