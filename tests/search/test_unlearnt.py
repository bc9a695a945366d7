"""What runs and never moves is said: weights out of sight, alphas without a step."""

from __future__ import annotations

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import gradnas
from gradnas import Choice, Search

X = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(8) % 3


def body() -> Choice:
    return Choice({"a": nn.Linear(4, 4), "b": nn.Tanh()}, name="body")


def loss(net):
    return F.cross_entropy(net(X), Y)


class InAList(nn.Module):
    def __init__(self, beside: nn.Module) -> None:
        super().__init__()
        self.body = body()
        self.layers = {"first": [beside]}
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.layers["first"][0](self.body(x)))


def test_weights_in_a_plain_list_are_said_not_to_learn():
    with pytest.warns(UserWarning, match=r"'layers' of InAList holds a Linear .*2 weights"):
        Search(InAList(nn.Linear(4, 4)))


@pytest.mark.parametrize("kind", ["frozen", "registered", "no weights"])
def test_nothing_is_said_of_what_need_not_learn_or_does(kind):
    beside: nn.Module = nn.Linear(4, 4)
    net = InAList(beside if kind != "no weights" else nn.ReLU())
    if kind == "frozen":
        beside.requires_grad_(False)
    if kind == "registered":
        net.known = beside
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        search = Search(net)
        search.step(loss, loss)
        search.step(loss, loss)
        search.result()


def test_parameters_in_a_closure_are_said_not_to_learn_once():
    layer = nn.Linear(4, 4)

    class Closed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = body()
            self.head = nn.Linear(4, 3)

        def forward(self, x):
            return self.head(layer(self.body(x)))

    search = Search(Closed())
    words = r"2 parameters that are not of the network \(shapes \(4,.*"
    with pytest.warns(UserWarning, match=words):
        search.step(loss, loss)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        search.step(loss, loss)


def net() -> nn.Module:
    return nn.Sequential(body(), nn.Linear(4, 3))


@pytest.mark.parametrize(
    ("settings", "with_valid", "words"),
    [
        ({}, False, r"no step was given a validation loss"),
        ({"epochs": 2, "warmup_epochs": 2}, True, r"epoch 0 of its 2 epochs of warm-up"),
        ({"epochs": 4, "warmup_epochs": 2}, True, r"epoch 0 of its 2 epochs of warm-up"),
        ({"alpha_every": 5}, True, r"every 5 steps.*there were 2"),
    ],
)
def test_a_loop_of_ones_own_whose_alphas_never_moved_is_told(settings, with_valid, words):
    search = Search(net(), **settings)
    for _ in range(2):
        search.step(loss, loss if with_valid else None)
    with pytest.warns(UserWarning, match=words):
        search.result()

    search = Search(net(), gradient=gradnas.FirstOrder())
    search.step(loss, loss)
    resumed = Search(net())
    resumed.load_state_dict(search.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        search.result()
        resumed.result()
