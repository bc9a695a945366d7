"""Search health: whether a search is on its way to an architecture, told while it runs.

How much of the decision has no weights (searches by gradient are known to collapse to skip
connections), how decided the alphas are, whether the decision still changes, and how sharp the
validation loss is in the alphas. What is wrong is said in one sentence. Nothing of the search
changes by it but for a guard that stops, no random number of the search is drawn, and what is
measured when follows from steps and not from the clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from gradnas.architectures.base import Architecture
from gradnas.runs import Record, State
from gradnas.search import health_words
from gradnas.search.bound_net import NetLoss
from gradnas.search.collapse import Collapse, collapse
from gradnas.search.gap import Gap
from gradnas.search.passes import Passes
from gradnas.search.sharpness import ASKED, LAG, SHARE, Growth, Sharpness
from gradnas.search.signals import (
    NEAR_EQUAL,
    Chance,
    Way,
    Weightless,
    weightless,
)
from gradnas.settings.formats import Guard
from gradnas.spaces.base import Supernet

MOSTLY = 0.5  # share of a decision that changes within LAG epochs, above which it is not settled


def check_guard(guard: str) -> None:
    """ValueError for another word than those of a guard."""
    if guard not in get_args(Guard):
        raise ValueError(f"guard must be 'warn', 'stop' or 'off', not {guard!r}")


@dataclass(frozen=True)
class Stop:
    """Where the guard has ended a search.

    Attributes:
        after: finished epochs.
        decision: finished epochs at the decision that was taken.
    """

    after: int
    decision: int


def _chosen(supernet: Supernet, decision: Architecture) -> list[str]:
    """What was decided, operation by operation, each with where it stands."""
    try:
        active = supernet.columns_of(decision)
    except ValueError:  # a supernet of a user's own need not say
        return [f"{place} {what}" for place, what in decision.parts().items()]
    names = supernet.operation_names()
    chosen = []
    for choice, rows in active.items():
        own = names.get(choice)
        for edge, columns in enumerate(rows):
            for column in columns:
                chosen.append(f"{choice} {edge} {column if own is None else own[column]}")
    return chosen


def _agreement(chosen: Sequence[list[str]]) -> float | None:
    """The share of the last decision that was so `LAG` epochs before; None of fewer decisions."""
    if len(chosen) <= LAG:
        return None
    now = chosen[-1]
    before = set(chosen[-1 - LAG])
    return sum(own in before for own in now) / max(len(now), 1)


def _copies(passes: Passes) -> dict[str, Tensor]:
    """All that learns as alphas, on the CPU."""
    alphas = passes.alphas.items()
    return {name: alpha.detach().to("cpu", copy=True) for name, alpha in alphas}


class Health:
    """The health of a search.

    Args:
        passes: of the search.
        has_cost: whether the search has a cost; what has no weights may then be what it asks for.

    Attributes:
        guard: `"warn"`, `"stop"`, or `"off"`: then nothing is measured that costs anything, and
            nothing is said. It is off until a loop with epochs sets it.
        sharpness: of its loss in the alphas.
        trouble: what is wrong, in a sentence; None where nothing is.
        news: the same, where it was not so after the epoch before, and there is one to come.
        gap: between the mixture and the derived network; whoever has measured them tells it.
        stopped: by the guard.
        few: whether the decision had hardly any weights, or lets nothing through, after every epoch
            that was taken note of.
        collapsed: after the last epoch; None where it was not.
    """

    def __init__(self, passes: Passes, has_cost: bool) -> None:
        # Not the search: it holds this, and would live on until Python collects cycles.
        self.passes = passes
        self.has_cost = has_cost
        self.guard: Guard = "off"
        self.sharpness = Sharpness(passes)
        self.trouble: str | None = None
        self.stopped: Stop | None = None
        self.collapsed: Collapse | None = None
        self._is_blind = False  # what was decided last
        self._late: Collapse | None = None  # after the last epoch, whether it lasts or not
        self._kind: str | None = None  # of the trouble
        self.news: str | None = None
        self.gap = Gap()
        self._free = passes.supernet.weightless()
        self._chance = Chance(passes.supernet, self._free)
        self._begin()

    def _begin(self) -> None:
        """Take note of epochs from the present one on."""
        self._first = self.passes.schedule.epoch
        self._chosen: list[list[str]] = []  # what was decided after every epoch, edge by edge
        self.few: list[bool] = []  # whether that has hardly any weights
        self._alphas = [_copies(self.passes)]  # now, and after every epoch
        self._follow()

    def _follow(self) -> None:
        """Follow the way of the alphas of operations, from what is known of it."""
        names = list(self.passes.supernet.alphas)
        history = [{name: alphas[name] for name in names} for alphas in self._alphas]
        self._way = Way(self.passes.relaxation, history)

    def watch(self, guard: Guard) -> None:
        """From now on measure, and act as the guard says."""
        check_guard(guard)
        self.guard = guard
        self.sharpness.share = ASKED if guard == "stop" else SHARE
        # Epochs of a loop of the user's own were not taken note of.
        if not self._chosen or self._first + len(self._chosen) != self.passes.schedule.epoch:
            self._begin()

    # ---- while it runs ---------------------------------------------------------------------------

    def before_alphas(self, valid_loss: NetLoss) -> bool:
        """Measure what a step of the alphas would minimise. Whether the network was run."""
        return self.guard != "off" and self.sharpness.measure(valid_loss)

    def finish_epoch(self, decision: Architecture) -> Record:
        """Take note of an epoch that has ended; returns what its metrics tell of the health.

        Args:
            decision: what the alphas stand for now.
        """
        passes = self.passes
        self._chosen.append(_chosen(passes.supernet, decision))
        self._alphas.append(_copies(passes))
        self._way.add({name: self._alphas[-1][name] for name in passes.supernet.alphas})
        found: Record = {}
        free = weightless(passes.supernet, decision, self._free)
        if free is not None:
            found["weightless_share"] = free.share
        entropy = self._way.last.entropy
        if entropy is not None:
            found["relative_entropy"] = entropy
        agreement = _agreement(self._chosen)
        self._is_blind = passes.supernet.is_blind(decision)
        self.few.append(self.guard != "off" and (self._is_blind or self._has_few_weights(free)))
        waits = passes.schedule.alphas_wait or bool(passes.supernet.fixed)
        warmup = passes.schedule.warmup_epochs
        self.collapsed = None if waits else collapse(self.few, self._first, warmup)
        # After the last epoch nothing can show that it lasts; who has asked for it to be stopped
        # is given the decision of before.
        ends = self.guard == "stop" and passes.schedule.is_over
        self._late = None if waits or not ends else collapse(self.few, self._first, warmup, 0)
        if agreement is not None:
            found["agreement"] = agreement
        measured = self.sharpness.finish_epoch()
        if measured is not None and measured.is_settled:
            found["hessian_eigenvalue"] = measured.largest
            found["hessian_residual"] = measured.residual
        if self.guard != "off":
            kind, self.trouble = self._found(free, agreement)
            # After the last epoch it is said with the results.
            is_over = passes.schedule.is_over
            self.news = self.trouble if kind != self._kind and not is_over else None
            self._kind = kind
            if self.trouble is not None:
                found["health"] = self.trouble
            if self.gap.sentence is not None and is_over:
                found["gap"] = self.gap.sentence
        return found

    # ---- what is wrong ---------------------------------------------------------------------------

    def _found(
        self, free: Weightless | None, agreement: float | None
    ) -> tuple[str | None, str | None]:
        """The kind of what is wrong after this epoch, and the sentence: the first that is."""
        if self._is_blind:
            return "blind", health_words.BLIND
        grown = self.growth()
        if grown is not None:
            return "sharp", health_words.sharp(grown)
        if self.collapsed is not None:
            return "collapsed", health_words.collapsed(self.collapsed)
        if free is not None and self.few[-1]:
            return "weightless", health_words.without_weights(free)
        schedule = self.passes.schedule
        if schedule.alphas_wait or self.passes.supernet.fixed:
            return None, None  # nothing is decided by the alphas
        epochs = schedule.epochs
        is_late = epochs is not None and schedule.epoch >= (epochs + schedule.warmup_epochs) / 2
        undecided = self.undecided if is_late else None
        if undecided is not None:
            return "undecided", undecided
        # Before the end it may well change, and so it may soon after a warm-up.
        is_over = epochs is not None and schedule.epoch >= epochs > schedule.warmup_epochs + LAG
        if is_over and agreement is not None and agreement < MOSTLY:
            return "unsettled", health_words.unsettled(agreement)
        return None, None

    def _has_few_weights(self, free: Weightless | None) -> bool:
        """Whether hardly any random architecture has so little that has weights."""
        # Within a budget, or with a cost, what has no weights may be what was asked for.
        if free is None or self.has_cost:
            return False
        # While the alphas go no way, what is strongest is chance and nothing collapses.
        return self._way.has_moved and self._chance.is_unlikely(free.share)

    def growth(self) -> Growth | None:
        """How the loss has become sharper than it should; None where it has not."""
        # Where a selection has decided edges, it is another loss than before.
        if self.passes.supernet.fixed:
            return None
        return self.sharpness.growth(self.passes.schedule.epochs, self._first)

    @property
    def undecided(self) -> str | None:
        """A sentence where the alphas go no way, so that nothing is decided; else None."""
        entropy = self._way.last.entropy
        if entropy is None or entropy < NEAR_EQUAL:
            return None
        decided = self._way.decided
        if decided is None or decided.rows > decided.chance:
            return None
        is_over = self.passes.schedule.epochs is None or self.passes.schedule.is_over
        every = self.passes.schedule.alpha_every
        return health_words.undecided(decided, entropy, is_over, every)

    # ---- the guard -------------------------------------------------------------------------------

    @property
    def pending(self) -> Growth | Collapse | None:
        """Why the guard is to take an earlier decision now; None where it is not, nor twice."""
        if self.guard != "stop" or self.stopped is not None:
            return None
        found = self.growth()
        if found is not None:
            # Neither is a decision good that is as after a collapse.
            few = self.few[: found.epochs - self._first]
            while few and few[-1]:
                few.pop()
            found = found._replace(epochs=self._first + len(few)) if few else None
        return found or self.collapsed or self._late

    def act(self) -> bool:
        """After an epoch and its metrics: end the search, where the guard is to.

        The alphas are then those of the last decision that was good. After the last epoch too,
        where there is nothing to end.
        """
        schedule = self.passes.schedule
        found = self.pending
        if found is None:
            return False
        self.stopped = Stop(schedule.epoch, found.epochs)
        rounds_to_come = schedule.selection_epochs > 0
        self.trouble = health_words.stopped(found, schedule.epoch, schedule.epochs, rounds_to_come)
        with torch.no_grad():
            for name, alpha in self._alphas[found.epochs - self._first].items():
                self.passes.alphas[name].copy_(alpha)
        return True

    def results(self) -> Record:
        """What the results of the whole search tell of it."""
        found: Record = {}
        if self.trouble is not None:
            found["health"] = self.trouble
        elif self._is_blind:  # with the guard off as well: it is of the result, not of its way
            found["health"] = health_words.BLIND
        # Where the guard has stopped, it is of another decision.
        if self.gap.sentence is not None and self.guard != "off" and self.stopped is None:
            found["gap"] = self.gap.sentence
        if self.stopped is not None:
            found["stopped"] = dict(vars(self.stopped))
        if self.guard != "off" and not self.sharpness.series:
            found["no_hessian"] = self.sharpness.reason or health_words.TOO_SHORT
        return found

    # ---- state -----------------------------------------------------------------------------------

    def state_dict(self) -> State:
        """Tensors and plain values."""
        return {
            "sharpness": self.sharpness.state_dict(),
            "trouble": self.trouble,
            "kind": self._kind,
            "gap": self.gap.state_dict(),
            "stopped": None if self.stopped is None else dict(vars(self.stopped)),
            "first": self._first,
            "chosen": [list(chosen) for chosen in self._chosen],
            "few": list(self.few),
            "blind": self._is_blind,
            "alphas": {
                name: torch.stack([alphas[name] for alphas in self._alphas])
                for name in self._alphas[-1]
            },
        }

    def load_state_dict(self, state: State | None, columns: Mapping[str, list[int]]) -> None:
        """The inverse of `state_dict`; of a state that has none (None) the health begins now.

        Args:
            columns: choice -> where the state has the columns of its alpha, where it is elsewhere.
        """
        if state is None:
            self._begin()
            return
        self.sharpness.load_state_dict(state["sharpness"])
        if columns:
            self.sharpness.begin_anew()
        self.trouble = state["trouble"]
        self._kind = state["kind"]
        self.gap.load_state_dict(state.get("gap"))
        self.stopped = None if state["stopped"] is None else Stop(**state["stopped"])
        self._first = state["first"]
        self._chosen = [list(chosen) for chosen in state["chosen"]]
        # A state of an earlier version has none: the rule begins with the coming epoch.
        self.few = list(state.get("few", [False] * len(self._chosen)))
        self._is_blind = state.get("blind", False)
        stacked = dict(state["alphas"])
        for name, places in columns.items():
            stacked[name] = stacked[name][..., places]
        self._alphas = []
        for place in range(len(self._chosen) + 1):
            self._alphas.append({name: own[place] for name, own in stacked.items()})
        self._follow()
