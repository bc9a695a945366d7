"""Batches of independent examples: their streams, how a network is called on one, its losses."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from gradnas.precision import autocast, cuda_products
from gradnas.tasks.evaluation import Means

Parts = dict[str, Tensor]  # named scalars, means over a batch
B = TypeVar("B")  # a batch
Batch = TypeVar("Batch", covariant=True)  # the same, of what only gives batches


class Stream(Protocol[Batch]):
    """Batches, epoch after epoch."""

    def __len__(self) -> int:
        """Batches of an epoch."""
        ...

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """What is left of an epoch after `start` batches."""
        ...


def first_tensor(batch: Any) -> Tensor:
    """The first tensor of a batch, which is one, or a sequence or a mapping with one in it.

    Raises:
        ValueError: it holds no tensor.
    """
    if isinstance(batch, Tensor):
        return batch
    items = batch.values() if isinstance(batch, Mapping) else batch
    for item in items:
        if isinstance(item, Tensor):
            return item
    raise ValueError(f"a batch must hold a tensor, but this {type(batch).__name__} holds none")


def size_of(batch: Any) -> int:
    """Examples in a batch."""
    return len(first_tensor(batch))


class Calls(Generic[B]):
    """How a network is called on a batch, and what its losses are."""

    def inputs(self, batch: Any) -> tuple[Any, ...]:
        """What the network is called with; by default all of a batch but its last entry."""
        return tuple(batch[:-1])

    def outputs(self, net: Callable[..., Any], batch: B) -> Any:
        """The network on a batch."""
        return net(*self.inputs(batch))

    def size(self, batch: Any) -> int:
        """Examples in a batch."""
        return size_of(batch)

    @abstractmethod
    def losses(self, outputs: Any, batch: B) -> tuple[Tensor, Parts]:
        """The loss that is reported, and its parts, one of them named `loss`.

        In a search it is also that of the alphas.
        """

    def train_losses(self, outputs: Any, batch: B) -> tuple[Tensor, Parts]:
        """The same of the weights, where it is another."""
        return self.losses(outputs, batch)


@torch.no_grad()
def mean_parts(
    losses: Callable[[B], Parts], batches: Iterable[B], precision: str = "fp32"
) -> dict[str, float]:
    """Means of named losses over batches, over all ranks. The caller sets the module's mode."""
    means = Means()
    for batch in batches:
        tensor = first_tensor(batch)
        with cuda_products(precision), autocast(precision, tensor.device):
            parts = losses(batch)
        means.add(parts, len(tensor))
    return means.values()
