"""What a report says of runs on a task of one's own, by the measures of its configuration."""

from __future__ import annotations

from gradnas import runs
from gradnas.config import from_json
from gradnas.reports.folder import Folder
from gradnas.reports.parts import joined
from gradnas.reports.words import Summary
from gradnas.tasks.base import Words
from gradnas.tasks.measure import Measure
from gradnas.tasks.words import MeasuredWords
from gradnas.tasks.your_task.given import option_for


class TaskWords(Words):
    """The words of the measure that decides in this folder."""

    def summary(self, folder: Folder) -> Summary:
        return _words(folder).summary(folder)

    def key_numbers(self, folder: Folder) -> list[tuple[str, str]]:
        numbers = _words(folder).key_numbers(folder)
        _, *others = measures_of(folder)
        training = folder.training
        for measure in others:
            reached = None if training is None else training.result(f"test_{measure.key}")
            if reached is not None:
                numbers.append((measure.text(reached), f"test {measure.key}"))
        return numbers

    def comparison(self, folder: Folder) -> str:
        return _words(folder).comparison(folder)

    def costs(self, folder: Folder) -> str:
        return _words(folder).costs(folder)

    def curves(self, folder: Folder) -> str:
        words = _words(folder)
        _, *others = measures_of(folder)
        parts = []
        for own, what, part in words.curves_of_runs(folder):
            parts.append(part)
            for first in range(0, len(others), 2):  # two panels fill a line
                some = others[first : first + 2]
                keys = [measure.key for measure in some]
                parts.append(words.panels(own, keys, f"plot-{what}-measures-{first}", "", some))
        return joined(parts)

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
