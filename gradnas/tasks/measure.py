"""How good a trained network is: one number, its name and its words."""

from __future__ import annotations

from dataclasses import dataclass

from gradnas.search.verdict import Yardstick


@dataclass(frozen=True)
class Measure:
    """How good a trained network is, in one number.

    Attributes:
        key: its name in metrics and results: `accuracy` is in `test_accuracy` and `valid_accuracy`.
        plural: of several networks: `test_accuracies`.
        higher_is_better: which way is better.
        scale, unit: how it is said: `scale * value`, and what stands behind the number.
    """

    key: str
    plural: str
    higher_is_better: bool
    scale: float = 1.0
    unit: str = ""

    @property
    def yardstick(self) -> Yardstick:
        """By which the architectures of a search are compared."""
        return Yardstick(self.key, self.higher_is_better, self.scale, self.unit)

    def number(self, value: float) -> str:
        """The number alone, with two decimals: of a spread, for example."""
        return f"{self.scale * value:.2f}"

    def text(self, value: float) -> str:
        """The number with its unit: `98.05%`."""
        return f"{self.number(value)}{self.unit}"
