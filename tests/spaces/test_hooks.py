"""Hooks of a choice go over to what takes its place, in their order, or are refused."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import gradnas
from gradnas import Choice, Search

X = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(8) % 3


def loss(net):
    return F.cross_entropy(net(X), Y)


def before(module, args):
    return (args[0] + 1.0,)


def before_with_names(module, args, kwargs):
    return (args[0] * 2.0,), kwargs


def after(module, args, output):
    return output * 3.0


def after_with_names(module, args, kwargs, output):
    return output - 1.0


def hooked(module):
    module.register_forward_pre_hook(before)
    module.register_forward_pre_hook(before_with_names, with_kwargs=True)
    module.register_forward_hook(after)
    module.register_forward_hook(after_with_names, with_kwargs=True)
    return module


def one_hot_output(search, decision):
    return search.supernet(X, draw=search.supernet.one_hot_draw(decision))


@pytest.mark.parametrize("operation", ["linear", "skip"])
def test_the_derived_network_has_the_hooks_of_the_choice_and_of_the_operation(operation):
    operations = {"linear": hooked(nn.Linear(4, 4)), "skip": nn.Identity()}
    net = nn.Sequential(hooked(Choice(operations, name="c")), nn.ReLU(inplace=True))
    net.append(nn.Linear(4, 3))
    search = Search(net)
    search.step(loss, loss)
    derived = search.supernet.derived({"c": operation})
    assert not any(isinstance(part, Choice) for part in derived.modules())
    torch.testing.assert_close(derived(X), one_hot_output(search, {"c": operation}))
    hand = (X + 1.0) * 2.0
    if operation == "linear":
        hand = (hand + 1.0) * 2.0
        hand = F.linear(hand, operations["linear"].weight, operations["linear"].bias)
        hand = hand * 3.0 - 1.0
    hand = F.relu(hand * 3.0 - 1.0)
    torch.testing.assert_close(derived(X), net[2](hand))
    # And the module that was searched has its own as before.
    assert len(operations["linear"]._forward_hooks) == 2


def test_nested_choices_and_a_choice_in_two_places():
    inner = hooked(Choice({"a": nn.Linear(4, 4), "b": nn.Tanh()}, name="inner"))
    outer = hooked(Choice({"inner": inner, "skip": nn.Identity()}, name="outer"))
    search = Search(nn.Sequential(outer, nn.Tanh(), outer, nn.Linear(4, 3)))
    for decision in ({"outer": "inner", "inner": "a"}, {"outer": "inner", "inner": "b"}):
        derived = search.supernet.derived(decision)
        torch.testing.assert_close(derived(X), one_hot_output(search, decision))
    derived = search.supernet.derived({"outer": "skip"})
    torch.testing.assert_close(derived(X), one_hot_output(search, {"outer": "skip"}))


def test_backward_hooks_are_kept():
    seen = []

    def full(module, grad_input, grad_output):
        seen.append(("full", grad_output[0].detach().clone()))

    def first(module, grad_output):
        seen.append(("first", grad_output[0].detach().clone()))

    choice = Choice({"a": nn.Linear(4, 4), "b": nn.Linear(4, 4)}, name="c")
    choice.register_full_backward_hook(full)
    choice.register_full_backward_pre_hook(first)
    net = nn.Sequential(nn.Linear(4, 4), choice, nn.Linear(4, 3))
    search = Search(net)
    derived = search.supernet.derived({"c": "a"})
    seen.clear()
    loss(derived).backward()
    assert [name for name, _ in seen] == ["first", "full"]
    torch.testing.assert_close(seen[0][1], seen[1][1])


def test_a_hook_that_would_run_elsewhere_too_is_refused():
    shared = nn.Linear(4, 4)
    first = hooked(Choice({"shared": shared, "own": nn.Linear(4, 4)}, name="first"))
    second = Choice({"own": nn.Linear(4, 4), "shared": shared}, name="second")
    search = Search(nn.Sequential(first, nn.Tanh(), second, nn.Linear(4, 3)))
    with pytest.raises(ValueError, match=r"Choice 'first' has hooks.*another place"):
        search.supernet.derived({"first": "shared", "second": "own"})
    decision = {"first": "own", "second": "shared"}
    derived = search.supernet.derived(decision)
    torch.testing.assert_close(derived(X), one_hot_output(search, decision))


class Doubled(Choice):
    def forward(self, x):
        return 2 * super().forward(x)


def test_what_a_derived_network_would_lose_is_refused_at_construction():
    operations = {"a": nn.Linear(4, 3), "b": nn.Linear(4, 3)}
    with pytest.raises(ValueError, match="forward of its own"):
        Search(nn.Sequential(Doubled(operations, name="c")))
    choice = Choice(operations, name="c")
    choice._register_state_dict_hook(lambda *args: None)
    with pytest.raises(ValueError, match="hook of its state_dict"):
        Search(nn.Sequential(choice))
    choice = Choice(operations, name="c")
    choice.scale = nn.Parameter(torch.ones(()))
    with pytest.raises(ValueError, match="parameters or buffers of its own"):
        Search(nn.Sequential(choice))


def test_a_file_of_choices_keeps_hooks_too():
    net = nn.Sequential(hooked(Choice({"a": nn.Linear(4, 3), "b": nn.Linear(4, 3)}, name="c")))
    derived = gradnas.derive(net, {"c": "b"})
    layer = net[0].operations["b"]
    expected = F.linear((X + 1.0) * 2.0, layer.weight, layer.bias) * 3.0 - 1.0
    torch.testing.assert_close(derived(X), expected)
