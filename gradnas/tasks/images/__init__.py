"""Labelled images: searches and trainings of classifiers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from gradnas import runs
from gradnas.config import JsonObject, read_object
from gradnas.data import ImageData
from gradnas.export.source import SourceOf
from gradnas.precision import check_precision
from gradnas.runs import Record
from gradnas.tasks.base import Kind, Measure
from gradnas.tasks.costs import cost_sentence, noted_warnings
from gradnas.tasks.images.evaluation import evaluate
from gradnas.tasks.images.export import export_network
from gradnas.tasks.images.search import ImageSearch
from gradnas.tasks.images.settings import SearchConfig, TrainConfig
from gradnas.tasks.images.training import ImageTraining
from gradnas.tasks.images.words import ImageWords

EVALUATION_BATCH = 256


class Images(Kind[SearchConfig, TrainConfig, ImageData]):
    """Labelled images, measured by the accuracy of a classifier."""

    name = "images"
    measure = Measure("accuracy", "accuracies", higher_is_better=True, scale=100.0, unit="%")
    words = ImageWords()
    search_config = SearchConfig
    train_config = TrainConfig

    # -- runs --

    def check_search(self, config: SearchConfig, data: ImageData, device: torch.device) -> None:
        del data
        check_precision(config.precision, device)
        if config.capture and device.type != "cuda":
            raise ValueError(
                f"capture records CUDA graphs, but the device is {device}: leave it out"
            )

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
        self, run: runs.Run, config: TrainConfig, source: str | None, device: torch.device
    ) -> str:
        network = self.load_trained(run, config)
        data = replace(config.data, source=source or config.data.source).load()
        before = trained_on(run)
        for key in ("in_channels", "num_classes"):
            here = getattr(data, key)
            if here != before[key]:
                raise ValueError(
                    f"the network was trained with {key} = {before[key]}, but {data.name} has "
                    f"{here}"
                )
        network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        workers = config.data.workers
        batches = data.test.batches(EVALUATION_BATCH, shuffle=False, device=device, workers=workers)
        test = evaluate(network, batches.epoch(0), config.precision)
        accuracy = self.measure.text(test["accuracy"])
        return f"test accuracy {accuracy}  loss {test['loss']:.4f}  on {len(data.test)} images"

    def export(
        self, run: runs.Run, config: TrainConfig, path: Path, source: SourceOf
    ) -> list[Path]:
        return export_network(
            self.load_trained(run, config),
            path,
            data=trained_on(run),
            genotype=config.genotype,
            space=config.space,
            source=source,
        )

    # -- words in the terminal --

    def search_sentences(self, config: SearchConfig, results: Record) -> list[str]:
        sentences = super().search_sentences(config, results)
        if "code" in results:
            sentences.append(f"code: {results['code']}")
        if "derived_valid_accuracy" in results:
            mixture = ""
            if "valid_accuracy" in results:
                mixture = f"mixture {self.measure.text(results['valid_accuracy'])}, "
            derived = self.measure.text(results["derived_valid_accuracy"])
            sentences.append(
                f"held-out accuracy: {mixture}derived network with its weights {derived}"
            )
        if config.cost is not None:
            sentences.append(cost_sentence(config.cost, results["cost"]))
        return sentences

    def tested_on(self, results: Record) -> str:
        return f"{results['num_test_images']} held-out images"


def trained_on(run: runs.Run) -> JsonObject:
    """What a finished training says of its images; ValueError where it does not."""
    path = run.path / runs.RESULTS
    data = read_object(path).get("data")
    if data is None:
        raise ValueError(f"{path} does not say what images the network was trained on ('data')")
    return data


IMAGES = Images()
