"""Labelled images by name or from a folder: which kind of set is meant."""

from __future__ import annotations

import os
from pathlib import Path

from gradnas.data import cifar10, classes, digits, image_set, images
from gradnas.data.augment import FITS
from gradnas.data.base import ImageData
from gradnas.data.located import expanded
from gradnas.data.names import split_named
from gradnas.data.stream import MAX_PIXELS
from gradnas.settings.formats import Fit


def load_images(
    data: str | Path,
    *,
    image_size: int | None = None,
    test_fraction: float | None = None,
    seed: int = 0,
    memory_limit_mib: int = 4096,
    fit: Fit = "crop",
    max_pixels: int = MAX_PIXELS,
) -> ImageData:
    """Labelled images by name or from a folder.

    `data` is the first of these that fits:
    - a folder with parquet files in the hub's layout: `train-*.parquet` and `test-*.parquet` or
      `validation-*.parquet` (see `parquet`), in it or in its subfolder `data/`;
    - a folder with `train/<class>/*.jpg` (or .png, ...) and `test/<class>/` or `val/<class>/`;
    - "digits": scikit-learn's 1,797 grey 8x8 digits, split once by `seed`;
    - "cifar10", which is "uoft-cs/cifar10", or any other `owner/name` of the Hugging Face hub.

    Images are held in memory if all have one square size, or `image_size` (pixels) is given, and
    training and test images together take at most `memory_limit_mib` MiB as RGB bytes; their mean
    and standard deviation are those of the training images, or CIFAR-10's published ones if the set
    is CIFAR-10 or a part of it (`cifar10.is_cifar10`). They are grey, one channel, only if every
    image is. Otherwise images are decoded as they are needed (`StreamSplit`), RGB, `image_size` 224
    by default, with ImageNet's statistics; in memory or not, a resized image has the same pixels.
    Parquet and hub images of several sizes that would fit into memory are an error that asks for
    `image_size`; folders of them stream.

    `fit` says how images of another shape are brought to size (`augment.fit`): `"crop"`,
    `"squeeze"` or `"pad"`; the digits are squeezed. The set's `notes` say what was done.

    `test_fraction` of each class, chosen by `seed`, is the test split of a set that has none of its
    own (digits: 0.2). If a set has both a test and a validation split, the test split is used,
    unless its labels are hidden (all -1, or a folder without classes).

    An image of more than `max_pixels` pixels is refused before it is decoded.

    ValueError, always one sentence that says what is wrong, where, and what would be right.
    """
    if image_size is not None and image_size < 1:
        raise ValueError(f"image_size is a number of pixels of at least 1, not {image_size}")
    if test_fraction is not None and not 0 < test_fraction < 1:
        raise ValueError(f"test_fraction is between 0 and 1, not {test_fraction}")
    if fit not in FITS:
        raise ValueError(f"fit must be one of {', '.join(FITS)}, not {fit!r}")

    name = str(data)
    folder = expanded(data)
    hub_name = cifar10.HUB_NAME if name == "cifar10" else name
    if folder.is_dir():
        found = image_set.find_folder(folder)
    elif name == "digits":
        if test_fraction is None:
            test_fraction = digits.TEST_FRACTION
        return digits.load_digits(image_size, test_fraction, seed)
    elif folder.is_file():
        raise ValueError(f"{folder} is a file: expected a folder with {image_set.LAYOUTS}")
    elif isinstance(data, str) and image_set.is_hub_name(hub_name):
        found = image_set.find_hub(hub_name)
    else:
        raise ValueError(
            f"there is no folder {folder} and no set of that name: expected 'digits', 'cifar10', "
            f"an owner/name of the Hugging Face hub, or a folder with {image_set.LAYOUTS}"
        )
    for source in {*found.sources(), *found.splits().values()}:
        source.max_pixels = max_pixels
    classes.check_several(found)
    return images.load_set(found, image_size, test_fraction, seed, memory_limit_mib, fit)


def is_of_images(data: str) -> bool:
    """Whether a name or a path is one of images, as far as it tells without reading them.

    A folder is, unless nothing but text lies in it.
    """
    if data in ("digits", "cifar10"):
        return True
    folder = expanded(data)
    if folder.is_dir():
        names = os.listdir(folder)
        has_texts = any(name.lower().endswith(".txt") for name in names)
        has_splits = any(split_named(name) and (folder / name).is_dir() for name in names)
        return not has_texts or has_splits or any(name.endswith(".parquet") for name in names)
    return not folder.is_file() and image_set.is_hub_name(data)
