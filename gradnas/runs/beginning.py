"""Whether a folder may be made a run folder, and the way made free for it.

`config.json` is written last and makes a folder a run. Before it stands the status "beginning": a
folder with that and without a configuration is what a process left that was killed as it began.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from gradnas.config import JsonObject, read_object
from gradnas.environment import is_at_work
from gradnas.files import strays
from gradnas.runs import names

BEGINNING = "beginning"
STATUSES = (BEGINNING, "running", "finished", "interrupted", "failed")
# Of a run that has come to something: it is never replaced.
RESULTS_OF_WORK = (names.CHECKPOINT, names.PREVIOUS, names.WEIGHTS, names.RESULTS)
NAMED_FILES = 3  # of a folder that is refused


def read_status(folder: Path) -> JsonObject:
    """What `status.json` says; empty where it is missing or damaged: no run depends on it."""
    status = _object(folder / names.STATUS)
    return status if status.get("status") in STATUSES else {}


def _object(path: Path) -> JsonObject:
    try:
        return read_object(path)
    except ValueError:  # also where it is not there
        return {}


def check_free(folder: Path) -> None:
    """ValueError if a new run may not be made in this folder.

    It may where there is nothing yet, and where a run was stopped before it saved anything.
    """
    if not folder.is_dir():
        if folder.exists() or folder.is_symlink():
            raise ValueError(f"{folder} is no folder; choose another one with --out")
        return
    there = _entries(folder)
    if not there:
        return
    state = read_status(folder)
    if names.CONFIG in there and _is_of_gradnas(folder, state):
        _check_replaceable(folder, state, there)
        return
    if state.get("status") == BEGINNING and names.CONFIG not in there:
        return  # killed as it began: nothing in it is needed
    some = ", ".join(there[:NAMED_FILES])
    more = f" and {len(there) - NAMED_FILES} more" if len(there) > NAMED_FILES else ""
    raise ValueError(
        f"{folder} holds other files ({some}{more}) and no run: they are not written over; choose "
        "another folder with --out"
    )


def _entries(folder: Path) -> list[str]:
    """What is in a folder, without lock and temporary files of our own."""
    passed_over = {path.name for path in strays(folder, names.OWN)} | {names.LOCK}
    return sorted(path.name for path in folder.iterdir() if path.name not in passed_over)


def _is_of_gradnas(folder: Path, state: JsonObject) -> bool:
    """Whether the configuration is that of a run, and not a file of the user by that name."""
    return bool(state) or "gradnas" in _object(folder / names.ENVIRONMENT)


def _check_replaceable(folder: Path, state: JsonObject, there: list[str]) -> None:
    status = state.get("status", "unfinished")
    if status == "finished":
        raise ValueError(
            f"{folder} already holds a finished run; choose another folder with --out: it is not "
            "written over"
        )
    has_results = any(name in there for name in RESULTS_OF_WORK)
    if has_results or is_at_work(state):
        raise ValueError(
            f"{folder} already holds a run ({status}); choose another folder with --out, or "
            f"continue it with: gradnas resume {shlex.quote(str(folder))}"
        )


@contextmanager
def made_folder(folder: Path) -> Iterator[None]:
    """A folder that is made, with those around it; after an error those that are empty are removed.

    What was there before stays.

    Raises:
        ValueError: it cannot be made.
    """
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _remove_empty(missing)
        raise ValueError(f"cannot make the folder {folder}: {error.strerror or error}") from error
    try:
        yield
    except BaseException:
        _remove_empty(missing)
        raise


def _remove_empty(folders: Sequence[Path]) -> None:
    for folder in folders:
        with suppress(OSError):  # it is not empty, or was not made
            folder.rmdir()


def discard(folder: Path) -> None:
    """Remove the files of a run that came to nothing, so that its folder may be removed."""
    make_way(folder)
    (folder / names.STATUS).unlink(missing_ok=True)


def make_way(folder: Path) -> None:
    """Remove the files of a run that came to nothing; `status.json` already says "beginning"."""
    # The configuration first: without it the folder is no run, should this be stopped.
    for name in names.OWN:
        if name != names.STATUS:
            (folder / name).unlink(missing_ok=True)
