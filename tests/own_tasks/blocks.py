"""A residual network on small images: kernel and expansion of every block, or none of it."""

import torch
import torch.nn.functional as F
from torch import nn

import gradnas


def block(kernel, expansion):
    wide = 4 * expansion
    return nn.Sequential(
        nn.Conv2d(4, wide, kernel, padding=kernel // 2),
        nn.BatchNorm2d(wide),
        nn.ReLU(),
        nn.Conv2d(wide, 4, 1),
    )


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.blocks = nn.ModuleList()
        for _ in range(2):
            operations = {"k3e1": block(3, 1), "k5e1": block(5, 1), "k3e3": block(3, 3)}
            self.blocks.append(gradnas.Choice({**operations, "none": nn.Identity()}))
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        x = self.stem(x)
        for layer in self.blocks:
            x = F.relu(x + layer(x))
        return self.head(x.mean((2, 3)))


def task():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(48, 1, 6, 6, generator=generator), torch.arange(48) % 3
    return gradnas.Task(
        model=Net,
        train=(x[:36], y[:36]),
        test=(x[36:], y[36:]),
        loss=F.cross_entropy,
        measures={"accuracy": gradnas.accuracy},
    )
