"""Runs that are killed: at a random moment, or at their k-th change of a file; then they go on.

Right is what ends as the run that nobody disturbed: the same files with the same bytes, and no
others.
"""

from __future__ import annotations

import random
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import forks
import programs
from kept import Kept, Log
from programs import Program
from remembered import remember

WHERE = ("before", "half", "after")
MOST_IN_A_ROW = 3  # kills of one run, the second and third while it goes on


class Kills:
    """A campaign of kills; everything is written below the folder of `kept`."""

    def __init__(self, kept: Kept, seed: int, names: tuple[str, ...] = ()) -> None:
        remember(kept.path / "remembered")
        self.kept = kept
        self.seed = seed
        self.wrong: list[str] = []
        self.kills: Counter[str] = Counter()
        self.programs = []
        for program in programs.programs(kept.path):
            if not names or program.name in names:
                self.programs.append(program)
        self.whole: dict[str, Path] = {}
        self.calls: dict[str, int] = {}
        self.seconds: dict[str, float] = {}
        self.random = random.Random()

    def measure(self) -> None:
        """Run every program once without a kill."""
        for program in self.programs:
            name = f"whole-{program.name}"
            log = self.kept.log(name)

            def make(folder: Path, program: Program = program, log: Log = log) -> None:
                began = time.monotonic()
                outcome = self.go_on(program, folder, None)
                assert outcome.code == 0, outcome.err
                log.append([outcome.calls, time.monotonic() - began])

            self.whole[program.name] = self.kept.made(name, make)
            self.calls[program.name], self.seconds[program.name] = log.read()[-1]

    def run(self, number: int) -> bool:
        """So many kills, over all programs in turn; whether they are all done."""
        self.measure()
        log = self.kept.log("kills", str(self.seed), *(program.name for program in self.programs))
        for program, num_kills, wrong in log.read():
            self._take(program, num_kills, wrong)
        case = len(log.read())
        while self.kills.total() < number:
            if self.kept.is_time_over:
                return False
            program = self.programs[case % len(self.programs)]
            num_kills, wrong = self.case(program, case)
            log.append([program.name, num_kills, wrong])
            self._take(program.name, num_kills, wrong)
            case += 1
        return True

    def _take(self, program: str, num_kills: int, wrong: str | None) -> None:
        self.kills[program] += num_kills
        if wrong is not None:
            self.wrong.append(wrong)

    def counted(self) -> Iterator[str]:
        """What came of them, in lines."""
        each = ", ".join(f"{name} {number}" for name, number in self.kills.items())
        yield f"{self.kills.total()} kills ({each}): {len(self.wrong)} runs ended wrong"

    def case(self, program: Program, number: int) -> tuple[int, str | None]:
        """One run that is killed once or several times, and then left alone.

        Returns how many kills there were, and what is wrong.
        """
        folder = self.kept.path / f"case-{number}"
        shutil.rmtree(folder, ignore_errors=True)
        self.random.seed(f"{self.seed} {program.name} {number}")
        story = []
        num_kills = 0
        for _ in range(self.random.randint(1, MOST_IN_A_ROW)):
            kill = self.kill(program)
            outcome = self.go_on(program, folder, kill)
            story.append(f"{kill} -> {outcome.code}")
            if not outcome.was_killed:
                break
            num_kills += 1
            if program.is_finished(folder):  # killed as it ended: there is nothing to go on with
                outcome = forks.Outcome(0, "", "", 0)
                break
        else:
            outcome = self.go_on(program, folder, None)
        if outcome.code == 0:
            found = programs.differences(folder, self.whole[program.name])
        else:
            found = [f"exit code {outcome.code}: {outcome.err.strip()[-300:]}"]
        shutil.rmtree(folder, ignore_errors=True)
        if not found:
            return num_kills, None
        return num_kills, f"{program.name}, case {number}: {story}: {'; '.join(found)}"

    def kill(self, program: Program) -> forks.Kill:
        """At a random moment, or at a random change of a file."""
        if self.random.random() < 0.3:
            return forks.Kill(seconds=self.random.uniform(0.0, self.seconds[program.name]))
        k = self.random.randint(1, self.calls[program.name])
        return forks.Kill(call=k, where=self.random.choice(WHERE))

    def go_on(self, program: Program, folder: Path, kill: forks.Kill | None) -> forks.Outcome:
        """Begin, or go on where the folder is a run already."""
        work = program.go_on if program.is_begun(folder) else program.begin
        return forks.call(lambda: work(folder), self.kept.path, kill)
