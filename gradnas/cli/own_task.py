"""A task of the user's own on the command line: its file is run, and no other.

Only a path that was typed is run; what a run folder names never is.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from gradnas import runs
from gradnas.config import did_you_mean, read_object
from gradnas.files import read_file
from gradnas.tasks.base import Settings
from gradnas.tasks.your_task.given import TASK_COPY, GivenTask
from gradnas.tasks.your_task.task import Task

DEFAULT_NAME = "task"
C = TypeVar("C", bound=Settings)


def is_task_file(text: str) -> bool:
    """Whether an argument is `FILE.py` or `FILE.py:NAME`."""
    path, _ = _parts(text)
    return path.suffix == ".py"


def task_path(text: str) -> Path:
    """The file of `FILE.py:NAME`."""
    return _parts(text)[0]


def _parts(text: str) -> tuple[Path, str]:
    file, colon, name = text.rpartition(":")
    if colon and file.endswith(".py"):
        return Path(file), name
    return Path(text), DEFAULT_NAME


def read_task(text: str) -> GivenTask:
    """Run a file of Python, and make the task that it defines.

    Args:
        text: `FILE.py`, which has `def task() -> gradnas.Task`, or `FILE.py:NAME`.

    Raises:
        ValueError: no such file, nothing of that name in it, or something that is no task. What
            the file itself raises goes through.
    """
    path, name = _parts(text)
    if path.suffix != ".py":
        raise ValueError(f"a task is a file of Python, MY_TASK.py or MY_TASK.py:NAME, not {text!r}")
    if not path.exists():
        beside = path.parent.glob("*.py") if path.parent.is_dir() else ()
        hint = did_you_mean(path.name, [own.name for own in beside])
        raise ValueError(f"cannot read {path}: No such file or directory{hint}")
    code = read_file(path)
    module = _run(path)
    found = getattr(module, name, None)
    if found is None:
        own = [key for key, value in vars(module).items() if _may_be_a_task(value, module)]
        hint = did_you_mean(name, own)
        raise ValueError(
            f"{path} has no {name}{hint}: write def {name}() -> gradnas.Task in it, or name "
            f"another function with {path}:NAME"
        )
    with _not_ending_python(path):
        task = found if isinstance(found, Task) or not callable(found) else found()
    if not isinstance(task, Task):
        raise ValueError(f"{name} in {path} must give a gradnas.Task, not {task!r:.200}")
    return GivenTask(task, text, code)


def _may_be_a_task(value: object, module: ModuleType) -> bool:
    is_own = getattr(value, "__module__", None) == module.__name__
    return isinstance(value, Task) or (callable(value) and is_own and not isinstance(value, type))


def _run(path: Path) -> ModuleType:
    """The module that a file is."""
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)  # as `python FILE.py` does it
    name = path.stem
    if name in sys.modules or not name.isidentifier():
        name = f"gradnas_task_{len(sys.modules)}"  # a file may be called random.py
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # classes of it are looked up there
    with _not_ending_python(path):
        spec.loader.exec_module(module)
    return module


@contextmanager
def _not_ending_python(path: Path) -> Iterator[None]:
    """ValueError where what is run within ends Python, as `sys.exit` does."""
    try:
        yield
    except SystemExit as end:
        raise ValueError(
            f"{path} ends Python when it is run (SystemExit: {end}): what it does beside defining "
            "the task belongs under if __name__ == '__main__'"
        ) from end


def with_given(config: C, text: str | None, *, other_task: bool = True) -> tuple[C, list[str]]:
    """A configuration with the task that `--task` names, and what is to be said of it.

    Args:
        other_task: whether its file may have changed since the run began.

    Raises:
        ValueError: it has, and may not; what `read_task` and the configuration refuse.
    """
    if text is None:
        return config, []
    given = read_task(text)
    change = config.task_change(given.sha256)
    if change is not None and not other_task:
        raise ValueError(
            f"{change}: give it as it was (the run folder has a copy, {TASK_COPY}), or go on with "
            "it all the same with --other-task"
        )
    return config.with_task(given), [] if change is None else [change]


def changes_of(folder: Path, text: str) -> list[str]:
    """A sentence where a file is not that of a run; it is not run."""
    path = runs.Run.open(folder).path / runs.CONFIG
    data = read_object(path).get("data")
    before = data.get("sha256") if isinstance(data, dict) else None
    if before is None:
        raise ValueError(f"{folder} is no run on a task of your own that was read from a file")
    if before == hashlib.sha256(read_file(task_path(text))).hexdigest():
        return []
    return [f"{text} is not as it was when the run in {folder} began"]
