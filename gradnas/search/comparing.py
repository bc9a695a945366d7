"""Measuring the architectures of a search beside each other: how a verdict comes about.

Nothing of the search changes by it: no weight, no buffer, no random state. What is measured follows
from counts alone (of examples, not of seconds), so the same search has the same verdict on any
machine.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from gradnas.architectures.base import Architecture
from gradnas.modules.draws import Draw
from gradnas.objectives.cost import ExpectedCost
from gradnas.randomness import generator_for
from gradnas.relaxations import Relaxation
from gradnas.search.chosen import Chosen
from gradnas.search.costs import Spending
from gradnas.search.passes import Passes
from gradnas.search.result import SearchResult
from gradnas.search.schedule import Schedule
from gradnas.search.verdict import (
    Candidate,
    Difference,
    Judged,
    Scores,
    State,
    Verdict,
    Yardstick,
)
from gradnas.search.verdict_limits import (
    ASKED,
    CANDIDATES,
    SHARE,
    Limit,
    planned_within,
    work_of,
)
from gradnas.selections import Selection
from gradnas.spaces.affordable import cost_of, likeliest, swaps
from gradnas.spaces.base import Supernet

RANDOM = 3  # stream of random numbers: which random architectures are measured
WORST = 1e30
MOST_DRAWS = 200  # of random architectures, to find some within a budget
MORE_DRAWS = 20  # for each of many that are wanted


class Compared(Protocol):
    """What a comparison asks of a search."""

    supernet: Supernet
    relaxation: Relaxation
    schedule: Schedule
    passes: Passes
    cost: ExpectedCost | None
    selection: Selection
    chosen: Chosen | None
    spending: Spending | None

    def evaluation_draw(self) -> Draw: ...


class Judge(ABC):
    """Measures architectures on held-out batches, always the same.

    Attributes:
        yardstick: what is measured.
        sizes: examples of each held-out batch.
        extra: examples that are read before each architecture is measured, for BatchNorm.
        share: what a pass of a derived network takes of one of the mixture.
        copying: what making a derived network takes, in passes of the mixture over one example.
        prepared: what was spent before the first architecture is measured, in the same.
        train_size: examples of a step of the weights.
        of_run: whether the search is that of a program with a run folder, whose user types
            options and holds no `Search`.
        held_out: whether the weights have not learned from what is measured on.
    """

    yardstick: Yardstick
    sizes: Sequence[int]
    extra: int = 0
    share: float = 1.0
    copying: float = 0.0
    prepared: float = 0.0
    train_size: int = 0
    of_run: bool = False
    held_out: bool = True

    @property
    def where(self) -> str:
        """What a measure is of, behind the number of its examples."""
        return f"held-out {self.yardstick.noun} with the weights of the search"

    def by_score(self, drawings: int) -> Judge:
        """One that scores networks which were never trained, for so many drawings of weights.

        Raises:
            ValueError: nothing scores the networks of such data.
        """
        del drawings
        raise ValueError("nothing scores networks without a training on such data")

    def check(self, decision: Architecture) -> None:
        """ValueError where an architecture cannot be measured; a judge by itself can any."""
        del decision

    def effort(self, batches: int) -> float:
        """What one architecture takes, in passes of the mixture over one example."""
        num_examples = sum(self.sizes[:batches]) + self.read_before(batches)
        return self.share * num_examples + self.copying

    def read_before(self, batches: int) -> int:
        """Examples of `extra` that are read where so many batches are measured on."""
        del batches
        return self.extra

    def limit(self, schedule: Schedule, share: float) -> Limit:
        """What a verdict may take: a share of what the search has done."""
        valid_size = sum(self.sizes) / max(len(self.sizes), 1)
        return Limit(share, share * work_of(schedule, self.train_size, valid_size))

    def scores(self, values: Sequence[float], weights: Sequence[float]) -> Scores:
        """The measure of an architecture, group by group.

        A loss that overflows counts as one of a finite size, so that files can hold it.
        """
        worst = -WORST if self.yardstick.higher_is_better else WORST
        finite = [value if math.isfinite(value) else worst for value in values]
        return Scores(tuple(finite), tuple(map(float, weights)))

    @abstractmethod
    def mixture(self, batches: int) -> Scores | None:
        """Of the supernet's mixture; None where the weights do not learn on mixtures."""

    @abstractmethod
    def architecture(self, decision: Architecture, batches: int) -> Scores:
        """Of one architecture with the weights of the search."""


def compare(
    search: Compared,
    result: SearchResult,
    judge: Judge,
    candidates: int,
    random: int,
    limit: Limit | None = None,
) -> Verdict:
    """The derived architecture of a search beside others.

    Args:
        result: of the search, as it stands.
        candidates: the number of the likeliest architectures to measure, the derived one included.
        random: of random ones.
        limit: what this may take; None: whatever it takes.
    """
    comparison = Comparison(search, result, judge)
    plan, limit = planned_within(judge, candidates + random, limit)
    allowed = None if limit is None else limit.passes
    scores = comparison.measured(result.decision, plan.batches)
    mixture = judge.mixture(plan.batches)

    number_random = min(random, max(plan.evaluations - 1, 0) // 3)
    if plan.evaluations >= candidates + random:
        number_random = random
    comparison.likeliest(min(candidates, plan.evaluations - number_random), plan.batches)
    drawn = comparison.random(number_random, plan.batches)
    spare: float | None = None
    if allowed is not None:
        each = judge.effort(plan.batches)
        spent = (
            judge.prepared
            + sum(judge.sizes[: plan.batches])
            + (len(comparison.found) + len(drawn)) * each
        )
        spare = (allowed - spent) / each
    if candidates > 1:
        comparison.swaps(None if spare is None else max(int(spare), 0), plan.batches)
    measured_all = comparison.has_all or comparison.num_likeliest >= candidates
    if limit and not comparison.notes and not (measured_all and len(drawn) >= random):
        share = f"{100 * limit.share:g}%"
        comparison.notes.append(
            f"within {share} of the work of the search {comparison.num_likeliest} of "
            f"{candidates} candidates and {len(drawn)} of {random} random architectures were "
            f"measured; {_how_to_measure_more(limit, judge.of_run)}"
        )
    return Verdict(
        measure=judge.yardstick,
        examples=round(sum(scores.weights)),
        groups=len(scores.values),
        mixture=None if mixture is None else mixture.mean,
        derived=scores.mean,
        candidates=tuple(comparison.candidates()),
        likeliest=comparison.num_likeliest,
        random=tuple(own.mean for own in drawn),
        choices=tuple(comparison.judged()),
        has_all=comparison.has_all,
        recalibrated=judge.extra > 0,
        moved=result.moved,
        notes=tuple(comparison.notes),
        held_out=judge.held_out,
        taken=comparison.was_taken,
    )


def _how_to_measure_more(limit: Limit, of_run: bool) -> str:
    asked = f"candidates={CANDIDATES}"
    if of_run:
        asked = f"--candidates {CANDIDATES} (in Python {asked})"
    more = f"with {asked} they may take {ASKED:.0%}, and " if limit.share == SHARE else ""
    return more + ("a longer search allows more" if of_run else "search.compare measures all")


class Comparison:
    """The architectures that were measured, the derived one first.

    Attributes:
        found: their measures.
        notes: what could not be measured, and why.
    """

    def __init__(self, search: Compared, result: SearchResult, judge: Judge) -> None:
        self.search = search
        self.judge = judge
        self.result = result
        self.derived = result.decision
        self.has_all = False
        self.found: dict[Architecture, Scores] = {}
        self.num_likeliest = 1
        self.notes: list[str] = []
        self._around: Architecture | None = None  # where the derived one is not the likeliest

    @property
    def budget(self) -> float | None:
        """What an architecture may cost; None where there is no budget."""
        cost = self.search.cost
        return cost.limit if cost is not None and cost.is_budget else None

    def measured(self, decision: Architecture, batches: int) -> Scores:
        if decision not in self.found:
            self.found[decision] = self.judge.architecture(decision, batches)
        return self.found[decision]

    def likeliest(self, number: int, batches: int) -> None:
        """Measure so many of the likeliest; the derived one is the first."""
        try:
            self.has_all = True
            for place, decision in enumerate(self._listed(likeliest)):
                if place == 0 and decision != self.derived:
                    self._around = self.derived  # something else than the alphas took it
                if decision not in self.found and len(self.found) >= number:
                    self.has_all = False
                    break
                self.measured(decision, batches)
        except ValueError as error:
            self.has_all = False
            self.notes.append(f"no candidates were compared: {error}")
        self.num_likeliest = len(self.found)

    def swaps(self, number: int | None, batches: int) -> None:
        """For each choice that no candidate tells of, measure the likeliest alternative."""
        told = {name for name, _ in self._single_changes()}
        count = 0
        try:
            for decision in self._listed(swaps, self._around):
                changed = changed_parts(self.derived.parts(), decision.parts())
                is_new = len(changed) == 1 and changed[0] not in told
                if not is_new or decision in self.found:
                    continue
                if number is not None and count >= number:
                    break
                self.measured(decision, batches)
                count += 1
        except ValueError as error:
            if not self.notes:
                self.notes.append(f"no candidates were compared: {error}")

    def _listed(self, of: Any, *around: Architecture | None) -> Iterator[Architecture]:
        search = self.search
        costs = None if search.spending is None else search.spending.costs
        return of(search.supernet, search.relaxation, costs, self.budget, *around)

    def more(self, number: int, batches: int) -> list[Architecture]:
        """Measure so many random ones that were not measured yet, and keep them as found.

        Raises:
            ValueError: the supernet draws none.
        """
        generator = generator_for(self.search.passes.seed, RANDOM)
        drawn: list[Architecture] = []
        for decision in self._drawn(generator, max(MOST_DRAWS, MORE_DRAWS * number)):
            if len(drawn) >= number:
                break
            if decision not in self.found:
                self.measured(decision, batches)
                drawn.append(decision)
        return drawn

    def random(self, number: int, batches: int) -> list[Scores]:
        """Measure so many random architectures, within the budget if there is one."""
        found = []
        generator = generator_for(self.search.passes.seed, RANDOM)
        try:
            for decision in itertools.islice(self._drawn(generator), number):
                known = self.found.get(decision)
                found.append(known or self.judge.architecture(decision, batches))
        except ValueError as error:
            self.notes.append(f"no random architectures were compared: {error}")
        if number and len(found) < number and not self.notes:
            self.notes.append(
                f"of {MOST_DRAWS} random architectures {len(found)} are within the budget"
            )
        return found

    def _drawn(self, generator: Any, draws: int = MOST_DRAWS) -> Iterator[Architecture]:
        supernet = self.search.supernet
        spending = self.search.spending
        for _ in range(draws):
            decision = supernet.random_decision(generator)
            if (
                self.budget is None
                or spending is None
                or cost_of(supernet, decision, spending.costs) <= self.budget * (1 + 1e-12)
            ):
                yield decision

    @property
    def was_taken(self) -> bool:
        """Whether the derived one was taken by measuring on the held-out examples."""
        search = self.search
        if search.selection.measures:
            return True
        chosen = search.chosen
        is_chosen = chosen is not None and chosen.decision == self.derived
        return is_chosen and not search.selection.drawings

    # ---- what follows ----------------------------------------------------------------------------

    def _difference(self, one: Architecture, other: Architecture) -> Difference:
        higher = self.judge.yardstick.higher_is_better
        return Difference.of(self.found[one], self.found[other], higher)

    def candidates(self) -> Iterator[Candidate]:
        for decision, scores in self.found.items():
            gain = self._difference(decision, self.derived)
            noise = None if gain.noise == float("inf") else gain.noise
            if decision == self.derived:
                noise = 0.0
            yield Candidate(decision.to_text(), scores.mean, gain.value, noise, decision)

    def _single_changes(self) -> Iterator[tuple[str, Architecture]]:
        """The measured architectures that differ from the derived one in one choice, and which."""
        own = self.derived.parts()
        for decision in self.found:
            changed = changed_parts(own, decision.parts())
            if len(changed) == 1:
                yield changed[0], decision

    def judged(self) -> Iterator[Judged]:
        changes: dict[str, list[Architecture]] = {}
        for name, decision in self._single_changes():
            changes.setdefault(name, []).append(decision)
        for name, chosen in self.derived.parts().items():
            probability = self._probability(name, chosen)
            if name not in changes:
                yield Judged(name, chosen, probability, None, 0.0, None, "not compared")
                continue
            leads = {other: self._difference(self.derived, other) for other in changes[name]}
            best = min(leads, key=lambda other: leads[other].value)
            # Of several alternatives the one that comes closest, given the noise, decides.
            closest = min(leads.values(), key=lambda lead: lead.value - lead.noise)
            state: State = "undecided"
            if closest.is_clear:
                # What was taken because it is the best on these examples is the best on them.
                can_confirm = self.judge.held_out and not self.was_taken
                state = "decided" if can_confirm else "not confirmed"
            if -leads[best].value > leads[best].noise:
                state = "contradicted"
            noise = None if leads[best].noise == float("inf") else leads[best].noise
            alternative = best.parts()[name]
            yield Judged(name, chosen, probability, alternative, leads[best].value, noise, state)

    def _probability(self, name: str, chosen: str) -> float | None:
        table = self.result.probabilities.get(name)
        return table.get(chosen) if isinstance(table, Mapping) else None


def changed_parts(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """The choices that two architectures both make, and make otherwise.

    What only one of them reaches follows from those.
    """
    return [name for name, chosen in one.items() if other.get(name, chosen) != chosen]
