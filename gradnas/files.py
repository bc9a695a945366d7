"""Files of the user's disk: read where they are files, written whole or not at all.

Nothing here follows what is no file: a named pipe would make a program wait for ever. What is
written goes to a temporary name beside its place, is flushed to the disk and renamed, so that
whoever reads sees the old file or the new one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

# Python passes these on to the system, and Windows has none of them.
NO_WAITING = getattr(os, "O_NONBLOCK", 0)
NO_LINK = getattr(os, "O_NOFOLLOW", 0)
NOT_INHERITED = getattr(os, "O_CLOEXEC", 0)
PLAIN_BYTES = getattr(os, "O_BINARY", 0)

_HALF = re.compile("[\ud800-\udfff]")  # of a character, in UTF-16
BUILDING = ".build"  # how the names of folders end in which something is made


# ---- reading -------------------------------------------------------------------------------------


def read_file(path: str | Path) -> bytes:
    """The bytes of a file.

    Raises:
        ValueError: it is not there, it cannot be read, or it is a folder, a named pipe or a device.
    """
    try:
        with os.fdopen(_opened(path, os.O_RDONLY), "rb") as file:
            return file.read()
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from error


@contextmanager
def opened(path: str | Path) -> Iterator[BinaryIO]:
    """A file to read from; errors as of `read_file`."""
    try:
        handle = _opened(path, os.O_RDONLY)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from error
    with os.fdopen(handle, "rb") as file:
        yield file


def _opened(path: str | Path, flags: int) -> int:
    """A handle of a regular file; OSError with a sentence where it is none."""
    handle = os.open(path, flags | NO_WAITING | NOT_INHERITED | PLAIN_BYTES, 0o644)
    try:
        mode = os.fstat(handle).st_mode
        if not stat.S_ISREG(mode):
            raise OSError(0, f"it is {_what(mode)}, but a file is needed")
    except OSError:
        os.close(handle)
        raise
    return handle


def _what(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a folder"
    if stat.S_ISFIFO(mode):
        return "a named pipe"
    if stat.S_ISSOCK(mode):
        return "a socket"
    return "a device"


def sha256(data: bytes) -> str:
    """The digest in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


# ---- writing -------------------------------------------------------------------------------------


def write_atomically(path: Path, data: bytes, previous: Path | None = None) -> None:
    """Write `data` under a temporary name beside `path`, flush, rename.

    Whoever reads `path` sees the old file or the new one; on failure it is as it was.

    Args:
        previous: keep what was there before under this name. A kill between the two renames leaves
            nothing but that.

    Raises:
        ValueError: the disk is full, or the folder may not be written to; names the file.
    """
    try:
        with _temporary_beside(path) as (handle, temporary):
            _write_all(handle, data)
            os.fsync(handle)
            os.chmod(temporary, 0o644)  # mkstemp makes it readable by its owner alone
            if previous is not None and os.path.lexists(path):
                os.replace(path, previous)
            os.replace(temporary, path)
    except OSError as error:
        raise ValueError(
            f"cannot write {path}: {error.strerror or error}; what was there before is unchanged"
        ) from error


@contextmanager
def _temporary_beside(path: Path) -> Iterator[tuple[int, str]]:
    """A new file beside `path`, locked while it is written; it is gone at the end."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        if fcntl is not None:
            # Where the file system has no locks, `remove_strays` has none to see.
            with suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield handle, temporary
    finally:
        os.close(handle)
        if os.path.lexists(temporary):  # after an error or Ctrl-C
            os.unlink(temporary)


def _write_all(handle: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(handle, rest) :]


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically.

    Raises:
        ValueError: as `write_atomically`; NaN or an infinite number in `value`.
    """
    text = json.dumps(value, indent=2, allow_nan=False)
    if "\\ud" in text:  # perhaps a half of a character
        text = json.dumps(_with_whole_characters(value), indent=2, allow_nan=False)
    write_atomically(path, f"{text}\n".encode())


def _with_whole_characters(value: Any) -> Any:
    """The tree with `\\udce9` in the place of a half of a character.

    A name of a file that is no UTF-8 has some for Python, and no reader of JSON takes them.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return json.loads(_HALF.sub(lambda half: f"\\\\u{ord(half[0]):04x}", text))


def append(path: Path, data: bytes) -> None:
    """Append to a file and flush it to the disk; a link is not followed.

    Raises:
        ValueError: the file is a link, or no file; or it cannot be written.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | NO_LINK
    try:
        handle = _opened(path, flags)
        try:
            _write_all(handle, data)
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        reason = "it is a link" if path.is_symlink() else error.strerror or error
        raise ValueError(f"cannot write {path}: {reason}") from error


def cut(path: Path, length: int) -> None:
    """Cut off what a file has beyond `length` bytes; a link is not followed.

    Raises:
        ValueError: as `append`.
    """
    if not os.path.lexists(path):
        return
    try:
        handle = _opened(path, os.O_WRONLY | NO_LINK)
        try:
            if os.fstat(handle).st_size > length:
                os.ftruncate(handle, length)
        finally:
            os.close(handle)
    except OSError as error:
        reason = "it is a link" if path.is_symlink() else error.strerror or error
        raise ValueError(f"cannot cut {path}: {reason}") from error


# ---- what killed writes leave --------------------------------------------------------------------


def strays(folder: Path, names: Collection[str]) -> list[Path]:
    """Temporary files that writes of files of these names would have renamed."""
    # Of earlier versions too: `..checkpoint.pt.new.x1y2z3w4`, `.genotype.json.12ab34cd.tmp`.
    known = "|".join(re.escape(name) for name in names)
    form = re.compile(
        rf"\.(?:{known})\.[a-z0-9_]{{8}}(?:\.tmp)?|\.\.?(?:{known})\.new(?:\..{{8}})?"
    )
    found = []
    for path in sorted(folder.iterdir()):
        is_stray = form.fullmatch(path.name) is not None
        if is_stray and path.is_file() and not path.is_symlink():
            found.append(path)
    return found


def remove_strays(folder: Path, names: Collection[str]) -> None:
    """Remove the temporary files of killed writes; what another process still writes stays."""
    for path in strays(folder, names):
        try:
            if _is_being_written(path):
                continue
            path.unlink()
        except OSError:
            continue  # gone already, or not ours to remove: it harms nothing


def _is_being_written(path: Path) -> bool:
    if fcntl is None:
        return False
    handle = _opened(path, os.O_RDWR | NO_LINK)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


# ---- folders in which something is made ----------------------------------------------------------


@contextmanager
def building_folder(stem: Path) -> Iterator[Path]:
    """A folder `.STEM.x1y2z3w4.build` for what takes long to make; it is gone at the end.

    Beside it lies a file that is locked as long as its process lives. What killed processes left
    for the same stem is removed first.
    """
    _remove_abandoned(stem)
    with _temporary_beside(stem) as (_, owner):
        folder = Path(owner + BUILDING)
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned(stem: Path) -> None:
    if fcntl is None:
        return  # whether a process still builds cannot be told
    for folder in stem.parent.glob(f".{stem.name}.*{BUILDING}"):
        owner = folder.with_suffix("")
        with suppress(OSError):  # another process was faster
            if not owner.exists() or not _is_being_written(owner):
                shutil.rmtree(folder)
    remove_strays(stem.parent, [stem.name])
