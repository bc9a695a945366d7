"""Multiply-adds of a search are those of one example, whatever the batch of its inputs."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

import gradnas
from gradnas.search.one_example import batch_of

HIDDEN = 6


def search(net, example, **limits):
    cost = gradnas.ExpectedCost(**(limits or {"budget_macs": 1e9}))
    return gradnas.Search(net, cost=cost, example=example)


def macs(net, example):
    """Multiply-adds of every operation and of what always runs."""
    costs = search(net, example).costs
    assert not costs.notes
    return costs.fixed, {name: table.tolist() for name, table in costs.tables.items()}


def whole(net, example, reason):
    """The same where the example counts whole, which must be said."""
    with pytest.warns(UserWarning, match=reason) as caught:
        costs = search(net, example).costs
    assert "multiply-adds are of the whole example" in str(caught[0].message)
    return costs.fixed


def convolutions():
    torch.manual_seed(0)
    choice = gradnas.Choice(
        {"k5": nn.Conv2d(3, 8, 5, padding=2), "k3": nn.Conv2d(3, 8, 3, padding=1)}, name="c"
    )
    return nn.Sequential(choice, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))


def test_the_batch_of_the_example_changes_nothing():
    found = []
    for batch in (1, 2, 7):
        own = search(convolutions(), torch.randn(batch, 3, 16, 16), budget_macs=200_000)
        found.append((own.result().choices, own.result().cost))
    assert found == [({"c": "k5"}, 153_616.0)] * 3  # 16 16 3 8 25 and 8 2


class Named(nn.Module):
    """Inputs by name, in a dictionary, and a number beside them."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.norm = nn.BatchNorm1d(4)
        self.choice = gradnas.Choice({"a": nn.Linear(4, 4), "b": nn.Identity()}, name="c")

    def forward(self, inputs, scale, mask=None):
        x = self.norm(inputs["x"]) * scale
        return self.choice(x if mask is None else x * mask[:, None])


def test_inputs_of_any_form():
    expected = (0.0, {"c": [16.0, 0.0]})
    for batch in (1, 3):
        inputs = {"x": torch.randn(batch, 4)}
        assert macs(Named(), (inputs, 2.0)) == expected
        call = gradnas.Call(inputs, torch.tensor(2.0), mask=torch.ones(batch))
        assert macs(Named(), call) == expected


def test_milliseconds_and_parameters_are_those_of_the_example_as_it_is():
    for batch in (1, 4):
        own = search(convolutions(), torch.randn(batch, 3, 8, 8), budget_params=1000)
        assert own.result().cost == 8 * 3 * 25 + 8 + 18


# ---- where the batch cannot be told --------------------------------------------------------------


class Sequence(nn.Module):
    def __init__(self, batch_first):
        super().__init__()
        torch.manual_seed(0)
        self.rnn = nn.LSTM(4, HIDDEN, batch_first=batch_first)
        self.choice = gradnas.Choice({"a": nn.Linear(HIDDEN, HIDDEN), "b": nn.Identity()}, name="c")

    def forward(self, x):
        return self.choice(self.rnn(x)[0])


def test_layers_that_read_time_first():
    per_step = 4 * HIDDEN * (4 + HIDDEN)
    assert macs(Sequence(True), torch.randn(5, 7, 4))[0] == 7 * per_step
    reason = r"'net\.rnn' \(LSTM\) may take its first dimension, 7, for the time"
    assert whole(Sequence(False), torch.randn(7, 1, 4), reason) == 7 * per_step
    assert macs(Sequence(False), torch.randn(1, 1, 4))[0] == per_step


class Graph(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.choice = gradnas.Choice({"a": nn.Linear(4, 4), "b": nn.Identity()}, name="c")

    def forward(self, x_NF, adjacency_NN):
        return self.choice(adjacency_NN @ x_NF)


def test_tensors_that_share_a_dimension_which_is_no_batch():
    x_NF, adjacency_NN = torch.randn(5, 4), torch.eye(5)
    reason = r"the network does not take the first of 5 alone"
    assert whole(Graph(), (x_NF, adjacency_NN), reason) == 5 * 5 * 4
    reason = r"the first dimensions of its tensors differ \(2 and 5\)"
    with pytest.warns(UserWarning, match=reason):
        search(_Edges(), (x_NF, torch.zeros(2, 9, dtype=torch.int64)))


class _Edges(Graph):
    def forward(self, x_NF, edges_2E):
        return self.choice(x_NF[edges_2E[0]])


def test_what_is_no_tensor_is_said():
    class Bag:
        def __init__(self, x):
            self.x = x

    class Net(Graph):
        def forward(self, bag):
            return self.choice(bag.x)

    with pytest.warns(UserWarning, match="a Bag does not tell how many examples it holds"):
        search(Net(), (Bag(torch.randn(3, 4)),))
    sparse = torch.eye(3).to_sparse()
    assert batch_of(nn.Identity(), gradnas.Call(sparse)) == "its tensors are no plain ones"


def test_a_budget_that_cannot_be_kept_is_of_one_example():
    for batch in (1, 9):
        with pytest.raises(ValueError, match=r"costs 55312 multiply-adds$"):
            search(convolutions(), torch.randn(batch, 3, 16, 16), budget_macs=10.0)


def test_nothing_is_warned_of_where_the_batch_is_clear():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        search(convolutions(), torch.randn(3, 3, 8, 8))
