"""Depth and width under a budget of multiply-adds (search with --budget-macs 150)."""

import torch
import torch.nn.functional as F
from torch import nn

import gradnas


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList()
        for _ in range(3):
            deep = nn.Sequential(nn.Linear(5, 10), nn.ReLU(), nn.Linear(10, 5))
            operations = {"deep": deep, "flat": nn.Linear(5, 5), "none": nn.Identity()}
            self.layers.append(gradnas.Choice(operations))
        self.head = nn.Linear(5, 2)

    def forward(self, x):
        for layer in self.layers:
            x = x + layer(x)
        return self.head(x)


def task():
    x = torch.randn(48, 5, generator=torch.Generator().manual_seed(0))
    y = (x.prod(1) > 0).long()
    return gradnas.Task(
        model=Net,
        train=(x[:36], y[:36]),
        test=(x[36:], y[36:]),
        loss=F.cross_entropy,
        measures={"accuracy": gradnas.accuracy},
    )
