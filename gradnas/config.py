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
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """Text to append to an error: `" (did you mean 'x'?)"`, or `""` when nothing is near."""
    lowered = {option.lower(): option for option in options}
    near = difflib.get_close_matches(str(name).lower(), lowered, n=1, cutoff=0.5)
    return f" (did you mean {lowered[near[0]]!r}?)" if near else ""


def to_json(value: Any) -> Any:
    """A tree of dataclasses, tuples, lists, dictionaries and plain values as JSON-ready objects.

    Every dataclass becomes an object with a `"type"` entry unless it defines `to_json()` itself.

    Raises:
        ValueError: for a value that has no JSON form, such as a function.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        own = getattr(value, "to_json", None)
        if own is not None:
            return {"type": type(value).__name__, **own()}
        fields = {
            f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init
        }
        return {"type": type(value).__name__, **fields}
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
    raise ValueError(
        f"a {type(value).__name__} cannot be written into a configuration file: {value!r}"
    )


def from_json(cls: type[T], data: Any, where: str = "config") -> T:
    """The value of class `cls` that `data` describes; `where` is the path that errors name.

    Raises:
        ValueError: unknown field (with the nearest right name), missing field, wrong type, unknown
            class.
    """
    return _decode(cls, data, where)


def load(cls: type[T], path: str | Path) -> T:
    """Read a JSON file into `cls`. Raises ValueError that names the file and the line when it is
    not JSON."""
    return from_json(cls, read_object(path))


def read_object(path: str | Path) -> dict[str, Any]:
    """A JSON file that holds one object; ValueError that names the file otherwise."""
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not a JSON file: {error}") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path} holds {_kind(data)}, but a JSON object is needed")
    return data


def _kind(data: Any) -> str:
    names = {
        dict: "an object",
        list: "a list",
        str: "a text",
        bool: "true/false",
        type(None): "null",
    }
    return names.get(type(data), f"the number {data}")


def _decode(annotation: Any, data: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is Any:
        return data
    if origin in (typing.Union, types.UnionType):
        return _decode_union(arguments, data, where)
    if origin is typing.Literal:
        if data not in arguments:
            options = ", ".join(map(repr, arguments))
            raise ValueError(
                f"{where} must be one of {options}, not {data!r}{did_you_mean(data, map(str, arguments))}"
            )
        return data
    if origin is tuple:
        return _decode_tuple(arguments, data, where)
    if origin in (dict, Mapping):
        if not isinstance(data, dict):
            raise ValueError(f"{where} must be an object, not {_kind(data)}")
        return {key: _decode(arguments[1], item, f"{where}.{key}") for key, item in data.items()}
    if dataclasses.is_dataclass(annotation) or inspect.isabstract(annotation):
        return _decode_dataclass(annotation, data, where)
    return _decode_plain(annotation, data, where)


def _decode_plain(annotation: Any, data: Any, where: str) -> Any:
    if annotation is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if annotation is Path and isinstance(data, str):
        return Path(data)
    fits = isinstance(data, annotation) and not (
        annotation in (int, float) and isinstance(data, bool)
    )
    if not fits:
        words = {
            int: "a whole number",
            float: "a number",
            str: "a text",
            bool: "true or false",
            type(None): "null",
        }
        raise ValueError(f"{where} must be {words.get(annotation, annotation)}, not {data!r}")
    return data


def _decode_union(options: tuple[Any, ...], data: Any, where: str) -> Any:
    if data is None and type(None) in options:
        return None
    errors = []
    for option in (o for o in options if o is not type(None)):
        try:
            return _decode(option, data, where)
        except ValueError as error:
            errors.append(str(error))
    raise ValueError(
        errors[0] if len(errors) == 1 else f"{where} fits none of its forms: " + "; ".join(errors)
    )


def _decode_tuple(arguments: tuple[Any, ...], data: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(data, (list, tuple)):
        raise ValueError(f"{where} must be a list, not {_kind(data)}")
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(_decode(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(data))
    if len(data) != len(arguments):
        raise ValueError(f"{where} must have {len(arguments)} entries, not {len(data)}")
    pairs = zip(arguments, data, strict=True)
    return tuple(_decode(kind, item, f"{where}[{i}]") for i, (kind, item) in enumerate(pairs))


def _descendants(cls: type) -> dict[str, type]:
    found = {} if inspect.isabstract(cls) else {cls.__name__: cls}
    for child in cls.__subclasses__():
        found.update(_descendants(child))
    return found


def _decode_dataclass(cls: Any, data: Any, where: str) -> Any:
    if not isinstance(data, dict):
        raise ValueError(
            f"{where} must be an object with the fields of {cls.__name__}, not {_kind(data)}"
        )
    options = _descendants(cls)
    name = data.get("type", cls.__name__ if cls.__name__ in options else None)
    if name not in options:
        known = ", ".join(sorted(options))
        what = (
            f"unknown type {name!r}{did_you_mean(name, options)}"
            if name is not None
            else "the entry 'type' is missing"
        )
        raise ValueError(
            f"{where}: {what}; known here: {known} (import your own class before loading)"
        )
    chosen: Any = options[name]
    data = {key: item for key, item in data.items() if key != "type"}
    own = getattr(chosen, "from_json", None)
    if own is not None:
        return own(data, where)
    return build(chosen, data, where)


def build(cls: type[T], data: Mapping[str, Any], where: str) -> T:
    """Build dataclass `cls` from field values in JSON form (no `"type"` entry); errors as in
    `from_json`."""
    fields = {f.name: f for f in dataclasses.fields(typing.cast(Any, cls)) if f.init}
    for key in data:
        if key not in fields:
            known = ", ".join(fields) or "none"
            raise ValueError(
                f"{where}: unknown field {key!r}{did_you_mean(key, fields)}; the fields are: {known}"
            )
    hints = typing.get_type_hints(cls)
    values = {key: _decode(hints[key], item, f"{where}.{key}") for key, item in data.items()}
    for key, field in fields.items():
        missing = (
            field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        )
        if key not in values and missing:
            raise ValueError(f"{where}: the field {key!r} is missing")
    try:
        return cls(**values)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
