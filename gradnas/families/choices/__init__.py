"""Choices: what a search decided in one's own module, whatever the module is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gradnas.architectures.base import Architecture
from gradnas.architectures.choices import Choices
from gradnas.config import from_json
from gradnas.families.base import Family
from gradnas.families.choices import report
from gradnas.pictures import choices
from gradnas.reports.folder import Folder, Tables
from gradnas.spaces.module_space import ModuleSpace
from gradnas.spaces.your_module import ModuleSupernet


class ChoicesOfModule(Family):
    """A mapping from choices to operations."""

    noun = "network"
    title = "Choices"
    called = "a set of choices"
    called_elsewhere = "a set of choices"
    architecture = Choices
    spaces = (ModuleSpace,)

    def holds(self, architecture: Architecture) -> bool:
        return isinstance(architecture, Choices)

    def picture(
        self,
        architecture: Choices,
        path: Path | str,
        *,
        title: str | None = None,
        space: object = None,
    ) -> Path:
        known = isinstance(space, (ModuleSpace, ModuleSupernet))
        operations = space.names if known else None
        return choices.picture(architecture, path, title=title, operations=operations)

    def training_after(self, what: str, source: str | None) -> str:
        raise ValueError(
            f"{what} holds choices of a module of your own: no recipe trains it, "
            "since only that module says what the network is"
        )

    def training_space(self, space: Any, architecture: Choices, what: str, searched: Any) -> Any:
        """The module as it was searched; that of the recipe where it is of another class."""
        name = None if searched is None else searched.get("type")
        if name != type(space).__name__:
            return space
        return from_json(type(space), dict(searched), "config.space")

    def tables(self, folder: Folder) -> Tables:
        return report.tables(folder)

    def shown(self, folder: Folder) -> str:
        return report.shown(folder)

    def mixing(self, folder: Folder) -> str:
        return report.mixing(folder)


CHOICES = ChoicesOfModule()
