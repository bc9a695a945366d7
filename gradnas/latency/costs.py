"""What every operation of a network costs, in milliseconds, multiply-adds or parameters.

Legend: E edges, O operations; a table of costs is shaped as the alphas, `(E, O)` or `(O,)`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from gradnas.latency.predictor import Predictor
from gradnas.latency.survey import Unit, When
from gradnas.latency.table import Device, LatencyTable

Quantity = Literal["latency", "macs", "params"]
UNITS: dict[Quantity, str] = {"latency": "ms", "macs": "multiply-adds", "params": "parameters"}


@dataclass(frozen=True)
class Costs:
    """The cost of a network as a sum over the operations that are chosen.

    Attributes:
        quantity: latency (ms), macs or params.
        fixed: what every architecture spends.
        tables: choice name -> cost of each operation, float64 on the CPU, shaped as its alphas.
        nested: for operations inside other choices, the places that must all have been chosen ->
            cost.
        shares: choice name -> how much each edge counts in an expectation, `(E,)`, where a derived
            network keeps only some of its edges; 1 where it is not named.
        notes: sentences that the user should read: another device, predicted latencies.
    """

    quantity: Quantity
    fixed: float
    tables: Mapping[str, Tensor]
    nested: Mapping[When, float] = field(default_factory=dict)
    shares: Mapping[str, Sequence[float]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def unit(self) -> str:
        """Of the numbers."""
        return UNITS[self.quantity]

    def expected(self, probabilities: Mapping[str, Tensor]) -> Tensor:
        """`E = fixed + sum over operations of p(operation) * cost`, a float64 scalar,
        differentiable in p.

        For an operation inside other choices p is the product along the way. Source: ProxylessNAS
        (arXiv 1812.00332), eq. 6.
        """
        device = next(iter(probabilities.values())).device
        total = torch.full((), self.fixed, dtype=torch.float64, device=device)
        for name, table in self.tables.items():
            if name in self.shares:
                table = table * torch.tensor(self.shares[name], dtype=torch.float64).unsqueeze(-1)
            total = total + (probabilities[name].double() * table.to(device)).sum()
        for when, cost in self.nested.items():
            product = torch.ones((), dtype=torch.float64, device=device)
            for choice, row, column in when:
                p = probabilities[choice]
                product = product * (p[column] if p.dim() == 1 else p[row, column]).double()
            total = total + product * cost
        return total

    def of(self, one_hot: Mapping[str, Tensor]) -> float:
        """The cost of one architecture, given by mixing weights of 0 and 1; every edge that is
        there counts fully."""
        whole = replace(self, shares={})
        return float(whole.expected({name: weights.detach() for name, weights in one_hot.items()}))

    def noted(self, *notes: str) -> Costs:
        """The same with more notes."""
        return replace(self, notes=(*self.notes, *notes))


def costs_of(
    units: Sequence[Unit],
    quantity: Quantity,
    like: Mapping[str, Tensor],
    table: LatencyTable | None = None,
) -> Costs:
    """The costs of a surveyed network; latencies come from `table`.

    Multiply-adds are those of the surveyed batch: survey one image for the usual number.

    Args:
        like: the alphas, for names and shapes.

    Raises:
        ValueError: a latency that the table neither has nor predicts.
    """
    fixed, nested = 0.0, dict[When, float]()
    tables = {name: torch.zeros(alpha.shape, dtype=torch.float64) for name, alpha in like.items()}
    predicted = []
    for unit in units:
        if quantity == "latency":
            assert table is not None
            found = table.look_up(unit.key, unit.features, unit.label)
            if found.predicted:
                predicted.append(unit.label)
            amounts: Sequence[float] = [found.ms] * len(unit.uses)
        else:
            amounts = [unit.macs] * len(unit.uses) if quantity == "macs" else unit.params
        for when, amount in zip(unit.uses, amounts, strict=True):
            if not when:
                fixed += amount
            elif len(when) == 1:
                choice, row, column = when[0]
                tables[choice].reshape(-1, tables[choice].shape[-1])[row, column] += amount
            else:
                nested[when] = nested.get(when, 0.0) + amount
    costs = Costs(quantity, fixed, tables, nested)
    if predicted:
        assert table is not None and table.predictor is not None
        return costs.noted(predicted_note(predicted, len(units), table.predictor))
    return costs


def predicted_note(predicted: Sequence[str], of: int, predictor: Predictor) -> str:
    """A sentence about latencies that were not measured."""
    which = ", ".join(predicted[:3]) + (", ..." if len(predicted) > 3 else "")
    return f"predicted, not measured: {len(predicted)} of {of} latencies ({which}); {predictor.quality}"


def device_notes(table: LatencyTable, here: Device) -> tuple[str, ...]:
    """A sentence that names both devices where they differ: a search may be meant for another
    device than it runs on, or the table may be the wrong one."""
    there = table.device
    if there is None:
        return ()
    if (there.kind, there.name) == (here.kind, here.name) and there.threads in (None, here.threads):
        return ()
    return (
        f"the latency table is of another device: it was measured on {there}, and this is {here}",
    )
