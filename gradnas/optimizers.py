"""The two optimisers of a search: SGD on the weights, Adam on the alphas."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from gradnas.config import check_numbers


@dataclass(frozen=True)
class WeightOptimizer:
    """SGD on the weights, with the settings of DARTS (section 3.1 and appendix A.1) as defaults.

    Args:
        lr, lr_end: the learning rate falls from the first to the second along a cosine over the
            epochs (not at all where the number of epochs is not known).
        momentum, nesterov, weight_decay: as in `torch.optim.SGD`.
        clip_norm: the largest global L2 norm of the weight gradient; None for no clipping.
        per_iteration: the learning rate falls with every step and not with every epoch.
        warmup_lr: the warm-up epochs have a cosine of their own, from here to `lr_end`, and the one
            from `lr` begins after them (ProxylessNAS); None for one cosine over all epochs.
    """

    lr: float = 0.025
    lr_end: float = 0.001
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 3e-4
    clip_norm: float | None = 5.0
    per_iteration: bool = False
    warmup_lr: float | None = None

    def __post_init__(self) -> None:
        check_numbers(self)

    def build(self, params: Iterable[nn.Parameter]) -> torch.optim.SGD:
        """The torch optimiser."""
        return torch.optim.SGD(
            params,
            lr=self.lr,
            momentum=self.momentum,
            nesterov=self.nesterov,
            weight_decay=self.weight_decay,
        )

    def lr_at(self, epoch: float, epochs: int, warmup_epochs: int = 0) -> float:
        """Learning rate at a moment counted in epochs from 0: cosine from `lr` towards `lr_end`."""
        if self.warmup_lr is None:
            return self._cosine(self.lr, epoch, epochs)
        if epoch < warmup_epochs:
            return self._cosine(self.warmup_lr, epoch, warmup_epochs)
        return self._cosine(self.lr, epoch - warmup_epochs, epochs - warmup_epochs)

    def _cosine(self, start: float, done: float, length: int) -> float:
        """From `start` at 0 to `lr_end` at `length`, and there from then on."""
        if done >= length:  # also where a search has no epoch after its warm-up
            return self.lr_end
        height = 1.0 + math.cos(math.pi * done / length)  # from 2 to 0
        return self.lr_end + 0.5 * (start - self.lr_end) * height


@dataclass(frozen=True)
class AlphaOptimizer:
    """Adam on the alphas, with the settings of DARTS (appendix A.1) as defaults.

    Weight decay is L2, inside Adam: a term of the gradient, which its moments see.
    """

    lr: float = 3e-4
    betas: tuple[float, float] = (0.5, 0.999)
    weight_decay: float = 1e-3

    def __post_init__(self) -> None:
        check_numbers(self)

    def build(self, alphas: Iterable[nn.Parameter]) -> torch.optim.Adam:
        """The torch optimiser."""
        return torch.optim.Adam(
            alphas, lr=self.lr, betas=self.betas, weight_decay=self.weight_decay
        )
