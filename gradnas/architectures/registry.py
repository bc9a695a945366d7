"""Every kind of architecture: which one a file holds, and which one has a published name."""

from __future__ import annotations

from pathlib import Path

from gradnas.architectures.base import Architecture
from gradnas.architectures.chain import Chain
from gradnas.architectures.choices import Choices
from gradnas.architectures.dense_cell import DenseCell
from gradnas.architectures.genotype import Genotype
from gradnas.config import did_you_mean, parse_json, read_text

# In the order in which texts and names are looked at. The errors of cells are the best known ones:
# what is nothing at all is refused as a genotype.
ARCHITECTURES: tuple[type[Architecture], ...] = (Genotype, DenseCell, Chain, Choices)
BY_FORMAT: dict[str, type[Architecture]] = {kind.format: kind for kind in ARCHITECTURES}


def load_architecture(path: Path | str) -> Architecture:
    """Read a file of `Architecture.save`, or of any kind's text form.

    Raises ValueError, naming the file, for any other.
    """
    text = read_text(path)
    try:
        obj = parse_json(text, "its text") if text.lstrip().startswith("{") else None
    except ValueError as error:
        raise ValueError(f"{path} does not hold a genotype: {error}") from error
    if obj is not None:
        return BY_FORMAT.get(str(obj.get("format")), Genotype).load(path)
    for kind in ARCHITECTURES:
        if kind.resembles(text):
            return kind.load(path)
    return Genotype.load(path)


def read_architecture(text: str) -> Architecture | None:
    """The architecture that a text itself says; None for a text that does not look like one.

    Raises ValueError for one that does, and is wrong.
    """
    if not any(mark in text for mark in "( \n|"):
        return None  # a name
    for kind in ARCHITECTURES:
        if kind.resembles(text):
            return kind.parse(text)
    return None


def published(name: str) -> Architecture:
    """A published architecture of any kind.

    Raises ValueError, with the nearest names, for a name that no kind knows.
    """
    for kind in ARCHITECTURES:
        if name in kind.names():
            return kind.named(name)
    try:
        return Genotype.named(name)
    except ValueError as error:
        hint = did_you_mean(name, Chain.names())
        raise ValueError(f"no published {Chain.noun}{hint}; {error}") from error
