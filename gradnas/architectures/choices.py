"""Choices: the discrete result of a search over one's own module, as a frozen value."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from gradnas.architectures.base import (
    MAX_CHARACTERS,
    Architecture,
    check_complete,
    check_known,
    checked_object,
    is_version,
    type_word,
)
from gradnas.config import Json, JsonObject, parse_json

VERSION = 1


@dataclass(frozen=True, eq=False, repr=False)  # equality and hash are those of a mapping
class Choices(Architecture, Mapping[str, str]):
    """Choice name -> the operation that was chosen. Equal to a dict of the same entries.

    Raises ValueError for anything that does not map texts to texts. Which choices and operations
    exist is the module's business.
    """

    chosen: Mapping[str, str]

    format: ClassVar[str] = "gradnas-choices"
    noun: ClassVar[str] = "set of choices"

    def __post_init__(self) -> None:
        if not isinstance(self.chosen, Mapping):
            raise ValueError(
                f"choices must map names to operations, but a {type_word(self.chosen)} does not"
            )
        for name, operation in self.chosen.items():
            if not isinstance(name, str) or not isinstance(operation, str):
                raise ValueError(
                    f"choice {name!r}: name and operation must be texts, not {operation!r}"
                )
        # A copy: what it was made from may change
        object.__setattr__(self, "chosen", dict(self.chosen))

    def __getitem__(self, name: str) -> str:
        return self.chosen[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.chosen)

    def __len__(self) -> int:
        return len(self.chosen)

    def __hash__(self) -> int:
        return hash(frozenset(self.chosen.items()))

    def __repr__(self) -> str:
        return f"Choices({self.chosen!r})"

    def parts(self) -> dict[str, str]:
        return dict(self.chosen)

    @property
    def public(self) -> dict[str, str]:
        """A plain dict of its own."""
        return dict(self.chosen)

    def to_text(self) -> str:
        """The entries as a JSON object on one line: `{"body": "conv3"}`."""
        return json.dumps(self.public)

    @classmethod
    def parse(cls, text: str) -> Choices:
        """Read the text form. Raises ValueError for everything else."""
        if not isinstance(text, str):
            raise ValueError(f"the text of choices is a str, not {type_word(text)}")
        if len(text) > MAX_CHARACTERS:
            raise ValueError(f"choices text: {len(text)} characters, more than {MAX_CHARACTERS}")
        return cls(parse_json(text, "choices text"))

    def to_json(self) -> JsonObject:
        """The choices as a dict of JSON types; `from_json` reads it back."""
        return {"format": self.format, "version": VERSION, "choices": self.public}

    @classmethod
    def from_json(cls, obj: Json, where: str = "choices") -> Choices:
        """The choices that `obj` describes; errors name it `where`.

        Raises ValueError, naming the field, for an unknown or missing field, a wrong type or value.
        """
        obj = checked_object(obj, cls.format, where)
        if not is_version(obj.get("version"), VERSION):
            raise ValueError(
                f"{where}: field 'version' must be {VERSION}, not {obj.get('version')!r}"
            )
        fields = ("format", "version", "choices")
        check_known(obj, fields, where)
        check_complete(obj, fields, where)
        try:
            return cls(obj["choices"])
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
