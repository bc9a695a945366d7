"""What every stabilizer is: a change of how the weights learn, whatever the relaxation.

Legend: E edges, O operations; a table of alphas is `(E, O)`, or `(O,)` for a single choice.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping

import torch
from torch import Tensor

from gradnas.modules.draws import Additions, Draw

Tables = Mapping[str, Tensor]


class Stabilizer(ABC):  # noqa: B024 (each overrides what it changes)
    """Changes the draws of steps; a subclass is a frozen dataclass in a file of its own.

    It keeps nothing between calls: what is random comes in as `noise`, how far the search is as
    `done`, the share of its epochs that are finished (0 in the first).
    """

    @property
    def additions(self) -> Additions:
        """What the supernet must have for it; nothing by default."""
        return Additions()

    @property
    def needs_length(self) -> bool:
        """Whether it changes over the search, so that its length must be known."""
        return False

    @property
    def needs_mixtures(self) -> bool:
        """Whether it is for weights that learn on a mixture of all operations."""
        return False

    def noise(self, alphas: Tables, generator: torch.Generator) -> dict[str, Tensor]:
        """The random numbers of one step of the weights, made on the CPU; none by default."""
        del alphas, generator
        return {}

    def in_every_step(self, draw: Draw, done: float) -> Draw:
        """The draw of a step of the weights or the alphas, changed."""
        del done
        return draw

    def in_weight_step(self, draw: Draw, noise: Tables, done: float) -> Draw:
        """The draw of a step of the weights alone, changed after `in_every_step`."""
        del noise, done
        return draw
