"""What an engine does: submit, wait, cancel."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

# Of the environment of whoever submits: what a command needs to find the same packages and data.
HANDED_ON = (
    "GRADNAS_",
    "HF_",
    "PYTHONPATH",
    "PATH",
    "XDG_CACHE_HOME",
)
ENDS_WITH = "GRADNAS_ENDS_WITH"  # number of the process without which a trial has no purpose
STOPPED = (-signal.SIGINT, -signal.SIGTERM, 130)  # exit codes of a command that was asked to stop
THREADS = "OMP_NUM_THREADS"
SECONDS_BETWEEN_LOOKS = 0.2
SECONDS_TO_SAVE = 60.0  # that a command has, from being asked to stop until it is killed


@dataclass(frozen=True)
class Job:
    """A command to run, from the directory where it was submitted.

    Args:
        name: told again when it has ended; no two jobs at once have the same.
        command: program and arguments.
        log: file that its output is appended to.
        threads: cores that it computes with.
        environment: more variables than those handed on.
    """

    name: str
    command: tuple[str, ...]
    log: Path
    threads: int = 1
    directory: str = field(default_factory=os.getcwd)
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ended:
    """A job that has ended.

    Attributes:
        code: exit code of its command; None where the engine lost it.
        why: what the engine says of a job that it lost.
    """

    name: str
    code: int | None
    why: str = ""


class Engine(ABC):
    """Runs jobs side by side. A context manager: what is still at work at its end is cancelled.

    Attributes:
        slots: jobs that run at once; None where somebody else decides.
    """

    slots: int | None = None

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()
        self.close()

    @abstractmethod
    def submit(self, job: Job) -> None:
        """Hand a job on, to be run when there is room."""

    @abstractmethod
    def wait(self, seconds: float) -> list[Ended]:
        """The jobs that have ended since the last call; waits at most so long for the first."""

    @abstractmethod
    def cancel(self) -> None:
        """Stop all jobs; those at work are asked first, and save.

        Raises:
            KeyboardInterrupt: it came meanwhile (Ctrl-C once more); the jobs were stopped at once.
        """

    def close(self) -> None:
        """Give back what the engine holds; nothing by default."""
        return


def handed_on() -> dict[str, str]:
    """The part of the environment that a command on another machine gets."""
    return {name: value for name, value in os.environ.items() if name.startswith(HANDED_ON)}


def carry_out(
    job: Job,
    inherited: Mapping[str, str],
    stop: Stop | None = None,
    begin: Callable[[Job, Mapping[str, str]], Process] | None = None,
) -> int:
    """Run the command of a job to its end; returns its exit code, negative for a signal.

    The command ends when this process does (`end_with_parent` looks after that).

    Args:
        inherited: the environment without that of the job.
        stop: asks it to stop, from another thread.
        begin: begins a process, given its environment; None: one of its own.
    """
    environment = {
        **inherited,
        THREADS: str(job.threads),
        ENDS_WITH: str(os.getpid()),
        **job.environment,
    }
    process = (begin or Started)(job, environment)
    try:
        while True:
            code = process.wait_for(SECONDS_BETWEEN_LOOKS)
            if code is not None:
                return code
            if stop is not None and stop.asked:
                return end(process, stop)
    except BaseException:
        end(process)
        raise


def end_with_parent() -> None:
    """Save and stop when the process that started this one is gone.

    A program that is killed, or a worker of an engine, would leave runs behind that nobody waits
    for, and that hold their folders. Nothing happens in a process that no engine has started.
    """
    # Taken out: a second thread that looks would ask a second time, which means without saving.
    started_by = os.environ.pop(ENDS_WITH, "")
    if not started_by.isdigit():
        return
    parent = int(started_by)

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(SECONDS_BETWEEN_LOOKS)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=look, daemon=True).start()


def opened_log(job: Job) -> BinaryIO:
    """The log of a job, to append to."""
    job.log.parent.mkdir(parents=True, exist_ok=True)
    return job.log.open("ab")


class Process(Protocol):
    """A process that was started."""

    def wait_for(self, seconds: float) -> int | None:
        """Its exit code, negative for a signal; None where it has none after so many seconds."""

    def terminate(self) -> None:
        """Ask it to stop."""

    def kill(self) -> None:
        """End it."""


class Started:
    """A process of its own."""

    def __init__(self, job: Job, environment: Mapping[str, str]) -> None:
        with opened_log(job) as log:
            self._process = subprocess.Popen(
                job.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=job.directory,
                env=dict(environment),
                # Ctrl-C in the terminal is for the study, which asks its trials itself.
                start_new_session=True,
            )

    def wait_for(self, seconds: float) -> int | None:
        """See `Process`."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def terminate(self) -> None:
        """See `Process`."""
        self._process.terminate()

    def kill(self) -> None:
        """See `Process`."""
        self._process.kill()


class Stop:
    """Whether a job is asked to stop, or is to stop at once; set from another thread."""

    def __init__(self) -> None:
        self.asked = False
        self.at_once = False


def end(process: Process, stop: Stop | None = None) -> int:
    """Ask a process to stop, and kill it where it does not; returns its exit code.

    Args:
        stop: says, from another thread, that it is not to be waited for.
    """
    process.terminate()
    until = time.monotonic() + SECONDS_TO_SAVE
    while True:
        code = process.wait_for(SECONDS_BETWEEN_LOOKS)
        if code is not None:
            return code
        if time.monotonic() > until or (stop is not None and stop.at_once):
            process.kill()


def python(*arguments: str) -> tuple[str, ...]:
    """The command of a module of this Python: `python("-m", "gradnas", ...)`."""
    return (sys.executable, *arguments)


def sleep_until(moment: float, at_most: float = 0.5) -> None:
    """Pass some of the time until a moment of `time.monotonic`."""
    time.sleep(max(0.0, min(at_most, moment - time.monotonic())))
