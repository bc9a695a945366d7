"""Runs that are killed: at a random moment, or at their k-th change of a file; then they go on.

Right is what ends as the run that nobody disturbed: the same files with the same bytes, and no
others.
"""

from __future__ import annotations

import random
import shutil
import time
from pathlib import Path

import forks
import programs
from programs import Program

WHERE = ("before", "half", "after")
MOST_IN_A_ROW = 3  # kills of one run, the second and third while it goes on


class Kills:
    """A campaign of kills; everything is written below `place`."""

    def __init__(self, place: Path, seed: int, names: tuple[str, ...] = ()) -> None:
        self.place = place
        self.random = random.Random(seed)
        self.wrong: list[str] = []
        self.num_kills = 0
        self.programs = [
            program for program in programs.programs(place) if not names or program.name in names
        ]
        self.whole: dict[str, Path] = {}
        self.calls: dict[str, int] = {}
        self.seconds: dict[str, float] = {}

    def measure(self) -> None:
        """Run every program once without a kill."""
        for program in self.programs:
            folder = self.place / f"whole-{program.name}"
            began = time.monotonic()
            outcome = self.go_on(program, folder, None)
            assert outcome.code == 0, outcome.err
            self.whole[program.name] = folder
            self.calls[program.name] = outcome.calls
            self.seconds[program.name] = time.monotonic() - began

    def run(self, number: int) -> None:
        """So many kills, over all programs in turn."""
        self.measure()
        case = 0
        while self.num_kills < number:
            self.case(self.programs[case % len(self.programs)], case)
            case += 1

    def case(self, program: Program, number: int) -> None:
        """One run that is killed once or several times, and then left alone."""
        folder = self.place / f"case-{number}"
        story = []
        for _ in range(self.random.randint(1, MOST_IN_A_ROW)):
            kill = self.kill(program)
            outcome = self.go_on(program, folder, kill)
            story.append(f"{kill} -> {outcome.code}")
            if not outcome.was_killed:
                break
            self.num_kills += 1
            if programs.is_finished(folder):  # killed as it ended: there is nothing to go on with
                outcome = forks.Outcome(0, "", "", 0)
                break
        else:
            outcome = self.go_on(program, folder, None)
        if outcome.code == 0:
            found = programs.differences(folder, self.whole[program.name])
        else:
            found = [f"exit code {outcome.code}: {outcome.err.strip()[-300:]}"]
        if found:
            self.wrong.append(f"{program.name}, case {number}: {story}: {'; '.join(found)}")
            print(f"WRONG {self.wrong[-1]}", flush=True)
        shutil.rmtree(folder, ignore_errors=True)

    def kill(self, program: Program) -> forks.Kill:
        """At a random moment, or at a random change of a file."""
        if self.random.random() < 0.3:
            return forks.Kill(seconds=self.random.uniform(0.0, self.seconds[program.name]))
        k = self.random.randint(1, self.calls[program.name])
        return forks.Kill(call=k, where=self.random.choice(WHERE))

    def go_on(self, program: Program, folder: Path, kill: forks.Kill | None) -> forks.Outcome:
        """Begin, or go on where the folder is a run already."""
        is_run = (folder / "config.json").exists()
        work = program.go_on if is_run else program.begin
        return forks.call(lambda: work(folder), self.place, kill)
