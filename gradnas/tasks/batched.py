"""Tasks whose data are batches of independent examples.

Any order of them will do, and an epoch is one pass over all.

What such a kind must say is how a network is called on a batch (`outputs`) and what its losses are.
Its streams of batches have a length and an `epoch(number, start)` that is a function of these two
numbers, so that a run is resumed at any batch: `gradnas.data.Batches` of images, or `Examples` of
anything else.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import count, islice
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from gradnas.architectures.base import Architecture
from gradnas.precision import autocast, cuda_products
from gradnas.runs import Record, State
from gradnas.search.bound_net import BoundNet, NetLoss, StepReport
from gradnas.search.comparing import Judge
from gradnas.search.judging import BatchJudge, Grouped
from gradnas.search.result import SearchResult
from gradnas.search.search import Search
from gradnas.search.slices import measured_by_group
from gradnas.search.verdict import Yardstick
from gradnas.tasks.evaluation import Means, recalibrate
from gradnas.tasks.measure import Measure
from gradnas.tasks.place import BatchPlace
from gradnas.tasks.search import SearchTask
from gradnas.tasks.training import TrainTask, update

RECALIBRATION_BATCHES = 8

Parts = dict[str, Tensor]  # named scalars, means over a batch
B = TypeVar("B")  # a batch
Batch = TypeVar("Batch", covariant=True)  # the same, of what only gives batches
S = TypeVar("S")  # the configuration of a search


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


class BatchedSearch(Calls[B], SearchTask[S, B], Generic[S, B]):
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

    def laid_out(self, network: nn.Module) -> nn.Module:
        """The network in the memory format in which it runs."""
        return network

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

    @property
    def num_held_out(self) -> int:
        return len(self.held_out)

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

    def evaluate(
        self, result: SearchResult, epoch: int, batches: int | None = None
    ) -> dict[str, float]:
        """Held-out losses of the derived network with the supernet's weights, and of the mixture.

        The mixture is evaluated if the weights learn on mixtures.
        """
        search = self.search
        supernet = search.supernet
        record: dict[str, float] = {}
        mixture: dict[str, float] | None = None
        if search.relaxation.trains_mixtures:
            supernet.eval()
            draw = search.evaluation_draw()

            def mixed(*inputs: Any, **named: Any) -> Any:
                return supernet(*inputs, draw=draw, **named)

            mixture = self.evaluated(mixed, batches)
            supernet.train()
            record |= {f"valid_{name}": value for name, value in mixture.items()}
        if not supernet.keeps_weights:
            return record
        network = self.laid_out(supernet.derived(result.decision))
        some = islice(self.train.epoch(epoch), RECALIBRATION_BATCHES)
        recalibrate(network, some, self.outputs)
        derived = self.evaluated(network, batches)
        record |= {f"derived_valid_{name}": value for name, value in derived.items()}
        if mixture is not None:
            record["discretisation_gap"] = mixture[self.measure] - derived[self.measure]
        return record

    def judge(self, result: SearchResult, measure: Measure) -> Judge | None:
        by_loss = measure.key != self.measure

        def score(net: Callable[..., Any], batch: B) -> Grouped:
            def value(outputs: Any, batch: B) -> float:
                loss, parts = self.losses(outputs, batch)
                return float(loss if by_loss else parts[self.measure])

            return measured_by_group(value, self.outputs(net, batch), batch, size_of(batch))

        return BatchJudge(
            self.search,
            result.decision,
            Yardstick() if by_loss else measure.yardstick,
            train=self.train.epoch(self.search.epoch),
            valid=self.held_out.epoch(0),
            size=size_of,
            run=self.outputs,
            score=score,
            laid_out=self.laid_out,
        )

    def worth(self, net: BoundNet, by_loss: bool) -> float:
        # Of another measure it is not known here which way is better.
        found = self.evaluated(net, None)
        by_accuracy = self.measure == "accuracy" and not by_loss
        return found["accuracy"] if by_accuracy else -found["loss"]

    def evaluated(self, network: Callable[..., Any], batches: int | None) -> dict[str, float]:
        """Mean losses of a network on what is held out."""

        def losses(batch: B) -> Parts:
            return self.losses(self.outputs(network, batch), batch)[1]

        held_out = islice(self.held_out.epoch(0), batches)
        precision = getattr(self.config, "precision", "fp32")
        return mean_parts(losses, held_out, precision)


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

        return mean_parts(losses, stream.epoch(0), self.precision)

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
