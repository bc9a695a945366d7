"""Where commands begin: devices, folders, configurations, and the guard around a run."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar, get_type_hints

from gradnas import distributed, runs
from gradnas.architectures.base import Architecture
from gradnas.architectures.genotype import Genotype
from gradnas.architectures.registry import load_architecture, published, read_architecture
from gradnas.cli.lines import line
from gradnas.config import JsonObject, from_json, read_object, shown
from gradnas.data.summary import DataSummary
from gradnas.programs.going_on import CannotGoOn, leave_word
from gradnas.reports.waiting import waiting_sentence
from gradnas.runs import Record
from gradnas.tasks import SEARCH_CONFIGS, TRAIN_CONFIGS

DISCOVERY = "DiscoverConfig"  # in a configuration; its module needs sympy


def out_folder(given: str | None) -> Path | None:
    """The folder that `--out` names; None without it.

    Raises:
        ValueError: the name is empty, or a new run may not be made there.
    """
    if given is None:
        return None
    if not given.strip():
        raise ValueError("--out is empty: name a folder, or leave it out")
    folder = Path(given)
    if distributed.is_main():  # which may have begun there before another process looks
        runs.Run(folder).check_free()
    return folder


def begun_before(given: str | None) -> Path | None:
    """The run that `torchrun --max-restarts` goes on with; None where it is the first start."""
    if given is None or not distributed.is_restart():
        return None
    folder = Path(given)
    has_run = (folder / runs.CONFIG).exists() and runs.Run(folder).has_checkpoint
    return folder if distributed.from_main(has_run) else None


C = TypeVar("C")  # a configuration


def guarded(run: runs.Run, work: Callable[[], Record], options: str = "") -> Record:
    """Do the work; when it stops, leave word of it in the run folder and on the terminal.

    Args:
        options: that a command needs to go on with it: ` --task my_task.py`.

    Raises:
        runs.Interrupted: it was stopped; what is saved was said.
        ValueError: what went wrong, and how to go on where that is possible.
    """
    again = f"gradnas resume {shlex.quote(str(run.path))}{options}"
    try:
        return work()
    except runs.Interrupted:
        leave_word(run, "interrupted")
        line(f"gradnas: stopped and saved; go on with: {again}", error=True)
        raise
    except KeyboardInterrupt:  # the second Ctrl-C, or one where nothing waits for a step's end
        leave_word(run, "interrupted")
        if run.has_checkpoint:
            what_now = f"go on from the last checkpoint with: {again}"
        else:
            what_now = f"nothing was saved yet in {run.path}"
        line(f"gradnas: stopped at once; {what_now}", error=True)
        raise runs.Interrupted from None
    except distributed.RankLost:
        leave_word(run, "interrupted")
        raise
    except CannotGoOn as error:
        leave_word(run, "failed", str(error))
        raise
    except ValueError as error:
        if not (run.path / runs.CONFIG).exists():
            raise  # nothing is left of it
        leave_word(run, "failed", str(error))
        if not run.has_checkpoint:
            what_now = (
                f"nothing was saved yet in {run.path}: give the corrected command the same folder"
            )
        elif isinstance(error, runs.NonFiniteError):
            # With the same settings it would come to the same, and with others it does not go on.
            what_now = (
                f"the last good state is kept in {run.path}; other settings need another folder"
            )
        else:
            what_now = f"the last good state is kept in {run.path}; go on with: {again}"
        raise ValueError(f"{error}; {what_now}") from error
    except Exception as error:  # of the user's own code, or a defect
        leave_word(run, "failed", f"{type(error).__name__}: {error}")
        if run.has_checkpoint and options:
            mended = f"with the file mended go on with: {again} --other-task"
            line(f"gradnas: the last good state is kept in {run.path}; {mended}", error=True)
        raise


def say(notes: Iterable[str]) -> None:
    """Sentences that belong to a run and are no result, from one process of it."""
    if distributed.is_main():
        for note in notes:
            line(f"note: {note}", error=True)


def say_read(summary: DataSummary) -> None:
    """What was read, and what looks wrong in it, from one process of a run."""
    if distributed.is_main():
        for sentence in summary.sentences():
            line(sentence, error=True)


def say_waiting(run: runs.Run) -> None:
    """How much of the time of its epochs a finished run has waited for data."""
    sentence = waiting_sentence(run.path)
    if sentence is not None:
        line(sentence)


def is_configuration(path: Path) -> bool:
    """Whether there is a file of that name that holds a JSON object."""
    if not _is_there(path) or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")


device_of = distributed.joined_device


def typed(path: Path, *wanted: type[C]) -> tuple[type[C], JsonObject]:
    """A configuration file's class, one of those wanted, and its object.

    A file that does not say is taken to be of the first.

    Raises:
        ValueError: it is of another class; where a command takes those, the sentence names it.
    """
    description = read_object(path)
    classes = {cls.__name__: cls for cls in wanted}
    first = next(iter(classes))
    name = str(description.get("type", first))
    if name not in classes:
        commands = {DISCOVERY: "discover"}
        commands |= dict.fromkeys(SEARCH_CONFIGS, "search")
        commands |= dict.fromkeys(TRAIN_CONFIGS, "train")
        hint = f"; use: gradnas {commands[name]} {path}" if name in commands else ""
        raise ValueError(f"{path} is a {name}, not a {' or '.join(classes)}{hint}")
    return classes[name], description


@dataclass(frozen=True)
class Named:
    """An architecture that a command was given.

    Attributes:
        name: its published name or that in its file; else where it was read, or nothing more than
            what it is.
        folder: of the search that found it.
        searched: the configuration of that search; empty without one.
        is_named: whether `name` is a name that belongs into a title.
    """

    architecture: Architecture
    name: str
    folder: Path | None = None
    searched: JsonObject = field(default_factory=dict)
    is_named: bool = False


def architecture_of(what: str) -> Named:
    """An architecture, and what is known of its search.

    Args:
        what: a run folder, a file, FILE:NAME of a Python file, the text of an architecture, or a
            published name.

    Raises:
        ValueError: it is none of them, or the search has not finished.
    """
    path = Path(what)
    if _is_there(path) and path.is_dir():
        run = runs.Run.open(path)
        if not (path / runs.GENOTYPE).exists():
            raise ValueError(
                f"{path} has no {runs.GENOTYPE} yet: the search is not finished "
                f"(gradnas resume {shlex.quote(what)})"
            )
        searched = _search_in(run.path / runs.CONFIG)
        return Named(load_architecture(path / runs.GENOTYPE), what, path, searched)
    if _is_there(path):
        return Named(load_architecture(path), what)
    text = read_architecture(what)
    if text is not None:
        return Named(text, type(text).noun)
    file, _, name = what.rpartition(":")
    if file and _is_there(Path(file)):
        return Named(Genotype.load_named(file, name), name, is_named=True)
    if path.suffix == ".json":
        return Named(load_architecture(path), what)  # says that it is not there
    try:
        return Named(published(what), what, is_named=True)
    except ValueError as error:
        raise ValueError(f"{what!r} is no run folder, no file and {error}") from error


def _search_in(path: Path) -> JsonObject:
    """The configuration of a search or a training, as far as what follows reads it.

    Raises:
        ValueError: it is of something else; its data or its space are none.
    """
    cls, description = typed(path, *SEARCH_CONFIGS.values(), *TRAIN_CONFIGS.values())
    if "data" in description:
        from_json(get_type_hints(cls)["data"], description["data"], f"{path}: data")
    # Its class may be one of the user's own, which is not known here.
    if not isinstance(description.get("space", {}), dict):
        raise ValueError(f"{path}: space must be an object, not {shown(description['space'])}")
    return description


def _is_there(path: Path) -> bool:
    """Whether there is such a file or folder; a text may be too long for the name of one."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def free_folder(stem: str) -> Path:
    """The first of runs/STEM-1, runs/STEM-2, ... that does not exist."""
    for number in itertools.count(1):
        folder = Path("runs") / f"{stem}-{number}"
        if not folder.exists():
            # Of several processes the first one says, which may make it at once.
            return Path(distributed.from_main(str(folder)))
    raise AssertionError("counting does not end")
