"""The fused cell in few kernel launches, for devices on which a launch costs more than its
arithmetic (GPUs).

Legend: B batch, C channels, H height, W width, E edges, O operations, S sources, T targets, Q maps
that are mixed.

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
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gradnas.choice import Active
from gradnas.spaces.cells.stencils import EPS
from gradnas.spaces.operations import OPERATIONS, FactorizedReduce, Zero

SEPARABLE = ("sep_conv_3x3", "sep_conv_5x5")
DILATED = ("dil_conv_3x3", "dil_conv_5x5")
POOLS = ("max_pool_3x3", "avg_pool_3x3")

Updates = list[tuple[Any, Tensor, Tensor]]  # a BatchNorm, and the mean and variance that it saw


@dataclass(frozen=True)
class _Item:
    """An operation of an edge."""

    source: int  # place among the sources of the stage
    target: int  # intermediate node
    row: int  # of alpha
    column: int
    operation: Any


@dataclass
class _Stage:
    """What leaves some sources, by kind; the weights of its convolutions, side by side."""

    sources: list[int] = field(default_factory=list)  # those with an active edge
    separable: list[_Item] = field(default_factory=list)
    dilated: list[_Item] = field(default_factory=list)
    maxima: list[_Item] = field(default_factory=list)
    averages: list[_Item] = field(default_factory=list)
    reductions: list[_Item] = field(default_factory=list)
    identities: list[_Item] = field(default_factory=list)
    others: list[_Item] = field(default_factory=list)
    depthwise: tuple[Tensor, Tensor, Tensor] = ()  # type: ignore[assignment]  # separable, dilated, second separable
    pointwise: tuple[Tensor, Tensor] = ()  # type: ignore[assignment]  # first separable; last of all


# The BatchNorms of maps side by side (several where edges share a pool), their means and reciprocal
# deviations, and over how many pixels
Statistics = list[tuple[list[list[Any]], Tensor, Tensor, int]]


def grouped_nodes(
    cell: Any, inputs: Sequence[Tensor], mix_EO: Tensor, active: Active, statistics: Statistics
) -> list[Tensor]:
    """The intermediate nodes of a cell from its preprocessed inputs; `statistics` gets what its
    BatchNorms saw."""
    num_nodes = cell.space.nodes
    stages = _stages(
        cell, active, is_even=inputs[0].shape[2] % 2 == 0 and inputs[0].shape[3] % 2 == 0
    )
    _gather_weights(stages)
    mixes = _mixing_matrices(stages, mix_EO, cell.training)
    # An input without any active edge stays out, so that its weights have no gradient rather than
    # zeros.
    used = [inputs[s] for s in stages[0].sources] or [inputs[0].detach()]
    x_BSCHW = torch.stack([x.contiguous() for x in used], dim=1)
    nodes: list[Tensor] = []
    sum_BTCHW: Tensor | None = None
    extra: list[list[Tensor]] = [
        [] for _ in range(num_nodes)
    ]  # of operations that are modules of their own
    for number, stage in enumerate(stages):
        stride = 2 if cell.reduction and number == 0 else 1
        for item in stage.others:
            part = item.operation(x_BSCHW[:, item.source].contiguous())
            extra[item.target].append(part * mix_EO[item.row, item.column])
        sum_BTCHW = _add_mixed(
            sum_BTCHW, stage, x_BSCHW, mixes[number], stride, cell.training, statistics
        )
        if sum_BTCHW is None:
            B, _, C, H, W = x_BSCHW.shape
            size = (B, num_nodes - number, C, (H - 1) // stride + 1, (W - 1) // stride + 1)
            sum_BTCHW = x_BSCHW.new_zeros(size)
        own_B1CHW, sum_BTCHW = sum_BTCHW.split([1, sum_BTCHW.shape[1] - 1], dim=1)
        for part in extra[number]:
            own_B1CHW = own_B1CHW + part.unsqueeze(1)
        x_BSCHW = own_B1CHW
        nodes.append(own_B1CHW.squeeze(1))
    return nodes


def _stages(cell: Any, active: Active, is_even: bool) -> list[_Stage]:
    """One for each intermediate node: what leaves the sources that are known when its turn
    comes."""
    space = cell.space
    names, factories = space.names, space.factories
    stages = [_Stage() for _ in range(space.nodes)]
    for number, stage in enumerate(stages):
        for source in (0, 1) if number == 0 else (number + 1,):
            place = len(stage.sources)
            for target in range(number, space.nodes):
                row = space.edge(target, source)
                for column in active[row]:
                    name, operation = names[column], cell.edges[row][names[column]]
                    item = _Item(place, target, row, column, operation)
                    known = factories[name] is OPERATIONS.get(name)
                    if isinstance(operation, Zero):
                        continue
                    if source not in stage.sources:
                        stage.sources.append(source)
                    if known and name in SEPARABLE:
                        stage.separable.append(item)
                    elif known and name in DILATED:
                        stage.dilated.append(item)
                    elif known and name in POOLS:
                        (stage.maxima if name == POOLS[0] else stage.averages).append(item)
                    elif known and isinstance(operation, FactorizedReduce) and is_even:
                        stage.reductions.append(item)
                    elif known and isinstance(operation, torch.nn.Identity):
                        stage.identities.append(item)
                    else:
                        stage.others.append(item)
    return stages


def _gather_weights(stages: list[_Stage]) -> None:
    """Bring the weights of all stages side by side in a few launches."""
    groups = [
        [item.operation[place].weight for item in items]
        for stage in stages
        for items, place in ((stage.separable, 1), (stage.dilated, 1), (stage.separable, 5))
    ]
    flat = list(itertools.chain(*groups))
    small, width = [w for w in flat if w.shape[2] == 3], max((w.shape[2] for w in flat), default=3)
    if small and width == 5:
        padded = iter(F.pad(torch.cat(small), (1, 1, 1, 1)).split(small[0].shape[0]))
        flat = [next(padded) if w.shape[2] == 3 else w for w in flat]
    depthwise = _split(flat, [len(group) for group in groups])
    groups = [
        [item.operation[place].weight for item in items]
        for stage in stages
        for items, place in ((stage.separable, 2), (stage.separable + stage.dilated, -2))
    ]
    pointwise = _split(list(itertools.chain(*groups)), [len(group) for group in groups])
    for number, stage in enumerate(stages):
        first, dilated, second = depthwise[3 * number : 3 * number + 3]
        stage.depthwise = (first, dilated, second)
        stage.pointwise = (pointwise[2 * number], pointwise[2 * number + 1])


def _split(weights: list[Tensor], counts: list[int]) -> Sequence[Tensor]:
    """All weights in one tensor, and views of it with so many of them each."""
    if not weights:
        return [torch.empty(0)] * len(counts)
    # contiguous in torch's sense is not enough: a 1x1 weight may carry channels-last strides, and
    # would pass them on
    joined = torch.cat([w.flatten(1) for w in weights]).view(-1, *weights[0].shape[1:])
    return joined.split([count * weights[0].shape[0] for count in counts])


# ---- a stage -------------------------------------------------------------------------------------


def _served(stage: _Stage, training: bool) -> list[list[_Item]]:
    """The edges that each of the mixed maps serves, in the order of `_add_mixed`."""
    num_sources = max(1, len(stage.sources))

    def by_source(items: list[_Item]) -> list[list[_Item]]:
        return (
            [[item for item in items if item.source == s] for s in range(num_sources)]
            if items
            else []
        )

    served = [[item] for item in stage.separable + stage.dilated]
    for items in (stage.maxima, stage.averages):
        # Running statistics of edges that were drawn at different times differ: in eval mode each
        # has its own map.
        served += by_source(items) if training else [[item] for item in items]
    return served + [[item] for item in stage.reductions] + by_source(stage.identities)


def _mixing_matrices(stages: list[_Stage], mix_EO: Tensor, training: bool) -> list[Tensor]:
    """For each stage the mixing weights as a matrix from maps to targets, zero where there is no
    edge."""
    E, O = mix_EO.shape  # noqa: E741
    places: list[int] = []
    sizes, shapes = [], []
    for number, stage in enumerate(stages):
        served, targets = _served(stage, training), range(number, len(stages))
        shapes.append((len(targets), len(served)))
        sizes.append(len(targets) * len(served))
        for target in targets:
            for items in served:
                own = [item.row * O + item.column for item in items if item.target == target]
                places += own or [E * O]
    flat = F.pad(mix_EO.flatten(), (0, 1)).index_select(0, _index(tuple(places), mix_EO.device))
    return [part.view(shape) for part, shape in zip(flat.split(sizes), shapes, strict=True)]


@functools.lru_cache(maxsize=256)
def _index(places: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.tensor(places, dtype=torch.int64, device=device)


def _add_mixed(
    sum_BTCHW: Tensor | None,
    stage: _Stage,
    x_BSCHW: Tensor,
    mix_TQ: Tensor,
    stride: int,
    training: bool,
    statistics: Statistics,
) -> Tensor | None:
    """`sum` plus what a stage gives to each target, `(B, T, C, H, W)`; None: nothing so far."""
    if not mix_TQ.shape[1]:
        return sum_BTCHW
    B, _, C, _, _ = x_BSCHW.shape
    maps = []
    positive_BSCHW = (
        torch.relu(x_BSCHW) if stage.separable or stage.dilated or stage.reductions else x_BSCHW
    )
    if stage.separable or stage.dilated:
        D_BQHW = _convolved(stage, positive_BSCHW, stride, training, statistics)
        maps.append(
            F.conv2d(D_BQHW, stage.pointwise[1], groups=len(stage.separable + stage.dilated))
        )
    x_BQHW = x_BSCHW.flatten(1, 2)
    for items, pool in ((stage.maxima, _max_pool), (stage.averages, _avg_pool)):
        if items:
            pooled_BQHW = pool(x_BQHW, stride)
            if not training:
                pooled_BQHW = torch.cat(
                    [pooled_BQHW.split(C, dim=1)[item.source] for item in items], dim=1
                )
            maps.append(pooled_BQHW)
    if stage.reductions:
        maps.append(_reduced(stage.reductions, positive_BSCHW))
    norms = [[_last_norm(item.operation) for item in items] for items in _served(stage, training)]
    parts = []
    if maps:
        z_BQHW = maps[0] if len(maps) == 1 else torch.cat(maps, dim=1)
        parts.append(_normalised(z_BQHW, norms[: z_BQHW.shape[1] // C], training, statistics))
    if stage.identities:
        parts.append(x_BQHW)
    joined_BQHW = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
    H, W = joined_BQHW.shape[2:]
    T, Q = mix_TQ.shape
    factors = mix_TQ.expand(B, T, Q), joined_BQHW.view(B, Q, C * H * W)
    if sum_BTCHW is None:
        return torch.bmm(*factors).view(B, T, C, H, W)
    return torch.baddbmm(sum_BTCHW.flatten(2), *factors).view(B, T, C, H, W)


def _last_norm(operation: Any) -> Any:
    """The BatchNorm that ends an operation; None for the identity."""
    if isinstance(operation, FactorizedReduce):
        return operation.bn
    return operation[-1] if isinstance(operation, torch.nn.Sequential) else None


def _convolved(
    stage: _Stage, positive_BSCHW: Tensor, stride: int, training: bool, statistics: Statistics
) -> Tensor:
    """The inputs of the last pointwise products, side by side: separable convolutions, then dilated
    ones."""
    found, repeated_BQHW, served = [], positive_BSCHW, None
    for items, weight, dilation in (
        (stage.separable, stage.depthwise[0], 1),
        (stage.dilated, stage.depthwise[1], 2),
    ):
        if not items:
            continue
        sources = [item.source for item in items]
        if sources != served:
            repeated_BQHW, served = _repeated(positive_BSCHW, sources), sources
        padding = dilation * (weight.shape[2] // 2)
        D_BQHW = F.conv2d(
            repeated_BQHW, weight, None, stride, padding, dilation, groups=len(weight)
        )
        if dilation == 1:  # the second half of the separable convolutions
            z_BQHW = F.conv2d(D_BQHW, stage.pointwise[0], groups=len(items))
            z_BQHW = _normalised(
                z_BQHW, [[item.operation[3]] for item in items], training, statistics
            )
            weight = stage.depthwise[2]
            D_BQHW = F.conv2d(
                torch.relu(z_BQHW), weight, padding=weight.shape[2] // 2, groups=len(weight)
            )
        found.append(D_BQHW)
    return found[0] if len(found) == 1 else torch.cat(found, dim=1)


def _repeated(x_BSCHW: Tensor, sources: list[int]) -> Tensor:
    """One source after the other, as often as it is asked for, side by side."""
    times = {sources.count(s) for s in range(x_BSCHW.shape[1])}
    if len(times) == 1:
        return x_BSCHW.unsqueeze(2).expand(-1, -1, times.pop(), -1, -1, -1).flatten(1, 3)
    return torch.cat([x_BSCHW[:, s] for s in sources], dim=1)


def _reduced(items: list[_Item], positive_BSCHW: Tensor) -> Tensor:
    """The factorized reductions, before their BatchNorms; items come source by source."""
    halves = [positive_BSCHW[..., i::2, i::2] for i in range(2)]
    found = []
    for source in sorted({item.source for item in items}):
        own = [item.operation for item in items if item.source == source]
        sides = [[o.conv_even.weight for o in own], [o.conv_odd.weight for o in own]]
        maps = [
            F.conv2d(half[:, source], torch.cat(weights)).unflatten(1, (len(own), -1))
            for half, weights in zip(halves, sides, strict=True)
        ]
        found.append(torch.cat(maps, dim=2).flatten(1, 2))
    return found[0] if len(found) == 1 else torch.cat(found, dim=1)


def _normalised(
    z_BQHW: Tensor, norms: list[list[Any]], training: bool, statistics: Statistics
) -> Tensor:
    """BatchNorm without scale and shift over all maps side by side; the norms of one map see the
    same values."""
    if not training:
        means, variances = (
            torch.cat([getattr(norm, name) for (norm,) in norms])
            for name in ("running_mean", "running_var")
        )
        return F.batch_norm(z_BQHW, means, variances, eps=EPS)
    B, _, H, W = z_BQHW.shape
    if B * H * W == 1:
        raise ValueError(
            f"Expected more than 1 value per channel when training, got input size {z_BQHW.shape}"
        )
    y_BQHW, mean_Q, inverse_Q = torch.native_batch_norm(
        z_BQHW, None, None, None, None, True, 0.0, EPS
    )
    statistics.append((norms, mean_Q, inverse_Q, B * H * W))
    return y_BQHW


@torch.no_grad()
def updates_of(statistics: Statistics) -> Updates:
    """What the BatchNorms kept, as means and variances (with P - 1 in the denominator); of many
    cells at once."""
    if not statistics:
        return []
    mean_Q = torch.cat([mean for _, mean, _, _ in statistics])
    inverse_Q = torch.cat([inverse for _, _, inverse, _ in statistics])
    factor_Q = _unbiased(
        tuple((pixels, len(mean)) for _, mean, _, pixels in statistics), mean_Q.device, mean_Q.dtype
    )
    var_Q = (inverse_Q.square().reciprocal() - EPS) * factor_Q
    groups = [
        (group, len(mean) // len(norms)) for norms, mean, _, _ in statistics for group in norms
    ]
    sizes = [channels for _, channels in groups]
    found = zip(groups, mean_Q.split(sizes), var_Q.split(sizes), strict=True)
    return [(norm, mean_C, var_C) for (group, _), mean_C, var_C in found for norm in group]


@functools.lru_cache(maxsize=64)
def _unbiased(
    counts: tuple[tuple[int, int], ...], device: torch.device, dtype: torch.dtype
) -> Tensor:
    """P / (P - 1) of each channel; `counts` are (P, number of channels)."""
    factors = [P / (P - 1) for P, channels in counts for _ in range(channels)]
    return torch.tensor(factors, device=device, dtype=dtype)


def _max_pool(x_BCHW: Tensor, stride: int) -> Tensor:
    return F.max_pool2d(x_BCHW, 3, stride, 1)


def _avg_pool(x_BCHW: Tensor, stride: int) -> Tensor:
    return F.avg_pool2d(x_BCHW, 3, stride, 1, count_include_pad=False)
