"""The places in which a module holds its tensors, and how others are put there for one pass.

`torch.func.functional_call` goes by names. A module that lies in two places has two names for one
slot: it is swapped twice, and what is put back is not what was there. Here a slot is an entry of a
dictionary that one module object owns, so each is there once, whatever the module is called.
"""

from __future__ import annotations

import dataclasses
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

# Most of these are settings, and every pass looks at all of them: what cannot be a slot is passed
# over at once.
_WITHOUT_TENSORS = frozenset({int, float, bool, str, type(None), tuple})

Placed = list[tuple[Slot, Tensor | None]]  # slots, with what is to be there


def slots_of(module: nn.Module) -> list[Slot]:
    """Every slot of a module and of those inside, once.

    A tensor that several modules share (tied weights) has as many slots as there are modules.
    """
    slots = []
    for inner in module.modules():  # every object once
        for key in inner._parameters:
            slots.append(Slot(inner._parameters, key, is_buffer=False))
        for key in inner._buffers:
            slots.append(Slot(inner._buffers, key, is_buffer=True))
        own = vars(inner)
        for name in own.keys() - _OF_TORCH:
            if type(own[name]) not in _WITHOUT_TENSORS:
                slots.extend(_plain_slots(own, name))
    return slots


def _plain_slots(holder: Any, key: Any) -> Iterator[Slot]:
    """Parameters that also lie in a plain attribute, or in a container that is one.

    A tuple holds what it holds: `unlearnt` refuses where one is used.
    """
    value = holder[key]
    if isinstance(value, nn.Parameter):
        yield Slot(holder, key, is_buffer=False)
    elif isinstance(value, list):
        for place, item in enumerate(value):
            if type(item) not in _WITHOUT_TENSORS:
                yield from _plain_slots(value, place)
    elif isinstance(value, dict):
        for name in value:
            yield from _plain_slots(value, name)
    elif isinstance(value, SimpleNamespace) or _is_object_of_fields(value):
        for name in vars(value):
            yield from _plain_slots(vars(value), name)


def _is_object_of_fields(value: Any) -> bool:
    is_dataclass = dataclasses.is_dataclass(value) and not isinstance(value, (type, nn.Module))
    return is_dataclass and hasattr(value, "__dict__")


def placed(slots: Iterable[Slot], instead: Mapping[int, Tensor]) -> Placed:
    """The slots that are to hold something else, and those of buffers, for `holding`.

    Args:
        instead: `id` of a tensor -> what takes its place, in every slot that holds it.
    """
    found: Placed = []
    for slot in slots:
        tensor = slot.tensor
        if id(tensor) in instead:
            found.append((slot, instead[id(tensor)]))
        elif slot.is_buffer:
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
    before = [slot.tensor for slot, _ in placed]
    try:
        for slot, tensor in placed:
            slot.holder[slot.key] = tensor
        yield
    finally:
        for (slot, _), tensor in zip(placed, before, strict=True):
            slot.holder[slot.key] = tensor
