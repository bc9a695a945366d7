"""What a search stands for: its decision, the network of it, the file of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from gradnas.architectures.base import Architecture
from gradnas.spaces.base import Supernet, Weights


@dataclass(frozen=True)
class SearchResult:
    """What the search stands for at one moment.

    Attributes:
        decision: the architecture.
        supernet: whose decision it is.
        cost: of a search with a cost, what the decision costs (see `costs.unit`).
    """

    decision: Architecture
    supernet: Supernet
    cost: float | None = None

    @property
    def choices(self) -> Any:
        """The `Genotype` or `Chain` of a space; of a module with choices, name -> operation."""
        return self.decision.public

    @property
    def genotype(self) -> Any:
        """The `Genotype` or `Chain`. ValueError for a module with choices: it has neither."""
        if self.decision.public is not self.decision:
            raise ValueError("a module with choices has no genotype; read result.choices")
        return self.decision

    def derive(self, weights: Weights = "keep") -> nn.Module:
        """The plain network of the decision: with the searched weights, or `"fresh"`.

        For a module with choices, fresh weights are those that the module had when the search
        began.
        """
        if weights not in ("keep", "fresh"):
            raise ValueError(f"weights must be 'keep' or 'fresh', not {weights!r}")
        return self.supernet.derived(self.decision, weights)

    def save(self, path: str | Path) -> None:
        """Write the decision as JSON."""
        self.decision.save(path)
