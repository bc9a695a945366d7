"""Six architectures on twelve features, one of which gives the class away: for studies."""

import torch
import torch.nn.functional as F
from torch import nn

import gradnas


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        first = {"tanh": nn.Sequential(nn.Linear(4, 6), nn.Tanh()), "linear": nn.Linear(4, 6)}
        self.first = gradnas.Choice(first, name="first")
        second = {"relu": nn.ReLU(), "skip": nn.Identity(), "dropout": nn.Dropout(0.2)}
        self.second = gradnas.Choice(second, name="second")
        self.norm = nn.BatchNorm1d(6)
        self.head = nn.Linear(6, 2)

    def forward(self, x):
        return self.head(self.norm(self.second(self.first(x))))


def rows(number, seed):
    x = torch.randn(number, 4, generator=torch.Generator().manual_seed(seed))
    return x, (x[:, 0] * x[:, 1] > 0).long()


def task():
    return gradnas.Task(
        model=Net,
        train=rows(96, 0),
        test=rows(64, 1),
        loss=F.cross_entropy,
        measures={"accuracy": gradnas.accuracy},
    )
