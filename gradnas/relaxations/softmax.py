"""The continuous relaxation of DARTS."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from gradnas.modules.draws import Draw
from gradnas.relaxations.base import Relaxation, Tables


@dataclass(frozen=True)
class Softmax(Relaxation):
    """`mix = softmax(alpha)` over the operations of an edge, `none` included; no temperature.

    Every operation runs in every pass. Source: Liu, Simonyan, Yang, "DARTS", ICLR 2019 (arXiv
    1806.09055), eq. 2.
    """

    def draw(self, alphas: Tables, noise: Tables, progress: float) -> Draw:
        del noise, progress
        return Draw.dense({name: torch.softmax(alpha, dim=-1) for name, alpha in alphas.items()})
