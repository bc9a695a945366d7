"""A search on a task of one's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from typing import Any

import torch
from torch import Tensor

from gradnas import distributed
from gradnas.modules.call import Call
from gradnas.objectives.cost import ExpectedCost
from gradnas.randomness import seed_all, seed_for, seeded
from gradnas.runs import Record, State
from gradnas.search.bound_net import BoundNet, StepReport
from gradnas.search.capture import CapturedStep, check_capture
from gradnas.search.feed import to_device
from gradnas.search.result import SearchResult
from gradnas.search.search import Search
from gradnas.spaces.your_module import ModuleSupernet
from gradnas.tasks.calls import Parts
from gradnas.tasks.costs import measured_batch
from gradnas.tasks.your_task.calls import TaskCalls, example_call
from gradnas.tasks.your_task.held_out import HeldOut
from gradnas.tasks.your_task.own_optimizer import OwnSchedule
from gradnas.tasks.your_task.place import StreamPlace
from gradnas.tasks.your_task.settings import TaskSearchConfig, steps_of
from gradnas.tasks.your_task.task import Task

# Streams of random numbers.
INIT = 71
TRAIN_ORDER = 72
VALID_ORDER = 73
NOISE = 74


class TaskSearch(HeldOut):
    """A search on a task of one's own: its batches for the weights, and others for the alphas."""

    place: StreamPlace

    def __init__(self, config: TaskSearchConfig, task: Task, device: torch.device) -> None:
        self.task = task
        for_weights, for_alphas = task.divided(config.division_of())
        workers = config.data.workers
        self.train = for_weights.stream(
            config.batch_size,
            seed_for(config.seed, TRAIN_ORDER),
            device,
            shuffle=True,
            workers=workers,
        )
        self.valid = for_alphas.stream(
            config.batch_size,
            seed_for(config.seed, VALID_ORDER),
            device,
            shuffle=True,
            workers=workers,
        )
        self.held_out = for_alphas.stream(
            config.batch_size,
            seed_for(config.seed, VALID_ORDER),
            device,
            shuffle=False,
            workers=workers,
        )
        search = new_search(config, task, device, self.train.length)
        super().__init__(config, search)
        self.place = StreamPlace(self.train.length)
        self.measure = config.measures[0]
        key = self.measure.key
        self.shown = {
            "train_loss": "loss",
            f"valid_{key}": f"valid {key}",
            f"derived_valid_{key}": "derived",
        }
        found = ["discretisation_gap"]
        for measure in dict.fromkeys([*(m.key for m in config.measures), "loss"]):
            found += [f"valid_{measure}", f"derived_valid_{measure}"]
        self.result_keys = tuple(found)
        steps = steps_of(config.epochs, self.train.length, config.max_steps)
        self.schedule = OwnSchedule(task, search.weight_optimizer, steps)
        # Where the alphas' batches stand: the epoch of them, and the next one in it.
        self.valid_epoch = 0
        self.valid_number = 0
        self._valid: Iterator[Any] | None = None
        # Made at the first step that is replayed: a recording holds the tensors as they lie.
        self.captured: CapturedStep | None = None
        if config.capture:
            check_capture(search)
        seed_all(seed_for(config.seed, NOISE, distributed.rank()))  # dropout, for example

    # -- position --

    def position(self) -> State:
        return {
            "batch": self.place.batch,
            "valid_epoch": self.valid_epoch,
            "valid_number": self.valid_number,
            "schedule": self.schedule.state_dict(),
        }

    def go_to(self, position: State) -> None:
        self.place.batch = position["batch"]
        self.valid_epoch = position["valid_epoch"]
        self.valid_number = position["valid_number"]
        self._valid = None
        self.schedule.load_state_dict(position["schedule"])

    # -- steps --

    def start_epoch(self) -> None:
        self.search.modes.train()

    def batches(self) -> Iterator[Any]:
        return self.train.epoch(self.search.epoch, start=self.place.batch)

    def endless(self) -> Iterator[Any]:
        for epoch in count():
            yield from self.train.epoch(epoch)

    @property
    def num_held_out(self) -> int | None:
        return self.held_out.length

    def valid_batch(self) -> Any | None:
        """The alphas' batch of the coming step; None where the alphas wait."""
        if not self.search.schedule.alpha_due:
            return None
        if self._valid is None:
            self._valid = self.valid.epoch(self.valid_epoch, self.valid_number)
        batch = next(self._valid, None)
        if batch is None:
            # Their epochs are not those of the weights: one begins where all were seen.
            self.valid_epoch += 1
            self.valid_number = 0
            self._valid = self.valid.epoch(self.valid_epoch)
            batch = next(self._valid)
        self.valid_number += 1
        return batch

    def step(self, batch: Any) -> StepReport:
        with self.waiting:
            valid_batch = self.valid_batch()
        report, train_parts, valid_parts = self.bilevel_step(batch, valid_batch)
        self.schedule.step()
        self.train_means.add(train_parts, self.size(batch))
        if valid_parts:
            self.valid_means.add(valid_parts, self.size(valid_batch))
        self.place.batch += 1
        return report

    def bilevel_step(self, batch: Any, valid_batch: Any | None) -> tuple[StepReport, Parts, Parts]:
        """One step of alphas (with a `valid_batch`) and weights, or a replayed one."""
        other = batch if valid_batch is None else valid_batch
        if self.config.capture and not self.place.at_start and is_flat(batch) and is_flat(other):
            if self.captured is None:
                self.captured = CapturedStep(self.search, partial(captured_loss, self))
            if self.captured.fits(tuple(batch), tuple(other)):
                report, train, valid = self.captured(tuple(batch), tuple(other))
                return report, train, {} if report.valid_loss is None else valid
        read: dict[str, Parts] = {"train": {}, "valid": {}}

        def loss_on(name: str, own: Any) -> Callable[[BoundNet], Tensor]:
            def loss(net: BoundNet) -> Tensor:
                value, read[name] = self.losses(self.outputs(net, own), own)
                return value

            return loss

        of_alphas = None if valid_batch is None else loss_on("valid", valid_batch)
        sizes = (self.size(batch), None if valid_batch is None else self.size(valid_batch))
        report = self.search.step(loss_on("train", batch), of_alphas, sizes)
        return report, read["train"], read["valid"]

    # -- epochs --

    def finish_epoch(self, evaluated: bool) -> dict[str, Any]:
        record = super().finish_epoch(evaluated)
        self.place.batch = 0
        return record

    def results(self, result: SearchResult, last: Record) -> Record:
        """As of any search, with the probability of every operation."""
        found = super().results(result, last)
        search = self.search
        probabilities = {}
        for name, operations in self.config.space.names.items():
            p_O = search.relaxation.probabilities(search.alphas[name].detach().double())
            probabilities[name] = dict(zip(operations, p_O.tolist(), strict=True))
        found["probabilities"] = probabilities
        return found


def captured_loss(
    calls: TaskCalls, net: Callable[..., Any], *batch: Tensor
) -> tuple[Tensor, Parts]:
    """The loss of a recording, on the tensors of a batch."""
    return calls.losses(calls.outputs(net, batch), batch)


def is_flat(batch: Any) -> bool:
    """Whether a batch is a tuple of tensors, which a recording takes."""
    return isinstance(batch, (tuple, list)) and all(isinstance(item, Tensor) for item in batch)


def new_supernet(config: TaskSearchConfig) -> ModuleSupernet:
    """The model with every choice open; a function of the seed alone."""
    with seeded(config.seed, INIT):
        return config.space.supernet(seed=config.seed)


def new_search(
    config: TaskSearchConfig, task: Task, device: torch.device, per_epoch: int | None
) -> Search:
    """The search of a configuration at its beginning."""
    weights = config.weights if config.weights is not None else task.optimizer
    assert weights is not None
    return Search(
        new_supernet(config),
        relaxation=config.relaxation,
        gradient=config.gradient,
        terms=config.terms,
        stabilizers=config.stabilizers,
        selection=config.selection,
        weights=weights,
        alphas=config.alphas,
        epochs=config.epochs,
        warmup_epochs=config.warmup_epochs,
        alpha_every=config.alpha_every,
        steps_per_epoch=per_epoch,
        seed=config.seed,
        device=device,
        precision=config.precision,
        cost=config.cost,
        example=None if config.cost is None else example_of(task, config.cost, device),
    )


def example_of(task: Task, cost: ExpectedCost, device: torch.device) -> Call:
    """What a network is called with where its cost is counted, or was measured.

    Raises:
        ValueError: it was not given, and the data come from a loader.
    """
    call = example_call(task, measured_batch(cost))
    return call.mapped(lambda value: to_device(value, device))
