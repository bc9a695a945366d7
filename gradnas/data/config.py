"""The images of a run as a setting, and what a user of a trained network must know of them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from gradnas.config import JsonObject
from gradnas.data.augment import Augment
from gradnas.data.base import ImageData, balanced
from gradnas.data.load import load_images


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
    """

    source: str = "digits"
    image_size: int | None = None
    augment: Augment = field(default_factory=Augment)
    workers: int = 0
    per_class: int | None = None

    def __post_init__(self) -> None:
        if self.per_class is not None and self.per_class < 1:
            raise ValueError(f"per_class must be at least 1, not {self.per_class}")

    def load(self) -> ImageData:
        """Read the images."""
        # Random crops of other sizes and colour jitter work on single images as they are decoded,
        # not on a batch.
        streamed = self.augment.resized_crop is not None or self.augment.color_jitter is not None
        memory_limit_mib = 0 if streamed else 4096
        data = load_images(
            self.source, image_size=self.image_size, memory_limit_mib=memory_limit_mib
        )
        if self.per_class is None:
            return data
        _, chosen = balanced(data.train, self.per_class, seed=0)
        return replace(data, train=chosen)


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
