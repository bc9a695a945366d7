"""What a report reads: the files of a run folder as checked values.

Every error is a ValueError that names the file. What a configuration means is the business of the
kind of data and of the family of architectures; here it is a dictionary.

Legend: N tables (one more than finished epochs); the other axes are those of a table of alphas.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from gradnas import runs
from gradnas.architectures.base import Architecture
from gradnas.config import Json, JsonObject, from_json, read_object
from gradnas.pictures.canvas import plain
from gradnas.relaxations import Relaxation
from gradnas.runs import Record

T = TypeVar("T")


@dataclass(frozen=True)
class Records:
    """The lines of a `.jsonl` file, each of an epoch."""

    path: Path
    rows: tuple[Record, ...]

    def series(self, key: str) -> list[tuple[int, float]]:
        """(finished epochs, value) wherever the value is there.

        Raises ValueError for one that is not a number.
        """
        pairs = []
        for row in self.rows:
            if key in row:
                where = f"{self.path}: {key} of epoch {row['epoch']}"
                pairs.append((row["epoch"] + 1, number(row[key], where)))
        return pairs

    def last(self, key: str) -> float | None:
        """The last value there is."""
        pairs = self.series(key)
        return pairs[-1][1] if pairs else None


@dataclass(frozen=True)
class RandomCells:
    """What random architectures reach that were trained in the same way as the one of a run.

    Attributes:
        values: of the measure of the kind of data: test accuracies, test perplexities.
        mean, std: of these; the deviation is that of a sample.
    """

    values: tuple[float, ...]
    mean: float
    std: float


@dataclass(frozen=True)
class Tables:
    """The tables of alphas that a search stores each epoch.

    Attributes:
        shapes: name -> shape; None where the configuration does not say.
        what: a table is of: "cell", "block".
        example: a key in the file, as an error shows it.
    """

    shapes: Mapping[str, tuple[int, ...]] | None
    what: str
    example: str


@dataclass(frozen=True)
class Mixture:
    """One decision of a search, as its alphas stand.

    Attributes:
        place: where it is: a choice, a block, an edge of a cell.
        operations: that may stand there.
        probabilities: of each of them, by the relaxation.
        decided: that which was derived; None where none was, or it is not known.
    """

    place: str
    operations: tuple[str, ...]
    probabilities: tuple[float, ...]
    decided: str | None = None


@dataclass(frozen=True)
class Folder:
    """What a run folder holds. Files that are not there yet are empty values.

    Attributes:
        is_search: of a search, not of a training.
        noun: what sentences call its architecture: "cell", "chain".
        drawn: what its picture shows.
        options: what commands need that go on with it: ` --task my_task.py`.
        architecture: of an unfinished search the one after its last finished epoch.
        data: what was read, and what it is known again by.
        alphas: name -> tables with a first axis N, one table more than finished epochs.
        child: the training that followed a search.
        random: trainings of random architectures that followed a training.
    """

    path: Path
    is_search: bool
    config: JsonObject
    status: JsonObject
    environment: JsonObject
    results: Record
    metrics: Records
    timings: Records
    child: Folder | None
    random: tuple[Folder, ...]
    noun: str = "cell"
    drawn: str = "the cells"
    options: str = ""
    architecture: Architecture | None = None
    alphas: Mapping[str, Tensor] = field(default_factory=dict)
    data: JsonObject = field(default_factory=dict)

    @property
    def state(self) -> str:
        """`finished`, `running`, ..., or `unfinished` when nobody wrote it down."""
        return plain(self.status.get("status", "unfinished"))

    @property
    def training(self) -> Folder | None:
        """The training that a report tells of: the run itself, or that of the search."""
        return self.child if self.is_search else self

    @property
    def source(self) -> str:
        """Where the data are from."""
        return plain(self.setting("data", "source", kind=str))

    @property
    def epochs(self) -> int:
        """How many there are in all."""
        return self.setting("epochs", kind=int)

    @property
    def relaxation(self) -> Relaxation:
        """That of a search."""
        where = f"{self.path / runs.CONFIG}: relaxation"
        return from_json(Relaxation, self.setting("relaxation", kind=dict), where)  # type: ignore[type-abstract]

    def random_cells(self, measure: str, plural: str) -> RandomCells | None:
        """What `results.json` says of random architectures; None where it does not.

        Args:
            measure, plural: "accuracy" and "accuracies", for example.
        """
        found = self.results.get("random_cells")
        if found is None:
            return None
        where = self.path / runs.RESULTS
        many = f"test_{plural}"
        values = found.get(many) if isinstance(found, dict) else None
        if not isinstance(values, list) or not values:
            raise ValueError(f"{where}: 'random_cells' must hold a list of {many}, not {found!r}")
        assert isinstance(found, dict)
        mean_key = f"mean_test_{measure}"
        std_key = f"std_test_{measure}"
        mean = number(found.get(mean_key), f"{where}: {mean_key}")
        std = number(found.get(std_key), f"{where}: {std_key}")
        return RandomCells(tuple(number(value, f"{where}: {many}") for value in values), mean, std)

    def result(self, key: str) -> float | None:
        """A number of `results.json`; None where it is not there."""
        if key not in self.results:
            return None
        return number(self.results[key], f"{self.path / runs.RESULTS}: {key}")

    def setting(self, *keys: str, kind: type[T]) -> T:
        """A value of `config.json`. Raises ValueError when it is missing or of another type."""
        value: Json = self.config
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        if type(value) is not kind:
            where = f"{self.path / runs.CONFIG}: {'.'.join(keys)}"
            raise ValueError(f"{where} must be of the type {kind.__name__}, not {value!r}")
        return value

    def names(self, *keys: str) -> list[str]:
        """A list of names in `config.json`, such as that of a space's operations.

        Raises ValueError when it is anything else.
        """
        names = self.setting(*keys, kind=list)
        if not names or not all(isinstance(name, str) for name in names):
            where = f"{self.path / runs.CONFIG}: {'.'.join(keys)}"
            raise ValueError(f"{where} must be a list of names, not {names!r}")
        return [plain(name) for name in names]


# -- reading ---------------------------------------------------------------------------------------


def read_folder(path: Path, searches: Collection[str], trainings: Collection[str]) -> Folder:
    """The files of a run folder and of those within it, without architecture and alphas.

    Within a search is the training in `train/`, within a training the random architectures in
    `random/`.

    Args:
        searches, trainings: the names of the configurations that there are.

    Raises:
        ValueError: it is not a run folder, or a file in it is damaged.
    """
    runs.Run.open(path)
    config = read_object(path / runs.CONFIG)
    architecture = config.get("genotype")
    if isinstance(architecture, dict):  # of a training; a report shows and compares its text
        where = f"{path / runs.CONFIG}: genotype"
        config["genotype"] = from_json(Architecture, architecture, where).to_text()
    name = config.get("type")
    known = [*searches, *trainings]
    if name not in known:
        raise ValueError(f"{path / runs.CONFIG} must be one of {', '.join(known)}, not {name!r}")

    child = None
    if name in searches and (path / "train" / runs.CONFIG).exists():
        child = read_folder(path / "train", searches, trainings)
    random = []
    # By length first: 10 comes after 9
    for own in sorted((path / "random").glob("*"), key=lambda own: (len(own.name), own.name)):
        if (own / runs.CONFIG).exists():
            random.append(read_folder(own, searches, trainings))
    return Folder(
        path=path,
        is_search=name in searches,
        config=config,
        status=_object(path / runs.STATUS),
        environment=_object(path / runs.ENVIRONMENT),
        results=_object(path / runs.RESULTS),
        metrics=read_records(path / runs.METRICS),
        timings=read_records(path / runs.TIMINGS),
        child=child,
        random=tuple(random),
        data=_object(path / runs.DATA),
    )


def read_alphas(path: Path, tables: Tables) -> dict[str, Tensor]:
    """Name -> tables with a first axis N, as many for each as the file of a run folder holds.

    Empty without a file.

    Raises:
        ValueError: a table that is missing, that the configuration does not know, of another shape,
            or with NaN or infinite values.
    """
    file = path / runs.ALPHAS
    if not file.exists():
        return {}
    by_epoch: dict[str, dict[int, Tensor]] = {}
    for key, table in runs.Run(path).load_tensors(runs.ALPHAS).items():
        parts = re.fullmatch(r"(.+)/(\d+)", key)
        is_known = tables.shapes is None or (parts is not None and parts[1] in tables.shapes)
        if parts is None or not is_known:
            raise ValueError(
                f"{file}: {key!r} is not a {tables.what} and a number of epochs, "
                f"such as {tables.example!r}"
            )
        name = parts[1]
        shape = tuple(table.shape)
        if tables.shapes is not None and shape != tables.shapes[name]:
            raise ValueError(
                f"{file}: {key!r} has the shape {shape}, but {runs.CONFIG} says "
                f"{tables.shapes[name]}"
            )
        if not torch.isfinite(table).all():
            raise ValueError(f"{file}: {key!r} holds NaN or infinite values")
        by_epoch.setdefault(name, {})[int(parts[2])] = table.double()

    stacked = {}
    for name, own in sorted(by_epoch.items()):
        numbers = sorted(own)
        if numbers != list(range(len(own))):
            raise ValueError(
                f"{file}: tables of the {name} {tables.what} are missing; "
                f"there are only those of {numbers}"
            )
        if len({table.shape for table in own.values()}) > 1:
            raise ValueError(f"{file}: tables of the {name} {tables.what} differ in shape")
        stacked[name] = torch.stack([own[n] for n in numbers])
    return stacked


def number(value: object, where: str) -> float:
    """A finite number; ValueError that names `where` otherwise."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    # NaN fails both comparisons; a whole number may be too large to become a float.
    if not is_number or not -1e300 < value < 1e300:
        raise ValueError(f"{where} must be a finite number, not {value!r}")
    return float(value)


def _object(path: Path) -> JsonObject:
    return read_object(path) if path.exists() else {}


def read_records(path: Path) -> Records:
    """The lines of a `.jsonl` file, each of an epoch; ValueError where it is damaged."""
    try:
        rows = runs.Run(path.parent).records(path.name)
    except ValueError as error:  # the errors of JSON and of Unicode are ValueErrors
        raise ValueError(f"{path} is damaged: {error}") from error
    for row in rows:
        if not isinstance(row, dict) or type(row.get("epoch")) is not int:
            raise ValueError(
                f"{path} is damaged: every line must be an object with a whole number 'epoch'"
            )
    return Records(path, tuple(rows))
