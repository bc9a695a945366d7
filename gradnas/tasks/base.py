"""What configurations of runs on any kind of data have, and the words of their reports."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import Field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, Self, TypeVar

import torch

from gradnas.architectures.base import Architecture
from gradnas.config import JsonObject, build, from_json, to_json
from gradnas.gradients import ArchitectureGradient
from gradnas.objectives.cost import ExpectedCost
from gradnas.objectives.terms import AlphaTerm
from gradnas.optimizers import AlphaOptimizer, WeightOptimizer
from gradnas.relaxations import Relaxation
from gradnas.reports.folder import Folder
from gradnas.reports.words import Summary
from gradnas.selections import Selection
from gradnas.spaces.base import NetworkSpace, Space
from gradnas.stabilizers import Stabilizer
from gradnas.tasks.costs import keep_table, kept_cost, with_digest_of_table
from gradnas.tasks.division import Division
from gradnas.tasks.timed import Timed, Wanted

# ---- configurations ------------------------------------------------------------------------------


class DataSettings(Protocol):
    """Where the data of a run are: a frozen dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def source(self) -> str:
        """A name of known data, or a path."""
        ...

    def load(self) -> object:
        """Read them."""
        ...


# What a run may be resumed with another value of: results differ in their last bits at the most, or
# another part of the work is done. Where the data are is checked by what they hold.
MAY_CHANGE = (
    "device",
    "threads",
    "checkpoint_seconds",
    "max_steps",
    "random_cells",
    "candidates",
    "guard",
)
# Lists that checkpoints of earlier versions do not name, as they had nothing to put there.
LATER = ("terms", "stabilizers")
DATA_MAY_CHANGE = ("source", "sha256", "workers")


class Settings:
    """What the configurations of all runs have.

    The fields are those of the frozen dataclasses below this class, where their order is that of
    the configuration files; here they are only named, for type checkers.
    """

    takes_cost: ClassVar[bool] = False  # whether it has a field `cost`

    if TYPE_CHECKING:
        __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

        @property
        def space(self) -> Space: ...
        @property
        def data(self) -> DataSettings: ...
        @property
        def epochs(self) -> int: ...
        @property
        def max_steps(self) -> int | None: ...
        @property
        def seed(self) -> int: ...
        @property
        def device(self) -> str: ...
        @property
        def threads(self) -> int | None: ...
        @property
        def checkpoint_seconds(self) -> float: ...

    def load(self) -> object:
        """Read the data."""
        return self.data.load()

    def located(self, folder: Path) -> Self:
        """The configuration that was read from a file in `folder`, with paths as they are here."""
        config: Any = self
        if not hasattr(config.data, "located"):
            return config
        return replace(config, data=config.data.located(folder))

    @property
    def epochs_may_change(self) -> bool:
        """Whether a run may be resumed with another number of epochs.

        Only where no step depends on how many there will be.
        """
        return False

    def state_settings(self) -> JsonObject:
        """The settings that a checkpoint belongs to: all but those that may change on the way.

        Raises:
            ValueError: a file that the configuration names cannot be read.
        """
        config: Any = self
        has_cost = getattr(config, "cost", None) is not None
        settings: JsonObject = to_json(replace(config, cost=None) if has_cost else config)
        if has_cost:
            # Not by the path of its table: the run folder has a copy, and may be moved.
            settings["cost"] = with_digest_of_table(config.cost)
        for name in MAY_CHANGE:
            settings.pop(name, None)
        if self.epochs_may_change:
            settings.pop("epochs", None)
        for name in LATER:
            if settings.get(name) == []:
                del settings[name]
        if settings.get("selection") == {"type": "Strongest"}:
            del settings["selection"]
        if settings.get("cost_image_size") is None:
            settings.pop("cost_image_size", None)  # checkpoints of earlier versions have none
        if settings.get("division") is None:
            settings.pop("division", None)  # checkpoints of earlier versions have none
        if settings.get("accelerated") is False:
            del settings["accelerated"]  # as in checkpoints of earlier versions
        data = settings.get("data")
        if isinstance(data, dict):
            settings["data"] = {k: v for k, v in data.items() if k not in DATA_MAY_CHANGE}
        return settings

    # -- of a task of the user's own --

    def with_task(self, given: Any) -> Self:
        """The configuration bound to a task of the user's own.

        Args:
            given: a `gradnas.tasks.your_task.settings.GivenTask`.

        Raises:
            ValueError: a task that is not that of the run; the run is of no such task.
        """
        del given
        raise ValueError(
            f"this run is on {self.data.source}, and not on a task of your own: leave out --task"
        )

    def task_change(self, sha256: str | None) -> str | None:
        """A sentence where the file of its task had another hash when the run began."""
        del sha256
        return None

    @property
    def task_option(self) -> str:
        """What a command needs that goes on with it: ` --task my_task.py`, or nothing."""
        return ""

    def with_source(self, source: str) -> Self:
        """The configuration with data of another name or path."""
        config: Any = self
        return replace(config, data=replace(config.data, source=source))

    def check_architecture(self) -> None:
        """Of a training: ValueError for an architecture that is none of its space."""
        config: Any = self
        with torch.device("meta"):
            config.space.network(config.genotype)

    def kept(self) -> Self:
        """The configuration as it is written into a run folder, by the files that are kept there.

        Raises:
            ValueError: a file that it names cannot be read.
        """
        config: Any = self
        return replace(config, cost=kept_cost(config.cost)) if self.takes_cost else config

    def keep_files(self, folder: Path) -> None:
        """Write into a run folder the files that the configuration names."""
        if self.takes_cost:
            config: Any = self
            keep_table(config.cost, folder)


class ImageSizes(NamedTuple):
    """What a network of images must be told of them; the side is in pixels."""

    channels: int
    side: int
    classes: int


class SearchSettings(Settings):
    """The configuration of a search on one kind of data."""

    if TYPE_CHECKING:

        @property
        def relaxation(self) -> Relaxation: ...
        @property
        def weights(self) -> WeightOptimizer | None: ...  # None: an optimiser of a task's own
        @property
        def alphas(self) -> AlphaOptimizer | None: ...
        @property
        def warmup_epochs(self) -> int: ...
        @property
        def gradient(self) -> ArchitectureGradient: ...
        @property
        def terms(self) -> tuple[AlphaTerm, ...]: ...
        @property
        def stabilizers(self) -> tuple[Stabilizer, ...]: ...
        @property
        def selection(self) -> Selection: ...
        @property
        def candidates(self) -> int | None: ...  # where it takes them
        @property
        def cost(self) -> ExpectedCost | None: ...  # where it takes one

    def hand_on(self, config: TrainSettings) -> TrainSettings:
        """The configuration of a training that follows, with the task of this search."""
        return config

    def division_for(self, data: Any, seed: int) -> Division:
        """How its training data are divided, for all searches of a study.

        Args:
            data: as they were loaded.
            seed: of the study, where the division would depend on that of the search.

        Raises:
            ValueError: searches on such data are no part of a study.
        """
        del data, seed
        raise ValueError(f"a study has no searches of {type(self).__name__}")

    def divided_as(self, division: Division) -> Self:
        """The configuration with this division, whatever its seed is."""
        del division
        return self

    def timed(self, wanted: Wanted) -> Timed:
        """Its supernet, and what it is timed with.

        Raises:
            ValueError: it takes no cost; what does not fit the memory.
        """
        del wanted
        raise ValueError("latencies are measured for searches on images and on tasks of your own")


class TrainSettings(Settings):
    """The configuration of a training on one kind of data; `genotype` is what is trained."""

    if TYPE_CHECKING:

        @property
        def space(self) -> NetworkSpace: ...
        @property
        def genotype(self) -> Architecture: ...
        @property
        def random_cells(self) -> int: ...
        @property
        def division(self) -> Division | None: ...

    @classmethod
    def from_json(cls, obj: JsonObject, where: str) -> Self:
        """The configuration with these fields in JSON form; errors name it `where`.

        In earlier versions the field `genotype` held a text, which the space knows how to read.

        Raises:
            ValueError: as `gradnas.config.from_json` does; a text that is no architecture of the
                space.
        """
        text = obj.get("genotype")
        if isinstance(text, str):
            space = from_json(Space, obj.get("space"), f"{where}.space")
            try:
                architecture = space.decision(text)
            except ValueError as error:
                raise ValueError(f"{where}.genotype: {error}") from error
            obj = {**obj, "genotype": to_json(architecture)}
        if any(field.name == "accelerated" for field in fields(cls)):
            # A run of an earlier version was plain, and goes on as it began.
            obj = {"accelerated": False, **obj}
        return build(cls, obj, where)


# ---- kinds --------------------------------------------------------------------------------------


class Words(ABC):
    """What a report says of runs on one kind of data.

    Fragments are HTML, and empty where there is nothing to say.
    """

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

    def options(self, folder: Folder) -> str:
        """What commands need that go on with the run, with a space before it."""
        del folder
        return ""

    @abstractmethod
    def commands(self, folder: Folder) -> list[tuple[str, str]]:
        """What can be done with the trained network: command lines and their purposes."""


S = TypeVar("S", bound=SearchSettings)
T = TypeVar("T", bound=TrainSettings)
D = TypeVar("D")  # what `load()` of these settings gives

Trainings = Mapping[str, Callable[[Any], T]]  # from an architecture that the recipe is for
