"""Nested frozen dataclasses <-> JSON, with errors that name the field and the nearest right one.

A method is a frozen dataclass whose fields are its hyperparameters (`Softmax()`,
`Unrolled(mode="exact")`), so a configuration is a tree of such values. Where a field may hold one
of several classes (a relaxation, a gradient), the JSON object carries `"type": "<class name>"`, and
the name is looked up among the subclasses *already imported*: loading a file never imports or runs
anything.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import json
import math
import re
import reprlib
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

Json = Any  # a JSON tree as a file holds it: nothing is known of it before it is checked
JsonObject = dict[str, Any]  # the same where it is known to be an object
LARGEST_WHOLE = 2**63 - 1  # what tensors and the generators of random numbers can hold


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """Text to append to an error: `" (did you mean 'x'?)"`, or `""` when nothing is near."""
    by_lowered = {option.lower(): option for option in options}
    wanted = str(name).lower()[:200]  # nothing is near to longer ones, and finding out takes long
    near = difflib.get_close_matches(wanted, by_lowered, n=1, cutoff=0.5)
    if not near:
        return ""
    return f" (did you mean {by_lowered[near[0]]!r}?)"


def to_json(value: object) -> Json:
    """A tree of dataclasses, tuples, lists, dictionaries and plain values as JSON-ready objects.

    Every dataclass becomes an object with a `"type"` entry unless it defines `to_json()` itself.

    Raises:
        ValueError: for a value that has no JSON form, such as a function.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        entries: JsonObject = {"type": type(value).__name__}
        own_form = getattr(value, "to_json", None)
        if own_form is not None:
            return entries | own_form()
        for field in dataclasses.fields(value):
            if field.init:
                entries[field.name] = to_json(getattr(value, field.name))
        return entries
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_json(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} cannot be written as JSON")
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    kind = type(value).__name__
    raise ValueError(f"a {kind} cannot be written into a configuration file: {value!r}")


def from_json(cls: type[T], data: Json, where: str = "config") -> T:
    """The value of class `cls` that `data` describes; `where` is the path that errors name.

    Raises:
        ValueError: unknown field (with the nearest right name), missing field, wrong type, unknown
            class.
    """
    return _decode(cls, data, where)


def load(cls: type[T], path: str | Path) -> T:
    """Read a JSON file into `cls`.

    Raises:
        ValueError: as `from_json`; or it is not JSON, with the file and the line.
    """
    return from_json(cls, read_object(path))


def read_object(path: str | Path) -> JsonObject:
    """A JSON file that holds one object; ValueError that names the file otherwise."""
    data = parse_json(read_text(path), str(path))
    if not isinstance(data, dict):
        raise ValueError(f"{path} holds {_kind(data)}, but a JSON object is needed")
    return data


# ---- text to JSON trees --------------------------------------------------------------------------


def read_text(path: str | Path) -> str:
    """The text of a file in UTF-8, with or without a byte order mark.

    Raises:
        ValueError: there is none, it is a folder or no file at all (a pipe would be waited for,
            perhaps for ever), it may not be read, or is no text; the sentence names it.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            what = "a folder" if path.is_dir() else "no regular file"
            raise ValueError(f"cannot read {path}: it is {what}, but a file is needed")
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not a text file in UTF-8: {error.reason} at byte {error.start}"
        ) from error


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


MAX_DEPTH = 100  # of nested lists and objects; our own files have about ten
_TOO_DEEP = f"its lists and objects are nested more than {MAX_DEPTH} deep"
_SURROGATE = re.compile("[\ud800-\udfff]")


def _object_of(pairs: list[tuple[str, Json]]) -> JsonObject:
    found: JsonObject = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {shown(key)} stands twice in one object")
        found[key] = value
    return found


def shown(value: object) -> str:
    """A value as an error shows it: as Python writes it, cut where it is long."""
    return _SHORT.repr(value)


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80
_SHORT.maxlong = 40


def _kind(data: Json) -> str:
    names = {
        dict: "an object",
        list: "a list",
        str: "a text",
        bool: "true/false",
        type(None): "null",
    }
    return names.get(type(data), f"the number {shown(data)}")


# ---- by the annotation of a field ----------------------------------------------------------------


def _decode(annotation: Any, data: Json, where: str) -> Any:
    """The value of the annotated type that `data` describes."""
    origin = typing.get_origin(annotation)
    arguments = typing.get_args(annotation)
    if annotation is Any:
        return data
    if origin in (typing.Union, types.UnionType):
        return _decode_union(arguments, data, where)
    if origin is typing.Literal:
        # By type too: for Python true is the number 1.
        is_option = any(type(data) is type(option) and data == option for option in arguments)
        if not is_option:
            options = ", ".join(repr(argument) for argument in arguments)
            hint = ""
            if isinstance(data, str):
                hint = did_you_mean(data, [str(argument) for argument in arguments])
            raise ValueError(f"{where} must be one of {options}, not {shown(data)}{hint}")
        return data
    if origin is tuple:
        return _decode_tuple(arguments, data, where)
    if origin in (dict, Mapping):
        if not isinstance(data, dict):
            raise ValueError(f"{where} must be an object, not {_kind(data)}")
        _, item_type = arguments  # keys are texts, as JSON has no others
        items = {}
        for key, item in data.items():
            items[key] = _decode(item_type, item, f"{where}.{_short_key(key)}")
        return items
    if dataclasses.is_dataclass(annotation) or inspect.isabstract(annotation):
        return _decode_dataclass(annotation, data, where)
    return _decode_plain(annotation, data, where)


def _short_key(key: str) -> str:
    return key if len(key) <= 80 else f"{key[:80]}..."


def _decode_plain(annotation: Any, data: Json, where: str) -> Any:
    # In Python true and false are whole numbers too; in a configuration they are no number.
    is_bool = isinstance(data, bool)
    is_whole = isinstance(data, int) and not is_bool
    if is_whole and annotation in (int, float) and abs(data) > LARGEST_WHOLE:
        raise ValueError(f"{where} must be a number of at most 64 bits, not {shown(data)}")
    if annotation is float and is_whole:
        return float(data)
    if annotation is float and isinstance(data, float) and not math.isfinite(data):
        raise ValueError(f"{where} must be a finite number, not {data}")
    if annotation is Path and isinstance(data, str):
        return Path(data)
    is_bool_for_number = is_bool and annotation is int
    if isinstance(data, annotation) and not is_bool_for_number:
        return data
    words = {
        int: "a whole number",
        float: "a number",
        str: "a text",
        bool: "true or false",
        type(None): "null",
    }
    raise ValueError(f"{where} must be {words.get(annotation, annotation)}, not {shown(data)}")


def _decode_union(options: tuple[object, ...], data: Json, where: str) -> Any:
    if data is None and type(None) in options:
        return None
    errors = []
    for option in options:
        if option is type(None):
            continue
        try:
            return _decode(option, data, where)
        except ValueError as error:
            errors.append(str(error))
    if len(errors) == 1:  # `X | None`: what is wrong with it as an X
        raise ValueError(errors[0])
    raise ValueError(f"{where} fits none of its forms: {'; '.join(errors)}")


def _decode_tuple(arguments: tuple[object, ...], data: Json, where: str) -> tuple[object, ...]:
    if not isinstance(data, (list, tuple)):
        raise ValueError(f"{where} must be a list, not {_kind(data)}")
    is_of_any_length = len(arguments) == 2 and arguments[1] is Ellipsis
    item_types = arguments[:1] * len(data) if is_of_any_length else arguments
    if len(data) != len(item_types):
        raise ValueError(f"{where} must have {len(item_types)} entries, not {len(data)}")
    items = []
    for position, item in enumerate(data):
        items.append(_decode(item_types[position], item, f"{where}[{position}]"))
    return tuple(items)


def subclasses(cls: type[T]) -> dict[str, type[T]]:
    """The class, unless it is abstract, and all below it that are imported, by name."""
    classes: dict[str, type[T]] = {}
    if not inspect.isabstract(cls):
        classes[cls.__name__] = cls
    for child in cls.__subclasses__():
        classes |= subclasses(child)
    return classes


def _decode_dataclass(cls: Any, data: Json, where: str) -> Any:
    if not isinstance(data, dict):
        raise ValueError(
            f"{where} must be an object with the fields of {cls.__name__}, not {_kind(data)}"
        )
    options = subclasses(cls)
    default = cls.__name__ if cls.__name__ in options else None
    name = data.get("type", default)
    if name is not None and not isinstance(name, str):
        raise ValueError(f"{where}.type must be a text, the name of a class, not {shown(name)}")
    if name not in options:
        known = ", ".join(sorted(options))
        what = "the entry 'type' is missing"
        if name is not None:
            what = f"unknown type {shown(name)}{did_you_mean(name, options)}"
        raise ValueError(
            f"{where}: {what}; known here: {known} (import your own class before loading, "
            "on the command line with --import MODULE)"
        )
    chosen: Any = options[name]
    entries = {key: item for key, item in data.items() if key != "type"}
    own_form = getattr(chosen, "from_json", None)
    if own_form is not None:
        return own_form(entries, where)
    return build(chosen, entries, where)


def build(cls: type[T], data: Mapping[str, Json], where: str) -> T:
    """Build dataclass `cls` from field values in JSON form, without a `"type"` entry.

    Errors are those of `from_json`.
    """
    fields = {}
    for field in dataclasses.fields(typing.cast(Any, cls)):
        if field.init:
            fields[field.name] = field
    for key in data:
        if key not in fields:
            known = ", ".join(fields) or "none"
            hint = did_you_mean(key, fields)
            raise ValueError(f"{where}: unknown field {shown(key)}{hint}; the fields are: {known}")
    annotations = typing.get_type_hints(cls)
    values = {}
    for key, item in data.items():
        values[key] = _decode(annotations[key], item, f"{where}.{key}")
    for key, field in fields.items():
        has_default = (
            field.default is not dataclasses.MISSING
            or field.default_factory is not dataclasses.MISSING
        )
        if key not in values and not has_default:
            raise ValueError(f"{where}: the field {key!r} is missing")
    try:
        return cls(**values)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
