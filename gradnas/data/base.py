"""Splits, batches and the numbers behind their randomness: torch alone, no files.

Legend: N images of a split, B images of a batch, C channels, H W pixels down and across, 5 columns
of a draw.

Everything an epoch yields is a pure function of (seed, epoch, batch number) and, for streamed
images, of (seed, epoch, image number). No global random state is read or changed, so an epoch can
be entered at any batch and gives the same bits whatever ran before it, however many workers decode,
and on whichever rank.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gradnas.data.augment import PLAIN, Augment, draw, finish
from gradnas.randomness import generator_for

# What a stream of random numbers is for: the first number mixed after the seed.
ORDER, BATCH, IMAGE, HALVES, STRATIFIED, BALANCED = range(1, 7)


@dataclass(frozen=True)
class Plan:
    """Which images make up which batch, and which of them are this rank's.

    `batch_size` counts the images of all ranks together. Rank r of `world` gets the r-th of `world`
    nearly equal consecutive pieces of every batch (sizes differ by one image at most), so the
    pieces of all ranks, in the order of ranks, are the batch of a single process. The images left
    over at the end of an epoch form a last, smaller batch (none with `drop_last`); if they are
    fewer than the ranks they join the batch before instead. So every image counts once, all ranks
    have the same number of batches, and no rank ever has an empty one.
    """

    size: int
    batch_size: int
    shuffle: bool
    seed: int
    drop_last: bool = False
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world:
            raise ValueError(f"rank is 0..{self.world - 1} for world={self.world}, not {self.rank}")
        if self.batch_size < self.world:
            raise ValueError(
                f"batch_size counts the images of all ranks together and is at least their number: "
                f"batch_size={self.batch_size}, world={self.world}"
            )
        if self.size < self.world:
            raise ValueError(
                f"a split of {self.size} images is too small for {self.world} process(es)"
            )
        if self.drop_last and self.size < self.batch_size:
            raise ValueError(
                f"drop_last leaves no batch: {self.size} images are fewer than batch_size={self.batch_size}"
            )

    def __len__(self) -> int:
        full, rest = divmod(self.size, self.batch_size)
        return full + (not self.drop_last and rest >= self.world) if full else 1

    def order(self, epoch: int) -> Tensor:
        """The order of the images in an epoch, the same on all ranks: int64 (N,) on the CPU."""
        if not self.shuffle:
            return torch.arange(self.size)
        return torch.randperm(self.size, generator=generator_for(self.seed, ORDER, epoch))

    def span(self, index: int) -> tuple[int, int]:
        """Start and end in `order` of the batch of all ranks together."""
        start = index * self.batch_size
        last = index == len(self) - 1 and not self.drop_last
        return start, self.size if last else start + self.batch_size

    def share(self, num: int) -> slice:
        """This rank's piece of a batch of `num` images."""
        base, extra = divmod(num, self.world)
        start = self.rank * base + min(self.rank, extra)
        return slice(start, start + base + (self.rank < extra))


class Batches(ABC):
    """The batches of a split, epoch after epoch: `len(batches)` of them in each."""

    plan: Plan

    def __len__(self) -> int:
        return len(self.plan)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches `start`, `start + 1`, ... of an epoch: x_BCHW float32 (normalised, channels_last)
        and y_B int64.

        Both on the device that `Split.batches` was given. Bit for bit what is left of
        `epoch(epoch)` after `start` batches; nothing is computed for those that are left out.
        ValueError for a negative epoch or start, and, while iterating, for an image that cannot be
        decoded.
        """
        if epoch < 0 or start < 0:
            raise ValueError(f"epoch and start count from 0: epoch={epoch}, start={start}")
        return self._run(epoch, start)

    @abstractmethod
    def _run(self, epoch: int, start: int) -> Iterator[tuple[Tensor, Tensor]]: ...


class Split(ABC):
    """Labelled images, in memory (`MemorySplit`) or decoded as they are needed (`StreamSplit`).

    `labels` is int64 (N,) on the CPU; `mean`, `std` are the C values of pixels in [0, 1] used to
    normalise.
    """

    labels: Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def subset(self, indices: Sequence[int] | Tensor) -> Split:
        """The images at `indices` (0..N-1, any order), without copying pixels; ValueError for an
        index outside."""

    def batches(
        self,
        batch_size: int,
        *,
        augment: Augment = PLAIN,
        shuffle: bool,
        seed: int = 0,
        drop_last: bool = False,
        device: torch.device | str = "cpu",
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
    ) -> Batches:
        """Batches of `batch_size` images over all `world` ranks together; how they are shared is
        told at `Plan`.

        `workers` processes decode streamed images; they change the speed and never the result, and
        images in memory need none. ValueError for a size, rank or augmentation that cannot be.
        """
        plan = Plan(len(self), batch_size, shuffle, seed, drop_last, rank, world)
        return self._batches(plan, augment, torch.device(device), workers)

    @abstractmethod
    def _batches(
        self, plan: Plan, augment: Augment, device: torch.device, workers: int
    ) -> Batches: ...


def checked_rows(indices: Sequence[int] | Tensor, size: int) -> Tensor:
    """`indices` as int64 (n,) on the CPU; ValueError unless all are whole numbers in 0..size-1."""
    rows = (
        torch.as_tensor(indices, device="cpu")
        if len(indices)
        else torch.empty(0, dtype=torch.int64)
    )
    if rows.ndim != 1 or rows.is_floating_point() or rows.dtype == torch.bool:
        raise ValueError(
            f"indices are a list of whole numbers, not {rows.dtype} of shape {tuple(rows.shape)}"
        )
    if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < size:
        bad = next(int(row) for row in rows if not 0 <= row < size)
        raise ValueError(f"index {bad} is outside 0..{size - 1}")
    return rows.long()


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
                f"images are uint8 of shape (N, C, H, W), not {images_NCHW.dtype} {tuple(images_NCHW.shape)}"
            )
        N, C = images_NCHW.shape[:2]
        if labels.shape != (N,) or labels.is_floating_point():
            raise ValueError(
                f"labels are whole numbers of shape ({N},), not {labels.dtype} {tuple(labels.shape)}"
            )
        if len(mean) != C or len(std) != C or min(std) <= 0:
            raise ValueError(
                f"mean and std are {C} numbers each, std above 0, not mean={mean}, std={std}"
            )
        self.labels = labels.cpu().long()
        self.mean, self.std = tuple(mean), tuple(std)
        # Channels last in memory: a pixel's channels are then one short copy in every gather, and
        # batches come out so.
        self._pixels_NHWC = images_NCHW.permute(0, 2, 3, 1).contiguous()
        self._rows: Tensor | None = None  # which of these images are this split's; None: all

    @property
    def images_NCHW(self) -> Tensor:
        """The split's pixels, uint8 (N, C, H, W); a copy for a subset."""
        pixels_NHWC = self._pixels_NHWC if self._rows is None else self._pixels_NHWC[self._rows]
        return pixels_NHWC.permute(0, 3, 1, 2)

    def subset(self, indices: Sequence[int] | Tensor) -> MemorySplit:
        rows = checked_rows(indices, len(self))
        part = MemorySplit.__new__(MemorySplit)
        part.labels, part.mean, part.std = self.labels[rows], self.mean, self.std
        part._pixels_NHWC = self._pixels_NHWC
        part._rows = rows if self._rows is None else self._rows[rows]
        return part

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
        self.plan, self.augment, self.device = plan, augment, device
        if split._rows is None or device == split._pixels_NHWC.device:
            self._pixels_NHWC, self._rows = split._pixels_NHWC.to(device), split._rows
        else:
            self._pixels_NHWC, self._rows = split._pixels_NHWC[split._rows].to(device), None
        self._labels_N = split.labels.to(device)
        self._mean_C = torch.tensor(split.mean, device=device)
        self._std_C = torch.tensor(split.std, device=device)

    def _run(self, epoch: int, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        plan = self.plan
        _, H, W, _ = self._pixels_NHWC.shape
        order_N = plan.order(epoch)
        row_N = (order_N if self._rows is None else self._rows[order_N]).to(self.device)
        labels_N = self._labels_N[order_N.to(self.device)]
        for index in range(start, len(plan)):
            first, last = plan.span(index)
            mine = plan.share(last - first)
            # Drawn for the whole batch on every rank, so that an image's augmentation does not
            # depend on the ranks.
            numbers = generator_for(plan.seed, BATCH, epoch, index)
            draw_B5 = draw(last - first, self.augment, H, W, numbers)[mine].to(self.device)
            x_BHWC = self._pixels_NHWC.index_select(0, row_N[first:last][mine])
            yield (
                finish(x_BHWC, draw_B5, self.augment, self._mean_C, self._std_C),
                labels_N[first:last][mine],
            )


@dataclass(frozen=True)
class ImageData:
    """A set of labelled images in two splits.

    `image_size` is height and width in pixels; `mean` and `std`, per channel, are of pixels in [0,
    1].
    """

    name: str
    num_classes: int
    in_channels: int
    image_size: int
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    train: Split
    test: Split


def pixel_statistics(images_NCHW: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of uint8 images, of pixels in [0, 1]; sums are
    exact integers.

    A channel of one single value gets the standard deviation 1/255 (one grey level), so that it
    normalises to 0.
    """
    total_C = total_square_C = torch.zeros(images_NCHW.shape[1], dtype=torch.int64)
    for chunk_BCHW in images_NCHW.split(1024):
        wide_BCHW = chunk_BCHW.to(torch.int32)
        total_C = total_C + wide_BCHW.sum((0, 2, 3), dtype=torch.int64)
        total_square_C = total_square_C + wide_BCHW.square().sum((0, 2, 3), dtype=torch.int64)
    count = images_NCHW.shape[0] * images_NCHW.shape[2] * images_NCHW.shape[3]
    mean_C = total_C.double() / count
    std_C = (total_square_C.double() / count - mean_C.square()).clamp(min=0).sqrt()
    std_C = torch.where(std_C > 1e-6, std_C, torch.ones_like(std_C))
    return tuple((mean_C / 255).tolist()), tuple((std_C / 255).tolist())


def halves(split: Split, fraction: float = 0.5, seed: int | None = None) -> tuple[Split, Split]:
    """The split in two: `fraction` of it for the weights, the rest for alpha (Liu et al., 2018,
    arXiv:1806.09055).

    Without a seed the first floor(fraction N) images in the order of the files, as the DARTS search
    on CIFAR-10 does; with one, a random part (each part still in the order of the files).
    ValueError if a part would be empty, or if the images are sorted by class (as folders of classes
    are) and no seed is given: the parts would hold different classes.
    """
    first = int(fraction * len(split))
    if not 0 < first < len(split):
        raise ValueError(f"fraction={fraction} of {len(split)} images leaves one part empty")
    if seed is not None:
        order_N = torch.randperm(len(split), generator=generator_for(seed, HALVES))
        return split.subset(order_N[:first].sort().values), split.subset(
            order_N[first:].sort().values
        )
    if sorted_by_class(split):
        raise ValueError(
            "the images are sorted by class, so halves by their order would hold different classes: give a seed"
        )
    return split.subset(range(first)), split.subset(range(first, len(split)))


def sorted_by_class(split: Split) -> bool:
    """Whether the images stand in the order of their classes, as in folders of classes."""
    step_N = split.labels.diff()
    return bool((step_N >= 0).all()) and bool((step_N > 0).any())


def stratified(split: Split, fraction: float, seed: int) -> tuple[Split, Split]:
    """The split in two random parts, the first with round(fraction n) of the n images of every
    class, in file order.

    ValueError if a part would be empty.
    """
    first, second = stratified_rows(split.labels, fraction, seed)
    return split.subset(first), split.subset(second)


def balanced(split: Split, per_class: int, seed: int) -> tuple[Split, Split]:
    """The split without `per_class` random images of every class, and those images; both in file
    order.

    ValueError where a class has not more images than that.
    """
    numbers = generator_for(seed, BALANCED)
    chosen_N = torch.zeros(len(split), dtype=torch.bool)
    for label in split.labels.unique().tolist():
        row_n = (split.labels == label).nonzero().squeeze(1)
        if len(row_n) <= per_class:
            raise ValueError(
                f"class {label} has {len(row_n)} images: {per_class} of each class cannot be held out"
            )
        chosen_N[row_n[torch.randperm(len(row_n), generator=numbers)[:per_class]]] = True
    return split.subset((~chosen_N).nonzero().squeeze(1)), split.subset(
        chosen_N.nonzero().squeeze(1)
    )


def stratified_rows(labels: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """The row numbers of the two parts of `stratified`, each sorted; int64."""
    numbers = generator_for(seed, STRATIFIED)
    chosen_N = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique().tolist():
        row_n = (labels == label).nonzero().squeeze(1)
        chosen_N[
            row_n[torch.randperm(len(row_n), generator=numbers)[: round(fraction * len(row_n))]]
        ] = True
    if not 0 < int(chosen_N.sum()) < len(labels):
        raise ValueError(
            f"fraction={fraction} of each class of {len(labels)} images leaves one part empty"
        )
    return chosen_N.nonzero().squeeze(1), (~chosen_N).nonzero().squeeze(1)
