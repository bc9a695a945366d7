"""What every operation of a network costs, in milliseconds, multiply-adds or parameters.

Legend: E edges, O operations; a table of costs is shaped as the alphas, `(E, O)` or `(O,)`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from gradnas.latency.entry import Device
from gradnas.latency.predictor import Predictor
from gradnas.latency.quantities import PARAMS, Amount, quantity_named
from gradnas.latency.registered import When, contradict, simplified
from gradnas.latency.survey import Survey
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
        shared: what is spent once if one or more of several conditions hold, each a set of places
            that have been chosen: parameters that operations of several choices share.
        inside: choice name -> the operations around it, a condition for each of its places; of a
            choice that is not named they are those of `nested`.
        shares: choice name -> how much each edge counts in an expectation, `(E,)`, where a derived
            network keeps only some of its edges; 1 where it is not named.
        notes: sentences that the user should read: another device, predicted latencies.
        examples: how many examples a latency is for, where its table says so.
    """

    quantity: str
    fixed: float
    tables: Mapping[str, Tensor]
    nested: Mapping[When, float] = field(default_factory=dict)
    shared: Mapping[frozenset[When], float] = field(default_factory=dict)
    inside: Mapping[str, frozenset[When]] = field(default_factory=dict)
    shares: Mapping[str, Sequence[float]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    examples: int | None = None

    def amount(self, value: float) -> str:
        """A value with its unit, and for how many examples it is where that is known."""
        for_what = ""
        if self.examples is not None:
            plural = "" if self.examples == 1 else "s"
            for_what = f" for {self.examples} example{plural}"
        return f"{value:g} {self.unit}{for_what}"

    @property
    def unit(self) -> str:
        """Of the numbers."""
        return quantity_named(self.quantity).unit

    @property
    def noun(self) -> str:
        """What is counted."""
        return quantity_named(self.quantity).noun

    def expected(self, probabilities: Mapping[str, Tensor]) -> Tensor:
        """`E = fixed + sum over operations of p(operation) * cost`, a float64 scalar.

        It is differentiable in p. For an operation inside other choices p is the product along the
        way. Source: ProxylessNAS (arXiv 1812.00332), eq. 6.
        """
        device = next(iter(probabilities.values())).device
        total = torch.full((), self.fixed, dtype=torch.float64, device=device)
        for name, table in self.tables.items():
            if name in self.shares:
                share_E = torch.tensor(self.shares[name], dtype=torch.float64, device=table.device)
                table = table * share_E.unsqueeze(-1)
            total = total + (probabilities[name].double() * table.to(device)).sum()
        for when, cost in self.nested.items():
            total = total + cost * _any_holds(frozenset({when}), probabilities, device)
        for conditions, cost in self.shared.items():
            total = total + cost * _any_holds(conditions, probabilities, device)
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


def _any_holds(
    conditions: frozenset[When], probabilities: Mapping[str, Tensor], device: torch.device
) -> Tensor:
    """The probability that one or more conditions hold, for choices decided independently.

    It goes choice by choice: given the operation that one takes, the conditions say less.
    """
    if () in conditions:
        return torch.ones((), dtype=torch.float64, device=device)
    if not conditions:
        return torch.zeros((), dtype=torch.float64, device=device)
    first = next(iter(min(conditions)))
    edge = (first.choice, first.row)
    here = sorted({p for when in conditions for p in when if (p.choice, p.row) == edge})
    total = torch.zeros((), dtype=torch.float64, device=device)
    others = torch.ones((), dtype=torch.float64, device=device)
    for place in here:
        left = set()
        for when in conditions:
            if not contradict(when, (place,)):
                left.add(tuple(p for p in when if p != place))
        p = probabilities[place.choice]
        p_here = (p[place.column] if p.dim() == 1 else p[place.row, place.column]).double()
        total = total + p_here * _any_holds(simplified(left), probabilities, device)
        others = others - p_here
    elsewhere = {when for when in conditions if not any(p in here for p in when)}
    if elsewhere:
        total = total + others * _any_holds(frozenset(elsewhere), probabilities, device)
    return total


def costs_of(
    survey: Survey,
    quantity: str,
    like: Mapping[str, Tensor],
    table: LatencyTable | None = None,
) -> Costs:
    """The costs of a surveyed network; latencies come from `table`.

    Multiply-adds are those of the surveyed batch: survey one image for the usual number.

    Args:
        like: the alphas, for names and shapes.

    Raises:
        ValueError: a latency that the table neither has nor predicts; multiply-adds that cannot be
            counted.
    """
    count = quantity_named(quantity).count
    predicted: list[str] = []
    if count is not None:
        amounts = count(survey)
    else:
        assert table is not None
        amounts = _latencies(survey, table, predicted)

    fixed = 0.0
    nested: dict[When, float] = {}
    shared: dict[frozenset[When], float] = {}
    tables: dict[str, Tensor] = {}
    for name, alpha in like.items():
        tables[name] = torch.zeros(alpha.shape, dtype=torch.float64)
    for conditions, amount in amounts:
        conditions = simplified(conditions)
        if () in conditions:
            fixed += amount
            continue
        # Of conditions that exclude each other one holds at most: they add up.
        pairs = itertools.combinations(conditions, 2)
        if not all(contradict(one, other) for one, other in pairs):
            shared[conditions] = shared.get(conditions, 0.0) + amount
            continue
        for when in conditions:
            if len(when) == 1:
                choice, row, column = when[0]
                # A view with a row for each edge, also where the choice is a single one.
                table_EO = tables[choice].reshape(-1, tables[choice].shape[-1])
                table_EO[row, column] += amount
            else:
                # It is there only where an outer choice takes the operation around it: its
                # probability is a product, for which no table has a place.
                nested[when] = nested.get(when, 0.0) + amount
    costs = Costs(quantity, fixed, tables, nested, shared, survey.registered.inside)
    if predicted:
        assert table is not None and table.predictor is not None
        costs = costs.noted(predicted_note(predicted, len(survey), table.predictor))
    if survey.asleep and quantity != PARAMS.name:
        costs = costs.noted(_asleep_note(survey.asleep, costs.noun))
    return costs


def _latencies(survey: Survey, table: LatencyTable, predicted: list[str]) -> Iterator[Amount]:
    """Of every call; the labels of those that were not measured go to `predicted`."""
    for unit in survey:
        latency = table.look_up(unit.key, unit.features, unit.label)
        if latency.predicted:
            predicted.append(unit.label)
        for when in unit.uses:
            yield frozenset({when}), latency.ms


def _asleep_note(names: Sequence[str], noun: str) -> str:
    which = ", ".join(repr(name) for name in names)
    if len(names) == 1:
        return f"the choice {which} did not run in eval mode: its operations count no {noun}"
    return f"the choices {which} did not run in eval mode: their operations count no {noun}"


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
