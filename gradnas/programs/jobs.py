"""How processes that carry out runs ended, in words."""

from __future__ import annotations

import signal
from pathlib import Path

from gradnas import runs
from gradnas.engines.base import STOPPED, Ended

TRIES = 3  # of a run whose process was killed; it goes on each time


def was_killed(ended: Ended) -> bool:
    """Whether a process was killed or asked to stop: its run may go on where it stands."""
    return ended.code is None or ended.code < 0 or ended.code in STOPPED


def end_in_words(ended: Ended) -> str:
    """How a process ended: a part of a sentence."""
    if ended.code is None:
        return ended.why
    if ended.code < 0:
        number = -ended.code
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = f"signal {number}"
        more = " (out of memory, perhaps)" if number == 9 else ""
        return f"its process was killed by {name}{more}"
    return f"its process ended with exit code {ended.code}"


def why_failed(ended: Ended, run: runs.Run, log: Path) -> str:
    """Why a run failed: what its folder says, else the last line that its process printed."""
    status = run.status()
    message = status.get("message")
    if status.get("status") == "failed" and isinstance(message, str) and message:
        return message
    if ended.code is None or ended.code < 0:
        return f"{end_in_words(ended)}, {TRIES} times"
    lines = []
    if log.exists():
        text = log.read_text(encoding="utf-8", errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("gradnas: ") if lines else end_in_words(ended)
