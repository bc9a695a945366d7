"""Choices: the discrete result of a search over one's own module, as a frozen value."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from gradnas.architectures.base import (
    MAX_CHARACTERS,
    Architecture,
    check_complete,
    check_known,
    checked_object,
    is_version,
    type_word,
)

VERSION = 1


class Choices(Architecture, Mapping[str, str]):
    """Choice name -> the operation that was chosen. Equal to a dict of the same entries.

    Raises ValueError for anything that does not map texts to texts. Which choices and operations
    exist is the module's business.
    """

    format: ClassVar[str] = "gradnas-choices"
    noun: ClassVar[str] = "set of choices"

    def __init__(self, chosen: Mapping[str, str]) -> None:
        if not isinstance(chosen, Mapping):
            raise ValueError(
                f"choices must map names to operations, but a {type_word(chosen)} does not"
            )
        for name, operation in chosen.items():
            if not isinstance(name, str) or not isinstance(operation, str):
                raise ValueError(
                    f"choice {name!r}: name and operation must be texts, not {operation!r}"
                )
        self._chosen = dict(chosen)

    def __getitem__(self, name: str) -> str:
        return self._chosen[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._chosen)

    def __len__(self) -> int:
        return len(self._chosen)

    def __hash__(self) -> int:
        # Equality is that of mappings, which does not see the order
        return hash(frozenset(self._chosen.items()))

    def __repr__(self) -> str:
        return f"Choices({self._chosen!r})"

    @property
    def public(self) -> dict[str, str]:
        """A plain dict of its own."""
        return dict(self._chosen)

    def to_text(self) -> str:
        """The entries as a JSON object on one line: `{"body": "conv3"}`."""
        return json.dumps(self._chosen)

    @classmethod
    def parse(cls, text: str) -> Choices:
        """Read the text form. Raises ValueError for everything else."""
        if not isinstance(text, str):
            raise ValueError(f"the text of choices is a str, not {type_word(text)}")
        if len(text) > MAX_CHARACTERS:
            raise ValueError(f"choices text: {len(text)} characters, more than {MAX_CHARACTERS}")
        try:
            return cls(json.loads(text))
        except RecursionError as error:
            raise ValueError("choices text: too deeply nested") from error

    def to_json(self) -> dict[str, Any]:
        """The choices as a dict of JSON types; `from_json` reads it back."""
        return {"format": self.format, "version": VERSION, "choices": self.public}

    @classmethod
    def from_json(cls, obj: Any, where: str = "choices") -> Choices:
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
