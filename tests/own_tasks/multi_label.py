"""Several labels of one example, measured by an object that sees all batches: the F1 score."""

import torch
import torch.nn.functional as F
from torch import nn

import gradnas


class F1:
    def reset(self):
        self.hits, self.marked, self.true = 0, 0, 0

    def update(self, outputs, target):
        marked = outputs > 0
        self.hits += int((marked & (target > 0)).sum())
        self.marked += int(marked.sum())
        self.true += int(target.sum())

    def compute(self):
        return 2 * self.hits / max(1, self.marked + self.true)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        wide = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 6))
        self.body = gradnas.Choice({"wide": wide, "none": nn.Identity()}, name="body")
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        return self.head(self.body(x))


def task():
    x = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    y = (x[:, :4] > 0).float()
    return gradnas.Task(
        model=Net,
        train=(x[:35], y[:35]),
        test=(x[35:], y[35:]),
        loss=F.binary_cross_entropy_with_logits,
        measures={"f1": F1()},
    )
