"""A copy of a module, whatever it keeps beside its weights."""

from __future__ import annotations

import copy
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

    Raises:
        ValueError: it holds what Python cannot copy; the attribute is named.
    """
    try:
        return _deepcopied(net)
    except (TypeError, RuntimeError, NotImplementedError) as error:
        raise ValueError(
            f"{_what_cannot_be_copied(net)} cannot be copied, as the derived network needs it: "
            f"{error}. Keep it outside the module, or give it a __deepcopy__"
        ) from error


def _deepcopied(value: Any) -> Any:
    with _WithoutGraphs():
        return copy.deepcopy(value)


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
