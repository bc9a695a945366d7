"""What layers take and give: tensors, or nestings of them in containers of any kind.

A nesting is a tensor, or a tuple, named tuple, list, dictionary, dataclass or namespace of
nestings, of subclasses too (`PackedSequence`, the outputs of Hugging Face models). Whatever else is
in it (None, numbers, texts) is a leaf that stays as it is.
"""

from __future__ import annotations

import copy
import dataclasses
from collections import OrderedDict, UserDict, defaultdict
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor


class Place:
    """Where a tensor was taken out, and its shape."""

    def __init__(self, tensor: Tensor) -> None:
        self.shape = tuple(tensor.shape)


def is_mixed(value: Any) -> bool:
    """Whether mixing weights can apply: a tensor of real or complex numbers."""
    return isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())


def take_apart(
    value: Any, tensors: list[Tensor], takes: Callable[[Any], bool] = torch.is_tensor
) -> Any:
    """The nesting with a `Place` for every tensor; the tensors move, in order, to `tensors`.

    Args:
        takes: which tensors; the others stay where they are.
    """

    def take(leaves: Sequence[Any], where: str) -> Any:
        del where
        if not takes(leaves[0]):
            return leaves[0]
        tensors.append(leaves[0])
        return Place(leaves[0])

    return mapped(take, [value])


def put_together(template: Any, tensors: Iterator[Any]) -> Any:
    """The inverse of `take_apart`."""

    def put(leaves: Sequence[Any], where: str) -> Any:
        del where
        return next(tensors) if isinstance(leaves[0], Place) else leaves[0]

    return mapped(put, [template])


def mapped(function: Callable[[Sequence[Any], str], Any], values: Sequence[Any]) -> Any:
    """A nesting of the form of the first value, with `function(leaves, where)` for every leaf.

    Containers keep their type and whatever else they hold. No constructor of theirs is run: it may
    have other arguments, or look at what is only a place here.

    Args:
        function: of the parts of all values at one place, and how an error calls the place
            (`"[0]['state']"`). Where the values differ in form it gets what they have there.
    """
    return _mapped(function, values, "")


def _mapped(
    function: Callable[[Sequence[Any], str], Any], values: Sequence[Any], where: str
) -> Any:
    first = values[0]
    items = items_of(first)
    if items is None:
        return function(values, where)
    rows = []
    for value in values:
        own_items = items_of(value) if type(value) is type(first) else None
        if own_items is None or {key for key, _ in own_items} != {key for key, _ in items}:
            return function(values, where)
        rows.append(dict(own_items))
    keys = [key for key, _ in items]
    new_items = []
    for key in keys:
        parts = [row[key] for row in rows]
        new_items.append(_mapped(function, parts, f"{where}[{key!r}]"))
    return with_items(first, new_items)


def with_items(value: Any, items: Sequence[Any]) -> Any:
    """A container like `value` that holds these, in the order of `items_of`."""
    new_items = list(items)
    if isinstance(value, tuple):
        return _tuple_like(value, new_items)
    if isinstance(value, list):
        return _list_like(value, new_items)
    keys = [key for key, _ in items_of(value) or []]
    if isinstance(value, dict):
        return _dict_like(value, keys, new_items)
    return _object_like(value, keys, new_items)


def items_of(value: Any) -> list[tuple[Any, Any]] | None:
    """What a container holds, each with its key, place or attribute; None for a leaf.

    The attributes of a dictionary's subclass come after its items.
    """
    if isinstance(value, (Tensor, torch.Size)):
        return None
    if isinstance(value, (tuple, list)):
        return list(enumerate(value))
    if isinstance(value, dict):
        return [*value.items(), *_own_attributes(value)]
    if isinstance(value, UserDict):
        return [("data", value.data)]
    if isinstance(value, SimpleNamespace):
        return list(vars(value).items())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        return [(name, getattr(value, name)) for name in names if hasattr(value, name)]
    return None


@dataclasses.dataclass(frozen=True)
class _Attribute:
    """Of a dictionary's subclass; not a key."""

    name: str

    def __repr__(self) -> str:
        return f".{self.name}"


def _own_attributes(value: dict[Any, Any]) -> list[tuple[_Attribute, Any]]:
    """Attributes that are not the items under another name, as Hugging Face's outputs have them."""
    attributes = []
    for name, attribute in getattr(value, "__dict__", {}).items():
        if not _is_item(value, name, attribute):
            attributes.append((_Attribute(name), attribute))
    return attributes


def _is_item(value: dict[Any, Any], name: str, attribute: Any) -> bool:
    return name in value and dict.__getitem__(value, name) is attribute


def _tuple_like(value: tuple[Any, ...], items: list[Any]) -> Any:
    if type(value) is tuple:
        return tuple(items)
    if hasattr(value, "n_sequence_fields"):  # what torch.max(x, dim) returns
        return type(value)(items)
    like = tuple.__new__(type(value), items)  # of a named tuple too: PackedSequence
    if hasattr(value, "__dict__"):
        vars(like).update(vars(value))
    return like


def _list_like(value: list[Any], items: list[Any]) -> Any:
    if type(value) is list:
        return items
    kind: Any = type(value)
    like = kind.__new__(kind)
    list.extend(like, items)
    vars(like).update(vars(value))
    return like


def _dict_like(value: dict[Any, Any], keys: list[Any], items: list[Any]) -> Any:
    kind: Any = type(value)
    like = kind.__new__(kind)
    store: Any = OrderedDict.__setitem__ if isinstance(value, OrderedDict) else dict.__setitem__
    if isinstance(value, defaultdict):
        like.default_factory = value.default_factory
    own = {}
    for key, item in zip(keys, items, strict=True):
        if isinstance(key, _Attribute):
            own[key.name] = item
        else:
            store(like, key, item)
    for name, attribute in getattr(value, "__dict__", {}).items():
        if _is_item(value, name, attribute):
            own[name] = dict.__getitem__(like, name)
    if own:
        vars(like).update(own)
    return like


def _object_like(value: Any, names: list[str], items: list[Any]) -> Any:
    like = copy.copy(value)
    for name, item in zip(names, items, strict=True):
        object.__setattr__(like, name, item)  # also where the dataclass is frozen
    return like


def equal(first: Any, other: Any) -> bool:
    """Whether two leaves are the same value of the same type."""
    if first is other:
        return True
    if type(first) is not type(other):
        return False
    if isinstance(first, Tensor):
        alike = (
            first.shape == other.shape
            and first.dtype == other.dtype
            and first.device == other.device
        )
        # On the meta device there are no values to compare.
        return alike and (first.is_meta or torch.equal(first, other))
    try:
        return bool(first == other)
    except (TypeError, ValueError, RuntimeError):  # an array has no truth
        return False


def described(value: Any) -> str:
    """What an error calls a part of an output."""
    if isinstance(value, Tensor) and not is_mixed(value):
        kind = "booleans" if value.dtype == torch.bool else "integers"
        return f"{kind} of shape {tuple(value.shape)}"
    if isinstance(value, (Tensor, Place)):
        return str(tuple(value.shape))
    if isinstance(value, (bool, int, float, str)) or value is None:
        return repr(value)
    if isinstance(value, (tuple, list, dict)):
        return f"{type(value).__name__} of {len(value)}"
    return type(value).__name__
