"""Image sets from folders and from the hub: their files, their labels, and if memory holds them.

Legend: N images of a split, C channels, H W pixels down and across.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import torch

from gradnas.data import cifar10
from gradnas.data.augment import fit, fitting_words
from gradnas.data.base import ImageData, Split
from gradnas.data.classes import check_labels, named, with_test
from gradnas.data.found import NOTHING_FOUND, Found
from gradnas.data.image_set import ImageSet
from gradnas.data.known import fingerprint_of, sample_rows
from gradnas.data.memory import MemorySplit, pixel_statistics
from gradnas.data.seen import Seen
from gradnas.data.stream import (
    DEFAULT_SIZE,
    IMAGENET_MEAN,
    IMAGENET_STD,
    BadImage,
    Source,
    StreamSplit,
    Taken,
    decode,
    look_at,
    open_image,
)
from gradnas.data.summary import LeftOut
from gradnas.data.suspicious import warnings_of
from gradnas.settings.formats import Fit

# Decoding small images is mostly Python that holds the interpreter's lock, and threads make it
# slower: measured on 2 cores, 2 threads take 1.7 times as long as one for 32x32 JPEGs, 1.5 times
# for 96x96, 0.6 for 128x128, 0.5 for 224x224.
THREADED_PIXELS = 112 * 112
BLOCK = 64  # images per task of a thread
NUM_COUNTED = 500  # images of a split whose headers tell which size is the usual one
NUM_LOOKED_AT = 16  # images of a split whose headers tell whether they have the size


class SizesDiffer(ValueError):
    """The images of an in-memory set do not all have one square size."""


def load_set(
    image_set: ImageSet,
    image_size: int | None,
    test_fraction: float | None,
    seed: int,
    memory_limit_mib: int,
    how: Fit = "crop",
) -> ImageData:
    """The set, in memory if its images can have one size and fit within the limit, else streamed.

    Arguments as `load_images`. ValueError for labels, a missing test split, sizes and images that
    cannot be used.
    """
    whole = named(image_set)
    image_set = with_test(whole, test_fraction, seed)
    check_labels(image_set)
    if image_size:
        width = height = image_size
    else:
        width, height = open_image(image_set.train, 0).size
    num_images = sum(len(source) for source in image_set.sources())
    num_bytes = num_images * 3 * width * height  # RGB, one byte a channel
    if num_bytes <= memory_limit_mib * 2**20:
        try:
            return in_memory(whole, image_set, image_size, how)
        except SizesDiffer as error:
            if image_set.sizes_must_agree:
                raise
            check_usual_size(image_set, str(error))
        seen = looked_at(whole)
        size = image_size or DEFAULT_SIZE
    else:
        seen = looked_at(whole)
        size = image_size or stream_size(seen, memory_limit_mib)
    return streamed(whole, image_set, seen, size, how)


def streamed(
    whole: ImageSet, image_set: ImageSet, seen: Mapping[str, Seen], size: int, how: Fit
) -> ImageData:
    """The images of a set, decoded as they are needed; arguments as `in_memory`."""
    splits = {}
    for split, source in image_set.splits().items():
        splits[split] = StreamSplit(source, size, IMAGENET_MEAN, IMAGENET_STD, how)
    notes = fitting_notes(image_set, size, how)
    own = seen if whole.test is not None else taken(image_set, seen["training"])
    warnings = warnings_of(image_set, own, size, how)
    return pack(image_set, 3, size, splits, notes, found_in(whole, seen, warnings))


def taken(image_set: ImageSet, seen: Seen) -> dict[str, Seen]:
    """What was seen of images, for training and test apart that were taken from them."""
    parts = {}
    for split, source in image_set.splits().items():
        parts[split] = seen.part(source.rows.numpy()) if isinstance(source, Taken) else seen
    return parts


def stream_size(seen: Mapping[str, Seen], memory_limit_mib: int) -> int:
    """The side of images that memory does not hold: their own where they are small and alike."""
    sizes: Counter[tuple[int, int]] = Counter()
    for own in seen.values():
        sizes.update(own.sizes())
    # Without a limit what streams is augmented at another size than its own.
    if len(sizes) != 1 or not memory_limit_mib:
        return DEFAULT_SIZE
    ((width, height),) = sizes
    return width if width == height and width < DEFAULT_SIZE else DEFAULT_SIZE


def check_usual_size(image_set: ImageSet, differs: str) -> None:
    """ValueError where most images have one square size: the others may not change it.

    Args:
        differs: which image has another size, in words.
    """
    sizes: Counter[tuple[int, int]] = Counter()
    for source in image_set.sources():
        step = max(1, len(source) // NUM_COUNTED)
        for index in range(0, len(source), step):
            with contextlib.suppress(BadImage):  # an error when its turn comes
                sizes[open_image(source, index).size] += 1
    (width, height), number = sizes.most_common(1)[0]
    if width == height and 2 * number > sizes.total():
        odd, _, _ = differs.partition(" pixels")
        raise ValueError(
            f"{odd} pixels, but {number:,} of {sizes.total():,} images that were looked at are "
            f"{width}x{height}: give image_size (--image-size {width}) to bring all to that size, "
            "or remove those of other sizes"
        )


def looked_at(image_set: ImageSet) -> dict[str, Seen]:
    """What is seen of some images of each split, where they are not all decoded."""
    seen = {}
    for split, source in image_set.splits().items():
        seen[split] = Seen(len(source))
        for index in sample_rows(len(source)):
            with contextlib.suppress(BadImage):  # an error when its turn comes
                look_at(source, index, seen[split])
    return seen


def found_in(image_set: ImageSet, seen: Mapping[str, Seen], warnings: Sequence[str]) -> Found:
    """How the set was found, from what was seen of its images."""
    sizes: Counter[tuple[int, int]] = Counter()
    left_out: list[LeftOut] = [*image_set.left_out]
    for split, source in image_set.splits().items():
        sizes.update(seen[split].sizes())
        left_out += source.left_out
    fingerprint = fingerprint_of(image_set.splits(), seen, image_set.class_names)
    return Found(fingerprint, sizes, sizes.total(), together(left_out), tuple(warnings))


def together(parts: Sequence[LeftOut]) -> tuple[LeftOut, ...]:
    """What was left out of several splits, with one count for each reason."""
    by_reason: dict[str, LeftOut] = {}
    for part in parts:
        known = by_reason.get(part.many)
        if known is None:
            by_reason[part.many] = part
        else:
            by_reason[part.many] = replace(known, count=known.count + part.count)
    return tuple(by_reason.values())


def fitting_notes(image_set: ImageSet, size: int, how: Fit) -> tuple[str, ...]:
    """Whether images have another size, by the headers of some, and what is done to them."""
    for source in image_set.sources():
        step = max(1, len(source) // NUM_LOOKED_AT)
        for index in range(0, len(source), step):
            try:
                width, height = open_image(source, index).size
            except BadImage:
                continue  # an error when its turn comes
            if (width, height) != (size, size):
                return (
                    f"images of {image_set.name} that are not {size}x{size} pixels "
                    f"({source.where(index)} is {width}x{height}) are {fitting_words(size, how)}",
                )
    return ()


def validation_note(split: Split) -> str:
    """What is done with a validation split that a set brings with it."""
    return (
        f"the {len(split):,} validation images are used where training images would be held out: "
        "for the alphas of a search, for --valid-fraction of a training (--own-validation False "
        "holds out training images)"
    )


def pack(
    image_set: ImageSet,
    channels: int,
    size: int,
    splits: Mapping[str, Split],
    notes: tuple[str, ...] = (),
    found: Found = NOTHING_FOUND,
) -> ImageData:
    train = splits.get("training", splits["test"])
    validation = splits.get("validation")
    if validation is not None:
        notes = (*notes, validation_note(validation))
    return ImageData(
        name=image_set.name,
        num_classes=len(image_set.class_names),
        in_channels=channels,
        image_size=size,
        class_names=image_set.class_names,
        mean=train.mean,
        std=train.std,
        train=train,
        test=splits["test"],
        validation=validation,
        notes=notes,
        found=found,
    )


# ---- sets that memory holds ----------------------------------------------------------------------


def in_memory(
    whole: ImageSet, image_set: ImageSet, image_size: int | None, how: Fit = "crop"
) -> ImageData:
    """The images of a set as tensors.

    Args:
        whole: the set before a test split was taken from its training images.
    """
    assert image_set.test is not None  # see `with_test`
    size = image_size or square_size(image_set.train)
    resize = image_size is not None
    seen = {}
    pixels = {}
    is_grey = []
    for split, source in image_set.splits().items():
        seen[split] = Seen(len(source))
        pixels[split], all_grey = decode_all(source, size, resize, how, seen[split])
        is_grey.append(all_grey)
    # One channel if no image has colour; a grey image among coloured ones has three equal channels.
    channels = 1 if all(is_grey) else 3
    tensors = {}
    for split, pixels_NHWC in pixels.items():
        tensors[split] = torch.from_numpy(pixels_NHWC).permute(0, 3, 1, 2)[:, :channels]
    train_NCHW = tensors.get("training", tensors["test"])
    if cifar10.is_cifar10(channels, size, image_set.class_names, len(train_NCHW)):
        # The published digits, which recipes and trained networks rely on, instead of our own.
        mean = cifar10.MEAN
        std = cifar10.STD
    else:
        mean, std = pixel_statistics(train_NCHW)
    splits = {}
    for split, source in image_set.splits().items():
        splits[split] = MemorySplit(tensors[split], source.labels, mean, std)
    notes = fitting_notes(image_set, size, how) if resize else ()
    warnings = warnings_of(image_set, seen, size, how)
    if whole.test is None:
        seen = {"training": joined(image_set, seen)}
    return pack(image_set, channels, size, splits, notes, found_in(whole, seen, warnings))


def joined(image_set: ImageSet, seen: Mapping[str, Seen]) -> Seen:
    """What was seen of the images that training and test were taken from."""
    parts = []
    for split, source in image_set.splits().items():
        assert isinstance(source, Taken)  # see `with_test`
        parts.append((source.rows.numpy(), seen[split]))
    return Seen.of_parts(parts)


def square_size(source: Source) -> int:
    """Side in pixels of the first image; `SizesDiffer` if it is not square."""
    width, height = open_image(source, 0).size
    if width != height:
        raise SizesDiffer(
            f"{source.where(0)} is {width}x{height} pixels, not square: give image_size"
        )
    return width


def decode_all(
    source: Source, size: int, resize: bool, how: Fit = "crop", seen: Seen | None = None
) -> tuple[np.ndarray, bool]:
    """All images as uint8 (N, size, size, 3), and whether every one is stored as 8-bit grey.

    With `resize` images of other sizes are made to fit (`augment.fit`), without it they raise
    `SizesDiffer`. `BadImage` for the first image that cannot be decoded. `seen` takes notes of
    them.
    """
    pixels_NHWC = np.empty((len(source), size, size, 3), dtype=np.uint8)

    def decode_block(start: int) -> bool:
        """Fill in `BLOCK` images from `start` on; whether all of them are grey."""
        all_grey = True
        end = min(start + BLOCK, len(source))
        for index in range(start, end):
            image = decode(source, index, seen)
            if resize:
                image = fit(image, size, how)
            elif image.size != (size, size):
                raise SizesDiffer(
                    f"{source.where(index)} is {image.width}x{image.height} pixels, the images "
                    f"before it are {size}x{size}: give image_size to resize them all"
                )
            all_grey = all_grey and image.mode == "L"
            pixels_NHWC[index] = np.asarray(image.convert("RGB"))
        if seen is not None:
            seen.note_pixels(start, pixels_NHWC[start:end])
        return all_grey

    width, height = open_image(source, 0).size
    starts = range(0, len(source), BLOCK)
    # Lists, not generators, in both branches: `all` would stop at the first coloured block, and
    # leave the rest undecoded.
    if width * height < THREADED_PIXELS:
        grey_blocks = [decode_block(start) for start in starts]
    else:
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            grey_blocks = list(pool.map(decode_block, starts))
    return pixels_NHWC, all(grey_blocks)
