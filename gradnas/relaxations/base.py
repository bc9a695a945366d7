"""What every relaxation is: a way from alphas to mixing weights.

Legend: E edges, O operations; a table of alphas is `(E, O)`, or `(O,)` for a single choice.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from gradnas.choice import Draw


class Relaxation(ABC):
    """Alphas -> `Draw`. A subclass is a frozen dataclass whose fields are its hyperparameters, in a file of its own.

    A relaxation keeps nothing between calls. What is random comes in as `noise`, drawn once for each architecture or
    weight step, so that all passes of one step see the same sample; how far the search has come comes in as `progress`.
    """

    @property
    def needs_progress(self) -> bool:
        """Whether the draw changes over the search, so that its length must be known."""
        return False

    def noise(self, alphas: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """The random numbers of one step, drawn on the CPU (so that every device sees the same); none by default."""
        return {}

    @abstractmethod
    def draw(self, alphas: Mapping[str, Tensor], noise: Mapping[str, Tensor], progress: float) -> Draw:
        """Mixing weights for all choices.

        Args:
            alphas: choice name -> table of logits.
            noise: what `noise` returned for this step.
            progress: the share of the search that is done, in [0, 1].
        """

    def probabilities(self, alpha: Tensor) -> Tensor:
        """The noise-free strength of each operation, same shape as `alpha`; derivation and metrics read it."""
        return torch.softmax(alpha, dim=-1)
