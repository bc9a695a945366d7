"""From alphas to mixing weights."""

from __future__ import annotations

import pytest
import torch
from cases import RELAXATIONS, name_of

from gradnas import BinaryGates, GumbelSoftmax, Sigmoid, Softmax
from gradnas.randomness import generator_for

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
