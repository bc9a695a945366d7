"""What every architecture is: a frozen value with a text, a JSON form and a file.

This room needs the standard library alone, so that an architecture can be read where there is no
torch.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from gradnas.architectures.shown import Shown
from gradnas.config import Json, JsonObject, check_file, did_you_mean, parse_json

# A bound on the work that a hostile text can cause: far beyond any published architecture
MAX_CHARACTERS = 100_000


class Architecture(Shown, ABC):
    """The discrete result of a search. A subclass is a frozen dataclass and says what it holds.

    Class attributes:
        format: the entry `format` of its JSON form.
        noun: what errors call it.
        published_texts: name -> text form of those that papers have published.
    """

    format: ClassVar[str]
    noun: ClassVar[str]
    published_texts: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    def to_text(self) -> str:
        """The text form; `parse` reads it back."""

    def __str__(self) -> str:
        return self.to_text()

    @classmethod
    @abstractmethod
    def parse(cls, text: str) -> Self:
        """Read the text form. Raises ValueError for everything else."""

    @classmethod
    def resembles(cls, text: str) -> bool:
        """Whether a text looks like this kind's text form, right or wrong."""
        return False

    @abstractmethod
    def to_json(self) -> JsonObject:
        """The architecture as a dict of JSON types; `from_json` reads it back."""

    @classmethod
    @abstractmethod
    def from_json(cls, obj: Json, where: str = "architecture") -> Self:
        """The architecture that `obj` describes; errors name it `where`.

        Raises ValueError, naming the field, for an unknown or missing field, a wrong type or value.
        """

    def parts(self) -> dict[str, str]:
        """The decisions that it consists of: where -> what was decided there, both as text."""
        return {self.noun: self.to_text()}

    @property
    def public(self) -> Any:
        """What a user is shown of it: itself, where there is no plainer form."""
        return self

    # -- published ones ----------------------------------------------------------------------------

    @classmethod
    def named(cls, name: str) -> Self:
        """A published one. Raises ValueError, with the nearest name, for one not in `names()`."""
        if name not in cls.published_texts:
            hint = did_you_mean(name, cls.names())
            known = ", ".join(cls.names())
            raise ValueError(
                f"no published {cls.noun} is named {name!r}{hint}; the names are {known}"
            )
        return cls.parse(cls.published_texts[name])

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Every name that `named` knows."""
        return tuple(cls.published_texts)

    # -- files -------------------------------------------------------------------------------------

    def save(self, path: Path | str) -> None:
        """Write the JSON file; a reader sees the old file or the whole new one.

        Raises:
            ValueError: it cannot be written; the sentence names the folder that does not exist.
        """
        _write_text_atomically(Path(path), _readable_json(self.to_json()))

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a JSON file of `save`, or a file with the text form.

        Raises ValueError, naming the file, if it holds neither, and OSError if it cannot be read.
        """
        check_file(Path(path))
        try:
            text = Path(path).read_text(encoding="utf-8-sig")
            if text.lstrip().startswith(("{", "[")):  # no text form does
                return cls.from_json(parse_json(text, "its text"))
            return cls.parse(text)
        except ValueError as error:
            raise ValueError(f"{path} does not hold a {cls.noun}: {error}") from error


# -- what the JSON forms have in common ------------------------------------------------------------


def checked_object(obj: Json, form: str, where: str) -> JsonObject:
    """`obj`, if it is an object of this format. ValueError otherwise."""
    if not isinstance(obj, dict):
        raise ValueError(f"{where} must be an object, not {type_word(obj)}")
    if obj.get("format") != form:
        raise ValueError(f"{where}: field 'format' must be {form!r}, not {obj.get('format')!r}")
    return obj


def check_known(fields: Collection[object], known: Collection[str], where: str) -> None:
    """ValueError, with the nearest name, for a field that is not one of the known."""
    for field in fields:
        if field not in known:
            hint = did_you_mean(str(field), known)
            raise ValueError(f"{where}: unknown field {field!r}{hint}")


def check_complete(fields: Collection[object], needed: Collection[str], where: str) -> None:
    """ValueError that names the fields that are missing."""
    missing = [repr(field) for field in needed if field not in fields]
    if missing:
        raise ValueError(f"{where}: missing field {', '.join(missing)}")


def is_version(value: object, version: int) -> bool:
    """Whether an entry `version` is this one; in JSON `true` is not the number 1."""
    return type(value) is int and value == version


def type_word(value: object) -> str:
    """What errors call the type of a value."""
    return "null" if value is None else type(value).__name__


# -- writing files ---------------------------------------------------------------------------------


def _readable_json(obj: JsonObject) -> str:
    """Indented, but each innermost list on one line. A line break never lies inside a JSON
    string."""

    def on_one_line(innermost: re.Match[str]) -> str:
        items = re.sub(r"\n\s*", " ", innermost[1])
        return f"[{items}]"

    return re.sub(r"\[\n\s*([^\[\]]*)\n\s*\]", on_one_line, json.dumps(obj, indent=2) + "\n")


def _write_text_atomically(path: Path, text: str) -> None:
    # Not `runs.write_atomically`: that module needs torch
    if not path.parent.is_dir():
        raise ValueError(f"cannot write {path}: there is no folder {path.parent}")
    if path.is_dir():
        raise ValueError(f"cannot write {path}: it is a folder; give the name of a file in it")
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise ValueError(f"cannot write {path}: {error.strerror or error}") from error
    finally:  # after an error or Ctrl-C; after the rename there is nothing to remove
        temporary.unlink(missing_ok=True)
