"""The trained network of a run folder, of a training or of the search before it."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

from gradnas import runs
from gradnas.config import load, read_object
from gradnas.export.programs import check_target
from gradnas.families import family_of
from gradnas.tasks import SEARCH_CONFIGS, TRAIN_CONFIGS, kind_of
from gradnas.tasks.base import TrainSettings
from gradnas.tasks.trained_part import unspoken

TRAIN_FOLDER = "train"  # of a search run: the training of what it found


def trained_run(path: str | Path) -> tuple[runs.Run, TrainSettings]:
    """The run folder of a training and its configuration.

    It is found by that folder, or by that of the search before it.

    Raises:
        ValueError: no run folder; a search that was not trained; a configuration that cannot be
            read.
    """
    default = next(iter(TRAIN_CONFIGS))  # of a configuration that does not say its type
    run = runs.Run.open(path)
    name = str(read_object(run.path / runs.CONFIG).get("type", default))
    if name not in TRAIN_CONFIGS:
        below = runs.Run(run.path / TRAIN_FOLDER)
        if (below.path / runs.CONFIG).exists():
            run = below
        elif name in SEARCH_CONFIGS:
            searched = load(SEARCH_CONFIGS[name], run.path / runs.CONFIG)
            raise ValueError(
                f"{run.path} was searched but not trained; run: "
                f"gradnas train {shlex.quote(str(run.path))}{searched.task_option}"
            )
    name = read_object(run.path / runs.CONFIG).get("type")
    config_class = TRAIN_CONFIGS.get(str(name), TRAIN_CONFIGS[default])
    return run, load(config_class, run.path / runs.CONFIG).located(run.path)


def unbound(config: TrainSettings) -> TrainSettings:
    """The configuration as it is."""
    return config


def export_trained(
    run: runs.Run,
    path: str | Path,
    bind: Callable[[TrainSettings], TrainSettings] = unbound,
    say: Callable[[str], None] = unspoken,
    normalised: bool = False,
) -> list[Path]:
    """Export the trained network of a run folder in the form that the ending of `path` names.

    Args:
        bind: gives the configuration the task that it needs.
        say: is called with what is to be said of the file.
        normalised: let the exported network normalise what goes in.

    Returns:
        The files written.

    Raises:
        ValueError: a search that was not trained, a training without weights yet, and what the
            exports refuse.
    """
    check_target(Path(path))
    training, config = trained_run(run.path)
    config = bind(config)
    source = family_of(config.genotype).source
    kind = kind_of(config)
    if normalised:
        kind = kind.normalising()
    return kind.export(training, config, Path(path), source, say)
