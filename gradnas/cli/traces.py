"""Errors in a user's own code: his own lines of the traceback, and no others."""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, TracebackType

_PACKAGE = Path(__file__).resolve().parents[1]
_LIBRARIES = tuple(
    Path(sysconfig.get_paths()[name]).resolve()
    for name in ("stdlib", "platstdlib", "purelib", "platlib")
)


def is_gradnas(file: str) -> bool:
    """Whether a file of code is of gradnas."""
    return Path(file).resolve().is_relative_to(_PACKAGE)


def is_users(file: str) -> bool:
    """Whether a file of code is the user's: of no library, and not of gradnas."""
    if file.startswith("<"):  # of no file
        return False
    path = Path(file).resolve()
    if not path.is_file():  # compiled: libraries name the sources by paths of their own
        return False
    in_library = any(path.is_relative_to(folder) for folder in _LIBRARIES)
    return not in_library and not path.is_relative_to(_PACKAGE)


def told(error: ValueError) -> str:
    """What is printed of an error that ends a command.

    One sentence where gradnas refuses something, with the user's line that led to it; where his
    code has failed, his lines of the traceback, before the sentence.
    """
    trace = trace_of(error)
    if trace is not None and _is_users_error(error):
        return trace
    if trace is not None:
        return f"{trace}\ngradnas: {error}"
    line = line_of(error)
    return f"gradnas: {error}" if line is None else f"gradnas: {error} ({line})"


def trace_of(error: BaseException) -> str | None:
    """What a user is shown of an error that his code, or torch below it, has raised.

    That is his lines of the traceback and the error itself. None where no code of his is in it, or
    where gradnas refuses something with a sentence.
    """
    known: BaseException | None = error
    seen: set[int] = set()
    while known is not None and id(known) not in seen:
        seen.add(id(known))
        if _is_users_error(known):
            lines = ["Traceback (most recent call last):\n"]
            frames = [f for f in traceback.extract_tb(known.__traceback__) if is_users(f.filename)]
            lines += traceback.format_list(frames)
            lines += traceback.format_exception_only(known)
            return "".join(lines).rstrip()
        known = known.__cause__ or known.__context__
    return None


def line_of(error: BaseException) -> str | None:
    """The user's line from which gradnas was called, which refuses something: `a.py, line 7`."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if is_users(f.filename)]
    if not frames:
        return None
    return f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}"


def _is_users_error(error: BaseException) -> bool:
    if isinstance(error, SyntaxError):
        return error.filename is not None and is_users(error.filename)
    files = [frame.f_code.co_filename for frame in _frames(error.__traceback__)]
    # What gradnas itself raises is a sentence, or a defect of its own.
    return any(is_users(file) for file in files) and not is_gradnas(files[-1])


def _frames(trace: TracebackType | None) -> Iterator[FrameType]:
    while trace is not None:
        yield trace.tb_frame
        trace = trace.tb_next
