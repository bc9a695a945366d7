"""How good a network is on a task of one's own: functions of a batch, or objects that add up."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradnas.search.evaluating import Evaluating
from gradnas.search.forms import takes_network
from gradnas.tasks.measure import Measure

IGNORED = -100  # a target that counts nowhere, as in `F.cross_entropy`
LOSS = Measure("loss", "losses", higher_is_better=False)


@dataclass(frozen=True)
class Lower:
    """A measure of which less is better; `gradnas.lower` makes it."""

    measure: Any


def lower(measure: Any) -> Lower:
    """Say of a measure of a `gradnas.Task` that less of it is better.

    Args:
        measure: a function of `(outputs, target)` or `(net, batch)`, or an object with `update` and
            `compute`.
    """
    return Lower(measure)


class Accuracy:
    """Share of the targets that are the class with the largest output."""

    def __call__(self, outputs: Tensor, target: Tensor) -> Tensor:
        """The share of a batch, a scalar.

        Args:
            outputs: float (B, C, ...), a logit for each class.
            target: int (B, ...), classes; -100 is left out, as `F.cross_entropy` does.

        Raises:
            ValueError: other shapes or types.
        """
        mean, _ = self.counted(outputs, target)
        return mean

    def counted(self, outputs: Tensor, target: Tensor) -> tuple[Tensor, int]:
        """The share, and how many targets it is of."""
        fits = isinstance(outputs, Tensor) and isinstance(target, Tensor) and outputs.dim() > 1
        if not fits or outputs.shape[:1] + outputs.shape[2:] != target.shape:
            raise ValueError(
                "accuracy takes outputs of shape (B, classes, ...) and targets of shape (B, ...), "
                f"not {_shape(outputs)} and {_shape(target)}: write a measure(outputs, target) of "
                "your own"
            )
        if target.is_floating_point() or target.is_complex():
            raise ValueError(
                f"accuracy takes whole numbers as targets, the classes, not {target.dtype}"
            )
        counts = target != IGNORED
        right = (outputs.argmax(1) == target) & counts
        number = int(counts.sum())
        return right.sum().double() / max(number, 1), number


accuracy = Accuracy()
"""Share of the targets that are the class with the largest output: `accuracy(outputs, target)`."""


def _shape(value: Any) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else f"a {type(value).__name__}"


class Score:
    """A measure of a task as a run uses it.

    Args:
        name: in metrics and results.
        given: what the user wrote.

    Attributes:
        measure: name, direction and words.
        adds_up: an object that sees every batch and tells at the end, and not a function whose
            values are averaged.
        evaluating: calls of it.
    """

    def __init__(self, name: str, given: Any) -> None:
        self.name = name
        self.evaluating = Evaluating()
        higher = not isinstance(given, Lower)
        self.given: Any = given.measure if isinstance(given, Lower) else given
        if isinstance(self.given, type):
            raise ValueError(
                f"the measure {name!r} is a class: give one of its objects, "
                f"{self.given.__name__}(...)"
            )
        methods = ("reset", "update", "compute")
        self.adds_up = all(callable(getattr(self.given, method, None)) for method in methods)
        if not self.adds_up and not callable(self.given):
            raise ValueError(
                f"the measure {name!r} must be a function (outputs, target) -> number, or an "
                "object "
                f"with reset(), update(outputs, target) and compute(), not {self.given!r}"
            )
        called: Any = self.given
        if self.adds_up:
            called = called.update
        self.takes_network = takes_network(called)
        percent = isinstance(self.given, Accuracy)
        scale, unit = (100.0, "%") if percent else (1.0, "")
        plural = "accuracies" if name == "accuracy" else f"{name}_values"
        self.measure = Measure(name, plural, higher, scale, unit)

    def meter(self) -> Meter:
        """What takes the batches of one evaluation."""
        return Meter(self)


class Meter:
    """One measure over the batches of one evaluation.

    The values of a function are means over a batch: each counts by the examples in it, so that a
    last batch of another size does not count as much as the others.
    """

    def __init__(self, score: Score) -> None:
        self.score = score
        self.total = 0.0
        self.count = 0.0
        if score.adds_up:
            score.given.reset()

    def add(self, first: Any, second: Any, size: float) -> None:
        """Take a batch: `(outputs, target)` or `(net, batch)`, with its number of examples."""
        given = self.score.given
        if self.score.adds_up:
            self.score.evaluating(lambda: given.update(first, second))
            return
        if isinstance(given, Accuracy):
            value, size = given.counted(first, second)
        else:
            value = self.score.evaluating(lambda: given(first, second))
        self.total += size * self._number(value)
        self.count += size

    def value(self) -> float:
        """The measure of all batches.

        Raises:
            ValueError: it is no finite number.
        """
        if self.score.adds_up:
            value = self._number(self.score.given.compute())
        else:
            value = self.total / self.count if self.count else math.nan
        if not math.isfinite(value):
            raise ValueError(
                f"the measure {self.score.name!r} is {value}: it must be a finite number, 0 for "
                "example where there is nothing to measure"
            )
        return value

    def _number(self, value: Any) -> float:
        if isinstance(value, Tensor) and value.numel() == 1:
            value = value.item()
        item = getattr(value, "item", None)  # of numpy
        if item is not None and not isinstance(value, Tensor) and getattr(value, "size", 1) == 1:
            value = item()
        if isinstance(value, (int, float)):
            number = float(value)
            if not math.isfinite(number):
                raise ValueError(
                    f"the measure {self.score.name!r} is {number} on a batch: it must be a finite "
                    "number, 0 for example where there is nothing to measure"
                )
            return number
        what = f"a tensor of shape {_shape(value)}" if torch.is_tensor(value) else repr(value)
        raise ValueError(f"the measure {self.score.name!r} must be a number, not {what}")


def scores_of(measures: Mapping[str, Any]) -> tuple[Score, ...]:
    """The measures of a task, the deciding one first.

    Raises:
        ValueError: a name that metrics cannot have, something that is no measure.
    """
    if not isinstance(measures, Mapping):
        raise ValueError(
            "measures must be a dictionary from names to functions, such as "
            f"{{'accuracy': gradnas.accuracy}}, not {measures!r}"
        )
    scores = []
    for name, given in measures.items():
        if not isinstance(name, str) or not name.isidentifier():
            raise ValueError(
                f"a measure cannot be called {name!r}: letters, digits and _, as in 'top5_accuracy'"
            )
        if name == LOSS.key:
            raise ValueError("a measure cannot be called 'loss': that of the task is there already")
        scores.append(Score(name, given))
    return tuple(scores)


# Names of what everybody wants less of.
_LESS = re.compile(r"(^|_|\b)(loss|error|err|rmse|mse|mae|nll|perplexity|wer|cer)($|_|\b)", re.I)


def direction_notes(measures: Sequence[Measure]) -> list[str]:
    """Of measures by whose name less is better, and that nobody said so of."""
    notes = []
    for measure in measures:
        if measure.higher_is_better and _LESS.search(measure.key):
            notes.append(
                f"of the measure {measure.key!r} more is taken for better: if less is, say "
                "gradnas.lower(...)"
            )
    return notes
