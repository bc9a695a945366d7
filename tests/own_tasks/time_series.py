"""A one-dimensional convolution, of which only one dilation sees the class."""

import torch
import torch.nn.functional as F
from torch import nn

import gradnas


def conv(dilation):
    return nn.Conv1d(2, 6, 2, dilation=dilation, padding=(dilation + 1) // 2)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        dilated = {f"dilation {d}": conv(d) for d in (1, 3, 7)}
        self.conv = gradnas.Choice(dilated, name="conv")
        self.head = nn.Linear(6, 2)

    def forward(self, x):
        return self.head(F.relu(self.conv(x)).amax(-1))


def examples(seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(40, 2, 24, generator=generator)
    y = torch.arange(40) % 2
    x[:, 0, 12] = 3.0
    x[:, 0, 5] = 3.0 * (2 * y - 1)
    return x, y


def task():
    return gradnas.Task(
        model=Net,
        train=examples(0),
        valid=examples(1),
        test=examples(2),
        loss=F.cross_entropy,
        measures={"accuracy": gradnas.accuracy},
    )
