"""A final training in a loop of Accelerate, with averaged weights."""

import accelerate
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, TensorDataset

import gradnas

X = torch.randn(48, 5, generator=torch.Generator().manual_seed(0))
Y = X[:, 0] * 2 - X[:, 1]


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        deep = nn.Sequential(nn.Linear(5, 8), nn.SiLU(), nn.Linear(8, 5))
        self.body = gradnas.Choice({"deep": deep, "none": nn.Identity()}, name="body")
        self.head = nn.Linear(5, 1)

    def forward(self, x):
        return self.head(self.body(x)).squeeze(1)


def trainer(network, epochs):
    accelerator = accelerate.Accelerator(cpu=True)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01)
    rows = DataLoader(TensorDataset(X[:32], Y[:32]), 8, shuffle=True)
    prepared, optimizer, rows = accelerator.prepare(network, optimizer, rows)
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    for _ in range(epochs):
        for x, y in rows:
            optimizer.zero_grad()
            accelerator.backward(F.mse_loss(prepared(x), y))
            optimizer.step()
            average.update_parameters(network)
    network.load_state_dict(average.module.state_dict())


def task():
    return gradnas.Task(
        model=Net,
        train=(X[:32], Y[:32]),
        test=(X[32:], Y[32:]),
        loss=F.mse_loss,
        trainer=trainer,
    )
