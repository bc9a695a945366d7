"""What leaves each state of a cell, in the order in which a whole cell computes it (`whole_cell`).

Legend: H height, W width, I channels in, O channels out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from gradnas.spaces.cells.places import channels_last
from gradnas.spaces.cells.shape import INPUTS
from gradnas.spaces.cells.source_kernels import Convolution
from gradnas.spaces.cells.stages import Item, Stage
from gradnas.spaces.cells.stencils import (
    DEPTHWISE,
    LAST_POINTWISE,
    POINTWISE,
    SECOND_DEPTHWISE,
)
from gradnas.spaces.operations import FactorizedReduce


class Source(NamedTuple):
    """What leaves a state of the cell, by kind.

    Attributes:
        first: place of its first weight among those of the cell (`weights_of`).
        stride: of all that leaves it.
        num_separable: convolutions come with the separable ones first.
    """

    first: int
    stride: int
    convolutions: tuple[Item, ...]
    num_separable: int
    maxima: tuple[Item, ...]
    averages: tuple[Item, ...]
    reductions: tuple[Item, ...]
    identities: tuple[Item, ...]

    @property
    def is_empty(self) -> bool:
        pooled = self.maxima or self.averages
        return not (self.convolutions or pooled or self.reductions or self.identities)

    def place(self, k: int) -> int:
        """Of the first weight of a convolution: four of a separable one, two of a dilated one."""
        return self.first + 4 * k - 2 * max(0, k - self.num_separable)

    def place_of_reduction(self, k: int) -> int:
        return self.place(len(self.convolutions)) + 2 * k

    def spec(self, weights: Sequence[Tensor]) -> list[Convolution]:
        """The convolutions for the kernel, of the weights of the cell."""
        found = []
        for k in range(len(self.convolutions)):
            at = self.place(k)
            if k < self.num_separable:
                found.append(Convolution(weights[at], 1, weights[at + 1], weights[at + 2]))
            else:
                found.append(Convolution(weights[at], 2))
        return found

    def last_weight(self, k: int) -> int:
        """Place of the weight of a convolution's last product."""
        return self.place(k) + (3 if k < self.num_separable else 1)


Plan = tuple[Source, ...]  # of all states; none leaves the last


def plan_of(stages: Sequence[Stage], reduces: bool) -> Plan | None:
    """What leaves each state; None where a module has to be called."""
    if any(stage.others for stage in stages):
        return None
    plan: list[Source] = []
    first = 0
    for number in range(len(stages) + INPUTS):
        stage = Stage() if number == len(stages) + 1 else stages[max(0, number - 1)]

        def own(items: list[Item], stage: Stage = stage, number: int = number) -> tuple[Item, ...]:
            # By target: the gradient of a node serves one convolution after the other.
            mine = [item for item in items if stage.sources[item.source] == number]
            return tuple(sorted(mine, key=lambda item: item.target))

        separable = own(stage.separable)
        source = Source(
            first,
            2 if reduces and number < INPUTS else 1,
            separable + own(stage.dilated),
            len(separable),
            own(stage.maxima),
            own(stage.averages),
            own(stage.reductions),
            own(stage.identities),
        )
        first = source.place_of_reduction(len(source.reductions))
        plan.append(source)
    return tuple(plan)


def weights_of(plan: Plan) -> list[Tensor]:
    """Of a separable convolution its four weights, of a dilated one two, of a reduction two."""
    weights: list[Tensor] = []
    for source in plan:
        for k, item in enumerate(source.convolutions):
            weights.append(item.weight(DEPTHWISE))
            if k < source.num_separable:
                weights += [item.weight(POINTWISE), item.weight(SECOND_DEPTHWISE)]
            weights.append(item.weight(LAST_POINTWISE))
        for item in source.reductions:
            reduction = item.operation
            assert isinstance(reduction, FactorizedReduce)
            weights += [reduction.conv_even.weight, reduction.conv_odd.weight]
    return weights


def halves_of(x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    """The pixels that the two convolutions of a factorized reduction see."""
    even_BCHW = channels_last(x_BCHW[:, :, ::2, ::2])
    odd_BCHW = channels_last(x_BCHW[:, :, 1::2, 1::2])
    return even_BCHW, odd_BCHW


def side_by_side(even: Tensor, odd: Tensor) -> tuple[Tensor, Tensor]:
    """Two convolutions that give half of the channels each as two that add up, `(O, I)` each.

    The rows of the channels that the other one gives are zero. So a reduction is two products of
    the fold, and its BatchNorm that of their sum.
    """
    even, odd = even.flatten(1), odd.flatten(1)
    return F.pad(even, (0, 0, 0, len(odd))), F.pad(odd, (0, 0, len(even), 0))
