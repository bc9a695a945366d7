"""Batches of a search: pairs of a train and a validation batch, on the device of the weights."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from gradnas.nesting import items_of, with_items
from gradnas.search.bound_net import NetLoss

T = TypeVar("T")  # a train batch
V = TypeVar("V")  # a validation batch
Sizes = tuple[int | None, int | None]  # of a train and of a validation batch; None: not known


class Feed:
    """The validation iterator, which goes on where the last epoch left it.

    An iterator of its own for each epoch would always begin with the same batches, and would start
    the workers of a loader again.

    Attributes:
        num_drawn: validation batches since the search began: its place in the loader after a
            reload.
        sizes: examples in the last train batch and in the last validation batch.
    """

    def __init__(self, num_drawn: int = 0) -> None:
        self.num_drawn = num_drawn
        self.sizes: Sizes = (None, None)
        self._loader: Iterable[Any] | None = None
        self._iterator: Iterator[Any] | None = None

    def pairs(
        self, train_loader: Iterable[T], valid_loader: Iterable[V], device: torch.device
    ) -> Iterator[tuple[T, V]]:
        """One pass over the train batches, each with the next validation batch."""
        empty = True
        for train_batch in train_loader:
            empty = False
            valid_batch = self._next_valid(valid_loader)
            self.sizes = (size_of(train_batch), size_of(valid_batch))
            yield to_device(train_batch, device), to_device(valid_batch, device)
        self.sizes = (None, None)
        if empty:
            raise ValueError("the train loader yields no batch")

    def _next_valid(self, loader: Iterable[V]) -> V:
        if self._iterator is None or self._loader is not loader:
            iterator = iter(loader)
            for _ in range(self._batches_to_skip(loader)):
                next(iterator)
            self._loader = loader
            self._iterator = iterator
        self.num_drawn += 1
        try:
            return next(self._iterator)
        except StopIteration:
            self._iterator = iter(loader)
        try:
            return next(self._iterator)
        except StopIteration:
            raise ValueError("the validation loader yields no batch") from None

    def _batches_to_skip(self, loader: Iterable[object]) -> int:
        """Batches of the first loader that the search had before it was reloaded."""
        is_first_loader = self._iterator is None
        if is_first_loader and self.num_drawn and hasattr(loader, "__len__"):
            return self.num_drawn % max(1, len(loader))  # type: ignore[arg-type]
        return 0


def size_of(batch: Any) -> int | None:
    """Examples in a batch: the length of the first tensor in it; None where it holds none."""
    if isinstance(batch, Tensor):
        return len(batch) if batch.dim() else None
    items: Iterable[Any] = ()
    if isinstance(batch, Mapping):
        items = batch.values()
    elif isinstance(batch, (tuple, list)):
        items = batch
    for item in items:
        size = size_of(item)
        if size is not None:
            return size
    return None


def supervised(loss: Callable[[Any, Any], Tensor], batch: Any) -> NetLoss:
    """The loss on a batch `(inputs ..., target)`; ValueError for a batch of another form."""
    if not isinstance(batch, (tuple, list)) or len(batch) < 2:
        raise ValueError(
            "fit needs batches of the form (inputs ..., target), "
            f"got a {type(batch).__name__}; write your own loop with pairs and step"
        )
    *inputs, target = batch
    return lambda net: loss(net(*inputs), target)


def to_device(batch: Any, device: torch.device) -> Any:
    """The batch with every tensor in it on the device; containers and other values stay as such."""
    if isinstance(batch, Mapping) and not isinstance(batch, (dict, UserDict)):
        return {key: to_device(item, device) for key, item in batch.items()}
    if isinstance(batch, PackedSequence):  # whose lengths belong on the CPU
        return batch.to(device)
    items = items_of(batch)
    if items is None:
        # A pinned batch is copied while kernels run.
        return batch.to(device, non_blocking=True) if isinstance(batch, Tensor) else batch
    return with_items(batch, [to_device(item, device) for _, item in items])
