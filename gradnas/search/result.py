"""What a search stands for: its decision, the network of it, the file of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from gradnas.architectures.chain import Chain
from gradnas.architectures.genotype import Genotype
from gradnas.runs import write_json
from gradnas.spaces.base import Supernet, Weights


@dataclass(frozen=True)
class SearchResult:
    """What the search stands for at one moment.

    Attributes:
        choices: choice name -> operation for a module with choices; the `Genotype` or `Chain` for a
            space.
        cost: of a search with a cost, what the decision costs (see `costs.unit`).
    """

    choices: Any
    supernet: Supernet
    cost: float | None = None

    @property
    def genotype(self) -> Any:
        """The `Genotype` or `Chain`. ValueError for a module with choices: it has neither."""
        if not isinstance(self.choices, (Genotype, Chain)):
            raise ValueError("a module with choices has no genotype; read result.choices")
        return self.choices

    def derive(self, weights: Weights = "keep") -> nn.Module:
        """The plain network of the decision: with the searched weights, or `"fresh"`.

        For a module with choices, fresh weights are those that the module had when the search
        began.
        """
        if weights not in ("keep", "fresh"):
            raise ValueError(f"weights must be 'keep' or 'fresh', not {weights!r}")
        return self.supernet.derived(self.choices, weights)

    def save(self, path: str | Path) -> None:
        """Write the decision as JSON."""
        if isinstance(self.choices, (Genotype, Chain)):
            self.choices.save(path)
            return
        value = {"format": "gradnas-choices", "version": 1, "choices": dict(self.choices)}
        write_json(Path(path), value)
