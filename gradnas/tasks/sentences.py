"""What the runs on a kind of data say in the terminal."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Generic, TypeVar

from gradnas.config import counted
from gradnas.runs import Record
from gradnas.search import health_words
from gradnas.search.verdict import Verdict
from gradnas.search.verdict_words import wrapped
from gradnas.tasks.measure import Measure

S = TypeVar("S")  # the configuration of a search


@dataclass(frozen=True)
class NextStep:
    """What may be done with a finished run.

    Attributes:
        command: as a shell takes it, ready to run.
        about: what it does, and how long that will take.
    """

    command: str
    about: str

    def __str__(self) -> str:
        return f"next: {self.command}\n      {self.about}"


def about(seconds: float) -> str:
    """A time that was estimated: `about 3 min`; no more figures than an estimate has."""
    for size, unit, next_size in ((1, "s", 90), (60, "min", 5400), (3600, "h", 48 * 3600)):
        if seconds < next_size:
            return f"about {max(seconds / size, 1):.0f} {unit}"
    return f"about {seconds / 86400:.0f} days"


class Sentences(ABC, Generic[S]):
    """What searches and trainings say of their results, each sentence a line.

    Args:
        measure: what trained networks are compared by.
    """

    def __init__(self, measure: Measure) -> None:
        self.measure = measure

    def of_search(self, config: S, results: Record) -> list[str]:
        """What a search says of its results at its end."""
        if "undecided" in results:
            sentences = [
                *no_result_lines(results),
                f"strongest, which may be chance: {results['genotype']}",
            ]
        else:
            sentences = [f"genotype: {results['genotype']}"]
        sentences += selection_lines(results)
        option = getattr(config, "task_option", "")
        return sentences + health_lines(results) + verdict_lines(results, option)

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
            sentence = f"{counted(number, f'random {random_noun}')} trained the same way: {mean}"
            if number > 1:
                spread = self.measure.number(random[f"std_test_{key}"])
                sentence += f" (standard deviation {spread})"
            sentences.append(sentence)
        return sentences


def no_result_lines(results: Record) -> list[str]:
    """That a search has decided nothing, and what helps."""
    return wrapped(f"no result: {results['undecided']}")


def selection_lines(results: Record) -> list[str]:
    """What was measured to decide, where candidates were."""
    if "no_selection" in results:
        return wrapped(f"warning: {results['no_selection']}")
    selection = results.get("selection")
    if selection is None:
        return []
    lines = wrapped(f"selection: {selection['sentence']}")
    if "alphas" in selection:
        lines += wrapped(
            f"the alphas alone decide nothing here, so it rests on what was measured "
            f"({selection['alphas']})"
        )
    return lines


def health_lines(results: Record) -> list[str]:
    """What was wrong with a search; nothing where nothing was, or where it was said already."""
    wrong = results.get("health")
    told = results.get("selection", {})
    said = wrong in (results.get("undecided"), told.get("alphas"))
    return health_words.lines(None if said else wrong, results.get("gap"))


def verdict_lines(results: Record, option: str = "") -> list[str]:
    """What is said of the verdict of a search; nothing without one.

    Args:
        option: what `gradnas train` needs beside an architecture: ` --task my_task.py`, or nothing.
    """
    if "no_verdict" in results:
        return [f"warning: {results['no_verdict']}"]
    if "verdict" not in results:
        return []
    return Verdict.from_json(results["verdict"]).lines(typed=True, option=option)
