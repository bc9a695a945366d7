"""Batches of a search: pairs of a train and a validation batch, on the device of the weights."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from gradnas.modules.nesting import items_of, with_items
from gradnas.randomness import generators_kept, random_state, set_random_state
from gradnas.search.bound_net import NetLoss
from gradnas.search.broadcasts import NoOuterProducts
from gradnas.search.forms import takes_network
from gradnas.search.reading import Reading, generator_states, set_generators

T = TypeVar("T")  # a train batch
V = TypeVar("V")  # a validation batch
Sizes = tuple[int | None, int | None]  # of a train and of a validation batch; None: not known


class Feed:
    """The batches of a search, and where in its loaders it stands.

    The validation iterator goes on where the last epoch left it: one of its own for each epoch
    would always begin with the same batches, and would start the workers of a loader again.

    Args:
        state: from `state_dict`; the first `pairs` bring the loaders to where they were.

    Attributes:
        sizes: examples in the last train batch and in the last validation batch.
    """

    def __init__(self, state: Mapping[str, Any] | None = None) -> None:
        self.sizes: Sizes = (None, None)
        self._train: Reading | None = None  # None between the epochs
        self._valid: Reading | None = None
        self._train_loader: Iterable[Any] | None = None
        self._state = state if state else None

    def pairs(
        self, train_loader: Iterable[T], valid_loader: Iterable[V], device: torch.device
    ) -> Iterator[tuple[T, V]]:
        """One pass over the train batches, each with the next validation batch."""
        self._train = None
        if self._state is not None:
            self._go_back(train_loader, valid_loader, device)
        self._train_loader = train_loader
        if self._train is None:
            self._train = Reading(train_loader, "train", device)
        empty = self._train.num_drawn == 0
        for train_batch in self._train:
            empty = False
            valid_batch = self._next_valid(valid_loader, device)
            self.sizes = (size_of(train_batch), size_of(valid_batch))
            yield to_device(train_batch, device), to_device(valid_batch, device)
        self.finish_epoch()
        if empty:
            raise ValueError("the train loader yields no batch")

    def finish_epoch(self) -> None:
        """The next `pairs` begin a pass over the train batches."""
        self.sizes = (None, None)
        self._train = None

    def _next_valid(self, loader: Iterable[V], device: torch.device) -> V:
        if self._valid is None or self._valid.loader is not loader:
            self._valid = Reading(loader, "validation", device)
        try:
            return next(self._valid)
        except StopIteration:
            self._valid = Reading(loader, "validation", device)
        try:
            return next(self._valid)
        except StopIteration:
            raise ValueError("the validation loader yields no batch") from None

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values: where the loaders stand."""
        if self._state is not None:  # not gone back to yet
            return dict(self._state)
        valid_loader = None if self._valid is None else self._valid.loader
        return {
            "train": None if self._train is None else self._train.state_dict(),
            "valid": None if self._valid is None else self._valid.state_dict(),
            "train_generators": generator_states(self._train_loader),
            "valid_generators": generator_states(valid_loader),
        }

    def _go_back(
        self, train_loader: Iterable[Any], valid_loader: Iterable[Any], device: torch.device
    ) -> None:
        state = self._state
        assert state is not None
        self._state = None
        now = random_state(device)
        with generators_kept():
            if state["valid"] is not None:
                self._valid = Reading(valid_loader, "validation", device, state["valid"])
            if state["train"] is not None:
                self._train = Reading(train_loader, "train", device, state["train"])
        # What was read again has used numbers up: all generators as they were when it was saved.
        set_generators(train_loader, "train", state["train_generators"])
        set_generators(valid_loader, "validation", state["valid_generators"])
        set_random_state(now, device)


def length_of(loader: Iterable[Any]) -> int | None:
    """Batches of a loader; None where it does not know (an `IterableDataset`, a generator)."""
    try:
        return len(loader)  # type: ignore[arg-type]
    except (TypeError, NotImplementedError):
        return None


def size_of(batch: Any) -> int | None:
    """Examples in a batch: the length of the first tensor in it; None where it holds none."""
    if isinstance(batch, Tensor):
        return len(batch) if batch.dim() else None
    if isinstance(batch, PackedSequence):  # whose first tensor holds all steps of all sequences
        return int(batch.batch_sizes[0])
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


def supervised(loss: Callable[[Any, Any], Tensor], batch: Any, checked: bool = False) -> NetLoss:
    """The loss on a batch: of the outputs and the target, or of the network and the batch.

    Args:
        checked: refuse a loss that sets every output beside every target.

    Raises:
        ValueError: a loss of outputs and target on a batch that is not `(inputs ..., target)`.
    """
    if takes_network(loss):
        return lambda net: loss(net, batch)
    inputs, target = inputs_and_target(batch)
    if not checked:
        return lambda net: loss(net(*inputs), target)

    def checked_loss(net: Any) -> Tensor:
        outputs = net(*inputs)
        with NoOuterProducts(outputs, target):
            return loss(outputs, target)

    return checked_loss


def inputs_and_target(batch: Any) -> tuple[list[Any], Any]:
    """The parts of a batch `(inputs ..., target)`; ValueError for a batch of another form."""
    if not isinstance(batch, (tuple, list)) or len(batch) < 2:
        raise ValueError(
            "fit needs batches of the form (inputs ..., target), "
            f"got a {type(batch).__name__}; write your own loop with pairs and step, or the loss "
            "as a function of (net, batch)"
        )
    *inputs, target = batch
    return inputs, target


def to_device(batch: Any, device: torch.device) -> Any:
    """The batch with every tensor in it on the device; containers and other values stay as such."""
    if isinstance(batch, Mapping) and not isinstance(batch, (dict, UserDict)):
        return {key: to_device(item, device) for key, item in batch.items()}
    if isinstance(batch, PackedSequence):  # whose lengths belong on the CPU
        return batch.to(device)
    if isinstance(batch, Tensor):
        # To a GPU, a pinned batch is copied while kernels run. The other way nothing waits for such
        # a copy, and whoever reads it may come too early.
        return batch.to(device, non_blocking=device.type != "cpu")
    items = items_of(batch)
    if items is None:
        return batch
    return with_items(batch, [to_device(item, device) for _, item in items])
