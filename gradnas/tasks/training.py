"""What the training program needs of a kind of data: a live training."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Generic, TypeVar

import torch
from torch import Tensor, nn

from gradnas import distributed
from gradnas.data.base import batch_notes
from gradnas.precision import precision_notes
from gradnas.randomness import (
    other_random_state,
    random_state,
    set_other_random_state,
    set_random_state,
)
from gradnas.runs import NonFiniteError, Record, State
from gradnas.search.own_state import OwnState
from gradnas.tasks.evaluation import Means
from gradnas.tasks.place import Place
from gradnas.tasks.resumed import Resumed
from gradnas.tasks.waiting import Waiting

T = TypeVar("T")  # the configuration
B = TypeVar("B")  # a batch


class TrainTask(Resumed, Generic[T, B]):
    """A training that runs: network, optimiser, streams of batches, position.

    Its state is saved and resumed bit for bit.

    Attributes:
        epoch: the one that runs, or comes next.
        place: where it stands in that epoch.
        has_short_steps: so that some may be made to see how long they take.
        reads_batches: so that it is known how long it waits for them.
        waiting: how long it has waited for batches.
    """

    has_short_steps = True
    reads_batches = True
    sums = ("means",)

    if TYPE_CHECKING:  # an attribute, of whatever kind of place a subclass has

        @property
        def place(self) -> Place: ...

    def __init__(
        self,
        config: T,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        device: torch.device,
    ) -> None:
        self.config = config
        self.network = network
        self.optimizer = optimizer
        self.device = device
        self.epoch = 0
        self.means = Means()
        self.waiting = Waiting()
        self.memory_mib = 0.0
        self.own_state = OwnState(network, set())

    def first_notes(self) -> list[str]:
        """What is to be said before the first step."""
        notes = precision_notes(getattr(self.config, "precision", "fp32"), self.device)
        return notes + batch_notes(training=getattr(self, "train", None))

    # -- position and state --

    @property
    @abstractmethod
    def num_steps(self) -> int:
        """Steps that are done, of all epochs."""

    def state_dict(self) -> State:
        """Tensors and plain values."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            **self.position(),
            "means": self.means.state_dict(),
            "memory_mib": self.memory_mib,
            "random_state": random_state(self.device),
            "other_random_state": other_random_state(),
            "own_values": self.own_state.state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        """The inverse of `state_dict`."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.go_to(state)
        self.means = Means(state["means"])
        self.memory_mib = state["memory_mib"]
        self.own_state.load_state_dict(state.get("own_values", {}))
        set_random_state(state["random_state"], self.device)
        if "other_random_state" in state:  # a checkpoint of an earlier version has none
            set_other_random_state(state["other_random_state"])

    # -- steps --

    def start_epoch(self) -> None:
        """Set what holds for the coming epoch."""
        self.network.train()

    @abstractmethod
    def batches(self) -> Iterator[B]:
        """The batches of this epoch that are still to come, on the device."""

    @abstractmethod
    def step(self, batch: B) -> dict[str, Tensor]:
        """One step of the weights; its losses go into the means of the epoch.

        Raises:
            NonFiniteError: before an update that would not be finite.
        """

    def not_finite(self) -> NonFiniteError:
        """The error for a step that would not be finite: where, and what helps."""
        return NonFiniteError(
            f"epoch {self.epoch}, batch {self.place.steps_done}: the loss or the gradient is NaN "
            "or infinite; the update was not made. Try a smaller learning rate, "
            "precision='fp32', and check the data for NaN"
        )

    def bar(self, parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What stands beside the progress bar after a step."""
        return dict(parts)

    # -- epochs --

    @abstractmethod
    def finish_epoch(self) -> Record:
        """The metrics of the epoch that ends, and the position moved to the next."""

    @abstractmethod
    def shown(self, record: Record) -> dict[str, float]:
        """What the line of an epoch shows of its metrics, in words short enough for 80 columns."""

    def remarks(self, record: Record) -> list[str]:
        """What else is to be said after an epoch."""
        del record
        return []

    @abstractmethod
    def results(self) -> Record:
        """The results of the whole training; the test data are read here, once.

        The network then holds the weights that are kept.
        """


def update(task: TrainTask, loss: Tensor, clip_norm: float | None, size: int | None = None) -> None:
    """Move the weights along their gradients, which `loss.backward()` has left in them.

    Their mean over the ranks is taken, clipped to a global L2 norm.

    Args:
        size: examples that the loss is a mean over, on this rank; None: all ranks have as many.

    Raises:
        NonFiniteError: the loss or the gradient is NaN or infinite; the update is not made.
    """
    params = [p for p in task.network.parameters() if p.grad is not None]
    if distributed.world() > 1:
        (factor,) = distributed.factors([size], loss.device)
        own = [factor * p.grad for p in params if p.grad is not None]
        # With the loss: all ranks must agree on whether it is finite.
        *means, loss = distributed.mean([*own, loss])
        # Into the gradients, which lie in memory as their weights do: an optimiser that takes all
        # weights in one call (`fused`) goes through both in the order in which they lie.
        for p, mean in zip(params, means, strict=True):
            assert p.grad is not None
            p.grad.copy_(mean)
    limit = math.inf if clip_norm is None else clip_norm
    length = nn.utils.clip_grad_norm_(params, limit)
    if not torch.isfinite(length + loss.detach()):
        raise task.not_finite()
    task.optimizer.step()
    task.optimizer.zero_grad(set_to_none=True)
