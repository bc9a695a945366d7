"""How long a run has waited for its data."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

B = TypeVar("B")  # a batch


class Waiting:
    """Seconds in which a run did nothing but wait for its next batch.

    They are those of the process that asks. On CUDA they hold what a batch's copy to the device
    waits for.

    Attributes:
        seconds: so far, since this was made.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._began = 0.0

    def __enter__(self) -> None:
        self._began = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.monotonic() - self._began

    def on(self, batches: Iterable[B]) -> Iterator[B]:
        """The same batches; what each takes to come is counted."""
        with self:
            coming = iter(batches)
        while True:
            try:
                with self:
                    batch = next(coming)
            except StopIteration:
                return
            yield batch
