"""Changes in place behind a decision that was only read: no pass has told of them."""

from __future__ import annotations

import functools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gradnas
from gradnas import Choice, Search
from gradnas.modules.written_in_place import may_give_its_input, may_write_in_place

WIDTH = 4


def helper(x: Tensor) -> Tensor:
    return F.relu(x, inplace=True)


class Tail(nn.Module):
    """Changes its input in one of many ways."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.act = functools.partial(F.relu, inplace=True)


class Method(Tail):
    def forward(self, x):
        return x.relu_()


class Augmented(Tail):
    def forward(self, x):
        x += 1
        return x


class Item(Tail):
    def forward(self, x):
        x[:, 0] = 0
        return x


class Named(Tail):
    def forward(self, x):
        return F.relu(x, inplace=True)


class ByPosition(Tail):
    def forward(self, x):
        return F.relu(x, True)


class Out(Tail):
    def forward(self, x):
        return torch.mul(x, 2, out=x)


class Helper(Tail):
    def forward(self, x):
        return helper(x)


class OwnMethod(Tail):
    def forward(self, x):
        return self.changed(x)

    def changed(self, x):
        return torch.relu_(x)


class Attribute(Tail):
    def forward(self, x):
        return self.act(x)


TAILS = [Method, Augmented, Item, Named, ByPosition, Out, Helper, OwnMethod, Attribute]


class Own(nn.Module):
    """An operation that gives on what it is given, and has weights."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x):
        return x.reshape(x.shape)


class Net(nn.Module):
    def __init__(self, tail: nn.Module, skip: nn.Module) -> None:
        super().__init__()
        self.first = nn.Linear(WIDTH, WIDTH)
        self.body = Choice({"layer": nn.Linear(WIDTH, WIDTH), "skip": skip}, name="body")
        self.tail = tail
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x):
        h = torch.tanh(self.first(x)) * 1.0
        return self.head(h + self.tail(self.body(h)))


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("skip", [nn.Identity, nn.Dropout, Own])
def test_a_decision_that_was_only_read_equals_its_supernet(tail, skip):
    torch.manual_seed(0)
    net = Net(tail("way"), skip())
    read = gradnas.derive(net, {"body": "skip"}).eval()
    search = Search(net.eval())
    unseen = search.supernet.derived({"body": "skip"})
    x = torch.randn(5, WIDTH)
    with torch.no_grad():
        one_hot = search.supernet.one_hot_draw({"body": "skip"})
        right = search.supernet(x, draw=one_hot)
        torch.testing.assert_close(read(x), right)
        torch.testing.assert_close(unseen(x), right)
        # The names of the weights are the same, whether a pass was seen or not.
        seen = search.supernet.derived({"body": "skip"})
        torch.testing.assert_close(seen(x), right)
    seen.load_state_dict(read.state_dict())


def test_nothing_is_copied_where_nothing_writes():
    class Plain(nn.Module):
        def forward(self, x):
            return torch.relu(x) + 1

    net = Net(Plain(), nn.Identity())
    assert not may_write_in_place(net, known=(Choice,))
    derived = gradnas.derive(net, {"body": "skip"})
    assert type(derived.body) is nn.Identity and not derived.body._forward_hooks


def test_layers_that_make_an_output_of_their_own_are_known():
    conv = nn.Conv2d(3, 3, 1)
    assert not may_give_its_input(conv)
    assert not may_give_its_input(nn.Sequential(nn.Identity(), conv, nn.Dropout()))
    assert may_give_its_input(nn.Sequential(nn.Identity(), nn.Flatten()))
    assert may_give_its_input(nn.Sequential())
    assert may_give_its_input(Own())


class Changes(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x):
        return self.conv(x.clamp_(min=0))


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_a_trained_cell_names_an_operation_that_changes_its_input(mode):
    operations = {
        "changes": lambda channels, stride, affine: Changes(channels),
        "skip_connect": gradnas.DARTS_OPERATIONS["skip_connect"],
    }
    space = gradnas.ConvCell(channels=4, cells=3, nodes=2, operations=operations)
    edges = "[('changes', 0), ('skip_connect', 1), ('changes', 2), ('changes', 1)]"
    reduce = "[('skip_connect', 0), ('skip_connect', 1), ('skip_connect', 1), ('skip_connect', 0)]"
    genotype = gradnas.Genotype.parse(
        f"Genotype(normal={edges}, normal_concat=[2, 3], reduce={reduce}, reduce_concat=[2, 3])"
    )
    network = space.network(genotype, 5, 3).eval()
    with mode(), pytest.raises(ValueError, match=r"'changes' of node 2 on state 0.*in place"):
        network(torch.randn(2, 3, 8, 8))


@pytest.mark.parametrize("way, writes", [("relu_", True), ("relu", False)])
def test_classes_that_exec_made_without_a_module(way, writes):
    """Their methods say None of the module that they are of."""
    space = {"nn": nn}
    exec(f"class Made(nn.Module):\n    def forward(self, x):\n        return x.{way}()", space)
    assert space["Made"].forward.__module__ is None
    assert may_write_in_place(space["Made"](), ()) is writes
