"""A small U-Net: blocks give tuples, the network gives a dictionary."""

import torch
import torch.nn.functional as F
from torch import nn

import gradnas


class Down(nn.Module):
    def __init__(self, kernel):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, kernel, padding=kernel // 2)

    def forward(self, x):
        x = F.relu(self.conv(x))
        return F.max_pool2d(x, 2), x


class Blind(nn.Module):
    def forward(self, x):
        return torch.zeros_like(F.max_pool2d(x, 2)), torch.zeros_like(x)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 1)
        self.down = gradnas.Choice({"k1": Down(1), "k3": Down(3), "blind": Blind()}, name="down")
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        low, skip = self.down(self.stem(x))
        x = torch.cat([F.interpolate(low, scale_factor=2), skip], 1)
        return {"mask": self.head(x), "size": skip.mean((1, 2, 3))}


def loss(outputs, target):
    return F.cross_entropy(outputs["mask"], target)


def accuracy(outputs, target):
    return gradnas.accuracy(outputs["mask"], target)


def task():
    x = torch.randn(24, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    y = (x.squeeze(1) > 0).long()
    return gradnas.Task(
        model=Net,
        train=(x[:16], y[:16]),
        test=(x[16:], y[16:]),
        loss=loss,
        measures={"accuracy": accuracy},
    )
