"""What the architectures of a supernet cost, and which of them are within a budget."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from gradnas.latency import Costs
from gradnas.relaxations import Relaxation
from gradnas.spaces.base import D, Supernet
from gradnas.spaces.budget import Ranking

AROUND = 1e6  # the strength of what an architecture has, where those around it are wanted


def cost_of(supernet: Supernet[D], decision: D, costs: Costs) -> float:
    """The cost of one architecture."""
    return costs.of(supernet.one_hot_draw(decision).mix)


def least_cost(supernet: Supernet[Any], costs: Costs) -> float:
    """The cost of the cheapest architecture."""
    # Any strengths will do: only the options' costs are read.
    tables = {name: alpha.detach() for name, alpha in supernet.alphas.items()}
    return supernet.ranking(costs, tables).cheapest()


def likeliest(
    supernet: Supernet[D], relaxation: Relaxation, costs: Costs | None, budget: float | None
) -> Iterator[D]:
    """All architectures, the most probable first; with a budget those within it.

    Raises:
        ValueError: the supernet cannot list them, or none is within the budget.
    """
    ranking, limit = _ranked(supernet, relaxation, costs, budget)
    return ranking.within(limit)


def swaps(
    supernet: Supernet[D],
    relaxation: Relaxation,
    costs: Costs | None,
    budget: float | None,
    around: D | None = None,
) -> Iterator[D]:
    """For every choice the most probable architecture that differs from the best in it alone.

    Args:
        around: from this one instead of the best.

    Raises:
        ValueError: as `likeliest`.
    """
    ranking, limit = _ranked(supernet, relaxation, costs, budget, around)
    return ranking.swaps(limit)


def _ranked(
    supernet: Supernet[D],
    relaxation: Relaxation,
    costs: Costs | None,
    budget: float | None,
    around: D | None = None,
) -> tuple[Ranking[D], float]:
    strengths = supernet.strengths(relaxation)
    if around is not None:
        # So much stronger than the rest that it is the best; of the rest the order stays.
        for name, mix in supernet.one_hot_draw(around).mix.items():
            strengths[name] = strengths[name] + AROUND * (mix > 0).to(strengths[name])
    if costs is None or budget is None:
        return supernet.ranking(supernet.no_costs(), strengths), 1.0
    return supernet.ranking(costs, strengths), budget


def decide_within(
    supernet: Supernet[D], relaxation: Relaxation, costs: Costs, budget: float, number: int = 1
) -> list[D]:
    """The `number` most probable architectures within a budget, best first.

    Fewer where there are no more. Exact, see `derivation.ranked_within`.

    Raises:
        ValueError: there is none; the sentence says what the cheapest costs.
    """
    cheapest = least_cost(supernet, costs)
    # A budget that is the cheapest cost itself, added up in another order, must not fail.
    if cheapest > budget * (1 + 1e-12):
        raise ValueError(
            f"no architecture is within the budget of {budget:g} {costs.unit}: "
            f"the cheapest costs {costs.amount(cheapest)}"
        )
    return list(itertools.islice(likeliest(supernet, relaxation, costs, budget), number))
