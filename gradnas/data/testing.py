"""Test images for a network that is trained already: of its classes, size, channels and scaling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gradnas import extras
from gradnas.data.base import ImageData
from gradnas.data.config import MEMORY_LIMIT_MIB, DataConfig
from gradnas.data.folder import TEST_FOLDERS, FolderSource, class_folders
from gradnas.data.images import TEST_SPLITS, ImageSet, load_set
from gradnas.data.located import expanded
from gradnas.data.memory import MemorySplit
from gradnas.data.stream import IMAGENET_MEAN


def load_test(config: DataConfig, trained_on: Mapping[str, Any]) -> ImageData:
    """Images whose test split is as the training saw its own, normalised with its numbers.

    A folder with test images alone is enough; its `train` is then the same split.

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
    _check_classes(data, names)
    if data.image_size != size:
        raise ValueError(
            f"the network was trained on images of {size}x{size} pixels, but those of {data.name} "
            f"have {data.image_size}x{data.image_size}: resize them, or train with --image-size"
        )
    data = _with_channels(data, trained_on["in_channels"])
    test = data.test.normalised(trained_on["mean"], trained_on["std"])
    return replace(data, test=test, notes=(*data.notes, *_naming_notes(data, names)))


def _test_alone(folder: Path, names: Sequence[str]) -> ImageSet | None:
    """The test images of a folder without training images; None for any other set."""
    if not folder.is_dir():
        return None
    has_train = (folder / "train").is_dir()
    for place in (folder, folder / "data"):
        if any(place.glob("*.parquet")):
            return _parquet_alone(folder, place)
    if has_train:
        return None
    for name in TEST_FOLDERS:
        own = folder / name
        found = class_folders(own) if own.is_dir() else []
        if not found:
            continue
        unknown = [other for other in found if other not in names]
        if unknown:
            raise ValueError(
                f"{own / unknown[0]} is the folder of a class that the network was not trained "
                f"on; its classes are {_listed(names)}"
            )
        source = FolderSource(own, names)
        return ImageSet(folder.resolve().name, tuple(names), source, source, "", False)
    return None


def _parquet_alone(folder: Path, place: Path) -> ImageSet | None:
    # Imported here: pyarrow is of use to sets of parquet files alone.
    extras.need("pyarrow", extra="images", what="a set of parquet files")
    from gradnas.data.parquet import ParquetSource, split_files

    if split_files(place, "train"):
        return None
    for split in TEST_SPLITS:
        files = split_files(place, split)
        if files:
            source = ParquetSource(files)
            names = source.class_names or source.names_in_paths() or ()
            return ImageSet(folder.resolve().name, names, source, source, "", True)
    return None


def _is_numbered(names: Sequence[str]) -> bool:
    """Whether nothing but numbers names the classes."""
    return list(names) == [str(number) for number in range(len(names))]


def _check_classes(data: ImageData, names: tuple[str, ...]) -> None:
    here = data.class_names
    if here == names:
        return
    # A set without names has numbers, up to the largest there is: they stand for the others.
    either_numbered = _is_numbered(here) or _is_numbered(names)
    if either_numbered and len(here) == len(names):
        return
    raise ValueError(
        f"the network was trained on the classes {_listed(names)}, but {data.name} has "
        f"{_listed(here)}: their labels do not mean the same"
    )


def _naming_notes(data: ImageData, names: tuple[str, ...]) -> tuple[str, ...]:
    if data.class_names == names:
        return ()
    return (
        f"the classes of {data.name} ({_listed(data.class_names)}) are taken for those of the "
        f"training ({_listed(names)}), in this order: one of them has only numbers",
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


def _listed(names: Sequence[str]) -> str:
    if len(names) <= 6:
        return ", ".join(names)
    return f"{', '.join(names[:5])}, ... ({len(names)} in all)"
