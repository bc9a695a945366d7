"""Sampling with the Gumbel-softmax: GDAS (hard) and SNAS (soft)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from gradnas.choice import Active, Draw
from gradnas.relaxations.base import Relaxation, straight_through


@dataclass(frozen=True)
class GumbelSoftmax(Relaxation):
    """`soft = softmax((log softmax(alpha) + g) / temperature)` with Gumbel noise g, one sample per
    edge and step.

    Args:
        hard: use the one-hot of the largest entry with the gradient of `soft` (straight-through),
            so that only the sampled operation of each edge is computed; False mixes all operations
            with `soft`.
        temperature: at the start of the search.
        temperature_end: at its end; linear in between, as in GDAS (10 to 0.1).

    Sources: Dong, Yang, "Searching for a Robust Neural Architecture in Four GPU Hours" (GDAS), CVPR
    2019, eq. 3 to 5; Xie et al., "SNAS", ICLR 2019 (arXiv 1812.09926), eq. 5. Unlike the GDAS code,
    the operations that were not sampled add no term to the alpha gradient: their outputs are not
    computed.

    Raises:
        ValueError: a temperature that is not positive.
    """

    hard: bool = True
    temperature: float = 10.0
    temperature_end: float = 0.1

    def __post_init__(self) -> None:
        if not (self.temperature > 0 and self.temperature_end > 0):
            raise ValueError(
                f"temperatures must be positive, got temperature={self.temperature}, "
                f"temperature_end={self.temperature_end}"
            )

    @property
    def needs_progress(self) -> bool:
        return self.temperature != self.temperature_end

    def noise(self, alphas: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        tiny = torch.finfo(torch.float64).tiny
        uniform = {
            name: torch.rand(alpha.shape, generator=generator, dtype=torch.float64).clamp_min(tiny)
            for name, alpha in alphas.items()
        }
        return {name: -torch.log(-torch.log(u)) for name, u in uniform.items()}

    def draw(
        self, alphas: Mapping[str, Tensor], noise: Mapping[str, Tensor], progress: float
    ) -> Draw:
        temperature = self.temperature + (self.temperature_end - self.temperature) * progress
        log_p = {name: torch.log_softmax(alpha, dim=-1) for name, alpha in alphas.items()}
        soft = {
            name: torch.softmax((logits + noise[name].to(logits)) / temperature, dim=-1)
            for name, logits in log_p.items()
        }
        if not self.hard:
            return Draw.dense(soft)
        mix, active, log_probs = {}, {}, []
        for name, weights in soft.items():
            index = weights.argmax(dim=-1, keepdim=True)
            one_hot = torch.zeros_like(weights).scatter_(-1, index, 1.0)
            mix[name] = straight_through(weights, one_hot)
            active[name] = _as_active(index)
            log_probs.append(log_p[name].gather(-1, index).sum())
        probability = {name: logits.exp() for name, logits in log_p.items()}
        return Draw(mix, active, torch.stack(log_probs).sum() if log_probs else None, probability)


def _as_active(index: Tensor) -> Active:
    return tuple((k,) for k in index.reshape(-1).tolist())
