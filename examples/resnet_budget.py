"""Residual blocks on digits, the best network within a budget of multiply-adds.

    gradnas search examples/resnet_budget.py --epochs 8 --alpha-lr 0.01 --budget-macs 400e3

Every block may be a wide or narrow convolution, a depthwise one, or nothing at all: the budget
decides how much of it can be paid for.
"""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

import gradnas

CHANNELS = 16


def convolutions(width: int, kernel: int, groups: int = 1) -> nn.Module:
    """Two convolutions, the second one back to the width of the network."""
    return nn.Sequential(
        nn.Conv2d(CHANNELS, width, kernel, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, CHANNELS, 1, bias=False),
        nn.BatchNorm2d(CHANNELS),
    )


class Zero(nn.Module):
    """Adds nothing: the block is left out."""

    def forward(self, x):
        return torch.zeros_like(x)


class ResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, CHANNELS, 3, padding=1)
        self.blocks = nn.ModuleList(
            gradnas.Choice(
                {
                    "wide": convolutions(32, 3),
                    "narrow": convolutions(8, 3),
                    "depthwise": convolutions(CHANNELS, 5, groups=CHANNELS),
                    "none": Zero(),
                },
                name=f"block{number}",
            )
            for number in (1, 2, 3)
        )
        self.head = nn.Linear(CHANNELS, 10)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = F.relu(x + block(x))
        return self.head(x.mean((2, 3)))


def task() -> gradnas.Task:
    digits = load_digits()
    order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(0))
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1)[order] / 16.0
    labels = torch.tensor(digits.target)[order]
    return gradnas.Task(
        model=ResNet,
        train=(images[:1400], labels[:1400]),
        test=(images[1400:], labels[1400:]),
        loss=F.cross_entropy,
        measures={"accuracy": gradnas.accuracy},
        optimizer=lambda weights: torch.optim.AdamW(weights, lr=3e-3),
    )
