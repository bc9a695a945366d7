"""Labelled images: searches and trainings of classifiers."""

from __future__ import annotations

from gradnas.tasks.base import Kind, Measure
from gradnas.tasks.images.settings import SearchConfig, TrainConfig
from gradnas.tasks.images.words import ImageWords


class Images(Kind):
    """Labelled images, measured by the accuracy of a classifier."""

    name = "images"
    measure = Measure("accuracy", "accuracies", higher_is_better=True, scale=100.0, unit="%")
    words = ImageWords()
    search_config = SearchConfig
    train_config = TrainConfig


IMAGES = Images()
