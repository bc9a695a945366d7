"""`gradnas watch`: a run at work, in the terminal."""

from __future__ import annotations

import sys
import time

from gradnas import runs
from gradnas.cli.begin import DISCOVERY
from gradnas.cli.commands.look import WatchCommand
from gradnas.cli.lines import line
from gradnas.cli.methods import import_modules
from gradnas.config import read_object
from gradnas.programs.watching import Seen, follow
from gradnas.reports.terminal import BLOCKS, narrow

NARROWEST = 40  # below it lines are cut by the terminal


def watch(command: WatchCommand) -> None:
    import_modules(command.imports)
    run = runs.Run.open(command.folder)
    if read_object(run.path / runs.CONFIG).get("type") == DISCOVERY:
        raise ValueError(
            f"{command.folder} is a discovery, which keeps nothing before its end: look at it with "
            f"gradnas report {command.folder}"
        )
    try:
        seen = _live(command) if _draws() else _in_lines(command)
    except KeyboardInterrupt:
        return  # who watches has seen enough; the run goes on
    line(f"{seen.folder.path}: {seen.ending}")


def _draws() -> bool:
    """Whether the output is a terminal, and one that can show blocks."""
    if not sys.stdout.isatty():
        return False
    try:
        BLOCKS.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _live(command: WatchCommand) -> Seen:
    """One picture that changes; the last one stays."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(file=sys.stdout)
    if not console.is_terminal or console.is_dumb_terminal:
        return _in_lines(command)
    seen: Seen | None = None
    with Live(console=console, auto_refresh=False) as live:
        for seen in follow(command.folder):
            width = max(console.width, NARROWEST)
            lines = seen.lines(width, console.height - 1, time.time())
            live.update(Text("\n".join(lines), no_wrap=True, overflow="crop"), refresh=True)
    assert seen is not None
    return seen


def _in_lines(command: WatchCommand) -> Seen:
    """A line for each epoch, also for those that are done already."""
    told = 0
    seen: Seen | None = None
    watched = None
    for seen in follow(command.folder):
        if seen.folder.path != watched:  # the first, or the training after its search
            watched = seen.folder.path
            told = 0
            line(narrow(seen.title))
        new = seen.epoch_lines(told)
        told = len(seen.folder.metrics.rows)
        for text in new:
            line(narrow(text))
        sys.stdout.flush()
    assert seen is not None
    return seen
