"""AdamW with two groups of weights and a warm-up, in the search and in the training."""

import torch
import torch.nn.functional as F
from torch import nn

import gradnas


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(6)
        pair = {"gelu": nn.Sequential(nn.Linear(6, 6), nn.GELU()), "linear": nn.Linear(6, 6)}
        self.body = gradnas.Choice(pair, name="body")
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.body(self.norm(x)))


def optimizer(params):
    matrices = [p for p in params if p.dim() > 1]
    others = [p for p in params if p.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=0.01)


def schedule(optimizer, steps):
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 4))


def task():
    x = torch.randn(48, 6, generator=torch.Generator().manual_seed(0))
    y = x[:, :3].argmax(1)
    return gradnas.Task(
        model=Net,
        train=(x[:36], y[:36]),
        test=(x[36:], y[36:]),
        loss=F.cross_entropy,
        measures={"accuracy": gradnas.accuracy},
        optimizer=optimizer,
        schedule=schedule,
    )
