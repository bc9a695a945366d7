"""Where a run stands among batches whose number need not be known."""

from __future__ import annotations

from gradnas.tasks.place import Place


class StreamPlace(Place):
    """A place that is the number of the next batch.

    Args:
        length: batches of an epoch, as far as it is known.
    """

    def __init__(self, length: int | None) -> None:
        self.steps_per_epoch = length
        self.batch = 0

    @property
    def steps_done(self) -> int:
        return self.batch

    @property
    def at_start(self) -> bool:
        return self.batch == 0

    @property
    def epoch_done(self) -> bool:
        # Where nobody knows, a state may be saved after the last batch; what follows is none.
        return self.steps_per_epoch is not None and self.batch >= self.steps_per_epoch
