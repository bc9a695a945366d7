"""Which operations of a cell are exactly the built-in ones, and may be computed without their call.

The fused and the grouped cell read the weights of the operations that they know and never call
their modules. That is the same function only as long as a call would run what
`gradnas.spaces.operations` wrote and nothing else. So an operation is known by what it is, not by
its name: exactly these classes with exactly these settings, no hook (old `weight_norm`, pruning),
no `forward` of its own. Everything else (a class made from a built-in one, a frozen BatchNorm, one
with its own `eps`, a SyncBatchNorm, a layer that was replaced) is called as the module that it is.

All of it is looked up in every pass, as users change modules whenever they like; that is why the
checks read whole tuples of settings from a module's dictionary.

Legend: C channels, K kernel width.
"""

from __future__ import annotations

from operator import itemgetter
from typing import Literal, NamedTuple

from torch import nn

from gradnas.spaces.cells.kernels import EPS
from gradnas.spaces.cells.places import KERNEL_WIDTHS
from gradnas.spaces.operations import DilatedConv2d, FactorizedReduce

Kind = Literal["separable", "dilated", "maximum", "average", "reduction", "identity"]
Layers = tuple[nn.Module, ...]


class Known(NamedTuple):
    """An operation that is exactly a built-in one.

    Attributes:
        layers: of a convolution or a pool, the modules in their order; else the operation alone.
    """

    kind: Kind
    layers: Layers


# For every row of alpha: column -> what is known of an active operation that is not `none`. None
# for what has to be called.
Rows = list[dict[int, Known | None]]


class NormalisedPool(nn.Sequential):
    """A pooling operation and the BatchNorm that follows it in the supernet only."""


def known_operation(
    operation: nn.Module, channels: int, stride: int, training: bool
) -> Known | None:
    """What an operation is, if it is exactly a built-in one that runs in this mode."""
    kind = type(operation)
    if kind is nn.Sequential:
        return _convolution(operation, channels, stride, training)
    if kind is NormalisedPool:
        return _pool(operation, channels, stride, training)
    if kind is nn.Identity and stride == 1 and is_called_plainly(operation):
        return Known("identity", (operation,))
    if isinstance(operation, FactorizedReduce) and stride == 2 and is_known_reduction(operation):
        half = (channels // 2, channels, 1, 1)
        halves = (operation.conv_even.weight.shape, operation.conv_odd.weight.shape)
        if halves == (half, half) and is_known_norm(operation.bn, channels, training):
            return Known("reduction", (operation, operation.bn))
    return None


def is_known_reduction(operation: nn.Module) -> bool:
    """Whether it is a `FactorizedReduce` as it was made; its BatchNorm is not looked at."""
    if type(operation) is not FactorizedReduce or not is_called_plainly(operation):
        return False
    even = operation.conv_even
    odd = operation.conv_odd
    return is_known_pointwise(even) and is_known_pointwise(odd)


def _convolution(operation: nn.Module, channels: int, stride: int, training: bool) -> Known | None:
    layers: Layers = tuple(operation._modules.values())  # type: ignore[assignment]
    if len(layers) not in (4, 8) or not is_called_plainly(operation):
        return None
    is_dilated = type(layers[1]) is DilatedConv2d
    if is_dilated and len(layers) != 4:
        return None
    dilation = 2 if is_dilated else 1
    kind = DilatedConv2d if is_dilated else nn.Conv2d
    for first in range(0, len(layers), 4):
        relu, depthwise, pointwise, norm = layers[first : first + 4]
        has_form = (
            is_known_relu(relu)
            and type(depthwise) is kind
            and _is_known_depthwise(depthwise, channels, stride, dilation)
            and is_known_pointwise(pointwise)
            and pointwise.weight.shape[:2] == (channels, channels)  # type: ignore[union-attr]
            and is_known_norm(norm, channels, training)
        )
        if not has_form:
            return None
        stride = 1  # of the second half
    if is_dilated:
        return Known("dilated", layers)
    return Known("separable", layers) if len(layers) == 8 else None


_MAXIMUM = itemgetter("kernel_size", "stride", "padding", "dilation", "return_indices", "ceil_mode")
_AVERAGE = itemgetter(
    "kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override"
)


def _pool(operation: nn.Module, channels: int, stride: int, training: bool) -> Known | None:
    layers: Layers = tuple(operation._modules.values())  # type: ignore[assignment]
    if len(layers) != 2 or not is_called_plainly(operation):
        return None
    pool, norm = layers
    if not is_called_plainly(pool) or not is_known_norm(norm, channels, training):
        return None
    kind = type(pool)
    if kind is nn.MaxPool2d and _MAXIMUM(pool.__dict__) == (3, stride, 1, 1, False, False):
        return Known("maximum", layers)
    if kind is nn.AvgPool2d and _AVERAGE(pool.__dict__) == (3, stride, 1, False, False, None):
        return Known("average", layers)
    return None


# ---- layers --------------------------------------------------------------------------------------

_HOOKS = itemgetter(
    "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"
)


def is_called_plainly(module: nn.Module) -> bool:
    """Whether a call runs the `forward` of its class, and no hook."""
    own = module.__dict__
    before, after, backward, backward_before = _HOOKS(own)
    return not (before or after or backward or backward_before or "forward" in own)


def is_known_relu(layer: nn.Module) -> bool:
    """Whether a layer is a plain ReLU that leaves its input as it is."""
    return type(layer) is nn.ReLU and not layer.inplace and is_called_plainly(layer)


_CONVOLUTION = itemgetter("stride", "padding", "dilation", "groups", "padding_mode")
_POINTWISE = ((1, 1), (0, 0), (1, 1), 1, "zeros")


def is_known_pointwise(layer: nn.Module) -> bool:
    """Whether a layer is a 1x1 convolution without bias."""
    if type(layer) is not nn.Conv2d or not _has_weight_alone(layer):
        return False
    return _CONVOLUTION(layer.__dict__) == _POINTWISE and layer.weight.shape[2:] == (1, 1)


def _is_known_depthwise(layer: nn.Module, channels: int, stride: int, dilation: int) -> bool:
    if not _has_weight_alone(layer):
        return False
    shape = layer._parameters["weight"].shape  # type: ignore[union-attr]
    width = shape[-1]
    border = dilation * (width // 2)
    settings = ((stride, stride), (border, border), (dilation, dilation), channels, "zeros")
    has_kernel = width in KERNEL_WIDTHS and shape == (channels, 1, width, width)
    return has_kernel and _CONVOLUTION(layer.__dict__) == settings


def _has_weight_alone(layer: nn.Module) -> bool:
    """Whether a convolution is called plainly and has a weight and no bias."""
    if "_conv_forward" in layer.__dict__ or not is_called_plainly(layer):
        return False
    parameters = layer._parameters
    return parameters.get("weight") is not None and parameters.get("bias") is None


_NORM = itemgetter("num_features", "eps", "affine", "track_running_stats", "training")
_KEPT = ("running_mean", "running_var", "num_batches_tracked")


def is_known_norm(layer: nn.Module, channels: int, training: bool) -> bool:
    """Whether a layer is a BatchNorm as the cells of a supernet have it, in this mode.

    Without scale and shift, with torch's `eps`, with running statistics that move by a momentum;
    which one may differ from layer to layer.
    """
    if type(layer) is not nn.BatchNorm2d or not is_called_plainly(layer):
        return False
    own = layer.__dict__
    if _NORM(own) != (channels, EPS, False, True, training):
        return False
    if not isinstance(own["momentum"], (int, float)):  # None: the average over all batches
        return False
    parameters = own["_parameters"]
    if parameters.get("weight") is not None or parameters.get("bias") is not None:
        return False
    buffers = own["_buffers"]
    return all(buffers.get(name) is not None for name in _KEPT)
