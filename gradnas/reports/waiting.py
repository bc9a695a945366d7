"""How much of the time of a run's epochs was spent waiting for data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gradnas import runs
from gradnas.reports.folder import Records, read_records
from gradnas.reports.words import duration

WAITING = "waiting_seconds"  # entry of the timings


def waited(timings: Records) -> tuple[float, float] | None:
    """Seconds of waiting, and those of the epochs they are of; None where nothing tells."""
    seconds = dict(timings.series("seconds"))
    waiting = dict(timings.series(WAITING))
    both = seconds.keys() & waiting.keys()
    if not both:
        return None
    return sum(waiting[epoch] for epoch in both), sum(seconds[epoch] for epoch in both)


def share_words(waited: Sequence[tuple[float, float]]) -> str:
    """Such as `3% of the time`, of all that `waited` gave; empty where that is nothing."""
    if not waited:
        return ""
    seconds = sum(of_all for _, of_all in waited)
    share = sum(waiting for waiting, _ in waited) / seconds if seconds > 0 else 0.0
    if share < 0.01:
        return "less than 1% of the time"
    return f"{share:.0%} of the time"


def waiting_sentence(folder: Path) -> str | None:
    """What a run says of it at its end; None where nothing tells."""
    try:
        found = waited(read_records(folder / runs.TIMINGS))
    except ValueError:
        return None  # the run is whole; what is wrong with its timings a report says
    if found is None:
        return None
    return f"waiting for data: {share_words([found])} ({duration(found[1])} of epochs)"
