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
import math
import types
import typing
from abc import ABC
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from gradnas.config.ranges import LARGEST_WHOLE
from gradnas.config.text import Json, JsonObject, parse_json, read_text, shown

T = TypeVar("T")


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


# ---- by the annotation of a field ----------------------------------------------------------------


def _kind(data: Json) -> str:
    names = {
        dict: "an object",
        list: "a list",
        str: "a text",
        bool: "true/false",
        type(None): "null",
    }
    return names.get(type(data), f"the number {shown(data)}")


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
    if dataclasses.is_dataclass(annotation) or _is_abstract(annotation):
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


def _is_abstract(cls: Any) -> bool:
    """Whether only what is below a class can be meant: also of one whose methods all do nothing."""
    return inspect.isabstract(cls) or (isinstance(cls, type) and ABC in cls.__bases__)


def subclasses(cls: type[T]) -> dict[str, type[T]]:
    """The class, unless it is abstract, and all below it that are imported, by name."""
    classes: dict[str, type[T]] = {}
    if not _is_abstract(cls):
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


def decoded(cls: type[Any], name: str, data: Json, where: str) -> Any:
    """The value of one field of a dataclass from its JSON form. Errors are those of `from_json`."""
    return _decode(typing.get_type_hints(cls)[name], data, f"{where}.{name}")


def build(cls: type[T], data: Mapping[str, Json], where: str) -> T:
    """Build dataclass `cls` from field values in JSON form, without a `"type"` entry.

    Errors are those of `from_json`.
    """
    if not isinstance(data, Mapping):
        raise ValueError(f"{where} must be an object, not {_kind(data)}")
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
