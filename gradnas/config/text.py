"""Text to JSON trees, the one place where gradnas reads JSON; how errors show what they hold."""

from __future__ import annotations

import json
import re
import reprlib
from pathlib import Path
from typing import Any

Json = Any  # a JSON tree as a file holds it: nothing is known of it before it is checked
JsonObject = dict[str, Any]  # the same where it is known to be an object

MAX_DEPTH = 100  # of nested lists and objects; our own files have about ten
_TOO_DEEP = f"its lists and objects are nested more than {MAX_DEPTH} deep"
_SURROGATE = re.compile("[\ud800-\udfff]")

# Control characters, what turns the direction of writing, halves of characters.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80
_SHORT.maxlong = 40


def read_text(path: str | Path) -> str:
    """The text of a file in UTF-8, with or without a byte order mark.

    Raises:
        ValueError: there is none, it is a folder or no file at all (a pipe would be waited for,
            perhaps for ever), it may not be read, or is no text; the sentence names it.
    """
    path = Path(path)
    try:
        check_file(path)
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not a text file in UTF-8: {error.reason} at byte {error.start}"
        ) from error


def check_file(path: Path, needed: str = "a file") -> None:
    """ValueError where there is something of this name, and no file: a pipe would be waited for."""
    if path.exists() and not path.is_file():
        what = "a folder" if path.is_dir() else "no regular file"
        raise ValueError(f"cannot read {path}: it is {what}, but {needed} is needed")


def parse_json(text: str, where: str) -> Json:
    """The JSON tree that a text holds. Every JSON that gradnas reads comes through here.

    Stricter than Python's reader where that would choose in silence or let the next function fail:
    a key may stand in an object once, and texts must have a form in UTF-8. NaN and Infinity, which
    are no JSON but which many programs write, are read: what knows the field refuses them by name.

    Args:
        where: what errors call the text: the path of its file, as a rule.

    Raises:
        ValueError: the text is no JSON; an object has a key twice; nested deeper than `MAX_DEPTH`.
    """
    try:
        data = json.loads(text, object_pairs_hook=_object_of)
    except RecursionError:
        raise ValueError(f"{where} is not a JSON file to be read here: {_TOO_DEEP}") from None
    except ValueError as error:  # of JSON itself, a number of too many digits, a key that is twice
        raise ValueError(f"{where} is not a JSON file: {error}") from error

    # By a list of what is still to be looked at: a function that calls itself could not look at
    # what is nested too deeply.
    ahead: list[tuple[Json, int]] = [(data, 1)]
    while ahead:
        value, depth = ahead.pop()
        if depth > MAX_DEPTH:
            raise ValueError(f"{where} is not a JSON file to be read here: {_TOO_DEEP}")
        if isinstance(value, dict):
            ahead += [(key, depth) for key in value]
            ahead += [(item, depth + 1) for item in value.values()]
        elif isinstance(value, list):
            ahead += [(item, depth + 1) for item in value]
        elif isinstance(value, str) and not value.isascii() and _SURROGATE.search(value):
            raise ValueError(
                f"{where} is not a JSON file: it holds half of a character, {value[:40]!a}"
            )
    return data


def _object_of(pairs: list[tuple[str, Json]]) -> JsonObject:
    found: JsonObject = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {shown(key)} stands twice in one object")
        found[key] = value
    return found


def visible(text: str) -> str:
    """Text in which nothing moves the cursor of a terminal, changes its colours or its direction.

    Such characters are written as in Python: `\\x1b`. Line breaks and tabulators stay.
    """
    return _UNSEEN.sub(lambda found: ascii(found[0])[1:-1], text)


def shown(value: object) -> str:
    """A value as an error shows it: as Python writes it, cut where it is long."""
    return _SHORT.repr(value)


def counted(number: int, noun: str) -> str:
    """Such as `1 epoch`, `12 epochs`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
