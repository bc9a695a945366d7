"""What a tracker is told when an epoch of a run has ended: `on_epoch=`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

OF_THE_PLACE = ("epoch", "steps")  # where a run stands, which is no measure


@dataclass(frozen=True)
class Epoch:
    """A finished epoch.

    Attributes:
        number: of finished epochs, 1 after the first.
        epochs: how many there will be.
        metrics: the line of `metrics.jsonl`: losses, measures, and of a search the decision as text
            (`genotype`).
        seconds: that it took, of this process.
        probabilities: of a search, choice (or table of a cell) -> probabilities by the relaxation,
            `(O,)` or `(E, O)`, on the CPU.
        operations: choice -> the names of its operations, where they have names.
        folder: of the run; None without one.
    """

    number: int
    epochs: int
    metrics: Mapping[str, Any]
    seconds: float
    probabilities: Mapping[str, Tensor] = field(default_factory=dict)
    operations: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    folder: Path | None = None

    @property
    def scalars(self) -> dict[str, float]:
        """The metrics that are numbers, and `probability/CHOICE/OPERATION` of choices."""
        found = {}
        for key, value in self.metrics.items():
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if is_number and key not in OF_THE_PLACE:
                found[key] = float(value)
        for choice, names in self.operations.items():
            if self.probabilities[choice].ndim != 1:
                continue  # a table of a cell, with a row for each edge
            for name, p in zip(names, self.probabilities[choice].tolist(), strict=True):
                found[f"probability/{choice}/{name}"] = p
        return found


OnEpoch = Callable[[Epoch], object]
