"""`gradnas evaluate`, `generate` and `export`: what may be done with a trained network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from gradnas import runs
from gradnas.cli.begin import device_of
from gradnas.cli.options import Device, Run, Source
from gradnas.programs.trained import export_trained, trained_run
from gradnas.tasks import kind_of


@dataclass(frozen=True)
class EvaluateCommand:
    """Evaluate a trained network on the test images, or on the test text."""

    folder: Positional[Run]
    """Run folder of a training, or of a search that was trained."""
    data: Source = None
    """Other images than those it was trained on (of the same shape and classes), or another
    text."""
    device: Device = None
    """cpu, cuda, cuda:N or auto."""

    def run(self) -> None:
        run, config = trained_run(self.folder)
        device = device_of(self.device or config.device)
        print(kind_of(config).evaluate(run, config, self.data, device))


@dataclass(frozen=True)
class GenerateCommand:
    """Let a trained language model go on with a text."""

    folder: Positional[Run]
    """Run folder of a training on text, or of a search that was trained."""
    prompt: Annotated[str, arg(metavar="TEXT")] = ""
    """Text to go on with; words must be of the vocabulary. Empty: a new line."""
    tokens: Annotated[int, arg(metavar="N")] = 100
    """Words (or characters) to write."""
    temperature: Annotated[float, arg(metavar="T")] = 1.0
    """Below 1 keeps to the probable, 0 takes the most probable alone."""
    seed: Annotated[int, arg(metavar="N")] = 0
    """The same seed writes the same text."""

    def run(self) -> None:
        run, config = trained_run(self.folder)
        kind = kind_of(config)
        print(kind.generate(run, config, self.prompt, self.tokens, self.temperature, self.seed))


@dataclass(frozen=True)
class ExportCommand:
    """Export a trained network as ONNX, as a torch program, or (of images) as readable source."""

    folder: Positional[Run]
    """Run folder of a training, or of a search that was trained."""
    out: Annotated[Path, arg(aliases=["-o"], metavar="FILE", help_behavior_hint="")]
    """model.onnx, model.pt2 or model.py."""

    def run(self) -> None:
        for path in export_trained(runs.Run.open(self.folder), self.out):
            print(path)
