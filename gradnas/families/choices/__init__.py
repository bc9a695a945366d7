"""Choices: what a search decided in one's own module, whatever the module is."""

from __future__ import annotations

from pathlib import Path

from gradnas.architectures.base import Architecture
from gradnas.architectures.choices import Choices
from gradnas.config import JsonObject, from_json
from gradnas.families.base import Family
from gradnas.families.choices import report
from gradnas.pictures import choices
from gradnas.spaces.module_space import ModuleSpace
from gradnas.tasks.your_task.space import TaskSpace


class ChoicesOfModule(Family[Choices, ModuleSpace]):
    """A mapping from choices to operations."""

    noun = "network"
    drawn = "the choices"
    title = "Choices"
    called = "a set of choices"
    called_elsewhere = "a set of choices"
    architecture = Choices
    spaces = (ModuleSpace,)
    sections = report

    def holds(self, architecture: Architecture) -> bool:
        return isinstance(architecture, Choices)

    def picture(
        self,
        architecture: Choices,
        path: Path | str,
        *,
        title: str | None = None,
        space: object = None,
        run: Path | None = None,
    ) -> Path:
        known = report.known_of(space, run)
        return choices.picture(architecture, path, title=title, known=known)

    def space_of(self, what: str, searched: JsonObject | None) -> ModuleSpace | None:
        if searched is None or searched.get("type") != TaskSpace.__name__:
            return None
        return from_json(TaskSpace, searched, "config.space")

    def training_after(self, what: str, searched: JsonObject) -> str:
        raise ValueError(
            f"{what} holds choices of a module of your own, and only that module says what the "
            "network is: give its task with --task MY_TASK.py"
        )

    def training_space(
        self, space: ModuleSpace, architecture: Choices, what: str, searched: JsonObject | None
    ) -> ModuleSpace:
        """The module as it was searched; that of the recipe where it is of another class."""
        if searched is None or searched.get("type") != type(space).__name__:
            return space
        return from_json(type(space), searched, "config.space")


CHOICES = ChoicesOfModule()
