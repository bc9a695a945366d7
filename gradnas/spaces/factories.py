"""The candidate operations of a space of cells: from what a user gives to names and factories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gradnas.config import did_you_mean
from gradnas.spaces.operations import OPERATIONS, Factory


def factories_of(operations: Mapping[str, Factory] | Sequence[str]) -> dict[str, Factory]:
    """Operation name -> factory; ValueError for an unknown name or what is no factory."""
    factories: dict[str, Factory] = {}
    if isinstance(operations, Mapping):
        factories.update(operations)
    else:
        for name in operations:
            if name not in OPERATIONS:
                raise ValueError(f"unknown operation {name!r}{did_you_mean(name, OPERATIONS)}")
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
