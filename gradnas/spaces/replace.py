"""Choices in a model that one did not write: layers are found by name, type or a question."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any, TypeVar

from torch import nn

from gradnas.choice import Choice
from gradnas.config import did_you_mean
from gradnas.spaces.chosen import put_everywhere

M = TypeVar("M", bound=nn.Module)

Which = str | type | tuple[type, ...] | Callable[[nn.Module], bool]
Rule = Callable[[Any], Mapping[str, nn.Module] | None]

NUM_NAMED = 5  # of many names, an error gives so many


def replace(model: M, which: Which, rule: Rule, name: str | None = None) -> M:
    """Put a `Choice` in the place of every layer that is meant; the model is changed and returned.

        gradnas.replace(model, "*.mlp", lambda old: {"keep": old, "skip": gradnas.Skip()})

    A layer that lies in several places gets one choice, which lies in all of them. The choices have
    the names of their places in the model that is searched (`encoder/layer/0/mlp`), so that each
    decides for itself.

    Args:
        which: a pattern of qualified names as in `model.named_modules()`, where `*` also stands for
            dots (`"encoder.layer.*.mlp"`); a type, or a tuple of types; or a function from a module
            to whether it is meant. The model itself is never meant.
        rule: layer -> the operations of its choice by name (the layer itself may be one of them),
            or None to leave it.
        name: one name for all of these choices: they then make one decision together.

    Raises:
        ValueError: nothing is meant; the rule leaves everything; a layer that is meant lies inside
            another one or inside a choice, or is one; what the rule gives is no dictionary of
            operations. The model is then as it was.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"replace takes a module, not a {type(model).__name__}")
    paths = _meant(model, which)
    given: dict[nn.Module, Any] = {}
    for old in paths:
        operations = rule(old)
        if operations is not None:
            given[old] = operations
    if not given:
        raise ValueError(
            f"the rule gave None for {_listed(list(paths.values()))}, so there is no choice: let "
            "it return a dictionary of operations for some of them"
        )
    _check_places(model, given, _described(which))
    choices: dict[nn.Module, nn.Module] = {}
    for old, operations in given.items():
        choices[old] = _choice(operations, name, paths[old])
    # What is looked for may also lie in plain attributes of the layers that were replaced.
    put_everywhere(model, lambda old: choices.get(old, old), lambda old, new: old)
    return model


def _meant(model: nn.Module, which: Which) -> dict[nn.Module, str]:
    """The modules that are meant, each once, with the first name that it is meant by."""
    found: dict[nn.Module, str] = {}
    paths = []
    for path, module in model.named_modules(remove_duplicate=False):
        if module is model:
            continue
        paths.append(path)
        if _is_meant(path, module, which):
            found.setdefault(module, path)
    if not found:
        hint = ""
        if isinstance(which, str):
            hint = did_you_mean(which, paths) or f"; it has {_listed(paths)}"
        raise ValueError(f"{type(model).__name__} has no module {_described(which)}{hint}")
    return found


def _is_meant(path: str, module: nn.Module, which: Which) -> bool:
    if isinstance(which, str):
        return fnmatchcase(path, which)
    if isinstance(which, (type, tuple)):
        return isinstance(module, which)
    if not callable(which):
        raise ValueError(
            "which layers are meant is said by a pattern of names, a type or a function, not by "
            f"{which!r}"
        )
    return bool(which(module))


def _described(which: Which) -> str:
    if isinstance(which, str):
        return f"whose name fits {which!r}"
    if isinstance(which, type):
        return f"of type {which.__name__}"
    if isinstance(which, tuple):
        names = [getattr(kind, "__name__", repr(kind)) for kind in which]
        return f"of type {' or '.join(names)}"
    return f"for which {getattr(which, '__name__', repr(which))} is true"


def _choice(operations: Any, name: str | None, path: str) -> Choice:
    if not isinstance(operations, Mapping):
        raise ValueError(
            "the rule must return a dictionary from names to modules, or None to leave a layer; "
            f"for {path!r} it returned a {type(operations).__name__}"
        )
    try:
        return Choice(operations, name=name)
    except ValueError as error:
        raise ValueError(f"the rule for {path!r}: {error}") from error


def _check_places(model: nn.Module, given: Mapping[nn.Module, Any], which: str) -> None:
    """ValueError for a layer that is a choice, or inside one, or inside another such layer."""
    for path, module in model.named_modules(remove_duplicate=False):
        if module not in given or module is model:
            continue
        if isinstance(module, Choice):
            raise ValueError(
                f"{path!r} is a Choice already, and among the modules {which}: leave it out, by a "
                "narrower pattern or by a rule that returns None for it"
            )
        parts = path.split(".")
        for depth in range(1, len(parts)):
            outer_path = ".".join(parts[:depth])
            outer = model.get_submodule(outer_path)
            if isinstance(outer, Choice):
                raise ValueError(
                    f"{path!r} lies inside the Choice at {outer_path!r}, and is among the modules "
                    f"{which}: make the inner choices first, or leave it out"
                )
            if outer in given:
                raise ValueError(
                    f"{path!r} lies inside {outer_path!r}, and both are among the modules {which}: "
                    "mean one of them, or let the rule return None for the other"
                )


def _listed(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:NUM_NAMED])
    more = len(names) - NUM_NAMED
    return shown + (f" and {more} more" if more > 0 else "")
