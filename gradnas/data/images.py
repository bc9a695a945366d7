"""Image sets from folders and from the hub: which files they are, whether labels are right, and if
memory holds them.

Legend: N images of a split, C channels, H W pixels down and across.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gradnas.data import cifar10
from gradnas.data.augment import fit
from gradnas.data.base import ImageData, MemorySplit, Split, pixel_statistics, stratified_rows
from gradnas.data.folder import TEST_FOLDERS, find_classes
from gradnas.data.stream import (
    DEFAULT_SIZE,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Source,
    StreamSplit,
    Taken,
    decode,
    open_image,
)

LAYOUTS = (
    "train-*.parquet with test-*.parquet or validation-*.parquet (there or in data/), or train/<class>/*.jpg "
    "(or .png, ...) with test/<class>/*.jpg or val/<class>/*.jpg"
)
# Decoding small images is mostly Python that holds the interpreter's lock, and threads make it
# slower: measured on 2 cores, 2 threads take 1.7 times as long as one for 32x32 JPEGs, 1.5 times
# for 96x96, 0.6 for 128x128, 0.5 for 224x224.
THREADED_PIXELS = 112 * 112
BLOCK = 64  # images per task of a thread


@dataclass(frozen=True)
class Found:
    """A set before anything is decoded. `class_names` is empty where nothing names the classes."""

    name: str
    class_names: tuple[str, ...]
    train: Source
    test: Source | None
    looked_for: str  # test splits, in words
    sizes_must_agree: (
        bool  # images of several sizes: an error unless image_size is given, or a reason to stream
    )

    def sources(self) -> list[Source]:
        return [self.train] if self.test is None else [self.train, self.test]


def is_hub_name(data: str) -> bool:
    """Whether `data` has the form owner/name of a set on the Hugging Face hub (and not of a path
    such as ./name)."""
    return re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", data) is not None


class SizesDiffer(ValueError):
    """The images of an in-memory set do not all have one square size."""


def find_folder(folder: Path) -> Found:
    """The set in a folder of one of the `LAYOUTS`; ValueError for whatever is missing or
    corrupt."""
    for place in (folder, folder / "data"):
        if any(place.glob("*.parquet")):
            return find_parquet(folder.resolve().name, place)
    if (folder / "train").is_dir():
        class_names, train, test = find_classes(folder)
        looked_for = f"{', '.join(f'{name}/<class>' for name in TEST_FOLDERS)} in {folder}"
        return Found(
            folder.resolve().name, class_names, train, test, looked_for, sizes_must_agree=False
        )
    state = "holds no image set" if any(folder.iterdir()) else "is empty"
    raise ValueError(f"{folder} {state}: expected {LAYOUTS}")


def find_parquet(name: str, place: Path) -> Found:
    from gradnas.data.parquet import ParquetSource, split_files

    train_files = split_files(place, "train")
    if not train_files:
        raise ValueError(f"{place} has no training split: looked for train-*.parquet")
    train = ParquetSource(train_files)
    tests = [
        ParquetSource(files) for key in ("test", "validation") if (files := split_files(place, key))
    ]
    class_names = train.class_names or train.names_in_paths() or ()
    looked_for = f"test-*.parquet and validation-*.parquet in {place}"
    return Found(name, class_names, train, first_labelled(tests), looked_for, sizes_must_agree=True)


def find_hub(name: str) -> Found:
    """The set `name` of the Hugging Face hub; ValueError, in one sentence, if it cannot be had."""
    from gradnas.data.hub import HubSource, load_splits

    splits = load_splits(name)
    if "train" not in splits:
        raise ValueError(
            f"'{name}' has no training split: looked for train among {', '.join(splits)}"
        )
    train = HubSource(splits["train"], f"{name}, split train")
    tests = [
        HubSource(splits[key], f"{name}, split {key}")
        for key in ("test", "validation")
        if key in splits
    ]
    looked_for = f"test and validation among its splits {', '.join(splits)}"
    return Found(
        name,
        train.class_names or (),
        train,
        first_labelled(tests),
        looked_for,
        sizes_must_agree=True,
    )


def first_labelled(tests: Sequence[Source]) -> Source | None:
    """The first split whose labels are not all -1, which is how the hub marks labels that are kept
    secret."""
    return next((test for test in tests if not bool((test.labels == -1).all())), None)


def load_found(
    found: Found,
    image_size: int | None,
    test_fraction: float | None,
    seed: int,
    memory_limit_mib: int,
) -> ImageData:
    """The set in memory if its images can have one size and fit within the limit, otherwise decoded
    as needed.

    Arguments as `load_images`. ValueError for labels, a missing test split, sizes and images that
    cannot be used.
    """
    found = with_test(named(found), test_fraction, seed)
    check_labels(found)
    width, height = (image_size, image_size) if image_size else open_image(found.train, 0).size
    num_images = sum(map(len, found.sources()))
    if num_images * 3 * width * height <= memory_limit_mib * 2**20:
        try:
            return in_memory(found, image_size)
        except SizesDiffer:
            if found.sizes_must_agree:
                raise
    size = image_size or DEFAULT_SIZE
    train, test = (
        StreamSplit(source, size, IMAGENET_MEAN, IMAGENET_STD) for source in found.sources()
    )
    return pack(found, 3, size, train, test)


def named(found: Found) -> Found:
    """The set with its classes named, by their numbers where nothing else names them; ValueError
    for a stray label.

    Without names only the labels say how many classes there are, so a label far too large shows by
    those it skips: that is an error if more than half of the numbers below the largest label are
    skipped, or any in a set that has at least ten images for each of them (a smaller set may lack a
    class by chance).
    """
    if found.class_names:
        return found
    labels_N = torch.cat([source.labels for source in found.sources()])
    present = set(labels_N.unique().tolist())
    num_classes = max(max(present) + 1, 1)
    num_skipped = num_classes - sum(label >= 0 for label in present)
    if num_skipped and (2 * num_skipped > num_classes or len(labels_N) >= 10 * num_classes):
        free = next(label for label in range(num_classes) if label not in present)
        stray = first_where(found, lambda labels_N: labels_N > free)
        raise ValueError(
            f"{stray}, but no image has label {free}: labels are 0..num_classes-1 without gaps, unless the set names "
            "its classes"
        )
    return replace(found, class_names=tuple(str(label) for label in range(num_classes)))


def check_labels(found: Found) -> None:
    last = len(found.class_names) - 1
    outside = first_where(found, lambda labels_N: (labels_N < 0) | (labels_N > last))
    if outside:
        raise ValueError(f"{outside}, but labels are 0..{last} ({last + 1} classes)")


def first_where(found: Found, condition: Callable[[Tensor], Tensor]) -> str | None:
    """The first image whose label meets a condition, in words with its label, or None."""
    for source in found.sources():
        rows = condition(source.labels).nonzero()
        if len(rows):
            return f"{source.where(int(rows[0]))} has label {int(source.labels[rows[0]])}"
    return None


def with_test(found: Found, test_fraction: float | None, seed: int) -> Found:
    """The set with a test split: its own, or `test_fraction` of each class of the training
    images."""
    if found.test is not None:
        if test_fraction is not None:
            raise ValueError(f"'{found.name}' has a test split of its own: leave test_fraction out")
        return found
    if test_fraction is None:
        raise ValueError(
            f"'{found.name}' has no test split with labels: looked for {found.looked_for} (or give test_fraction, to "
            "test on a part of the training images)"
        )
    test_rows, train_rows = stratified_rows(found.train.labels, test_fraction, seed)
    return replace(found, train=Taken(found.train, train_rows), test=Taken(found.train, test_rows))


def in_memory(found: Found, image_size: int | None) -> ImageData:
    size = image_size or square_size(found.train)
    decoded = [
        decode_all(source, size, resize=image_size is not None) for source in found.sources()
    ]
    # One channel if no image has colour; a grey image among coloured ones has three equal channels.
    channels = 1 if all(grey for _, grey in decoded) else 3
    train_NCHW, test_NCHW = (
        torch.from_numpy(pixels_NHWC).permute(0, 3, 1, 2)[:, :channels]
        for pixels_NHWC, _ in decoded
    )
    if cifar10.is_cifar10(channels, size, found.class_names, len(train_NCHW)):
        mean, std = cifar10.MEAN, cifar10.STD
    else:
        mean, std = pixel_statistics(train_NCHW)
    train, test = (
        MemorySplit(images_NCHW, source.labels, mean, std)
        for images_NCHW, source in zip((train_NCHW, test_NCHW), found.sources(), strict=True)
    )
    return pack(found, channels, size, train, test)


def pack(found: Found, channels: int, size: int, train: Split, test: Split) -> ImageData:
    return ImageData(
        name=found.name,
        num_classes=len(found.class_names),
        in_channels=channels,
        image_size=size,
        class_names=found.class_names,
        mean=train.mean,
        std=train.std,
        train=train,
        test=test,
    )


def square_size(source: Source) -> int:
    width, height = open_image(source, 0).size
    if width != height:
        raise SizesDiffer(
            f"{source.where(0)} is {width}x{height} pixels, not square: give image_size"
        )
    return width


def decode_all(source: Source, size: int, resize: bool) -> tuple[np.ndarray, bool]:
    """All images of a source as uint8 (N, size, size, 3), and whether every one is stored as 8-bit
    grey.

    With `resize` images of other sizes are made to fit (`augment.fit`), without it they raise
    `SizesDiffer`. `BadImage` for the first image that cannot be decoded.
    """
    pixels_NHWC = np.empty((len(source), size, size, 3), dtype=np.uint8)

    def decode_block(start: int) -> bool:
        grey = True
        for index in range(start, min(start + BLOCK, len(source))):
            image = decode(source, index)
            if resize:
                image = fit(image, size)
            elif image.size != (size, size):
                raise SizesDiffer(
                    f"{source.where(index)} is {image.width}x{image.height} pixels, the images before it are "
                    f"{size}x{size}: give image_size to resize them all"
                )
            grey = grey and image.mode == "L"
            pixels_NHWC[index] = np.asarray(image.convert("RGB"))
        return grey

    width, height = open_image(source, 0).size
    starts = range(0, len(source), BLOCK)
    if width * height < THREADED_PIXELS:
        return pixels_NHWC, all([decode_block(start) for start in starts])
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return pixels_NHWC, all(list(pool.map(decode_block, starts)))
