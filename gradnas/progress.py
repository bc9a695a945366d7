"""What a run shows in the terminal: a bar with the time left, or one plain line for each epoch."""

from __future__ import annotations

import html
import sys
import time
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from gradnas.config import visible


class Progress:
    """A context manager around a run of epochs.

    On a terminal and in a notebook: one bar over all steps, with the time left and the latest
    values. Elsewhere (a log file): one line for each epoch. Rank 0 alone should enable it.

    Args:
        title: what is running.
        epochs: how many there are in all.
        per_epoch: steps of an epoch, None if unknown.
        first_epoch, first_step: where a resumed run goes on.
        enabled: False prints nothing.
    """

    def __init__(
        self,
        title: str,
        epochs: int,
        per_epoch: int | None,
        first_epoch: int = 0,
        first_step: int = 0,
        enabled: bool = True,
    ) -> None:
        self.title = title
        self.epochs = epochs
        self.per_epoch = per_epoch
        self.enabled = enabled
        self.start_at = 0
        if per_epoch is not None:
            self.start_at = first_epoch * per_epoch + first_step
        self._bar: Any = None
        self._cell: _CellBar | None = None
        self._shown = 0.0
        self._began = time.monotonic()
        self._first_epoch = first_epoch

    def __enter__(self) -> Progress:
        if self.enabled and is_notebook():
            total = None if self.per_epoch is None else self.epochs * self.per_epoch
            self._cell = _CellBar(self.title, total, self.start_at)
        elif self.enabled and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                TextColumn,
                TimeElapsedColumn,
                TimeRemainingColumn,
            )
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(bar_width=None),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[values]}"),
                console=Console(stderr=True),
            )
            total = None if self.per_epoch is None else self.epochs * self.per_epoch
            self._task = self._bar.add_task(
                self.title, total=total, completed=self.start_at, values=""
            )
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        if self._cell is not None:
            self._cell.show({})

    def step(self, **values: Tensor | float) -> None:
        """Count a step. Values are read off the device at most four times a second."""
        if self._cell is not None:
            self._cell.done += 1
        elif self._bar is not None:
            self._bar.advance(self._task)
        else:
            return
        now = time.monotonic()
        if now - self._shown > 0.25:
            self._shown = now
            numbers = {name: float(value) for name, value in values.items()}
            if self._cell is not None:
                self._cell.show(numbers)
            else:
                self._bar.update(self._task, values=_text(numbers))

    def epoch(self, epoch: int, values: Mapping[str, float]) -> None:
        """Report a finished epoch, counted from 0."""
        if not self.enabled:
            return
        line = f"{self.title}: epoch {epoch + 1}/{self.epochs}  {_text(values)}"
        if self._bar is None and self._cell is None:  # a bar shows the time left itself
            done = epoch + 1 - self._first_epoch  # by this process: a resumed run began later
            seconds_per_epoch = (time.monotonic() - self._began) / done
            left = seconds_per_epoch * (self.epochs - epoch - 1)
            line = f"{line}  {clock(left)} left"
        self.say(line)

    def say(self, text: str) -> None:
        """One line of text, above the bar where there is one."""
        if not self.enabled:
            return
        if self._bar is not None:
            self._bar.console.print(visible(text), highlight=False, markup=False)
        else:
            print(visible(text), file=sys.stderr, flush=True)


class _CellBar:
    """The bar in the output of a notebook's cell, which is drawn anew in its place."""

    def __init__(self, title: str, total: int | None, done: int) -> None:
        from IPython.display import display

        self.title = title
        self.total = total
        self.done = done
        self._at_start = done
        self._began = time.monotonic()
        self._place = display({"text/html": "", "text/plain": title}, raw=True, display_id=True)

    def show(self, values: Mapping[str, float]) -> None:
        """Draw it with the latest values."""
        words = [f"{self.done}" if self.total is None else f"{self.done}/{self.total}"]
        made = self.done - self._at_start
        if self.total is not None and made:
            left = (time.monotonic() - self._began) / made * (self.total - self.done)
            words.append(f"{clock(left)} left")
        if values:
            words.append(_text(values))
        said = html.escape(visible("  ".join(words)))
        state = "" if self.total is None else f' value="{self.done}" max="{self.total}"'
        title = html.escape(self.title)
        shown = f'{title} <progress aria-label="{title}"{state}></progress> {said}'
        plain = f"{self.title}: {'  '.join(words)}"
        self._place.update({"text/html": shown, "text/plain": plain}, raw=True)


def is_notebook() -> bool:
    """Whether what runs is a cell of a notebook, which can show HTML; a terminal cannot."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and hasattr(shell, "kernel")


def _text(values: Mapping[str, float]) -> str:
    parts = []
    for name, value in values.items():
        parts.append(f"{name.replace('_', ' ')} {value:.4g}")
    return "  ".join(parts)


def clock(seconds: float) -> str:
    """Such as `1:02:03`, or `2:03` below an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
