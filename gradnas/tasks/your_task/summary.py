"""What is known of the data of a task: for the terminal, and to know them again by."""

from __future__ import annotations

from collections.abc import Iterator

from gradnas.config import Json
from gradnas.data.fingerprint import HASH, Fingerprint, digest
from gradnas.data.summary import DataSummary, Fact
from gradnas.search.reading import digest as digest_of_batch
from gradnas.tasks.your_task.sources import Source
from gradnas.tasks.your_task.task import Task

NAMES = {"train": "training", "valid": "validation", "test": "test"}


def sources_of(task: Task) -> Iterator[Source]:
    """The data that a task has."""
    yield task.train_data
    if task.valid_data is not None:
        yield task.valid_data
    if task.test_data is not None:
        yield task.test_data


def summary_of(task: Task) -> DataSummary:
    """What was read: sizes, as far as the data tell them."""
    parts = []
    sizes: dict[str, Json] = {}
    for source in sources_of(task):
        name = NAMES[source.what]
        sizes[source.what] = source.size
        if source.size is None:
            parts.append(f"{name} batches of a loader")
        else:
            parts.append(f"{source.size:,} {name} examples")
    return DataSummary("the task's own", [Fact("splits", "Splits", ", ".join(parts), sizes)])


def fingerprint_of(task: Task) -> Fingerprint:
    """Sizes and contents: of tensors all, of other data sets the first example.

    What is another at each reading tells nothing, and a loader is not read.
    """
    entries: dict[str, Json] = {}
    for source in sources_of(task):
        if source.size is None:
            continue
        name = NAMES[source.what]
        entries[f"{name} examples"] = source.size
        if source.is_tensors:
            contents = source.some(source.size)
            entries[f"contents of the {name} data"] = _hash(contents)
        elif source.what != "test":  # these are read once, after the training
            first = [_hash(source.some(1)) for _ in range(2)]
            if first[0] == first[1]:
                entries[f"contents of the {name} data"] = first[0]
    return Fingerprint(entries)


def _hash(batch: object) -> str:
    found = digest([digest_of_batch(batch).encode()])
    assert found.startswith(HASH)
    return found
