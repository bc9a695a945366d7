"""What a report says of runs on text."""

from __future__ import annotations

from gradnas.reports import page, text
from gradnas.reports.folder import Folder
from gradnas.reports.words import Summary
from gradnas.tasks.base import Words


class TextWords(Words):
    """Perplexities of language models."""

    def summary(self, folder: Folder) -> Summary:
        return text.text_summary(folder)

    def key_numbers(self, folder: Folder) -> list[tuple[str, str]]:
        return text.text_numbers(folder)

    def comparison(self, folder: Folder) -> str:
        return text.text_comparison(folder)

    def curves(self, folder: Folder) -> str:
        return text.text_curves(folder)

    def commands(self, folder: Folder) -> str:
        return page._commands(folder)
