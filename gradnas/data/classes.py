"""Classes of an image set, its labels, and its test split, before anything is decoded.

Legend: N images of a split.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from gradnas.data.base import stratified_rows
from gradnas.data.image_set import ImageSet
from gradnas.data.stream import Taken


def named(image_set: ImageSet) -> ImageSet:
    """The set with its classes named, by their numbers where nothing else names them.

    Without names only the labels say how many classes there are, so a label far too large shows by
    those it skips: that is an error if more than half of the numbers below the largest label are
    skipped, or 0 (labels are then counted from 1), or any in a set that has at least ten images for
    each of them (a smaller set may lack a class by chance).
    """
    if image_set.class_names:
        return image_set
    labels_N = torch.cat([source.labels for source in image_set.sources()])
    present = set(labels_N.unique().tolist())
    num_classes = max(max(present) + 1, 1)
    # Negative labels are no classes: `check_labels` says so afterwards.
    num_skipped = num_classes - sum(label >= 0 for label in present)
    most_are_skipped = 2 * num_skipped > num_classes
    enough_images = len(labels_N) >= 10 * num_classes
    begins_at_one = 0 not in present and max(present) > 0
    if num_skipped and (most_are_skipped or enough_images or begins_at_one):
        free = next(label for label in range(num_classes) if label not in present)
        stray = first_where(image_set, lambda labels_N: labels_N > free)
        raise ValueError(
            f"{stray}, but no image has label {free}: labels are 0..num_classes-1 without gaps, "
            "unless the set names its classes"
        )
    return replace(image_set, class_names=tuple(str(label) for label in range(num_classes)))


def check_labels(image_set: ImageSet) -> None:
    """ValueError, naming an image, for a label that is no class."""
    last = len(image_set.class_names) - 1
    outside = first_where(image_set, lambda labels_N: (labels_N < 0) | (labels_N > last))
    if outside:
        raise ValueError(f"{outside}, but labels are 0..{last} ({last + 1} classes)")


def first_where(image_set: ImageSet, condition: Callable[[Tensor], Tensor]) -> str | None:
    """The first image whose label meets a condition, in words with its label, or None."""
    for source in image_set.sources():
        rows = condition(source.labels).nonzero()
        if len(rows):
            row = int(rows[0])
            return f"{source.where(row)} has label {int(source.labels[row])}"
    return None


def with_test(image_set: ImageSet, test_fraction: float | None, seed: int) -> ImageSet:
    """The set with a test split: its own, or `test_fraction` of each class of the training set."""
    if image_set.test is not None:
        if test_fraction is not None:
            raise ValueError(
                f"'{image_set.name}' has a test split of its own: leave test_fraction out"
            )
        return image_set
    if test_fraction is None:
        raise ValueError(
            f"'{image_set.name}' has no test split with labels: looked for {image_set.looked_for} "
            "(or give test_fraction, --test-fraction 0.2 for example, to test on a part of the "
            "training images)"
        )
    whole = image_set.train
    test_rows, train_rows = stratified_rows(whole.labels, test_fraction, seed)
    return replace(image_set, train=Taken(whole, train_rows), test=Taken(whole, test_rows))


def check_several(image_set: ImageSet) -> None:
    """ValueError for a set whose training images are all of one class."""
    present = image_set.train.labels.unique().tolist()
    if len(present) != 1 or present[0] < 0:
        return
    names = image_set.class_names
    called = repr(names[present[0]]) if present[0] < len(names) else str(present[0])
    raise ValueError(
        f"all training images of '{image_set.name}' are of one class ({called}), which leaves "
        f"nothing to learn ({image_set.train.where(0).rstrip(',')} is the first of them): are the "
        "classes one level deeper, or in another column?"
    )
