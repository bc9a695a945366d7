"""What the runs on a kind of data say in the terminal."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from gradnas import runs
from gradnas.runs import Record
from gradnas.tasks.measure import Measure

S = TypeVar("S")  # the configuration of a search


class Sentences(ABC, Generic[S]):
    """What searches and trainings say of their results, each sentence a line.

    Args:
        measure: what trained networks are compared by.
    """

    def __init__(self, measure: Measure) -> None:
        self.measure = measure

    def of_search(self, config: S, results: Record) -> list[str]:
        """What a search says of its results at its end."""
        del config
        sentences = [f"genotype: {results['genotype']}"]
        if "undecided" in results:
            sentences.append(f"warning: {results['undecided']}")
        return sentences

    @abstractmethod
    def tested_on(self, results: Record) -> str:
        """What the test of a training was made on: "360 held-out images"."""

    def of_training(self, results: Record, random_noun: str) -> list[str]:
        """What a training says of its results at its end.

        `random_noun` is what random architectures are called.
        """
        key = self.measure.key
        reached = self.measure.text(results[f"test_{key}"])
        sentences = [
            f"test {key} {reached} on {self.tested_on(results)}, {results['num_params']:,} weights"
        ]
        if "random_cells" in results:
            random = results["random_cells"]
            number = len(random[f"test_{self.measure.plural}"])
            mean = self.measure.text(random[f"mean_test_{key}"])
            spread = self.measure.number(random[f"std_test_{key}"])
            sentences.append(
                f"{number} random {random_noun} trained the same way: {mean} "
                f"(standard deviation {spread})"
            )
        return sentences

    def next_commands(self, run: runs.Run) -> list[str]:
        """What to do with a finished training, beyond what goes for any."""
        del run
        return []
