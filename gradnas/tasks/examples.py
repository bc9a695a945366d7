"""Examples of any form as streams of batches, in an order that is a function of seed and epoch.

The order is made here, and not by a loader of the user's: so a run is resumed at any batch, bit for
bit, and nothing is computed for the batches before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate

from gradnas.data.base import HALVES, Plan, checked_rows
from gradnas.randomness import generator_for


class Examples:
    """Examples in a fixed order.

    Args:
        source: a map-style data set (`len(source)`, `source[i]`); or tensors of one length, in a
            tuple or a dictionary, each row an example.
        rows: which of them, int64; None: all.
        collate: from a list of examples to a batch; by default as torch's `DataLoader` does it. Not
            used for tensors, whose rows are taken at once.

    Raises:
        ValueError: tensors of different lengths, none at all, or rows outside.
    """

    def __init__(
        self,
        source: Any,
        rows: Sequence[int] | Tensor | None = None,
        collate: Callable[[list[Any]], Any] = default_collate,
    ) -> None:
        self.source = source
        self.collate = collate
        self.is_tensors = _holds_tensors(source)
        size = _num_rows(source) if self.is_tensors else len(source)
        self.rows = torch.arange(size, device="cpu") if rows is None else checked_rows(rows, size)

    def __len__(self) -> int:
        return len(self.rows)

    def subset(self, indices: Sequence[int] | Tensor) -> Examples:
        """The examples at `indices` (0..N-1, any order); ValueError for an index outside."""
        chosen = checked_rows(indices, len(self))
        return Examples(self.source, self.rows[chosen], self.collate)

    def halves(self, fraction: float, seed: int) -> tuple[Examples, Examples]:
        """A random part with `fraction` of the examples, and the rest; both in their order.

        Raises:
            ValueError: a part would be empty.
        """
        first = int(fraction * len(self))
        if not 0 < first < len(self):
            raise ValueError(f"fraction={fraction} of {len(self)} examples leaves one part empty")
        order_N = torch.randperm(len(self), generator=generator_for(seed, HALVES), device="cpu")
        one = self.subset(order_N[:first].sort().values)
        other = self.subset(order_N[first:].sort().values)
        return one, other

    def batch(self, rows: Tensor) -> Any:
        """The examples in these rows of the source, as a batch."""
        if not self.is_tensors:
            return self.collate([self.source[row] for row in rows.tolist()])
        if isinstance(self.source, Mapping):
            return {name: tensor[rows] for name, tensor in self.source.items()}
        return tuple(tensor[rows] for tensor in self.source)

    def batches(
        self,
        batch_size: int,
        *,
        shuffle: bool,
        seed: int = 0,
        device: torch.device | str = "cpu",
        rank: int = 0,
        world: int = 1,
    ) -> ExampleBatches:
        """Batches of `batch_size` examples over all `world` ranks together.

        How they are shared is told at `gradnas.data.base.Plan`.
        """
        plan = Plan(len(self), batch_size, shuffle, seed, rank=rank, world=world)
        return ExampleBatches(self, plan, torch.device(device))


class ExampleBatches:
    """Batches of examples, epoch after epoch: `len(batches)` of them in each."""

    def __init__(self, examples: Examples, plan: Plan, device: torch.device) -> None:
        self.examples = examples
        self.plan = plan
        self.device = device

    def __len__(self) -> int:
        return len(self.plan)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Any]:
        """Batches `start`, `start + 1`, ... of an epoch, on the device."""
        plan = self.plan
        order_N = plan.order(epoch)
        for index in range(start, len(plan)):
            first, last = plan.span(index)
            mine = plan.share(last - first)
            rows = self.examples.rows[order_N[first:last][mine]]
            yield moved(self.examples.batch(rows), self.device)


def moved(batch: Any, device: torch.device) -> Any:
    """A batch with every tensor in it on the device."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=device.type != "cpu")  # as in search.feed
    if isinstance(batch, Mapping):
        return {name: moved(item, device) for name, item in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):  # a named tuple
        return type(batch)(*(moved(item, device) for item in batch))
    if isinstance(batch, (tuple, list)):
        return type(batch)(moved(item, device) for item in batch)
    return batch


def _holds_tensors(source: Any) -> bool:
    """Whether rows can be taken by an index, and need no collating."""
    if isinstance(source, Mapping):
        return True
    return isinstance(source, tuple) and all(isinstance(item, Tensor) for item in source)


def _num_rows(source: Any) -> int:
    tensors = list(source.values()) if isinstance(source, Mapping) else list(source)
    lengths = {len(tensor) for tensor in tensors}
    if len(lengths) != 1:
        raise ValueError(
            f"the tensors of a data set must have one length, not {sorted(lengths) or 'none'}"
        )
    return lengths.pop()
