"""What a network gave on batches that it need not be run on again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from gradnas.modules.inplace import tensors_of
from gradnas.modules.nesting import mapped

MOST_BYTES = 16 * 2**20  # of outputs that are kept


class Remembered:
    """A network that keeps copies of what it gives, call by call.

    Attributes:
        outputs: of the calls so far.
        is_whole: whether they are all there; they are not where they would take many bytes.
    """

    def __init__(self, net: Callable[..., Any]) -> None:
        self.net = net
        self.outputs: list[Any] = []
        self.is_whole = True
        self._bytes = 0

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        found = self.net(*inputs, **named)
        self._bytes += sum(t.numel() * t.element_size() for t in tensors_of(found))
        self.is_whole = self.is_whole and self._bytes <= MOST_BYTES
        if self.is_whole:
            # A loss may change in place what it is given.
            self.outputs.append(mapped(_copy, [found]))
        else:
            self.outputs.clear()
        return found

    @property
    def training(self) -> bool:
        """That of the network."""
        return bool(getattr(self.net, "training", False))

    def method(self, name: str, *inputs: Any, **named: Any) -> Any:
        """As of a network that is searched; what it gives is not kept, so nothing is."""
        self.is_whole = False
        method: Any = getattr(self.net, "method")  # noqa: B009 (a callable has none for types)
        return method(name, *inputs, **named)


def _copy(leaves: Sequence[Any], where: str) -> Any:
    del where
    return leaves[0].detach().clone() if isinstance(leaves[0], Tensor) else leaves[0]


def equal_states(one: Any, other: Any) -> bool:
    """Whether two states of random generators are the same."""
    if isinstance(one, Tensor):
        return one.equal(other)
    if isinstance(one, dict):
        return all(equal_states(value, other[key]) for key, value in one.items())
    if isinstance(one, tuple):
        return all(equal_states(*pair) for pair in zip(one, other, strict=True))
    return bool(one == other)
