"""What is known of labelled images: how they are read, known again, and shown."""

from __future__ import annotations

from pathlib import Path

from gradnas import runs
from gradnas.config import JsonObject, from_json, read_object
from gradnas.data import ImageData, describe
from gradnas.data.closer import closer_look
from gradnas.data.fingerprint import Fingerprint
from gradnas.data.load import is_of_images
from gradnas.data.summary import DataSummary
from gradnas.tasks.data_part import DataPart
from gradnas.tasks.images.checks import (
    IMAGES_FILE,
    check_earlier_images,
    check_same_images,
    known_images,
    notes_after_search,
)
from gradnas.tasks.images.export import ImageFacts
from gradnas.tasks.images.reading import summary_of
from gradnas.tasks.images.settings import TrainConfig
from gradnas.tasks.images.sheet import sheet_of


class ImagesDataPart(DataPart[TrainConfig, ImageData]):
    """Of labelled images."""

    def claims(self, source: str) -> bool:
        return is_of_images(source)

    def read(self, data: ImageData) -> DataSummary:
        return summary_of(data)

    def fingerprint(self, data: ImageData) -> Fingerprint:
        return data.found.fingerprint

    def suspicions(self, data: ImageData) -> list[str]:
        return closer_look(data)

    def sheet(self, data: ImageData, path: Path) -> Path:
        return sheet_of(data, path)

    def begin(self, run: runs.Run, data: ImageData) -> None:
        runs.write_json(run.path / IMAGES_FILE, known_images(data))

    def check_same(self, run: runs.Run, data: ImageData) -> None:
        if not (run.path / IMAGES_FILE).exists():
            return  # of an earlier version
        before = _images_of(run, data)
        check_same_images(before, data, str(run.path))
        if not (run.path / runs.DATA).exists():
            check_earlier_images(before, data, str(run.path))

    def after_search(self, run: runs.Run, config: TrainConfig, data: ImageData) -> list[str]:
        if not (run.path / IMAGES_FILE).exists():
            return []
        return notes_after_search(_images_of(run, data), data)


def _images_of(run: runs.Run, data: ImageData) -> JsonObject:
    """What a run keeps of its images; ValueError where an entry is missing or of another type."""
    path = run.path / IMAGES_FILE
    before = read_object(path)
    facts = {}
    for key in describe(data):
        if key not in before:
            raise ValueError(f"{path} is damaged: it does not say {key}")
        facts[key] = before[key]
    from_json(ImageFacts, facts, str(path))
    return before
