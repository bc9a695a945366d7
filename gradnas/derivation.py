"""From tables of operation strengths to discrete choices; pure functions.

Legend: E edges, O operations.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor


def best_operation(strength_O: Tensor, excluded: Sequence[int] = ()) -> int:
    """Index of the strongest operation; ties go to the lowest index.

    Raises:
        ValueError: every operation is excluded, or a strength is not a number.
    """
    strengths = _values(strength_O)
    options = [k for k in range(len(strengths)) if k not in excluded]
    if not options:
        raise ValueError("there is no operation to choose: all are excluded")
    return max(options, key=lambda k: strengths[k])  # of equal ones, `max` keeps the first


def top_edges(
    strength_EO: Tensor, predecessors: Sequence[int], excluded: Sequence[int] = (), keep: int = 2
) -> list[tuple[int, int]]:
    """The rule of DARTS for every intermediate node of a cell.

    The strength of an edge is that of its best operation outside `excluded` (`none`); each node
    keeps its `keep` strongest edges, in descending order of strength, ties to the lower
    predecessor; the operation of a kept edge is its best one. `none` keeps its share of the
    softmax, so edges are compared by probability, not by alpha. Source: DARTS (arXiv 1806.09055),
    section 2.4.

    Args:
        strength_EO: rows grouped by node, within a node by predecessor.
        predecessors: number of incoming edges of each node, e.g. (2, 3, 4, 5); sums to E.
        excluded: columns that cannot be chosen.
        keep: edges kept for each node (fewer where a node has fewer predecessors).

    Returns:
        (operation, predecessor) pairs, node after node.

    Raises:
        ValueError: the table has the wrong number of rows, or a strength is not a number.
    """
    num_edges = sum(predecessors)
    if strength_EO.shape[0] != num_edges:
        raise ValueError(
            f"a table for nodes with {list(predecessors)} incoming edges has {num_edges} rows, "
            f"not {strength_EO.shape[0]}"
        )
    chosen: list[tuple[int, int]] = []
    first_row = 0
    for count in predecessors:
        edges = []
        for predecessor in range(count):
            strength_O = strength_EO[first_row + predecessor]
            operation = best_operation(strength_O, excluded)
            edges.append((float(strength_O[operation]), operation, predecessor))
        edges.sort(key=lambda edge: -edge[0])  # stable: ties keep the order of predecessors
        for _, operation, predecessor in edges[:keep]:
            chosen.append((operation, predecessor))
        first_row += count
    return chosen


def log_strength(strength: float) -> float:
    """Natural logarithm of a probability, of 0 that of a tiny number; NaN stays NaN."""
    if math.isnan(strength):
        return math.nan
    return math.log(max(strength, 1e-300))


def _values(strength_O: Tensor) -> list[float]:
    values = strength_O.detach().double().tolist()
    if any(math.isnan(value) for value in values):
        raise ValueError("the alphas hold NaN: nothing can be derived from them")
    return values


# ---- the best combination within a budget --------------------------------------------------------


@dataclass(frozen=True)
class Option:
    """One way to decide a choice: its strength, its cost, and the choices that it opens."""

    score: float
    cost: float
    inside: Mapping[str, Sequence[Option]] = field(default_factory=dict)


Picks = dict[str, int]  # choice -> index of its option, for every choice that is reached


def ranked_within(choices: Mapping[str, Sequence[Option]], budget: float) -> Iterator[Picks]:
    """All combinations of options within a budget, by the sum of their scores; exact.

    The first is the best. It is a multiple-choice knapsack, solved choice by choice: kept is every
    partial sum that no other beats in both cost and score, less those that cannot reach the best
    solution known so far even at the Lagrangian bound of the choices that are left. Nothing is
    rounded to a grid. Ties go to the lower cost, then to the earlier option. With scores `log p -
    max log p`, a budget that does not bind gives the most probable option of every choice.

    Each of the others is found when it is asked for: the best combination is taken away, and what
    is left is divided by the first decision that differs from it; each part is again such a
    problem, with some decisions made and an option less (Lawler, "A procedure for computing the K
    best solutions to discrete optimization problems", Management Science 18(7), 1972).

    Args:
        choices: name -> options. Names are unique, also among the choices inside options.
        budget: in the unit of the costs.

    Raises:
        ValueError: at the first one, if no combination is within the budget; the sentence says what
            the cheapest costs.
    """
    queue: list[tuple[float, float, int, Picks, _Open]] = []
    order = itertools.count()  # of equal combinations, the one that was met first

    def push(left: _Open) -> None:
        best = _solved(choices, budget, left)
        if best is not None:
            heapq.heappush(queue, (-best.score, best.cost, next(order), _joined(best.picks), left))

    push(_Open())
    if not queue:
        least = cheapest_cost(choices)
        raise ValueError(f"no architecture costs at most {budget:g}: the cheapest costs {least:g}")
    while queue:
        *_, picks, left = heapq.heappop(queue)
        yield picks
        # Every other combination of this part differs from `picks` somewhere first: it decides as
        # `picks` does up to there, and there otherwise. A choice comes before those inside its
        # options.
        for name, index in picks.items():
            push(left.without(name, index))
            left = left.with_taken(name, index)


def swaps_within(
    choices: Mapping[str, Sequence[Option]], budget: float, picks: Picks
) -> Iterator[tuple[str, Picks]]:
    """For every choice the best combination within a budget that differs in that choice alone.

    Choices inside its options are decided anew. Nothing for a choice that has no other option left.

    Args:
        picks: a combination of `ranked_within`.
    """
    for name, index in picks.items():
        taken = {other: kept for other, kept in picks.items() if other != name}
        left = _Open(taken, {name: frozenset({index})})
        best = _solved(choices, budget, left)
        if best is not None:
            yield name, _joined(best.picks)


def cheapest_cost(choices: Mapping[str, Sequence[Option]]) -> float:
    """The least that any combination of options costs."""
    total = 0.0
    for options in choices.values():
        total += min(option.cost + cheapest_cost(option.inside) for option in options)
    return total


@dataclass(frozen=True)
class _Open:
    """What may still be decided: some choices are made, and some options of others are gone."""

    taken: Mapping[str, int] = field(default_factory=dict)
    gone: Mapping[str, frozenset[int]] = field(default_factory=dict)

    def allows(self, name: str, index: int) -> bool:
        is_taken = self.taken.get(name, index) == index
        return is_taken and index not in self.gone.get(name, ())

    def without(self, name: str, index: int) -> _Open:
        gone = self.gone.get(name, frozenset()) | {index}
        return _Open(self.taken, {**self.gone, name: gone})

    def with_taken(self, name: str, index: int) -> _Open:
        return _Open({**self.taken, name: index}, self.gone)


class _Pick(NamedTuple):
    """One decision."""

    name: str
    index: int


# Decisions, in the order in which they were made. A tree, because partial sums share theirs: a sum
# of two holds the decisions of the second as one part.
_Tree = tuple["_Pick | _Tree", ...]


class _State(NamedTuple):
    """Cost and score of some decisions."""

    cost: float
    score: float
    picks: _Tree


def _plus(one: _State, other: _State) -> _State:
    return _State(one.cost + other.cost, one.score + other.score, (*one.picks, other.picks))


def _joined(tree: _Tree) -> Picks:
    picks: Picks = {}
    for part in tree:
        if isinstance(part, _Pick):
            picks[part.name] = part.index
        else:
            picks.update(_joined(part))
    return picks


def _solved(choices: Mapping[str, Sequence[Option]], budget: float, left: _Open) -> _State | None:
    """The best combination of what is left; None if there is none within the budget."""
    groups = [_flattened(name, options, left) for name, options in choices.items()]
    # Costs add up in another order here than where the budget was set: a budget that is exactly
    # the cost of a combination has to let it through.
    limit = budget * (1.0 + 1e-12)
    if not all(groups):
        return None
    if sum(min(state.cost for state in group) for group in groups) > limit:
        return None
    price, known_score = _dual(groups, budget)

    # The most that groups g, g + 1, ... can add to a score at that price of cost, and the least
    # that they cost.
    bounds = [0.0]
    cheapest = [0.0]
    for group in reversed(groups):
        bounds.append(bounds[-1] + max(s.score - price * s.cost for s in group))
        cheapest.append(cheapest[-1] + min(s.cost for s in group))
    bounds.reverse()
    cheapest.reverse()

    worth = known_score - 1e-9 * max(1.0, abs(known_score))
    states = [_State(0.0, 0.0, ())]
    for g, group in enumerate(groups, 1):
        grown = []
        for s in states:
            for o in group:
                if s.cost + o.cost + cheapest[g] > limit:
                    continue
                # The Lagrangian bound: what is left of the budget may be worth its price at most.
                spare = budget - s.cost - o.cost
                if s.score + o.score + bounds[g] + price * spare >= worth:
                    grown.append(_plus(s, o))
        states = _undominated(grown)
    return states[-1]  # the dearest of the undominated has the largest score


def _flattened(name: str, options: Sequence[Option], left: _Open) -> list[_State]:
    """The undominated ways left to decide a choice with all choices inside its options."""
    states: list[_State] = []
    for index, option in enumerate(options):
        if math.isnan(option.score) or math.isnan(option.cost):
            raise ValueError(f"choice {name!r}: a score or a cost is NaN, nothing can be derived")
        if not left.allows(name, index):
            continue
        own = [_State(option.cost, option.score, (_Pick(name, index),))]
        for inner_name, inner_options in option.inside.items():
            ways = _flattened(inner_name, inner_options, left)
            own = _undominated([_plus(s, t) for s in own for t in ways])
        states += own
    return _undominated(states)


def _undominated(states: list[_State]) -> list[_State]:
    """In ascending order of cost and score; of equal ones the first."""
    kept: list[_State] = []
    for state in sorted(states, key=lambda s: (s.cost, -s.score)):  # stable
        if not kept or state.score > kept[-1].score:
            kept.append(state)
    return kept


def _dual(groups: Sequence[Sequence[_State]], budget: float) -> tuple[float, float]:
    """A price of cost that makes the Lagrangian bound tight, and a score within the budget.

    At a price each group decides by itself, for the largest score less price times cost; the dearer
    cost is, the cheaper the solution. Halving finds the lowest price whose solution is within the
    budget.
    """

    def at(price: float) -> tuple[float, float]:
        taken = [max(group, key=lambda s: (s.score - price * s.cost, -s.cost)) for group in groups]
        return sum(s.cost for s in taken), sum(s.score for s in taken)

    cost, score = at(0.0)
    if cost <= budget:
        return 0.0, score
    low = 0.0
    high = 1.0
    while at(high)[0] > budget and high < 1e300:
        low = high
        high = 2.0 * high
    for _ in range(100):
        middle = (low + high) / 2.0
        if at(middle)[0] > budget:
            low = middle
        else:
            high = middle
    cost, score = at(high)
    # Without a price that keeps the budget there is no solution to beat, and nothing is cut off.
    return high, score if cost <= budget else -math.inf
