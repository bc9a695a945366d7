"""Dirichlet weights: means, samples that repeat, and gradients through the sample."""

from __future__ import annotations

import pytest
import torch

from gradnas import Dirichlet


def draw(alpha: torch.Tensor, seed: int) -> torch.Tensor:
    relaxation = Dirichlet()
    noise = relaxation.noise({"x": alpha}, torch.Generator().manual_seed(seed))
    return relaxation.draw({"x": alpha}, noise, 0.0).mix["x"]


def test_concentration_is_elu_plus_one_and_strength_its_share():
    alpha = torch.tensor([0.0, 1.0, -1.0], dtype=torch.float64)
    c = torch.tensor([1.0, 2.0, 0.36787944117144233], dtype=torch.float64)
    assert torch.allclose(Dirichlet().probabilities(alpha), c / c.sum(), atol=1e-15)
    low = Dirichlet().probabilities(torch.tensor([-40.0, 0.0]))
    assert low[0] > 0 and torch.isfinite(low).all()  # elu + 1 in float32 would be 0


def test_a_sample_repeats_with_its_noise_and_takes_no_number_from_the_global_generator():
    alpha = torch.zeros(3, 4)
    before = torch.get_rng_state()
    first = draw(alpha, 7)
    assert torch.equal(first, draw(alpha, 7)) and not torch.equal(first, draw(alpha, 8))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.allclose(first.sum(-1), torch.ones(3))


@pytest.mark.parametrize("a", [0.0, 0.7, -0.5])
def test_pathwise_gradient_is_that_of_the_inverse_distribution_function(a):
    # Of two operations with the second concentration 1 the first weight is Beta(c, 1): x = u^(1/c)
    # at the quantile u, so dx/dc = -x ln x / c.
    c = a + 1.0 if a > 0 else torch.tensor(a).exp().item()
    slope_of_c = 1.0 if a > 0 else c
    for seed in range(20):
        alpha = torch.tensor([a, 0.0], dtype=torch.float64, requires_grad=True)
        x, _ = draw(alpha, seed)
        (grad,) = torch.autograd.grad(x, alpha)
        right = -x * x.log() / c * slope_of_c
        assert torch.isclose(grad[0], right.detach(), rtol=2e-3, atol=1e-5)


def test_mean_gradient_is_that_of_the_mean():
    alpha = torch.tensor([0.5, -0.3, 0.1], dtype=torch.float64, requires_grad=True)
    (right,) = torch.autograd.grad(Dirichlet().probabilities(alpha)[0], alpha)
    rows = alpha.expand(20000, 3)
    (mean,) = torch.autograd.grad(draw(rows, 0)[:, 0].mean(), alpha)
    assert torch.allclose(mean, right, atol=6e-3)
