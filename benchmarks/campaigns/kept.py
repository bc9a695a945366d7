"""What a campaign keeps between its pieces: whole runs, and the verdicts that are in already.

A campaign of full size takes longer than a piece of work may. With a folder to keep things in, and
a number of minutes, it stops in time, and the same command goes on.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Kept:
    """The folder of a campaign.

    Args:
        path: an existing folder.
        until: a moment of `time.monotonic` after which nothing more is begun; None: no such.
    """

    path: Path
    until: float | None = None

    @property
    def is_time_over(self) -> bool:
        return self.until is not None and time.monotonic() > self.until

    def made(self, name: str, make: Callable[[Path], None]) -> Path:
        """A folder that is made once; what was left half made is made anew."""
        folder = self.path / name
        mark = self.path / f"{name}.made"
        if not mark.exists():
            shutil.rmtree(folder, ignore_errors=True)
            make(folder)
            mark.write_text("")
        return folder

    def log(self, *names: str) -> Log:
        """The verdicts of one part of the campaign."""
        plain = re.sub(r"[^A-Za-z0-9.]+", "-", "-".join(names)).strip("-")
        folder = self.path / "verdicts"
        folder.mkdir(exist_ok=True)
        return Log(folder / f"{plain}.jsonl")


@dataclass(frozen=True)
class Log:
    """One JSON value for each case, appended when it is known."""

    path: Path

    def read(self) -> list[Any]:
        if not self.path.exists():
            return []
        return [json.loads(line) for line in self.path.read_text().splitlines()]

    def append(self, value: Any) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(value) + "\n")
            file.flush()
            os.fsync(file.fileno())
