"""The candidate operations of convolutional cells, as plain torch modules.

Legend: B batch, C channels, H height, W width. Every operation maps C channels to C channels; with
stride 2 it halves H and W. Convolutions have no bias. BatchNorm is affine in derived networks and
not in supernets, as in DARTS: an operation with a scale of its own could make up for its mixing
weight. This file needs torch alone: exported model files are made of its source.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

# (channels, stride, affine) -> module
Factory = Callable[[int, int, bool], nn.Module]


class Zero(nn.Module):
    """No connection: zeros of the output's shape."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return torch.zeros_like(x_BCHW[:, :, :: self.stride, :: self.stride])


class Noise(nn.Module):
    """Standard normal numbers of the output's shape, whatever the input: no operation to choose."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return torch.randn_like(x_BCHW[:, :, :: self.stride, :: self.stride])


class FactorizedReduce(nn.Module):
    """Halves H and W: a 1x1 convolution of the even pixels beside one of the odd; BatchNorm.

    Raises:
        ValueError: odd number of output channels; at a call, odd H or W (the two halves would
            differ in size).
    """

    def __init__(self, channels_in: int, channels_out: int, affine: bool) -> None:
        super().__init__()
        if channels_out % 2:
            raise ValueError(f"a reduction needs an even number of channels, not {channels_out}")
        # A 1x1 convolution of stride 2 is one of stride 1 on every second pixel. Written so, it
        # also keeps clear of a fault of torch 2.13 on the CPU: its channels-last backward for
        # stride 2 corrupts memory for some small shapes.
        self.conv_even = nn.Conv2d(channels_in, channels_out // 2, 1, bias=False)
        self.conv_odd = nn.Conv2d(channels_in, channels_out // 2, 1, bias=False)
        self.bn = nn.BatchNorm2d(channels_out, affine=affine)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        H, W = x_BCHW.shape[2:]
        if H % 2 or W % 2:
            size = f"{H}x{W}"
            raise ValueError(
                f"a reduction cell needs maps of even height and width, got {size}: "
                "change the image size"
            )
        x_BCHW = torch.relu(x_BCHW)
        # Moved by one pixel down and right: the two see different pixels, though half of all pixels
        # (those even in one direction and odd in the other) are seen by neither.
        even_BCHW = self.conv_even(x_BCHW[:, :, ::2, ::2])
        odd_BCHW = self.conv_odd(x_BCHW[:, :, 1::2, 1::2])
        return self.bn(torch.cat([even_BCHW, odd_BCHW], dim=1))


def relu_conv_bn(channels_in: int, channels_out: int, affine: bool) -> nn.Sequential:
    """ReLU, 1x1 convolution, BatchNorm."""
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(channels_in, channels_out, 1, bias=False),
        nn.BatchNorm2d(channels_out, affine=affine),
    )


def sep_conv(channels: int, kernel: int, stride: int, affine: bool) -> nn.Sequential:
    """Twice: ReLU, depthwise, pointwise convolution, BatchNorm; the first has the stride."""
    padding = (kernel - 1) // 2  # the size stays
    layers: list[nn.Module] = []
    for step in (stride, 1):
        layers += [
            nn.ReLU(),
            nn.Conv2d(channels, channels, kernel, step, padding, groups=channels, bias=False),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels, affine=affine),
        ]
    return nn.Sequential(*layers)


class DilatedConv2d(nn.Conv2d):
    """`nn.Conv2d`; under autocast on a CPU it computes in float32.

    On CPUs with AMX the gradients of depthwise convolutions with dilation 2 are wrong or NaN in
    bf16 and channels-last (oneDNN, seen with torch 2.13).
    """

    def forward(self, input: Tensor) -> Tensor:
        if not half_on_cpu(input):
            return super().forward(input)
        with torch.autocast("cpu", enabled=False):
            return super().forward(input.float())


def half_on_cpu(x: Tensor) -> bool:
    """Whether an operation on x would be cast to bf16 on a CPU."""
    return x.device.type == "cpu" and torch.is_autocast_enabled("cpu")


def dil_conv(channels: int, kernel: int, stride: int, affine: bool) -> nn.Sequential:
    """Once: ReLU, depthwise convolution of dilation 2, pointwise convolution, BatchNorm."""
    padding = kernel - 1  # half of the 2 (kernel - 1) + 1 pixels from end to end: the size stays
    return nn.Sequential(
        nn.ReLU(),
        DilatedConv2d(
            channels, channels, kernel, stride, padding, dilation=2, groups=channels, bias=False
        ),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels, affine=affine),
    )


def relu_conv(channels: int, kernel: int, stride: int, affine: bool) -> nn.Sequential:
    """ReLU, full convolution, BatchNorm (NAS-Bench-201)."""
    padding = (kernel - 1) // 2  # the size stays
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(channels, channels, kernel, stride, padding, bias=False),
        nn.BatchNorm2d(channels, affine=affine),
    )


def conv_7x1_1x7(channels: int, stride: int, affine: bool) -> nn.Sequential:
    """ReLU, full 1x7 then 7x1 convolution, BatchNorm (AmoebaNet only)."""
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(channels, channels, (1, 7), stride=(1, stride), padding=(0, 3), bias=False),
        nn.Conv2d(channels, channels, (7, 1), stride=(stride, 1), padding=(3, 0), bias=False),
        nn.BatchNorm2d(channels, affine=affine),
    )


def none(channels: int, stride: int, affine: bool) -> nn.Module:
    """No connection."""
    return Zero(stride)


def max_pool_3x3(channels: int, stride: int, affine: bool) -> nn.Module:
    """The largest of 3x3 pixels."""
    return nn.MaxPool2d(3, stride, padding=1)


def avg_pool_3x3(channels: int, stride: int, affine: bool) -> nn.Module:
    """The mean of 3x3 pixels; the border is not counted."""
    # Averages of the pixels that are there: a border of zeros would darken the edges of a map.
    return nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)


def skip_connect(channels: int, stride: int, affine: bool) -> nn.Module:
    """The identity; a factorized reduction where the stride is 2."""
    return nn.Identity() if stride == 1 else FactorizedReduce(channels, channels, affine)


def sep_conv_3x3(channels: int, stride: int, affine: bool) -> nn.Module:
    """A separable convolution, 3x3."""
    return sep_conv(channels, 3, stride, affine)


def sep_conv_5x5(channels: int, stride: int, affine: bool) -> nn.Module:
    """A separable convolution, 5x5."""
    return sep_conv(channels, 5, stride, affine)


def sep_conv_7x7(channels: int, stride: int, affine: bool) -> nn.Module:
    """A separable convolution, 7x7."""
    return sep_conv(channels, 7, stride, affine)


def dil_conv_3x3(channels: int, stride: int, affine: bool) -> nn.Module:
    """A dilated convolution, 3x3 pixels of 5x5."""
    return dil_conv(channels, 3, stride, affine)


def dil_conv_5x5(channels: int, stride: int, affine: bool) -> nn.Module:
    """A dilated convolution, 5x5 pixels of 9x9."""
    return dil_conv(channels, 5, stride, affine)


def nor_conv_1x1(channels: int, stride: int, affine: bool) -> nn.Module:
    """A full convolution, 1x1."""
    if stride == 1:
        return relu_conv(channels, 1, 1, affine)
    # A 1x1 convolution of stride 2 is one of stride 1 on every second pixel; see FactorizedReduce.
    return nn.Sequential(nn.AvgPool2d(1, stride), relu_conv(channels, 1, 1, affine))


def nor_conv_3x3(channels: int, stride: int, affine: bool) -> nn.Module:
    """A full convolution, 3x3."""
    return relu_conv(channels, 3, stride, affine)


def noise(channels: int, stride: int, affine: bool) -> nn.Module:
    """Random numbers: the trap of the space S4 of Zela et al. (ICLR 2020)."""
    return Noise(stride)


# Functions of this module and no lambdas: spaces and supernets that hold them can be pickled.
OPERATIONS: dict[str, Factory] = {
    "none": none,
    "max_pool_3x3": max_pool_3x3,
    "avg_pool_3x3": avg_pool_3x3,
    "skip_connect": skip_connect,
    "sep_conv_3x3": sep_conv_3x3,
    "sep_conv_5x5": sep_conv_5x5,
    "dil_conv_3x3": dil_conv_3x3,
    "dil_conv_5x5": dil_conv_5x5,
    "sep_conv_7x7": sep_conv_7x7,
    "conv_7x1_1x7": conv_7x1_1x7,
    "nor_conv_1x1": nor_conv_1x1,
    "nor_conv_3x3": nor_conv_3x3,
    "noise": noise,
}
"""Name -> a function `(channels, stride, affine) -> nn.Module`, of every operation for cells."""
