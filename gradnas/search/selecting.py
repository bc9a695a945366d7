"""The rounds of a selection that measures what the supernet loses without an operation.

Legend: E edges, O operations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch

from gradnas import distributed
from gradnas.gradients.base import same_randomness
from gradnas.modules.draws import Draw
from gradnas.objectives.cost import ExpectedCost
from gradnas.randomness import generator_for
from gradnas.relaxations import Relaxation
from gradnas.runs import State
from gradnas.search.bound_net import BoundNet
from gradnas.search.chosen import check_candidates
from gradnas.search.passes import Passes
from gradnas.search.schedule import Schedule
from gradnas.selections import PerturbationSelection, Selection
from gradnas.spaces.base import Supernet

ROUNDS = 4  # stream of random numbers, beside those of `passes` and `steadying`

Measure = Callable[[BoundNet], float]  # the larger the better


class _Group(NamedTuple):
    """What one round decides: edges that get their operation, or nodes that lose edges."""

    edges: list[tuple[str, int]]
    nodes: list[tuple[str, tuple[int, ...], int]]


@dataclass
class Selecting:
    """A selection at work.

    Attributes:
        setting: of the search.
        rounds_done: so many.
    """

    setting: PerturbationSelection
    supernet: Supernet[Any]
    passes: Passes
    schedule: Schedule
    rounds_done: int = 0

    def __post_init__(self) -> None:
        # Which groups there are, and in which order, is a function of the seed alone.
        self.groups = _groups(self.supernet, self.passes.seed)
        self.schedule.selection_epochs = self.setting.epochs_of(len(self.groups))
        self.schedule.selection_lr_share = self.setting.lr_share
        self.schedule.alphas_wait = not self.setting.learn_alphas
        self.supernet.fixed = {}
        length = self.schedule.epochs
        if length is not None:
            self.schedule.check_selection(length)

    @property
    def due(self) -> bool:
        """Whether a round is to be made before the coming step."""
        epoch = self.schedule.selection_epoch
        if epoch is None:
            return False
        return self.rounds_done < self.setting.round_at(epoch, len(self.groups))

    @property
    def number_of_measurements(self) -> int:
        """Passes over the data of the alphas that all rounds make."""
        total = 0
        for group in self.groups:
            total += sum(len(self.supernet.selectable(name, row)) for name, row in group.edges)
            total += sum(len(rows) for _, rows, _ in group.nodes)
        return total

    def select(self, measure: Measure) -> list[str]:
        """Make the rounds that are due; returns what was decided, in sentences.

        Args:
            measure: a network on the data of the alphas; `BoundNet` may be called any number of
                times.
        """
        said = []
        while self.due:
            group = self.groups[self.rounds_done]
            for name, row in group.edges:
                said.append(self._decide(name, row, measure))
            for name, rows, keep in group.nodes:
                self._cut(name, rows, keep, measure)
            self.rounds_done += 1
        return said

    def _decide(self, name: str, row: int, measure: Measure) -> str:
        columns = self.supernet.selectable(name, row)
        scores = [self._score(name, row, column, measure) for column in columns]
        _check_some(scores, name, row)
        worst = columns[scores.index(min(scores))]  # of equal ones the first
        self.supernet.fixed.setdefault(name, {})[row] = worst
        operations = self.supernet.operation_names().get(name)
        chosen = str(worst) if operations is None else operations[worst]
        return f"selection: {name} {row}: {chosen}"

    def _cut(self, name: str, rows: tuple[int, ...], keep: int, measure: Measure) -> None:
        scores = {row: self._score(name, row, None, measure) for row in rows}
        _check_some(list(scores.values()), name, rows[0])
        # Those that are missed most stay; of equal ones the first.
        ranked = sorted(rows, key=lambda row: scores[row])
        for row in ranked[keep:]:
            self.supernet.fixed.setdefault(name, {})[row] = None

    @torch.no_grad()
    def _score(self, name: str, row: int, column: int | None, measure: Measure) -> float:
        """Of the mixture without an operation of an edge, or (None) without the edge."""
        draw = without(self.passes.mixture(), name, row, column)
        was_training = self.supernet.searched.training
        self.supernet.searched.train()
        try:
            # Everyone sees the same dropout masks, and the steps those that they would have seen.
            with same_randomness(self.passes.params.values()), self.passes.probing() as tensors:
                value = float(measure(BoundNet(self.supernet, draw, tensors)))
                # All processes must decide alike, and each may have seen other examples.
                value = distributed.mean_of_values({"worth": value})["worth"]
                # What cannot even be computed without it is missed most; NaN compares with nothing.
                return -math.inf if math.isnan(value) else value
        finally:
            if not was_training:
                self.supernet.searched.eval()

    # ---- state -----------------------------------------------------------------------------------

    def state_dict(self) -> State:
        """Plain values."""
        fixed = {name: sorted(rows.items()) for name, rows in self.supernet.fixed.items()}
        groups = [[list(group.edges), list(group.nodes)] for group in self.groups]
        return {"rounds_done": self.rounds_done, "fixed": fixed, "groups": groups}

    def load_state_dict(self, state: State, columns: Mapping[str, list[int]]) -> None:
        """The inverse of `state_dict`.

        Args:
            columns: choice -> where the state has the columns of its alpha, where it is elsewhere.
        """
        self.rounds_done = state["rounds_done"]
        if "groups" in state:  # a state of an earlier version has none
            # Of a module whose choices are declared in another order now, it is as it began.
            self.groups = [_Group(list(edges), list(nodes)) for edges, nodes in state["groups"]]
        self.supernet.fixed = {}
        for name, rows in state["fixed"].items():
            places = columns.get(name)
            own: dict[int, int | None] = {}
            for row, column in rows:
                own[row] = column
                if places is not None and column is not None:
                    own[row] = places.index(column)
            self.supernet.fixed[name] = own


def _check_some(scores: Sequence[float], name: str, row: int) -> None:
    """ValueError where nothing can be compared: no measure is a number."""
    if scores and not any(math.isfinite(score) for score in scores):
        raise ValueError(
            f"selection: {name} {row}: the measure of the supernet is NaN or infinite whatever is "
            "left out, so that nothing can be decided by it: search with a smaller learning rate, "
            "or with clip_norm"
        )


def without(draw: Draw, name: str, row: int, column: int | None) -> Draw:
    """A draw without an operation of an edge, the weights of the others as they are.

    Args:
        column: None: without the edge.
    """
    table = draw.mix[name].clone()
    rows = list(draw.active[name])
    mix_EO = table.unsqueeze(0) if table.dim() == 1 else table  # a view of the table
    if column is None:
        mix_EO[row] = 0.0
        rows[row] = ()
    else:
        mix_EO[row, column] = 0.0
        rows[row] = tuple(k for k in rows[row] if k != column)
    return replace(draw, mix={**draw.mix, name: table}, active={**draw.active, name: tuple(rows)})


def _groups(supernet: Supernet[Any], seed: int) -> list[_Group]:
    """What each round decides: first operations, then the edges of nodes."""
    generator = generator_for(seed, ROUNDS)
    orders: list[list[tuple[str, int]]] = []
    single: list[tuple[str, int]] = []
    for name, alpha in supernet.alphas.items():
        if alpha.dim() == 1:
            single.append((name, 0))
            continue
        order = torch.randperm(alpha.shape[0], generator=generator, device="cpu").tolist()
        orders.append([(name, row) for row in order])
    groups = []
    for k in range(max(map(len, orders), default=0)):
        groups.append(_Group([order[k] for order in orders if k < len(order)], []))
    for k in torch.randperm(len(single), generator=generator, device="cpu").tolist():
        groups.append(_Group([single[k]], []))

    by_table: dict[str, list[tuple[str, tuple[int, ...], int]]] = {}
    for name, rows, keep in supernet.nodes_of_edges():
        if len(rows) > keep:
            by_table.setdefault(name, []).append((name, rows, keep))
    nodes = []
    for own in by_table.values():
        order = torch.randperm(len(own), generator=generator, device="cpu").tolist()
        nodes.append([own[k] for k in order])
    for k in range(max(map(len, nodes), default=0)):
        groups.append(_Group([], [order[k] for order in nodes if k < len(order)]))
    return groups


def check_selection(
    selection: Selection, relaxation: Relaxation, cost: ExpectedCost | None
) -> None:
    """ValueError for a selection that these do not go with."""
    if not isinstance(selection, Selection):
        raise ValueError(f"selection must be a Selection, such as Strongest(), not {selection!r}")
    if not selection.measures:
        return
    name = type(selection).__name__
    if not relaxation.trains_mixtures:
        raise ValueError(
            f"{name} leaves one operation out of the mixture, and with "
            f"{type(relaxation.innermost).__name__} the weights learn on no mixture: use Softmax()"
        )
    if cost is not None:
        raise ValueError(
            f"{name} decides by what is measured alone, and would keep no budget and no target: "
            "leave the cost out, or use Strongest()"
        )


def selecting_of(selection: Selection, passes: Passes) -> Selecting | None:
    """A selection at work; None where the alphas alone decide, or candidates at the end.

    Raises:
        ValueError: candidates that cannot have the weights of the search.
    """
    check_candidates(selection, passes.supernet.keeps_weights)
    if not isinstance(selection, PerturbationSelection):
        return None
    return Selecting(selection, passes.supernet, passes, passes.schedule)
