"""Splits, batches and the numbers behind their randomness: torch alone, no files.

Legend: N images of a split, n images of a class, B images of a batch, C channels, H W pixels down
and across.

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

from gradnas.data.augment import PLAIN, Augment
from gradnas.data.found import NOTHING_FOUND, Found
from gradnas.randomness import generator_for

# What a stream of random numbers is for: the first number mixed after the seed.
ORDER = 1
BATCH = 2
IMAGE = 3
HALVES = 4
STRATIFIED = 5
BALANCED = 6


# ---- batches -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """Which images make up which batch, and which of them are this rank's.

    `batch_size` counts the images of all ranks together. Rank r of `world` gets the r-th of `world`
    nearly equal consecutive pieces of every batch (sizes differ by one image at most), so the
    pieces of all ranks, in the order of ranks, are the batch of a single process. The images left
    over at the end of an epoch form a last, smaller batch; if they are fewer than two for each rank
    they join the batch before instead, since BatchNorm has no statistics of a single image on a map
    of one pixel. So every image counts once, all ranks have the same number of batches, and no rank
    ever has an empty one.
    """

    size: int
    batch_size: int
    shuffle: bool
    seed: int
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world:
            raise ValueError(f"rank is 0..{self.world - 1} for world={self.world}, not {self.rank}")
        if self.batch_size < self.world:
            raise ValueError(
                "batch_size counts the images of all ranks together and is at least their number: "
                f"batch_size={self.batch_size}, world={self.world}"
            )
        if self.size < self.world:
            raise ValueError(
                f"a split of {self.size} images is too small for {self.world} process(es)"
            )

    def __len__(self) -> int:
        full, rest = divmod(self.size, self.batch_size)
        if full == 0:
            return 1
        rest_is_a_batch = rest >= 2 * self.world
        return full + 1 if rest_is_a_batch else full

    @property
    def is_one_batch_of_less(self) -> bool:
        """Whether all images together are fewer than a batch was to have."""
        return self.size < self.batch_size

    def order(self, epoch: int) -> Tensor:
        """The order of the images in an epoch, the same on all ranks: int64 (N,) on the CPU."""
        if not self.shuffle:
            return torch.arange(self.size, device="cpu")
        return torch.randperm(
            self.size, generator=generator_for(self.seed, ORDER, epoch), device="cpu"
        )

    def span(self, index: int) -> tuple[int, int]:
        """Start and end in `order` of the batch of all ranks together."""
        start = index * self.batch_size
        if index == len(self) - 1:
            return start, self.size  # with what is left over, be it more or less than a batch
        return start, start + self.batch_size

    def share(self, num: int) -> slice:
        """This rank's piece of a batch of `num` images."""
        least, num_larger = divmod(num, self.world)  # the first ranks have one image more
        start = self.rank * least + min(self.rank, num_larger)
        length = least + 1 if self.rank < num_larger else least
        return slice(start, start + length)


def batch_notes(**streams: object) -> list[str]:
    """A sentence for each stream, by what it is for, whose examples are fewer than a batch."""
    notes = []
    for purpose, stream in streams.items():
        plan = getattr(stream, "plan", None)
        if isinstance(plan, Plan) and plan.is_one_batch_of_less:
            notes.append(
                f"a batch of {plan.batch_size:,} is more than the {plan.size:,} examples for the "
                f"{purpose}: each batch is all of them"
            )
    return notes


class Batches(ABC):
    """The batches of a split, epoch after epoch: `len(batches)` of them in each."""

    plan: Plan

    def __len__(self) -> int:
        return len(self.plan)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches `start`, `start + 1`, ... of an epoch: x_BCHW and y_B.

        x_BCHW is float32, normalised, in channels_last, y_B int64; both lie on the device that
        `Split.batches` was given. Bit for bit what is left of
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
        """The images at `indices` (0..N-1, any order), without copying pixels.

        ValueError for an index outside.
        """

    def relabelled(self, numbers: Tensor) -> Split:
        """The same images with other labels: `numbers[label]` for each label."""
        same = self.subset(range(len(self)))
        same.set_labels(numbers[same.labels])
        return same

    def set_labels(self, labels: Tensor) -> None:
        """Replace the labels of this split alone."""
        self.labels = labels

    @abstractmethod
    def normalised(self, mean: Sequence[float], std: Sequence[float]) -> Split:
        """The same images, normalised with other numbers: those that a network was trained with."""

    def batches(
        self,
        batch_size: int,
        *,
        augment: Augment = PLAIN,
        shuffle: bool,
        seed: int = 0,
        device: torch.device | str = "cpu",
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
    ) -> Batches:
        """Batches of `batch_size` images over all `world` ranks together (see `Plan`).

        `workers` processes decode streamed images; they change the speed and never the result, and
        images in memory need none. ValueError for a size, rank or augmentation that cannot be.
        """
        plan = Plan(len(self), batch_size, shuffle, seed, rank, world)
        return self._batches(plan, augment, torch.device(device), workers)

    @abstractmethod
    def _batches(
        self, plan: Plan, augment: Augment, device: torch.device, workers: int
    ) -> Batches: ...


def checked_rows(indices: Sequence[int] | Tensor, size: int) -> Tensor:
    """`indices` as int64 (n,) on the CPU; ValueError unless all are whole numbers in 0..size-1."""
    if len(indices):
        rows = torch.as_tensor(indices, device="cpu")
    else:
        # An empty list says nothing of its dtype.
        rows = torch.empty(0, dtype=torch.int64, device="cpu")
    if rows.ndim != 1 or rows.is_floating_point() or rows.dtype == torch.bool:
        raise ValueError(
            f"indices are a list of whole numbers, not {rows.dtype} of shape {tuple(rows.shape)}"
        )
    outside = rows[(rows < 0) | (rows >= size)]
    if len(outside):
        raise ValueError(f"index {int(outside[0])} is outside 0..{size - 1}")
    return rows.long()


@dataclass(frozen=True)
class ImageData:
    """A set of labelled images in two splits.

    `image_size` is height and width in pixels; `mean` and `std`, per channel, are of pixels in
    [0, 1]. `notes` are sentences that a user of these images must know: how they were brought to
    size. `validation` is a split that the set brings with it beside the test split. `found` is how
    the images were found: sizes, what was left out, a fingerprint.
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
    notes: tuple[str, ...] = ()
    found: Found = NOTHING_FOUND
    validation: Split | None = None


# ---- parts of a split ----------------------------------------------------------------------------


def halves(split: Split, fraction: float = 0.5, seed: int | None = None) -> tuple[Split, Split]:
    """The split in two: `fraction` of it for the weights, the rest for alpha (arXiv 1806.09055).

    Without a seed the first floor(fraction N) images in the order of the files, as the DARTS search
    on CIFAR-10 does; with one, a random part (each part still in the order of the files).
    ValueError if a part would be empty, or if the images are sorted by class (as folders of classes
    are) and no seed is given: the parts would hold different classes.
    """
    num_first = int(fraction * len(split))
    if not 0 < num_first < len(split):
        raise ValueError(f"fraction={fraction} of {len(split)} images leaves one part empty")
    if seed is not None:
        order_N = torch.randperm(len(split), generator=generator_for(seed, HALVES), device="cpu")
        first = order_N[:num_first].sort().values
        second = order_N[num_first:].sort().values
        return split.subset(first), split.subset(second)
    if sorted_by_class(split):
        raise ValueError(
            "the images are sorted by class, so halves by their order would hold different "
            "classes: give a seed"
        )
    return split.subset(range(num_first)), split.subset(range(num_first, len(split)))


def sorted_by_class(split: Split) -> bool:
    """Whether the images stand in the order of their classes, as in folders of classes."""
    step_N = split.labels.diff()
    return bool((step_N >= 0).all()) and bool((step_N > 0).any())


def stratified(split: Split, fraction: float, seed: int) -> tuple[Split, Split]:
    """The split in two random parts, the first with round(fraction n) of a class's n images.

    Both in file order. ValueError if a part would be empty.
    """
    first, second = stratified_rows(split.labels, fraction, seed)
    return split.subset(first), split.subset(second)


def stratified_rows(labels: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """The row numbers of the two parts of `stratified`, each sorted; int64."""
    generator = generator_for(seed, STRATIFIED)
    in_first_N = torch.zeros(len(labels), dtype=torch.bool, device="cpu")
    for label in labels.unique().tolist():
        rows_n = (labels == label).nonzero().squeeze(1)
        order_n = torch.randperm(len(rows_n), generator=generator, device="cpu")
        chosen = order_n[: round(fraction * len(rows_n))]
        in_first_N[rows_n[chosen]] = True
    if not 0 < int(in_first_N.sum()) < len(labels):
        raise ValueError(
            f"fraction={fraction} of each class of {len(labels)} images leaves one part empty"
        )
    return in_first_N.nonzero().squeeze(1), (~in_first_N).nonzero().squeeze(1)


def balanced(split: Split, per_class: int, seed: int) -> tuple[Split, Split]:
    """The split without `per_class` random images of every class, and those images.

    Both in file order. ValueError where a class has not more images than that.
    """
    generator = generator_for(seed, BALANCED)
    is_chosen_N = torch.zeros(len(split), dtype=torch.bool, device="cpu")
    for label in split.labels.unique().tolist():
        rows_n = (split.labels == label).nonzero().squeeze(1)
        if len(rows_n) <= per_class:
            raise ValueError(
                f"class {label} has {len(rows_n)} images: {per_class} of each class cannot be "
                "held out"
            )
        order_n = torch.randperm(len(rows_n), generator=generator, device="cpu")
        is_chosen_N[rows_n[order_n[:per_class]]] = True
    others = (~is_chosen_N).nonzero().squeeze(1)
    chosen = is_chosen_N.nonzero().squeeze(1)
    return split.subset(others), split.subset(chosen)
