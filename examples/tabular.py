"""A small network for a table: how wide, how activated, and whether a layer more pays.

    gradnas search examples/tabular.py --epochs 40 --alpha-lr 0.01 --out runs/tabular

The table is scikit-learn's diabetes: ten measurements of 442 patients, and how far the disease had
gone a year later. Less error is better, which `gradnas.lower` says.
"""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_diabetes
from torch import nn

import gradnas

WIDTH = 32


def layer(activation: nn.Module, width: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(WIDTH, width), activation, nn.Dropout(0.1), nn.Linear(width, WIDTH)
    )


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(10, WIDTH)
        self.layers = nn.ModuleList(
            gradnas.Choice(
                {
                    "relu 8": layer(nn.ReLU(), 8),
                    "relu 64": layer(nn.ReLU(), 64),
                    "tanh 8": layer(nn.Tanh(), 8),
                    "tanh 64": layer(nn.Tanh(), 64),
                    "skip": nn.Identity(),
                },
                name=f"layer{number}",
            )
            for number in (1, 2)
        )
        self.last = nn.Linear(WIDTH, 1)

    def forward(self, x):
        x = self.first(x)
        for layer in self.layers:
            x = layer(x)
        return self.last(x).squeeze(1)


def task() -> gradnas.Task:
    table = load_diabetes(scaled=True)
    order = torch.randperm(len(table.target), generator=torch.Generator().manual_seed(0))
    rows = torch.tensor(table.data, dtype=torch.float32)[order]
    rows = rows / rows[:342].std(0)
    target = torch.tensor(table.target, dtype=torch.float32)[order]
    target = (target - target[:342].mean()) / target[:342].std()
    return gradnas.Task(
        model=Net,
        train=(rows[:342], target[:342]),
        test=(rows[342:], target[342:]),
        loss=F.mse_loss,
        measures={"absolute_error": gradnas.lower(F.l1_loss)},
        optimizer=lambda weights: torch.optim.AdamW(weights, lr=3e-3, weight_decay=1e-2),
    )
