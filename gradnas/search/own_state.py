"""What a network keeps beside weights and buffers, in passes that only probe.

A counter that a forward pass raises, a hidden state in an attribute, a queue, a teacher that
follows its student within `forward`: in plain training each batch moves them once. A step of a
search runs the network several times, and compares the passes; so those of the architecture
gradient begin with the same state, and leave it as it was.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from gradnas.modules.slots import modules_of
from gradnas.runs import State
from gradnas.search.own_values import (
    CONTAINERS,
    GENERATORS,
    MOST_ENTRIES,
    OF_TORCH,
    changed_values,
    generator_state,
    remembered,
    set_generator,
    take_values,
)

# Layers of these packages keep nothing of a pass but in their buffers.
KNOWN = ("torch.", "gradnas.")


@functools.lru_cache(maxsize=1024)
def is_own(kind: type) -> bool:
    """Whether a class of modules is the user's; every pass asks of every module."""
    return not kind.__module__.startswith(KNOWN)


WATCHED = 3  # steps in which it is looked for; what a network does in these it does in all
MOST_BYTES = 256 * 2**20  # of frozen weights that are copied to see whether a pass writes them
KEPT = (*CONTAINERS, *GENERATORS)

PutBack = Callable[[], None]


class OwnState:
    """The state of a user's modules that no optimiser and no buffer holds.

    Put back after a probing pass are the attributes of modules (the same objects), what lists,
    dictionaries, sets and deques among them hold, and generators of random numbers. What other
    objects keep is theirs.

    Args:
        net: the network.
        learning: what is trained, weights and alphas.

    Attributes:
        written: frozen weights that a forward pass changes: probing passes get copies, as of
            buffers.
        rewritten: tensors in plain attributes (module and name) that a pass writes what they held.
        uses_numpy, uses_python: whether a pass draws from their global generators.
    """

    def __init__(self, net: nn.Module, learning: set[int]) -> None:
        self.net = net
        self.learning = learning
        self.written: dict[int, Tensor] = {}
        self.rewritten: set[tuple[int, str]] = set()
        self.uses_numpy = False
        self.uses_python = False
        self._start = {path: remembered(vars(module)) for path, module in self._named()}

    def numbers(self, watched: bool = False) -> list[PutBack]:
        """How to put back the global generators that passes draw from, to where they stand now.

        Args:
            watched: all of them, and see then whether they were drawn from.
        """
        ways: list[PutBack] = []
        if watched or self.uses_numpy:
            of_numpy: Any = np.random.get_state()

            def numpy_back() -> None:
                now: Any = np.random.get_state()
                if now[2:] != of_numpy[2:] or not np.array_equal(now[1], of_numpy[1]):
                    self.uses_numpy = True
                    np.random.set_state(of_numpy)

            ways.append(numpy_back)
        if watched or self.uses_python:
            of_python = random.getstate()

            def python_back() -> None:
                if random.getstate() != of_python:
                    self.uses_python = True
                    random.setstate(of_python)

            ways.append(python_back)
        return ways

    def _named(self) -> Iterator[tuple[str, nn.Module]]:
        for path, module in self.net.named_modules():
            if is_own(type(module)):
                yield path, module

    def state_dict(self) -> State:
        """The attributes that have changed, as tensors and plain values."""
        found = {}
        for path, module in self._named():
            values = changed_values(self._start.get(path, {}), vars(module))
            if values:
                found[path] = values
        return found

    def load_state_dict(self, state: State) -> None:
        """The inverse of `state_dict`."""
        for path, module in self._named():
            first = next(module.parameters(), None)
            device = "cpu" if first is None else first.device
            take_values(vars(module), state.get(path, {}), device)

    def _own_modules(self) -> Iterator[nn.Module]:
        for module in modules_of(self.net):
            if is_own(type(module)):
                yield module

    def frozen(self) -> dict[int, Tensor]:
        """The weights that do not learn; none of many bytes."""
        found: dict[int, Tensor] = {}
        for module in modules_of(self.net):
            for p in module._parameters.values():
                if p is not None and id(p) not in self.learning:
                    found[id(p)] = p
        size = sum(p.numel() * p.element_size() for p in found.values())
        return found if size <= MOST_BYTES else {}

    def look(self, copies: dict[int, Tensor]) -> None:
        """After a pass on copies of frozen weights: which it has written."""
        for key, tensor in self.frozen().items():
            copy = copies.get(key)
            if copy is not None and (copy._version or not _same(copy, tensor)):
                self.written[key] = tensor

    @contextmanager
    def kept(self, watched: bool) -> Iterator[None]:
        """Within: a pass that only probes.

        Args:
            watched: look for tensors in plain attributes that the pass changes.

        Raises:
            ValueError: there is one.
        """
        before = []
        put_back = self.numbers(watched)
        tensors: list[tuple[nn.Module, str, Tensor, _Before]] = []
        for module in self._own_modules():
            attributes = vars(module)
            before.append((attributes, dict(attributes)))
            for name, value in attributes.items():
                if isinstance(value, KEPT) and name not in OF_TORCH:
                    put_back += list(_ways_back(value))
                elif type(value) is Tensor and value.layout is torch.strided:
                    tensors.append((module, name, value, _Before.of(value, watched)))
        try:
            yield
        finally:
            for attributes, held in before:
                if _differ(attributes, held):  # a compiler looks whether anybody touched them
                    attributes.clear()
                    attributes.update(held)
            for back in put_back:
                back()
        for module, name, tensor, before_it in tensors:
            is_changed = before_it.is_changed(tensor)
            if is_changed and before_it.copy is not None and before_it.puts_back(tensor):
                self.rewritten.add((id(module), name))  # with what was in it
            elif is_changed and (id(module), name) not in self.rewritten:
                raise ValueError(
                    f"{type(module).__name__} keeps a tensor in its plain attribute {name!r} and "
                    "changes it in place in forward: a search runs more passes than batches, and "
                    f"puts buffers back after those that only probe: self.register_buffer({name!r}"
                    ", ..., persistent=False)"
                )


class _Before(NamedTuple):
    """A tensor before a pass: its version, and a copy where it is watched."""

    version: int
    copy: Tensor | None

    @classmethod
    def of(cls, tensor: Tensor, watched: bool) -> _Before:
        version = 0 if tensor.is_inference() else tensor._version
        return cls(version, tensor.detach().clone() if watched else None)

    def is_changed(self, tensor: Tensor) -> bool:
        """Whether a pass has written into it; `.data` is only seen with a copy."""
        if not tensor.is_inference() and tensor._version != self.version:
            return True
        return self.copy is not None and not _same(tensor, self.copy)

    def puts_back(self, tensor: Tensor) -> bool:
        """Whether it holds what it held; if not, it does afterwards."""
        assert self.copy is not None
        if _same(tensor, self.copy):
            return True
        tensor.detach().copy_(self.copy)
        return False


def _differ(now: dict[str, Any], before: dict[str, Any]) -> bool:
    if len(now) != len(before):
        return True
    return any(now.get(name, now) is not value for name, value in before.items())


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors hold the same, NaN beside NaN."""
    return torch.equal(one, other) or torch.equal(one.nan_to_num(), other.nan_to_num())


def _ways_back(value: Any) -> Iterator[PutBack]:
    """How to put back what a container holds, and where a generator stands."""
    if isinstance(value, GENERATORS):
        state = generator_state(value)
        yield lambda: set_generator(value, state)
    elif isinstance(value, CONTAINERS) and len(value) <= MOST_ENTRIES:
        yield from _ways_back_of_container(value)


def _ways_back_of_container(value: Any) -> Iterator[PutBack]:
    inside = value.values() if isinstance(value, dict) else value
    if not isinstance(value, set):
        for entry in inside:
            if isinstance(entry, KEPT):
                yield from _ways_back(entry)
    if isinstance(value, list):
        entries = list(value)

        def back() -> None:
            value[:] = entries

    else:
        held = value.copy()

        def back() -> None:
            value.clear()
            value.update(held) if isinstance(value, (dict, set)) else value.extend(held)

    yield back
