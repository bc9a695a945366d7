"""A choice makes place for what was decided, wherever it lies."""

from __future__ import annotations

import copy
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradnas import Choice, Search
from gradnas.modules.draws import using
from gradnas.spaces.chosen import with_chosen
from gradnas.spaces.your_module import ModuleSupernet

WIDTH = 4


def body(name: str = "body") -> Choice:
    return Choice({"linear": nn.Linear(WIDTH, WIDTH), "skip": nn.Identity()}, name=name)


def has_choice(net: nn.Module) -> bool:
    return any(isinstance(module, Choice) for module in net.modules())


class Pair(NamedTuple):
    first: nn.Module
    second: nn.Module


class Everywhere(nn.Module):
    """One choice in all kinds of places."""

    def __init__(self) -> None:
        super().__init__()
        self.first = body()
        self.second = self.first
        self.listed = nn.ModuleList([self.first] * 3)
        self.named = nn.ModuleDict({"a": self.first, "b": self.first})
        self.plain = [self.first, {"x": (self.first, Pair(self.first, self.second))}]

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(torch.tanh(self.first(x)))
        for layer in [*self.listed, *self.named.values()]:
            x = layer(torch.tanh(x))
        inner = self.plain[1]["x"]
        return inner[1].first(torch.tanh(inner[0](self.plain[0](torch.tanh(x)))))


@pytest.mark.parametrize("decided", ["linear", "skip"])
def test_a_choice_in_many_places_is_replaced_in_all(decided):
    torch.manual_seed(0)
    supernet = ModuleSupernet(Everywhere())
    x = torch.randn(3, WIDTH)
    derived = supernet.derived({"body": decided})
    expected = supernet(x, draw=supernet.one_hot_draw({"body": decided}))
    assert not has_choice(derived)
    assert not isinstance(derived.plain[1]["x"][1].second, Choice)
    assert isinstance(derived.plain[1]["x"][1], Pair)
    assert derived.second is derived.first is derived.listed[2] is derived.plain[0]
    assert torch.allclose(derived(x), expected)
    assert has_choice(supernet)


def test_a_choice_twice_in_a_sequential():
    """The smallest input: the second place kept its Choice, which mixed with equal weights."""
    choice = Choice({"a": nn.Linear(4, 4), "b": nn.Linear(4, 4)}, name="c")
    derived = Search(nn.Sequential(choice, nn.ReLU(), choice, nn.Linear(4, 3))).result().derive()
    assert [type(module) for module in derived] == [nn.Linear, nn.ReLU, nn.Linear, nn.Linear]
    assert derived[0] is derived[2]


def test_choices_of_choices_in_two_places():
    inner = body("inner")
    outer = Choice({"inner": inner, "other": nn.Sequential(inner, nn.Tanh())}, name="outer")
    net = nn.Sequential(outer, nn.Tanh(), inner)
    derived = with_chosen(copy.deepcopy(net), {"outer": "other", "inner": "linear"})
    assert not has_choice(derived)
    assert derived[0][0] is derived[2]


# ---- what follows changes it in place ------------------------------------------------------------


class Consumer(nn.Module):
    """A residual block whose branch ends in place; `then` is another way to do so."""

    def __init__(self, choice: Choice, then: str) -> None:
        super().__init__()
        self.stem = nn.Linear(WIDTH, WIDTH)
        self.body = choice
        self.act = nn.ReLU(inplace=then == "layer")
        self.then = then

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        y = self.body(h)
        if self.then == "layer":
            return h + self.act(y)
        if self.then == "function":
            return h + torch.relu_(y)
        if self.then == "sum":
            y += h
            return y * h
        assert self.then == "input"
        h += 1
        return y * h


class Skip(nn.Module):
    """A skip connection of one's own."""

    def forward(self, x: Tensor) -> Tensor:
        return x.view(x.shape)


SKIPS = {
    "identity": nn.Identity,
    "own": Skip,
    "dropout": lambda: nn.Dropout(0.0),
    "sequence": lambda: nn.Sequential(nn.Identity()),
}


@pytest.mark.parametrize("then", ["layer", "function", "sum", "input"])
@pytest.mark.parametrize("skip", SKIPS)
@pytest.mark.parametrize("training", [True, False])
def test_a_derived_skip_is_a_copy_where_its_output_or_input_is_changed_in_place(
    skip, then, training
):
    torch.manual_seed(0)
    choice = Choice({"linear": nn.Linear(WIDTH, WIDTH), "skip": SKIPS[skip]()}, name="body")
    supernet = ModuleSupernet(Consumer(choice, then)).train(training)
    x = torch.randn(5, WIDTH)
    supernet(x)
    for name in ("linear", "skip"):
        derived = supernet.derived({"body": name})
        mixture = supernet(x, draw=supernet.one_hot_draw({"body": name}))
        assert torch.allclose(derived(x), mixture)
        assert not has_choice(derived)
    assert isinstance(supernet.derived({"body": "linear"}).body, nn.Linear)


def test_a_skip_stays_an_identity_where_nothing_is_changed_in_place():
    net = nn.Sequential(nn.Linear(WIDTH, WIDTH), body(), nn.Tanh(), nn.Linear(WIDTH, 3))
    supernet = ModuleSupernet(net)
    assert isinstance(supernet.derived({"body": "skip"})[1], nn.Identity)
    supernet(torch.randn(2, WIDTH))
    assert isinstance(supernet.derived({"body": "skip"})[1], nn.Identity)


def test_a_decision_that_was_read_is_careful_where_a_layer_is_in_place():
    """Nothing has run, so nothing is known but the layers."""
    torch.manual_seed(0)
    net = Consumer(body(), "layer")
    x = torch.randn(5, WIDTH)
    h = net.stem(x)
    expected = h + torch.relu(h)
    assert torch.allclose(with_chosen(net, {"body": "skip"})(x), expected)


class TwoInputs(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return x, y


class Sum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return self.layer(x), y + x


def test_what_no_copy_can_be_put_behind_is_refused():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = Choice({"sum": Sum(), "skip": TwoInputs()}, name="body")

        def forward(self, x: Tensor) -> Tensor:
            h = 2 * x
            first, second = self.body(h, x)
            return torch.relu_(first) + second + h

    supernet = ModuleSupernet(Net())
    supernet(torch.randn(3, WIDTH))
    supernet.derived({"body": "sum"})
    with pytest.raises(ValueError, match=r"'skip' gives its input on.*inplace=False"):
        supernet.derived({"body": "skip"})


# ---- lists that torch does not see ---------------------------------------------------------------


def test_a_choice_in_a_plain_list_is_refused_where_it_lies():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = body()
            self.inner = nn.Sequential(nn.Tanh())
            self.inner.rest = {"x": [nn.Sequential(body("other"))]}

    with pytest.raises(ValueError, match=r"'inner\.rest' of Net.*nn\.ModuleList"):
        Search(Net())


def test_the_padding_by_nothing_is_a_copy():
    for x in (torch.randn(3), torch.arange(4), torch.tensor([float("nan"), -0.0, float("inf")])):
        y = nn.ConstantPad1d(0, 0.0)(x)
        assert y.data_ptr() != x.data_ptr()
        assert torch.equal(y, x) or x.isnan().any()
        assert torch.equal(torch.signbit(y), torch.signbit(x)) and y.dtype == x.dtype


def test_gradients_go_through_the_copy():
    torch.manual_seed(0)
    supernet = ModuleSupernet(Consumer(body(), "layer"))
    x = torch.randn(5, WIDTH)
    with using(supernet.dense_draw()):
        supernet(x)
    derived = supernet.derived({"body": "skip"})
    (grad,) = torch.autograd.grad(derived(x).square().sum(), derived.stem.weight)
    h = F.linear(x, supernet.net.stem.weight, supernet.net.stem.bias)
    out = (h + torch.relu(h)).square().sum()
    (expected,) = torch.autograd.grad(out, supernet.net.stem.weight)
    assert torch.allclose(grad, expected)
