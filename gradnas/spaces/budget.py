"""Choices with their strengths and costs, for a derivation within a budget.

Most choices are decided one by one, or lie inside operations of others as in a tree: each is a
choice of the knapsack in `gradnas.derivation`. Some cannot be told apart: operations of several
share parameters, or a choice lies inside operations of several others. Their joint decisions are
then listed, and all of them are one choice of the knapsack. So the result stays exact.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from torch import Tensor

from gradnas.derivation import (
    Option,
    Picks,
    cheapest_cost,
    log_strength,
    ranked_within,
    swaps_within,
)
from gradnas.latency import Costs, Place, When

MOST_JOINT = 20_000  # decisions that are listed

D = TypeVar("D")  # what is decided


@dataclass(frozen=True)
class Knapsack:
    """The options of every choice, and what the joint ones mean.

    Attributes:
        options: name -> score `log p - max log p`, cost, and the choices inside. Joint choices are
            named `a + b`.
        joint: name of a joint choice -> the decisions that its options stand for.
    """

    options: Mapping[str, Sequence[Option]]
    joint: Mapping[str, Sequence[Picks]]

    def cheapest(self) -> float:
        """The least that any architecture costs, beside what all spend."""
        return cheapest_cost(self.options)

    def ranked(self, budget: float) -> Iterator[Picks]:
        """All architectures within a budget, the most probable first."""
        for picks in ranked_within(self.options, budget):
            yield self._single(picks)

    def swaps(self, budget: float) -> Iterator[tuple[str, Picks]]:
        """For every choice the most probable architecture that differs from the best in it alone.

        Those that are decided jointly are told apart here: choice by choice.

        Raises:
            ValueError: no architecture is within the budget.
        """
        best = next(ranked_within(self.options, budget))
        for name, picks in swaps_within(self.options, budget, best):
            if name not in self.joint:
                yield name, self._single(picks)
        for group in self.joint:
            if group in best:
                yield from self._swaps_of(group, best, budget)

    def _swaps_of(self, group: str, best: Picks, budget: float) -> Iterator[tuple[str, Picks]]:
        now = self.joint[group][best[group]]
        for name, column in now.items():
            options = []
            for index, decision in enumerate(self.joint[group]):
                others = [other for other in now if other != name and other in decision]
                is_swap = decision.get(name, column) != column
                if is_swap and all(decision[other] == now[other] for other in others):
                    options.append(index)
            options.sort(key=lambda index: -self.options[group][index].score)  # stable
            for index in options:
                # The rest stays: with one option left for each group, the first is what it costs.
                fixed = {
                    other: [self.options[other][kept]]
                    for other, kept in best.items()
                    if other in self.options
                }
                fixed[group] = [self.options[group][index]]
                total = cheapest_cost(fixed)
                if total <= budget * (1.0 + 1e-12):
                    yield name, self._single({**best, group: index})
                    break

    def _single(self, picks: Picks) -> Picks:
        single = {}
        for name, index in picks.items():
            if name in self.joint:
                single.update(self.joint[name][index])
            else:
                single[name] = index
        return single


@dataclass(frozen=True)
class Ranking(Generic[D]):
    """The architectures of a space from the most probable down, with what they cost.

    Attributes:
        knapsack: the options of its choices.
        fixed: what every architecture spends.
        decision: what the columns of the chosen operations mean in the space.
    """

    knapsack: Knapsack
    fixed: float
    decision: Callable[[Picks], D]

    def cheapest(self) -> float:
        """The cost of the cheapest architecture."""
        return self.fixed + self.knapsack.cheapest()

    def within(self, budget: float) -> Iterator[D]:
        """The architectures within a budget, in descending order of their strengths' product."""
        for picks in self.knapsack.ranked(budget - self.fixed):
            yield self.decision(picks)

    def swaps(self, budget: float) -> Iterator[D]:
        """For every choice the strongest architecture that differs from the best in it alone."""
        for _, picks in self.knapsack.swaps(budget - self.fixed):
            yield self.decision(picks)


def knapsack(costs: Costs, strengths: Mapping[str, Tensor]) -> Knapsack:
    """The decisions of all choices as options.

    Args:
        strengths: choice name -> strength of each operation, `(O,)`.

    Raises:
        ValueError: choices that cannot be told apart have too many joint decisions; a strength that
            is NaN.
    """
    return _Choices(costs, strengths).knapsack()


class _Choices:
    """Choices by where they are decided and what they cost together."""

    def __init__(self, costs: Costs, strengths: Mapping[str, Tensor]) -> None:
        self.costs = costs
        self.inside = _inside(costs, strengths)
        self.scores: dict[str, list[float]] = {}
        for name, strength_O in strengths.items():
            scores = [log_strength(p) for p in strength_O.detach().double().tolist()]
            # Told from the best score, which so is 0: an option does not lose by the choices inside
            # it, whose probabilities would all be factors below 1.
            best_score = max(scores)
            self.scores[name] = [score - best_score for score in scores]

    def knapsack(self) -> Knapsack:
        options = {}
        joint = {}
        for group, is_tree in self._groups():
            if is_tree:
                options.update(self._level(group, ()))
            else:
                name = " + ".join(group)
                joint[name] = self._decisions(group)
                options[name] = self._joint_options(group, joint[name])
        return Knapsack(options, joint)

    # ---- trees -----------------------------------------------------------------------------------

    def _level(self, group: Sequence[str], chain: When) -> dict[str, list[Option]]:
        """The choices of a group that lie directly inside the operations of `chain`."""
        options = {}
        for name in group:
            if self.inside[name] != {chain}:
                continue
            options[name] = []
            for column, score in enumerate(self.scores[name]):
                here = (*chain, Place(name, 0, column))
                cost = self.costs.nested.get(here, 0.0)
                if not chain:
                    cost = float(self.costs.tables[name][column])
                options[name].append(Option(score, cost, self._level(group, here)))
        return options

    def _groups(self) -> list[tuple[list[str], bool]]:
        """Names that hang together, and whether by nesting alone."""
        groups = _Groups(self.scores)
        entangled: set[str] = set()

        def entangle(names: set[str]) -> None:
            groups.join(names)
            entangled.update(names)

        for name, conditions in self.inside.items():
            around = {place.choice for when in conditions for place in when}
            groups.join({name} | around)
            if not self._is_in_a_tree(conditions):
                entangle({name} | around)
            has_own_cost = bool((self.costs.tables[name] != 0).any())
            if has_own_cost and () not in conditions:
                entangle({name})  # it runs where it is not decided
        for when in self.costs.nested:
            if not self._is_in_a_tree({when}):
                entangle({place.choice for place in when})
        for conditions in self.costs.shared:
            entangle({place.choice for when in conditions for place in when})

        listed = []
        for group in groups.listed():
            listed.append((group, entangled.isdisjoint(group)))
        return listed

    def _is_in_a_tree(self, conditions: Collection[When]) -> bool:
        """Whether it is one, the choice of whose last place lies in the others and only there."""
        if len(conditions) > 1:
            return False
        for when in conditions:
            if when and self.inside[when[-1].choice] != {when[:-1]}:
                return False
        return True

    # ---- joint decisions -------------------------------------------------------------------------

    def _decisions(self, group: Sequence[str]) -> list[Picks]:
        """All joint decisions: an operation of every choice that is reached."""
        open_decisions: list[Picks] = [{}]
        whole: list[Picks] = []
        while open_decisions:
            picks = open_decisions.pop()
            name = self._first_open(group, picks)
            if name is None:
                whole.append(picks)
            else:
                for column in reversed(range(len(self.scores[name]))):
                    open_decisions.append({**picks, name: column})
            if len(open_decisions) + len(whole) > MOST_JOINT:
                raise _too_many(group, self.costs)
        return whole

    def _first_open(self, group: Sequence[str], picks: Picks) -> str | None:
        for name in group:
            is_reached = any(_holds(when, picks) for when in self.inside[name])
            if name not in picks and is_reached:
                return name
        return None

    def _joint_options(self, group: Sequence[str], decisions: Sequence[Picks]) -> list[Option]:
        members = set(group)
        amounts = []
        for when, cost in self.costs.nested.items():
            if when[0].choice in members:
                amounts.append((frozenset({when}), cost))
        for conditions, cost in self.costs.shared.items():
            if next(iter(conditions))[0].choice in members:
                amounts.append((conditions, cost))
        options = []
        for picks in decisions:
            score = 0.0
            total = 0.0
            for name, column in picks.items():
                score += self.scores[name][column]
                total += float(self.costs.tables[name][column])
            for conditions, cost in amounts:
                if any(_holds(when, picks) for when in conditions):
                    total += cost
            options.append(Option(score, total))
        return options


class _Groups:
    """Names in groups that are joined."""

    def __init__(self, names: Mapping[str, object]) -> None:
        self.of = {name: [name] for name in names}

    def join(self, names: set[str]) -> None:
        joined: list[str] = []
        for name in sorted(names):
            joined += [other for other in self.of[name] if other not in joined]
        for name in joined:
            self.of[name] = joined

    def listed(self) -> list[list[str]]:
        """Every group once, with its names in the order in which they were given."""
        groups: list[list[str]] = []
        placed: set[str] = set()
        for name, group in self.of.items():
            if name not in placed:
                groups.append([other for other in self.of if other in group])
                placed.update(group)
        return groups


def _inside(costs: Costs, strengths: Mapping[str, Tensor]) -> dict[str, frozenset[When]]:
    """For every choice the operations that it lies in, a condition for each of its places."""
    places: dict[str, set[When]] = {}
    for when in costs.nested:
        for depth in range(1, len(when)):
            places.setdefault(when[depth].choice, set()).add(when[:depth])
    inside = {}
    for name in strengths:
        known = costs.inside.get(name)
        inside[name] = frozenset(places.get(name, {()})) if known is None else known
    return inside


def _holds(when: When, picks: Picks) -> bool:
    return all(picks.get(place.choice) == place.column for place in when)


def _too_many(group: Sequence[str], costs: Costs) -> ValueError:
    numbers = [len(costs.tables[name]) for name in group]
    most = list(itertools.accumulate(numbers, lambda a, b: a * b))[-1]
    return ValueError(
        f"the {costs.noun} of the choices {', '.join(map(repr, group))} depend on several "
        "decisions at once, because operations of several choices share layers or a choice lies "
        f"inside operations of several others; of their joint decisions ({most:,} at most) "
        f"{MOST_JOINT:,} can be listed, so nothing can be derived within a budget: give the "
        "choices layers and places of their own, or one name"
    )
