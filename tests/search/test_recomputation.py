"""Activation checkpointing in a searched network: the gradient is that without it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from cases import GRADIENTS, name_of
from torch import nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

import gradnas
from gradnas import Choice, Search

pytestmark = pytest.mark.slow  # many combinations, or whole runs

SOFTMAX = gradnas.Softmax()


class Block(nn.Module):
    """As in Hugging Face's models: a switch turns checkpointing on inside."""

    def __init__(self, how):
        super().__init__()
        self.inner = nn.Sequential(
            nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Dropout(0.3), nn.Linear(4, 4)
        )
        self.scale = nn.Parameter(torch.full((4,), 0.7))
        self.how = how

    def computed(self, x):
        return self.inner(x) * self.scale  # a weight that no module reads

    def forward(self, x):
        if self.how is None:
            return self.computed(x)
        if self.how == "sequential":
            return checkpoint_sequential(self.inner, 2, x, use_reentrant=False) * self.scale
        if self.how == "nested":

            def inner(h):
                return checkpoint(self.inner, torch.tanh(h), use_reentrant=False) * self.scale

            return checkpoint(lambda h: torch.sin(inner(h)), x, use_reentrant=False)
        if self.how == "nested plain":
            return torch.sin(self.inner(torch.tanh(x)) * self.scale)
        if self.how == "function":
            return checkpoint(
                lambda h, scale: self.inner(h) * scale, x, self.scale, use_reentrant=False
            )
        return checkpoint(self.computed, x, use_reentrant=self.how == "reentrant")


class Net(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.around_choice = how == "choice"
        self.before = Block(None if self.around_choice else how)
        self.body = Choice({"linear": nn.Linear(4, 4), "tanh": nn.Tanh()}, name="body")
        self.after = Block(None if self.around_choice else how)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        x = self.before(x)
        if self.around_choice:
            inner = checkpoint(lambda h: self.after(self.body(h)), x, use_reentrant=False)
            return self.head(inner)
        return self.head(self.after(self.body(x)))


def searched(how, gradient, relaxation=SOFTMAX, in_loss=None):
    """The alphas, weights and buffers after two steps; a large step, so that weights differ."""
    torch.manual_seed(0)
    net = Net(how).double()
    search = Search(
        net,
        relaxation,
        gradient,
        weights=gradnas.WeightOptimizer(lr=1.0, clip_norm=None),
        alphas=gradnas.AlphaOptimizer(lr=0.1, betas=(0.0, 0.999), weight_decay=0.0),
    )
    x = torch.randn(8, 4, dtype=torch.float64, requires_grad=True)
    y = torch.randint(3, (8,))

    def called(net, x):
        if in_loss is None:
            return net(x)
        return checkpoint(net, x, use_reentrant=in_loss)

    for _ in range(2):
        search.step(
            lambda net: F.cross_entropy(called(net, x[:4]), y[:4]),
            lambda net: F.cross_entropy(called(net, x[4:]), y[4:]),
        )
    norm = net.before.inner[1]
    return [*search.alphas.values(), *search.params.values(), norm.running_mean]


def are_alike(found, expected):
    """The same alphas and weights to rounding. The last entry, running statistics, may differ."""
    for one, other in zip(found[:-1], expected[:-1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("how", ["plain", "reentrant", "function", "sequential"])
@pytest.mark.parametrize("gradient", GRADIENTS, ids=name_of)
def test_checkpointing_a_part_without_a_choice_changes_no_gradient(how, gradient):
    expected = searched(None, gradient)
    found = searched(how, gradient)
    # Running statistics see a batch twice in the step of the weights, as in plain training.
    are_alike(found, expected)


@pytest.mark.parametrize("gradient", GRADIENTS, ids=name_of)
def test_a_part_with_a_choice_may_be_checkpointed(gradient):
    are_alike(searched("choice", gradient), searched(None, gradient))


@pytest.mark.parametrize("mode", ["full", "recompute", "two"])
def test_samples_of_a_checkpointed_choice_are_those_of_its_pass(mode):
    relaxation = gradnas.BinaryGates(mode=mode)
    expected = searched(None, gradnas.FirstOrder(), relaxation)
    found = searched("choice", gradnas.FirstOrder(), relaxation)
    are_alike(found, expected)


@pytest.mark.parametrize("gradient", GRADIENTS, ids=name_of)
def test_checkpointed_parts_may_be_nested(gradient):
    expected = searched("nested plain", gradient)
    found = searched("nested", gradient)
    are_alike(found, expected)


@pytest.mark.parametrize("use_reentrant", [True, False])
@pytest.mark.parametrize("gradient", GRADIENTS, ids=name_of)
def test_a_loss_may_checkpoint_the_whole_network(gradient, use_reentrant):
    expected = searched(None, gradient)
    found = searched(None, gradient, in_loss=use_reentrant)
    are_alike(found, expected)


@pytest.mark.parametrize("mode", ["full", "recompute", "two"])
def test_probes_that_run_in_backward_are_no_recomputation(mode):
    relaxation = gradnas.BinaryGates(mode=mode)
    expected = searched(None, gradnas.FirstOrder(), relaxation)
    found = searched("plain", gradnas.FirstOrder(), relaxation)
    are_alike(found, expected)


class Recomputed(torch.autograd.Function):
    """A recomputation of one's own, of which torch knows nothing."""

    @staticmethod
    def forward(ctx, module, x):
        ctx.module = module
        ctx.save_for_backward(x)
        with torch.no_grad():
            return module(x)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            y = ctx.module(x)
        return None, *torch.autograd.grad(y, x, grad)


@pytest.mark.parametrize("gradient", GRADIENTS, ids=name_of)
def test_another_recomputation_is_refused_by_name(gradient):
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = Choice({"linear": nn.Linear(4, 4), "tanh": nn.Tanh()}, name="body")
            self.part = nn.Linear(4, 3)

        def forward(self, x):
            return Recomputed.apply(self.part, self.body(x))

    search = Search(Own(), gradient=gradient)
    x = torch.randn(8, 4)
    with pytest.raises(ValueError, match=r"'net\.part'.*run again in backward"):
        search.step(lambda net: net(x).square().mean(), lambda net: net(x).square().mean())


def test_checkpointing_is_as_it_was_after_a_step():
    before = (
        torch.utils.checkpoint.CheckpointFunction,
        torch.utils.checkpoint._checkpoint_without_reentrant_generator,
    )
    searched("plain", gradnas.FirstOrder())
    after = (
        torch.utils.checkpoint.CheckpointFunction,
        torch.utils.checkpoint._checkpoint_without_reentrant_generator,
    )
    assert before == after
