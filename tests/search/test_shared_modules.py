"""A module that lies in two places is one module: in every pass, in the step, in the network.

The oracle is the same network with the sharing written out: one module, called twice, or two
modules that hold one parameter.
"""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from cases import GRADIENTS, RELAXATIONS, name_of
from torch import Tensor, nn

from gradnas import BinaryGates, Choice, FirstOrder, Reinforce, Search, Softmax, Unrolled
from gradnas.modules.draws import using
from gradnas.search.sampling import ALPHA_NOISE

pytestmark = pytest.mark.slow  # many combinations, or whole runs

WIDTH = 4
TOLERANCE = 1e-10


def tied(module: nn.Module) -> nn.Module:
    """A second module with the very parameters and buffers of the first."""
    other = copy.deepcopy(module)
    for own, twin in zip(module.modules(), other.modules(), strict=True):
        twin._parameters.update(own._parameters)
        twin._buffers.update(own._buffers)
    return other


def block() -> nn.Module:
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH))


def body() -> Choice:
    return Choice({"a": block(), "b": nn.Linear(WIDTH, WIDTH), "skip": nn.Identity()}, name="body")


def twice(one: nn.Module, other: nn.Module) -> nn.Module:
    return nn.Sequential(one, nn.Tanh(), other, body(), nn.Linear(WIDTH, 3))


def two_choices(one: nn.Module, other: nn.Module) -> nn.Module:
    first = Choice({"shared": one, "own": nn.Linear(WIDTH, WIDTH)}, name="first")
    second = Choice({"own": nn.Linear(WIDTH, WIDTH), "shared": other}, name="second")
    return nn.Sequential(first, nn.Tanh(), second, nn.Linear(WIDTH, 3))


def choice_twice(one: nn.Module, other: nn.Module) -> nn.Module:
    return nn.Sequential(one, nn.Tanh(), other, nn.Linear(WIDTH, 3))


class Alias(nn.Module):
    """Attributes that are entries of a list."""

    def __init__(self, one: nn.Module, other: nn.Module) -> None:
        super().__init__()
        self.first = one
        self.layers = nn.ModuleList([other])
        self.body = body()
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers[0](torch.tanh(self.first(x)))
        return self.head(self.body(torch.tanh(self.first(x))))


CASES = {
    "twice": (twice, block),
    "two_choices": (two_choices, block),
    "choice_twice": (choice_twice, body),
    "alias": (Alias, block),
}


def pair(name: str) -> tuple[nn.Module, nn.Module]:
    """The network with the sharing, and with the sharing written out; the same numbers."""
    network, shared = CASES[name]
    nets = []
    for share in (lambda module: module, tied):
        torch.manual_seed(0)
        module = shared().double()
        nets.append(network(module, share(module)).double())
    return nets[0], nets[1]


def batch(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(8, WIDTH, generator=generator, dtype=torch.float64)
    return x, torch.randint(3, (8,), generator=generator)


def loss_on(seed: int):
    x, y = batch(seed)
    return lambda net: F.cross_entropy(net(x), y)


def alpha_gradient(search: Search) -> dict[str, Tensor]:
    noise = search.passes.noise(ALPHA_NOISE)
    inner = None
    if search.gradient.needs_inner_step:
        inner = search.weight_step.inner_step(search.gradient)
    grads, _ = search.alpha_step.gradient(loss_on(0), loss_on(1), noise, inner)
    return grads


def snapshot(net: nn.Module) -> list[tuple[Tensor | None, Tensor | None]]:
    """What every slot holds, and a copy of its value."""
    held = []
    for module in net.modules():
        for tensor in [*module._parameters.values(), *module._buffers.values()]:
            held.append((tensor, None if tensor is None else tensor.detach().clone()))
    return held


def is_untouched(net: nn.Module, before: list[tuple[Tensor | None, Tensor | None]]) -> bool:
    for (tensor, value), (now, _) in zip(before, snapshot(net), strict=True):
        if now is not tensor:
            return False
        if tensor is not None and not torch.equal(tensor, value):
            return False
    return True


@pytest.mark.parametrize("gradient", GRADIENTS, ids=name_of)
@pytest.mark.parametrize("relaxation", RELAXATIONS, ids=name_of)
@pytest.mark.parametrize("name", CASES)
def test_gradients_and_steps_are_those_of_the_sharing_written_out(name, relaxation, gradient):
    if gradient.differentiates_twice and relaxation.once_differentiable:
        return
    shared, written_out = pair(name)
    one = Search(shared, relaxation, gradient, epochs=2)
    other = Search(written_out, relaxation, gradient, epochs=2)
    assert len(one.params) == len(other.params)
    for _ in range(2):
        before = snapshot(one.supernet)
        grads = alpha_gradient(one)
        assert is_untouched(one.supernet, before)
        expected = alpha_gradient(other)
        for key, grad in grads.items():
            assert torch.allclose(grad, expected[key], rtol=0, atol=TOLERANCE)
            assert grad.abs().max() > 0 or relaxation in RELAXATIONS[1:]
        one.step(loss_on(0), loss_on(1))
        other.step(loss_on(0), loss_on(1))
        found = shared.state_dict()
        for key, tensor in written_out.state_dict().items():
            assert torch.allclose(found[key].double(), tensor.double(), atol=TOLERANCE), key
    for slot in shared.modules():
        for p in slot._parameters.values():
            assert isinstance(p, nn.Parameter)
            assert any(p is trained for trained in one.params.values())


@pytest.mark.parametrize("name", CASES)
def test_rewards_of_sampled_networks_change_nothing(name):
    shared, _ = pair(name)
    search = Search(shared, BinaryGates("two"), Reinforce(samples=3))
    before = snapshot(search.supernet)
    search.rewards.gradient(loss_on(0))
    search.probe(loss_on(0))
    assert is_untouched(search.supernet, before)


def test_a_shared_layer_learns_after_the_alphas_did():
    """The smallest input: torch's functional_call left a plain tensor in the slot."""
    layer = nn.Linear(WIDTH, WIDTH)
    net = nn.Sequential(layer, nn.ReLU(), layer, body(), nn.Linear(WIDTH, 3)).double()
    search = Search(net)
    before = layer.weight.detach().clone()
    for _ in range(3):
        search.step(loss_on(0), loss_on(1))
    assert isinstance(layer.weight, nn.Parameter)
    assert search.params["net.0.weight"] is layer.weight
    assert (layer.weight - before).abs().max() > 1e-3


@pytest.mark.parametrize("mode", ["full", "recompute", "two"])
def test_a_probe_of_an_operation_with_a_layer_twice(mode):
    """Probed operations hold their weights in the pass, and their own again after it."""

    def operation() -> nn.Module:
        layer = block()
        return nn.Sequential(layer, nn.Tanh(), layer)

    torch.manual_seed(0)
    choice = Choice({"a": operation(), "b": operation()}, name="body")
    net = nn.Sequential(choice, nn.Linear(WIDTH, 3)).double()
    search = Search(net, BinaryGates(mode), FirstOrder())
    noise = search.passes.noise(ALPHA_NOISE)
    before = snapshot(search.supernet)
    grads, _ = search.alpha_step.gradient(loss_on(0), loss_on(1), noise, None)
    assert is_untouched(search.supernet, before)

    # <dL/dy, o_k>, and through softmax(alpha) of both.
    draw = search.relaxation.draw(dict(search.alphas), noise, 0.0)
    twin = copy.deepcopy(net)
    x, y = batch(1)
    outputs = [twin[0].operations[key](x) for key in ("a", "b")]
    active = draw.active["body"][0][0]
    out = outputs[active].detach().requires_grad_()
    (slope,) = torch.autograd.grad(F.cross_entropy(twin[1](out), y), out)
    products = torch.stack([(slope * o).sum() for o in outputs]).detach()
    alpha = search.alphas["body"].detach().requires_grad_()
    (expected,) = torch.autograd.grad((torch.softmax(alpha, 0) * products).sum(), alpha)
    assert torch.allclose(grads["body"], expected, rtol=0, atol=TOLERANCE)


class Forgets(nn.Module):
    """A buffer without a value gets one in the pass."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("last", None)
        self.layer = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        h = self.layer(x)
        self.last = h.detach().mean(0)
        return h


@pytest.mark.parametrize("gradient", [FirstOrder(), Unrolled()], ids=name_of)
def test_a_buffer_that_a_probing_pass_sets_is_taken_back(gradient):
    net = nn.Sequential(Forgets(), body(), nn.Linear(WIDTH, 3)).double()
    search = Search(net, Softmax(), gradient)
    alpha_gradient(search)
    assert net[0].last is None
    with using(search.supernet.dense_draw()):
        search.step(loss_on(0), loss_on(1))
    assert net[0].last is not None


class Listed(nn.Module):
    """It computes with parameters from a list, a dictionary and an attribute of its own."""

    def __init__(self, plainly: bool) -> None:
        super().__init__()
        self.one = nn.Linear(WIDTH, WIDTH)
        self.other = nn.Linear(WIDTH, WIDTH)
        self.body = body()
        self.head = nn.Linear(WIDTH, 3)
        self.plainly = plainly
        self.weights = [[self.one.weight], self.other.weight]
        self.biases = {"one": self.one.bias}
        self.__dict__["last"] = self.other.bias

    def forward(self, x: Tensor) -> Tensor:
        if self.plainly:
            x = torch.tanh(F.linear(x, self.weights[0][0], self.biases["one"]))
            x = torch.tanh(F.linear(x, self.weights[1], self.__dict__["last"]))
        else:
            x = torch.tanh(self.other(torch.tanh(self.one(x))))
        return self.head(self.body(x))


@pytest.mark.parametrize("gradient", GRADIENTS, ids=name_of)
def test_parameters_in_plain_lists_are_those_of_the_pass(gradient):
    grads = []
    for plainly in (True, False):
        torch.manual_seed(0)
        search = Search(Listed(plainly).double(), Softmax(), gradient)
        before = snapshot(search.supernet)
        grads.append(alpha_gradient(search)["body"])
        assert is_untouched(search.supernet, before)
        assert search.supernet.net.weights[1] is search.params["net.other.weight"]
    assert torch.allclose(*grads, rtol=0, atol=TOLERANCE)
