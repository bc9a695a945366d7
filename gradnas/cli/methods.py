"""Methods named on the command line: `gumbel:hard=false`, or `module:Class` of the user's own."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import sys
import typing
from pathlib import Path
from typing import Any, TypeVar

from gradnas.config import build, did_you_mean, parse_json, subclasses

T = TypeVar("T")


def method_of(base: type[T], text: str, option: str) -> T:
    """The method that an option names.

    Args:
        base: what it must be: `Relaxation`, for example.
        text: `NAME`, `NAME:field=value,...`, `module:Class` or `module:Class:field=value,...`; a
            name may be shortened and is read without regard to case and hyphens. A value is JSON,
            or a word.
        option: for errors.

    Raises:
        ValueError: no such method, module, class, field or value.
    """
    name, *rest = text.split(":", 2)
    is_own = bool(rest) and re.fullmatch(r"[A-Za-z_]\w*", rest[0]) is not None
    if is_own:
        cls = _own_class(base, name, rest.pop(0), option)
    else:
        cls = _known_class(base, name, option)
    values = _values(":".join(rest), option)
    # A field that is a method itself, by its name: inner=dirichlet.
    for field, wanted in typing.get_type_hints(cls).items():
        if inspect.isabstract(wanted) and isinstance(values.get(field), str):
            inner = _known_class(wanted, values[field], f"{option} {cls.__name__}.{field}")
            values[field] = {"type": inner.__name__}
    return build(cls, values, f"{option} {cls.__name__}")


def methods_of(base: type[T], text: str, option: str) -> tuple[T, ...]:
    """The methods that an option names, with `+` between them; of `none` there are none.

    Raises:
        ValueError: as `method_of`.
    """
    if text.strip().lower() == "none":
        return ()
    # No number goes on with a letter after its sign, as 1e+3 does not.
    parts = re.split(r"\+(?=\s*[A-Za-z_])", text)
    return tuple(method_of(base, part.strip(), option) for part in parts)


def import_modules(names: str | None) -> None:
    """Import modules that the user named, with the working directory among their places.

    Args:
        names: with commas between them; None for none.

    Raises:
        ValueError: one cannot be imported.
    """
    for name in names.split(",") if names else ():
        _imported(name.strip(), "--import")


def import_option(config: object) -> str:
    """What a command needs to read a configuration again: ` --import my_methods`, or nothing.

    Of methods and spaces whose classes are in modules of the user's own that can be imported.
    """
    modules = set()
    parts = [
        getattr(config, name, None)
        for name in ("relaxation", "gradient", "objective", "selection", "space")
    ]
    parts += [*getattr(config, "terms", ()), *getattr(config, "stabilizers", ())]
    for part in parts:
        module = type(part).__module__
        is_own = module.partition(".")[0] not in ("gradnas", "builtins", "__main__")
        if is_own and getattr(sys.modules.get(module), "__spec__", None) is not None:
            modules.add(module)
    return f" --import {','.join(sorted(modules))}" if modules else ""


def _known_class(base: type[T], name: str, option: str) -> type[T]:
    known = subclasses(base)
    wanted = _plain(name)
    exact = [cls for own, cls in known.items() if _plain(own) == wanted]
    near = [cls for own, cls in known.items() if _plain(own).startswith(wanted)]
    found = exact or near
    if not wanted or len(found) != 1:
        words = [typed_name(own) for own in known]
        hint = did_you_mean(name, words)
        raise ValueError(
            f"{option}: no {base.__name__} is called {name!r}{hint}; there are {', '.join(words)}, "
            "or module:Class of your own"
        )
    return found[0]


def typed_name(cls: str) -> str:
    """A class as one types it: `binary-gates` for `BinaryGates`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", cls).lower()


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _own_class(base: type[T], module: str, name: str, option: str) -> type[T]:
    before = subclasses(base)
    own = vars(_imported(module, option))
    if name not in own:
        classes = [key for key, value in own.items() if isinstance(value, type)]
        raise ValueError(
            f"{option}: the module {module!r} has no class {name!r}{did_you_mean(name, classes)}"
        )
    found = own[name]
    is_wanted = isinstance(found, type) and issubclass(found, base)
    if not is_wanted or not dataclasses.is_dataclass(found):
        raise ValueError(
            f"{option}: {name!r} in the module {module!r} must be a frozen dataclass below "
            f"gradnas.{base.__name__}, not {found!r}"
        )
    if before.get(name, found) is not found:
        raise ValueError(
            f"{option}: {name!r} is the name of a {base.__name__} of gradnas, by which a "
            "configuration file would mean that one: give yours another name"
        )
    return found


def _imported(module: str, option: str) -> Any:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)  # as `python -m` does it; the command itself lies elsewhere
    try:
        return importlib.import_module(module)
    except Exception as error:
        raise ValueError(
            f"{option}: the module {module!r} cannot be imported: {type(error).__name__}: {error}"
        ) from error


def _values(text: str, option: str) -> dict[str, Any]:
    """`a=1,b=word` as values by name."""
    values: dict[str, Any] = {}
    if not text:
        return values
    # A comma within a value, as in [0.5, 0.9], is followed by no name.
    for part in re.split(r",(?=\s*\w+\s*=)", text):
        name, equals, value = part.partition("=")
        if not equals:
            raise ValueError(
                f"{option}: {part!r} is no field=value; it reads NAME:field=value,field=value"
            )
        values[name.strip()] = _value(value.strip())
    return values


def _value(text: str) -> Any:
    words = {"true": True, "false": False, "none": None, "null": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return parse_json(text, text)
    except ValueError:
        return text
