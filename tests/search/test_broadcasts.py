"""Outputs (B, 1) beside a target (B,): torch makes (B, B) of them, and a search refuses it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gradnas
from gradnas.search.broadcasts import NoOuterProducts
from gradnas.tasks.your_task.calls import measured

N = 6
TARGET_B = torch.linspace(0.1, 0.9, N)


def net(outputs: int = 1) -> nn.Module:
    body = gradnas.Choice({"a": nn.Linear(4, 4), "b": nn.Identity()}, name="body")
    return nn.Sequential(body, nn.Linear(4, outputs))


def step(loss) -> None:
    x_BC = torch.linspace(-1, 1, 4 * N).view(N, 4)
    search = gradnas.Search(net(), seed=0)
    search.step(lambda net: loss(net(x_BC), TARGET_B), lambda net: loss(net(x_BC), TARGET_B))


LOSSES = [
    F.mse_loss,
    F.l1_loss,
    F.smooth_l1_loss,
    F.huber_loss,
    F.poisson_nll_loss,
    nn.MSELoss(reduction="sum"),
    lambda outputs, target: F.mse_loss(target=target, input=outputs),
]


@pytest.mark.parametrize("loss", LOSSES, ids=range(len(LOSSES)))
def test_losses_of_torch_in_any_loop(loss):
    with pytest.raises(ValueError, match=r"shapes \(6, 1\) and \(6,\), which .* over \(6, 6\)"):
        step(loss)


OWN = {
    "difference": lambda outputs, target: ((outputs - target) ** 2).mean(),
    "cast": lambda outputs, target: (outputs.sigmoid() - target.double()).abs().mean(),
    "the other way": lambda outputs, target: (target.float() - outputs.tanh()).square().mean(),
    "of several": lambda outputs, target: (outputs[0] - target).mean(),
    "classes": lambda outputs, target: (outputs.argmax(1, keepdim=True) == target).double().mean(),
}
RIGHT = {
    "one shape": lambda outputs, target: ((outputs.squeeze(1) - target) ** 2).mean(),
    "by hand": lambda outputs, target: (outputs[:, None] - target[None]).abs().mean(),
    "a weight": lambda outputs, target: (outputs * torch.ones(N)).mean() + 0 * target.sum(),
    "a row of targets": lambda outputs, target: F.l1_loss(outputs.expand(N, N), target),
    "of torch": F.cross_entropy,
}


@pytest.mark.parametrize("name", OWN)
def test_arithmetic_of_ones_own_on_outputs_and_target(name):
    outputs = torch.randn(N, 1)
    if name == "of several":
        outputs = (outputs, None)
    refused = pytest.raises(ValueError, match="the loss sets every output beside every target")
    with refused, NoOuterProducts(outputs, TARGET_B):
        OWN[name](outputs, TARGET_B)


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize("name", RIGHT)
def test_what_is_meant_passes(name):
    outputs = torch.randn(N, 3) if name == "of torch" else torch.randn(N, 1)
    target: Tensor = torch.zeros(N, dtype=torch.int64) if name == "of torch" else TARGET_B
    with NoOuterProducts(outputs, target):
        value = RIGHT[name](outputs, target)
    assert value.isfinite()


def test_fit_and_the_measures_of_a_task():
    x_BC = torch.linspace(-1, 1, 4 * N).view(N, 4)
    own = OWN["difference"]
    with pytest.raises(ValueError, match="sub is given shapes"):
        batches = [(x_BC, TARGET_B)]
        gradnas.Search(net()).fit(batches, batches, loss=own, epochs=1, progress=False)
    task = gradnas.Task(
        model=net,
        train=(x_BC, TARGET_B),
        loss=lambda outputs, target: F.mse_loss(outputs[:, 0], target),
        measures={"error": gradnas.lower(own)},
    )
    network = nn.Linear(4, 1)
    device = torch.device("cpu")
    with pytest.raises(ValueError, match="the measure 'error' sets every output"):
        measured(task, network, [(x_BC, TARGET_B)], "fp32", device, checked=True)
