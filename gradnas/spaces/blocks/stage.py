"""What kernels of blocks compute: stages, terms of sums, and what is added to gradients.

Legend: B batch, C channels, H height, W width, K kernel width, I channels in, O channels out.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

MOST_FULL_CHANNELS = 4  # of the input of a full convolution
MOST_TERMS = 4  # of a sum that is computed at once
KERNEL_WIDTHS = (3, 5, 7)  # those that are compiled
DILATIONS = (1, 2)
STRIDES = (1, 2)

NONE = 0
RELU = 1
RELU6 = 2


class Stage(NamedTuple):
    """The layers up to a BatchNorm, and the BatchNorm's `eps`.

    Attributes:
        act: the activation before the convolutions: NONE, RELU or RELU6.
        width: K of the depthwise convolution; 0 without one.
        stride: of the depthwise convolution. Without one, a stride of 2 reads pixels 0, 2, ... of
            both sides and, as further channels, pixels 1, 3, ...: both sides are even, and there is
            no BatchNorm before it.
        pointwise: whether there is a pointwise convolution.
        affine: whether the BatchNorm has scale and shift.
        full: whether the one convolution is a full one, of `width` and `stride`: of few channels,
            for a first stage whose input needs no gradient. It counts as pointwise, with the
            weight `(O, I, K, K)`, and there is nothing before it.
    """

    act: int
    width: int
    stride: int
    dilation: int
    pointwise: bool
    affine: bool
    eps: float
    full: bool = False


class Weights(NamedTuple):
    """Of one stage; None for what it does not have.

    Attributes:
        depthwise: `(I, 1, K, K)`.
        pointwise: `(O, I, 1, 1)`; of a full convolution `(O, I, K, K)`, in channels-last memory.
        scale, shift: of the BatchNorm, `(O,)`.
    """

    depthwise: Tensor | None
    pointwise: Tensor | None
    scale: Tensor | None
    shift: Tensor | None


class Last(NamedTuple):
    """What follows the last BatchNorm: an activation, and a factor for each image."""

    act: int = NONE
    factor_B: Tensor | None = None


NOTHING = Last()


class Term(NamedTuple):
    """One of the terms of a sum: `factor * act(scale map + shift)`.

    Attributes:
        norm_4C: of the BatchNorm before: scale, shift, mean, 1 / sqrt(variance + eps); None
            without one.
    """

    map_BCHW: Tensor
    norm_4C: Tensor | None = None
    last: Last = NOTHING


class Others(NamedTuple):
    """What other operations give to the gradient of the same map.

    Attributes:
        base: is added; `pixel_step` says how it lies.
        into: a gradient so far, in channels-last memory, to which all is added.
    """

    base: Tensor | None = None
    into: Tensor | None = None


NO_OTHERS = Others()


def is_halving(stage: Stage) -> bool:
    """Whether it reads even and odd pixels side by side."""
    return stage.width == 0 and stage.stride == 2
