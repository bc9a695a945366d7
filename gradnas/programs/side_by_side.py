"""Trainings as processes side by side, where cores are free: those of random networks.

Each goes on with a run folder that was made for it, as `gradnas resume` does, so that one that is
stopped or killed is gone on with in any way. All have the same number of threads whether they are
side by side or after one another, and the same results to the bit.
"""

from __future__ import annotations

import importlib
import pickle
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gradnas import distributed, runs
from gradnas.engines import Ended, Engine, Job, LocalEngine
from gradnas.engines.base import end_with_parent, python
from gradnas.engines.free import free_cores, room_for_processes
from gradnas.programs.jobs import TRIES, end_in_words, was_killed, why_failed
from gradnas.progress import Progress

LOG = "log.txt"  # in the folder of each: what its process printed
WORTH_IT = 4.0  # seconds of a training; a process begins in some seconds
SECONDS_BETWEEN_LOOKS = 0.5
TASK = "task.pickle"

Command = Callable[[Path], tuple[str, ...]]  # that goes on with the run in a folder, to its end
# The command, given a folder for files that live as long; NotByItself where there can be none.
Commands = Callable[[Path], Command]


class NotByItself(Exception):
    """No other process can go on with the runs, and why: a part of a sentence."""


@dataclass(frozen=True)
class Planned:
    """One of the trainings.

    Args:
        title: of the training, which names it where it fails.
        begin: makes the run folder, if there is none yet.
    """

    title: str
    run: runs.Run
    begin: Callable[[], object]

    @property
    def is_finished(self) -> bool:
        return self.run.status().get("status") == "finished"


def threads_of_each(threads: int | None, number: int) -> int:
    """Threads of each of so many trainings: those of the configuration, or a share of all.

    It depends on nothing else: the last bits of results depend on it.
    """
    if threads is not None:
        return threads
    return max(1, torch.get_num_threads() // max(1, number))


def processes(waiting: int, threads: int, seconds: float, device: torch.device) -> int:
    """How many trainings are worth to be carried out at once; 1: after one another.

    Args:
        waiting: are to be trained.
        threads: of each.
        seconds: that one takes.
    """
    if device.type != "cpu" or distributed.world() > 1 or waiting < 2 or seconds < WORTH_IT:
        return 1
    room = room_for_processes()
    most = waiting if room is None else min(waiting, room)
    if most < 2:
        return 1
    return max(1, min(most, free_cores() // threads))


def carry_out(
    planned: Sequence[Planned],
    epochs: int,
    commands: Commands,
    at_once: int,
    threads: int,
    title: str,
    progress: bool,
) -> None:
    """Bring all trainings to their ends, so many at once.

    Raises:
        NotByItself: no other process can go on with them; nothing was done.
        ValueError: one has failed, and which; the others were stopped, and are saved.
        runs.Interrupted: Ctrl-C or SIGTERM; all are saved.
    """
    with tempfile.TemporaryDirectory(prefix="gradnas-") as scratch:
        command = commands(Path(scratch))
        left = [own for own in planned if not own.is_finished]
        done = len(planned) - len(left)
        keeper = runs.Keeper(None, dict)
        bar = Progress(title, epochs * len(planned), 1, epochs * done, enabled=progress)
        with keeper, bar, LocalEngine(at_once) as engine:
            _Work(left, command, threads, bar, engine, epochs * done).run(at_once, keeper)


class _Work:
    """The trainings that are left, and which are at work."""

    def __init__(
        self,
        left: Sequence[Planned],
        command: Command,
        threads: int,
        bar: Progress,
        engine: Engine,
        epochs_before: int,
    ) -> None:
        self._left = list(left)
        self._waiting = list(left)
        self._at_work: dict[str, Planned] = {}
        self._tries: dict[str, int] = {}
        self._command = command
        self._threads = threads
        self._bar = bar
        self._engine = engine
        self._shown = epochs_before
        self._before = epochs_before

    def run(self, at_once: int, keeper: runs.Keeper) -> None:
        while self._waiting or self._at_work:
            self._begin(at_once)
            for ended in self._engine.wait(SECONDS_BETWEEN_LOOKS):
                self._take_note(ended)
            self._show()
            keeper.after_step()

    def _begin(self, at_once: int) -> None:
        for own in list(self._waiting):
            if len(self._at_work) == at_once:
                return
            # One that a killed run has left behind saves and stops: it is waited for.
            if not runs.is_locked(own.run.path):
                self._waiting.remove(own)
                own.begin()
                self._submit(own)

    def _submit(self, own: Planned) -> None:
        self._at_work[own.title] = own
        log = own.run.path / LOG
        self._engine.submit(Job(own.title, self._command(own.run.path), log, self._threads))

    def _take_note(self, ended: Ended) -> None:
        own = self._at_work.pop(ended.name)
        if own.is_finished:
            self._bar.say(f"{own.title}: finished")
            return
        tries = self._tries[own.title] = self._tries.get(own.title, 0) + 1
        if was_killed(ended) and tries < TRIES:
            self._bar.say(f"{own.title}: {end_in_words(ended)}; it goes on")
            self._submit(own)
            return
        log = own.run.path / LOG
        raise ValueError(f"{own.title} ({own.run.path}): {why_failed(ended, own.run, log)}")

    def _show(self) -> None:
        done = self._before + sum(len(own.run.records()) for own in self._left)
        for _ in range(done - self._shown):
            self._bar.step()
        self._shown = max(self._shown, done)


# ---- a task that is in this process alone --------------------------------------------------------


def handing_on(task: Any, module: str) -> Commands:
    """The commands of runs on a task that was made in Python: other processes get a copy of it.

    Args:
        module: is run with the scratch folder and the run folder as arguments.
    """

    def commands(scratch: Path) -> Command:
        entries = {"path": list(sys.path), "settings": _settings(), "task": _pickled(task)}
        (scratch / TASK).write_bytes(pickle.dumps(entries))
        return lambda folder: python("-m", module, str(scratch), str(folder))

    return commands


def handed_on(scratch: str) -> Any:
    """In the other process: the task; torch computes as it did in the first one.

    The process stops when the first one is gone.
    """
    end_with_parent()
    # Written by the process that has started this one, in a folder of its own.
    entries = pickle.loads((Path(scratch) / TASK).read_bytes())
    sys.path[:] = entries["path"]
    dtype, deterministic, warns, precision, onednn = entries["settings"]
    torch.set_default_dtype(dtype)
    torch.use_deterministic_algorithms(deterministic, warn_only=warns)
    torch.set_float32_matmul_precision(precision)
    torch.backends.mkldnn.enabled = onednn
    return pickle.loads(entries["task"])


def _settings() -> tuple[Any, ...]:
    """What torch's results depend on beside its arguments."""
    return (
        torch.get_default_dtype(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.get_float32_matmul_precision(),
        torch.backends.mkldnn.enabled,
    )


def _pickled(task: Any) -> bytes:
    """The task in bytes. Functions that no module has need `cloudpickle`.

    Raises:
        NotByItself: it cannot be written so.
    """
    try:
        by_value: Any = importlib.import_module("cloudpickle")
    except ImportError:
        by_value = None
    try:
        found = (by_value or pickle).dumps(task)
    except (pickle.PicklingError, TypeError, AttributeError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise NotByItself(f"the task cannot be handed to other processes ({reason})") from error
    if by_value is None and b"__main__" in found:
        raise NotByItself(
            "the task is made of what no module has, which other processes get with cloudpickle "
            "alone: pip install cloudpickle"
        )
    return found
