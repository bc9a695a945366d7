"""What is shown of a kind of architecture, and its recipes.

A `Family` is one object for each kind (`gradnas.families.FAMILIES`): the picture, the sections of a
report, and the named settings of searches and trainings. Programs, exports and commands ask it, and
never which kind of architecture they have in hand.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar, Generic, Protocol, TypeVar

from gradnas.architectures.base import Architecture
from gradnas.config import JsonObject
from gradnas.export.source import NetworkSource
from gradnas.reports.folder import Folder, Mixture, Tables
from gradnas.spaces import Space
from gradnas.tasks.base import SearchSettings, Trainings, TrainSettings
from gradnas.tasks.kind import Kind

Searches = Mapping[str, Callable[[], SearchSettings]]
A = TypeVar("A", bound=Architecture)
S = TypeVar("S", bound=Space)


class Sections(Protocol):
    """What is shown of a search or a training of a kind of architecture, from its folder."""

    def tables(self, folder: Folder) -> Tables:
        """The tables of alphas that a search stores each epoch.

        Raises:
            ValueError: the configuration in the folder is damaged.
        """

    def shown(self, folder: Folder) -> str:
        """The picture of the folder's architecture with its caption."""

    def mixing(self, folder: Folder) -> str:
        """The mixing weights after the last epoch, and how decided they are over the epochs."""

    def mixtures(self, folder: Folder) -> list[Mixture]:
        """The last mixing weights of every place, with their names; none where there are none."""


class Family(ABC, Generic[A, S]):
    """A kind of architecture; there is one object of it.

    Class attributes:
        noun: one architecture in a sentence: "cell", "chain".
        title: above its picture.
        drawn: what its picture shows.
        called: what was given where another family was wanted: "cells", "a chain".
        called_elsewhere: the same where networks of other data were wanted.
        kind: of data that its recipes are for; None where there are none.
        architecture: the class of its architectures.
        spaces: the classes of the spaces whose searches end in one.
        sections: what a report of a run shows; a module of such functions.
        searches: recipe -> the configuration of a search.
        trainings: recipe -> architecture -> the configuration of its training.
        after_data: name of known data -> the training of what was found on them.
        after_search: recipe of a search -> the training of its size, on other data.
    """

    noun: ClassVar[str]
    title: ClassVar[str]
    drawn: ClassVar[str] = "the cells"
    called: ClassVar[str]
    called_elsewhere: ClassVar[str]
    kind: ClassVar[Kind | None] = None
    architecture: ClassVar[type[Architecture]]
    spaces: ClassVar[tuple[type, ...]] = ()
    sections: ClassVar[Sections]
    searches: ClassVar[Searches] = {}
    trainings: ClassVar[Trainings[TrainSettings]] = {}
    after_data: ClassVar[Mapping[str, str]] = {}
    after_search: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    def holds(self, architecture: Architecture) -> bool:
        """Whether an architecture is of this kind."""

    def of_space(self, space: object) -> bool:
        """Whether searches of a space end in an architecture of this kind."""
        return isinstance(space, self.spaces)

    # -- its picture -------------------------------------------------------------------------------

    @abstractmethod
    def picture(
        self,
        architecture: A,
        path: Path | str,
        *,
        title: str | None = None,
        space: object = None,
        run: Path | None = None,
    ) -> Path:
        """The architecture in an SVG, PNG or PDF file, by its suffix.

        The same architecture gives the same bytes.

        Args:
            space: that it is of, where it is known: the picture may tell more then.
            run: the folder of the search that found it, likewise.

        Raises:
            ValueError: the suffix is another one, or the file cannot be written.
        """

    # -- its source --------------------------------------------------------------------------------

    def source(
        self, architecture: A, space: S, in_channels: int, num_classes: int
    ) -> NetworkSource:
        """What a file of readable source says of a network of this kind.

        Raises:
            ValueError: the source of such a network cannot be written.
        """
        del architecture, space, in_channels, num_classes
        raise ValueError(
            f"networks of {self.called} cannot be written as source: export to .pt2 or .onnx"
        )

    # -- its recipes -------------------------------------------------------------------------------

    @abstractmethod
    def training_after(self, what: str, searched: JsonObject) -> str:
        """The training recipe when none is named.

        Args:
            what: the architecture's published name, or where it was read.
            searched: the configuration of the search that found it; empty where there was none.

        Raises:
            ValueError: no recipe trains it.
        """

    def recipe_after(self, searched: JsonObject) -> str | None:
        """The training recipe that belongs to the data of a search, else to its own recipe.

        None where neither has one, or where it is not known (of a search without a recipe).
        """
        data = searched.get("data")
        source = data.get("source") if isinstance(data, dict) else None
        if source in self.after_data:
            return self.after_data[source]
        return self.after_search.get(str(searched.get("recipe")))

    def space_of(self, what: str, searched: JsonObject | None) -> S | None:
        """The space of an architecture; None where it is unknown.

        Args:
            what: its published name, or where it was read.
            searched: the entry of the space in the configuration of its run.
        """
        return None

    @abstractmethod
    def training_space(
        self, space: S, architecture: A, what: str, searched: JsonObject | None
    ) -> S:
        """The size of the network to train, from that of the recipe; see `space_of`."""

    # -- its sections in a report ------------------------------------------------------------------

    def tables(self, folder: Folder) -> Tables:
        """As of its sections."""
        return self.sections.tables(folder)

    def shown(self, folder: Folder) -> str:
        """As of its sections."""
        return self.sections.shown(folder)

    def mixing(self, folder: Folder) -> str:
        """As of its sections."""
        return self.sections.mixing(folder)

    def mixtures(self, folder: Folder) -> list[Mixture]:
        """As of its sections."""
        return self.sections.mixtures(folder)

    def collapse(self, folder: Folder) -> str | None:
        """A warning, if what the search ended with has the marks of a collapse."""
        return None
