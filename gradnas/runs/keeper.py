"""Saving a run now and then, and once more when it is asked to stop."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

from gradnas import distributed
from gradnas.config import JsonObject
from gradnas.runs.checkpoint import State
from gradnas.runs.epoch import Epoch, OnEpoch
from gradnas.runs.folder import Run
from gradnas.runs.ranks import with_all_ranks

Handler = Callable[[int, FrameType | None], object] | int | None  # of a signal


class NonFiniteError(ValueError):
    """A loss or a gradient became NaN or infinite; the step that produced it was not taken."""


class Interrupted(Exception):
    """The user (Ctrl-C) or the system (SIGTERM) asked the run to stop; its state is saved."""


class Keeper:
    """Saves the state of a run now and then, and once more when it is asked to stop.

    A context manager around the loop: inside it Ctrl-C and SIGTERM wait for the end of the step,
    the state is saved, and `Interrupted` is raised. A second Ctrl-C stops at once. Of several
    processes each has one, and all do this after the same step, whichever was asked.

    Args:
        run: the folder, or None on ranks that do not write.
        state: returns the state to save.
        seconds: at the most so much work is lost when the process is killed.
        settings: what the state belongs to; the run goes on with these alone.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(
        self,
        run: Run | None,
        state: Callable[[], State],
        seconds: float = 20.0,
        settings: JsonObject | None = None,
    ) -> None:
        self.run = run
        self.state = state
        self.seconds = seconds
        self.settings = settings
        self._asked = False
        self._saved = time.monotonic()
        self._before: dict[signal.Signals, Handler] = {}

    def __enter__(self) -> Keeper:
        # Python lets no other thread set handlers.
        if threading.current_thread() is threading.main_thread():
            for number in self.SIGNALS:
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self._asked:  # the second time: now
            raise KeyboardInterrupt
        self._asked = True

    def after_step(self) -> None:
        """Save if it is time; stop if that was asked for. Raises Interrupted."""
        # The first process says when it is time, since clocks differ.
        is_time = distributed.is_main() and time.monotonic() - self._saved > self.seconds
        asked, due = distributed.most([self._asked, is_time])
        if asked or due:
            self.save()
        if asked:
            raise Interrupted

    def tell(self, on_epoch: OnEpoch, epoch: Epoch) -> None:
        """Tell a tracker of an epoch. Where that fails, the state is saved before: it goes on."""
        try:
            on_epoch(epoch)
        except BaseException:
            if distributed.world() == 1:  # others do not know of it
                self.save()
            raise

    def save(self) -> None:
        """Save now; of several processes all together."""
        if self.run is not None or distributed.world() > 1:
            state = with_all_ranks(self.state())
            if self.run is not None:
                self.run.save_checkpoint(state, self.settings)
        self._saved = time.monotonic()
