"""Commands of gradnas in forks of this process: as isolated as processes, without their start.

A fork may be killed: after a time, or at its k-th call of the system's functions that change files.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CHANGING = ("open", "write", "fsync", "replace", "unlink", "mkdir", "rmdir", "ftruncate", "chmod")
ORIGINALS = {name: getattr(os, name) for name in CHANGING}
LIMIT_SECONDS = 600.0  # a command here takes a few; what takes longer hangs


@dataclass(frozen=True)
class Kill:
    """When a fork is killed with SIGKILL.

    Attributes:
        seconds: after its start; None: not by time.
        call: at its call of this number, from 1, of the functions of `CHANGING`; None: at none.
        where: before the call, after it, or (of a write) after half of it.
    """

    seconds: float | None = None
    call: int | None = None
    where: str = "before"


@dataclass(frozen=True)
class Outcome:
    """How a command ended.

    Attributes:
        code: exit code; below 0 the signal that ended it.
        calls: of the functions of `CHANGING`.
    """

    code: int
    out: str
    err: str
    calls: int

    @property
    def was_killed(self) -> bool:
        return self.code == -signal.SIGKILL

    @property
    def is_refusal(self) -> bool:
        """Exit code 2 with one sentence of ours, and nothing that is for programmers."""
        lines = [line for line in self.err.splitlines() if line.startswith("gradnas: ")]
        return self.code == 2 and len(lines) == 1 and "Traceback" not in self.err


def run(arguments: Sequence[str | Path], folder: Path, kill: Kill | None = None) -> Outcome:
    """Run a command of gradnas in `folder`."""
    words = [str(argument) for argument in arguments]

    def work() -> int:
        from gradnas.cli import main

        return main(words)

    return call(work, folder, kill)


def here(arguments: Sequence[str | Path], folder: Path) -> Outcome:
    """Run a command in `folder` and in this process, with what it says kept."""
    from gradnas.cli import main

    before = Path.cwd()
    out, err = io.StringIO(), io.StringIO()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = main([str(argument) for argument in arguments])
            except SystemExit as stopped:
                code = stopped.code if isinstance(stopped.code, int) else 1
            except BaseException:  # noqa: BLE001  (what a command lets through is what is looked for)
                traceback.print_exc()
                code = 1
    finally:
        os.chdir(before)
    return Outcome(code, out.getvalue(), err.getvalue(), 0)


def call(
    work: Callable[[], int],
    folder: Path,
    kill: Kill | None = None,
    limit_seconds: float = LIMIT_SECONDS,
    *,
    is_counted: bool = True,
) -> Outcome:
    """Run a function in a fork whose current folder is `folder`.

    Args:
        is_counted: count its calls of the functions of `CHANGING`. To gradnas these are then code
            of the user's own, whose errors it shows with a traceback.
    """
    kill = kill or Kill()
    with tempfile.TemporaryDirectory() as scratch:
        said = Path(scratch)
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            _in_child(work, folder, said, kill if is_counted else None)
        code = _waited_for(child, kill.seconds, limit_seconds)
        counted = said / "calls"
        return Outcome(
            code,
            (said / "out").read_text(errors="replace"),
            (said / "err").read_text(errors="replace"),
            int(counted.read_text()) if counted.exists() else 0,
        )


def _in_child(work: Callable[[], int], folder: Path, said: Path, kill: Kill | None) -> None:
    code = 1
    try:
        for number, name in ((1, "out"), (2, "err")):
            handle = os.open(said / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            os.dup2(handle, number)
        os.chdir(folder)
        with contextlib.nullcontext([0]) if kill is None else _counted(kill) as calls:
            try:
                code = work()
            except SystemExit as stopped:
                code = stopped.code if isinstance(stopped.code, int) else 1
            except BaseException:  # noqa: BLE001  (a fork must never return into its caller)
                traceback.print_exc()
        (said / "calls").write_text(str(calls[0]))
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


@contextlib.contextmanager
def _counted(kill: Kill) -> Iterator[list[int]]:
    """Within: the functions of `CHANGING` are counted, and one of them may be the last."""
    calls = [0]

    def counted(name: str) -> Callable[..., Any]:
        original = ORIGINALS[name]

        def function(*args: Any, **kwargs: Any) -> Any:
            calls[0] += 1
            if calls[0] != kill.call:
                return original(*args, **kwargs)
            if kill.where == "after":
                original(*args, **kwargs)
            elif kill.where == "half" and name == "write":
                handle, data = args
                original(handle, bytes(data)[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
            raise AssertionError("a killed process goes on")

        return function

    for name in CHANGING:
        setattr(os, name, counted(name))
    try:
        yield calls
    finally:
        _uncounted()


def _uncounted() -> None:
    for name, original in ORIGINALS.items():
        setattr(os, name, original)


class Trial:
    """A command of gradnas in a fork, in the place of `subprocess.Popen` of the engines."""

    def __init__(self, words: Sequence[str], *, stdout: Any, cwd: str, env: Any, **_: Any) -> None:
        self.args = words
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            self._be(words, stdout, cwd, env)

    def _be(self, words: Sequence[str], stdout: Any, cwd: str, env: Any) -> None:
        code = 1
        try:
            from gradnas.cli import main

            _uncounted()
            os.setsid()
            for number in (1, 2):
                os.dup2(stdout.fileno(), number)
            os.chdir(cwd)
            os.environ.update(env)
            with (
                open(1, "w", closefd=False) as sys.stdout,
                open(2, "w", closefd=False) as sys.stderr,
            ):
                try:
                    code = main(list(words[words.index("gradnas") + 1 :]))
                except SystemExit as stopped:
                    code = stopped.code if isinstance(stopped.code, int) else 1
                except BaseException:  # noqa: BLE001  (a fork must never return into its caller)
                    traceback.print_exc()
        finally:
            os._exit(code)

    def poll(self) -> int | None:
        if self.returncode is None:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        until = None if timeout is None else time.monotonic() + timeout
        while self.poll() is None:
            if until is not None and time.monotonic() > until:
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            time.sleep(0.002)
        assert self.returncode is not None
        return self.returncode

    def terminate(self) -> None:
        os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


def trials_are_forks() -> None:
    """From now on the engines of studies start no processes."""
    from gradnas.engines import base

    base.subprocess = types.SimpleNamespace(  # type: ignore[assignment]
        Popen=Trial,
        DEVNULL=subprocess.DEVNULL,
        STDOUT=subprocess.STDOUT,
        TimeoutExpired=subprocess.TimeoutExpired,
    )


def _waited_for(child: int, seconds: float | None, limit_seconds: float) -> int:
    began = time.monotonic()
    limit = limit_seconds if seconds is None else seconds
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() - began > limit:
            os.kill(child, signal.SIGKILL if seconds is not None else signal.SIGALRM)
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        time.sleep(0.002)
