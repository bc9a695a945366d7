"""What a report says of runs on a task of one's own, by the measures of its configuration."""

from __future__ import annotations

from gradnas import runs
from gradnas.config import from_json
from gradnas.reports.folder import Folder
from gradnas.reports.words import Summary
from gradnas.tasks.base import Words
from gradnas.tasks.measure import Measure
from gradnas.tasks.words import MeasuredWords
from gradnas.tasks.your_task.settings import option_for


class TaskWords(Words):
    """The words of the measure that decides in this folder."""

    def summary(self, folder: Folder) -> Summary:
        return _words(folder).summary(folder)

    def key_numbers(self, folder: Folder) -> list[tuple[str, str]]:
        return _words(folder).key_numbers(folder)

    def comparison(self, folder: Folder) -> str:
        return _words(folder).comparison(folder)

    def costs(self, folder: Folder) -> str:
        return _words(folder).costs(folder)

    def curves(self, folder: Folder) -> str:
        return _words(folder).curves(folder)

    def options(self, folder: Folder) -> str:
        return option_for(folder.source)

    def commands(self, folder: Folder) -> list[tuple[str, str]]:
        return _words(folder).commands(folder)


def measures_of(folder: Folder) -> list[Measure]:
    """Those of the task, the deciding one first. ValueError where the configuration is damaged."""
    where = f"{folder.path / runs.CONFIG}: measures"
    listed = folder.setting("measures", kind=list)
    measures = [from_json(Measure, entry, f"{where}[{n}]") for n, entry in enumerate(listed)]
    if not measures:
        raise ValueError(f"{where} must name one measure at least")
    return measures


def _words(folder: Folder) -> MeasuredWords:
    return MeasuredWords(measures_of(folder)[0])
