"""The candidate operations of a space of cells: from what a user gives to names and factories."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from gradnas.config import JsonObject, build, did_you_mean
from gradnas.spaces.operations import OPERATIONS, Factory

S = TypeVar("S")  # a space: a dataclass with the field `operations`


def is_ordered(value: object) -> bool:
    """Whether these may be names in the order of alpha's columns.

    Not those of a set: its order is another in every process, and so the columns would be.
    """
    return isinstance(value, Iterable) and not isinstance(value, (str, bytes, set, frozenset))


def factories_of(operations: Mapping[str, Factory] | Sequence[str]) -> dict[str, Factory]:
    """Operation name -> factory; ValueError for an unknown name or what is no factory."""
    factories: dict[str, Factory] = {}
    if isinstance(operations, Mapping):
        factories.update(operations)
    else:
        if not is_ordered(operations):
            raise ValueError(
                "operations are a list of names, in the order of alpha's columns, or a dictionary "
                f"from names to factories, not {operations!r:.80}"
            )
        for name in operations:
            if not isinstance(name, str) or name not in OPERATIONS:
                raise ValueError(f"unknown operation {name!r}{did_you_mean(str(name), OPERATIONS)}")
            factories[name] = OPERATIONS[name]
    for name, factory in factories.items():
        # A dot would split the name of a module in a state dict.
        is_name = isinstance(name, str) and name != "" and "." not in name
        if not is_name or not callable(factory):
            raise ValueError(
                f"operation {name!r} needs a name without dots and a factory "
                "(channels, stride, affine) -> module"
            )
    return factories


def names_for_json(factories: Mapping[str, Factory]) -> list[str]:
    """Their names, by which a configuration file gives them.

    Raises:
        ValueError: an operation of the user's own, which a file cannot hold.
    """
    for name, factory in factories.items():
        if OPERATIONS.get(name) is not factory:
            raise ValueError(
                f"your own operation {name!r} cannot be written into a configuration file"
            )
    return list(factories)


def space_of_operations(cls: type[S], data: JsonObject, where: str, usual: Sequence[str]) -> S:
    """A space of cells from a configuration file, in which operations are names.

    Args:
        data: the other fields, and `operations` where they are not the usual ones.
        where: the place in the file, for errors.

    Raises:
        ValueError: a field that the space does not have or take, an operation that is not known.
    """
    others = dict(data)
    names = others.pop("operations", list(usual))
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{where}.operations must be a list of names, not {names!r}")
    # Without the operations first, so that a mistake in them is told with their place.
    space: Any = build(cls, others, where)
    try:
        return dataclasses.replace(space, operations=tuple(names))
    except ValueError as error:
        raise ValueError(f"{where}.operations: {error}") from error
