"""A skip connection that leaves: DARTS-."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from gradnas.config import check_numbers
from gradnas.modules.draws import Additions, Draw
from gradnas.stabilizers.base import Stabilizer


@dataclass(frozen=True)
class AuxiliarySkip(Stabilizer):
    """Every edge gives `sum_o p_o o(x) + B(e) x`, and B falls to 0 over the search.

    A skip connection helps a deep network to learn, whatever it is worth as an operation. With one
    beside the operations the alphas of `skip_connect` need not grow for that. In steps of both
    weights and alphas; nothing of it is left in what is derived.

    Where an edge halves the maps its skip is a factorized reduction with weights of its own. In a
    recurrent cell it is the activation `identity`.

    Cost: hardly any.

    Args:
        start: B in the first epoch.
        decay: `"linear"`: epoch e of E has `start * (1 - e / E)`; `"cosine"`: `start * (1 + cos(pi
            e / E)) / 2`. (The authors' code keeps B for ever unless it is told a decay.)

    Source: Chu, Wang, Zhang, Lu, Wei, Yan, "DARTS-", ICLR 2021 (arXiv 2009.01027), eq. 6 and 7. No
    difference for the cells of DARTS.

    Raises:
        ValueError: a start below 0, another decay; in a search, a space without edges that could
            pass their input on.
    """

    start: float = 1.0
    decay: Literal["linear", "cosine"] = "linear"

    def __post_init__(self) -> None:
        if not self.start >= 0.0:
            raise ValueError(f"start must be at least 0, not {self.start}")
        if self.decay not in ("linear", "cosine"):
            raise ValueError(f"decay must be 'linear' or 'cosine', not {self.decay!r}")
        check_numbers(self)

    @property
    def additions(self) -> Additions:
        return Additions(auxiliary_skip=True)

    @property
    def needs_length(self) -> bool:
        return True

    def weight_at(self, done: float) -> float:
        """B, in the epoch before which that share was done."""
        if self.decay == "cosine":
            return self.start * (1.0 + math.cos(math.pi * done)) / 2.0
        return self.start * (1.0 - done)

    def in_every_step(self, draw: Draw, done: float) -> Draw:
        return replace(draw, skip=self.weight_at(done))
