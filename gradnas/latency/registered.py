"""What a derived network keeps of a network with choices: by where its modules are registered.

Calls do not tell: a module may run and be part of another one, or be there and never run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from torch import nn

from gradnas.choice import Choice


class Place(NamedTuple):
    """One operation of one choice: the row is the edge, the column that of alpha.

    The row is 0 for a single choice.
    """

    choice: str
    row: int
    column: int


When = tuple[
    Place, ...
]  # all of them have been chosen; of places inside each other, outermost first


@dataclass(frozen=True)
class Registered:
    """What is where.

    Attributes:
        parameters: for each set of conditions the number of parameters that a derived network has
            if one of them or more hold. A shared parameter is there once.
        inside: choice name -> conditions, of which one or more hold where it is decided.
    """

    parameters: Mapping[frozenset[When], int]
    inside: Mapping[str, frozenset[When]]


def registered(net: nn.Module, places: Mapping[nn.Module, Place]) -> Registered:
    """Follow every way from the network to its parameters and choices.

    Args:
        places: modules that are alternatives of each other, beside the operations of choices.
    """
    names = choice_names(net)
    of_parameters: dict[nn.Parameter, set[When]] = {}
    of_choices: dict[str, set[When]] = {}
    visited: set[tuple[nn.Module, When]] = set()

    def visit(module: nn.Module, when: When) -> None:
        if module in places:
            when = (*when, places[module])
        if (module, when) in visited:
            return
        visited.add((module, when))
        for parameter in module.parameters(recurse=False):
            of_parameters.setdefault(parameter, set()).add(when)
        if isinstance(module, Choice):
            name = names[module]
            of_choices.setdefault(name, set()).add(when)
            for column, operation in enumerate(module.operations.values()):
                visit(operation, (*when, Place(name, 0, column)))
            return
        for child in module._modules.values():  # `children()` leaves out what is there twice
            if child is not None:
                visit(child, when)

    visit(net, ())
    parameters: dict[frozenset[When], int] = {}
    for parameter, conditions in of_parameters.items():
        shortest = simplified(conditions)
        parameters[shortest] = parameters.get(shortest, 0) + parameter.numel()
    inside = {name: simplified(conditions) for name, conditions in of_choices.items()}
    return Registered(parameters, inside)


def choice_names(net: nn.Module) -> dict[nn.Module, str]:
    """The name of every `Choice` inside; without one of its own, that of its place."""
    names: dict[nn.Module, str] = {}
    for path, module in net.named_modules():
        if isinstance(module, Choice):
            names[module] = module.name or path.replace(".", "/") or "choice"
    return names


# ---- conditions ----------------------------------------------------------------------------------


def contradict(one: When, other: When) -> bool:
    """Whether both can never hold: an edge takes one operation."""
    taken = {(place.choice, place.row): place.column for place in one}
    for place in other:
        if taken.get((place.choice, place.row), place.column) != place.column:
            return True
    return False


def simplified(conditions: Iterable[When]) -> frozenset[When]:
    """Conditions of which one or more hold exactly where one of the given ones does.

    Left out are those that can never hold and those that others include; of choices inside choices
    of the same name, the place stands once.
    """
    possible: set[When] = set()
    for when in conditions:
        if not contradict(when, when):
            possible.add(tuple(dict.fromkeys(when)))
    shortest = set()
    for when in possible:
        is_included = any(set(other) < set(when) for other in possible)
        if not is_included:
            shortest.add(when)
    return frozenset(shortest)
