"""A state finds its place by names, is refused by another search, and brings loaders back."""

from __future__ import annotations

import copy
import io
import random

import pytest
import torch
import torch.nn.functional as F
from cases import TwoChoices, batch, loss_on
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import gradnas
from gradnas import (
    BinaryGates,
    Choice,
    ConvCell,
    ExpectedCost,
    FirstOrder,
    GumbelSoftmax,
    Implicit,
    Reinforce,
    Search,
    Sigmoid,
    Unrolled,
)


def through_a_file(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


# ---- names ---------------------------------------------------------------------------------------


class Ordered(nn.Module):
    """The same network, declared in one order or the other."""

    def __init__(self, turned: bool = False) -> None:
        super().__init__()
        operations = {
            "a": nn.Linear(4, 4),
            "b": nn.Sequential(nn.Linear(4, 4), nn.Tanh()),
            "c": nn.Identity(),
        }
        layers = {
            "stem": nn.Linear(4, 4),
            "body": operations,
            "head": nn.Linear(4, 4),
        }
        if turned:
            layers = {name: layers[name] for name in ("head", "body", "stem")}
            layers["body"] = {name: operations[name] for name in ("c", "b", "a")}
        for name, layer in layers.items():
            if name == "body":
                layer = Choice(layer, name="body")
            setattr(self, name, layer)
        self.again = self.stem  # a second name of one layer

    def forward(self, x):
        return self.head(self.body(self.again(self.stem(x))))


def least_squares(seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(6, 4, generator=generator)
    y = torch.randn(6, 4, generator=generator)
    return lambda net: F.mse_loss(net(x), y)


@pytest.mark.parametrize("weights", [gradnas.WeightOptimizer(lr=0.1), torch.optim.AdamW])
def test_another_order_of_layers_and_operations(weights):
    """... goes on as the search would have: alphas, momenta, and Adam's moments by name."""
    settings = {"alphas": gradnas.AlphaOptimizer(lr=0.1), "weights": weights}
    torch.manual_seed(0)
    whole = Search(Ordered(), **settings)
    for step in range(3):
        whole.step(least_squares(step), least_squares(10 + step))
    state = through_a_file(whole.state_dict())
    turned = Search(Ordered(turned=True), **settings)
    turned.load_state_dict(state)
    columns = [whole.supernet.names["body"].index(name) for name in ("c", "b", "a")]
    assert torch.equal(turned.alphas["body"], whole.alphas["body"][columns])
    for search in (whole, turned):
        for step in range(3, 6):
            search.step(least_squares(step), least_squares(10 + step))
    assert torch.allclose(turned.alphas["body"], whole.alphas["body"][columns], atol=1e-6)
    theirs = turned.supernet.net.state_dict()
    for name, tensor in whole.supernet.net.state_dict().items():
        assert torch.allclose(theirs[name], tensor, atol=1e-6), name
    assert turned.result().choices == whole.result().choices


def test_other_operations_are_refused_by_name():
    def one(names):
        return Search(
            nn.Sequential(
                Choice({name: nn.Linear(4, 4) for name in names}, name="body"), nn.Linear(4, 4)
            )
        )

    with pytest.raises(ValueError, match=r"choice 'body' has the operations \['a', 'b'\], here"):
        one("ac").load_state_dict(one("ab").state_dict())


def test_a_space_in_another_order_is_refused():
    operations = gradnas.DARTS_OPERATIONS
    turned = dict(reversed(operations.items()))
    one, other = (
        Search(ConvCell(channels=4, cells=2, nodes=2, operations=o).supernet())
        for o in (operations, turned)
    )
    with pytest.raises(ValueError, match=r"in the order .* build the space with that order"):
        other.load_state_dict(one.state_dict())


# ---- other searches ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "sentence"),
    [
        ({"relaxation": BinaryGates()}, {}, r"relaxation BinaryGates.*this one has Softmax\(\)"),
        (
            {"relaxation": GumbelSoftmax(hard=True)},
            {"relaxation": GumbelSoftmax(hard=False)},
            "hard=True.*hard=False",
        ),
        ({}, {"relaxation": Sigmoid()}, "relaxation Softmax.*Sigmoid"),
        ({"gradient": Unrolled()}, {}, r"gradient Unrolled\(.*this one has FirstOrder\(\)"),
        ({"gradient": FirstOrder()}, {"gradient": Implicit()}, "FirstOrder.*Implicit"),
        (
            {"relaxation": BinaryGates(), "gradient": Reinforce()},
            {"relaxation": BinaryGates()},
            "Reinforce.*FirstOrder",
        ),
        ({}, {"weights": torch.optim.AdamW}, "optimiser of the weights SGD, this one has AdamW"),
        (
            {"cost": ExpectedCost(budget_params=900), "example": batch(0)[0]},
            {},
            "cost params, this one has none",
        ),
    ],
)
def test_a_state_of_another_search(one, other, sentence):
    state = Search(TwoChoices(), epochs=2, **one).state_dict()
    search = Search(TwoChoices(), epochs=2, **other)
    before = copy.deepcopy(search.supernet.state_dict())
    with pytest.raises(ValueError, match=sentence):
        search.load_state_dict(through_a_file(state))
    for name, tensor in search.supernet.state_dict().items():
        assert torch.equal(tensor, before[name])


# ---- loaders -------------------------------------------------------------------------------------


class Noisy(TensorDataset):
    """Augmented with torch's global random numbers."""

    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return x + 0.1 * torch.randn(x.shape), y


def shuffling(kind):
    """Fresh loaders of train and validation batches."""
    train = [torch.cat(parts) for parts in zip(*[batch(k) for k in range(3)], strict=True)]
    valid = [torch.cat(parts) for parts in zip(*[batch(9 + k) for k in range(2)], strict=True)]
    shared = torch.Generator().manual_seed(5)
    own = {
        "global": lambda seed: None,
        "noisy": lambda seed: None,
        "generator": lambda seed: torch.Generator().manual_seed(seed),
        "shared": lambda seed: shared,
    }[kind]
    data = Noisy if kind == "noisy" else TensorDataset
    return (
        DataLoader(data(*train), batch_size=5, shuffle=True, generator=own(1)),
        DataLoader(data(*valid), batch_size=3, shuffle=True, generator=own(2)),
    )


def going(search, loaders, epochs, stop_at=None):
    for _ in range(epochs):
        for train, valid in search.pairs(*loaders):
            search.step(loss_on(train), loss_on(valid))
            if search.steps == stop_at:
                return


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["global", "generator", "shared", "noisy"])
@pytest.mark.parametrize("stop_at", [5, 7, 10, 13])  # 5 steps an epoch
def test_a_shuffling_loader_goes_on_where_it_was(kind, stop_at):
    """... between epochs and within one, with the order that it would have had."""
    torch.manual_seed(3)
    whole = Search(TwoChoices(dropout=0.3), epochs=4)
    going(whole, shuffling(kind), 4)
    expected = whole.supernet.state_dict()

    torch.manual_seed(3)
    first = Search(TwoChoices(dropout=0.3), epochs=4)
    in_the_middle = stop_at != 5  # 10: after the last step of an epoch, which is not over yet
    if in_the_middle:
        going(first, shuffling(kind), 4, stop_at)
    else:
        going(first, shuffling(kind), stop_at // 5)
    state = through_a_file(first.state_dict())
    torch.manual_seed(77)
    second = Search(TwoChoices(dropout=0.3), epochs=4)
    second.load_state_dict(state)
    again = through_a_file(second.state_dict())  # saved again before any step
    second.load_state_dict(again)
    going(second, shuffling(kind), 4 - second.epoch)
    assert second.steps == 20
    for name, tensor in second.supernet.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


class Anyhow:
    """Shuffles with Python's own numbers."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        order = list(self.batches)
        random.shuffle(order)
        yield from order


def test_a_loader_that_does_not_repeat_itself_is_named():
    random.seed(0)
    loaders = ([batch(k) for k in range(3)], Anyhow([batch(k) for k in range(10, 18)]))
    search = Search(TwoChoices())
    going(search, loaders, 1)
    other = Search(TwoChoices())
    other.load_state_dict(search.state_dict())
    with pytest.warns(UserWarning, match=r"the validation loader \(Anyhow\) does not give"):
        going(other, loaders, 1)


def test_a_loader_with_other_generators_is_named():
    search = Search(TwoChoices())
    going(search, shuffling("generator"), 1)
    other = Search(TwoChoices())
    other.load_state_dict(search.state_dict())
    train, _ = shuffling("global")
    with pytest.warns(UserWarning, match="train loader has 0 torch generators .* had 1"):
        going(other, (train, shuffling("generator")[1]), 1)


def test_a_state_of_an_earlier_version_says_what_to_do():
    search = Search(Ordered())
    state = search.state_dict()
    for name in ("kinds", "operations", "weight_names", "alpha_names", "feed"):
        del state[name]
    with pytest.raises(ValueError, match=r"earlier version.*lacks .*kinds.*state\['supernet'\]"):
        Search(Ordered()).load_state_dict(state)
    other = Search(Ordered())
    other.supernet.load_state_dict(state["supernet"])  # as the sentence says
