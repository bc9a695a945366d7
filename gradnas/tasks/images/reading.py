"""What is said of images that were read: how many, of which classes, as found and as used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from gradnas.data import ImageData
from gradnas.data.summary import DataSummary, Fact

CHANNELS = {1: "grey", 3: "RGB"}


def summary_of(data: ImageData) -> DataSummary:
    """What was read of a set of images."""
    facts = [_splits(data), _sizes(data), _channels(data), _classes(data), _normalisation(data)]
    return DataSummary(data.name, facts, data.found.left_out, data.found.warnings)


def _splits(data: ImageData) -> Fact:
    if data.train is data.test:  # test images alone
        text = f"{len(data.test):,} test images"
        return Fact("splits", "Splits", text, {"test": len(data.test)})
    counts = {"training": len(data.train)}
    if data.validation is not None:
        counts["validation"] = len(data.validation)
    counts["test"] = len(data.test)
    *parts, last = [f"{count:,} {split}" for split, count in counts.items()]
    return Fact("splits", "Splits", f"{', '.join(parts)} and {last} images", counts)


def _sizes(data: ImageData) -> Fact:
    side = data.image_size
    used = f"{side}x{side}"
    sizes = data.found.sizes
    value = {
        "used": side,
        "found": {f"{width}x{height}": count for (width, height), count in sizes.items()},
        "looked_at": data.found.num_looked_at,
    }
    if set(sizes) <= {(side, side)}:
        return Fact("sizes", "Size", f"{used} pixels", value)
    return Fact("sizes", "Size", f"{sizes_in_words(sizes)} pixels, used as {used}", value)


def sizes_in_words(sizes: Mapping[tuple[int, int], int]) -> str:
    """Such as `33x32` or `32x32 to 640x480 (most 500x375)`."""
    if len(sizes) == 1:
        ((width, height),) = sizes
        return f"{width}x{height}"
    by_area = sorted(sizes, key=lambda size: (size[0] * size[1], size))
    least = by_area[0]
    most = by_area[-1]
    usual, _ = Counter(sizes).most_common(1)[0]
    return (
        f"{least[0]}x{least[1]} to {most[0]}x{most[1]} "
        f"({len(sizes)} sizes, most often {usual[0]}x{usual[1]})"
    )


def _channels(data: ImageData) -> Fact:
    channels = data.in_channels
    text = CHANNELS.get(channels, f"{channels} channels")
    return Fact("channels", "Channels", text, channels)


def _classes(data: ImageData) -> Fact:
    counts = Counter(data.train.labels.tolist())
    by_class = [(counts.get(label, 0), name) for label, name in enumerate(data.class_names)]
    fewest, smallest = min(by_class, key=lambda pair: pair[0])
    most, largest = max(by_class, key=lambda pair: pair[0])
    split = "test" if data.train is data.test else "training"
    each = f"with {fewest:,} ({smallest}) to {most:,} ({largest}) {split} images"
    if fewest == most:
        each = f"with {most:,} {split} images each"
    value = {name: count for count, name in by_class}
    number = data.num_classes
    noun = "class" if number == 1 else "classes"
    return Fact("classes", "Classes", f"{number:,} {noun} {each}", value)


def _normalisation(data: ImageData) -> Fact:
    mean = _numbers(data.mean)
    std = _numbers(data.std)
    text = f"normalised with mean {mean} and standard deviation {std}"
    value = {"mean": list(data.mean), "std": list(data.std)}
    return Fact("normalisation", "Normalisation", text, value)


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value:.3f}" for value in values)
