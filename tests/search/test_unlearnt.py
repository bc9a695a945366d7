"""What runs and never moves is said: weights out of sight, alphas without a step."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

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


# ---- weights out of reach of a gradient that looks elsewhere -------------------------------------


class Kept(nn.Module):
    """It uses a weight of its layer from a container, or a closure."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.body = body()
        self.head = nn.Linear(4, 3)
        weight = self.layer.weight
        self.kept: Any = {
            "tuple": (weight,),
            "closure": lambda: weight,
            "list": [{"a": weight}],
            "namespace": SimpleNamespace(a=weight),
            "dataclass": Box(weight),
        }[kind]

    def forward(self, x):
        kept = self.kept
        if isinstance(kept, tuple):
            weight = kept[0]
        elif isinstance(kept, list):
            weight = kept[0]["a"]
        elif callable(kept):
            weight = kept()
        else:
            weight = kept.a
        return self.head(F.linear(self.body(x), weight))


@dataclass(frozen=True)
class Box:
    a: nn.Parameter


@pytest.mark.parametrize("kind", ["tuple", "closure"])
def test_a_weight_that_is_used_from_out_of_sight_is_refused_where_it_matters(kind):
    search = Search(Kept(kind), gradient=gradnas.Unrolled())
    with pytest.raises(ValueError, match=r"its weight 'layer\.weight'.*Unrolled"):
        search.step(loss, loss)
    search = Search(Kept(kind))  # at the network's own weights there is no difference
    before = search.supernet.net.layer.weight.detach().clone()
    search.step(loss, loss)
    assert not torch.equal(search.supernet.net.layer.weight, before)


@pytest.mark.parametrize("kind", ["list", "namespace", "dataclass"])
def test_weights_in_containers_are_those_of_the_pass(kind):
    gradients = []
    for net in (Kept(kind), Kept("list")):
        net.load_state_dict(start)
        search = Search(net, gradient=gradnas.Unrolled(mode="exact"))
        inner = search.weight_step.inner_step(search.gradient)
        gradients.append(search.alpha_step.gradient(loss, loss, {}, inner)[0]["body"])
    assert torch.equal(*gradients)


start = Kept("list").state_dict()


def test_hooks_on_weights():
    net = nn.Sequential(body(), nn.Linear(4, 3))
    handle = net[1].weight.register_hook(lambda grad: grad * 0)
    before = net[1].weight.detach().clone()
    with pytest.raises(ValueError, match=r"'1\.weight' has a gradient hook.*FirstOrder"):
        Search(net, gradient=gradnas.Implicit())
    search = Search(net)
    search.step(loss, loss)
    no_decay = gradnas.WeightOptimizer(weight_decay=0.0)
    search = Search(net, weights=no_decay)
    kept = net[1].weight.detach().clone()
    search.step(loss, loss)
    assert torch.equal(net[1].weight, kept) and not torch.equal(kept, before)
    handle.remove()
    net[1].weight.register_post_accumulate_grad_hook(lambda p: None)
    with pytest.raises(ValueError, match="a search never runs"):
        Search(net)
