"""Mixing weights from a Dirichlet distribution: DrNAS.

Legend: E edges, O operations.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gradnas.modules.draws import Draw
from gradnas.relaxations.base import Relaxation, Tables


@dataclass(frozen=True)
class Dirichlet(Relaxation):
    """`mix ~ Dirichlet(elu(alpha) + 1)` on every edge, one draw for each step.

    The gradient goes through the sample (implicit reparametrisation, as in
    `torch.distributions.Dirichlet.rsample`). At alpha = 0 the concentration is 1: the weights are
    uniform on the simplex, so that the search tries corners and mixtures alike.

    Cost: that of `Softmax`; every operation runs in every pass.

    Source: Chen, Wang, Cheng, Tang, Hsieh, "DrNAS", ICLR 2021 (arXiv 2006.10355), section 3.1. The
    pull of the concentrations to 1 is weight decay on the alphas (the authors' default; that of
    `AlphaOptimizer`) or `DirichletKL`.

    Where it differs: the strength of an operation, which reports show, budgets count with and
    edges are ranked by, is the mean of the distribution, `c / sum(c)` with `c = elu(alpha) + 1`;
    the authors' code ranks edges by `softmax(alpha)`. The best operation of an edge is the same. An
    evaluation of the mixture takes the mean, where the authors draw. Weights and alphas learn from
    different draws, as there.
    """

    @property
    def once_differentiable(self) -> bool:
        return True  # torch knows no derivative of the derivative of a sample

    def noise(self, alphas: Tables, generator: torch.Generator) -> dict[str, Tensor]:
        """A seed for each table: samplers of gamma variables use up numbers as they need them."""
        seeds = {}
        for name in alphas:
            seeds[name] = torch.randint(2**62, (), generator=generator, device="cpu")
        return seeds

    def draw(self, alphas: Tables, noise: Tables, progress: float) -> Draw:
        del progress
        mix = {}
        mean = {}
        for name, alpha in alphas.items():
            mix[name] = _sample(_concentration(alpha), int(noise[name]))
            mean[name] = self.probabilities(alpha)
        dense = Draw.dense(mix)
        return Draw(mix, dense.active, probability=mean)

    def probabilities(self, alpha: Tensor) -> Tensor:
        """The mean of the distribution."""
        concentration = _concentration(alpha)
        return concentration / concentration.sum(-1, keepdim=True)


def _concentration(alpha: Tensor) -> Tensor:
    # elu(alpha) + 1, without the rounding to 0 that the sum has from alpha = -17 on: there is no
    # distribution with a concentration of 0.
    below = torch.exp(alpha.clamp(-80.0, 0.0))
    return torch.where(alpha > 0, alpha + 1.0, below)


def _sample(concentration_EO: Tensor, seed: int) -> Tensor:
    """A sample that is a function of concentration and seed, on whatever device."""
    wide_EO = concentration_EO.to("cpu", torch.float64)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        sample_EO = torch.distributions.Dirichlet(wide_EO, validate_args=False).rsample()
    return sample_EO.to(concentration_EO)
