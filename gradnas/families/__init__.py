"""Kinds of architectures, one folder each; a new family is one line here."""

from __future__ import annotations

from gradnas.architectures.base import Architecture
from gradnas.config import JsonObject
from gradnas.families.base import Family
from gradnas.families.cells import CELLS
from gradnas.families.chains import CHAINS
from gradnas.families.choices import CHOICES
from gradnas.families.nas_bench_201 import DENSE_CELLS
from gradnas.families.recurrent import RECURRENT

# In the order in which recipes are listed. The last takes every space that none before it takes.
FAMILIES: tuple[Family, ...] = (CELLS, DENSE_CELLS, CHAINS, RECURRENT, CHOICES)


def family_of(architecture: Architecture) -> Family:
    """The family that an architecture belongs to."""
    for family in FAMILIES:
        if family.holds(architecture):
            return family
    raise TypeError(f"no family holds a {type(architecture).__name__}")


def family_of_space(space: object) -> Family:
    """The family of the architectures that are found in a space."""
    for family in FAMILIES:
        if family.of_space(space):
            return family
    return CHOICES


def family_of_entry(space: JsonObject) -> Family:
    """The same for the entry of a space in a configuration file, which may be damaged."""
    for family in FAMILIES:
        if space.get("type") in [kind.__name__ for kind in family.spaces]:
            return family
    return CHOICES
