"""How many examples a batch holds, seen from batches of known numbers.

The length of the first tensor tells it of most batches. Of a list of images that would be the
channels of the first one, and of graphs in one tensor their nodes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from gradnas.modules.nesting import items_of
from gradnas.search.feed import size_of

Path = tuple[Any, ...]  # keys, from the batch to a part of it
Known = Sequence[tuple[Any, int]]  # batches, each with the number of its examples


def path_of_examples(known: Known) -> Path | None:
    """Where in a batch there are as many entries as it has examples.

    None where nothing tells it, and where the first tensor does.
    """
    if all(size_of(batch) == number for batch, number in known):
        return None
    found: list[Path] | None = None
    for batch, number in known:
        own = [path for path, length in _lengths(batch, ()) if length == number]
        found = own if found is None else [path for path in found if path in own]
    return found[0] if found else None


def examples_at(path: Path | None, batch: Any) -> int:
    """The number of entries there; without a path, or such a part, that of the first tensor."""
    if path is not None:
        for own, length in _lengths(batch, ()):
            if own == path:
                return length
    return size_of(batch) or 1


def _lengths(value: Any, path: Path) -> Iterator[tuple[Path, int]]:
    """The length of every tensor, list and tuple in a batch, the outer ones first."""
    if isinstance(value, Tensor):
        if value.dim():
            yield path, len(value)
        return
    if isinstance(value, PackedSequence):
        yield path, int(value.batch_sizes[0])
        return
    if isinstance(value, (list, tuple)):
        yield path, len(value)
    for key, item in items_of(value) or ():
        yield from _lengths(item, (*path, key))
