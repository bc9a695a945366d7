"""Choices in containers: nested, shared under one name, with tied weights, one module twice."""

import torch
import torch.nn.functional as F
from torch import nn

import gradnas


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        inner = gradnas.Choice({"relu": nn.ReLU(), "tanh": nn.Tanh()}, name="inner")
        deep = nn.Sequential(nn.Linear(6, 6), inner, nn.Linear(6, 6))
        self.parts = nn.ModuleDict()
        self.parts["first"] = gradnas.Choice({"deep": deep, "flat": nn.Linear(6, 6)}, name="first")
        for place in ("left", "right"):
            pair = {"linear": nn.Linear(6, 6), "skip": nn.Identity()}
            self.parts[place] = gradnas.Choice(pair, name="sides")  # one decision for both
        self.again = self.parts["first"]  # lies in two places
        self.embedding = nn.Linear(4, 6, bias=False)
        self.back = nn.Linear(6, 4, bias=False)
        self.back.weight = nn.Parameter(self.embedding.weight.t().contiguous())

    def forward(self, x):
        x = self.parts["first"](self.embedding(x))
        x = self.parts["left"](x) + self.parts["right"](x)
        return self.back(self.again(x))


def loss(net, batch):
    return F.mse_loss(net(batch), batch)


def task():
    x = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    return gradnas.Task(model=Net, train=x[:30], test=x[30:], loss=loss)
