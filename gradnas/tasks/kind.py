"""What a program needs to know of a kind of data.

A `Kind` is one object for each kind of data (`gradnas.tasks.KINDS`): its measure, its
configurations, its words. It makes the live task of a run (`SearchTask`, `TrainTask`): the search
or the network, the streams of batches with their positions, the losses. Programs, reports, exports
and commands ask these, and never which kind they have in hand.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Any, Generic

import torch
from torch import nn

from gradnas.architectures.base import Architecture
from gradnas.config import JsonObject
from gradnas.tasks.base import D, DataSettings, S, T, Trainings, Words
from gradnas.tasks.data_part import DataPart
from gradnas.tasks.measure import Measure
from gradnas.tasks.search import SearchTask
from gradnas.tasks.sentences import Sentences
from gradnas.tasks.trained_part import TrainedPart
from gradnas.tasks.training import TrainTask


class Kind(DataPart[T, D], TrainedPart[T], Generic[S, T, D]):
    """A kind of data; there is one object of it.

    What it knows of the data and of trained networks stands with `DataPart` and `TrainedPart`.

    Attributes:
        name: in a sentence: "images", "text".
        measure: what trained networks are compared by.
        words: of its reports.
        search_config, train_config: the classes of its configurations, by which it is found.
        no_estimate: why `--estimate` is refused, where it is.
        data_config: the class of the settings of its data; all of them have defaults but `source`.
        data_of_search: what a training takes over from the data of the search before it.
        other_data: what to do where the data of a run are found to be others; None: name the right
            ones.
        sheet_name: of the file with samples of the data, by default; its ending says the form.
        searches: recipe -> the configuration of a search, beside the recipes of the families.
        trainings: recipe -> architecture -> the configuration of its training; the first one
            follows a search on such data, where there is one.
    """

    measure: Measure
    words: Words
    search_config: type[S]
    train_config: type[T]
    data_config: type[DataSettings] | None = None
    no_estimate: str | None = None
    other_data: str | None = None
    sheet_name: str = "sheet.png"
    data_of_search: tuple[str, ...] = ("source",)
    searches: Mapping[str, Callable[[], S]] = MappingProxyType({})
    trainings: Trainings[T] = MappingProxyType({})

    def of(self, config: S | T) -> Kind[S, T, D]:
        """The kind as runs of this configuration see it: another where they have own measures."""
        del config
        return self

    @property
    @abstractmethod
    def sentences(self) -> Sentences[S]:
        """What its runs say in the terminal."""

    # -- the beginning of a run --

    def called(self, recipe: str) -> str:
        """What a recipe of a training is called where what follows a search is said."""
        return recipe

    def check_search(self, config: S, data: D, device: torch.device) -> list[str] | None:
        """ValueError, before there is a run folder, for a search that cannot be.

        Returns:
            What is to be said before the first step; None for nothing.
        """
        del config, data, device
        return None

    def settled(self, config: T, data: D, chosen: Collection[str]) -> tuple[T, list[str]]:
        """The configuration of a training as these data allow it, and what is to be said of that.

        Args:
            chosen: fields that the user set, which are not changed.
        """
        del data, chosen
        return config, []

    def following(self, config: T, searched: JsonObject) -> T:
        """The configuration of a training that follows a search with this configuration.

        Beside the data and the space, which any training takes over.
        """
        del searched
        return config

    def check_training(self, config: T, data: D, device: torch.device) -> None:
        """ValueError, before there is a run folder, for a training that cannot be."""
        del config, data, device

    # -- live tasks --

    @abstractmethod
    def search_task(self, config: S, data: D, device: torch.device) -> SearchTask[S, Any]:
        """The live task of a search."""

    @abstractmethod
    def train_task(
        self, config: T, data: D, device: torch.device, network: nn.Module | None = None
    ) -> TrainTask[T, Any]:
        """The live task of a training.

        `network` is another than that of the configuration, with the same calls (for comparisons).
        """

    def random_architecture(self, config: T, generator: torch.Generator) -> Architecture:
        """An architecture drawn uniformly, to be trained in the same way for comparison."""
        return config.space.random_decision(generator)
