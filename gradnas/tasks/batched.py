"""Tasks whose data are batches of independent examples.

Any order of them will do, and an epoch is one pass over all.

What such a kind must say is how a network is called on a batch (`outputs`) and what its losses are.
Its streams of batches have a length and an `epoch(number, start)` that is a function of these two
numbers, so that a run is resumed at any batch: `gradnas.data.Batches` of images, or `Examples` of
anything else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from gradnas.architectures.base import Architecture
from gradnas.precision import autocast, cuda_products
from gradnas.runs import Record, State
from gradnas.search.bound_net import BoundNet, NetLoss, StepReport
from gradnas.search.search import Search
from gradnas.tasks.calls import B, Calls, Parts, Stream, mean_parts
from gradnas.tasks.evaluation import Means
from gradnas.tasks.held_out import BatchedHeldOut, S
from gradnas.tasks.place import BatchPlace
from gradnas.tasks.training import TrainTask, update


class BatchedSearch(BatchedHeldOut[S, B], Generic[S, B]):
    """A search on batches of examples.

    Args:
        config: with `precision`, where it has one.
        search: of the supernet, whose `alpha_every` says how often an alpha batch is due.
        train, valid: for the weights, and for the alphas.
        held_out: what mixture and derived network are evaluated on after each epoch.
        measure: the name of the part by which the gap between the two is told.
    """

    place: BatchPlace

    def __init__(
        self,
        config: S,
        search: Search,
        train: Stream[B],
        valid: Stream[B],
        held_out: Stream[B],
        measure: str,
    ) -> None:
        super().__init__(config, search)
        self.train = train
        self.valid = valid
        self.held_out = held_out
        self.measure = measure
        self.place = BatchPlace(len(train))
        self._valid: Iterator[B] | None = None
        self._next_valid = -1

    # -- what a kind says --

    def alpha_loss(self, loss: Tensor, parts: Parts) -> Tensor:
        """What the alphas minimise."""
        del parts
        return loss

    # -- position --

    def position(self) -> State:
        return {"batch": self.place.batch}

    def go_to(self, position: State) -> None:
        self.place.batch = position["batch"]

    # -- steps --

    def batches(self) -> Iterator[B]:
        return self.train.epoch(self.search.epoch, start=self.place.batch)

    def endless(self) -> Iterator[B]:
        for epoch in count():
            yield from self.train.epoch(epoch)

    def valid_batch(self) -> B | None:
        """The alphas' batch of the coming step; None where the alphas wait.

        It is a function of the step alone, so that a resumed run has the same.
        """
        search = self.search
        if not search.schedule.alpha_due:
            return None
        # The alphas' batches are counted apart from the epochs of the weights: theirs begin where
        # all held-out examples have been seen.
        per_epoch = len(self.valid)
        number = search.steps // search.schedule.alpha_every
        epoch, index = divmod(number, per_epoch)
        goes_on = self._valid is not None and number == self._next_valid and index > 0
        if not goes_on:
            self._valid = iter(self.valid.epoch(epoch, index))
        assert self._valid is not None
        self._next_valid = number + 1
        return next(self._valid)

    def step(self, batch: B) -> StepReport:
        with self.waiting:
            valid_batch = self.valid_batch()
        report, train_parts, valid_parts = self.bilevel_step(batch, valid_batch)
        self.train_means.add(train_parts, self.size(batch))
        if valid_parts:
            self.valid_means.add(valid_parts, self.size(valid_batch))
        self.place.batch += 1
        return report

    def bilevel_step(self, batch: B, valid_batch: B | None) -> tuple[StepReport, Parts, Parts]:
        """One step of alphas (with a `valid_batch`) and weights.

        Returns:
            Its report, and the parts of the losses of weights and alphas, of their last pass.
        """
        read: dict[str, Parts] = {"train": {}, "valid": {}}

        def train_loss(net: BoundNet) -> Tensor:
            loss, read["train"] = self.train_losses(self.outputs(net, batch), batch)
            return loss

        def valid_loss(net: BoundNet) -> Tensor:
            assert valid_batch is not None
            outputs = self.outputs(net, valid_batch)
            loss, read["valid"] = self.losses(outputs, valid_batch)
            return self.alpha_loss(loss, read["valid"])

        of_alphas: NetLoss | None = None if valid_batch is None else valid_loss
        sizes = (self.size(batch), None if valid_batch is None else self.size(valid_batch))
        report = self.search.step(train_loss, of_alphas, sizes)
        return report, read["train"], read["valid"]

    # -- epochs --

    def finish_epoch(self, evaluated: bool) -> Record:
        record = super().finish_epoch(evaluated)
        self.place.batch = 0
        return record


class BatchedTrainConfig(Protocol):
    """What a `BatchedTraining` reads of its configuration."""

    @property
    def genotype(self) -> Architecture: ...
    @property
    def epochs(self) -> int: ...
    @property
    def clip_norm(self) -> float | None: ...


T = TypeVar("T", bound=BatchedTrainConfig)


class BatchedTraining(Calls[B], TrainTask[T, B], Generic[T, B]):
    """A training on batches of examples.

    Args:
        train: for the weights.
        valid, test: evaluated after each epoch, and once at the end; made when they are needed, so
            that nothing reads the test data before.
    """

    place: BatchPlace

    def __init__(
        self,
        config: T,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        device: torch.device,
        train: Stream[B],
        valid: Callable[[], Stream[B]] | None,
        test: Callable[[], Stream[B]],
    ) -> None:
        super().__init__(config, network, optimizer, device)
        self.train = train
        self.valid = valid
        self.test = test
        self.place = BatchPlace(len(train))
        self.precision: str = getattr(config, "precision", "fp32")

    # -- what a kind says --

    def set_learning_rate(self) -> None:
        """Set that of the coming step, where it changes."""

    def network_for(self, batch: B) -> Callable[..., Any]:
        """What is run on a batch."""
        del batch
        return self.network

    # -- position --

    def position(self) -> State:
        return {"epoch": self.epoch, "batch": self.place.batch}

    def go_to(self, position: State) -> None:
        self.epoch = position["epoch"]
        self.place.batch = position["batch"]

    @property
    def num_steps(self) -> int:
        return self.epoch * len(self.train) + self.place.batch

    # -- steps --

    def start_epoch(self) -> None:
        self.set_learning_rate()
        super().start_epoch()

    def batches(self) -> Iterator[B]:
        return self.train.epoch(self.epoch, start=self.place.batch)

    def step(self, batch: B) -> Parts:
        self.set_learning_rate()
        network = self.network_for(batch)
        with cuda_products(self.precision):
            with autocast(self.precision, self.device):
                loss, parts = self.train_losses(self.outputs(network, batch), batch)
            loss.backward()
        update(self, loss, self.config.clip_norm, self.size(batch))
        self.means.add(parts, self.size(batch))
        self.place.batch += 1
        return parts

    # -- epochs --

    def finish_epoch(self) -> Record:
        record: Record = {
            "epoch": self.epoch,
            "lr": self.optimizer.param_groups[0]["lr"],
            **self.means.values("train_"),
        }
        if self.valid is not None:
            found = self.evaluated(self.valid())
            record |= {f"valid_{name}": value for name, value in found.items()}
        record |= self.more_metrics()
        record["peak_memory_mib"] = self.memory_mib
        self.epoch += 1
        self.place.batch = 0
        self.means = Means()
        return record

    def shown(self, record: Record) -> dict[str, float]:
        return {key: value for key, value in record.items() if key.startswith(("train_", "valid_"))}

    def more_metrics(self) -> Record:
        """Metrics of an epoch that only this kind of data has."""
        return {}

    def evaluated(self, stream: Stream[B]) -> dict[str, float]:
        """Mean losses of the network, in eval mode."""
        self.network.eval()

        def losses(batch: B) -> Parts:
            return self.losses(self.outputs(self.network, batch), batch)[1]

        return mean_parts(losses, self.waiting.on(stream.epoch(0)), self.precision)

    def results(self) -> Record:
        test = self.test()
        found = self.evaluated(test)
        example = self.inputs(next(test.epoch(0)))
        return {
            **{f"test_{name}": value for name, value in found.items()},
            "inputs": [_described(tensor) for tensor in example],
            "num_params": sum(p.numel() for p in self.network.parameters()),
            "genotype": self.config.genotype.to_text(),
            "epochs": self.config.epochs,
        }


def _described(tensor: Tensor) -> dict[str, str | list[int]]:
    """Shape of one example and type of an input, for an export."""
    return {"shape": list(tensor.shape[1:]), "dtype": str(tensor.dtype).removeprefix("torch.")}
