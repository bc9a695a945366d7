"""Where the data of a run folder lie, from wherever it is looked at."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from gradnas import runs
from gradnas.config import read_object


def expanded(source: str | Path) -> Path:
    """A path with `~` as the home folder; as it is where that is not known.

    Not known is the home of a user that does not exist, as in the name of a file `~draft.txt`.
    """
    try:
        return Path(source).expanduser()
    except RuntimeError:
        return Path(source)


def located_source(source: str, folder: Path, names: Collection[str]) -> str:
    """The source in the configuration of a run folder, as it must be written here.

    A relative path was typed in the directory in which the run began, which the folder knows; where
    run and data were moved together, it is found from one of the folders around the run.

    Args:
        names: of data that need no files; only the directory of the run has a say over these.
    """
    path = expanded(source)
    if path.is_absolute():
        return source
    # What does not say where it began, such as a configuration file by itself, is read from here.
    bases = [_directory(folder) or Path.cwd()]
    if source not in names:
        bases.extend(folder.resolve().parents)
    for base in bases:
        there = base / path
        if there.exists():
            is_same_here = path.exists() and path.resolve() == there.resolve()
            return source if is_same_here else str(there)
    return source


def _directory(folder: Path) -> Path | None:
    """Where the run of a folder began; None where it does not say."""
    try:
        entries = read_object(folder / runs.ENVIRONMENT)
    except ValueError:
        return None
    directory = entries.get("directory")
    return Path(directory) if isinstance(directory, str) else None
