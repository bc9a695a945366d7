"""The training images in two parts: for the weights of a search, and for its alphas."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from gradnas.data import ImageData, Split, balanced, halves
from gradnas.data.base import sorted_by_class
from gradnas.tasks.division import MEASURED_ON


class Divides(Protocol):
    """What says how: the configuration of a search, or a `Division`."""

    @property
    def train_fraction(self) -> float: ...
    @property
    def split_seed(self) -> int | None: ...
    @property
    def valid_per_class(self) -> int | None: ...
    @property
    def seed(self) -> int: ...


def divided(config: Divides, data: ImageData) -> tuple[Split, Split]:
    """The images for the weights, and those for the alphas.

    A validation split of its own that a set brings with it is for the alphas; else a part of the
    training images is.
    """
    train = data.train
    if data.validation is not None:
        return train, data.validation
    split_seed = config.split_seed
    if config.valid_per_class is not None:
        seed = config.seed if split_seed is None else split_seed
        return balanced(train, config.valid_per_class, seed)
    if split_seed is None and sorted_by_class(train):
        split_seed = config.seed
    return halves(train, config.train_fraction, seed=split_seed)


def measured_on_the_rest(data: ImageData, weights: Split, rest: Split) -> ImageData:
    """The images of a training that is measured on the rest of the training images."""
    note = f"measured on {MEASURED_ON}, not on the test images"
    return replace(data, train=weights, test=rest, validation=None, notes=(*data.notes, note))
