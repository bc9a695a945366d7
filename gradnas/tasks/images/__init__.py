"""Labelled images: searches and trainings of classifiers."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Self

import torch
from torch import nn

from gradnas import runs
from gradnas.config import JsonObject, from_json, read_object
from gradnas.data import DataConfig, ImageData
from gradnas.data.summary import DataSummary
from gradnas.data.testing import load_test
from gradnas.export.source import SourceOf
from gradnas.precision import check_precision
from gradnas.tasks.costs import noted_warnings
from gradnas.tasks.images.checks import (
    check_image_search,
    check_image_training,
    with_head_that_fits,
)
from gradnas.tasks.images.data_part import ImagesDataPart
from gradnas.tasks.images.evaluation import evaluate
from gradnas.tasks.images.export import ImageFacts, export_network, export_sentences
from gradnas.tasks.images.search import ImageSearch
from gradnas.tasks.images.sentences import ImageSentences
from gradnas.tasks.images.settings import SearchConfig, TrainConfig
from gradnas.tasks.images.training import ImageTraining
from gradnas.tasks.images.words import ImageWords
from gradnas.tasks.kind import Kind
from gradnas.tasks.measure import Measure
from gradnas.tasks.trained_part import unsaid, unspoken

EVALUATION_BATCH = 256


class Images(ImagesDataPart, Kind[SearchConfig, TrainConfig, ImageData]):
    """Labelled images, measured by the accuracy of a classifier.

    Args:
        normalises_inside: whether exported networks take pixels in [0, 1].
    """

    name = "images"
    measure = Measure("accuracy", "accuracies", higher_is_better=True, scale=100.0, unit="%")
    words = ImageWords()
    search_config = SearchConfig
    train_config = TrainConfig
    data_config = DataConfig
    data_of_search = ("source", "image_size", "fit", "test_fraction", "own_validation")

    def __init__(self, *, normalises_inside: bool = False) -> None:
        self.normalises_inside = normalises_inside

    @property
    def sentences(self) -> ImageSentences:
        return ImageSentences(self.measure)

    # -- runs --

    def check_search(self, config: SearchConfig, data: ImageData, device: torch.device) -> None:
        check_precision(config.precision, device)
        if config.capture and device.type != "cuda":
            raise ValueError(
                f"capture records CUDA graphs, but the device is {device}: leave it out"
            )
        check_image_search(config, data, device)

    def settled(
        self, config: TrainConfig, data: ImageData, chosen: Collection[str]
    ) -> tuple[TrainConfig, list[str]]:
        return with_head_that_fits(config, data, is_chosen="auxiliary" in chosen)

    def check_training(self, config: TrainConfig, data: ImageData, device: torch.device) -> None:
        check_precision(config.precision, device)
        check_image_training(config, data, device)

    def search_task(
        self, config: SearchConfig, data: ImageData, device: torch.device
    ) -> ImageSearch:
        with noted_warnings() as notes:
            task = ImageSearch(config, data, device)
        task.notes = notes
        return task

    def train_task(
        self,
        config: TrainConfig,
        data: ImageData,
        device: torch.device,
        network: nn.Module | None = None,
    ) -> ImageTraining:
        return ImageTraining(config, data, device, network)

    # -- after a training --

    def untrained(self, run: runs.Run, config: TrainConfig) -> nn.Module:
        data = trained_on(run)
        return config.space.network(
            config.genotype,
            data["num_classes"],
            data["in_channels"],
            auxiliary=config.auxiliary,
        )

    def evaluate(
        self,
        run: runs.Run,
        config: TrainConfig,
        source: str | None,
        device: torch.device,
        say: Callable[[DataSummary], None] = unsaid,
    ) -> str:
        network = self.load_trained(run, config)
        wanted = config.data
        if source is not None:
            # What was taken from the training images to test on is a matter of those alone.
            wanted = replace(wanted, source=source, test_fraction=None)
        data = load_test(wanted, trained_on(run))
        say(self.read(data))
        network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        workers = config.data.workers
        batches = data.test.batches(EVALUATION_BATCH, shuffle=False, device=device, workers=workers)
        test = evaluate(network, batches.epoch(0), config.precision)
        accuracy = self.measure.text(test["accuracy"])
        reached = f"test accuracy {accuracy}  loss {test['loss']:.4f}  on {len(data.test)} images"
        return "\n".join([reached, *(f"note: {note}" for note in data.notes)])

    def export(
        self,
        run: runs.Run,
        config: TrainConfig,
        path: Path,
        source: SourceOf,
        say: Callable[[str], None] = unspoken,
    ) -> list[Path]:
        files = export_network(
            self.load_trained(run, config),
            path,
            data=trained_on(run),
            genotype=config.genotype,
            space=config.space,
            source=source,
            normalised=self.normalises_inside,
        )
        for sentence in export_sentences(trained_on(run), path, normalised=self.normalises_inside):
            say(sentence)
        return files

    def normalising(self) -> Self:
        return type(self)(normalises_inside=True)


def trained_on(run: runs.Run) -> JsonObject:
    """What a finished training says of its images; ValueError where it does not."""
    path = run.path / runs.RESULTS
    data = read_object(path).get("data")
    if data is None:
        raise ValueError(f"{path} does not say what images the network was trained on ('data')")
    from_json(ImageFacts, data, f"{path}: data")  # everything that is read of it has its type
    return data


IMAGES = Images()
