"""Images decoded as they are needed: a source of encoded images, and splits and batches of one.

Legend: N images of a split, B images of a batch, C channels, H W pixels down and across, 5 columns
of random numbers (see `augment.random_numbers`).
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from gradnas import extras
from gradnas.config import Json
from gradnas.data.ahead import has_free_core, one_ahead
from gradnas.data.augment import (
    Augment,
    Fit,
    color_jitter,
    finish,
    fit,
    random_numbers,
    resized_crop,
    squared,
)
from gradnas.data.base import IMAGE, Batches, Plan, Split, checked_rows
from gradnas.data.seen import Seen
from gradnas.data.summary import LeftOut
from gradnas.randomness import generator_for

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# A file of some kilobytes can hold an image of gigabytes. Cameras have up to 60 million pixels.
MAX_PIXELS = 100_000_000
DEFAULT_SIZE = 224  # pixels, of streamed images
# What Pillow's decoders raise for broken files, depending on the format
DECODING_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    struct.error,
    zlib.error,
)


class BadImage(ValueError):
    """An image that cannot be read; its text is one sentence that names the file, and the row."""


class Source(ABC):
    """Encoded images with labels, somewhere: files, rows of parquet files, rows of a hub data set.

    `labels` is int64 (N,). Sources are read by several threads or processes at once and are sent to
    worker processes.
    """

    labels: Tensor
    max_pixels: int = MAX_PIXELS  # of an image; one with more is refused before it is decoded

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def read(self, index: int) -> bytes:
        """The encoded image (JPEG, PNG, ...); `BadImage` if there is none."""

    @abstractmethod
    def where(self, index: int) -> str:
        """Where the image is, in words for an error message."""

    def place(self, index: int) -> str:
        """Where the image is within its set, wherever that lies."""
        return self.where(index).rstrip(",")

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """What lies beside the images and was not read."""
        return ()

    def about(self, split: str) -> dict[str, Json]:
        """What is known of the images without reading them: entries of a `Fingerprint`."""
        del split
        return {}


class Taken(Source):
    """Some of the images of another source, in a given order."""

    def __init__(self, source: Source, rows: Tensor) -> None:
        if isinstance(source, Taken):  # a subset of a subset reads straight from the source
            rows = source.rows[rows]
            source = source.source
        self.source = source
        self.rows = rows
        self.labels = source.labels[rows]
        self.max_pixels = source.max_pixels

    def read(self, index: int) -> bytes:
        return self.source.read(int(self.rows[index]))

    def where(self, index: int) -> str:
        return self.source.where(int(self.rows[index]))

    def place(self, index: int) -> str:
        return self.source.place(int(self.rows[index]))


def open_image(source: Source, index: int) -> Image:
    """The image with its header read but its pixels not yet decoded; `BadImage` if that fails."""
    return opened(source, index, source.read(index))


def opened(source: Source, index: int, encoded: bytes) -> Image:
    """As `open_image`, of bytes that were read already."""
    extras.need("PIL", extra="images", what="decoding images")
    from PIL import Image as images

    # Pillow's own limits are of the process: the first only warns, and the second is twice as high.
    # Not within `catch_warnings`, which is of no use where several threads decode.
    ours = ("ignore", None, images.DecompressionBombWarning, None, 0)
    if ours not in warnings.filters:
        warnings.simplefilter("ignore", images.DecompressionBombWarning)
    if images.MAX_IMAGE_PIXELS is not None and source.max_pixels > MAX_PIXELS:
        images.MAX_IMAGE_PIXELS = max(images.MAX_IMAGE_PIXELS, source.max_pixels)
    try:
        image = images.open(io.BytesIO(encoded))
    except images.DecompressionBombError as error:
        raise BadImage(f"{source.where(index)} has too many pixels: {one_line(error)}") from error
    except (OSError, SyntaxError) as error:
        raise BadImage(
            f"{source.where(index)} is not an image that can be read: {one_line(error)}"
        ) from error
    width, height = image.size
    if width * height > source.max_pixels:
        raise BadImage(
            f"{source.where(index)} has {width}x{height} pixels, more than {source.max_pixels:,}: "
            "make it smaller, or raise the limit with --max-pixels"
        )
    return image


def decode(source: Source, index: int, seen: Seen | None = None) -> Image:
    """The decoded image, of mode "L" if it is stored as 8-bit grey, otherwise converted to "RGB".

    Transparency is dropped and the EXIF orientation ignored, as ImageNet training does. `BadImage`
    for a corrupt or truncated image, or for one of 16 or 32 bits per channel, whose range is not
    known. `seen` takes a note of the image.
    """
    encoded = source.read(index)
    image = opened(source, index, encoded)
    if image.mode.startswith(("I", "F")):
        raise BadImage(
            f"{source.where(index)} has more than 8 bits per channel (Pillow mode {image.mode}): "
            "save it as an 8-bit grey or RGB image"
        )
    try:
        image.load()
        plain = without_transparency(image)
        if seen is not None:
            seen.note(index, encoded, image)
        return plain
    except DECODING_ERRORS as error:
        raise BadImage(
            f"{source.where(index)} is corrupt or cut short: {one_line(error)}"
        ) from error


def look_at(source: Source, index: int, seen: Seen) -> None:
    """Decode an image for `seen` to take notes of it alone; `BadImage` as `decode`."""
    image = decode(source, index, seen).convert("RGB")
    seen.note_pixels(index, np.asarray(image)[np.newaxis])


def without_transparency(image: Image) -> Image:
    """The image of mode "L" as it is, any other as "RGB"."""
    if image.mode in ("L", "RGB"):
        return image
    if "transparency" in image.info:  # Pillow warns when such a palette goes to RGB directly
        image = image.convert("RGBA")
    return image.convert("RGB")


def one_line(error: BaseException) -> str:
    """The text of an error in one line, without the address of the buffer that Pillow puts in."""
    text = " ".join(str(error).split()) or type(error).__name__
    if text.startswith("cannot identify image file"):
        return "no known image format"
    return text


class StreamSplit(Split):
    """Images of a source, decoded for every batch and resized to image_size x image_size, RGB.

    Training with `Augment.resized_crop` takes a random part of each image; without it, and so in
    evaluation, they are brought to size as `augment.fit` says: by default the short side is resized
    to round(image_size * 256 / 224) and the centre is taken. Shuffled parquet rows cost a read
    of a whole row group each, unless the groups fit into the reader's cache: a folder of image
    files is the faster layout for large sets.
    """

    def __init__(
        self,
        source: Source,
        image_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        how: Fit = "crop",
    ) -> None:
        self.source = source
        self.image_size = image_size
        self.how = how
        self.mean = tuple(mean)
        self.std = tuple(std)
        self.labels = source.labels

    def subset(self, indices: Sequence[int] | Tensor) -> StreamSplit:
        rows = checked_rows(indices, len(self))
        return StreamSplit(Taken(self.source, rows), self.image_size, self.mean, self.std, self.how)

    def set_labels(self, labels: Tensor) -> None:
        self.labels = labels
        self.source.labels = labels  # of a subset of its own

    def normalised(self, mean: Sequence[float], std: Sequence[float]) -> StreamSplit:
        return StreamSplit(self.source, self.image_size, mean, std, self.how)

    def _batches(self, plan: Plan, augment: Augment, device: torch.device, workers: int) -> Batches:
        if workers < 0:
            raise ValueError(f"workers is a number of processes of at least 0, not {workers}")
        return StreamBatches(self, plan, augment, device, workers)


class StreamBatches(Batches):
    """Batches of a `StreamSplit`: workers decode and crop, the rest runs on the device.

    Pixels cross from the workers to the device as bytes, a quarter of what floats would take.
    """

    def __init__(
        self, split: StreamSplit, plan: Plan, augment: Augment, device: torch.device, workers: int
    ) -> None:
        self.plan = plan
        self.augment = augment
        self.device = device
        self.workers = workers
        self._decoder = Decoder(split.source, split.image_size, augment, plan.seed, split.how)
        self._mean_C = torch.tensor(split.mean, device=device)
        self._std_C = torch.tensor(split.std, device=device)
        # Loaders keep their worker processes between epochs. Two epochs read at the same time need
        # a loader each.
        self._idle: list[tuple[Wanted, DataLoader]] = []

    def _run(self, epoch: int, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        decoded = self._decoded(epoch, start)
        # Workers decode before they are asked; and are begun where there are no other threads.
        if self.workers or not has_free_core(self.device):
            return self._finished(decoded)
        if self.device.type == "cpu":
            return one_ahead(self._finished(decoded))
        # Of another device a single thread asks, since what it asks for may be recorded.
        return self._finished(one_ahead(decoded))

    def _finished(
        self, batches: Iterator[list[Tensor]]
    ) -> Generator[tuple[Tensor, Tensor], None, None]:
        """Augmented, on the device."""
        with closing(batches):  # type: ignore[type-var]
            for batch in batches:
                if self.device.type == "cuda":
                    batch = [part if part.is_pinned() else part.pin_memory() for part in batch]
                # From pinned memory these copies run beside the computation.
                parts = [part.to(self.device, non_blocking=True) for part in batch]
                x_BHWC, numbers_B5, y_B = parts
                yield finish(x_BHWC, numbers_B5, self.augment, self._mean_C, self._std_C), y_B

    def _decoded(self, epoch: int, start: int) -> Generator[list[Tensor], None, None]:
        """Pixels, random numbers and labels, on the CPU."""
        try:
            wanted, loader = self._idle.pop()
        except IndexError:
            wanted, loader = self._loader()
        wanted.set(self.plan, epoch, start)
        try:
            with torch.device("cpu"):  # a loader draws its seed where tensors are made by default
                batches = iter(loader)
            for batch in batches:
                if isinstance(batch, str):
                    raise BadImage(batch)
                yield batch
        finally:
            # Also when the reader stops in the middle: the loader then drops what it prefetched.
            self._idle.append((wanted, loader))

    def _loader(self) -> tuple[Wanted, DataLoader]:
        wanted = Wanted()
        loader = DataLoader(
            self._decoder,
            sampler=wanted,
            batch_size=None,  # a key of the sampler is already a whole batch
            collate_fn=as_it_is,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            # Without workers the thread that asks the device pins, see `_finished`.
            pin_memory=self.workers > 0 and self.device.type == "cuda",
            # Without a generator of its own a loader takes numbers from the global one.
            generator=torch.Generator(),
        )
        return wanted, loader


class Wanted(Sampler):
    """The (epoch, images) of every batch that a loader still has to give of an epoch.

    The epoch is part of every key because workers live longer than one: they learn of the next one
    in no other way.
    """

    def __init__(self) -> None:
        self._keys: list[tuple[int, list[int]]] = []

    def set(self, plan: Plan, epoch: int, start: int) -> None:
        order_N = plan.order(epoch)
        self._keys = []
        for index in range(start, len(plan)):
            first, last = plan.span(index)
            mine = plan.share(last - first)
            self._keys.append((epoch, order_N[first:last][mine].tolist()))

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


class Decoder(Dataset):
    """(epoch, images) -> uint8 x_BHWC, random numbers_B5 and y_B, or a sentence.

    The sentence says which image cannot be read. It is returned, not raised: a worker's exception
    would reach the user wrapped in the worker's traceback.
    """

    def __init__(
        self, source: Source, image_size: int, augment: Augment, seed: int, how: Fit
    ) -> None:
        self.source = source
        self.image_size = image_size
        self.augment = augment
        self.seed = seed
        self.how = how

    def __getitem__(self, index: tuple[int, list[int]]) -> tuple[Tensor, Tensor, Tensor] | str:
        epoch, rows = index
        size = self.image_size
        x_BHWC = torch.empty(len(rows), size, size, 3, dtype=torch.uint8, device="cpu")
        numbers_B5 = torch.empty(len(rows), 5, dtype=torch.int64, device="cpu")
        pixels_BHWC = x_BHWC.numpy()
        for place, row in enumerate(rows):
            # Numbers that depend on the image alone, and not on the batch or on the worker that it
            # came to: any number of workers and ranks gives the same pixels.
            generator = generator_for(self.seed, IMAGE, epoch, row)
            numbers_B5[place] = random_numbers(1, self.augment, size, size, generator)[0]
            try:
                pixels_BHWC[place] = np.asarray(self._image(row, generator))
            except BadImage as error:
                return str(error)
        return x_BHWC, numbers_B5, self.source.labels[rows]

    def _image(self, row: int, generator: torch.Generator) -> Image:
        image = decode(self.source, row).convert("RGB")
        if self.augment.resized_crop is not None:
            image = squared(image, self.how)
            image = resized_crop(image, self.image_size, self.augment.resized_crop, generator)
        else:
            image = fit(image, self.image_size, self.how)
        if self.augment.color_jitter is not None:
            image = color_jitter(image, self.augment.color_jitter, generator)
        return image


def as_it_is(batch: object) -> object:
    """The collate function of batches that need none (named, so that workers can be sent it)."""
    return batch
