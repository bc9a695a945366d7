"""Every awkward module: its tables against all of its derived networks, and sums of latencies."""

from __future__ import annotations

import itertools

import pytest
import torch
from awkward import AWKWARD, Awkward

import gradnas
from gradnas import ExpectedCost
from gradnas.architectures.choices import Choices
from gradnas.latency import Entry, LatencyTable
from gradnas.spaces import ModuleSupernet
from gradnas.spaces.affordable import cost_of, decide_within, least_cost

pytestmark = pytest.mark.slow  # many combinations, or whole runs

# What a search refuses has no costs.
CASES = [case for case in AWKWARD if case.refused is None]


def made(case: Awkward) -> ModuleSupernet:
    torch.manual_seed(0)
    return ModuleSupernet(case.make())


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_derived_network_costs_what_the_table_says(case):
    supernet = made(case)
    x, _ = case.batch(0)
    costs = {quantity: supernet.costs(quantity, (x,)) for quantity in ("macs", "params")}
    numbers: dict[str, list[float]] = {"macs": [], "params": []}
    for operations in itertools.product(*supernet.names.values()):
        decision = Choices(dict(zip(supernet.names, operations, strict=True)))
        network = supernet.derived(decision)
        true = {"macs": gradnas.macs(network, x), "params": gradnas.num_params(network)}
        for quantity, number in true.items():
            assert cost_of(supernet, decision, costs[quantity]) == number, (quantity, decision)
            numbers[quantity].append(number)
    assert sum(numbers["macs"]) > 0
    for quantity, found in numbers.items():
        assert least_cost(supernet, costs[quantity]) == min(found)
        best = decide_within(supernet, gradnas.Softmax(), costs[quantity], min(found))
        assert cost_of(supernet, best[0], costs[quantity]) == min(found)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_every_call_of_a_derived_network_is_in_the_sum_of_its_latencies(case):
    """With multiply-adds for milliseconds the sum is known."""
    supernet = made(case)
    x, _ = case.batch(0)
    units = supernet.cost_view().survey((x,))
    assert len({unit.key for unit in units}) == len(units)
    entries = {unit.key: Entry(float(unit.macs), 0.0, 1) for unit in units}
    search = gradnas.Search(
        supernet.net, cost=ExpectedCost(LatencyTable(entries), budget_ms=1e12), example=x
    )
    result = search.result()
    assert result.cost == gradnas.macs(result.derive(), x)
