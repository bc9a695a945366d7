"""Chains of inverted bottlenecks as plain torch modules.

Legend: B batch, C channels, H height, W width, K classes. Convolutions have no bias. This file
needs torch alone: exported model files are made of its source.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn

BN_EPS = 1e-3
ACTIVATIONS = {"relu": nn.ReLU, "relu6": nn.ReLU6}


def conv_bn(
    channels_in: int, channels_out: int, kernel: int, stride: int, groups: int = 1
) -> list[nn.Module]:
    """Convolution that keeps or divides the size, and BatchNorm."""
    padding = kernel // 2
    conv = nn.Conv2d(channels_in, channels_out, kernel, stride, padding, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(channels_out, eps=BN_EPS)]


class MBConv(nn.Sequential):
    """Inverted bottleneck (MobileNetV2).

    1x1 convolution to `expansion` times the channels (left out where that is 1), depthwise
    convolution with the stride, 1x1 convolution; BatchNorm after each, the activation after the
    first two: the last is linear, since few channels would lose what an activation cuts off.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        expansion: int,
        kernel: int,
        stride: int,
        activation: str,
    ) -> None:
        middle = channels_in * expansion
        act = ACTIVATIONS[activation]
        layers: list[nn.Module] = []
        if expansion != 1:
            layers += [*conv_bn(channels_in, middle, 1, 1), act(inplace=True)]
        layers += [*conv_bn(middle, middle, kernel, stride, groups=middle), act(inplace=True)]
        layers += conv_bn(middle, channels_out, 1, 1)
        super().__init__(*layers)
        self.expansion = expansion
        self.kernel = kernel
        self.stride = stride


class StridedIdentity(nn.Module):
    """`identity` where the shape changes: 1x1 convolution with the stride, and BatchNorm."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv, self.bn = conv_bn(channels_in, channels_out, 1, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        # A 1x1 convolution of stride 2 is one of stride 1 on every second pixel. Written so, it
        # also keeps clear of a fault of torch 2.13 on the CPU: its channels-last backward for
        # stride 2 corrupts memory for some small shapes.
        return self.bn(self.conv(x_BCHW[:, :, :: self.stride, :: self.stride]))


class Residual(nn.Module):
    """A block: an operation, and the shortcut past it where the shape allows one."""

    def __init__(self, operation: nn.Module, shortcut: bool) -> None:
        super().__init__()
        self.operation = operation
        self.shortcut = shortcut

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BCHW = self.operation(x_BCHW)
        return x_BCHW + y_BCHW if self.shortcut else y_BCHW


def chain_block(
    operation: str, channels_in: int, channels_out: int, stride: int, activation: str
) -> nn.Module:
    """The plain block of an operation `mbE_kK`, `identity` or `zero`.

    It has a shortcut where the shape allows one; without its operation only that is left.
    """
    keeps_shape = stride == 1 and channels_in == channels_out
    if operation in ("identity", "zero"):
        if keeps_shape:
            return nn.Identity()
        return StridedIdentity(channels_in, channels_out, stride)
    expansion, kernel = re.findall("[0-9]+", operation)
    mbconv = MBConv(channels_in, channels_out, int(expansion), int(kernel), stride, activation)
    return Residual(mbconv, shortcut=keeps_shape)


class ChainNetwork(nn.Module):
    """A chain of blocks between a stem and a head: images `(B, C, H, W)` to logits `(B, K)`.

    The stem is a 3x3 convolution, the head a 1x1 convolution, pooling, dropout and the classifier.
    """

    def __init__(
        self,
        blocks: Sequence[nn.Module],
        channels: int,
        stem_width: int,
        stem_stride: int,
        last_width: int,
        num_classes: int,
        in_channels: int = 3,
        activation: str = "relu6",
        dropout: float = 0.0,
    ) -> None:
        """`channels`: those that leave the last block."""
        super().__init__()
        act = ACTIVATIONS[activation]
        self.stem = nn.Sequential(
            *conv_bn(in_channels, stem_width, 3, stem_stride), act(inplace=True)
        )
        self.blocks = nn.ModuleList(blocks)
        self.head = nn.Sequential(*conv_bn(channels, last_width, 1, 1), act(inplace=True))
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(last_width, num_classes)
        self.apply(initialise)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = self.stem(x_BCHW)
        for block in self.blocks:
            x_BCHW = block(x_BCHW)
        x_BCHW = self.head(x_BCHW)
        x_BC = x_BCHW.mean(dim=(2, 3))
        return self.classifier(self.dropout(x_BC))


@torch.no_grad()
def initialise(module: nn.Module) -> None:
    """Fresh weights as ProxylessNAS has them.

    Convolutions: normal with variance 2 / (kernel area * output channels), also where they are
    depthwise; the classifier: uniform within 1 / sqrt(inputs), bias 0.
    """
    if isinstance(module, nn.Conv2d):
        kernel_area = module.weight[0, 0].numel()
        variance = 2.0 / (kernel_area * module.out_channels)
        module.weight.normal_(0.0, math.sqrt(variance))
    elif isinstance(module, nn.Linear):
        bound = 1.0 / math.sqrt(module.in_features)
        module.weight.uniform_(-bound, bound)
        module.bias.zero_()
