"""`Formulas`: the discrete result of a search over supernets of equations, as a frozen value."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import ClassVar

from gradnas import config
from gradnas.architectures.base import (
    Architecture,
    check_complete,
    check_known,
    checked_object,
    is_version,
    type_word,
)
from gradnas.config import Json, JsonObject
from gradnas.laws.formula import Formula

VERSION = 1


@dataclass(frozen=True)
class Formulas(Architecture):
    """One formula for each restart; None for a restart that decided against every edge.

    Raises ValueError for formulas that cannot be computed. Which features and primitives there are
    is the space's business.
    """

    formulas: tuple[Formula | None, ...]

    format: ClassVar[str] = "gradnas-formulas"
    noun: ClassVar[str] = "set of formulas"

    def __post_init__(self) -> None:
        for k, formula in enumerate(self.formulas):
            if formula is not None:
                _check(formula, f"formula {k}")

    @property
    def public(self) -> list[Formula | None]:
        """A plain list of the formulas."""
        return list(self.formulas)

    def to_text(self) -> str:
        """The JSON form on one line."""
        return json.dumps(self.to_json())

    @classmethod
    def parse(cls, text: str) -> Formulas:
        """Read the text form. Raises ValueError for everything else."""
        if not isinstance(text, str):
            raise ValueError(f"the text of formulas is a str, not {type_word(text)}")
        return cls.from_json(config.parse_json(text, "formulas text"), "formulas text")

    def to_json(self) -> JsonObject:
        """The formulas as a dict of JSON types; `from_json` reads it back.

        Raises ValueError for a constant that is not finite: JSON has no such numbers.
        """
        return {
            "format": self.format,
            "version": VERSION,
            "formulas": config.to_json(self.formulas),
        }

    @classmethod
    def from_json(cls, obj: Json, where: str = "formulas") -> Formulas:
        """The formulas that `obj` describes; errors name it `where`.

        Raises ValueError, naming the field, for an unknown or missing field, a wrong type or value.
        """
        obj = checked_object(obj, cls.format, where)
        if not is_version(obj.get("version"), VERSION):
            raise ValueError(
                f"{where}: field 'version' must be {VERSION}, not {obj.get('version')!r}"
            )
        fields = ("format", "version", "formulas")
        check_known(obj, fields, where)
        check_complete(obj, fields, where)
        return config.build(cls, {"formulas": obj["formulas"]}, where)


def _check(formula: Formula, where: str) -> None:
    """ValueError for a formula that cannot be computed."""
    if formula.features < 1:
        raise ValueError(f"{where}: a formula has features, not features={formula.features}")
    if len(formula.weights) != len(formula.nodes):
        raise ValueError(
            f"{where}: {len(formula.nodes)} nodes need as many weights, not {len(formula.weights)}"
        )
    for j, node in enumerate(formula.nodes):
        if not node.edges:
            raise ValueError(f"{where}: node {j} has no edge")
        sides = {edge.below for edge in node.edges}
        if node.kind == "ratio" and len(sides) == 1:
            raise ValueError(f"{where}: node {j} is a ratio with edges on one side alone")
        before = formula.features + j
        for edge in node.edges:
            if not 0 <= edge.source < before:
                raise ValueError(
                    f"{where}: node {j} reads the features and nodes before it, 0 to "
                    f"{before - 1}, not {edge.source}"
                )
