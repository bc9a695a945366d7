"""`gradnas evaluate`, `generate` and `export`: what they take."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from gradnas.cli.options import Command, Device, Run, Source, TaskFile


@dataclass(frozen=True)
class EvaluateCommand(Command):
    """Evaluate a trained network on the test images, or on the test text."""

    work = "gradnas.cli.trained:evaluate"

    folder: Positional[Run]
    """Run folder of a training, or of a search that was trained."""
    data: Source = None
    """Other images than those it was trained on (of the same shape and classes), or another
    text."""
    task: TaskFile = None
    """Of a run on a task of your own: its file, which is run."""
    device: Device = None
    """cpu, cuda, cuda:N or auto."""


@dataclass(frozen=True)
class GenerateCommand(Command):
    """Let a trained language model go on with a text."""

    work = "gradnas.cli.trained:generate"

    folder: Positional[Run]
    """Run folder of a training on text, or of a search that was trained."""
    prompt: Annotated[str, arg(metavar="TEXT")] = ""
    """Text to go on with. Empty: a new line; where the text has no lines, its most frequent
    character."""
    tokens: Annotated[int, arg(metavar="N")] = 100
    """Words (or characters) to write."""
    temperature: Annotated[float, arg(metavar="T")] = 1.0
    """Below 1 keeps to the probable, 0 takes the most probable alone."""
    seed: Annotated[int, arg(metavar="N")] = 0
    """The same seed writes the same text."""


@dataclass(frozen=True)
class ExportCommand(Command):
    """Export a trained network as ONNX, as a torch program, or (of images) as readable source."""

    work = "gradnas.cli.trained:export"

    folder: Positional[Run]
    """Run folder of a training, or of a search that was trained."""
    out: Annotated[Path, arg(aliases=["-o"], metavar="FILE", help_behavior_hint="")]
    """model.onnx, model.pt2 or model.py."""
    normalised: bool = False
    """Of images: take pixels in [0, 1], and normalise them inside."""
    task: TaskFile = None
    """Of a run on a task of your own: its file, which is run."""
