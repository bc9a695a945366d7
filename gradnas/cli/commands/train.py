"""`gradnas train`: what it takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from gradnas.cli.options import Flag, OtherData, RunOptions, Share, TaskFile, Text, Whole


@dataclass(frozen=True, kw_only=True)
class TrainCommand(RunOptions):
    """Train a derived network from scratch and evaluate it once on the test images, or on the test
    text."""

    work = "gradnas.cli.train:train_what"

    what: Annotated[Positional[str], arg(metavar="RUN|GENOTYPE|NAME", help_behavior_hint="")]
    """Run folder of a search, genotype.json, name of a published cell, text of a genotype (or a
    file with one, such as a log), FILE.py:NAME, or the config.json of a training."""
    task: TaskFile = None
    """After a search on a task of your own: its file, which is run."""
    recipe: Text = None
    """Training recipe; by default the one that belongs to the kind of architecture and the data it
    was found on."""
    auxiliary: Flag = None
    """Whether to train with an auxiliary head."""
    valid_fraction: Share = None
    """Share of the training images held out and reported on each epoch."""
    compile: Annotated[
        Literal["no", "default", "reduce-overhead"] | None, arg(help_behavior_hint="")
    ] = None
    """torch.compile: default, or reduce-overhead for CUDA graphs; minutes at the start."""
    plain: Flag = None
    """On a CPU, train on torch's own operations, not on the kernels of gradnas.accelerate: several
    bits differ, and it takes longer."""
    random: Whole = None
    """Train so many random architectures in the same way, for comparison; within the budget of the
    search, if it had one."""
    random_cells: Whole = None
    """The same, as it is called for cells."""
    other_data: OtherData = None
    """After a search: train although the data are not those that it saw."""
