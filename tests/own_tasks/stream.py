"""A stream without an index or a length, whose examples are batched as torch does it."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import IterableDataset

import gradnas


class Points(IterableDataset):
    def __init__(self, seed, number):
        self.seed, self.number = seed, number

    def __iter__(self):
        generator = torch.Generator().manual_seed(self.seed)
        for _ in range(self.number):
            x = torch.randn(3, generator=generator)
            yield x, int(x.sum() > 0)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = gradnas.Choice({"one": nn.Linear(3, 3), "none": nn.Identity()}, name="body")
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        return self.head(torch.relu(self.body(x)))


def task():
    return gradnas.Task(
        model=Net,
        train=Points(0, 40),
        valid=Points(1, 20),
        test=Points(2, 20),
        loss=F.cross_entropy,
        measures={"accuracy": gradnas.accuracy},
        example=torch.zeros(1, 3),
    )
