"""A graph network in plain PyTorch: how a node gathers what its neighbours tell.

    gradnas search examples/graph_network.py --epochs 20 --alpha-lr 0.01 --out runs/graph

The class of a graph is whether its nodes have many neighbours or few, so that only a sum can see
it: a mean, a largest and a smallest value look the same in both. The truth is known.
"""

import torch
import torch.nn.functional as F
from torch import nn

import gradnas

NODES, FEATURES = 12, 4


class Gather(nn.Module):
    """What the neighbours of each node tell it: (B, N, C) and edges (B, N, N) to (B, N, C)."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.linear = nn.Linear(FEATURES, 8)
        self.norm = nn.BatchNorm1d(8)

    def forward(self, nodes, *, edges):
        if self.how == "sum":
            told = edges @ nodes
        elif self.how == "mean":
            told = edges @ nodes / edges.sum(2, keepdim=True).clamp(min=1.0)
        else:
            sign = 1.0 if self.how == "max" else -1.0
            hidden = (1.0 - edges).unsqueeze(-1) * 1e6
            told = sign * (sign * nodes.unsqueeze(1) - hidden).amax(2)
        told = self.linear(told)
        return F.relu(self.norm(told.transpose(1, 2)).transpose(1, 2))


class GraphNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        operations = {how: Gather(how) for how in ("mean", "max", "sum", "min")}
        self.gather = gradnas.Choice(operations, name="gather")
        self.head = nn.Linear(8, 2)

    def forward(self, nodes, *, edges):
        return self.head(self.gather(nodes, edges=edges).mean(1))


def loss(net, batch):
    return F.cross_entropy(net(batch["nodes"], edges=batch["edges"]), batch["class"])


def accuracy(net, batch):
    return gradnas.accuracy(net(batch["nodes"], edges=batch["edges"]), batch["class"])


def graphs(number: int, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    classes = torch.randint(2, (number,), generator=generator)
    share = torch.where(classes == 1, 0.6, 0.35).view(-1, 1, 1)
    edges = (torch.rand(number, NODES, NODES, generator=generator) < share).float()
    values = torch.randint(2, (number, NODES, FEATURES), generator=generator)
    return {"nodes": values * 2.0 - 0.5, "edges": edges, "class": classes}


def task() -> gradnas.Task:
    train, test = graphs(800, seed=0), graphs(400, seed=1)
    example = gradnas.Call(train["nodes"][:1], edges=train["edges"][:1])
    return gradnas.Task(
        model=GraphNet,
        train=train,
        test=test,
        loss=loss,
        measures={"accuracy": accuracy},
        example=example,
    )
