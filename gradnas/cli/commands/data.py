"""`gradnas data show`: what it takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from gradnas.cli.options import Command, FitOption, Share, Text, Whole

Sheet = Annotated[Path | None, arg(aliases=["-o"], metavar="FILE", help_behavior_hint="")]


@dataclass(frozen=True)
class DataCommand(Command):
    """Say what is read of data, warn of what looks wrong, and write a sheet of samples as they
    reach the network."""

    work = "gradnas.cli.data:show"

    action: Positional[Literal["show"]]
    """show: look at data before a run."""
    data: Annotated[Positional[str], arg(metavar="DATA", help_behavior_hint="")]
    """As for --data of a search: digits, cifar10, a folder, a file, a name on the hub."""
    out: Sheet = None
    """Sheet to write; by default sheet.png, of text sheet.txt."""
    kind: Text = None
    """What the data are, where their name does not tell: images, text."""
    image_size: Whole = None
    """Side in pixels to which images are brought, as --fit says."""
    fit: FitOption = None
    """How images of another shape are brought to size: crop, squeeze or pad."""
    test_fraction: Share = None
    """Share of each class to test on, of a set without test images."""
    max_pixels: Whole = None
    """Refuse an image of more pixels (by default 100000000) before it is decoded."""
    per_class: Whole = None
    """So many images of every class alone."""
    level: Annotated[Literal["word", "char"] | None, arg(help_behavior_hint="")] = None
    """Of text: tokens are words or characters."""
    min_count: Whole = None
    """Of text: words that appear less often become <unk>."""
