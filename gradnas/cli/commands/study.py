"""`gradnas study`: what it takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from gradnas.cli.commands.search import SearchOptions
from gradnas.cli.options import Flag, Imports, Number, TaskFile, Text, Truth, Whole

EngineName = Literal["local", "ray", "slurm"]


@dataclass(frozen=True, kw_only=True)
class StudyCommand(SearchOptions):
    """Several searches of each method, the best found chosen by short trainings, then final ones;
    beside them random search at equal cost. Also: gradnas study status DIR, gradnas study report
    DIR."""

    work = "gradnas.cli.study:study"

    what: Annotated[
        Positional[str],
        arg(metavar="RECIPE|CONFIG.json|MY_TASK.py|status|report", help_behavior_hint=""),
    ]
    """Recipe, path of a config.json, or file with a task of your own, which is run; or what to do
    with a study that was begun."""
    folder: Annotated[Positional[Path | None], arg(metavar="DIR", help_behavior_hint="")] = None
    """After status and report: the folder of the study."""
    methods: Text = None
    """What is compared, with commas between: default (the recipe, as options change it), darts,
    darts-first-order, snas, gdas, fairdarts, proxylessnas, or RELAXATION+GRADIENT as in
    gumbel:hard=false+first-order. Random search is always there. By default: default."""
    seeds: Whole = None
    """Searches of each method; by default 4."""
    finals: Whole = None
    """Final trainings of each architecture that was chosen; by default 3."""
    random: Whole = None
    """Random architectures; by default as many as the cost of each method pays for."""
    short_epochs: Whole = None
    """Of the trainings that choose; by default a sixth of the final ones."""
    final_epochs: Whole = None
    """Of the final trainings; by default those of the recipe."""
    training: Text = None
    """Training recipe; by default the one that belongs to the search."""
    candidates: Whole = None
    """Train so many of the likeliest architectures of each search briefly, too."""
    task: TaskFile = None
    """Of a config.json of a search on a task of your own: the file."""
    imports: Imports = None
    """Modules with classes of your own that a CONFIG.json or a method names."""
    workers: Whole = None
    """Trials at once; by default as many as cores, on CUDA as devices."""
    devices: Text = None
    """Numbers of CUDA devices, as in 0,1: each trial gets one of them; by default one of all."""
    engine: Annotated[EngineName | None, arg(help_behavior_hint="")] = None
    """Where trials run: local (processes of this machine), ray or slurm."""
    address: Text = None
    """Of a Ray cluster: auto, or host:port; by default Ray is started here."""
    gpus: Number = None
    """Of Ray and Slurm: devices of a trial."""
    partition: Text = None
    """Of Slurm."""
    hours: Number = None
    """Of Slurm: limit of a trial, which is then requeued and goes on; by default 24."""
    cluster: Annotated[Literal["slurm", "local"] | None, arg(help_behavior_hint="")] = None
    """Of Slurm: local runs its jobs as processes of this machine, to try it out."""
    truth: Truth = None
    """What each architecture of the space reaches when it is trained (.npz or .csv, see the guide):
    what was found and drawn is looked up there; also after report."""
    resume_failed: Flag = None
    """Try trials again that failed."""
    max_failures: Whole = None
    """End the study when more trials have failed; by default a failed trial is a row of the
    table."""
    format: Annotated[
        Literal["text", "json"] | None, arg(aliases=["-f"], help_behavior_hint="")
    ] = None
    """Of status and of the results: text, or json for scripts."""
