"""What searches and trainings share: a folder with one process in it, going on from a checkpoint.

Also what is said where a run goes on under other conditions than it began with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import torch

from gradnas import distributed, runs
from gradnas.config import Json, JsonObject, read_object
from gradnas.environment import differences, environment
from gradnas.memory import freed_memory_kept
from gradnas.modules.synchronised import norms_words
from gradnas.runs import State
from gradnas.runs.ranks import take_over
from gradnas.spaces import native

MOST_THREADS = 4096  # that the record of an earlier run may ask for


class CannotGoOn(ValueError):
    """A run that cannot go on from its checkpoint as it is: trying again would not help."""


# ---- the folder ----------------------------------------------------------------------------------


def set_threads(threads: int | None, began: runs.Run | None = None) -> list[str]:
    """Compute with so many threads; what is to be said of it.

    Args:
        threads: of the configuration; None leaves torch's default.
        began: a run that goes on. Without a number in the configuration it gets as many as before,
            or sums would differ in their last bits.
    """
    notes = []
    if threads is None and began is not None:
        before = environment_of(began).get("threads")
        if type(before) is int and 1 <= before <= MOST_THREADS:
            threads = before
        else:
            where = began.path / runs.ENVIRONMENT
            notes.append(f"{where} does not say how many threads the run began with")
    if threads is not None:
        torch.set_num_threads(threads)
    return notes


@contextmanager
def working_in(out: Path, *, new: bool) -> Iterator[None]:
    """Work in a folder as the only process. A new one is made; of what is refused none is left.

    Raises:
        ValueError: another process works there; a new folder holds anything, or cannot be made.
    """
    if not distributed.is_main():
        yield
        return
    if new:
        runs.Run(out).check_free()
    with runs.made_folder(out) if new else nullcontext(), runs.locked(out):
        yield


def begin(out: Path, new: bool, start: Callable[[], object]) -> runs.Run:
    """The run folder to work in.

    Args:
        new: make it, by `start`; otherwise it is one that was stopped.
    """
    if new and distributed.is_main():
        start()
    distributed.barrier()
    run = runs.Run.open(out)
    if not new and distributed.is_main():
        run.set_status("running")
    return run


def leave_word(run: runs.Run, status: str, message: str | None = None) -> None:
    """Say in the folder of a run how it ended."""
    if not distributed.is_main():
        return
    more = {} if message is None else {"message": message}
    # Where the disk is full this cannot be written either, and the first error says so already.
    with suppress(ValueError):
        run.set_status(status, **more)


@contextmanager
def at_work(run: runs.Run) -> Iterator[None]:
    """While this process works in the folder of a run, no other may; of several ranks one writes.

    Memory that a step frees is kept for the next one.

    Raises:
        ValueError: another process works there.
    """
    with runs.locked(run.path) if distributed.is_main() else nullcontext(), freed_memory_kept():
        yield


# ---- going on ------------------------------------------------------------------------------------


def take_up(
    run: runs.Run,
    settings: JsonObject,
    device: torch.device,
    load: Callable[[State], None],
    redistributed: Callable[[list[State]], State],
) -> list[str]:
    """Go on from the last checkpoint, if there is one; returns what is to be said.

    Args:
        settings: that the state must belong to.
        load: takes over a state.
        redistributed: the state of this process, from those of another number of processes.

    Raises:
        CannotGoOn: no checkpoint can be read, or it does not fit the configuration.
    """
    # The first process cuts off what was appended after the checkpoint, before any other reads.
    if not distributed.is_main():
        distributed.barrier()
    try:
        state, note = run.load_checkpoint(settings)
    except ValueError as error:
        raise CannotGoOn(str(error)) from error
    if distributed.is_main():
        distributed.barrier()
    distributed.barrier()
    notes = [] if note is None else [note]
    if state is None:
        return notes
    try:
        regrouped = take_over(state, load, redistributed)
    # What a state lacks, or has of another kind, shows in many ways.
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RuntimeError) as error:
        reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        first = reason.splitlines()[0] if reason else ""
        raise CannotGoOn(
            f"the checkpoint in {run.path} does not fit its {runs.CONFIG} ({first})"
        ) from error
    if regrouped is not None:
        notes.append(regrouped)
    changed = differences(environment_of(run), environment(device, 0) | conditions())
    if changed is not None:
        notes.append(changed)
    return notes


# ---- conditions ----------------------------------------------------------------------------------


def conditions() -> dict[str, Json]:
    """What the environment of a run says beside versions and device.

    Raises:
        ValueError: `GRADNAS_COMPILER` names a compiler that is not there.
    """
    found: dict[str, Json] = {
        "compiler": native.compiler_words(),
        "processes": distributed.world(),
    }
    if norms_words() is not None:
        found["batch_norm"] = norms_words()
    return found


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
