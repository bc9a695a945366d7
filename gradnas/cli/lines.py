"""Lines that commands print, and where they go when nobody reads them.

Names come from files and from other people: what would move the cursor or change the colours of a
terminal is made visible here, and nowhere else needs to think of it.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys

from gradnas.config import visible


def line(text: object = "", *, error: bool = False) -> None:
    """Print a line, or several; on standard error if it is no result."""
    print(visible(str(text)), file=sys.stderr if error else sys.stdout, flush=error)


def open_streams() -> None:
    """Open what was closed, as in `gradnas ... 2>&-`, on the place where everything vanishes.

    Otherwise the next file that is opened, perhaps a checkpoint, would be standard error, and take
    what libraries write there.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free: this one.
            os.open(os.devnull, os.O_RDWR)
    # Python leaves out the streams that were closed when it began; these stay open to its end.
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115

    for stream in (sys.stdout, sys.stderr):
        # A terminal of another encoding: what it cannot show is written as in Python.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def flush() -> None:
    """Write what waits; a closed pipe or a full disk shows here, and not when Python ends.

    Raises:
        OSError: a BrokenPipeError, for example.
    """
    sys.stdout.flush()
    sys.stderr.flush()


def close_broken() -> None:
    """After an error of a stream: what is left to write goes nowhere, without a word."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
