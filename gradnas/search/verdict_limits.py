"""What a verdict may take of a search, and what is measured within that: counted, not timed."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from gradnas.search.schedule import Schedule
from gradnas.search.verdict import FEWEST_GROUPS

SHARE = 0.045  # of the work of the search, that its verdict may take where nobody asked for it
ASKED = 0.1  # where somebody did, with a number of candidates
CANDIDATES = 8  # the likeliest architectures that are measured where nobody says how many
FEWEST_EXAMPLES = 256  # that each architecture is measured on, where there are so many
# In a search so short that not even so few architectures can be measured on them: so many examples,
# in as many batches as the noise needs.
FEWEST_ARCHITECTURES = 2
LEAST_EXAMPLES = 64
# A step of weights or alphas is a forward and a backward pass, which takes twice as long. Of a
# gradient with more passes than these two that is less than it does, so the share is kept.
PASSES_OF_A_STEP = 3.0


@dataclass(frozen=True)
class Limit:
    """What a verdict may take.

    Attributes:
        share: of the work of the search.
        passes: forward passes of the mixture over one example.
    """

    share: float
    passes: float


def wanted_of(candidates: int | None) -> tuple[int, float]:
    """How many candidates, and what share of the work of a search they may take.

    Args:
        candidates: as they were asked for; None: nobody did.
    """
    return (CANDIDATES, SHARE) if candidates is None else (candidates, ASKED)


class Measured(Protocol):
    """What is asked of a judge."""

    @property
    def sizes(self) -> Sequence[int]: ...
    @property
    def prepared(self) -> float: ...
    def effort(self, batches: int) -> float: ...


@dataclass(frozen=True)
class Plan:
    """What may be measured.

    Attributes:
        batches: held-out batches for each architecture.
        evaluations: of architectures, in all.
    """

    batches: int
    evaluations: int


def work_of(schedule: Schedule, train_size: float, valid_size: float) -> float:
    """What a search has done so far, in forward passes of one example."""
    waiting = schedule.warmup_epochs * (schedule.steps_per_epoch or 0)
    alpha_steps = max(0, schedule.steps - waiting) / schedule.alpha_every
    return PASSES_OF_A_STEP * (schedule.steps * train_size + alpha_steps * valid_size)


def planned(judge: Measured, wanted: int, allowed: float | None) -> Plan:
    """As many evaluations as are wanted, within so many forward passes of one example.

    Fewer examples first, down to a number that still says something; then fewer evaluations; of the
    last few rather on still fewer examples.
    """
    number = len(judge.sizes)
    if allowed is None:
        return Plan(number, wanted)
    totals = list(itertools.accumulate(judge.sizes))

    def evaluations(batches: int) -> int:
        left = allowed - judge.prepared - totals[batches - 1]
        return int(left // judge.effort(batches))

    def batches_with(examples: int) -> int:
        return next((k + 1 for k, total in enumerate(totals) if total >= examples), number)

    fewest = batches_with(FEWEST_EXAMPLES)
    least = min(max(batches_with(LEAST_EXAMPLES), FEWEST_GROUPS), fewest)
    for batches in range(number, fewest - 1, -1):
        if evaluations(batches) >= wanted:
            return Plan(batches, wanted)
    for batches in range(fewest, least - 1, -1):
        if evaluations(batches) >= min(FEWEST_ARCHITECTURES, wanted):
            return Plan(batches, min(evaluations(batches), wanted))
    for batches in range(least, 0, -1):
        if evaluations(batches) >= 1:
            return Plan(batches, min(evaluations(batches), wanted))
    return Plan(1, 1)  # the derived network in any case


def planned_within(judge: Measured, wanted: int, limit: Limit | None) -> tuple[Plan, Limit | None]:
    """The plan of a verdict, and its limit: a larger one, where the usual one compares nothing.

    A verdict that compares the derived network with nothing else says nothing: rather than that, it
    may take what one may take that was asked for.
    """
    plan = planned(judge, wanted, None if limit is None else limit.passes)
    fewest = min(FEWEST_ARCHITECTURES, wanted)
    if limit is None or plan.evaluations >= fewest or limit.share >= ASKED:
        return plan, limit
    more = Limit(ASKED, limit.passes * ASKED / limit.share)
    larger = planned(judge, wanted, more.passes)
    if larger.evaluations < fewest:
        return plan, limit
    return Plan(larger.batches, fewest), more
