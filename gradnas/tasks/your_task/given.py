"""A task as it was given for one run, and where the data of a run are: in its task."""

from __future__ import annotations

import hashlib
import shlex
from dataclasses import dataclass, field, replace

from gradnas.config import JsonObject, build, check_numbers
from gradnas.search.folder import IN_PYTHON  # where a task is from that no file says
from gradnas.tasks.your_task.task import Task

TASK_COPY = "task.py"  # in a run folder, to read


@dataclass(frozen=True)
class GivenTask:
    """A task as it was given for one run.

    Args:
        source: the file as it was named, `my_task.py` or `my_task.py:name`.
        text: of the file; None of a task that was made in Python.
    """

    task: Task
    source: str = IN_PYTHON
    text: bytes | None = None

    @property
    def sha256(self) -> str | None:
        """Of the file."""
        return None if self.text is None else hashlib.sha256(self.text).hexdigest()


def option_for(source: str) -> str:
    """What a command needs for a task: ` --task my_task.py`; nothing for one made in Python."""
    return "" if source == IN_PYTHON else f" --task {shlex.quote(source)}"


def not_here(source: str) -> ValueError:
    """The error where a run needs its task."""
    where = "MY_TASK.py" if source == IN_PYTHON else source
    return ValueError(
        f"this run is of a task of your own ({source}), and no file that a run folder names is "
        "run: "
        f"give it with --task {where}"
    )


@dataclass(frozen=True)
class TaskData:
    """Where the data of a run on a task of one's own are: in its task.

    Args:
        source: the file as it was named, `my_task.py` or `my_task.py:name`.
        sha256: of the file; None of a task that was made in Python.
        workers: processes that read a data set.
        given: the task itself, in no file.
    """

    source: str = IN_PYTHON
    sha256: str | None = None
    workers: int = 0
    given: GivenTask | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.given is None:
            check_numbers(self)

    def load(self) -> Task:
        """The task.

        Raises:
            ValueError: it was not given.
        """
        if self.given is None:
            raise not_here(self.source)
        return self.given.task

    def bound(self, given: GivenTask) -> TaskData:
        """The same with a task."""
        return replace(self, source=given.source, sha256=given.sha256, given=given)

    def to_json(self) -> JsonObject:
        """What a file may hold."""
        return {"source": self.source, "sha256": self.sha256, "workers": self.workers}

    @classmethod
    def from_json(cls, data: JsonObject, where: str) -> TaskData:
        """The same without its task."""
        if "given" in data:
            raise ValueError(f"{where}: unknown field 'given'")
        return build(cls, data, where)
