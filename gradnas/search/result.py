"""What a search stands for: its decision, the network of it, the file of it."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from gradnas.architectures.base import Architecture
from gradnas.latency import Costs
from gradnas.objectives.cost import ExpectedCost
from gradnas.relaxations import Relaxation
from gradnas.search.recalibration import recalibrate as recalibrate_norms
from gradnas.search.recalibration import run_on_inputs
from gradnas.search.schedule import Schedule
from gradnas.spaces.affordable import cost_of
from gradnas.spaces.base import Supernet, Weights


@dataclass(frozen=True)
class SearchResult:
    """What the search stands for at one moment.

    Attributes:
        decision: the architecture.
        supernet: whose decision it is.
        cost: of a search with a cost, what the decision costs (see `costs.unit`).
    """

    decision: Architecture
    supernet: Supernet
    cost: float | None = None

    @property
    def choices(self) -> Any:
        """The `Genotype` or `Chain` of a space; of a module with choices, name -> operation."""
        return self.decision.public

    @property
    def genotype(self) -> Any:
        """The `Genotype` or `Chain`. ValueError for a module with choices: it has neither."""
        if self.decision.public is not self.decision:
            raise ValueError("a module with choices has no genotype; read result.choices")
        return self.decision

    def derive(
        self, weights: Weights = "keep", recalibrate: Iterable[Any] | None = None
    ) -> nn.Module:
        """The plain network of the decision: with the searched weights, or `"fresh"`.

        For a module with choices, fresh weights are those that the module had when the search
        began.

        Args:
            recalibrate: batches, as of the train loader: `(inputs ..., target)` or inputs alone.
                The running statistics of BatchNorms, which are those of the mixture, are replaced
                by their means over these batches, all others in eval mode; nothing else changes,
                and what you froze (eval mode in a network in train mode) stays as it is.

        Raises:
            ValueError: the module holds what cannot be copied; no batches, or of another form.
        """
        if weights not in ("keep", "fresh"):
            raise ValueError(f"weights must be 'keep' or 'fresh', not {weights!r}")
        # A new network begins with random numbers. They come from where the caller's generators
        # stand, and leave those there: a search goes on as if nobody had looked.
        devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
        with torch.random.fork_rng(devices=devices):
            network = self.supernet.derived(self.decision, weights)
        if recalibrate is not None:
            recalibrate_norms(network, recalibrate, run_on_inputs)
        return network

    def save(self, path: str | Path) -> None:
        """Write the decision as JSON; `gradnas.derive(Net(), path)` makes its network.

        Raises:
            ValueError: it cannot be written; the sentence names the folder that does not exist.
        """
        self.decision.save(path)


class Decided(Protocol):
    """What a result is read from: a search."""

    supernet: Supernet
    relaxation: Relaxation
    cost: ExpectedCost | None
    costs: Costs | None

    def results(self, number: int, budget: float | None = None) -> list[SearchResult]:
        """The most probable architectures within a budget."""


def result_of(search: Decided, budget: float | None = None) -> SearchResult:
    """`Search.result` without its warnings: for looks at a search that goes on."""
    # The strongest operation of each choice may be too dear, all of them together.
    if budget is not None or (search.cost is not None and search.cost.is_budget):
        return search.results(1, budget)[0]
    decision = search.supernet.decide(search.relaxation)
    if search.costs is None:
        return SearchResult(decision, search.supernet)
    return SearchResult(decision, search.supernet, cost_of(search.supernet, decision, search.costs))


def say_what_was_not_decided(supernet: Supernet[Any]) -> None:
    """Warn of choices that no step has called."""
    idle = supernet.idle_choices()
    if not idle:
        return
    names = ", ".join(repr(name) for name in idle)
    what = "a choice that never ran" if len(idle) == 1 else "choices that never ran"
    warnings.warn(
        f"{what} in this search: {names}; nothing decided which operation is taken there",
        stacklevel=3,  # the line that asked for the result
    )


def say_that_nothing_was_decided(schedule: Schedule) -> None:
    """Warn where the alphas have taken no step."""
    if schedule.warming_up:
        reason = (
            f"the search stands at epoch {schedule.epoch} of its {schedule.warmup_epochs} epochs "
            "of warm-up (warmup_epochs)"
        )
    elif schedule.alpha_every > 1:
        reason = (
            f"they take a step every {schedule.alpha_every} steps of the weights (alpha_every), "
            f"and there were {schedule.steps}"
        )
    else:
        reason = "no step was given a validation loss: step(train_loss, valid_loss)"
    warnings.warn(
        f"the alphas have not moved: {reason}; the result is where they started",
        stacklevel=3,  # the line that asked for the result
    )
