"""What every term of the alphas' loss is: a scalar of the tables alone, and its weight over time.

Legend: E edges, O operations; a table of alphas is `(E, O)`, or `(O,)` for a single choice.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Literal

from torch import Tensor

Tables = Mapping[str, Tensor]

# What the weights of an edge must be for a term to mean something.
Fits = Literal["competing", "softmax", "independent", "Dirichlet"]


class AlphaTerm(ABC):
    """Added to the loss of the alphas, `weight * value`; a frozen dataclass in a file of its own.

    The weights of the network never see it.
    """

    # The kind of mixing weights that it is for: those that share a one, of these the ones that a
    # softmax gives (whose alphas may all fall together), those that do not share it, or the
    # concentrations of a Dirichlet distribution.
    fits: ClassVar[Fits] = "competing"

    @property
    def needs_length(self) -> bool:
        """Whether its weight depends on how long the search is."""
        return False

    @abstractmethod
    def weight_at(self, done: float) -> float:
        """The weight in an epoch.

        Args:
            done: finished epochs, as a share of all: 0 in the first epoch.
        """

    @abstractmethod
    def value(self, alphas: Tables) -> Tensor:
        """The term without its weight, a scalar, twice differentiable in the alphas."""


def check_weight(name: str, value: float) -> None:
    """ValueError for a weight below 0, or no number."""
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} must be at least 0, not {value}")
