"""`gradnas draw`, `report`, `watch` and `recipes`: what they take."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from gradnas.cli.options import Command, Imports, Run, TaskFile, Truth


@dataclass(frozen=True)
class DrawCommand(Command):
    """Draw cells as an SVG, PNG or PDF picture."""

    work = "gradnas.cli.look:draw"

    what: Annotated[Positional[str], arg(metavar="RUN|GENOTYPE|NAME", help_behavior_hint="")]
    """Run folder, genotype.json, name of a published cell, text of a genotype (or a file with one,
    such as a log), or FILE.py:NAME."""
    out: Annotated[Path, arg(aliases=["-o"], metavar="FILE", help_behavior_hint="")]
    """Picture to write."""


@dataclass(frozen=True)
class ReportCommand(Command):
    """Write report.html, one self-contained page about a run."""

    work = "gradnas.cli.look:report"

    folder: Positional[Run]
    """Run folder of a search, of a training, or of a discovery."""
    task: TaskFile = None
    """Of a run on a task of your own: its file, to see whether it has changed; it is not run."""
    imports: Imports = None
    """Modules with classes of your own that the run uses."""
    truth: Truth = None
    """What each architecture of the space reaches when it is trained (.npz or .csv, see the guide):
    what the search found is looked up there."""


@dataclass(frozen=True)
class WatchCommand(Command):
    """Watch a run, also one of another process: progress, time left, measures and mixing weights.

    It ends with the run, and reads its files alone. Without a terminal: a line for each epoch.
    """

    work = "gradnas.cli.watch:watch"

    folder: Positional[Run]
    """Run folder of a search or of a training."""
    imports: Imports = None
    """Modules with classes of your own that the run uses."""


@dataclass(frozen=True)
class RecipesCommand(Command):
    """List the recipes and the published cells."""

    work = "gradnas.cli.look:list_recipes"
