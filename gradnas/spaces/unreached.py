"""Choices that no pass of a network can reach, and others that merely did not run in a trial."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import CodeType

from torch import nn

from gradnas.spaces.module_choices import places_in
from gradnas.spaces.your_module import ModuleSupernet

CONTAINERS = (nn.ModuleDict, nn.ModuleList, nn.Sequential)
# By these, code reaches modules whose names it does not write.
REACHES_ALL = frozenset(
    {
        "__dict__",
        "_modules",
        "children",
        "get_submodule",
        "getattr",
        "modules",
        "named_children",
        "named_modules",
        "vars",
    }
)


def unreached(supernet: ModuleSupernet) -> tuple[list[str], list[str]]:
    """After a trial pass of every operation: choices that cannot run, and others that did not.

    A choice that did not run cannot run at all where no method of the network, its constructor
    apart, names the attribute it lies in, or an attribute on the way to it. What is named may run
    at other times: in some passes by chance, from some epoch on.

    Returns:
        Each with its places, such as `body (net.body)`.
    """
    places = places_in(supernet.net)
    named = _names_in_code(supernet.net)
    never, not_yet = [], []
    for name in supernet.idle_choices():
        can_run = any(_is_named(supernet.net, path, named) for path in places[name])
        (not_yet if can_run else never).append(f"{name!r} ({', '.join(places[name])})")
    return never, not_yet


def _is_named(net: nn.Module, path: str, named: set[str]) -> bool:
    """Whether code names every attribute on the way to a module, or may reach it otherwise."""
    if named & REACHES_ALL:
        return True
    owner = net
    for part in path.split("."):
        # What lies in a container is reached by the container.
        if not isinstance(owner, CONTAINERS) and part not in named:
            return False
        owner = owner._modules.get("_orig_mod") or owner  # which torch.compile has put around it
        child = owner._modules[part]
        assert child is not None
        owner = child
    return True


def _names_in_code(net: nn.Module) -> set[str]:
    """All names that the methods of the user's own modules use, but those of constructors."""
    found: set[str] = set()
    seen: set[type] = set()
    for module in net.modules():
        for function in [own for own in vars(module).values() if callable(own)]:
            found |= set(_names_of(function))  # a method that was put into one object
        for cls in type(module).__mro__:
            is_own = not cls.__module__.startswith(("torch.", "gradnas.")) and cls is not object
            if cls in seen or not is_own:
                continue
            seen.add(cls)
            for name, value in vars(cls).items():
                if name != "__init__":
                    found |= set(_names_of(value))
    return found


def _names_of(value: object) -> Iterator[str]:
    if isinstance(value, property):
        for part in (value.fget, value.fset):
            yield from _names_of(part)
        return
    function = inspect.unwrap(getattr(value, "__func__", value))  # type: ignore[arg-type]
    code = getattr(function, "__code__", None)
    if isinstance(code, CodeType):
        yield from _names_of_code(code)


def _names_of_code(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names_of_code(constant)
