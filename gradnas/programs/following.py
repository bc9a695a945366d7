"""What may follow a search: the command, whether it can be run, and how long it will take."""

from __future__ import annotations

import shlex
import statistics
import time

import torch

from gradnas import distributed, runs
from gradnas.architectures.registry import load_architecture
from gradnas.config import read_object
from gradnas.environment import threads_of_torch
from gradnas.families import family_of, recipes
from gradnas.tasks import kind_of
from gradnas.tasks.base import SearchSettings, TrainSettings
from gradnas.tasks.sentences import NextStep, about

# Before a run sets its own number: what the next process will have.
THREADS_OF_A_PROCESS = torch.get_num_threads()
MOST_STEPS = 4  # that are timed, the first one included
MOST_SECONDS = 2.0  # after which no more are
# What a training, of a user's data and network, may raise
OF_A_TRAINING = (ValueError, TypeError, RuntimeError, LookupError, AttributeError, ArithmeticError)


def after_search(run: runs.Run, found_by: SearchSettings, data: object) -> NextStep | str:
    """The training of what a finished search has found, by the recipe that belongs to it.

    How long it will take is told by some of its own steps, made here and thrown away.

    Args:
        found_by: the configuration of the search.
        data: of the search.

    Returns:
        The step; where no such training can be, a sentence that says why.
    """
    architecture = load_architecture(run.path / runs.GENOTYPE)
    searched = read_object(run.path / runs.CONFIG)
    path = shlex.quote(str(run.path))
    try:
        name, config = recipes.training_of(architecture, str(run.path), searched)
        config = found_by.hand_on(config)
    except ValueError as error:
        return NextStep(f"gradnas report {path}", f"(a page about the search; {error})")
    kind = kind_of(config)
    said_of = kind.called(name)
    epochs = f"{config.epochs} epochs" if config.epochs > 1 else "one epoch"
    step = NextStep(f"gradnas train {path}{found_by.task_option}", "")
    sources = searched.get("data", {})
    if recipes.follows(name, sources):
        config = config.located(run.path)
    elif config.data.source != sources.get("source"):
        # The recipe has its own data, which may be elsewhere and large.
        source = config.data.source
        said = f"({said_of}: {epochs} on {source}; how long that takes is not known yet)"
        return NextStep(step.command, said)
    if distributed.world() > 1:
        # A trial of it would wait for the others, which are at their end.
        return NextStep(
            step.command, f"({said_of}: {epochs}; how long that takes is not known yet)"
        )
    device = distributed.pick_device(config.device)  # of the training, wherever the search was
    try:
        config, _ = kind.settled(config, data, ())
        kind.check_training(config, data, device)
        seconds = training_seconds(config, data, device)
    except OF_A_TRAINING as error:
        # The search is finished and saved, whatever becomes of its training.
        noun = family_of(architecture).noun
        by_it = f"by {name}" if said_of == name else said_of
        return f"the {noun} cannot be trained {by_it} as it is: {error} ({step.command} ...)"
    how_long = "how long is not known" if seconds is None else f"{about(seconds)} on {device}"
    by = "" if seconds is None else ", by some of its steps"
    return NextStep(step.command, f"({said_of}: {epochs}, {how_long}{by})")


def training_seconds(config: TrainSettings, data: object, device: torch.device) -> float | None:
    """How long the steps of a training take, by its first ones; nothing is written.

    The first of them is left out where there are more, since it warms up. What an epoch evaluates
    is not counted.

    Returns:
        None where they cannot be made now: beside what fills the memory, with a loss that is not
        finite.

    Raises:
        ValueError: and what else the data or the network of a user raise.
    """
    taken: list[float] = []
    with threads_of_torch(config.threads or THREADS_OF_A_PROCESS):
        try:
            task = kind_of(config).train_task(config, data, device)
            per_epoch = task.place.steps_per_epoch
            if per_epoch is None or not task.has_short_steps:
                return None
            task.start_epoch()
            began = _now(device)
            for batch in task.batches():  # reading them is a part of a step
                task.step(batch)
                now = _now(device)
                taken.append(now - began)
                began = now
                if len(taken) == MOST_STEPS or sum(taken) > MOST_SECONDS:
                    break
        except (runs.NonFiniteError, torch.OutOfMemoryError, KeyboardInterrupt):
            return None  # Ctrl-C: of a search that is saved, just this is left out
    if not taken:
        return None
    step_seconds = statistics.median(taken[1:] or taken)
    return config.epochs * per_epoch * step_seconds


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
