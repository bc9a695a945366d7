"""What a report says of runs on images."""

from __future__ import annotations

from gradnas.reports import page, words
from gradnas.reports.folder import Folder
from gradnas.reports.words import Summary
from gradnas.tasks.base import Words


class ImageWords(Words):
    """Accuracies of classifiers."""

    def summary(self, folder: Folder) -> Summary:
        return words.summary(folder)

    def key_numbers(self, folder: Folder) -> list[tuple[str, str]]:
        return words.key_numbers(folder)

    def comparison(self, folder: Folder) -> str:
        return page._comparison(folder)

    def curves(self, folder: Folder) -> str:
        return page._curves(folder)

    def commands(self, folder: Folder) -> str:
        return page._commands(folder)
