"""The fused cell in few kernel launches, for devices on which a launch costs more than its work.

Legend: B batch, C channels, H height, W width, E edges, O operations, S sources, T targets, Q maps
that are mixed (in `_BQHW` their channels, side by side).

The nodes of a cell are computed in stages: first what leaves both inputs, then what leaves each
node. In a stage every kind of step is one launch for all edges and operations together:

- The maps of all separable convolutions lie side by side in the channels, so their depthwise
  convolutions are one, their pointwise convolutions one grouped convolution, their BatchNorms one;
  likewise the dilated convolutions. Kernels of 3x3 get a border of zeros where there are some of
  5x5: the same function, more arithmetic, fewer launches.
- One BatchNorm normalises all that is mixed: the convolutions of every edge, and the pools, once
  per source.
- One matrix product mixes: weights (T, Q) times maps (Q, C * H * W), added to what the later nodes
  have so far.

Maps are contiguous (B, C, H, W): mixing wants whole maps side by side, and torch's own depthwise
kernels for CUDA take that layout. Shapes depend on the active operations alone, and nothing is read
back from the device.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradnas.spaces.cells.builtin import Rows
from gradnas.spaces.cells.edge_cell import EdgeCell
from gradnas.spaces.cells.kernels import EPS
from gradnas.spaces.cells.running import Normalised, Statistics, running_of
from gradnas.spaces.cells.stages import (
    Item,
    Stage,
    StageWeights,
    gathered_weights,
    served_edges,
    stages_of,
)
from gradnas.spaces.cells.stencils import NORM
from gradnas.spaces.operations import FactorizedReduce


def grouped_nodes(
    cell: EdgeCell, inputs: Sequence[Tensor], mix_EO: Tensor, rows: Rows, statistics: Statistics
) -> list[Tensor]:
    """The intermediate nodes of a cell from its preprocessed inputs.

    `rows` are its active operations; `statistics` gets what its BatchNorms saw.
    """
    num_nodes = cell.shape.nodes
    is_even = inputs[0].shape[2] % 2 == 0 and inputs[0].shape[3] % 2 == 0
    stages = stages_of(cell, rows, is_even)
    weights = gathered_weights(stages)
    mixes = _mixing_matrices(stages, mix_EO, cell.training)
    # An input without any active edge stays out, so that its weights have no gradient rather than
    # zeros.
    used = [cell.seen(inputs[s]) for s in stages[0].sources] or [cell.seen(inputs[0]).detach()]
    x_BSCHW = torch.stack([x.contiguous() for x in used], dim=1)
    states = list(inputs)
    # For each target what operations give that are modules of their own.
    extra: list[list[Tensor]] = [[] for _ in range(num_nodes)]
    # What the node of this stage and all later ones have so far; its first target leaves it with
    # each stage.
    sum_BTCHW: Tensor | None = None
    for number, stage in enumerate(stages):
        stride = 2 if cell.reduction and number == 0 else 1
        for item in stage.others:
            x_BCHW = x_BSCHW[:, item.source].contiguous()
            part = cell.output(item.operation, item.row, item.column, x_BCHW)
            extra[item.target].append(part * mix_EO[item.row, item.column])
        joined_BQHW = _mixed_maps(
            stage, weights[number], x_BSCHW, stride, cell.training, statistics
        )
        if joined_BQHW is not None:
            sum_BTCHW = _added(sum_BTCHW, joined_BQHW, mixes[number])
        elif sum_BTCHW is None:
            B, _, C, H, W = x_BSCHW.shape
            # Nothing enters so far: zeros for all targets, of the size that operations give.
            size = (B, num_nodes - number, C, (H - 1) // stride + 1, (W - 1) // stride + 1)
            sum_BTCHW = x_BSCHW.new_zeros(size)
        assert sum_BTCHW is not None
        node_B1CHW, sum_BTCHW = sum_BTCHW.split([1, sum_BTCHW.shape[1] - 1], dim=1)
        for part in extra[number]:
            node_B1CHW = node_B1CHW + part.unsqueeze(1)
        sources = cell.sources(number, states)
        states.append(cell.with_rest(node_B1CHW.squeeze(1), sources, mix_EO))
        # The one source of the next stage.
        x_BSCHW = cell.seen(states[-1]).unsqueeze(1)
    return states[len(inputs) :]


# ---- mixing --------------------------------------------------------------------------------------


def _mixing_matrices(stages: list[Stage], mix_EO: Tensor, training: bool) -> list[Tensor]:
    """For each stage the mixing weights as a matrix from maps to targets, zero without an edge.

    All matrices come from one gather: the places of their numbers in `mix_EO`, laid flat with a
    zero at its end.
    """
    E, O = mix_EO.shape  # noqa: E741
    zero_place = E * O
    places: list[int] = []
    shapes: list[tuple[int, int]] = []
    for number, stage in enumerate(stages):
        served = served_edges(stage, training)
        targets = range(number, len(stages))
        shapes.append((len(targets), len(served)))
        for target in targets:
            for items in served:
                # A map serves an edge to a target at most once: from its source there is one edge.
                edges = [item for item in items if item.target == target]
                place = zero_place
                if edges:
                    place = edges[0].row * O + edges[0].column
                places.append(place)
    numbers = F.pad(mix_EO.flatten(), (0, 1))  # the zero that `zero_place` is the place of
    flat = numbers.index_select(0, _index(tuple(places), mix_EO.device))
    parts = flat.split([num_targets * num_maps for num_targets, num_maps in shapes])
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]


@functools.lru_cache(maxsize=256)
def _index(places: tuple[int, ...], device: torch.device) -> Tensor:
    # Kept: made anew it would be a transfer to the device in every pass.
    return torch.tensor(places, dtype=torch.int64, device=device)


def _added(sum_BTCHW: Tensor | None, joined_BQHW: Tensor, mix_TQ: Tensor) -> Tensor:
    """`sum` plus what the maps of a stage give to each target, `(B, T, C, H, W)`."""
    T, Q = mix_TQ.shape
    B, _, H, W = joined_BQHW.shape
    C = joined_BQHW.shape[1] // Q
    mix_BTQ = mix_TQ.to(joined_BQHW.dtype).expand(B, T, Q)
    # `bmm` rather than `matmul`, which would copy the maps to fold the batch into a matrix.
    maps_BQP = joined_BQHW.view(B, Q, C * H * W)
    if sum_BTCHW is None:
        return torch.bmm(mix_BTQ, maps_BQP).view(B, T, C, H, W)
    return torch.baddbmm(sum_BTCHW.flatten(2), mix_BTQ, maps_BQP).view(B, T, C, H, W)


# ---- the maps of a stage -------------------------------------------------------------------------


def _mixed_maps(
    stage: Stage,
    weights: StageWeights,
    x_BSCHW: Tensor,
    stride: int,
    training: bool,
    statistics: Statistics,
) -> Tensor | None:
    """All maps of a stage that are mixed, side by side, normalised; None: there are none."""
    C = x_BSCHW.shape[2]
    positive_BSCHW = x_BSCHW
    if stage.convolutions or stage.reductions:
        positive_BSCHW = torch.relu(x_BSCHW)
    x_BQHW = x_BSCHW.flatten(1, 2)

    maps: list[Tensor] = []
    if stage.convolutions:
        D_BQHW = _convolved(stage, weights, positive_BSCHW, stride, training, statistics)
        groups = len(stage.convolutions)
        maps.append(F.conv2d(D_BQHW, weights.last_pointwise, groups=groups))
    for items, pool in ((stage.maxima, _max_pool), (stage.averages, _avg_pool)):
        if items:
            pooled_BQHW = pool(x_BQHW, stride)
            if not training:
                # In eval mode each edge has its own map (`served_edges`): a copy of its source's.
                pooled_of_sources = pooled_BQHW.split(C, dim=1)
                copies = [pooled_of_sources[item.source] for item in items]
                pooled_BQHW = torch.cat(copies, dim=1)
            maps.append(pooled_BQHW)
    if stage.reductions:
        maps.append(_reduced(stage.reductions, positive_BSCHW))

    parts: list[Tensor] = []
    if maps:
        z_BQHW = _cat(maps)
        num_maps = z_BQHW.shape[1] // C
        norms = []
        # The identities, which `served_edges` names last, have no BatchNorm.
        for items in served_edges(stage, training)[:num_maps]:
            norms.append([item.last_norm() for item in items])
        parts.append(_normalised(z_BQHW, norms, training, statistics))
    if stage.identities:
        parts.append(x_BQHW)
    return _cat(parts) if parts else None


def _cat(maps: list[Tensor]) -> Tensor:
    """Side by side in the channels; a single one as it is, without a launch."""
    return maps[0] if len(maps) == 1 else torch.cat(maps, dim=1)


def _convolved(
    stage: Stage,
    weights: StageWeights,
    positive_BSCHW: Tensor,
    stride: int,
    training: bool,
    statistics: Statistics,
) -> Tensor:
    """The inputs of the last pointwise products: separable convolutions, then dilated ones."""
    maps: list[Tensor] = []
    sources_separable = [item.source for item in stage.separable]
    sources_dilated = [item.source for item in stage.dilated]
    repeated_BQHW = positive_BSCHW
    if stage.separable:
        repeated_BQHW = _repeated(positive_BSCHW, sources_separable)
        D_BQHW = _depthwise(repeated_BQHW, weights.separable, stride=stride)
        # The second half: product, BatchNorm, ReLU, depthwise convolution.
        z_BQHW = F.conv2d(D_BQHW, weights.first_pointwise, groups=len(stage.separable))
        norms = [[item.norm(NORM)] for item in stage.separable]
        z_BQHW = _normalised(z_BQHW, norms, training, statistics)
        maps.append(_depthwise(torch.relu(z_BQHW), weights.second_separable))
    if stage.dilated:
        # Mostly both leave the same sources, and one repetition serves both.
        if not stage.separable or sources_dilated != sources_separable:
            repeated_BQHW = _repeated(positive_BSCHW, sources_dilated)
        maps.append(_depthwise(repeated_BQHW, weights.dilated, stride=stride, dilation=2))
    return _cat(maps)


def _depthwise(x_BQHW: Tensor, weight: Tensor, stride: int = 1, dilation: int = 1) -> Tensor:
    padding = dilation * (weight.shape[2] // 2)  # the size stays, but for the stride
    return F.conv2d(x_BQHW, weight, None, stride, padding, dilation, groups=len(weight))


def _repeated(x_BSCHW: Tensor, sources: list[int]) -> Tensor:
    """One source after the other, as often as it is asked for, side by side."""
    counts = {sources.count(s) for s in range(x_BSCHW.shape[1])}
    # Items come source by source, so a source's copies stand beside each other in both ways.
    if len(counts) == 1:
        # All equally often: an expansion, whose backward is one sum rather than one for each slice.
        (count,) = counts
        return x_BSCHW.unsqueeze(2).expand(-1, -1, count, -1, -1, -1).flatten(1, 3)
    return torch.cat([x_BSCHW[:, s] for s in sources], dim=1)


def _reduced(items: list[Item], positive_BSCHW: Tensor) -> Tensor:
    """The factorized reductions, before their BatchNorms; items come source by source."""
    even_BSCHW = positive_BSCHW[..., ::2, ::2]
    odd_BSCHW = positive_BSCHW[..., 1::2, 1::2]
    maps = []
    for source in sorted({item.source for item in items}):
        even_weights = []
        odd_weights = []
        for item in items:
            if item.source == source:
                assert isinstance(item.operation, FactorizedReduce)
                even_weights.append(item.operation.conv_even.weight)
                odd_weights.append(item.operation.conv_odd.weight)
        # (B, reductions, C / 2, H, W) each: a reduction's channels are its even half, then its odd.
        sizes = (len(even_weights), -1)
        even = F.conv2d(even_BSCHW[:, source], torch.cat(even_weights)).unflatten(1, sizes)
        odd = F.conv2d(odd_BSCHW[:, source], torch.cat(odd_weights)).unflatten(1, sizes)
        maps.append(torch.cat([even, odd], dim=2).flatten(1, 2))
    return _cat(maps)


def _normalised(
    z_BQHW: Tensor, norms: list[list[nn.BatchNorm2d]], training: bool, statistics: Statistics
) -> Tensor:
    """BatchNorm without scale and shift over all maps side by side.

    The norms of one map see the same values; in eval mode each map has one.
    """
    if not training:
        means, variances = running_of([norm for (norm,) in norms])
        return F.batch_norm(z_BQHW, torch.cat(means), torch.cat(variances), eps=EPS)
    B, _, H, W = z_BQHW.shape
    pixels = B * H * W
    if pixels == 1:
        raise ValueError(
            f"Expected more than 1 value per channel when training, got input size {z_BQHW.shape}"
        )
    # Rather than F.batch_norm: this one gives its statistics away, and takes no buffers for them.
    y_BQHW, mean_Q, inverse_Q = torch.native_batch_norm(
        z_BQHW, None, None, None, None, True, 0.0, EPS
    )
    statistics.append(Normalised(norms, mean_Q, inverse_Q, pixels))
    return y_BQHW


def _max_pool(x_BCHW: Tensor, stride: int) -> Tensor:
    return F.max_pool2d(x_BCHW, 3, stride, 1)


def _avg_pool(x_BCHW: Tensor, stride: int) -> Tensor:
    return F.avg_pool2d(x_BCHW, 3, stride, 1, count_include_pad=False)
