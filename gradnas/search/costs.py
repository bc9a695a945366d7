"""What architectures of a search cost, and what that adds to the loss of the alphas."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from gradnas.latency import Costs, Device, device_notes
from gradnas.latency.quantities import MACS
from gradnas.modules.call import Call
from gradnas.modules.draws import Draw
from gradnas.objectives.cost import CostState, ExpectedCost
from gradnas.search.feed import to_device
from gradnas.search.one_example import WHOLE, batch_of, first_example
from gradnas.spaces.affordable import least_cost
from gradnas.spaces.base import Supernet

NO_COSTS = "a budget needs costs: give Search(..., cost=ExpectedCost(...), example=inputs)"


# What a network may raise that needs the examples of a batch together
OF_A_NETWORK = (RuntimeError, ValueError, TypeError, LookupError, AssertionError, AttributeError)


class Spending:
    """The cost of a search: how it enters the loss, what the operations cost, how far it is.

    Args:
        setting: target or budget, with a pace.
        costs: of every operation.

    Attributes:
        state: what a budget remembers between the steps of the alphas.
    """

    def __init__(self, setting: ExpectedCost, costs: Costs) -> None:
        self.setting = setting
        self.costs = costs
        self.state = CostState()

    def expected(self, probabilities: Mapping[str, Tensor]) -> Tensor:
        """The expected cost, a float64 scalar, differentiable in the probabilities."""
        return self.costs.expected(probabilities)

    def of_sample(self, draw: Draw) -> Tensor:
        """The cost of a sampled network, without a graph."""
        return self.costs.expected({name: mix.detach() for name, mix in draw.mix.items()})

    def combine(self, loss: Tensor, expected: Tensor) -> Tensor:
        """The loss of the alphas from that of the task and the expected cost."""
        return self.setting.combine(loss, expected, self.state)

    def advance(self, expected: float) -> None:
        """Take note of the expected cost that a step of the alphas led to."""
        self.state = self.setting.advanced(self.state, expected)

    def budget_or(self, budget: float | None) -> float:
        """The budget that is given, or else that of the search; ValueError if it has none."""
        if budget is not None:
            return budget
        if not self.setting.is_budget:
            raise ValueError(
                "the cost of this search has no budget: "
                "say within which, results(number, budget=...)"
            )
        return self.setting.limit


def counted_costs(
    supernet: Supernet, cost: ExpectedCost, example: Any, device: torch.device
) -> Costs:
    """The costs of the operations; multiply-adds are those of one example of a batch.

    Raises:
        ValueError: the budget cannot be kept.
    """
    table = cost.latency_table()
    # Tables of phones go by the space's own sizes: their keys need no inputs.
    needs_example = table is None or not table.is_mobile
    if example is None and needs_example:
        raise ValueError(
            "a cost needs example inputs of the network: "
            f"Search(..., cost={cost!r}, example=inputs)"
        )
    call = Call.of(example).mapped(lambda value: to_device(value, device))
    if cost.quantity is MACS:
        costs = _of_one_example(supernet, call)
    else:
        costs = supernet.costs(cost.quantity.name, call.inputs, table, call.named)
    if table is not None:
        costs = replace(costs, examples=table.batch_size)
        costs = costs.noted(*device_notes(table, Device.here(device)))
    # Now, not after a search of hours that could only fail at its end.
    if cost.is_budget:
        cheapest = least_cost(supernet, costs)
        if cheapest > cost.limit:
            raise ValueError(
                f"{cost.limit_name}={cost.limit:g} cannot be kept: "
                f"the cheapest architecture of this space costs {costs.amount(cheapest)}"
            )
    for note in costs.notes:
        warnings.warn(note, stacklevel=3)  # the line that made the Search
    return costs


def _of_one_example(supernet: Supernet, call: Call) -> Costs:
    """Multiply-adds of the first example of a call, with a note where it is not told apart."""
    batch = batch_of(supernet, call)
    if batch == 1:
        return supernet.costs(MACS.name, call.inputs, None, call.named)
    if isinstance(batch, int):
        one = first_example(call)
        try:
            return supernet.costs(MACS.name, one.inputs, None, one.named)
        except OF_A_NETWORK as error:
            told = str(error).splitlines() or [type(error).__name__]
            batch = f"the network does not take the first of {batch} alone ({told[0]})"
    whole = supernet.costs(MACS.name, call.inputs, None, call.named)
    return whole.noted(WHOLE.format(reason=batch))


def spending_of(setting: ExpectedCost | None, costs: Costs | None) -> Spending | None:
    """The cost of a search; None where it has none."""
    if setting is None:
        return None
    assert costs is not None
    return Spending(setting, costs)
