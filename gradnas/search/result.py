"""What a search stands for: its decision, the network of it, the file of it."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from gradnas.architectures.base import Architecture
from gradnas.architectures.shown import Shown
from gradnas.latency import Costs
from gradnas.objectives.cost import ExpectedCost
from gradnas.relaxations import Relaxation
from gradnas.search.chosen import Chosen
from gradnas.search.recalibration import recalibrate as recalibrate_norms
from gradnas.search.recalibration import run_on_inputs
from gradnas.search.schedule import Schedule
from gradnas.search.verdict import Verdict
from gradnas.selections import Selection
from gradnas.spaces.affordable import cost_of, likeliest
from gradnas.spaces.base import Supernet, Weights


@dataclass(frozen=True)
class SearchResult(Shown):
    """What the search stands for at one moment.

    Attributes:
        decision: the architecture.
        supernet: whose decision it is.
        cost: of a search with a cost, what the decision costs (see `costs.unit`).
        probabilities: choice -> operation -> its probability; of a cell a list of such, one for
            each edge.
        moved: whether the alphas have moved from where they started.
        verdict: what was measured, where `compare` or `fit` did so after the last step.
    """

    decision: Architecture
    supernet: Supernet
    cost: float | None = None
    probabilities: Mapping[str, Any] = field(default_factory=dict)
    moved: bool = True
    verdict: Verdict | None = None

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

    @property
    def undecided(self) -> list[str]:
        """The choices whose alternative is as good, as far as anybody can tell.

        With a verdict those whose alternative is not measurably worse, or not in the way of the
        alphas; what was not compared, or is not confirmed, `verdict.choices` says. Without one
        nothing was measured: those whose probability is within a tenth of the next, and all of
        them where the alphas have not moved.
        """
        if self.verdict is not None:
            return self.verdict.undecided
        names = []
        for name, table in self.probabilities.items():
            if not self.moved or (isinstance(table, Mapping) and _is_close(table)):
                names.append(name)
        return names

    def __str__(self) -> str:
        """The choices as a table, and the verdict, if there is one."""
        if self.verdict is not None:
            return str(self.verdict)
        lines = []
        for name, chosen in self.decision.parts().items():
            table = self.probabilities.get(name)
            shown = ""
            if isinstance(table, Mapping):
                ranked = sorted(table.items(), key=lambda item: -item[1])
                shown = ", ".join(f"{operation} {p:.3f}" for operation, p in ranked)
            lines.append(f"{name}: {chosen}" + (f"  ({shown})" if shown else ""))
        if not self.moved:
            lines.append("undecided: the alphas have hardly moved from where they started")
        elif self.undecided:
            lines.append(f"close calls: {', '.join(self.undecided)}")
        lines.append("not measured: search.compare(train, valid, loss=...) says what is decided")
        return "\n".join(lines)

    def derive(
        self,
        weights: Weights = "keep",
        recalibrate: Iterable[Any] | None = None,
        candidates: int = 1,
    ) -> nn.Module:
        """The plain network of the decision: with the searched weights, or `"fresh"`.

        For a module with choices, fresh weights are those that the module had when the search
        began.

        Args:
            recalibrate: batches, as of the train loader: `(inputs ..., target)` or inputs alone.
                The running statistics of BatchNorms, which are those of the mixture, are replaced
                by their means over these batches, all others in eval mode; nothing else changes,
                and what you froze (eval mode in a network in train mode) stays as it is.
            candidates: take the best of so many of the likeliest architectures, as the verdict has
                measured them, instead of the likeliest.

        Raises:
            ValueError: the module holds what cannot be copied; no batches, or of another form; more
                candidates than were measured.
        """
        if weights not in ("keep", "fresh"):
            raise ValueError(f"weights must be 'keep' or 'fresh', not {weights!r}")
        # A new network begins with random numbers. They come from where the caller's generators
        # stand, and leave those there: a search goes on as if nobody had looked.
        devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
        with torch.random.fork_rng(devices=devices):
            network = self.supernet.derived(self.best_of(candidates), weights)
        if recalibrate is not None:
            recalibrate_norms(network, recalibrate, run_on_inputs)
        return network

    def best_of(self, candidates: int) -> Architecture:
        """The best of so many of the likeliest architectures, by what was measured.

        Raises:
            ValueError: so many were not measured.
        """
        if candidates < 1:
            raise ValueError(f"candidates must be at least 1, not {candidates}")
        if candidates == 1:
            return self.decision
        if self.verdict is None:
            raise ValueError(
                "no candidates were measured since the last step: call search.compare(train, "
                f"valid, loss=..., candidates={candidates}), and take search.result() after it"
            )
        if candidates > self.verdict.likeliest and not self.verdict.has_all:
            raise ValueError(
                f"{self.verdict.likeliest} candidates were measured, not {candidates}: call "
                f"search.compare(train, valid, loss=..., candidates={candidates})"
            )
        best = self.verdict.best(candidates).decision
        assert best is not None
        return best

    def save(self, path: str | Path) -> None:
        """Write the decision as JSON; `gradnas.derive(Net(), path)` makes its network.

        Raises:
            ValueError: it cannot be written; the sentence names the folder that does not exist.
        """
        self.decision.save(path)


UNMOVED = 0.01  # alphas have moved where a probability has changed by more than this share of it


class Decided(Protocol):
    """What a result is read from: a search."""

    supernet: Supernet
    relaxation: Relaxation
    cost: ExpectedCost | None
    costs: Costs | None
    alphas: dict[str, nn.Parameter]
    schedule: Schedule
    start: Mapping[str, Tensor]
    verdict: Verdict | None
    verdict_steps: int
    chosen: Chosen | None
    chosen_steps: int

    def results(self, number: int, budget: float | None = None) -> list[SearchResult]:
        """The most probable architectures within a budget."""


def result_of(search: Decided, budget: float | None = None) -> SearchResult:
    """`Search.result` without its warnings: for looks at a search that goes on."""
    if budget is None and search.chosen is not None and is_of_now(search.chosen_steps, search):
        return described(search, search.chosen.decision)
    # The strongest operation of each choice may be too dear, all of them together.
    if budget is not None or (search.cost is not None and search.cost.is_budget):
        return search.results(1, budget)[0]
    supernet = search.supernet
    if supernet.fixed:
        decided = next(likeliest(supernet, search.relaxation, None, None))
        return described(search, decided)
    return described(search, supernet.decide(search.relaxation))


def is_of_now(steps: int, search: Decided) -> bool:
    """Whether what was measured after so many steps was measured with the weights of now."""
    return steps == search.schedule.steps


def described(search: Decided, decision: Architecture) -> SearchResult:
    """An architecture of a search, with all that a result says of it."""
    supernet = search.supernet
    cost = None if search.costs is None else cost_of(supernet, decision, search.costs)
    now = strengths(search.relaxation, dict(supernet.alphas.items()))
    shown = named_probabilities(now, supernet.operation_names())
    best = search.chosen if is_of_now(search.chosen_steps, search) else None
    is_chosen = best is not None and best.decision == decision
    moved = bool(supernet.fixed) or is_chosen or largest_change(search.start, now) > UNMOVED
    # What was measured before the last step is of other weights.
    verdict = search.verdict if is_of_now(search.verdict_steps, search) else None
    return SearchResult(decision, supernet, cost, shown, moved, verdict)


def strengths(relaxation: Relaxation, alphas: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The probability of every operation, float64 on the CPU, without a graph."""
    found = {}
    for name, alpha in alphas.items():
        found[name] = relaxation.probabilities(alpha.detach().double()).cpu()
    return found


def largest_change(before: Mapping[str, Tensor], now: Mapping[str, Tensor]) -> float:
    """The largest change of a probability, as a share of it."""
    largest = 0.0
    for name, table in before.items():
        change = (now[name] - table).abs() / table.clamp_min(1e-12)
        largest = max(largest, change.max().item())
    return largest


def named_probabilities(
    tables: Mapping[str, Tensor], names: Mapping[str, tuple[str, ...]]
) -> dict[str, Any]:
    """Choice -> operation -> probability; of a table with edges a list of such.

    Of supernets side by side (`EquationGraph`) it is a list of those.
    """
    found: dict[str, Any] = {}
    for name, table in tables.items():
        operations = names.get(name) or tuple(map(str, range(table.shape[-1])))
        found[name] = _named(table, operations)
    return found


def _named(table: Tensor, operations: tuple[str, ...]) -> Any:
    if table.dim() == 1:
        return dict(zip(operations, table.tolist(), strict=True))
    return [_named(row, operations) for row in table]


def _is_close(table: Mapping[str, float]) -> bool:
    """Whether the second is within a tenth of the first."""
    first, second, *_ = sorted(table.values(), reverse=True)
    return second > 0.9 * first


def never_ran(supernet: Supernet[Any]) -> str | None:
    """A sentence on choices that no step has called; None where all were."""
    idle = supernet.idle_choices()
    if not idle:
        return None
    names = ", ".join(repr(name) for name in idle)
    what = "a choice that never ran" if len(idle) == 1 else "choices that never ran"
    return f"{what} in this search: {names}; nothing decided which operation is taken there"


def say_what_was_not_decided(supernet: Supernet[Any]) -> None:
    """Warn of choices that no step has called."""
    sentence = never_ran(supernet)
    if sentence is not None:
        warnings.warn(sentence, stacklevel=3)  # the line that asked for the result


def say_that_nothing_was_measured(selection: Selection) -> None:
    """Warn where candidates are to be measured, and none were since the last step."""
    warnings.warn(
        f"{type(selection).__name__} measures its candidates when the search is over: call "
        "search.choose(train, valid, loss=...) before search.result(), which is the likeliest now",
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
