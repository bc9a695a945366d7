"""Test images for a network that is trained already: of its classes, size, channels and scaling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from gradnas import extras
from gradnas.data.base import ImageData
from gradnas.data.config import MEMORY_LIMIT_MIB, DataConfig
from gradnas.data.folder import FolderSource, FolderSplit, folders_in, mapped, split_folders
from gradnas.data.image_set import ImageSet
from gradnas.data.images import load_set
from gradnas.data.located import expanded
from gradnas.data.memory import MemorySplit
from gradnas.data.names import TEST, TRAIN, VALIDATION, composed, listed
from gradnas.data.shards import parquet_files
from gradnas.data.stream import IMAGENET_MEAN


def load_test(config: DataConfig, trained_on: Mapping[str, Any]) -> ImageData:
    """Images whose test split is as the training saw its own, normalised with its numbers.

    A folder with test images alone is enough. `train` is the same split as `test`.

    Args:
        config: which images, otherwise as in the training.
        trained_on: `gradnas.data.describe` of the images of the training.

    Raises:
        ValueError: other classes, another size, colour where the training had none, or what
            `load_images` refuses.
    """
    names = tuple(trained_on["class_names"])
    size = trained_on["image_size"]
    was_streamed = tuple(trained_on["mean"]) == IMAGENET_MEAN
    if config.image_size is None and was_streamed:
        # What is streamed is brought to that size, whatever it has.
        config = replace(config, image_size=size)
    alone = _test_alone(expanded(config.source), names)
    if alone is None:
        data = config.load()
    else:
        limit = 0 if config.is_streamed else MEMORY_LIMIT_MIB
        data = load_set(alone, config.image_size, None, 0, limit, config.fit)
    data = with_classes(data, names)
    if data.image_size != size:
        raise ValueError(
            f"the network was trained on images of {size}x{size} pixels, but those of {data.name} "
            f"have {data.image_size}x{data.image_size}: resize them, or train with --image-size"
        )
    data = _with_channels(data, trained_on["in_channels"])
    mean = tuple(trained_on["mean"])
    std = tuple(trained_on["std"])
    test = data.test.normalised(mean, std)
    return replace(
        data,
        mean=mean,
        std=std,
        train=test,
        test=test,
        validation=None,
        notes=(*data.notes, *_naming_notes(data, names)),
    )


def _test_alone(folder: Path, names: Sequence[str]) -> ImageSet | None:
    """The test images of a folder without training images; None for any other set."""
    if not folder.is_dir():
        return None
    splits = split_folders(folder)
    files = parquet_files(folder)
    if files:
        return _parquet_alone(folder, files, names)
    if TRAIN in splits:
        return None
    for name in (TEST, VALIDATION):
        if name not in splits or not folders_in(splits[name]):
            continue
        split = FolderSplit(splits[name])
        known = {composed(own) for own in names}
        unknown = [other for other in split.names if composed(other) not in known]
        if unknown:
            raise ValueError(
                f"{split.root / unknown[0]} is the folder of a class that the network was not "
                f"trained on; its classes are {listed(names)}"
            )
        source = FolderSource(split, names, mapped(split, names, "the training"))
        return ImageSet(folder.resolve().name, tuple(names), source, source, "", False)
    return None


def _parquet_alone(folder: Path, files: Sequence[Path], names: Sequence[str]) -> ImageSet | None:
    # Imported here: pyarrow is of use to sets of parquet files alone.
    extras.need("pyarrow", extra="images", what="a set of parquet files")
    from gradnas.data.parquet import ParquetSource
    from gradnas.data.shards import by_split

    splits, _ = by_split(folder, files)
    if TRAIN in splits:
        return None
    for split in (TEST, VALIDATION):
        if split not in splits:
            continue
        source = ParquetSource(splits[split])
        own = source.class_names or source.names_in_paths() or ()
        if source.class_names is not None and not is_numbered(names):
            source.number_by(names, "the training of the network")
            own = tuple(names)
        return ImageSet(folder.resolve().name, own, source, source, "", True)
    return None


def is_numbered(names: Sequence[str]) -> bool:
    """Whether nothing but numbers names the classes."""
    return list(names) == [str(number) for number in range(len(names))]


def with_classes(data: ImageData, names: tuple[str, ...]) -> ImageData:
    """The set with the classes of a training, by name.

    Raises:
        ValueError: it has other classes.
    """
    here = data.class_names
    if here == names:
        return data
    # A set without names has numbers, up to the largest there is: they stand for the others.
    either_numbered = is_numbered(here) or is_numbered(names)
    if either_numbered and len(here) == len(names):
        return data
    numbers = {composed(name): number for number, name in enumerate(names)}
    if {composed(name) for name in here} != set(numbers):
        raise ValueError(
            f"the network was trained on the classes {listed(names)}, but {data.name} has "
            f"{listed(here)}: their labels do not mean the same"
        )
    table = torch.tensor([numbers[composed(name)] for name in here], device="cpu")
    return replace(data, class_names=names, test=data.test.relabelled(table))


def _naming_notes(data: ImageData, names: tuple[str, ...]) -> tuple[str, ...]:
    if data.class_names == names:
        return ()
    return (
        f"the classes of {data.name} ({listed(data.class_names)}) are taken for those of the "
        f"training ({listed(names)}), in this order: one of them has only numbers",
    )


def _with_channels(data: ImageData, channels: int) -> ImageData:
    if data.in_channels == channels:
        return data
    if channels != 3 or not isinstance(data.test, MemorySplit):
        raise ValueError(
            f"the network was trained with in_channels = {channels}, but {data.name} has "
            f"{data.in_channels}"
        )
    # A grey image among coloured ones has three equal channels.
    test = data.test
    images_NCHW = test.images_NCHW.expand(-1, channels, -1, -1)
    test = MemorySplit(images_NCHW, test.labels, test.mean * channels, test.std * channels)
    return replace(data, in_channels=channels, test=test)
