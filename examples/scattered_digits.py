"""Digits on a larger canvas, among pieces of other digits: a task whose architecture matters.

    gradnas search examples/scattered_digits.py --epochs 12 --alpha-lr 0.01 --out runs/demo
    gradnas train runs/demo --task examples/scattered_digits.py --epochs 15 --random 5

The digits are those of scikit-learn, 8 by 8 pixels, each somewhere on a canvas of 16 by 16. Four
blocks may look at their neighbours, at one pixel at a time, pool, or do nothing. `make demo` runs
these commands.
"""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

import gradnas

CANVAS, CHANNELS, PIECES = 16, 12, 4


def convolution(kernel: int, groups: int = 1) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(CHANNELS, CHANNELS, kernel, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(CHANNELS),
        nn.ReLU(),
    )


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, CHANNELS, 3, padding=1, bias=False), nn.BatchNorm2d(CHANNELS), nn.ReLU()
        )
        self.blocks = nn.ModuleList(
            gradnas.Choice(
                {
                    "skip": nn.Identity(),
                    "max pool": nn.MaxPool2d(3, stride=1, padding=1),
                    "average pool": nn.AvgPool2d(3, stride=1, padding=1),
                    "conv 1x1": convolution(1),
                    "depthwise 3x3": convolution(3, groups=CHANNELS),
                    "conv 3x3": convolution(3),
                },
                name=f"block{number}",
            )
            for number in range(1, 5)
        )
        self.head = nn.Linear(CHANNELS, 10)

    def forward(self, x):
        x = self.stem(x)
        for number, block in enumerate(self.blocks, 1):
            x = block(x)
            if number % 2 == 0:
                x = F.max_pool2d(x, 2)
        return self.head(x.amax((2, 3)))


def scattered(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Images (N, 8, 8) to canvases (N, 1, CANVAS, CANVAS)."""

    def below(number: int) -> int:
        return int(torch.randint(number, (), generator=generator))

    canvases = torch.zeros(len(images), 1, CANVAS, CANVAS)
    for canvas, image in zip(canvases[:, 0], images, strict=True):
        for _ in range(PIECES):
            other = images[below(len(images))]
            row, column, top, left = below(5), below(5), below(CANVAS - 3), below(CANVAS - 3)
            piece = other[row : row + 4, column : column + 4]
            canvas[top : top + 4, left : left + 4] = piece
        top, left = below(CANVAS - 7), below(CANVAS - 7)
        canvas[top : top + 8, left : left + 8] = image
    return canvases


def task() -> gradnas.Task:
    digits = load_digits()
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(digits.target), generator=generator)
    images = torch.tensor(digits.images, dtype=torch.float32)[order] / 16.0
    labels = torch.tensor(digits.target)[order]
    # Pieces of the test digits come from test digits alone.
    return gradnas.Task(
        model=Net,
        train=(scattered(images[:1437], generator), labels[:1437]),
        test=(scattered(images[1437:], generator), labels[1437:]),
        loss=F.cross_entropy,
        measures={"accuracy": gradnas.accuracy},
        optimizer=lambda weights: torch.optim.AdamW(weights, lr=3e-3, weight_decay=1e-3),
    )
