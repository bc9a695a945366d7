"""A copy of a module, whatever it keeps beside its weights."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Mapping
from types import CellType, FunctionType
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


class _WithoutGraphs(TorchFunctionMode):
    """Within: a tensor with a graph behind it is copied as a value.

    A module may keep an activation (`self.map = attention`), and the old `weight_norm` keeps its
    product; `copy.deepcopy` refuses both.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is Tensor.__deepcopy__:
            tensor, memo = args
            if not tensor.is_leaf:
                memo[id(tensor)] = tensor.detach().clone()
                return memo[id(tensor)]
        return func(*args, **(kwargs or {}))


def copied(net: nn.Module) -> nn.Module:
    """A deep copy; activations that the module keeps are copied without their graph.

    Python copies no functions: a hook that writes into its module by a closure would go on to write
    into the original. Such hooks, and functions that are attributes, are made anew.

    Raises:
        ValueError: it holds what Python cannot copy; the attribute is named.
    """
    memo: dict[int, Any] = {}
    for module in net.modules():
        # Every module has a dozen of them, which take most of the time of a copy.
        for value in vars(module).values():
            if type(value) in (dict, OrderedDict) and not value:
                memo[id(value)] = type(value)()
    try:
        network = _deepcopied(net, memo)
    except (TypeError, RuntimeError, NotImplementedError) as error:
        raise ValueError(
            f"{_what_cannot_be_copied(net)} cannot be copied, as the derived network needs it: "
            f"{error}. Keep it outside the module, or give it a __deepcopy__"
        ) from error
    for module in network.modules():
        for name, value in list(vars(module).items()):
            _bind_anew(vars(module), name, value, memo)
        for name in _HOOKS:
            hooks = getattr(module, name, None)
            if hooks:
                for number, hook in list(hooks.items()):
                    _bind_anew(hooks, number, hook, memo)
    return network


def _deepcopied(value: Any, memo: dict[int, Any] | None = None) -> Any:
    with _WithoutGraphs():
        return copy.deepcopy(value, memo)


_HOOKS = tuple(name for name in vars(nn.Module()) if name.endswith("_hooks"))


def _bind_anew(holder: Any, key: Any, value: Any, memo: Mapping[int, Any]) -> None:
    """Put a function there whose closure is of the copies, where it is of what was copied."""
    if isinstance(value, FunctionType):
        bound = _bound(value, memo)
        if bound is not value:
            holder[key] = bound


def _bound(function: FunctionType, memo: Mapping[int, Any]) -> FunctionType:
    cells = function.__closure__ or ()
    defaults = function.__defaults__ or ()
    new_cells = tuple(_copied_cell(cell, memo) for cell in cells)
    new_defaults = tuple(_copy_of(value, memo) for value in defaults)
    is_same = all(a is b for a, b in zip(new_cells, cells, strict=True))
    if is_same and all(a is b for a, b in zip(new_defaults, defaults, strict=True)):
        return function
    bound = FunctionType(
        function.__code__,
        function.__globals__,
        function.__name__,
        new_defaults or None,
        new_cells or None,
    )
    bound.__kwdefaults__ = function.__kwdefaults__
    bound.__dict__.update(function.__dict__)
    return bound


def _copied_cell(cell: CellType, memo: Mapping[int, Any]) -> CellType:
    try:
        value = cell.cell_contents
    except ValueError:  # it is empty
        return cell
    new = _copy_of(value, memo)
    return cell if new is value else CellType(new)


def _copy_of(value: Any, memo: Mapping[int, Any]) -> Any:
    if isinstance(value, FunctionType):
        return _bound(value, memo)
    if isinstance(value, (nn.Module, Tensor, list, dict, set)):
        return memo.get(id(value), value)
    return value


def _what_cannot_be_copied(net: nn.Module) -> str:
    for path, module in net.named_modules():
        for name, value in vars(module).items():
            if name == "_modules":
                continue
            try:
                _deepcopied(value)
            except (TypeError, RuntimeError, NotImplementedError):
                where = f"{path}.{name}" if path else name
                return f"attribute {where!r} of {type(net).__name__} ({type(value).__name__})"
    return f"the module {type(net).__name__}"
