"""Whether two sets of data share examples, as far as that shows without reading them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    TensorDataset,
    WeightedRandomSampler,
)

MOST_ENTRIES = 64  # of a list of batches, whose tensors are looked at


def share_examples(one: Any, other: Any) -> bool:
    """Whether examples of the one are examples of the other.

    Seen are the same object, the same data set behind two loaders or parts of it with rows in
    common, tensors that lie in the same memory, and equal tensors. Of a sampler that does not say
    which rows it draws none are seen.
    """
    if one is None or other is None:
        return False
    if one is other:
        return True
    (whole, rows), (other_whole, other_rows) = _opened(one), _opened(other)
    if whole is not one or other_whole is not other:
        return _meet(rows, other_rows) and share_examples(whole, other_whole)
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return _share_memory(one, other) or _are_equal(one, other)
    pairs = list(zip(_parts(one), _parts(other), strict=False))
    # Of examples in several tensors, one may be the same for all of them (a graph, positions).
    are_tensors = all(isinstance(own, Tensor) for pair in pairs for own in pair)
    shared = [share_examples(*pair) for pair in pairs]
    return bool(pairs) and (all(shared) if are_tensors else any(shared))


def _opened(data: Any) -> tuple[Any, list[int] | None]:
    """The data set behind loaders and parts of it, and the rows that they give; None: all."""
    if isinstance(data, DataLoader):
        rows = _drawn(data)
    elif isinstance(data, Subset):
        rows = [int(row) for row in data.indices]
    else:
        return data, None
    whole, places = _opened(data.dataset)
    if places is None:
        return whole, rows
    return whole, places if rows is None else [places[row] for row in rows]


def _drawn(loader: DataLoader) -> list[int] | None:
    """The rows that a loader draws, None: all; no row where that does not show."""
    sampler: Any = loader.sampler
    if loader.batch_sampler is not None:
        if type(loader.batch_sampler) is not BatchSampler:  # the user's own; no sampler is asked
            return []
        sampler = loader.batch_sampler.sampler
    whole = (SequentialSampler, RandomSampler, DistributedSampler)
    if isinstance(loader.dataset, IterableDataset) or isinstance(sampler, whole):
        return None
    if isinstance(sampler, WeightedRandomSampler):
        return sampler.weights.nonzero().flatten().tolist()
    indices = getattr(sampler, "indices", None)  # of a SubsetRandomSampler, and of many others
    if not isinstance(indices, (Sequence, Tensor, np.ndarray)):
        return []
    return [int(row) for row in indices]


def _meet(rows: list[int] | None, others: list[int] | None) -> bool:
    """Whether there are rows in common."""
    if rows is None or others is None:
        return rows != [] and others != []
    return not set(rows).isdisjoint(others)


def _parts(data: Any) -> list[Any]:
    if isinstance(data, TensorDataset):
        return list(data.tensors)
    if isinstance(data, Mapping):
        return list(data.values())
    if isinstance(data, (tuple, list)):
        return list(data[:MOST_ENTRIES])
    return []


def _share_memory(one: Tensor, other: Tensor) -> bool:
    """Of tensors with a row for each example: whether a row lies where one of the other's lies."""
    if not (_is_plain(one) and _is_plain(other) and one.dim() and other.dim()):
        return False
    if not one.numel() or not other.numel():
        return False
    if one.untyped_storage().data_ptr() != other.untyped_storage().data_ptr():
        return False
    first, end = _span(one)
    other_first, other_end = _span(other)
    if end <= other_first or other_end <= first:
        return False
    # Rows of every second place, for example, lie between each other and have nothing in common.
    step = one.stride(0) * one.element_size()
    distance = one.data_ptr() - other.data_ptr()
    if step != other.stride(0) * other.element_size():
        return False
    return distance == 0 if step <= 0 else distance % step == 0


def _span(t: Tensor) -> tuple[int, int]:
    """The bytes between its first number and its last."""
    last = sum((size - 1) * stride for size, stride in zip(t.shape, t.stride(), strict=True))
    return t.data_ptr(), t.data_ptr() + (last + 1) * t.element_size()


def _are_equal(one: Tensor, other: Tensor) -> bool:
    is_like = one.shape == other.shape and one.dtype == other.dtype and one.device == other.device
    return is_like and _is_plain(one) and _is_plain(other) and torch.equal(one, other)


def _is_plain(t: Tensor) -> bool:
    return t.layout is torch.strided and t.device.type != "meta" and not t.is_nested
