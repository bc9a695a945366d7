"""The runs of `golden.py`: each in a fork, with what it says in files beside what it writes."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from gradnas.cli import main as gradnas_main


def in_fork(
    name: str, work: Callable[[], int | None], stop_when: Callable[[], bool] | None = None
) -> int:
    """Run `work` in a fork; its outputs go to NAME.stdout and NAME.stderr; returns its exit code.

    Args:
        stop_when: asked every few milliseconds; Ctrl-C is sent as soon as it says so.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            for number, stream in ((1, "stdout"), (2, "stderr")):
                file = os.open(f"{name}.{stream}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
                os.dup2(file, number)
            try:
                code = work() or 0
            except SystemExit as stopped:
                code = stopped.code if isinstance(stopped.code, int) else int(bool(stopped.code))
            except BaseException:  # noqa: BLE001  (a fork must never return into the caller)
                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)
    while stop_when is not None:
        if stop_when():
            os.kill(child, signal.SIGINT)
            break
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class Golden:
    """The runs of one call; the current folder is where they write."""

    def __init__(self) -> None:
        self.exits: dict[str, int] = {}
        self.seconds: dict[str, float] = {}

    def run(self, name: str, *arguments: str, stop_when: Callable[[], bool] | None = None) -> None:
        """One command line; what it leaves outside NAME.* is found in the folder afterwards."""
        words = [str(word) for word in arguments]

        def work() -> int:
            sys.argv = ["gradnas", *words]
            return gradnas_main(words)

        self._done(name, work, stop_when)

    def call(self, name: str, work: Callable[[], None]) -> None:
        """A piece of Python, with the library's public names."""
        self._done(name, work, None)

    def _done(
        self,
        name: str,
        work: Callable[[], int | None],
        stop_when: Callable[[], bool] | None,
    ) -> None:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        self.exits[name] = in_fork(name, work, stop_when)
        self.seconds[name] = time.monotonic() - began


def has_lines(path: str, number: int) -> Callable[[], bool]:
    """Whether a file has so many lines already."""

    def asked() -> bool:
        with contextlib.suppress(FileNotFoundError):
            return Path(path).read_bytes().count(b"\n") >= number
        return False

    return asked
