"""A graph network: each batch is the dictionary of a graph, from a generator without a length."""

import torch
import torch.nn.functional as F
from torch import nn

import gradnas


class Mean(nn.Module):
    def forward(self, x, *, edges):
        total = torch.zeros_like(x).index_add(0, edges[1], x[edges[0]])
        degree = torch.bincount(edges[1], minlength=len(x)).clamp(min=1)
        return total / degree.unsqueeze(1)


class Total(nn.Module):
    def forward(self, x, *, edges):
        return torch.zeros_like(x).index_add(0, edges[1], x[edges[0]])


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.aggregate = gradnas.Choice({"mean": Mean(), "sum": Total()}, name="aggregate")
        self.head = nn.Linear(3, 2)

    def forward(self, x, *, edges):
        return self.head(self.aggregate(x, edges=edges))


def graphs(seed, number):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(number):
        x = torch.rand(6, 3, generator=generator)
        edges = torch.randint(6, (2, 14), generator=generator)
        yield {"x": x, "edges": edges, "y": (torch.bincount(edges[1], minlength=6) > 2).long()}


def loss(net, batch):
    return F.cross_entropy(net(batch["x"], edges=batch["edges"]), batch["y"])


def accuracy(net, batch):
    return gradnas.accuracy(net(batch["x"], edges=batch["edges"]), batch["y"])


def task():
    return gradnas.Task(
        model=Net,
        train=lambda: graphs(0, 12),
        valid=lambda: graphs(1, 8),
        test=lambda: graphs(2, 8),
        loss=loss,
        measures={"accuracy": accuracy},
    )
