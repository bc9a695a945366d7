"""What a program needs to know of a kind of data.

A `Kind` is one object for each kind of data (`gradnas.tasks.KINDS`): its measure, its
configurations, its words. It makes the live task of a run (`SearchTask`, `TrainTask`): the search
or the network, the streams of batches with their positions, the losses. Programs, reports, exports
and commands ask these, and never which kind they have in hand.
"""

from __future__ import annotations

import shlex
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import Field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, Protocol, Self, TypeVar

import torch
from torch import nn

from gradnas import runs
from gradnas.architectures.base import Architecture
from gradnas.config import JsonObject, build, from_json, to_json
from gradnas.data.fingerprint import Fingerprint
from gradnas.data.summary import DataSummary
from gradnas.export.source import SourceOf
from gradnas.gradients import ArchitectureGradient
from gradnas.objectives.cost import ExpectedCost
from gradnas.optimizers import AlphaOptimizer, WeightOptimizer
from gradnas.relaxations import Relaxation
from gradnas.reports.folder import Folder
from gradnas.reports.words import Summary
from gradnas.spaces.base import NetworkSpace, Space
from gradnas.tasks.costs import keep_table, kept_cost, with_digest_of_table
from gradnas.tasks.measure import Measure
from gradnas.tasks.search import SearchTask
from gradnas.tasks.sentences import NextStep, Sentences
from gradnas.tasks.timed import Timed, Wanted
from gradnas.tasks.training import TrainTask

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
MAY_CHANGE = ("device", "threads", "checkpoint_seconds", "max_steps", "random_cells", "candidates")
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
        def candidates(self) -> int: ...  # where it takes them
        @property
        def cost(self) -> ExpectedCost | None: ...  # where it takes one

    def hand_on(self, config: TrainSettings) -> TrainSettings:
        """The configuration of a training that follows, with the task of this search."""
        return config

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
        return build(cls, obj, where)


# ---- kinds ---------------------------------------------------------------------------------------


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


def unspoken(sentence: str) -> None:
    """Says nothing."""
    del sentence


def unsaid(summary: DataSummary) -> None:
    """Say nothing of what was read."""
    del summary


S = TypeVar("S", bound=SearchSettings)
T = TypeVar("T", bound=TrainSettings)
D = TypeVar("D")  # what `load()` of these settings gives

Trainings = Mapping[str, Callable[[Any], T]]  # from an architecture that the recipe is for


class Kind(ABC, Generic[S, T, D]):
    """A kind of data; there is one object of it.

    Attributes:
        name: in a sentence: "images", "text".
        measure: what trained networks are compared by.
        words: of its reports.
        search_config, train_config: the classes of its configurations, by which it is found.
        no_estimate: why `--estimate` is refused, where it is.
        data_config: the class of the settings of its data; all of them have defaults but `source`.
        data_of_search: what a training takes over from the data of the search before it.
        sheet_name: of the file with samples of the data, by default; its ending says the form.
        searches: recipe -> the configuration of a search, beside the recipes of the families.
        trainings: recipe -> architecture -> the configuration of its training; the first one
            follows a search on such data, where there is one.
    """

    name: str
    measure: Measure
    words: Words
    search_config: type[S]
    train_config: type[T]
    data_config: type[DataSettings] | None = None
    no_estimate: str | None = None
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

    # -- the data --

    def claims(self, source: str) -> bool:
        """Whether a name or a path is one of data of this kind, as far as it tells by itself."""
        del source
        return False

    @abstractmethod
    def read(self, data: D) -> DataSummary:
        """What was read."""

    @abstractmethod
    def fingerprint(self, data: D) -> Fingerprint:
        """What the data are known again by, when a run is resumed or followed by a training."""

    def suspicions(self, data: D) -> list[str]:
        """What looks wrong in the data at a closer look than `read` takes, each a sentence."""
        del data
        return []

    def sheet(self, data: D, path: Path) -> Path:
        """Write samples of the data as they reach the network, with their labels; the path.

        Raises:
            ValueError: there is no such picture, or the path has another ending than it can.
        """
        del data, path
        raise ValueError(f"of {self.name} there is no sheet of samples")

    # -- the beginning of a run --

    def check_search(self, config: S, data: D, device: torch.device) -> None:
        """ValueError, before there is a run folder, for a search that cannot be."""
        del config, data, device

    def settled(self, config: T, data: D, chosen: Collection[str]) -> tuple[T, list[str]]:
        """The configuration of a training as these data allow it, and what is to be said of that.

        Args:
            chosen: fields that the user set, which are not changed.
        """
        del data, chosen
        return config, []

    def notes(self, data: D) -> list[str]:
        """What a user must know of the data of a run."""
        return list(getattr(data, "notes", ()))

    def following(self, config: T, searched: JsonObject) -> T:
        """The configuration of a training that follows a search with this configuration.

        Beside the data and the space, which any training takes over.
        """
        del searched
        return config

    def after_search(self, run: runs.Run, config: T, data: D) -> list[str]:
        """What differs between the data of a search and those of the training that follows it.

        Raises:
            ValueError: they differ in what the network was searched for.
        """
        del run, config, data
        return []

    def check_training(self, config: T, data: D, device: torch.device) -> None:
        """ValueError, before there is a run folder, for a training that cannot be."""
        del config, data, device

    def begin(self, run: runs.Run, data: D) -> None:
        """Write into a new run folder what must be known of the data later."""
        del run, data

    def check_same(self, run: runs.Run, data: D) -> None:
        """ValueError where the run cannot go on with these data: its network does not fit them.

        Whether they are the data that it began with is asked of the fingerprint.
        """
        del run, data

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

    # -- after a training --

    @abstractmethod
    def untrained(self, run: runs.Run, config: T) -> nn.Module:
        """The network of a finished training with fresh weights.

        Its folder says what must be known of the data.
        """

    def load_trained(self, run: runs.Run, config: T) -> nn.Module:
        """The trained network of a finished run, in eval mode, on the CPU.

        Raises:
            ValueError: no weights yet, or weights of another network (names the first tensor that
                does not fit).
        """
        path = run.path / runs.WEIGHTS
        if not path.exists():
            raise ValueError(
                f"{run.path} holds no trained weights yet; finish it with: "
                f"gradnas resume {shlex.quote(str(run.path))}"
            )
        trained = run.result("genotype")
        if trained is not None and trained != config.genotype.to_text():
            raise ValueError(
                f"the genotype in {run.path / runs.CONFIG} is not the one that was trained, which "
                f"{runs.RESULTS} names: one of the two files was changed"
            )
        with torch.device("cpu"):
            network = self.untrained(run, config)
        try:
            network.load_state_dict(run.load_tensors(runs.WEIGHTS))
        except RuntimeError as error:
            raise ValueError(f"{path} does not fit its configuration: {error}") from error
        return network.eval()

    @abstractmethod
    def evaluate(
        self,
        run: runs.Run,
        config: T,
        source: str | None,
        device: torch.device,
        say: Callable[[DataSummary], None] = unsaid,
    ) -> str:
        """Evaluate the trained network on the test data: one line that says what came out.

        Args:
            source: of other data than those of the configuration.
            say: is called with what was read, before the evaluation.
        """

    @abstractmethod
    def export(
        self,
        run: runs.Run,
        config: T,
        path: Path,
        source: SourceOf,
        say: Callable[[str], None] = unspoken,
    ) -> list[Path]:
        """Write the trained network in the form that the ending of `path` names.

        Returns:
            The files written.

        Args:
            source: how the source of such a network is written, for `.py`.
            say: is called with what is to be said of the file.
        """

    def normalising(self) -> Kind[S, T, D]:
        """The kind whose exported networks take inputs as they are stored, and normalise inside.

        Raises:
            ValueError: inputs of this kind are not normalised.
        """
        raise ValueError(
            f"--normalised is for images: what goes into a network of {self.name} is not normalised"
        )

    def after_training(self, run: runs.Run, config: T) -> list[NextStep]:
        """What to do with a finished training, beyond what goes for any."""
        del run, config
        return []

    def generate(
        self,
        run: runs.Run,
        config: T,
        prompt: str,
        tokens: int,
        temperature: float,
        seed: int,
        say: Callable[[str], None] = unspoken,
    ) -> str:
        """Go on with a text; ValueError where the trained network is no language model.

        `say` is called with what must be known of how the prompt is read.
        """
        del config, prompt, tokens, temperature, seed, say
        raise ValueError(
            f"{run.path} was trained on {self.name}: only a language model can write text"
        )
