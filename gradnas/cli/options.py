"""Options that commands share, and which of them were given."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from tyro.conf import arg

from gradnas.config import check_numbers
from gradnas.settings import formats

if TYPE_CHECKING:  # no more: `--help` must not wait for torch
    from gradnas.spaces import Space
    from gradnas.tasks.base import DataSettings, SearchSettings, TrainSettings

# Options that were not given are None and leave the recipe's value; help shows what they take, and
# no default.
Whole = Annotated[int | None, arg(metavar="N", help_behavior_hint="")]
Number = Annotated[float | None, arg(metavar="X", help_behavior_hint="")]
Table = Annotated[Path | None, arg(metavar="TABLE", help_behavior_hint="")]
Share = Annotated[float | None, arg(metavar="SHARE", help_behavior_hint="")]
Text = Annotated[str | None, arg(metavar="TEXT", help_behavior_hint="")]
Device = Annotated[str | None, arg(metavar="DEVICE", help_behavior_hint="")]
Folder = Annotated[str | None, arg(metavar="DIR", help_behavior_hint="")]
Source = Annotated[str | None, arg(metavar="DATA", help_behavior_hint="")]
Flag = Annotated[bool | None, arg(help_behavior_hint="")]
Precision = Annotated[formats.Precision | None, arg(help_behavior_hint="")]
OtherData = Annotated[bool | None, arg(help_behavior_hint="")]
FitOption = Annotated[formats.Fit | None, arg(help_behavior_hint="")]
Method = Annotated[str | None, arg(metavar="NAME[:FIELD=VALUE,...]", help_behavior_hint="")]
Methods = Annotated[
    str | None, arg(metavar="NAME[:FIELD=VALUE,...][+NAME...]", help_behavior_hint="")
]
Imports = Annotated[
    str | None, arg(name="import", metavar="MODULE[,MODULE]", help_behavior_hint="")
]
TaskFile = Annotated[str | None, arg(metavar="MY_TASK.py[:NAME]", help_behavior_hint="")]
Truth = Annotated[Path | None, arg(metavar="FILE[:COLUMN]", help_behavior_hint="")]
Run = Annotated[Path, arg(metavar="RUN", help_behavior_hint="")]


def given(command: object, *names: str) -> dict[str, Any]:
    """Those of a command's options that were given, by name."""
    values = {}
    for name in names:
        value = getattr(command, name)
        if value is not None:
            values[name] = value
    return values


def flag(name: str) -> str:
    """An option as it is typed: `--batch-size`."""
    return f"--{name.replace('_', '-')}"


def check_options(command: object) -> None:
    """ValueError that names the first option whose value cannot be one, before anything is done.

    Numbers have ranges, and what a command writes at its end must have a place. A command may hold
    another one, its action.
    """
    check_numbers(command, flag)
    for field in fields(command):  # type: ignore[arg-type]
        part = getattr(command, field.name)
        if field.name == "out" and isinstance(part, Path):
            _check_place(part)
        if is_dataclass(part):
            check_options(part)


def _check_place(out: Path) -> None:
    """ValueError where no file of this name can be written."""
    try:
        if out.is_dir():
            raise ValueError(f"--out {out} is a folder: give the name of a file in it")
        if not out.parent.is_dir():
            raise ValueError(f"--out {out}: there is no folder {out.parent}")
    except OSError as error:  # a name that is too long for one
        raise ValueError(f"--out {out}: {error.strerror or error}") from error


@dataclass(frozen=True)
class Command:
    """What a command takes.

    The work lies in another module, which is imported when it begins: help, and a mistyped command,
    need no torch.

    Attributes:
        work: `module:function`; the function takes the command.
    """

    work: ClassVar[str]

    def run(self) -> None:
        """Carry the command out."""
        module, _, name = self.work.partition(":")
        function = getattr(importlib.import_module(module), name)
        function(self)


@dataclass(frozen=True, kw_only=True)
class RunOptions(Command):
    """Options of everything that makes a run folder."""

    data: Source = None
    """digits, cifar10, owner/name on the hub, or a folder of parquet files or of images by class;
    for text pydoc, one file, a folder with train.txt, valid.txt and test.txt, or owner/name on the
    hub; by default the recipe's, or that of the search."""
    out: Folder = None
    """Run folder; by default the next free one in runs/, for the training of a search RUN/train."""
    epochs: Whole = None
    """Length of the run."""
    batch_size: Whole = None
    """Images in a batch, or texts read side by side (of a search: in each of its two batches)."""
    seed: Whole = None
    """Of everything random."""
    device: Device = None
    """cpu, cuda, cuda:N or auto."""
    precision: Precision = None
    """bf16 runs under autocast; tf32 allows TF32 on CUDA."""
    image_size: Whole = None
    """Side in pixels to which images are brought, as --fit says."""
    fit: FitOption = None
    """How images of another shape are brought to size: crop (short side resized, then the centre:
    borders are lost; the default), squeeze (ratio lost), pad (black borders)."""
    test_fraction: Share = None
    """Share of each class to test on, of a set without test images."""
    own_validation: Flag = None
    """Whether validation images that a set brings with it, beside test images, are used where
    training images would be held out; the default."""
    lr: Number = None
    """Learning rate of the weights, at the start."""
    workers: Whole = None
    """Loader processes, for sets too large for memory."""
    threads: Whole = None
    """CPU threads."""
    max_pixels: Whole = None
    """Refuse an image of more pixels (by default 100000000) before it is decoded."""
    per_class: Whole = None
    """Train on so many images of every class alone (to try a setting out)."""
    channels: Whole = None
    """Channels of the first cell."""
    cells: Whole = None
    """Number of cells."""
    width_mult: Share = None
    """Factor of the widths of a chain."""
    level: Annotated[Literal["word", "char"] | None, arg(help_behavior_hint="")] = None
    """Of text: tokens are words or characters."""
    min_count: Whole = None
    """Of text: words that appear less often become <unk>; by default 1, which keeps all (of pydoc
    3)."""
    hidden: Whole = None
    """Of text: units of the recurrent cell, and size of the embedding."""
    nodes: Whole = None
    """Nodes of a searched cell."""
    max_steps: Whole = None
    """Stop after so many steps (to try a setting out)."""
    local_batch_norm: Flag = None
    """Of several processes (torchrun): let each normalise over its own share of a batch; by default
    BatchNorm is over the batch of all."""
    tensorboard: Flag = None
    """Write event files for TensorBoard into the run folder (measures, probabilities, the picture
    of each epoch's decision): tensorboard --logdir RUN."""

    def replacements(self, config: SearchSettings | TrainSettings, *more: str) -> dict[str, Any]:
        """New values for fields of a configuration: what was given, its data and its space.

        Args:
            more: options of the command that are fields of the configuration too.

        Raises:
            ValueError: an option that this configuration, its data or its space does not have.
        """
        common = ("epochs", "batch_size", "seed", "device", "precision", "threads", "max_steps")
        settings = given(self, *common, *more)
        data = given(
            self,
            "image_size",
            "fit",
            "test_fraction",
            "own_validation",
            "workers",
            "per_class",
            "max_pixels",
            "level",
            "min_count",
        )
        space = given(self, "channels", "cells", "width_mult", "nodes", "hidden")
        _check_known(settings, config)
        _check_known(data, config.data)
        _check_known(space, config.space)
        if self.data is not None:
            config = config.with_source(self.data)
            settings["data"] = config.data
        if "hidden" in space:
            # The decoder of a language model shares the weights of the embedding.
            space["embedding"] = space["hidden"]
        if data:
            settings["data"] = replace(config.data, **data)
        if space:
            settings["space"] = replace(config.space, **space)
        return settings


def _check_known(
    values: Mapping[str, object], part: Space | DataSettings | SearchSettings | TrainSettings
) -> None:
    known = {field.name for field in fields(part)}
    for name in values:
        if name not in known:
            kind = type(part).__name__
            raise ValueError(f"{flag(name)} is no setting of {kind}, which this run is of")
