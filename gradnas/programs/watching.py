"""Watching a run of another process: its files are read, and nothing else is asked of it.

No lock is taken and nothing is written, so that a run never notices who watches it.
"""

from __future__ import annotations

import math
import shlex
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gradnas import runs
from gradnas.config import visible
from gradnas.environment import is_at_work
from gradnas.programs.reporting import complete_folder, family_of_folder
from gradnas.reports.folder import Folder, Mixture
from gradnas.reports.health import news
from gradnas.reports.terminal import Pace, epoch_line, screen
from gradnas.reports.words import in_words_of
from gradnas.tasks import kind_of

LAST_EPOCHS = 5  # by whose times the time left is reckoned
PATIENCE = 3  # looks at files that do not fit together, before they are taken to be damaged
WATCHED = (runs.CONFIG, runs.STATUS, runs.METRICS, runs.TIMINGS, runs.ALPHAS, runs.RESULTS)


@dataclass(frozen=True)
class Seen:
    """A run at one moment.

    Attributes:
        folder: of the run itself, or of the training that follows a search, while that is at work.
        mixtures: of a search.
        ending: a sentence where the run is over; None while it is at work.
    """

    folder: Folder
    mixtures: list[Mixture]
    ending: str | None

    @property
    def title(self) -> str:
        """What is watched."""
        what = "search" if self.folder.is_search else "training"
        name = self.folder.path.resolve()
        shown = f"{name.parent.name}/{name.name}" if name.name == "train" else name.name
        return f"{shown}: {what} on {self.folder.source}"

    def pace(self, now: float) -> Pace:
        """How fast it goes; `now` in seconds since 1970."""
        folder = self.folder
        seconds = [value for _, value in folder.timings.series("seconds")][-LAST_EPOCHS:]
        per_epoch = statistics.median(seconds) if seconds else None
        moved = [_changed(folder.path / name) for name in (runs.STATUS, runs.METRICS)]
        return Pace(_epochs(folder), per_epoch, max(0.0, now - max(moved)))

    def lines(self, width: int, height: int, now: float) -> list[str]:
        """What a terminal shows."""
        return screen(
            self.title, self.folder, self.mixtures, self.pace(now), self._state, width, height
        )

    @property
    def _state(self) -> str:
        folder = self.folder
        if self.ending is not None:
            return folder.state if folder.state != "running" else "gone"
        if len(folder.metrics.rows) < _epochs(folder):
            return "at work"
        if folder.is_search:
            return "epochs done, at its verdict"
        begun = len(folder.random)
        return f"{folder.noun} {begun} at random" if begun else "epochs done"

    def epoch_lines(self, first: int) -> list[str]:
        """One line for each finished epoch from the `first` on."""
        rows = self.folder.metrics.rows
        what = "search" if self.folder.is_search else "train"
        pace = self.pace(_changed(self.folder.path / runs.METRICS))
        lines = []
        for number, record in enumerate(rows[first:], start=first + 1):
            is_last = number == len(rows) and self.ending is None
            left = pace.left(number) if is_last else None
            lines.append(epoch_line(what, record, pace.epochs, left))
            wrong = news(rows, number - 1)
            if wrong is not None:
                lines.append(visible(f"{what}: warning: {wrong}"))
        return lines


def _changed(path: Path) -> float:
    """When a file was written; 0 for one that is not there."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _epochs(folder: Folder) -> int:
    """How many there will be: fewer than the configuration says where the steps are limited."""
    if "stopped" in folder.results:  # by the guard
        return len(folder.metrics.rows)
    most = folder.config.get("max_steps")
    steps = folder.metrics.last("steps")
    if not isinstance(most, int) or steps is None:
        return folder.epochs
    per_epoch = steps / len(folder.metrics.rows)
    return min(folder.epochs, math.ceil(most / max(per_epoch, 1)))


def look(path: Path) -> Seen:
    """The run in a folder, as it stands.

    Raises:
        ValueError: it is no run folder, or a file in it is damaged.
    """
    folder = complete_folder(path)
    child = folder.child
    if folder.state == "finished" and child is not None and is_at_work(child.status):
        folder = child
    mixtures = family_of_folder(folder).mixtures(folder) if folder.alphas else []
    return Seen(folder, mixtures, _ending(folder))


def _ending(folder: Folder) -> str | None:
    """How a run has ended, in a sentence."""
    again = f"gradnas resume {shlex.quote(str(folder.path))}{folder.options}"
    if folder.state == "finished":
        verdict = folder.results.get("verdict") if folder.training is None else None
        if isinstance(verdict, dict) and isinstance(verdict.get("sentence"), str):
            return f"finished; {verdict['sentence']}"
        summary = kind_of(folder.config["type"]).words.summary(folder)
        return in_words_of(folder, summary.sentence)
    if folder.state == "failed":
        message = folder.status.get("message") or "nobody wrote down why"
        return f"failed: {message}"
    if folder.state == "running" and is_at_work(folder.status):
        return None
    if folder.state == "interrupted":
        return f"stopped and saved; it goes on with: {again}"
    return f"not at work: its process is gone; it goes on with: {again}"


def follow(path: Path, every: float = 0.5) -> Iterator[Seen]:
    """The run in a folder, again and again until it is over; between looks `every` seconds pass.

    Files are read anew only where they have changed.

    Raises:
        ValueError: as `look`; of a run at work only if it stays so, since its files are replaced
            one after the other.
    """
    seen = look(path)
    before = _signature(seen.folder.path)
    yield seen
    failed = 0
    while seen.ending is None:
        time.sleep(every)
        now = _signature(seen.folder.path)
        # The end of a process that was killed changes no file.
        if now != before or not is_at_work(seen.folder.status):
            try:
                seen = look(path)
                before = now
                failed = 0
            except ValueError:
                failed += 1
                if failed == PATIENCE:
                    raise
        yield seen


def _signature(folder: Path) -> list[float]:
    """By which a change of the files is known."""
    return [_changed(folder / name) for name in WATCHED]
