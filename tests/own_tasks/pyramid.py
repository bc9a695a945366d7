"""A pyramid of maps: a list goes in, a named tuple comes out, one tower runs three times."""

from collections import namedtuple

import torch
import torch.nn.functional as F
from torch import nn

import gradnas

Found = namedtuple("Found", ["scores", "boxes"])


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        towers = {"k1": nn.Conv2d(2, 4, 1), "k3": nn.Conv2d(2, 4, 3, padding=1)}
        self.tower = gradnas.Choice(towers, name="tower")
        self.score = nn.Conv2d(4, 1, 1)
        self.box = nn.Conv2d(4, 2, 1)

    def forward(self, levels):
        maps = [F.relu(self.tower(level)) for level in levels]
        return Found([self.score(m).amax((1, 2, 3)) for m in maps], [self.box(m) for m in maps])


def loss(outputs, target):
    return F.binary_cross_entropy_with_logits(torch.stack(outputs.scores).mean(0), target)


def collate(examples):
    levels = [torch.stack(level) for level in zip(*(levels for levels, _ in examples), strict=True)]
    return levels, torch.tensor([target for _, target in examples])


def task():
    generator = torch.Generator().manual_seed(0)
    rows = []
    for number in range(30):
        levels = [torch.randn(2, side, side, generator=generator) for side in (6, 4, 2)]
        rows.append((levels, float(number % 2)))
    return gradnas.Task(model=Net, train=rows[:20], test=rows[20:], loss=loss, collate=collate)
