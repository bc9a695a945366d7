"""What a report reads: the files of a run folder as checked values. Every error is a ValueError
that names the file.

Legend: E edges, O operations, N tables (one more than finished epochs).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gradnas import runs
from gradnas.architectures.chain import Chain
from gradnas.architectures.genotype import Genotype
from gradnas.architectures.registry import load_architecture
from gradnas.config import from_json, read_object
from gradnas.pictures.canvas import plain
from gradnas.pictures.plots import edges
from gradnas.relaxations import Relaxation
from gradnas.spaces import ImageSpace, MBConvChain

SEARCHES, TRAININGS = ("SearchConfig", "TextSearchConfig"), ("TrainConfig", "TextTrainConfig")
TEXTS = ("TextSearchConfig", "TextTrainConfig")


@dataclass(frozen=True)
class Records:
    """The lines of a `.jsonl` file, each of an epoch."""

    path: Path
    rows: tuple[dict[str, Any], ...]

    def series(self, key: str) -> list[tuple[int, float]]:
        """(finished epochs, value) wherever the value is there. Raises ValueError for one that is
        not a number."""
        rows = [row for row in self.rows if key in row]
        return [
            (row["epoch"] + 1, number(row[key], f"{self.path}: {key} of epoch {row['epoch']}"))
            for row in rows
        ]

    def last(self, key: str) -> float | None:
        """The last value there is."""
        return next((value for _, value in reversed(self.series(key))), None)


@dataclass(frozen=True)
class RandomCells:
    """Test accuracies of random cells that were trained in the same way as the cell of a run; of
    language models their test perplexities."""

    accuracies: tuple[float, ...]
    mean: float
    std: float  # of a sample


@dataclass(frozen=True)
class Folder:
    """What a run folder holds. Files that are not there yet are empty values."""

    path: Path
    config: dict[str, Any]
    status: dict[str, Any]
    environment: dict[str, Any]
    results: dict[str, Any]
    metrics: Records
    timings: Records
    genotype: Genotype | Chain | None  # of an unfinished search: after its last finished epoch
    alphas: dict[str, Tensor]  # cell -> table_NEO; of a chain: block -> table_NO
    child: Folder | None  # the training that followed a search
    random: tuple[Folder, ...]  # trainings of random cells that followed a training

    @property
    def is_search(self) -> bool:
        return self.config["type"] in SEARCHES

    @property
    def is_text(self) -> bool:
        """Whether it is about a language model."""
        return self.config["type"] in TEXTS

    @property
    def state(self) -> str:
        """`finished`, `running`, `interrupted`, `failed`, ..., or `unfinished` when nobody wrote it
        down."""
        return plain(self.status.get("status", "unfinished"))

    @property
    def training(self) -> Folder | None:
        """The training that a report tells of: the run itself, or that of the search."""
        return self.child if self.is_search else self

    @property
    def source(self) -> str:
        return plain(self.setting("data", "source", kind=str))

    @property
    def epochs(self) -> int:
        """How many there are in all."""
        return self.setting("epochs", kind=int)

    @property
    def chain_space(self) -> MBConvChain | None:
        """The space of a run on chains; None for cells. ValueError where the configuration is
        damaged."""
        space = self.setting("space", kind=dict)
        if space.get("type") != MBConvChain.__name__:
            return None
        found = from_json(ImageSpace, space, f"{self.path / runs.CONFIG}: space")  # type: ignore[type-abstract]
        assert isinstance(found, MBConvChain)
        return found

    @property
    def nodes(self) -> int:
        return self.setting("space", "nodes", kind=int)

    @property
    def operations(self) -> list[str]:
        """Names in the order of alpha's columns."""
        key = "activations" if self.is_text else "operations"
        names = self.setting("space", key, kind=list)
        if not names or not all(isinstance(name, str) for name in names):
            raise ValueError(
                f"{self.path / runs.CONFIG}: space.{key} must be a list of names, not {names!r}"
            )
        return [plain(name) for name in names]

    @property
    def relaxation(self) -> Relaxation:
        where = f"{self.path / runs.CONFIG}: relaxation"
        return from_json(Relaxation, self.setting("relaxation", kind=dict), where)  # type: ignore[type-abstract]

    @property
    def random_cells(self) -> RandomCells | None:
        """What `results.json` says of random cells; None where it does not."""
        where, found = self.path / runs.RESULTS, self.results.get("random_cells")
        if found is None:
            return None
        one, many = (
            ("test_perplexity", "test_perplexities")
            if self.is_text
            else ("test_accuracy", "test_accuracies")
        )
        values = found.get(many) if isinstance(found, dict) else None
        if not isinstance(values, list) or not values:
            raise ValueError(f"{where}: 'random_cells' must hold a list of {many}, not {found!r}")
        mean, std = (
            number(found.get(key), f"{where}: {key}") for key in (f"mean_{one}", f"std_{one}")
        )
        return RandomCells(tuple(number(value, f"{where}: {many}") for value in values), mean, std)

    def result(self, key: str) -> float | None:
        """A number of `results.json`; None where it is not there."""
        return (
            number(self.results[key], f"{self.path / runs.RESULTS}: {key}")
            if key in self.results
            else None
        )

    def setting(self, *keys: str, kind: type) -> Any:
        """A value of `config.json`. Raises ValueError when it is missing or of another type."""
        value: Any = self.config
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        if type(value) is not kind:
            where = f"{self.path / runs.CONFIG}: {'.'.join(keys)}"
            raise ValueError(f"{where} must be of the type {kind.__name__}, not {value!r}")
        return value


def read_folder(path: Path) -> Folder:
    """Read the folder of a search, with the training in `train/`, or of a training, with the random
    cells in `random/`.

    Raises:
        ValueError: it is not a run folder, or a file in it is damaged.
    """
    runs.Run.open(path)
    config = read_object(path / runs.CONFIG)
    kind = config.get("type")
    if kind not in (*SEARCHES, *TRAININGS):
        raise ValueError(
            f"{path / runs.CONFIG} must be one of {', '.join((*SEARCHES, *TRAININGS))}, not {kind!r}"
        )
    child = path / "train"
    random = sorted((path / "random").glob("*"), key=lambda folder: (len(folder.name), folder.name))
    metrics = _records(path / runs.METRICS)
    folder = Folder(
        path=path,
        config=config,
        status=_object(path / runs.STATUS),
        environment=_object(path / runs.ENVIRONMENT),
        results=_object(path / runs.RESULTS),
        metrics=metrics,
        timings=_records(path / runs.TIMINGS),
        genotype=_genotype(path, config, metrics),
        alphas={},
        child=read_folder(child) if kind in SEARCHES and (child / runs.CONFIG).exists() else None,
        random=tuple(read_folder(own) for own in random if (own / runs.CONFIG).exists()),
    )
    return replace(folder, alphas=_alphas(folder)) if folder.is_search else folder


def number(value: object, where: str) -> float:
    """A finite number; ValueError that names `where` otherwise."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not -1e300 < value < 1e300:
        raise ValueError(f"{where} must be a finite number, not {value!r}")
    return float(value)


def _object(path: Path) -> dict[str, Any]:
    return read_object(path) if path.exists() else {}


def _records(path: Path) -> Records:
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


def _genotype(path: Path, config: Mapping[str, Any], metrics: Records) -> Any:
    if (path / runs.GENOTYPE).exists():
        return load_architecture(path / runs.GENOTYPE)
    where, text = path / runs.CONFIG, config.get("genotype")
    if text is None and metrics.rows:
        where, text = metrics.path, metrics.rows[-1].get("genotype")
    try:
        if text is None:
            return None
        space = config.get("space")
        is_chain = isinstance(space, dict) and space.get("type") == MBConvChain.__name__
        return Chain.parse(text) if is_chain else Genotype.parse(text)
    except ValueError as error:
        raise ValueError(f"{where} is damaged: {error}") from error


def _alphas(folder: Folder) -> dict[str, Tensor]:
    """Cell -> tables_NEO (block -> tables_NO), as many tables for each as the file holds."""
    file = folder.path / runs.ALPHAS
    if not file.exists():
        return {}
    space, what, example = folder.chain_space, "cell", "normal/0000"
    if space is not None:
        what, example = "block", "block01/0000"
        shapes: dict[str, tuple[int, ...]] = {
            block.name: (len(block.candidates),) for block in space.blocks
        }
    elif folder.is_text:
        example = "recurrent/0000"
        shapes = {"recurrent": (folder.nodes * (folder.nodes + 1) // 2, len(folder.operations))}
    else:
        shapes = dict.fromkeys(
            ("normal", "reduce"), (len(edges(folder.nodes)), len(folder.operations))
        )
    found: dict[str, dict[int, Tensor]] = {}
    for key, table in runs.read_tensors(file).items():
        parts = re.fullmatch(r"(\w+)/(\d+)", key)
        if parts is None or parts[1] not in shapes:
            raise ValueError(
                f"{file}: {key!r} is not a {what} and a number of epochs, such as {example!r}"
            )
        shape = shapes[parts[1]]
        if tuple(table.shape) != shape:
            raise ValueError(
                f"{file}: {key!r} has the shape {tuple(table.shape)}, but {runs.CONFIG} says {shape}"
            )
        if not torch.isfinite(table).all():
            raise ValueError(f"{file}: {key!r} holds NaN or infinite values")
        found.setdefault(parts[1], {})[int(parts[2])] = table.double()
    for name, tables in found.items():
        if sorted(tables) != list(range(len(tables))):
            raise ValueError(
                f"{file}: tables of the {name} cell are missing; there are only those of {sorted(tables)}"
            )
    return {
        name: torch.stack([tables[n] for n in sorted(tables)])
        for name, tables in sorted(found.items())
    }
