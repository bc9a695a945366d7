"""What a search stands for: its decision, the network of it, the file of it."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gradnas.architectures.base import Architecture
from gradnas.search.recalibration import recalibrate as recalibrate_norms
from gradnas.search.recalibration import run_on_inputs
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
