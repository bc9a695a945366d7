"""What searches and trainings share: one process in a folder, going on from a checkpoint.

Also what is said where a run goes on under other conditions than it began with.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch

from gradnas import distributed, runs
from gradnas.config import Json, JsonObject, read_object
from gradnas.environment import differences, environment
from gradnas.runs import State
from gradnas.spaces import native


class CannotGoOn(ValueError):
    """A run that cannot go on from its checkpoint as it is: trying again would not help."""


def conditions() -> dict[str, Json]:
    """What the environment of a run says beside versions and device.

    Raises:
        ValueError: `GRADNAS_COMPILER` names a compiler that is not there.
    """
    return {"compiler": native.compiler_words(), "processes": distributed.world()}


def at_work(run: runs.Run) -> AbstractContextManager[None]:
    """While this process works in the folder of a run, no other may; of several ranks one writes.

    Raises:
        ValueError: another process works there.
    """
    return runs.locked(run.path) if distributed.is_main() else nullcontext()


def take_up(
    run: runs.Run, settings: JsonObject, device: torch.device, load: Callable[[State], None]
) -> list[str]:
    """Go on from the last checkpoint, if there is one; returns what is to be said.

    Args:
        settings: that the state must belong to.
        load: takes over a state.

    Raises:
        CannotGoOn: no checkpoint can be read, or it does not fit the configuration.
    """
    try:
        state, note = run.load_checkpoint(settings)
    except ValueError as error:
        raise CannotGoOn(str(error)) from error
    distributed.barrier()
    notes = [] if note is None else [note]
    if state is None:
        return notes
    try:
        load(state)
    # What a state lacks, or has of another kind, shows in many ways.
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RuntimeError) as error:
        reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        first = reason.splitlines()[0] if reason else ""
        raise CannotGoOn(
            f"the checkpoint in {run.path} does not fit its {runs.CONFIG} ({first})"
        ) from error
    changed = differences(environment_of(run), environment(device, 0) | conditions())
    if changed is not None:
        notes.append(changed)
    return notes


def environment_of(run: runs.Run) -> JsonObject:
    """The environment that a run began in; empty where its file is missing or damaged."""
    try:
        return read_object(run.path / runs.ENVIRONMENT)
    except ValueError:
        return {}


def note_kernels(run: runs.Run) -> str | None:
    """After a step: write down what the kernels run on, or say that it is no longer the same."""
    began = environment_of(run)
    if not began:
        return None
    now = {"kernels": native.kernels_words()}
    if "kernels" in began:
        return differences(began, now)
    runs.write_json(run.path / runs.ENVIRONMENT, began | now)
    return None
