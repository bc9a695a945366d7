"""Changes in place where several modules read one tensor.

Alternatives read the same input: what one of them writes into it, the others see, and autograd need
not notice. And a skip connection gives its input on as it is: what a later layer does to the output
in place, it does to the input too, in a derived network but not in a mixture.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NoReturn, Protocol

import torch
from torch import Tensor, nn

from gradnas.modules.nesting import items_of, mapped


class Inputs:
    """What an operation is given, with the state of it."""

    def __init__(self, *values: Any) -> None:
        self._values = values
        bare = _bare_tensors(values)
        self._is_bare = bare is not None
        self.tensors = list(tensors_of(values)) if bare is None else bare
        # A tensor of inference mode counts no changes: a copy is kept.
        self._states = [t.clone() if t.is_inference() else t._version for t in self.tensors]
        self._stores = [] if self._is_bare else list(_stores_of(values))
        self._stored = [_stored_in(store) for store in self._stores]

    @property
    def only(self) -> tuple[Tensor | None, int]:
        """The one tensor that is given, and its version; None where there is anything else."""
        if self._is_bare and len(self._states) == 1 and isinstance(self._states[0], int):
            return self.tensors[0], self._states[0]
        return None, 0

    def are_unchanged(self) -> bool:
        """Whether an operation has left them, their containers and what keeps tensors as it was."""
        for tensor, state in zip(self.tensors, self._states, strict=True):
            if isinstance(state, int):
                same = tensor._version == state
            else:
                same = torch.equal(tensor, state)
            if not same:
                return False
        if self._is_bare:
            return True
        now = list(tensors_of(self._values))
        are_there = len(now) == len(self.tensors) and all(map(operator.is_, now, self.tensors))
        return are_there and self._written() is None

    def _written(self) -> Any:
        """The object that keeps other tensors than it did; None if there is none."""
        for store, stored in zip(self._stores, self._stored, strict=True):
            if _stored_in(store) != stored:
                return store
        return None

    def refuse(self, operation: nn.Module, label: str) -> NoReturn:
        """ValueError that says what the operation has changed."""
        written = self._written()
        if written is None:
            raise ValueError(_sentence(operation, label))
        raise ValueError(
            f"{label} ({type(operation).__name__}) writes into the {type(written).__name__} "
            "that it is given, and so would the other operations: call the model without "
            "it (use_cache=False)"
        )

    def check(self, operation: nn.Module, label: str) -> None:
        """ValueError if the operation has changed them, in place or by putting others there."""
        if not self.are_unchanged():
            self.refuse(operation, label)


def _bare_tensors(values: tuple[Any, ...]) -> list[Tensor] | None:
    """The tensors, where nothing else is given, as nearly always: no other can come in their place.

    None where there are containers or objects, into which an operation may write.
    """
    found: list[Tensor] = []
    for value in values:
        parts = value if type(value) is tuple else (value,)
        if type(value) is dict and not value:  # no keyword arguments
            continue
        for part in parts:
            if not isinstance(part, Tensor):
                return None
            found.append(part)
    return found


def unspoilt(operation: nn.Module, x: Tensor, label: str) -> Tensor:
    """The output of an operation; ValueError if it changes its input, which others read too."""
    inputs = Inputs(x)
    output = operation(x)
    inputs.check(operation, label)
    return output


def _sentence(operation: nn.Module, label: str) -> str:
    suspects = []
    for path, module in operation.named_modules():
        if getattr(module, "inplace", False):
            suspects.append(f"{type(module).__name__} at {path!r}" if path else "it itself")
    hint = "give it a copy of its input, or operations that are not in place"
    if suspects:
        hint = f"use inplace=False ({', '.join(suspects)})"
    return (
        f"{label} ({type(operation).__name__}) changes its input in place, which the other "
        f"operations read too: {hint}"
    )


def own_output(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
) -> Any:
    """A forward hook: the output lies in memory of its own, and none of it in that of the inputs.

    In a derived network, behind an operation that gives its input on, so that a later change of the
    one in place leaves the other as it is.
    """
    del module
    inputs = list(tensors_of((args, kwargs)))

    def own(leaves: Sequence[Any], where: str) -> Any:
        del where
        leaf = leaves[0]
        if not isinstance(leaf, Tensor):
            return leaf
        # A compiler sees no memory: it copies in any case, and leaves out what nobody needs.
        if torch.compiler.is_compiling() or share_memory(leaf, inputs):
            return leaf.clone()
        return leaf

    return mapped(own, [output])


def tensors_of(value: Any) -> Iterator[Tensor]:
    """The tensors of a nesting, in order."""
    if isinstance(value, Tensor):
        yield value
    for _, item in items_of(value) or ():
        yield from tensors_of(item)


def _stores_of(value: Any) -> Iterator[Any]:
    """Objects in a nesting that may keep tensors, such as the cache of a language model."""
    items = items_of(value)
    for _, item in items or ():
        yield from _stores_of(item)
    may_keep = hasattr(value, "__dict__") and not callable(value)
    if items is None and may_keep and not isinstance(value, Tensor):
        yield value


MAX_DEPTH = 6  # of objects in each other


def _stored_in(store: Any, depth: int = 0) -> list[tuple[int, int]]:
    """Which tensors it keeps, each with the number of its changes in place."""
    if isinstance(store, Tensor):
        return [(id(store), 0 if store.is_inference() else store._version)]
    if depth > MAX_DEPTH or isinstance(store, (nn.Module, type)):
        return []
    found = []
    items = items_of(store)
    inner = vars(store).values() if items is None and hasattr(store, "__dict__") else ()
    for _, item in items or ():
        found += _stored_in(item, depth + 1)
    for item in inner:
        found += _stored_in(item, depth + 1)
    return found


def share_memory(one: Any, other: Any) -> bool:
    """Whether a tensor of the one lies in the memory of a tensor of the other."""
    others = list(tensors_of(other))
    for tensor in tensors_of(one):
        for candidate in others:
            if torch._C._is_alias_of(tensor, candidate):  # type: ignore[missing-attribute]
                return True
    return False


# ---- what follows a choice -----------------------------------------------------------------------


class Followed(Protocol):
    """Something whose inputs and outputs are watched until the pass is over."""

    changed_later: bool | None


_watched: ContextVar[list[tuple[Followed, Tensor, int]] | None] = ContextVar(
    "gradnas_watched", default=None
)


@contextmanager
def watching() -> Iterator[None]:
    """One forward pass. At its end, what is watched knows whether its tensors were changed."""
    watched: list[tuple[Followed, Tensor, int]] = []
    token = _watched.set(watched)
    try:
        yield
    finally:
        _watched.reset(token)
    for followed, tensor, version in watched:
        followed.changed_later = bool(followed.changed_later) or tensor._version != version


def watch(followed: Followed, *values: Any) -> None:
    """From here to the end of the pass; nothing outside of one."""
    watched = _watched.get()
    if watched is None:
        return
    for tensor in tensors_of(values):
        if not tensor.is_inference():
            watched.append((followed, tensor, tensor._version))
