"""What tells how long a search will take."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

B = TypeVar("B")  # a batch


class Foreseen(Generic[B]):
    """The part of a `SearchTask` that its estimate asks; nothing of the search moves on."""

    def endless(self) -> Iterator[B]:
        """Train batches, epoch after epoch; nothing moves on. Only where a search is estimated."""
        raise NotImplementedError

    @property
    def num_held_out(self) -> int | None:
        """Batches of an evaluation; None where nobody knows."""
        return None
