"""Loaders of one's own, and a final training of one's own."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import gradnas

X = torch.randn(48, 4, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()


class Net(nn.Sequential):
    def __init__(self):
        body = gradnas.Choice({"a": nn.Linear(4, 4), "b": nn.Identity()}, name="body")
        super().__init__(body, nn.Dropout(0.1), nn.Linear(4, 2))


def loader(rows, shuffle=False):
    own = torch.Generator()
    return DataLoader(TensorDataset(X[rows], Y[rows]), 8, shuffle=shuffle, generator=own)


def trainer(network, epochs):
    optimizer = torch.optim.Adam(network.parameters(), lr=0.05)
    for _ in range(epochs):
        for x, y in loader(slice(0, 32), shuffle=True):
            optimizer.zero_grad()
            F.cross_entropy(network(x), y).backward()
            optimizer.step()


def task():
    return gradnas.Task(
        model=Net,
        train=lambda: loader(slice(0, 24), shuffle=True),
        valid=lambda: loader(slice(24, 32)),
        test=lambda: loader(slice(32, 48)),
        loss=F.cross_entropy,
        measures={"accuracy": gradnas.accuracy},
        trainer=trainer,
    )
