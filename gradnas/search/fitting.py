"""The loop that a search offers: epochs, progress, means."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from torch import Tensor

from gradnas.choice import Draw
from gradnas.progress import Progress
from gradnas.search.bound_net import NetLoss, StepReport
from gradnas.search.checks import check_gradients
from gradnas.search.feed import length_of, supervised
from gradnas.search.gap import gap_line
from gradnas.search.modes import Modes
from gradnas.search.passes import Passes
from gradnas.search.result import SearchResult
from gradnas.search.schedule import Schedule
from gradnas.search.weight_step import WeightStep
from gradnas.spaces.base import Supernet


class Fitted(Protocol):
    """What the loop asks of a search."""

    supernet: Supernet
    schedule: Schedule
    passes: Passes
    weight_step: WeightStep
    modes: Modes

    @property
    def epoch(self) -> int:
        """Finished epochs."""

    def pairs(
        self, train_loader: Iterable[Any], valid_loader: Iterable[Any]
    ) -> Iterator[tuple[Any, Any]]:
        """One epoch of (train batch, validation batch)."""

    def step(self, train_loss: NetLoss, valid_loss: NetLoss | None = None) -> StepReport:
        """One step of the alphas, if it is due, then one of the weights."""

    def result(self) -> SearchResult:
        """The decision that the alphas stand for now."""

    def evaluation_draw(self) -> Draw:
        """The noise-free mixture."""


def fit(
    search: Fitted,
    train_loader: Iterable[Any],
    valid_loader: Iterable[Any],
    loss: Callable[[Any, Any], Tensor],
    epochs: int,
    progress: bool,
) -> SearchResult:
    """`Search.fit`."""
    check_gradients()
    schedule = search.schedule
    last = _last_epoch(schedule, epochs)
    schedule.check_alphas_move(last)
    schedule.epochs = last
    per_epoch = length_of(train_loader)
    if per_epoch is not None:
        schedule.steps_per_epoch = per_epoch
    # The length of the search is known only now, and the learning rate depends on it.
    search.weight_step.set_learning_rate()
    search.modes.train()

    bar = Progress("search", last, per_epoch, first_epoch=search.epoch, enabled=progress)
    with bar:
        for note in search.supernet.notes():
            bar.say(note)
        while search.epoch < last:
            epoch = search.epoch
            count = 0
            train_total = 0.0
            valid_total = 0.0
            every_step_had_alphas = True
            for train_batch, valid_batch in search.pairs(train_loader, valid_loader):
                report = search.step(supervised(loss, train_batch), supervised(loss, valid_batch))
                count += 1
                train_total += report.train_loss.item()
                if report.valid_loss is None:
                    every_step_had_alphas = False
                else:
                    valid_total += report.valid_loss.item()
                bar.step(train_loss=report.train_loss)
            means = {}
            if count:  # none where an epoch was stopped after its last batch
                means["train_loss"] = train_total / count
            # A mean over some of the steps would not compare with that of the other epochs.
            if count and every_step_had_alphas:
                means["valid_loss"] = valid_total / count
            bar.epoch(epoch, means)
        result = search.result()
        if progress:
            draw = search.evaluation_draw()
            line = gap_line(search.passes, draw, result, train_loader, valid_loader, loss)
            if line is not None:
                bar.say(f"search: {line}")
    return result


def _last_epoch(schedule: Schedule, epochs: int) -> int:
    """Where a call of `fit` ends."""
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1, not {epochs}")
    length = schedule.epochs
    in_the_middle = length is not None and 0 < schedule.epoch < length
    if not in_the_middle:
        return schedule.epoch + epochs
    if epochs != length:
        raise ValueError(
            f"this search stands at epoch {schedule.epoch} of {length}, which its learning rate "
            f"follows: fit(..., epochs={length}) goes on to its end, epochs={epochs} would make it "
            "another search"
        )
    return epochs
