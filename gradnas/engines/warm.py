"""Processes that begin with Python, torch and gradnas imported already.

A trial of some seconds would spend as long on its imports. The fork server of `multiprocessing` has
them done and forks, so that each process is as new and as separate as one that is started, but for
that.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from gradnas.engines.base import ENDS_WITH, THREADS, Job, opened_log, python

PROGRAM = python("-m", "gradnas")
# What trials import sooner or later; the latter where the study itself has them.
IMPORTED = (
    "gradnas.cli.study",
    "gradnas.cli.study_trial",
    "matplotlib.backends.backend_svg",
    "matplotlib.figure",
    "safetensors.torch",
    "torch._dynamo",
)
PERHAPS = ("pandas", "pyarrow.parquet", "sklearn.datasets", "PIL.Image")

# Of the processes of one fork server; two that ask at once for the end of one would both read it.
_lock = threading.Lock()


class Forked:
    """A process that was forked."""

    def __init__(self, process: BaseProcess, held: Connection) -> None:
        self._process = process
        self._held = held  # its other end tells the process when this one is gone

    def wait_for(self, seconds: float) -> int | None:
        """Its exit code, negative for a signal; None where it has none after so many seconds."""
        wait([self._process.sentinel], seconds)
        with _lock:
            return self._process.exitcode

    def terminate(self) -> None:
        """Ask it to stop."""
        with _lock:
            self._process.terminate()

    def kill(self) -> None:
        """End it."""
        with _lock:
            self._process.kill()


def is_possible(job: Job) -> bool:
    """Whether a job can be forked: it is a command of gradnas, and this process is one, too.

    The fork server imports the main module again, which of any other program may do anything. On
    systems other than Linux what is imported does not always outlive a fork.
    """
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    name = Path(getattr(main, "__file__", None) or "").name
    is_command = name == "gradnas" or (spec is not None and spec.name == "gradnas.__main__")
    is_of_gradnas = job.command[: len(PROGRAM)] == PROGRAM
    return sys.platform.startswith("linux") and is_command and is_of_gradnas


def fork(job: Job, environment: Mapping[str, str]) -> Forked:
    """Begin the command of a job."""
    context = multiprocessing.get_context("forkserver")
    loaded = [name for name in PERHAPS if name in sys.modules]
    reader, held = context.Pipe(duplex=False)
    arguments = (job, dict(environment), reader)
    with _lock, _variable(THREADS, environment[THREADS]):
        # Both are for the server, when the first job starts it: libraries read them at import.
        context.set_forkserver_preload([*IMPORTED, *loaded])
        process = context.Process(target=_in_fork, args=arguments, name=job.name)
        process.start()
    reader.close()
    return Forked(process, held)


@contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    """Within, a variable of the environment has another value."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before


def _in_fork(job: Job, environment: dict[str, str], reader: Connection) -> None:
    os.setsid()  # Ctrl-C in the terminal is for the study, which asks its trials itself
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    with opened_log(job) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    environment.pop(ENDS_WITH, None)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(job.directory)
    threading.Thread(target=_end_with, args=(reader,), daemon=True).start()
    sys.argv = ["gradnas", *job.command[len(PROGRAM) :]]
    runpy.run_module("gradnas", run_name="__main__", alter_sys=True)  # as `python -m gradnas`


def _end_with(reader: Any) -> None:
    """Save and stop when the process that started this one is gone."""
    wait([reader])
    os.kill(os.getpid(), signal.SIGTERM)
