"""Operations that do not compete: FairDARTS."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gradnas.modules.draws import Draw
from gradnas.relaxations.base import Relaxation, Tables


@dataclass(frozen=True)
class Sigmoid(Relaxation):
    """`mix = sigmoid(alpha)`: each operation has a weight of its own in (0, 1).

    The weights of an edge need not sum to one. Every operation runs in every pass. To push the
    weights towards 0 and 1, give the search the term `ZeroOne()`.

    Source: Chu, Zhou, Zhang, Li, "Fair DARTS", ECCV 2020 (arXiv 1911.12126), section 4; called
    "fair" in autora-theorist-darts. Where it differs: what is decided is the strongest operation,
    by the rule of the space, and no operation is left out for a weight below a threshold (0.85 in
    the authors' code), nor are two of one edge kept.
    """

    @property
    def competes(self) -> bool:
        return False

    def draw(self, alphas: Tables, noise: Tables, progress: float) -> Draw:
        del noise, progress
        return Draw.dense({name: torch.sigmoid(alpha) for name, alpha in alphas.items()})

    def probabilities(self, alpha: Tensor) -> Tensor:
        """The strengths, `sigmoid(alpha)`."""
        return torch.sigmoid(alpha)


def zero_one_loss(alphas: Tables) -> Tensor:
    """`-mean (sigmoid(alpha) - 0.5)^2` over all entries, a scalar (Fair DARTS, eq. 6)."""
    entries = torch.cat([alpha.flatten() for alpha in alphas.values()])
    return -((torch.sigmoid(entries) - 0.5) ** 2).mean()
