"""From alphas to mixing weights."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from cases import RELAXATIONS, name_of
from torch import nn

from gradnas import BinaryGates, Choice, GumbelSoftmax, Search, Sigmoid, Softmax
from gradnas.modules.draws import Draw
from gradnas.randomness import generator_for
from gradnas.search.sampling import ALPHA_NOISE

ALPHAS = {
    "cells": torch.randn(5, 4, generator=torch.Generator().manual_seed(0)),
    "one": torch.tensor([0.1, -0.3, 0.5]),
}


def drawn(relaxation, alphas=ALPHAS, seed=0, progress=0.5):
    return relaxation.draw(alphas, relaxation.noise(alphas, generator_for(seed)), progress)


@pytest.mark.parametrize("relaxation", RELAXATIONS, ids=name_of)
def test_weights_are_distributions_and_active_operations_are_those_with_weight(relaxation):
    draw = drawn(relaxation)
    for name, mix in draw.mix.items():
        assert mix.shape == ALPHAS[name].shape
        if not isinstance(relaxation, Sigmoid):  # there the operations do not compete
            assert torch.allclose(mix.sum(-1), torch.ones(mix.shape[:-1]))
        rows = mix.reshape(-1, mix.shape[-1])
        assert len(draw.active[name]) == len(rows)
        for row, active in zip(rows, draw.active[name], strict=True):
            assert row.nonzero().flatten().tolist() == list(active)


@pytest.mark.parametrize("relaxation", RELAXATIONS, ids=name_of)
def test_a_draw_is_a_function_of_its_noise(relaxation):
    one = drawn(relaxation, seed=1)
    same = drawn(relaxation, seed=1)
    other = drawn(relaxation, seed=2)
    assert all(torch.equal(one.mix[k], same.mix[k]) for k in ALPHAS)
    if relaxation.noise(ALPHAS, generator_for(0)):
        assert any(not torch.equal(one.mix[k], other.mix[k]) for k in ALPHAS)


@pytest.mark.parametrize("relaxation", RELAXATIONS, ids=name_of)
def test_the_global_random_state_is_untouched(relaxation):
    before = torch.get_rng_state()
    drawn(relaxation)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("relaxation", RELAXATIONS, ids=name_of)
def test_alphas_receive_a_gradient(relaxation):
    alphas = {k: a.clone().requires_grad_() for k, a in ALPHAS.items()}
    draw = drawn(relaxation, alphas)
    sum((m * torch.arange(m.shape[-1])).sum() for m in draw.mix.values()).backward()
    assert all(a.grad is not None and a.grad.abs().sum() > 0 for a in alphas.values())


class Least(Softmax):
    """The smallest alpha is the strongest."""

    def draw(self, alphas, noise, progress):
        return Draw.dense({name: torch.softmax(-3.0 * a, -1) for name, a in alphas.items()})


class ByName(Softmax):
    def draw(self, alphas, noise, progress):
        sharpness = {"cells": 1.0, "one": 2.0}
        return Draw.dense({name: sharpness[name] * a for name, a in alphas.items()})


def test_what_is_derived_and_evaluated_is_what_a_relaxation_of_ones_own_mixes():
    alpha = ALPHAS["one"]
    assert torch.equal(Least().probabilities(alpha), torch.softmax(-3.0 * alpha, -1))
    net = Choice({"a": nn.Linear(1, 1), "b": nn.Linear(1, 1), "c": nn.Linear(1, 1)}, name="one")
    search = Search(nn.Sequential(net), relaxation=Least())
    with torch.no_grad():
        search.alphas["one"].copy_(alpha)
    assert search.result().choices == {"one": "b"}
    x = torch.ones(1, 1)
    weights = torch.softmax(-3.0 * alpha, -1)
    operations = (net.operations[name](x) for name in "abc")
    mixed = sum(weight * found for weight, found in zip(weights, operations, strict=True))
    assert torch.allclose(search.supernet(x), mixed)
    with pytest.raises(ValueError, match="give it a method probabilities"):
        ByName().probabilities(alpha)
    # With noise its mean may be anything, and is not looked for.
    assert torch.equal(GumbelSoftmax().probabilities(alpha), torch.softmax(alpha, -1))


def test_softmax_is_the_softmax():
    assert torch.equal(drawn(Softmax()).mix["one"], torch.softmax(ALPHAS["one"], 0))


def test_hard_sampling_is_exactly_one_hot_with_the_gradient_of_the_soft_sample():
    grads = []
    for hard in (True, False):
        alphas = {"one": ALPHAS["one"].clone().requires_grad_()}
        relaxation = GumbelSoftmax(hard=hard, temperature=0.7, temperature_end=0.7)
        draw = drawn(relaxation, alphas, seed=3)
        if hard:
            assert sorted(draw.mix["one"].tolist()) == [0.0, 0.0, 1.0]
        (draw.mix["one"] * torch.tensor([1.0, 2.0, 4.0])).sum().backward()
        grads.append(alphas["one"].grad)
    assert torch.allclose(*grads)


def test_hard_samples_follow_the_probabilities():
    alphas = {"one": torch.tensor([1.0, 0.0, -1.0])}
    counts = torch.zeros(3)
    log_probs = []
    for seed in range(2000):
        draw = drawn(GumbelSoftmax(), alphas, seed=seed)
        counts[draw.active["one"][0][0]] += 1
        log_probs.append((draw.active["one"][0][0], draw.log_prob.item()))
    p = torch.softmax(alphas["one"], 0)
    assert torch.allclose(counts / 2000, p, atol=0.04)  # four standard errors
    assert all(value == pytest.approx(p[k].log().item(), rel=1e-5) for k, value in log_probs[:50])


def test_the_temperature_falls_over_the_search():
    hot, cold = (drawn(GumbelSoftmax(hard=False), progress=p).mix["cells"] for p in (0.0, 1.0))
    assert hot.max() < 0.6 < cold.max()


def test_a_temperature_must_be_positive():
    with pytest.raises(ValueError, match="positive"):
        GumbelSoftmax(temperature_end=0.0)


@pytest.mark.parametrize(
    ("relaxation", "trains"),
    [
        (Softmax(), True),
        (Sigmoid(), True),
        (GumbelSoftmax(hard=False), True),
        (GumbelSoftmax(hard=True), False),
        (BinaryGates("full"), False),
        (BinaryGates("two"), False),
    ],
    ids=repr,
)
def test_weights_learn_on_mixtures_where_more_than_one_operation_runs(relaxation, trains):
    """Else a mixture is a network that nothing has trained, and none to report."""
    assert relaxation.trains_mixtures is trains
    noise = relaxation.noise(ALPHAS, torch.Generator().manual_seed(0))
    path = relaxation.path(ALPHAS, noise, 0.0)
    rows = [row for table in path.active.values() for row in table]
    assert all((len(row) > 1) is trains for row in rows)


class TwoTrained(nn.Module):
    """One layer of a good and a useless operation: a loss of a half each way is known."""

    def __init__(self) -> None:
        super().__init__()
        self.one = Choice({"good": nn.Linear(2, 2), "bad": nn.Linear(2, 2)}, name="one")
        for operation, scale in zip(self.one.operations.values(), (3.0, 0.0), strict=True):
            nn.init.zeros_(operation.bias)
            operation.weight.data = scale * torch.eye(2)

    def forward(self, x):
        return self.one(x)


def test_probed_gumbel_has_the_gradient_that_the_bare_sample_lacks():
    # Two networks of known loss, so that the expected loss has an exact derivative in alpha:
    # p (1 - p) (L_good - L_bad) at p = 1/2.
    x = torch.eye(2).repeat(4, 1)
    y = torch.tensor([0, 1]).repeat(4)
    net = TwoTrained()
    losses = [F.cross_entropy(op(x), y).item() for op in net.one.operations.values()]
    exact = 0.25 * (losses[0] - losses[1])
    means = {}
    for probe in ("none", "full", "recompute"):
        relaxation = GumbelSoftmax(probe=probe, temperature=1.0, temperature_end=1.0)
        search = Search(net, relaxation, epochs=1)
        with torch.no_grad():
            search.alphas["one"].zero_()
        total = 0.0
        for step in range(80):
            search.schedule.steps = step
            noise = search.passes.noise(ALPHA_NOISE)
            loss = lambda net: F.cross_entropy(net(x), y)  # noqa: E731
            total += search.alpha_step.gradient(loss, loss, noise, None)[0]["one"][0].item()
        means[probe] = total / 80
    assert means["full"] == pytest.approx(means["recompute"], rel=1e-5)
    assert means["full"] == pytest.approx(exact, rel=0.35)
    assert abs(means["none"]) < 0.3 * abs(exact)


def test_probes_are_for_hard_samples():
    with pytest.raises(ValueError, match="is for hard samples"):
        GumbelSoftmax(hard=False, probe="full")
    with pytest.raises(ValueError, match="probe must be"):
        GumbelSoftmax(probe="some")
