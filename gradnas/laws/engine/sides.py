"""The search for laws of another target."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gradnas.laws.engine.atoms import Atoms
from gradnas.laws.engine.pool import Pool, grow
from gradnas.laws.engine.targets import Target


@dataclass
class Side:
    """The search for another target's laws.

    Attributes:
        length: the best description length of its laws for y.
    """

    target: Target
    pool: Pool
    small: Atoms
    large: Atoms
    length: float = math.inf

    def grow(self, rounds: int) -> None:
        """Rounds of growth that are a little smaller than those for y."""
        grow(self.pool, self.small, self.large, rounds=rounds, width=3, count=16, steps=8)
