"""The loop that a search offers: epochs, progress, means."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from gradnas import distributed
from gradnas.progress import Progress
from gradnas.runs import Epoch, OnEpoch, Record
from gradnas.search import health_words
from gradnas.search.bound_net import BoundNet, NetLoss, StepReport
from gradnas.search.checks import check_gradients
from gradnas.search.chosen import Chosen, check_alone, check_measure, not_chosen
from gradnas.search.comparing import Compared
from gradnas.search.epoch import epoch_of
from gradnas.search.feed import length_of, size_of, supervised, to_device
from gradnas.search.folder import FitFolder, Losses, Recorded, epoch_record
from gradnas.search.health import Health, check_guard
from gradnas.search.judging import (
    as_it_was,
    can_be_read_again,
    check_loaders,
    check_wanted,
    verdict_after,
)
from gradnas.search.modes import Modes
from gradnas.search.result import Decided, SearchResult, result_of
from gradnas.search.schedule import Schedule
from gradnas.search.slices import FAILURES
from gradnas.search.verdict import Verdict
from gradnas.search.verdict_words import wrapped
from gradnas.search.weight_step import WeightStep
from gradnas.settings.formats import Guard


class Fitted(Compared, Recorded, Decided, Protocol):
    """What the loop asks of a search."""

    weight_step: WeightStep
    modes: Modes
    health: Health

    @property
    def epoch(self) -> int:
        """Finished epochs."""

    def pairs(
        self, train_loader: Iterable[Any], valid_loader: Iterable[Any]
    ) -> Iterator[tuple[Any, Any]]:
        """One epoch of (train batch, validation batch)."""

    def step(self, train_loss: NetLoss, valid_loss: NetLoss | None = None) -> StepReport:
        """One step of the alphas, if it is due, then one of the weights."""

    def select(self, measure: Callable[[BoundNet], float]) -> list[str]:
        """Make the rounds of the selection that are due."""

    def result(self) -> SearchResult:
        """The decision that the alphas stand for now."""

    def check_scores(
        self,
        train_loader: Iterable[Any],
        valid_loader: Iterable[Any],
        loss: Callable[[Any, Any], Tensor],
    ) -> None:
        """ValueError where its selection scores networks without a training, and cannot these."""

    def choose(
        self,
        train_loader: Iterable[Any],
        valid_loader: Iterable[Any],
        loss: Callable[[Any, Any], Tensor],
    ) -> Chosen:
        """The best of the candidates that its selection asks for."""

    def take_verdict(self, verdict: Verdict) -> Verdict:
        """From now to the next step it is that of the results."""


def fit(
    search: Fitted,
    train_loader: Iterable[Any],
    valid_loader: Iterable[Any],
    loss: Callable[[Any, Any], Tensor],
    epochs: int,
    progress: bool,
    wanted: tuple[int | None, int],
    out: str | Path | None = None,
    resume: bool = False,
    on_epoch: OnEpoch | None = None,
    guard: Guard = "warn",
) -> SearchResult:
    """`Search.fit`; `wanted` are the candidates and the random architectures of its verdict."""
    check_gradients()
    check_wanted(*wanted)
    check_guard(guard)
    schedule = search.schedule
    last = _last_epoch(schedule, epochs)
    schedule.check_alphas_move(last)
    schedule.epochs = last
    per_epoch = length_of(train_loader)
    if per_epoch is not None:
        schedule.steps_per_epoch = per_epoch
    # The length of the search is known only now, and the learning rate depends on it.
    search.weight_step.set_learning_rate()
    if any(search.selection.candidates):
        check_alone(search.selection)
        check_measure(search.selection, has_measure=False)
        check_loaders(type(search.selection).__name__, train_loader, valid_loader)
        search.check_scores(train_loader, valid_loader, loss)
    search.modes.train()
    search.health.watch(guard)
    if not resume:
        search.health.stopped = None  # by an earlier call

    folder = None if out is None else FitFolder(search, out, resume, last)
    if resume and folder is None:
        raise ValueError("resume=True goes on with a run folder: give its path as out=")
    with folder or nullcontext():
        note = folder.take_up() if folder is not None else None
        result = _epochs(
            search, folder, train_loader, valid_loader, loss, last, progress, note, wanted, on_epoch
        )
    return result


def _epochs(
    search: Fitted,
    folder: FitFolder | None,
    train_loader: Iterable[Any],
    valid_loader: Iterable[Any],
    loss: Callable[[Any, Any], Tensor],
    last: int,
    progress: bool,
    note: str | None,
    wanted: tuple[int | None, int],
    on_epoch: OnEpoch | None,
) -> SearchResult:
    """The loop, from where the search stands."""
    per_epoch = length_of(train_loader)
    bar = Progress("search", last, per_epoch, first_epoch=search.epoch, enabled=progress)
    verdict: Verdict | None = None
    lines: list[str] = []
    record: Record = {}

    def judged() -> tuple[list[str], Verdict | None]:
        said = _chosen_lines(search, train_loader, valid_loader, loss)
        now = result_of(search)
        told, verdict = verdict_after(search, now, train_loader, valid_loader, loss, wanted)
        return said + told, verdict

    with bar:
        for sentence in [*search.supernet.notes(), *([] if note is None else [note])]:
            bar.say(sentence)
        while search.epoch < last and search.health.stopped is None:
            epoch = search.epoch
            began = time.monotonic()
            for sentence in search.select(lambda net: -mean_loss(search, net, valid_loader, loss)):
                bar.say(sentence)
            seen = folder.seen if folder is not None else Losses()
            for train_batch, valid_batch in search.pairs(train_loader, valid_loader):
                is_first = search.steps == 0
                of_weights = supervised(loss, train_batch, is_first)
                of_alphas = supervised(loss, valid_batch, is_first)
                report = search.step(of_weights, of_alphas)
                seen.add(report)
                bar.step(train_loss=report.train_loss)
                if folder is not None:
                    folder.keeper.after_step()
            bar.epoch(epoch, seen.means())
            found = search.health.finish_epoch(result_of(search).decision)
            if search.health.news is not None:
                bar.say(f"warning: {search.health.news}")
            if folder is not None:
                # Where the guard takes an earlier decision, that one is judged, after the loop.
                if search.epoch == last and search.health.pending is None:
                    lines, verdict = judged()
                record = folder.finish_epoch(epoch, verdict, found)
            elif on_epoch is not None:
                record = epoch_record(search, epoch, seen.means(), result_of(search), None, found)
            told: Epoch | None = None
            if on_epoch is not None and distributed.is_main():
                path = None if folder is None else folder.run.path
                told = epoch_of(search, record, last, time.monotonic() - began, path)
            search.health.act()  # before a tracker, which may end the search: the state is whole
            if told is not None:
                _tell(on_epoch, told, folder)
            if folder is not None:
                folder.keeper.after_step()
        if verdict is None and not lines:
            lines, verdict = judged()
        if verdict is not None:
            search.take_verdict(verdict)
            search.health.gap.measure(verdict.measure, verdict.mixture, verdict.derived)
        result = search.result()
        if folder is not None:
            folder.finish(result)
        found = search.health.results()
        for line in [*lines, *health_words.lines(found.get("health"), found.get("gap"))]:
            bar.say(f"search: {line}")
    return result


def _chosen_lines(
    search: Fitted,
    train_loader: Iterable[Any],
    valid_loader: Iterable[Any],
    loss: Callable[[Any, Any], Tensor],
) -> list[str]:
    """Take the best candidate, where the selection asks for some, and what is to be said of it."""
    if not any(search.selection.candidates):
        return []
    try:
        best = search.choose(train_loader, valid_loader, loss)
    except FAILURES as error:  # the result of a search must not be lost for it
        return wrapped(f"warning: {not_chosen(error)}")
    said = wrapped(f"selection: {best.sentence}")
    return said if best.undecided is None else said + wrapped(best.undecided)


def mean_loss(
    search: Fitted, net: BoundNet, loader: Iterable[Any], loss: Callable[[Any, Any], Tensor]
) -> float:
    """Of a network over a loader, which is then as if it had not been read.

    Raises:
        ValueError: a loader that cannot be read once more.
    """
    if not can_be_read_again(loader):
        raise ValueError(
            "PerturbationSelection reads the validation loader once for each operation, and a "
            f"{type(loader).__name__} has no length or is used up: give a DataLoader or a list of "
            "batches"
        )
    total = 0.0
    examples = 0
    with as_it_was(search.passes.seed, [loader]), search.passes.autocast():
        for batch in loader:
            moved = to_device(batch, search.device)
            size = size_of(moved) or 1
            total += size * float(supervised(loss, moved)(net))
            examples += size
    return total / max(1, examples)


def _tell(on_epoch: OnEpoch | None, epoch: Epoch, folder: FitFolder | None) -> None:
    """Tell a tracker of the epoch that has ended; with a folder its state is safe."""
    assert on_epoch is not None
    if folder is None:
        on_epoch(epoch)
    else:
        folder.keeper.tell(on_epoch, epoch)


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
