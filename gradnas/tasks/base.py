"""What a program needs to know of a kind of data: its settings, its measure, its words.

A `Kind` is one object for each kind of data (`gradnas.tasks.KINDS`). A configuration is of one
kind; it loads the data and makes the live task of a run. Programs, reports, exports and commands
ask these, and never which kind they have in hand.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from gradnas.config import build, from_json, to_json
from gradnas.reports.folder import Folder
from gradnas.reports.words import Summary
from gradnas.spaces import Space


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

    def number(self, value: float) -> str:
        """The number alone, with two decimals: of a spread, for example."""
        return f"{self.scale * value:.2f}"

    def text(self, value: float) -> str:
        """The number with its unit: `98.05%`."""
        return f"{self.number(value)}{self.unit}"


class SearchSettings(ABC):
    """The configuration of a search on one kind of data; subclasses are frozen dataclasses."""


class TrainSettings(ABC):
    """The configuration of a training on one kind of data; subclasses are frozen dataclasses."""

    @classmethod
    def from_json(cls, obj: Mapping[str, Any], where: str) -> Self:
        """The configuration with these fields in JSON form; errors name it `where`.

        In earlier versions the field `genotype` held a text, which the space knows how to read.

        Raises:
            ValueError: as `gradnas.config.from_json` does; a text that is no architecture of the
                space.
        """
        text = obj.get("genotype")
        if isinstance(text, str):
            space: Any = from_json(Space, obj.get("space"), f"{where}.space")
            try:
                architecture = space.decision(text)
            except ValueError as error:
                raise ValueError(f"{where}.genotype: {error}") from error
            obj = {**obj, "genotype": to_json(architecture)}
        return build(cls, obj, where)


class Words(ABC):
    """What a report says of runs on one kind of data; fragments are HTML, empty where there is
    nothing."""

    @abstractmethod
    def summary(self, folder: Folder) -> Summary:
        """What came out, in one sentence."""

    @abstractmethod
    def key_numbers(self, folder: Folder) -> list[tuple[str, str]]:
        """The numbers that a reader looks for first, each with what it is."""

    @abstractmethod
    def comparison(self, folder: Folder) -> str:
        """The trained network beside random ones."""

    def costs(self, folder: Folder) -> str:
        """What the derived networks cost, where the search had a cost."""
        return ""

    @abstractmethod
    def curves(self, folder: Folder) -> str:
        """Losses and measures over the epochs."""

    @abstractmethod
    def commands(self, folder: Folder) -> list[tuple[str, str]]:
        """What can be done with the trained network: command lines and their purposes."""


class Kind(ABC):
    """A kind of data; there is one object of it.

    Attributes:
        name: in a sentence: "images", "text".
        measure: what trained networks are compared by.
        words: of its reports.
        search_config, train_config: the classes of its configurations, by which it is found.
    """

    name: str
    measure: Measure
    words: Words
    search_config: type[SearchSettings]
    train_config: type[TrainSettings]
