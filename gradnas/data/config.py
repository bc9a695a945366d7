"""The images of a run as a setting, and what a user of a trained network must know of them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from gradnas.config import JsonObject, check_numbers
from gradnas.data.augment import FITS, Augment
from gradnas.data.base import ImageData, balanced
from gradnas.data.images import validation_note
from gradnas.data.load import load_images
from gradnas.data.located import located_source
from gradnas.data.stream import MAX_PIXELS
from gradnas.data.summary import LeftOut
from gradnas.settings.formats import Fit

MEMORY_LIMIT_MIB = 4096


@dataclass(frozen=True)
class DataConfig:
    """Which images, and what is done to them in training.

    Args:
        source: `digits`, `cifar10`, a hub name (`owner/name`), or a folder (parquet files or an
            ImageFolder).
        image_size: side in pixels; None takes the images as they are (224 for large ones).
        augment: of training images.
        workers: loader processes for sets too large for memory.
        per_class: train on so many images of every class alone, always the same; None takes all.
        fit: how images of another shape are brought to size: `"crop"` (borders are lost),
            `"squeeze"`, `"pad"` (see `gradnas.data.augment.fit`).
        test_fraction: share of each class to test on, for a set without a test split.
        own_validation: a validation split that the set brings with it beside a test split is used
            where training images would be held out; False leaves it aside.
        max_pixels: an image with more is refused before it is decoded: a file of some kilobytes can
            hold gigabytes.
    """

    source: str = "digits"
    image_size: int | None = None
    augment: Augment = field(default_factory=Augment)
    workers: int = 0
    per_class: int | None = None
    fit: Fit = "crop"
    test_fraction: float | None = None
    own_validation: bool = True
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        check_numbers(self)
        if self.fit not in FITS:
            raise ValueError(f"fit must be one of {', '.join(FITS)}, not {self.fit!r}")

    @property
    def is_streamed(self) -> bool:
        """Whether images must be decoded as they are needed, although memory would hold them."""
        # Random crops of other sizes and colour jitter work on single images, not on a batch.
        return self.augment.resized_crop is not None or self.augment.color_jitter is not None

    def located(self, folder: Path) -> DataConfig:
        """The images of the run in this folder, as they are found from here."""
        return replace(self, source=located_source(self.source, folder, ("digits", "cifar10")))

    def load(self) -> ImageData:
        """Read the images."""
        data = load_images(
            self.source,
            image_size=self.image_size,
            test_fraction=self.test_fraction,
            memory_limit_mib=0 if self.is_streamed else MEMORY_LIMIT_MIB,
            fit=self.fit,
            max_pixels=self.max_pixels,
        )
        if not self.own_validation:
            data = without_validation(data)
        if self.per_class is None:
            return data
        _, chosen = balanced(data.train, self.per_class, seed=0)
        return replace(data, train=chosen)


def without_validation(data: ImageData) -> ImageData:
    """The set without the validation split that it brings with it, and without word of it."""
    if data.validation is None:
        return data
    said = validation_note(data.validation)
    notes = tuple(note for note in data.notes if note != said)
    aside = LeftOut(len(data.validation), "validation image", "validation images", "not wanted")
    found = replace(data.found, left_out=(*data.found.left_out, aside))
    return replace(data, validation=None, notes=notes, found=found)


def describe(data: ImageData) -> JsonObject:
    """What a user of the trained network must know of the images: shape, scaling, class names."""
    return {
        "name": data.name,
        "in_channels": data.in_channels,
        "image_size": data.image_size,
        "num_classes": data.num_classes,
        "class_names": list(data.class_names),
        "mean": list(data.mean),
        "std": list(data.std),
    }
