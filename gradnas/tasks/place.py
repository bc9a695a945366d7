"""Where a run stands in its epoch."""

from __future__ import annotations

from abc import ABC, abstractmethod


class Place(ABC):
    """Where a run stands among the batches of its epoch.

    Attributes:
        steps_per_epoch: steps of an epoch. Where their number is not known before, a guess, or
            None.
    """

    steps_per_epoch: int | None

    @property
    @abstractmethod
    def steps_done(self) -> int:
        """Steps of this epoch that are done; a guess where `steps_per_epoch` is one."""

    @property
    @abstractmethod
    def at_start(self) -> bool:
        """Whether the coming batch is the first of its epoch."""

    @property
    @abstractmethod
    def epoch_done(self) -> bool:
        """Whether the last batch was that of the epoch."""


class BatchPlace(Place):
    """A place that is a number: that of the next batch of the epoch.

    Args:
        num_batches: of an epoch.
    """

    def __init__(self, num_batches: int) -> None:
        self.num_batches = num_batches
        self.steps_per_epoch = num_batches
        self.batch = 0

    @property
    def steps_done(self) -> int:
        return self.batch

    @property
    def at_start(self) -> bool:
        return self.batch == 0

    @property
    def epoch_done(self) -> bool:
        return self.batch >= self.num_batches
