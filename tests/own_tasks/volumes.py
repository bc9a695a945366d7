"""Small volumes: three-dimensional convolutions, whole or in three factors."""

import torch
import torch.nn.functional as F
from torch import nn

import gradnas


def factors():
    return nn.Sequential(
        nn.Conv3d(2, 2, (3, 1, 1), padding=(1, 0, 0)),
        nn.Conv3d(2, 2, (1, 3, 1), padding=(0, 1, 0)),
        nn.Conv3d(2, 2, (1, 1, 3), padding=(0, 0, 1)),
    )


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv3d(1, 2, 1)
        whole = nn.Conv3d(2, 2, 3, padding=1)
        self.body = gradnas.Choice({"whole": whole, "factors": factors()}, name="body")
        self.norm = nn.BatchNorm3d(2)
        self.head = nn.Linear(2, 2)

    def forward(self, x):
        return self.head(F.relu(self.norm(self.body(self.stem(x)))).mean((2, 3, 4)))


def task():
    x = torch.randn(24, 1, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    y = (x.mean((1, 2, 3, 4)) > 0).long()
    return gradnas.Task(
        model=Net,
        train=(x[:16], y[:16]),
        test=(x[16:], y[16:]),
        loss=F.cross_entropy,
        measures={"accuracy": gradnas.accuracy},
    )
