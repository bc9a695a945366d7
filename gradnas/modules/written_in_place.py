"""Whether a network may change a tensor in place, read from its code where no pass was seen.

It errs on the side of yes, which costs a copy: a counter that a forward pass raises looks the same
as a tensor that it adds to. What compiled code does it cannot find.
"""

from __future__ import annotations

import dis
import functools
import inspect
from collections.abc import Iterator
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

# Layers of torch that give their input on as it is, or a view of it, at least in one mode.
PASSES_ON = (
    nn.Identity,
    nn.modules.dropout._DropoutNd,
    nn.Flatten,
    nn.Unflatten,
    nn.Unfold,
    nn.Fold,
    nn.PixelShuffle,
    nn.PixelUnshuffle,
    nn.ChannelShuffle,
)


def may_write_in_place(net: nn.Module, known: tuple[type[nn.Module], ...] = ()) -> bool:
    """Whether a layer, a `forward` or what it calls has anything that changes tensors in place.

    Args:
        known: classes that are known to do so in tensors of their own alone.
    """
    reader = _Reader()
    return any(reader.writes(m) for m in net.modules() if not isinstance(m, known))


def may_give_its_input(module: nn.Module) -> bool:
    """Whether an output of a module may lie in the memory of its input; of a user's class, yes."""
    if isinstance(module, nn.Sequential):
        return all(may_give_its_input(child) for child in module.children())
    if _is_of_torch(type(module)):
        return isinstance(module, PASSES_ON) or bool(getattr(module, "inplace", False))
    return True


def _is_of_torch(kind: type) -> bool:
    return kind.__module__.partition(".")[0] == "torch"


@functools.cache
def _with_inplace() -> frozenset[str]:
    """Functions of torch that change their input where an argument says so: `relu(x, True)`."""
    names = set()
    for name, function in vars(F).items():
        try:
            parameters = inspect.signature(function).parameters
        except (TypeError, ValueError):
            continue
        if "inplace" in parameters:
            names.add(name)
    return frozenset(names)


class _Reader:
    """Follows what a forward pass calls, as far as it is Python of the user's."""

    def __init__(self) -> None:
        self._seen: set[tuple[int, int]] = set()  # (code, class), each read once

    def writes(self, module: nn.Module) -> bool:
        if getattr(module, "inplace", False):
            return True
        if isinstance(module, torch.jit.ScriptModule):
            return True
        for hooks in (module._forward_hooks, module._forward_pre_hooks):
            if any(self._value_writes(hook, module) for hook in hooks.values()):
                return True
        forward = vars(module).get("forward")  # set on the instance
        if forward is not None:
            return self._value_writes(forward, module)
        if _is_of_torch(type(module)):
            return False
        return self._value_writes(type(module).forward, module)

    def _value_writes(self, value: Any, module: nn.Module) -> bool:
        """Of something that is called, or that holds such things."""
        if isinstance(value, functools.partial):
            if any(value.keywords.get(name) for name in ("inplace", "out")):
                return True
            return self._value_writes(value.func, module)
        if isinstance(value, property):
            return value.fget is not None and self._value_writes(value.fget, module)
        if isinstance(value, (staticmethod, classmethod, MethodType)):
            return self._value_writes(value.__func__, module)
        if not isinstance(value, FunctionType):
            return callable(value) and _is_name_in_place(getattr(value, "__name__", ""))
        value = inspect.unwrap(value)
        # None of a function that `exec` made without a name for its module.
        of = getattr(value, "__module__", None) or ""
        if not isinstance(value, FunctionType) or of.partition(".")[0] == "torch":
            return _is_name_in_place(getattr(value, "__name__", ""))
        key = (id(value.__code__), id(type(module)))
        if key in self._seen:
            return False
        self._seen.add(key)
        for code in _codes_in(value.__code__):
            if _code_writes(code):
                return True
            for called in _called(value, code, module):
                if self._value_writes(called, module):
                    return True
        return False


def _codes_in(code: CodeType) -> Iterator[CodeType]:
    """It and those of the functions written inside."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes_in(constant)


def _code_writes(code: CodeType) -> bool:
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("STORE_SUBSCR", "STORE_SLICE"):
            return True
        if instruction.opname.startswith("INPLACE_"):  # up to Python 3.10
            return True
        if instruction.opname == "BINARY_OP" and instruction.argrepr.endswith("="):
            return True
    if any(_is_name_in_place(name) for name in code.co_names):
        return True
    for constant in code.co_consts:
        # The names of named arguments.
        if isinstance(constant, tuple) and ("out" in constant or "inplace" in constant):
            return True
    by_position = any(constant is True for constant in code.co_consts)
    return by_position and not _with_inplace().isdisjoint(code.co_names)


def _is_name_in_place(name: str) -> bool:
    """torch's own convention: `add_`, `relu_`, `index_fill_`."""
    return name.endswith("_") and not name.endswith("__") and len(name) > 1


def _called(function: FunctionType, code: CodeType, module: nn.Module) -> Iterator[Any]:
    """What the names in a function's code may stand for."""
    modules: list[ModuleType] = []
    for name in code.co_names:
        for value in (
            vars(module).get(name),
            inspect.getattr_static(type(module), name, None),
            function.__globals__.get(name),
        ):
            if isinstance(value, ModuleType):
                if value.__name__.partition(".")[0] != "torch":
                    modules.append(value)
            elif value is not None and not isinstance(value, type):
                yield value
    for beside in modules:
        for name in code.co_names:
            value = vars(beside).get(name)
            if value is not None and not isinstance(value, (ModuleType, type)):
                yield value
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not set yet
            continue
