"""`gradnas latency measure | fit | show`: what they take."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg, subcommand

from gradnas.cli.options import Command, Imports, TaskFile

TableFile = Annotated[Positional[Path], arg(metavar="TABLE.json", help_behavior_hint="")]


@dataclass(frozen=True, kw_only=True)
class MeasureCommand(Command):
    """Time every distinct (operation, input shape) of a space on this device, and write a table.

    At the end three random networks of the space, and of a finished run the one it found, are timed
    from end to end beside the sums of the table.
    """

    work = "gradnas.cli.latency:measure_space"

    what: Annotated[
        Positional[str], arg(metavar="RECIPE|CONFIG.json|RUN|MY_TASK.py", help_behavior_hint="")
    ]
    """Whose space: a search recipe, the config.json of a search, its run folder, or the file of a
    task of your own, which is run."""
    task: TaskFile = None
    """Of a run on a task of your own: its file, which is run."""
    out: Annotated[Path | None, arg(aliases=["-o"], metavar="FILE", help_behavior_hint="")] = None
    """Table to write; by default latency-DEVICE.json."""
    device: Annotated[str, arg(metavar="DEVICE")] = "cpu"
    """cpu, cuda, cuda:N or auto."""
    threads: Annotated[int, arg(metavar="N")] = 1
    """CPU threads."""
    batch_size: Annotated[int, arg(metavar="N")] = 1
    """Images in a call."""
    image_size: Annotated[int | None, arg(metavar="N", help_behavior_hint="")] = None
    """Side in pixels; by default that of the data."""
    warmup: Annotated[int, arg(metavar="N")] = 10
    """Rounds that are thrown away."""
    repeats: Annotated[int, arg(metavar="N")] = 50
    """Rounds that count; every round calls every operation once."""
    clock: Literal["wall", "cpu"] = "wall"
    """cpu counts CPU time, which other programs disturb less; for one CPU thread."""
    channels_last: bool = True
    """Memory format of images and weights; gradnas trains and evaluates in this one."""
    imports: Imports = None
    """Modules with classes of your own that the search uses."""


@dataclass(frozen=True)
class FitCommand(Command):
    """Fit a predictor on a measured table, for operations that it lacks, and keep it in the
    table."""

    work = "gradnas.cli.latency:fit"

    table: TableFile
    """Table from gradnas latency measure, or of a phone."""
    out: Annotated[Path | None, arg(aliases=["-o"], metavar="FILE", help_behavior_hint="")] = None
    """Where to write the table with its predictor; by default back into TABLE.json."""
    seed: Annotated[int, arg(metavar="N")] = 0
    """Of the division into fifths, each of which is predicted from the other four."""


@dataclass(frozen=True)
class ShowCommand(Command):
    """Print a table of latencies, the longest first."""

    work = "gradnas.cli.latency:show"

    table: TableFile
    """Table of gradnas, or of a phone (JSON or YAML)."""
    rows: Annotated[int, arg(metavar="N")] = 40
    """At most so many rows."""


Action = (
    Annotated[MeasureCommand, subcommand("measure")]
    | Annotated[FitCommand, subcommand("fit")]
    | Annotated[ShowCommand, subcommand("show")]
)


@dataclass(frozen=True)
class LatencyCommand(Command):
    """Measure, fit or show latencies of operations."""

    action: Action

    def run(self) -> None:
        self.action.run()
