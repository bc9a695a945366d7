"""`gradnas train`."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from gradnas import distributed, runs
from gradnas.cli.begin import (
    architecture_of,
    begun_before,
    device_of,
    free_folder,
    guarded,
    is_configuration,
    out_folder,
    say,
    say_read,
    say_waiting,
    typed,
)
from gradnas.cli.commands.train import TrainCommand
from gradnas.cli.lines import line
from gradnas.cli.methods import import_option
from gradnas.cli.own_task import with_given
from gradnas.cli.search import go_on
from gradnas.config import from_json, read_object
from gradnas.engines.base import python
from gradnas.families import family_of_space, recipes
from gradnas.modules.synchronised import keep_norms_local
from gradnas.programs import event_files
from gradnas.programs.data_of_run import check_followed
from gradnas.programs.going_on import begin, set_threads, working_in
from gradnas.programs.trained import TRAIN_FOLDER
from gradnas.programs.training import prepared_training, start_training, train
from gradnas.tasks import TRAIN_CONFIGS, kind_of
from gradnas.tasks.base import TrainSettings
from gradnas.tasks.your_task import TRAINING


def train_what(command: TrainCommand) -> None:
    if command.tensorboard:
        event_files.check_installed()
    config, default_out, searched = _config(command)
    keep_norms_local(bool(command.local_batch_norm))
    device_of(config.device if command.device is None else command.device)
    before = begun_before(str(default_out) if command.out is None else command.out)
    if before is not None:
        go_on(before, command.task)
        return
    out = out_folder(command.out) or default_out
    if distributed.is_main():
        runs.Run(out).check_free()
    config, notes_of_task = with_given(config, command.task)
    say(notes_of_task)
    changes = command.replacements(config, "auxiliary", "valid_fraction", "compile", "lr")
    changes |= _random(command)
    changes |= _accelerated(command, config)
    config = replace(config, **changes)
    config.check_architecture()  # an unknown operation is refused before data are read
    device = device_of(config.device)
    data = config.load()
    kind = kind_of(config)
    config, notes = kind.settled(config, data, changes)
    if searched is not None:
        # Data that are named here may be others.
        other = command.data is not None or bool(command.other_data)
        if not other:
            notes += kind.after_search(searched, config, data)
        notes += check_followed(searched, kind, data, other=other)
    tensorboard = bool(command.tensorboard)
    carry_out(config, out, data, device, new=True, notes=notes, tensorboard=tensorboard)


def _random(command: TrainCommand) -> dict[str, int]:
    """How many random architectures are trained, by either of the option's names."""
    if command.random is not None and command.random_cells is not None:
        raise ValueError("--random-cells is another name of --random: give one of them")
    number = command.random if command.random is not None else command.random_cells
    return {} if number is None else {"random_cells": number}


def _accelerated(command: TrainCommand, config: TrainSettings) -> dict[str, bool]:
    """Whether blocks run on kernels of ours, where that was asked for."""
    if command.plain is None:
        return {}
    if not hasattr(config, "accelerated"):
        kind = type(config).__name__
        raise ValueError(f"--plain is no setting of {kind}, which this run is of")
    return {"accelerated": not command.plain}


def _config(command: TrainCommand) -> tuple[TrainSettings, Path, runs.Run | None]:
    """The configuration before the options that were given, the folder by default, the search.

    The search is one whose data are trained on.
    """
    path = Path(command.what)
    if is_configuration(path) and str(read_object(path).get("type")) in TRAIN_CONFIGS:
        if command.recipe is not None:
            raise ValueError(
                f"{path} is a whole configuration: it cannot be combined with --recipe "
                f"{command.recipe}"
            )
        cls, description = typed(path, *TRAIN_CONFIGS.values())
        config = from_json(cls, description, command.what).located(path.parent)
        return config, free_folder(f"{path.resolve().parent.name}-again"), None
    return _after_search(command)


def _after_search(command: TrainCommand) -> tuple[TrainSettings, Path, runs.Run | None]:
    """The recipe for an architecture, with its size and the data that it was found on."""
    given = architecture_of(command.what)
    recipe = command.recipe
    if recipe is None and command.task is not None and not given.searched:
        recipe = TRAINING  # choices from a file: the task says the rest
    recipe, config = recipes.training_of(given.architecture, given.name, given.searched, recipe)
    if given.folder is None:
        ending = "trained" if recipe == TRAINING else recipe
        return config, free_folder(f"{Path(given.name).stem}-{ending}"), None
    out = given.folder / TRAIN_FOLDER
    if not recipes.follows(recipe, given.searched.get("data", {})):
        return config, out, None
    return config.located(given.folder), out, runs.Run(given.folder)


def carry_out(
    config: TrainSettings,
    out: Path,
    data: object,
    device: torch.device,
    *,
    new: bool,
    notes: Sequence[str] = (),
    tensorboard: bool = False,
) -> None:
    """Train in a new folder, or go on in one; then say what came out, and what may follow."""
    threads_notes = set_threads(config.threads, None if new else runs.Run(out))
    options = config.task_option + import_option(config)

    def commands(scratch: Path) -> Callable[[Path], tuple[str, ...]]:
        del scratch
        more = ["--device", str(device), *shlex.split(options)]
        return lambda folder: python("-m", "gradnas", "resume", str(folder), *more)

    task = prepared_training(config, data, device)
    with working_in(out, new=new):
        run = begin(out, new, lambda: start_training(config, out, data, device, task))
        say_read(kind_of(config).read(data))
        say([*threads_notes, *kind_of(config).notes(data), *notes])
        with event_files.written(run, config.space, wanted=tensorboard, say=say) as on_epoch:
            results = guarded(
                run,
                lambda: train(
                    config, run, data, device, task=task, on_epoch=on_epoch, commands=commands
                ),
                options,
            )
    if not distributed.is_main():
        return
    kind = kind_of(config)
    sentences = kind.sentences
    random_noun = family_of_space(config.space).noun
    for sentence in sentences.of_training(results, random_noun):
        line(sentence)
    say_waiting(run)
    line(f"run folder: {run.path} ({runs.WEIGHTS}, {runs.RESULTS}, {runs.METRICS})")
    for step in kind.after_training(run, config):
        line(step)
