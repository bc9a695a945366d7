"""Outputs of real layers: containers of any kind keep their type, and what they hold is mixed."""

from __future__ import annotations

from collections import OrderedDict, UserDict, defaultdict, namedtuple
from dataclasses import dataclass, fields
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gradnas
from gradnas import Choice, Draw
from gradnas.latency.recorder import tensors_in
from gradnas.modules.draws import using
from gradnas.modules.nesting import put_together, take_apart
from gradnas.search.feed import to_device

Pair = namedtuple("Pair", "y state")


@dataclass(frozen=True)
class Frozen:
    y: Tensor
    state: tuple[Tensor, ...] | None = None
    name: str = "frozen"


@dataclass
class Output(OrderedDict):
    """As Hugging Face's: a dataclass, and an ordered dictionary of what is not None."""

    logits: Tensor
    hidden: tuple[Tensor, ...] | None = None
    loss: Tensor | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None:
                self[field.name] = value

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        super().__setattr__(key, value)

    def __delitem__(self, *args: Any) -> None:
        raise TypeError("not here")


class WithNote(dict):
    """A dictionary with an attribute of its own."""

    def __init__(self, note: str, **items: Any) -> None:
        super().__init__(**items)
        self.note = note


class Gives(nn.Module):
    """A layer that gives what `make` makes of `x * factor`."""

    def __init__(self, factor, make):
        super().__init__()
        self.factor = factor
        self.make = make

    def forward(self, x):
        return self.make(x * self.factor)


def with_note(y):
    return WithNote("kept", y=y, none=None)


MAKERS = {
    "none": lambda y: (y, None),
    "numbers": lambda y: (y, 3, 2.5, True, "text", torch.float32, torch.Size([1])),
    "pair": lambda y: Pair(y, None),
    "frozen": lambda y: Frozen(y, (y + 1.0,)),
    "model output": lambda y: Output(logits=y, hidden=(y, y + 1.0)),
    "note": with_note,
    "ordered": lambda y: OrderedDict(b=y, a=y + 1.0),
    "default": lambda y: defaultdict(list, {"y": y}),
    "user dict": lambda y: UserDict({"y": y}),
    "namespace": lambda y: SimpleNamespace(y=y, more=[y]),
    "max": lambda y: torch.max(y + torch.tensor([0.0, 9.0]), dim=0),
    "packed": lambda y: nn.utils.rnn.pack_sequence([y[:1, None], y[1:, None]]),
    "array": lambda y: (y, np.float64(2.0)),
}
X = torch.tensor([1.0, 2.0])


def tensors_of(value):
    tensors = []
    take_apart(value, tensors)
    return tensors


@pytest.mark.parametrize("name", MAKERS)
def test_containers_keep_their_type_and_tensors_are_mixed(name):
    make = MAKERS[name]
    choice = Choice({"two": Gives(2.0, make), "four": Gives(4.0, make)}, name="c")
    with using(Draw.dense({"c": torch.tensor([0.25, 0.75])})):
        mixed = choice(X)
    expected = make(X * 3.5)
    assert type(mixed) is type(expected)
    for one, other in zip(tensors_of(mixed), tensors_of(expected), strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other)


def test_attributes_stay_the_items_that_they_were():
    make = MAKERS["model output"]
    mixed = Choice({"two": Gives(2.0, make), "four": Gives(4.0, make)}, name="c")(X)
    assert mixed.logits is mixed["logits"] and torch.equal(mixed.logits, X * 3.0)
    assert mixed.hidden is mixed["hidden"] and mixed.loss is None
    assert list(mixed) == ["logits", "hidden"]
    noted = Choice({"two": Gives(2.0, with_note), "four": Gives(4.0, with_note)}, name="c")(X)
    assert noted.note == "kept" and torch.equal(noted["y"], X * 3.0) and noted["none"] is None


def test_dictionaries_are_mixed_by_their_keys_not_by_their_order():
    first = Gives(1.0, lambda y: {"a": y, "b": 10 * y})
    second = Gives(3.0, lambda y: {"b": 10 * y, "a": y})
    mixed = Choice({"first": first, "second": second}, name="c")(X)
    assert torch.equal(mixed["a"], X * 2.0) and torch.equal(mixed["b"], X * 20.0)


@pytest.mark.parametrize("mode", ["full", "recompute"])
def test_probes_are_matched_by_their_keys_too(mode):
    first = Gives(1.0, lambda y: {"a": y, "b": 10 * y, "none": None})
    second = Gives(3.0, lambda y: {"none": None, "b": 10 * y, "a": y})
    choice = Choice({"first": first, "second": second}, name="c")
    mix = torch.tensor([1.0, 0.0], requires_grad=True)
    draw = Draw({"c": mix}, {"c": ((0,),)}, probed={"c": ((1,),)}, deferred=mode == "recompute")
    with using(draw):
        output = choice(X)
    (output["a"].sum() + 100 * output["b"].sum()).backward()
    # The active one is not in the graph of its weight here; the probe's is <grad, output>.
    assert mix.grad is not None
    assert mix.grad[1].item() == pytest.approx(9.0 + 100 * 90.0)


@pytest.mark.parametrize("gradient", [gradnas.FirstOrder(), gradnas.Unrolled()])
def test_attention_without_weights_can_be_searched(gradient):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            heads = {str(h): nn.MultiheadAttention(4, h, batch_first=True) for h in (1, 2)}
            self.attention = Choice(heads, name="heads")

        def forward(self, x):
            y, weights = self.attention(x, x, x, need_weights=False)
            assert weights is None
            return y.square().mean()

    search = gradnas.Search(Net(), gradient=gradient)
    x = torch.randn(2, 3, 4)
    search.step(lambda net: net(x), lambda net: net(x))


DIFFERENT = {
    "int tensors": (
        lambda y: (y, torch.tensor([1])),
        lambda y: (y, torch.tensor([2])),
        "integers of shape",
    ),
    "bool tensors": (
        lambda y: (y, torch.tensor([True])),
        lambda y: (y, torch.tensor([False])),
        "booleans of shape",
    ),
    "none and tensor": (lambda y: (y, None), lambda y: (y, y), "NoneType.*Tensor"),
    "floats": (lambda y: (y, 0.5), lambda y: (y, 0.75), "0.5.*0.75"),
    "texts": (lambda y: {"y": y, "t": "a"}, lambda y: {"y": y, "t": "b"}, "'t'.*'a'.*'b'"),
    "int and float tensor": (lambda y: y, lambda y: y.long(), "not agree|outputs must"),
    "keys": (lambda y: {"a": y}, lambda y: {"b": y}, "dict"),
    "lengths": (lambda y: (y, y), lambda y: (y,), "tuple"),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_what_cannot_be_mixed_must_agree_or_is_refused_by_name(name):
    first, second, words = DIFFERENT[name]
    choice = Choice({"one": Gives(1.0, first), "other": Gives(2.0, second)}, name="body")
    with pytest.raises(ValueError, match=words) as error:
        choice(X)
    for part in ("'body'", "one", "other"):
        assert part in str(error.value)


@pytest.mark.parametrize("mode", ["full", "recompute"])
def test_probes_must_agree_too(mode):
    first = Gives(1.0, lambda y: (y, torch.tensor([1])))
    second = Gives(2.0, lambda y: (y, torch.tensor([2])))
    net = nn.Sequential(Choice({"one": first, "other": second}, name="body"))
    net.weight = nn.Parameter(torch.ones(2))
    search = gradnas.Search(net, gradnas.BinaryGates(mode=mode))
    with pytest.raises(ValueError, match=r"'body'.*gives"):
        search.step(lambda net: net(X)[0].sum(), lambda net: net(X)[0].sum())


def test_integer_tensors_that_agree_stay_integers():
    def make(y):
        return y, torch.tensor([4, 5])

    mixed = Choice({"a": Gives(1.0, make), "b": Gives(3.0, make)}, name="c")(X)
    assert mixed[1].dtype == torch.int64 and mixed[1].tolist() == [4, 5]


def test_taking_apart_and_putting_together():
    for make in MAKERS.values():
        value = make(X)
        tensors = []
        template = take_apart(value, tensors)
        again = put_together(template, iter(tensors))
        assert type(again) is type(value)
        for one, other in zip(tensors_of(again), tensors, strict=True):
            assert one is other


def test_batches_keep_their_containers_when_they_are_moved():
    for make in MAKERS.values():
        batch = make(X)
        moved = to_device(batch, torch.device("meta"))
        assert type(moved) is type(batch)
        if isinstance(batch, nn.utils.rnn.PackedSequence):
            assert moved.data.is_meta and not moved.batch_sizes.is_meta
        else:
            assert all(tensor.is_meta for tensor in tensors_of(moved))


def test_the_tensors_of_outputs_are_seen_by_costs():
    for make in MAKERS.values():
        assert [id(t) for t in tensors_in(make(X))] != []
    first, second = tensors_in(Frozen(X, (X + 1.0,)))
    assert first is X and torch.equal(second, X + 1.0)
