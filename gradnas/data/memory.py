"""Images that memory holds: one tensor, augmented in whole batches on the device.

Legend: N images of a split, B images of a batch, C channels, H W pixels down and across, 5 columns
of random numbers (see `augment.random_numbers`).
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence

import torch
from torch import Tensor

from gradnas.data.ahead import has_free_core, one_ahead
from gradnas.data.augment import Augment, finish, random_numbers
from gradnas.data.base import BATCH, Batches, Plan, Split, checked_rows
from gradnas.randomness import generator_for


class MemorySplit(Split):
    """Images held as one uint8 tensor, augmented in whole batches on the device.

    `images_NCHW` is uint8 (N, C, H, W), `labels` whole numbers (N,), `mean`, `std` C numbers of
    pixels in [0, 1]. ValueError where these do not fit together. Memory: C H W bytes per image,
    shared with all subsets; a copy of the split's own images per `batches` call on another device.
    """

    def __init__(
        self, images_NCHW: Tensor, labels: Tensor, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        if images_NCHW.ndim != 4 or images_NCHW.dtype != torch.uint8:
            raise ValueError(
                f"images are uint8 of shape (N, C, H, W), not {images_NCHW.dtype} "
                f"{tuple(images_NCHW.shape)}"
            )
        N, C = images_NCHW.shape[:2]
        if labels.shape != (N,) or labels.is_floating_point():
            raise ValueError(
                f"labels are whole numbers of shape ({N},), not {labels.dtype} "
                f"{tuple(labels.shape)}"
            )
        if len(mean) != C or len(std) != C or min(std) <= 0:
            raise ValueError(
                f"mean and std are {C} numbers each, std above 0, not mean={mean}, std={std}"
            )
        self.labels = labels.cpu().long()
        self.mean = tuple(mean)
        self.std = tuple(std)
        # Channels last in memory: a pixel's channels are then one short copy in every gather, and
        # batches come out so.
        self._pixels_NHWC = images_NCHW.permute(0, 2, 3, 1).contiguous()
        self._rows: Tensor | None = None  # which of these images are this split's; None: all

    @property
    def images_NCHW(self) -> Tensor:
        """The split's pixels, uint8 (N, C, H, W); a copy for a subset."""
        pixels_NHWC = self._pixels_NHWC
        if self._rows is not None:
            pixels_NHWC = pixels_NHWC[self._rows]
        return pixels_NHWC.permute(0, 3, 1, 2)

    def subset(self, indices: Sequence[int] | Tensor) -> MemorySplit:
        rows = checked_rows(indices, len(self))
        # Not through __init__: that would copy the pixels, which all subsets share.
        part = MemorySplit.__new__(MemorySplit)
        part.labels = self.labels[rows]
        part.mean = self.mean
        part.std = self.std
        part._pixels_NHWC = self._pixels_NHWC
        # Of a subset of a subset: `rows` count its images, the pixels are those of the whole set.
        part._rows = rows if self._rows is None else self._rows[rows]
        return part

    def normalised(self, mean: Sequence[float], std: Sequence[float]) -> MemorySplit:
        same = self.subset(range(len(self)))
        same.mean = tuple(mean)
        same.std = tuple(std)
        return same

    def _batches(self, plan: Plan, augment: Augment, device: torch.device, workers: int) -> Batches:
        del workers  # nothing to decode
        for name in ("resized_crop", "color_jitter"):
            if getattr(augment, name) is not None:
                raise ValueError(
                    f"{name} works on images as they are decoded, but this set is held in memory: "
                    f"load it with memory_limit_mib=0 so that it streams, or leave {name} out"
                )
        return MemoryBatches(self, plan, augment, device)


class MemoryBatches(Batches):
    """Batches of a `MemorySplit`: its images are moved to the device once, here."""

    def __init__(
        self, split: MemorySplit, plan: Plan, augment: Augment, device: torch.device
    ) -> None:
        self.plan = plan
        self.augment = augment
        self.device = device
        self._pixels_NHWC = split._pixels_NHWC
        self._rows = split._rows
        if device != self._pixels_NHWC.device:
            # Another device gets the images of this split alone, not those of the whole set.
            if self._rows is not None:
                self._pixels_NHWC = self._pixels_NHWC[self._rows]
                self._rows = None
            self._pixels_NHWC = self._pixels_NHWC.to(device)
        self._labels_N = split.labels.to(device)
        self._mean_C = torch.tensor(split.mean, device=device)
        self._std_C = torch.tensor(split.std, device=device)

    def _run(self, epoch: int, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        batches = self._made(epoch, start)
        # On another device augmentation waits for nothing and nothing for it.
        beside = self.device.type == "cpu" and has_free_core(self.device)
        return one_ahead(batches) if beside else batches

    def _made(self, epoch: int, start: int) -> Generator[tuple[Tensor, Tensor], None, None]:
        plan = self.plan
        _, H, W, _ = self._pixels_NHWC.shape
        # The order counts this split's images, and so the labels; the pixels may be those of a
        # larger set.
        order_N = plan.order(epoch)
        rows_N = order_N if self._rows is None else self._rows[order_N]
        rows_N = rows_N.to(self.device)
        labels_N = self._labels_N[order_N.to(self.device)]
        for index in range(start, len(plan)):
            first, last = plan.span(index)
            mine = plan.share(last - first)
            # Made for the whole batch on every rank, so that an image's augmentation does not
            # depend on the ranks; and from the batch's own number, so that an epoch can be entered
            # anywhere.
            generator = generator_for(plan.seed, BATCH, epoch, index)
            numbers_B5 = random_numbers(last - first, self.augment, H, W, generator)
            numbers_B5 = numbers_B5[mine].to(self.device)
            x_BHWC = self._pixels_NHWC.index_select(0, rows_N[first:last][mine])
            x_BCHW = finish(x_BHWC, numbers_B5, self.augment, self._mean_C, self._std_C)
            yield x_BCHW, labels_N[first:last][mine]


def pixel_statistics(images_NCHW: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of uint8 images, of pixels in [0, 1].

    Sums are exact integers, so they do not depend on the order of the images. A channel of one
    single value gets the standard deviation 1/255 (one grey level), so that it normalises to 0.
    """
    C = images_NCHW.shape[1]
    total_C = torch.zeros(C, dtype=torch.int64, device="cpu")
    total_square_C = torch.zeros(C, dtype=torch.int64, device="cpu")
    for chunk_BCHW in images_NCHW.split(1024):
        # Squares of bytes need more than their 8 bits; the chunk is what this widens at a time.
        wide_BCHW = chunk_BCHW.to(torch.int32)
        total_C += wide_BCHW.sum((0, 2, 3), dtype=torch.int64)
        total_square_C += wide_BCHW.square().sum((0, 2, 3), dtype=torch.int64)
    num_pixels = images_NCHW.shape[0] * images_NCHW.shape[2] * images_NCHW.shape[3]
    mean_C = total_C.double() / num_pixels
    # E[x^2] - E[x]^2 may come out a little below 0 by rounding.
    variance_C = (total_square_C.double() / num_pixels - mean_C.square()).clamp(min=0)
    std_C = variance_C.sqrt()
    # In grey levels, of which one is 1 here: a constant channel is divided by that.
    std_C = torch.where(std_C > 1e-6, std_C, torch.ones_like(std_C))
    return tuple((mean_C / 255).tolist()), tuple((std_C / 255).tolist())
