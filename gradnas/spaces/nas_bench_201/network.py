"""Networks of NAS-Bench-201 as plain torch modules.

Legend: B batch, C channels, H height, W width, K classes. Convolutions have no bias. This file
needs torch alone: exported model files are made of its source.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from gradnas.spaces.operations import OPERATIONS, Factory, Zero

NUM_STAGES = 3


class DenseCellNetwork(nn.Module):
    """A cell whose nodes are sums: node i adds up an operation of every node before it.

    The cell's input is node 0, its output the last node. Operations keep channels and size.
    """

    def __init__(
        self,
        nodes: Sequence[Sequence[str]],
        channels: int,
        operations: Mapping[str, Factory] = OPERATIONS,
    ) -> None:
        super().__init__()
        self.sizes = [len(names) for names in nodes]
        self.operations = nn.ModuleList()
        for names in nodes:
            for name in names:
                self.operations.append(operations[name](channels, 1, True))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        states = [x_BCHW]
        edge = 0
        for size in self.sizes:
            total = None
            for source in range(size):
                operation = self.operations[edge]
                edge += 1
                if isinstance(operation, Zero):
                    continue
                y_BCHW = operation(states[source])
                total = y_BCHW if total is None else total + y_BCHW
            states.append(torch.zeros_like(x_BCHW) if total is None else total)
        return states[-1]


class ResidualReduction(nn.Module):
    """Halves H and W, as a residual block does; its BatchNorms are affine also in a search.

    Raises:
        ValueError: at a call, odd H or W: its two branches would differ in size.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(channels_in, channels_out, 3, 2, 1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(),
            nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False),
            nn.BatchNorm2d(channels_out),
        )
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(2, 2), nn.Conv2d(channels_in, channels_out, 1, bias=False)
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        H, W = x_BCHW.shape[2:]
        if H % 2 or W % 2:
            size = f"{H}x{W}"
            raise ValueError(
                f"a reduction needs maps of even height and width, got {size}: "
                "change the image size"
            )
        return self.main(x_BCHW) + self.shortcut(x_BCHW)


class NasBench201Network(nn.Module):
    """Stem, three stages of cells with a residual reduction between them, pool, classifier."""

    def __init__(
        self,
        nodes: Sequence[Sequence[str]],
        channels: int,
        cells: int,
        num_classes: int,
        in_channels: int = 3,
        operations: Mapping[str, Factory] = OPERATIONS,
    ) -> None:
        """`cells`: of a stage."""
        super().__init__()
        self.stem = bench_stem(in_channels, channels)
        self.cells = nn.ModuleList()
        for stage in range(NUM_STAGES):
            if stage > 0:
                self.cells.append(ResidualReduction(channels, 2 * channels))
                channels = 2 * channels
            for _ in range(cells):
                self.cells.append(DenseCellNetwork(nodes, channels, operations))
        self.last = bench_last(channels)
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = self.stem(x_BCHW)
        for cell in self.cells:
            x_BCHW = cell(x_BCHW)
        x_BCHW = self.last(x_BCHW)
        return self.classifier(x_BCHW.mean(dim=(2, 3)))


def bench_stem(in_channels: int, channels: int) -> nn.Sequential:
    """3x3 convolution and BatchNorm, without a ReLU: the operations of cells begin with theirs."""
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
    )


def bench_last(channels: int) -> nn.Sequential:
    """What closes the last sum before it is pooled: the paper's text omits it, its code has it."""
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU())
