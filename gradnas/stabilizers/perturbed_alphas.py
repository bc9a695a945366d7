"""Weights that learn on mixtures near that of the alphas: SDARTS-RS.

Legend: E edges, O operations.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gradnas.config import check_numbers
from gradnas.modules.draws import Draw
from gradnas.stabilizers.base import Stabilizer, Tables


@dataclass(frozen=True)
class PerturbedAlphas(Stabilizer):
    """`p' = clamp(p + U(-eps, eps), 0, 1)`, each row brought back to its sum; weights learn on p'.

    One draw for each step of the weights, shared by all cells; the alphas learn on p. The weights
    then suit a whole neighbourhood of the mixture, which makes the validation loss flat in alpha
    and the loss small that a discrete decision costs. A row that is cut to nothing becomes the
    one-hot of its largest p.

    Cost: none.

    Args:
        start, end: eps in epoch e of E is `start + (end - start) * e / E`.

    Source: Chen, Hsieh, "Stabilizing differentiable architecture search via perturbation-based
    regularization", ICML 2020 (arXiv 2002.05283), the random form, with the numbers of the authors'
    code. Where it differs: the text perturbs alphas; as in the code it is their probabilities. The
    inner step of a gradient of second order looks through the step without the perturbation. Rows
    of a relaxation whose weights do not sum to one (`Sigmoid`) keep their own sum.

    Raises:
        ValueError: an eps below 0 or above 1; in a search, a relaxation that computes one
            operation.
    """

    start: float = 0.03
    end: float = 0.3

    def __post_init__(self) -> None:
        for name in ("start", "end"):
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"{name} must be in [0, 1], not {value}")
        check_numbers(self)

    @property
    def needs_length(self) -> bool:
        return self.start != self.end

    @property
    def needs_mixtures(self) -> bool:
        return True

    def size_at(self, done: float) -> float:
        """eps, in the epoch before which that share was done."""
        return self.start + (self.end - self.start) * done

    def noise(self, alphas: Tables, generator: torch.Generator) -> dict[str, Tensor]:
        """Uniform numbers in (-1, 1)."""
        uniform = {}
        for name, alpha in alphas.items():
            numbers = torch.rand(
                alpha.shape, generator=generator, device="cpu", dtype=torch.float64
            )
            uniform[name] = 2.0 * numbers - 1.0
        return uniform

    def in_weight_step(self, draw: Draw, noise: Tables, done: float) -> Draw:
        size = self.size_at(done)
        mix = {}
        for name, mix_EO in draw.mix.items():
            moved_EO = (mix_EO + size * noise[name].to(mix_EO)).clamp(0.0, 1.0)
            sum_E1 = moved_EO.sum(-1, keepdim=True)
            best_EO = torch.zeros_like(mix_EO).scatter(-1, mix_EO.argmax(-1, keepdim=True), 1.0)
            whole_EO = torch.where(sum_E1 > 0, moved_EO / sum_E1.clamp_min(1e-30), best_EO)
            mix[name] = whole_EO * mix_EO.sum(-1, keepdim=True)
        return replace(draw, mix=mix)
