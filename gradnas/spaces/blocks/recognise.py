"""Which layers of a sequence are a run of stages: exactly torch's own, as they were made.

A run reads the weights of its layers and never calls them. That is the same function only as long
as a call would run what torch wrote and nothing else, so a layer is known by what it is: exactly
its class with settings that there is a kernel for, no hook (old `weight_norm`, pruning), no
`forward` of its own, a BatchNorm that normalises by its batch and keeps what it saw. Anything else
is called. All of it is looked up in every pass, as users change modules whenever they like.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradnas.spaces.blocks.cell_passes import Operation, Plan
from gradnas.spaces.blocks.stage import (
    DILATIONS,
    KERNEL_WIDTHS,
    MOST_FULL_CHANNELS,
    NONE,
    RELU,
    RELU6,
    STRIDES,
    Stage,
)
from gradnas.spaces.cells.builtin import is_called_plainly
from gradnas.spaces.cells.conv_network import ConvCellNetwork
from gradnas.spaces.hooks import has_hooks
from gradnas.spaces.operations import DilatedConv2d, FactorizedReduce


class Replaced(functools.partial):
    """A method that `accelerate` put in the place of a class's own, for the time of a call.

    A copy that is made of the module in this time (a teacher, averaged weights) is a plain one.
    """

    def of(self, module: nn.Module, name: str) -> None:
        """Say whose method it is."""
        self.module = module
        self.name = name

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return _own_method, (self.module, self.name)


def _own_method(module: nn.Module, name: str) -> Any:
    return getattr(type(module), name).__get__(module)


class Run(NamedTuple):
    """Layers `first` to `last` (not included) of a sequence."""

    first: int
    last: int
    stages: tuple[Stage, ...]
    last_act: int
    weights: tuple[Tensor, ...]  # of all stages, in the order that `run.by_stage` has them
    norms: tuple[nn.BatchNorm2d, ...]


def runs_of(layers: Sequence[nn.Module]) -> list[Run]:
    """The longest runs, from left to right."""
    found = []
    first = 0
    while first < len(layers):
        run = _run_from(layers, first)
        if run is None:
            first += 1
        else:
            found.append(run)
            first = run.last
    return found


def is_known_sequence(module: nn.Module) -> bool:
    """Whether a call of a module calls its layers one after the other, and does nothing else."""
    if not isinstance(module, nn.Sequential):
        return False
    kind = type(module)
    # What hooks a sequence itself has do not matter: they see what goes in and out as before.
    methods = ("forward", "__iter__", "__call__")
    return all(getattr(kind, name) is getattr(nn.Sequential, name) for name in methods)


def _run_from(layers: Sequence[nn.Module], first: int) -> Run | None:
    """The run that begins with this layer, if one does."""
    stages: list[Stage] = []
    weights: list[Tensor] = []
    norms: list[nn.BatchNorm2d] = []
    last = first
    last_act = NONE
    channels: int | None = None
    while True:
        at = last
        # An activation in place would change what others may read; inside a run nobody does.
        act = _activation(layers, at, in_place=bool(stages))
        at += act != NONE
        depthwise = _depthwise(layers, at, channels)
        at += depthwise is not None
        pointwise = _pointwise(layers, at, _outputs(depthwise, channels))
        full = None
        if not stages and act == NONE and depthwise is None and pointwise is None:
            full = _full(layers, at)
            pointwise = full
        at += pointwise is not None
        norm = _norm(layers, at, _outputs(pointwise, _outputs(depthwise, channels)))
        has_convolution = depthwise is not None or pointwise is not None
        if norm is None or not has_convolution:
            # An activation after the last BatchNorm belongs to the run.
            if stages and act != NONE:
                last += 1
                last_act = act
            break
        affine = norm.weight is not None
        for layer in (depthwise, pointwise):
            if layer is not None:
                weights.append(layer.weight)
        if affine:
            weights += [norm.weight, norm.bias]
        norms.append(norm)
        channels = norm.num_features
        wide = depthwise if full is None else full
        width = 0 if wide is None else wide.kernel_size[0]
        stride = 1 if wide is None else wide.stride[0]
        dilation = 1 if wide is None else wide.dilation[0]
        stages.append(
            Stage(
                act,
                width,
                stride,
                dilation,
                pointwise is not None,
                affine,
                norm.eps,
                full is not None,
            )
        )
        last = at + 1
    if not stages:
        return None
    return Run(first, last, tuple(stages), last_act, tuple(weights), tuple(norms))


def reduction_of(module: nn.Module) -> Run | None:
    """A factorized reduction as a run of one stage."""
    if type(module) is not FactorizedReduce:
        return None
    even = _pointwise([module.conv_even], 0, None)
    odd = _pointwise([module.conv_odd], 0, None)
    if even is None or odd is None or even.weight.shape != odd.weight.shape:
        return None
    norm = _norm([module.bn], 0, 2 * even.out_channels)
    if norm is None:
        return None
    affine = norm.weight is not None
    weights = [even.weight, odd.weight]
    if affine:
        weights += [norm.weight, norm.bias]
    stage = Stage(RELU, 0, 2, 1, True, affine, norm.eps)
    return Run(0, 1, (stage,), NONE, tuple(weights), (norm,))


def reduction_weights(run: Run) -> list[Tensor]:
    """The weights of a factorized reduction as its kernel has them."""
    even, odd, *affine = run.weights
    # Each fills its own channels from its own pixels.
    pixels = even.shape[1]
    both = [F.pad(even, (0, 0, 0, 0, 0, pixels)), F.pad(odd, (0, 0, 0, 0, pixels, 0))]
    return [torch.cat(both), *affine]


class Cell(NamedTuple):
    """A cell that is computed as a whole; weights and norms are those of all runs, in order."""

    plan: Plan
    weights: list[Tensor]
    norms: list[nn.BatchNorm2d]


def cell_of(cell: ConvCellNetwork) -> Cell | None:
    """What a cell computes, if all of it is known."""
    found = Cell(Plan((((), 0), ((), 0)), (), cell.concat, cell._channels), [], [])
    is_concatenated_once = len(set(cell.concat)) == len(cell.concat) and min(cell.concat) >= 2
    if cell.drops_nodes or not is_concatenated_once:
        return None
    inputs = []
    for module in (cell.preprocess0, cell.preprocess1):
        run = _whole_run(module)
        if run is None:
            return None
        inputs.append(_added_to(found, module, run))
    nodes = []
    first = 0
    for count in cell.inputs_per_node:
        node = []
        for k in range(first, first + count):
            operation = _operation(found, cell, k)
            if operation is None:
                return None
            node.append(operation)
        nodes.append(tuple(node))
        first += count
    plan = found.plan._replace(inputs=(inputs[0], inputs[1]), nodes=tuple(nodes))
    return found._replace(plan=plan)


def _operation(found: Cell, cell: ConvCellNetwork, k: int) -> Operation | None:
    module = cell.operations[k]
    source = cell.predecessors[k]
    stride = cell._strides[k]
    if cell.is_own(k):
        return None
    if type(module) is nn.Identity:
        is_known = stride == 1 and is_called_plainly(module)
        return Operation(source, "identity") if is_known else None
    if type(module) is nn.MaxPool2d:
        is_known = pool_stride(module) == stride
        return Operation(source, "maximum", stride=stride) if is_known else None
    run = _whole_run(module)
    if run is None:
        return None
    whole_stride = 1
    for stage in run.stages:
        whole_stride *= stage.stride
    if whole_stride != stride:
        return None
    stages, count = _added_to(found, module, run)
    return Operation(source, "run", stages, num_weights=count)


def _whole_run(module: nn.Module) -> Run | None:
    """The run that a module of a cell is, if it is one run and nothing else."""
    forward = module.__dict__.get("forward")
    if has_hooks(module) or not (forward is None or type(forward) is Replaced):
        return None
    if type(module) is FactorizedReduce:
        return reduction_of(module)
    if type(module) is not nn.Sequential:
        return None
    layers: tuple[nn.Module, ...] = tuple(module._modules.values())  # type: ignore[assignment]
    run = _run_from(layers, 0) if layers else None
    if run is None or run.last != len(layers) or run.last_act != NONE or run.stages[0].full:
        return None
    return run


def _added_to(found: Cell, module: nn.Module, run: Run) -> tuple[tuple[Stage, ...], int]:
    is_reduction = type(module) is FactorizedReduce
    weights = reduction_weights(run) if is_reduction else list(run.weights)
    found.weights.extend(weights)
    found.norms.extend(run.norms)
    return run.stages, len(weights)


_POOL = itemgetter("kernel_size", "stride", "padding", "dilation", "return_indices", "ceil_mode")


def pool_stride(layer: nn.MaxPool2d) -> int | None:
    """The stride of the largest of 3x3 pixels with a border of one, if it is that."""
    own = layer.__dict__
    stride = own["stride"]
    is_known = stride in STRIDES and _POOL(own) == (3, stride, 1, 1, False, False)
    return stride if is_known and is_called_plainly(layer) else None


def _outputs(layer: nn.Conv2d | None, before: int | None) -> int | None:
    """Channels after a convolution; those before it without one; None: any."""
    return before if layer is None else layer.out_channels


# ---- layers --------------------------------------------------------------------------------------


def _activation(layers: Sequence[nn.Module], at: int, in_place: bool) -> int:
    if at >= len(layers):
        return NONE
    layer = layers[at]
    kind = type(layer)
    if kind is not nn.ReLU and kind is not nn.ReLU6:
        return NONE
    if not is_called_plainly(layer) or (layer.inplace and not in_place):
        return NONE
    if kind is nn.ReLU:
        return RELU
    has_limits = (layer.min_val, layer.max_val) == (0.0, 6.0)
    return RELU6 if has_limits else NONE


_CONVOLUTION = itemgetter(
    "stride", "padding", "dilation", "groups", "padding_mode", "in_channels", "out_channels"
)


def _has_weight_alone(layer: nn.Module, shape: tuple[int, ...]) -> bool:
    """Whether a convolution is called plainly and has a weight of this shape and no bias."""
    if "_conv_forward" in layer.__dict__ or not is_called_plainly(layer):
        return False
    weight = layer._parameters.get("weight")
    return weight is not None and weight.shape == shape and layer._parameters.get("bias") is None


def _depthwise(layers: Sequence[nn.Module], at: int, channels: int | None) -> nn.Conv2d | None:
    if at >= len(layers):
        return None
    layer = layers[at]
    if type(layer) is not nn.Conv2d and type(layer) is not DilatedConv2d:
        return None
    stride, padding, dilation, groups, mode, inputs, outputs = _CONVOLUTION(layer.__dict__)
    width = layer.kernel_size[0]
    if width not in KERNEL_WIDTHS or not _has_weight_alone(layer, (groups, 1, width, width)):
        return None
    step = stride[0]
    distance = dilation[0]
    border = distance * (width // 2)
    has_kernel = step in STRIDES and distance in DILATIONS
    is_square = stride == (step, step) and dilation == (distance, distance)
    is_depthwise = inputs == outputs == groups and groups == (channels or groups)
    has_border = padding == (border, border) and mode == "zeros"
    return layer if has_kernel and is_square and is_depthwise and has_border else None


def _pointwise(layers: Sequence[nn.Module], at: int, channels: int | None) -> nn.Conv2d | None:
    if at >= len(layers):
        return None
    layer = layers[at]
    if type(layer) is not nn.Conv2d:
        return None
    *settings, inputs, outputs = _CONVOLUTION(layer.__dict__)
    if tuple(settings) != ((1, 1), (0, 0), (1, 1), 1, "zeros"):
        return None
    if not _has_weight_alone(layer, (outputs, inputs, 1, 1)):
        return None
    return layer if inputs == (channels or inputs) else None


def _full(layers: Sequence[nn.Module], at: int) -> nn.Conv2d | None:
    """A full convolution of an image's channels, as stems have it."""
    if at >= len(layers):
        return None
    layer = layers[at]
    if type(layer) is not nn.Conv2d:
        return None
    stride, padding, dilation, groups, mode, inputs, outputs = _CONVOLUTION(layer.__dict__)
    width = layer.kernel_size[0]
    if width not in KERNEL_WIDTHS or inputs > MOST_FULL_CHANNELS:
        return None
    if not _has_weight_alone(layer, (outputs, inputs, width, width)):
        return None
    step = stride[0]
    border = width // 2
    settings = (stride, padding, dilation, groups, mode)
    has_kernel = step in STRIDES
    wanted = ((step, step), (border, border), (1, 1), 1, "zeros")
    return layer if has_kernel and settings == wanted else None


def covers(layer: nn.Module, size: tuple[int, ...]) -> bool:
    """Whether a layer is a convolution without bias whose kernel is as large as a map is.

    Args:
        size: `(B, C, H, W)` of the map.
    """
    if type(layer) is not nn.Conv2d or len(size) != 4:
        return False
    _, padding, dilation, groups, _, inputs, outputs = _CONVOLUTION(layer.__dict__)
    if (padding, dilation, groups) != ((0, 0), (1, 1), 1) or size[1] != inputs:
        return False
    return _has_weight_alone(layer, (outputs, *size[1:]))


_KEPT = ("running_mean", "running_var", "num_batches_tracked")


def _norm(layers: Sequence[nn.Module], at: int, channels: int | None) -> nn.BatchNorm2d | None:
    """A BatchNorm that normalises by its batch and keeps running statistics by a momentum."""
    if at >= len(layers):
        return None
    layer = layers[at]
    if type(layer) is not nn.BatchNorm2d or not is_called_plainly(layer):
        return None
    own = layer.__dict__
    if not own["training"] or not own["track_running_stats"] or own["num_features"] != channels:
        return None
    if not isinstance(own["momentum"], (int, float)):  # None: the average over all batches
        return None
    if not own["eps"] > 0.0:  # for torch to refuse
        return None
    scale = own["_parameters"].get("weight")
    shift = own["_parameters"].get("bias")
    if (scale is None) != (shift is None):
        return None
    if scale is not None and not scale.shape == shift.shape == (channels,):
        return None
    buffers = own["_buffers"]
    return layer if all(buffers.get(name) is not None for name in _KEPT) else None
