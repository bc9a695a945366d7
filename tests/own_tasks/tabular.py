"""Regression of rows: the width of a hidden layer; less error is better."""

import torch
import torch.nn.functional as F
from torch import nn

import gradnas


def hidden(width):
    return nn.Sequential(nn.Linear(5, width), nn.Tanh(), nn.Linear(width, 1))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = gradnas.Choice({f"{w}": hidden(w) for w in (1, 2, 4, 8)}, name="width")

    def forward(self, x):
        return self.hidden(x).squeeze(1)


def task():
    x = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
    y = x[:, 0] - x[:, 1] ** 2
    return gradnas.Task(
        model=Net,
        train=(x[:40], y[:40]),
        test=(x[40:], y[40:]),
        loss=F.mse_loss,
        measures={"absolute_error": gradnas.lower(F.l1_loss)},
    )
