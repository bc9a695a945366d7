"""What looks wrong in a set of images: sentences for its user, from what was seen of the images.

Legend: N images of a split.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np

from gradnas.data.augment import visible_share
from gradnas.data.image_set import ImageSet
from gradnas.data.names import listed
from gradnas.data.seen import Seen
from gradnas.settings.formats import Fit

FEWEST = 2  # images of a class
MOST_IS_CUT = 0.5  # of an image's area


def warnings_of(
    image_set: ImageSet, seen: Mapping[str, Seen], size: int, how: Fit
) -> tuple[str, ...]:
    """All of them, each a sentence without a full stop.

    Args:
        image_set: with the test split that is used.
        seen: what was seen of its images, by split; of some of them where there are many.
        size, how: what the images are brought to, in pixels, and how.
    """
    return (
        *image_set.warnings,
        *_of_classes(image_set),
        *_of_pictures(image_set, seen),
        *_of_copies(image_set, seen),
        *_of_crops(image_set, seen, size, how),
    )


def _of_classes(image_set: ImageSet) -> list[str]:
    """Classes without images, or with a single one."""
    names = image_set.class_names
    found = []
    for split, source in image_set.splits().items():
        counts = Counter(source.labels.tolist())
        without = [name for label, name in enumerate(names) if not counts[label]]
        few = [name for label, name in enumerate(names) if 0 < counts[label] < FEWEST]
        if without:
            noun = "class" if len(without) == 1 else "classes"
            found.append(f"no {split} image is of the {noun} {listed(without)}")
        if few and split == "training":
            noun = "class" if len(few) == 1 else "classes"
            found.append(f"a single {split} image is of the {noun} {listed(few)}")
    return found


def _of_pictures(image_set: ImageSet, seen: Mapping[str, Seen]) -> list[str]:
    """What is ignored in images: orientation, transparency, further frames; and empty ones."""
    texts: list[tuple[Callable[[Seen], np.ndarray], str]] = [
        (
            lambda own: own.is_turned_N,
            "turned by a mark in EXIF, which is ignored: the pixels are read as they are stored",
        ),
        (
            lambda own: own.is_blank_N & own.is_transparent_N,
            "of one colour throughout: what they show is in the transparency, which is dropped",
        ),
        (
            lambda own: own.is_blank_N & ~own.is_transparent_N,
            "of one colour throughout",
        ),
        (
            lambda own: own.is_transparent_N & ~own.is_blank_N,
            "transparent in parts: transparency is dropped, and the colours beneath it show",
        ),
        (lambda own: own.is_animated_N, "of several frames: the first one is read"),
    ]
    found = []
    for which, text in texts:
        number = 0
        example = ""
        for split, source in image_set.splits().items():
            rows = np.flatnonzero(which(seen[split]))
            number += len(rows)
            if len(rows) and not example:
                example = source.place(int(rows[0]))
        if number:
            verb = "image is" if number == 1 else "images are"
            found.append(f"{number:,} {verb} {text} ({example}{_of_how_many(seen)})")
    return found


def _of_how_many(seen: Mapping[str, Seen]) -> str:
    """How many images were looked at, where that were not all."""
    if all(own.all_noted for own in seen.values()):
        return ""
    looked_at = sum(int(own.is_noted_N.sum()) for own in seen.values())
    in_all = sum(len(own.is_noted_N) for own in seen.values())
    return f"; of {looked_at:,} that were looked at, of {in_all:,}"


def _of_copies(image_set: ImageSet, seen: Mapping[str, Seen]) -> list[str]:
    """Images that stand in two splits, or under two classes, with the same pixels."""
    found = []
    repeated = _repeated(seen)
    places: dict[str, dict[bytes, int]] = {}  # split -> pixels -> the first row with them
    for split, source in image_set.splits().items():
        labels_N = source.labels.numpy()
        places[split] = {}
        twice = []
        for row in repeated[split].tolist():
            pixels = seen[split].pixels_N[row].tobytes()
            first = places[split].setdefault(pixels, row)
            if labels_N[first] != labels_N[row]:
                twice.append((first, row))
        if twice:
            first, second = twice[0]
            found.append(
                f"{len(twice):,} of the {split} images stand under two classes "
                f"({source.place(first)} is {source.place(second)})"
            )
    splits = list(places)
    for number, split in enumerate(splits):
        for other in splits[number + 1 :]:
            both = [pixels for pixels in places[other] if pixels in places[split]]
            if both:
                one = image_set.splits()[split].place(places[split][both[0]])
                two = image_set.splits()[other].place(places[other][both[0]])
                found.append(
                    f"{len(both):,} of the {other} images stand among the {split} images too "
                    f"({two} is {one}{_of_how_many(seen)})"
                )
    return found


def _repeated(seen: Mapping[str, Seen]) -> dict[str, np.ndarray]:
    """The rows of each split whose pixels may stand in another row, of whichever split.

    Told by a part of the hash: it leaves a few rows, where a dictionary of all takes long.
    """
    rows = {}
    parts = {}
    for split, own in seen.items():
        rows[split] = np.flatnonzero(own.is_noted_N & ~own.is_blank_N)
        parts[split] = own.pixels_N.view(np.uint64)[::2][rows[split]]
    values, counts = np.unique(np.concatenate(list(parts.values())), return_counts=True)
    several = values[counts > 1]
    return {split: rows[split][np.isin(parts[split], several)] for split in rows}


def _of_crops(image_set: ImageSet, seen: Mapping[str, Seen], size: int, how: Fit) -> list[str]:
    """Images of which most is cut off."""
    number = 0
    worst = 1.0
    example = ""
    for split, source in image_set.splits().items():
        for (width, height), rows in seen[split].rows_by_size().items():
            share = visible_share(width, height, size, how)
            if share < MOST_IS_CUT:
                number += len(rows)
            if share < min(worst, MOST_IS_CUT):
                worst = share
                example = f"{source.place(int(rows[0]))} is {width}x{height}"
    if not number:
        return []
    verb = "image loses" if number == 1 else "images lose"
    return [
        f"{number:,} {verb} most of what they show to the crop: of the worst {worst:.0%} is left "
        f"({example}{_of_how_many(seen)}); --fit squeeze or --fit pad keep all of it"
    ]
