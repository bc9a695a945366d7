"""What is known of a text: how it is read, known again, and shown."""

from __future__ import annotations

from pathlib import Path

from gradnas import runs
from gradnas.data import Corpus
from gradnas.data.fingerprint import Fingerprint
from gradnas.data.located import expanded
from gradnas.data.summary import DataSummary
from gradnas.tasks.data_part import DataPart
from gradnas.tasks.text.reading import VOCABULARY, read_vocabulary, write_vocabulary
from gradnas.tasks.text.settings import TextTrainConfig
from gradnas.tasks.text.summary import (
    fingerprint_of,
    is_of_text,
    summary_of,
    suspicions_of,
    write_sheet,
)


class TextDataPart(DataPart[TextTrainConfig, Corpus]):
    """Of a text."""

    def claims(self, source: str) -> bool:
        return is_of_text(source, expanded(source))

    def read(self, data: Corpus) -> DataSummary:
        return summary_of(data)

    def fingerprint(self, data: Corpus) -> Fingerprint:
        return fingerprint_of(data)

    def suspicions(self, data: Corpus) -> list[str]:
        return suspicions_of(data)

    def sheet(self, data: Corpus, path: Path) -> Path:
        return write_sheet(data, path)

    def begin(self, run: runs.Run, data: Corpus) -> None:
        write_vocabulary(run, data)

    def check_same(self, run: runs.Run, data: Corpus) -> None:
        if (run.path / VOCABULARY).exists() and read_vocabulary(run) != data.vocabulary:
            raise ValueError(
                f"the text of {data.name} has changed since {run.path} began: its vocabulary is "
                "another one"
            )
