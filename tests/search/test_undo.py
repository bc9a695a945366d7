"""A step that cannot be made leaves everything as it was before it."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from cases import GRADIENTS, RELAXATIONS, TwoChoices, batch, loss_on
from torch import nn

import gradnas
from gradnas import NonFiniteError, Search

pytestmark = pytest.mark.slow  # many combinations, or whole runs

POLICY = [gradnas.Reinforce(samples=2)]


class Remembers(nn.Module):
    """Keeps a counter, its last output, and a buffer that each pass sets anew."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.last = None
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        self.last = x.detach()
        self.mean = 0.5 * self.mean + 0.5 * x.detach().mean()
        return x


def awkward(dropout: float = 0.3) -> TwoChoices:
    torch.manual_seed(0)
    net = TwoChoices(dropout)
    net.stem = nn.Sequential(net.stem, Remembers())
    return net


def broken(net):
    """The loss of a batch with a NaN in it."""
    x, y = batch(3)
    x[0, 0, 0, 0] = float("nan")
    return F.cross_entropy(net(x), y)


def raises(net):
    """A loss that fails after the network has run."""
    net(batch(3)[0])
    raise KeyError("lost")


def going(search, steps):
    for step in range(steps):
        search.step(loss_on(batch(step)), loss_on(batch(10 + step)))


def assert_same(one, other, where="state"):
    """Equal nestings, bit for bit."""
    assert type(one) is type(other), where
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_same(one[key], other[key], f"{where}[{key!r}]")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), where
        for place, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{where}[{place}]")
    else:
        assert one == other, where


def combinations():
    for relaxation in RELAXATIONS:
        for gradient in [*GRADIENTS, *POLICY]:
            samples = type(relaxation).__name__ in ("BinaryGates", "GumbelSoftmax")
            if gradient.num_samples and not (samples and getattr(relaxation, "hard", True)):
                continue
            if gradient.differentiates_twice and relaxation.once_differentiable:
                continue
            yield pytest.param(relaxation, gradient, id=f"{relaxation}-{gradient}")


@pytest.mark.parametrize(("relaxation", "gradient"), list(combinations()))
@pytest.mark.parametrize(
    ("where", "bad", "steps"),
    [("train", broken, 0), ("train", broken, 2), ("valid", broken, 2), ("train", raises, 2)],
)
def test_a_step_that_fails_changes_nothing(relaxation, gradient, where, bad, steps):
    """... and the steps after it are those of a search that never saw the bad batch."""
    net = awkward()
    search = Search(net, relaxation, gradient, epochs=3)
    going(search, steps)
    before = copy.deepcopy(search.state_dict())
    kept = net.stem[1].calls, net.stem[1].last

    good = loss_on(batch(4))
    losses = (bad, good) if where == "train" else (good, bad)
    with pytest.raises(NonFiniteError if bad is broken else KeyError):
        search.step(*losses)
    assert_same(before, search.state_dict())
    assert (net.stem[1].calls, net.stem[1].last) == (kept[0], kept[1])
    assert all(p.grad is None for p in search.supernet.parameters())

    search.step(good, loss_on(batch(5)))
    after = search.state_dict()
    twin = Search(awkward(), relaxation, gradient, epochs=3)
    going(twin, steps)
    twin.step(good, loss_on(batch(5)))
    assert_same(after, twin.state_dict())


@pytest.mark.parametrize("budget", [{"budget_params": 500}, {"target_params": 300, "weight": 1e-4}])
def test_the_multiplier_of_a_budget_is_undone(budget):
    cost = gradnas.ExpectedCost(**budget)
    search = Search(awkward(), cost=cost, example=batch(0)[0])
    going(search, 1)
    before = copy.deepcopy(search.state_dict())
    with pytest.raises(NonFiniteError, match="the step was undone"):
        search.step(broken, loss_on(batch(4)))
    assert_same(before, search.state_dict())


def test_fit_stops_with_the_state_before_the_bad_batch():
    good = [batch(k) for k in range(3)]
    x, y = batch(9)
    bad = [*good[:2], (x * float("nan"), y)]
    search = Search(awkward())
    with pytest.raises(NonFiniteError, match=r"step 2 \(epoch 0\)"):
        search.fit(bad, good, F.cross_entropy, epochs=2, progress=False)
    twin = Search(awkward(), epochs=2)
    for train, valid in list(zip(good, good, strict=True))[:2]:
        twin.step(loss_on(train), loss_on(valid))
    after = search.state_dict()
    expected = twin.state_dict()
    for state in (after, expected):
        del state["feed"]
    assert_same(after, expected)


def test_an_expanded_buffer_is_left_alone():
    net = awkward()
    net.register_buffer("mask", torch.ones(1).expand(4))
    search = Search(net)
    with pytest.raises(NonFiniteError):
        search.step(broken, loss_on(batch(4)))
    assert torch.equal(net.mask, torch.ones(4))
