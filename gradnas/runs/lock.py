"""One process at a time works in a run folder.

The lock is one of the system on the file `.lock`, which goes with the process however it ends; a
file that a killed process left behind locks nothing. Who only reads (a report, an evaluation) does
not ask for it. Windows has no such locks: there nothing is locked.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from gradnas.files import NO_LINK, NO_WAITING, NOT_INHERITED, fcntl, remove_strays
from gradnas.runs.names import LOCK, OWN


class Busy(ValueError):
    """Another process, or another thread, works in a folder."""


@dataclass
class _Held:
    handle: int | None
    thread: int


_HELD: dict[str, _Held] = {}  # real path of a folder -> its lock, of this process


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Work in a folder, which must exist; within the same thread it may be asked for again.

    What killed writes have left in the folder is removed.

    Raises:
        Busy: another process (or thread) works there.
        ValueError: the folder cannot be written to.
    """
    key = os.path.realpath(folder)
    held = _HELD.get(key)
    if held is not None:
        if held.thread != threading.get_ident():
            raise Busy(f"another thread of this process works in {folder} already")
        yield
        return
    handle = _acquired(folder)
    _HELD[key] = _Held(handle, threading.get_ident())
    try:
        remove_strays(folder, OWN)
        yield
    finally:
        # A forked process has none of these.
        if _HELD.get(key) is not None and handle is not None:
            with suppress(OSError):  # what stays locks nothing
                remove_name(folder)
            os.close(handle)
        _HELD.pop(key, None)


def remove_name(folder: Path) -> None:
    """Remove the file of the lock, and keep the lock itself to the end of `locked`.

    For a run that is about to say that it is finished: nobody goes on with it any more, and a
    process that is killed from then on leaves nothing behind. Who opens the file from now on makes
    a new one, and who has opened it before sees that it is gone.
    """
    held = _HELD.get(os.path.realpath(folder))
    path = folder / LOCK
    if held is not None and held.handle is not None and _is_at(path, held.handle):
        path.unlink(missing_ok=True)


def is_locked(folder: Path) -> bool:
    """Whether another process (or thread) works in a folder now. Nothing is written for it."""
    held = _HELD.get(os.path.realpath(folder))
    if held is not None:
        return held.thread != threading.get_ident()
    if fcntl is None:
        return False
    try:
        handle = os.open(folder / LOCK, os.O_RDONLY | NO_LINK | NO_WAITING | NOT_INHERITED)
    except OSError:
        return False  # there is no lock, or no folder
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False  # a network's file system without locks
    finally:
        os.close(handle)
    return False


def _acquired(folder: Path) -> int | None:
    """The handle that holds the lock; None where the file system has no locks."""
    if fcntl is None:
        return None
    path = folder / LOCK
    flags = os.O_RDWR | os.O_CREAT | NO_LINK | NO_WAITING | NOT_INHERITED
    while True:
        try:
            handle = os.open(path, flags, 0o644)
        except OSError as error:
            raise ValueError(f"cannot write {path}: {error.strerror or error}") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(handle)
            raise Busy(
                f"another process works in {folder} already: wait for its end, or stop it"
            ) from error
        except OSError:
            os.close(handle)
            return None  # a network's file system without locks
        # Whoever had it may have removed the file between our two calls.
        if _is_at(path, handle):
            return handle
        os.close(handle)


def _is_at(path: Path, handle: int) -> bool:
    try:
        there = os.lstat(path)
    except OSError:
        return False
    here = os.fstat(handle)
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)


def _leave_to_parent() -> None:
    """A forked process (a loader of images) does not keep the lock when its parent is killed."""
    for held in _HELD.values():
        if held.handle is not None:
            os.close(held.handle)
    _HELD.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
