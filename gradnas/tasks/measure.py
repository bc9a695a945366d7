"""How good a trained network is: one number, its name and its words."""

from __future__ import annotations

from dataclasses import dataclass

from gradnas.search.verdict import Yardstick

FEWEST_RANDOM = 3  # random architectures; fewer have no spread worth the name


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

    def compared(self, value: float, mean: float, std: float, number: int) -> str:
        """How a network does beside so many random ones, in words.

        Args:
            mean, std: of the random ones, std that of a sample.
        """
        if number < FEWEST_RANDOM:
            return "too few to tell whether the search helped"
        difference = value - mean if self.higher_is_better else mean - value
        if abs(difference) <= std:
            return "no clear difference"
        word = "better" if difference > 0 else "worse"
        if abs(difference) < 2 * std:
            return f"{word}, by less than two standard deviations, which is a hint and no proof"
        return word

    def number(self, value: float) -> str:
        """The number alone, with two decimals, or two figures: of a spread, for example.

        A small one without a unit, such as an error of 0.0151, has three figures.
        """
        number = self.scale * value
        if not self.unit and 0.0 < abs(number) < 0.1:
            return f"{number:.3g}"
        rounded = f"{number:.2f}"
        return f"{number:.2g}" if number and not float(rounded) else rounded

    def text(self, value: float) -> str:
        """The number with its unit: `98.05%`."""
        return f"{self.number(value)}{self.unit}"
