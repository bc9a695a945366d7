"""What a discovery shows in the terminal: a bar with the best law so far, or a line a stage."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from gradnas.config import visible
from gradnas.laws.discover import LawProgress
from gradnas.laws.primitives import Primitive
from gradnas.laws.symbolic import to_sympy
from gradnas.laws.text import text

LONGEST = 200  # characters of a law; a terminal wraps or cuts what is longer than its line


class LawBar:
    """A context manager; `show` is the `on_progress` of `discover_laws`.

    Args:
        title: what is explained.
        names: of the features.
        primitives: functions by name, those of one's own included.
        enabled: False prints nothing.
    """

    def __init__(
        self,
        title: str,
        names: Sequence[str],
        primitives: Mapping[str, Primitive],
        enabled: bool = True,
    ) -> None:
        self.title = title
        self.names = names
        self.primitives = primitives
        self.enabled = enabled
        self._bar: Any = None
        self._task: Any = None
        self._stage = ""

    def __enter__(self) -> LawBar:
        if self.enabled and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                Progress,
                TaskProgressColumn,
                TextColumn,
                TimeElapsedColumn,
            )
            from rich.table import Column

            self._bar = Progress(
                TextColumn("{task.fields[stage]}", table_column=Column(no_wrap=True)),
                BarColumn(bar_width=12),
                TaskProgressColumn(),
                TimeElapsedColumn(),
                TextColumn(
                    "{task.fields[law]}",
                    markup=False,
                    table_column=Column(no_wrap=True, overflow="ellipsis"),
                ),
                console=Console(stderr=True),
            )
            self._task = self._bar.add_task("", total=1.0, stage=self.title, law="")
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, progress: LawProgress) -> None:
        """Show how far it is."""
        if not self.enabled:
            return
        if self._bar is not None:
            law = self._law(progress)
            self._bar.update(self._task, completed=progress.share, stage=progress.stage, law=law)
        elif progress.stage != self._stage:
            done = f"{self.title}: {100 * progress.share:3.0f}%"
            line = f"{done}  {progress.stage}  {self._law(progress)}"
            print(visible(line), file=sys.stderr, flush=True)
        self._stage = progress.stage

    def _law(self, progress: LawProgress) -> str:
        if progress.best is None:
            return ""
        law = text(to_sympy(progress.best, self.names, self.primitives), 4, self.names)
        if len(law) > LONGEST:
            law = law[: LONGEST - 1] + "…"
        return f"{law}  (error {progress.error:.3g})"
