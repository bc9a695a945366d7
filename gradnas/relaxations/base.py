"""What every relaxation is: a way from alphas to mixing weights.

Legend: E edges, O operations; a table of alphas is `(E, O)`, or `(O,)` for a single choice.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gradnas.choice import Draw


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, soft: Tensor, hard: Tensor) -> Tensor:
        return hard.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


def straight_through(soft: Tensor, hard: Tensor) -> Tensor:
    """Forward: the hard value, exactly. Backward: the gradient goes to the soft one."""
    return _StraightThrough.apply(soft, hard)


class Relaxation(ABC):
    """Alphas -> `Draw`. A subclass is a frozen dataclass whose fields are its hyperparameters, in a
    file of its own.

    A relaxation keeps nothing between calls. What is random comes in as `noise`, drawn once for
    each architecture or weight step, so that all passes of one step see the same sample; how far
    the search has come comes in as `progress`.
    """

    @property
    def needs_progress(self) -> bool:
        """Whether the draw changes over the search, so that its length must be known."""
        return False

    def noise(self, alphas: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """The random numbers of one step, drawn on the CPU (so that every device sees the same);
        none by default."""
        return {}

    @abstractmethod
    def draw(
        self, alphas: Mapping[str, Tensor], noise: Mapping[str, Tensor], progress: float
    ) -> Draw:
        """Mixing weights for all choices.

        Args:
            alphas: choice name -> table of logits.
            noise: what `noise` returned for this step.
            progress: the share of the search that is done, in [0, 1].
        """

    @property
    def once_differentiable(self) -> bool:
        """Whether the gradient of a draw cannot be differentiated again, as second derivatives
        would need."""
        return False

    @property
    def trains_mixtures(self) -> bool:
        """Whether the weights learn on mixtures of operations, so that the mixture itself is a
        network to evaluate."""
        return True

    @property
    def alpha_defaults(self) -> dict[str, Any]:
        """Settings of Adam on the alphas that fit, where they are not the general ones."""
        return {}

    def check_alpha_optimizer(self, betas: tuple[float, float], weight_decay: float) -> None:
        """ValueError, with the reason, where alphas must not be trained with these settings of
        Adam."""
        del betas, weight_decay

    def path(
        self, alphas: Mapping[str, Tensor], noise: Mapping[str, Tensor], progress: float
    ) -> Draw:
        """The draw that the weights learn with; the same as for the alphas by default."""
        return self.draw(alphas, noise, progress)

    def after_update(
        self, before: Mapping[str, Tensor], after: Mapping[str, Tensor], noise: Mapping[str, Tensor]
    ) -> Mapping[str, Tensor]:
        """The alphas after a step of their optimiser, corrected where the method asks for it.

        Args:
            before, after: the tables before and after the step.
            noise: of the draw that gave the gradient.
        """
        return after

    def probabilities(self, alpha: Tensor) -> Tensor:
        """The noise-free strength of each operation, same shape as `alpha`; derivation and metrics
        read it."""
        return torch.softmax(alpha, dim=-1)
