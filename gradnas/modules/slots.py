"""The places in which a module holds its tensors, and how others are put there for one pass.

`torch.func.functional_call` goes by names. A module that lies in two places has two names for one
slot: it is swapped twice, and what is put back is not what was there. Here a slot is an entry of a
dictionary that one module object owns, so each is there once, whatever the module is called.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, NamedTuple

from torch import Tensor, nn


class Slot(NamedTuple):
    """One entry of a module's parameters or buffers, or of a list in which it keeps some.

    Attributes:
        holder: the dictionary, `_parameters` or `_buffers` of a module, or the list.
        key: the attribute, or the place in the list.
        is_buffer: it is one of the buffers.
    """

    holder: Any
    key: Any
    is_buffer: bool

    @property
    def tensor(self) -> Tensor | None:
        """What is there now; None for a buffer that has no value."""
        return self.holder[self.key]


# What every module has; the rest of its attributes are its author's.
_OF_TORCH = frozenset(vars(nn.Module()))

Placed = list[tuple[Slot, Tensor | None]]  # slots, with what is to be there


def modules_of(root: nn.Module) -> list[nn.Module]:
    """A module and those inside, every object once, parents first.

    As `modules()`, without a generator for each level: every pass of a search asks.
    """
    seen = {root}
    found = []
    waiting = [root]
    while waiting:
        module = waiting.pop()
        found.append(module)
        for child in reversed(module._modules.values()):
            if child is not None and child not in seen:
                seen.add(child)
                waiting.append(child)
    return found


def slots_of(module: nn.Module) -> list[Slot]:
    """Every slot of a module and of those inside, once.

    A tensor that several modules share (tied weights) has as many slots as there are modules.
    """
    slots: list[Slot] = []
    for inner in modules_of(module):
        own = vars(inner)
        held = own["_parameters"]
        if held:
            slots += [Slot(held, key, False) for key in held]
        held = own["_buffers"]
        if held:
            slots += [Slot(held, key, True) for key in held]
        # In one go: a module has thirty attributes of torch's, and few of its author's.
        names = [name for name in own if name not in _OF_TORCH]
        for name in names:
            if _may_hold(type(own[name])):
                _add_plain_slots(slots, own, name, own[name])
    return slots


@functools.lru_cache(maxsize=1024)
def _may_hold(kind: type) -> bool:
    """Whether a value of this type may be a parameter or hold one; most attributes are settings.

    A tuple holds what it holds: `unlearnt` refuses where one is used.
    """
    return issubclass(kind, (Tensor, list, dict, SimpleNamespace)) or _is_of_fields(kind)


def _is_of_fields(kind: type) -> bool:
    return dataclasses.is_dataclass(kind) and not issubclass(kind, nn.Module)


def _add_plain_slots(slots: list[Slot], holder: Any, key: Any, value: Any) -> None:
    """Parameters that also lie in a plain attribute, or in a container that is one."""
    if isinstance(value, Tensor):
        if isinstance(value, nn.Parameter):
            slots.append(Slot(holder, key, False))
        return
    items: Iterable[tuple[Any, Any]]
    inner: Any = value
    if isinstance(value, list):
        items = enumerate(value)
    elif isinstance(value, dict):
        items = value.items()
    elif hasattr(value, "__dict__"):
        inner = vars(value)
        items = inner.items()
    else:
        return
    for place, item in items:
        kind = type(item)
        if kind is not Tensor and _may_hold(kind):  # of a state dictionary there are many
            _add_plain_slots(slots, inner, place, item)


def placed(slots: Iterable[Slot], instead: Mapping[int, Tensor]) -> Placed:
    """The slots that are to hold something else, and those of buffers, for `holding`.

    Args:
        instead: `id` of a tensor -> what takes its place, in every slot that holds it.
    """
    found: Placed = []
    for slot in slots:
        holder, key, is_buffer = slot
        tensor = holder[key]
        other = instead.get(id(tensor))
        if other is not None:
            found.append((slot, other))
        elif is_buffer:
            # A forward pass may set a buffer anew; then that is taken back too.
            found.append((slot, tensor))
    return found


def held_by(module: nn.Module) -> Placed:
    """What all slots hold now."""
    return [(slot, slot.tensor) for slot in slots_of(module)]


def with_copied_buffers(held: Placed) -> Placed:
    """The same with copies of the buffers, into which BatchNorm may write."""
    copied: dict[int, Tensor] = {}  # by the id of the buffer, which may lie in several slots
    found: Placed = []
    for slot, tensor in held:
        if slot.is_buffer and tensor is not None:
            if id(tensor) not in copied:
                copied[id(tensor)] = tensor.clone()
            tensor = copied[id(tensor)]
        found.append((slot, tensor))
    return found


@contextmanager
def holding(placed: Placed) -> Iterator[None]:
    """Within: the slots hold what is placed there. Afterwards: what they held before."""
    before = [holder[key] for (holder, key, _), _ in placed]
    try:
        for (holder, key, _), tensor in placed:
            holder[key] = tensor
        yield
    finally:
        for ((holder, key, _), _), tensor in zip(placed, before, strict=True):
            holder[key] = tensor
