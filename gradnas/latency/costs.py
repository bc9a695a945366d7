"""What every operation of a network costs, in milliseconds, multiply-adds or parameters.

Legend: E edges, O operations; a table of costs is shaped as the alphas, `(E, O)` or `(O,)`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from gradnas.latency.entry import Device
from gradnas.latency.predictor import Predictor
from gradnas.latency.quantities import quantity_named
from gradnas.latency.recorder import When
from gradnas.latency.survey import Unit
from gradnas.latency.table import LatencyTable


@dataclass(frozen=True)
class Costs:
    """The cost of a network as a sum over the operations that are chosen.

    Attributes:
        quantity: name of what is counted, see `latency/quantities.py`.
        fixed: what every architecture spends.
        tables: choice name -> cost of each operation, float64 on the CPU, shaped as its alphas.
        nested: for operations inside other choices, the places that must all have been chosen ->
            cost.
        shares: choice name -> how much each edge counts in an expectation, `(E,)`, where a derived
            network keeps only some of its edges; 1 where it is not named.
        notes: sentences that the user should read: another device, predicted latencies.
    """

    quantity: str
    fixed: float
    tables: Mapping[str, Tensor]
    nested: Mapping[When, float] = field(default_factory=dict)
    shares: Mapping[str, Sequence[float]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def unit(self) -> str:
        """Of the numbers."""
        return quantity_named(self.quantity).unit

    def expected(self, probabilities: Mapping[str, Tensor]) -> Tensor:
        """`E = fixed + sum over operations of p(operation) * cost`, a float64 scalar.

        It is differentiable in p. For an operation inside other choices p is the product along the
        way. Source: ProxylessNAS (arXiv 1812.00332), eq. 6.
        """
        device = next(iter(probabilities.values())).device
        total = torch.full((), self.fixed, dtype=torch.float64, device=device)
        for name, table in self.tables.items():
            if name in self.shares:
                share_E1 = torch.tensor(self.shares[name], dtype=torch.float64).unsqueeze(-1)
                table = table * share_E1
            total = total + (probabilities[name].double() * table.to(device)).sum()
        for when, cost in self.nested.items():
            together = torch.ones((), dtype=torch.float64, device=device)
            for choice, row, column in when:
                p = probabilities[choice]
                p_here = p[column] if p.dim() == 1 else p[row, column]
                together = together * p_here.double()
            total = total + together * cost
        return total

    def of(self, one_hot: Mapping[str, Tensor]) -> float:
        """The cost of one architecture, given by mixing weights of 0 and 1.

        Every edge that is there counts fully: shares are for edges of which some will go.
        """
        whole = replace(self, shares={})
        detached = {name: mix.detach() for name, mix in one_hot.items()}
        return float(whole.expected(detached))

    def noted(self, *notes: str) -> Costs:
        """The same with more notes."""
        return replace(self, notes=(*self.notes, *notes))


def costs_of(
    units: Sequence[Unit],
    quantity: str,
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
    count = quantity_named(quantity).count
    fixed = 0.0
    nested: dict[When, float] = {}
    tables: dict[str, Tensor] = {}
    for name, alpha in like.items():
        tables[name] = torch.zeros(alpha.shape, dtype=torch.float64)
    predicted = []
    for unit in units:
        if count is not None:
            amounts = count(unit)
        else:
            assert table is not None
            latency = table.look_up(unit.key, unit.features, unit.label)
            if latency.predicted:
                predicted.append(unit.label)
            amounts = [latency.ms] * len(unit.uses)
        for when, amount in zip(unit.uses, amounts, strict=True):
            if not when:
                fixed += amount
            elif len(when) == 1:
                choice, row, column = when[0]
                # A view with a row for each edge, also where the choice is a single one.
                table_EO = tables[choice].reshape(-1, tables[choice].shape[-1])
                table_EO[row, column] += amount
            else:
                # It runs only where an outer choice takes the operation around it: its probability
                # is a product, for which no table has a place.
                nested[when] = nested.get(when, 0.0) + amount
    costs = Costs(quantity, fixed, tables, nested)
    if not predicted:
        return costs
    assert table is not None and table.predictor is not None
    return costs.noted(predicted_note(predicted, len(units), table.predictor))


def predicted_note(predicted: Sequence[str], of: int, predictor: Predictor) -> str:
    """A sentence about latencies that were not measured."""
    which = ", ".join(predicted[:3])
    if len(predicted) > 3:
        which += ", ..."
    number = len(predicted)
    return f"predicted, not measured: {number} of {of} latencies ({which}); {predictor.quality}"


def device_notes(table: LatencyTable, here: Device) -> tuple[str, ...]:
    """A sentence that names both devices where they differ.

    No error: a search may be meant for another device than it runs on. But it may also be the wrong
    table.
    """
    there = table.device
    if there is None:
        return ()
    is_same_model = (there.kind, there.name) == (here.kind, here.name)
    if is_same_model and there.threads in (None, here.threads):
        return ()
    return (
        f"the latency table is of another device: it was measured on {there}, and this is {here}",
    )
